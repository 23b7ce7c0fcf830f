package record

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"supportaccess.dev/operator/internal/records"
)

// TestRulesAreCollectedAtTheStartAndEveryHourWhateverFails has the collector look, in vain, at what cannot be listed.
func TestRulesAreCollectedAtTheStartAndEveryHourWhateverFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looked := 0
		reader := interceptor.NewClient(nil, interceptor.Funcs{
			List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error {
				looked++
				return errors.New("the API server is told to fail")
			},
		})
		now := clocktesting.NewFakeClock(time.Unix(0, 0))
		collector := &Collector{Rules: &records.Rules{Live: reader, Clock: now}, Clock: now}
		if !collector.NeedLeaderElection() {
			t.Error("it collects without being the leader")
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- collector.Start(ctx) }()
		for _, step := range []struct {
			after time.Duration
			looks int
		}{{0, 1}, {collectEvery - time.Second, 1}, {time.Second, 2}, {collectEvery, 3}} {
			now.Step(step.after)
			synctest.Wait()
			if looked != step.looks {
				t.Errorf("%s later it has looked %d times, want %d", step.after, looked, step.looks)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("it ended with %v", err)
		}
	})
}
