package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// gatewayServer is where engineers are told to find the gateway. Nothing listens there: what is tested here needs none.
const gatewayServer = "https://gateway.example:9443"

// throughTheGateway is a tenant whose policy offers the transport Gateway.
func throughTheGateway(t testing.TB, changes ...func(*v1alpha1.SupportAccessPolicy)) *tenant {
	t.Helper()
	return newTenant(t, append([]func(*v1alpha1.SupportAccessPolicy){
		gen.OfferingTransports(v1alpha1.TransportGateway, v1alpha1.TransportDirect),
	}, changes...)...)
}

// recorded is the grant as its record names it.
func (g *grantInTest) recorded() v1alpha1.RecordedGrant {
	return v1alpha1.RecordedGrant{Namespace: g.Namespace, Name: g.Name, UID: g.uid}
}

// clusterIn is the cluster of a kubeconfig, and its user.
func clusterIn(t testing.TB, kubeconfig []byte) (*clientcmdapi.Cluster, *clientcmdapi.AuthInfo) {
	t.Helper()
	config, err := clientcmd.Load(kubeconfig)
	if err != nil {
		t.Fatalf("read the kubeconfig: %v", err)
	}
	now := config.Contexts[config.CurrentContext]
	return config.Clusters[now.Cluster], config.AuthInfos[now.AuthInfo]
}

func TestAGrantThroughTheGatewayOpensForUsersAndItsTokenMeansNothingToTheAPIServer(t *testing.T) {
	t.Parallel()
	tn := throughTheGateway(t)
	g := tn.grants(t, theGrant, gen.WithTransport(""))
	object := g.is(t, v1alpha1.StateActive)
	if object.Status.Transport != v1alpha1.TransportGateway {
		t.Fatalf("the transport is %q", object.Status.Transport)
	}
	e := statusOf(t, object, gen.Engineer)
	name := access.GatewayUsername(g.recorded(), gen.Engineer)
	if e.Username != name || !strings.HasPrefix(name, v1alpha1.IdentityPrefix) {
		t.Errorf("the status calls the engineer %q, want %q", e.Username, name)
	}
	if !timeOf(e.CredentialExpirationTime).Equal(timeOf(object.Status.ExpirationTime)) {
		t.Errorf("the credential ends at %v, the grant at %v", e.CredentialExpirationTime, object.Status.ExpirationTime)
	}

	cluster, auth := clusterIn(t, g.kubeconfig(t, tn.admin, e))
	hash, ok := access.TokenHash(auth.Token)
	if !ok || hash != e.CredentialHash {
		t.Errorf("the token's hash is %q (%v), the status has %q", hash, ok, e.CredentialHash)
	}
	if cluster.Server != gatewayServer || !strings.Contains(string(cluster.CertificateAuthorityData), "BEGIN CERTIFICATE") ||
		cluster.TLSServerName != "support-access-gateway.support-access-system.svc" {
		t.Errorf("the kubeconfig leads to %q, name %q, with the CA %.40q", cluster.Server, cluster.TLSServerName, cluster.CertificateAuthorityData)
	}
	isKnownByHashAlone(t, tn, g, auth.Token)

	for _, b := range g.bindings(t) {
		binding := &rbacv1.RoleBinding{}
		if err := tn.Admin.Get(t.Context(), types.NamespacedName{Namespace: b.Namespace, Name: b.Name}, binding); err != nil {
			t.Fatal(err)
		}
		want := []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: name}}
		if !slices.Equal(binding.Subjects, want) {
			t.Errorf("binding %s names %v, want %v", b.Name, binding.Subjects, want)
		}
	}

	direct := tn.Config("nobody")
	direct.CertData, direct.KeyData, direct.BearerToken = nil, nil, auth.Token
	ana := meet(t, tn.World, name, direct)
	if err := isUnauthorized(ana.reads(t.Context(), tn.namespace)); err != nil {
		t.Errorf("with the gateway's token at the API server: %v", err)
	}

	g.delete(t)
	g.isGone(t)
	g.leavesNothing(t)
	hasEnded(t, tn.admin, g.NamespacedName, ending{reason: v1alpha1.EndDeleted, by: lifecycle.Unknown})
}

