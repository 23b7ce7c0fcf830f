package controlplane

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// buildTimeout bounds a build from an empty cache, which takes about ten minutes on two cores.
const buildTimeout = 40 * time.Minute

// modulePath is this repository's module; its go.mod marks the root.
const modulePath = "supportaccess.dev/operator"

// Logf takes a line for people to read; testing.T's Logf is one.
type Logf func(format string, args ...any)

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

// program is one thing to build: a package, the module that it is built in, and the module that it belongs to.
type program struct {
	name, pkg, in, of string
}

func programs() []program {
	return []program{
		{"etcd", "go.etcd.io/etcd/server/v3", "etcd", "go.etcd.io/etcd/server/v3"},
		{"kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", "kubernetes", "k8s.io/kubernetes"},
		{"kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", "kubernetes", "k8s.io/kubernetes"},
		{"kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", "kubernetes", "k8s.io/kubernetes"},
		{"kubectl", "k8s.io/kubernetes/cmd/kubectl", "kubernetes", "k8s.io/kubernetes"},
		{"kwok", "sigs.k8s.io/kwok/cmd/kwok", "kwok", "sigs.k8s.io/kwok"},
	}
}

// Build returns the control plane's programs. Those in KUBEBUILDER_ASSETS are used as they are; what is missing
// is compiled from the modules beside this package into bin/controlplane/<version>, once for all who ask at the same time.
func Build(ctx context.Context, log Logf) (Binaries, error) {
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	root, err := Root()
	if err != nil {
		return Binaries{}, err
	}
	b := &builder{modules: filepath.Join(root, "hack", "controlplane"), log: log}
	if b.version, err = b.moduleVersion("kubernetes", "k8s.io/kubernetes"); err != nil {
		return Binaries{}, err
	}
	b.dir = filepath.Join(root, "bin", "controlplane", b.version)
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return Binaries{}, fmt.Errorf("create the folder of binaries: %w", err)
	}
	paths := map[string]string{}
	for _, p := range programs() {
		if paths[p.name], err = b.provide(ctx, p); err != nil {
			return Binaries{}, err
		}
	}
	return Binaries{
		Version:           b.version,
		Dir:               b.dir,
		Etcd:              paths["etcd"],
		APIServer:         paths["kube-apiserver"],
		ControllerManager: paths["kube-controller-manager"],
		Scheduler:         paths["kube-scheduler"],
		Kubectl:           paths["kubectl"],
		Kwok:              paths["kwok"],
	}, nil
}

// Root returns the repository's root: the nearest parent of the working directory with this module's go.mod.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the working directory: %w", err)
	}
	for {
		content, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(content), "module "+modulePath+"\n") {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("find the root of module %s: no parent of the working directory is", modulePath)
		}
		dir = parent
	}
}

type builder struct {
	modules, version, dir string
	log                   Logf
}

// provide returns the path of a program that is of the wanted version, building it where there is none.
func (b *builder) provide(ctx context.Context, p program) (string, error) {
	if assets := os.Getenv("KUBEBUILDER_ASSETS"); assets != "" {
		path := filepath.Join(assets, p.name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	want, err := b.moduleVersion(p.in, p.of)
	if err != nil {
		return "", err
	}
	path := filepath.Join(b.dir, p.name)
	if builtFrom(path) == want {
		return path, nil
	}
	unlock, err := lock(ctx, filepath.Join(b.dir, ".lock"), b.log)
	if err != nil {
		return "", err
	}
	defer unlock()
	if builtFrom(path) == want {
		return path, nil
	}
	return path, b.compile(ctx, p, path, want)
}

func (b *builder) compile(ctx context.Context, p program, path, version string) error {
	b.log("building %s %s", p.name, version)
	started := time.Now()
	partial := path + ".partial"
	cmd := exec.CommandContext(ctx, "go", "build", "-C", filepath.Join(b.modules, p.in),
		"-trimpath", "-ldflags", b.linkerFlags(), "-o", partial, p.pkg)
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-buildvcs=false")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s %s: %w\n%s", p.name, version, err, output)
	}
	if err := os.Rename(partial, path); err != nil {
		return fmt.Errorf("put %s in place: %w", p.name, err)
	}
	b.log("built %s %s in %s", p.name, version, time.Since(started).Round(time.Second))
	return nil
}

// linkerFlags set the version that Kubernetes reports: without it kubectl cannot parse it.
func (b *builder) linkerFlags() string {
	major, minor, _ := strings.Cut(strings.TrimPrefix(b.version, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	const variable = "-X k8s.io/component-base/version."
	return variable + "gitVersion=" + b.version + " " + variable + "gitMajor=" + major + " " + variable + "gitMinor=" + minor
}

// moduleVersion reads from the go.mod of a nested module which version of another it requires.
func (b *builder) moduleVersion(in, of string) (string, error) {
	path := filepath.Join(b.modules, in, "go.mod")
	content, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the version of %s: %w", of, err)
	}
	requirement := regexp.MustCompile(`(?m)^\s*(?:require\s+)?` + regexp.QuoteMeta(of) + `\s+(v\S+)`)
	match := requirement.FindSubmatch(content)
	if match == nil {
		return "", fmt.Errorf("read the version of %s: %s does not require it", of, path)
	}
	return string(match[1]), nil
}

// builtFrom returns the version of the module that the program at path was built from; empty where there is none.
func builtFrom(path string) string {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return ""
	}
	return info.Main.Version
}

// lock takes the lock file at path, which test packages that run side by side share, and returns what gives it back.
func lock(ctx context.Context, path string, log Logf) (func(), error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	for waiting := false; ; waiting = true {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			_ = file.Close()
			return nil, fmt.Errorf("take the lock %s: %w", path, err)
		}
		if !waiting {
			log("waiting for another process that builds the control plane")
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			_ = file.Close()
			return nil, fmt.Errorf("wait for the lock %s: %w", path, err)
		}
	}
}

// pause waits for a while, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
