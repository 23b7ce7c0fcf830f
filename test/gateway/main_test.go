// Package gateway watches engineers come through the running gateway with kubectl, and go when their grant ends. The
// control plane is real, with nodes whose pods run; the chart is installed by Helm; controller and gateway run from their
// rendered Deployments, each with its own ServiceAccount.
package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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
	"supportaccess.dev/operator/internal/audit/chain"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

func TestMain(m *testing.M) { world.Main(m) }

const (
	tenant = "mail-archive"
	tess   = "tess@customer.example"
	// patience bounds the wait for a process to end.
	patience = 30 * time.Second
)

// theInstallation is the one installation of the package.
var theInstallation struct {
	once         sync.Once
	installation *world.Installation
	ip           string
}

// scene is the chart installed, controller and gateway running, a product in its namespace, and Tess its admin.
type scene struct {
	*world.World
	installation *world.Installation
	operator     *world.Operator
	gateway      *world.Operator
	tess         client.Client
	pod          string
}

// values are the chart's: every shipped role is offered, through the gateway.
func values(ip string) map[string]any {
	roles := []any{
		map[string]any{"name": gen.Configuration}, map[string]any{"name": gen.Diagnostics},
		map[string]any{"name": gen.Operate, "elevated": true, "approvals": 0}, map[string]any{"name": gen.Content, "elevated": true, "approvals": 0},
		map[string]any{"name": maintenance, "elevated": true, "approvals": 0}, map[string]any{"name": v1alpha1.FlaggedRole},
	}
	return world.GatewayValues(ip, map[string]any{
		"offeredRoles":  []any{gen.Configuration, gen.Diagnostics, gen.Operate, gen.Content, maintenance, v1alpha1.FlaggedRole},
		"defaultPolicy": map[string]any{"spec": map[string]any{"transports": []any{"Gateway"}, "roles": roles, "durations": nil, "requirePublicKey": "Never", "flaggedContent": flaggedMails()}},
		"guardFlags":    map[string]any{"enabled": true},
		"log":           map[string]any{"level": "debug"},
		// As the chart has it: each change is asked about. Replicas know each other's requests by their key.
		"gateway": map[string]any{"changes": map[string]any{"enabled": true}, "audit": map[string]any{"keySecret": auditKey}},
	})
}

// auditKey is the Secret with the key that signs the log.
const auditKey = "audit-key"

func (s *scene) makesKey(t *testing.T) {
	t.Helper()
	key, err := chain.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: world.SystemNamespace, Name: auditKey}, Data: map[string][]byte{"key.pem": key}}
	if err := s.Admin.Create(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{World: world.New(t)}
	theInstallation.once.Do(func() {
		ip, err := world.GatewayIP()
		if err != nil {
			t.Fatal(err)
		}
		theInstallation.ip = ip
		theInstallation.installation = s.InstallChart(t, values(ip))
		s.makesKey(t)
		s.product(t)
		s.offersMaintenance(t)
	})
	if theInstallation.installation == nil {
		t.Fatal("the chart was not installed")
	}
	s.installation = theInstallation.installation
	s.operator = s.StartOperator(t, s.installation)
	s.gateway = s.StartGateway(t, s.installation, theInstallation.ip)
	s.tess = s.ClientFor(t, s.Config(tess))
	s.pod = s.aPod(t)
	return s
}

// product puts the sample product into its namespace.
func (s *scene) product(t *testing.T) {
	t.Helper()
	root, err := controlplane.Root()
	if err != nil {
		t.Fatal(err)
	}
	admin := s.Kubeconfig(t, s.ControlPlane.AdminConfig(), tenant)
	if _, diagnostics, err := s.KubectlWith(t, admin, "", "apply", "-f", filepath.Join(root, "config/samples/mail-archive.yaml")); err != nil {
		t.Fatalf("%v: %s", err, diagnostics)
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: "tess"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: tess}},
	}
	lends := gen.ClusterRole("lends", gen.Rule(rbacv1.GroupName, []string{"clusterroles"}, []string{"bind"}))
	lends.Labels = map[string]string{"rbac.authorization.k8s.io/aggregate-to-admin": "true"}
	for _, object := range []client.Object{binding, lends} {
		if err := s.Admin.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
}

// aPod waits for a pod of the product's to run.
func (s *scene) aPod(t *testing.T) string {
	t.Helper()
	name := ""
	world.Eventually(t, "a pod of the product runs", func() error {
		pods := &corev1.PodList{}
		if err := s.Admin.List(t.Context(), pods, client.InNamespace(tenant)); err != nil {
			return err
		}
		for i := range pods.Items {
			if pods.Items[i].Status.Phase == corev1.PodRunning {
				name = pods.Items[i].Name
				return nil
			}
		}
		return fmt.Errorf("%d pods, none runs", len(pods.Items))
	})
	return name
}

