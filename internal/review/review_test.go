package review

import (
	"slices"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
)

type (
	grantMods  = []func(*v1alpha1.SupportAccessGrant)
	policyMods = []func(*v1alpha1.SupportAccessPolicy)
)

// asked is a grant, the policy of every namespace, and what is said against it.
type asked struct {
	grant  grantMods
	policy policyMods
	want   []string
}

var (
	readConfigMaps = gen.Rule("", []string{"configmaps"}, []string{"get", "list", "watch"})
	getSecrets     = gen.Rule("", []string{"secrets"}, []string{"get"})
)

// inputOf builds the input of a case: every namespace of the scope has the one policy, and the roles are harmless but
// for content, which reads Secrets by name.
func inputOf(c asked) Input {
	grant := gen.Grant("case-4711", gen.Namespace, c.grant...)
	policy := NamespacePolicy{Name: "default", Policy: gen.Policy("default", c.policy...)}
	in := Input{
		Grant: grant, Now: gen.Epoch.Add(time.Hour), Transport: grant.Spec.Transport,
		Policies: map[string]NamespacePolicy{grant.Namespace: policy}, Roles: map[string][]rbacv1.PolicyRule{},
	}
	if grant.Spec.Scope != nil {
		for _, namespace := range grant.Spec.Scope.Namespaces {
			in.Policies[namespace] = policy
		}
	}
	for _, role := range grant.Spec.Roles {
		in.Roles[role] = []rbacv1.PolicyRule{readConfigMaps}
	}
	in.Roles[gen.Content] = []rbacv1.PolicyRule{getSecrets}
	return in
}

// openings are grants that would open, with what is said against them.
func openings() map[string]asked {
	epoch := gen.Epoch
	elevated := gen.Offering(v1alpha1.OfferedRole{Name: gen.Content, Elevated: true, MaxDuration: "4h"})
	keyed := gen.WithPublicKey(gen.Engineer, "age1qqq")
	offered := gen.Configuration + ", " + gen.Diagnostics
	spec := gen.WithSpec
	keys := func(rule v1alpha1.PublicKeys) func(*v1alpha1.SupportAccessPolicy) {
		return spec(func(s *v1alpha1.SupportAccessPolicySpec) { s.RequirePublicKey = rule })
	}
	return map[string]asked{
		"the usual grant": {},
		"while new grants are suspended": {
			policy: policyMods{gen.Suspended()},
			want:   []string{"spec: new grants are Suspended by policy default (newGrants)"},
		},
		"flagged content, which the policy releases": {
			grant: grantMods{gen.AllowingFlagged(gen.Configuration), gen.WithTransport(v1alpha1.TransportGateway)}, policy: policyMods{gen.OfferingTransports(v1alpha1.TransportGateway), gen.ReleasingFlagged("archive.example", "mails")},
		},
		"flagged content, of which the policy says nothing": {
			grant: grantMods{gen.AllowingFlagged(gen.Configuration)}, policy: policyMods{gen.Offering(v1alpha1.OfferedRole{Name: v1alpha1.FlaggedRole})},
			want: []string{"spec.flaggedContent: Allow is not offered: policy default has no flaggedContent"},
		},
		"flagged content where the transport that is meant is Direct": {
			grant: grantMods{gen.AllowingFlagged(gen.Configuration), gen.WithTransport("")}, policy: policyMods{gen.OfferingTransports(v1alpha1.TransportDirect, v1alpha1.TransportGateway), gen.ReleasingFlagged("archive.example", "mails")},
			want: []string{"spec.flaggedContent: Allow is for the transport Gateway alone, and Direct is the default of policy default"},
		},
		"a duration on the menu":                {grant: grantMods{gen.WithDuration("168h")}},
		"a duration on the menu in other words": {grant: grantMods{gen.WithDuration("1440m")}},
		"a duration beside the menu": {
			grant: grantMods{gen.WithDuration("24h1s")},
			want:  []string{"spec.duration: 24h1s is not offered: policy default offers 24h, 72h, 168h"},
		},
		"a duration beyond the limit": {
			grant: grantMods{gen.WithDuration("200h")}, policy: policyMods{gen.AnyDuration("168h")},
			want: []string{"spec.duration: 200h exceeds 168h, the limit of policy default"},
		},
		"a duration at the limit": {
			grant: grantMods{gen.WithDuration("168h")}, policy: policyMods{gen.AnyDuration("168h")},
		},
		"a duration a second beyond the limit": {
			grant: grantMods{gen.WithDuration("168h1s")}, policy: policyMods{gen.AnyDuration("168h")},
			want: []string{"spec.duration: 168h1s exceeds 168h, the limit of policy default"},
		},
		"a duration beyond the limit of a policy that names none": {
			grant: grantMods{gen.WithDuration("168h1s")}, policy: policyMods{gen.AnyDuration("")},
			want: []string{"spec.duration: 168h1s exceeds 168h, the limit of policy default"},
		},
		"an end at the limit, counted from its making": {grant: grantMods{gen.WithExpiration(epoch.Add(168 * time.Hour))}},
		"an end a second beyond the limit": {
			grant: grantMods{gen.WithExpiration(epoch.Add(168*time.Hour + time.Second))},
			want:  []string{"spec.expirationTime: 2026-12-08T09:00:01Z exceeds 168h, the limit of policy default: give at most 2026-12-08T09:00:00Z"},
		},
		"an end at the limit, counted from its start": {
			grant: grantMods{gen.WithStart(epoch.Add(time.Hour)), gen.WithExpiration(epoch.Add(169 * time.Hour))},
		},
		"an end beyond the limit, counted from its start": {
			grant: grantMods{gen.WithStart(epoch.Add(time.Hour)), gen.WithExpiration(epoch.Add(169*time.Hour + time.Second))},
			want:  []string{"spec.expirationTime: 2026-12-08T10:00:01Z exceeds 168h, the limit of policy default: give at most 2026-12-08T10:00:00Z"},
		},
		"a start that has passed lengthens nothing": {
			grant: grantMods{gen.WithStart(epoch.Add(-time.Hour)), gen.WithExpiration(epoch.Add(168 * time.Hour))},
		},
		"an end that has passed": {grant: grantMods{gen.WithExpiration(epoch.Add(-time.Hour))}},
		"the latest start":       {grant: grantMods{gen.WithStart(epoch.Add(168 * time.Hour))}},
		"a start a second too late": {
			grant: grantMods{gen.WithStart(epoch.Add(168*time.Hour + time.Second))},
			want:  []string{"spec.startTime: 2026-12-08T09:00:01Z is more than 168h ahead, the limit of policy default: give at most 2026-12-08T09:00:00Z"},
		},
		"a start now, where none may be later": {
			grant: grantMods{gen.WithStart(epoch)}, policy: policyMods{spec(func(s *v1alpha1.SupportAccessPolicySpec) { s.MaxStartDelay = "0s" })},
		},
		"a start in a second, where none may be later": {
			grant: grantMods{gen.WithStart(epoch.Add(time.Second))}, policy: policyMods{spec(func(s *v1alpha1.SupportAccessPolicySpec) { s.MaxStartDelay = "0s" })},
			want: []string{"spec.startTime: 2026-12-01T09:00:01Z is more than 0s ahead, the limit of policy default: give at most 2026-12-01T09:00:00Z"},
		},
		"a start too late for a policy that names no delay": {
			grant: grantMods{gen.WithStart(epoch.Add(168*time.Hour + time.Second))}, policy: policyMods{spec(func(s *v1alpha1.SupportAccessPolicySpec) { s.MaxStartDelay = "" })},
			want: []string{"spec.startTime: 2026-12-08T09:00:01Z is more than 168h ahead, the limit of policy default: give at most 2026-12-08T09:00:00Z"},
		},
		"roles that are not offered": {
			grant: grantMods{gen.WithRoles("view", gen.Configuration, "edit")},
			want:  []string{"spec.roles: view, edit is not offered: policy default offers " + offered},
		},
		"an elevated role for its time": {
			grant: grantMods{gen.WithRoles(gen.Content), keyed, gen.WithDuration("4h")}, policy: policyMods{elevated, gen.AnyDuration("168h")},
		},
		"an elevated role for a second longer": {
			grant: grantMods{gen.WithRoles(gen.Content), keyed, gen.WithDuration("4h1s")}, policy: policyMods{elevated, gen.AnyDuration("168h")},
			want: []string{"spec.duration: 4h1s exceeds 4h, the limit of role support-access-content in policy default"},
		},
		"an elevated role until too late": {
			grant: grantMods{gen.WithRoles(gen.Content), keyed, gen.WithExpiration(epoch.Add(5 * time.Hour))}, policy: policyMods{elevated},
			want: []string{"spec.expirationTime: 2026-12-01T14:00:00Z exceeds 4h, the limit of role support-access-content in policy default: give at most 2026-12-01T13:00:00Z"},
		},
		"the limit of a role that it does not name": {policy: policyMods{elevated}},
		"an elevated role without a case": {
			grant:  grantMods{gen.WithRoles(gen.Content), keyed, gen.WithDuration("4h"), gen.WithCase("")},
			policy: policyMods{elevated, gen.AnyDuration("168h"), spec(func(s *v1alpha1.SupportAccessPolicySpec) { s.CasePattern = "" })},
			want:   []string{"spec.case: is missing: support-access-content is elevated in policy default and given for a case only: add spec.case.id"},
		},
		"an elevated role for somebody without a key": {
			grant:  grantMods{gen.WithRoles(gen.Configuration, gen.Content), gen.WithDuration("4h")},
			policy: policyMods{elevated, gen.AnyDuration("168h")},
			want: []string{"spec.engineers[].publicKey: is missing for " + gen.Engineer + ": support-access-content is elevated in policy default " +
				"(requirePublicKey: ElevatedRoles): give an age recipient or an ssh-ed25519 public key of each"},
		},
		"an elevated role for two, of whom one has a key": {
			grant: grantMods{gen.WithRoles(gen.Content), gen.WithDuration("4h"), gen.WithEngineers(gen.Engineer, "ben@vendor.example"), keyed},
			// A policy that was stored before there was this rule says nothing of it.
			policy: policyMods{elevated, gen.AnyDuration("168h"), keys("")},
			want: []string{"spec.engineers[].publicKey: is missing for ben@vendor.example: support-access-content is elevated in policy default " +
				"(requirePublicKey: ElevatedRoles): give an age recipient or an ssh-ed25519 public key of each"},
		},
		"an elevated role for somebody without a key, where none is demanded": {
			grant:  grantMods{gen.WithRoles(gen.Content), gen.WithDuration("4h")},
			policy: policyMods{elevated, gen.AnyDuration("168h"), keys(v1alpha1.PublicKeysNever)},
		},
		"plain roles for somebody without a key, where one is always demanded": {
			policy: policyMods{keys(v1alpha1.PublicKeysAlways)},
			want: []string{"spec.engineers[].publicKey: is missing for " + gen.Engineer + ": it is demanded by policy default " +
				"(requirePublicKey: Always): give an age recipient or an ssh-ed25519 public key of each"},
		},
		"plain roles for somebody with a key, where one is always demanded": {grant: grantMods{keyed}, policy: policyMods{keys(v1alpha1.PublicKeysAlways)}},
		"plain roles without a case, where none is required": {
			grant: grantMods{gen.WithCase("")}, policy: policyMods{spec(func(s *v1alpha1.SupportAccessPolicySpec) { s.CasePattern = "" })},
		},
		"no case, where one is required": {
			grant: grantMods{gen.WithCase("")},
			want:  []string{"spec.case.id: is missing: give one that matches ^CASE-[0-9]+$, the casePattern of policy default"},
		},
		"a case that does not match": {
			grant: grantMods{gen.WithCase("CASE-4711b")},
			want:  []string{"spec.case.id: CASE-4711b does not match ^CASE-[0-9]+$, the casePattern of policy default"},
		},
		"a case under a pattern that is none": {
			policy: policyMods{spec(func(s *v1alpha1.SupportAccessPolicySpec) { s.CasePattern = "[" })},
			want:   []string{"spec.case.id: CASE-4711 does not match [, the casePattern of policy default"},
		},
		"engineers that do not match": {
			grant: grantMods{gen.WithEngineers("eve@elsewhere.example", gen.Engineer, "bob")},
			want:  []string{`spec.engineers: eve@elsewhere.example, bob does not match @vendor\.example$, the engineerPattern of policy default`},
		},
		"any engineer, where there is no pattern": {
			grant: grantMods{gen.WithEngineers("bob")}, policy: policyMods{spec(func(s *v1alpha1.SupportAccessPolicySpec) { s.EngineerPattern = "" })},
		},
		"a transport that is not offered": {
			grant: grantMods{gen.WithTransport(v1alpha1.TransportGateway)},
			want:  []string{"spec.transport: Gateway is not offered: policy default offers Direct"},
		},
		"no transport is the first that is offered": {
			grant: grantMods{gen.WithTransport("")}, policy: policyMods{gen.OfferingTransports(v1alpha1.TransportGateway, v1alpha1.TransportDirect)},
		},
		"a pipeline with an end": {grant: grantMods{gen.WithGrantedBy(gen.Pipeline), gen.WithExpiration(epoch.Add(24 * time.Hour))}},
		"a pipeline with a duration": {
			grant: grantMods{gen.WithGrantedBy(gen.Pipeline)},
			want: []string{`spec.duration: 24h would start anew whenever a pipeline applies this again: instead of it write expirationTime: "2026-12-02T09:00:00Z"` +
				` (serviceAccountGrants: ExpirationTimeOnly, in policy default)`},
		},
		"a pipeline with a duration from a start": {
			grant: grantMods{gen.WithGrantedBy(gen.Pipeline), gen.WithStart(epoch.Add(time.Hour))},
			want: []string{`spec.duration: 24h would start anew whenever a pipeline applies this again: instead of it write expirationTime: "2026-12-02T10:00:00Z"` +
				` (serviceAccountGrants: ExpirationTimeOnly, in policy default)`},
		},
		"a pipeline with a duration, where the policy says nothing": {
			grant: grantMods{gen.WithGrantedBy(gen.Pipeline)}, policy: policyMods{spec(func(s *v1alpha1.SupportAccessPolicySpec) { s.ServiceAccountGrants = "" })},
			want: []string{`spec.duration: 24h would start anew whenever a pipeline applies this again: instead of it write expirationTime: "2026-12-02T09:00:00Z"` +
				` (serviceAccountGrants: ExpirationTimeOnly, in policy default)`},
		},
		"a pipeline with a duration, where that is allowed": {
			grant: grantMods{gen.WithGrantedBy(gen.Pipeline)}, policy: policyMods{spec(func(s *v1alpha1.SupportAccessPolicySpec) { s.ServiceAccountGrants = v1alpha1.ServiceAccountGrantsAllow })},
		},
		"a pipeline, where only people grant": {
			grant:  grantMods{gen.WithGrantedBy(gen.Pipeline), gen.WithExpiration(epoch.Add(24 * time.Hour))},
			policy: policyMods{spec(func(s *v1alpha1.SupportAccessPolicySpec) { s.ServiceAccountGrants = v1alpha1.ServiceAccountGrantsDeny })},
			want: []string{"spec.grantedBy: system:serviceaccount:flux-system:kustomize-controller is a ServiceAccount: policy default takes grants from people only" +
				" (serviceAccountGrants: Deny)"},
		},
		"a person, where only people grant": {
			policy: policyMods{spec(func(s *v1alpha1.SupportAccessPolicySpec) { s.ServiceAccountGrants = v1alpha1.ServiceAccountGrantsDeny })},
		},
		"the whole cluster, where it is not offered": {
			grant: grantMods{gen.WithCluster()},
			want:  []string{"spec.scope.cluster: true is not offered: policy default offers scopes Namespaces"},
		},
		"the whole cluster, where the policy says nothing": {
			grant: grantMods{gen.WithCluster()}, policy: policyMods{gen.OfferingScopes()},
			want: []string{"spec.scope.cluster: true is not offered: policy default offers scopes Namespaces"},
		},
		"the whole cluster, where it is offered": {
			grant: grantMods{gen.WithCluster()}, policy: policyMods{gen.OfferingScopes(v1alpha1.ScopeCluster)},
		},
		"the whole cluster, to a role that reads Secrets": {
			grant:  grantMods{gen.WithCluster(), gen.WithRoles(gen.Content), keyed, gen.WithDuration("4h")},
			policy: policyMods{elevated, gen.AnyDuration("168h"), gen.OfferingScopes(v1alpha1.ScopeCluster)},
			want: []string{"spec.scope.cluster: true is not for support-access-content: it reaches Secrets, and those of support-access-credentials are other people's" +
				" credentials: name namespaces"},
		},
		"its own namespace, where only the cluster is offered": {
			policy: policyMods{gen.OfferingScopes(v1alpha1.ScopeCluster)},
			want:   []string{"spec.scope.namespaces: mail-archive is not offered: policy default offers scopes Cluster"},
		},
		"other namespaces of the same policy": {grant: grantMods{gen.WithScope("a", "b")}},
		"protected namespaces": {
			grant: grantMods{gen.WithScope("kube-public", "a", "kube-system")},
			want:  []string{"spec.scope.namespaces: kube-public, kube-system is protected by policy default"},
		},
		"protected namespaces of a policy that says nothing": {
			grant: grantMods{gen.WithScope("kube-node-lease")}, policy: policyMods{spec(func(s *v1alpha1.SupportAccessPolicySpec) { s.ProtectedNamespaces = nil })},
			want: []string{"spec.scope.namespaces: kube-node-lease is protected by policy default"},
		},
		"kube-system, where the policy protects nothing": {
			grant: grantMods{gen.WithScope("kube-system")}, policy: policyMods{spec(func(s *v1alpha1.SupportAccessPolicySpec) { s.ProtectedNamespaces = []string{} })},
		},
		"in a protected namespace": {
			policy: policyMods{gen.Protecting(gen.Namespace)},
			want:   []string{"metadata.namespace: mail-archive is protected by policy default and takes no grants"},
		},
		"the operator's own namespaces, where the policy protects nothing": {
			grant: grantMods{gen.WithScope("support-access-credentials", "support-access-system")}, policy: policyMods{spec(func(s *v1alpha1.SupportAccessPolicySpec) { s.ProtectedNamespaces = []string{} })},
			want: []string{"spec.scope.namespaces: support-access-credentials, support-access-system belongs to the operator and is never in the scope of a grant"},
		},
		"in the operator's own namespace": {
			grant: grantMods{func(g *v1alpha1.SupportAccessGrant) { g.Namespace = "support-access-system" }},
			want:  []string{"metadata.namespace: support-access-system belongs to the operator and takes no grants"},
		},
		"a role that the policy never allows": {
			policy: policyMods{gen.NeverAllowing(v1alpha1.Rule{Verbs: []string{"list"}, APIGroups: []string{""}, Resources: []string{"configmaps"}})},
			want: []string{
				"spec.roles[0]: support-access-configuration allows list of configmaps, which policy default never allows (neverAllow)",
				"spec.roles[1]: support-access-diagnostics allows list of configmaps, which policy default never allows (neverAllow)",
			},
		},
		"a role beside what the policy never allows": {
			policy: policyMods{gen.NeverAllowing(v1alpha1.Rule{Verbs: []string{"delete"}, APIGroups: []string{""}, Resources: []string{"configmaps"}})},
		},
		"everything at once": {
			grant: grantMods{
				gen.WithRoles("view"), gen.WithDuration("200h"), gen.WithCase("4711"), gen.WithEngineers("bob"), gen.WithScope("kube-system"),
				gen.WithTransport(v1alpha1.TransportGateway), gen.WithStart(epoch.Add(1000 * time.Hour)),
			},
			policy: policyMods{gen.Suspended()},
			want: []string{
				"spec: new grants are Suspended by policy default (newGrants)",
				"spec.case.id: 4711 does not match ^CASE-[0-9]+$, the casePattern of policy default",
				"spec.duration: 200h exceeds 168h, the limit of policy default",
				"spec.duration: 200h is not offered: policy default offers 24h, 72h, 168h",
				`spec.engineers: bob does not match @vendor\.example$, the engineerPattern of policy default`,
				"spec.roles: view is not offered: policy default offers " + offered,
				"spec.scope.namespaces: kube-system is protected by policy default",
				"spec.startTime: 2027-01-12T01:00:00Z is more than 168h ahead, the limit of policy default: give at most 2026-12-08T09:00:00Z",
				"spec.transport: Gateway is not offered: policy default offers Direct",
			},
		},
	}
}

