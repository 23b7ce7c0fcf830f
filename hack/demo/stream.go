package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"supportaccess.dev/operator/hack/controlplane/kubectl"
)

// cutWithin is for how long a stream may outlive its grant, on a busy machine.
const cutWithin = 5 * time.Second

// start runs kubectl as Ana and waits until it has said something.
func (s *stage) start(ctx context.Context, says string, args ...string) (*kubectl.Running, error) {
	say("%s  ana $ kubectl %s &", s.clock(), strings.Join(args, " "))
	started, err := kubectl.Start(ctx, s.cp.Kubectl(), s.ana, nil, args...)
	if err != nil {
		return nil, err
	}
	return started, started.Says(ctx, says)
}

// isCut fails unless a stream ends, and shows when it did and what its client was told.
func (s *stage) isCut(running *kubectl.Running, want string) error {
	select {
	case <-running.Done():
		out := strings.TrimSpace(running.Said())
		say("%9d ms  ana's kubectl was cut; it had said:", running.Ended().Sub(s.started).Milliseconds())
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
