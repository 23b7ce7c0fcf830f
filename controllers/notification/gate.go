package notification

import (
	"sync"
	"time"
)

const (
	// pace is how long after one notice a channel takes the next.
	pace = 100 * time.Millisecond
	// slackPace is the same for Slack, which takes one a second.
	slackPace = time.Second
	// busyWait is when to ask again for a channel that is being used.
	busyWait = 250 * time.Millisecond
	// firstRest and longestRest are how long a channel is left alone that failed, whatever the notice.
	firstRest, longestRest = time.Second, 5 * time.Minute
)

// gate lets one notice at a time through to a channel, not too fast, and fewer while it is broken.
type gate struct {
	mu       sync.Mutex
	busy     bool
	failures int
	opens    time.Time
}

// enter returns how long to wait, zero if the caller may go through: it must leave.
func (g *gate) enter(now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.busy {
		return busyWait
	}
	if now.Before(g.opens) {
		return g.opens.Sub(now)
	}
	g.busy = true
	return 0
}

// leave lets others in after a pause, which grows while the channel fails.
func (g *gate) leave(now time.Time, failed bool, pause, asked time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy = false
	g.failures++
	if !failed {
		g.failures = 0
	}
	if g.failures > 0 {
		pause = max(pause, min(firstRest<<min(g.failures-1, 16), longestRest), min(asked, longestRest))
	}
	g.opens = now.Add(pause)
}
