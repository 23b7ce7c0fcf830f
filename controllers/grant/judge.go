package grant

import (
	"fmt"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/internal/review"
)

// judge adds to what was seen what the policies say of it: before a grant is open whether it may open and what a person
// must mend first, and once it is open whether it may stay.
func judge(s *sight) {
	if s.grant == nil || s.foreign {
		return
	}
	input := s.reviewInput()
	s.world.Approvals = lifecycle.ApprovalRule(review.Approvals(input))
	if s.provisioned() {
		s.world.Prohibitions = review.Sentences(review.Standing(input))
		s.world.DeletedRoles, s.world.WidenedRoles = review.Roles(s.roleNames(), input.Roles)
		return
	}
	s.world.Refusals = review.Sentences(review.Opening(input))
	for i, e := range s.grant.Spec.Engineers {
		if e.PublicKey == "" {
			continue
		}
		if err := access.CheckPublicKey(e.PublicKey); err != nil {
			s.world.Refusals = append(s.world.Refusals, fmt.Sprintf("spec.engineers[%d].publicKey: %v", i, err))
		}
	}
	if s.answer.Refusal != "" {
		s.world.Refusals = append(s.world.Refusals, s.answer.Refusal)
	}
	s.world.Unanswered = s.answer.Pending
	slices.Sort(s.world.Refusals)
	s.judgePresence()
}

// judgePresence notes what must be there before the grant can open and is not: a person can still make it.
func (s *sight) judgePresence() {
	for i, name := range s.roleNames() {
		if s.roles[name] == nil {
			s.world.Missing = append(s.world.Missing, fmt.Sprintf("spec.roles[%d]: there is no ClusterRole %q", i, name))
		}
	}
	for _, name := range s.world.GoneNamespaces {
		if name != s.key.Namespace {
			s.world.Missing = append(s.world.Missing, fmt.Sprintf("spec.scope.namespaces: there is no namespace %q", name))
		}
	}
	s.judgeNotice()
	slices.Sort(s.world.Missing)
}

func (s *sight) reviewInput() review.Input {
	input := review.Input{
		Grant: s.grant, Now: s.now, Transport: s.transport(), Policies: s.policies, Roles: map[string][]rbacv1.PolicyRule{},
	}
	for name, role := range s.roles {
		input.Roles[name] = role.Rules
	}
	return input
}

// transport is the transport in force: the record's once there is one, else what the grant and the policy mean.
func (s *sight) transport() v1alpha1.Transport {
	if s.record != nil && !s.foreign && s.record.Spec.Transport != "" {
		return s.record.Spec.Transport
	}
	return review.ResolveTransport(s.grant, s.policies[s.key.Namespace].Policy)
}
