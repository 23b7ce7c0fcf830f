package controlplane

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"supportaccess.dev/operator/hack/controlplane/gobuild"
)

// buildTimeout bounds a build from an empty cache, which takes about ten minutes on two cores.
const buildTimeout = 40 * time.Minute

// Logf takes a line for people to read; testing.T's Logf is one.
type Logf = gobuild.Logf

// Binaries are the paths of the programs a control plane consists of.
type Binaries struct {
	Version           string
	Dir               string
	Etcd              string
	APIServer         string
	ControllerManager string
	Scheduler         string
	Kubectl           string
	Kwok              string
}

// kubernetesModule pins the version that all binaries are kept under.
var kubernetesModule = gobuild.Tool{Module: "k8s.io/kubernetes", Dir: "hack/controlplane/kubernetes"}

// Root returns the root of the repository that the working directory is in.
func Root() (string, error) { return gobuild.Root() }

// Build returns the control plane's programs. Those in KUBEBUILDER_ASSETS are used as they are; what is missing
// is compiled from the modules beside this package into bin/controlplane/<version>, once for all who ask at the same time.
func Build(ctx context.Context, log Logf) (Binaries, error) {
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	root, err := Root()
	if err != nil {
		return Binaries{}, err
	}
	version, err := kubernetesModule.Version()
	if err != nil {
		return Binaries{}, err
	}
	b := Binaries{Version: version, Dir: filepath.Join(root, "bin", "controlplane", version)}
	for _, wanted := range b.wanted() {
		if *wanted.path, err = provide(ctx, wanted.tool, log); err != nil {
			return Binaries{}, err
		}
	}
	return b, nil
}

// wanted pairs a path to fill in with what is built there.
type wanted struct {
	path *string
	tool gobuild.Tool
}

func (b *Binaries) wanted() []wanted {
	ofKubernetes := func(name string) gobuild.Tool {
		tool := kubernetesModule
		tool.Package = "k8s.io/kubernetes/cmd/" + name
		tool.Output = filepath.Join(b.Dir, name)
		tool.LinkerFlags = versionFlags(b.Version)
		return tool
	}
	return []wanted{
		{&b.Etcd, gobuild.Tool{
			Package: "go.etcd.io/etcd/server/v3", Module: "go.etcd.io/etcd/server/v3",
			Dir: "hack/controlplane/etcd", Output: filepath.Join(b.Dir, "etcd"),
		}},
		{&b.APIServer, ofKubernetes("kube-apiserver")},
		{&b.ControllerManager, ofKubernetes("kube-controller-manager")},
		{&b.Scheduler, ofKubernetes("kube-scheduler")},
		{&b.Kubectl, ofKubernetes("kubectl")},
		{&b.Kwok, gobuild.Tool{
			Package: "sigs.k8s.io/kwok/cmd/kwok", Module: "sigs.k8s.io/kwok",
			Dir: "hack/controlplane/kwok", Output: filepath.Join(b.Dir, "kwok"),
		}},
	}
}

// provide returns the path of a tool, building it where nobody else has.
func provide(ctx context.Context, tool gobuild.Tool, log Logf) (string, error) {
	if assets := os.Getenv("KUBEBUILDER_ASSETS"); assets != "" {
		path := filepath.Join(assets, filepath.Base(tool.Output))
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return tool.Output, tool.Build(ctx, log)
}

// versionFlags set the version that Kubernetes reports: without it kubectl cannot parse it.
func versionFlags(version string) string {
	major, minor, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	const variable = "-X k8s.io/component-base/version."
	return variable + "gitVersion=" + version + " " + variable + "gitMajor=" + major + " " + variable + "gitMinor=" + minor
}
