package gateway

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// balancer passes bytes on to the gateway, as a TCP load balancer does, until it is told not to.
type balancer struct {
	address string
	// idle is after how long without a byte it drops a connection.
	idle time.Duration

	mu     sync.Mutex
	frozen bool
	// to is where new connections go.
	to string
}

// balances starts a balancer before the gateway.
func (g *grant) balances(t *testing.T, idle time.Duration) *balancer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // It lives as long as the test.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	b := &balancer{address: listener.Addr().String(), idle: idle, to: strings.TrimPrefix(g.config(t).Host, "https://")}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := (&net.Dialer{Timeout: patience}).DialContext(t.Context(), "tcp", b.target())
			if err != nil {
				_ = client.Close()
				continue
			}
			t.Cleanup(func() { _, _ = client.Close(), server.Close() })
			go b.pass(server, client)
			go b.pass(client, server)
		}
	}()
	return b
}

// pass copies one way. Once the balancer is frozen it neither reads nor says that it does not.
func (b *balancer) pass(to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		_ = from.SetReadDeadline(time.Now().Add(b.idle))
		n, err := from.Read(buffer)
		b.mu.Lock()
		frozen := b.frozen
		b.mu.Unlock()
		if frozen {
			return
		}
		if _, writing := to.Write(buffer[:n]); err != nil || writing != nil {
			_, _ = to.Close(), from.Close()
			return
		}
	}
}

func (b *balancer) target() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.to
}

// turns has new connections go elsewhere.
func (b *balancer) turns(to string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.to = to
}

func (b *balancer) freeze() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.frozen = true
}

// by is the grant by another address.
func (g *grant) by(t *testing.T, address string) *grant {
	t.Helper()
	content, err := os.ReadFile(g.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	other := *g
	other.kubeconfig = g.kubeconfig + "-balanced"
	moved := strings.ReplaceAll(string(content), g.config(t).Host, "https://"+address)
	if err := os.WriteFile(other.kubeconfig, []byte(moved), 0o600); err != nil {
		t.Fatal(err)
	}
	return &other
}

func TestBehindABalancerEverythingWorksAndAClientThatVanishedIsCut(t *testing.T) {
	s := newScene(t)
	g := s.grants(t, "case-balancer", gen.WithRoles(gen.Configuration, gen.Content))
	b := g.balances(t, time.Minute)
	behind := g.by(t, b.address)
	if out, err := behind.kubectl(t, "exec", s.pod, "--", "echo", "here"); err != nil || !strings.Contains(out, "here") {
		t.Errorf("%q, %v", out, err)
	}
	watching := behind.starts(t, "imap", nil, "get", "configmaps", "-w")
	shell := behind.starts(t, "here", nil, "exec", "-i", s.pod, "--", "sh", "-c", "echo here; sleep 120")
	b.freeze()
	since := g.revoke(t)
	s.isAcknowledged(t, g)
	t.Logf("acknowledged %s after the revocation", time.Since(since).Round(time.Millisecond))
	for _, stream := range []*stream{watching, shell} {
		select {
		case <-stream.Done():
			t.Errorf("%s has ended: its balancer was not frozen", stream.Name())
		default:
		}
	}
}

func TestAWatchOutlivesABalancersIdleTimeoutThoughNothingHappens(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for half a minute")
	}
	s := newScene(t)
	g := s.grants(t, "case-idle")
	config := g.config(t)
	config.Host = "https://" + g.balances(t, 20*time.Second).address
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	w, err := clients.CoreV1().ConfigMaps("default").Watch(t.Context(), metav1.ListOptions{})
	if err == nil {
		w.Stop()
		t.Fatal("another namespace can be watched")
	}
	w, err = clients.CoreV1().ConfigMaps(tenant).Watch(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=no-such"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	world.Consistently(t, "the watch is open", 30*time.Second, func() error {
		select {
		case event, open := <-w.ResultChan():
			return fmt.Errorf("it said %v, open: %t", event, open)
		default:
			return nil
		}
	})
}

// aProxysWord is what somebody says who would pass for a proxy.
const aProxysWord = "203.0.113.7"

