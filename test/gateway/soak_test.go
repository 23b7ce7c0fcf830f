package gateway

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"supportaccess.dev/operator/test/gen"
)

const (
	// samples is how often the memory is looked at in the course of a soak.
	samples = 200
	// soakPause is how long each client rests after a request: what is looked for does not hang on how many there are.
	soakPause = 50 * time.Millisecond
	// mayGrow is by how much the gateway may be larger in the last quarter than in the second, in KiB, besides a tenth.
	mayGrow = 8 << 10
)

// TestTheGatewayIsNoLargerAfterHoursThanItWasAtFirst works with one grant, follows and leaves, goes into a pod, and makes
// and ends grants, for as long as SOAK_TIME says.
func TestTheGatewayIsNoLargerAfterHoursThanItWasAtFirst(t *testing.T) {
	said := os.Getenv("SOAK_TIME")
	if said == "" {
		t.Skip("make soak runs it")
	}
	lasts, err := time.ParseDuration(said)
	if err != nil {
		t.Fatalf("SOAK_TIME: %v", err)
	}
	s := newScene(t)
	g := s.grants(t, "case-soak", gen.WithDuration("48h"), gen.WithRoles(gen.Configuration, gen.Diagnostics, gen.Content))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var group sync.WaitGroup
	for _, path := range []string{ofConfigMaps + "/imap", ofConfigMaps, "/apis", ofDeployments} {
		w := &worker{client: g.client(t), method: http.MethodGet, path: g.host(t) + path, pause: soakPause}
		group.Go(func() { w.works(ctx) })
		t.Cleanup(func() {
			if len(w.failed) > 0 {
				t.Errorf("%d requests for %s failed, the first: %s", len(w.failed), path, w.failed[0])
			}
			t.Logf("%d requests for %s", len(w.ids), path)
		})
	}
	var sizes []int
	until := time.Now().Add(lasts)
	for i := 0; time.Now().Before(until); i++ {
		s.comesAndGoes(t, g, i)
		sizes = append(sizes, s.resident(t))
		rest := time.NewTimer(lasts / samples)
		select {
		case <-rest.C:
		case <-t.Context().Done():
		}
	}
	cancel()
	group.Wait()
	quarter := len(sizes) / 4
	if quarter == 0 {
		t.Fatalf("it was looked %d times: nothing is shown", len(sizes))
	}
	early, late := median(sizes[quarter:2*quarter]), median(sizes[len(sizes)-quarter:])
	t.Logf("after %s and %d grants: %d KiB at first, %d KiB in the second quarter, %d KiB in the last, %d at most", lasts, len(sizes), sizes[0], early, late, slices.Max(sizes))
	if late > early+early/10+mayGrow {
		t.Errorf("it grows: %v KiB", sizes)
	}
}

// comesAndGoes opens streams and leaves some, and makes a grant whose streams are cut.
func (s *scene) comesAndGoes(t *testing.T, g *grant, i int) {
	t.Helper()
	if out, err := g.kubectl(t, "exec", s.pod, "--", "echo", "here"); err != nil || !strings.Contains(out, "here") {
		t.Errorf("%q, %v", out, err)
	}
	for range 10 {
		response := g.asks(t, http.MethodGet, ofConfigMaps+"?watch=1", nil, nil)
		_ = response.Body.Close()
	}
	short := s.grants(t, fmt.Sprintf("case-soak-%d", i))
	watch := short.starts(t, "imap", nil, "get", "configmaps", "-w")
	watch.isCut(t, short.revoke(t))
}

// resident is how much memory the gateway holds, in KiB.
func (s *scene) resident(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.gateway.PID()))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	size := 0
	if _, err := fmt.Sscan(after, &size); err != nil {
		t.Fatalf("%s: %v", status, err)
	}
	return size
}

func median(of []int) int {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/2]
}
