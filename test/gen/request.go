package gen

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
)

// Requester is who makes requests.
const Requester = "oidc:ana@vendor.example"

// Request is a request as an API server stores it: of the engineer, for a day and the default roles, made at Epoch.
func Request(name, namespace string, mods ...func(*v1alpha1.SupportAccessRequest)) *v1alpha1.SupportAccessRequest {
	return build(&v1alpha1.SupportAccessRequest{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "SupportAccessRequest"},
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: namespace, UID: UID(namespace + "/request/" + name), Generation: 1, CreationTimestamp: metav1.NewTime(Epoch),
		},
		Spec: v1alpha1.SupportAccessRequestSpec{
			Case: &v1alpha1.Case{ID: CaseID}, Reason: "the connector cannot reach the server", Engineers: []v1alpha1.Engineer{{Name: Engineer}},
			Roles: []string{Configuration, Diagnostics}, Duration: "24h", RequestedBy: Requester,
		},
		Status: v1alpha1.SupportAccessRequestStatus{ObservedGeneration: -1},
	}, mods)
}

// RequestToApply is a request as an engineer writes it: without what the API server and admission add.
func RequestToApply(name, namespace string, mods ...func(*v1alpha1.SupportAccessRequest)) *v1alpha1.SupportAccessRequest {
	r := Request(name, namespace, mods...)
	r.UID, r.Generation, r.CreationTimestamp, r.Spec.RequestedBy = "", 0, metav1.Time{}, ""
	r.Status = v1alpha1.SupportAccessRequestStatus{}
	return r
}

// AskedBy stamps it.
func AskedBy(user string) func(*v1alpha1.SupportAccessRequest) {
	return func(r *v1alpha1.SupportAccessRequest) { r.Spec.RequestedBy = user }
}

// AskedAt has it be made at an instant.
func AskedAt(t time.Time) func(*v1alpha1.SupportAccessRequest) {
	return func(r *v1alpha1.SupportAccessRequest) { r.CreationTimestamp = metav1.NewTime(t) }
}

// AskingFor changes what it asks for.
func AskingFor(change func(*v1alpha1.SupportAccessRequestSpec)) func(*v1alpha1.SupportAccessRequest) {
	return func(r *v1alpha1.SupportAccessRequest) { change(&r.Spec) }
}

// RequestIs has it be in a state.
func RequestIs(state string) func(*v1alpha1.SupportAccessRequest) {
	return func(r *v1alpha1.SupportAccessRequest) {
		r.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: state, LastTransitionTime: metav1.NewTime(Epoch)}}
	}
}

// Answering has a grant name a request.
func Answering(r *v1alpha1.SupportAccessRequest) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) {
		g.Spec.RequestRef = &v1alpha1.RequestReference{Name: r.Name, UID: r.UID, RequestedBy: r.Spec.RequestedBy}
	}
}

// DenyingRequest has a decision say no to a request.
func DenyingRequest(request string) func(*v1alpha1.SupportAccessDecision) {
	return acting(v1alpha1.ActionDeny, v1alpha1.DecisionTarget{Request: request})
}
