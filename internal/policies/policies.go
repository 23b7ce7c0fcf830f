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

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/review"
)

// ErrNoKind is for a cluster that has not even the kind of policies.
var ErrNoKind = errors.New("there is no such kind")

// Of returns the policy of a namespace: the one that its label names, or the default. Where there is none of that name there
// is no policy: that opens nothing and closes nothing. What follows from ErrNoKind is for the caller to say.
func Of(ctx context.Context, reader client.Reader, namespace *metav1.PartialObjectMetadata) (review.NamespacePolicy, error) {
	name := namespace.Labels[v1alpha1.LabelPolicy]
	if name == "" {
		name = v1alpha1.DefaultPolicyName
	}
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
