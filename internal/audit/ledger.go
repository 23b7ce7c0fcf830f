package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/utils/clock"

	"supportaccess.dev/operator/internal/audit/chain"
)

// Ledger is the log that nobody changes unnoticed: each entry names the one before it, all of them are the leaves of a
// tree, and whatever is durable is under a signed checkpoint. It is the only one that writes to its store.
type Ledger struct {
	*queue
	store   Store
	signer  *chain.Keys
	origin  string
	clock   clock.PassiveClock
	replica string
}

// LedgerOptions are what a Ledger is opened with.
type LedgerOptions struct {
	Store Store
	// Origin names a log that is new. A log that exists keeps its name.
	Origin string
	// Key are its keys, PEM of PKCS #8. All of them sign: while a key is replaced by another, give both, the new one first.
	Key []byte
	// Clock says when the log itself did something.
	Clock clock.PassiveClock
	// Replica is who writes.
	Replica string
}

// OpenLedger goes on with a log where it ended, or begins one. It is an error if what the store has is not what the last
// checkpoint says: somebody has changed it.
func OpenLedger(ctx context.Context, o LedgerOptions) (*Ledger, error) {
	standing, err := o.Store.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("read how the audit log stands: %w", err)
	}
	l := &Ledger{queue: newQueue(), store: o.Store, origin: o.Origin, clock: o.Clock, replica: o.Replica}
	page := &page{tree: &chain.Tree{}}
	if standing != nil {
		if page, l.origin, err = check(standing); err != nil {
			return nil, fmt.Errorf("go on with the audit log: %w", err)
		}
	}
	if l.signer, err = chain.ParseKeys(l.origin, o.Key); err != nil {
		return nil, fmt.Errorf("read the keys of the audit log: %w", err)
	}
	go l.commit(page)
	if standing != nil && slices.Equal(standing.Keys, l.signer.Public) {
		return l, nil
	}
	if err := l.Append(ctx, l.own(TypeKeys, "sign", func(e *Entry) { e.Keys = l.signer.Public })); err != nil {
		return nil, errors.Join(fmt.Errorf("begin the audit log with its keys: %w", err), l.Close())
	}
	return l, nil
}

// check says whether a store agrees with its own checkpoint. It returns where to go on, and the log's name.
func check(s *Standing) (*page, string, error) {
	tree, err := chain.NewTree(s.Size, s.Edge)
	if err != nil {
		return nil, "", err
	}
	known, err := chain.Verifiers(s.Keys)
	if err != nil {
		return nil, "", err
	}
	seal, err := chain.Open(s.Checkpoint, known)
	if err != nil {
		return nil, "", err
	}
	if len(seal.Known) == 0 {
		return nil, "", errors.New("its checkpoint is not signed by its key")
	}
	if seal.Tree != tree.Head() {
		return nil, "", fmt.Errorf("it has %d entries with root %s, its checkpoint says %d with root %s",
			s.Size, tree.Root(), seal.Tree.N, seal.Tree.Hash)
	}
	return &page{tree: tree, last: s.Last}, seal.Origin, nil
}

// Origin is the log's name, and the name of its keys.
func (l *Ledger) Origin() string { return l.origin }

// PublicKeys are the keys by which its checkpoints are checked.
func (l *Ledger) PublicKeys() []string { return slices.Clone(l.signer.Public) }

// Close makes durable what waits, and closes the store.
func (l *Ledger) Close() error {
	if !l.shut() {
		return nil
	}
	return l.store.Close()
}

// page is where the log ends.
type page struct {
	tree *chain.Tree
	last tlog.Hash
}

// commit makes durable what is offered, all that waits at once.
func (l *Ledger) commit(at *page) {
	defer close(l.done)
	var broken error
	for first := range l.offers {
		group := l.gather(first)
		if broken != nil {
			// What a failed write left is durable or it is not: the store says.
			at, broken = l.reread(at)
		}
		if broken == nil {
			at, broken = l.write(at, group)
		}
		for _, o := range group {
			o.told <- broken
		}
	}
}

// milestone is after how many entries a checkpoint is kept for good, so that who verifies can say between which two
// something was changed.
const milestone = 256

