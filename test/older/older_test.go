// Package older has the gateway stand before an API server that does not know constrained impersonation, as those before
// Kubernetes 1.36, and that opens streams into pods for who may get them, as those before 1.35: nothing opens and the reason is said, and with the chart's value legacyImpersonation engineers come in.
package older

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/hack/controlplane"
	"supportaccess.dev/operator/hack/controlplane/kubectl"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

func TestMain(m *testing.M) {
	world.MainWith(m, controlplane.Options{Kwok: true, APIServerArgs: []string{
		"--feature-gates=ConstrainedImpersonation=false,AuthorizePodWebsocketUpgradeCreatePermission=false",
	}})
}

const (
	tess = "tess@customer.example"
	// theCause is a part of what is said.
	theCause = "no constrained impersonation"
	// peeking is a role by which pods/exec may be got and not created: before Kubernetes 1.35 that opens a stream.
	peeking = "peeking"
	// patience bounds the wait for a process to end.
	patience = 30 * time.Second
)

// scene is the chart on an older server, and Tess, the admin of a namespace.
type scene struct {
	*world.World
	installation *world.Installation
	gateway      *world.Operator
	tess         client.Client
	namespace    string
}

func values(ip string, legacy bool) map[string]any {
	return world.GatewayValues(ip, map[string]any{
		"gateway":      map[string]any{"legacyImpersonation": legacy},
		"offeredRoles": []any{gen.Configuration, gen.Diagnostics, peeking},
		"defaultPolicy": map[string]any{"spec": map[string]any{
			"transports": []any{"Gateway"}, "durations": nil, "requirePublicKey": "Never",
			"roles": []any{map[string]any{"name": gen.Configuration}, map[string]any{"name": gen.Diagnostics}, map[string]any{"name": peeking}},
		}},
	})
}

