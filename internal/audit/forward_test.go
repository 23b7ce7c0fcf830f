package audit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/util/wait"
	clocktesting "k8s.io/utils/clock/testing"

	"supportaccess.dev/operator/internal/audit"
)

// taker is a receiver that takes what it is handed, unless it is told to fail.
type taker struct {
	mu     sync.Mutex
	had    []int64
	tries  int
	refuse func(try int) error
}

func (r *taker) Receive(_ context.Context, lines []audit.Line) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tries++
	if r.refuse != nil {
		if err := r.refuse(r.tries); err != nil {
			return err
		}
	}
	for _, line := range lines {
		r.had = append(r.had, line.Seq)
	}
	return nil
}

func (r *taker) has() []int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.had)
}

// handsOn runs a forward until the receiver has what it is to have, whatever the time that passes.
func handsOn(t *testing.T, store backend, to *taker, last int64) {
	t.Helper()
	now := clocktesting.NewFakeClock(start)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	forward := &audit.Forward{From: store, Carried: store, To: to, Name: "siem", Holder: "gateway-0", Clock: now, Logger: logr.Discard()}
	go func() { done <- forward.Start(ctx) }()
	err := wait.PollUntilContextTimeout(ctx, time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
		if had := to.has(); len(had) > 0 && had[len(had)-1] == last {
			return true, nil
		}
		if now.HasWaiters() {
			now.Step(time.Minute)
		}
		return false, nil
	})
	if err != nil {
		t.Errorf("the receiver has %v: %v", to.has(), err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestTheLogIsHandedOnWholeAndInOrderThoughTheReceiverFailsAndTheGatewayIsStartedAgain(t *testing.T) {
	onEach(t, func(t *testing.T, open func() backend) {
		store := open()
		log := resume(t, store, theKey(t))
		for i := range int64(600) {
			mustWrite(t, log, i)
		}
		to := &taker{refuse: func(try int) error {
			if try%3 != 0 {
				return errors.New("try again")
			}
			return nil
		}}
		handsOn(t, store, to, 601)
		mustClose(t, log)
		store = open()
		log = resume(t, store, theKey(t))
		for i := range int64(10) {
			mustWrite(t, log, 600+i)
		}
		handsOn(t, store, to, 611)
		for i, seq := range to.has() {
			if seq != int64(i+1) {
				t.Fatalf("entry %d came in place %d", seq, i+1)
			}
		}
		mustClose(t, log)
	})
}

func TestWhatPodsPrintIsNotHandedOnAndWhatWasRemovedIsPassedOver(t *testing.T) {
	onEach(t, func(t *testing.T, open func() backend) {
		store := open()
		log := resume(t, store, theKey(t))
		record(t, log)
		standing, err := store.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		to := &taker{}
		handsOn(t, store, to, standing.Size)
		lines := map[int64]audit.Type{}
		for _, e := range entriesOf(t, exported(t, store)) {
			lines[e.Seq] = e.Type
		}
		pieces := 0
		for seq, kind := range lines {
			if kind == audit.TypeRecording {
				pieces++
			}
			if slices.Contains(to.has(), seq) == (kind == audit.TypeRecording) {
				t.Errorf("entry %d of type %q: handed on %t", seq, kind, kind == audit.TypeRecording)
			}
		}
		if pieces == 0 {
			t.Error("there are no pieces of recordings")
		}
		for i := range int64(20) {
			mustWrite(t, log, 1000+i)
		}
		if _, err := log.Cut(t.Context(), start.Add(1010*time.Second)); err != nil {
			t.Fatal(err)
		}
		if standing, err = store.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		late := &taker{}
		handsOn(t, store, late, standing.Size)
		stub, err := store.Stub(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if had := late.has(); had[0] <= stub.Through {
			t.Errorf("it begins with %d, and up to %d all is removed", had[0], stub.Through)
		}
		mustClose(t, log)
	})
}

func TestAReceiverThatAsksForTimeIsGivenIt(t *testing.T) {
	store := stores["sqlite"](t, t.TempDir())
	log := resume(t, store, theKey(t))
	now := clocktesting.NewFakeClock(start)
	to := &taker{refuse: func(try int) error {
		if try == 1 {
			return &audit.RetryLaterError{After: 90 * time.Second, Err: errors.New("429")}
		}
		return nil
	}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		_ = (&audit.Forward{From: store, Carried: store, To: to, Name: "siem", Clock: now, Logger: logr.Discard()}).Start(ctx)
	}()
	waits := func() {
		t.Helper()
		if err := wait.PollUntilContextTimeout(ctx, time.Millisecond, 10*time.Second, true, func(context.Context) (bool, error) { return now.HasWaiters(), nil }); err != nil {
			t.Fatal(err)
		}
	}
	waits()
	now.Step(89 * time.Second)
	if got := to.has(); len(got) != 0 {
		t.Errorf("it was handed %v before its time", got)
	}
	now.Step(time.Second)
	waits()
	if got := to.has(); len(got) != 1 {
		t.Errorf("afterwards it has %v", got)
	}
	cancel()
	mustClose(t, log)
}

func TestOfSeveralReplicasOneHandsOnUntilItFallsSilent(t *testing.T) {
	folder := shareable(t)
	first, second := openPostgres(t, folder), openPostgres(t, folder)
	log := resume(t, first, theKey(t))
	claim := func(store backend, holder string, lease time.Duration) (int64, bool) {
		t.Helper()
		seq, mine, err := store.Claim(t.Context(), "siem", holder, lease)
		if err != nil {
			t.Fatal(err)
		}
		return seq, mine
	}
	if _, mine := claim(first, "a", time.Minute); !mine {
		t.Error("the first that asks may not")
	}
	if err := first.Carry(t.Context(), "siem", "a", 7); err != nil {
		t.Fatal(err)
	}
	if seq, mine := claim(first, "a", time.Second); !mine || seq != 7 {
		t.Errorf("it goes on from %d, may: %t", seq, mine)
	}
	if _, mine := claim(second, "b", time.Minute); mine {
		t.Error("two hand on at once")
	}
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
		seq, mine, err := second.Claim(ctx, "siem", "b", time.Minute)
		if err == nil && mine && seq != 7 {
			err = fmt.Errorf("it goes on from %d", seq)
		}
		return mine, err
	})
	if err != nil {
		t.Errorf("the other does not take over: %v", err)
	}
	if err := first.Carry(t.Context(), "siem", "a", 9); err != nil {
		t.Fatal(err)
	}
	if seq, _ := claim(second, "b", time.Minute); seq != 7 {
		t.Errorf("who lost its turn moved it to %d", seq)
	}
	mustClose(t, log)
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}
