package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"supportaccess.dev/operator/internal/skew"
)

const (
	// watchTime is for how long one watch of the gateway lasts: so often the API server must show that it is still there.
	watchTime = 5 * time.Second
	// staleAfter is after how long without a word what is known counts as out of date: nothing new is let in.
	staleAfter = 15 * time.Second
	// blindAfter is after how long without a word everything that is open is cut.
	blindAfter = 60 * time.Second
	// maxSkew is by how much the gateway's clock may differ from the API server's.
	maxSkew = 5 * time.Second
)

// Hearing knows when the API server was last heard of, for each kind that is watched, and by how much the clocks differ.
//
// A watch that is silent may be one in which nothing happens, or one that nobody sends on any more. So each is made
// short, and made again from where it stood: that it can be is the proof that the API server was there until then.
type Hearing struct {
	clock clock.PassiveClock

	mu    sync.Mutex
	heard map[string]time.Time
	skew  time.Duration
}

// Hear has the API server listened to, on the way of the configuration from which a cache is fed.
func Hear(config *rest.Config, clock clock.PassiveClock) *Hearing {
	h := &Hearing{clock: clock, heard: map[string]time.Time{}}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return &ear{Hearing: h, next: next}
	})
	return h
}

// ear is one way on which is listened.
type ear struct {
	*Hearing
	next http.RoundTripper
}

// RoundTrip sends a request of the gateway's own and notes when it is answered.
func (h *ear) RoundTrip(r *http.Request) (*http.Response, error) {
	watch := r.Method == http.MethodGet && isWatch(r)
	if watch {
		r = r.Clone(r.Context())
		query := r.URL.Query()
		query.Set("timeoutSeconds", strconv.Itoa(int(watchTime/time.Second)))
		r.URL.RawQuery = query.Encode()
	}
	response, err := h.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	h.compare(response)
	if watch && response.StatusCode == http.StatusOK {
		h.hear(r.URL.Path)
		response.Body = &heardBody{ReadCloser: response.Body, heard: func() { h.hear(r.URL.Path) }}
	}
	return response, nil
}

// WrappedRoundTripper lets client-go see what is wrapped.
func (h *ear) WrappedRoundTripper() http.RoundTripper { return h.next }

func isWatch(r *http.Request) bool {
	said := r.URL.Query().Get("watch")
	return said == "true" || said == "1"
}

func (h *Hearing) hear(path string) {
	now := h.clock.Now()
	h.mu.Lock()
	h.heard[path] = now
	h.mu.Unlock()
}

// compare notes by how much the API server's clock differs. It says whole seconds.
func (h *Hearing) compare(response *http.Response) {
	date, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		return
	}
	now := h.clock.Now()
	by := skew.Between(now, now, date).Abs()
	h.mu.Lock()
	h.skew = by
	h.mu.Unlock()
}

// age returns for how long nothing was heard of the kind that has been silent longest.
func (h *Hearing) age() time.Duration {
	now := h.clock.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	var oldest time.Duration
	for _, at := range h.heard {
		oldest = max(oldest, now.Sub(at))
	}
	return oldest
}

// Stale says why nothing may be let in, empty while all is well.
func (h *Hearing) Stale() string {
	age := h.age()
	h.mu.Lock()
	kinds, apart := len(h.heard), h.skew
	h.mu.Unlock()
	switch {
	case kinds == 0:
		return "the gateway does not know the grants yet"
	case age > staleAfter:
		return fmt.Sprintf("the gateway has heard nothing of grants for %s", age.Truncate(time.Second))
	case apart > maxSkew:
		return fmt.Sprintf("the gateway's clock and the API server's differ by %s", apart.Truncate(time.Second))
	default:
		return ""
	}
}

// blind reports whether what is open must be cut: nobody knows any more whether it may be.
func (h *Hearing) blind() bool { return h.age() > blindAfter }

// heardBody is the answer to a watch: with every byte of it the API server was heard of.
type heardBody struct {
	io.ReadCloser
	heard func()
}

// Read reads a part of the answer.
func (b *heardBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 || err == io.EOF {
		b.heard()
	}
	return n, err
}
