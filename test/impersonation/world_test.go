// Package impersonation tries on a real API server what the gateway's ServiceAccount can do, as somebody who stole its
// token would: as whom it may act, up to which ceiling, and that it can write nothing that is authority. No gateway and
// no controller run; what the controller would write is written with its rights.
package impersonation

import (
	"fmt"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/world"
)

func TestMain(m *testing.M) { world.Main(m) }

const (
	configuration = "support-access-configuration"
	content       = "support-access-content"
	// shard is one of the ClusterRoles that the controller keeps.
	shard = "support-access-gateway-users-3"
)

// installed is the chart with a gateway, of which nothing runs.
type installed struct {
	*world.World
	controller, gateway client.Client
	gatewayConfig       *rest.Config
}

var theChart *installed

func chart(t *testing.T) *installed {
	t.Helper()
	w := world.New(t)
	if theChart == nil {
		w.InstallChart(t, map[string]any{
			"gateway":       map[string]any{"enabled": true, "changes": map[string]any{"enabled": false}},
			"offeredRoles":  []any{configuration, "support-access-diagnostics", "support-access-operate", content},
			"defaultPolicy": map[string]any{"spec": map[string]any{"requirePublicKey": "Never", "roles": []any{map[string]any{"name": configuration}, map[string]any{"name": content, "elevated": true, "approvals": 0}}}},
		})
		theChart = &installed{}
	}
	i := &installed{World: w}
	i.controller = w.ClientFor(t, w.ServiceAccount(t, v1alpha1.SystemNamespace, v1alpha1.ControllerServiceAccount))
	i.gatewayConfig = w.ServiceAccount(t, v1alpha1.SystemNamespace, v1alpha1.GatewayServiceAccount)
	i.gateway = w.ClientFor(t, i.gatewayConfig)
	return i
}

// engineer returns the identity of an engineer with a grant of a role in a namespace, as the gateway puts it on.
func (i *installed) engineer(t *testing.T, namespace, role string) rest.ImpersonationConfig {
	t.Helper()
	identity := rest.ImpersonationConfig{
		UserName: v1alpha1.IdentityPrefix + i.Name("engineer"),
		Groups:   []string{v1alpha1.EngineersGroup},
		Extra: map[string][]string{
			"supportaccess.dev/grant":   {namespace + "/case-1"},
			"supportaccess.dev/case":    {"CASE-1"},
			"supportaccess.dev/request": {"1"},
		},
	}
	i.binds(t, namespace, identity, role)
	return identity
}

// binds gives an engineer a role in a namespace, as the controller does.
func (i *installed) binds(t *testing.T, namespace string, identity rest.ImpersonationConfig, role string) {
	t.Helper()
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: i.Name("engineer"), Labels: map[string]string{v1alpha1.LabelManaged: "true"}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: identity.UserName}},
	}
	if err := i.controller.Create(t.Context(), binding); err != nil {
		t.Fatal(err)
	}
}

// users is the ClusterRole by which the gateway may act as these users.
func users(name string, names ...string) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"users"},
			ResourceNames: names, Verbs: []string{"impersonate:user-info"},
		}},
	}
}

// active lets the gateway act as these users alone, as the controller does, and waits until RBAC knows.
func (i *installed) active(t *testing.T, identities ...rest.ImpersonationConfig) {
	t.Helper()
	var names []string
	for _, identity := range identities {
		names = append(names, identity.UserName)
	}
	role := users(shard, names...)
	err := i.controller.Create(t.Context(), role)
	if apierrors.IsAlreadyExists(err) {
		err = i.controller.Update(t.Context(), role)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, identity := range identities {
		world.Eventually(t, "the gateway is "+identity.UserName, func() error {
			who := &authenticationv1.SelfSubjectReview{}
			if err := i.as(t, i.gatewayConfig, identity).Create(t.Context(), who); err != nil {
				return err
			}
			if who.Status.UserInfo.Username != identity.UserName {
				return fmt.Errorf("it is %s", who.Status.UserInfo.Username)
			}
			return nil
		})
	}
}

// as is a client in the guise of another.
func (i *installed) as(t *testing.T, config *rest.Config, identity rest.ImpersonationConfig) client.Client {
	t.Helper()
	config = rest.CopyConfig(config)
	config.Impersonate = identity
	// Which kinds there are the admin has asked: here the request itself is what is tried.
	c, err := client.New(config, client.Options{Scheme: world.Scheme(), Mapper: i.Admin.RESTMapper()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func forbidden(t *testing.T, what string, err error, says ...string) {
	t.Helper()
	if !apierrors.IsForbidden(err) {
		t.Errorf("%s: %v, want forbidden", what, err)
		return
	}
	for _, word := range says {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v, want a word of %q", what, err, word)
		}
	}
}

func settings(namespace, name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
}
