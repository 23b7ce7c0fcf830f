package records

import (
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// IsOfGrant reports whether a record, or a copy of one, is about a grant, and not about a setting or a request.
func IsOfGrant(record *v1alpha1.SupportAccessRecord) bool { return record.Spec.Grant.Name != "" }

// Home returns where the account of what a record is about lies; whatever lies elsewhere is a copy of it.
func Home(record *v1alpha1.SupportAccessRecord) types.NamespacedName {
	switch spec := record.Spec; {
	case spec.Setting != nil:
		return types.NamespacedName{Namespace: spec.Setting.Namespace, Name: v1alpha1.SettingRecordName}
	case spec.Request != nil:
		return types.NamespacedName{Namespace: spec.Request.Namespace, Name: spec.Request.Name + v1alpha1.RequestRecordSuffix}
	default:
		return types.NamespacedName{Namespace: spec.Grant.Namespace, Name: spec.Grant.Name}
	}
}

// IsOwn reports whether a record is the account itself, and no copy of it.
func IsOwn(record *v1alpha1.SupportAccessRecord) bool {
	return client.ObjectKeyFromObject(record) == Home(record)
}
