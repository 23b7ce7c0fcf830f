package request

import (
	"fmt"
	"slices"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/lifecycle"
)

// plan is what is to be said of a request, now.
type plan struct {
	// state is the reason of its condition Ready, message says why, in a sentence.
	state, message string
	// answer is the grant that answers it, nil if none does.
	answer *v1alpha1.AnsweringGrant
	// by is who made that grant.
	by string
	// end is how it ends now, nil if it does not.
	end *lifecycle.End
	// unrecorded says that it is not put on record: nobody is told of it, and it takes no room.
	unrecorded bool
	// until is when to look again, zero for whenever something changes.
	until time.Time
}

// decide says what is to become of a request.
func decide(s sight) plan {
	if s.request == nil {
		return gone(s)
	}
	switch {
	case s.record == nil:
		if p := first(s); p.state != "" {
			return p
		}
	case s.record.Spec.Request == nil || s.record.Spec.Request.UID != s.request.UID:
		return refused(fmt.Sprintf("name used before: record %q is about another request; choose a new name", s.record.Name))
	case s.record.Status.EndTime != nil:
		status := s.record.Status
		return plan{state: status.EndReason, message: status.EndMessage, answer: status.Answer}
	}
	return awaiting(s)
}

// first judges a request that is not on record. Without a state it is to be.
func first(s sight) plan {
	created := s.request.CreationTimestamp
	if ready := apimeta.FindStatusCondition(s.request.Status.Conditions, v1alpha1.ConditionReady); ready != nil && ready.Reason == v1alpha1.StateRefused {
		return refused(ready.Message)
	}
	switch {
	case s.pending != "":
		return plan{state: v1alpha1.StateAdmissionNotInForce, message: s.pending, unrecorded: true, until: s.now.Add(lookAgain)}
	case s.request.Spec.RequestedBy == "" || !s.since.IsZero() && !created.After(s.since):
		return refused("it was made before the admission policies were in force: who asked is not proven; make another under a new name")
	case s.others >= s.limit:
		return refused(fmt.Sprintf("%s has %d requests open in this namespace, or withdrawn within the last hour: policy %s allows %d (maxOpenRequests)",
			s.request.Spec.RequestedBy, s.others, s.policy, s.limit))
	default:
		return plan{}
	}
}

func refused(message string) plan {
	return plan{state: v1alpha1.StateRefused, message: message, unrecorded: true}
}

// awaiting says what becomes of a request that has not ended. What a person has said comes before time; no wins.
func awaiting(s sight) plan {
	p := plan{state: v1alpha1.RequestOpen, until: expirationOf(s)}
	if s.record != nil && s.answer.void == "" {
		p.answer, p.by = s.record.Status.Answer, granterOf(s.record)
	}
	if d := denialOf(s); d != nil && p.answer == nil {
		return p.ends(v1alpha1.StateDenied, d.Spec.DecidedBy, fmt.Sprintf("denied by decision %q: %s", d.Name, d.Spec.Reason))
	}
	if g := candidateOf(s); p.answer == nil && g != nil {
		p.answer, p.by = &v1alpha1.AnsweringGrant{Name: g.Name, UID: g.UID}, g.Spec.GrantedBy
	}
	switch {
	case p.answer != nil && s.answer.over:
		return p.ends(v1alpha1.EndGranted, p.by, fmt.Sprintf("grant %s answers it", p.answer.Name))
	case p.answer != nil:
		p.state, p.message, p.until = v1alpha1.RequestGranted, fmt.Sprintf("grant %s answers it", p.answer.Name), time.Time{}
	case !s.now.Before(p.until):
		return p.ends(v1alpha1.StateExpired, lifecycle.Operator, "nobody answered it until "+p.until.UTC().Format(time.RFC3339))
	default:
		p.message = "it waits for an answer until " + p.until.UTC().Format(time.RFC3339)
	}
	if s.answer.void != "" && p.answer == nil {
		p.message += "; " + s.answer.void
	}
	return p
}

// ends has a request end.
func (p plan) ends(reason, by, message string) plan {
	p.state, p.message, p.until = reason, message, time.Time{}
	p.end = &lifecycle.End{Reason: reason, By: by, Message: message}
	return p
}

// gone says what became of a request that was deleted. One that was answered is answered.
func gone(s sight) plan {
	switch status := s.record.Status; {
	case status.EndTime != nil:
		return plan{answer: status.Answer}
	case status.Answer != nil:
		return plan{answer: status.Answer}.ends(v1alpha1.EndGranted, granterOf(s.record), fmt.Sprintf("grant %s answers it; the request was deleted", status.Answer.Name))
	default:
		return plan{}.ends(v1alpha1.EndWithdrawn, lifecycle.Unknown, "the request was deleted, by whom unknown; see the API server's audit log")
	}
}

