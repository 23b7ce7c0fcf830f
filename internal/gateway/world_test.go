package gateway

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/cert"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/test/gen"
)

// patience bounds every wait.
const patience = 10 * time.Second

// world is a gateway between a client and an API server that a test plays.
type world struct {
	t       testing.TB
	clock   *testingclock.FakeClock
	objects client.Client
	gateway *Gateway
	log     *memoryLog
	hearing *Hearing
	address string
	roots   *x509.CertPool
	stop    context.CancelFunc
	stopped chan error

	mu       sync.Mutex
	received []*http.Request
	// answer is the API server.
	answer http.HandlerFunc
}

// open starts a gateway before an API server that answers every request with its path.
func open(t testing.TB) *world {
	t.Helper()
	w := &world{
		t: t, clock: testingclock.NewFakeClock(gen.Epoch.Add(time.Minute)), log: &memoryLog{}, roots: x509.NewCertPool(), stopped: make(chan error, 1),
		answer: func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.Path) },
	}
	api := httptest.NewUnstartedServer(http.HandlerFunc(w.serve))
	api.EnableHTTP2 = true
	api.StartTLS()
	t.Cleanup(api.Close)
	config := &rest.Config{
		Host: api.URL, BearerToken: "the-gateways-own",
		TLSClientConfig: rest.TLSClientConfig{CAData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})},
	}
	w.objects = w.newObjects()
	w.hearing = Hear(rest.CopyConfig(config), w.clock)
	w.hearing.hear("/apis/supportaccess.dev/v1alpha1/supportaccessgrants")
	certPEM, keyPEM, err := cert.GenerateSelfSignedCertKey("gateway.test", []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	w.roots.AppendCertsFromPEM(certPEM)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.address = listener.Addr().String()
	w.gateway, err = New(Options{
		Listener: listener, Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &pair, nil },
		API: config, Hearing: w.hearing, Reader: w.objects, Client: w.objects, Log: w.log,
		Replica: "replica-1", Registry: prometheus.NewRegistry(), Clock: w.clock, Logger: logr.Discard(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	go func() { w.stopped <- w.gateway.Start(ctx) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-w.stopped:
			if err != nil {
				t.Errorf("the gateway stopped: %v", err)
			}
		case <-time.After(patience):
			t.Error("the gateway did not stop")
		}
	})
	return w
}

func (w *world) newObjects() client.Client {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			w.t.Fatal(err)
		}
	}
	namespace := func(name string) client.Object {
		object := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}}
		object.Name = name
		return object
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&v1alpha1.SupportAccessGrant{}).WithObjects(
		namespace(gen.Namespace), namespace("another"),
		gen.Policy("default", gen.OfferingTransports(v1alpha1.TransportGateway)),
		gen.ClusterRole(gen.Configuration,
			gen.Rule("", []string{"configmaps", "pods"}, []string{"get", "list", "watch"}),
			gen.Rule("apps", []string{"deployments"}, []string{"get", "list", "watch"})),
		gen.ClusterRole(gen.Diagnostics, gen.Rule("", []string{"pods/log"}, []string{"get"})),
		gen.ClusterRole(gen.Content,
			gen.Rule("", []string{"secrets"}, []string{"get"}),
			gen.Rule("", []string{"pods/exec"}, []string{"create", "get"})),
	).Build()
}

func (w *world) serve(response http.ResponseWriter, r *http.Request) {
	if r.URL.Path == whoAmI {
		response.WriteHeader(http.StatusCreated)
		return
	}
	w.mu.Lock()
	w.received = append(w.received, r.Clone(context.Background()))
	answer := w.answer
	w.mu.Unlock()
	answer(response, r)
}

// forwarded returns what reached the API server.
func (w *world) forwarded() []*http.Request {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.received)
}

// answers has the API server answer so.
func (w *world) answers(answer http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = answer
}

// granted is an open grant of the gateway's, with the credential of its first engineer.
type granted struct {
	*v1alpha1.SupportAccessGrant
	token string
}

// grant makes an open grant, as the controller would leave it.
func (w *world) grant(name string, mods ...func(*v1alpha1.SupportAccessGrant)) *granted {
	w.t.Helper()
	g := gen.Grant(name, gen.Namespace, append([]func(*v1alpha1.SupportAccessGrant){
		func(g *v1alpha1.SupportAccessGrant) {
			g.Spec.Transport, g.Finalizers = v1alpha1.TransportGateway, []string{v1alpha1.FinalizerGrant}
		},
	}, mods...)...)
	made := &granted{SupportAccessGrant: g}
	for i, e := range g.Spec.Engineers {
		token, err := access.NewToken(rand.Reader)
		if err != nil {
			w.t.Fatal(err)
		}
		hash, _ := access.TokenHash(token)
		g.Status.Engineers = append(g.Status.Engineers, v1alpha1.EngineerStatus{Name: e.Name, CredentialHash: hash})
		if i == 0 {
			made.token = token
		}
	}
	record := gen.Record(g, gen.WithSpecDigest(lifecycle.SpecDigest(g.Spec)))
	for _, object := range []client.Object{g, record} {
		if err := w.objects.Create(w.t.Context(), object); err != nil {
			w.t.Fatal(err)
		}
	}
	w.look(name)
	return made
}

