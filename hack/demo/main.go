// Command demo shows the main job on a local control plane, and leaves such a cluster running for play.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"supportaccess.dev/operator/hack/controlplane"
	"supportaccess.dev/operator/test/world"
)

const usage = `usage: go run ./hack/demo show|up|down
  show  do the main job on a control plane of its own, show it, and end
  up    leave a cluster running in .demo: chart installed, operator running, default policy
  down  stop what runs in .demo`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo: "+err.Error())
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
	case "show":
		return show(ctx, root)
	case "up":
		return up(ctx, dir)
	case "down":
		return controlplane.Down(ctx, dir, say)
	default:
		return errors.New(usage)
	}
}

// up leaves a cluster running.
func up(ctx context.Context, dir string) error {
	if running, err := controlplane.Running(dir); err != nil || running {
		return errors.Join(err, fmt.Errorf("something runs in %s already: make down stops it", dir))
	}
	cp, err := controlplane.Start(ctx, controlplane.Options{Dir: dir, Kwok: true, Detach: true, LeaveJobs: []string{world.SystemNamespace}, Log: say})
	if err != nil {
		return err
	}
	kubeconfig := filepath.Join(dir, "admin.kubeconfig")
	if err := cp.WriteKubeconfig(kubeconfig, cp.AdminConfig(), "default"); err != nil {
		return errors.Join(err, controlplane.Down(ctx, dir, say))
	}
	if _, err := startOperator(ctx, cp, dir, true); err != nil {
		return errors.Join(err, controlplane.Down(ctx, dir, say))
	}
	say("\nThe cluster runs until make down. To reach it as its admin:")
	say("  export KUBECONFIG=%s", kubeconfig)
	say("  %s get supportaccesspolicies", cp.Kubectl())
	return nil
}

// startOperator installs the chart and plays the kubelet for its Deployment.
func startOperator(ctx context.Context, cp *controlplane.ControlPlane, dir string, detach bool) (*world.Operator, error) {
	installation, err := world.Install(ctx, cp, dir, nil)
	if err != nil {
		return nil, fmt.Errorf("install the chart: %w", err)
	}
	operator, err := world.Run(ctx, cp, installation, world.OperatorOptions{Dir: filepath.Join(dir, "pods"), Detach: detach})
	if err != nil {
		return nil, fmt.Errorf("start the operator: %w", err)
	}
	if err := operator.WaitReady(ctx); err != nil {
		return nil, errors.Join(err, operator.Stop())
	}
	return operator, nil
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }
