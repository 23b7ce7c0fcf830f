package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	harness "supportaccess.dev/operator/hack/postgres"
	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/verify"
)

// Several gateways write to one log in PostgreSQL. What follows is about them alone: SQLite has one writer.

func TestReplicasThatBeginTogetherBeginOneLog(t *testing.T) {
	folder := shareable(t)
	logs, opened := make([]*audit.Ledger, 4), make([]backend, 4)
	var all sync.WaitGroup
	for i := range logs {
		all.Go(func() {
			// Each makes the tables, if no other has.
			opened[i] = openPostgres(t, folder)
			logs[i] = resume(t, opened[i], theKey(t))
			for n := range int64(40) {
				mustWrite(t, logs[i], n)
			}
		})
	}
	all.Wait()
	report := mustVerify(t, exported(t, opened[0]), nil)
	// Each may have been first to name the key.
	if named := report.Entries - 4*40; named < 1 || named > 4 {
		t.Errorf("%d entries, want 160 and one to four that name the key", report.Entries)
	}
	for _, log := range logs {
		mustClose(t, log)
	}
}

// TestOneLogHasNoGapWhicheverReplicaDiesAndThoughTheServerDoes has three processes write at once. One is killed, more than
// once, and the server falls in between.
func TestOneLogHasNoGapWhicheverReplicaDiesAndThoughTheServerDoes(t *testing.T) {
	if folder := os.Getenv("AUDIT_TEST_CRASH"); folder != "" {
		writeWhateverHappens(t, folder)
		return
	}
	folder := shareable(t)
	server := harness.Shared(t)
	replicas := make([]*replica, 3)
	for i := range replicas {
		replicas[i] = startReplica(t, folder)
	}
	everyoneGoesOn := func() {
		t.Helper()
		for i, r := range replicas {
			r.goesOn(t, i, 40)
		}
	}
	everyoneGoesOn()
	for range 3 {
		replicas[0].kill(t)
		for i, r := range replicas[1:] {
			r.goesOn(t, i+1, 25)
		}
		replicas[0] = resumeReplica(t, folder, replicas[0])
		everyoneGoesOn()
	}
	for _, how := range []syscall.Signal{harness.Immediate, harness.Fast} {
		if err := server.End(how); err != nil {
			t.Fatal(err)
		}
		if err := server.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		everyoneGoesOn()
	}
	acknowledged := map[string]bool{}
	for _, r := range replicas {
		r.kill(t)
		for _, id := range r.said {
			acknowledged[id] = true
		}
	}
	store := openPostgres(t, folder)
	text := exported(t, store)
	report := mustVerify(t, text, nil)
	recorded := map[string]int{}
	for _, e := range entriesOf(t, text) {
		if e.Type == audit.TypeRequest {
			recorded[string(e.AuditID)]++
		}
	}
	for id := range acknowledged {
		if recorded[id] == 0 {
			t.Errorf("%s was acknowledged and is not on record", id)
		}
	}
	for id, times := range recorded {
		if times > 1 {
			t.Errorf("%s is on record %d times", id, times)
		}
	}
	t.Logf("%d entries, %d acknowledged", report.Entries, len(acknowledged))
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

// replica is a process that writes, and what it says was acknowledged, also by those whose place it took.
type replica struct {
	*writer
	mu   sync.Mutex
	said []string
	read chan struct{}
}

func startReplica(t *testing.T, folder string) *replica {
	t.Helper()
	return resumeReplica(t, folder, &replica{})
}

func resumeReplica(t *testing.T, folder string, before *replica) *replica {
	t.Helper()
	r := &replica{said: before.said, read: make(chan struct{})}
	r.writer = startWriter(t, "TestOneLogHasNoGapWhicheverReplicaDiesAndThoughTheServerDoes", "postgresql", folder)
	go func() {
		defer close(r.read)
		for r.out.Scan() {
			r.mu.Lock()
			r.said = append(r.said, r.out.Text())
			r.mu.Unlock()
		}
	}()
	return r
}

func (r *replica) acknowledged() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.said)
}

// goesOn waits until some more were acknowledged.
func (r *replica) goesOn(t *testing.T, number, entries int) {
	t.Helper()
	enough := r.acknowledged() + entries
	err := wait.PollUntilContextTimeout(t.Context(), 5*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		return r.acknowledged() >= enough, nil
	})
	if err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		t.Fatalf("replica %d does not go on: %d were acknowledged, %d are wanted: %v; it said last: %q", number, len(r.said), enough, err, r.said[max(0, len(r.said)-5):])
	}
}

