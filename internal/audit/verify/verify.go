// Package verify knows how to find out whether an audit log is as it was written. It needs the log's public key, better
// also a checkpoint that was kept elsewhere, and nobody's help.
package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/chain"
)

// Options are what an auditor brings along.
type Options struct {
	// Keys are the public keys of the log. Without any those that the log itself names are taken, which proves that the log
	// is of one piece, and not whose it is.
	Keys []string
	// Checkpoints are signed ones that were kept elsewhere: by them a log that was rolled back or written anew is found out.
	Checkpoints []string
}

// Report says what was found to be in order.
type Report struct {
	Origin string `json:"origin"`
	// Whole says that every entry was looked at, and not some with their proofs.
	Whole bool `json:"whole"`
	// Entries is how many there are, First and Last their numbers.
	Entries int64 `json:"entries"`
	First   int64 `json:"first,omitempty"`
	Last    int64 `json:"last,omitempty"`
	// Size and Root are what the newest checkpoint says.
	Size int64  `json:"size"`
	Root string `json:"root"`
	// SignedBy are the keys whose signature is on it.
	SignedBy []string `json:"signedBy"`
	// OwnKeys says that nobody but the log itself vouches for these keys.
	OwnKeys bool `json:"ownKeys,omitempty"`
	// Checkpoints is how many agree, those that were brought along included.
	Checkpoints int `json:"checkpoints"`
	// Removed is how many entries were removed because they were old.
	Removed int64 `json:"removed,omitempty"`
	// Notes are what an auditor should know all the same.
	Notes []string `json:"notes,omitempty"`
}

// Kind is what is wrong with a log.
type Kind string

const (
	// Malformed is that a line is no line of a log.
	Malformed Kind = "Malformed"
	// Changed is that an entry is not as it was written.
	Changed Kind = "Changed"
	// Missing is that entries are not there which others follow.
	Missing Kind = "Missing"
	// Reordered is that entries are not in their places, or twice there.
	Reordered Kind = "Reordered"
	// Truncated is that the end is not there.
	Truncated Kind = "Truncated"
	// RolledBack is that it is an older copy of the log, or that its end was taken off, checkpoint and all.
	RolledBack Kind = "RolledBack"
	// Forked is that it is not the log of which a checkpoint was taken, although it is of one piece.
	Forked Kind = "Forked"
	// Unsigned is that nobody who is trusted has signed it.
	Unsigned Kind = "Unsigned"
)

// Fault is the first thing that is wrong with a log.
type Fault struct {
	Kind Kind `json:"kind"`
	// Seq is the first entry that is bad, 0 if none can be named.
	Seq int64 `json:"seq,omitempty"`
	// Through is set where the first bad one can only be said to be one of these: from Seq to this.
	Through int64 `json:"through,omitempty"`
	// Message says it in a sentence.
	Message string `json:"message"`
}

// Error returns the kind and the message.
func (f *Fault) Error() string { return string(f.Kind) + ": " + f.Message }

// Log reads an export and says whether it is in order. What is wrong with it is a Fault; another error is that it could not
// be read.
func Log(r io.Reader, o Options) (*Report, error) {
	known, err := chain.Verifiers(o.Keys)
	if err != nil {
		return nil, err
	}
	v := &verifier{
		lines: newLines(r), known: known, keys: slices.Clone(o.Keys), tree: &chain.Tree{}, cuts: map[int64]string{}, report: &Report{},
	}
	if v.brought, err = bring(o, known); err != nil {
		return nil, err
	}
	if err := v.begin(); err != nil {
		return nil, err
	}
	if !v.header.Whole {
		return v.some()
	}
	return v.whole()
}

// bring reads the checkpoints that an auditor has kept, by their size.
func bring(o Options, known note.Verifiers) (map[int64]chain.Seal, error) {
	brought := map[int64]chain.Seal{}
	for _, text := range o.Checkpoints {
		seal, err := chain.Open(text, known)
		if err != nil {
			return nil, err
		}
		if len(o.Keys) > 0 && len(seal.Known) == 0 {
			return nil, fmt.Errorf("the checkpoint of %d entries that was kept elsewhere is signed by %s: give that key, too, if you trust it",
				seal.Tree.N, strings.Join(seal.Unknown, ", "))
		}
		if other, twice := brought[seal.Tree.N]; twice && other.Checkpoint != seal.Checkpoint {
			return nil, fmt.Errorf("two checkpoints of %d entries that were kept elsewhere differ: the log was written twice", seal.Tree.N)
		}
		brought[seal.Tree.N] = seal
	}
	return brought, nil
}

// begin reads the header.
func (v *verifier) begin() error {
	line, err := v.lines.next()
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if json.Unmarshal(line, &v.header) != nil || v.header.Kind != audit.ExportKind {
		return &Fault{Kind: Malformed, Message: `the first line is not that of an export, {"kind":"` + audit.ExportKind + `",…}`}
	}
	if v.header.Version != 1 {
		return fmt.Errorf("the export is of version %d, known is 1", v.header.Version)
	}
	v.report.Origin, v.report.Whole = v.header.Origin, v.header.Whole
	return nil
}
