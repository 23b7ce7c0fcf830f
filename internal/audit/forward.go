package audit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"
)

// Receiver is somewhere else where a log is kept, too.
type Receiver interface {
	// Receive hands over lines in their order. Without an error the other side has them all.
	Receive(ctx context.Context, lines []Line) error
}

// Carried remembers, beside the log, how much of it a receiver has.
type Carried interface {
	// Claim returns up to which entry the receiver has the log, and whether nobody else hands it on: a claim lapses by itself.
	Claim(ctx context.Context, receiver, holder string, lease time.Duration) (seq int64, mine bool, err error)
	// Carry says up to which entry the receiver has it now, if the claim is still the holder's.
	Carry(ctx context.Context, receiver, holder string, seq int64) error
}

// Forward hands a log on to a receiver: from its beginning, in order, every entry at least once. What went over streams stays
// in the log, as in a Copy. It comes after the log: nobody waits for it, and what could not be handed on is tried until it can,
// ever more rarely. Of several replicas with one log, one does it.
type Forward struct {
	From    Reader
	Carried Carried
	To      Receiver
	// Name is the receiver's, Holder the replica's.
	Name, Holder string
	Clock        clock.Clock
	Logger       logr.Logger
	// Measures count what went wrong; nil for nobody.
	Measures *Measures
}

const (
	// forwardEvery is how long a receiver may lag behind.
	forwardEvery = time.Second
	// forwardLease is after what time another replica takes over. It is longer than one attempt takes.
	forwardLease = 30 * time.Second
	// carryTimeout bounds how long it takes to remember what was handed on.
	carryTimeout = 5 * time.Second
	// longestPause is how rarely is tried what cannot be handed on.
	longestPause = 5 * time.Minute
	// mostLines and mostBytes are how much is handed over at once; one line is whatever its size.
	mostLines, mostBytes = 256, 512 << 10
)

// RetryLaterError is a receiver's that asks to be left alone for a while.
type RetryLaterError struct {
	After time.Duration
	Err   error
}

// Error says what was wrong.
func (e *RetryLaterError) Error() string { return e.Err.Error() }

// Unwrap returns what was wrong.
func (e *RetryLaterError) Unwrap() error { return e.Err }

// Start hands on until the context ends.
func (f *Forward) Start(ctx context.Context) error {
	failures := 0
	for {
		pause := forwardEvery
		if err := f.catchUp(ctx); err != nil && ctx.Err() == nil {
			f.Measures.ForwardFailed()
			pause = pauseAfter(failures, err)
			failures++
			f.Logger.Error(err, "The audit log could not be handed on, and will be later", "receiver", f.Name, "again", pause.String())
		} else {
			failures = 0
		}
		timer := f.Clock.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return f.release(ctx)
		case <-timer.C():
		}
	}
}

// release lets another replica take over at once.
func (f *Forward) release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), carryTimeout)
	defer cancel()
	if _, _, err := f.Carried.Claim(ctx, f.Name, f.Holder, 0); err != nil {
		f.Logger.Info("Another replica takes over later", "receiver", f.Name, "why", err.Error())
	}
	return nil
}

// pauseAfter is how long to leave a receiver alone that has failed so often before.
func pauseAfter(failures int, err error) time.Duration {
	pause := min(forwardEvery<<min(failures, 16), longestPause)
	if later, ok := errors.AsType[*RetryLaterError](err); ok {
		pause = max(pause, min(later.After, longestPause))
	}
	return pause
}

// catchUp hands on what the log has and the receiver has not.
func (f *Forward) catchUp(ctx context.Context) error {
	for {
		seq, mine, err := f.Carried.Claim(ctx, f.Name, f.Holder, forwardLease)
		if err != nil {
			return fmt.Errorf("ask how much %s has: %w", f.Name, err)
		}
		if !mine {
			return nil
		}
		more, err := f.step(ctx, seq)
		if err != nil || !more {
			return err
		}
	}
}

// step hands on one batch of what follows an entry, and reports whether there may be more.
func (f *Forward) step(ctx context.Context, seq int64) (bool, error) {
	first, err := f.first(ctx, seq)
	if err != nil {
		return false, err
	}
	lines, err := f.From.Lines(ctx, first, first+mostLines-1)
	if err != nil {
		return false, fmt.Errorf("read the log from entry %d: %w", first, err)
	}
	if len(lines) == 0 {
		return false, nil
	}
	batch, last := batchOf(lines)
	if len(batch) > 0 {
		if err := f.To.Receive(ctx, batch); err != nil {
			return false, fmt.Errorf("hand on entries %d to %d: %w", batch[0].Seq, batch[len(batch)-1].Seq, err)
		}
	}
	// What was handed over is remembered although the gateway is to stop: nobody need have it again.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), carryTimeout)
	defer cancel()
	if err := f.Carried.Carry(ctx, f.Name, f.Holder, last); err != nil {
		return false, fmt.Errorf("remember that %s has the log up to entry %d: %w", f.Name, last, err)
	}
	return true, nil
}

// first returns what comes next. What retention removed before it was handed on is lost to the receiver, and that is said.
func (f *Forward) first(ctx context.Context, seq int64) (int64, error) {
	stub, err := f.From.Stub(ctx)
	if err != nil {
		return 0, fmt.Errorf("ask where the log begins: %w", err)
	}
	if stub == nil || stub.Through <= seq {
		return seq + 1, nil
	}
	f.Logger.Info("Entries were removed as old that the receiver has not had", "receiver", f.Name, "from", seq+1, "to", stub.Through)
	return stub.Through + 1, nil
}

// batchOf returns the first of some lines, as many as are handed over at once, and the number of the last entry that is done
// with them.
func batchOf(lines []Line) (batch []Line, last int64) {
	size := 0
	for _, line := range lines {
		if len(batch) > 0 && size+len(line.Text) > mostBytes {
			break
		}
		last = line.Seq
		if isPiece(line.Text) {
			continue
		}
		batch, size = append(batch, line), size+len(line.Text)
	}
	return batch, last
}
