package gen

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
)

// Policy is a policy that says what the shipped one says, defaults included. It allows what Grant builds.
func Policy(name string, mods ...func(*v1alpha1.SupportAccessPolicy)) *v1alpha1.SupportAccessPolicy {
	return build(&v1alpha1.SupportAccessPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "SupportAccessPolicy"},
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: UID(name), Generation: 1, CreationTimestamp: metav1.NewTime(Epoch.AddDate(0, -1, 0))},
		Spec: v1alpha1.SupportAccessPolicySpec{
			NewGrants:            v1alpha1.NewGrantsAllowed,
			Durations:            []v1alpha1.Duration{"24h", "72h", "168h"},
			MaxDuration:          "168h",
			MaxStartDelay:        "168h",
			Roles:                []v1alpha1.OfferedRole{{Name: Configuration}, {Name: Diagnostics}},
			Scopes:               []v1alpha1.ScopeKind{v1alpha1.ScopeNamespaces},
			Transports:           []v1alpha1.Transport{v1alpha1.TransportDirect},
			CasePattern:          `^CASE-[0-9]+$`,
			EngineerPattern:      `@vendor\.example$`,
			RequirePublicKey:     v1alpha1.PublicKeysElevatedRoles,
			ServiceAccountGrants: v1alpha1.ServiceAccountGrantsExpirationTimeOnly,
			ProtectedNamespaces:  []string{"kube-system", "kube-public", "kube-node-lease"},
		},
	}, mods)
}

// WithSpec changes a policy's spec as a function says.
func WithSpec(change func(*v1alpha1.SupportAccessPolicySpec)) func(*v1alpha1.SupportAccessPolicy) {
	return func(p *v1alpha1.SupportAccessPolicy) { change(&p.Spec) }
}

// Suspended has it take no new grants.
func Suspended() func(*v1alpha1.SupportAccessPolicy) {
	return func(p *v1alpha1.SupportAccessPolicy) { p.Spec.NewGrants = v1alpha1.NewGrantsSuspended }
}

// AnyDuration takes the menu away, up to a limit.
func AnyDuration(limit v1alpha1.Duration) func(*v1alpha1.SupportAccessPolicy) {
	return func(p *v1alpha1.SupportAccessPolicy) { p.Spec.Durations, p.Spec.MaxDuration = nil, limit }
}

// Offering has it offer one more role.
func Offering(role v1alpha1.OfferedRole) func(*v1alpha1.SupportAccessPolicy) {
	return func(p *v1alpha1.SupportAccessPolicy) { p.Spec.Roles = append(p.Spec.Roles, role) }
}

// OfferingScopes has it offer these scopes.
func OfferingScopes(scopes ...v1alpha1.ScopeKind) func(*v1alpha1.SupportAccessPolicy) {
	return func(p *v1alpha1.SupportAccessPolicy) { p.Spec.Scopes = scopes }
}

// OfferingTransports has it offer these transports, the first by default.
func OfferingTransports(transports ...v1alpha1.Transport) func(*v1alpha1.SupportAccessPolicy) {
	return func(p *v1alpha1.SupportAccessPolicy) { p.Spec.Transports = transports }
}

// Protecting has it protect these namespaces besides.
func Protecting(namespaces ...string) func(*v1alpha1.SupportAccessPolicy) {
	return func(p *v1alpha1.SupportAccessPolicy) {
		p.Spec.ProtectedNamespaces = append(p.Spec.ProtectedNamespaces, namespaces...)
	}
}

// NeverAllowing adds rules to its never-list.
func NeverAllowing(rules ...v1alpha1.Rule) func(*v1alpha1.SupportAccessPolicy) {
	return func(p *v1alpha1.SupportAccessPolicy) { p.Spec.NeverAllow = append(p.Spec.NeverAllow, rules...) }
}

// EnablingByDefault has it switch on, for ten days, the namespaces that are made since an instant, for the engineer and the
// default roles; the admin wrote it.
func EnablingByDefault(since time.Time) func(*v1alpha1.SupportAccessPolicy) {
	return func(p *v1alpha1.SupportAccessPolicy) {
		p.Spec.MaxEnabled = "720h"
		p.Spec.EnabledByDefault = &v1alpha1.EnabledByDefault{
			CreatedSince: *at(since), Duration: "240h", Engineers: []v1alpha1.Engineer{{Name: Engineer}}, Roles: []string{Configuration, Diagnostics},
			Reason: "support access is switched on by default", SwitchedBy: Admin,
		}
	}
}

// ReleasingFlagged offers the role of flagged content, of one kind of objects that bear a flag of abuse.
func ReleasingFlagged(group, resource string) func(*v1alpha1.SupportAccessPolicy) {
	return func(p *v1alpha1.SupportAccessPolicy) {
		p.Spec.Roles = append(p.Spec.Roles, v1alpha1.OfferedRole{Name: v1alpha1.FlaggedRole})
		p.Spec.FlaggedContent = &v1alpha1.FlaggedContent{
			Resources: []v1alpha1.FlaggedResource{{Group: group, Resource: resource}},
			Selector: v1alpha1.FlagSelector{MatchExpressions: []v1alpha1.FlagRequirement{{
				Key: v1alpha1.LabelFlagged, Operator: v1alpha1.FlagIn, Values: []string{"malware", "phishing"},
			}}},
		}
	}
}
