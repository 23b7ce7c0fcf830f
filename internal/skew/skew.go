// Package skew compares this process's clock with the API server's. Grants end by our clock, tokens by the API server's: when
// the two are apart, one of them ends access at another instant than the grant says.
package skew

import (
	"net/http"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// Limit is how far the clocks may be apart before somebody is told.
const Limit = 2 * time.Second

// Watch compares the clocks with every answer of the API server.
type Watch struct {
	// Clock is ours.
	Clock clock.PassiveClock

	mu    sync.Mutex
	by    time.Duration
	apart bool
	tell  func(apart bool, by time.Duration)
}

// Tell has somebody told when the clocks come to be apart, and when they no longer are; at once if they are. It must not
// wait.
func (w *Watch) Tell(tell func(apart bool, by time.Duration)) {
	w.mu.Lock()
	w.tell = tell
	apart, by := w.apart, w.by
	w.mu.Unlock()
	if apart {
		tell(apart, by)
	}
}

// Wrap returns a transport that compares the clocks with the answers of another.
func (w *Watch) Wrap(next http.RoundTripper) http.RoundTripper {
	return transport{watch: w, next: next}
}

// By returns by how much our clock is ahead of the API server's at least; negative means behind. Zero means that no
// difference is certain: an answer says the time in whole seconds, and took a while.
func (w *Watch) By() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.by
}

type transport struct {
	watch *Watch
	next  http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t transport) RoundTrip(request *http.Request) (*http.Response, error) {
	asked := t.watch.Clock.Now()
	response, err := t.next.RoundTrip(request)
	if err != nil {
		return response, err
	}
	if said, err := http.ParseTime(response.Header.Get("Date")); err == nil {
		t.watch.compare(asked, t.watch.Clock.Now(), said)
	}
	return response, nil
}

// compare takes in that the API server said an instant between two of ours.
func (w *Watch) compare(asked, answered, said time.Time) {
	by := Between(asked, answered, said)
	apart := by.Abs() > Limit
	w.mu.Lock()
	changed := apart != w.apart
	w.by, w.apart = by, apart
	tell := w.tell
	w.mu.Unlock()
	if changed && tell != nil {
		tell(apart, by)
	}
}

// Between returns by how much our clock is ahead at least, if the API server said an instant after we asked and before we
// had the answer. What it says is rounded down to the second.
func Between(asked, answered, said time.Time) time.Duration {
	if ahead := asked.Sub(said.Add(time.Second)); ahead > 0 {
		return ahead
	}
	if behind := answered.Sub(said); behind < 0 {
		return behind
	}
	return 0
}
