package access

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// Keys of a credential Secret.
const (
	// KeyKubeconfig holds the kubeconfig in plaintext.
	KeyKubeconfig = "kubeconfig"
	// KeyEncryptedKubeconfig holds it encrypted to the engineer's public key, and then alone.
	KeyEncryptedKubeconfig = "kubeconfig.age"
	// secretType marks a credential Secret.
	secretType corev1.SecretType = "supportaccess.dev/kubeconfig"
)

// Bindings renders every binding that an order asks for.
func Bindings(order Order) []client.Object {
	bindings := make([]client.Object, 0, len(order.Namespaces)*len(order.Roles))
	for _, namespace := range order.Namespaces {
		for _, role := range order.Roles {
			bindings = append(bindings, binding(order, namespace, role))
		}
	}
	return bindings
}

// binding renders one binding: it names all engineers of the grant.
func binding(order Order, namespace, role string) client.Object {
	meta := ownedMeta(order.Grant, namespace, BindingName(order.Grant, namespace, role))
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}
	subjects := make([]rbacv1.Subject, 0, len(order.Engineers))
	for _, e := range order.Engineers {
		subjects = append(subjects, order.people().subject(e.Name))
	}
	if namespace == "" {
		return &rbacv1.ClusterRoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: subjects}
	}
	return &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: subjects}
}

// identity renders the ServiceAccount of one engineer. It mounts no token anywhere.
func identity(order Order, engineer string) *corev1.ServiceAccount {
	account := &corev1.ServiceAccount{
		ObjectMeta:                   ownedMeta(order.Grant, v1alpha1.CredentialsNamespace, IdentityName(order.Grant, engineer)),
		AutomountServiceAccountToken: new(bool),
	}
	account.Annotations[v1alpha1.AnnotationEngineer] = engineer
	return account
}

// credential renders the Secret of one engineer, still empty: the token is bound to it, so it must exist first. It has
// no finalizer: a Secret that lingers would keep the token alive for a minute.
func credential(order Order, engineer string) *corev1.Secret {
	secret := &corev1.Secret{
		ObjectMeta: ownedMeta(order.Grant, v1alpha1.CredentialsNamespace, IdentityName(order.Grant, engineer)),
		Type:       secretType,
	}
	secret.Annotations[v1alpha1.AnnotationEngineer] = engineer
	return secret
}

// reader renders the Role by which one credential may be fetched, and its binding: by the granter where that is a
// person, by the policy's readers, and, where the engineer is somebody to the API server, by the engineer, so that a client
// can fetch the renewed one.
func reader(order Order, engineer string) (*rbacv1.Role, *rbacv1.RoleBinding) {
	name := IdentityName(order.Grant, engineer)
	meta := ownedMeta(order.Grant, v1alpha1.CredentialsNamespace, name)
	role := &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{
		APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{name}, Verbs: []string{"get"},
	}}}
	var subjects []rbacv1.Subject
	if order.Transport != v1alpha1.TransportGateway {
		subjects = append(subjects, order.people().subject(engineer))
	}
	if order.GrantedBy != "" && !strings.HasPrefix(order.GrantedBy, "system:serviceaccount:") {
		subjects = append(subjects, rbacv1.Subject{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: order.GrantedBy})
	}
	for _, r := range order.Readers {
		subjects = append(subjects, readerSubject(r))
	}
	return role, &rbacv1.RoleBinding{
		ObjectMeta: *meta.DeepCopy(),
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		Subjects:   subjects,
	}
}

func readerSubject(r v1alpha1.CredentialReader) rbacv1.Subject {
	if r.Kind == rbacv1.ServiceAccountKind {
		return rbacv1.Subject{Kind: r.Kind, Namespace: r.Namespace, Name: r.Name}
	}
	return rbacv1.Subject{Kind: r.Kind, APIGroup: rbacv1.GroupName, Name: r.Name}
}

// kubeconfig renders the file with which an engineer reaches the cluster.
func kubeconfig(order Order, engineer, token string) ([]byte, error) {
	name := fmt.Sprintf("%s/%s", order.Grant.Namespace, order.Grant.Name)
	namespace := order.Grant.Namespace
	if !slices.Contains(order.Namespaces, namespace) && order.Namespaces[0] != "" {
		namespace = order.Namespaces[0]
	}
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{
		Server: order.Cluster.Server, CertificateAuthorityData: order.Cluster.CABundle, TLSServerName: order.Cluster.TLSServerName,
	}
	config.AuthInfos[engineer] = &clientcmdapi.AuthInfo{Token: token}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: engineer, Namespace: namespace}
	config.CurrentContext = name
	out, err := clientcmd.Write(*config)
	if err != nil {
		return nil, fmt.Errorf("write kubeconfig for grant %s: %w", name, err)
	}
	return out, nil
}
