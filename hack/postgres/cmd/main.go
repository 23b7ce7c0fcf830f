// Command cmd makes sure that there is a PostgreSQL server for the tests.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"supportaccess.dev/operator/hack/postgres"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := install(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func install(ctx context.Context) error {
	if postgres.Skipped() {
		say("%s: the tests that need PostgreSQL are left out", postgres.SkipVariable)
		return nil
	}
	dir, err := postgres.Install(ctx, say)
	if err != nil {
		return err
	}
	say("PostgreSQL is in %s", dir)
	return nil
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }
