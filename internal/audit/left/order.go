package left

import (
	"cmp"
	"slices"
	"strings"

	"supportaccess.dev/operator/api/v1alpha1"
)

// weights are why objects outlive a grant, what weighs most first.
var weights = []v1alpha1.Outliving{
	v1alpha1.OutlivingPermissions, v1alpha1.OutlivingToken, v1alpha1.OutlivingServiceAccount, v1alpha1.OutlivingWorkload, v1alpha1.OutlivingSecret, "",
}

// byWeight orders objects by what could let somebody in, then those that were made before those that were changed.
func byWeight(a, b v1alpha1.LeftObject) int {
	return cmp.Or(
		cmp.Compare(slices.Index(weights, a.Outlives), slices.Index(weights, b.Outlives)),
		strings.Compare(string(b.Deed), string(a.Deed)),
		strings.Compare(a.Group, b.Group), strings.Compare(a.Resource, b.Resource),
		strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name),
	)
}

// byPlace orders what was seen: pods first, since more is to be rotated of them.
func byPlace(a, b v1alpha1.SeenObject) int {
	return cmp.Or(strings.Compare(string(a.Kind), string(b.Kind)), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}
