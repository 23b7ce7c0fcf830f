package kubectl

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tool is a program that says with what it was called and then does as a kubectl would.
func tool(t *testing.T, does string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubectl")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho \"$@\" $WORD\n"+does+"\n"), 0o700); err != nil { //nolint:gosec // It must be run.
		t.Fatal(err)
	}
	return path
}

func start(t *testing.T, ctx context.Context, does string) *Running {
	t.Helper()
	r, err := Start(ctx, tool(t, does), "a.kubeconfig", []string{"WORD=added"}, "get", "configmaps", "-w")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAKubectlRunsWithItsInputOpenUntilItIsCut(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	// With its input closed it would end at once.
	r := start(t, ctx, "read line; echo its input is closed")
	if err := r.Says(t.Context(), "--kubeconfig a.kubeconfig get configmaps -w added"); err != nil {
		t.Fatal(err)
	}
	if r.Exited() {
		t.Fatalf("it has ended: %q", r.Said())
	}
	before := time.Now()
	cancel()
	<-r.Done()
	if !r.Exited() || r.Ended().Before(before) || strings.Contains(r.Said(), "closed") {
		t.Errorf("it ended at %s, asked at %s: %q", r.Ended(), before, r.Said())
	}
}

func TestWhoWaitsForWordsIsToldWhatWasSaidInstead(t *testing.T) {
	ended := start(t, t.Context(), "echo refused")
	if err := ended.Says(t.Context(), "imap"); err == nil || !strings.Contains(err.Error(), "ended") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("of one that ended: %v", err)
	}
	if err := ended.Says(t.Context(), "refused"); err != nil {
		t.Errorf("what it said before it ended: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := start(t, t.Context(), "read line").Says(ctx, "imap"); err == nil || !strings.Contains(err.Error(), "it says") {
		t.Errorf("of one that says nothing: %v", err)
	}
}
