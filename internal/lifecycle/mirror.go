package lifecycle

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"supportaccess.dev/operator/api/v1alpha1"
)

// MirrorName returns the name of a grant's record outside the grant's own namespace. It has a dot, which no grant's name
// has, so it is never the name of another grant's record.
func MirrorName(grant types.NamespacedName) string {
	return grant.Namespace + "." + grant.Name
}

// TombstoneKey returns where the record of a grant lies once its namespace is gone.
func TombstoneKey(grant types.NamespacedName) types.NamespacedName {
	return types.NamespacedName{Namespace: v1alpha1.SystemNamespace, Name: MirrorName(grant)}
}

// MirrorPlaces returns the namespaces besides the grant's own in which its record is shown: those that the grant
// reaches, or the operator's own where it reaches the whole cluster.
func MirrorPlaces(record *v1alpha1.SupportAccessRecord) []string {
	var places []string
	for _, namespace := range ScopeOf(record.Spec.Scope, record.Spec.Grant.Namespace) {
		switch namespace {
		case record.Spec.Grant.Namespace:
		case "":
			places = append(places, v1alpha1.SystemNamespace)
		default:
			places = append(places, namespace)
		}
	}
	return places
}

// Mirror renders the copy of a record for another namespace.
func Mirror(record *v1alpha1.SupportAccessRecord, namespace string) *v1alpha1.SupportAccessRecord {
	grant := record.Spec.Grant
	return &v1alpha1.SupportAccessRecord{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			Name:      MirrorName(types.NamespacedName{Namespace: grant.Namespace, Name: grant.Name}),
			Labels:    record.Labels,
		},
		Spec:   *record.Spec.DeepCopy(),
		Status: *record.Status.DeepCopy(),
	}
}
