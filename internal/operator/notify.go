package operator

import (
	"fmt"
	"net/netip"

	"github.com/spf13/pflag"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"

	"supportaccess.dev/operator/controllers/notification"
	"supportaccess.dev/operator/internal/metrics"
	"supportaccess.dev/operator/internal/notify"
)

// NotifyOptions are where channels of notifications may lead. Policies name channels; this is for who installs the operator.
type NotifyOptions struct {
	// Allow are addresses that channels may reach although they would not.
	Allow []string
	// Plaintext lets channels go without TLS.
	Plaintext bool
}

func (o *NotifyOptions) bind(flags *pflag.FlagSet) {
	flags.StringSliceVar(&o.Allow, "notify-allow", nil, "addresses, such as 10.0.0.25/32, that notifications may be sent to although they are of this machine, of its link or of a cloud's metadata")
	flags.BoolVar(&o.Plaintext, "notify-plaintext", false, "let notifications go without TLS where a policy says so")
}

// addTo registers the controller that tells people what happens.
func (o *NotifyOptions) addTo(mgr ctrl.Manager, now clock.PassiveClock, counters *metrics.Counters) error {
	reach := &notify.Reach{Plaintext: o.Plaintext}
	for _, text := range o.Allow {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return fmt.Errorf("--notify-allow: %w", err)
		}
		reach.Allowed = append(reach.Allowed, prefix)
	}
	notices := &notification.Reconciler{
		Client: policyClientOf(mgr), Live: mgr.GetAPIReader(), Clock: now,
		Recorder: mgr.GetEventRecorder("support-access"), Counters: counters, Reach: reach,
	}
	if err := notices.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("set up the notification controller: %w", err)
	}
	return nil
}
