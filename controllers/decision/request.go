package decision

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/lifecycle"
)

// denialsOf maps a request to the decisions that say no to it and are not yet applied.
func (r *Reconciler) denialsOf(ctx context.Context, of v1alpha1.RecordedRequest) []reconcile.Request {
	decisions := &v1alpha1.SupportAccessDecisionList{}
	if err := r.Client.List(ctx, decisions, client.InNamespace(of.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil
	}
	var requests []reconcile.Request
	for i := range decisions.Items {
		d := &decisions.Items[i]
		if controllerutil.ContainsFinalizer(d, v1alpha1.FinalizerDecision) && lifecycle.ConcernsRequest(d, of) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(d)})
		}
	}
	return requests
}

// judgeDenial says what a decision has done that says no to a request.
func (r *Reconciler) judgeDenial(ctx context.Context, d *v1alpha1.SupportAccessDecision) (verdict, error) {
	key := types.NamespacedName{Namespace: d.Namespace, Name: d.Spec.Target.Request}
	request, record := &v1alpha1.SupportAccessRequest{}, &v1alpha1.SupportAccessRecord{}
	if err := r.Live.Get(ctx, key, request); apierrors.IsNotFound(err) {
		request = nil
	} else if err != nil {
		return verdict{}, fmt.Errorf("get request %s: %w", key, err)
	}
	err := r.Live.Get(ctx, types.NamespacedName{Namespace: key.Namespace, Name: key.Name + v1alpha1.RequestRecordSuffix}, record)
	if apierrors.IsNotFound(err) {
		record = nil
	} else if err != nil {
		return verdict{}, fmt.Errorf("get the record of request %s: %w", key, err)
	}
	return judgeDenial(d, request, record), nil
}

// isRefused reports whether a request is over without ever having been on record.
func isRefused(request *v1alpha1.SupportAccessRequest) bool {
	ready := apimeta.FindStatusCondition(request.Status.Conditions, v1alpha1.ConditionReady)
	return ready != nil && ready.Reason == v1alpha1.StateRefused
}

// judgeDenial judges by a request and its record, each nil where there is none.
func judgeDenial(d *v1alpha1.SupportAccessDecision, request *v1alpha1.SupportAccessRequest, record *v1alpha1.SupportAccessRecord) verdict {
	onRecord := record != nil && record.Spec.Request != nil && lifecycle.ConcernsRequest(d, *record.Spec.Request)
	waits := request != nil && !request.CreationTimestamp.After(d.CreationTimestamp.Time)
	switch {
	case !onRecord && !waits:
		return verdict{applied: metav1.ConditionFalse, reason: v1alpha1.ReasonNoSuchRequest, settled: true,
			message: fmt.Sprintf("there was no request %q when this was decided; it is about no later one", d.Spec.Target.Request)}
	case !onRecord && isRefused(request):
		return verdict{applied: metav1.ConditionTrue, reason: v1alpha1.ReasonNothingToDo, message: "the request was refused, and waits for no answer", settled: true}
	case !onRecord:
		return verdict{applied: metav1.ConditionFalse, reason: v1alpha1.ReasonNotYet, message: "the request is not on record yet", again: unrecordedAgain}
	case record.Status.EndReason == v1alpha1.EndDenied:
		return verdict{applied: metav1.ConditionTrue, reason: v1alpha1.ReasonLatched, message: "the request was denied", settled: true}
	case record.Status.EndTime != nil || record.Status.Answer != nil:
		return verdict{applied: metav1.ConditionTrue, reason: v1alpha1.ReasonNothingToDo, message: "the request did not wait for an answer any more", settled: true}
	}
	if reason := lifecycle.WhyNoDenial(d, *record.Spec.Request); reason != "" {
		return verdict{applied: metav1.ConditionFalse, reason: v1alpha1.ReasonDoesNotCount, message: "it does not count: " + reason, settled: true}
	}
	return verdict{applied: metav1.ConditionFalse, reason: v1alpha1.ReasonNotYet, message: "the request has yet to take it over", again: unrecordedAgain}
}
