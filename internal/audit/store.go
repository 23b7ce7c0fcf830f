package audit

import (
	"context"
	"errors"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"supportaccess.dev/operator/internal/audit/chain"
)

// Store keeps what a Ledger writes. It computes nothing: what it gives back is what it was given.
type Store interface {
	// Load returns how the log stands, and nil for a log that has never been written.
	Load(ctx context.Context) (*Standing, error)
	// Commit makes durable what follows. From when it says how the log stands until it returns, nobody else goes on with
	// the log. After an error nothing is kept, or nobody knows: the next time it tells.
	Commit(ctx context.Context, follow Follow) error
	// Cut makes durable where the log begins from now on, if that is later than before, and then removes what is before that.
	Cut(ctx context.Context, stub Stub) error
	// Before returns the number of the last entry before which all are older than an instant; 0 if there is none.
	Before(ctx context.Context, instant time.Time) (int64, error)
	// HashReader reads hashes of the tree. Of entries that have been removed it answers ErrRemoved, unless the stub has them.
	tlog.HashReader
	// Close gives up what it holds.
	Close() error
}

// Follow is told how a log stands, nil if it has never been written, and returns what follows: rows, and how the log stands
// after them. After its error nothing is kept.
type Follow func(now *Standing) ([]Row, Standing, error)

// ErrRemoved is the answer for an entry that was removed as old.
var ErrRemoved = errors.New("the entry was removed")

// Standing is how a log stands.
type Standing struct {
	// Size is how many entries it has had, those that were removed included.
	Size int64
	// Last is the hash of its last line.
	Last tlog.Hash
	// Edge are the roots of the perfect trees of which its tree is made.
	Edge []tlog.Hash
	// Checkpoint is what it says of itself, signed.
	Checkpoint string
	// Keys are the public keys of its signatures.
	Keys []string
	// Milestone says that the checkpoint is to be kept with the entries, and not only until the next.
	Milestone bool
}

// Row is one entry as it is kept.
type Row struct {
	Seq int64
	// Line is what is hashed: the entry, to the byte.
	Line []byte
	// Hashes are those of the tree that came with it: its own first.
	Hashes []tlog.Hash
	// Facets are what it can be found by.
	Facets Facets
}

// Stub is what remains of the entries that were removed: enough to check all that follow.
type Stub struct {
	// Through is the number of the last one.
	Through int64 `json:"through"`
	// Last is the hash of its line, in base64.
	Last tlog.Hash `json:"lastHash"`
	// Edge are the roots of the perfect trees of which the tree up to it was made.
	Edge []tlog.Hash `json:"edge"`
	// Checkpoint is what the log said of itself with that entry as its last, signed.
	Checkpoint string `json:"checkpoint"`
}

// Hashes returns the hashes of the tree that the stub has, by their index. There are none where nothing was removed.
func (s *Stub) Hashes() (map[int64]tlog.Hash, error) {
	left := map[int64]tlog.Hash{}
	if s == nil {
		return left, nil
	}
	_, err := chain.EdgeAt(s.Through, tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		if len(indexes) != len(s.Edge) {
			return nil, errors.New("the stub has another edge than its size")
		}
		for i, index := range indexes {
			left[index] = s.Edge[i]
		}
		return s.Edge, nil
	}))
	return left, err
}