// look has the gateway look at a grant, as a watch would.
func (w *world) look(name string) {
	w.t.Helper()
	key := client.ObjectKey{Namespace: gen.Namespace, Name: name}
	if _, err := w.gateway.grants.Reconcile(w.t.Context(), reconcile.Request{NamespacedName: key}); err != nil {
		w.t.Fatal(err)
	}
}

// revoke deletes a grant, and the gateway hears of it.
func (w *world) revoke(name string) {
	w.t.Helper()
	g := &v1alpha1.SupportAccessGrant{ObjectMeta: metav1.ObjectMeta{Namespace: gen.Namespace, Name: name}}
	if err := w.objects.Delete(w.t.Context(), g); err != nil {
		w.t.Fatal(err)
	}
	w.look(name)
}

// change updates an object as somebody would.
func change[T client.Object](w *world, object T, apply func(T)) {
	w.t.Helper()
	if err := w.objects.Get(w.t.Context(), client.ObjectKeyFromObject(object), object); err != nil {
		w.t.Fatal(err)
	}
	apply(object)
	if err := w.objects.Update(w.t.Context(), object); err != nil {
		w.t.Fatal(err)
	}
}

// client is an engineer's, over HTTP/2 or HTTP/1.1.
func (w *world) client(protocols ...string) *http.Client {
	config := &tls.Config{RootCAs: w.roots}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	if slices.Contains(protocols, "http/1.1") {
		transport.ForceAttemptHTTP2 = false
		transport.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	w.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 0}
}

// ask makes a request of an engineer's.
func (w *world) ask(c *http.Client, token, method, path string, mods ...func(*http.Request)) (*http.Response, error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	w.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, method, "https://"+w.address+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for _, mod := range mods {
		mod(r)
	}
	return c.Do(r)
}

// get makes a request and returns its status and body.
func (w *world) get(token, path string, mods ...func(*http.Request)) (int, string) {
	w.t.Helper()
	response, err := w.ask(w.client(), token, http.MethodGet, path, mods...)
	if err != nil {
		w.t.Fatalf("get %s: %v", path, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		w.t.Fatalf("read %s: %v", path, err)
	}
	return response.StatusCode, string(body)
}

// hears has the API server heard of until some time from now, however the clock is turned.
func (w *world) hears(until time.Duration) {
	w.hearing.mu.Lock()
	defer w.hearing.mu.Unlock()
	for path := range w.hearing.heard {
		w.hearing.heard[path] = w.clock.Now().Add(until)
	}
}

// eventually waits for something to hold.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for !holds() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// memoryLog is a log that can be made to fail.
type memoryLog struct {
	mu      sync.Mutex
	entries []audit.Entry
	broken  error
	// hold is waited for before an entry is taken, where there is one; held is how many wait.
	hold chan struct{}
	held int
}

func (l *memoryLog) Append(ctx context.Context, e *audit.Entry) error {
	l.mu.Lock()
	hold, broken := l.hold, l.broken
	if hold != nil {
		l.held++
	}
	l.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if broken != nil {
		return broken
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, *e)
	return nil
}

// Trail is Append.
func (l *memoryLog) Trail(ctx context.Context, e *audit.Entry) error { return l.Append(ctx, e) }

func (l *memoryLog) fail() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = errors.New("no space left on device")
}

func (l *memoryLog) all() []audit.Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.entries)
}

// waiting returns how many entries have come to be held.
func (l *memoryLog) waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held
}

// trail renders entries as stage, verb and status.
func (l *memoryLog) trail() string {
	var lines []string
	for _, e := range l.all() {
		line := string(e.Stage) + " " + e.Verb
		if e.ResponseStatus != nil {
			line += fmt.Sprintf(" %d", e.ResponseStatus.Code)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, ", ")
}

// sent returns how many bytes the gateway has sent over what is open.
func (w *world) sent() int64 {
	l, sum := w.gateway.connections, int64(0)
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		c.mu.Lock()
		for x := range c.exchanges {
			sum += x.out.Load()
		}
		c.mu.Unlock()
	}
	return sum
}
