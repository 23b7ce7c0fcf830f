package process

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestStopEndsAProgramAndWhatItStarted(t *testing.T) {
	p := startShell(t, "sleep 1000 & echo $!; wait")
	child := firstLine(t, p)
	if err := p.Stop(time.Second); err != nil {
		t.Fatal(err)
	}
	waitUntilGone(t, p.PID())
	waitUntilGone(t, child)
}

func TestAProgramThatEndsByItselfTakesWithItWhatItStarted(t *testing.T) {
	p := startShell(t, "sleep 1000 & echo $!")
	child := firstLine(t, p)
	waitUntilGone(t, child)
	if !p.Await(10*time.Second) || p.ExitCode() != 0 {
		t.Errorf("ended: %t, code %d, want 0", p.Exited(), p.ExitCode())
	}
}

func TestStopKillsAProgramThatDoesNotEnd(t *testing.T) {
	p := startShell(t, "trap '' TERM; echo $$; while :; do sleep 0.1; done")
	firstLine(t, p)
	if err := p.Stop(50 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if p.ExitCode() != -1 {
		t.Errorf("it ended with code %d, want that a signal ended it", p.ExitCode())
	}
	waitUntilGone(t, p.PID())
}

func TestAProgramThatEndsByItselfTellsItsCode(t *testing.T) {
	p := startShell(t, "echo the reason; exit 7")
	if !p.Await(10*time.Second) || p.ExitCode() != 7 {
		t.Errorf("ended: %t, code %d, want 7", p.Exited(), p.ExitCode())
	}
	if p.Tail() != "the reason\n" {
		t.Errorf("its log says %q", p.Tail())
	}
	if err := p.Stop(time.Second); err != nil {
		t.Errorf("to stop what has ended: %v", err)
	}
}

func TestANumberIsOursOnlyWhileItRunsOurProgram(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if !Alive(os.Getpid(), self) {
		t.Error("this test does not run")
	}
	if Alive(os.Getpid(), "/bin/sh") {
		t.Error("this test is taken for a shell")
	}
}

func startShell(t *testing.T, script string) *Process {
	t.Helper()
	dir := t.TempDir()
	p, err := Command{
		Name: "shell", Path: "/bin/sh", Args: []string{"-c", script}, Dir: dir,
		Env: []string{"PATH=/usr/bin:/bin"}, LogPath: filepath.Join(dir, "log"),
	}.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Kill() })
	return p
}

// firstLine waits for the number that the shell prints.
func firstLine(t *testing.T, p *Process) int {
	t.Helper()
	var pid int
	poll(t, "the shell prints a number", func() bool {
		line, _, found := strings.Cut(p.Tail(), "\n")
		var err error
		pid, err = strconv.Atoi(line)
		return found && err == nil
	})
	return pid
}

func waitUntilGone(t *testing.T, pid int) {
	t.Helper()
	poll(t, "process "+strconv.Itoa(pid)+" is gone", func() bool {
		// A child whose parent is gone may wait for somebody to take its code; that one runs no more.
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ") || syscall.Kill(pid, 0) != nil
	})
}

func poll(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(10 * time.Second)
	for !condition() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}
