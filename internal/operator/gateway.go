package operator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/gateway"
)

// ProxyOptions are what the gateway can be told.
type ProxyOptions struct {
	BindAddress    string
	CertDir        string
	MetricsAddress string
	HealthAddress  string
	ShutdownDelay  time.Duration
	Audit          AuditOptions
	Changes        ChangeOptions
	LogLevel       string
	LogFormat      string
}

// GatewayCommand returns the subcommand that runs the gateway.
func GatewayCommand(version string) *cobra.Command {
	var o ProxyOptions
	command := &cobra.Command{
		Use:   "gateway",
		Short: "Let engineers in, and cut them off when their grant ends",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return runGateway(command.Context(), o, version)
		},
	}
	flags := command.Flags()
	flags.StringVar(&o.BindAddress, "bind-address", ":9443", "address at which engineers come in, over TLS")
	flags.StringVar(&o.CertDir, "tls-cert-dir", "/etc/support-access/tls", "folder with tls.crt and tls.key, read again when they change")
	flags.StringVar(&o.MetricsAddress, "metrics-bind-address", ":8443", "address of the metrics, over TLS and for who may read them; 0 for none")
	flags.StringVar(&o.HealthAddress, "health-probe-bind-address", ":8081", "address of /healthz and /readyz; 0 for none")
	flags.DurationVar(&o.ShutdownDelay, "shutdown-delay", 0, "for how long it goes on, not ready any more, after it was told to stop; at most 20s")
	o.Audit.bind(flags)
	o.Changes.bind(flags)
	flags.StringVar(&o.LogLevel, "log-level", "info", "debug, info or error")
	flags.StringVar(&o.LogFormat, "log-format", "json", "json or text")
	return command
}

func runGateway(ctx context.Context, o ProxyOptions, version string) error {
	if err := errors.Join(checkLog(o.LogLevel, o.LogFormat), o.checkDelay(), o.Audit.check(), o.Changes.check()); err != nil {
		return err
	}
	setLogger(o.LogLevel, o.LogFormat)
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the API server: %w", err)
	}
	config.QPS = -1
	mgr, hearing, err := newGatewayManager(config, o)
	if err != nil {
		return err
	}
	if err := o.Audit.measure(ctrlmetrics.Registry); err != nil {
		return err
	}
	log, err := o.Audit.open(ctx, clock.RealClock{})
	if err != nil {
		return err
	}
	if err := o.Audit.keep(mgr, log, clock.RealClock{}); err != nil {
		return err
	}
	if err := addGateway(mgr, config, o, hearing, log); err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("staying", staying(ctx)); err != nil {
		return fmt.Errorf("add readiness check: %w", err)
	}
	ctrl.Log.Info("Starting", "version", version)
	lasting, end := linger(ctx, o.ShutdownDelay, clock.RealClock{})
	defer end()
	if err := mgr.Start(lasting); err != nil {
		return fmt.Errorf("run: %w", err)
	}
	if err := log.Close(); err != nil {
		return fmt.Errorf("close the audit log: %w", err)
	}
	return nil
}

// maxShutdownDelay leaves time to end streams before the pod is killed, 30 s after it was told to stop.
const maxShutdownDelay = 20 * time.Second

func (o *ProxyOptions) checkDelay() error {
	if o.ShutdownDelay < 0 || o.ShutdownDelay > maxShutdownDelay {
		return fmt.Errorf("--shutdown-delay: %s is not between 0s and %s", o.ShutdownDelay, maxShutdownDelay)
	}
	return nil
}

// newGatewayManager returns the manager with the cache from which the gateway knows grants, and what listens whether it
// is fed.
func newGatewayManager(config *rest.Config, o ProxyOptions) (ctrl.Manager, *gateway.Hearing, error) {
	scheme, err := Scheme()
	if err != nil {
		return nil, nil, err
	}
	managed := labels.SelectorFromSet(labels.Set{v1alpha1.LabelManaged: "true"})
	heard := rest.CopyConfig(config)
	hearing := gateway.Hear(heard, clock.RealClock{})
	asItIs := func(object any) (any, error) { return object, nil }
	mgr, err := ctrl.NewManager(heard, ctrl.Options{
		Scheme: scheme,
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(),
			ByObject: map[client.Object]cache.ByObject{
				&rbacv1.RoleBinding{}:        {Label: managed},
				&rbacv1.ClusterRoleBinding{}: {Label: managed},
				// With what a policy was changed is read from its managed fields.
				&v1alpha1.SupportAccessPolicy{}: {Transform: asItIs},
			},
		},
		Metrics:                metricsserver.Options{BindAddress: o.MetricsAddress, SecureServing: true, FilterProvider: filters.WithAuthenticationAndAuthorization},
		HealthProbeBindAddress: o.HealthAddress,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("make the manager: %w", err)
	}
	return mgr, hearing, nil
}

