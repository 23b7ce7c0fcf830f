package serve

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"supportaccess.dev/operator/internal/audit"
)

const (
	// followEvery is how far who follows may lag behind the log.
	followEvery = time.Second
	// askAgain is how often it is asked again whether who follows still may. A line is written then in any case: who has
	// gone is noticed by it.
	askAgain = 30 * time.Second
	// maxFollowers is how many may follow at once.
	maxFollowers = 32
)

// follow writes entries as they come, a line each, until who follows goes or may not any more.
func (h *Handler) follow(w http.ResponseWriter, r *http.Request, query audit.Query, token string) {
	if h.followers.Add(1) > maxFollowers {
		h.followers.Add(-1)
		http.Error(w, "too many follow the audit log already: ask for pages, with above=", http.StatusServiceUnavailable)
		return
	}
	defer h.followers.Add(-1)
	if query.Above == 0 {
		standing, err := h.Reader.Load(r.Context())
		if err != nil || standing == nil {
			h.unavailable(w, err, "read how the audit log stands")
			return
		}
		query.Above = standing.Size
	}
	w.Header().Set("Content-Type", "application/jsonl")
	ticker := h.Clock.NewTicker(followEvery)
	defer ticker.Stop()
	asked := h.Clock.Now()
	for {
		if err := h.catchUp(r.Context(), w, &query); err != nil {
			h.Logger.V(1).Info("Who follows the audit log is not told any more", "error", err.Error())
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-ticker.C():
		}
		if h.Clock.Since(asked) < askAgain {
			continue
		}
		asked = h.Clock.Now()
		if !h.stillMay(r.Context(), token, query.Namespace) {
			return
		}
		if _, err := w.Write([]byte("\n")); err != nil {
			return
		}
	}
}

// catchUp writes what has come, the oldest first, and notes how far it came.
func (h *Handler) catchUp(ctx context.Context, w http.ResponseWriter, query *audit.Query) error {
	var found []audit.Line
	err := audit.Each(ctx, h.Reader, *query, func(line audit.Line) error {
		found = append(found, line)
		return nil
	})
	if err != nil {
		return fmt.Errorf("find entries: %w", err)
	}
	slices.Reverse(found)
	for _, line := range found {
		if _, err := w.Write(append(line.Text, '\n')); err != nil {
			return err
		}
		query.Above = line.Seq
	}
	return http.NewResponseController(w).Flush()
}

// stillMay asks again whose token it is and what they may: rights that were taken away end what is open.
func (h *Handler) stillMay(ctx context.Context, token, namespace string) bool {
	who, err := h.Guard.Identify(ctx, token)
	if err != nil || who == nil {
		return false
	}
	may, err := h.Guard.MayRead(ctx, who, namespace)
	return err == nil && may
}
