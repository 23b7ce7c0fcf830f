// Package decision says what each SupportAccessDecision did, and lets go of it once the records have taken it over.
// Carrying it out is the grants' own work.
package decision

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/internal/records"
)

// Reconciler writes the condition Applied and takes off the finalizer.
type Reconciler struct {
	// Client reads from the cache and writes.
	Client client.Client
	// Live reads from the API server itself: what the cache has not yet heard of must not be called absent.
	Live client.Reader
	// Clock is read once a pass.
	Clock clock.PassiveClock
}

// SetupWithManager registers the controller and what it watches.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("decision").
		For(&v1alpha1.SupportAccessDecision{}).
		Watches(&v1alpha1.SupportAccessRecord{}, handler.EnqueueRequestsFromMapFunc(r.decisionsOfRecord)).
		WithOptions(controller.Options{MaxConcurrentReconciles: 2, ReconciliationTimeout: time.Minute}).
		Complete(r)
}

// decisionsOfRecord maps a record to the decisions that concern its grant and are not yet applied.
func (r *Reconciler) decisionsOfRecord(ctx context.Context, o client.Object) []reconcile.Request {
	record := o.(*v1alpha1.SupportAccessRecord)
	if of := record.Spec.Request; of != nil {
		return r.denialsOf(ctx, *of)
	}
	if !records.IsOfGrant(record) {
		return nil
	}
	var requests []reconcile.Request
	for _, namespace := range []string{record.Spec.Grant.Namespace, v1alpha1.SystemNamespace} {
		decisions := &v1alpha1.SupportAccessDecisionList{}
		if err := r.Client.List(ctx, decisions, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
			return nil
		}
		for i := range decisions.Items {
			d := &decisions.Items[i]
			if controllerutil.ContainsFinalizer(d, v1alpha1.FinalizerDecision) && lifecycle.Concerns(d, keyOf(record)) {
				requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(d)})
			}
		}
	}
	return requests
}

func keyOf(record *v1alpha1.SupportAccessRecord) lifecycle.GrantKey {
	grant := record.Spec.Grant
	key := lifecycle.GrantKey{Namespace: grant.Namespace, Name: grant.Name, UID: grant.UID}
	if grant.CreationTime != nil {
		key.Created = grant.CreationTime.Time
	}
	return key
}

// Reconcile looks whether every record that a decision concerns has taken it over.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	d := &v1alpha1.SupportAccessDecision{}
	if err := r.Client.Get(ctx, request.NamespacedName, d); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if !controllerutil.ContainsFinalizer(d, v1alpha1.FinalizerDecision) {
		return reconcile.Result{}, nil
	}
	verdict, err := r.judge(ctx, d)
	if err != nil {
		return reconcile.Result{}, err
	}
	err = r.save(ctx, d, verdict)
	if err == nil && !verdict.settled {
		return reconcile.Result{RequeueAfter: verdict.again}, nil
	}
	if err == nil {
		err = r.release(ctx, d)
	}
	if apierrors.IsConflict(err) {
		return reconcile.Result{RequeueAfter: overtakenAgain}, nil
	}
	return reconcile.Result{}, err
}

// judge looks at what a decision concerns, as the API server has it now.
func (r *Reconciler) judge(ctx context.Context, d *v1alpha1.SupportAccessDecision) (verdict, error) {
	if d.Spec.Target.Request != "" {
		return r.judgeDenial(ctx, d)
	}
	targets, err := r.targets(ctx, d)
	if err != nil {
		return verdict{}, err
	}
	return judge(d, targets, r.Clock.Now()), nil
}

// overtakenAgain is how soon a decision is looked at again of which the cache had not yet heard the latest.
const overtakenAgain = 20 * time.Millisecond

// target is one grant that a decision concerns: the grant, its record, or both.
type target struct {
	grant  *v1alpha1.SupportAccessGrant
	record *v1alpha1.SupportAccessRecord
}

// targets returns the grants that a decision concerns, as the API server has them now.
func (r *Reconciler) targets(ctx context.Context, d *v1alpha1.SupportAccessDecision) ([]target, error) {
	grants, records, err := r.candidates(ctx, d)
	if err != nil {
		return nil, err
	}
	found := map[types.NamespacedName]target{}
	for i := range records {
		record := &records[i]
		if key := keyOf(record); lifecycle.Concerns(d, key) && record.Name == key.Name {
			found[types.NamespacedName{Namespace: key.Namespace, Name: key.Name}] = target{record: record}
		}
	}
	for i := range grants {
		grant := &grants[i]
		key := lifecycle.GrantKey{Namespace: grant.Namespace, Name: grant.Name, UID: grant.UID, Created: grant.CreationTimestamp.Time}
		if lifecycle.Concerns(d, key) {
			name := client.ObjectKeyFromObject(grant)
			t := found[name]
			t.grant = grant
			found[name] = t
		}
	}
	out := make([]target, 0, len(found))
	for _, t := range found {
		out = append(out, t)
	}
	return out, nil
}

// candidates reads the grants and records among which the decision's targets are.
func (r *Reconciler) candidates(ctx context.Context, d *v1alpha1.SupportAccessDecision) ([]v1alpha1.SupportAccessGrant, []v1alpha1.SupportAccessRecord, error) {
	if d.Spec.Target.Grant != "" {
		return r.named(ctx, types.NamespacedName{Namespace: d.Namespace, Name: d.Spec.Target.Grant})
	}
	namespace := d.Namespace
	if d.Spec.Target.Cluster != "" {
		namespace = ""
	}
	grants, records := &v1alpha1.SupportAccessGrantList{}, &v1alpha1.SupportAccessRecordList{}
	if err := r.Live.List(ctx, grants, client.InNamespace(namespace)); err != nil {
		return nil, nil, fmt.Errorf("list grants: %w", err)
	}
	if err := r.Live.List(ctx, records, client.InNamespace(namespace)); err != nil {
		return nil, nil, fmt.Errorf("list records: %w", err)
	}
	return grants.Items, records.Items, nil
}

func (r *Reconciler) named(ctx context.Context, key types.NamespacedName) ([]v1alpha1.SupportAccessGrant, []v1alpha1.SupportAccessRecord, error) {
	var grants []v1alpha1.SupportAccessGrant
	var records []v1alpha1.SupportAccessRecord
	grant, record := v1alpha1.SupportAccessGrant{}, v1alpha1.SupportAccessRecord{}
	if err := r.Live.Get(ctx, key, &grant); err == nil {
		grants = append(grants, grant)
	} else if !apierrors.IsNotFound(err) {
		return nil, nil, fmt.Errorf("get grant %s: %w", key, err)
	}
	if err := r.Live.Get(ctx, key, &record); err == nil {
		records = append(records, record)
	} else if !apierrors.IsNotFound(err) {
		return nil, nil, fmt.Errorf("get record %s: %w", key, err)
	}
	return grants, records, nil
}

// release takes off the finalizer: the act is on record, and the object is only its explanation now.
func (r *Reconciler) release(ctx context.Context, d *v1alpha1.SupportAccessDecision) error {
	released := d.DeepCopy()
	controllerutil.RemoveFinalizer(released, v1alpha1.FinalizerDecision)
	patch := client.MergeFromWithOptions(d, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Patch(ctx, released, patch); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("release decision %s/%s: %w", d.Namespace, d.Name, err)
	}
	return nil
}
