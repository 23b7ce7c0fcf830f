package setting

import (
	"fmt"
	"slices"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/internal/records"
)

// plan is what is to become of a setting, now.
type plan struct {
	// state is On, Off or the state of a grant; message says why, in a sentence.
	state, message string
	// wants says that a grant is to be made.
	wants bool
	// proven says that who switched is proven.
	proven bool
	// active is whether access exists, as its grants say.
	active *v1alpha1.SupportAccessGrant
	// until is when to look again, zero for whenever.
	until time.Time
}

// again returns how soon to look again.
func (p plan) again(now time.Time) time.Duration {
	if p.until.IsZero() {
		return lookAlways
	}
	return min(max(p.until.Sub(now), time.Millisecond), lookAlways)
}

// decide says what is to become of a setting.
func decide(s sight) plan {
	p := plan{proven: s.proof().Of(s.written(), s.guard())}
	mine, others := s.mine(), s.othersOpen()
	for _, g := range append([]*v1alpha1.SupportAccessGrant{mine}, others...) {
		if g != nil && isTrue(g, v1alpha1.ConditionActive) {
			p.active = g
		}
	}
	switch {
	case !lifecycle.On(s.setting, s.now):
		return p.off(s, mine)
	case len(others) > 0:
		p.state, p.message = v1alpha1.StateClosing, fmt.Sprintf("grant %s is being closed, then another takes its place", others[0].Name)
	case mine != nil:
		p.follow(s, mine)
	case s.used != nil:
		p.ended(s.used.Status.EndReason, s.used.Status.EndedBy, s.used.Status.EndMessage)
	case s.pending != "":
		p.state, p.message, p.until = v1alpha1.StateAdmissionNotInForce, s.pending, s.now.Add(lookAgain)
	case !p.proven:
		p.state = v1alpha1.StateRefused
		p.message = "who switched this on is not proven: it was written before the admission policies were in force, or the operator did not see it then: write it again"
		return p
	default:
		p.state, p.message, p.wants = v1alpha1.StateOpening, "its grant is being made", true
	}
	p.until = earlier(p.until, s.setting.Spec.EnabledUntil.Time)
	return p
}

// proof is what is known of whether the setting's spec was written while the admission policies were in force.
func (s sight) proof() lifecycle.Proof {
	status := s.setting.Status
	return lifecycle.Proof{Seen: status.ObservedGeneration, Proven: status.ProvenGeneration, GuardedSince: status.GuardedSince}
}

func (s sight) written() lifecycle.Written {
	return lifecycle.Written{Created: s.setting.CreationTimestamp.Time, Generation: s.setting.Generation}
}

func (s sight) guard() lifecycle.Guard {
	return lifecycle.Guard{Now: s.now, Since: s.since, Pending: s.pending}
}

// mine is the grant of the setting's present generation, nil if there is none.
func (s sight) mine() *v1alpha1.SupportAccessGrant {
	for i := range s.grants {
		if s.grants[i].Spec.SettingRef.Generation == s.setting.Generation {
			return &s.grants[i]
		}
	}
	return nil
}

// othersOpen are the grants of earlier generations that have not ended.
func (s sight) othersOpen() []*v1alpha1.SupportAccessGrant {
	var open []*v1alpha1.SupportAccessGrant
	for i := range s.grants {
		if g := &s.grants[i]; g.Spec.SettingRef.Generation != s.setting.Generation && g.Status.EndTime == nil {
			open = append(open, g)
		}
	}
	return open
}

// off is what becomes of a setting that is not on: whatever is open ends by itself.
func (p plan) off(s sight, mine *v1alpha1.SupportAccessGrant) plan {
	open := len(s.othersOpen()) > 0 || mine != nil && mine.Status.EndTime == nil
	switch until := s.setting.Spec.EnabledUntil; {
	case open:
		p.state, p.message = v1alpha1.StateClosing, "access is being taken away"
	case until == nil:
		p.state, p.message = v1alpha1.SettingOff, "support access is switched off"
	default:
		p.state, p.message = v1alpha1.SettingOff, "its time was over at "+until.UTC().Format(time.RFC3339)
	}
	return p
}