// addGateway registers the gateway with its certificate and its health checks.
func addGateway(mgr ctrl.Manager, config *rest.Config, o ProxyOptions, hearing *gateway.Hearing, log *auditLog) error {
	certificate := &gateway.Certificate{Dir: o.CertDir, Clock: clock.RealClock{}}
	if err := mgr.Add(certificate); err != nil {
		return fmt.Errorf("set up the serving certificate: %w", err)
	}
	if err := o.Audit.serve(mgr, log, certificate.Get); err != nil {
		return err
	}
	writer, err := client.New(config, client.Options{Scheme: mgr.GetScheme()})
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	if err := o.Audit.tell(mgr, writer, log); err != nil {
		return err
	}
	secrets, err := o.Audit.secrets()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", o.BindAddress)
	if err != nil {
		return fmt.Errorf("listen on --bind-address: %w", err)
	}
	door, err := gateway.New(gateway.Options{
		Listener: listener, Certificate: certificate.Get, API: config, Hearing: hearing, Reader: mgr.GetClient(), Client: writer, Log: log, Secrets: secrets,
		Replica: replicaName(), ReplicaUID: types.UID(os.Getenv("POD_UID")),
		Registry: ctrlmetrics.Registry, Clock: clock.RealClock{}, Logger: ctrl.Log.WithName("gateway"),
	})
	if err != nil {
		return err
	}
	if err := door.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("set up the gateway: %w", err)
	}
	if err := o.Changes.serve(mgr, door, secrets[0]); err != nil {
		return err
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("add health check: %w", err)
	}
	for name, check := range map[string]healthz.Checker{"grants": door.Ready, "impersonation": door.MayAct, "certificate": certificate.Ready} {
		if err := mgr.AddReadyzCheck(name, check); err != nil {
			return fmt.Errorf("add readiness check: %w", err)
		}
	}
	return nil
}

// tell has what the audit log says of itself and of ended grants handed over to the controller, and what happens to grants put down. In a file
// of lines nobody finds what is there already.
func (o *AuditOptions) tell(mgr ctrl.Manager, writer client.Client, log *auditLog) error {
	behind := &gateway.LeftBehind{
		Client: mgr.GetClient(), Retention: o.Retention, Shared: o.Postgres.URL != "", Clock: clock.RealClock{},
		Replica: replicaName(), ReplicaUID: types.UID(os.Getenv("POD_UID")), Logger: ctrl.Log.WithName("audit"),
	}
	if log.reader != nil {
		behind.Past = log.reader
	}
	if err := behind.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("set up the telling of what was left behind: %w", err)
	}
	if log.reader == nil {
		return nil
	}
	checkpoints := &gateway.Checkpoints{
		Client: writer, Log: log.reader, Replica: replicaName(), ReplicaUID: types.UID(os.Getenv("POD_UID")), Clock: clock.RealClock{},
		Logger: ctrl.Log.WithName("audit"),
	}
	if err := checkpoints.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("set up the handing over of checkpoints: %w", err)
	}
	history := &gateway.History{
		Reader: mgr.GetClient(), Log: log, Past: log.reader, Retention: o.Retention, Shared: o.Postgres.URL != "",
		Clock: clock.RealClock{}, Replica: replicaName(),
	}
	if err := history.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("set up the history of grants: %w", err)
	}
	return nil
}

// replicaName is the pod's name, or the host's outside of a cluster.
func replicaName() string {
	if pod := os.Getenv("POD_NAME"); pod != "" {
		return pod
	}
	host, err := os.Hostname()
	if err != nil {
		return "gateway"
	}
	return host
}
