package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// worker is a client that asks without a pause.
type worker struct {
	client       *http.Client
	method, path string
	// pause is how long it rests after each request.
	pause time.Duration
	// anew says that each request has a connection of its own.
	anew bool

	mu sync.Mutex
	// ids are the requests that were answered, failed what went wrong.
	ids    []string
	failed []string
}

// works asks until the context ends.
func (w *worker) works(ctx context.Context) {
	for ; ctx.Err() == nil; w.rests(ctx) {
		id, err := w.ask(context.WithoutCancel(ctx))
		w.mu.Lock()
		if err == nil {
			w.ids = append(w.ids, id)
		} else {
			w.failed = append(w.failed, fmt.Sprintf("%s %s: %v", time.Now().Format("05.000"), w.method, err))
		}
		w.mu.Unlock()
	}
}

func (w *worker) rests(ctx context.Context) {
	timer := time.NewTimer(w.pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (w *worker) ask(ctx context.Context) (id string, err error) {
	ctx, cancel := context.WithTimeout(ctx, anAnswer)
	defer cancel()
	var body io.Reader
	if w.method == http.MethodPatch {
		body = strings.NewReader(`{}`)
	}
	r, err := http.NewRequestWithContext(ctx, w.method, w.path, body)
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", inMerge)
	if w.anew {
		defer w.client.CloseIdleConnections()
	}
	response, err := w.client.Do(r)
	if err != nil {
		return "", err
	}
	said, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, said)
	}
	return response.Header.Get("Audit-Id"), err
}

func (w *worker) done() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.ids)
}

func TestAReplicaIsReplacedUnderLoadAndNoRequestFailsAndEachIsOnRecord(t *testing.T) {
	s := newScene(t)
	g := s.grants(t, "case-rolling", gen.WithRoles(gen.Configuration, maintenance))
	b := g.balances(t, time.Minute)
	behind := g.by(t, b.address)
	follows := behind.informs(t, runtime.ContentTypeJSON)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var workers []*worker
	var group sync.WaitGroup
	for i := range 6 {
		w := &worker{client: behind.client(t), method: http.MethodGet, path: behind.host(t) + ofConfigMaps + "/imap"}
		if i%3 == 0 {
			w.method, w.path = http.MethodPatch, w.path+"?dryRun=All"
		}
		workers = append(workers, w)
		group.Go(func() { w.works(ctx) })
	}
	haveDone(t, workers, 20)

	ip, err := world.GatewayIP()
	if err != nil {
		t.Fatal(err)
	}
	next := s.StartGateway(t, s.installation, ip)
	b.turns(strings.Replace(b.target(), theInstallation.ip, ip, 1))
	// In a cluster --shutdown-delay gives the API server the time to hear where it is to ask from now on.
	haveDone(t, workers, 5)
	if err := s.gateway.Stop(); err != nil {
		t.Fatal(err)
	}
	haveDone(t, workers, 20)
	made := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: s.Name("rolled")}}
	if err := s.Admin.Create(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	follows.knows(t, made.Name)
	cancel()
	group.Wait()

	recorded := map[string]bool{}
	for _, replica := range []*world.Operator{s.gateway, next} {
		n := len(recorded)
		received(t, replica, recorded)
		if len(recorded) == n {
			t.Errorf("%s has nothing on record: nothing is shown", replica.Name)
		}
	}
	answered := 0
	for _, w := range workers {
		answered += len(w.ids)
		for _, failure := range w.failed {
			t.Error(failure)
		}
		for _, id := range w.ids {
			if !recorded[id] {
				t.Errorf("request %q was answered and is not on record", id)
			}
		}
	}
	t.Logf("%d requests were answered", answered)
}

// TestAReplicaThatIsToldToStopServesWhoeverIsStillSentToIt is what happens in a cluster: that a pod stops reaches the proxies of
// the Service after the pod itself.
func TestAReplicaThatIsToldToStopServesWhoeverIsStillSentToIt(t *testing.T) {
	s := newScene(t)
	g := s.grants(t, "case-told", gen.WithRoles(gen.Configuration))
	ip, err := world.GatewayIP()
	if err != nil {
		t.Fatal(err)
	}
	patient := *s.installation
	patient.Manifest = bytes.ReplaceAll(patient.Manifest, []byte("--shutdown-delay=0s"), []byte("--shutdown-delay=10s"))
	stops := s.StartGateway(t, &patient, ip)
	b := g.balances(t, time.Minute)
	stays := b.target()
	b.turns(strings.Replace(stays, theInstallation.ip, ip, 1))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var workers []*worker
	var group sync.WaitGroup
	for range 4 {
		behind := g.by(t, b.address)
		w := &worker{client: behind.client(t), method: http.MethodGet, path: behind.host(t) + ofConfigMaps + "/imap", anew: true}
		workers = append(workers, w)
		group.Go(func() { w.works(ctx) })
	}
	haveDone(t, workers, 5)
	stopped := make(chan error, 1)
	go func() { stopped <- stops.Stop() }()
	world.Eventually(t, "the replica says that it is not ready", func() error { return notReady(t.Context(), stops) })
	haveDone(t, workers, 10)
	b.turns(stays)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	haveDone(t, workers, 5)
	cancel()
	group.Wait()
	for _, w := range workers {
		for _, failure := range w.failed {
			t.Error(failure)
		}
	}
}

func notReady(ctx context.Context, pod *world.Operator) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, pod.ReadyURL(), http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	_ = response.Body.Close()
	if response.StatusCode == http.StatusOK {
		return errors.New("it says that it is ready")
	}
	return nil
}

// haveDone waits until each has done so much more.
func haveDone(t *testing.T, workers []*worker, more int) {
	t.Helper()
	for i, w := range workers {
		before := w.done()
		world.Eventually(t, fmt.Sprintf("client %d has made %d more requests", i, more), func() error {
			if n := w.done() - before; n < more {
				return fmt.Errorf("it has made %d", n)
			}
			return nil
		})
	}
}

// received adds the requests that a replica has put on record before it let them through.
func received(t *testing.T, replica *world.Operator, ids map[string]bool) {
	t.Helper()
	lines, err := replica.AuditLines(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(lines) {
		entry := audit.Entry{}
		if err := json.Unmarshal(line, &entry); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if entry.Stage == auditv1.StageRequestReceived {
			ids[string(entry.AuditID)] = true
		}
	}
}
