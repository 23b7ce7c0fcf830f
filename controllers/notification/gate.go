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

// enter returns how long to wait, zero if the caller may go through: it must leave, or have the channel rest.
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

// leave lets others in after a pause.
func (g *gate) leave(now time.Time, pause time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy, g.failures, g.opens = false, 0, now.Add(pause)
}

// rest lets others in after a pause that grows with each failure, or that the channel asked for.
func (g *gate) rest(now time.Time, asked time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	pause := min(firstRest<<min(g.failures, 16), longestRest)
	g.busy, g.failures, g.opens = false, g.failures+1, now.Add(max(pause, min(asked, longestRest)))
}
