package grant

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/lifecycle"
)

// announce tells of a state that has been stored. An Event is for people who watch; the record is what remains.
func (r *Reconciler) announce(ctx context.Context, s *sight, verdict lifecycle.Verdict, done outcome) {
	if s.grant == nil {
		return
	}
	state, message := readyReason(s.grant), clip(verdict.Message)
	log.FromContext(ctx).Info("State changed", "state", state, "message", message)
	r.Recorder.Eventf(s.grant, nil, eventType(state), state, "Reconcile", "%s", message)
	if done.leftover != "" {
		r.Recorder.Eventf(s.grant, nil, corev1.EventTypeWarning, v1alpha1.ReasonAccessRemains, "Verify", "%s", clip(done.leftover))
	}
}

func eventType(state string) string {
	switch state {
	case v1alpha1.StateFailed, v1alpha1.StateRefused, v1alpha1.StateDenied, v1alpha1.StateAdmissionNotInForce, v1alpha1.StateClosing:
		return corev1.EventTypeWarning
	default:
		return corev1.EventTypeNormal
	}
}
