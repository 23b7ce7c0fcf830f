package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"golang.org/x/mod/sumdb/tlog"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/chain"
)

// some looks at entries that come with their proofs, under one checkpoint. Whether there are others is not theirs to say.
func (v *verifier) some() (*Report, error) {
	mark, err := v.mark()
	if err != nil {
		return nil, err
	}
	seal, err := chain.Open(mark.Checkpoint, v.known)
	if err != nil {
		return nil, &Fault{Kind: Unsigned, Message: "its checkpoint is not as it was signed: " + err.Error()}
	}
	if err := v.signed(seal); err != nil {
		return nil, err
	}
	v.newest = seal
	v.report.Checkpoints = 1
	for {
		seq, err := v.proven(seal.Tree)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		v.report.Entries++
		v.report.First = seq
		v.report.Last = max(v.report.Last, seq)
	}
	if err := v.held(seal); err != nil {
		return nil, err
	}
	return v.done(), nil
}

// mark reads a line that is no entry.
func (v *verifier) mark() (audit.ExportMark, error) {
	mark := audit.ExportMark{}
	line, err := v.lines.next()
	if err != nil && !errors.Is(err, io.EOF) {
		return mark, err
	}
	if json.Unmarshal(line, &mark) != nil || (mark.Checkpoint == "") == (mark.Proof == nil) {
		return mark, &Fault{Kind: Malformed, Message: fmt.Sprintf("line %d is neither a checkpoint nor a proof, as it should be", v.lines.number)}
	}
	return mark, nil
}

// proven reads an entry and its proof.
func (v *verifier) proven(tree tlog.Tree) (int64, error) {
	line, err := v.lines.next()
	if err != nil {
		return 0, err
	}
	link, _, err := chain.Parse(line)
	if err != nil {
		return 0, &Fault{Kind: Malformed, Message: fmt.Sprintf("line %d is no entry: %s", v.lines.number, err)}
	}
	hash := tlog.RecordHash(line)
	mark, err := v.mark()
	if err != nil {
		return 0, err
	}
	if mark.Proof == nil || mark.Proof.Seq != link.Seq {
		return 0, &Fault{Kind: Malformed, Seq: link.Seq, Message: fmt.Sprintf("entry %d has no proof", link.Seq)}
	}
	if link.Seq > tree.N || tlog.CheckRecord(mark.Proof.Hashes, tree.N, tree.Hash, link.Seq-1, hash) != nil {
		return 0, &Fault{Kind: Changed, Seq: link.Seq, Message: fmt.Sprintf("entry %d is not the one that the checkpoint of %d entries is of", link.Seq, tree.N)}
	}
	return link.Seq, nil
}

// held compares with the checkpoints that were kept elsewhere, as far as one can without all entries.
func (v *verifier) held(seal chain.Seal) error {
	for n, other := range v.brought {
		switch {
		case n > seal.Tree.N:
			return v.left(seal.Tree.N)
		case n < seal.Tree.N:
			v.report.Notes = append(v.report.Notes, fmt.Sprintf("the checkpoint of %d entries could not be compared: that takes the whole log", n))
		case other.Checkpoint != seal.Checkpoint:
			return &Fault{Kind: Forked, Message: fmt.Sprintf("it is not the log whose checkpoint of %d entries was kept elsewhere", n)}
		default:
			v.report.Checkpoints++
		}
	}
	return nil
}