func TestAGrantOpensOnlyAsThePolicyAllows(t *testing.T) {
	for name, c := range openings() {
		t.Run(name, func(t *testing.T) {
			expect(t, Sentences(Opening(inputOf(c))), c.want)
		})
	}
}

func TestEveryNamespaceOfTheScopeMustAllowTheGrant(t *testing.T) {
	strict := gen.Policy("strict", gen.AnyDuration("1h"), gen.Protecting("vault"))
	loose := gen.Policy("loose")
	named := func(p *v1alpha1.SupportAccessPolicy) NamespacePolicy {
		return NamespacePolicy{Name: p.Name, Policy: p}
	}
	cases := map[string]struct {
		scope    []string
		policies map[string]NamespacePolicy
		want     []string
	}{
		"all of them allow it": {
			scope: []string{"a", "b"}, policies: map[string]NamespacePolicy{gen.Namespace: named(loose), "a": named(loose), "b": named(loose)},
		},
		"one of them does not": {
			scope: []string{"a", "b"}, policies: map[string]NamespacePolicy{gen.Namespace: named(loose), "a": named(loose), "b": named(strict)},
			want: []string{"spec.duration: 24h exceeds 1h, the limit of policy strict"},
		},
		"the grant's own does not, though the scope leaves it out": {
			scope: []string{"a"}, policies: map[string]NamespacePolicy{gen.Namespace: named(strict), "a": named(loose)},
			want: []string{"spec.duration: 24h exceeds 1h, the limit of policy strict"},
		},
		"two of the same policy say it once": {
			scope: []string{"a", "b"}, policies: map[string]NamespacePolicy{gen.Namespace: named(loose), "a": named(strict), "b": named(strict)},
			want: []string{"spec.duration: 24h exceeds 1h, the limit of policy strict"},
		},
		"one policy protects another's namespace": {
			scope: []string{"vault"}, policies: map[string]NamespacePolicy{gen.Namespace: named(strict), "vault": named(loose)},
			want: []string{"spec.duration: 24h exceeds 1h, the limit of policy strict", "spec.scope.namespaces: vault is protected by policy strict"},
		},
		"a label names no policy": {
			scope: []string{"a"}, policies: map[string]NamespacePolicy{gen.Namespace: named(loose), "a": {Name: "lost"}},
			want: []string{"spec.scope.namespaces: a takes no grants: its label supportaccess.dev/policy names policy lost, which does not exist"},
		},
		"the grant's own label names no policy": {
			policies: map[string]NamespacePolicy{gen.Namespace: {Name: "lost"}},
			want:     []string{"metadata.namespace: mail-archive takes no grants: its label supportaccess.dev/policy names policy lost, which does not exist"},
		},
		"there is no default policy": {
			policies: map[string]NamespacePolicy{gen.Namespace: {Name: "default"}},
			want:     []string{"metadata.namespace: mail-archive takes no grants: there is no policy default, and its label supportaccess.dev/policy names no other"},
		},
		"nobody looked at a namespace": {
			scope: []string{"a"}, policies: map[string]NamespacePolicy{gen.Namespace: named(loose)},
			want: []string{"spec.scope.namespaces: a takes no grants: there is no policy default, and its label supportaccess.dev/policy names no other"},
		},
		"a namespace is gone, which is not the policy's to judge": {
			scope: []string{"a"}, policies: map[string]NamespacePolicy{gen.Namespace: named(loose), "a": {Gone: true}},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			in := inputOf(asked{grant: grantMods{gen.WithScope(c.scope...)}})
			in.Policies = c.policies
			expect(t, Sentences(Opening(in)), c.want)
		})
	}
}

