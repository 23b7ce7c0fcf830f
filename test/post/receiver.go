package post

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// Posted is one request that a receiver had.
type Posted struct {
	Header http.Header
	Body   string
}

// Receiver receives webhooks over TLS.
type Receiver struct {
	// URL is where it listens.
	URL string
	// CABundle is by whom its certificate is vouched for.
	CABundle string

	mu     sync.Mutex
	posted []Posted
	answer http.HandlerFunc
}

// StartReceiver starts a receiver and stops it when the test ends.
func StartReceiver(t testing.TB) *Receiver {
	t.Helper()
	certificate := NewCertificate(t)
	r := &Receiver{CABundle: certificate.Bundle}
	server := httptest.NewUnstartedServer(r)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate.Pair}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	r.URL = server.URL + "/hook"
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return r
}

// Answer makes the receiver answer as a function says. Nil is 204.
func (r *Receiver) Answer(f http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = f
}

// Posted are the requests so far.
func (r *Receiver) Posted() []Posted {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Posted(nil), r.posted...)
}

// ServeHTTP implements http.Handler.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, _ := io.ReadAll(request.Body)
	r.mu.Lock()
	r.posted = append(r.posted, Posted{Header: request.Header.Clone(), Body: string(body)})
	answer := r.answer
	r.mu.Unlock()
	if answer != nil {
		answer(w, request)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// Signed reports whether a request was signed with a secret, whsec_ and Base64, as Standard Webhooks says.
func (p Posted) Signed(secret string) bool {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		return false
	}
	mac := hmac.New(sha256.New, key)
	_, _ = io.WriteString(mac, p.Header.Get("webhook-id")+"."+p.Header.Get("webhook-timestamp")+"."+p.Body)
	want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	for signature := range strings.FieldsSeq(p.Header.Get("webhook-signature")) {
		if hmac.Equal([]byte(signature), []byte(want)) {
			return true
		}
	}
	return false
}
