// Command kubectl-support_access is the kubectl plugin: kubectl support-access.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/cli-runtime/pkg/genericiooptions"
	// The ways of logging in that kubeconfigs name.
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	"k8s.io/utils/clock"

	"supportaccess.dev/operator/internal/cli"
)

// version is set when the binary is built.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	desk := &cli.Desk{
		Streams: genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr},
		Clock:   clock.RealClock{},
		Version: version,
	}
	code := desk.Run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}