func TestAGrantThatWasNotMadeYetIsCountedFromNow(t *testing.T) {
	in := inputOf(asked{grant: grantMods{
		func(g *v1alpha1.SupportAccessGrant) { g.CreationTimestamp.Reset() }, gen.WithExpiration(gen.Epoch.Add(169*time.Hour + time.Second)),
	}})
	expect(t, Sentences(Opening(in)), []string{
		"spec.expirationTime: 2026-12-08T10:00:01Z exceeds 168h, the limit of policy default: give at most 2026-12-08T10:00:00Z",
	})
}

func TestARoleThatReachesTooFarIsNotOpened(t *testing.T) {
	in := inputOf(asked{})
	in.Roles[gen.Diagnostics] = []rbacv1.PolicyRule{gen.Rule("", []string{"secrets"}, []string{"get", "list"})}
	expect(t, Sentences(Opening(in)), []string{
		"spec.roles[1]: support-access-diagnostics allows list of secrets, which support access never gives",
	})
}

// An open grant is judged by three things again. Everything else of the policy may have changed under it.
func TestAnOpenGrantStaysUnlessThePolicyForbidsItOutright(t *testing.T) {
	cases := map[string]asked{
		"the usual grant": {},
		"every limit has changed": {
			grant: grantMods{
				gen.WithDuration("200h"), gen.WithRoles("view"), gen.WithCase(""), gen.WithEngineers("bob"), gen.WithGrantedBy(gen.Pipeline), gen.WithStart(gen.Epoch.Add(1000 * time.Hour)),
			},
			policy: policyMods{gen.Suspended(), gen.OfferingScopes(v1alpha1.ScopeCluster), gen.WithSpec(func(s *v1alpha1.SupportAccessPolicySpec) {
				s.ServiceAccountGrants = v1alpha1.ServiceAccountGrantsDeny
			})},
		},
		"its namespace is protected by now": {
			policy: policyMods{gen.Protecting(gen.Namespace)},
			want:   []string{"metadata.namespace: mail-archive is protected by policy default and takes no grants"},
		},
		"a namespace of its scope is protected by now": {
			grant: grantMods{gen.WithScope("a", "b")}, policy: policyMods{gen.Protecting("b")},
			want: []string{"spec.scope.namespaces: b is protected by policy default"},
		},
		"its transport is no longer offered": {
			policy: policyMods{gen.OfferingTransports(v1alpha1.TransportGateway)},
			want:   []string{"spec.transport: Direct is not offered: policy default offers Gateway"},
		},
		"its role does what is never allowed by now": {
			policy: policyMods{gen.NeverAllowing(v1alpha1.Rule{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"configmaps"}})},
			want: []string{
				"spec.roles[0]: support-access-configuration allows get, list, watch of configmaps, which policy default never allows (neverAllow)",
				"spec.roles[1]: support-access-diagnostics allows get, list, watch of configmaps, which policy default never allows (neverAllow)",
			},
		},
		"its scope is the operator's own namespace": {
			grant: grantMods{gen.WithScope("support-access-system")},
			want:  []string{"spec.scope.namespaces: support-access-system belongs to the operator and is never in the scope of a grant"},
		},
		"its role reads the Secrets of the whole cluster by now": {
			grant: grantMods{gen.WithCluster(), gen.WithRoles(gen.Content)},
			want: []string{"spec.scope.cluster: true is not for support-access-content: it reaches Secrets, and those of support-access-credentials are other people's" +
				" credentials: name namespaces"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			expect(t, Sentences(Standing(inputOf(c))), c.want)
		})
	}
}

