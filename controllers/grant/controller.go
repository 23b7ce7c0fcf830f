// Package grant brings the cluster to what each SupportAccessGrant demands now: it observes, decides, enacts, saves and
// announces. What to decide it asks internal/lifecycle, and what access consists of it leaves to internal/access.
package grant

import (
	"context"
	"sync"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/metrics"
	"supportaccess.dev/operator/internal/partial"
	"supportaccess.dev/operator/internal/policies"
	"supportaccess.dev/operator/internal/records"
)

// Admission says whether the admission policies guard the cluster.
type Admission interface {
	// InForce returns since when they have done so without a break, and otherwise why nothing may open.
	InForce() (since time.Time, pending string)
}

// Addresses says how engineers reach the API server, or the gateway.
type Addresses interface {
	// Cluster returns the address and the CA, or an error that says what is missing or what a person must set.
	Cluster(ctx context.Context) (access.Cluster, error)
}

// Reconciler opens and closes grants.
type Reconciler struct {
	// Client reads from the cache and writes.
	Client client.Client
	// Live reads from the API server itself, where stale would be unsafe.
	Live client.Reader
	// Keeper opens and closes access.
	Keeper access.Keeper
	// Admission says whether anything may open.
	Admission Admission
	// Addresses says how engineers reach the API server.
	Addresses Addresses
	// Binder says which roles the operator may bind. Without one it finds out when it tries.
	Binder Binder
	// Gateway says how engineers reach the gateway.
	Gateway Addresses
	// Sessions reads what the gateway says of who is connected, from the cache; nil where there is no gateway.
	Sessions client.Reader
	// Rules keeps what roles allow.
	Rules *records.Rules
	// Counters count what is done, where there are any.
	Counters *metrics.Counters
	// Recorder announces changes as Kubernetes Events.
	Recorder events.EventRecorder
	// Clock is read once a pass.
	Clock clock.PassiveClock
	// Workers is how many grants are worked on at once.
	Workers int
	// Woken wakes every grant, when admission comes into force.
	Woken <-chan event.GenericEvent

	// followed is when the status of a grant last followed its sessions.
	followed sync.Map
	// cuts are the first passes, by grant, that await their second.
	cuts sync.Map
	// forbidden are the obstacles that were met on the way of opening, by grant.
	forbidden sync.Map
	// failing says since when it goes wrong to take away what a grant gave, by the grant's UID.
	failing sync.Map
	// room bounds how many grants open at once.
	room room
	// ambience is what identities may do without a grant.
	ambience ambience
}

// Priorities of the queue: what takes access away goes before what clears up after it, that before what gives, and all
// before what only looks.
const (
	priorityEnd  = 100
	priorityRest = 50
	priorityOpen = 0
)

// passTime is for how long one pass may give access. It is less than the time between the moment at which a leader must
// have stopped and the moment at which another may begin.
const passTime = 4 * time.Second

// Indexes of the cache.
const (
	indexRoles = "spec.roles"
	indexGrant = "grant"
)