// ingress ends TLS before the gateway and adds the headers that such do. All its clients share one connection.
func (g *grant) ingress(t *testing.T) *httptest.Server {
	t.Helper()
	config := g.config(t)
	to, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	tlsConfig, err := rest.TLSConfigFor(config)
	if err != nil {
		t.Fatal(err)
	}
	tlsConfig.NextProtos = []string{"http/1.1"}
	shared := &http.Transport{TLSClientConfig: tlsConfig, MaxConnsPerHost: 1, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}
	t.Cleanup(shared.CloseIdleConnections)
	server := httptest.NewTLSServer(&httputil.ReverseProxy{Transport: shared, Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(to)
		for _, name := range []string{"X-Forwarded-For", "X-Real-Ip", "X-Original-Forwarded-For", "Forwarded"} {
			p.Out.Header.Set(name, aProxysWord)
		}
		for name, value := range map[string]string{"X-Forwarded-Proto": "https", "X-Forwarded-Host": "gateway", "X-Forwarded-Port": "443", "X-Forwarded-Scheme": "https", "X-Scheme": "https", "X-Request-Id": "8f0c"} {
			p.Out.Header.Set(name, value)
		}
	}})
	t.Cleanup(server.Close)
	return server
}

func TestBehindAnIngressPlainRequestsWorkAndItsWordForAnybodyIsNotTaken(t *testing.T) {
	s := newScene(t)
	one, two := s.grants(t, "case-ingress-1"), s.grants(t, "case-ingress-2", gen.WithRoles(gen.Configuration, maintenance))
	ingress := one.ingress(t)
	roots := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ingress.Certificate().Raw})
	for range 3 {
		for _, g := range []*grant{one, two} {
			config := &rest.Config{Host: ingress.URL, BearerToken: g.config(t).BearerToken, TLSClientConfig: rest.TLSClientConfig{CAData: roots}, QPS: -1}
			clients, err := kubernetes.NewForConfig(config)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := clients.CoreV1().ConfigMaps(tenant).Get(t.Context(), "imap", metav1.GetOptions{}); err != nil {
				t.Errorf("grant %s: %v", g.Name, err)
			}
			_, err = clients.CoreV1().ConfigMaps(tenant).Patch(t.Context(), "imap", "application/merge-patch+json", []byte(`{}`), metav1.PatchOptions{DryRun: []string{"All"}})
			if (err == nil) != (g == two) {
				t.Errorf("grant %s patches: %v", g.Name, err)
			}
		}
	}
	content, err := os.ReadFile(s.ControlPlane.AuditLogPath())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(content), aProxysWord) {
		t.Error("the API server believes what the client's proxy says of where it comes from")
	}
	for _, entry := range s.entries(t) {
		if said := fmt.Sprint(entry["sourceIPs"]); strings.Contains(said, aProxysWord) {
			t.Errorf("the gateway believes what a proxy says of where a client comes from: %s", said)
		}
	}
}

func TestAClientThatStopsInTheMiddleOfABodyIsCut(t *testing.T) {
	s := newScene(t)
	g := s.grants(t, "case-stopped", gen.WithRoles(gen.Configuration, maintenance))
	config := g.config(t)
	tlsConfig, err := rest.TLSConfigFor(config)
	if err != nil {
		t.Fatal(err)
	}
	tlsConfig.NextProtos = []string{"http/1.1"}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := (&tls.Dialer{Config: tlsConfig}).DialContext(ctx, "tcp", strings.TrimPrefix(config.Host, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, err = fmt.Fprintf(conn, "PATCH %s/imap HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %s\r\nContent-Type: %s\r\nContent-Length: 100\r\n\r\n{\"data\":", ofConfigMaps, config.BearerToken, inMerge)
	if err != nil {
		t.Fatal(err)
	}
	world.Eventually(t, "the request is on record", func() error {
		for _, entry := range s.entries(t) {
			of, _ := entry["grant"].(map[string]any)
			if entry["verb"] == "patch" && of["name"] == g.Name {
				return nil
			}
		}
		return errors.New("it is not")
	})
	since := g.revoke(t)
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if said, err := io.ReadAll(conn); os.IsTimeout(err) {
		t.Errorf("it is still open; it said %q", said)
	}
	t.Logf("cut %s after the revocation", time.Since(since).Round(time.Millisecond))
	s.isAcknowledged(t, g)
}
