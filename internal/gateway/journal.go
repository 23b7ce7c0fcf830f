package gateway

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/utils/clock"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/audit"
	changes "supportaccess.dev/operator/internal/audit/change"
)

// journal puts on record what engineers do.
type journal struct {
	log     audit.Log
	clock   clock.PassiveClock
	replica string
	logger  logr.Logger
	// ends has an item for each end of a read that is under way to the log. Where it is full the client waits.
	ends chan struct{}
	once sync.Once
	// masker hides what looks secret in commands.
	masker *changes.Masker
	// sections are those of products' own kinds.
	sections *sections
	// changes says that each change is on record, too: then the end of a request says what became of them.
	changes atomic.Bool
}

const maxEnds = 1024

func newJournal(o *Options, masker *changes.Masker, sections *sections) *journal {
	return &journal{log: o.Log, clock: o.Clock, replica: o.Replica, logger: o.Logger, masker: masker, sections: sections, ends: make(chan struct{}, maxEnds)}
}

// flush returns when every end is on record, or could not be. What ends later is waited for where it ends.
func (j *journal) flush() {
	j.once.Do(func() {
		for range maxEnds {
			j.ends <- struct{}{}
		}
	})
}

// Bounds of what an entry repeats of a request.
const (
	maxURI     = 4 << 10
	maxAgent   = 512
	maxCommand = 4 << 10
	maxMessage = 4 << 10
	// recordTime bounds how long the end of a request may wait to be recorded.
	recordTime = 10 * time.Second
)

// Received records a request that is let through, before it is, and one that is refused, before the client hears of it.
func (j *journal) Received(ctx context.Context, x *exchange, decided *refusal) error {
	entry := j.entry(x)
	entry.Stage = auditv1.StageRequestReceived
	if decided != nil {
		entry.Stage = auditv1.StageResponseComplete
		status := statusOf(decided)
		status.Message = mark(status.Message, maxMessage)
		entry.ResponseStatus = &status
		entry.DurationMillis = millis(x.elapsed(j.clock.Now()))
	}
	return j.log.Append(ctx, entry)
}

// Started records that a stream has begun.
func (j *journal) Started(ctx context.Context, x *exchange, status int) {
	entry := j.entry(x)
	entry.Stage = auditv1.StageResponseStarted
	entry.ResponseStatus = &metav1.Status{Code: int32(status)} //nolint:gosec // HTTP status codes are three digits.
	j.after(ctx, entry, j.log.Append)
}

// Completed records how a request ended. Of a read the client need not wait for that: what it was answered is known, and
// that it asked is on record. Of a change it does.
func (j *journal) Completed(ctx context.Context, x *exchange, status int) {
	entry := j.entry(x)
	entry.Stage = auditv1.StageResponseComplete
	entry.ResponseStatus = &metav1.Status{Code: int32(status)} //nolint:gosec // HTTP status codes are three digits.
	entry.BytesIn, entry.BytesOut = x.in.Load(), x.out.Load()
	entry.DurationMillis = millis(x.elapsed(j.clock.Now()))
	if j.changes.Load() && changing(x.info) {
		entry.Change = &changes.Change{State: changes.StateOf(status, x.cause.Load() != nil, x.info.Verb == "deletecollection")}
	}
	entry.Recording, entry.Flagged = x.tape.is(), x.flagged
	if why := x.cause.Load(); why != nil {
		entry.Cause = mark(why.reason+": "+why.message, maxMessage)
	}
	if x.longRunning || !slices.Contains(reads, x.info.Verb) {
		j.after(ctx, entry, j.log.Append)
		return
	}
	select {
	case j.ends <- struct{}{}:
		go func() {
			defer func() { <-j.ends }()
			j.after(ctx, entry, j.log.Trail)
		}()
	default:
		j.after(ctx, entry, j.log.Append)
	}
}

// piece returns the entry of a piece of what went over a stream. The first says all that is known of the request.
func (j *journal) piece(x *exchange, n int64, pack []byte) *audit.Entry {
	entry := j.entry(x)
	entry.Type, entry.Stage, entry.Level = audit.TypeRecording, auditv1.StageResponseStarted, auditv1.LevelRequestResponse
	entry.Recording = &audit.Recording{Piece: n, Frames: pack}
	if n > 1 {
		entry.RequestURI, entry.UserAgent, entry.SourceIPs, entry.Command = "", "", nil, nil
	}
	return entry
}

// reads are the verbs of requests that change nothing.
var reads = []string{"get", "list", "head"}

