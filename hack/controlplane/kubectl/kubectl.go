// Package kubectl runs a kubectl that goes on until it is cut: a watch, a log that is followed, a stream into a pod.
package kubectl

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// pollInterval is how often it is looked at what kubectl has said.
const pollInterval = 10 * time.Millisecond

// Running is a kubectl that runs, or ran.
type Running struct {
	name  string
	done  chan struct{}
	ended time.Time

	mu  sync.Mutex
	out bytes.Buffer
}

// Start runs a kubectl with a kubeconfig, until it ends or the context does. Its input stays open, as a terminal's would;
// env is added to this process's.
func Start(ctx context.Context, path, kubeconfig string, env []string, args ...string) (*Running, error) {
	r := &Running{name: "kubectl " + strings.Join(args, " "), done: make(chan struct{})}
	command := exec.CommandContext(ctx, path, append([]string{"--kubeconfig", kubeconfig}, args...)...)
	command.Stdout, command.Stderr = r, r
	command.Env = append(os.Environ(), env...)
	if _, err := command.StdinPipe(); err != nil {
		return nil, fmt.Errorf("keep the input of %s open: %w", r.name, err)
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", r.name, err)
	}
	go func() {
		_ = command.Wait()
		r.ended = time.Now()
		close(r.done)
	}()
	return r, nil
}

// Write takes what kubectl prints.
func (r *Running) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.Write(p)
}

// Name is how people write it.
func (r *Running) Name() string { return r.name }

// Said is what kubectl has printed so far.
func (r *Running) Said() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.String()
}

// Says waits until kubectl has printed something. That it ended without is an error.
func (r *Running) Says(ctx context.Context, words string) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		// Whoever has ended says nothing more.
		over := r.Exited()
		if strings.Contains(r.Said(), words) {
			return nil
		}
		if over {
			return fmt.Errorf("%s ended: %q", r.name, r.Said())
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s says %q: it says %q", r.name, words, r.Said())
		case <-ticker.C:
		}
	}
}

// Done is closed when kubectl has ended.
func (r *Running) Done() <-chan struct{} { return r.done }

// Exited tells whether kubectl has ended.
func (r *Running) Exited() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// Ended is when it ended. Only after Done.
func (r *Running) Ended() time.Time { return r.ended }