func TestADeletedPolicyClosesNothing(t *testing.T) {
	in := inputOf(asked{})
	in.Policies = map[string]NamespacePolicy{gen.Namespace: {Name: "default"}}
	expect(t, Sentences(Standing(in)), nil)
}

// The transport in force was resolved at opening: a policy that lists another one first since then changes nothing.
func TestAnOpenGrantIsJudgedByTheTransportInForce(t *testing.T) {
	in := inputOf(asked{
		grant:  grantMods{gen.WithTransport("")},
		policy: policyMods{gen.OfferingTransports(v1alpha1.TransportGateway, v1alpha1.TransportDirect)},
	})
	in.Transport = v1alpha1.TransportDirect
	expect(t, Sentences(Standing(in)), nil)
}

func TestTheTransportIsTheGrantsElseThePolicysFirst(t *testing.T) {
	policy := gen.Policy("default", gen.OfferingTransports(v1alpha1.TransportGateway, v1alpha1.TransportDirect))
	for name, c := range map[string]struct {
		spec   v1alpha1.Transport
		policy *v1alpha1.SupportAccessPolicy
		want   v1alpha1.Transport
	}{
		"the grant's":            {v1alpha1.TransportDirect, policy, v1alpha1.TransportDirect},
		"the policy's first":     {"", policy, v1alpha1.TransportGateway},
		"none without a policy":  {"", nil, ""},
		"none without transport": {"", gen.Policy("none", gen.OfferingTransports()), ""},
	} {
		if got := ResolveTransport(gen.Grant("g", "n", gen.WithTransport(c.spec)), c.policy); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

// What is said must not depend on the order in which namespaces and rules come.
func TestReasonsAreTheSameEachTime(t *testing.T) {
	in := inputOf(asked{grant: grantMods{gen.WithScope("a", "b", "c", "d"), gen.WithRoles("view"), gen.WithDuration("200h")}})
	for i, namespace := range []string{"a", "b", "c", "d"} {
		name := strings.Repeat("p", i+1)
		in.Policies[namespace] = NamespacePolicy{Name: name, Policy: gen.Policy(name)}
	}
	first := Sentences(Opening(in))
	if !slices.IsSorted(first) || len(first) < 10 {
		t.Fatalf("not sorted, or too few: %q", first)
	}
	for range 20 {
		expect(t, Sentences(Opening(in)), first)
	}
}

func TestReviewChangesNothingThatItWasGiven(t *testing.T) {
	in := inputOf(asked{grant: grantMods{gen.WithScope("z", "kube-system", "a"), gen.WithRoles("z", "a")}})
	scope, roles := slices.Clone(in.Grant.Spec.Scope.Namespaces), slices.Clone(in.Grant.Spec.Roles)
	Opening(in)
	Standing(in)
	if !slices.Equal(in.Grant.Spec.Scope.Namespaces, scope) || !slices.Equal(in.Grant.Spec.Roles, roles) {
		t.Errorf("the grant was changed: %v %v", in.Grant.Spec.Scope.Namespaces, in.Grant.Spec.Roles)
	}
}

func expect(t *testing.T, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
}
