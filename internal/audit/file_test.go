package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

func TestAnEntryIsDurableWhenItIsAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &fakeDisk{held: make(chan struct{})}
		log := start(disk, 0, 0)
		told := appendAll(t.Context(), log, 1)
		synctest.Wait()
		if len(told) != 0 || len(disk.bytes()) == 0 {
			t.Fatalf("%d entries acknowledged, %d bytes written, before the disk had them", len(told), len(disk.bytes()))
		}
		close(disk.held)
		if err := <-told; err != nil {
			t.Fatal(err)
		}
		if durable, all := disk.durable(), disk.bytes(); !bytes.Equal(durable, all) {
			t.Errorf("acknowledged with %d of %d bytes durable", len(durable), len(all))
		}
		closeLog(t, log)
	})
}

func TestEntriesThatComeTogetherAreMadeDurableTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const together = 100
		disk := &fakeDisk{held: make(chan struct{})}
		log := start(disk, 0, 0)
		told := appendAll(t.Context(), log, together)
		synctest.Wait()
		close(disk.held)
		for range together {
			if err := <-told; err != nil {
				t.Fatal(err)
			}
		}
		if got := disk.syncs(); got > 2 {
			t.Errorf("%d syncs for %d entries, want one for the first and one for those that waited", got, together)
		}
		wantNumbers(t, disk.bytes(), together)
		closeLog(t, log)
	})
}

func TestWhatIsOverBecomesDurableWithWhatSomebodyWaitsForOrAMomentLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &fakeDisk{}
		log := start(disk, 0, 0)
		told := make(chan error, 1)
		trail := func() { go func() { told <- log.Trail(t.Context(), entry("over")) }() }
		trail()
		synctest.Wait()
		if disk.syncs() != 0 {
			t.Fatal("what is over does not wait")
		}
		mustAppend(t, log, "asked")
		if err := <-told; err != nil || disk.syncs() != 1 {
			t.Fatalf("two entries, of which one is over, took %d syncs: %v", disk.syncs(), err)
		}
		began := time.Now()
		trail()
		if err := <-told; err != nil || disk.syncs() != 2 {
			t.Fatalf("what is over took %d syncs: %v", disk.syncs()-1, err)
		}
		if waited := time.Since(began); waited != trailing {
			t.Errorf("what nothing follows became durable after %s, want %s", waited, trailing)
		}
		wantNumbers(t, disk.bytes(), 3)
		closeLog(t, log)
	})
}

func TestAFullLogMakesWhoComesWaitNoLongerThanTheyWill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &fakeDisk{held: make(chan struct{})}
		log := start(disk, 0, 0)
		// One is with the disk, the others fill the queue.
		early := appendAll(t.Context(), log, 1)
		synctest.Wait()
		queued := appendAll(t.Context(), log, waiting)
		synctest.Wait()

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if err := log.Append(ctx, entry("late")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want that the time was up", err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("waited %s, want 1s", took)
		}
		close(disk.held)
		for range waiting {
			if err := <-queued; err != nil {
				t.Fatal(err)
			}
		}
		if err := <-early; err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(disk.bytes(), []byte("late")) {
			t.Error("an entry that found no room is on record")
		}
		wantNumbers(t, disk.bytes(), waiting+1)
		closeLog(t, log)
	})
}

func TestWhoHasGoneAppendsNothing(t *testing.T) {
	disk := &fakeDisk{}
	log := start(disk, 0, 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		if err := log.Append(ctx, entry("gone")); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want that the caller has gone", err)
		}
	}
	closeLog(t, log)
	if got := disk.bytes(); len(got) != 0 {
		t.Errorf("on record: %s", got)
	}
}

func TestABrokenDiskAcknowledgesNothingAndLeavesNoHalfLine(t *testing.T) {
	for name, fail := range map[string]func(*fakeDisk){
		"no room":             func(d *fakeDisk) { d.writes = failure{err: syscall.ENOSPC} },
		"room for half":       func(d *fakeDisk) { d.writes = failure{err: syscall.ENOSPC, after: 40} },
		"not made durable":    func(d *fakeDisk) { d.syncing = syscall.EIO },
		"cannot be cut off":   func(d *fakeDisk) { d.writes = failure{err: syscall.EIO, after: 40}; d.truncating = syscall.EIO },
		"cannot be gone back": func(d *fakeDisk) { d.writes = failure{err: syscall.EIO, after: 40}; d.seeking = syscall.EIO },
	} {
		t.Run(name, func(t *testing.T) {
			disk := &fakeDisk{}
			log := start(disk, 0, 0)
			mustAppend(t, log, "before")
			disk.change(fail)
			for range 3 {
				if err := log.Append(t.Context(), entry("lost")); err == nil {
					t.Fatal("a broken disk acknowledged an entry")
				}
			}
			// Writing works again before cutting off and going back do, if those did not.
			disk.change(func(d *fakeDisk) { d.writes, d.syncing = failure{}, nil })
			if disk.truncating != nil || disk.seeking != nil {
				if err := log.Append(t.Context(), entry("lost")); err == nil {
					t.Fatal("an entry was acknowledged behind half a line")
				}
			}
			disk.change(func(d *fakeDisk) { d.writes, d.syncing, d.truncating, d.seeking = failure{}, nil, nil, nil })
			mustAppend(t, log, "after")
			closeLog(t, log)

			entries := wantNumbers(t, disk.bytes(), 2)
			if entries[0].AuditID != "before" || entries[1].AuditID != "after" {
				t.Errorf("on record: %s and %s", entries[0].AuditID, entries[1].AuditID)
			}
		})
	}
}

func TestStandardOutputHasNoHalfLineBeforeAWholeOne(t *testing.T) {
	disk := &fakeDisk{writes: failure{err: syscall.EAGAIN, after: 40}}
	log := start(stdout{disk}, 0, 0)
	if err := log.Append(t.Context(), entry("lost")); err == nil {
		t.Fatal("half a line was acknowledged")
	}
	disk.change(func(d *fakeDisk) { d.writes = failure{} })
	mustAppend(t, log, "after")
	closeLog(t, log)
	lines := strings.Split(strings.TrimSuffix(string(disk.bytes()), "\n"), "\n")
	if got := decode(t, lines[len(lines)-1]); len(lines) != 2 || got.AuditID != "after" {
		t.Errorf("%d lines, the last is %s", len(lines), got.AuditID)
	}
}

func TestALogGoesOnWhereItEnded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "made", "audit.log")
	for _, left := range []string{"", `{`, `{"seq":3,"level":"Meta`, strings.Repeat("\x00", 700), `{"se`} {
		log := mustOpen(t, path)
		mustAppend(t, log, "one")
		mustAppend(t, log, "two")
		closeLog(t, log)
		leave(t, path, left)
	}
	log := mustOpen(t, path)
	mustAppend(t, log, "last")
	closeLog(t, log)

	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	wantNumbers(t, content, 11)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("others may read it: %o", got)
	}
}

func TestALogThatIsLongerThanWhatIsReadOfItGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	log := mustOpen(t, path)
	long := entry("long")
	long.RequestURI = strings.Repeat("u", MaxLine-4096)
	const many = 2 * tail / MaxLine
	for range many {
		if err := log.Append(t.Context(), long); err != nil {
			t.Fatal(err)
		}
	}
	closeLog(t, log)
	leave(t, path, `{"seq":99`)
	log = mustOpen(t, path)
	mustAppend(t, log, "last")
	closeLog(t, log)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	wantNumbers(t, content, many+1)
}

func TestAFileThatIsNoLogIsLeftAsItIs(t *testing.T) {
	for name, content := range map[string]string{
		"text":                   "root:x:0:0\nnobody:x:1:1\n",
		"text without an end":    "a key that somebody needs",
		"half text after a line": `{"seq":1,"auditID":"a"}` + "\nkey",
		"JSON of something else": `{"kind":"Event"}` + "\n",
		"too long a line":        strings.Repeat(`{"seq":1`, tail),
		"zeros without an end":   strings.Repeat("\x00", 2*tail),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			leave(t, path, content)
			if log, err := OpenFile(path); err == nil {
				closeLog(t, log)
				t.Error("it was taken for a log")
			}
			after, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(after) != content {
				t.Errorf("%d bytes became %d", len(content), len(after))
			}
		})
	}
}

func TestALogHasOneWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	first := mustOpen(t, path)
	if second, err := OpenFile(path); err == nil {
		closeLog(t, second)
		t.Error("two have it open")
	}
	closeLog(t, first)
	closeLog(t, mustOpen(t, path))
}

func TestAClosedLogHasAllItAcknowledgedAndTakesNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &fakeDisk{held: make(chan struct{})}
		log := start(disk, 0, 0)
		told := appendAll(t.Context(), log, 50)
		synctest.Wait()
		closed := make(chan error, 1)
		go func() { closed <- log.Close() }()
		synctest.Wait()
		if len(closed) != 0 {
			t.Fatal("closed before the disk had what waits")
		}
		close(disk.held)
		if err := <-closed; err != nil {
			t.Fatal(err)
		}
		for range 50 {
			if err := <-told; err != nil {
				t.Error(err)
			}
		}
		wantNumbers(t, disk.durable(), 50)
		if err := log.Append(t.Context(), entry("late")); err == nil {
			t.Error("a closed log took an entry")
		}
		if err := log.Close(); err != nil {
			t.Errorf("closed again: %v", err)
		}
	})
}

func TestAnEntryThatCannotBeWrittenHarmsNoOther(t *testing.T) {
	disk := &fakeDisk{}
	log := start(disk, 0, 0)
	long := entry("long")
	long.UserAgent = strings.Repeat("a", MaxLine)
	for range 2 {
		if err := log.Append(t.Context(), long); err == nil {
			t.Error("an entry without bounds was taken")
		}
		mustAppend(t, log, "good")
	}
	closeLog(t, log)
	wantNumbers(t, disk.bytes(), 2)
}

func TestAnEntryIsTheCallersAgainOnceAppendReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &fakeDisk{held: make(chan struct{})}
		log := start(disk, 0, 0)
		told := appendAll(t.Context(), log, 1)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		mine := entry("mine")
		mine.Seq = 99
		if err := log.Append(ctx, mine); err == nil {
			t.Fatal("acknowledged by a disk that holds")
		}
		mine.AuditID = "changed"
		close(disk.held)
		if err := <-told; err != nil {
			t.Fatal(err)
		}
		closeLog(t, log)
		if got := wantNumbers(t, disk.bytes(), 2); got[1].AuditID != "mine" || mine.Seq != 99 {
			t.Errorf("on record is %s, the caller's has number %d", got[1].AuditID, mine.Seq)
		}
	})
}

func TestWhoReadsEventsOfKubernetesReadsEntries(t *testing.T) {
	written := full()
	made, err := encode(written)
	if err != nil {
		t.Fatal(err)
	}
	event := auditv1.Event{}
	if err := json.Unmarshal(numbered([]*offer{made}, 6), &event); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(event, written.Event) {
		t.Errorf("read %+v, want %+v", event, written.Event)
	}
	read := decode(t, string(numbered([]*offer{made}, 6)))
	written.Seq = 7
	if !reflect.DeepEqual(&read, written) {
		t.Errorf("read %+v, want %+v", read, *written)
	}
}

func TestAnEntrysOwnFieldsHideNoneOfKubernetes(t *testing.T) {
	names := map[string]bool{}
	for i, event := 0, reflect.TypeFor[auditv1.Event](); i < event.NumField(); i++ {
		names[nameOf(event.Field(i))] = true
	}
	names["apiVersion"], names["kind"] = true, true
	for i, own := 0, reflect.TypeFor[Entry](); i < own.NumField(); i++ {
		if name := nameOf(own.Field(i)); names[name] && !own.Field(i).Anonymous {
			t.Errorf("%s is a field of an Event, too", name)
		}
	}
}

func nameOf(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// FuzzNobodyWritesASecondLine gives an entry what an engineer may choose.
func FuzzNobodyWritesASecondLine(f *testing.F) {
	for _, text := range []string{"", "plain", "a\nb", "{\"seq\":9}\n{\"seq\":10,", "\x00\x1b[2J\r\n", "\xff\xfe\xc3", "\u2028\u2029\u0085", "\"},\n"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		forged := entry("forged")
		forged.RequestURI, forged.UserAgent, forged.Cause, forged.Engineer, forged.Case = text, text, text, text, text
		forged.Command = []string{text, text}
		forged.Annotations = map[string]string{text: text}
		made, err := encode(forged)
		if err != nil {
			return
		}
		line := numbered([]*offer{made}, 0)
		if bytes.Count(line, []byte("\n")) != 1 || bytes.ContainsFunc(line[:len(line)-1], func(r rune) bool { return r < ' ' }) {
			t.Fatalf("not one line: %q", line)
		}
		want := strings.ToValidUTF8(text, "\uFFFD")
		got := wantNumbers(t, line, 1)[0]
		if !sameText(got.RequestURI, text) || !sameText(got.Cause, text) || !sameText(got.Command[1], text) {
			t.Errorf("read %q, want %q", got.RequestURI, want)
		}
	})
}

// sameText compares runes, of which those that are none are all the same.
func sameText(a, b string) bool { return string([]rune(a)) == string([]rune(b)) }

