// Package world is the harness of the end-to-end tests: a real control plane for each test package, real users,
// the chart installed by Helm, and the operator run as its rendered Deployment says. It knows how to act and to
// look, and not what is right.
package world

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
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	supportaccessv1alpha1 "supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/hack/controlplane"
)

const (
	// commandTimeout bounds one run of kubectl.
	commandTimeout = 2 * time.Minute
	// eventuallyTimeout bounds the wait for a condition, on a busy machine too.
	eventuallyTimeout = 60 * time.Second
	eventuallyEvery   = 20 * time.Millisecond
)

// stage is what the tests of one package share. It is made when the first of them asks.
type stage struct {
	options      controlplane.Options
	once         sync.Once
	err          error
	dir          string
	controlPlane *controlplane.ControlPlane
	names        atomic.Int64
	operator     operatorOnce
	ends         []func() error
}

// shared belongs to the test binary, which runs the tests of one package.
var shared = &stage{}

// World is one test's view of the control plane that its package shares.
type World struct {
	// ControlPlane is the package's own.
	ControlPlane *controlplane.ControlPlane
	// Admin is a client for somebody who may do everything.
	Admin client.Client
	// Dir is a folder of this test.
	Dir string
}

// Main runs a package's tests and ends what they shared. The control plane has nodes whose pods run.
func Main(m *testing.M) {
	MainWith(m, controlplane.Options{Kwok: true})
}

// MainWith is Main with a control plane of other options.
func MainWith(m *testing.M, options controlplane.Options) {
	shared.options = options
	code := m.Run()
	if err := shared.close(); err != nil {
		say("end the world: %v", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// AtEnd has something done when the package's tests are over, before the control plane ends.
func AtEnd(end func() error) { shared.ends = append(shared.ends, end) }

// New returns a test's world; the first of a package starts the control plane.
func New(t testing.TB) *World {
	t.Helper()
	shared.once.Do(shared.open)
	if shared.err != nil {
		t.Fatalf("start the world: %v", shared.err)
	}
	w := &World{ControlPlane: shared.controlPlane, Dir: t.TempDir()}
	w.Admin = w.ClientFor(t, w.ControlPlane.AdminConfig())
	return w
}

func (s *stage) open() {
	if s.dir, s.err = os.MkdirTemp("", "world-"); s.err != nil {
		return
	}
	options := s.options
	if options.Dir == "" {
		options.Dir = filepath.Join(s.dir, "controlplane")
	}
	// kwok would only say that the chart's hooks succeed; the harness runs them.
	options.LeaveJobs = append(options.LeaveJobs, SystemNamespace)
	options.Log = say
	// What clients have to say they return; without a logger they complain that there is none.
	ctrllog.SetLogger(logr.Discard())
	s.controlPlane, s.err = controlplane.Start(context.Background(), options)
}

func (s *stage) close() error {
	errs := []error{s.operator.close()}
	for _, end := range s.ends {
		errs = append(errs, end())
	}
	if s.controlPlane != nil {
		errs = append(errs, s.controlPlane.Stop())
	}
	// The logs of what failed are worth more than a tidy folder.
	if os.Getenv("KEEP_WORLD") != "" {
		say("kept %s", s.dir)
		return errors.Join(errs...)
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// Scheme knows the kinds of Kubernetes, of CRDs and ours.
func Scheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme, supportaccessv1alpha1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			panic(fmt.Sprintf("register known kinds: %v", err))
		}
	}
	return scheme
}

// Config is for a person of that name and those groups.
func (w *World) Config(name string, groups ...string) *rest.Config {
	return w.ControlPlane.UserConfig(name, groups...)
}

// Client is a client for a person of that name and those groups.
func (w *World) Client(t testing.TB, name string, groups ...string) client.WithWatch {
	t.Helper()
	return w.ClientFor(t, w.Config(name, groups...))
}

// ClientFor is a client, without a cache, for whoever the config is for. It refuses no field that it does not know.
func (w *World) ClientFor(t testing.TB, config *rest.Config) client.WithWatch {
	t.Helper()
	c, err := client.NewWithWatch(config, client.Options{Scheme: Scheme()})
	if err != nil {
		t.Fatalf("make a client: %v", err)
	}
	return c
}

// ServiceAccount is for a ServiceAccount that exists.
func (w *World) ServiceAccount(t testing.TB, namespace, name string) *rest.Config {
	t.Helper()
	config, err := w.ControlPlane.ServiceAccountConfig(t.Context(), namespace, name)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// Name returns a name that no other test of the package has.
func (w *World) Name(prefix string) string {
	return fmt.Sprintf("%s-%d", prefix, shared.names.Add(1))
}

// Namespace makes a tenant's namespace under a name of its own.
func (w *World) Namespace(t testing.TB) string {
	t.Helper()
	return w.LabelledNamespace(t, nil)
}

// LabelledNamespace is Namespace with labels.
func (w *World) LabelledNamespace(t testing.TB, labels map[string]string) string {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.Name("tenant"), Labels: labels}}
	if err := w.Admin.Create(t.Context(), namespace); err != nil {
		t.Fatalf("create a namespace: %v", err)
	}
	return namespace.Name
}

// Kubeconfig writes a kubeconfig for config into the test's folder and returns its path.
func (w *World) Kubeconfig(t testing.TB, config *rest.Config, namespace string) string {
	t.Helper()
	path := filepath.Join(w.Dir, w.Name("kubeconfig"))
	if err := w.ControlPlane.WriteKubeconfig(path, config, namespace); err != nil {
		t.Fatal(err)
	}
	return path
}

// Kubectl runs kubectl with a kubeconfig and returns what it prints.
func (w *World) Kubectl(t testing.TB, kubeconfig string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	return w.KubectlWith(t, kubeconfig, "", args...)
}

// KubectlWith is Kubectl with standard input: a manifest for "apply -f -".
func (w *World) KubectlWith(t testing.TB, kubeconfig, stdin string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.ControlPlane.Kubectl(), args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.Dir, "KUBECONFIG=" + kubeconfig}
	cmd.Stdin = strings.NewReader(stdin)
	var out, diagnostics bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diagnostics
	err = cmd.Run()
	return out.String(), diagnostics.String(), err
}