func (r *replica) kill(t *testing.T) {
	t.Helper()
	if err := r.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-r.read
	_ = r.Wait()
}

func writeWhateverHappens(t *testing.T, folder string) {
	log := resume(t, openPostgres(t, folder), []byte(os.Getenv("AUDIT_TEST_KEY")))
	var next atomic.Int64
	for range 4 {
		go func() {
			for {
				number := next.Add(1)
				e := sample(number)
				e.AuditID = types.UID(fmt.Sprintf("%d-%d", os.Getpid(), number))
				if log.Append(context.Background(), e) == nil {
					// One write, so that no line is torn.
					fmt.Println(e.AuditID)
				}
			}
		}()
	}
	select {}
}

func TestWhoFallsSilentInItsTurnHoldsNobodyUpAndLeavesNothing(t *testing.T) {
	folder := shareable(t)
	first, second := openPostgres(t, folder), openPostgres(t, folder)
	stuck, other := resume(t, first, theKey(t)), resume(t, second, theKey(t))
	err := first.Commit(t.Context(), func(now *audit.Standing) ([]audit.Row, audit.Standing, error) {
		// It has its turn, and does nothing with it.
		mustWrite(t, other, 1)
		after := *now
		after.Size++
		return []audit.Row{{Seq: after.Size, Line: []byte("late"), Hashes: now.Edge[:1]}}, after, nil
	})
	if err == nil {
		t.Error("what came too late was kept")
	}
	mustWrite(t, stuck, 2)
	if report := mustVerify(t, exported(t, second), nil); report.Entries != 3 {
		t.Errorf("%d entries, want the key and one of each", report.Entries)
	}
	mustClose(t, stuck)
	mustClose(t, other)
}

func TestWhoDiesInItsTurnLeavesNothing(t *testing.T) {
	folder := shareable(t)
	store, other := openPostgres(t, folder), openPostgres(t, folder)
	first, second := resume(t, store, theKey(t)), resume(t, other, theKey(t))
	err := store.Commit(t.Context(), func(now *audit.Standing) ([]audit.Row, audit.Standing, error) {
		err := harness.Shared(t).Exec(t.Context(), "postgres",
			"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE state = 'idle in transaction'")
		after := *now
		after.Size++
		return []audit.Row{{Seq: after.Size, Line: []byte("late"), Hashes: now.Edge[:1]}}, after, err
	})
	if err == nil {
		t.Error("what a dead connection wrote was kept")
	}
	mustWrite(t, second, 1)
	mustWrite(t, first, 2)
	if report := mustVerify(t, exported(t, other), nil); report.Entries != 3 {
		t.Errorf("%d entries, want the key and one of each", report.Entries)
	}
	mustClose(t, first)
	mustClose(t, second)
}

// TestADatabaseThatLostEntriesIsNotGoneOnWith is what a failover to a copy does that lags behind.
func TestADatabaseThatLostEntriesIsNotGoneOnWith(t *testing.T) {
	server := harness.Shared(t)
	folder := shareable(t)
	before, after := server.Database(t), server.Database(t)
	writeURL(t, folder, server.URL(before))
	store := openPostgres(t, folder)
	log := resume(t, store, theKey(t))
	mustWrite(t, log, 1)
	// The copy is made of a database that nobody uses; the log comes back to it by itself.
	for _, statement := range []string{
		"DROP DATABASE " + after,
		"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '" + before + "'",
		"CREATE DATABASE " + after + " TEMPLATE " + before,
	} {
		if err := server.Exec(t.Context(), "postgres", statement); err != nil {
			t.Fatal(err)
		}
	}
	mustWrite(t, log, 2)
	writeURL(t, folder, server.URL(after))
	cutOff(t, server, before)
	if err := log.Append(t.Context(), sample(3)); err == nil || !strings.Contains(err.Error(), "the store has 2 entries, and had 3") {
		t.Errorf("got %v, want that entries are gone", err)
	}
	other := openPostgres(t, folder)
	young := resume(t, other, theKey(t))
	for i := range int64(3) {
		mustWrite(t, young, 10+i)
	}
	if err := log.Append(t.Context(), sample(4)); err == nil || !strings.Contains(err.Error(), "entry 3 is another than the one that was acknowledged") {
		t.Errorf("got %v, want that another log was gone on with", err)
	}
	mustVerify(t, exported(t, other), nil)
	mustClose(t, young)
	mustClose(t, log)
}

