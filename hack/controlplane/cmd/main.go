// Command cmd builds the local control plane. What starts one is hack/demo and the tests.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"supportaccess.dev/operator/hack/controlplane"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := build(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
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

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }
