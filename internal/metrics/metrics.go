// Package metrics knows what the operator counts and shows to Prometheus. No label carries a person's name.
package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
)

const prefix = "support_access_"

// collectTimeout bounds one scrape of the cache.
const collectTimeout = 10 * time.Second

// Counters are what the controllers count as they work. A nil one counts nothing.
type Counters struct {
	credentialsIssued prometheus.Counter
	cleanupFailures   prometheus.Counter
	revocationSeconds prometheus.Histogram

	checkpointsKept    prometheus.Counter
	checkpointsRefused *prometheus.CounterVec
	notifications      *prometheus.CounterVec
}

// Issued counts credentials that were made, renewed or replaced.
func (c *Counters) Issued(credentials int) {
	if c != nil {
		c.credentialsIssued.Add(float64(credentials))
	}
}

// CleanupFailed counts a pass that could not take everything away.
func (c *Counters) CleanupFailed() {
	if c != nil {
		c.cleanupFailures.Inc()
	}
}

// Ended counts a grant that ended, and how long it took to take its access away.
func (c *Counters) Ended(after time.Duration) {
	if c != nil {
		c.revocationSeconds.Observe(after.Seconds())
	}
}

// CheckpointKept counts a checkpoint of an audit log that was kept.
func (c *Counters) CheckpointKept() {
	if c != nil {
		c.checkpointsKept.Inc()
	}
}

// CheckpointRefused counts a checkpoint of an audit log that does not follow from the one that is kept.
func (c *Counters) CheckpointRefused(reason string) {
	if c != nil {
		c.checkpointsRefused.WithLabelValues(reason).Inc()
	}
}

// Notified counts what became of an attempt to tell a notice by a channel: delivered, failed, or dead when it was given up.
func (c *Counters) Notified(channel, result string) {
	if c != nil {
		c.notifications.WithLabelValues(channel, result).Inc()
	}
}

// NewCounters returns counters that are registered.
func NewCounters(registry prometheus.Registerer, version string) (*Counters, error) {
	c := &Counters{
		credentialsIssued: prometheus.NewCounter(prometheus.CounterOpts{
			Name: prefix + "credentials_issued_total", Help: "Credentials of engineers that were made, renewed or replaced.",
		}),
		cleanupFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: prefix + "cleanup_failures_total", Help: "Passes that could not take everything away at the first try.",
		}),
		revocationSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: prefix + "revocation_duration_seconds", Help: "Time until access was gone, from its expiration or from when the operator heard of another end.",
			Buckets: []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60},
		}),
		checkpointsKept: prometheus.NewCounter(prometheus.CounterOpts{
			Name: prefix + "checkpoints_kept_total", Help: "Checkpoints of audit logs that were kept where the gateway cannot write.",
		}),
		checkpointsRefused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "checkpoints_refused_total", Help: "Checkpoints of audit logs that do not follow from what is kept, by why. It must be 0.",
		}, []string{"reason"}),
		notifications: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "notifications_total", Help: "Attempts to tell a notice, by channel and by what became of them: delivered, failed, or dead when it was given up.",
		}, []string{"channel", "result"}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: prefix + "build_info", Help: "Always 1; the label says which version runs.", ConstLabels: prometheus.Labels{"version": version},
	})
	info.Set(1)
	for _, collector := range []prometheus.Collector{c.credentialsIssued, c.cleanupFailures, c.revocationSeconds, c.checkpointsKept, c.checkpointsRefused, c.notifications, info} {
		if err := registry.Register(collector); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// ShowWaiting has a registry show how many grants wait to open.
func ShowWaiting(registry prometheus.Registerer, waiting func() int) error {
	return registry.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: prefix + "grants_waiting_to_open", Help: "Grants that may open and wait for others to have opened.",
	}, func() float64 { return float64(waiting()) }))
}

// Grants shows the grants, requests and bindings that the cache has at the moment of a scrape.
type Grants struct {
	// Reader reads the cache.
	Reader client.Reader
	// Clock says whether a grant should be over.
	Clock clock.PassiveClock
}