func cutOff(t *testing.T, server *harness.Server, database string) {
	t.Helper()
	err := server.Exec(t.Context(), "postgres", "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '"+database+"'")
	if err != nil {
		t.Fatal(err)
	}
}

func TestReplicasShareAKeyOrTheLogIsNotGoneOnWith(t *testing.T) {
	folder := shareable(t)
	store := openPostgres(t, folder)
	log := resume(t, store, theKey(t))
	mustWrite(t, log, 1)
	both := resume(t, openPostgres(t, folder), append(otherKey(t), theKey(t)...))
	mustWrite(t, both, 2)
	// As while a key is replaced: each knows one of the other's.
	mustWrite(t, log, 3)
	mustWrite(t, both, 4)
	mustVerify(t, exported(t, store), nil)
	stranger := resume(t, openPostgres(t, folder), thirdKey(t))
	mustWrite(t, stranger, 5)
	if err := log.Append(t.Context(), sample(6)); err == nil || !strings.Contains(err.Error(), "shares no key with this one") {
		t.Errorf("got %v, want that a stranger's entries are not gone on with", err)
	}
	for _, open := range []*audit.Ledger{stranger, both, log} {
		mustClose(t, open)
	}
}

func TestReplicasRemoveWhatIsOldOnce(t *testing.T) {
	folder := shareable(t)
	stores := []backend{openPostgres(t, folder), openPostgres(t, folder), openPostgres(t, folder)}
	var logs []*audit.Ledger
	for _, store := range stores {
		logs = append(logs, resume(t, store, theKey(t)))
	}
	idle := logs[2]
	for i := range int64(300) {
		mustWrite(t, logs[i%2], i)
	}
	var all sync.WaitGroup
	for _, log := range logs[:2] {
		all.Go(func() {
			if _, err := log.Cut(t.Context(), start.Add(200*time.Second)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	report := mustVerify(t, exported(t, stores[0]), nil)
	if report.Removed < 200 || report.Removed > 203 {
		t.Errorf("%d were removed, want 200 and who named the key", report.Removed)
	}
	// What it knew last has been removed since.
	mustWrite(t, idle, 400)
	mustVerify(t, exported(t, stores[2]), nil)
	for _, log := range logs {
		mustClose(t, log)
	}
}

// shareable returns a folder that names a database of its own.
func shareable(t *testing.T) string {
	t.Helper()
	server := harness.Shared(t)
	folder := t.TempDir()
	writeURL(t, folder, server.URL(server.Database(t)))
	return folder
}

// TestAStoreSaysOfWhatIsGoneThatItWasRemoved holds stores to what a ledger relies on.
func TestAStoreSaysOfWhatIsGoneThatItWasRemoved(t *testing.T) {
	onEach(t, func(t *testing.T, open func() backend) {
		store := open()
		log := resume(t, store, theKey(t))
		for i := range int64(20) {
			mustWrite(t, log, i)
		}
		if _, err := log.Cut(t.Context(), start.Add(10*time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := store.ReadHashes([]int64{0}); !errors.Is(err, audit.ErrRemoved) {
			t.Errorf("got %v of an entry that was removed", err)
		}
		if _, err := store.ReadHashes([]int64{1 << 20}); err == nil || errors.Is(err, audit.ErrRemoved) {
			t.Errorf("got %v of an entry that never was", err)
		}
		stub, err := store.Stub(t.Context())
		if err != nil || stub == nil {
			t.Fatal(err)
		}
		back := *stub
		back.Through--
		if err := store.Cut(t.Context(), back); err != nil {
			t.Errorf("to remove what was removed: %v", err)
		}
		if again, err := store.Stub(t.Context()); err != nil || again.Through != stub.Through {
			t.Errorf("the stub went back: %+v, %v", again, err)
		}
		if _, err := verify.Log(bytes.NewReader(exported(t, store)), verify.Options{Keys: log.PublicKeys()}); err != nil {
			t.Error(err)
		}
		mustClose(t, log)
	})
}
