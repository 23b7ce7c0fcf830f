package grant

import (
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/lifecycle"
)

// approvalsRecorded reports whether a record says what a verdict says of approvals. Once the grant has opened, what it says is
// final.
func approvalsRecorded(record *v1alpha1.SupportAccessRecord, verdict lifecycle.Verdict) bool {
	if record.Status.ProvisionedTime != nil {
		return true
	}
	after := record.DeepCopy()
	recordApprovals(after, verdict, time.Time{})
	return int(record.Status.ApprovalsNeeded) == int(after.Status.ApprovalsNeeded) && len(record.Status.Approvals) == len(after.Status.Approvals) &&
		(record.Status.AwaitingApprovalTime == nil) == (after.Status.AwaitingApprovalTime == nil)
}

// maxRecordedApprovals is how many approvals a record tells of.
const maxRecordedApprovals = 16

// recordApprovals stores which approvals a grant needs that has not opened, since when it waits for them, and those that
// count. What approved it once is not struck out.
func recordApprovals(record *v1alpha1.SupportAccessRecord, verdict lifecycle.Verdict, now time.Time) {
	status := &record.Status
	if status.ProvisionedTime != nil {
		return
	}
	status.ApprovalsNeeded = int32(verdict.ApprovalsNeeded)
	if verdict.State == v1alpha1.StateAwaitingApproval && status.AwaitingApprovalTime == nil {
		at := metav1.NewTime(now.Truncate(time.Second))
		status.AwaitingApprovalTime = &at
		addTransition(record, now, v1alpha1.TransitionAwaitingApproval, lifecycle.Operator, verdict.Message)
	}
	for _, approval := range verdict.Approvals {
		d := approval.Decision
		if lifecycle.Approved(record, d) || len(status.Approvals) >= maxRecordedApprovals {
			continue
		}
		status.Approvals = append(status.Approvals, v1alpha1.RecordedApproval{
			By: approval.By, Decision: d.Name, UID: d.UID, Authority: d.Spec.Authority, Time: d.CreationTimestamp, Reason: clip(d.Spec.Reason),
		})
		addTransition(record, now, v1alpha1.TransitionApproved, approval.By,
			fmt.Sprintf("approved by decision %q, with authority %s: %s", d.Name, d.Spec.Authority, d.Spec.Reason))
	}
}

// approvedCondition says whether somebody must still say yes. Of a grant that has ended the record tells.
func approvedCondition(s *sight, verdict lifecycle.Verdict) metav1.Condition {
	needed, by := verdict.ApprovalsNeeded, make([]string, 0, len(verdict.Approvals))
	for _, approval := range verdict.Approvals {
		by = append(by, approval.By)
	}
	if s.record != nil && !verdict.NameUsed && (s.ended() || s.provisioned()) {
		needed, by = int(s.record.Status.ApprovalsNeeded), nil
		for _, approval := range s.record.Status.Approvals {
			by = append(by, approval.By)
		}
	}
	asks := fmt.Sprintf("%d of %d approvals", len(by), needed)
	switch {
	case needed == 0:
		return condition(v1alpha1.ConditionApproved, metav1.ConditionTrue, v1alpha1.ReasonNotRequired, "the policy asks for no approval")
	case verdict.State == v1alpha1.StateAwaitingApproval:
		return condition(v1alpha1.ConditionApproved, metav1.ConditionFalse, v1alpha1.StateAwaitingApproval, verdict.Message)
	case verdict.State == v1alpha1.StateDenied:
		return condition(v1alpha1.ConditionApproved, metav1.ConditionFalse, v1alpha1.StateDenied, verdict.Message)
	case s.provisioned() || len(by) >= needed && verdict.State != v1alpha1.StateAdmissionNotInForce:
		return condition(v1alpha1.ConditionApproved, metav1.ConditionTrue, v1alpha1.ReasonApproved, "approved by "+strings.Join(by, ", "))
	default:
		return condition(v1alpha1.ConditionApproved, metav1.ConditionFalse, v1alpha1.ReasonNotApproved, asks)
	}
}
