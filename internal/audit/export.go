package audit

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"supportaccess.dev/operator/internal/audit/chain"
)

// Reader is where entries are read.
type Reader interface {
	Load(ctx context.Context) (*Standing, error)
	// Stub returns what entries that were removed have left, nil if none were.
	Stub(ctx context.Context) (*Stub, error)
	// Lines returns entries in their order, from a number to another, both included, as many as it likes but one at least.
	Lines(ctx context.Context, from, to int64) ([]Line, error)
	// Checkpoints returns those that are kept, from a size to another, both included.
	Checkpoints(ctx context.Context, from, to int64) ([]Milestone, error)
	Finder
	tlog.HashReader
}

// Finder is where entries are found.
type Finder interface {
	// Find returns the entries that a query asks for.
	Find(ctx context.Context, q Query) (Page, error)
}

// Line is an entry as it is kept.
type Line struct {
	Seq  int64
	Text []byte
}

// Milestone is a checkpoint that is kept, and of how many entries it is.
type Milestone struct {
	Size       int64
	Checkpoint string
}

// Query says which entries are asked for. What is empty asks for nothing in particular.
type Query struct {
	Type     Type
	Source   string
	Grant    Grant
	Engineer string
	Case     string
	// Namespace is where something was done, or which grant allowed it.
	Namespace string
	Verb      string
	Resource  string
	Section   Section
	Outcome   Outcome
	// Recording is the number of a request: of its stream the pieces, and the end. Pieces are found by who asks so, or for
	// their type, and by nobody else.
	Recording string
	// Text is a piece of the URI, the command, the cause or the message, capital letters being as small ones.
	Text string
	// From and To bound the time: From is included, To is not.
	From, To time.Time
	// Below and Above are numbers between which entries are looked for, neither included. Zero bounds nothing.
	Below, Above int64
	// Limit is how many are returned at most.
	Limit int
}

// SkipsPieces says that a query does not ask for pieces of recordings.
func (q *Query) SkipsPieces() bool { return q.Type == "" && q.Recording == "" }

// Page is what was found, the newest first.
type Page struct {
	Lines []Line
	// Next is what Below is for the page that follows; 0 if there is nothing left to look through.
	Next int64
}

// ExportKind is how the first line of an export names itself.
const ExportKind = "AuditLogExport"

// ExportHeader is the first line of an export.
type ExportHeader struct {
	Kind    string `json:"kind"`
	Version int    `json:"version"`
	// Origin names the log.
	Origin string `json:"origin"`
	// Size is how many entries the log had when it was exported.
	Size int64 `json:"size"`
	// Whole says that every entry follows. Otherwise some do, each with the proof that it is of this log.
	Whole bool `json:"whole"`
	// Stub is what entries that were removed have left.
	Stub *Stub `json:"stub,omitempty"`
}

// ExportMark is a line of an export that is no entry.
type ExportMark struct {
	// Checkpoint is signed. Where all entries are, it is of those above it; where some are, it is the newest.
	Checkpoint string `json:"checkpoint,omitempty"`
	// Proof is that the entry above it is of this log.
	Proof *Proof `json:"proof,omitempty"`
}

// Proof is how the hash of an entry leads to the hash over all.
type Proof struct {
	Seq    int64       `json:"seq"`
	Hashes []tlog.Hash `json:"hashes"`
}

// ErrEmpty is the answer where nothing was ever written.
var ErrEmpty = errors.New("the audit log is empty")

// Export writes every entry as it is kept, with checkpoints, so that whoever has the log's public key can check that
// nothing is missing and nothing was changed. What is appended meanwhile is not in it.
func Export(ctx context.Context, w io.Writer, s Reader) error {
	x, err := newExport(ctx, w, s)
	if err != nil {
		return err
	}
	first := int64(1)
	if x.header.Stub, err = s.Stub(ctx); err != nil {
		return err
	}
	if x.header.Stub != nil {
		first = x.header.Stub.Through + 1
	}
	x.header.Whole = true
	x.put(x.header)
	for seq := first; seq <= x.standing.Size && x.err == nil; {
		lines, err := s.Lines(ctx, seq, x.standing.Size)
		if err != nil {
			return err
		}
		if len(lines) == 0 {
			// That something is missing is for who verifies to say.
			break
		}
		last := lines[len(lines)-1].Seq
		milestones, err := s.Checkpoints(ctx, seq, min(last, x.standing.Size-1))
		if err != nil {
			return err
		}
		x.page(lines, milestones)
		seq = last + 1
	}
	return x.end()
}

