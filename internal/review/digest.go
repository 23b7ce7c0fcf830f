package review

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	rbacvalidation "k8s.io/component-helpers/auth/rbac/validation"
)

// RulesDigest returns the SHA-256, in lower-case hex, of what rules allow. To RBAC a rule is the set of its verbs, groups,
// resources and names, and a role the set of its rules: in whatever order and bundles they are written, the digest is
// one.
func RulesDigest(rules []rbacv1.PolicyRule) string {
	var atoms []string
	for _, rule := range rules {
		for _, atom := range rbacvalidation.BreakdownRule(rule) {
			// Quoted, so that no two atoms are written alike.
			atoms = append(atoms, fmt.Sprintf("%q %q %q %q %q\n", atom.Verbs, atom.APIGroups, atom.Resources, atom.ResourceNames, atom.NonResourceURLs))
		}
	}
	slices.Sort(atoms)
	sum := sha256.New()
	for _, atom := range slices.Compact(atoms) {
		sum.Write([]byte(atom))
	}
	return hex.EncodeToString(sum.Sum(nil))
}
