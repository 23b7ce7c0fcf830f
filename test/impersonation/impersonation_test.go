package impersonation

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/world"
)

func TestTheGatewayActsAsTheUsersOfActiveGrantsAndAsNobodyElse(t *testing.T) {
	i := chart(t)
	namespace := i.Namespace(t)
	ana, ben := i.engineer(t, namespace, configuration), i.engineer(t, namespace, configuration)
	i.active(t, ana)
	look := func(identity rest.ImpersonationConfig) error {
		return i.as(t, i.gatewayConfig, identity).List(t.Context(), &corev1.ConfigMapList{}, client.InNamespace(namespace))
	}
	if err := look(ana); err != nil {
		t.Fatalf("an engineer with a grant: %v", err)
	}
	forbidden(t, "an engineer whose grant is not open", look(ben), "cannot impersonate:user-info resource \"users\"", ben.UserName)
	cases := map[string]func(*rest.ImpersonationConfig){
		"somebody else":          func(c *rest.ImpersonationConfig) { c.UserName = "alice" },
		"an admin of the nodes":  func(c *rest.ImpersonationConfig) { c.UserName, c.Groups, c.Extra = "system:node:node-1", nil, nil },
		"the controller":         func(c *rest.ImpersonationConfig) { c.UserName, c.Groups, c.Extra = controllerUser, nil, nil },
		"the controller manager": func(c *rest.ImpersonationConfig) { c.UserName, c.Extra = "system:kube-controller-manager", nil },
		"of all masters":         func(c *rest.ImpersonationConfig) { c.Groups = []string{"system:masters"} },
		"of the masters too":     func(c *rest.ImpersonationConfig) { c.Groups = append(c.Groups, "system:masters") },
		"of another group":       func(c *rest.ImpersonationConfig) { c.Groups = []string{"admins"} },
		"with a UID":             func(c *rest.ImpersonationConfig) { c.UID = "1" },
		"with another extra":     func(c *rest.ImpersonationConfig) { c.Extra["scopes.example/all"] = []string{"yes"} },
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			identity := ana
			identity.Groups, identity.Extra = append([]string(nil), ana.Groups...), maps.Clone(ana.Extra)
			change(&identity)
			forbidden(t, name, look(identity))
		})
	}
	// With the next grant's end the user is taken out, and with the binding gone nothing is left at once.
	i.active(t, ben)
	if err := look(ben); err != nil {
		t.Errorf("an engineer whose grant is open now: %v", err)
	}
	world.Eventually(t, "the first engineer is nobody's to act as", func() error {
		if err := look(ana); !apierrors.IsForbidden(err) {
			return apierrors.NewBadRequest("it is still let through")
		}
		return nil
	})
}

const controllerUser = "system:serviceaccount:" + v1alpha1.SystemNamespace + ":" + v1alpha1.ControllerServiceAccount

func TestTheAPIServerIsToldWhoseRequestItIs(t *testing.T) {
	i := chart(t)
	ana := i.engineer(t, i.Namespace(t), configuration)
	i.active(t, ana)
	who := &authenticationv1.SelfSubjectReview{}
	if err := i.as(t, i.gatewayConfig, ana).Create(t.Context(), who); err != nil {
		t.Fatal(err)
	}
	info := who.Status.UserInfo
	if info.Username != ana.UserName || strings.Join(info.Groups, ",") != "supportaccess.dev:engineers,system:authenticated" {
		t.Errorf("it is %s of %v", info.Username, info.Groups)
	}
	for key, want := range ana.Extra {
		if got := info.Extra[key]; strings.Join(got, ",") != strings.Join(want, ",") {
			t.Errorf("%s is %v, want %v", key, got, want)
		}
	}
	// As people type it.
	kubeconfig := i.Kubeconfig(t, i.gatewayConfig, "")
	out := i.MustKubectl(t, kubeconfig, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}",
		"--as", ana.UserName, "--as-group", v1alpha1.EngineersGroup, "--as-user-extra", "supportaccess.dev/request=1")
	if out != ana.UserName {
		t.Errorf("kubectl --as: %s", out)
	}
	_, stderr, err := i.Kubectl(t, kubeconfig, "get", "--raw", "/version", "--as", "alice", "--as-group", v1alpha1.EngineersGroup)
	if err == nil || !strings.Contains(stderr, `cannot impersonate`) {
		t.Errorf("kubectl --as alice: %v: %s", err, stderr)
	}
}

