// Package audit knows what an entry of the audit log is and how it becomes durable. It knows nothing of grants, gateways or
// what is allowed.
package audit

import (
	"context"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// Source is the word by which admins find what support did.
const Source = "Support"

// LabelSource is under which name an entry carries it.
const LabelSource = "supportaccess.dev/source"

// Entry is one thing that happened, written so that whoever reads an event of audit.k8s.io/v1 can read it: the fields of
// the same name mean the same.
type Entry struct {
	auditv1.Event `json:",inline"`

	// Seq numbers the entries of one log without a gap, from 1. The log gives it, and writes it first in the line.
	Seq int64 `json:"seq,omitempty"`
	// Labels say that support did it.
	Labels map[string]string `json:"labels"`
	// Grant is the grant under which it happened.
	Grant Grant `json:"grant"`
	// Engineer is who did it: a person of the vendor.
	Engineer string `json:"engineer"`
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
}
