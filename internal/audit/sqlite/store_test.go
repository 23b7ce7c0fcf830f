package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/chain"
)

func TestNobodyChangesOrDeletesAnEntryByAccident(t *testing.T) {
	store, log := newLog(t)
	for i := range 300 {
		mustAppend(t, log, i)
	}
	for name, statement := range map[string]string{
		"an entry is changed":               "UPDATE entries SET line = x'00' WHERE seq = 7",
		"an entry gets another number":      "UPDATE entries SET seq = 1000 WHERE seq = 7",
		"an entry is deleted":               "DELETE FROM entries WHERE seq = 7",
		"all are deleted":                   "DELETE FROM entries",
		"an entry is put in place of one":   "REPLACE INTO entries (seq, line, hashes) VALUES (7, x'00', x'00')",
		"a checkpoint is changed":           "UPDATE checkpoints SET checkpoint = ''",
		"a checkpoint is deleted":           "DELETE FROM checkpoints",
		"the log goes back":                 "UPDATE standing SET size = 5",
		"the log stays with another root":   "UPDATE standing SET edge = x'00'",
		"the log stands nowhere":            "DELETE FROM standing",
		"a stub is put in place of another": "REPLACE INTO standing (id, size, last, edge, checkpoint, keys) VALUES (1, 1, x'', x'', '', '')",
	} {
		if _, err := store.writer.ExecContext(t.Context(), statement); err == nil || !strings.Contains(err.Error(), "audit log") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := store.reader.ExecContext(t.Context(), statement); err == nil {
			t.Errorf("%s by who reads", name)
		}
	}
	mustAppend(t, log, 9)
	if _, err := log.Cut(t.Context(), start.Add(20*time.Second)); err != nil {
		t.Fatal(err)
	}
	for name, statement := range map[string]string{
		"an entry is deleted after others were removed": "DELETE FROM entries WHERE seq = (SELECT min(seq) FROM entries)",
		"the stub goes back":                            "UPDATE stub SET through = 1",
		"the stub is deleted":                           "DELETE FROM stub",
	} {
		if _, err := store.writer.ExecContext(t.Context(), statement); err == nil || !strings.Contains(err.Error(), "audit log") {
			t.Errorf("%s: %v", name, err)
		}
	}
	mustClose(t, log)
}

