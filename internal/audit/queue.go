package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

// queue is where entries wait to become durable, so that those that come together become it together.
type queue struct {
	offers chan *offer
	done   chan struct{}

	mu     sync.RWMutex
	closed bool
}

// offer is an entry that waits to become durable.
type offer struct {
	// body is the entry in JSON, without its number.
	body []byte
	// facets are what it can be found by.
	facets Facets
	// told gets the outcome. It has room for it, so that nobody waits for who has gone.
	told chan error
	// trails says that what it tells of is over: it can wait for another.
	trails bool
}

const (
	// waiting is how many entries may wait. Whoever comes after them waits to wait.
	waiting = 1024
	// batch is how many entries are made durable at once.
	batch = 256
	// trailing is for how long an entry of what is over waits for another to become durable with.
	trailing = 50 * time.Millisecond
)

// errClosed is the answer of a log that was closed.
var errClosed = errors.New("the audit log is closed")

func newQueue() *queue {
	return &queue{offers: make(chan *offer, waiting), done: make(chan struct{})}
}

// Append returns when the entry is durable. The entry is the caller's again as soon as it returns.
func (q *queue) Append(ctx context.Context, e *Entry) error { return q.add(ctx, e, false) }

// Trail is Append for what is over and holds nobody up: it becomes durable together with the next entry that somebody waits
// for, or a moment later. Half of all entries cost no write of their own so.
func (q *queue) Trail(ctx context.Context, e *Entry) error { return q.add(ctx, e, true) }

func (q *queue) add(ctx context.Context, e *Entry, trails bool) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("wait for the audit log: %w", err)
	}
	made, err := encode(e)
	if err != nil {
		return err
	}
	made.trails = trails
	q.mu.RLock()
	if q.closed {
		q.mu.RUnlock()
		return errClosed
	}
	select {
	case q.offers <- made:
		q.mu.RUnlock()
	case <-ctx.Done():
		q.mu.RUnlock()
		return fmt.Errorf("wait for the audit log: %w", ctx.Err())
	}
	select {
	case err := <-made.told:
		return err
	case <-ctx.Done():
		// It may become durable yet. That something is on record which was not done does no harm.
		return fmt.Errorf("wait for the audit log: %w", ctx.Err())
	}
}

// shut takes no more, and returns when what waits is done. It says whether it was the first to ask.
func (q *queue) shut() bool {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return false
	}
	q.closed = true
	close(q.offers)
	q.mu.Unlock()
	<-q.done
	return true
}

// gather takes all that waits, up to a batch. As long as all of that is over, it waits for more.
func (q *queue) gather(first *offer) []*offer {
	group, trails := []*offer{first}, first.trails
	enough, cancel := context.WithTimeout(context.Background(), trailing)
	defer cancel()
	for len(group) < batch {
		next := q.take(trails, enough.Done())
		if next == nil {
			return group
		}
		group, trails = append(group, next), trails && next.trails
	}
	return group
}

// take returns what waits, nil if nothing does: at once, or with patience after a while.
func (q *queue) take(patience bool, enough <-chan struct{}) *offer { //nolint:revive // One caller has patience or has not.
	select {
	case next := <-q.offers:
		return next
	default:
	}
	if !patience {
		return nil
	}
	select {
	case next := <-q.offers:
		return next
	case <-enough:
		return nil
	}
}

// encode returns an entry in JSON, without its place in a log. It is done by who appends, so that an entry that cannot be
// written harms no other, and the one who commits has only to copy.
func encode(e *Entry) (*offer, error) {
	placeless := *e
	placeless.Seq, placeless.PrevHash = 0, ""
	if placeless.Section == "" {
		placeless.Section = sectionOf(e.ObjectRef)
	}
	body, err := json.Marshal(&placeless)
	if err != nil {
		return nil, fmt.Errorf("write an audit entry: %w", err)
	}
	if len(body) > MaxLine {
		return nil, fmt.Errorf("write an audit entry: it has %d bytes, which is more than %d", len(body), MaxLine)
	}
	return &offer{body: body, facets: FacetsOf(&placeless), told: make(chan error, 1)}, nil
}