// BenchmarkAppend shows entries a second beside what the disk does alone.
func BenchmarkAppend(b *testing.B) {
	for _, writers := range []int{1, 16} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			log, err := OpenFile(filepath.Join(b.TempDir(), "audit.log"))
			if err != nil {
				b.Fatal(err)
			}
			work := make(chan struct{}, b.N)
			for range b.N {
				work <- struct{}{}
			}
			close(work)
			b.ResetTimer()
			var all sync.WaitGroup
			for range writers {
				all.Go(func() {
					for range work {
						if err := log.Append(b.Context(), full()); err != nil {
							b.Error(err)
						}
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
			if err := log.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
	b.Run("bare write and fsync", func(b *testing.B) {
		bare, err := os.Create(filepath.Join(b.TempDir(), "bare"))
		if err != nil {
			b.Fatal(err)
		}
		made, err := encode(full())
		if err != nil {
			b.Fatal(err)
		}
		b.ResetTimer()
		for range b.N {
			if _, err := bare.Write(made.body); err != nil {
				b.Fatal(err)
			}
			if err := bare.Sync(); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
		if err := bare.Close(); err != nil {
			b.Fatal(err)
		}
	})
}

func entry(id types.UID) *Entry {
	return &Entry{Event: auditv1.Event{AuditID: id, Level: auditv1.LevelMetadata}, Labels: map[string]string{LabelSource: Source}}
}

// full returns an entry with every field that the gateway gives one.
func full() *Entry {
	at := metav1.NewMicroTime(time.Date(2026, 11, 22, 9, 30, 0, 123456000, time.UTC).Local())
	return &Entry{
		Event: auditv1.Event{
			TypeMeta: metav1.TypeMeta{APIVersion: "audit.k8s.io/v1", Kind: "Event"}, Level: auditv1.LevelMetadata,
			AuditID: "6f1a", Stage: auditv1.StageResponseComplete, Verb: "create",
			RequestURI:       "/api/v1/namespaces/shop/pods/web-0/exec?command=sh&stdin=true",
			User:             authenticationv1.UserInfo{Username: "supportaccess.dev:abc", Groups: []string{"supportaccess.dev:engineers"}},
			ImpersonatedUser: &authenticationv1.UserInfo{Username: "somebody"},
			SourceIPs:        []string{"192.0.2.7"}, UserAgent: "kubectl/v1.36.3",
			ObjectRef:                &auditv1.ObjectReference{Resource: "pods", Subresource: "exec", Namespace: "shop", Name: "web-0", APIVersion: "v1"},
			ResponseStatus:           &metav1.Status{Code: 101},
			RequestReceivedTimestamp: at, StageTimestamp: at, Annotations: map[string]string{"a": "b"},
		},
		Labels: map[string]string{LabelSource: Source}, Section: SectionContent, Grant: Grant{Namespace: "shop", Name: "ticket-1", UID: "u"},
		Engineer: "ada@vendor.example", Case: "CASE-1", Replica: "gateway-0", Command: []string{"sh"},
		Cause: "Revoked: by the customer", BytesIn: 7, BytesOut: 9, DurationMillis: 12.5,
	}
}

// appendAll appends many entries at once. It returns where their outcomes come.
func appendAll(ctx context.Context, log Log, many int) chan error {
	told := make(chan error, many)
	for i := range many {
		go func() { told <- log.Append(ctx, entry(types.UID(fmt.Sprint("entry-", i)))) }()
	}
	return told
}

func mustOpen(t *testing.T, path string) *File {
	t.Helper()
	log, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func mustAppend(t *testing.T, log Log, id types.UID) {
	t.Helper()
	if err := log.Append(t.Context(), entry(id)); err != nil {
		t.Fatalf("append %s: %v", id, err)
	}
}

func closeLog(t *testing.T, log *File) {
	t.Helper()
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
}

// leave writes behind the end of a file.
func leave(t *testing.T, path, what string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(what); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func decode(t *testing.T, line string) Entry {
	t.Helper()
	read := Entry{}
	decoder := json.NewDecoder(strings.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&read); err != nil {
		t.Fatalf("no entry: %v: %.200q", err, line)
	}
	return read
}

// wantNumbers reads a log of so many entries, numbered without a gap.
func wantNumbers(t *testing.T, content []byte, many int) []Entry {
	t.Helper()
	if !bytes.HasSuffix(content, []byte("\n")) {
		t.Fatalf("it does not end in a line: %.200q", content)
	}
	lines := strings.Split(strings.TrimSuffix(string(content), "\n"), "\n")
	if len(lines) != many {
		t.Fatalf("%d lines, want %d", len(lines), many)
	}
	var entries []Entry
	for i, line := range lines {
		read := decode(t, line)
		if read.Seq != int64(i)+1 {
			t.Fatalf("line %d has number %d", i+1, read.Seq)
		}
		entries = append(entries, read)
	}
	return entries
}

// fakeDisk is a file that remembers what is durable and can be made to fail, or to hold what it is to make durable.
type fakeDisk struct {
	// held is waited for before something is made durable, where there is one.
	held chan struct{}

	mu                           sync.Mutex
	content, safe                []byte
	at                           int64
	synced                       int
	writes                       failure
	syncing, truncating, seeking error
}

// failure is of a write, after so many bytes.
type failure struct {
	err   error
	after int
}

func (d *fakeDisk) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.writes.err != nil {
		p = p[:min(len(p), d.writes.after)]
	}
	if gap := d.at - int64(len(d.content)); gap > 0 {
		d.content = append(d.content, make([]byte, gap)...)
	}
	d.content = append(d.content[:d.at], p...)
	d.at += int64(len(p))
	return len(p), d.writes.err
}

func (d *fakeDisk) Sync() error {
	if d.held != nil {
		<-d.held
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.syncing != nil {
		return d.syncing
	}
	d.synced++
	d.safe = bytes.Clone(d.content)
	return nil
}

func (d *fakeDisk) Truncate(size int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.truncating != nil {
		return d.truncating
	}
	d.content = d.content[:size]
	return nil
}

func (d *fakeDisk) Seek(offset int64, whence int) (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.seeking != nil {
		return 0, d.seeking
	}
	if whence != io.SeekStart {
		return 0, errors.New("only from the start")
	}
	d.at = offset
	return offset, nil
}

func (d *fakeDisk) Close() error { return nil }

func (d *fakeDisk) change(how func(*fakeDisk)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	how(d)
}

func (d *fakeDisk) bytes() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.Clone(d.content)
}

func (d *fakeDisk) durable() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.Clone(d.safe)
}

func (d *fakeDisk) syncs() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.synced
}
