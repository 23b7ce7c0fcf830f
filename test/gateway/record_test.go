package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/audit"
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

// asked is a request as a server saw it.
type asked struct{ Verb, Group, Resource, Subresource, Namespace, Name string }

func (a asked) String() string {
	return fmt.Sprintf("%s %s/%s/%s of %s in %s", a.Verb, a.Group, a.Resource, a.Subresource, a.Name, a.Namespace)
}

func seen(verb string, ref *auditv1.ObjectReference) asked {
	a := asked{Verb: verb}
	if ref != nil {
		a.Group, a.Resource, a.Subresource, a.Namespace, a.Name = ref.APIGroup, ref.Resource, ref.Subresource, ref.Namespace, ref.Name
	}
	return a
}

// apiServerSaw reads from the API server's audit log what it was asked in the name of a grant's engineers, by request.
func (s *scene) apiServerSaw(t *testing.T, g *grant) map[string]asked {
	t.Helper()
	content, err := os.ReadFile(s.ControlPlane.AuditLogPath())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]asked{}
	for line := range bytes.Lines(content) {
		event := auditv1.Event{}
		if err := json.Unmarshal(line, &event); err != nil {
			continue // The last line may be half written.
		}
		if event.ImpersonatedUser == nil || !strings.HasPrefix(event.ImpersonatedUser.Username, v1alpha1.IdentityPrefix) {
			continue
		}
		if !slices.Contains(event.ImpersonatedUser.Extra["supportaccess.dev/grant"], g.Namespace+"/"+g.Name) {
			continue
		}
		// The gateway's own question whether it may act is about no object of the cluster.
		if event.ObjectRef != nil && event.ObjectRef.Resource == "selfsubjectreviews" {
			continue
		}
		found[string(event.AuditID)] = seen(event.Verb, event.ObjectRef)
	}
	return found
}

// gatewayRecorded reads what the gateway put on record of a grant before it let it through, by request.
func (s *scene) gatewayRecorded(t *testing.T, g *grant) map[string]asked {
	t.Helper()
	content, err := s.gateway.AuditLines(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]asked{}
	for line := range bytes.Lines(content) {
		entry := audit.Entry{}
		if err := json.Unmarshal(line, &entry); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if entry.Stage == auditv1.StageRequestReceived && entry.Grant.Name == g.Name {
			found[string(entry.AuditID)] = seen(entry.Verb, entry.ObjectRef)
		}
	}
	return found
}

// lastRecorded returns the request that was let through last.
func (s *scene) lastRecorded(t *testing.T) string {
	t.Helper()
	last := ""
	for _, entry := range s.entries(t) {
		if entry["stage"] == string(auditv1.StageRequestReceived) {
			last, _ = entry["auditID"].(string)
		}
	}
	return last
}

