package crash

import (
	"context"
	"fmt"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
)

// theRequest is the name of a run's only request.
const theRequest = "wish"

// requester lets an engineer ask, in every namespace.
func (s *stage) requester(ctx context.Context) error {
	return s.admin.Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "crash-requester"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "support-access-requester"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: gen.Requester}},
	})
}

// requestFlows are what happens to a request.
func requestFlows() []flow {
	asked := func(r *run) { r.asks(); r.newLife(nil, nil).settle() }
	answered := func(r *run) { asked(r); r.answers(theGrant); r.newLife(nil, nil).settle() }
	denies := func(r *run) { r.decide("no", gen.DenyingRequest(theRequest)) }
	return []flow{
		{name: "asked", acts: []func(*run){(*run).asks}},
		{name: "asked and answered", before: asked, acts: []func(*run){func(r *run) { r.answers(theGrant) }}, short: true},
		{name: "answered twice", before: asked, acts: []func(*run){func(r *run) {
			r.answers(theGrant)
			r.awaitSecond()
			r.answers("case-4712")
			r.shut[r.key("case-4712")] = "another answers"
		}}},
		{name: "answered, then denied", before: answered, acts: []func(*run){denies}},
		{name: "denied, then answered", before: asked, acts: []func(*run){denies, func(r *run) {
			r.answers(theGrant)
			r.shut[r.key(theGrant)] = "the request was denied"
		}}},
		{name: "not answered in time", before: asked, acts: []func(*run){func(r *run) { r.step(73 * time.Hour) }}},
		{name: "withdrawn", before: asked, acts: []func(*run){(*run).withdraws}},
		{name: "answered, and then withdrawn", before: answered, acts: []func(*run){(*run).withdraws}},
	}
}

// asks has an engineer ask for what grants give.
func (r *run) asks() {
	r.t.Helper()
	ana := r.stage.world.Client(r.t, gen.Requester)
	object := gen.RequestToApply(theRequest, r.home)
	if err := poll(r.t.Context(), 10*time.Second, func() error { return ana.Create(r.t.Context(), object) }); err != nil {
		r.fatalf("ask: %v", err)
	}
	r.asked = true
	r.names[string(object.UID)] = "the request"
	r.wrote(object)
	r.log("%s: asked", gen.Requester)
}

// answers has the cluster's admin answer it.
func (r *run) answers(name string) {
	r.t.Helper()
	r.grant(name, func(g *v1alpha1.SupportAccessGrant) { g.Spec.RequestRef = &v1alpha1.RequestReference{Name: theRequest} })
}

// withdraws deletes the request.
func (r *run) withdraws() {
	r.t.Helper()
	object := &v1alpha1.SupportAccessRequest{ObjectMeta: metav1.ObjectMeta{Namespace: r.home, Name: theRequest}}
	if err := r.stage.admin.Delete(r.t.Context(), object); err != nil {
		r.fatalf("withdraw: %v", err)
	}
	r.wrote(object)
	r.log("admin: deleted the request")
}

// outcomeOfRequest is what has become of the request. However it was disturbed, one grant at most is open because of it.
func (r *run) outcomeOfRequest() []string {
	if !r.asked {
		return nil
	}
	line, object := "request: gone", &v1alpha1.SupportAccessRequest{}
	err := r.stage.admin.Get(r.t.Context(), r.key(theRequest), object)
	if err == nil {
		ready, by := apimeta.FindStatusCondition(object.Status.Conditions, v1alpha1.ConditionReady), object.Status.Grant
		if line = "request: " + ready.Reason; by != nil {
			line += ", grant " + by.Name
		}
	} else if !apierrors.IsNotFound(err) {
		r.fatalf("get the request: %v", err)
	}
	record := &v1alpha1.SupportAccessRecord{}
	if err := r.stage.admin.Get(r.t.Context(), types.NamespacedName{Namespace: r.home, Name: theRequest + v1alpha1.RequestRecordSuffix}, record); err != nil {
		r.wrong("somebody asked, and it is not on record: %v", err)
	}
	line += fmt.Sprintf(", ended %s by %s", record.Status.EndReason, record.Status.EndedBy)
	for _, t := range record.Status.Transitions {
		line += fmt.Sprintf(" → %s by %s", t.Type, t.By)
	}
	opened := 0
	for _, o := range r.listFrom(r.stage.admin, &v1alpha1.SupportAccessRecordList{}, client.InNamespace(r.home)) {
		if grant := o.(*v1alpha1.SupportAccessRecord); grant.Spec.RequestRef != nil && grant.Status.ProvisionedTime != nil {
			opened++
		}
	}
	if opened > 1 {
		r.wrong("%d grants opened because of one request", opened)
	}
	return []string{line}
}
