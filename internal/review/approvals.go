package review

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"supportaccess.dev/operator/api/v1alpha1"
)

// Approval is what policies ask before a grant may open: the fields of lifecycle.ApprovalRule.
type Approval struct {
	Needed, ByPeople int
	Timeout          time.Duration
	ServiceAccounts  []string
	Because          string
}

// defaultApprovalTimeout is the default of approvalTimeout.
const defaultApprovalTimeout = 72 * time.Hour

// Approvals returns how many must approve a grant, the most that a policy of its places asks for one of its roles. Whoever
// approves must suit all of them.
func Approvals(in Input) Approval {
	c := newCase(in)
	var asked Approval
	var because []string
	for i, p := range c.policies() {
		needed, byPeople, roles := c.approvalsBy(p)
		if i == 0 {
			asked.ServiceAccounts = slices.Clone(p.Spec.ServiceAccountApprovers)
		}
		asked.ServiceAccounts = within(asked.ServiceAccounts, p.Spec.ServiceAccountApprovers)
		if needed == 0 {
			continue
		}
		asked.Needed, asked.ByPeople = max(asked.Needed, needed), max(asked.ByPeople, byPeople)
		if timeout := approvalTimeout(p); asked.Timeout == 0 || timeout < asked.Timeout {
			asked.Timeout = timeout
		}
		because = append(because, fmt.Sprintf("%s asks for %d, for %s", named(p), needed, list(roles)))
	}
	asked.Because = strings.Join(because, "; ")
	return asked
}

// approvalsBy returns how many approvals one policy asks for, how many of them by people, and for which roles. That a
// ServiceAccount granted is no person's act: what is elevated then takes one more.
func (c askedCase) approvalsBy(p *v1alpha1.SupportAccessPolicy) (needed, byPeople int, roles []string) {
	for _, role := range p.Spec.Roles {
		if !slices.Contains(c.roleNames(), role.Name) {
			continue
		}
		approvals, people := approvalsOf(role), 0
		if role.Elevated && c.pipeline() {
			approvals, people = approvals+1, 1
		}
		if approvals > 0 {
			needed, byPeople, roles = max(needed, approvals), max(byPeople, people), append(roles, role.Name)
		}
	}
	return needed, byPeople, roles
}

func approvalsOf(role v1alpha1.OfferedRole) int {
	switch {
	case role.Approvals != nil:
		return int(*role.Approvals)
	case role.Elevated:
		return 1
	default:
		return 0
	}
}

func approvalTimeout(p *v1alpha1.SupportAccessPolicy) time.Duration {
	if timeout := p.Spec.ApprovalTimeout.OrZero(); timeout > 0 {
		return timeout
	}
	return defaultApprovalTimeout
}
