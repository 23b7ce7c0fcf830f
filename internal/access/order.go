// Package access knows WHAT access consists of: it renders, opens and closes the identities, credentials and bindings
// of one grant. It does not know when, or whether.
package access

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"supportaccess.dev/operator/api/v1alpha1"
)

// Order is what is to be open for one grant.
type Order struct {
	// Grant is whose access it is.
	Grant v1alpha1.RecordedGrant
	// Transport is the way by which engineers come.
	Transport v1alpha1.Transport
	// GrantedBy may fetch the credentials, unless it is a ServiceAccount.
	GrantedBy string
	// Engineers are who may have access.
	Engineers []v1alpha1.Engineer
	// Roles are the ClusterRoles to bind.
	Roles []string
	// Namespaces are where, the empty string standing for the whole cluster.
	Namespaces []string
	// Readers may fetch the credentials besides the granter.
	Readers []v1alpha1.CredentialReader
	// Expiration is when every credential must be dead.
	Expiration time.Time
	// Cluster is how engineers reach the API server, or the gateway.
	Cluster Cluster
	// Begun says that an earlier pass made some of it: it is asked for first, and bindings are asked for all at once.
	Begun bool
}

// people are the engineers as the API server knows them.
func (o Order) people() People { return People{Grant: o.Grant, Transport: o.Transport} }

// Cluster is how engineers reach the API server, or the gateway.
type Cluster struct {
	// Server is its URL.
	Server string
	// CABundle is the PEM bundle by which it is known.
	CABundle []byte
	// TLSServerName is the name that its certificate bears, empty where it bears that of the URL.
	TLSServerName string
}

// digestLength is how many characters of a name are hash: 130 bits.
const digestLength = 26

// nameOf returns a name that belongs to the parts alone: two lists of parts never give one name, because each part is
// hashed with its length before it.
func nameOf(prefix string, parts ...string) string {
	hash := sha256.New()
	for _, part := range parts {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		hash.Write(length[:])
		hash.Write([]byte(part))
	}
	encoded := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(hash.Sum(nil))
	return prefix + strings.ToLower(encoded[:digestLength])
}

// IdentityName returns the name of the ServiceAccount, the Secret, the reader Role and its binding of one engineer of
// one grant, all in the credentials namespace.
func IdentityName(grant v1alpha1.RecordedGrant, engineer string) string {
	return nameOf("engineer-", grant.Namespace, grant.Name, string(grant.UID), engineer)
}

// Username returns who the API server takes an engineer of a grant with the transport Direct for.
func Username(grant v1alpha1.RecordedGrant, engineer string) string {
	return "system:serviceaccount:" + v1alpha1.CredentialsNamespace + ":" + IdentityName(grant, engineer)
}

// GatewayUsername returns who the gateway acts as for an engineer of a grant. It means nothing to the API server without
// the gateway.
func GatewayUsername(grant v1alpha1.RecordedGrant, engineer string) string {
	return nameOf(v1alpha1.IdentityPrefix, grant.Namespace, grant.Name, string(grant.UID), engineer)
}

// SettingGrantName returns the name of the grant of one generation of a setting. No other generation, and no other setting,
// has a grant of that name.
func SettingGrantName(setting *v1alpha1.SupportAccessSetting) string {
	return nameOf("setting-", setting.Namespace, string(setting.UID), strconv.FormatInt(setting.Generation, 10))
}

// BindingName returns the name of the binding of one role in one namespace, the empty one standing for the cluster.
func BindingName(grant v1alpha1.RecordedGrant, namespace, role string) string {
	return nameOf("support-access-", grant.Namespace, grant.Name, string(grant.UID), namespace, role)
}

// ownedMeta returns the metadata of something made for a grant. Nothing is copied from the grant but its name: a label
// of a GitOps tool would make that tool prune what it does not find in Git.
func ownedMeta(grant v1alpha1.RecordedGrant, namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: namespace,
		Name:      name,
		Labels: map[string]string{
			v1alpha1.LabelManaged:        "true",
			v1alpha1.LabelGrant:          grant.Name,
			v1alpha1.LabelGrantNamespace: grant.Namespace,
		},
		Annotations: map[string]string{v1alpha1.AnnotationGrantUID: string(grant.UID)},
	}
}

// GrantOf returns the grant for which an object was made; ok is false where it does not say so.
func GrantOf(object metav1.Object) (key types.NamespacedName, ok bool) {
	labels := object.GetLabels()
	key = types.NamespacedName{Namespace: labels[v1alpha1.LabelGrantNamespace], Name: labels[v1alpha1.LabelGrant]}
	return key, labels[v1alpha1.LabelManaged] == "true" && key.Namespace != "" && key.Name != ""
}