// expirationOf returns until when a request waits: as it is on record, else as the policy says now.
func expirationOf(s sight) time.Time {
	if s.record != nil && s.record.Status.ExpirationTime != nil {
		return s.record.Status.ExpirationTime.Time
	}
	return s.request.CreationTimestamp.Add(s.timeout)
}

// denialOf returns a decision that says no to the request and counts, nil if there is none.
func denialOf(s sight) *v1alpha1.SupportAccessDecision {
	what := identityOf(s.request)
	for i := range s.denials {
		if d := &s.denials[i]; lifecycle.ConcernsRequest(d, what) && lifecycle.WhyNoDenial(d, what) == "" {
			return d
		}
	}
	return nil
}

// granterOf is who made the grant that answers a request, as its record says.
func granterOf(record *v1alpha1.SupportAccessRecord) string {
	by := ""
	for _, t := range record.Status.Transitions {
		if t.Type == v1alpha1.TransitionGranted {
			by = t.By
		}
	}
	return by
}

// candidateOf returns the oldest grant that answers the request and may still open, nil if there is none.
func candidateOf(s sight) *v1alpha1.SupportAccessGrant {
	for i := range s.grants {
		g := &s.grants[i]
		if g.DeletionTimestamp.IsZero() && g.Status.EndTime == nil && lifecycle.Exceeds(g, s.request) == "" {
			return g
		}
	}
	return nil
}

// answerOf says what became of a grant that answers, by its record, nil where it has none, and whether it is there.
func answerOf(name string, record *v1alpha1.SupportAccessRecord, there bool) answer {
	switch {
	case record == nil && !there:
		return answer{void: fmt.Sprintf("grant %s was deleted before it could open", name)}
	case record == nil:
		return answer{}
	case record.Status.ProvisionedTime == nil && record.Status.EndReason == v1alpha1.EndRefused:
		return answer{void: clip(fmt.Sprintf("grant %s was refused: %s", name, record.Status.EndMessage))}
	default:
		return answer{over: record.Status.ProvisionedTime != nil || record.Status.EndTime != nil}
	}
}

// countsBeside reports whether another request counts against the limit of who made this one: it is open, and was there
// before.
func countsBeside(other, request *v1alpha1.SupportAccessRequest) bool {
	if other.UID == request.UID || other.Spec.RequestedBy != request.Spec.RequestedBy || !other.DeletionTimestamp.IsZero() {
		return false
	}
	ready := apimeta.FindStatusCondition(other.Status.Conditions, v1alpha1.ConditionReady)
	if ready != nil && ready.Reason != v1alpha1.StateAdmissionNotInForce {
		return ready.Reason == v1alpha1.RequestOpen
	}
	byTime := other.CreationTimestamp.Compare(request.CreationTimestamp.Time)
	return byTime < 0 || byTime == 0 && other.Name < request.Name
}

// lately is for how long a request that was withdrawn still counts.
const lately = time.Hour

func withdrawnLately(record *v1alpha1.SupportAccessRecord, request *v1alpha1.SupportAccessRequest, now time.Time) bool {
	of, end := record.Spec.Request, record.Status.EndTime
	return of != nil && of.RequestedBy == request.Spec.RequestedBy && end != nil && record.Status.EndReason == v1alpha1.EndWithdrawn && now.Sub(end.Time) < lately
}

// conditionsOf returns the conditions of a request. Stalled is False where it is to be absent.
func conditionsOf(p plan) []metav1.Condition {
	yes := func(states ...string) metav1.ConditionStatus {
		if slices.Contains(states, p.state) {
			return metav1.ConditionTrue
		}
		return metav1.ConditionFalse
	}
	return []metav1.Condition{
		{Type: v1alpha1.ConditionReady, Reason: p.state, Message: p.message, Status: yes(v1alpha1.RequestOpen, v1alpha1.RequestGranted, v1alpha1.StateExpired)},
		{Type: v1alpha1.ConditionGranted, Reason: p.state, Message: p.message, Status: yes(v1alpha1.RequestGranted)},
		{Type: v1alpha1.ConditionStalled, Reason: p.state, Message: p.message, Status: yes(v1alpha1.StateDenied, v1alpha1.StateRefused)},
	}
}
