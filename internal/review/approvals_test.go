package review

import (
	"testing"
	"time"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
)

func TestHowManyMustApproveIsTheMostThatAPolicyAsks(t *testing.T) {
	const robot, other = "system:serviceaccount:ci:approver", "system:serviceaccount:ci:other"
	asking := func(approvals int32) func(*v1alpha1.SupportAccessPolicy) {
		return gen.Offering(v1alpha1.OfferedRole{Name: gen.Content, Elevated: true, Approvals: &approvals})
	}
	elevated := gen.Offering(v1alpha1.OfferedRole{Name: gen.Content, Elevated: true})
	plain := func(p *v1alpha1.SupportAccessPolicy) { p.Spec.Roles[0].Approvals = new(int32(2)) }
	within := func(timeout v1alpha1.Duration, approvers ...string) func(*v1alpha1.SupportAccessPolicy) {
		return gen.WithSpec(func(s *v1alpha1.SupportAccessPolicySpec) {
			s.ApprovalTimeout, s.ServiceAccountApprovers = timeout, approvers
		})
	}
	pipeline := gen.WithGrantedBy("system:serviceaccount:flux-system:flux")
	for name, c := range map[string]struct {
		grant            grantMods
		here, there      policyMods
		needed, byPeople int
		timeout          time.Duration
		accounts         int
	}{
		"plain roles need none":                         {here: policyMods{elevated}},
		"an elevated role needs one":                    {grant: grantMods{gen.WithRoles(gen.Content)}, here: policyMods{elevated}, needed: 1, timeout: 72 * time.Hour},
		"an elevated role beside a plain one needs one": {grant: grantMods{gen.WithRoles(gen.Configuration, gen.Content)}, here: policyMods{elevated}, needed: 1, timeout: 72 * time.Hour},
		"as many as the policy says":                    {grant: grantMods{gen.WithRoles(gen.Content)}, here: policyMods{asking(3), within("1h", robot)}, needed: 3, timeout: time.Hour, accounts: 1},
		"none where the policy says none":               {grant: grantMods{gen.WithRoles(gen.Content)}, here: policyMods{asking(0)}},
		"a plain role where the policy says so":         {here: policyMods{plain}, needed: 2, timeout: 72 * time.Hour},
		"a pipeline's elevated one needs one more":      {grant: grantMods{gen.WithRoles(gen.Content), pipeline}, here: policyMods{elevated}, needed: 2, byPeople: 1, timeout: 72 * time.Hour},
		"a pipeline's, where nobody else's needs any":   {grant: grantMods{gen.WithRoles(gen.Content), pipeline}, here: policyMods{asking(0)}, needed: 1, byPeople: 1, timeout: 72 * time.Hour},
		"a pipeline's plain one needs none":             {grant: grantMods{pipeline}, here: policyMods{elevated}},
		"of two namespaces the stricter counts": {
			grant: grantMods{gen.WithRoles(gen.Content), gen.WithScope(gen.Namespace, "shop")},
			here:  policyMods{elevated, within("48h", robot, other)}, there: policyMods{asking(2), within("24h", other)},
			needed: 2, timeout: 24 * time.Hour, accounts: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			policies := map[string]NamespacePolicy{gen.Namespace: {Name: "default", Policy: gen.Policy("default", c.here...)}}
			if c.there != nil {
				policies["shop"] = NamespacePolicy{Name: "shop", Policy: gen.Policy("shop", c.there...)}
			}
			got := Approvals(Input{Grant: gen.Grant("case-4711", gen.Namespace, c.grant...), Policies: policies})
			if got.Needed != c.needed || got.ByPeople != c.byPeople || got.Timeout != c.timeout || len(got.ServiceAccounts) != c.accounts {
				t.Errorf("got %+v; want %d, %d by people, within %s, %d ServiceAccounts", got, c.needed, c.byPeople, c.timeout, c.accounts)
			}
			if (got.Because == "") != (c.needed == 0) {
				t.Errorf("because %q", got.Because)
			}
		})
	}
}