// MustKubectl is Kubectl where a failure ends the test.
func (w *World) MustKubectl(t testing.TB, kubeconfig string, args ...string) string {
	t.Helper()
	stdout, stderr, err := w.Kubectl(t, kubeconfig, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, stderr)
	}
	return stdout
}

// Apply applies a manifest as whoever the kubeconfig is for; a refusal is the error, in the API server's words.
func (w *World) Apply(t testing.TB, kubeconfig, manifest string) error {
	t.Helper()
	_, stderr, err := w.KubectlWith(t, kubeconfig, manifest, "apply", "-f", "-")
	if err != nil {
		return fmt.Errorf("kubectl apply: %w: %s", err, strings.TrimSpace(stderr))
	}
	return nil
}

// Eventually waits until a condition holds: until it returns no error. What it returned last explains a failure.
func Eventually(t testing.TB, what string, condition func() error) {
	t.Helper()
	EventuallyWithin(t, eventuallyTimeout, what, condition)
}

// EventuallyWithin waits for longer, or less long, than Eventually.
func EventuallyWithin(t testing.TB, limit time.Duration, what string, condition func() error) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	ticker := time.NewTicker(eventuallyEvery)
	defer ticker.Stop()
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("not within %s: %s: %v", limit, what, err)
		case <-t.Context().Done():
			t.Fatalf("the test ended before: %s: %v", what, err)
		case <-ticker.C:
		}
	}
}

// Consistently watches for a while that a condition goes on to hold.
func Consistently(t testing.TB, what string, during time.Duration, condition func() error) {
	t.Helper()
	deadline := time.NewTimer(during)
	defer deadline.Stop()
	ticker := time.NewTicker(eventuallyEvery)
	defer ticker.Stop()
	for {
		if err := condition(); err != nil {
			t.Fatalf("no more: %s: %v", what, err)
		}
		select {
		case <-deadline.C:
			return
		case <-ticker.C:
		}
	}
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
