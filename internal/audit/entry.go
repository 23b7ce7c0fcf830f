// Package audit knows what an entry of the audit log is and how it becomes durable. It knows nothing of grants, gateways or
// what is allowed.
package audit

import (
	"cmp"
	"context"
	"strings"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"supportaccess.dev/operator/internal/audit/change"
)

// Source is the word by which admins find what support did.
const Source = "Support"

// SourceLog is the word for what was done with the log itself: its keys, what was removed, and who read it.
const SourceLog = "AuditLog"

// LabelSource is under which name an entry carries it.
const LabelSource = "supportaccess.dev/source"

// Entry is one thing that happened, written so that whoever reads an event of audit.k8s.io/v1 can read it: the fields of
// the same name mean the same.
type Entry struct {
	// Type is what an entry is about, empty for a request of an engineer. Whoever verifies a log looks for it in the place
	// where it stands: before all that somebody else could have written.
	Type Type `json:"type,omitempty"`

	auditv1.Event `json:",inline"`

	// Seq numbers the entries of one log without a gap, from 1. The log gives it, and writes it first in the line.
	Seq int64 `json:"seq,omitempty"`
	// PrevHash is the hash of the line before this one, SHA-256 over a zero byte and the line, in base64. The log gives it,
	// and writes it after the number. A log that is just a file has none.
	PrevHash string `json:"prevHash,omitempty"`
	// Labels say who it was: support, or whoever keeps and reads the log.
	Labels map[string]string `json:"labels"`
	// Section is what it was about in an admin's words.
	Section Section `json:"section,omitempty"`
	// Grant is the grant under which it happened. An entry about the log itself has none.
	Grant Grant `json:"grant,omitzero"`
	// Engineer is who did it: a person of the vendor.
	Engineer string `json:"engineer,omitempty"`
	// Case is the support case, empty if there is none.
	Case string `json:"case,omitempty"`
	// Replica is the gateway's pod.
	Replica string `json:"replica,omitempty"`
	// Command is what was to be run in a pod, cut at 4 KiB.
	Command []string `json:"command,omitempty"`
	// Cause is why a stream was ended before its time, in one word and a sentence.
	Cause string `json:"cause,omitempty"`
	// BytesIn and BytesOut are the bytes of the bodies, or of the stream.
	BytesIn  int64 `json:"bytesIn,omitempty"`
	BytesOut int64 `json:"bytesOut,omitempty"`
	// DurationMillis is from when the request came until its answer ended, in milliseconds.
	DurationMillis float64 `json:"durationMillis,omitempty"`
	// Keys are the public keys by which the log's checkpoints are checked from here on. With type Keys.
	Keys []string `json:"keys,omitempty"`
	// Cut says which entries were removed because they were old. With type Cut.
	Cut *Cut `json:"cut,omitempty"`
	// Change is what was about to change, with type Change; at the end of a request what became of that.
	Change *change.Change `json:"change,omitempty"`
	// Recording is what went over a stream, with type Recording; at the end of a request what there is of that.
	Recording *Recording `json:"recording,omitempty"`
	// Flagged says of a request for flagged content whether the object was released, once that is known.
	Flagged Flagged `json:"flagged,omitempty"`
	// Happened is what happened to a grant, a decision or a policy. With type Lifecycle.
	Happened *Happening `json:"happened,omitempty"`
}

// Type is what an entry is about.
type Type string

const (
	// TypeRequest is a request of an engineer.
	TypeRequest Type = ""
	// TypeKeys is that the log is signed by other keys from here on. It is also the first entry of a log.
	TypeKeys Type = "Keys"
	// TypeCut is that old entries were removed.
	TypeCut Type = "Cut"
	// TypeRead is that somebody read the log.
	TypeRead Type = "Read"
)

// Name is the type in one word.
func (t Type) Name() string { return string(cmp.Or(t, "Request")) }

// EventName is the name of such an entry wherever others keep it: dev.supportaccess.audit.request, for example.
func (t Type) EventName() string { return "dev.supportaccess.audit." + strings.ToLower(t.Name()) }

// Flagged is what became of a request for content that is released if it bears a flag.
type Flagged string

const (
	// FlaggedReleased is an object that bore the flag.
	FlaggedReleased Flagged = "Released"
	// FlaggedWithheld is an object that did not, or none.
	FlaggedWithheld Flagged = "Withheld"
)

// Cut says which entries were removed because they were old.
type Cut struct {
	// Through is the number of the last one.
	Through int64 `json:"through"`
	// Root is the hash over all entries up to it, in base64.
	Root string `json:"root"`
}

// Grant identifies a grant.
type Grant struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
}

// MaxLine is how long the line of an entry may be. Whoever makes entries cuts what a client may make long; an entry that is
// too long all the same is not on record, so what it tells of is not done.
const MaxLine = 128 << 10

// Log takes entries.
type Log interface {
	// Append returns when the entry is durable. After an error it is not on record, and what it tells of must not be done.
	Append(ctx context.Context, e *Entry) error
	// Trail is Append for what is over and holds nobody up: it may wait a moment for another entry to become durable with.
	Trail(ctx context.Context, e *Entry) error
}
