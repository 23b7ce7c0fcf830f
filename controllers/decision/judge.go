package decision

import (
	"context"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/lifecycle"
)

// verdict is what a decision has done so far.
type verdict struct {
	applied metav1.ConditionStatus
	reason  string
	message string
	// grants is how many grants it acted on.
	grants int32
	// settled says that nothing more can come of it.
	settled bool
	// again is when to look again where no watch wakes.
	again time.Duration
}

// judge says what a decision has done, given the grants that it concerns.
func judge(d *v1alpha1.SupportAccessDecision, targets []target, now time.Time) verdict {
	if wide := d.Spec.Target.Grant == ""; wide {
		if until := lifecycle.WideUntil(d); now.Before(until) {
			return verdict{applied: metav1.ConditionFalse, reason: v1alpha1.ReasonNotYet, message: "grants that were being made are waited for", again: until.Sub(now)}
		}
	}
	if d.Spec.Action == v1alpha1.ActionApprove && len(targets) == 1 {
		return judgeApproval(d, targets[0])
	}
	pending, latched := 0, int32(0)
	for _, t := range targets {
		switch {
		case t.record == nil || !latchedIn(t.record, d):
			pending++
		case actedOn(t.record, d):
			latched++
		}
	}
	switch {
	case pending > 0:
		return verdict{applied: metav1.ConditionFalse, reason: v1alpha1.ReasonNotYet, message: fmt.Sprintf("%d grants have yet to take it over", pending), grants: latched}
	case len(targets) == 0 && d.Spec.Target.Grant != "":
		return verdict{applied: metav1.ConditionFalse, reason: v1alpha1.ReasonNoSuchGrant, settled: true,
			message: fmt.Sprintf("there was no grant %q when this was decided; it binds no later one", d.Spec.Target.Grant)}
	case latched == 0:
		return verdict{applied: metav1.ConditionTrue, reason: v1alpha1.ReasonNothingToDo, message: "nothing that it concerns was open or could still open", settled: true}
	default:
		return verdict{applied: metav1.ConditionTrue, reason: v1alpha1.ReasonLatched, message: fmt.Sprintf("it is on record for %d grants", latched), grants: latched, settled: true}
	}
}

// judgeApproval says what an approval has done. One that counts is held until its grant has ended: the gateway goes by the
// decision itself.
func judgeApproval(d *v1alpha1.SupportAccessDecision, t target) verdict {
	ended := t.record != nil && t.record.Status.EndTime != nil
	switch {
	case t.record == nil && t.grant.Status.EndTime != nil:
		return verdict{applied: metav1.ConditionTrue, reason: v1alpha1.ReasonNothingToDo, message: "the grant did not wait for it", settled: true}
	case t.record == nil:
		return verdict{applied: metav1.ConditionFalse, reason: v1alpha1.ReasonNotYet, message: "the grant is not on record yet", again: unrecordedAgain}
	case lifecycle.Approved(t.record, d):
		return verdict{applied: metav1.ConditionTrue, reason: v1alpha1.ReasonLatched, message: "it is on record for 1 grant, and is kept until that has ended", grants: 1, settled: ended}
	case ended || t.record.Status.ProvisionedTime != nil:
		return verdict{applied: metav1.ConditionTrue, reason: v1alpha1.ReasonNothingToDo, message: "the grant did not wait for it", settled: true}
	}
	if reason := lifecycle.WhyNot(t.grant, t.record, d); reason != "" {
		return verdict{applied: metav1.ConditionFalse, reason: v1alpha1.ReasonDoesNotCount, message: "it does not count: " + reason, settled: true}
	}
	return verdict{applied: metav1.ConditionFalse, reason: v1alpha1.ReasonNotYet,
		message: "the grant has yet to take it over: it may need none, have this person's already, or the policy may not name the ServiceAccount"}
}

// unrecordedAgain is how soon an approval is looked at again whose grant is not on record: a grant whose name was used before
// never will be.
const unrecordedAgain = 5 * time.Second

// latchedIn reports whether a record needs the decision no longer.
func latchedIn(record *v1alpha1.SupportAccessRecord, d *v1alpha1.SupportAccessDecision) bool {
	status := record.Status
	if status.EndTime != nil {
		return true
	}
	switch {
	case d.Spec.Action == v1alpha1.ActionShorten:
		return status.ExpirationTime != nil && !status.ExpirationTime.After(d.Spec.ExpirationTime.Time)
	case d.Spec.Action == v1alpha1.ActionRevoke && d.Spec.Target.Engineer != "":
		return removedIn(record, d.Spec.Target.Engineer) || !slices.Contains(record.Spec.Engineers, d.Spec.Target.Engineer)
	case d.Spec.Action == v1alpha1.ActionHandOver:
		return record.Spec.Transport != v1alpha1.TransportGateway || replacedIn(record, d) || removedIn(record, d.Spec.Target.Engineer) ||
			!slices.Contains(record.Spec.Engineers, d.Spec.Target.Engineer)
	case d.Spec.Action == v1alpha1.ActionDeny:
		return status.ProvisionedTime != nil
	default:
		return false
	}
}

// actedOn reports whether it was this decision that did something to the record's grant: it came before the end.
func actedOn(record *v1alpha1.SupportAccessRecord, d *v1alpha1.SupportAccessDecision) bool {
	if end := record.Status.EndTime; end != nil && end.Time.Before(d.CreationTimestamp.Time) {
		return false
	}
	switch {
	case d.Spec.Action == v1alpha1.ActionDeny:
		return record.Status.EndReason == v1alpha1.EndDenied
	case d.Spec.Action == v1alpha1.ActionShorten:
		return record.Status.ExpirationTime != nil && record.Status.ExpirationTime.Time.Equal(d.Spec.ExpirationTime.Time)
	case d.Spec.Action == v1alpha1.ActionHandOver:
		return replacedIn(record, d)
	case d.Spec.Target.Engineer != "":
		return removedIn(record, d.Spec.Target.Engineer)
	default:
		return true
	}
}

func replacedIn(record *v1alpha1.SupportAccessRecord, d *v1alpha1.SupportAccessDecision) bool {
	return lifecycle.Replaced(record, d.Spec.Target.Engineer, d.CreationTimestamp.Time)
}

func removedIn(record *v1alpha1.SupportAccessRecord, engineer string) bool {
	return slices.ContainsFunc(record.Status.RemovedEngineers, func(e v1alpha1.RemovedEngineer) bool { return e.Name == engineer })
}

// save writes the status if it changed, of the decision as it was read: a leader that lags must not take back what a later
// one has said.
func (r *Reconciler) save(ctx context.Context, d *v1alpha1.SupportAccessDecision, v verdict) error {
	before := d.DeepCopy()
	d.Status.ObservedGeneration, d.Status.Grants = d.Generation, v.grants
	meta.SetStatusCondition(&d.Status.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionApplied, Status: v.applied, Reason: v.reason, Message: v.message, ObservedGeneration: d.Generation,
		LastTransitionTime: metav1.NewTime(r.Clock.Now()),
	})
	if equality.Semantic.DeepEqual(before.Status, d.Status) {
		return nil
	}
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Status().Patch(ctx, d, patch); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write status of decision %s/%s: %w", d.Namespace, d.Name, err)
	}
	return nil
}
