package gateway

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"

	"supportaccess.dev/operator/internal/audit"
)

// exchange is one request that was let through, until its answer has ended.
type exchange struct {
	// id is the request's, in our record and in the API server's audit log.
	id       string
	standing *standing
	engineer string
	// hash is of the credential that it came with.
	hash     string
	request  *http.Request
	info     *apirequest.RequestInfo
	received time.Time
	// longRunning says that the answer is a stream.
	longRunning bool

	// flags say which objects are released, nil where the grant lets through whatever is found. flagged says what became of
	// that.
	flags   *flags
	flagged audit.Flagged

	cancel context.CancelFunc
	writer *writer
	// answered is the head of the API server's answer.
	answered http.Header
	// tape puts on record what goes over the stream, nil where that is not kept, and dialect reads it.
	tape    *tape
	dialect dialect
	// cause is why the exchange was ended before its time.
	cause atomic.Pointer[end]
	// in and out count the bytes of the bodies.
	in, out atomic.Int64
}

// over is the answer to a request of a grant that is not open.
func (x *exchange) over(why *end) *refusal { return notOpen(x.standing, why) }

// end tells the client why, where the protocol has a way and the client listens, and then ends the exchange. It reports
// whether the client was told, or is waited for by nobody.
func (x *exchange) end(why *end) bool {
	x.cause.CompareAndSwap(nil, why)
	defer x.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	told := make(chan bool, 1)
	go func() { told <- x.writer.farewell(ctx, x, why) }()
	select {
	case was := <-told:
		return was
	case <-ctx.Done():
		return false
	}
}

// writer is the way back to the client. What is written is counted, and a last word can be put between two others.
type writer struct {
	http.ResponseWriter
	exchange *exchange
	// turn is held by whoever writes. A mutex could not be waited for with a bound.
	turn chan struct{}
	// status is the answer's, 0 before there is one.
	status int
	// events are those of a watch, as they were written so far.
	events events
	// closed says that the last word was said.
	closed bool
	// started is told once, with the status, when the answer begins.
	started func(status int)
	// stream is the connection once it was taken over for another protocol.
	stream *stream
}

func newWriter(w http.ResponseWriter, x *exchange) *writer {
	made := &writer{ResponseWriter: w, exchange: x, turn: make(chan struct{}, 1)}
	x.writer = made
	return made
}

// WriteHeader writes the status of the answer.
func (w *writer) WriteHeader(status int) {
	w.turn <- struct{}{}
	defer func() { <-w.turn }()
	if w.closed {
		return
	}
	w.begin(status)
	w.ResponseWriter.WriteHeader(status)
}

// begin notes the status of the answer; one below 200 is not yet the answer.
func (w *writer) begin(status int) {
	if status < http.StatusOK && status != http.StatusSwitchingProtocols || w.status != 0 {
		return
	}
	w.status = status
	if w.exchange.info.Verb == "watch" {
		w.events.begin(w.Header().Get("Content-Type"))
	}
	if w.started != nil {
		w.started(status)
	}
}

// Write writes a part of the answer.
func (w *writer) Write(p []byte) (int, error) {
	if err := w.record(p); err != nil {
		return 0, err
	}
	w.turn <- struct{}{}
	defer func() { <-w.turn }()
	if w.closed {
		return 0, errCut
	}
	w.begin(http.StatusOK)
	n, err := w.ResponseWriter.Write(p)
	w.exchange.out.Add(int64(n))
	w.events.pass(p[:n])
	return n, err
}

// record puts down a part of a log, before the client has it.
func (w *writer) record(p []byte) error {
	x := w.exchange
	if x.tape == nil || x.tape.sum == nil || w.status > http.StatusOK {
		return nil
	}
	err := x.tape.log(p)
	if err != nil {
		go x.end(unrecorded())
	}
	return err
}

// FlushError sends what was written.
func (w *writer) FlushError() error {
	w.turn <- struct{}{}
	defer func() { <-w.turn }()
	if w.closed {
		return errCut
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack hands the connection over for another protocol.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	raw, buffered, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.turn <- struct{}{}
	defer func() { <-w.turn }()
	w.begin(http.StatusSwitchingProtocols)
	w.stream = newStream(raw, w.exchange)
	return w.stream, buffered, nil
}

// farewell tells a client why its exchange ends: a watch gets an error event, a stream what its protocol has. Nothing is
// said in the middle of a line, nor to a client that does not read. It reports whether it was said.
func (w *writer) farewell(ctx context.Context, x *exchange, why *end) bool {
	select {
	case w.turn <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	defer func() { <-w.turn }()
	if w.closed {
		return false
	}
	w.closed = true
	if w.stream != nil {
		return w.stream.farewell(ctx, why)
	}
	if w.status != http.StatusOK || !w.events.between() {
		return false
	}
	last := w.events.last(statusOf(notOpen(x.standing, why)))
	if last == nil {
		return false
	}
	if _, err := w.ResponseWriter.Write(last); err != nil {
		return false
	}
	return http.NewResponseController(w.ResponseWriter).Flush() == nil
}

// statusOf renders a refusal as the API server would.
func statusOf(r *refusal) metav1.Status {
	return metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status:   metav1.StatusFailure,
		Code:     int32(r.code), //nolint:gosec // HTTP status codes are three digits.
		Reason:   metav1.StatusReason(r.reason),
		Message:  r.message,
	}
}
