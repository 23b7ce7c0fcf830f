package chain

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Checkpoint is what a log says of itself, to be signed: a C2SP tlog-checkpoint.
type Checkpoint struct {
	// Origin names the log.
	Origin string
	// Tree is how many entries it has, and the hash over them.
	Tree tlog.Tree
}

// Text is the text that is signed.
func (c Checkpoint) Text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Tree.N, c.Tree.Hash)
}

// treeLine is how the text begins that tlog parses. A checkpoint has its origin in that place.
const treeLine = "go.sum database tree\n"

// ParseText returns the checkpoint that a text is. Lines after the third are of later versions.
func ParseText(text string) (Checkpoint, error) {
	origin, rest, ok := strings.Cut(text, "\n")
	if !ok || origin == "" {
		return Checkpoint{}, errors.New("a checkpoint begins with a line that names its log")
	}
	tree, err := tlog.ParseTree([]byte(treeLine + rest))
	if err != nil {
		return Checkpoint{}, errors.New("a checkpoint has a size and a hash in its second and third line")
	}
	return Checkpoint{Origin: origin, Tree: tree}, nil
}

// Seal is a checkpoint that was read, and who signed it.
type Seal struct {
	Checkpoint
	// Known are the keys whose signature was found good, by name and hash as the note has them.
	Known []string
	// Unknown are those nobody could check.
	Unknown []string
}

// Open reads a signed checkpoint. A bad signature of a known key is an error, one of an unknown key is not: the seal says
// whose they are.
func Open(signed string, known note.Verifiers) (Seal, error) {
	opened, err := note.Open([]byte(signed), known)
	unverified := &note.UnverifiedNoteError{}
	if errors.As(err, &unverified) {
		opened, err = unverified.Note, nil
	}
	if err != nil {
		return Seal{}, fmt.Errorf("read a checkpoint: %w", err)
	}
	checkpoint, err := ParseText(opened.Text)
	if err != nil {
		return Seal{}, fmt.Errorf("read a checkpoint: %w", err)
	}
	return Seal{Checkpoint: checkpoint, Known: namesOf(opened.Sigs), Unknown: namesOf(opened.UnverifiedSigs)}, nil
}

func namesOf(signatures []note.Signature) []string {
	var names []string
	for _, s := range signatures {
		names = append(names, fmt.Sprintf("%s+%08x", s.Name, s.Hash))
	}
	return names
}
