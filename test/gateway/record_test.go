package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// config is the engineer's, as client-go reads it.
func (g *grant) config(t *testing.T) *rest.Config {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", g.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	return config
}

func TestTheGatewaysCredentialMeansNothingToTheAPIServer(t *testing.T) {
	s := newScene(t)
	g := s.grants(t, "case-direct")
	response := s.askAPIServer(t, g.config(t).BearerToken, nil)
	if response.StatusCode != http.StatusUnauthorized {
		t.Errorf("got %d, want 401", response.StatusCode)
	}
}

// askAPIServer asks for the tenant's ConfigMaps without the gateway.
func (s *scene) askAPIServer(t *testing.T, token string, header http.Header) *http.Response {
	t.Helper()
	config := rest.AnonymousClientConfig(s.ControlPlane.AdminConfig())
	config.BearerToken = token
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.ControlPlane.Server()+"/api/v1/namespaces/"+tenant+"/configmaps", nil)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(r.Header, header)
	response, err := (&http.Client{Transport: transport, Timeout: patience}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

func TestWhatIsDoneToAProductsOwnKindIsInTheSectionThatTheProductSays(t *testing.T) {
	s := newScene(t)
	g := s.grants(t, "case-section")
	world.Eventually(t, "what was asked for is in the product's section", func() error {
		if out, err := g.kubectl(t, "get", "connectors"); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		in := "none"
		for _, entry := range s.entries(t) {
			if about, _, _ := unstructured.NestedString(entry, "objectRef", "resource"); about == "connectors" {
				in, _ = entry["section"].(string)
			}
		}
		if in != "Domains and network" {
			return fmt.Errorf("it is in section %q", in)
		}
		return nil
	})
}

func TestTheGatewayCutsWhileTheControllerIsStopped(t *testing.T) {
	s := newScene(t)
	g := s.grants(t, "case-asleep")
	if err := s.operator.Pause(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.operator.Resume(); err != nil {
			t.Error(err)
		}
	}()
	watch := g.starts(t, "imap", nil, "get", "configmaps", "-w")
	t.Logf("cut after %s", watch.isCut(t, g.revoke(t)))
	if out, err := g.kubectl(t, "get", "configmaps"); err == nil {
		t.Errorf("after the end: %s", out)
	}
}

func TestTheGatewayCutsOnTimeWhileTheAPIServerIsStopped(t *testing.T) {
	s := newScene(t)
	end := time.Now().Add(20 * time.Second).Truncate(time.Second)
	g := s.grants(t, "case-alone", gen.WithExpiration(end))
	conn := g.watches(t)
	// A controller that cannot renew its lease ends.
	if err := s.operator.Stop(); err != nil {
		t.Fatal(err)
	}
	resume, err := s.ControlPlane.PauseAPIServer()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := resume(); err != nil {
			t.Error(err)
		}
	}()
	_ = conn.SetReadDeadline(end.Add(patience))
	rest, _ := io.ReadAll(bufio.NewReader(conn))
	late := time.Since(end)
	t.Logf("cut %s after the instant; it had said %d bytes", late, len(rest))
	if late < 0 || late > 5*time.Second {
		t.Errorf("the watch ended %s after the instant", late)
	}
}

// watches opens a watch over a connection of its own and returns the connection.
func (g *grant) watches(t *testing.T) *tls.Conn {
	t.Helper()
	config := g.config(t)
	tlsConfig, err := rest.TLSConfigFor(config)
	if err != nil {
		t.Fatal(err)
	}
	tlsConfig.NextProtos = []string{"http/1.1"}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	raw, err := (&tls.Dialer{Config: tlsConfig}).DialContext(ctx, "tcp", strings.TrimPrefix(config.Host, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	conn := raw.(*tls.Conn)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = fmt.Fprintf(conn, "GET /api/v1/namespaces/%s/configmaps?watch=1 HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %s\r\n\r\n", tenant, config.BearerToken)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	begun := make([]byte, 4096)
	n, err := conn.Read(begun)
	if err != nil || !strings.HasPrefix(string(begun[:n]), "HTTP/1.1 200") {
		t.Fatalf("the watch began with %q, %v", begun[:n], err)
	}
	return conn
}
