package chain_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"supportaccess.dev/operator/internal/audit/chain"
)

const witnessed = "support.cluster.example/audit"

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// logOf is a log of so many entries that begin alike, until where somebody has written another.
type logOf struct {
	keys   *chain.Keys
	hashes []tlog.Hash
	size   int64
}

func newLog(t *testing.T, key []byte, entries, otherFrom int64) *logOf {
	t.Helper()
	keys, err := chain.ParseKeys(witnessed, key)
	if err != nil {
		t.Fatal(err)
	}
	l := &logOf{keys: keys, size: entries}
	tree := &chain.Tree{}
	for n := range entries {
		text := fmt.Sprintf("entry %d", n+1)
		if otherFrom > 0 && n+1 >= otherFrom {
			text = "another " + text
		}
		l.hashes = append(l.hashes, tree.Append(tlog.RecordHash([]byte(text)))...)
	}
	return l
}

func (l *logOf) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var found []tlog.Hash
	for _, i := range indexes {
		found = append(found, l.hashes[i])
	}
	return found, nil
}

// offers hands over the log, with the proof from a size; 0 for none.
func (l *logOf) offers(t *testing.T, since int64, at time.Time) chain.Offer {
	t.Helper()
	root, err := tlog.TreeHash(l.size, l)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := l.keys.Sign(chain.Checkpoint{Origin: witnessed, Tree: tlog.Tree{N: l.size, Hash: root}})
	if err != nil {
		t.Fatal(err)
	}
	offer := chain.Offer{Checkpoint: signed, Keys: l.keys.Public, Since: since, Time: at}
	if since > 0 {
		if offer.Proof, err = tlog.ProveTree(l.size, since, l); err != nil {
			t.Fatal(err)
		}
	}
	return offer
}

