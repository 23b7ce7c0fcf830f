package gen

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
)

// Record is the record of a grant whose access is open: since the grant was made, for its duration or until its
// expirationTime. The digest of the grant's spec is not lifecycle's: give it with WithSpecDigest where it matters.
func Record(grant *v1alpha1.SupportAccessGrant, mods ...func(*v1alpha1.SupportAccessRecord)) *v1alpha1.SupportAccessRecord {
	start, scope := grant.CreationTimestamp.Time, grant.Spec.Scope.DeepCopy()
	if grant.Spec.StartTime != nil && grant.Spec.StartTime.After(start) {
		start = grant.Spec.StartTime.Time
	}
	end := start.Add(grant.Spec.Duration.OrZero())
	if grant.Spec.ExpirationTime != nil {
		end = grant.Spec.ExpirationTime.Time
	}
	if scope == nil {
		scope = &v1alpha1.Scope{Namespaces: []string{grant.Namespace}}
	}
	record := &v1alpha1.SupportAccessRecord{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "SupportAccessRecord"},
		ObjectMeta: metav1.ObjectMeta{Name: grant.Name, Namespace: grant.Namespace, UID: UID("record/" + grant.Namespace + "/" + grant.Name), CreationTimestamp: metav1.NewTime(start)},
		Spec: v1alpha1.SupportAccessRecordSpec{
			Grant: v1alpha1.RecordedGrant{
				Namespace: grant.Namespace, Name: grant.Name, UID: grant.UID, SpecDigest: "sha256:unknown", CreationTime: at(grant.CreationTimestamp.Time),
			},
			GrantedBy: grant.Spec.GrantedBy, Case: grant.Spec.Case.DeepCopy(), Reason: grant.Spec.Reason,
			Roles: grant.Spec.Roles, Scope: scope, Transport: grant.Spec.Transport, Policy: v1alpha1.DefaultPolicyName,
		},
		Status: v1alpha1.SupportAccessRecordStatus{StartTime: at(start), ExpirationTime: at(end), ProvisionedTime: microAt(start)},
	}
	for _, engineer := range grant.Spec.Engineers {
		record.Spec.Engineers = append(record.Spec.Engineers, engineer.Name)
	}
	return build(record, mods)
}

// WithSpecDigest gives it the digest of the grant's spec.
func WithSpecDigest(digest string) func(*v1alpha1.SupportAccessRecord) {
	return func(r *v1alpha1.SupportAccessRecord) { r.Spec.Grant.SpecDigest = digest }
}

// Unprovisioned has it say that access was not given yet.
func Unprovisioned() func(*v1alpha1.SupportAccessRecord) {
	return func(r *v1alpha1.SupportAccessRecord) { r.Status.ProvisionedTime, r.Status.Bindings = nil, nil }
}

// WithBinding adds a binding of a role in a namespace; empty means a ClusterRoleBinding.
func WithBinding(namespace, name, role string) func(*v1alpha1.SupportAccessRecord) {
	return func(r *v1alpha1.SupportAccessRecord) {
		r.Status.Bindings = append(r.Status.Bindings, v1alpha1.RecordedBinding{Namespace: namespace, Name: name, UID: UID("binding/" + namespace + "/" + name), Role: role})
	}
}

// WithRules notes what a role allowed.
func WithRules(role, digest string) func(*v1alpha1.SupportAccessRecord) {
	return func(r *v1alpha1.SupportAccessRecord) {
		r.Status.Rules = append(r.Status.Rules, v1alpha1.RecordedRules{Role: role, Digest: digest})
	}
}

// WithRecordEnd has it say that the grant ended.
func WithRecordEnd(t time.Time, reason, by string) func(*v1alpha1.SupportAccessRecord) {
	return func(r *v1alpha1.SupportAccessRecord) {
		r.Status.EndTime, r.Status.EndReason, r.Status.EndedBy = microAt(t), reason, by
	}
}

// WithTransition adds something that happened.
func WithTransition(t time.Time, kind, by string) func(*v1alpha1.SupportAccessRecord) {
	return func(r *v1alpha1.SupportAccessRecord) {
		r.Status.Transitions = append(r.Status.Transitions, v1alpha1.Transition{Time: *microAt(t), Type: kind, By: by})
	}
}
