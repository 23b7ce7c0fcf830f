package gateway

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// counters count what passes the gateway. None of them names a person or a grant.
type counters struct {
	requests, refused, cuts, reviews *prometheus.CounterVec
}

// newCounters registers the counters of the gateway. open says how many connections there are.
func newCounters(registry prometheus.Registerer, open, stale func() float64) (*counters, error) {
	c := &counters{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "support_access_gateway_requests_total", Help: "Requests of engineers that were answered, by verb and status code.",
		}, []string{"verb", "code"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "support_access_gateway_denied_total", Help: "Requests that were not let through, by what they failed at.",
		}, []string{"reason"}),
		cuts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "support_access_gateway_cut_connections_total", Help: "Connections that were ended by the gateway, by how the grant ended.",
		}, []string{"reason"}),
		reviews: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "support_access_gateway_reviews_total", Help: "Changes about which the API server asked, by what it was told.",
		}, []string{"outcome"}),
	}
	for _, collector := range []prometheus.Collector{
		c.requests, c.refused, c.cuts, c.reviews,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "support_access_gateway_connections", Help: "Connections of engineers that are open.",
		}, open),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "support_access_gateway_knowledge_age_seconds", Help: "For how long the API server has said nothing of grants.",
		}, stale),
	} {
		if err := registry.Register(collector); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *counters) denied(reason string) {
	if c != nil {
		c.refused.WithLabelValues(reason).Inc()
	}
}

func (c *counters) completed(verb string, status int) {
	if c != nil {
		c.requests.WithLabelValues(verb, strconv.Itoa(status)).Inc()
	}
}

func (c *counters) cut(reason string, connections int) {
	if c != nil {
		c.cuts.WithLabelValues(reason).Add(float64(connections))
	}
}

func (c *counters) reviewed(outcome string) {
	if c != nil {
		c.reviews.WithLabelValues(outcome).Inc()
	}
}
