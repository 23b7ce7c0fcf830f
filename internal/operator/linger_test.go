package operator

import (
	"context"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	testclock "k8s.io/utils/clock/testing"
)

func TestAReplicaThatIsToldToStopSaysSoAndGoesOnForAWhile(t *testing.T) {
	clk := testclock.NewFakeClock(time.Unix(0, 0))
	told, tell := context.WithCancel(t.Context())
	lasting, end := linger(told, 5*time.Second, clk)
	defer end()
	ready := staying(told)
	if err := ready(nil); err != nil || lasting.Err() != nil {
		t.Fatalf("nobody told it to stop, and it is not ready (%v) or ended (%v)", err, lasting.Err())
	}
	tell()
	if err := ready(nil); err == nil {
		t.Error("it was told to stop, and is ready")
	}
	if err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 10*time.Second, true, func(context.Context) (bool, error) {
		return clk.HasWaiters(), nil
	}); err != nil {
		t.Fatal("it does not wait")
	}
	clk.Step(5*time.Second - 1)
	if lasting.Err() != nil {
		t.Error("it ended too early")
	}
	clk.Step(1)
	select {
	case <-lasting.Done():
	case <-t.Context().Done():
		t.Error("it never ended")
	case <-time.After(10 * time.Second):
		t.Error("it did not end")
	}
}

func TestAReplicaThatEndsByItselfWaitsForNothing(t *testing.T) {
	clk := testclock.NewFakeClock(time.Unix(0, 0))
	lasting, end := linger(t.Context(), time.Hour, clk)
	end()
	if lasting.Err() == nil || clk.HasWaiters() {
		t.Errorf("it goes on: %v, or waits: %t", lasting.Err(), clk.HasWaiters())
	}
}
