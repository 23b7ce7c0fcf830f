package operator

import (
	"fmt"
	"os"

	"github.com/spf13/pflag"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/controllers/gateway"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/metrics"
)

// ReachOptions are what the controller can be told of how engineers reach the gateway.
type ReachOptions struct {
	Server        string
	CABundle      string
	TLSServerName string
	TLSSecret     string
	TLSSelfMade   bool
	Changes       bool
}

func (o *ReachOptions) bind(flags *pflag.FlagSet) {
	flags.StringVar(&o.Server, "gateway-server", "", "URL at which engineers reach the gateway; empty where there is none")
	flags.StringVar(&o.CABundle, "gateway-ca-bundle", "", "file with the PEM bundle by which engineers know the gateway; empty to read ca.crt of --gateway-tls-secret, or the system's")
	flags.StringVar(&o.TLSServerName, "gateway-tls-server-name", "", "name that the gateway's certificate bears, where it is not that of --gateway-server")
	flags.StringVar(&o.TLSSecret, "gateway-tls-secret", "", "Secret in the operator's namespace with the gateway's certificate")
	flags.BoolVar(&o.TLSSelfMade, "gateway-tls-self-made", false, "make that certificate and renew it: the Secret must exist")
	flags.BoolVar(&o.Changes, "gateway-changes", false, "have the API server ask the gateway before an engineer changes something: make the certificate for that, and tell the API server its CA")
}

// address returns how engineers reach the gateway.
func (o *ReachOptions) address(live client.Reader, now clock.PassiveClock) (*access.GatewayAddress, error) {
	address := &access.GatewayAddress{
		Told: access.Cluster{Server: o.Server, TLSServerName: o.serverName()}, TLSSecret: o.TLSSecret, Live: live, Clock: now,
	}
	if o.CABundle != "" {
		bundle, err := os.ReadFile(o.CABundle)
		if err != nil {
			return nil, fmt.Errorf("read --gateway-ca-bundle: %w", err)
		}
		address.Told.CABundle = bundle
	}
	return address, nil
}

// selfMadeName is the name that a self-made certificate bears, whatever the address: it never changes.
const selfMadeName = "support-access-gateway." + v1alpha1.SystemNamespace + ".svc"

// serverName returns the name that the gateway's certificate bears, empty where it bears that of the URL.
func (o *ReachOptions) serverName() string {
	if o.TLSServerName == "" && o.TLSSelfMade {
		return selfMadeName
	}
	return o.TLSServerName
}

// addTo has the controller keep what the gateway needs, and what it must not write itself.
func (o *ReachOptions) addTo(mgr ctrl.Manager, now clock.Clock, counters *metrics.Counters) error {
	if o.Server != "" {
		users := &gateway.Users{Client: mgr.GetClient(), Clock: now}
		if err := users.SetupWithManager(mgr); err != nil {
			return fmt.Errorf("set up the lists of the gateway's users: %w", err)
		}
		sessions := &gateway.Sessions{Client: mgr.GetClient(), Clock: now}
		if err := sessions.SetupWithManager(mgr); err != nil {
			return fmt.Errorf("set up the sweeping of sessions: %w", err)
		}
		checkpoints := &gateway.Checkpoints{
			Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Clock: now, Recorder: mgr.GetEventRecorder("support-access"), Counters: counters,
		}
		if err := checkpoints.SetupWithManager(mgr); err != nil {
			return fmt.Errorf("set up the keeping of checkpoints: %w", err)
		}
	}
	if o.Changes {
		if err := mgr.Add(&gateway.Webhook{Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Clock: now}); err != nil {
			return fmt.Errorf("set up the webhook of changes: %w", err)
		}
	}
	if !o.TLSSelfMade {
		return nil
	}
	certificate := &gateway.Certificate{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Clock: now, Secret: o.TLSSecret, ServerName: o.serverName(),
	}
	if err := mgr.Add(certificate); err != nil {
		return fmt.Errorf("set up the gateway's certificate: %w", err)
	}
	return nil
}
