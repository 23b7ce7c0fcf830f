package gateway

import (
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

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"supportaccess.dev/operator/test/world"
)

// informer is one of client-go's, of the tenant's ConfigMaps, with the engineer's kubeconfig.
type informer struct {
	name  string
	cache cache.SharedIndexInformer
	mu    sync.Mutex
	last  error
}

// informs starts an informer that speaks an encoding, and waits until it knows what is there.
func (g *grant) informs(t *testing.T, encoding string) *informer {
	t.Helper()
	config := g.config(t)
	config.ContentType = encoding
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	factory := informers.NewSharedInformerFactoryWithOptions(clients, 0, informers.WithNamespace(tenant))
	i := &informer{name: encoding, cache: factory.Core().V1().ConfigMaps().Informer()}
	err = i.cache.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.last = err
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	factory.Start(t.Context().Done())
	if !cache.WaitForCacheSync(ctx.Done(), i.cache.HasSynced) {
		t.Fatalf("the informer in %s does not know what is there: %v", encoding, i.failed())
	}
	return i
}

func (i *informer) failed() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.last
}

// knows waits until the informer has seen an object.
func (i *informer) knows(t *testing.T, name string) {
	t.Helper()
	world.Eventually(t, "the informer in "+i.name+" knows "+name, func() error {
		if _, exists, err := i.cache.GetStore().GetByKey(tenant + "/" + name); err != nil || !exists {
			return fmt.Errorf("it has it: %t, %w; its watch: %w", exists, err, i.failed())
		}
		return nil
	})
}

// forgets waits until the informer has seen that an object is gone.
func (i *informer) forgets(t *testing.T, name string) {
	t.Helper()
	world.Eventually(t, "the informer in "+i.name+" forgets "+name, func() error {
		if _, exists, err := i.cache.GetStore().GetByKey(tenant + "/" + name); err != nil || exists {
			return fmt.Errorf("it has it: %t, %w; its watch: %w", exists, err, i.failed())
		}
		return nil
	})
}

func TestInformersFollowThroughTheGatewayUntilTheGrantEnds(t *testing.T) {
	s := newScene(t)
	g := s.grants(t, "case-informers")
	all := []*informer{g.informs(t, runtime.ContentTypeJSON), g.informs(t, runtime.ContentTypeProtobuf)}
	made := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: s.Name("new")}}
	if err := s.Admin.Create(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		i.knows(t, "imap")
		i.knows(t, made.Name)
	}
	if err := s.Admin.Delete(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		i.forgets(t, made.Name)
	}
	lists := 0
	for _, entry := range s.entries(t) {
		if uri, _ := entry["requestURI"].(string); strings.Contains(uri, "sendInitialEvents=true") && entry["stage"] == "RequestReceived" {
			lists++
		}
	}
	if lists < len(all) {
		t.Errorf("%d of %d informers asked for what is there with their watch", lists, len(all))
	}
	g.revoke(t)
	for _, i := range all {
		world.Eventually(t, "the informer in "+i.name+" is let in no more", func() error {
			// Its watch was told, and once the grant is gone nobody knows whose credential it was.
			err := i.failed()
			if err == nil || !strings.Contains(err.Error(), "is not open: ") && !apierrors.IsUnauthorized(err) {
				return fmt.Errorf("it heard %v", err)
			}
			return nil
		})
	}
}

// watched is a watch, and how it ends.
type watched struct {
	name string
	// next returns the next event, and an error when there is none any more.
	next func() (watch.EventType, *metav1.Status, error)
}

// errEnded is how a watch ends about which nothing more is to be said.
var errEnded = errors.New("it has ended")

func ofClient(name string, w watch.Interface) watched {
	return watched{name: name, next: func() (watch.EventType, *metav1.Status, error) {
		event, ok := <-w.ResultChan()
		if !ok {
			return "", nil, errEnded
		}
		status, _ := event.Object.(*metav1.Status)
		return event.Type, status, nil
	}}
}

// watchesIn has client-go watch in an encoding.
func (g *grant) watchesIn(t *testing.T, encoding string) watched {
	t.Helper()
	config := g.config(t)
	config.ContentType = encoding
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	w, err := clients.CoreV1().ConfigMaps(tenant).Watch(t.Context(), metav1.ListOptions{AllowWatchBookmarks: true})
	if err != nil {
		t.Fatalf("watch in %s: %v", encoding, err)
	}
	t.Cleanup(w.Stop)
	return ofClient(encoding, w)
}

func (g *grant) watchesMetadata(t *testing.T) watched {
	t.Helper()
	c, err := metadata.NewForConfig(g.config(t))
	if err != nil {
		t.Fatal(err)
	}
	w, err := c.Resource(corev1.SchemeGroupVersion.WithResource("configmaps")).Namespace(tenant).Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	return ofClient("metadata alone", w)
}

// event is one of a watch in JSON.
type event struct {
	Type   watch.EventType
	Object json.RawMessage
}

