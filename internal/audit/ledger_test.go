package audit_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	clocktesting "k8s.io/utils/clock/testing"

	harness "supportaccess.dev/operator/hack/postgres"
	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/chain"
	"supportaccess.dev/operator/internal/audit/postgres"
	"supportaccess.dev/operator/internal/audit/sqlite"
	"supportaccess.dev/operator/internal/audit/verify"
)

const origin = "support.cluster.example/audit"

var start = time.Date(2026, 11, 22, 9, 30, 0, 123456000, time.UTC)

// stores are the ways to keep a log. Each is held to the same.
var stores = map[string]func(t testing.TB, folder string) backend{
	"sqlite": func(t testing.TB, folder string) backend {
		store, err := sqlite.Open(t.Context(), filepath.Join(folder, "audit.db"))
		if err != nil {
			t.Fatal(err)
		}
		return store
	},
	"postgresql": openPostgres,
}

// openPostgres opens the log in a database that the folder names. The first time that is a new one.
func openPostgres(t testing.TB, folder string) backend {
	path := filepath.Join(folder, "postgres.url")
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		server := harness.Shared(t)
		writeURL(t, folder, server.URL(server.Database(t)))
	}
	store, err := postgres.Open(t.Context(), postgres.Options{URL: path, TLS: "disable"})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// writeURL says in which database the log of a folder is.
func writeURL(t testing.TB, folder, url string) {
	if err := os.WriteFile(filepath.Join(folder, "postgres.url"), []byte(url), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// backend is a store as those use it who write and those who read.
type backend interface {
	audit.Carried
	audit.Store
	audit.Reader
}

// onEach runs a test on each kind of store.
func onEach(t *testing.T, test func(t *testing.T, open func() backend)) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			test(t, func() backend { return open(t, folder) })
		})
	}
}

