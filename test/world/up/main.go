// Command up leaves a control plane running in .demo with the chart installed and the operator running, to play with.
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

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := up(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func up(ctx context.Context) error {
	root, err := controlplane.Root()
	if err != nil {
		return err
	}
	dir := filepath.Join(root, ".demo")
	running, err := controlplane.Running(dir)
	if err != nil {
		return err
	}
	if running {
		return fmt.Errorf("something runs in %s already: make down stops it", dir)
	}
	cp, err := controlplane.Start(ctx, controlplane.Options{
		Dir: dir, Kwok: true, Detach: true, LeaveJobs: []string{world.SystemNamespace}, Log: say,
	})
	if err != nil {
		return err
	}
	if err := install(ctx, cp); err != nil {
		// The context may have ended, and what was started has to.
		return errors.Join(err, controlplane.Down(context.WithoutCancel(ctx), dir, say))
	}
	say("Everything runs. make down stops it.")
	say("export KUBECONFIG=%s", kubeconfig(cp))
	say("%s get supportaccesspolicies", cp.Kubectl())
	return nil
}

func install(ctx context.Context, cp *controlplane.ControlPlane) error {
	if err := cp.WriteKubeconfig(kubeconfig(cp), cp.AdminConfig(), "default"); err != nil {
		return err
	}
	installation, err := world.Install(ctx, cp, cp.Dir(), nil)
	if err != nil {
		return err
	}
	operator, err := world.Run(ctx, cp, installation, world.OperatorOptions{Dir: filepath.Join(cp.Dir(), "pods"), Detach: true})
	if err != nil {
		return err
	}
	record := controlplane.ProcessRecord{Name: "support-access", PID: operator.PID(), Path: operator.Path()}
	if err := controlplane.RecordProcess(cp.Dir(), record); err != nil {
		return errors.Join(err, operator.Stop())
	}
	return operator.WaitReady(ctx)
}

func kubeconfig(cp *controlplane.ControlPlane) string { return filepath.Join(cp.Dir(), "admin.kubeconfig") }

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }
