package record

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/records"
)

const (
	// shrinkAfter is how long after the end a record keeps everything.
	shrinkAfter = 7 * 24 * time.Hour
	// lookAgain is how soon a record is looked at again that may not yet be dropped.
	lookAgain = 24 * time.Hour
)

// age makes a record small a week after its grant ended, and drops it when it has been kept long enough.
func (r *Reconciler) age(ctx context.Context, record *v1alpha1.SupportAccessRecord) (reconcile.Result, error) {
	if record.Status.EndTime == nil {
		return reconcile.Result{}, nil
	}
	now, ended := r.Clock.Now(), record.Status.EndTime.Time
	if drop := ended.Add(r.Retention); !now.Before(drop) {
		return r.drop(ctx, record)
	}
	shrink := ended.Add(shrinkAfter)
	if now.Before(shrink) {
		return reconcile.Result{RequeueAfter: min(shrink.Sub(now), ended.Add(r.Retention).Sub(now))}, nil
	}
	if small := records.Shrink(record); small != nil {
		if err := r.Client.Update(ctx, small); err != nil {
			return reconcile.Result{}, fmt.Errorf("shrink record %s/%s: %w", record.Namespace, record.Name, err)
		}
	}
	return reconcile.Result{RequeueAfter: ended.Add(r.Retention).Sub(now)}, nil
}

// drop deletes a record that has been kept long enough, unless a grant, or a request, of its name exists: without the record
// that would look new.
func (r *Reconciler) drop(ctx context.Context, record *v1alpha1.SupportAccessRecord) (reconcile.Result, error) {
	grant, about := record.Spec.Grant, client.Object(&v1alpha1.SupportAccessGrant{})
	key := types.NamespacedName{Namespace: grant.Namespace, Name: grant.Name}
	if of := record.Spec.Request; of != nil {
		key, about = types.NamespacedName{Namespace: of.Namespace, Name: of.Name}, &v1alpha1.SupportAccessRequest{}
	}
	err := r.Live.Get(ctx, key, about)
	if err == nil {
		return reconcile.Result{RequeueAfter: lookAgain}, nil
	}
	if !apierrors.IsNotFound(err) {
		return reconcile.Result{}, fmt.Errorf("get what record %s is about: %w", key, err)
	}
	if err := r.Client.Delete(ctx, record, client.Preconditions{UID: &record.UID}); client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("drop record %s/%s: %w", record.Namespace, record.Name, err)
	}
	return reconcile.Result{}, nil
}
