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

	"github.com/go-logr/logr"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"supportaccess.dev/operator/hack/controlplane"
	"supportaccess.dev/operator/test/world"
)

const usage = `usage: go run ./hack/demo show|up|down
  show  do the main job on a control plane of its own, show it, and end
  up    leave a cluster running in .demo: chart installed, operator running, default policy
  down  stop what runs in .demo`

func main() {
	// What a client logs is not part of the show.
	ctrllog.SetLogger(logr.Discard())
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
	if _, err := startPods(ctx, cp, dir, true); err != nil {
		return errors.Join(err, controlplane.Down(ctx, dir, say))
	}
	say("\nThe cluster runs until make down. To reach it as its admin:")
	say("  export KUBECONFIG=%s", kubeconfig)
	say("  %s get supportaccesspolicies", cp.Kubectl())
	return nil
}

// pods are what runs of the operator.
type pods struct {
	controller, gateway *world.Operator
	// address is the gateway's.
	address string
}

// stop ends them.
func (p pods) stop() error {
	var errs []error
	for _, pod := range []*world.Operator{p.gateway, p.controller} {
		if pod != nil {
			errs = append(errs, pod.Stop())
		}
	}
	return errors.Join(errs...)
}

// startPods installs the chart, with the gateway at an address of this machine, and plays the kubelet for its Deployments.
func startPods(ctx context.Context, cp *controlplane.ControlPlane, dir string, detach bool) (p pods, err error) {
	ip, err := world.GatewayIP()
	if err != nil {
		return p, err
	}
	installation, err := world.Install(ctx, cp, dir, values(ip))
	if err != nil {
		return p, fmt.Errorf("install the chart: %w", err)
	}
	options := world.OperatorOptions{Dir: filepath.Join(dir, "pods"), Detach: detach}
	if p.controller, err = world.Run(ctx, cp, installation, options); err != nil {
		return p, fmt.Errorf("start the controller: %w", err)
	}
	if err := p.controller.WaitReady(ctx); err != nil {
		return p, errors.Join(err, p.stop())
	}
	options.IP, p.address = ip, ip
	if p.gateway, err = world.OpenGateway(ctx, cp, installation, options); err != nil {
		return p, errors.Join(err, p.stop())
	}
	return p, nil
}

// values are the chart's own but for where the gateway is, and that what is elevated is handed over in a Secret, too.
func values(ip string) map[string]any {
	return world.GatewayValues(ip, map[string]any{
		"gateway": map[string]any{"changes": map[string]any{"enabled": true}, "audit": map[string]any{"origin": "demo.example/audit", "api": map[string]any{"enabled": true}}},
		"defaultPolicy": map[string]any{"spec": map[string]any{
			"transports": []any{"Gateway"}, "requirePublicKey": "Never",
		}},
	})
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }
