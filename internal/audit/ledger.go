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
// tree, and whatever is durable is under a signed checkpoint. Where the store lets several write, each goes on where another
// ended; they share a key.
type Ledger struct {
	*queue
	store   Store
	signer  *chain.Keys
	origin  string
	clock   clock.PassiveClock
	replica string

	measures *Measures
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
	// Measures count what is written; nil for nobody.
	Measures *Measures
}

// OpenLedger goes on with a log where it ended, or begins one. It is an error if what the store has is not what the last
// checkpoint says: somebody has changed it.
func OpenLedger(ctx context.Context, o LedgerOptions) (*Ledger, error) {
	standing, err := o.Store.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("read how the audit log stands: %w", err)
	}
	l := &Ledger{queue: newQueue(), store: o.Store, origin: o.Origin, clock: o.Clock, replica: o.Replica, measures: o.Measures}
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
	for first := range l.offers {
		group := l.gather(first)
		next, err := l.write(at, group)
		if err == nil {
			at = next
		}
		for _, o := range group {
			o.told <- err
		}
	}
}

// write makes a group durable, and returns where the log ends then.
func (l *Ledger) write(at *page, group []*offer) (*page, error) {
	var next *page
	// Whoever waits may go; what was begun is brought to an end for the others.
	err := l.store.Commit(context.Background(), func(now *Standing) ([]Row, Standing, error) {
		from, err := l.follow(at, now)
		if err != nil {
			return nil, Standing{}, err
		}
		var rows []Row
		rows, next = add(from, group)
		after, err := l.sign(from, next)
		return rows, after, err
	})
	if err != nil {
		return nil, fmt.Errorf("write the audit log: %w", err)
	}
	return next, nil
}

// follow returns where the log ends: where this ledger left it, or where another one did that writes to the same store, or
// where a write that failed did all the same. That is never before an entry that was acknowledged, nor in another log:
// what somebody without a key of this one has written is not gone on with.
func (l *Ledger) follow(at *page, now *Standing) (*page, error) {
	known, size := at.tree.Size(), int64(0)
	if now != nil {
		size = now.Size
	}
	switch {
	case size < known:
		return nil, fmt.Errorf("the store has %d entries, and had %d", size, known)
	case size == 0, size == known && now.Last == at.last:
		return at, nil
	}
	to, _, err := check(now)
	if err != nil {
		return nil, fmt.Errorf("go on where the log ends: %w", err)
	}
	seal, err := chain.Open(now.Checkpoint, l.signer.Verifiers())
	if err != nil {
		return nil, fmt.Errorf("go on where the log ends: %w", err)
	}
	if len(seal.Known) == 0 {
		return nil, fmt.Errorf("another has written %d entries, and shares no key with this one", size-known)
	}
	return to, l.remember(at)
}

// remember says whether the last entry that is known is still in its place: with it, all before it are.
func (l *Ledger) remember(at *page) error {
	last := at.tree.Size()
	if last == 0 {
		return nil
	}
	found, err := l.store.ReadHashes([]int64{tlog.StoredHashIndex(0, last-1)})
	if errors.Is(err, ErrRemoved) {
		// It was old enough. What there is now is signed.
		return nil
	}
	if err != nil {
		return fmt.Errorf("read entry %d again: %w", last, err)
	}
	if found[0] != at.last {
		return fmt.Errorf("entry %d is another than the one that was acknowledged: the store went back, and somebody went on from there", last)
	}
	return nil
}

// add returns a group as it follows in the log, and where that ends then.
func add(from *page, group []*offer) ([]Row, *page) {
	next := &page{tree: from.tree.Clone(), last: from.last}
	rows := make([]Row, len(group))
	for i, o := range group {
		link := chain.Link{Seq: next.tree.Size() + 1, Prev: next.last}
		line := chain.Line(link, o.body)
		next.last = tlog.RecordHash(line)
		rows[i] = Row{Seq: link.Seq, Line: line, Hashes: next.tree.Append(next.last), Facets: o.facets}
	}
	return rows, next
}

// milestone is after how many entries a checkpoint is kept for good, so that who verifies can say between which two
// something was changed.
const milestone = 256

// sign returns how the log stands when it has gone on from one place to the next.
func (l *Ledger) sign(from, next *page) (Standing, error) {
	checkpoint, err := l.signer.Sign(chain.Checkpoint{Origin: l.origin, Tree: next.tree.Head()})
	if err != nil {
		return Standing{}, err
	}
	return Standing{
		Size: next.tree.Size(), Last: next.last, Edge: next.tree.Edge(), Checkpoint: checkpoint, Keys: l.signer.Public,
		Milestone: next.tree.Size()/milestone > from.tree.Size()/milestone,
	}, nil
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
	if errors.Is(err, ErrRemoved) {
		// Another that writes to the same store has done it meanwhile.
		return 0, nil
	}
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
