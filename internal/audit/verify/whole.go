package verify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/chain"
)

// verifier goes through an export once.
type verifier struct {
	lines  *lines
	header audit.ExportHeader
	known  note.Verifiers
	keys   []string
	// brought are the checkpoints that were kept elsewhere and have not been compared yet.
	brought map[int64]chain.Seal
	report  *Report

	tree *chain.Tree
	last tlog.Hash
	// newest is the last of the log's own checkpoints that agreed, kept the size of the last one from elsewhere that did.
	newest chain.Seal
	kept   int64
	// forked is the first checkpoint from elsewhere that does not agree.
	forked *Fault
	// cuts are the roots of what entries say was removed.
	cuts map[int64]string
	// named are keys that the log names, and nobody has vouched for yet.
	named []string
}

// whole looks at every entry.
func (v *verifier) whole() (*Report, error) {
	if stub := v.header.Stub; stub != nil {
		tree, err := chain.NewTree(stub.Through, stub.Edge)
		if err != nil {
			return nil, &Fault{Kind: Malformed, Message: "what removed entries have left is not whole: " + err.Error()}
		}
		v.tree, v.last, v.report.Removed = tree, stub.Last, stub.Through
		v.compare()
		if err := v.checkpoint(stub.Checkpoint); err != nil {
			return nil, err
		}
	}
	for {
		line, err := v.lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = v.line(line)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := v.end(); err != nil {
		return nil, err
	}
	return v.done(), nil
}

func (v *verifier) line(line []byte) error {
	if chain.IsLine(line) {
		return v.entry(line)
	}
	mark := audit.ExportMark{}
	if json.Unmarshal(line, &mark) != nil || mark.Checkpoint == "" {
		seq := v.tree.Size() + 1
		return &Fault{Kind: Changed, Seq: seq, Message: fmt.Sprintf("what stands in the place of entry %d, in line %d, is none", seq, v.lines.number)}
	}
	return v.checkpoint(mark.Checkpoint)
}

// entry takes the next entry, which must be the next one.
func (v *verifier) entry(line []byte) error {
	seq := v.tree.Size() + 1
	link, rest, err := chain.Parse(line)
	if err != nil {
		return &Fault{Kind: Changed, Seq: seq, Message: fmt.Sprintf("entry %d, in line %d, is none: %s", seq, v.lines.number, err)}
	}
	if link.Seq != seq {
		return v.misplaced(seq, link.Seq)
	}
	hash := tlog.RecordHash(line)
	if link.Prev != v.last {
		return v.unchained(seq, hash)
	}
	v.last = hash
	v.tree.Append(hash)
	v.compare()
	if err := v.read(rest); err != nil {
		return &Fault{Kind: Changed, Seq: seq, Message: fmt.Sprintf("entry %d is no entry: %s", seq, err)}
	}
	return nil
}

// misplaced says why there is another number than the one that comes next.
func (v *verifier) misplaced(want, got int64) error {
	if got < want {
		return &Fault{Kind: Reordered, Seq: got, Message: fmt.Sprintf("entry %d stands again after entry %d, in line %d", got, want-1, v.lines.number)}
	}
	follows, later, err := v.lines.look(want)
	switch {
	case err != nil:
		return err
	case later:
		return &Fault{Kind: Reordered, Seq: want, Message: fmt.Sprintf("entry %d does not stand after entry %d, but after %d", want, want-1, got)}
	case follows == want+1:
		return &Fault{Kind: Changed, Seq: want, Message: fmt.Sprintf("what stands in the place of entry %d, in line %d, says that it is %d", want, v.lines.number, got)}
	}
	return v.missing(want, got-1)
}

func (v *verifier) missing(from, to int64) error {
	which := fmt.Sprintf("entry %d is", from)
	if to > from {
		which = fmt.Sprintf("entries %d to %d are", from, to)
	}
	return &Fault{Kind: Missing, Seq: from, Message: which + " missing; others follow"}
}

// unchained says which of two entries was changed, where the second does not name the first. The one that follows them
// knows whether it is the second.
func (v *verifier) unchained(seq int64, hash tlog.Hash) error {
	next, err := v.lines.peek()
	if err != nil {
		return err
	}
	bad := seq - 1
	if next != nil && next.Seq == seq+1 && next.Prev != hash {
		bad = seq
	}
	if bad <= v.report.Removed {
		bad = seq
	}
	return &Fault{Kind: Changed, Seq: bad, Message: fmt.Sprintf("entry %d is not as it was written: entry %d names another hash", bad, max(seq, bad))}
}

// read takes from an entry what the log says of itself. What comes first is the log's own.
func (v *verifier) read(rest []byte) error {
	if !bytes.HasPrefix(rest, []byte(`"type":"`)) {
		return nil
	}
	said := audit.Entry{}
	if err := json.Unmarshal(slices.Concat([]byte("{"), rest), &said); err != nil {
		return err
	}
	if said.Type == audit.TypeCut && said.Cut != nil {
		v.cuts[said.Cut.Through] = said.Cut.Root
	}
	if said.Type != audit.TypeKeys {
		return nil
	}
	v.named = append(v.named, said.Keys...)
	if len(v.keys) > 0 {
		return nil
	}
	v.report.OwnKeys = true
	return v.trust()
}

// trust takes the keys that the log has named for good.
func (v *verifier) trust() error {
	known, err := chain.Verifiers(append(v.keys, v.named...))
	if err != nil {
		return err
	}
	v.keys, v.named, v.known = append(v.keys, v.named...), nil, known
	return nil
}

// checkpoint holds one of the log's own checkpoints against the entries above it.
func (v *verifier) checkpoint(text string) error {
	seal, err := chain.Open(text, v.known)
	if err != nil {
		return &Fault{Kind: Unsigned, Message: fmt.Sprintf("the checkpoint in line %d is not as it was signed: %s", v.lines.number, err)}
	}
	if seal.Origin != v.header.Origin {
		return &Fault{Kind: Forked, Message: fmt.Sprintf("the checkpoint in line %d is of the log %q, the export of %q", v.lines.number, seal.Origin, v.header.Origin)}
	}
	switch size := v.tree.Size(); {
	case seal.Tree.N > size:
		return v.short(size, seal.Tree.N)
	case seal.Tree.N < size:
		return &Fault{Kind: Reordered, Message: fmt.Sprintf("the checkpoint in line %d is of %d entries, and stands after entry %d", v.lines.number, seal.Tree.N, size)}
	case seal.Tree != v.tree.Head():
		return v.rewritten(size)
	}
	v.newest = seal
	v.report.Checkpoints++
	if len(seal.Known) == 0 || len(v.named) == 0 {
		return nil
	}
	// Somebody who is trusted has signed that the log goes on with these keys.
	return v.trust()
}

// short says why there are fewer entries than a checkpoint says.
func (v *verifier) short(size, signed int64) error {
	next, err := v.lines.peek()
	if err != nil {
		return err
	}
	if next != nil && next.Seq <= size+1 {
		return &Fault{Kind: Reordered, Seq: next.Seq, Message: fmt.Sprintf("the checkpoint of %d entries stands after entry %d", signed, size)}
	}
	if next != nil {
		return v.missing(size+1, max(signed, next.Seq-1))
	}
	return &Fault{Kind: Truncated, Seq: size + 1, Message: fmt.Sprintf("it ends with entry %d, and its own checkpoint is of %d", size, signed)}
}

// rewritten says what is known where every entry names the one before it, and the hash over all is another.
func (v *verifier) rewritten(size int64) error {
	good, through := max(v.newest.Tree.N, v.kept), size
	if v.forked != nil {
		through = v.forked.Through
	}
	return &Fault{
		Kind: Changed, Seq: good + 1, Through: through,
		Message: fmt.Sprintf("one of the entries %d to %d is not as it was written, and those after it were made to fit", good+1, through),
	}
}

// compare holds the entries so far against a checkpoint that was kept elsewhere.
func (v *verifier) compare() {
	size := v.tree.Size()
	seal, ok := v.brought[size]
	if !ok {
		return
	}
	delete(v.brought, size)
	if seal.Tree == v.tree.Head() && seal.Origin == v.header.Origin {
		v.kept = size
		v.report.Checkpoints++
		return
	}
	if v.forked == nil {
		v.forked = &Fault{
			Kind: Forked, Seq: v.kept + 1, Through: size,
			Message: fmt.Sprintf("it is not the log whose checkpoint of %d entries was kept elsewhere: from one of the entries %d to %d on it is another",
				size, v.kept+1, size),
		}
	}
}

// end says what is wrong with the whole.
func (v *verifier) end() error {
	size := v.tree.Size()
	switch {
	case v.header.Size > size:
		return v.short(size, v.header.Size)
	case v.newest.Tree.N < size || size == 0:
		return &Fault{
			Kind: Unsigned, Seq: v.newest.Tree.N + 1, Through: size,
			Message: fmt.Sprintf("what follows entry %d is under no checkpoint: the end was taken off, or somebody without the key went on", v.newest.Tree.N),
		}
	}
	if err := v.signed(v.newest); err != nil {
		return err
	}
	if v.forked != nil {
		return v.forked
	}
	if through := v.report.Removed; through > 0 {
		if root, ok := v.cuts[through]; !ok || root != rootOf(v.header.Stub) {
			return v.missing(1, through)
		}
	}
	return v.left(size)
}

// signed says whether somebody who is trusted has signed a checkpoint.
func (v *verifier) signed(seal chain.Seal) error {
	if len(seal.Known) > 0 {
		return nil
	}
	return &Fault{Kind: Unsigned, Message: fmt.Sprintf("its checkpoint of %d entries is signed by %v, which is no key that was given", seal.Tree.N, seal.Unknown)}
}

// left says what becomes of checkpoints from elsewhere for which there was no place.
func (v *verifier) left(size int64) error {
	for n := range v.brought {
		if n > size {
			return &Fault{
				Kind: RolledBack, Seq: size + 1,
				Message: fmt.Sprintf("it has %d entries, and a checkpoint of %d was kept elsewhere: it is an older copy, or its end was taken off and signed", size, n),
			}
		}
		v.report.Notes = append(v.report.Notes, fmt.Sprintf("the checkpoint of %d entries could not be compared: they were removed as old", n))
	}
	slices.Sort(v.report.Notes)
	return nil
}

func (v *verifier) done() *Report {
	r := v.report
	r.Size, r.Root, r.SignedBy = v.newest.Tree.N, v.newest.Tree.Hash.String(), v.newest.Known
	if r.Whole {
		r.First, r.Last, r.Entries = r.Removed+1, r.Size, r.Size-r.Removed
	}
	if r.OwnKeys {
		r.Notes = append(r.Notes, "the keys are those that the log itself names: it is of one piece, and whose it is, is not proven")
	}
	return r
}

// rootOf returns the hash over all that was removed.
func rootOf(stub *audit.Stub) string {
	tree, err := chain.NewTree(stub.Through, stub.Edge)
	if err != nil {
		return ""
	}
	return tree.Root().String()
}
