// Package helm runs the pinned Helm, which it builds where it is missing. It knows no chart.
package helm

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"supportaccess.dev/operator/hack/controlplane/gobuild"
)

// timeout bounds every run of Helm.
const timeout = 5 * time.Minute

// Helm is the program, with the cluster it works on and a folder of its own.
type Helm struct {
	path, kubeconfig, dir string
}

// Release names a chart with its values, under a name in a namespace.
type Release struct {
	Name      string
	Namespace string
	// Chart is the chart's folder.
	Chart string
	// Values are laid over the chart's own.
	Values map[string]any
	// Args are flags for Helm besides those that follow from the above.
	Args []string
}

// Build returns the path of the pinned Helm, compiling it into bin where it is missing.
func Build(ctx context.Context, log gobuild.Logf) (string, error) {
	root, err := gobuild.Root()
	if err != nil {
		return "", err
	}
	tool := gobuild.Tool{
		Package: "helm.sh/helm/v4/cmd/helm", Module: "helm.sh/helm/v4",
		Dir: "hack/tools/helm", Output: filepath.Join(root, "bin", "helm"),
	}
	return tool.Output, tool.Build(ctx, log)
}

// New returns Helm for the cluster of a kubeconfig; what Helm itself keeps goes into dir.
func New(ctx context.Context, kubeconfig, dir string, log gobuild.Logf) (*Helm, error) {
	path, err := Build(ctx, log)
	if err != nil {
		return nil, err
	}
	return &Helm{path: path, kubeconfig: kubeconfig, dir: dir}, nil
}

// Template renders a release without a cluster.
func (h *Helm) Template(ctx context.Context, release Release) ([]byte, error) {
	return h.withValues(ctx, release, "template", release.Name, release.Chart)
}

// Install installs a release and makes its namespace where there is none.
func (h *Helm) Install(ctx context.Context, release Release) error {
	_, err := h.withValues(ctx, release, "install", release.Name, release.Chart, "--create-namespace")
	return err
}

// Upgrade brings an installed release to the chart and the values given.
func (h *Helm) Upgrade(ctx context.Context, release Release) error {
	_, err := h.withValues(ctx, release, "upgrade", release.Name, release.Chart)
	return err
}

// Uninstall removes a release, with its hooks.
func (h *Helm) Uninstall(ctx context.Context, release Release) error {
	_, err := h.Run(ctx, append([]string{"uninstall", release.Name, "--namespace", release.Namespace}, release.Args...)...)
	return err
}

// Manifest is what was rendered when the release was installed, hooks left out.
func (h *Helm) Manifest(ctx context.Context, release Release) ([]byte, error) {
	return h.Run(ctx, "get", "manifest", release.Name, "--namespace", release.Namespace)
}

// withValues runs a command that takes a release's values, from standard input: JSON is YAML.
func (h *Helm) withValues(ctx context.Context, release Release, args ...string) ([]byte, error) {
	values, err := json.Marshal(release.Values)
	if err != nil {
		return nil, fmt.Errorf("encode the values of release %s: %w", release.Name, err)
	}
	args = append(args, "--namespace", release.Namespace, "--values", "-")
	return h.run(ctx, values, append(args, release.Args...))
}

// Run runs Helm with these arguments and returns what it prints.
func (h *Helm) Run(ctx context.Context, args ...string) ([]byte, error) {
	return h.run(ctx, nil, args)
}

func (h *Helm) run(ctx context.Context, stdin []byte, args []string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.path, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + h.dir, "KUBECONFIG=" + h.kubeconfig}
	cmd.Stdin = bytes.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("helm %s: %w: %s", args[0], err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}
