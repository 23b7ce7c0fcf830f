package gateway

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestWhoAsksForTheHeadOfAWatchHasAllOfItWithTheHeadAndHoldsNothing(t *testing.T) {
	for _, protocol := range []string{"h2", "http/1.1"} {
		t.Run(protocol, func(t *testing.T) {
			w := open(t)
			g := w.grant("case-1")
			gone := watching(w)
			response, err := w.ask(w.client(protocol), g.token, http.MethodHead, configMaps+"?watch=1")
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			if response.StatusCode != http.StatusOK {
				t.Errorf("the answer is %s", response.Status)
			}
			select {
			case <-gone:
			case <-time.After(patience):
				t.Error("the API server still has the stream")
			}
			eventually(t, "no request is under way", func() bool { return w.underWay() == 0 })
			eventually(t, "the end is on record", func() bool { return strings.Contains(w.log.trail(), "ResponseComplete watch 200") })
		})
	}
}

// underWay returns how many requests the gateway has under way.
func (w *world) underWay() int {
	l, n := w.gateway.connections, 0
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		c.mu.Lock()
		n += len(c.exchanges)
		c.mu.Unlock()
	}
	return n
}
