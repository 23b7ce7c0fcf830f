package audit_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"

	"supportaccess.dev/operator/internal/audit"
)

func TestACopyHasEveryLineOnceWhateverCameBetween(t *testing.T) {
	store := stores["sqlite"](t, t.TempDir())
	log := resume(t, store, theKey(t))
	path := filepath.Join(t.TempDir(), "made", "audit.log")
	for round := range int64(3) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		carrier := &audit.Copy{From: store, Path: path, Clock: clock.RealClock{}, Logger: logr.Discard()}
		go func() { done <- carrier.Start(ctx) }()
		for i := range int64(600) {
			mustWrite(t, log, round*600+i)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if round == 1 {
			// Half a line, as a crash leaves it.
			leaveBehind(t, path, `{"seq":`)
		}
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	for seq := int64(1); ; {
		lines, err := store.Lines(t.Context(), seq, 1<<62)
		if err != nil {
			t.Fatal(err)
		}
		if len(lines) == 0 {
			break
		}
		for _, line := range lines {
			want.Write(line.Text)
			want.WriteByte('\n')
			seq = line.Seq + 1
		}
	}
	if !bytes.Equal(content, want.Bytes()) || bytes.Count(content, []byte("\n")) != 1801 {
		t.Errorf("the copy has %d bytes in %d lines, the log %d", len(content), bytes.Count(content, []byte("\n")), want.Len())
	}
	mustClose(t, log)
}

func TestACopyGoesOnAfterWhatWasRemoved(t *testing.T) {
	store := stores["sqlite"](t, t.TempDir())
	log := resume(t, store, theKey(t))
	for i := range int64(20) {
		mustWrite(t, log, i)
	}
	if _, err := log.Cut(t.Context(), start.Add(10*time.Second)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "audit.log")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (&audit.Copy{From: store, Path: path, Clock: clock.RealClock{}, Logger: logr.Discard()}).Start(ctx); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if entries := entriesOf(t, content); len(entries) != 11 || entries[0].Seq != 12 {
		t.Errorf("%d entries, the first %d", len(entries), entries[0].Seq)
	}
	mustClose(t, log)
}

func TestACopyLeavesOutWhatPodsPrint(t *testing.T) {
	store := stores["sqlite"](t, t.TempDir())
	log := resume(t, store, theKey(t))
	record(t, log)
	path := filepath.Join(t.TempDir(), "audit.log")
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := (&audit.Copy{From: store, Path: path, Clock: clock.RealClock{}, Logger: logr.Discard()}).Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	requests := 0
	for _, e := range entriesOf(t, content) {
		if e.Type == audit.TypeRecording {
			t.Fatalf("entry %d is in the copy", e.Seq)
		}
		if e.Type == audit.TypeRequest {
			requests++
		}
	}
	if requests < 4 || bytes.Count(content, []byte("ResponseComplete")) != requests+1 {
		t.Errorf("%d requests are in the copy: %s", requests, content)
	}
	mustClose(t, log)
}

func leaveBehind(t *testing.T, path, text string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}
