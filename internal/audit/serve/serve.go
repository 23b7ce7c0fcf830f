// Package serve knows how the audit log is read over HTTP: by whom the API server knows and lets, and not before it is put
// down that they do. It knows no store, and changes nothing.
package serve

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/go-logr/logr"
	"github.com/google/uuid"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/utils/clock"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/export"
)

// Journal puts down that somebody reads.
type Journal interface {
	Read(ctx context.Context, r audit.Reading) error
}

// Guard says who somebody is and what they may read.
type Guard interface {
	// Identify returns whose token it is, nil if it is nobody's.
	Identify(ctx context.Context, token string) (*authenticationv1.UserInfo, error)
	// MayRead says whether somebody may read what concerns a namespace, or with none everything.
	MayRead(ctx context.Context, who *authenticationv1.UserInfo, namespace string) (bool, error)
}

// Handler answers who reads the log.
type Handler struct {
	Reader  audit.Reader
	Journal Journal
	Guard   Guard
	// Clock says when who follows is told, and asked again.
	Clock  clock.WithTicker
	Logger logr.Logger

	followers atomic.Int32
}

// Page is what GET /v1/entries answers.
type Page struct {
	// Entries are as they are kept, the newest first.
	Entries []json.RawMessage `json:"entries"`
	// Next is what below is for the page that follows; absent if there is none.
	Next int64 `json:"next,omitempty"`
}

// The paths. What proves something is for everybody the API server knows; what tells something is for who may read.
const (
	pathEntries    = "/v1/entries"
	pathExport     = "/v1/export"
	pathRecordings = "/v1/recordings/"
	pathCheckpoint = "/v1/checkpoint"
	pathKeys       = "/v1/keys"
)

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet {
		http.Error(w, "the audit log is read with GET", http.StatusMethodNotAllowed)
		return
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || token == "" {
		http.Error(w, "give a token of yours: Authorization: Bearer …", http.StatusUnauthorized)
		return
	}
	who, err := h.Guard.Identify(r.Context(), token)
	switch {
	case err != nil:
		h.unavailable(w, err, "ask the API server whose token it is")
	case who == nil:
		http.Error(w, "the API server does not know this token", http.StatusUnauthorized)
	case r.URL.Path == pathCheckpoint || r.URL.Path == pathKeys:
		h.prove(w, r)
	case r.URL.Path == pathEntries || r.URL.Path == pathExport || strings.HasPrefix(r.URL.Path, pathRecordings):
		h.read(w, r, who, token)
	default:
		http.Error(w, "there are "+strings.Join([]string{pathEntries, pathExport, pathRecordings + "ID", pathCheckpoint, pathKeys}, ", "), http.StatusNotFound)
	}
}

// prove answers with what the log says of itself. Nobody's doing is in it, so it is not put down.
func (h *Handler) prove(w http.ResponseWriter, r *http.Request) {
	standing, err := h.Reader.Load(r.Context())
	if err == nil && standing == nil {
		err = audit.ErrEmpty
	}
	if err != nil {
		h.unavailable(w, err, "read how the audit log stands")
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	text := standing.Checkpoint
	if r.URL.Path == pathKeys {
		text = strings.Join(standing.Keys, "\n") + "\n"
	}
	_, _ = w.Write([]byte(text))
}

// asked is what is asked for.
type asked struct {
	audit.Query
	format  string
	follows bool
	// plays says that a recording is asked for, as an asciicast.
	plays bool
}

// ask reads what is asked for.
func ask(r *http.Request) (asked, error) {
	values := r.URL.Query()
	a := asked{format: values.Get("format"), follows: values.Get("follow") == "true"}
	switch r.URL.Path {
	case pathExport:
		values.Del("format")
	case pathEntries:
		if word := values.Get("follow"); values.Has("follow") && word != "true" && word != "false" {
			return a, errors.New("follow: it is true or false")
		}
		values.Del("follow")
	}
	if r.URL.Path == pathExport && a.format != "" {
		if err := audit.CheckFormat(a.format); err != nil {
			return a, err
		}
	}
	var err error
	if a.Query, err = audit.ParseQuery(values); err != nil {
		return a, err
	}
	if id, ok := strings.CutPrefix(r.URL.Path, pathRecordings); ok {
		if a.Query != (audit.Query{Namespace: a.Namespace}) {
			return a, errors.New("a recording is asked for by its number, and with namespace: nothing else finds a part of one")
		}
		a.Recording, a.plays = id, true
	}
	return a, nil
}

// read answers with entries.
func (h *Handler) read(w http.ResponseWriter, r *http.Request, who *authenticationv1.UserInfo, token string) {
	query, err := ask(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	may, err := h.Guard.MayRead(r.Context(), who, query.Namespace)
	if err != nil {
		h.unavailable(w, err, "ask the API server whether you may")
		return
	}
	if !may {
		http.Error(w, refusal(query.Namespace), http.StatusForbidden)
		return
	}
	if err := h.Journal.Read(r.Context(), reading(r, who, query.Namespace)); err != nil {
		h.unavailable(w, err, "put down that you read")
		return
	}
	switch {
	case r.URL.Path == pathExport:
		h.export(w, r, query.Query, query.format)
	case query.plays:
		h.play(w, r, query.Query)
	case query.follows:
		h.follow(w, r, query.Query, token)
	default:
		h.page(w, r, query.Query)
	}
}

// refusal says what is missing.
func refusal(namespace string) string {
	const right = `it takes the verb get on supportaccessrecords/log of supportaccess.dev`
	if namespace == "" {
		return "you may not read the whole audit log: " + right + " in the cluster; or ask for one namespace, with ?namespace="
	}
	return "you may not read the audit log of namespace " + namespace + ": " + right + " there"
}

func reading(r *http.Request, who *authenticationv1.UserInfo, namespace string) audit.Reading {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = ""
	}
	return audit.Reading{
		ID: uuid.NewString(), User: *who, Namespace: namespace, URI: r.URL.RequestURI(), Address: host, Agent: r.UserAgent(),
	}
}

// page answers with one page of entries.
func (h *Handler) page(w http.ResponseWriter, r *http.Request, query audit.Query) {
	found, err := h.Reader.Find(r.Context(), query)
	if err != nil {
		h.unavailable(w, err, "find entries")
		return
	}
	page := Page{Entries: make([]json.RawMessage, len(found.Lines)), Next: found.Next}
	for i, line := range found.Lines {
		page.Entries[i] = line.Text
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(page); err != nil {
		h.Logger.V(1).Info("Who reads the audit log has gone", "error", err.Error())
	}
}

// export answers with an export: the whole log for who asks for nothing in particular.
func (h *Handler) export(w http.ResponseWriter, r *http.Request, query audit.Query, format string) {
	w.Header().Set("Content-Type", "application/jsonl")
	if format == "csv" {
		w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	}
	if err := export.Write(r.Context(), w, h.Reader, query, format); err != nil {
		h.Logger.Error(err, "Could not export the audit log")
		// Who gets half of it must not take it for the whole.
		panic(http.ErrAbortHandler)
	}
}

// unavailable says that something did not work, and to the log what.
func (h *Handler) unavailable(w http.ResponseWriter, err error, what string) {
	h.Logger.Error(err, "Could not let the audit log be read", "step", what)
	http.Error(w, "could not "+what, http.StatusServiceUnavailable)
}