// page writes lines, and each checkpoint after the entries that it is of.
func (x *export) page(lines []Line, milestones []Milestone) {
	for _, line := range lines {
		x.line(line.Text)
		for len(milestones) > 0 && milestones[0].Size <= line.Seq {
			x.put(ExportMark{Checkpoint: milestones[0].Checkpoint})
			milestones = milestones[1:]
		}
	}
}

// ExportFound writes the entries that a query asks for, the newest first, each with the proof that it is of this log.
func ExportFound(ctx context.Context, w io.Writer, s Reader, q Query) error {
	x, err := newExport(ctx, w, s)
	if err != nil {
		return err
	}
	x.put(x.header)
	x.put(ExportMark{Checkpoint: x.standing.Checkpoint})
	if q.Below == 0 || q.Below > x.standing.Size {
		q.Below = x.standing.Size + 1
	}
	err = Each(ctx, s, q, func(line Line) error {
		proof, err := tlog.ProveRecord(x.standing.Size, line.Seq-1, s)
		if err != nil {
			return fmt.Errorf("prove that entry %d is of the log: %w", line.Seq, err)
		}
		x.line(line.Text)
		x.put(ExportMark{Proof: &Proof{Seq: line.Seq, Hashes: proof}})
		return x.err
	})
	if err != nil {
		return err
	}
	return x.flush()
}

// Each does something with every entry that a query asks for, as it is kept, page by page, the newest first.
func Each(ctx context.Context, s Finder, q Query, do func(Line) error) error {
	for {
		found, err := s.Find(ctx, q)
		if err != nil {
			return err
		}
		for _, line := range found.Lines {
			if err := do(line); err != nil {
				return err
			}
		}
		if found.Next == 0 {
			return nil
		}
		q.Below = found.Next
	}
}

// EachEntry does something with every entry that a query asks for, page by page, the newest first.
func EachEntry(ctx context.Context, s Finder, q Query, do func(*Entry) error) error {
	return Each(ctx, s, q, func(line Line) error {
		e := &Entry{}
		if err := json.Unmarshal(line.Text, e); err != nil {
			return fmt.Errorf("read entry %d: %w", line.Seq, err)
		}
		return do(e)
	})
}

// export writes lines, and remembers the first error.
type export struct {
	w        *bufio.Writer
	standing *Standing
	header   ExportHeader
	err      error
}

func newExport(ctx context.Context, w io.Writer, s Reader) (*export, error) {
	standing, err := s.Load(ctx)
	if err != nil {
		return nil, err
	}
	if standing == nil {
		return nil, ErrEmpty
	}
	seal, err := chain.Open(standing.Checkpoint, nil)
	if err != nil {
		return nil, err
	}
	header := ExportHeader{Kind: ExportKind, Version: 1, Origin: seal.Origin, Size: standing.Size}
	return &export{w: bufio.NewWriterSize(w, 1<<16), standing: standing, header: header}, nil
}

func (x *export) put(value any) {
	text, err := json.Marshal(value)
	if err != nil {
		x.err = errors.Join(x.err, err)
		return
	}
	x.line(text)
}

func (x *export) line(text []byte) {
	if x.err == nil {
		_, x.err = x.w.Write(append(text, '\n'))
	}
}

// end writes the newest checkpoint.
func (x *export) end() error {
	x.put(ExportMark{Checkpoint: x.standing.Checkpoint})
	return x.flush()
}

func (x *export) flush() error {
	if x.err == nil {
		x.err = x.w.Flush()
	}
	if x.err != nil {
		return fmt.Errorf("write the export: %w", x.err)
	}
	return nil
}
