package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"slices"
	"sync"
	"time"

	apirequest "k8s.io/apiserver/pkg/endpoints/request"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/cast"
)

// tape puts on record what goes over one stream.
type tape struct {
	journal  *journal
	exchange *exchange
	// input says that what the engineer types is kept, too.
	input bool
	// most is how much of what comes out of the pod is kept; all of it where there is no sum.
	most int64
	// sum is over all that comes, where not all of it is kept.
	sum hash.Hash

	mu sync.Mutex
	// pieces is how many there are, kept how many bytes are in them, and omitted how many are not.
	pieces, kept, omitted int64
}

// terminals are the subresources of pods whose streams belong to a process there.
var terminals = []string{"exec", "attach"}

// Tape returns what puts a stream on record, nil for one that is not kept.
func (j *journal) Tape(x *exchange) *tape {
	if !isStreamOfAPod(x.info) {
		return nil
	}
	rules := x.standing.recordingIn(x.info.Namespace)
	t := &tape{journal: j, exchange: x, input: rules.input}
	if x.info.Subresource == "log" {
		t.input, t.most, t.sum = false, rules.logBytes, sha256.New()
	}
	return t
}

// isStreamOfAPod reports whether a request is for a stream that is kept. Ports are forwarded for nobody.
func isStreamOfAPod(info *apirequest.RequestInfo) bool {
	if info.APIGroup != "" || info.Resource != "pods" {
		return false
	}
	switch info.Subresource {
	case "exec", "attach", "log":
		return true
	}
	return false
}

// since returns how long the request has been there.
func (t *tape) since() time.Duration { return t.exchange.elapsed(t.journal.clock.Now()) }

// keep puts frames on record, and returns when they are. What it could not put down must not go on.
func (t *tape) keep(frames []cast.Frame) error {
	packs, err := cast.Pack(frames)
	if err != nil || len(packs) == 0 {
		return err
	}
	t.mu.Lock()
	first := t.pieces + 1
	t.pieces += int64(len(packs))
	for _, f := range frames {
		if f.Kind == cast.Output || f.Kind == cast.Errors {
			t.kept += int64(len(f.Data))
		}
	}
	t.mu.Unlock()

	ctx, cancel := context.WithTimeout(context.Background(), recordTime)
	defer cancel()
	put := func(i int) error {
		return t.journal.log.Append(ctx, t.journal.piece(t.exchange, first+int64(i), packs[i]))
	}
	// Those that come together become durable together.
	failed := make([]error, len(packs))
	var group sync.WaitGroup
	for i := range packs[1:] {
		group.Go(func() { failed[i+1] = put(i + 1) })
	}
	failed[0] = put(0)
	group.Wait()
	return errors.Join(failed...)
}

// log puts down a part of a log, as far as logs are kept.
func (t *tape) log(p []byte) error {
	_, _ = t.sum.Write(p)
	t.mu.Lock()
	n := min(max(t.most-t.kept, 0), int64(len(p)))
	t.omitted += int64(len(p)) - n
	t.mu.Unlock()
	if n == 0 {
		return nil
	}
	return t.keep([]cast.Frame{{At: t.since(), Kind: cast.Output, Data: p[:n]}})
}

// is says what there is of a stream that is over, nil if nothing went over it.
func (t *tape) is() *audit.Recording {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pieces == 0 && t.omitted == 0 {
		return nil
	}
	said := &audit.Recording{Pieces: t.pieces, Bytes: t.kept, Omitted: t.omitted}
	if t.sum != nil {
		said.SHA256 = hex.EncodeToString(t.sum.Sum(nil))
	}
	return said
}

// unrecorded is why a stream ends that cannot be put on record.
func unrecorded() *end {
	return &end{reason: "Unrecorded", message: "what goes over the stream could not be put on record, so it does not go on"}
}

// window is how much may have come from the API server that is not yet on record.
const window = 4 << 20

// spareRoom is how much room a stream keeps that carries little.
const spareRoom = 64 << 10

// taped holds what comes out of a pod until it is on record, and then sends it on. While one part becomes durable the next
// is gathered, so that the stream need not wait for each.
type taped struct {
	tape    *tape
	dialect dialect
	// send sends to the client, and fail ends the stream.
	send func([]byte) (int, error)
	fail func()

	mu      sync.Mutex
	changed *sync.Cond
	// frames are to be put on record before held is sent.
	frames []cast.Frame
	held   []byte
	err    error
	closed bool
	// spare is room for what is held next, where there was some.
	spare []byte
	// busy says that something is on its way to the record or to the client.
	busy bool
	done chan struct{}
}

