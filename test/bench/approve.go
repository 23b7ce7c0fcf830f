package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// approvingPolicy asks for one approval of whatever is granted.
const approvingPolicy = "bench-approving"

// approveAndOpen measures how long it takes from an approval until the credential works, in turn with a bare client that
// does the least that would do.
func (b *bench) approveAndOpen(ctx context.Context, o options) (err error) {
	say("\nOne grant at a time that waits for one approval, %d rounds", o.rounds)
	if err := b.askForApproval(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.labelTenant(ctx, tenant)) }()
	var works, told, floor sample
	for round := range o.rounds {
		g, err := b.open(ctx, fmt.Sprintf("approved-%d", round), func(grant *v1alpha1.SupportAccessGrant, grants watch.Interface) (time.Time, error) {
			return b.approve(ctx, grant, grants)
		})
		if err != nil {
			return err
		}
		if _, err := b.revokeGrant(ctx, g); err != nil {
			return err
		}
		bare, _, err := b.bareOnce(ctx, fmt.Sprintf("bare-approved-%d", round))
		if err != nil {
			return err
		}
		works, told, floor = append(works, g.works), append(told, g.told), append(floor, bare)
	}
	compare("approved -> credential works", works, floor, "no bar")
	compare("approved -> status says where it is", told, floor, "no bar")
	return nil
}

// askForApproval has the tenant under a policy that asks for one.
func (b *bench) askForApproval(ctx context.Context) error {
	policy := &v1alpha1.SupportAccessPolicy{}
	if err := b.admin.Get(ctx, client.ObjectKey{Name: tenant}, policy); err != nil {
		return fmt.Errorf("read the tenant's policy: %w", err)
	}
	asking := &v1alpha1.SupportAccessPolicy{ObjectMeta: metav1.ObjectMeta{Name: approvingPolicy}, Spec: policy.Spec}
	one := int32(1)
	for i := range asking.Spec.Roles {
		asking.Spec.Roles[i].Approvals = &one
	}
	if err := client.IgnoreAlreadyExists(b.admin.Create(ctx, asking)); err != nil {
		return fmt.Errorf("make a policy: %w", err)
	}
	return b.labelTenant(ctx, approvingPolicy)
}

// labelTenant has the tenant choose a policy.
func (b *bench) labelTenant(ctx context.Context, policy string) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: tenant}}
	patch := fmt.Appendf(nil, `{"metadata":{"labels":{%q:%q}}}`, v1alpha1.LabelPolicy, policy)
	if err := b.admin.Patch(ctx, namespace, client.RawPatch(types.MergePatchType, patch)); err != nil {
		return fmt.Errorf("label the tenant: %w", err)
	}
	return nil
}

// approve applies a grant, waits until it waits, and has somebody else approve it, from when on the time runs.
func (b *bench) approve(ctx context.Context, grant *v1alpha1.SupportAccessGrant, grants watch.Interface) (time.Time, error) {
	if err := b.tess.Create(ctx, grant); err != nil {
		return time.Time{}, err
	}
	if _, err := first(grants, func(g *v1alpha1.SupportAccessGrant) bool {
		ready := meta.FindStatusCondition(g.Status.Conditions, v1alpha1.ConditionReady)
		return ready != nil && ready.Reason == v1alpha1.StateAwaitingApproval
	}); err != nil {
		return time.Time{}, fmt.Errorf("it does not wait for an approval: %w", err)
	}
	started := time.Now()
	return started, b.admin.Create(ctx, &v1alpha1.SupportAccessDecision{
		ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: grant.Name},
		Spec: v1alpha1.SupportAccessDecisionSpec{
			Action: v1alpha1.ActionApprove, Reason: "measuring", Target: v1alpha1.DecisionTarget{Grant: grant.Name, UID: grant.UID},
		},
	})
}
