package operator

import (
	"context"
	"math"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	clocktesting "k8s.io/utils/clock/testing"
)

func TestMemoryIsLeftAloneWhileItIsSmallAndThenStaysCloseToWhatIsAlive(t *testing.T) {
	const mib = 1 << 20
	for alive, want := range map[int64]int64{0: 112, 16: 112, 88: 112, 96: 96 + 12 + 12, 160: 160 + 20 + 12, 1600: 1600 + 200 + 12} {
		if got := memoryLimit(alive * mib); got != want*mib {
			t.Errorf("with %d MiB alive there may be %d MiB, want %d", alive, got/mib, want)
		}
	}
}

func TestTheLimitOfMemoryFollowsWhatIsAlive(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(math.MaxInt64))
	clk := clocktesting.NewFakeClock(time.Unix(0, 0))
	go func() { _ = (&frugality{clock: clk}).Start(t.Context()) }()
	kept := make([]byte, 128<<20)
	runtime.GC()
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
		clk.Step(weighEvery)
		limit := debug.SetMemoryLimit(-1)
		return limit > memoryLimit(128<<20-1) && limit < memoryLimit(512<<20), nil
	})
	if err != nil {
		t.Errorf("with %d bytes alive the limit is %d", len(kept), debug.SetMemoryLimit(-1))
	}
	runtime.KeepAlive(kept)
}