// isKnownByHashAlone fails the test if a token lies anywhere but in the Secret of its engineer, or an account was made.
func isKnownByHashAlone(t *testing.T, tn *tenant, g *grantInTest, token string) {
	t.Helper()
	for _, o := range g.children(t) {
		if _, ok := o.(*corev1.ServiceAccount); ok {
			t.Errorf("there is a ServiceAccount %s", o.GetName())
		}
	}
	secrets := &corev1.SecretList{}
	if err := tn.Admin.List(t.Context(), secrets); err != nil {
		t.Fatal(err)
	}
	lies := 0
	for _, s := range secrets.Items {
		for _, value := range s.Data {
			if strings.Contains(string(value), token) {
				lies++
			}
		}
	}
	if lies != 1 {
		t.Errorf("the token lies in %d places, want 1", lies)
	}
}

func TestThroughTheGatewayAPublicKeyIsAllThatOpensTheKubeconfig(t *testing.T) {
	t.Parallel()
	tn, key := throughTheGateway(t), ageKey(t)
	g := tn.opens(t, theGrant, gen.WithTransport(v1alpha1.TransportGateway), gen.WithPublicKey(gen.Engineer, key.public))
	e := statusOf(t, g.is(t, v1alpha1.StateActive), gen.Engineer)
	if e.CredentialSecretRef != nil {
		t.Errorf("the status names a Secret: %v", e.CredentialSecretRef)
	}
	_, auth := clusterIn(t, key.open(t, e.EncryptedKubeconfig))
	if hash, ok := access.TokenHash(auth.Token); !ok || hash != e.CredentialHash {
		t.Errorf("the token's hash is %q (%v), the status has %q", hash, ok, e.CredentialHash)
	}
	liesNowhere(t, tn, strings.Repeat(auth.Token, 2))
}

func TestThroughTheGatewayShorteningAndTakingOffNeedNoNewCredential(t *testing.T) {
	t.Parallel()
	tn := throughTheGateway(t)
	g := tn.opens(t, theGrant, gen.WithTransport(v1alpha1.TransportGateway), gen.WithEngineers(gen.Engineer, "ben@vendor.example"))
	before := statusOf(t, g.is(t, v1alpha1.StateActive), gen.Engineer)
	end := soon(minutes / 2)
	tn.admin.decides(t, tn.namespace, "shorter", gen.Shortening(theGrant, end))
	tn.admin.decides(t, tn.namespace, "without-ben", gen.RevokingEngineer(theGrant, "ben@vendor.example"))
	world.Eventually(t, "the status has the new end and one engineer", func() error {
		object := g.is(t, v1alpha1.StateActive)
		e := statusOf(t, object, gen.Engineer)
		if len(object.Status.Engineers) != 1 || !timeOf(e.CredentialExpirationTime).Equal(end) {
			return fmt.Errorf("it has %+v", object.Status.Engineers)
		}
		if e.CredentialHash != before.CredentialHash {
			t.Errorf("the hash was %q and is %q", before.CredentialHash, e.CredentialHash)
		}
		return nil
	})
	ben := access.GatewayUsername(g.recorded(), "ben@vendor.example")
	for _, b := range g.bindings(t) {
		binding := &rbacv1.RoleBinding{}
		if err := tn.Admin.Get(t.Context(), types.NamespacedName{Namespace: b.Namespace, Name: b.Name}, binding); err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(binding.Subjects, func(s rbacv1.Subject) bool { return s.Name == ben }) {
			t.Errorf("binding %s still names ben", b.Name)
		}
	}
}

func TestThroughTheGatewayDeletingACredentialTakesTheEngineerOff(t *testing.T) {
	t.Parallel()
	tn := throughTheGateway(t)
	g := tn.opens(t, theGrant, gen.WithTransport(v1alpha1.TransportGateway))
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: world.CredentialsNamespace, Name: g.identity(gen.Engineer)}}
	if err := tn.Admin.Delete(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	g.is(t, v1alpha1.StateRevoked)
	g.leavesNothing(t)
	if transition(g.record(t), v1alpha1.TransitionEngineerRemoved) < 0 {
		t.Errorf("the trail is %s", trail(g.record(t)))
	}
}
