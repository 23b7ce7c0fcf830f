package world

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"supportaccess.dev/operator/hack/controlplane"
	"supportaccess.dev/operator/hack/controlplane/gobuild"
	"supportaccess.dev/operator/hack/controlplane/helm"
	"supportaccess.dev/operator/hack/controlplane/kubelet"
)

const (
	// SystemNamespace is where the operator runs.
	SystemNamespace = "support-access-system"
	// CredentialsNamespace is where what engineers authenticate as lies.
	CredentialsNamespace = "support-access-credentials"
	// ControllerDeployment is the chart's Deployment of the controller.
	ControllerDeployment = "support-access"

	releaseName      = "support-access"
	buildTimeout     = 10 * time.Minute
	uninstallTimeout = 6 * time.Minute
)

// Installation is the chart, installed.
type Installation struct {
	// Manifest is what Helm rendered and applied.
	Manifest []byte

	release helm.Release
	helm    *helm.Helm
}

// Operator is one pod of the controller's Deployment.
type Operator struct {
	*kubelet.Pod
}

// operatorOnce is the operator that the tests of a package share.
type operatorOnce struct {
	once         sync.Once
	err          error
	installation *Installation
	operator     *Operator
}

// Values are what the chart needs to know of this control plane; the values given win over them.
func Values(cp *controlplane.ControlPlane, values map[string]any) map[string]any {
	base := map[string]any{
		"cluster": map[string]any{"server": cp.Server(), "caBundle": string(cp.CABundle())},
	}
	return merge(base, values)
}

// merge lays one tree of values over another.
func merge(base, over map[string]any) map[string]any {
	for key, value := range over {
		below, isTree := base[key].(map[string]any)
		above, isTreeToo := value.(map[string]any)
		if isTree && isTreeToo {
			value = merge(below, above)
		}
		base[key] = value
	}
	return base
}

// Release is the chart of this repository with the values that this control plane needs.
func Release(cp *controlplane.ControlPlane, values map[string]any) (helm.Release, error) {
	root, err := controlplane.Root()
	if err != nil {
		return helm.Release{}, err
	}
	return helm.Release{
		Name: releaseName, Namespace: SystemNamespace,
		Chart: filepath.Join(root, "charts", "support-access"), Values: Values(cp, values),
	}, nil
}

// Install installs the chart with Helm. Its files go to dir.
func Install(ctx context.Context, cp *controlplane.ControlPlane, dir string, values map[string]any) (*Installation, error) {
	release, err := Release(cp, values)
	if err != nil {
		return nil, err
	}
	kubeconfig := filepath.Join(dir, "helm.kubeconfig")
	if err := cp.WriteKubeconfig(kubeconfig, cp.AdminConfig(), ""); err != nil {
		return nil, err
	}
	h, err := helm.New(ctx, kubeconfig, dir, say)
	if err != nil {
		return nil, err
	}
	if err := h.Install(ctx, release); err != nil {
		return nil, err
	}
	manifest, err := h.Manifest(ctx, release)
	if err != nil {
		return nil, err
	}
	return &Installation{Manifest: manifest, release: release, helm: h}, nil
}

// Upgrade changes the installed chart's values, all of them.
func (i *Installation) Upgrade(ctx context.Context, cp *controlplane.ControlPlane, values map[string]any) error {
	i.release.Values = Values(cp, values)
	if err := i.helm.Upgrade(ctx, i.release); err != nil {
		return err
	}
	manifest, err := i.helm.Manifest(ctx, i.release)
	if err != nil {
		return err
	}
	i.Manifest = manifest
	return nil
}

// Uninstall removes the chart. Its hooks run: what their Jobs start is the operator's binary, under the ServiceAccount
// and with the args that the chart gives it.
func (i *Installation) Uninstall(ctx context.Context, cp *controlplane.ControlPlane, dir string, args ...string) error {
	binary, err := binaryOnce()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, uninstallTimeout)
	defer cancel()
	playing := make(chan error, 1)
	go func() {
		playing <- kubelet.PlayJobs(ctx, cp, i.release.Namespace, kubelet.Options{Binary: binary, Dir: dir})
	}()
	release := i.release
	release.Args = args
	err = i.helm.Uninstall(ctx, release)
	cancel()
	return errors.Join(err, <-playing)
}

// Binary builds the operator into bin and returns its path.
func Binary(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	root, err := controlplane.Root()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, "bin", "support-access")
	return path, gobuild.Program(ctx, ".", path, say)
}