func TestTheAPIServerSawWhatIsOnRecordAndNothingElse(t *testing.T) {
	s := newScene(t)
	g := s.grants(t, "case-record")
	config := g.config(t)
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Transport: transport, Timeout: time.Minute}
	n, seed := course(t)
	random := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // A test wants the same course each time.
	let := 0
	for range n {
		r, err := http.NewRequestWithContext(t.Context(), method(random), config.Host, nil)
		if err != nil {
			t.Fatal(err)
		}
		target := mutated(random)
		if r.URL, err = url.Parse(config.Host + target); err != nil {
			continue
		}
		response, err := c.Do(r)
		if err != nil {
			t.Fatalf("%s %s: %v", r.Method, target, err)
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 1<<20))
		_ = response.Body.Close()
		if response.StatusCode < http.StatusBadRequest {
			let++
		}
	}
	t.Logf("%d requests, %d of them answered", n, let)
	if let == 0 {
		t.Error("none was let through: nothing is compared")
	}
	// The API server writes its log in order, so what it saw before this it has written once it has written this.
	if _, err := g.kubectl(t, "get", "configmap", "imap", "-o", "name"); err != nil {
		t.Fatal(err)
	}
	recorded := s.gatewayRecorded(t, g)
	world.Eventually(t, "the API server's log has caught up", func() error {
		if saw, last := s.apiServerSaw(t, g), s.lastRecorded(t); saw[last] == (asked{}) {
			return fmt.Errorf("it has %d requests, the gateway recorded %d, %s is not among them", len(saw), len(recorded), last)
		}
		return nil
	})
	saw := s.apiServerSaw(t, g)
	for id, request := range saw {
		was, ok := recorded[id]
		switch {
		case !ok:
			t.Errorf("the API server was asked for %s (%s), and that is not on record", request, id)
		case was != request:
			t.Errorf("the gateway let through %s, the API server saw %s", was, request)
		}
	}
	if report, err := s.gateway.VerifyAudit(t.Context()); err != nil || report.Entries < int64(len(recorded)) {
		t.Errorf("what is on record is not as it was written: %+v, %v", report, err)
	}
	for id, request := range recorded {
		// Of paths beside its resources the API server does not log every request.
		if _, ok := saw[id]; !ok && request.Resource != "" {
			t.Errorf("%s (%s) is on record, and the API server never saw it", request, id)
		}
	}
}

// course returns how many requests are made, and the seed from which they follow. With FUZZ_REQUESTS it is a new one each time.
func course(t *testing.T) (n int, seed uint64) {
	t.Helper()
	if said := os.Getenv("FUZZ_REQUESTS"); said != "" {
		n, err := strconv.Atoi(said)
		if err != nil {
			t.Fatalf("FUZZ_REQUESTS: %v", err)
		}
		seed = rand.Uint64() //nolint:gosec // It is no secret.
		t.Logf("the seed is %d", seed)
		return n, seed
	}
	if testing.Short() {
		return 200, 4711
	}
	return 2000, 4711
}

func method(random *rand.Rand) string {
	methods := []string{http.MethodGet, http.MethodGet, http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}
	return methods[random.IntN(len(methods))]
}

// mutated is the target of a request that the grant allows, changed in ways by which servers come to differ.
func mutated(random *rand.Rand) string {
	targets := []string{
		"/api/v1/namespaces/" + tenant + "/configmaps", "/api/v1/namespaces/" + tenant + "/configmaps/imap",
		"/api/v1/namespaces/" + tenant + "/pods", "/apis/apps/v1/namespaces/" + tenant + "/deployments/mail-archive",
		"/api/v1/watch/namespaces/" + tenant + "/configmaps/imap", "/api/v1/namespaces/" + tenant, "/apis/apps/v1", "/version",
	}
	target := targets[random.IntN(len(targets))]
	for range random.IntN(3) {
		at := random.IntN(len(target) + 1)
		parts := []string{"/", "//", "/.", "/..", "%2f", "%2F", "%2e", "%5c", ";", "%00", "%25", "\\", "/secrets", "/proxy", "/watch", "/status", "%20", "+", "@", ":", "~"}
		switch random.IntN(3) {
		case 0:
			target = target[:at] + parts[random.IntN(len(parts))] + target[at:]
		case 1:
			target += parts[random.IntN(len(parts))]
		default:
			target = strings.Replace(target, "configmaps", []string{"ConfigMaps", "configmaps%20", "secrets", "configmaps/"}[random.IntN(4)], 1)
		}
	}
	queries := []string{
		"", "?watch=1&timeoutSeconds=1", "?watch=true&timeoutSeconds=1", "?watch=&timeoutSeconds=1", "?watch=false", "?watch=0&watch=1&timeoutSeconds=1",
		"?fieldSelector=metadata.name%3Dimap", "?fieldSelector=metadata.name%21%3Dimap", "?limit=1", "?limit=x", "?watch=1&limit=x&timeoutSeconds=1", "?a=%zz", "?a;b",
	}
	return target + queries[random.IntN(len(queries))]
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
