package grant

import (
	"fmt"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/review"
)

// judge adds to what was seen what the policies say of it: before a grant is open whether it may open and what a person
// must mend first, and once it is open whether it may stay.
func judge(s *sight) {
	if s.grant == nil || s.foreign {
		return
	}
	input := s.reviewInput()
	if s.provisioned() {
		s.world.Prohibitions = messages(review.Standing(input))
		s.judgeRoles()
		return
	}
	s.world.Refusals = messages(review.Opening(input))
	if s.transport() == v1alpha1.TransportGateway {
		s.world.Refusals = append(s.world.Refusals, "spec.transport: Gateway: this version of the operator has no gateway: use Direct")
	}
	for i, e := range s.grant.Spec.Engineers {
		if e.PublicKey == "" {
			continue
		}
		if err := access.CheckPublicKey(e.PublicKey); err != nil {
			s.world.Refusals = append(s.world.Refusals, fmt.Sprintf("spec.engineers[%d].publicKey: %v", i, err))
		}
	}
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
	slices.Sort(s.world.Missing)
}

// judgeRoles notes the roles of an open grant that are gone or that reach what is never allowed by now.
func (s *sight) judgeRoles() {
	never := s.never()
	for _, name := range s.roleNames() {
		role := s.roles[name]
		if role == nil {
			s.world.DeletedRoles = append(s.world.DeletedRoles, name)
			continue
		}
		for _, reason := range review.Overlap(role.Rules, never) {
			s.world.WidenedRoles = append(s.world.WidenedRoles, fmt.Sprintf("ClusterRole %q: %s", name, reason))
		}
	}
}

// never are the rules that no role of an open grant may overlap: the operator's own. What policies add is judged with
// them, as a policy's prohibition.
func (s *sight) never() []rbacv1.PolicyRule {
	return slices.Concat(review.BuiltinNever(), review.DefaultNever())
}

func (s *sight) reviewInput() review.Input {
	input := review.Input{
		Grant: s.grant, Now: s.now, Transport: s.transport(), Policies: map[string]review.NamespacePolicy{}, Roles: map[string][]rbacv1.PolicyRule{},
	}
	for namespace, p := range s.policies {
		input.Policies[namespace] = review.NamespacePolicy{Name: p.name, Policy: p.policy}
	}
	for name, role := range s.roles {
		input.Roles[name] = role.Rules
	}
	return input
}

// transport is the transport in force: the record's, else the spec's, else the first that the policy lists.
func (s *sight) transport() v1alpha1.Transport {
	if s.record != nil && !s.foreign && s.record.Spec.Transport != "" {
		return s.record.Spec.Transport
	}
	if s.grant.Spec.Transport != "" {
		return s.grant.Spec.Transport
	}
	if policy := s.policies[s.key.Namespace].policy; policy != nil && len(policy.Spec.Transports) > 0 {
		return policy.Spec.Transports[0]
	}
	return ""
}

func messages(errs field.ErrorList) []string {
	out := make([]string, 0, len(errs))
	for _, err := range errs {
		out = append(out, err.Error())
	}
	return out
}