// OperatorOptions say which pod of the operator to start.
type OperatorOptions struct {
	// Deployment is the controller's where empty.
	Deployment string
	// Dir gets the pod's files.
	Dir string
	// Env is added to the pod's environment.
	Env []string
	// Detach leaves the operator running when this process ends.
	Detach bool
	// IP is the pod's address. Empty means a free one.
	IP string
}

// Run starts one pod of the installed chart and does not wait for it.
func Run(ctx context.Context, cp *controlplane.ControlPlane, i *Installation, options OperatorOptions) (*Operator, error) {
	binary, err := binaryOnce()
	if err != nil {
		return nil, err
	}
	if options.Deployment == "" {
		options.Deployment = ControllerDeployment
	}
	pod, err := kubelet.Start(ctx, cp, kubelet.Options{
		Manifest:   i.Manifest,
		Deployment: types.NamespacedName{Namespace: i.release.Namespace, Name: options.Deployment},
		Binary:     binary,
		Dir:        options.Dir,
		Env:        options.Env,
		Detach:     options.Detach,
		IP:         options.IP,
	})
	if err != nil {
		return nil, err
	}
	return &Operator{Pod: pod}, nil
}

// binaryOnce builds the operator once for each process: a test must not meet two versions of it.
var binaryOnce = sync.OnceValues(func() (string, error) { return Binary(context.Background()) })

// InstallChart installs the chart with Helm. A cluster has room for one installation: a test that wants its own is in
// a package where no test calls Installed or Operator, or uninstalls it.
func (w *World) InstallChart(t testing.TB, values map[string]any) *Installation {
	t.Helper()
	installation, err := Install(t.Context(), w.ControlPlane, w.Dir, values)
	if err != nil {
		t.Fatalf("install the chart: %v", err)
	}
	return installation
}

// UninstallChart uninstalls the chart, hooks and all; the error is Helm's.
func (w *World) UninstallChart(t testing.TB, i *Installation, args ...string) error {
	t.Helper()
	return i.Uninstall(t.Context(), w.ControlPlane, filepath.Join(w.Dir, "jobs"), args...)
}

// StartOperator starts one more pod of the operator, waits until it is ready and stops it when the test ends.
func (w *World) StartOperator(t testing.TB, i *Installation) *Operator {
	t.Helper()
	operator := w.RunOperator(t, i)
	if err := operator.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	return operator
}

// RunOperator starts one more pod of the operator and stops it when the test ends. It may not be ready, or never be.
func (w *World) RunOperator(t testing.TB, i *Installation) *Operator {
	t.Helper()
	operator, err := Run(t.Context(), w.ControlPlane, i, OperatorOptions{Dir: filepath.Join(shared.dir, "pods")})
	if err != nil {
		t.Fatalf("start the operator: %v", err)
	}
	t.Cleanup(func() {
		if err := operator.Stop(); err != nil {
			t.Errorf("stop the operator: %v", err)
		}
		if t.Failed() {
			t.Logf("the operator's log ends with:\n%s", operator.Tail())
		}
	})
	return operator
}

// Operator returns the operator that the tests of a package share: the chart with its own values, one pod, ready.
func (w *World) Operator(t testing.TB) *Operator {
	t.Helper()
	_, operator := w.Installed(t)
	return operator
}

// Installed returns what the tests of a package share: the installed chart and its running operator.
func (w *World) Installed(t testing.TB) (*Installation, *Operator) {
	t.Helper()
	shared.operator.once.Do(func() { shared.operator.open(w.ControlPlane, shared.dir) })
	if shared.operator.err != nil {
		t.Fatalf("install the chart and start the operator: %v", shared.operator.err)
	}
	return shared.operator.installation, shared.operator.operator
}

func (o *operatorOnce) open(cp *controlplane.ControlPlane, dir string) {
	ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
	defer cancel()
	if o.installation, o.err = Install(ctx, cp, dir, nil); o.err != nil {
		return
	}
	o.operator, o.err = Run(ctx, cp, o.installation, OperatorOptions{Dir: filepath.Join(dir, "pods")})
	if o.err != nil {
		return
	}
	o.err = o.operator.WaitReady(ctx)
}

// close stops the shared operator; that it ended by itself before is a failure of its own.
func (o *operatorOnce) close() error {
	if o.operator == nil {
		return nil
	}
	if o.operator.Exited() && o.err == nil {
		return fmt.Errorf("the shared operator had ended with code %d:\n%s", o.operator.ExitCode(), o.operator.Tail())
	}
	return o.operator.Stop()
}
