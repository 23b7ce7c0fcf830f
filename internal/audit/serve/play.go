package serve

import (
	"errors"
	"net/http"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/cast"
)

// play answers with a recording, as an asciicast.
func (h *Handler) play(w http.ResponseWriter, r *http.Request, query audit.Query) {
	began := false
	err := cast.Play(r.Context(), h.Reader, query, writerFunc(func(p []byte) (int, error) {
		if !began {
			w.Header().Set("Content-Type", cast.MediaType)
			began = true
		}
		return w.Write(p)
	}))
	switch {
	case err == nil:
	case began:
		h.Logger.Error(err, "Could not play a recording to its end", "auditID", query.Recording)
		// Who gets half of it must not take it for the whole.
		panic(http.ErrAbortHandler)
	case errors.Is(err, cast.ErrNone):
		http.Error(w, "there is no recording with this number, or it is not of this namespace, or it was removed as old", http.StatusNotFound)
	default:
		h.unavailable(w, err, "read the recording")
	}
}

// writerFunc is a writer that is a function.
type writerFunc func(p []byte) (int, error)

// Write calls the function.
func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
