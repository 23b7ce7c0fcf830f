package impersonation

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/test/world"
)

// fellBack is what kubectl says to itself when a server refuses its WebSocket.
const fellBack = "RemoteCommand fallback"

// TestExecOverWebSocketTakesGetAndCreate holds the reason why the role of content has both.
func TestExecOverWebSocketTakesGetAndCreate(t *testing.T) {
	i := chart(t)
	namespace := i.Namespace(t)
	i.runningPod(t, namespace)
	exec := func(name string, verbs ...string) (out, said string, err error) {
		i.execs(t, namespace, name, verbs...)
		return i.Kubectl(t, i.Kubeconfig(t, i.Config(name), namespace), "exec", "app", "-v=6", "--", "echo", "hello")
	}
	out, said, err := exec("both", "get", "create")
	if err != nil || out != "hello\n" || strings.Contains(said, fellBack) {
		t.Errorf("get and create: %v: %q: %s", err, out, said)
	}
	out, said, err = exec("creates", "create")
	if err != nil || out != "hello\n" || !strings.Contains(said, fellBack) || !strings.Contains(said, "cannot get resource") {
		t.Errorf("create: %v: %q: %s", err, out, said)
	}
	if out, said, err = exec("gets", "get"); err == nil {
		t.Errorf("get: %q: %s", out, said)
	}
}

func TestAnEngineerWithContentExecsThroughTheGatewaysIdentity(t *testing.T) {
	i := chart(t)
	namespace := i.Namespace(t)
	i.runningPod(t, namespace)
	ana := i.engineer(t, namespace, content)
	i.active(t, ana)
	out, said, err := i.Kubectl(t, i.Kubeconfig(t, i.gatewayConfig, namespace), "exec", "app", "-v=6", "--as", ana.UserName,
		"--as-group", ana.Groups[0], "--as-user-extra", "supportaccess.dev/request=1", "--", "echo", "hello")
	// kubectl first asks which containers there are, which is configuration's to answer.
	if err == nil || !strings.Contains(said, `cannot get resource "pods"`) {
		t.Errorf("without configuration: %v: %q: %s", err, out, said)
	}
	ben := i.engineer(t, namespace, content)
	i.binds(t, namespace, ben, configuration)
	i.active(t, ben)
	out, said, err = i.Kubectl(t, i.Kubeconfig(t, i.gatewayConfig, namespace), "exec", "app", "-v=6", "--as", ben.UserName,
		"--as-group", ben.Groups[0], "--as-user-extra", "supportaccess.dev/request=1", "--", "echo", "hello")
	if err != nil || out != "hello\n" || strings.Contains(said, fellBack) {
		t.Errorf("with configuration: %v: %q: %s", err, out, said)
	}
}

func (i *installed) runningPod(t *testing.T, namespace string) {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "app"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
	if err := i.Admin.Create(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	world.Eventually(t, "the pod runs", func() error {
		if err := i.Admin.Get(t.Context(), client.ObjectKeyFromObject(pod), pod); err != nil {
			return err
		}
		if pod.Status.Phase != corev1.PodRunning {
			return errors.New("it is " + string(pod.Status.Phase))
		}
		return nil
	})
}

// execs gives somebody verbs on streams into pods, and get on pods.
func (i *installed) execs(t *testing.T, namespace, name string, verbs ...string) {
	t.Helper()
	role := &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get"}},
			{APIGroups: []string{""}, Resources: []string{"pods/exec"}, Verbs: verbs},
		},
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: role.ObjectMeta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}},
	}
	for _, object := range []client.Object{role, binding} {
		if err := i.Admin.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
}
