package audit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/cast"
	"supportaccess.dev/operator/internal/audit/verify"
)

// piece returns the entry of a piece of a recording of a command in a pod.
func piece(id string, n int64, at time.Time, pack []byte) *audit.Entry {
	e := ofExec(id, at)
	e.Type, e.Recording = audit.TypeRecording, &audit.Recording{Piece: n, Frames: pack}
	return e
}

func ofExec(id string, at time.Time) *audit.Entry {
	instant := metav1.NewMicroTime(at)
	return &audit.Entry{
		Event: auditv1.Event{
			Level: auditv1.LevelMetadata, Stage: auditv1.StageResponseStarted, Verb: "get", AuditID: types.UID(id), RequestReceivedTimestamp: instant, StageTimestamp: instant,
			ObjectRef: &auditv1.ObjectReference{Resource: "pods", Subresource: "exec", Namespace: "mail", Name: "web-0"},
		},
		Labels: map[string]string{audit.LabelSource: audit.Source}, Grant: audit.Grant{Namespace: "shop", Name: "case-1", UID: "uid-1"}, Engineer: "ana@vendor.example",
		Command: []string{"cat", "file"},
	}
}

// record puts two recordings down at once, as streams do, their pieces in any order, and other entries between. It returns what
// went over the first.
func record(t *testing.T, log *audit.Ledger) []byte {
	t.Helper()
	printed := []byte(strings.Repeat("what was printed\n", 1000) + incompressible(300<<10))
	packs, err := cast.Pack([]cast.Frame{{At: time.Second, Kind: cast.Output, Data: printed}})
	if err != nil {
		t.Fatal(err)
	}
	if len(packs) < 4 {
		t.Fatalf("%d packs are too few to be out of order", len(packs))
	}
	order := []int{1, 0}
	for i := 2; i < len(packs); i++ {
		order = append(order, i)
	}
	for _, i := range order {
		mustAppend(t, log, piece("one", int64(i+1), start, packs[i]))
		mustAppend(t, log, piece("another", int64(i+1), start, packs[i]))
		mustAppend(t, log, findable(i))
	}
	end := ofExec("one", start.Add(time.Hour))
	end.Stage, end.Recording = auditv1.StageResponseComplete, &audit.Recording{Pieces: int64(len(packs)), Bytes: int64(len(printed))}
	mustAppend(t, log, end)
	return printed
}

// play returns what a recording shows, and what is marked in it.
func play(t *testing.T, store audit.Finder, query audit.Query) (shown []byte, marks string) {
	t.Helper()
	var out bytes.Buffer
	if err := cast.Play(t.Context(), store, query, &out); err != nil {
		t.Fatal(err)
	}
	err := cast.Read(&out, func(cast.Header) error { return nil }, func(e cast.Event) error {
		if e.Code == "o" {
			shown = append(shown, e.Data...)
		}
		if e.Code == "m" {
			marks += string(e.Data)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return shown, marks
}

func TestARecordingIsPlayedToTheByteAndIsInNobodysWay(t *testing.T) {
	onEach(t, func(t *testing.T, open func() backend) {
		store := open()
		log := resume(t, store, theKey(t))
		printed := record(t, log)
		if shown, marks := play(t, store, audit.Query{Recording: "one"}); !bytes.Equal(shown, printed) || marks != "" {
			t.Errorf("%d bytes are shown, want %d; marked %q", len(shown), len(printed), marks)
		}
		if _, marks := play(t, store, audit.Query{Recording: "another"}); !strings.Contains(marks, "the end of the request is not in the log") {
			t.Errorf("of a request that goes on it is marked %q", marks)
		}
		for name, query := range map[string]audit.Query{"of its namespace": {Recording: "one", Namespace: "mail"}, "of its grant's": {Recording: "one", Namespace: "shop"}} {
			if shown, _ := play(t, store, query); !bytes.Equal(shown, printed) {
				t.Errorf("%s %d bytes are shown", name, len(shown))
			}
		}
		for name, query := range map[string]audit.Query{"none": {Recording: "two"}, "of another namespace": {Recording: "one", Namespace: "billing"}} {
			if err := cast.Play(t.Context(), store, query, &bytes.Buffer{}); !errors.Is(err, cast.ErrNone) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for name, c := range map[string]struct {
			query  audit.Query
			pieces bool
		}{
			"everything": {audit.Query{}, false}, "a grant": {audit.Query{Grant: audit.Grant{UID: "uid-1"}}, false}, "a namespace": {audit.Query{Namespace: "mail"}, false},
			"their type": {audit.Query{Type: audit.TypeRecording}, true}, "their number": {audit.Query{Recording: "one"}, true},
		} {
			found := false
			err := audit.EachEntry(t.Context(), store, c.query, func(e *audit.Entry) error {
				found = found || e.Type == audit.TypeRecording
				return nil
			})
			if err != nil || found != c.pieces {
				t.Errorf("who asks for %s gets pieces: %t, want %t (%v)", name, found, c.pieces, err)
			}
		}
		mustClose(t, log)
	})
}

func TestARecordingThatWasTamperedWithIsFound(t *testing.T) {
	onEach(t, func(t *testing.T, open func() backend) {
		store := open()
		log := resume(t, store, theKey(t))
		record(t, log)
		text := exported(t, store)
		mustVerify(t, text, nil)
		lines := bytes.Split(text, []byte("\n"))
		at := slices.IndexFunc(lines, func(l []byte) bool { return bytes.Contains(l, []byte(`"type":"Recording"`)) })
		e := audit.Entry{}
		if err := json.Unmarshal(lines[at], &e); err != nil {
			t.Fatal(err)
		}
		place := bytes.Index(lines[at], []byte(`"frames":"`)) + 40
		lines[at][place] ^= 1
		_, err := verify.Log(bytes.NewReader(bytes.Join(lines, []byte("\n"))), verify.Options{})
		wantFault(t, err, verify.Changed, e.Seq)
		mustClose(t, log)
	})
}

func TestARecordingIsRemovedWithItsEntriesAndWhatIsLeftOfOneIsSaid(t *testing.T) {
	onEach(t, func(t *testing.T, open func() backend) {
		store := open()
		log := resume(t, store, theKey(t))
		packs, err := cast.Pack([]cast.Frame{{Kind: cast.Output, Data: []byte("printed")}})
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, log, piece("old", 1, start, packs[0]))
		mustAppend(t, log, piece("half", 1, start, packs[0]))
		mustAppend(t, log, piece("half", 2, start.Add(time.Hour), packs[0]))
		end := ofExec("half", start.Add(time.Hour))
		end.Stage, end.Recording = auditv1.StageResponseComplete, &audit.Recording{Pieces: 2, Bytes: 14}
		mustAppend(t, log, end)
		if _, err := log.Cut(t.Context(), start.Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if err := cast.Play(t.Context(), store, audit.Query{Recording: "old"}, &bytes.Buffer{}); !errors.Is(err, cast.ErrNone) {
			t.Errorf("what was removed is played: %v", err)
		}
		if shown, marks := play(t, store, audit.Query{Recording: "half"}); string(shown) != "printed" || !strings.Contains(marks, "pieces 1 to 1 are not in the log") {
			t.Errorf("of half of one there is %q, marked %q", shown, marks)
		}
		mustVerify(t, exported(t, store), nil)
		mustClose(t, log)
	})
}
