package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// stream is a kubectl of Ana's that runs until it is cut.
type stream struct {
	command *exec.Cmd
	ended   chan time.Time

	mu  sync.Mutex
	out bytes.Buffer
}

// Write takes what kubectl prints.
func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(p)
}

func (s *stream) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

// cutWithin is for how long a stream may outlive its grant, on a busy machine.
const cutWithin = 5 * time.Second

// start runs kubectl as Ana and waits until it has said something.
func (s *stage) start(ctx context.Context, says string, args ...string) (*stream, error) {
	say("%s  ana $ kubectl %s &", s.clock(), strings.Join(args, " "))
	started := &stream{ended: make(chan time.Time, 1)}
	started.command = exec.CommandContext(ctx, s.cp.Kubectl(), append([]string{"--kubeconfig", s.ana}, args...)...)
	started.command.Stdout, started.command.Stderr = started, started
	if _, err := started.command.StdinPipe(); err != nil {
		return nil, fmt.Errorf("keep the input of kubectl open: %w", err)
	}
	if err := started.command.Start(); err != nil {
		return nil, fmt.Errorf("start kubectl %s: %w", strings.Join(args, " "), err)
	}
	go func() {
		_ = started.command.Wait()
		started.ended <- time.Now()
	}()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for !strings.Contains(started.said(), says) {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for kubectl %s: it says %q", strings.Join(args, " "), started.said())
		case <-started.ended:
			return nil, fmt.Errorf("kubectl %s ended: %q", strings.Join(args, " "), started.said())
		case <-ticker.C:
		}
	}
	return started, nil
}

// isCut fails unless a stream ends, and shows when it did and what its client was told.
func (s *stage) isCut(running *stream, want string) error {
	select {
	case at := <-running.ended:
		out := strings.TrimSpace(running.said())
		say("%9d ms  ana's kubectl was cut; it had said:", at.Sub(s.started).Milliseconds())
		for line := range strings.SplitSeq(out, "\n") {
			say("            %s", line)
		}
		if !strings.Contains(out, want) {
			return fmt.Errorf("want the stream to end with %q, got %s", want, out)
		}
		return nil
	case <-time.After(cutWithin):
		return fmt.Errorf("a stream still runs %s after the end of its grant", cutWithin)
	}
}
