package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// errCut ends what is being written to a client whose grant is over.
var errCut = errors.New("the grant is over")

// notOpen says that a grant is not open, and why.
func notOpen(s *standing, why *end) *refusal {
	return &refusal{
		code: http.StatusForbidden, reason: string(metav1.StatusReasonForbidden),
		message: fmt.Sprintf("support access: grant %s is not open: %s: %s", s.key, why.reason, why.message),
	}
}

// unknownCredential is all that somebody learns who comes with a credential that is nobody's.
func unknownCredential() *refusal {
	return &refusal{code: http.StatusUnauthorized, reason: string(metav1.StatusReasonUnauthorized), message: "Unauthorized"}
}

func forbidden(s *standing, rule string) *refusal {
	return &refusal{
		code: http.StatusForbidden, reason: string(metav1.StatusReasonForbidden),
		message: fmt.Sprintf("support access: grant %s does not allow this: %s", s.key, rule),
	}
}

func tooMany(n int) *refusal {
	return &refusal{
		code: http.StatusTooManyRequests, reason: string(metav1.StatusReasonTooManyRequests),
		message: fmt.Sprintf("support access: you have %d connections open, as many as the policy allows: close one", n),
	}
}

func unavailable(message string) *refusal {
	return &refusal{
		code: http.StatusServiceUnavailable, reason: string(metav1.StatusReasonServiceUnavailable),
		message: "support access: " + message,
	}
}

// answer writes a refusal as the API server writes its own. An unknown client is not kept on the line.
func answer(w http.ResponseWriter, r *refusal) {
	body, err := json.Marshal(statusOf(r))
	if err != nil {
		http.Error(w, http.StatusText(r.code), r.code)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	switch r.code {
	case http.StatusUnauthorized, http.StatusBadRequest:
		header.Set("Connection", "close")
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		header.Set("Retry-After", "1")
	}
	w.WriteHeader(r.code)
	_, _ = w.Write(body)
}
