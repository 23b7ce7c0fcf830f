package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"supportaccess.dev/operator/internal/audit"
)

// asked are queries of every kind.
func asked() []audit.Query {
	return []audit.Query{
		{}, {Limit: 7}, {Namespace: "shop"}, {Namespace: "shop", Outcome: audit.OutcomeRefused, Limit: 3}, {Verb: "get", Resource: "pods"},
		{Text: "NAMESPACES/mail"}, {Text: "ai"}, {Text: "\"nothing\" has * this"}, {From: start.Add(20 * time.Second), To: start.Add(40 * time.Second)},
		{From: start.Add(time.Hour)}, {To: start.Add(10 * time.Second)}, {Above: 10, Below: 30}, {Below: 30, Limit: 5, Text: "billing"},
		{Grant: audit.Grant{Namespace: "shop"}}, {Engineer: "nobody"},
	}
}

// answers are the numbers that a store finds for each query.
func answers(t *testing.T, s *Store) []string {
	t.Helper()
	var all []string
	for _, q := range asked() {
		page, err := s.Find(t.Context(), q)
		if err != nil {
			t.Fatalf("%+v: %v", q, err)
		}
		all = append(all, fmt.Sprintf("%v, and then below %d", numbers(page.Lines), page.Next))
	}
	return all
}

// halts keeps a store's index from following.
func halts(s *Store) {
	s.index.stop()
	<-s.index.done
}

// followsAgain lets it.
func followsAgain(t *testing.T, s *Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s.index.stop, s.index.done = cancel, make(chan struct{})
	go s.follow(ctx)
	reaches(t, s)
}

// reaches waits until the index has every entry.
func reaches(t *testing.T, s *Store) {
	t.Helper()
	standing, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = wait.PollUntilContextTimeout(t.Context(), 5*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
		through, _, err := progress(ctx, s.index.reader)
		return through == standing.Size, err
	})
	if err != nil {
		t.Fatalf("wait until the index has every entry: %v", err)
	}
}

func TestWhatIsNotInTheIndexYetIsFoundAllTheSame(t *testing.T) {
	store, log := newLog(t)
	reaches(t, store)
	for i := range 20 {
		mustAppend(t, log, i)
	}
	reaches(t, store)
	halts(store)
	for i := 20; i < 60; i++ {
		mustAppend(t, log, i)
	}
	before := answers(t, store)
	if through, _, err := progress(t.Context(), store.index.reader); err != nil || through != 21 {
		t.Fatalf("the index goes through %d, %v: it was to be halted", through, err)
	}
	followsAgain(t, store)
	for i, now := range answers(t, store) {
		if now != before[i] {
			t.Errorf("%+v: found %s, and with the index %s", asked()[i], before[i], now)
		}
	}
	mustClose(t, log)
}

func TestAnIndexThatIsLostOrOfAnotherLogIsMadeAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.db")
	log := mustBegin(t, mustOpen(t, path))
	for i := range 30 {
		mustAppend(t, log, i)
	}
	mustClose(t, log)
	older, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	store := mustOpen(t, path)
	log = mustBegin(t, store)
	for i := 30; i < 60; i++ {
		mustAppend(t, log, i)
	}
	reaches(t, store)
	wanted := answers(t, store)
	mustClose(t, log)
	for name, spoil := range map[string]func() error{
		"it was deleted":   func() error { return os.Remove(indexPath(path)) },
		"it is no index":   func() error { return os.WriteFile(indexPath(path), []byte("something else, and long enough"), 0o600) },
		"it is a database": func() error { return os.WriteFile(indexPath(path), older, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := spoil(); err != nil {
				t.Fatal(err)
			}
			store := mustOpen(t, path)
			reaches(t, store)
			for i, now := range answers(t, store) {
				if now != wanted[i] {
					t.Errorf("%+v: found %s, want %s", asked()[i], now, wanted[i])
				}
			}
			if err := store.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Run("the log is an older copy", func(t *testing.T) {
		if err := os.WriteFile(path, older, 0o600); err != nil {
			t.Fatal(err)
		}
		store := mustOpen(t, path)
		reaches(t, store)
		page, err := store.Find(t.Context(), audit.Query{})
		if err != nil || len(page.Lines) != 31 {
			t.Errorf("found %d entries, %v; want the 31 of the copy", len(page.Lines), err)
		}
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestWhoReadsWithoutAnIndexFindsTheSame(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.db")
	store := mustOpen(t, path)
	log := mustBegin(t, store)
	for i := range 40 {
		mustAppend(t, log, i)
	}
	reaches(t, store)
	wanted := answers(t, store)
	mustClose(t, log)
	for _, without := range []bool{false, true} {
		if without {
			if err := os.Remove(indexPath(path)); err != nil {
				t.Fatal(err)
			}
		}
		reader, err := OpenReader(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		for i, now := range answers(t, reader) {
			if now != wanted[i] {
				t.Errorf("without an index %t: %+v: found %s, want %s", without, asked()[i], now, wanted[i])
			}
		}
		if err := reader.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkIndex measures what it takes to put an entry into the index.
func BenchmarkIndex(b *testing.B) {
	store, err := Open(b.Context(), filepath.Join(b.TempDir(), "audit.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	halts(store)
	lines := make([]audit.Line, followedAtOnce)
	for i := range lines {
		text, err := json.Marshal(sample(i))
		if err != nil {
			b.Fatal(err)
		}
		lines[i].Text = text
	}
	seq := int64(0)
	for b.Loop() {
		for i := range lines {
			seq++
			lines[i].Seq = seq
		}
		if err := within(b.Context(), store.index.writer, func(tx *sql.Tx) error { return put(b.Context(), tx, lines) }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(seq)/b.Elapsed().Seconds(), "entries/s")
}
