package gen

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
)

// Grant is a grant as the API server stores it: one engineer, the two plain roles, the grant's own namespace, 24 hours,
// Direct, for a case, stamped with an admin, made at Epoch. The policy that Policy builds allows it.
func Grant(name, namespace string, mods ...func(*v1alpha1.SupportAccessGrant)) *v1alpha1.SupportAccessGrant {
	return build(&v1alpha1.SupportAccessGrant{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "SupportAccessGrant"},
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: namespace, UID: UID(namespace + "/" + name), Generation: 1, CreationTimestamp: metav1.NewTime(Epoch),
		},
		Spec: v1alpha1.SupportAccessGrantSpec{
			Case:      &v1alpha1.Case{ID: CaseID},
			Reason:    "the connector cannot reach the server",
			Engineers: []v1alpha1.Engineer{{Name: Engineer}},
			Roles:     []string{Configuration, Diagnostics},
			Duration:  "24h",
			Transport: v1alpha1.TransportDirect,
			GrantedBy: Admin,
		},
		Status: v1alpha1.SupportAccessGrantStatus{ObservedGeneration: -1},
	}, mods)
}

// ToApply is a grant as a person writes it: without what the API server and admission add. It wants the default roles.
func ToApply(name, namespace string, mods ...func(*v1alpha1.SupportAccessGrant)) *v1alpha1.SupportAccessGrant {
	grant := Grant(name, namespace)
	grant.ObjectMeta = metav1.ObjectMeta{Name: name, Namespace: namespace}
	grant.Spec.GrantedBy, grant.Spec.Roles = "", nil
	grant.Status = v1alpha1.SupportAccessGrantStatus{}
	return build(grant, mods)
}

// WithDuration gives it a duration, and no expirationTime.
func WithDuration(d v1alpha1.Duration) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) { g.Spec.Duration, g.Spec.ExpirationTime = d, nil }
}

// WithExpiration gives it an expirationTime, and no duration.
func WithExpiration(t time.Time) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) { g.Spec.Duration, g.Spec.ExpirationTime = "", at(t) }
}

// WithStart gives it a startTime.
func WithStart(t time.Time) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) { g.Spec.StartTime = at(t) }
}

// WithEngineers gives it these people, without keys.
func WithEngineers(names ...string) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) {
		g.Spec.Engineers = nil
		for _, name := range names {
			g.Spec.Engineers = append(g.Spec.Engineers, v1alpha1.Engineer{Name: name})
		}
	}
}

// WithPublicKey gives the engineer of this name a key.
func WithPublicKey(name, key string) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) {
		for i := range g.Spec.Engineers {
			if g.Spec.Engineers[i].Name == name {
				g.Spec.Engineers[i].PublicKey = key
			}
		}
	}
}

// WithRoles gives it these roles.
func WithRoles(names ...string) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) { g.Spec.Roles = names }
}

// WithScope gives it these namespaces; none means that it names no scope.
func WithScope(namespaces ...string) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) {
		g.Spec.Scope = nil
		if len(namespaces) > 0 {
			g.Spec.Scope = &v1alpha1.Scope{Namespaces: namespaces}
		}
	}
}

// WithCluster gives it the whole cluster.
func WithCluster() func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) { g.Spec.Scope = &v1alpha1.Scope{Cluster: true} }
}

// WithTransport gives it a transport; empty leaves it to the policy.
func WithTransport(t v1alpha1.Transport) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) { g.Spec.Transport = t }
}

// WithCase gives it a case; empty takes the case away.
func WithCase(id string) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) {
		g.Spec.Case = nil
		if id != "" {
			g.Spec.Case = &v1alpha1.Case{ID: id}
		}
	}
}

// WithReason gives it a reason.
func WithReason(reason string) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) { g.Spec.Reason = reason }
}

// WithGrantedBy stamps it.
func WithGrantedBy(user string) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) { g.Spec.GrantedBy = user }
}

// WithCreation makes it at an instant.
func WithCreation(t time.Time) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) { g.CreationTimestamp = metav1.NewTime(t) }
}

// WithUID gives it another UID than a grant of its name has by default.
func WithUID(uid string) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) { g.UID = UID(uid) }
}

// WithDeletion has it wait for its finalizer since an instant.
func WithDeletion(t time.Time) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) {
		g.DeletionTimestamp, g.Finalizers = at(t), []string{v1alpha1.FinalizerGrant}
	}
}

// WithGrantEnd has its status say that it ended.
func WithGrantEnd(t time.Time, reason, by string) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) {
		g.Status.EndTime, g.Status.EndReason, g.Status.EndedBy = at(t), reason, by
	}
}

// AllowingFlagged lets flagged content be read, besides what roles allow.
func AllowingFlagged(roles ...string) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) {
		g.Spec.FlaggedContent, g.Spec.Roles = v1alpha1.FlaggedContentAllow, append(roles, v1alpha1.FlaggedRole)
	}
}