// SetupWithManager registers the controller and what it watches. It goes by records.IndexPlaces, too.
func (r *Reconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager) error {
	if err := index(ctx, mgr.GetFieldIndexer()); err != nil {
		return err
	}
	secrets, accounts, namespaces := partial.Object("Secret"), partial.Object("ServiceAccount"), partial.Object("Namespace")
	b := ctrl.NewControllerManagedBy(mgr).Named("grant").
		WatchesRawSource(source.Func(r.furnish)).
		Watches(&v1alpha1.SupportAccessGrant{}, prioritized(r.grantsOfGrant)).
		Watches(&v1alpha1.SupportAccessRecord{}, prioritized(r.grantsOfRecord)).
		Watches(&v1alpha1.SupportAccessDecision{}, prioritized(r.grantsOfDecision)).
		Watches(&v1alpha1.SupportAccessSetting{}, prioritized(r.grantsOfSetting)).
		Watches(&v1alpha1.SupportAccessRequest{}, prioritized(r.grantsOfRequest)).
		WatchesRawSource(policies.Unawaited{Source: source.Kind(mgr.GetCache(), client.Object(&v1alpha1.SupportAccessPolicy{}), prioritized(r.allGrants))}).
		Watches(&rbacv1.RoleBinding{}, prioritized(grantsOfChild)).
		Watches(&rbacv1.ClusterRoleBinding{}, prioritized(grantsOfChild)).
		Watches(&rbacv1.ClusterRole{}, prioritized(r.grantsOfRole)).
		WatchesMetadata(secrets, prioritized(grantsOfChild)).
		WatchesMetadata(accounts, prioritized(grantsOfChild)).
		WatchesMetadata(namespaces, prioritized(r.grantsOfNamespace), builder.WithPredicates(partial.NamespaceChanged())).
		WithOptions(controller.Options{MaxConcurrentReconciles: r.Workers, ReconciliationTimeout: time.Minute})
	if r.Sessions != nil {
		if err := mgr.GetFieldIndexer().IndexField(ctx, &v1alpha1.SupportAccessSession{}, indexGrant, func(o client.Object) []string {
			return []string{string(o.(*v1alpha1.SupportAccessSession).Spec.Grant.UID)}
		}); err != nil {
			return err
		}
		b = b.Watches(&v1alpha1.SupportAccessSession{}, prioritized(grantsOfSession))
	}
	if r.Woken != nil {
		b = b.WatchesRawSource(source.Channel(r.Woken, prioritized(r.allGrants)))
	}
	return b.Complete(r)
}

// index lets records be found by role, and what was made for a grant by the grant.
func index(ctx context.Context, indexer client.FieldIndexer) error {
	if err := indexer.IndexField(ctx, &v1alpha1.SupportAccessRecord{}, indexRoles, func(o client.Object) []string {
		return openOnly(o, o.(*v1alpha1.SupportAccessRecord).Spec.Roles)
	}); err != nil {
		return err
	}
	for _, kind := range []client.Object{&rbacv1.RoleBinding{}, &rbacv1.ClusterRoleBinding{}, partial.Object("Secret"), partial.Object("ServiceAccount")} {
		if err := indexer.IndexField(ctx, kind, indexGrant, func(o client.Object) []string {
			key, ok := access.GrantOf(o)
			if !ok {
				return nil
			}
			return []string{key.String()}
		}); err != nil {
			return err
		}
	}
	return nil
}

// openOnly returns values for a record whose grant has not ended, and none for the many that have and for those of settings and
// requests.
func openOnly(o client.Object, values []string) []string {
	if record := o.(*v1alpha1.SupportAccessRecord); record.Status.EndTime != nil || !records.IsOfGrant(record) {
		return nil
	}
	return values
}

type mapper func(context.Context, client.Object) []types.NamespacedName

// prioritized queues the grants that an object concerns; those for which it may take something away go first. What is
// merely listed at the start goes last, as controller-runtime has it.
func prioritized(m mapper) handler.EventHandler {
	inner := handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			priority := priorityOpen
			if takesAway(e.Object) {
				priority = priorityEnd
			} else if e.IsInInitialList {
				priority = handler.LowPriority
			}
			enqueue(q, priority, m(ctx, e.Object))
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			priority := priorityOpen
			if takesAway(e.ObjectNew) {
				priority = priorityEnd
			}
			enqueue(q, priority, m(ctx, e.ObjectNew))
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			priority := priorityEnd
			if _, ours := access.GrantOf(e.Object); ours {
				// What it gave is gone already, and mostly it was this controller that deleted it.
				priority = priorityRest
			}
			enqueue(q, priority, m(ctx, e.Object))
		},
		GenericFunc: func(ctx context.Context, e event.GenericEvent, q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			enqueue(q, priorityOpen, m(ctx, e.Object))
		},
	}
	return inner
}

// takesAway reports whether an object may mean that access is to be taken away.
func takesAway(o client.Object) bool {
	if !o.GetDeletionTimestamp().IsZero() {
		return true
	}
	switch o := o.(type) {
	case *v1alpha1.SupportAccessDecision:
		return o.Spec.Action != v1alpha1.ActionApprove
	case *v1alpha1.SupportAccessSetting:
		// Whatever was changed in it, the grant of before is over.
		return true
	default:
		return false
	}
}