func (e event) read() (watch.EventType, *metav1.Status, error) {
	status := &metav1.Status{}
	if e.Type != watch.Error {
		return e.Type, nil, nil
	}
	return e.Type, status, json.Unmarshal(e.Object, status)
}

// watchesTable watches rows, as kubectl get -w does.
func (g *grant) watchesTable(t *testing.T) watched {
	t.Helper()
	response := g.asks(t, http.MethodGet, "/api/v1/namespaces/"+tenant+"/configmaps?watch=1", http.Header{"Accept": {"application/json;as=Table;v=v1;g=meta.k8s.io"}}, nil)
	if response.StatusCode != http.StatusOK {
		t.Fatalf("watch a table: %s", response.Status)
	}
	events := json.NewDecoder(response.Body)
	return watched{name: "a table", next: func() (watch.EventType, *metav1.Status, error) {
		e := event{}
		if err := events.Decode(&e); err != nil {
			return "", nil, err
		}
		return e.read()
	}}
}

// watchesByWebSocket watches as browsers do.
func (g *grant) watchesByWebSocket(t *testing.T) watched {
	t.Helper()
	config := g.config(t)
	tlsConfig, err := rest.TLSConfigFor(config)
	if err != nil {
		t.Fatal(err)
	}
	tlsConfig.NextProtos = []string{"http/1.1"}
	dialer := websocket.Dialer{TLSClientConfig: tlsConfig, HandshakeTimeout: patience}
	target := "wss" + strings.TrimPrefix(config.Host, "https") + "/api/v1/namespaces/" + tenant + "/configmaps?watch=1"
	// The API server takes a watch over WebSocket from a page alone: one that says its origin.
	header := http.Header{"Authorization": {"Bearer " + config.BearerToken}, "Origin": {config.Host}}
	conn, response, err := dialer.DialContext(t.Context(), target, header)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	t.Cleanup(func() { _ = conn.Close() })
	return watched{name: "a WebSocket", next: func() (watch.EventType, *metav1.Status, error) {
		e := event{}
		if err := conn.ReadJSON(&e); err != nil {
			return "", nil, err
		}
		return e.read()
	}}
}

// asks makes a request as the engineer.
func (g *grant) asks(t *testing.T, method, target string, header http.Header, body io.Reader) *http.Response {
	t.Helper()
	config := g.config(t)
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, method, config.Host+target, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header.Clone()
	response, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

func TestAWatchInEveryEncodingEndsWithAnEventThatSaysWhy(t *testing.T) {
	s := newScene(t)
	g := s.grants(t, "case-watches")
	all := []watched{
		g.watchesIn(t, runtime.ContentTypeJSON), g.watchesIn(t, runtime.ContentTypeProtobuf), g.watchesMetadata(t), g.watchesTable(t),
		g.watchesByWebSocket(t),
	}
	for _, w := range all {
		if kind, _, err := w.next(); kind != watch.Added || err != nil {
			t.Fatalf("the watch of %s began with %q, %v", w.name, kind, err)
		}
	}
	since := g.revoke(t)
	for _, w := range all {
		w.isToldWhy(t, since)
	}
}

// isToldWhy reads a watch to its end.
func (w watched) isToldWhy(t *testing.T, since time.Time) {
	t.Helper()
	for {
		kind, status, err := w.next()
		switch {
		case err != nil:
			t.Errorf("the watch of %s ended without a word: %v", w.name, err)
			return
		case kind == watch.Error && status != nil && strings.Contains(status.Message, "is not open: "):
			t.Logf("%6s  %s: %s", time.Since(since).Round(time.Millisecond), w.name, status.Message)
			return
		case kind == watch.Error:
			t.Errorf("the watch of %s ended with %v", w.name, status)
			return
		}
	}
}

func TestWhatTheAPIServerDoesNotSpeakItSaysItself(t *testing.T) {
	s := newScene(t)
	g := s.grants(t, "case-cbor")
	// CBOR is behind a gate of the API server's: what it says to it is not for the gateway to say.
	for _, accept := range []string{"application/cbor", "application/cbor-seq", "text/plain"} {
		target := "/api/v1/namespaces/" + tenant + "/configmaps"
		if accept == "application/cbor-seq" {
			target += "?watch=1&timeoutSeconds=1"
		}
		response := g.asks(t, http.MethodGet, target, http.Header{"Accept": {accept}}, nil)
		direct := s.askAsAdmin(t, target, accept)
		if response.StatusCode != direct {
			t.Errorf("%s: %d, and %d without the gateway", accept, response.StatusCode, direct)
		}
		t.Logf("%s: %s", accept, response.Status)
	}
}

// askAsAdmin asks without the gateway, as somebody who may do everything, and returns the status.
func (s *scene) askAsAdmin(t *testing.T, target, accept string) int {
	t.Helper()
	config := s.ControlPlane.AdminConfig()
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.ControlPlane.Server()+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", accept)
	response, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	return response.StatusCode
}
