// Package changes watches what the audit log says of each change that engineers make through the gateway: before and after,
// as the API server had it. The control plane is real, the chart is installed by Helm with gateway.changes, controller and
// gateway run from their rendered Deployments.
package changes

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/hack/controlplane"
	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

func TestMain(m *testing.M) { world.MainWith(m, controlplane.Options{}) }

const (
	// maintenance is a role of the product's own.
	maintenance = "product-maintenance"
	webhook     = "support-access-webhook"
)

// theInstallation is the one installation of the package.
var theInstallation struct {
	once         sync.Once
	installation *world.Installation
	ip           string
}

// scene is the chart installed, controller and gateway running.
type scene struct {
	*world.World
	gateway *world.Operator
	policy  string
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{World: world.New(t)}
	theInstallation.once.Do(func() { s.install(t) })
	if theInstallation.installation == nil {
		t.Fatal("the chart was not installed")
	}
	s.StartOperator(t, theInstallation.installation)
	s.isReachable(t)
	s.gateway = s.StartGateway(t, theInstallation.installation, theInstallation.ip)
	policy := gen.Policy(s.Name("policy"), gen.AnyDuration("168h"), gen.OfferingTransports(v1alpha1.TransportGateway),
		gen.Offering(v1alpha1.OfferedRole{Name: maintenance, Elevated: true, Approvals: new(int32(0))}))
	policy.ObjectMeta = metav1.ObjectMeta{Name: policy.Name}
	policy.Spec.RequirePublicKey = v1alpha1.PublicKeysNever
	if err := s.Admin.Create(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	s.policy = policy.Name
	return s
}

func (s *scene) install(t *testing.T) {
	t.Helper()
	ip, err := world.GatewayIP()
	if err != nil {
		t.Fatal(err)
	}
	theInstallation.ip = ip
	installation := s.InstallChart(t, world.GatewayValues(ip, map[string]any{
		"offeredRoles": []any{gen.Configuration, gen.Diagnostics, gen.Operate, gen.Content, maintenance},
		"gateway": map[string]any{
			"changes": map[string]any{"enabled": true, "mask": []any{"configmaps:data.password", "*:**.token"}},
			"audit":   map[string]any{"persistence": map[string]any{"enabled": true}},
		},
	}))
	s.offersMaintenance(t)
	theInstallation.installation = installation
}

// offersMaintenance makes the product's role, and adds to the ceiling what it allows.
func (s *scene) offersMaintenance(t *testing.T) {
	t.Helper()
	all := []string{"create", "update", "patch", "delete", "deletecollection", "get", "list", "watch"}
	role := gen.ClusterRole(maintenance,
		gen.Rule("", []string{"configmaps"}, all), gen.Rule("", []string{"secrets"}, []string{"get", "update", "patch", "delete"}), gen.Rule("apps", []string{"deployments"}, all),
		gen.Rule("apps", []string{"deployments/scale", "deployments/status"}, []string{"get", "update", "patch"}),
		gen.Rule("", []string{"pods/ephemeralcontainers"}, []string{"patch", "update"}),
		gen.Rule("", []string{"pods/exec"}, []string{"create", "get"}),
	)
	ceiling := gen.ClusterRole(maintenance + "-ceiling")
	ceiling.Labels = map[string]string{"supportaccess.dev/aggregate-to-gateway-ceiling": "true"}
	for _, rule := range role.Rules {
		through := rule.DeepCopy()
		for i, verb := range through.Verbs {
			through.Verbs[i] = "impersonate-on:user-info:" + verb
		}
		ceiling.Rules = append(ceiling.Rules, *through)
	}
	for _, object := range []client.Object{role, ceiling} {
		if err := s.Admin.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
}

// isReachable waits for the webhook's certificate.
func (s *scene) isReachable(t *testing.T) {
	t.Helper()
	world.Eventually(t, "the controller makes the webhook's certificate", func() error {
		secret := &corev1.Secret{}
		if err := s.Admin.Get(t.Context(), client.ObjectKey{Namespace: world.SystemNamespace, Name: webhook + "-tls"}, secret); err != nil {
			return err
		}
		if len(secret.Data[corev1.TLSCertKey]) == 0 {
			return errors.New("the Secret is empty")
		}
		return nil
	})
}

// engineer is somebody with a grant who comes through the gateway.
type engineer struct {
	grant   *v1alpha1.SupportAccessGrant
	address string
	http    *http.Client
}

// comes grants access to a namespace of its own, and has the engineer come in.
func (s *scene) comes(t *testing.T, name string) *engineer {
	t.Helper()
	namespace := s.LabelledNamespace(t, map[string]string{v1alpha1.LabelPolicy: s.policy})
	grant := gen.ToApply(name, namespace, gen.WithTransport(v1alpha1.TransportGateway), gen.WithDuration("1h"), gen.WithRoles(gen.Configuration, maintenance))
	world.Eventually(t, "the grant is made", func() error { return s.Admin.Create(t.Context(), grant) })
	secret := &corev1.Secret{}
	world.Eventually(t, "the grant is open", func() error {
		if err := s.Admin.Get(t.Context(), client.ObjectKeyFromObject(grant), grant); err != nil {
			return err
		}
		if !apimeta.IsStatusConditionTrue(grant.Status.Conditions, v1alpha1.ConditionActive) || len(grant.Status.Engineers) == 0 || grant.Status.Engineers[0].CredentialSecretRef == nil {
			return fmt.Errorf("its status is %+v", grant.Status)
		}
		ref := grant.Status.Engineers[0].CredentialSecretRef
		return s.Admin.Get(t.Context(), client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, secret)
	})
	config, err := clientcmd.RESTConfigFromKubeConfig(secret.Data[grant.Status.Engineers[0].CredentialSecretRef.Key])
	if err != nil {
		t.Fatal(err)
	}
	e := &engineer{grant: grant, address: config.Host}
	if e.http, err = rest.HTTPClientFor(config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.http.CloseIdleConnections)
	world.Eventually(t, "the gateway lets the engineer in", func() error {
		status, body, err := e.asks(t, http.MethodGet, "/api/v1/namespaces/"+namespace+"/configmaps", "", "")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%d: %s", status, body)
		}
		return err
	})
	return e
}

// asks has the engineer make a request.
func (e *engineer) asks(t *testing.T, method, target, kind, body string) (status int, answer []byte, err error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, e.address+target, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	response, err := e.http.Do(request)
	if err != nil {
		return 0, nil, err
	}
	answer, err = io.ReadAll(response.Body)
	return response.StatusCode, answer, errors.Join(err, response.Body.Close())
}

// entries reads the gateway's audit log from an entry's number on, and what engineers did.
func (s *scene) entries(t *testing.T, from int64) ([]audit.Entry, int64) {
	t.Helper()
	content, next, err := s.gateway.AuditLinesFrom(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	var entries []audit.Entry
	for line := range bytes.Lines(content) {
		entry := audit.Entry{}
		if err := json.Unmarshal(line, &entry); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		entries = append(entries, entry)
	}
	return entries, next
}