func TestALogHasOneWriterAndSeveralReaders(t *testing.T) {
	path := filepath.Join(t.TempDir(), "made", "audit.db")
	first := mustOpen(t, path)
	if second, err := Open(t.Context(), path); err == nil {
		t.Error("two write", second.Close())
	}
	reader, err := OpenReader(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if standing, err := reader.Load(t.Context()); err != nil || standing != nil {
		t.Errorf("got %v, %v of a log that was never written", standing, err)
	}
	log := mustBegin(t, first)
	mustAppend(t, log, 1)
	if standing, err := reader.Load(t.Context()); err != nil || standing.Size != 2 {
		t.Errorf("got %+v, %v", standing, err)
	}
	mustClose(t, log)
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	if err := mustOpen(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others may read it: %v, %v", info.Mode(), err)
	}
}

func TestAFileThatIsNoLogIsLeftAsItIs(t *testing.T) {
	folder := t.TempDir()
	foreign := filepath.Join(folder, "foreign.db")
	other := mustOpen(t, foreign)
	if _, err := other.writer.ExecContext(t.Context(), "PRAGMA application_id = 7"); err != nil {
		t.Fatal(err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	later := filepath.Join(folder, "later.db")
	young := mustOpen(t, later)
	if _, err := young.writer.ExecContext(t.Context(), fmt.Sprintf("PRAGMA user_version = %d", logForm.version+1)); err != nil {
		t.Fatal(err)
	}
	if err := young.Close(); err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(folder, "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("a key that somebody needs\n", 99)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{foreign, later, text} {
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if store, err := Open(t.Context(), path); err == nil {
			t.Errorf("%s was taken for a log: %v", path, store.Close())
		}
		if store, err := OpenReader(t.Context(), path); err == nil {
			t.Errorf("%s was read as a log: %v", path, store.Close())
		}
		if after, err := os.ReadFile(path); err != nil || !slices.Equal(before, after) {
			t.Errorf("%s was changed: %v", path, err)
		}
	}
	if store, err := OpenReader(t.Context(), filepath.Join(folder, "none")); err == nil {
		t.Error("a log that is not there was read", store.Close())
	}
}

func TestAFullDiskTakesNothingAndLaterGoesOn(t *testing.T) {
	store, log := newLog(t)
	mustAppend(t, log, 1)
	pages := 0
	if err := store.writer.QueryRowContext(t.Context(), "PRAGMA page_count").Scan(&pages); err != nil {
		t.Fatal(err)
	}
	limit(t, store, pages+20)
	full := 0
	for i := 2; i < 1000 && full < 5; i++ {
		if err := log.Append(t.Context(), sample(i)); err != nil {
			if !strings.Contains(err.Error(), "full") {
				t.Fatal(err)
			}
			full++
		}
	}
	if full == 0 {
		t.Fatal("it never was full")
	}
	limit(t, store, 1<<30)
	standing, err := store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, log, 9)
	after, err := store.Load(t.Context())
	if err != nil || after.Size != standing.Size+1 {
		t.Errorf("%d entries became %d, %v", standing.Size, after.Size, err)
	}
	mustClose(t, log)
}

func TestARemovalThatWasBrokenOffIsBroughtToItsEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.db")
	store := mustOpen(t, path)
	log := mustBegin(t, store)
	for i := range 50 {
		mustAppend(t, log, i)
	}
	if _, err := log.Cut(t.Context(), start.Add(10*time.Second)); err != nil {
		t.Fatal(err)
	}
	// As a crash would leave it: the stub says more than was removed.
	if _, err := store.writer.ExecContext(t.Context(), "UPDATE stub SET through = 30"); err != nil {
		t.Fatal(err)
	}
	page, err := store.Find(t.Context(), audit.Query{})
	if err != nil || page.Lines[len(page.Lines)-1].Seq != 31 {
		t.Errorf("the first that is shown is %d, %v; want 31", page.Lines[len(page.Lines)-1].Seq, err)
	}
	mustClose(t, log)
	store = mustOpen(t, path)
	for table, db := range map[string]*sql.DB{"entries": store.reader, "facets": store.index.reader} {
		first := 0
		if err := db.QueryRowContext(t.Context(), "SELECT min(seq) FROM "+table).Scan(&first); err != nil || first != 31 {
			t.Errorf("%s begin with %d, %v; want 31", table, first, err)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

func limit(t *testing.T, s *Store, pages int) {
	t.Helper()
	if _, err := s.writer.ExecContext(t.Context(), fmt.Sprintf("PRAGMA max_page_count = %d", pages)); err != nil {
		t.Fatal(err)
	}
}

var start = time.Date(2026, 11, 22, 9, 30, 0, 0, time.UTC)

func sample(i int) *audit.Entry {
	namespaces := []string{"shop", "mail", "billing"}
	verbs := []string{"get", "list"}
	codes := []int32{200, 200, 200, 403, 500}
	resource := []string{"pods", "configmaps", "secrets"}[i%3]
	at := metav1.NewMicroTime(start.Add(time.Duration(i) * time.Second))
	return &audit.Entry{
		Event: auditv1.Event{
			Level: auditv1.LevelMetadata, Stage: auditv1.StageResponseComplete, Verb: verbs[i%2],
			RequestURI:     fmt.Sprintf("/api/v1/namespaces/%s/%s/Web-%d", namespaces[i%3], resource, i),
			ObjectRef:      &auditv1.ObjectReference{Resource: resource, Namespace: namespaces[i%3], Name: fmt.Sprint("web-", i)},
			ResponseStatus: &metav1.Status{Code: codes[i%5]}, StageTimestamp: at, RequestReceivedTimestamp: at,
		},
		Labels:   map[string]string{audit.LabelSource: audit.Source},
		Grant:    audit.Grant{Namespace: "shop", Name: fmt.Sprint("case-", i%4), UID: fmt.Sprint("uid-", i%4)},
		Engineer: fmt.Sprint("engineer-", i%2), Case: fmt.Sprint("CASE-", i%4),
	}
}

func newLog(t testing.TB) (*Store, *audit.Ledger) {
	t.Helper()
	store := mustOpen(t, filepath.Join(t.TempDir(), "audit.db"))
	return store, mustBegin(t, store)
}

func mustOpen(t testing.TB, path string) *Store {
	t.Helper()
	store, err := Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func mustBegin(t testing.TB, store *Store) *audit.Ledger {
	t.Helper()
	key, err := chain.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	log, err := audit.OpenLedger(t.Context(), audit.LedgerOptions{
		Store: store, Origin: "support.cluster.example/audit", Clock: clocktesting.NewFakePassiveClock(start),
		Key: key,
	})
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func mustAppend(t testing.TB, log *audit.Ledger, i int) {
	t.Helper()
	if err := log.Append(t.Context(), sample(i)); err != nil {
		t.Fatal(err)
	}
}

func mustClose(t testing.TB, log *audit.Ledger) {
	t.Helper()
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
}
