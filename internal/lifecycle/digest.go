package lifecycle

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
)

// SpecDigest returns the SHA-256 of what of a spec cannot be corrected later: everything but reason and case.url.
func SpecDigest(spec v1alpha1.SupportAccessGrantSpec) string {
	fixed := *spec.DeepCopy()
	fixed.Reason = ""
	if fixed.Case != nil {
		fixed.Case.URL = ""
	}
	// Their order means nothing, and an applied manifest may change it.
	slices.SortFunc(fixed.Engineers, func(a, b v1alpha1.Engineer) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(fixed.Roles)
	if fixed.Scope != nil {
		slices.Sort(fixed.Scope.Namespaces)
	}
	// A spec is strings, numbers and lists of them: encoding it cannot fail.
	encoded, _ := json.Marshal(fixed)
	sum := sha256.Sum256(encoded)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// nameUsed reports whether the record under the grant's name is not this grant's.
func nameUsed(f Facts) bool {
	if f.Grant == nil || f.Record == nil {
		return false
	}
	recorded := f.Record.Spec.Grant
	return f.Grant.UID != recorded.UID || SpecDigest(f.Grant.Spec) != recorded.SpecDigest
}

func timeOf(t *metav1.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.Time
}
