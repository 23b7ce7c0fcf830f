package partial

import (
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"supportaccess.dev/operator/api/v1alpha1"
)

// NamespaceChanged passes a namespace whose policy label changed or that begins to go.
func NamespaceChanged() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc:  func(event.CreateEvent) bool { return true },
		DeleteFunc:  func(event.DeleteEvent) bool { return true },
		GenericFunc: func(event.GenericEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			return e.ObjectOld.GetDeletionTimestamp().IsZero() != e.ObjectNew.GetDeletionTimestamp().IsZero() ||
				e.ObjectOld.GetLabels()[v1alpha1.LabelPolicy] != e.ObjectNew.GetLabels()[v1alpha1.LabelPolicy]
		},
	}
}
