package gateway

import (
	"context"
	"io"
	stdlog "log"
	"net/http"
	"net/http/httputil"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/util/sets"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/server/filters"
	"k8s.io/utils/clock"

	"supportaccess.dev/operator/internal/access"
)

// recorder puts on record what engineers do.
type recorder interface {
	// Received returns when it is on record that a request came and what was decided. If it fails the request must not go
	// on: nothing happens off the record.
	Received(ctx context.Context, x *exchange, decided *refusal) error
	// Started records that a stream has begun.
	Started(ctx context.Context, x *exchange, status int)
	// Completed records how a request ended.
	Completed(ctx context.Context, x *exchange, status int)
	// Tape returns what puts a stream on record, nil for one that is not kept.
	Tape(x *exchange) *tape
}

// presences make known that an engineer is there, before the first request goes on.
type presences interface {
	// Arrive returns when it is known that this replica lets an engineer in, with a credential that has a hash.
	Arrive(ctx context.Context, s *standing, engineer, hash string) error
}

// freshness says whether what the gateway knows of grants is what the API server knows.
type freshness interface {
	// Stale says why what is known may be out of date, empty while it is not.
	Stale() string
}

// door is what every request passes.
type door struct {
	grants      *Grants
	connections *connections
	recorder    recorder
	presence    presences
	freshness   freshness
	identities  *identities
	proxy       *httputil.ReverseProxy
	clock       clock.PassiveClock
	infos       *apirequest.RequestInfoFactory
	longRunning apirequest.LongRunningRequestCheck
	counters    *counters
	logger      logr.Logger
	seal        *seal
}

// requestInfos reads requests as the API server does.
func requestInfos() *apirequest.RequestInfoFactory {
	return &apirequest.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}
}

func longRunning() apirequest.LongRunningRequestCheck {
	return filters.BasicLongRunningRequestCheck(
		sets.NewString("watch", "proxy"), sets.NewString("attach", "exec", "proxy", "log", "portforward"))
}

var discardLog = stdlog.New(io.Discard, "", 0)

// maxBody is how long the body of a request may be: as long as the API server takes one.
const maxBody = 3 << 20

// ServeHTTP lets a request through, or says why not.
func (h *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	received := h.clock.Now()
	if refused := clean(r); refused != nil {
		h.counters.denied("hygiene")
		answer(w, refused)
		return
	}
	if !h.grants.looked.Load() {
		answer(w, unavailable(notLooked))
		return
	}
	who, refused := h.identify(r)
	if refused != nil {
		h.counters.denied("credential")
		answer(w, refused)
		return
	}
	info, err := h.infos.NewRequestInfo(r)
	if err != nil {
		h.counters.denied("hygiene")
		answer(w, badRequest("the path cannot be read"))
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	x := &exchange{
		id: h.seal.id(access.GatewayUsername(who.standing.facts.Record.Spec.Grant, who.engineer)), standing: who.standing, engineer: who.engineer, hash: who.hash, request: r, info: info, received: received,
		longRunning: h.longRunning(r, info), cancel: cancel,
	}
	h.serve(w, r.WithContext(context.WithValue(ctx, exchangeKey{}, x)), x)
}

// notLooked is why nobody is let in yet.
const notLooked = "the gateway has just begun and does not know every grant yet: try again"

// bearer is who comes with a credential: an engineer of a grant.
type bearer struct {
	hash     string
	standing *standing
	engineer string
}

// identify finds out whose credential a request carries.
func (h *door) identify(r *http.Request) (bearer, *refusal) {
	scheme, token, found := strings.Cut(r.Header.Get("Authorization"), " ")
	if !found || !strings.EqualFold(scheme, "Bearer") {
		return bearer{}, unknownCredential()
	}
	hash, ok := access.TokenHash(strings.TrimSpace(token))
	if !ok {
		return bearer{}, unknownCredential()
	}
	s, engineer, ok := h.grants.await(r.Context(), hash)
	if !ok {
		return bearer{}, unknownCredential()
	}
	return bearer{hash: hash, standing: s, engineer: engineer}, nil
}

// serve decides, records, and forwards. The order is what makes it safe: nothing is forwarded that is not on record, and
// whether the grant is open is asked once more when the request can be cut.
func (h *door) serve(w http.ResponseWriter, r *http.Request, x *exchange) {
	decided := h.decide(r, x)
	if err := h.recorder.Received(r.Context(), x, decided); err != nil {
		h.counters.denied("record")
		h.logger.Error(err, "What an engineer asks for cannot be put on record")
		answer(w, unavailable("what you ask for could not be put on record, so it is not done"))
		return
	}
	if decided != nil {
		h.counters.denied("rule")
		answer(w, decided)
		return
	}
	status := http.StatusForbidden
	defer func() {
		if x.writer != nil && x.writer.status != 0 {
			status = x.writer.status
		}
		h.counters.completed(x.info.Verb, status)
		h.recorder.Completed(context.WithoutCancel(r.Context()), x, status)
	}()
	if err := h.presence.Arrive(r.Context(), x.standing, x.engineer, x.hash); err != nil {
		status = http.StatusServiceUnavailable
		answer(w, unavailable("it could not be made known that you are here"))
		return
	}
	if err := h.identities.prove(r.Context(), x); err != nil {
		h.logger.Error(err, "The API server does not let the gateway act as an engineer")
		status = http.StatusServiceUnavailable
		answer(w, unavailable("the API server does not let the gateway act as you yet: try again"))
		return
	}
	c := connectionOf(r.Context())
	writer := newWriter(w, x)
	if refused := c.enter(x); refused != nil {
		answer(writer, refused)
		return
	}
	defer c.leave(x)
	if ended := h.grants.endOf(x); ended != nil {
		x.cause.CompareAndSwap(nil, ended)
		answer(writer, x.over(ended))
		return
	}
	h.forward(writer, r, x)
}

// decide says why a request is not let through, nil if it is.
func (h *door) decide(r *http.Request, x *exchange) *refusal {
	if stale := h.freshness.Stale(); stale != "" {
		return unavailable(stale)
	}
	if ended := h.grants.endOf(x); ended != nil {
		return x.over(ended)
	}
	verdict := x.standing.verdict(x.received)
	x.flags = x.standing.flagsOf(x.info)
	if rule := judge(x.standing, verdict.Namespaces, r, x.info); rule != "" {
		return forbidden(x.standing, rule)
	}
	return nil
}

func (h *door) forward(w *writer, r *http.Request, x *exchange) {
	if r.Body != nil && !upgrading(r) {
		r.Body = &counted{ReadCloser: http.MaxBytesReader(w, r.Body, maxBody), exchange: x}
	}
	x.tape = h.recorder.Tape(x)
	if x.longRunning {
		w.started = func(status int) { h.recorder.Started(context.WithoutCancel(r.Context()), x, status) }
	}
	if x.flags != nil {
		h.release(w, r, x)
		return
	}
	h.proxy.ServeHTTP(w, r)
}

// counted counts what a client sends.
type counted struct {
	io.ReadCloser
	exchange *exchange
}

// Read reads a part of the body.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.exchange.in.Add(int64(n))
	return n, err
}

// elapsed returns how long an exchange has lasted.
func (x *exchange) elapsed(now time.Time) time.Duration { return now.Sub(x.received) }