// TestWhatARoleAllowsBeyondTheCeilingIsRefused widens a role, as a mistake or a product would.
func TestWhatARoleAllowsBeyondTheCeilingIsRefused(t *testing.T) {
	i := chart(t)
	namespace := i.Namespace(t)
	ana := i.engineer(t, namespace, configuration)
	i.active(t, ana)
	engineer := i.as(t, i.gatewayConfig, ana)
	i.role(t, "supportaccess.dev/aggregate-to-configuration", "create")
	// The role allows it: said of the user herself, whom nobody need impersonate for that.
	world.Eventually(t, "the role allows it", func() error {
		_, stderr, err := i.Kubectl(t, i.Kubeconfig(t, i.ControlPlane.AdminConfig(), namespace),
			"auth", "can-i", "create", "configmaps", "--as", ana.UserName)
		if err != nil {
			return apierrors.NewBadRequest(stderr)
		}
		return nil
	})
	forbidden(t, "beyond the ceiling", engineer.Create(t.Context(), settings(namespace, "made")), `cannot impersonate-on:user-info:create resource "configmaps"`)
	i.role(t, "supportaccess.dev/aggregate-to-gateway-ceiling", "impersonate-on:user-info:create")
	world.Eventually(t, "the ceiling is raised", func() error {
		return client.IgnoreAlreadyExists(engineer.Create(t.Context(), settings(namespace, "made")))
	})
	// The ceiling alone gives nothing: this role has no Secrets in it, the ceiling has.
	forbidden(t, "beyond the role", engineer.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "x"}, &corev1.Secret{}),
		`User "`+ana.UserName+`" cannot get resource "secrets"`)
	forbidden(t, "in another namespace", engineer.List(t.Context(), &corev1.ConfigMapList{}, client.InNamespace("default")),
		`User "`+ana.UserName+`" cannot list resource "configmaps"`)
}

// role adds rules of ConfigMaps to a role that aggregates.
func (i *installed) role(t *testing.T, label string, verbs ...string) {
	t.Helper()
	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: i.Name("widened"), Labels: map[string]string{label: "true"}},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: verbs}},
	}
	if err := i.Admin.Create(t.Context(), role); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = i.Admin.Delete(t.Context(), role) })
}

func TestWhatIsNeverAllowedIsRefusedThroughTheGatewayToo(t *testing.T) {
	i := chart(t)
	namespace := i.Namespace(t)
	ana := i.engineer(t, namespace, configuration)
	i.active(t, ana)
	engineer := i.as(t, i.gatewayConfig, ana)
	// Everything is opened but admission: the role, and the ceiling.
	for label, verbs := range map[string][]string{
		"supportaccess.dev/aggregate-to-configuration":   {"create"},
		"supportaccess.dev/aggregate-to-gateway-ceiling": {"impersonate-on:user-info:create"},
	} {
		role := &rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: i.Name("wide-open"), Labels: map[string]string{label: "true"}},
			Rules: []rbacv1.PolicyRule{
				{APIGroups: []string{""}, Resources: []string{"serviceaccounts/token", "persistentvolumeclaims", "configmaps"}, Verbs: verbs},
				{APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"supportaccessgrants", "supportaccesssessions"}, Verbs: verbs},
			},
		}
		if err := i.Admin.Create(t.Context(), role); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = i.Admin.Delete(t.Context(), role) })
	}
	world.Eventually(t, "what is not on the list is let through", func() error {
		return client.IgnoreAlreadyExists(engineer.Create(t.Context(), settings(namespace, "allowed")))
	})
	for name, try := range map[string]func() error{
		"a token": func() error {
			account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "default"}}
			return engineer.SubResource("token").Create(t.Context(), account, &authenticationv1.TokenRequest{})
		},
		"a volume": func() error {
			return engineer.Create(t.Context(), claim(namespace))
		},
		"a grant": func() error { return engineer.Create(t.Context(), grant(namespace, "mine")) },
		"a session": func() error {
			return engineer.Create(t.Context(), session(namespace, "mine", "support-access-gateway-x"))
		},
	} {
		// The role may say no still: what it aggregates comes after a while.
		world.Eventually(t, name+" is refused by admission", func() error {
			if err := try(); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "support-access-") {
				return fmt.Errorf("it is answered %w, want a refusal with a word of support-access-", err)
			}
			return nil
		})
	}
}

func TestTheControllerHandsOutWhatItCannotUse(t *testing.T) {
	i := chart(t)
	namespace := i.Namespace(t)
	ana := i.engineer(t, namespace, configuration)
	i.active(t, ana)
	controller := i.ServiceAccount(t, v1alpha1.SystemNamespace, v1alpha1.ControllerServiceAccount)
	err := i.as(t, controller, ana).List(t.Context(), &corev1.ConfigMapList{}, client.InNamespace(namespace))
	forbidden(t, "the controller as an engineer", err)
	forbidden(t, "the controller as an admin", i.as(t, controller, rest.ImpersonationConfig{UserName: "alice"}).
		List(t.Context(), &corev1.ConfigMapList{}, client.InNamespace(namespace)))
}

func claim(namespace string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "copy"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
}

func grant(namespace, name string) *v1alpha1.SupportAccessGrant {
	return &v1alpha1.SupportAccessGrant{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.SupportAccessGrantSpec{
			Case: &v1alpha1.Case{ID: "CASE-1"}, Reason: "for the test",
			Engineers: []v1alpha1.Engineer{{Name: "ana@vendor.example"}}, Duration: "24h",
		},
	}
}

func session(namespace, name, replica string) *v1alpha1.SupportAccessSession {
	return &v1alpha1.SupportAccessSession{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.SupportAccessSessionSpec{
			Grant: v1alpha1.SessionGrant{Namespace: "tenant", Name: "case-1", UID: "1"}, Replica: replica,
		},
	}
}
