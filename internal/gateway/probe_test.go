package gateway

import (
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
)

// probed is a probe before an API server that a test plays.
type probed struct {
	*probe
	objects client.Client

	mu sync.Mutex
	// answers are the next ones; the last is given for ever.
	answers []int
	asked   []http.Header
}

func probes(t *testing.T, answers ...int) *probed {
	t.Helper()
	p := &probed{answers: answers, objects: (&world{t: t}).newObjects()}
	api := httptest.NewTLSServer(http.HandlerFunc(p.answer))
	t.Cleanup(api.Close)
	way, err := newUpstream(&rest.Config{Host: api.URL, TLSClientConfig: rest.TLSClientConfig{
		CAData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	clock := testingclock.NewFakeClock(gen.Epoch)
	p.probe = &probe{way: way, sessions: &sessions{client: p.objects, clock: clock, replica: "replica-1"}, clock: clock, logger: logr.Discard()}
	return p
}

func (p *probed) answer(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, r.Header.Clone())
	w.WriteHeader(p.answers[0])
	if len(p.answers) > 1 {
		p.answers = p.answers[1:]
	}
}

// answersNow has the API server give these answers from here on.
func (p *probed) answersNow(answers ...int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers = answers
}

func (p *probed) times() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.asked)
}

// said returns what the replica says of itself where the controller looks; ok is false where it says nothing.
func (p *probed) said(t *testing.T) (unable string, ok bool) {
	t.Helper()
	list := &v1alpha1.SupportAccessSessionList{}
	if err := p.objects.List(t.Context(), list, client.InNamespace(v1alpha1.SystemNamespace)); err != nil {
		t.Fatal(err)
	}
	for _, session := range list.Items {
		if session.Spec.Grant.UID == v1alpha1.GatewayItself && session.Spec.Replica == "replica-1" {
			return session.Status.Unable, true
		}
	}
	return "", false
}

func TestTheAPIServerIsAskedAboutNobodyAndUntilItWasItIsNotKnownWhetherAnybodyCanComeIn(t *testing.T) {
	p := probes(t, http.StatusCreated)
	if err := p.problem(); !errors.Is(err, errNotAsked) {
		t.Errorf("before it was asked: %v", err)
	}
	if !p.settle(t.Context()) {
		t.Error("the answer was yes, and it is asked again")
	}
	if err := p.problem(); err != nil {
		t.Errorf("after a yes: %v", err)
	}
	if header := p.asked[0]; header.Get("Impersonate-User") != v1alpha1.ProbeUser || header.Get("Impersonate-Group") != v1alpha1.EngineersGroup {
		t.Errorf("it was asked about %q of %q", header.Get("Impersonate-User"), header.Get("Impersonate-Group"))
	}
	if unable, ok := p.said(t); ok {
		t.Errorf("a replica that can let everybody in says %q of itself", unable)
	}
}

func TestThatTheAPIServerRefusesIsSaidWhereTheControllerLooksUntilItNoLongerDoes(t *testing.T) {
	p := probes(t, http.StatusForbidden)
	if p.settle(t.Context()) {
		t.Error("the answer was no, and it is not asked again")
	}
	if unable, _ := p.said(t); !strings.Contains(unable, "no constrained impersonation") || !errors.Is(p.problem(), errUnable) {
		t.Errorf("after a no it is said %q, and known %v", unable, p.problem())
	}
	// The chart is upgraded: what it gives takes a moment to be heard of.
	p.answersNow(http.StatusForbidden, http.StatusForbidden, http.StatusCreated)
	if !p.settle(t.Context()) {
		t.Error("the answer was yes, and it is asked again")
	}
	if unable, ok := p.said(t); !ok || unable != "" || p.problem() != nil {
		t.Errorf("after a yes it is still said %q, and known %v", unable, p.problem())
	}
}

func TestAnAPIServerThatIsNotThereHasSaidNothingAboutImpersonation(t *testing.T) {
	p := probes(t, http.StatusForbidden, http.StatusInternalServerError)
	if p.settle(t.Context()) {
		t.Error("nothing was answered, and it is not asked again")
	}
	if err := p.problem(); err == nil || errors.Is(err, errUnable) {
		t.Errorf("it is known that %v", err)
	}
	if unable, ok := p.said(t); ok {
		t.Errorf("the controller is told %q", unable)
	}
}

func TestTheAPIServerIsAskedAgainUntilItsYesIsKnownAndThenNoMore(t *testing.T) {
	p := probes(t, http.StatusForbidden)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.run(t.Context())
	}()
	clock := p.clock.(*testingclock.FakeClock)
	eventually(t, "the no is said", func() bool {
		unable, _ := p.said(t)
		return unable != ""
	})
	before := p.times()
	p.answersNow(http.StatusCreated)
	clock.Step(probeAgain)
	select {
	case <-done:
	case <-t.Context().Done():
		t.Fatal("it goes on asking")
	}
	if unable, _ := p.said(t); unable != "" {
		t.Errorf("it is still said %q", unable)
	}
	if n := p.times() - before; n != 1 {
		t.Errorf("it was asked %d times again, want once", n)
	}
}