func TestEveryEntryHasItsPlaceInAChainUnderASignedCheckpoint(t *testing.T) {
	onEach(t, func(t *testing.T, open func() backend) {
		const writers, each = 8, 50
		store := open()
		log := resume(t, store, theKey(t))
		var all sync.WaitGroup
		for w := range writers {
			all.Go(func() {
				for i := range each {
					if err := log.Append(t.Context(), sample(int64(w*each+i))); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		text := exported(t, store)
		report, err := verify.Log(bytes.NewReader(text), verify.Options{Keys: log.PublicKeys()})
		if err != nil {
			t.Fatal(err)
		}
		// The first entry names the key.
		if report.Entries != writers*each+1 || report.First != 1 || report.OwnKeys || report.Origin != origin || len(report.SignedBy) != 1 {
			t.Errorf("got %+v", report)
		}
		if report.Checkpoints != 2 {
			t.Errorf("%d checkpoints, want one on the way and the newest", report.Checkpoints)
		}
		seen := map[string]bool{}
		for _, e := range entriesOf(t, text) {
			if e.Seq > 1 && (e.Section == "" || e.Labels[audit.LabelSource] != audit.Source || e.AuditID == "") {
				t.Fatalf("entry %d lost something: %+v", e.Seq, e)
			}
			seen[string(e.AuditID)] = true
		}
		if len(seen) != writers*each+1 {
			t.Errorf("%d different entries, want %d", len(seen), writers*each+1)
		}
		mustClose(t, log)
	})
}

func TestALedgerGoesOnWhereItEnded(t *testing.T) {
	onEach(t, func(t *testing.T, open func() backend) {
		for i := range int64(4) {
			log := resume(t, open(), theKey(t))
			mustWrite(t, log, i)
			mustClose(t, log)
		}
		store := open()
		report := mustVerify(t, exported(t, store), nil)
		if report.Entries != 5 {
			t.Errorf("%d entries, want the keys and four: a log that goes on with its key has nothing to say", report.Entries)
		}
		// The name is that of the beginning.
		log, err := audit.OpenLedger(t.Context(), audit.LedgerOptions{
			Store: store, Origin: "another.example", Key: theKey(t), Clock: clocktesting.NewFakePassiveClock(start),
		})
		if err != nil || log.Origin() != origin {
			t.Fatalf("%v, want that the log keeps its name", err)
		}
		mustClose(t, log)
	})
}

func TestAStoreThatWasChangedIsNotGoneOnWith(t *testing.T) {
	onEach(t, func(t *testing.T, open func() backend) {
		log := resume(t, open(), theKey(t))
		mustWrite(t, log, 1)
		mustClose(t, log)
		other, err := chain.ParseKeys(origin, otherKey(t))
		if err != nil {
			t.Fatal(err)
		}
		for name, change := range map[string]func(*audit.Standing){
			"another size":       func(s *audit.Standing) { s.Size++ },
			"another edge":       func(s *audit.Standing) { s.Edge[0][3]++ },
			"another checkpoint": func(s *audit.Standing) { s.Checkpoint = strings.Replace(s.Checkpoint, "\n2\n", "\n3\n", 1) },
			"another key":        func(s *audit.Standing) { s.Keys = other.Public },
		} {
			store := open()
			_, err := audit.OpenLedger(t.Context(), audit.LedgerOptions{
				Store: lying{store, change}, Origin: origin, Key: theKey(t), Clock: clocktesting.NewFakePassiveClock(start),
			})
			if err == nil {
				t.Errorf("%s: it was gone on with", name)
			}
			if err := store.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// lying is a store that was changed.
type lying struct {
	backend
	change func(*audit.Standing)
}

func (l lying) Load(ctx context.Context) (*audit.Standing, error) {
	standing, err := l.backend.Load(ctx)
	return l.changed(standing), err
}

func (l lying) Commit(ctx context.Context, follow audit.Follow) error {
	return l.backend.Commit(ctx, func(now *audit.Standing) ([]audit.Row, audit.Standing, error) { return follow(l.changed(now)) })
}

func (l lying) changed(standing *audit.Standing) *audit.Standing {
	if standing == nil {
		return nil
	}
	other := *standing
	other.Edge = slices.Clone(standing.Edge)
	l.change(&other)
	return &other
}

func TestWhatTheStoreDoesNotKeepIsNotAcknowledgedAndTheLogGoesOn(t *testing.T) {
	onEach(t, func(t *testing.T, open func() backend) {
		store := &failing{backend: open()}
		log := resume(t, store, theKey(t))
		mustWrite(t, log, 1)
		for name, breaks := range map[string]func(bool){
			"nothing is kept":                     func(b bool) { store.refuse.Store(b) },
			"it is kept and nobody knows":         func(b bool) { store.forget.Store(b) },
			"nothing is kept, and nobody can say": func(b bool) { store.blind.Store(b) },
		} {
			breaks(true)
			for range 3 {
				if err := log.Append(t.Context(), sample(2)); err == nil {
					t.Fatalf("%s: acknowledged", name)
				}
			}
			breaks(false)
			mustWrite(t, log, 3)
		}
		mustVerify(t, exported(t, store), nil)
		mustClose(t, log)
	})
}

// failing is a store that can be told to fail.
type failing struct {
	backend
	refuse, forget, blind atomic.Bool
}

var errDisk = errors.New("no space left on device")

func (f *failing) Commit(ctx context.Context, follow audit.Follow) error {
	if f.blind.Load() {
		return errDisk
	}
	err := f.backend.Commit(ctx, func(now *audit.Standing) ([]audit.Row, audit.Standing, error) {
		rows, after, err := follow(now)
		if f.refuse.Load() {
			err = errDisk
		}
		return rows, after, err
	})
	if f.forget.Load() {
		return errDisk
	}
	return err
}

func TestAStoreThatWentBackIsNotWrittenOver(t *testing.T) {
	onEach(t, func(t *testing.T, open func() backend) {
		store := &failing{backend: open()}
		log := resume(t, store, theKey(t))
		mustWrite(t, log, 1)
		old, err := store.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		mustWrite(t, log, 2)
		store.refuse.Store(true)
		if err := log.Append(t.Context(), sample(3)); err == nil {
			t.Fatal("acknowledged by a store that refuses")
		}
		store.refuse.Store(false)
		store.backend = lying{store.backend, func(s *audit.Standing) { *s = *old }}
		if err := log.Append(t.Context(), sample(3)); err == nil || !strings.Contains(err.Error(), "had 3") {
			t.Errorf("got %v, want that the store went back", err)
		}
		mustClose(t, log)
	})
}

func TestAKeyIsReplacedWithoutLosingWhoTrustsTheOldOne(t *testing.T) {
	onEach(t, func(t *testing.T, open func() backend) {
		old, young := theKey(t), otherKey(t)
		write := func(key []byte) []string {
			log := resume(t, open(), key)
			for i := range int64(300) {
				mustWrite(t, log, i)
			}
			mustClose(t, log)
			return log.PublicKeys()
		}
		oldOnly := write(old)
		both := write(slices.Concat(young, old))
		youngOnly := write(young)
		store := open()
		text := exported(t, store)
		for name, keys := range map[string][]string{"the old one": oldOnly, "the new one": youngOnly, "both": both} {
			report, err := verify.Log(bytes.NewReader(text), verify.Options{Keys: keys})
			if err != nil || report.Entries != 903 || report.OwnKeys {
				t.Errorf("who has %s: %+v, %v", name, report, err)
			}
		}
		stranger, err := chain.ParseKeys(origin, thirdKey(t))
		if err != nil {
			t.Fatal(err)
		}
		_, err = verify.Log(bytes.NewReader(text), verify.Options{Keys: stranger.Public})
		wantFault(t, err, verify.Unsigned, 0)
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestANewKeyAloneIsNotTrustedByWhoHasTheOldOne(t *testing.T) {
	onEach(t, func(t *testing.T, open func() backend) {
		first := resume(t, open(), theKey(t))
		mustWrite(t, first, 1)
		mustClose(t, first)
		second := resume(t, open(), otherKey(t))
		// So many that there are two checkpoints: the first of a key does not vouch for the second.
		for i := range int64(300) {
			mustWrite(t, second, i)
		}
		mustClose(t, second)
		store := open()
		text := exported(t, store)
		_, err := verify.Log(bytes.NewReader(text), verify.Options{Keys: first.PublicKeys()})
		wantFault(t, err, verify.Unsigned, 0)
		if _, err := verify.Log(bytes.NewReader(text), verify.Options{Keys: second.PublicKeys()}); err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestWhatIsOldIsRemovedAndTheRestCanBeVerified(t *testing.T) {
	onEach(t, func(t *testing.T, open func() backend) {
		store := open()
		log := resume(t, store, theKey(t))
		for i := int64(1); i <= 700; i++ {
			mustWrite(t, log, i)
		}
		before := checkpointOf(t, store)
		for _, cut := range []struct{ older, through, entries int64 }{
			// The first entry names the key, so the one of second n is number n + 1.
			{0, 0, 701}, {6, 6, 696}, {7, 7, 696}, {299, 299, 405}, {300, 300, 405}, {300, 0, 405},
		} {
			through, err := log.Cut(t.Context(), start.Add(time.Duration(cut.older)*time.Second))
			if err != nil || through != cut.through {
				t.Fatalf("cut at %d: %d, %v; want %d", cut.older, through, err, cut.through)
			}
			report := mustVerify(t, exported(t, store), []string{before})
			if report.Entries != cut.entries || report.Checkpoints < 2 {
				t.Fatalf("cut at %d: %+v, want %d entries", cut.older, report, cut.entries)
			}
		}
		found := &bytes.Buffer{}
		if err := audit.ExportFound(t.Context(), found, store, audit.Query{Engineer: "engineer-3@vendor.example"}); err != nil {
			t.Fatal(err)
		}
		if report := mustVerify(t, found.Bytes(), nil); report.Entries != 57 || report.First < 301 {
			t.Errorf("with proofs: %+v", report)
		}
		mustClose(t, log)
		log = resume(t, open(), theKey(t))
		mustWrite(t, log, 9)
		mustClose(t, log)
	})
}

func TestWhatACrashLeavesIsEveryEntryThatWasAcknowledged(t *testing.T) {
	if folder := os.Getenv("AUDIT_TEST_CRASH"); folder != "" {
		writeUntilKilled(t, folder)
		return
	}
	for kind := range stores {
		t.Run(kind, func(t *testing.T) {
			folder := t.TempDir()
			store := stores[kind](t, folder)
			if err := store.Close(); err != nil {
				t.Fatal(err)
			}
			acknowledged := int64(0)
			for round := range 6 {
				child := startWriter(t, "TestWhatACrashLeavesIsEveryEntryThatWasAcknowledged", kind, folder)
				// Somewhere else each time, and never at rest: others are being written.
				acknowledged += child.killAfter(t, 20+round*37)
			}
			store = stores[kind](t, folder)
			report := mustVerify(t, exported(t, store), nil)
			if acknowledged < 20*6 || report.Entries < acknowledged+1 {
				t.Errorf("%d entries on record, %d were acknowledged", report.Entries, acknowledged)
			}
			if err := store.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// writer is another process that writes to a log.
type writer struct {
	*exec.Cmd
	out *bufio.Scanner
}

// startWriter runs a test of this package in another process.
func startWriter(t *testing.T, test, kind, folder string) *writer {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+test+"$", "-test.timeout=120s")
	// Not by a file: one that starts while another runs would write it as that one reads it.
	child.Env = append(os.Environ(), "AUDIT_TEST_CRASH="+folder, "AUDIT_TEST_STORE="+kind, "AUDIT_TEST_KEY="+string(theKey(t)))
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	return &writer{Cmd: child, out: bufio.NewScanner(out)}
}

// killAfter ends a writer when so many entries were acknowledged, and returns how many were then.
func (w *writer) killAfter(t *testing.T, entries int) int64 {
	t.Helper()
	acknowledged := int64(0)
	for range entries {
		if !w.out.Scan() {
			break
		}
		acknowledged++
	}
	if err := w.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for w.out.Scan() {
		acknowledged++
	}
	_ = w.Wait()
	return acknowledged
}

func writeUntilKilled(t *testing.T, folder string) {
	log := resume(t, stores[os.Getenv("AUDIT_TEST_STORE")](t, folder), []byte(os.Getenv("AUDIT_TEST_KEY")))
	for range 4 {
		go func() {
			for i := int64(0); ; i++ {
				if err := log.Append(context.Background(), sample(i)); err != nil {
					os.Exit(3)
				}
				// One write, so that no line is torn.
				fmt.Println("acknowledged")
			}
		}()
	}
	select {}
}

func resume(t testing.TB, store audit.Store, key []byte) *audit.Ledger {
	t.Helper()
	log, err := audit.OpenLedger(t.Context(), audit.LedgerOptions{
		Store: store, Origin: origin, Key: key, Clock: clocktesting.NewFakePassiveClock(start), Replica: "gateway-0",
	})
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func mustWrite(t testing.TB, log *audit.Ledger, i int64) {
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

func exported(t testing.TB, store audit.Reader) []byte {
	t.Helper()
	text := &bytes.Buffer{}
	if err := audit.Export(t.Context(), text, store); err != nil {
		t.Fatal(err)
	}
	return text.Bytes()
}

func checkpointOf(t testing.TB, store audit.Store) string {
	t.Helper()
	standing, err := store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return standing.Checkpoint
}

// mustVerify verifies with the first key.
func mustVerify(t testing.TB, text []byte, checkpoints []string) *verify.Report {
	t.Helper()
	keys, err := chain.ParseKeys(origin, theKey(t))
	if err != nil {
		t.Fatal(err)
	}
	report, err := verify.Log(bytes.NewReader(text), verify.Options{Keys: keys.Public, Checkpoints: checkpoints})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func wantFault(t testing.TB, err error, kind verify.Kind, seq int64) {
	t.Helper()
	fault := &verify.Fault{}
	if !errors.As(err, &fault) || fault.Kind != kind || (seq > 0 && fault.Seq != seq) {
		t.Errorf("got %v (%+v), want %s at %d", err, fault, kind, seq)
	}
}

func entriesOf(t testing.TB, text []byte) []audit.Entry {
	t.Helper()
	var entries []audit.Entry
	for line := range bytes.Lines(text) {
		if !chain.IsLine(line) {
			continue
		}
		e := audit.Entry{}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
	return entries
}

// BenchmarkLedgerAppend shows entries a second, durable and under a signed checkpoint each, beside what the disk does alone.
func BenchmarkLedgerAppend(b *testing.B) {
	for kind, open := range stores {
		for _, writers := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("%s/writers=%d", kind, writers), func(b *testing.B) {
				benchmarkAppend(b, writers, resume(b, open(b, b.TempDir()), theKey(b)))
			})
		}
	}
	b.Run("postgresql/replicas=3/writers=64", func(b *testing.B) {
		folder := b.TempDir()
		var logs []*audit.Ledger
		for range 3 {
			logs = append(logs, resume(b, openPostgres(b, folder), theKey(b)))
		}
		benchmarkAppend(b, 64, logs...)
	})
	b.Run("bare write and fsync", func(b *testing.B) {
		bare, err := os.Create(filepath.Join(b.TempDir(), "bare"))
		if err != nil {
			b.Fatal(err)
		}
		line := make([]byte, 1500)
		for range b.N {
			if _, err := bare.Write(line); err != nil {
				b.Fatal(err)
			}
			if err := bare.Sync(); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "fsyncs/s")
		if err := bare.Close(); err != nil {
			b.Fatal(err)
		}
	})
}

// benchmarkAppend has writers share logs.
func benchmarkAppend(b *testing.B, writers int, logs ...*audit.Ledger) {
	b.Helper()
	var next atomic.Int64
	b.ResetTimer()
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if err := logs[w%len(logs)].Append(b.Context(), sample(i)); err != nil {
					b.Error(err)
				}
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
	for _, log := range logs {
		if err := log.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// Keys for tests, each made once.
var (
	firstKey, secondKey, lastKey = sync.OnceValues(chain.NewKey), sync.OnceValues(chain.NewKey), sync.OnceValues(chain.NewKey)

	theKey   = func(t testing.TB) []byte { return must(t, firstKey) }
	otherKey = func(t testing.TB) []byte { return must(t, secondKey) }
	thirdKey = func(t testing.TB) []byte { return must(t, lastKey) }
)

func must(t testing.TB, key func() ([]byte, error)) []byte {
	t.Helper()
	made, err := key()
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// sample returns an entry as the gateway writes them, one of many kinds.
func sample(i int64) *audit.Entry {
	at := metav1.NewMicroTime(start.Add(time.Duration(i) * time.Second))
	resources := []string{"pods", "configmaps", "services", "deployments", "secrets", "events"}
	verbs := []string{"get", "list", "watch"}
	namespace := fmt.Sprintf("team-%d", i%17)
	return &audit.Entry{
		Event: auditv1.Event{
			TypeMeta: metav1.TypeMeta{APIVersion: "audit.k8s.io/v1", Kind: "Event"}, Level: auditv1.LevelMetadata,
			AuditID: types.UID(fmt.Sprintf("6f1a7a52-0000-4000-8000-%012d", i)), Stage: auditv1.StageResponseComplete, Verb: verbs[i%3],
			RequestURI: fmt.Sprintf("/api/v1/namespaces/%s/%s/web-%d?limit=500", namespace, resources[i%6], i),
			User: authenticationv1.UserInfo{
				Username: "supportaccess.dev:abcdefghijklmnopqrstuvwxyz", Groups: []string{"supportaccess.dev:engineers"},
			},
			SourceIPs: []string{"192.0.2.7"}, UserAgent: "kubectl/v1.36.3 (linux/amd64) kubernetes/0000000",
			ObjectRef:                &auditv1.ObjectReference{Resource: resources[i%6], Namespace: namespace, Name: fmt.Sprintf("web-%d", i), APIVersion: "v1"},
			ResponseStatus:           &metav1.Status{Code: 200},
			RequestReceivedTimestamp: at, StageTimestamp: at, Annotations: map[string]string{audit.LabelSource: audit.Source},
		},
		Labels:   map[string]string{audit.LabelSource: audit.Source},
		Grant:    audit.Grant{Namespace: namespace, Name: fmt.Sprintf("case-%d", i%101), UID: fmt.Sprintf("1e8b3c9a-0000-4000-8000-%012d", i%101)},
		Engineer: fmt.Sprintf("engineer-%d@vendor.example", i%7), Case: fmt.Sprintf("CASE-%d", i%101), Replica: "support-access-gateway-0",
		BytesOut: 4711, DurationMillis: 12.5,
	}
}
