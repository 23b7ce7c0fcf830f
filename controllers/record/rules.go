package record

import (
	"context"
	"time"

	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"supportaccess.dev/operator/internal/records"
)

// collectEvery is how often rules are collected of which no record speaks any more.
const collectEvery = time.Hour

// Collector deletes what roles allowed once no record names it: with the last record of that time.
type Collector struct {
	// Rules are those that the grant controller keeps.
	Rules *records.Rules
	// Clock says when to look again.
	Clock clock.Clock
}

// NeedLeaderElection says that only the process collects that knows which rules are just being stored.
func (c *Collector) NeedLeaderElection() bool { return true }

// Start collects now and from time to time, until the context ends. What fails is tried again the next time.
func (c *Collector) Start(ctx context.Context) error {
	for {
		collected, err := c.Rules.Collect(ctx)
		if err != nil {
			log.FromContext(ctx).Error(err, "The rules of old records could not be collected")
		}
		if collected > 0 {
			log.FromContext(ctx).Info("Rules were deleted that no record names any more", "count", collected)
		}
		timer := c.Clock.NewTimer(collectEvery)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C():
		}
	}
}
