package setting

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/records"
)

// save writes the status if it changed, of the setting as it was read, and announces a new state once it is stored.
func (r *Reconciler) save(ctx context.Context, s sight, p plan) error {
	before := s.setting
	after := before.DeepCopy()
	after.Status = statusOf(s, p)
	if equality.Semantic.DeepEqual(before.Status, after.Status) {
		return nil
	}
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Status().Patch(ctx, after, patch); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write status of setting %s: %w", client.ObjectKeyFromObject(before), err)
	}
	if stateOf(before) == p.state {
		return nil
	}
	log.FromContext(ctx).Info("State changed", "state", p.state, "message", p.message)
	r.Recorder.Eventf(after, nil, eventType(p.state), p.state, "Reconcile", "%s", p.message)
	return nil
}

// statusOf returns the status that a pass leads to.
func statusOf(s sight, p plan) v1alpha1.SupportAccessSettingStatus {
	status := *s.setting.Status.DeepCopy()
	proof := s.proof().Next(s.written(), s.guard())
	status.ObservedGeneration, status.ProvenGeneration, status.GuardedSince = proof.Seen, proof.Proven, proof.GuardedSince
	status.EngineerNames = ""
	if p.active != nil {
		status.EngineerNames = records.NamesInLine(p.active.Spec.Engineers)
	}
	if latest := s.latest(); latest != "" {
		status.Grant = latest
	}
	for _, c := range conditionsOf(p) {
		c.ObservedGeneration = s.setting.Generation
		c.LastTransitionTime = metav1.NewTime(s.now)
		apimeta.SetStatusCondition(&status.Conditions, c)
	}
	for _, abnormal := range []string{v1alpha1.ConditionStalled, v1alpha1.ConditionReconciling} {
		if !apimeta.IsStatusConditionTrue(status.Conditions, abnormal) {
			apimeta.RemoveStatusCondition(&status.Conditions, abnormal)
		}
	}
	return status
}

// latest names the grant of the latest generation, empty if none is known.
func (s sight) latest() string {
	name, generation := "", int64(0)
	for i := range s.grants {
		if ref := s.grants[i].Spec.SettingRef; ref.Generation > generation {
			name, generation = s.grants[i].Name, ref.Generation
		}
	}
	return name
}

func stateOf(s *v1alpha1.SupportAccessSetting) string {
	if ready := apimeta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		return ready.Reason
	}
	return ""
}

func eventType(state string) string {
	switch state {
	case v1alpha1.StateRefused, v1alpha1.StateDenied, v1alpha1.StateFailed, v1alpha1.StateAdmissionNotInForce, v1alpha1.StateRevoked:
		return corev1.EventTypeWarning
	default:
		return corev1.EventTypeNormal
	}
}
