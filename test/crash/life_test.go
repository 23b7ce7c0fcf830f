package crash

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/controllers/decision"
	"supportaccess.dev/operator/controllers/grant"
	"supportaccess.dev/operator/controllers/record"
	"supportaccess.dev/operator/controllers/request"
	"supportaccess.dev/operator/controllers/setting"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/records"
)

const (
	// passLimit is the ReconciliationTimeout of the controllers.
	passLimit = time.Minute
	// maxRounds bounds how long the operator may be at work before it is quiet.
	maxRounds = 40
	// soon is how near the next look must be for the harness to move the clock there and look.
	soon = 5 * time.Second
	// retention is how long records are kept.
	retention = 400 * 24 * time.Hour
)

// life is one process of the operator: the reconcilers that it would run, with no memory of those before.
type life struct {
	run       *run
	wire      *wire
	client    client.Client
	grants    *grant.Reconciler
	decisions *decision.Reconciler
	records   *record.Reconciler
	settings  *setting.Reconciler
	requests  *request.Reconciler
	// lags says that its cache shows the past.
	lags bool
	// cancel ends what is under way, as the end of a process does.
	ctx    context.Context
	cancel context.CancelFunc
}

// pass is one call of one reconciler.
type pass struct {
	what string
	// writes are those of this pass.
	writes []string
	err    error
	// again is when it wants to look again.
	again time.Duration
	// mute says that the pass could not write a status.
	mute bool
	// cut says that the process was killed in it.
	cut bool
	// lags says that the cache showed the past.
	lags bool
}

// newLife starts a process.
func (r *run) newLife(f *fault, trace []string) *life {
	w := r.newWire()
	w.fault, w.trace = f, trace
	return r.lifeWith(w, cached{Client: w.client(), wire: w, cache: r.stage.cache})
}

// newWire is the way of a new process of this run to the API server.
func (r *run) newWire() *wire {
	w := newWire(r.stage.operator, r.plain)
	w.beforeWrite, w.afterWrite = r.beforeWrite, r.wrote
	return w
}

func (r *run) lifeWith(w *wire, c client.Client) *life {
	live := w.client()
	l := &life{run: r, wire: w, client: c}
	l.ctx, l.cancel = context.WithCancel(r.t.Context())
	l.grants = &grant.Reconciler{
		Client: c, Live: live, Clock: r.clock, Admission: r.stage.admission, Workers: 1,
		Keeper: access.Keeper{Client: c, Live: live, Clock: r.clock}, Recorder: &events.FakeRecorder{},
		Addresses: &access.Addresses{Told: r.stage.cluster, Live: live, Clock: r.clock},
		Gateway:   &access.GatewayAddress{Told: access.Cluster{Server: gatewayServer}, Live: live, Clock: r.clock},
		Sessions:  c,
		Rules:     &records.Rules{Client: c, Live: live, Clock: r.clock},
	}
	l.decisions = &decision.Reconciler{Client: c, Live: live, Clock: r.clock}
	l.records = &record.Reconciler{Client: c, Live: live, Clock: r.clock, Retention: retention}
	l.settings = &setting.Reconciler{Client: c, Live: live, Clock: r.clock, Admission: r.stage.admission, Recorder: &events.FakeRecorder{}}
	l.requests = &request.Reconciler{Client: c, Live: live, Clock: r.clock, Admission: r.stage.admission, Recorder: &events.FakeRecorder{}}
	return l
}

// turns are the reconcilers and what each is asked to look at, in a fixed order.
func (l *life) turns() []func() pass {
	var turns []func() pass
	add := func(kind string, r reconcile.Reconciler, keys []types.NamespacedName) {
		for _, key := range keys {
			turns = append(turns, func() pass { return l.pass(kind, r, key) })
		}
	}
	keys := l.run.keys()
	add("grant", l.grants, keys.grants)
	add("record", l.records, keys.records)
	add("decision", l.decisions, keys.decisions)
	add("setting", l.settings, keys.settings)
	add("request", l.requests, keys.requests)
	return turns
}

// pass has one reconciler look at one object, and checks afterwards what must never be.
func (l *life) pass(kind string, reconciler reconcile.Reconciler, key types.NamespacedName) pass {
	ctx, cancel := context.WithTimeout(l.ctx, passLimit)
	defer cancel()
	l.run.tick()
	l.wire.begin()
	before := l.wire.count()
	result, err := reconciler.Reconcile(ctx, reconcile.Request{NamespacedName: key})
	p := pass{what: kind + " " + l.run.plain(key.String()), err: err, again: result.RequeueAfter, mute: l.wire.mute, cut: l.wire.isDead(), lags: l.lags}
	p.writes = slices.Clone(l.wire.writes[before:])
	l.run.log("%s: wrote %s; error %v; again in %s", p.what, strings.Join(p.writes, ", "), err, p.again)
	if l.run.broken != "" {
		l.run.wrong("%s", l.run.broken)
	}
	switch {
	case l.run.tolerant:
		// What a stopped leader leaves behind is judged when the other one has seen it; facts must hold even so.
		l.run.remember(l.run.look())
	case len(p.writes) > 0 || err != nil:
		l.run.inspect(p)
	}
	return p
}

// round lets every reconciler look at everything once. It ends early when the process was killed.
func (l *life) round() (writes int, wait time.Duration, err error) {
	for _, turn := range l.turns() {
		p := turn()
		writes += len(p.writes)
		err = errors.Join(err, p.err)
		if p.again > 0 && (wait == 0 || p.again < wait) {
			wait = p.again
		}
		if l.wire.isDead() {
			return writes, wait, errKilled
		}
		// A leader that was stopped has lost its lease: it ends with the pass that it was in.
		if l.wire.fault != nil && l.wire.fired && l.wire.fault.how == paused {
			return writes, wait, err
		}
	}
	return writes, wait, err
}

// glance lets every reconciler look at everything once, whatever comes of it.
func (l *life) glance() {
	if _, _, err := l.round(); err != nil {
		l.run.log("a round ended with %v", err)
	}
}

// settle runs the process until nothing is left to do, and returns what was written. It returns early when the process was
// killed.
func (l *life) settle() []string {
	before := l.wire.count()
	var last error
	for range maxRounds {
		writes, wait, err := l.round()
		if l.wire.isDead() {
			return l.wire.writes[before:]
		}
		last = err
		if err != nil || writes > 0 {
			continue
		}
		if wait > 0 && wait <= soon {
			l.run.step(wait)
			continue
		}
		l.run.inspectQuiet()
		return l.wire.writes[before:]
	}
	l.run.fatalf("not quiet after %d rounds; last error: %v", maxRounds, last)
	return nil
}
