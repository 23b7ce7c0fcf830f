// Package cli uses the kubectl plugin as people do: through kubectl, as the admin of a namespace, as an engineer with the
// kubeconfig that was handed over, as somebody without rights. The API server, the chart and the operator are real. The
// cluster admin only sets the scene.
package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/hack/controlplane"
	"supportaccess.dev/operator/hack/controlplane/gobuild"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// There is no node: no pod runs in these tests.
func TestMain(m *testing.M) { world.MainWith(m, controlplane.Options{}) }

// runTimeout bounds one run of the plugin, which bounds its own waits.
const runTimeout = 90 * time.Second

// plugins builds the plugin and returns the folder that kubectl finds it in.
var plugins = sync.OnceValues(func() (string, error) {
	root, err := controlplane.Root()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	path := filepath.Join(root, "bin", "kubectl-support_access")
	return filepath.Dir(path), gobuild.Program(ctx, "./cmd/kubectl-support_access", path, func(string, ...any) {})
})

// result is what one run of the plugin came to.
type result struct {
	out, err string
	code     int
}

// has fails the test unless the run ended with this code and said each of these.
func (r result) has(t testing.TB, code int, says ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("the exit code is %d, want %d:\n%s%s", r.code, code, r.out, r.err)
	}
	for _, want := range says {
		if !strings.Contains(r.out+r.err, want) {
			t.Errorf("it does not say %q:\n%s%s", want, r.out, r.err)
		}
	}
}

// person is somebody at a terminal, with a kubeconfig.
type person struct {
	*world.World
	kubeconfig string
	// heard is all that the plugin has said to this person, but for what handover wrote to standard output.
	heard *strings.Builder
}

func (p person) run(t testing.TB, args ...string) result {
	t.Helper()
	return p.answer(t, "", args...)
}

// answer runs kubectl support-access with something to read on standard input.
func (p person) answer(t testing.TB, stdin string, args ...string) result {
	t.Helper()
	dir, err := plugins()
	if err != nil {
		t.Fatalf("build the plugin: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), runTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.ControlPlane.Kubectl(), append([]string{"support-access"}, args...)...)
	cmd.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "HOME=" + p.Dir, "KUBECONFIG=" + p.kubeconfig}
	cmd.Stdin = strings.NewReader(stdin)
	var out, diagnostics bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diagnostics
	exit := (*exec.ExitError)(nil)
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatalf("kubectl support-access %s: %v", strings.Join(args, " "), err)
	}
	r := result{out: out.String(), err: diagnostics.String(), code: cmd.ProcessState.ExitCode()}
	p.heard.WriteString(r.err)
	if args[0] != "handover" {
		p.heard.WriteString(r.out)
	}
	return r
}

// tenant is a namespace with a policy of its own, which offers Direct and any duration, and an admin, who has the built-in
// role admin there and nothing else.
type tenant struct {
	*world.World
	namespace string
	policy    string
	name      string
	admin     person
}

func newTenant(t testing.TB) *tenant {
	t.Helper()
	w := world.New(t)
	w.Operator(t)
	policy := gen.Policy(w.Name("policy"), gen.AnyDuration("168h"))
	policy.ObjectMeta = metav1.ObjectMeta{Name: policy.Name}
	if err := w.Admin.Create(t.Context(), policy); err != nil {
		t.Fatalf("make policy %s: %v", policy.Name, err)
	}
	tn := &tenant{World: w, policy: policy.Name, namespace: w.LabelledNamespace(t, map[string]string{v1alpha1.LabelPolicy: policy.Name})}
	tn.name = "tess@" + tn.namespace + ".customer.example"
	tn.admin = tn.newAdmin(t, tn.name)
	probe := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: tn.namespace, Name: "settings"}}
	if err := w.Admin.Create(t.Context(), probe); err != nil {
		t.Fatal(err)
	}
	return tn
}

// newAdmin makes somebody admin of the namespace, and waits until that holds.
func (tn *tenant) newAdmin(t testing.TB, name string) person {
	t.Helper()
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: tn.namespace, GenerateName: "test-"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}},
	}
	if err := tn.Admin.Create(t.Context(), binding); err != nil {
		t.Fatalf("make %s admin of %s: %v", name, tn.namespace, err)
	}
	c := tn.Client(t, name)
	world.Eventually(t, name+" may grant", func() error {
		err := c.Create(t.Context(), gen.ToApply("trial", tn.namespace), client.DryRunAll)
		if apierrors.IsForbidden(err) && strings.Contains(err.Error(), "support-access-grant-limits") {
			return nil
		}
		return err
	})
	return tn.person(t, name)
}

// person is anybody, with the namespace in the kubeconfig.
func (tn *tenant) person(t testing.TB, name string) person {
	t.Helper()
	return person{World: tn.World, kubeconfig: tn.Kubeconfig(t, tn.Config(name), tn.namespace), heard: &strings.Builder{}}
}

// grant has the admin make a grant for Ana, in the default roles, and wait until it is open.
func (tn *tenant) grant(t testing.TB, more ...string) {
	t.Helper()
	args := []string{"grant", "--case", gen.CaseID, "--reason", "the connector cannot reach the server", "--for", "24h", "--wait"}
	if !strings.Contains(strings.Join(more, " "), "--engineer") {
		more = append(more, "--engineer", gen.Engineer)
	}
	tn.admin.run(t, append(args, more...)...).has(t, 0, "created")
	if t.Failed() {
		t.FailNow()
	}
}

// grants are those of the namespace.
func (tn *tenant) grants(t testing.TB) []v1alpha1.SupportAccessGrant {
	t.Helper()
	list := &v1alpha1.SupportAccessGrantList{}
	if err := tn.Admin.List(t.Context(), list, client.InNamespace(tn.namespace)); err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// decisions are those of the namespace.
func (tn *tenant) decisions(t testing.TB) []v1alpha1.SupportAccessDecision {
	t.Helper()
	list := &v1alpha1.SupportAccessDecisionList{}
	if err := tn.Admin.List(t.Context(), list, client.InNamespace(tn.namespace)); err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// reads waits until whoever has a kubeconfig may read in the namespace.
func (tn *tenant) reads(t testing.TB, kubeconfig string, args ...string) {
	t.Helper()
	world.Eventually(t, "the engineer reads", func() error {
		out, diagnostics, err := tn.Kubectl(t, kubeconfig, append([]string{"get", "configmap", "settings", "-o", "name"}, args...)...)
		if err != nil || out != "configmap/settings\n" {
			return fmt.Errorf("kubectl says %v: %s%s", err, out, diagnostics)
		}
		return nil
	})
}

// isRefused waits until whoever has a kubeconfig may not read any more, in the API server's words.
func (tn *tenant) isRefused(t testing.TB, kubeconfig string) {
	t.Helper()
	world.Eventually(t, "the engineer is refused", func() error {
		_, diagnostics, err := tn.Kubectl(t, kubeconfig, "get", "configmap", "settings")
		// The binding goes first, then the credential.
		for _, refusal := range []string{"forbidden", "Unauthorized", "must be logged in"} {
			if err != nil && strings.Contains(diagnostics, refusal) {
				return nil
			}
		}
		return fmt.Errorf("kubectl says %v: %s", err, diagnostics)
	})
}
