package grant

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/lifecycle"
)

// judgeNotice notes, of a grant that is yet to open, where a policy demands that people be told and names nobody by whom:
// that it was granted is on record before it opens, and from the record it is told.
func (s *sight) judgeNotice() {
	for name, place := range s.policies {
		if place.Policy == nil || place.Policy.Spec.Notifications == nil {
			continue
		}
		told := place.Policy.Spec.Notifications
		if told.Delivery == v1alpha1.DeliveryRequired && len(told.Channels) == 0 {
			s.world.Missing = append(s.world.Missing, fmt.Sprintf(
				"policy %q, which holds in namespace %q, demands that people be told (spec.notifications.delivery) and names no channel", place.Name, name))
		}
	}
}

// untold reports whether no policy of the grant's places names a channel. Where the pass did not look, it does not say so.
func (s *sight) untold() bool {
	if s.policies == nil {
		return false
	}
	for _, place := range s.policies {
		if place.Policy != nil && place.Policy.Spec.Notifications != nil && len(place.Policy.Spec.Notifications.Channels) > 0 {
			return false
		}
	}
	return true
}

// notifiedCondition says whether those were told who are to be told. Of a grant that is not on record nobody is, and where
// nothing new is known, what was said before stays.
func notifiedCondition(s *sight, verdict lifecycle.Verdict) []metav1.Condition {
	if s.record == nil || s.foreign || verdict.NameUsed {
		return nil
	}
	states := s.record.Status.Notifications
	only := func(status metav1.ConditionStatus, reason, message string) []metav1.Condition {
		return []metav1.Condition{condition(v1alpha1.ConditionNotified, status, reason, message)}
	}
	if dead := describe(states, func(c v1alpha1.ChannelState) string { return lastDeadLetter(c) }); dead != "" {
		return only(metav1.ConditionFalse, v1alpha1.ReasonDeadLetter, dead)
	}
	if failing := describe(states, func(c v1alpha1.ChannelState) string { return c.LastError }); failing != "" {
		return only(metav1.ConditionFalse, v1alpha1.ReasonNotDelivered, "it is tried again: "+failing)
	}
	switch {
	case len(states) > 0:
		return only(metav1.ConditionTrue, v1alpha1.ReasonDelivered, "every channel has what was told")
	case s.untold():
		return only(metav1.ConditionFalse, v1alpha1.ReasonNoChannel, "no policy of this grant's namespaces names a channel by which anybody is told")
	case s.policies == nil:
		return nil
	default:
		return only(metav1.ConditionUnknown, v1alpha1.ReasonNotYet, "nothing has been told yet")
	}
}

func lastDeadLetter(c v1alpha1.ChannelState) string {
	if len(c.DeadLetters) == 0 {
		return ""
	}
	last := c.DeadLetters[len(c.DeadLetters)-1]
	return fmt.Sprintf("notice %s (%s) was given up: %s", last.ID, last.Event, last.Error)
}

// describe names the channels of which there is something to say, in a stable order.
func describe(states []v1alpha1.ChannelState, say func(v1alpha1.ChannelState) string) string {
	var parts []string
	for _, c := range states {
		if said := say(c); said != "" {
			parts = append(parts, "channel "+c.Channel+": "+said)
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, "; ")
}

// announceNotified tells the admins of the namespace, as an Event on it, that nobody is told by any other way.
func (r *Reconciler) announceNotified(s *sight) {
	notified := meta.FindStatusCondition(s.grant.Status.Conditions, v1alpha1.ConditionNotified)
	if notified == nil || notified.Reason != v1alpha1.ReasonNoChannel {
		return
	}
	namespace := &corev1.ObjectReference{APIVersion: "v1", Kind: "Namespace", Namespace: s.key.Namespace, Name: s.key.Namespace}
	r.Recorder.Eventf(namespace, s.grant, corev1.EventTypeWarning, v1alpha1.ReasonNoChannel, "Notify",
		"%s", clip(fmt.Sprintf("nobody was told of grant %s by any channel: %s", s.key.Name, notified.Message)))
}
