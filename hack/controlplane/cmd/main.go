// Command cmd builds the local control plane, leaves one running, and stops it again.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"supportaccess.dev/operator/hack/controlplane"
)

const usage = `usage: go run ./hack/controlplane/cmd build|up|down
  build  compile etcd, the Kubernetes control plane, kubectl and kwok
  up     start a control plane and leave it running in .demo, with .demo/admin.kubeconfig
  down   stop what runs in .demo`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New(usage)
	}
	root, err := controlplane.Root()
	if err != nil {
		return err
	}
	dir := filepath.Join(root, ".demo")
	switch args[0] {
	case "build":
		return build(ctx)
	case "up":
		return up(ctx, dir)
	case "down":
		return controlplane.Down(ctx, dir, say)
	default:
		return errors.New(usage)
	}
}

func build(ctx context.Context) error {
	started := time.Now()
	binaries, err := controlplane.Build(ctx, say)
	if err != nil {
		return err
	}
	say("control plane %s is in %s (%s)", binaries.Version, binaries.Dir, time.Since(started).Round(time.Second))
	return nil
}

func up(ctx context.Context, dir string) error {
	running, err := controlplane.Running(dir)
	if err != nil {
		return err
	}
	if running {
		return fmt.Errorf("something runs in %s already: stop it with down", dir)
	}
	cp, err := controlplane.Start(ctx, controlplane.Options{Dir: dir, Kwok: true, Detach: true, Log: say})
	if err != nil {
		return err
	}
	kubeconfig := filepath.Join(dir, "admin.kubeconfig")
	if err := cp.WriteKubeconfig(kubeconfig, cp.AdminConfig(), "default"); err != nil {
		return errors.Join(err, cp.Stop())
	}
	say("%s --kubeconfig %s get nodes", cp.Kubectl(), kubeconfig)
	return nil
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }
