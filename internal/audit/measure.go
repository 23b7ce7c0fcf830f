package audit

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
)

// Measures count what is put down. None of them names a person or a grant. Nil ones count nothing.
type Measures struct {
	entries  *prometheus.CounterVec
	failures prometheus.Counter
	seconds  prometheus.Histogram
	waiting  prometheus.Gauge
	copies   prometheus.Counter
	forwards prometheus.Counter
}

// NewMeasures returns measures that are registered.
func NewMeasures(registry prometheus.Registerer) (*Measures, error) {
	m := &Measures{
		entries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "support_access_audit_entries_total", Help: "Entries that were made durable in the audit log, by type; those without are requests.",
		}, []string{"type"}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "support_access_audit_failures_total", Help: "Entries that could not be put into the audit log. What they tell of was not done.",
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "support_access_audit_append_duration_seconds", Help: "Time until an entry was durable.",
			Buckets: []float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5},
		}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "support_access_audit_waiting_entries", Help: "Entries that wait to become durable.",
		}),
		copies: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "support_access_audit_copy_failures_total", Help: "Times that the copy of the audit log could not be brought up to date, and was tried again.",
		}),
		forwards: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "support_access_audit_forward_failures_total", Help: "Times that entries of the audit log could not be handed on to a receiver, and were tried again.",
		}),
	}
	for _, collector := range []prometheus.Collector{m.entries, m.failures, m.seconds, m.waiting, m.copies, m.forwards} {
		if err := registry.Register(collector); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// CopyFailed counts that a copy could not be brought up to date.
func (m *Measures) CopyFailed() {
	if m != nil {
		m.copies.Inc()
	}
}

// ForwardFailed counts that entries could not be handed on.
func (m *Measures) ForwardFailed() {
	if m != nil {
		m.forwards.Inc()
	}
}

// Append returns when the entry is durable. The entry is the caller's again as soon as it returns.
func (l *Ledger) Append(ctx context.Context, e *Entry) error {
	return l.measured(ctx, e, l.queue.Append)
}

// Trail is Append for what is over and holds nobody up: it becomes durable together with the next entry that somebody waits
// for, or a moment later. Half of all entries cost no write of their own so.
func (l *Ledger) Trail(ctx context.Context, e *Entry) error { return l.measured(ctx, e, l.queue.Trail) }

// measured puts an entry down and counts it.
func (l *Ledger) measured(ctx context.Context, e *Entry, put func(context.Context, *Entry) error) error {
	m := l.measures
	if m == nil {
		return put(ctx, e)
	}
	kind, begun := string(e.Type), l.clock.Now()
	m.waiting.Inc()
	err := put(ctx, e)
	m.waiting.Dec()
	if err != nil {
		m.failures.Inc()
		return err
	}
	m.entries.WithLabelValues(kind).Inc()
	m.seconds.Observe(l.clock.Since(begun).Seconds())
	return nil
}
