package record

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/api/v1alpha1"
)

const (
	// shrinkAfter is how long after the end a record keeps everything.
	shrinkAfter = 7 * 24 * time.Hour
	// shrunkSize is how large a record may be after that, in bytes of JSON.
	shrunkSize = 4096
	// lookAgain is how soon a record is looked at again that may not yet be dropped.
	lookAgain = 24 * time.Hour
	// shrunkMessage is how long a message of a shrunk record may be, in bytes.
	shrunkMessage = 160
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
	if small := Shrink(record); small != nil {
		if err := r.Client.Update(ctx, small); err != nil {
			return reconcile.Result{}, fmt.Errorf("shrink record %s/%s: %w", record.Namespace, record.Name, err)
		}
	}
	return reconcile.Result{RequeueAfter: ended.Add(r.Retention).Sub(now)}, nil
}

// drop deletes a record that has been kept long enough, unless a grant of its name exists: without the record that
// grant would look new.
func (r *Reconciler) drop(ctx context.Context, record *v1alpha1.SupportAccessRecord) (reconcile.Result, error) {
	grant := record.Spec.Grant
	err := r.Live.Get(ctx, types.NamespacedName{Namespace: grant.Namespace, Name: grant.Name}, &v1alpha1.SupportAccessGrant{})
	if err == nil {
		return reconcile.Result{RequeueAfter: lookAgain}, nil
	}
	if !apierrors.IsNotFound(err) {
		return reconcile.Result{}, fmt.Errorf("get grant %s/%s: %w", grant.Namespace, grant.Name, err)
	}
	if err := r.Client.Delete(ctx, record, client.Preconditions{UID: &record.UID}); client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("drop record %s/%s: %w", record.Namespace, record.Name, err)
	}
	return reconcile.Result{}, nil
}

// Shrink returns a record with what matters years later, nil if it is small already: who, what, when, why, how it ended.
// What it leaves out of the transitions it counts.
func Shrink(record *v1alpha1.SupportAccessRecord) *v1alpha1.SupportAccessRecord {
	if size(record) <= shrunkSize {
		return nil
	}
	small := record.DeepCopy()
	small.Status.Bindings = nil
	for i := range small.Status.Transitions {
		small.Status.Transitions[i].Message = cut(small.Status.Transitions[i].Message)
	}
	for size(small) > shrunkSize && len(small.Status.Transitions) > 2 {
		// The first says who granted, the last how it ended: what lies between goes, the oldest first.
		small.Status.Transitions = append(small.Status.Transitions[:1], small.Status.Transitions[2:]...)
		small.Status.DroppedTransitions++
	}
	if size(small) >= size(record) {
		return nil
	}
	return small
}

func cut(message string) string {
	if len(message) <= shrunkMessage {
		return message
	}
	end := shrunkMessage
	for end > 0 && message[end]&0xC0 == 0x80 {
		end--
	}
	return message[:end] + "…"
}

// size is how large a record is without what the API server adds.
func size(record *v1alpha1.SupportAccessRecord) int {
	bare := &v1alpha1.SupportAccessRecord{
		ObjectMeta: metav1.ObjectMeta{Namespace: record.Namespace, Name: record.Name, Labels: record.Labels},
		Spec:       record.Spec,
		Status:     record.Status,
	}
	// A record is strings, numbers and lists of them: encoding it cannot fail.
	encoded, _ := json.Marshal(bare)
	return len(encoded)
}