func aKey(t *testing.T) []byte {
	t.Helper()
	key, err := chain.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// keeping is a witness that keeps a log of so many entries, written and read again.
func keeping(t *testing.T, key []byte, entries int64) *chain.Witness {
	t.Helper()
	w := &chain.Witness{}
	if took, err := w.Take(newLog(t, key, entries, 0).offers(t, 0, noon)); err != nil || took != chain.TookAnother {
		t.Fatalf("a log that was not known: %v, %v", took, err)
	}
	again, err := chain.ReadWitness(w.Data())
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func TestWhatIsKeptOfALogOnlyGrows(t *testing.T) {
	key, other := aKey(t), aKey(t)
	later := noon.Add(time.Hour)
	with := func(o chain.Offer, change func(*chain.Offer)) chain.Offer {
		change(&o)
		return o
	}
	for title, c := range map[string]struct {
		offer  chain.Offer
		took   chain.Taking
		reason string
		size   int64
	}{
		"it has grown":                         {newLog(t, key, 13, 0).offers(t, 7, later), chain.TookNewer, "", 13},
		"it has grown by one":                  {newLog(t, key, 8, 0).offers(t, 7, later), chain.TookNewer, "", 8},
		"it is the same":                       {newLog(t, key, 7, 0).offers(t, 0, later), chain.TookNothing, "", 7},
		"it has grown, without proof":          {newLog(t, key, 13, 0).offers(t, 0, later), chain.TookNothing, chain.RefusedUnproven, 7},
		"it has grown, the proof is of before": {newLog(t, key, 13, 0).offers(t, 5, later), chain.TookNothing, chain.RefusedUnproven, 7},
		"it is an older copy":                  {newLog(t, key, 5, 0).offers(t, 0, later), chain.TookNothing, chain.RefusedRolledBack, 7},
		"another replica read it before":       {newLog(t, key, 5, 0).offers(t, 0, noon.Add(-time.Minute)), chain.TookNothing, "", 7},
		"went back and on again":               {newLog(t, key, 13, 6).offers(t, 7, later), chain.TookNothing, chain.RefusedForked, 7},
		"is another of the same size":          {newLog(t, key, 7, 3).offers(t, 0, later), chain.TookNothing, chain.RefusedForked, 7},
		"the proof is cut": {with(newLog(t, key, 13, 0).offers(t, 7, later), func(o *chain.Offer) { o.Proof = o.Proof[1:] }),
			chain.TookNothing, chain.RefusedForked, 7},
		"is no checkpoint": {chain.Offer{Checkpoint: "x", Keys: newLog(t, key, 1, 0).keys.Public}, chain.TookNothing, chain.RefusedMalformed, 7},
		"the key that came with it is another's": {with(newLog(t, key, 13, 0).offers(t, 7, later), func(o *chain.Offer) { o.Keys = newLog(t, other, 1, 0).keys.Public }),
			chain.TookNothing, chain.RefusedUnsigned, 7},
		"a log with another key": {newLog(t, other, 99, 0).offers(t, 0, later), chain.TookAnother, "", 7},
	} {
		t.Run(title, func(t *testing.T) {
			w := keeping(t, key, 7)
			took, err := w.Take(c.offer)
			refusal := &chain.Refusal{}
			if errors.As(err, &refusal); err != nil && refusal.Reason == "" {
				t.Fatal(err)
			}
			if took != c.took || refusal.Reason != c.reason {
				t.Errorf("took %v, refused as %q (%v), want %v, %q", took, refusal.Reason, err, c.took, c.reason)
			}
			kept := w.Of(newLog(t, key, 7, 0).offers(t, 0, noon).Checkpoint)
			if kept == nil || kept.Size() != c.size || kept.Origin() != witnessed {
				t.Errorf("kept is %+v, want of %d", kept, c.size)
			}
		})
	}
}

func TestALogIsKnownByItsNewKeyOnceTheOldOneHasSignedWithIt(t *testing.T) {
	first, second := aKey(t), aKey(t)
	w := keeping(t, first, 7)
	both := append(append([]byte{}, second...), first...)
	for i, step := range []struct {
		key  []byte
		size int64
	}{{both, 8}, {second, 9}} {
		took, err := w.Take(newLog(t, step.key, step.size, 0).offers(t, step.size-1, noon.Add(time.Duration(i)*time.Hour)))
		if err != nil || took != chain.TookNewer {
			t.Fatalf("with %d entries: %v, %v", step.size, took, err)
		}
	}
	if logs := w.Logs(); len(logs) != 1 || len(logs[0].Keys) != 1 || logs[0].Size() != 9 {
		t.Errorf("kept are %+v", logs)
	}
	// The old key is of no use any more.
	took, err := w.Take(newLog(t, first, 10, 0).offers(t, 9, noon.Add(3*time.Hour)))
	refusal := &chain.Refusal{}
	if !errors.As(err, &refusal) || refusal.Reason != chain.RefusedUnsigned || took != chain.TookNothing {
		t.Errorf("signed by the old key: %v, %v", took, err)
	}
}

func TestNewLogsDoNotPushOutWhatIsKept(t *testing.T) {
	key := aKey(t)
	w := keeping(t, key, 7)
	took, err := chain.TookAnother, error(nil)
	for n := 0; err == nil && n < 1000; n++ {
		took, err = w.Take(newLog(t, aKey(t), 1, 0).offers(t, 0, noon.Add(time.Hour)))
	}
	refusal := &chain.Refusal{}
	if !errors.As(err, &refusal) || refusal.Reason != chain.RefusedFull || took != chain.TookNothing {
		t.Errorf("%v, %v", took, err)
	}
	if _, err := w.Take(newLog(t, key, 8, 0).offers(t, 7, noon.Add(2*time.Hour))); err != nil {
		t.Errorf("the log that was known first: %v", err)
	}
	if took, err := w.Take(newLog(t, aKey(t), 1, 0).offers(t, 0, noon.Add(60*24*time.Hour))); err != nil || took != chain.TookAnother {
		t.Errorf("after two months: %v, %v", took, err)
	}
}
