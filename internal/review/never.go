package review

import (
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"supportaccess.dev/operator/api/v1alpha1"
)

// discovery are the paths that every authenticated user of a cluster may read anyway; a role may name these and no other.
// Paths beside the API's resources are the API server's own doors: metrics, profiles, logs of nodes.
var discovery = []string{
	"/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*", "/version", "/version/", "/healthz", "/livez", "/readyz",
}

// Never returns everything in a role's rules that support access never gives, whatever the policy says: what overlaps
// the lists below, wildcards, and paths other than discovery.
func Never(role []rbacv1.PolicyRule) []string {
	var reasons []string
	never := slices.Concat(BuiltinNever(), DefaultNever())
	for _, rule := range role {
		if reason := wildcard(rule); reason != "" {
			// Everything that it overlaps would only repeat this.
			reasons = append(reasons, reason)
			continue
		}
		reasons = append(reasons, undiscovered(rule)...)
		reasons = append(reasons, Overlap([]rbacv1.PolicyRule{rule}, never)...)
	}
	slices.Sort(reasons)
	return slices.Compact(reasons)
}

// Roles says of the roles of an open grant which are gone, and for which reasons the others reach what is never given by now.
func Roles(names []string, rules map[string][]rbacv1.PolicyRule) (gone, widened []string) {
	for _, name := range names {
		role, ok := rules[name]
		if !ok {
			gone = append(gone, name)
			continue
		}
		for _, reason := range Never(role) {
			widened = append(widened, fmt.Sprintf("ClusterRole %q: %s", name, reason))
		}
	}
	return gone, widened
}

// wildcard refuses what means more tomorrow than today: a rule that says all verbs, groups, resources or resources of a
// kind of subresource.
func wildcard(rule rbacv1.PolicyRule) string {
	open := func(words []string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(w, all) })
	}
	if !open(rule.Verbs) && !open(rule.APIGroups) && !open(rule.Resources) {
		return ""
	}
	if len(rule.NonResourceURLs) > 0 {
		return "allows " + strings.Join(rule.Verbs, ", ") + " of " + strings.Join(rule.NonResourceURLs, ", ") + ", a wildcard"
	}
	return describe(rule) + ", a wildcard"
}

func undiscovered(rule rbacv1.PolicyRule) []string {
	var reasons []string
	reads := !slices.ContainsFunc(rule.Verbs, func(v string) bool { return v != "get" && v != "head" })
	for _, path := range rule.NonResourceURLs {
		if !reads || !slices.Contains(discovery, path) {
			reasons = append(reasons, "allows "+strings.Join(rule.Verbs, ", ")+" of "+path+", a path beside the API's resources")
		}
	}
	return reasons
}

// writes are the verbs that change something.
func writes(more ...string) []string {
	return append([]string{"create", "update", "patch", "delete", "deletecollection"}, more...)
}

// BuiltinNever are the rules that no granted role may overlap: with any of them an engineer would give access, take on
// another identity, or get below what guards the cluster. Nothing loosens it.
func BuiltinNever() []rbacv1.PolicyRule {
	every := []string{all}
	return []rbacv1.PolicyRule{
		// Our own kinds: who could write them would grant, who could read them would know the other engineers' cases. An
		// engineer's own grant is read by a Role of that grant's, and a request is a wish, which is free.
		{Verbs: every, APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: ownKinds()},
		{Verbs: append(writes()[1:], "get", "list", "watch"), APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"supportaccessrequests"}},
		// Authority.
		{Verbs: writes(), APIGroups: []string{rbacv1.GroupName, "authorization.openshift.io"}, Resources: every},
		{Verbs: []string{"bind", "escalate", "impersonate*"}, APIGroups: every, Resources: every},
		// Identities.
		{Verbs: every, APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}},
		{Verbs: []string{"create"}, APIGroups: []string{""}, Resources: []string{"secrets"}},
		{Verbs: writes("approve", "sign", "attest"), APIGroups: []string{"certificates.k8s.io"}, Resources: every},
		// What guards and extends the API.
		{Verbs: writes(), APIGroups: []string{"admissionregistration.k8s.io", "apiregistration.k8s.io", "apiextensions.k8s.io"}, Resources: every},
		// The kubelet's doors lead into every pod of a node.
		{Verbs: every, APIGroups: []string{""}, Resources: []string{"nodes/*"}},
	}
}

// DefaultNever are the rules on top: with any of them the store could be carried away. They hold wherever nobody has
// decided otherwise, and so far there is nowhere to do so.
func DefaultNever() []rbacv1.PolicyRule {
	every := []string{all}
	return []rbacv1.PolicyRule{
		{Verbs: []string{"list", "watch", "deletecollection"}, APIGroups: []string{""}, Resources: []string{"secrets"}},
		{Verbs: every, APIGroups: []string{""}, Resources: []string{"pods/portforward"}},
		{Verbs: every, APIGroups: every, Resources: []string{"*/proxy"}},
		{Verbs: []string{"create"}, APIGroups: []string{""}, Resources: []string{"persistentvolumeclaims"}},
		{Verbs: []string{"create"}, APIGroups: []string{"snapshot.storage.k8s.io", "groupsnapshot.storage.k8s.io"}, Resources: every},
	}
}

// anySecret is what a grant of the whole cluster may not reach.
func anySecret() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{{Verbs: []string{all}, APIGroups: []string{""}, Resources: []string{"secrets"}}}
}

// ownKinds are our resources with their subresources, but for requests themselves.
func ownKinds() []string {
	resources := []string{"supportaccessrequests/*"}
	for _, kind := range []string{"grants", "decisions", "policies", "records", "settings", "sessions"} {
		resources = append(resources, "supportaccess"+kind, "supportaccess"+kind+"/*")
	}
	return resources
}
