package grant

import (
	"context"

	"k8s.io/apimachinery/pkg/api/meta"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/lifecycle"
)

// checkNames looks, for a grant that something was in the way of, whether the way is free by now: before anything is given,
// not binding by binding. Others need no look: where nothing is in the way it would only cost time.
func (r *Reconciler) checkNames(ctx context.Context, s *sight, verdict lifecycle.Verdict) error {
	provisioned := meta.FindStatusCondition(s.grant.Status.Conditions, v1alpha1.ConditionProvisioned)
	if provisioned == nil || provisioned.Reason != v1alpha1.ReasonNameTaken {
		return nil
	}
	return r.Keeper.CheckNames(ctx, s.order(verdict))
}
