package operator

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
)

const (
	// smallMemory is how much memory the controller may take before it gives time for it: with few grants it collects garbage
	// rarely, which a storm of openings or ends is the faster for.
	smallMemory = 112 << 20
	// spareMemory is how much there is above what is alive, besides an eighth of that: with less it would do nothing but collect.
	spareMemory = 12 << 20
	// weighEvery is how often is looked what is alive.
	weighEvery = time.Second
	// aliveMetric is what the last collection found alive.
	aliveMetric = "/gc/heap/live:bytes"
)

// frugality keeps the controller's memory close to what is alive in it, which is every open grant. The limit is the collector's
// own and moves with that: it makes it work harder, and never fail.
type frugality struct{ clock clock.WithTicker }

// addFrugality has memory kept low, unless the environment says how, by GOMEMLIMIT.
func addFrugality(mgr ctrl.Manager, now clock.WithTicker) error {
	if os.Getenv("GOMEMLIMIT") != "" {
		return nil
	}
	debug.SetMemoryLimit(memoryLimit(0))
	if err := mgr.Add(&frugality{clock: now}); err != nil {
		return fmt.Errorf("set up what keeps memory low: %w", err)
	}
	return nil
}

// NeedLeaderElection says that every replica does it.
func (f *frugality) NeedLeaderElection() bool { return false }

// Start moves the limit until the context ends.
func (f *frugality) Start(ctx context.Context) error {
	ticker := f.clock.NewTicker(weighEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
			debug.SetMemoryLimit(memoryLimit(alive()))
		}
	}
}

// memoryLimit is how much memory there may be, in bytes, with so much of it alive.
func memoryLimit(alive int64) int64 { return max(smallMemory, alive+alive/8+spareMemory) }

func alive() int64 {
	samples := []metrics.Sample{{Name: aliveMetric}}
	metrics.Read(samples)
	return int64(samples[0].Value.Uint64()) //nolint:gosec // No memory is as large.
}
