// Package record keeps what is on record: mirrors where a grant reaches, tombstones that outlive a namespace, small once it
// is old, and for as long as it must be kept. What a record says is the grant controller's.
package record

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/internal/partial"
	"supportaccess.dev/operator/internal/records"
)

// Reconciler keeps the records.
type Reconciler struct {
	// Client reads from the cache and writes.
	Client client.Client
	// Live reads from the API server itself, before a record is dropped.
	Live client.Reader
	// Clock is read once a pass.
	Clock clock.PassiveClock
	// Retention is how long a record is kept after its grant ended.
	Retention time.Duration

	// lost are the records that went with their namespace before a tombstone was written.
	lost sync.Map
}

// SetupWithManager registers the controller and what it watches.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	namespaces := partial.Object("Namespace")
	going := predicate.NewPredicateFuncs(func(o client.Object) bool { return !o.GetDeletionTimestamp().IsZero() })
	return ctrl.NewControllerManagedBy(mgr).Named("record").
		For(&v1alpha1.SupportAccessRecord{}, builder.WithPredicates(predicate.Funcs{DeleteFunc: r.remember})).
		WatchesMetadata(namespaces, handler.EnqueueRequestsFromMapFunc(r.recordsOfNamespace), builder.WithPredicates(going)).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4, ReconciliationTimeout: time.Minute}).
		Complete(r)
}

// remember keeps a record that was deleted until the next pass: if it went with its namespace, this is all that is left.
func (r *Reconciler) remember(e event.DeleteEvent) bool {
	if record, ok := e.Object.(*v1alpha1.SupportAccessRecord); ok && isHome(record) {
		r.lost.Store(client.ObjectKeyFromObject(record), record.DeepCopy())
	}
	return true
}

func (r *Reconciler) recordsOfNamespace(ctx context.Context, o client.Object) []reconcile.Request {
	records := &v1alpha1.SupportAccessRecordList{}
	if err := r.Client.List(ctx, records, client.InNamespace(o.GetName()), client.UnsafeDisableDeepCopy); err != nil {
		return nil
	}
	requests := make([]reconcile.Request, 0, len(records.Items))
	for i := range records.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&records.Items[i])})
	}
	return requests
}

// isHome reports whether a record lies in its grant's own namespace: it is the account, and all others are its copies.
func isHome(record *v1alpha1.SupportAccessRecord) bool {
	return records.IsOfGrant(record) && records.IsOwn(record)
}

// Reconcile keeps one record.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	record := &v1alpha1.SupportAccessRecord{}
	err := r.Client.Get(ctx, request.NamespacedName, record)
	if apierrors.IsNotFound(err) {
		return reconcile.Result{}, r.bury(ctx, request.NamespacedName)
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("get record %s: %w", request.NamespacedName, err)
	}
	if !isHome(record) {
		return r.age(ctx, record)
	}
	if err := r.copy(ctx, record); err != nil {
		return reconcile.Result{}, err
	}
	result, err := r.age(ctx, record)
	if wait := r.untilKept(record); wait > 0 && (result.RequeueAfter == 0 || wait < result.RequeueAfter) {
		result.RequeueAfter = wait
	}
	return result, err
}

// bury writes the tombstone of a record that went with its namespace.
func (r *Reconciler) bury(ctx context.Context, key types.NamespacedName) error {
	kept, ok := r.lost.Load(key)
	if !ok {
		return nil
	}
	going, err := r.going(ctx, key.Namespace)
	if err != nil {
		return err
	}
	if going {
		if err := r.put(ctx, kept.(*v1alpha1.SupportAccessRecord), v1alpha1.SystemNamespace); err != nil {
			return err
		}
	}
	r.lost.Delete(key)
	return nil
}

// going reports whether a namespace is being deleted or gone.
func (r *Reconciler) going(ctx context.Context, name string) (bool, error) {
	namespace := partial.Object("Namespace")
	err := r.Client.Get(ctx, types.NamespacedName{Name: name}, namespace)
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("get namespace %q: %w", name, err)
	}
	return !namespace.DeletionTimestamp.IsZero(), nil
}

// copy keeps the copies of a record as it is: one in every other namespace that the grant reaches, for the admins there,
// one in the operator's namespace for a grant that reaches the whole cluster or whose name must outlive its namespace.
func (r *Reconciler) copy(ctx context.Context, record *v1alpha1.SupportAccessRecord) error {
	places := lifecycle.MirrorPlaces(record)
	buried, err := r.mustBury(ctx, record)
	if err != nil {
		return err
	}
	if buried {
		places = append(places, v1alpha1.SystemNamespace)
	}
	for _, place := range places {
		if err := r.put(ctx, record, place); err != nil {
			return err
		}
	}
	return nil
}

// keepNameAfter is how long a record lies with its namespace alone: while many grants end at once nothing is copied, and
// most grants that are made open before it is over.
const keepNameAfter = 10 * time.Second

// untilKept returns for how long a record may still lie with its namespace alone, zero if it must not or always may. While
// a grant is open its finalizer holds the namespace until the operator has seen to both. Nothing holds the namespace of one
// that has ended or that waits: deleted while the operator is down, it takes the record along, and the name would be new.
func (r *Reconciler) untilKept(record *v1alpha1.SupportAccessRecord) time.Duration {
	since := record.CreationTimestamp.Time
	if end := record.Status.EndTime; end != nil {
		since = end.Time
	} else if record.Status.ProvisionedTime != nil {
		return 0
	}
	return max(since.Add(keepNameAfter).Sub(r.Clock.Now()), 0)
}

// mustBury reports whether a record is to be in the operator's namespace, too.
func (r *Reconciler) mustBury(ctx context.Context, record *v1alpha1.SupportAccessRecord) (bool, error) {
	open := record.Status.EndTime == nil && record.Status.ProvisionedTime != nil
	if !open && r.untilKept(record) == 0 {
		return true, nil
	}
	if going, err := r.going(ctx, record.Namespace); err != nil || going {
		return going, err
	}
	// One that was buried while it waited is kept as it is.
	err := r.Client.Get(ctx, lifecycle.TombstoneKey(client.ObjectKeyFromObject(record)), &v1alpha1.SupportAccessRecord{})
	return err == nil, client.IgnoreNotFound(err)
}

// put writes a copy of a record into a namespace. A namespace that is gone or going takes none, and that is no error:
// there is nobody there to show it to.
func (r *Reconciler) put(ctx context.Context, record *v1alpha1.SupportAccessRecord, namespace string) error {
	mirror := lifecycle.Mirror(record, namespace)
	present := &v1alpha1.SupportAccessRecord{}
	err := r.Client.Get(ctx, client.ObjectKeyFromObject(mirror), present)
	switch {
	case apierrors.IsNotFound(err):
		if gone, goneErr := r.going(ctx, namespace); goneErr != nil || gone {
			return goneErr
		}
		err = r.Client.Create(ctx, mirror)
	case err == nil && (present.Spec.Grant.UID != record.Spec.Grant.UID || equality.Semantic.DeepEqual(present.Status, mirror.Status)):
		return nil
	case err == nil:
		mirror.ResourceVersion = present.ResourceVersion
		err = r.Client.Update(ctx, mirror)
	}
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("copy record %s/%s to %q: %w", record.Namespace, record.Name, namespace, err)
	}
	return nil
}
