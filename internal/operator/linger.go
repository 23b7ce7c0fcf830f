package operator

import (
	"context"
	"errors"
	"net/http"
	"time"

	"k8s.io/utils/clock"
)

// linger returns a context that ends a while after another. Whoever sends engineers to a replica hears that it stops no
// sooner than the replica itself: until that has gone round, it goes on as if nothing was.
func linger(ctx context.Context, delay time.Duration, clk clock.Clock) (context.Context, context.CancelFunc) {
	lasting, end := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		select {
		case <-ctx.Done():
		case <-lasting.Done():
			return
		}
		timer := clk.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C():
		case <-lasting.Done():
		}
		end()
	}()
	return lasting, end
}

// errStopping is what a balancer that asks is told.
var errStopping = errors.New("this replica was told to stop")

// staying is the check of readiness that fails from when a context has ended.
func staying(ctx context.Context) func(*http.Request) error {
	return func(*http.Request) error {
		if ctx.Err() != nil {
			return errStopping
		}
		return nil
	}
}
