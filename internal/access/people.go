package access

import (
	rbacv1 "k8s.io/api/rbac/v1"

	"supportaccess.dev/operator/api/v1alpha1"
)

// People are the engineers of one grant, as the API server knows them. With the transport Direct each is a
// ServiceAccount that the API server authenticates; with Gateway a user as whom the gateway alone can act.
type People struct {
	// Grant is the grant.
	Grant v1alpha1.RecordedGrant
	// Transport is the way by which they come.
	Transport v1alpha1.Transport
}

// PeopleOf returns the people of a record's grant.
func PeopleOf(record *v1alpha1.SupportAccessRecord) People {
	return People{Grant: record.Spec.Grant, Transport: record.Spec.Transport}
}

// Username returns who the API server takes an engineer for.
func (p People) Username(engineer string) string {
	if p.Transport == v1alpha1.TransportGateway {
		return GatewayUsername(p.Grant, engineer)
	}
	return Username(p.Grant, engineer)
}

// groups are those that the API server counts every engineer among.
func (p People) groups() []string {
	if p.Transport == v1alpha1.TransportGateway {
		return []string{v1alpha1.EngineersGroup, "system:authenticated"}
	}
	return []string{"system:serviceaccounts", "system:serviceaccounts:" + v1alpha1.CredentialsNamespace, "system:authenticated"}
}

// subject is an engineer as a binding names one.
func (p People) subject(engineer string) rbacv1.Subject {
	if p.Transport == v1alpha1.TransportGateway {
		return rbacv1.Subject{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: GatewayUsername(p.Grant, engineer)}
	}
	return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: v1alpha1.CredentialsNamespace, Name: IdentityName(p.Grant, engineer)}
}
