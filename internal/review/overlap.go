package review

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

const all = "*"

// Overlap returns what of a role's rules a never-rule names, in words; nothing means that the role allows nothing of it.
// One verb, group, resource or subresource, name is enough. It asks the opposite of what RBAC's escalation check asks:
// not whether one covers the other, but whether they share anything.
//
// A role is read as RBAC reads it. In a never-rule there is more that means everything: besides the asterisk, */sub and
// absent resourceNames also resource/*, a verb that ends in an asterisk, and an asterisk among resourceNames. RBAC would
// take these for names that nothing bears, and a ban that bans nothing is a trap.
func Overlap(role, never []rbacv1.PolicyRule) []string {
	var reasons []string
	for _, r := range role {
		for _, n := range never {
			if reason := overlap(r, n); reason != "" {
				reasons = append(reasons, reason)
			}
		}
	}
	slices.Sort(reasons)
	return slices.Compact(reasons)
}

func overlap(role, never rbacv1.PolicyRule) string {
	verbs := common(role.Verbs, never.Verbs, commonVerb)
	if len(verbs) == 0 {
		return ""
	}
	if paths := common(role.NonResourceURLs, never.NonResourceURLs, commonPath); len(paths) > 0 {
		return "allows " + strings.Join(verbs, ", ") + " of " + strings.Join(paths, ", ")
	}
	groups := common(role.APIGroups, never.APIGroups, commonWord)
	resources := common(role.Resources, never.Resources, commonResource)
	names, share := commonNames(role.ResourceNames, never.ResourceNames)
	if len(groups) == 0 || len(resources) == 0 || !share {
		return ""
	}
	return describe(rbacv1.PolicyRule{Verbs: verbs, APIGroups: groups, Resources: resources, ResourceNames: names})
}

// describe says what a rule about resources allows.
func describe(r rbacv1.PolicyRule) string {
	text := "allows " + strings.Join(r.Verbs, ", ") + " of " + strings.Join(r.Resources, ", ")
	if !slices.Equal(r.APIGroups, []string{""}) {
		text += " in " + strings.Join(groupWords(r.APIGroups), ", ")
	}
	if len(r.ResourceNames) > 0 {
		text += " named " + strings.Join(r.ResourceNames, ", ")
	}
	return text
}

// groupWords returns API groups as one says them.
func groupWords(groups []string) []string {
	words := slices.Clone(groups)
	for i, group := range groups {
		switch group {
		case "":
			words[i] = "the core group"
		case all:
			words[i] = "every group"
		}
	}
	return words
}

// common returns what two lists share, the narrower of each pair, sorted, each once.
func common(role, never []string, meet func(role, never string) (string, bool)) []string {
	var shared []string
	for _, r := range role {
		for _, n := range never {
			if both, share := meet(r, n); share {
				shared = append(shared, both)
			}
		}
	}
	slices.Sort(shared)
	return slices.Compact(shared)
}

// commonWord returns the narrower of two words that are equal or of which one is the asterisk.
func commonWord(role, never string) (string, bool) {
	switch {
	case never == all:
		return role, true
	case role == all || role == never:
		return never, true
	}
	return "", false
}

func commonVerb(role, never string) (string, bool) {
	if stem, open := strings.CutSuffix(never, all); open && role != all {
		return role, strings.HasPrefix(role, stem)
	}
	return commonWord(role, never)
}

// commonResource returns the narrower of two resources. Each is the asterisk, which means every resource and
// subresource, or a resource, or a resource and a subresource.
func commonResource(role, never string) (string, bool) {
	if role == all || never == all {
		return commonWord(role, never)
	}
	ofRole, subOfRole, roleHasSub := strings.Cut(role, "/")
	ofNever, subOfNever, neverHasSub := strings.Cut(never, "/")
	resource, share := commonWord(ofRole, ofNever)
	if !roleHasSub && !neverHasSub {
		// Without a subresource only the asterisk alone is a wildcard, and that is done with.
		return role, role == never
	}
	if roleHasSub != neverHasSub || !share || (subOfNever != all && subOfRole != subOfNever) {
		return "", false
	}
	return resource + "/" + subOfRole, true
}

// commonNames returns the names that both lists have, and whether there can be any: an absent list means every name.
func commonNames(role, never []string) ([]string, bool) {
	if len(never) == 0 || slices.Contains(never, all) {
		return role, true
	}
	if len(role) == 0 {
		return never, true
	}
	shared := within(role, never)
	return shared, len(shared) > 0
}

// commonPath returns the narrower of two paths, each of which may end in an asterisk.
func commonPath(role, never string) (string, bool) {
	roleStem, roleOpen := stemOf(role)
	neverStem, neverOpen := stemOf(never)
	switch {
	case neverOpen && strings.HasPrefix(roleStem, neverStem):
		return role, true
	case roleOpen && strings.HasPrefix(neverStem, roleStem):
		return never, true
	}
	return role, role == never
}

func stemOf(path string) (string, bool) {
	return strings.TrimRight(path, all), strings.HasSuffix(path, all)
}