var (
	grantsDesc   = prometheus.NewDesc(prefix+"grants", "Grants by state.", []string{"state"}, nil)
	requestsDesc = prometheus.NewDesc(prefix+"requests", "Requests by state.", []string{"state"}, nil)
	expiryDesc   = prometheus.NewDesc(prefix+"grant_expiration_timestamp_seconds", "When an active grant ends.", []string{"namespace", "name"}, nil)
	staleDesc    = prometheus.NewDesc(prefix+"expired_bindings", "Bindings of grants that are over. It must be 0.", nil, nil)
)

// Describe implements prometheus.Collector.
func (g *Grants) Describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- grantsDesc
	descriptions <- requestsDesc
	descriptions <- expiryDesc
	descriptions <- staleDesc
}

// Collect implements prometheus.Collector. What cannot be read is left out: an absent series is an alert of its own.
func (g *Grants) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), collectTimeout)
	defer cancel()
	over, err := g.collectGrants(ctx, out)
	if err != nil {
		return
	}
	g.collectRequests(ctx, out)
	g.collectBindings(ctx, over, out)
}

// unseen is the state of what the operator has not yet seen.
const unseen = "Unseen"

func stateOf(conditions []metav1.Condition) string {
	if ready := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady); ready != nil {
		return ready.Reason
	}
	return unseen
}

// collectRequests shows what was asked for: who waits for an answer cannot be seen by looking at grants.
func (g *Grants) collectRequests(ctx context.Context, out chan<- prometheus.Metric) {
	requests := &v1alpha1.SupportAccessRequestList{}
	if err := g.Reader.List(ctx, requests, client.UnsafeDisableDeepCopy); err != nil {
		return
	}
	states := map[string]float64{}
	for i := range requests.Items {
		states[stateOf(requests.Items[i].Status.Conditions)]++
	}
	for state, count := range states {
		out <- prometheus.MustNewConstMetric(requestsDesc, prometheus.GaugeValue, count, state)
	}
}

// collectGrants shows the grants, and returns which of them are open and not over.
func (g *Grants) collectGrants(ctx context.Context, out chan<- prometheus.Metric) (map[types.NamespacedName]bool, error) {
	grants := &v1alpha1.SupportAccessGrantList{}
	if err := g.Reader.List(ctx, grants, client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	states, open := map[string]float64{}, map[types.NamespacedName]bool{}
	now := g.Clock.Now()
	for i := range grants.Items {
		grant := &grants.Items[i]
		state := stateOf(grant.Status.Conditions)
		states[state]++
		end := grant.Status.ExpirationTime
		open[client.ObjectKeyFromObject(grant)] = grant.Status.EndTime == nil && (end == nil || now.Before(end.Time))
		if state == v1alpha1.StateActive && end != nil {
			out <- prometheus.MustNewConstMetric(expiryDesc, prometheus.GaugeValue, float64(end.Unix()), grant.Namespace, grant.Name)
		}
	}
	for state, count := range states {
		out <- prometheus.MustNewConstMetric(grantsDesc, prometheus.GaugeValue, count, state)
	}
	return open, nil
}

// collectBindings counts the bindings whose grant is over or gone.
func (g *Grants) collectBindings(ctx context.Context, open map[types.NamespacedName]bool, out chan<- prometheus.Metric) {
	bindings, clusterBindings := &rbacv1.RoleBindingList{}, &rbacv1.ClusterRoleBindingList{}
	if err := g.Reader.List(ctx, bindings, client.UnsafeDisableDeepCopy); err != nil {
		return
	}
	if err := g.Reader.List(ctx, clusterBindings, client.UnsafeDisableDeepCopy); err != nil {
		return
	}
	stale := 0.0
	count := func(binding client.Object) {
		if key, ok := access.GrantOf(binding); ok && !open[key] {
			stale++
		}
	}
	for i := range bindings.Items {
		count(&bindings.Items[i])
	}
	for i := range clusterBindings.Items {
		count(&clusterBindings.Items[i])
	}
	out <- prometheus.MustNewConstMetric(staleDesc, prometheus.GaugeValue, stale)
}