// write makes a group durable. It returns where the log ends then, which after an error is where it ended before.
func (l *Ledger) write(at *page, group []*offer) (*page, error) {
	next := &page{tree: at.tree.Clone(), last: at.last}
	rows := make([]Row, len(group))
	for i, o := range group {
		link := chain.Link{Seq: next.tree.Size() + 1, Prev: next.last}
		line := chain.Line(link, o.body)
		next.last = tlog.RecordHash(line)
		rows[i] = Row{Seq: link.Seq, Line: line, Hashes: next.tree.Append(next.last), Facets: o.facets}
	}
	checkpoint, err := l.signer.Sign(chain.Checkpoint{Origin: l.origin, Tree: next.tree.Head()})
	if err != nil {
		return at, err
	}
	after := Standing{
		Size: next.tree.Size(), Last: next.last, Edge: next.tree.Edge(), Checkpoint: checkpoint, Keys: l.signer.Public,
		Milestone: next.tree.Size()/milestone > at.tree.Size()/milestone,
	}
	// Whoever waits may go; what was begun is brought to an end for the others.
	if err := l.store.Commit(context.Background(), rows, after); err != nil {
		return at, fmt.Errorf("write the audit log: %w", err)
	}
	return next, nil
}

// reread asks the store where the log ends. That is never before an entry that was acknowledged: another would be written
// in its place.
func (l *Ledger) reread(at *page) (*page, error) {
	standing, err := l.store.Load(context.Background())
	if err != nil {
		return at, fmt.Errorf("read where the audit log ends: %w", err)
	}
	again := &page{tree: &chain.Tree{}}
	if standing != nil {
		if again, _, err = check(standing); err != nil {
			return at, fmt.Errorf("read where the audit log ends: %w", err)
		}
	}
	if again.tree.Size() < at.tree.Size() {
		return at, fmt.Errorf("the store has %d entries, and had %d", again.tree.Size(), at.tree.Size())
	}
	return again, nil
}

// own returns an entry about the log itself.
func (l *Ledger) own(what Type, verb string, tell func(*Entry)) *Entry {
	now := metav1.NewMicroTime(l.clock.Now())
	e := &Entry{
		Type: what,
		Event: auditv1.Event{
			TypeMeta: metav1.TypeMeta{APIVersion: "audit.k8s.io/v1", Kind: "Event"},
			Level:    auditv1.LevelMetadata, Stage: auditv1.StageResponseComplete, Verb: verb,
			RequestReceivedTimestamp: now, StageTimestamp: now,
			Annotations: map[string]string{LabelSource: SourceLog},
		},
		Labels: map[string]string{LabelSource: SourceLog}, Replica: l.replica,
	}
	tell(e)
	return e
}

// Cut removes the entries that are older than an instant. It returns the number of the last of them, 0 if there are none.
// That it was done is an entry before anything is gone, and what is gone leaves a stub by which the rest can be checked.
func (l *Ledger) Cut(ctx context.Context, before time.Time) (int64, error) {
	through, err := l.store.Before(ctx, before)
	if err != nil {
		return 0, fmt.Errorf("find entries from before %s: %w", before.UTC().Format(time.RFC3339), err)
	}
	if through == 0 {
		return 0, nil
	}
	stub, err := l.stub(through)
	if err != nil {
		return 0, fmt.Errorf("keep what entries up to %d leave: %w", through, err)
	}
	tree, err := chain.NewTree(through, stub.Edge)
	if err != nil {
		return 0, err
	}
	said := l.own(TypeCut, "cut", func(e *Entry) { e.Cut = &Cut{Through: through, Root: tree.Root().String()} })
	if err := l.Append(ctx, said); err != nil {
		return 0, fmt.Errorf("record that entries up to %d are removed: %w", through, err)
	}
	if err := l.store.Cut(ctx, stub); err != nil {
		return 0, fmt.Errorf("remove entries up to %d: %w", through, err)
	}
	return through, nil
}

func (l *Ledger) stub(through int64) (Stub, error) {
	edge, err := chain.EdgeAt(through, l.store)
	if err != nil {
		return Stub{}, err
	}
	last, err := l.store.ReadHashes([]int64{tlog.StoredHashIndex(0, through-1)})
	if err != nil {
		return Stub{}, err
	}
	tree, err := chain.NewTree(through, edge)
	if err != nil {
		return Stub{}, err
	}
	checkpoint, err := l.signer.Sign(chain.Checkpoint{Origin: l.origin, Tree: tree.Head()})
	if err != nil {
		return Stub{}, err
	}
	return Stub{Through: through, Last: last[0], Edge: edge, Checkpoint: checkpoint}, nil
}