// grant is one grant of Tess's, open, and the engineer's kubeconfig.
type grant struct {
	*v1alpha1.SupportAccessGrant
	scene      *scene
	kubeconfig string
	// tool is the kubectl that streams are made with.
	tool string
}

// grants has Tess grant access through the gateway, and fetch the kubeconfig.
func (s *scene) grants(t *testing.T, name string, mods ...func(*v1alpha1.SupportAccessGrant)) *grant {
	t.Helper()
	object := gen.ToApply(name, tenant, append([]func(*v1alpha1.SupportAccessGrant){
		gen.WithDuration("30m"), func(g *v1alpha1.SupportAccessGrant) { g.Spec.Transport = "" },
	}, mods...)...)
	world.Eventually(t, "Tess makes grant "+name, func() error { return s.tess.Create(t.Context(), object) })
	return s.handsOver(t, object)
}

// handsOver waits until a grant is open, and has Tess fetch the kubeconfig.
func (s *scene) handsOver(t *testing.T, object *v1alpha1.SupportAccessGrant) *grant {
	t.Helper()
	g, name := &grant{SupportAccessGrant: object, scene: s, tool: s.ControlPlane.Kubectl()}, object.Name
	g.is(t, v1alpha1.StateActive)
	secret := &corev1.Secret{}
	ref := g.Status.Engineers[0].CredentialSecretRef
	world.Eventually(t, "Tess fetches the kubeconfig of "+name, func() error {
		if ref == nil {
			return fmt.Errorf("the status names no Secret: %+v", g.Status.Engineers)
		}
		return s.tess.Get(t.Context(), client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, secret)
	})
	g.kubeconfig = filepath.Join(s.Dir, name+".kubeconfig")
	if err := os.WriteFile(g.kubeconfig, secret.Data[ref.Key], 0o600); err != nil {
		t.Fatal(err)
	}
	asks := []string{"get", "configmaps"}
	if !slices.Contains(object.Spec.Roles, gen.Configuration) {
		asks = []string{"auth", "whoami"}
	}
	world.Eventually(t, "the gateway lets the engineer of "+name+" in", func() error {
		_, err := g.kubectl(t, asks...)
		return err
	})
	return g
}

// is waits until the grant is in a state.
func (g *grant) is(t *testing.T, state string) {
	t.Helper()
	world.Eventually(t, "grant "+g.Name+" is "+state, func() error {
		if err := g.scene.tess.Get(t.Context(), client.ObjectKeyFromObject(g.SupportAccessGrant), g.SupportAccessGrant); err != nil {
			return err
		}
		ready := apimeta.FindStatusCondition(g.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil || ready.Reason != state {
			return fmt.Errorf("its conditions are %v", g.Status.Conditions)
		}
		return nil
	})
}

// revoke deletes the grant and returns when the API server has answered.
func (g *grant) revoke(t *testing.T) time.Time {
	t.Helper()
	object := &v1alpha1.SupportAccessGrant{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: g.Name}}
	if err := g.scene.tess.Delete(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	return time.Now()
}

// kubectl runs kubectl as the engineer.
func (g *grant) kubectl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, diagnostics, err := g.scene.KubectlWith(t, g.kubeconfig, "", args...)
	if err != nil {
		return out, fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(diagnostics))
	}
	return out, nil
}

// stream is a kubectl that runs until it is cut.
type stream struct{ *kubectl.Running }

// starts runs kubectl as the engineer and waits until it has printed something.
func (g *grant) starts(t *testing.T, says string, env []string, args ...string) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	started, err := kubectl.Start(ctx, g.tool, g.kubeconfig, env, args...)
	if err != nil {
		t.Fatal(err)
	}
	if err := started.Says(ctx, says); err != nil {
		t.Fatal(err)
	}
	return &stream{started}
}

// isCut waits until the stream has ended, and returns how long after an instant.
func (s *stream) isCut(t *testing.T, since time.Time) time.Duration {
	t.Helper()
	select {
	case <-s.Done():
		return s.Ended().Sub(since)
	case <-time.After(patience):
		t.Errorf("%s still runs %s after the end; it says %q", s.Name(), patience, s.Said())
		return patience
	}
}

// entries reads the gateway's audit log.
func (s *scene) entries(t *testing.T) []map[string]any {
	t.Helper()
	content, err := s.gateway.AuditLines(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var entries []map[string]any
	for line := range bytes.Lines(content) {
		entry := map[string]any{}
		if err := json.Unmarshal(line, &entry); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		entries = append(entries, entry)
	}
	return entries
}

func errNotAcknowledged(list *v1alpha1.SupportAccessSessionList) error {
	var words []string
	for _, session := range list.Items {
		words = append(words, fmt.Sprintf("%s: %+v", session.Spec.Grant.Name, session.Status))
	}
	return fmt.Errorf("sessions: %s", strings.Join(words, "; "))
}
