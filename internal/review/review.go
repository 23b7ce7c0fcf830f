// Package review knows WHETHER a grant may be: it holds a grant and the rules of its roles against policies, and says
// every reason against it. It knows no client, context, clock or log. Its words are those of the admission policies in
// config/admission, which judge the same at apply as far as they can see.
package review

import (
	"cmp"
	"slices"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"supportaccess.dev/operator/api/v1alpha1"
)

// Input is what a grant is judged by.
type Input struct {
	// Grant is the grant.
	Grant *v1alpha1.SupportAccessGrant
	// Now is the instant of the pass. It stands for the creation time of a grant that has not been made yet.
	Now time.Time
	// Transport is the transport in force. Empty means the one that ResolveTransport gives.
	Transport v1alpha1.Transport
	// Policies are the policies by namespace: of the grant's own and of each that its scope names.
	Policies map[string]NamespacePolicy
	// Roles are the rules of the grant's ClusterRoles, resolved, by name. A role that is not here is not judged: whoever
	// asks must not open a grant whose role is missing.
	Roles map[string][]rbacv1.PolicyRule
}

// NamespacePolicy is the policy of one namespace. Without a policy a namespace takes no grant.
type NamespacePolicy struct {
	// Name is the policy that the namespace's label names, or default.
	Name string
	// Policy is that policy, nil if there is none of this name.
	Policy *v1alpha1.SupportAccessPolicy
	// Gone says that there is no such namespace, so that no policy can be asked. Whoever asks must not open the grant.
	Gone bool
}

// Opening returns every reason for which a grant may not open, in a stable order: what the policy of each namespace of
// its scope, and of its own, says against it, and what nobody may be given.
func Opening(in Input) field.ErrorList {
	c := newCase(in)
	errs := c.ownNamespaces()
	errs = append(errs, c.withoutPolicy()...)
	for _, p := range c.policies() {
		for _, limit := range limits {
			errs = append(errs, limit(c, p)...)
		}
	}
	for i, name := range c.roleNames() {
		errs = append(errs, forbidEach(rolePath(i), name, Never(in.Roles[name]), neverGiven)...)
	}
	return ordered(append(errs, c.ownSecrets()...))
}

// Standing returns every reason for which an open grant may not stay: what its policies never allow, which namespaces
// they protect and which transports they offer, and nothing else. A policy that is gone forbids nothing.
//
// What nobody may be given, whatever the policy, is not judged here: ask Never of each role.
func Standing(in Input) field.ErrorList {
	c := newCase(in)
	errs := c.ownNamespaces()
	for _, p := range c.policies() {
		for _, limit := range standing {
			errs = append(errs, limit(c, p)...)
		}
	}
	return ordered(append(errs, c.ownSecrets()...))
}

// Sentences returns reasons as the admission policies say them: the field, the value, the rule and the policy.
func Sentences(errs field.ErrorList) []string {
	sentences := make([]string, 0, len(errs))
	for _, err := range errs {
		sentences = append(sentences, err.Field+": "+err.Detail)
	}
	return sentences
}

// ResolveTransport returns the transport that a grant means: the one that it names, else the first that the policy of
// its own namespace lists, else none.
func ResolveTransport(grant *v1alpha1.SupportAccessGrant, own *v1alpha1.SupportAccessPolicy) v1alpha1.Transport {
	if grant.Spec.Transport != "" {
		return grant.Spec.Transport
	}
	if own == nil || len(own.Spec.Transports) == 0 {
		return ""
	}
	return own.Spec.Transports[0]
}

// ordered returns the errors sorted by field and words.
func ordered(errs field.ErrorList) field.ErrorList {
	slices.SortFunc(errs, func(a, b *field.Error) int {
		return cmp.Or(cmp.Compare(a.Field, b.Field), cmp.Compare(a.Detail, b.Detail))
	})
	return errs
}