func newScene(t *testing.T, ip string) *scene {
	t.Helper()
	s := &scene{World: world.New(t)}
	s.installation = s.InstallChart(t, values(ip, false))
	s.StartOperator(t, s.installation)
	gateway, err := world.RunGateway(t.Context(), s.ControlPlane, s.installation, world.OperatorOptions{Dir: filepath.Join(s.Dir, "pods"), IP: ip})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := gateway.Stop(); err != nil {
			t.Errorf("stop the gateway: %v", err)
		}
		if t.Failed() {
			t.Logf("the gateway's log ends with:\n%s", gateway.Tail())
		}
	})
	s.gateway, s.namespace, s.tess = gateway, s.Namespace(t), s.ClientFor(t, s.Config(tess))
	lends := gen.ClusterRole("lends", gen.Rule(rbacv1.GroupName, []string{"clusterroles"}, []string{"bind"}))
	lends.Labels = map[string]string{"rbac.authorization.k8s.io/aggregate-to-admin": "true"}
	admin := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "tess"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: tess}},
	}
	for _, object := range []client.Object{admin, lends} {
		if err := s.Admin.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestAnOlderServerLetsNobodyInAndTheGrantSaysWhyUntilLegacyImpersonationIsChosen(t *testing.T) {
	ip, err := world.GatewayIP()
	if err != nil {
		t.Fatal(err)
	}
	s := newScene(t, ip)
	world.Eventually(t, "the gateway says why it is not ready", func() error { return s.readiness(t, theCause) })
	world.Eventually(t, "the gateway says where the controller looks that it can let nobody in", func() error {
		return s.said(t, func(unable string) bool { return strings.Contains(unable, theCause) })
	})

	grant := gen.ToApply("case-1", s.namespace, gen.WithDuration("30m"), func(g *v1alpha1.SupportAccessGrant) { g.Spec.Transport = "" })
	world.Eventually(t, "Tess makes a grant", func() error { return s.tess.Create(t.Context(), grant) })
	ready := s.is(t, grant, v1alpha1.StateFailed)
	for _, word := range []string{theCause, "transport Direct", "gateway.legacyImpersonation"} {
		if ready.Status != metav1.ConditionFalse || !strings.Contains(ready.Message, word) {
			t.Errorf("Ready is %s with %q, want False with a word of %q", ready.Status, ready.Message, word)
		}
	}
	admin := s.Kubeconfig(t, s.ControlPlane.AdminConfig(), s.namespace)
	if table := s.MustKubectl(t, admin, "get", "supportaccessgrants"); !strings.Contains(table, v1alpha1.StateFailed) {
		t.Errorf("kubectl get does not show it:\n%s", table)
	}
	s.nothingOpened(t)

	if err := s.installation.Upgrade(t.Context(), s.ControlPlane, values(ip, true)); err != nil {
		t.Fatal(err)
	}
	s.is(t, grant, v1alpha1.StateActive)
	if err := s.gateway.WaitReady(t.Context()); err != nil {
		t.Error(err)
	}
	s.comesInAndIsCut(t, grant)
	s.whoMayGetExecsAndIsCut(t)
}

// readiness reports whether the gateway is not ready and says so in some words.
func (s *scene) readiness(t *testing.T, words string) error {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.gateway.ReadyURL()+"/impersonation", nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err == nil && (answer.StatusCode == http.StatusOK || !strings.Contains(string(body), words)) {
		err = fmt.Errorf("it answers %d: %s", answer.StatusCode, body)
	}
	return err
}

// said reports whether the gateway's own session object says what is wanted.
func (s *scene) said(t *testing.T, wanted func(unable string) bool) error {
	t.Helper()
	sessions := &v1alpha1.SupportAccessSessionList{}
	if err := s.Admin.List(t.Context(), sessions, client.InNamespace(v1alpha1.SystemNamespace)); err != nil {
		return err
	}
	for i := range sessions.Items {
		if sessions.Items[i].Spec.Grant.UID == v1alpha1.GatewayItself && wanted(sessions.Items[i].Status.Unable) {
			return nil
		}
	}
	return fmt.Errorf("the sessions are %+v", sessions.Items)
}

// is waits until a grant is in a state, and returns the condition that says so.
func (s *scene) is(t *testing.T, grant *v1alpha1.SupportAccessGrant, state string) *metav1.Condition {
	t.Helper()
	var ready *metav1.Condition
	world.Eventually(t, "the grant is "+state, func() error {
		if err := s.tess.Get(t.Context(), client.ObjectKeyFromObject(grant), grant); err != nil {
			return err
		}
		if ready = apimeta.FindStatusCondition(grant.Status.Conditions, v1alpha1.ConditionReady); ready == nil || ready.Reason != state {
			return fmt.Errorf("its conditions are %v", grant.Status.Conditions)
		}
		return nil
	})
	return ready
}

// nothingOpened checks that there is neither a binding of the operator's nor a credential.
func (s *scene) nothingOpened(t *testing.T) {
	t.Helper()
	bindings, secrets := &rbacv1.RoleBindingList{}, &corev1.SecretList{}
	if err := s.Admin.List(t.Context(), bindings, client.InNamespace(s.namespace), client.MatchingLabels{v1alpha1.LabelManaged: "true"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Admin.List(t.Context(), secrets, client.InNamespace(v1alpha1.CredentialsNamespace)); err != nil {
		t.Fatal(err)
	}
	if len(bindings.Items) > 0 || len(secrets.Items) > 0 {
		t.Errorf("there are %d bindings and %d credentials of a grant that did not open", len(bindings.Items), len(secrets.Items))
	}
}

// comesInAndIsCut has the engineer of an open grant read, and watch until the grant is revoked.
func (s *scene) comesInAndIsCut(t *testing.T, grant *v1alpha1.SupportAccessGrant) {
	t.Helper()
	kubeconfig := s.kubeconfig(t, grant)
	world.Eventually(t, "the engineer reads through the gateway", func() error {
		_, diagnostics, err := s.KubectlWith(t, kubeconfig, "", "get", "configmaps")
		if err != nil {
			return fmt.Errorf("%w: %s", err, diagnostics)
		}
		return nil
	})
	watch, err := kubectl.Start(t.Context(), s.ControlPlane.Kubectl(), kubeconfig, nil, "get", "configmaps", "--watch")
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Says(t.Context(), "kube-root-ca.crt"); err != nil {
		t.Fatal(err)
	}
	if err := s.tess.Delete(t.Context(), grant); err != nil {
		t.Fatal(err)
	}
	select {
	case <-watch.Done():
	case <-time.After(patience):
		t.Errorf("the watch still runs %s after the grant was revoked", patience)
	}
	if out, _, err := s.KubectlWith(t, kubeconfig, "", "get", "configmaps"); err == nil {
		t.Errorf("after the end the engineer reads %q", out)
	}
}

// whoMayGetExecsAndIsCut has two engineers go into a pod: one who may not, and one whose role says get alone.
func (s *scene) whoMayGetExecsAndIsCut(t *testing.T) {
	t.Helper()
	pod := s.aPod(t)
	if err := s.Admin.Create(t.Context(), gen.ClusterRole(peeking, gen.Rule("", []string{"pods/exec"}, []string{"get"}))); err != nil {
		t.Fatal(err)
	}
	open := func(name string, roles ...string) (*v1alpha1.SupportAccessGrant, string) {
		grant := gen.ToApply(name, s.namespace, gen.WithDuration("30m"), gen.WithRoles(roles...), func(g *v1alpha1.SupportAccessGrant) { g.Spec.Transport = "" })
		world.Eventually(t, "Tess makes grant "+name, func() error { return s.tess.Create(t.Context(), grant) })
		s.is(t, grant, v1alpha1.StateActive)
		return grant, s.kubeconfig(t, grant)
	}
	_, plain := open("case-plain", gen.Configuration)
	grant, peeks := open("case-peeking", gen.Configuration, peeking)
	if out, diagnostics, err := s.KubectlWith(t, plain, "", "exec", pod, "--", "echo", "here"); err == nil || !strings.Contains(diagnostics, "none of its roles") {
		t.Errorf("who may not goes into a pod: %q, %v: %s", out, err, diagnostics)
	}
	shell, err := kubectl.Start(t.Context(), s.ControlPlane.Kubectl(), peeks, nil, "exec", "-i", pod, "--", "sh", "-c", "echo here; sleep 120")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := shell.Says(ctx, "here"); err != nil {
		t.Fatalf("on this server get opens a stream: %v", err)
	}
	if err := s.tess.Delete(t.Context(), grant); err != nil {
		t.Fatal(err)
	}
	select {
	case <-shell.Done():
	case <-time.After(patience):
		t.Errorf("the stream still runs %s after the grant was revoked", patience)
	}
}

// aPod makes a pod and waits until it runs.
func (s *scene) aPod(t *testing.T) string {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "archive"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "archive", Image: "mail.vendor.example/archive"}}},
	}
	if err := s.Admin.Create(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	world.Eventually(t, "the pod runs", func() error {
		if err := s.Admin.Get(t.Context(), client.ObjectKeyFromObject(pod), pod); err != nil {
			return err
		}
		if pod.Status.Phase != corev1.PodRunning {
			return fmt.Errorf("it is %q", pod.Status.Phase)
		}
		return nil
	})
	return pod.Name
}

// kubeconfig fetches the kubeconfig of an open grant, as Tess.
func (s *scene) kubeconfig(t *testing.T, grant *v1alpha1.SupportAccessGrant) string {
	t.Helper()
	path := filepath.Join(s.Dir, grant.Name+".kubeconfig")
	world.Eventually(t, "Tess fetches the kubeconfig", func() error {
		if err := s.tess.Get(t.Context(), client.ObjectKeyFromObject(grant), grant); err != nil {
			return err
		}
		if len(grant.Status.Engineers) == 0 || grant.Status.Engineers[0].CredentialSecretRef == nil {
			return errors.New("the status names no Secret")
		}
		ref, secret := grant.Status.Engineers[0].CredentialSecretRef, &corev1.Secret{}
		if err := s.tess.Get(t.Context(), client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, secret); err != nil {
			return err
		}
		return os.WriteFile(path, secret.Data[ref.Key], 0o600)
	})
	return path
}
