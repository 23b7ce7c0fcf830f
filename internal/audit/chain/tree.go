package chain

import (
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// Tree is the right edge of an RFC 6962 tree: all that is needed to go on, and to say what its root is.
type Tree struct {
	size int64
	// edge are the roots of the perfect trees that it is made of, the largest first.
	edge []tlog.Hash
}

// NewTree returns a tree of so many entries with such an edge.
func NewTree(size int64, edge []tlog.Hash) (*Tree, error) {
	if size < 0 || bits.OnesCount64(uint64(size)) != len(edge) {
		return nil, fmt.Errorf("no tree of %d entries has an edge of %d hashes", size, len(edge))
	}
	return &Tree{size: size, edge: append([]tlog.Hash(nil), edge...)}, nil
}

// Size is how many entries it has.
func (t *Tree) Size() int64 { return t.size }

// Edge returns the roots of the perfect trees that it is made of, the largest first.
func (t *Tree) Edge() []tlog.Hash { return append([]tlog.Hash(nil), t.edge...) }

// Clone returns another tree like this.
func (t *Tree) Clone() *Tree { return &Tree{size: t.size, edge: t.Edge()} }

// Append adds an entry by its hash. It returns the hashes that are new with it: its own, then those of the perfect trees
// that it completes, the smallest first.
func (t *Tree) Append(leaf tlog.Hash) []tlog.Hash {
	made := []tlog.Hash{leaf}
	for n := t.size; n&1 == 1; n >>= 1 {
		last := len(t.edge) - 1
		leaf = tlog.NodeHash(t.edge[last], leaf)
		t.edge = t.edge[:last]
		made = append(made, leaf)
	}
	t.edge = append(t.edge, leaf)
	t.size++
	return made
}

// emptyRoot is the root of a tree of nothing: the hash of no bytes.
var emptyRoot = func() tlog.Hash {
	root, err := tlog.TreeHash(0, nil)
	if err != nil {
		panic(fmt.Sprintf("hash a tree of nothing: %v", err))
	}
	return root
}()

// Root is the hash over all entries.
func (t *Tree) Root() tlog.Hash {
	if len(t.edge) == 0 {
		return emptyRoot
	}
	root := t.edge[len(t.edge)-1]
	for i := len(t.edge) - 2; i >= 0; i-- {
		root = tlog.NodeHash(t.edge[i], root)
	}
	return root
}

// Head is what a checkpoint says of it.
func (t *Tree) Head() tlog.Tree { return tlog.Tree{N: t.size, Hash: t.Root()} }

// EdgeAt returns the edge that a tree had when it had so many entries.
func EdgeAt(size int64, hashes tlog.HashReader) ([]tlog.Hash, error) {
	var indexes []int64
	for done, left := int64(0), size; left > 0; {
		level := bits.Len64(uint64(left)) - 1
		indexes = append(indexes, tlog.StoredHashIndex(level, done>>level))
		done += 1 << level
		left -= 1 << level
	}
	if len(indexes) == 0 {
		return nil, nil
	}
	return hashes.ReadHashes(indexes)
}

// Stored returns with which entry a hash of the tree is kept, by the entry's number from 1, and the how many of the
// entry's hashes it is, as Append returned them.
func Stored(index int64) (seq int64, level int) {
	level, n := tlog.SplitStoredHashIndex(index)
	return (n + 1) << level, level
}

// errHashes is the answer for what is not some hashes.
var errHashes = errors.New("it is not a number of whole hashes")

// Join returns hashes as they are kept: one after the other.
func Join(hashes []tlog.Hash) []byte {
	joined := make([]byte, 0, len(hashes)*tlog.HashSize)
	for _, h := range hashes {
		joined = append(joined, h[:]...)
	}
	return joined
}

// Split returns hashes that were joined.
func Split(joined []byte) ([]tlog.Hash, error) {
	if len(joined)%tlog.HashSize != 0 {
		return nil, errHashes
	}
	hashes := make([]tlog.Hash, len(joined)/tlog.HashSize)
	for i := range hashes {
		copy(hashes[i][:], joined[i*tlog.HashSize:])
	}
	return hashes, nil
}

// SplitEdge returns where a log ends as it is kept: the hash of its last line, and the edge of its tree.
func SplitEdge(last, edge []byte) (tlog.Hash, []tlog.Hash, error) {
	single, err := Split(last)
	if err != nil {
		return tlog.Hash{}, nil, err
	}
	if len(single) != 1 {
		return tlog.Hash{}, nil, fmt.Errorf("there are %d hashes in the place of one", len(single))
	}
	several, err := Split(edge)
	return single[0], several, err
}
