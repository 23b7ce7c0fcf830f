// Package process starts programs that end with this one, and ends them by number. It knows nothing of what they are.
package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	killGrace = 5 * time.Second
	logTail   = 4 << 10
)

// Command says what to run, where, and where its output goes.
type Command struct {
	Name string
	Path string
	Args []string
	// Dir is the working directory.
	Dir string
	// Env is the whole environment: nothing of the caller's is added.
	Env []string
	// LogPath is the file that gets both outputs; it is truncated.
	LogPath string
	// Detach leaves the program running when this process ends.
	Detach bool
	// User is as whom it runs, nil for whoever runs this.
	User *syscall.Credential
}

// Process is a program that was started.
type Process struct {
	Name    string
	LogPath string
	cmd     *exec.Cmd
	done    chan struct{}
}

// Start runs the command. Unless it is detached it dies with this process, however that ends.
func (c Command) Start() (*Process, error) {
	log, err := os.Create(c.LogPath)
	if err != nil {
		return nil, fmt.Errorf("create the log of %s: %w", c.Name, err)
	}
	defer func() { _ = log.Close() }()

	p := &Process{Name: c.Name, LogPath: c.LogPath, cmd: exec.Command(c.Path, c.Args...), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env = c.Dir, c.Env
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: c.User}
	if !c.Detach {
		p.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	started := make(chan error)
	go p.run(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	return p, nil
}

// run starts and awaits the program on one thread of the operating system: Pdeathsig is sent when the thread
// that started it ends, not when the process does. What the program had started ends with it.
func (p *Process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	awaitEnd(p.PID())
	// Nobody is there to take an error, and what remains of it the tests see.
	_ = KillGroup(p.PID())
	_ = p.cmd.Wait()
	close(p.done)
}

// awaitEnd waits until a child has ended, and leaves it to be waited for: until then its number is nobody else's.
func awaitEnd(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// PID is the number of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Path is the program that it runs.
func (p *Process) Path() string { return p.cmd.Path }

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exited tells whether the program has ended.
func (p *Process) Exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// ExitCode is what an ended program returned, -1 when a signal ended it or it still runs.
func (p *Process) ExitCode() int {
	if !p.Exited() {
		return -1
	}
	return p.cmd.ProcessState.ExitCode()
}

// Signal sends a signal; an ended program takes none.
func (p *Process) Signal(signal syscall.Signal) error {
	err := p.cmd.Process.Signal(signal)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s with %s: %w", p.Name, signal, err)
	}
	return nil
}

// Stop asks the program to end, and after the grace ends it.
func (p *Process) Stop(grace time.Duration) error {
	_ = p.Signal(syscall.SIGTERM)
	if p.Await(grace) {
		return nil
	}
	return p.Kill()
}

// Kill ends the program without asking.
func (p *Process) Kill() error {
	_ = p.Signal(syscall.SIGKILL)
	if p.Await(killGrace) {
		return nil
	}
	return fmt.Errorf("kill %s: process %d is still there", p.Name, p.PID())
}

// KillGroup ends what a program that has just ended had started and left behind: each leads a group of its own. It
// must not be called later: the number may be another's by then.
func KillGroup(pid int) error {
	if err := syscall.Kill(-pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill what process %d left behind: %w", pid, err)
	}
	return nil
}

// Pause stops the program in its tracks and returns once none of its threads runs.
func (p *Process) Pause() error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(killGrace)
	for !p.paused() {
		select {
		case <-ticker.C:
		case <-p.done:
			return fmt.Errorf("pause %s: it has ended", p.Name)
		case <-deadline:
			return fmt.Errorf("pause %s: process %d goes on", p.Name, p.PID())
		}
	}
	return nil
}

// paused tells whether every thread of the program is stopped.
func (p *Process) paused() bool {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.PID()))
	if err != nil || len(stats) == 0 {
		return false
	}
	for _, path := range stats {
		// A thread that has gone since it was listed runs no more.
		stat, err := os.ReadFile(path)
		if err == nil && !bytes.Contains(stat, []byte(") T ")) {
			return false
		}
	}
	return true
}

// Resume lets a paused program go on.
func (p *Process) Resume() error { return p.Signal(syscall.SIGCONT) }

// Await waits until the program has ended and tells whether it did in time.
func (p *Process) Await(limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-timer.C:
		return false
	}
}

// Tail is the end of the program's log, after the last errors before it: what went wrong is seldom what was said last.
func (p *Process) Tail() string {
	content, err := os.ReadFile(p.LogPath)
	if err != nil {
		return err.Error()
	}
	earlier, last := content[:max(0, len(content)-logTail)], content[max(0, len(content)-logTail):]
	var wrong []byte
	for line := range bytes.Lines(earlier) {
		if bytes.Contains(line, []byte(`"level":"error"`)) {
			wrong = append(wrong, line...)
		}
	}
	return string(wrong[max(0, len(wrong)-logTail):]) + string(last)
}

// Alive tells whether pid still runs the program at path. A number that another program got since is not ours.
func Alive(pid int, path string) bool {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return false
	}
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		path = resolved
	}
	return strings.TrimSuffix(exe, " (deleted)") == path
}