// follow takes the state of the setting's grant.
func (p *plan) follow(s sight, g *v1alpha1.SupportAccessGrant) {
	ready := apimeta.FindStatusCondition(g.Status.Conditions, v1alpha1.ConditionReady)
	switch {
	case g.Status.EndTime != nil:
		message := ""
		if ready != nil {
			message = ready.Message
		}
		p.ended(g.Status.EndReason, g.Status.EndedBy, message)
	case !g.DeletionTimestamp.IsZero():
		p.state, p.message = v1alpha1.StateClosing, "grant "+g.Name+" was deleted, and access is being taken away"
	case ready == nil:
		p.state, p.message = v1alpha1.StateOpening, "access is being opened"
	case ready.Reason == v1alpha1.StateActive:
		p.state, p.message = v1alpha1.SettingOn, "support access is on until "+s.setting.Spec.EnabledUntil.UTC().Format(time.RFC3339)
	default:
		p.state, p.message = ready.Reason, ready.Message
	}
}

// ended says that the grant of a setting that is on has ended, or never opens. It is not made again before somebody writes
// the setting: what was taken away stays away.
func (p *plan) ended(reason, by, message string) {
	p.state = lifecycle.StateOfEnd(reason)
	if reason == "" {
		p.state, p.message = v1alpha1.StateClosing, "access is being taken away"
		return
	}
	p.message = clip(fmt.Sprintf("its grant has ended (%s, by %s): %s; to switch on again, write the setting anew, with a later instant", reason, by, message))
}

// conditionsOf returns the conditions of a setting. Stalled and Reconciling are False where they are to be absent.
func conditionsOf(p plan) []metav1.Condition {
	yes := func(reasons ...string) metav1.ConditionStatus {
		if slices.Contains(reasons, p.state) {
			return metav1.ConditionTrue
		}
		return metav1.ConditionFalse
	}
	active := metav1.Condition{Type: v1alpha1.ConditionActive, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonNoAccess, Message: "no access exists"}
	if p.active != nil {
		active.Status, active.Reason, active.Message = metav1.ConditionTrue, v1alpha1.StateActive, "access exists by grant "+p.active.Name
	}
	return []metav1.Condition{
		{Type: v1alpha1.ConditionReady, Reason: p.state, Message: p.message, Status: yes(
			v1alpha1.SettingOn, v1alpha1.SettingOff, v1alpha1.StateExpired, v1alpha1.StateRevoked, v1alpha1.StateAwaitingApproval)},
		active,
		{Type: v1alpha1.ConditionStalled, Reason: p.state, Message: p.message, Status: yes(v1alpha1.StateRefused, v1alpha1.StateDenied, v1alpha1.StateFailed)},
		{Type: v1alpha1.ConditionReconciling, Reason: p.state, Message: p.message, Status: yes(v1alpha1.StateOpening, v1alpha1.StateClosing)},
	}
}

// grantOf renders the grant that a setting stands for.
func grantOf(s *v1alpha1.SupportAccessSetting) *v1alpha1.SupportAccessGrant {
	until := *s.Spec.EnabledUntil
	return &v1alpha1.SupportAccessGrant{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Namespace, Name: access.SettingGrantName(s),
			// With the setting the garbage collector deletes what was made because of it. That it ends then rests on nothing of this.
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: v1alpha1.GroupVersion.String(), Kind: "SupportAccessSetting", Name: s.Name, UID: s.UID,
			}},
		},
		Spec: v1alpha1.SupportAccessGrantSpec{
			Reason: s.Spec.Reason, Engineers: s.Spec.Engineers, Roles: s.Spec.Roles, Transport: s.Spec.Transport,
			ExpirationTime: &until, GrantedBy: s.Spec.SwitchedBy,
			SettingRef: &v1alpha1.SettingReference{UID: s.UID, Generation: s.Generation},
		},
	}
}

func isTrue(g *v1alpha1.SupportAccessGrant, kind string) bool {
	return apimeta.IsStatusConditionTrue(g.Status.Conditions, kind)
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

func clip(message string) string { return records.Clip(message, records.MaxMessage) }
