package controlplane

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
)

const (
	stopGrace = 5 * time.Second
	logTail   = 4 << 10
)

// process is one program of the control plane.
type process struct {
	name    string
	logPath string
	cmd     *exec.Cmd
	done    chan struct{}
}

// command says what to run: a program, its arguments, and where its output goes.
type command struct {
	name, path string
	args       []string
	dir        string
	detach     bool
}

// start runs the command. Unless it is detached it dies with this process, however that ends.
func (c command) start() (*process, error) {
	p := &process{name: c.name, logPath: filepath.Join(c.dir, c.name+".log"), done: make(chan struct{})}
	log, err := os.Create(p.logPath)
	if err != nil {
		return nil, fmt.Errorf("create the log of %s: %w", c.name, err)
	}
	defer func() { _ = log.Close() }()

	p.cmd = exec.Command(c.path, c.args...)
	p.cmd.Dir = c.dir
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// Nothing of the caller's environment: kwok hands its own to whoever runs exec.
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.dir, "TMPDIR=" + c.dir}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if !c.detach {
		p.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	started := make(chan error)
	go p.run(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	return p, nil
}

// run starts and awaits the program on one thread of the operating system: Pdeathsig is sent when the thread
// that started it ends, not when the process does.
func (p *process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	_ = p.cmd.Wait()
	close(p.done)
}

// exited tells whether the program has ended.
func (p *process) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop asks the program to end, and ends it if it does not.
func (p *process) stop(grace time.Duration) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if p.await(grace) {
		return nil
	}
	_ = p.cmd.Process.Kill()
	if p.await(stopGrace) {
		return nil
	}
	return fmt.Errorf("stop %s: process %d is still there", p.name, p.cmd.Process.Pid)
}

func (p *process) await(limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-timer.C:
		return false
	}
}

// failure describes why the program ended or did not become ready, with the end of its log.
func (p *process) failure() error {
	tail := p.tail()
	err := fmt.Errorf("%s: the end of %s:\n%s", p.name, p.logPath, tail)
	if bytes.Contains(tail, []byte("address already in use")) {
		return errors.Join(errPortTaken, err)
	}
	return err
}

func (p *process) tail() []byte {
	content, err := os.ReadFile(p.logPath)
	if err != nil {
		return []byte(err.Error())
	}
	if len(content) > logTail {
		content = content[len(content)-logTail:]
	}
	return content
}

// alive tells whether pid still runs the program at path. A number that another program got since is not ours.
func alive(pid int, path string) bool {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return false
	}
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		path = resolved
	}
	return strings.TrimSuffix(exe, " (deleted)") == path
}
