package gen

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"supportaccess.dev/operator/api/v1alpha1"
)

// Decision is a decision to revoke the grant case-4711 of its namespace, stamped with an admin, made a minute after Epoch.
func Decision(name, namespace string, mods ...func(*v1alpha1.SupportAccessDecision)) *v1alpha1.SupportAccessDecision {
	return build(&v1alpha1.SupportAccessDecision{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "SupportAccessDecision"},
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: namespace, UID: UID(namespace + "/" + name), Generation: 1,
			CreationTimestamp: metav1.NewTime(Epoch.Add(time.Minute)), Finalizers: []string{v1alpha1.FinalizerDecision},
		},
		Spec: v1alpha1.SupportAccessDecisionSpec{
			Action: v1alpha1.ActionRevoke, Target: v1alpha1.DecisionTarget{Grant: "case-4711"}, Reason: "case closed", DecidedBy: Admin,
			Authority: v1alpha1.AuthorityNamespace,
		},
		Status: v1alpha1.SupportAccessDecisionStatus{ObservedGeneration: -1},
	}, mods)
}

// Revoking has it revoke a grant.
func Revoking(grant string) func(*v1alpha1.SupportAccessDecision) {
	return acting(v1alpha1.ActionRevoke, v1alpha1.DecisionTarget{Grant: grant})
}

// RevokingEngineer has it take one engineer off a grant.
func RevokingEngineer(grant, engineer string) func(*v1alpha1.SupportAccessDecision) {
	return acting(v1alpha1.ActionRevoke, v1alpha1.DecisionTarget{Grant: grant, Engineer: engineer})
}

// HandingOver replaces the credential of one engineer of a grant.
func HandingOver(grant, engineer string) func(*v1alpha1.SupportAccessDecision) {
	return acting(v1alpha1.ActionHandOver, v1alpha1.DecisionTarget{Grant: grant, Engineer: engineer})
}

// RevokingNamespace has it revoke every grant of its namespace.
func RevokingNamespace() func(*v1alpha1.SupportAccessDecision) {
	return acting(v1alpha1.ActionRevoke, v1alpha1.DecisionTarget{Namespace: v1alpha1.TargetAll})
}

// RevokingCluster has it revoke every grant of the cluster.
func RevokingCluster() func(*v1alpha1.SupportAccessDecision) {
	return acting(v1alpha1.ActionRevoke, v1alpha1.DecisionTarget{Cluster: v1alpha1.TargetAll})
}

// Shortening has it move a grant's end.
func Shortening(grant string, to time.Time) func(*v1alpha1.SupportAccessDecision) {
	return func(d *v1alpha1.SupportAccessDecision) {
		acting(v1alpha1.ActionShorten, v1alpha1.DecisionTarget{Grant: grant})(d)
		d.Spec.ExpirationTime = at(to)
	}
}

// Approving has it approve a grant.
func Approving(grant string) func(*v1alpha1.SupportAccessDecision) {
	return acting(v1alpha1.ActionApprove, v1alpha1.DecisionTarget{Grant: grant})
}

// Denying has it deny a grant.
func Denying(grant string) func(*v1alpha1.SupportAccessDecision) {
	return acting(v1alpha1.ActionDeny, v1alpha1.DecisionTarget{Grant: grant})
}

// WithDecidedBy stamps it.
func WithDecidedBy(user string) func(*v1alpha1.SupportAccessDecision) {
	return func(d *v1alpha1.SupportAccessDecision) { d.Spec.DecidedBy = user }
}

// WithAuthority stamps how far the verb reached.
func WithAuthority(authority v1alpha1.Authority) func(*v1alpha1.SupportAccessDecision) {
	return func(d *v1alpha1.SupportAccessDecision) { d.Spec.Authority = authority }
}

// OfGrantUID has it be about a grant of this UID alone.
func OfGrantUID(uid types.UID) func(*v1alpha1.SupportAccessDecision) {
	return func(d *v1alpha1.SupportAccessDecision) { d.Spec.Target.UID = uid }
}

// WithDecisionReason gives it a reason.
func WithDecisionReason(reason string) func(*v1alpha1.SupportAccessDecision) {
	return func(d *v1alpha1.SupportAccessDecision) { d.Spec.Reason = reason }
}

// WithDecisionTime makes it at an instant.
func WithDecisionTime(t time.Time) func(*v1alpha1.SupportAccessDecision) {
	return func(d *v1alpha1.SupportAccessDecision) { d.CreationTimestamp = metav1.NewTime(t) }
}

func acting(action v1alpha1.DecisionAction, target v1alpha1.DecisionTarget) func(*v1alpha1.SupportAccessDecision) {
	return func(d *v1alpha1.SupportAccessDecision) {
		d.Spec.Action, d.Spec.Target, d.Spec.ExpirationTime = action, target, nil
	}
}
