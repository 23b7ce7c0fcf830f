package request

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/internal/records"
)

// identityOf is what of a request is on record for ever.
func identityOf(request *v1alpha1.SupportAccessRequest) v1alpha1.RecordedRequest {
	created := request.CreationTimestamp
	return v1alpha1.RecordedRequest{
		Namespace: request.Namespace, Name: request.Name, UID: request.UID, RequestedBy: request.Spec.RequestedBy,
		Duration: request.Spec.Duration, CreationTime: &created,
	}
}

// newRecord renders the record of a request as first seen.
func newRecord(s *sight) *v1alpha1.SupportAccessRecord {
	spec, identity := s.request.Spec, identityOf(s.request)
	until := metav1.NewTime(expirationOf(*s))
	record := &v1alpha1.SupportAccessRecord{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.key.Namespace, Name: s.key.Name + v1alpha1.RequestRecordSuffix, Labels: map[string]string{v1alpha1.LabelManaged: "true"},
		},
		Spec: v1alpha1.SupportAccessRecordSpec{
			Request: &identity, Case: spec.Case, Reason: spec.Reason, Roles: spec.Roles, Scope: spec.Scope, Policy: s.policy,
		},
		Status: v1alpha1.SupportAccessRecordStatus{ExpirationTime: &until},
	}
	for _, e := range spec.Engineers {
		record.Spec.Engineers = append(record.Spec.Engineers, e.Name)
	}
	add(record, s.now, v1alpha1.TransitionRequested, spec.RequestedBy, spec.Reason)
	return record
}

// note puts on record, in place, what a plan says.
func note(record *v1alpha1.SupportAccessRecord, s *sight, p plan) {
	before := record.Status.Answer
	if before != nil && s.answer.void != "" {
		add(record, s.now, v1alpha1.TransitionAnswerRefused, lifecycle.Operator, s.answer.void)
		record.Status.Answer = nil
	}
	if p.answer != nil && record.Status.Answer == nil {
		add(record, s.now, v1alpha1.TransitionGranted, orUnknown(p.by), p.message)
		record.Status.Answer = p.answer
	}
	if p.end == nil || record.Status.EndTime != nil {
		return
	}
	at := metav1.NewMicroTime(s.now)
	record.Status.EndTime, record.Status.EndReason = &at, p.end.Reason
	record.Status.EndedBy, record.Status.EndMessage = orUnknown(p.end.By), clip(p.end.Message)
	if p.end.Reason != v1alpha1.EndGranted {
		add(record, s.now, p.end.Reason, p.end.By, p.end.Message)
	}
}

func orUnknown(by string) string {
	if by == "" {
		return lifecycle.Unknown
	}
	return by
}

// add appends a transition. They are few: a grant that answers and is refused is somebody's doing each time.
func add(record *v1alpha1.SupportAccessRecord, now time.Time, kind, by, message string) {
	records.Add(record, v1alpha1.Transition{Time: metav1.NewMicroTime(now), Type: kind, By: orUnknown(by), Message: message})
}

// keep writes what is to be on record. In a namespace that goes nothing is answered any more, and nothing is kept.
func (r *Reconciler) keep(ctx context.Context, s *sight, p plan) error {
	if p.unrecorded {
		return nil
	}
	fresh := s.record == nil
	if fresh {
		s.record = newRecord(s)
	}
	noted := s.record.DeepCopy()
	note(noted, s, p)
	if !fresh && equality.Semantic.DeepEqual(s.record.Status, noted.Status) {
		return nil
	}
	records.Fit(noted)
	var err error
	if fresh {
		err = r.Client.Create(ctx, noted)
	} else {
		err = r.Client.Update(ctx, noted)
	}
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) || apierrors.IsNotFound(err) {
		return nil
	}
	if apierrors.IsAlreadyExists(err) {
		return apierrors.NewConflict(v1alpha1.GroupVersion.WithResource("supportaccessrecords").GroupResource(), noted.Name, err)
	}
	if err != nil {
		return fmt.Errorf("put request %s on record: %w", s.key, err)
	}
	return nil
}

// save writes the status if it changed, of the request as it was read, and announces a new state once it is stored.
func (r *Reconciler) save(ctx context.Context, s sight, p plan) error {
	before := s.request
	after := before.DeepCopy()
	after.Status = statusOf(s, p)
	if equality.Semantic.DeepEqual(before.Status, after.Status) {
		return nil
	}
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Status().Patch(ctx, after, patch); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write status of request %s: %w", s.key, err)
	}
	if ready := apimeta.FindStatusCondition(before.Status.Conditions, v1alpha1.ConditionReady); ready != nil && ready.Reason == p.state {
		return nil
	}
	log.FromContext(ctx).Info("State changed", "state", p.state, "message", p.message)
	r.Recorder.Eventf(after, nil, eventType(p.state), p.state, "Reconcile", "%s", p.message)
	return nil
}

// statusOf returns the status that a pass leads to.
func statusOf(s sight, p plan) v1alpha1.SupportAccessRequestStatus {
	status := *s.request.Status.DeepCopy()
	status.ObservedGeneration, status.Grant = s.request.Generation, p.answer
	status.EngineerNames = records.NamesInLine(s.request.Spec.Engineers)
	if s.record != nil && !p.unrecorded {
		status.ExpirationTime = s.record.Status.ExpirationTime
	}
	for _, c := range conditionsOf(p) {
		c.ObservedGeneration, c.Message, c.LastTransitionTime = s.request.Generation, clip(c.Message), metav1.NewTime(s.now)
		apimeta.SetStatusCondition(&status.Conditions, c)
	}
	if !apimeta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionStalled) {
		apimeta.RemoveStatusCondition(&status.Conditions, v1alpha1.ConditionStalled)
	}
	return status
}

func eventType(state string) string {
	switch state {
	case v1alpha1.StateRefused, v1alpha1.StateDenied, v1alpha1.StateAdmissionNotInForce:
		return corev1.EventTypeWarning
	default:
		return corev1.EventTypeNormal
	}
}

func clip(message string) string { return records.Clip(message, records.MaxMessage) }