// after records what has already happened. That it began is on record, so nothing is lost but its end; the next request
// that cannot be recorded is refused.
func (j *journal) after(ctx context.Context, entry *audit.Entry, record func(context.Context, *audit.Entry) error) {
	ctx, cancel := context.WithTimeout(ctx, recordTime)
	defer cancel()
	if err := record(ctx, entry); err != nil {
		j.logger.Error(err, "Could not record the end of a request", "auditID", entry.AuditID)
	}
}

func (j *journal) entry(x *exchange) *audit.Entry {
	now := metav1.NewMicroTime(j.clock.Now())
	grant := x.standing.facts.Record.Spec.Grant
	user := authenticationv1.UserInfo{
		Username: access.GatewayUsername(grant, x.engineer), Groups: []string{v1alpha1.EngineersGroup},
	}
	entry := &audit.Entry{
		Event: auditv1.Event{
			TypeMeta:                 metav1.TypeMeta{APIVersion: "audit.k8s.io/v1", Kind: "Event"},
			Level:                    auditv1.LevelMetadata,
			AuditID:                  types.UID(x.id),
			RequestURI:               mark(j.publicURI(x.request.URL), maxURI),
			Verb:                     x.info.Verb,
			User:                     user,
			SourceIPs:                sourceOf(x.request),
			UserAgent:                mark(x.request.UserAgent(), maxAgent),
			RequestReceivedTimestamp: metav1.NewMicroTime(x.received),
			StageTimestamp:           now,
			// Who reads events of Kubernetes knows annotations, and not our labels.
			Annotations: map[string]string{audit.LabelSource: audit.Source},
		},
		Labels:   map[string]string{audit.LabelSource: audit.Source},
		Grant:    audit.Grant{Namespace: grant.Namespace, Name: grant.Name, UID: string(grant.UID)},
		Engineer: x.engineer,
		Case:     x.standing.caseID,
		Replica:  j.replica,
		Command:  j.commandOf(x),
	}
	if x.info.IsResourceRequest {
		entry.ObjectRef = &auditv1.ObjectReference{
			Resource: x.info.Resource, Subresource: x.info.Subresource, Namespace: x.info.Namespace, Name: x.info.Name,
			APIGroup: x.info.APIGroup, APIVersion: x.info.APIVersion,
		}
		entry.Section = j.sections.find(x.info.APIGroup, x.info.Resource)
		if x.flags != nil {
			entry.Section = audit.SectionContent
		}
	}
	return entry
}

// sourceOf returns the address from which a client came. What a client says of itself is no address.
func sourceOf(r *http.Request) []string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return nil
	}
	return []string{host}
}

// publicParameters are the parameters of a query whose values are kept: they say what was looked at. Of the others, which
// a kind may define for itself, only the names are.
var publicParameters = map[string]bool{
	"watch": true, "limit": true, "continue": false, "resourceVersion": true, "resourceVersionMatch": true, "timeoutSeconds": true,
	"allowWatchBookmarks": true, "sendInitialEvents": true, "labelSelector": true, "fieldSelector": true, "pretty": true,
	"container": true, "stdin": true, "stdout": true, "stderr": true, "tty": true, "command": true, "follow": true, "previous": true,
	"sinceSeconds": true, "sinceTime": true, "tailLines": true, "limitBytes": true, "timestamps": true, "insecureSkipTLSVerifyBackend": true,
	"stream": true, "dryRun": true, "fieldManager": true, "fieldValidation": true, "force": true, "propagationPolicy": true,
	"gracePeriodSeconds": true, "orphanDependents": true, "timeout": true, "verbose": true, "exclude": true,
}

// publicURI returns a request's target as it may be kept.
func (j *journal) publicURI(u *url.URL) string {
	query := u.Query()
	if words, ok := query["command"]; ok {
		query["command"] = j.masker.Command(words)
	}
	for name, values := range query {
		if publicParameters[name] {
			continue
		}
		for i := range values {
			values[i] = "-"
		}
	}
	kept := url.URL{Path: u.Path, RawQuery: query.Encode()}
	return kept.RequestURI()
}

// commandOf returns what is to be run in a pod, with what looks secret in it masked.
func (j *journal) commandOf(x *exchange) []string {
	if x.info.Resource != "pods" || x.info.Subresource != "exec" {
		return nil
	}
	var command []string
	left := maxCommand
	for _, word := range j.masker.Command(x.request.URL.Query()["command"]) {
		word = strings.ToValidUTF8(word, "\uFFFD")
		if len(word) > left {
			return append(command, clip(word, left)+cutMark)
		}
		left -= len(word)
		command = append(command, word)
	}
	return command
}

// cutMark ends what was cut.
const cutMark = "…"

// mark cuts a text so that it has at most so many bytes, and says that it did.
func mark(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return clip(text, most-len(cutMark)) + cutMark
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
