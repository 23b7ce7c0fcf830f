package grant

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/lifecycle"
)

// seeRequest notes how a grant that has not been settled yet stands to the request that it names. What becomes of the request
// afterwards is nothing to the grant.
func (r *Reconciler) seeRequest(ctx context.Context, reader client.Reader, s *sight) error {
	s.answer = lifecycle.Answer{}
	if s.grant == nil || s.grant.Spec.RequestRef == nil || s.foreign || s.settled() {
		return nil
	}
	request, key := &v1alpha1.SupportAccessRequest{}, types.NamespacedName{Namespace: s.key.Namespace, Name: s.grant.Spec.RequestRef.Name}
	err := reader.Get(ctx, key, request)
	if apierrors.IsNotFound(err) {
		request = nil
	} else if err != nil {
		return fmt.Errorf("get request %s: %w", key, err)
	}
	s.answer = lifecycle.AnswerTo(s.grant, request)
	return nil
}

// settled reports whether it is on record when the grant starts, or since when it waits for approvals.
func (s *sight) settled() bool {
	return s.record != nil && (s.record.Status.StartTime != nil || s.record.Status.AwaitingApprovalTime != nil)
}

// grantsOfRequest maps a request to the grants of its namespace that name it and have not ended.
func (r *Reconciler) grantsOfRequest(ctx context.Context, o client.Object) []types.NamespacedName {
	grants := &v1alpha1.SupportAccessGrantList{}
	if err := r.Client.List(ctx, grants, client.InNamespace(o.GetNamespace()), client.UnsafeDisableDeepCopy); err != nil {
		return nil
	}
	var keys []types.NamespacedName
	for i := range grants.Items {
		if g := &grants.Items[i]; g.Spec.RequestRef != nil && g.Spec.RequestRef.UID == o.GetUID() && g.Status.EndTime == nil {
			keys = append(keys, client.ObjectKeyFromObject(g))
		}
	}
	return keys
}