func newTaped(t *tape, d dialect, send func([]byte) (int, error), fail func()) *taped {
	made := &taped{tape: t, dialect: d, send: send, fail: fail, done: make(chan struct{})}
	made.changed = sync.NewCond(&made.mu)
	go made.run()
	return made
}

// out takes what the pod sends.
func (t *taped) out(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.held) > 0 && len(t.held)+len(p) > window && t.err == nil && !t.closed {
		t.changed.Wait()
	}
	if t.err != nil {
		return 0, t.err
	}
	if t.closed {
		return 0, errCut
	}
	// A frame is a part of what is held, which is left alone until it was sent.
	t.held = append(t.held, p...)
	at := t.tape.since()
	err := t.dialect.out(t.held[len(t.held)-len(p):], func(kind cast.Kind, data []byte) { t.note(at, kind, data) })
	if err != nil {
		return 0, t.broken(err)
	}
	t.changed.Broadcast()
	return len(p), nil
}

// in takes what the engineer sends. How large the terminal is becomes a frame; what is typed becomes one before it goes on,
// where the policy wants it kept.
func (t *taped) in(p []byte) error {
	t.mu.Lock()
	if t.err != nil {
		defer t.mu.Unlock()
		return t.err
	}
	at := t.tape.since()
	var typed []cast.Frame
	err := t.dialect.in(p, func(kind cast.Kind, data []byte) {
		switch {
		case kind == cast.Input && t.tape.input:
			typed = append(typed, cast.Frame{At: at, Kind: kind, Data: data})
		case kind == cast.Resize:
			t.note(at, kind, data)
			t.changed.Broadcast()
		}
	})
	if err != nil {
		err = t.broken(err)
	}
	t.mu.Unlock()
	if err != nil || len(typed) == 0 {
		return err
	}
	if err := t.tape.keep(typed); err != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		return t.broken(err)
	}
	return nil
}

// note adds a frame, to the one before it where it goes on with that.
func (t *taped) note(at time.Duration, kind cast.Kind, data []byte) {
	if n := len(t.frames); n > 0 && kind != cast.Resize && t.frames[n-1].Kind == kind && t.frames[n-1].At == at {
		t.frames[n-1].Data = append(t.frames[n-1].Data, data...)
		return
	}
	t.frames = append(t.frames, cast.Frame{At: at, Kind: kind, Data: slices.Clip(data)})
}

// broken ends the stream for good: nothing goes on that is not on record.
func (t *taped) broken(err error) error {
	if t.err == nil {
		t.err = err
		t.fail()
	}
	t.changed.Broadcast()
	return t.err
}

// run puts on record what came, and sends it on, until the stream is closed or broken.
func (t *taped) run() {
	defer close(t.done)
	for {
		frames, held, more := t.next()
		if !more {
			return
		}
		if err := t.tape.keep(frames); err != nil {
			t.tape.journal.logger.Error(err, "What goes over a stream cannot be put on record", "auditID", t.tape.exchange.id)
			t.mu.Lock()
			_ = t.broken(err)
			t.mu.Unlock()
			return
		}
		if len(held) == 0 {
			continue
		}
		if _, err := t.send(held); err != nil {
			t.mu.Lock()
			t.err = err
			t.changed.Broadcast()
			t.mu.Unlock()
			return
		}
		t.mu.Lock()
		if t.spare = held; cap(held) > spareRoom && len(held) < spareRoom {
			// The stream is quiet again: others need the room more.
			t.spare = nil
		}
		t.mu.Unlock()
	}
}

// next waits for what came. It reports false where there is nothing left to do.
func (t *taped) next() ([]cast.Frame, []byte, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.busy = false
	t.changed.Broadcast()
	for len(t.frames) == 0 && len(t.held) == 0 && t.err == nil && !t.closed {
		t.changed.Wait()
	}
	if t.err != nil || len(t.frames) == 0 && len(t.held) == 0 {
		return nil, nil, false
	}
	frames, held := t.frames, t.held
	t.frames, t.held, t.spare, t.busy = nil, t.spare[:0], nil, true
	t.changed.Broadcast()
	return frames, held, true
}

// flush returns when what came so far was sent, or cannot be.
func (t *taped) flush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for (t.busy || len(t.frames) > 0 || len(t.held) > 0) && t.err == nil {
		t.changed.Wait()
	}
}

// close returns when what came was sent, or cannot be.
func (t *taped) close() {
	t.mu.Lock()
	t.closed = true
	t.changed.Broadcast()
	t.mu.Unlock()
	<-t.done
}
