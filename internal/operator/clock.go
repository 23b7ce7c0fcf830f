package operator

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/skew"
)

// deployment is what tells that the clocks are apart: there is no grant to tell it of.
var deployment = &appsv1.Deployment{
	TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
	ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "support-access"},
}

// watchClock has every answer of the API server compared with our clock. Before the manager is made of the config.
func watchClock(config *rest.Config) *skew.Watch {
	watch := &skew.Watch{Clock: clock.RealClock{}}
	config.Wrap(watch.Wrap)
	return watch
}

// showClock shows by how much the clocks are apart, and tells when they come to be. Before the manager starts.
func showClock(mgr ctrl.Manager, watch *skew.Watch) error {
	apart := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "support_access_clock_skew_seconds", Help: "By how much this clock is certainly ahead of the API server's; below 0 behind it.",
	}, func() float64 { return watch.By().Seconds() })
	if err := ctrlmetrics.Registry.Register(apart); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	watch.Tell(tellClock(mgr.GetEventRecorder("support-access")))
	return nil
}

// tellClock tells in an event and in the log.
func tellClock(recorder events.EventRecorder) func(apart bool, by time.Duration) {
	return func(apart bool, by time.Duration) {
		ctrl.Log.Info("Clock compared with the API server's", "apart", apart, "by", by.String())
		if apart {
			recorder.Eventf(deployment, nil, corev1.EventTypeWarning, "ClockSkew", "Compare",
				"The clock of the operator and the API server's are at least %s apart: grants end by the one, tokens by the other. Set them by the same source", by.Abs())
			return
		}
		recorder.Eventf(deployment, nil, corev1.EventTypeNormal, "ClockInStep", "Compare", "The clock of the operator and the API server's agree again")
	}
}
