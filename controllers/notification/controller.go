// Package notification tells people what records say. A record is the outbox: what happened is in it before anything else
// is done about it, and how far each channel has come is kept beside it. Whether a grant opens or ends waits for none of this.
package notification

import (
	"fmt"
	"sync"
	"time"

	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/metrics"
	"supportaccess.dev/operator/internal/notify"
)

// Reconciler tells people what records say. It works on the leader alone, with workers of its own.
type Reconciler struct {
	// Client reads from the cache and writes.
	Client client.Client
	// Live reads from the API server itself: records before something is told of them, and the Secret, which is in no cache.
	Live client.Reader
	// Recorder announces what was given up as Kubernetes Events.
	Recorder events.EventRecorder
	// Counters count what is done, where there are any.
	Counters *metrics.Counters
	// Clock is read once a pass.
	Clock clock.PassiveClock
	// Reach is where channels may lead.
	Reach *notify.Reach

	// gates hold back the channels, by their keys.
	gates sync.Map
}

// workers is how many records are told of at once. A channel is asked once at a time, so one that hangs keeps one busy.
const workers = 8

// SetupWithManager registers the controller and what it watches.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	present := predicate.NewPredicateFuncs(func(o client.Object) bool { return o.GetDeletionTimestamp().IsZero() })
	err := ctrl.NewControllerManagedBy(mgr).Named("notification").
		For(&v1alpha1.SupportAccessRecord{}, builder.WithPredicates(present)).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, ReconciliationTimeout: time.Minute}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	return nil
}
