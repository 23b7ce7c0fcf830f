package crash

import (
	"context"
	"fmt"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/test/gen"
)

// Who may approve, in every namespace. Whoever grants is the cluster's admin.
const (
	pat = "pat@customer.example"
	kim = "kim@customer.example"
)

// asking has every role of a policy need approvals.
func asking(approvals int32) func(*v1alpha1.SupportAccessPolicySpec) {
	return func(p *v1alpha1.SupportAccessPolicySpec) {
		for i := range p.Roles {
			p.Roles[i].Approvals = &approvals
		}
	}
}

// approvers lets Pat and Kim approve.
func (s *stage) approvers(ctx context.Context) error {
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "crash-approvers"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "support-access-approver"},
	}
	for _, name := range []string{pat, kim} {
		binding.Subjects = append(binding.Subjects, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name})
	}
	return s.admin.Create(ctx, binding)
}

// approvalFlows are what happens to a grant that somebody must approve.
func approvalFlows() []flow {
	const one, two = "crash-approved", "crash-approved-twice"
	approved := func(who string) func(*run) { return func(r *run) { r.approveLast(who) } }
	waits := func(r *run) { r.waits(); r.newLife(nil, nil).settle() }
	open := func(r *run) { waits(r); r.approveLast(pat); r.newLife(nil, nil).settle() }
	return []flow{
		{name: "waits for an approval", policy: one, acts: []func(*run){(*run).waits}},
		{name: "approved", policy: one, before: waits, acts: []func(*run){approved(pat)}, short: true},
		{name: "approved by its granter", policy: one, before: waits, acts: []func(*run){func(r *run) { r.decide("own", gen.Approving(theGrant), r.ofTheGrant()) }}},
		{name: "approved by two", policy: two, before: waits, acts: []func(*run){func(r *run) { r.approve(pat) }, approved(kim)}},
		{name: "approved by one of two, then deleted", policy: two, before: waits, acts: []func(*run){func(r *run) { r.approve(pat) }, deletes}},
		{name: "approved and denied", policy: one, before: waits, acts: []func(*run){func(r *run) {
			r.decide("no", gen.Denying(theGrant))
			r.approve(pat)
			r.shut[r.key(theGrant)] = "it was denied"
		}}},
		{name: "not approved in time", policy: one, before: waits, acts: []func(*run){func(r *run) { r.step(73 * time.Hour) }}},
		{name: "approved, closed by deletion", policy: one, before: open, acts: []func(*run){deletes}},
		{name: "approved, expired", policy: one, before: open, acts: []func(*run){expires}},
	}
}

// waits applies a grant that opens only once it is approved.
func (r *run) waits() {
	r.grant(theGrant)
	r.unapproved[r.key(theGrant)] = true
}

// ofTheGrant has a decision name the grant that is there now: one of its own second would not count otherwise.
func (r *run) ofTheGrant() func(*v1alpha1.SupportAccessDecision) {
	r.t.Helper()
	g := &v1alpha1.SupportAccessGrant{}
	if err := r.stage.admin.Get(r.t.Context(), r.key(theGrant), g); err != nil {
		r.fatalf("get the grant: %v", err)
	}
	return gen.OfGrantUID(g.UID)
}

// approveLast has somebody approve the grant who is the last that it needs.
func (r *run) approveLast(who string) {
	r.t.Helper()
	delete(r.unapproved, r.key(theGrant))
	r.approve(who)
}

// approve has somebody approve the grant.
func (r *run) approve(who string) {
	r.t.Helper()
	r.decideAs(r.stage.world.Client(r.t, who), fmt.Sprintf("yes-by-%.3s", who), gen.Approving(theGrant), r.ofTheGrant())
}

// isKept reports whether a decision is one by which a grant is open, or may be yet: without it the gateway lets nobody in.
func (s *scene) isKept(d *v1alpha1.SupportAccessDecision) bool {
	record := s.recordOf(types.NamespacedName{Namespace: d.Namespace, Name: d.Spec.Target.Grant})
	return d.Spec.Action == v1alpha1.ActionApprove && record != nil && record.Status.EndTime == nil && lifecycle.Approved(record, d)
}
