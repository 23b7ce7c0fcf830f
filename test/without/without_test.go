// Package without has the gateway go without what it needs: its place in the chart while a grant is open, and the kind of
// policies.
package without

import (
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
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/hack/controlplane"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

func TestMain(m *testing.M) { world.MainWith(m, controlplane.Options{}) }

// ending bounds the wait for a gateway that gives up by itself.
const ending = 4 * time.Minute

// values are the chart's with a gateway and without.
func values(ip string, transport v1alpha1.Transport) map[string]any {
	return world.GatewayValues(ip, map[string]any{
		"gateway":       map[string]any{"enabled": transport == v1alpha1.TransportGateway},
		"defaultPolicy": map[string]any{"spec": map[string]any{"transports": []any{string(transport)}, "durations": nil, "requirePublicKey": "Never"}},
	})
}

// scene is the chart, with a gateway at first.
type scene struct {
	*world.World
	installation *world.Installation
	ip           string
}

// gateway starts the pod of the gateway and does not wait for it.
func (s *scene) gateway(t *testing.T) *world.Operator {
	t.Helper()
	gateway, err := world.RunGateway(t.Context(), s.ControlPlane, s.installation, world.OperatorOptions{Dir: filepath.Join(s.Dir, "pods"), IP: s.ip})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = gateway.Stop()
		if t.Failed() {
			t.Logf("the gateway's log ends with:\n%s", gateway.Tail())
		}
	})
	return gateway
}

func TestAGatewayThatIsTakenAwayOrLacksTheKindOfPoliciesLetsNobodyInUntilAllIsThereAgain(t *testing.T) {
	ip, err := world.GatewayIP()
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{World: world.New(t), ip: ip}
	s.installation = s.InstallChart(t, values(ip, v1alpha1.TransportGateway))
	controller := s.StartOperator(t, s.installation)
	gateway := s.StartGateway(t, s.installation, ip)
	namespace := s.Namespace(t)
	grant := s.grants(t, namespace, "case-1")
	kubeconfig := s.kubeconfig(t, grant)
	s.comesIn(t, kubeconfig)

	// The chart is upgraded without a gateway while the grant is open: its pods go, and the controller's are replaced.
	if err := s.installation.Upgrade(t.Context(), s.ControlPlane, values(ip, v1alpha1.TransportDirect)); err != nil {
		t.Fatal(err)
	}
	s.hasNoRights(t)
	if err := errors.Join(gateway.Stop(), controller.Stop()); err != nil {
		t.Fatal(err)
	}
	controller = s.StartOperator(t, s.installation)
	s.says(t, grant, v1alpha1.ConditionRecorded, v1alpha1.ReasonNoGateway)
	s.says(t, grant, v1alpha1.ConditionDisconnectable, v1alpha1.ReasonNoGateway)
	if out, _, err := s.KubectlWith(t, kubeconfig, "", "get", "configmaps"); err == nil {
		t.Errorf("without a gateway the engineer reads %q", out)
	}
	ends := s.grants(t, namespace, "case-2")
	if err := s.Admin.Delete(t.Context(), ends); err != nil {
		t.Fatal(err)
	}

	// It comes back, with a certificate of another authority: whoever came in before is handed over another kubeconfig.
	if err := s.installation.Upgrade(t.Context(), s.ControlPlane, values(ip, v1alpha1.TransportGateway)); err != nil {
		t.Fatal(err)
	}
	if err := controller.Stop(); err != nil {
		t.Fatal(err)
	}
	s.StartOperator(t, s.installation)
	s.says(t, grant, v1alpha1.ConditionRecorded, v1alpha1.ReasonGateway)
	gateway = s.StartGateway(t, s.installation, ip)
	if out, diagnostics, err := s.KubectlWith(t, kubeconfig, "", "get", "configmaps"); err == nil || !strings.Contains(diagnostics, "unknown authority") {
		t.Errorf("with the kubeconfig of before: %q, %v: %s", out, err, diagnostics)
	}
	kubeconfig = s.kubeconfig(t, s.grants(t, namespace, "case-3"))
	s.comesIn(t, kubeconfig)
	// It waits until what is known is stale.
	if !testing.Short() {
		s.lacksPolicies(t, gateway, kubeconfig)
	}
}

// lacksPolicies takes the kind of policies away: from under a gateway that runs, and then from one that begins.
func (s *scene) lacksPolicies(t *testing.T, running *world.Operator, kubeconfig string) {
	t.Helper()
	kind := &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "supportaccesspolicies.supportaccess.dev"}}
	if err := s.Admin.Delete(t.Context(), kind); err != nil {
		t.Fatal(err)
	}
	world.Eventually(t, "the kind of policies is served no more", func() error {
		if err := s.Admin.List(t.Context(), &v1alpha1.SupportAccessPolicyList{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("reading policies gives %v", err)
		}
		return nil
	})
	gone := time.Now()
	world.Eventually(t, "the gateway that runs says that it has heard nothing", func() error { return unready(t, running) })
	t.Logf("it was ready for %s more", time.Since(gone).Round(time.Second))
	if out, diagnostics, err := s.KubectlWith(t, kubeconfig, "", "get", "configmaps", "--request-timeout=5s"); err == nil {
		t.Errorf("the engineer reads %q: %s", out, diagnostics)
	}
	if err := running.Stop(); err != nil {
		t.Fatal(err)
	}
	gateway := s.gateway(t)
	world.Consistently(t, "it lets nobody in", 5*time.Second, func() error {
		if out, _, err := s.KubectlWith(t, kubeconfig, "", "get", "configmaps", "--request-timeout=5s"); err == nil {
			return fmt.Errorf("the engineer reads %q", out)
		}
		return nil
	})
	// It ends at once where a grant is open, and else when its caches have waited for too long.
	select {
	case <-gateway.Done():
		if gateway.ExitCode() == 0 || !strings.Contains(gateway.Tail(), "SupportAccessPolicy") {
			t.Errorf("it ended with %d, and its log does not name the kind", gateway.ExitCode())
		}
	case <-time.After(ending):
		t.Errorf("it has waited for %s and does not give up", ending)
	}
	_ = gateway.Stop()
	root, err := controlplane.Root()
	if err != nil {
		t.Fatal(err)
	}
	// Helm finds no place for the default policy before the kind is there.
	admin := s.Kubeconfig(t, s.ControlPlane.AdminConfig(), "")
	s.MustKubectl(t, admin, "apply", "--server-side", "-f", filepath.Join(root, "config/crd/supportaccess.dev_supportaccesspolicies.yaml"))
	s.StartGateway(t, s.installation, s.ip)
	s.comesIn(t, kubeconfig)
}

// unready asks the gateway whether it can let anybody in.
func unready(t *testing.T, gateway *world.Operator) error {
	t.Helper()
	if gateway.Exited() {
		return fmt.Errorf("it has ended: %s", gateway.Tail())
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, gateway.ReadyURL()+"/grants", nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	if body, _ := io.ReadAll(answer.Body); answer.StatusCode == http.StatusOK {
		return fmt.Errorf("it is ready: %s", body)
	}
	return nil
}

// grants makes a grant and waits until it is open.
func (s *scene) grants(t *testing.T, namespace, name string) *v1alpha1.SupportAccessGrant {
	t.Helper()
	grant := gen.ToApply(name, namespace, gen.WithDuration("30m"), func(g *v1alpha1.SupportAccessGrant) { g.Spec.Transport = "" })
	world.Eventually(t, "grant "+name+" is made", func() error { return s.Admin.Create(t.Context(), grant) })
	world.Eventually(t, "grant "+name+" is open", func() error {
		if err := s.Admin.Get(t.Context(), client.ObjectKeyFromObject(grant), grant); err != nil {
			return err
		}
		if !apimeta.IsStatusConditionTrue(grant.Status.Conditions, v1alpha1.ConditionActive) {
			return fmt.Errorf("its conditions are %v", grant.Status.Conditions)
		}
		return nil
	})
	return grant
}

// kubeconfig fetches what an engineer comes with.
func (s *scene) kubeconfig(t *testing.T, grant *v1alpha1.SupportAccessGrant) string {
	t.Helper()
	path, secret := filepath.Join(s.Dir, grant.Name+".kubeconfig"), &corev1.Secret{}
	ref := grant.Status.Engineers[0].CredentialSecretRef
	if err := s.Admin.Get(t.Context(), client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, secret); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, secret.Data[ref.Key], 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (s *scene) comesIn(t *testing.T, kubeconfig string) {
	t.Helper()
	world.Eventually(t, "the engineer comes in", func() error {
		_, diagnostics, err := s.KubectlWith(t, kubeconfig, "", "get", "configmaps")
		if err != nil {
			return fmt.Errorf("%w: %s", err, diagnostics)
		}
		return nil
	})
}

// says waits until a condition of a grant has a reason.
func (s *scene) says(t *testing.T, grant *v1alpha1.SupportAccessGrant, condition, reason string) {
	t.Helper()
	world.Eventually(t, condition+" has the reason "+reason, func() error {
		if err := s.Admin.Get(t.Context(), client.ObjectKeyFromObject(grant), grant); err != nil {
			return err
		}
		if c := apimeta.FindStatusCondition(grant.Status.Conditions, condition); c == nil || c.Reason != reason {
			return fmt.Errorf("it is %+v", c)
		}
		return nil
	})
}

// hasNoRights checks that nothing of the gateway's is left by which somebody could act as an engineer.
func (s *scene) hasNoRights(t *testing.T) {
	t.Helper()
	account := client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: v1alpha1.GatewayServiceAccount}
	if err := s.Admin.Get(t.Context(), account, &corev1.ServiceAccount{}); !apierrors.IsNotFound(err) {
		t.Errorf("reading the gateway's ServiceAccount gives %v", err)
	}
	bindings := &rbacv1.ClusterRoleBindingList{}
	if err := s.Admin.List(t.Context(), bindings); err != nil {
		t.Fatal(err)
	}
	for _, binding := range bindings.Items {
		for _, subject := range binding.Subjects {
			if subject.Namespace == account.Namespace && subject.Name == account.Name {
				t.Errorf("ClusterRoleBinding %s still binds the gateway", binding.Name)
			}
		}
	}
}
