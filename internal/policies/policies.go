// Package policies finds the policy that holds in a namespace, for those who judge grants: the controller and the gateway.
package policies

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/review"
)

// ErrNoKind is for a cluster that has not even the kind of policies.
var ErrNoKind = errors.New("there is no such kind")

// Unawaited is a source for which a controller does not wait before it begins. Whoever deletes the kind of policies must not
// keep grants from closing; once the kind is there, its policies wake whoever goes by them.
type Unawaited struct{ source.Source }

// NameOf returns the name of the policy of a namespace: the one that its label names, or the default.
func NameOf(namespace client.Object) string {
	if name := namespace.GetLabels()[v1alpha1.LabelPolicy]; name != "" {
		return name
	}
	return v1alpha1.DefaultPolicyName
}

// Of returns the policy of a namespace. Where there is none of its name there
// is no policy: that opens nothing and closes nothing. What follows from ErrNoKind is for the caller to say.
func Of(ctx context.Context, reader client.Reader, namespace *metav1.PartialObjectMetadata) (review.NamespacePolicy, error) {
	name := NameOf(namespace)
	policy := &v1alpha1.SupportAccessPolicy{}
	err := reader.Get(ctx, types.NamespacedName{Name: name}, policy)
	if apierrors.IsNotFound(err) {
		return review.NamespacePolicy{Name: name}, nil
	}
	if meta.IsNoMatchError(err) {
		return review.NamespacePolicy{Name: name}, fmt.Errorf("get policy %q: %w: %w", name, ErrNoKind, err)
	}
	if err != nil {
		return review.NamespacePolicy{}, fmt.Errorf("get policy %q: %w", name, err)
	}
	return review.NamespacePolicy{Name: name, Policy: policy}, nil
}

// OfNone returns what holds in a namespace that is gone or going.
func OfNone() review.NamespacePolicy {
	return review.NamespacePolicy{Name: v1alpha1.DefaultPolicyName, Gone: true}
}
