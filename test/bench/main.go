// Command bench measures how long the operator takes, beside a bare client that does the least that would do, in the
// same run and in turn. It prints ratios, since machines differ, and asserts nothing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"supportaccess.dev/operator/hack/controlplane"
	"supportaccess.dev/operator/test/world"
)

// options are what a run can be told.
type options struct {
	rounds, storm, storms, grants, streams int
	only                                   string
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 20, "how often opening and revoking are measured")
	flag.IntVar(&o.storm, "storm", 1000, "how many grants expire, or open, or settings are switched off, at once")
	flag.IntVar(&o.storms, "storms", 5, "how often grants expire at once")
	flag.IntVar(&o.grants, "grants", 10000, "how many active grants the operator holds when its memory is measured")
	flag.IntVar(&o.streams, "streams", 1000, "how many watches one grant has when the gateway cuts them")
	flag.StringVar(&o.only, "only", "", "one of open, approve, expire, storm, settings, conditions, scale, gateway; empty for all")
	flag.Parse()
	log.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: "+err.Error())
		os.Exit(1)
	}
}

// part is one thing to measure.
type part struct {
	name string
	run  func(*bench, context.Context, options) error
}

// cluster is one control plane on which parts run one after the other.
type cluster struct {
	// gateway says that there is one, and a node whose pods run.
	gateway bool
	parts   []part
}

func run(ctx context.Context, o options) error {
	known := false
	for _, c := range []cluster{
		{parts: []part{{"open", (*bench).openAndRevoke}, {"approve", (*bench).approveAndOpen}, {"expire", (*bench).expireAtOnce}, {"storm", (*bench).revokeInStorm}, {"settings", (*bench).switchOffAtOnce}, {"conditions", (*bench).everybodyElse}, {"scale", (*bench).holdMany}}},
		{gateway: true, parts: []part{{"gateway", (*bench).throughGateway}}},
	} {
		c.parts = slices.DeleteFunc(c.parts, func(p part) bool { return o.only != "" && o.only != p.name })
		if len(c.parts) == 0 {
			continue
		}
		known = true
		if err := c.run(ctx, o); err != nil {
			return err
		}
	}
	if !known {
		return fmt.Errorf("-only %s: it is none of open, approve, expire, storm, settings, conditions, scale, gateway", o.only)
	}
	return nil
}

func (c cluster) run(ctx context.Context, o options) (err error) {
	b, err := newBench(ctx, c.gateway)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	for _, part := range c.parts {
		started := time.Now()
		if err := part.run(b, ctx, o); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		say("  (%s took %s)", part.name, time.Since(started).Round(time.Second))
	}
	return nil
}

// newBench starts a control plane that waits for its disk, as a real one does, with the operator on it.
func newBench(ctx context.Context, gateway bool) (*bench, error) { //nolint:revive // What is measured decides it.
	dir, err := os.MkdirTemp("", "support-access-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a folder: %w", err)
	}
	cp, err := controlplane.Start(ctx, controlplane.Options{Dir: filepath.Join(dir, "cluster"), Fsync: true, Kwok: gateway, Log: say})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	b := &bench{dir: dir, cp: cp}
	var values map[string]any
	if gateway {
		if b.gatewayIP, err = world.GatewayIP(); err != nil {
			return nil, errors.Join(err, b.close())
		}
		values = world.GatewayValues(b.gatewayIP, nil)
	}
	if b.installation, err = world.Install(ctx, cp, dir, values); err != nil {
		return nil, errors.Join(err, b.close())
	}
	if err := b.startOperator(ctx); err != nil {
		return nil, errors.Join(err, b.close())
	}
	if err := b.prepare(ctx); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }
