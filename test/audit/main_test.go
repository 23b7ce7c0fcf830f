// Package audit looks at the gateway's audit log from outside, as admins and auditors do: the control plane is real, the
// chart is installed by Helm, controller and gateway run from their rendered Deployments, and the log is on a volume.
package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/hack/controlplane"
	"supportaccess.dev/operator/hack/controlplane/gobuild"
	"supportaccess.dev/operator/internal/audit/chain"
	"supportaccess.dev/operator/internal/audit/sqlite"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

func TestMain(m *testing.M) { world.MainWith(m, controlplane.Options{Kwok: true}) }

// buildTimeout bounds the building of the plugin, runTimeout one run of it.
const (
	buildTimeout = 10 * time.Minute
	runTimeout   = time.Minute
)

// theInstallation is the one installation of the package.
var theInstallation struct {
	once         sync.Once
	installation *world.Installation
	ip           string
}

// scene is the chart installed with a log on a volume, and the controller running.
type scene struct {
	*world.World
	installation *world.Installation
	gateway      *world.Operator
	policy       string
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
		theInstallation.installation = s.InstallChart(t, world.GatewayValues(ip, map[string]any{
			"offeredRoles": []any{gen.Configuration, gen.Diagnostics, gen.Operate, gen.Content},
			"gateway": map[string]any{"audit": map[string]any{
				"origin": "support.cluster.example/audit", "persistence": map[string]any{"enabled": true}, "api": map[string]any{"enabled": true},
			}},
		}))
	})
	if theInstallation.installation == nil {
		t.Fatal("the chart was not installed")
	}
	s.installation = theInstallation.installation
	s.StartOperator(t, s.installation)
	s.opens(t)
	content := v1alpha1.OfferedRole{Name: gen.Content, Elevated: true, Approvals: new(int32(0))}
	policy := gen.Policy(s.Name("policy"), gen.AnyDuration("168h"), gen.OfferingTransports(v1alpha1.TransportGateway), gen.Offering(content))
	policy.ObjectMeta = metav1.ObjectMeta{Name: policy.Name}
	policy.Spec.RequirePublicKey = v1alpha1.PublicKeysNever
	if err := s.Admin.Create(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	s.policy = policy.Name
	return s
}

// opens starts the gateway: always at one address, and with one log.
func (s *scene) opens(t *testing.T) {
	t.Helper()
	s.gateway = s.StartGateway(t, s.installation, theInstallation.ip)
}

// stops stops the gateway.
func (s *scene) stops(t *testing.T) {
	t.Helper()
	if err := s.gateway.Stop(); err != nil {
		t.Fatal(err)
	}
}

// engineer is somebody with a grant who comes through the gateway.
type engineer struct {
	grant   *v1alpha1.SupportAccessGrant
	address string
	http    *http.Client
	config  *rest.Config
}

// comes grants access to a namespace of its own, and has the engineer come in.
func (s *scene) comes(t *testing.T, name string, mods ...func(*v1alpha1.SupportAccessGrant)) *engineer {
	t.Helper()
	namespace := s.LabelledNamespace(t, map[string]string{v1alpha1.LabelPolicy: s.policy})
	mods = append([]func(*v1alpha1.SupportAccessGrant){gen.WithTransport(v1alpha1.TransportGateway), gen.WithDuration("1h")}, mods...)
	grant := gen.ToApply(name, namespace, mods...)
	world.Eventually(t, "the grant is made", func() error { return s.Admin.Create(t.Context(), grant) })
	secret := &corev1.Secret{}
	world.Eventually(t, "the grant is open", func() error {
		if err := s.Admin.Get(t.Context(), client.ObjectKeyFromObject(grant), grant); err != nil {
			return err
		}
		if !apimeta.IsStatusConditionTrue(grant.Status.Conditions, v1alpha1.ConditionActive) || grant.Status.Engineers[0].CredentialSecretRef == nil {
			return fmt.Errorf("its status is %+v", grant.Status)
		}
		ref := grant.Status.Engineers[0].CredentialSecretRef
		return s.Admin.Get(t.Context(), client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, secret)
	})
	config, err := clientcmd.RESTConfigFromKubeConfig(secret.Data[grant.Status.Engineers[0].CredentialSecretRef.Key])
	if err != nil {
		t.Fatal(err)
	}
	e := &engineer{grant: grant, address: config.Host, config: config}
	if e.http, err = rest.HTTPClientFor(config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.http.CloseIdleConnections)
	world.Eventually(t, "the gateway lets the engineer in", func() error { return e.reads(t, "configmaps") })
	return e
}

// reads has an engineer list a resource in the grant's namespace.
func (e *engineer) reads(t *testing.T, resource string) error {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, e.address+"/api/v1/namespaces/"+e.grant.Namespace+"/"+resource, nil)
	if err != nil {
		return err
	}
	response, err := e.http.Do(request)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%d: %s", response.StatusCode, body)
	}
	return nil
}

// size is how many entries the log has.
func (s *scene) size(t *testing.T) int64 {
	t.Helper()
	store, err := sqlite.OpenReader(t.Context(), s.gateway.AuditLog())
	if err != nil {
		t.Fatal(err)
	}
	standing, err := store.Load(t.Context())
	if err := errors.Join(err, store.Close()); err != nil {
		t.Fatal(err)
	}
	return standing.Size
}

// kept is what the controller keeps of the one log that there is.
func (s *scene) kept(t *testing.T) (*chain.Kept, error) {
	t.Helper()
	config := &corev1.ConfigMap{}
	if err := s.Admin.Get(t.Context(), client.ObjectKey{Namespace: world.SystemNamespace, Name: "support-access-checkpoint"}, config); err != nil {
		return nil, err
	}
	witness, err := chain.ReadWitness(config.Data)
	if err != nil {
		t.Fatal(err)
	}
	if len(witness.Logs()) != 1 {
		t.Fatalf("%d logs are kept", len(witness.Logs()))
	}
	return witness.Logs()[0], nil
}

// isKept waits until the controller keeps the log as it is.
func (s *scene) isKept(t *testing.T) {
	t.Helper()
	world.Eventually(t, "the newest checkpoint is kept", func() error {
		kept, err := s.kept(t)
		if err != nil {
			return err
		}
		if size := s.size(t); kept.Size() != size {
			return fmt.Errorf("the log has %d entries, %d are known of it", size, kept.Size())
		}
		return nil
	})
}

// isTold waits until there is a Warning event of that reason that says something.
func (s *scene) isTold(t *testing.T, reason, says string) {
	t.Helper()
	world.Eventually(t, "people are told "+says, func() error {
		list := &eventsv1.EventList{}
		if err := s.Admin.List(t.Context(), list, client.InNamespace(world.SystemNamespace)); err != nil {
			return err
		}
		var told []string
		for i := range list.Items {
			e := &list.Items[i]
			if e.Type == corev1.EventTypeWarning && e.Reason == reason && strings.Contains(e.Note, says) {
				return nil
			}
			told = append(told, e.Reason+": "+e.Note)
		}
		return fmt.Errorf("they are told %q", told)
	})
}

// plugins builds the plugin.
var plugins = sync.OnceValues(func() (string, error) {
	root, err := controlplane.Root()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
	defer cancel()
	path := filepath.Join(root, "bin", "kubectl-support_access")
	return path, gobuild.Program(ctx, "./cmd/kubectl-support_access", path, func(string, ...any) {})
})

// result is what one run of the plugin came to.
type result struct {
	out, err string
	code     int
}

// has fails the test unless the run ended with this code and said each of these.
func (r result) has(t *testing.T, code int, says ...string) {
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

// runs has somebody run the plugin.
func (s *scene) runs(t *testing.T, who *rest.Config, args ...string) result {
	t.Helper()
	plugin, err := plugins()
	if err != nil {
		t.Fatalf("build the plugin: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), runTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, plugin, args...)
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.Dir, "KUBECONFIG=" + s.Kubeconfig(t, who, "")}
	var out, diagnostics bytes.Buffer
	command.Stdout, command.Stderr = &out, &diagnostics
	exit := (*exec.ExitError)(nil)
	if err := command.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%q: %v", args, err)
	}
	return result{out: out.String(), err: diagnostics.String(), code: command.ProcessState.ExitCode()}
}
