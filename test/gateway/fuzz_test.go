package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/rest"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

const (
	// fuzzers is how many clients ask side by side, fewer than a policy lets one engineer connect.
	fuzzers = 8
	// aRound is how many requests all of them make before the two logs are compared.
	aRound = 2000
	// anAnswer bounds the wait for one.
	anAnswer = 30 * time.Second
)

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

// comparison is what the gateway put on record of a grant before it let it through, and what the API server says that it
// was asked, by request. It reads on in both logs.
type comparison struct {
	scene *scene
	grant *grant
	// client makes the request that ends a round, over one connection for all of them: with one for each it would be the
	// client itself that has as many open as a policy allows.
	client *http.Client
	// next is the gateway's next entry, offset where the API server's next line begins.
	next, offset int64

	recorded, saw map[string]asked
	compared      map[string]bool
}

func (s *scene) compares(t *testing.T, g *grant) *comparison {
	t.Helper()
	client, err := rest.HTTPClientFor(g.config(t))
	if err != nil {
		t.Fatal(err)
	}
	return &comparison{
		scene: s, grant: g, client: client, next: 1, recorded: map[string]asked{}, saw: map[string]asked{}, compared: map[string]bool{},
	}
}

// read reads on. The API server writes its log in order, so what it saw before a request it has written once it has
// written that.
func (c *comparison) read(t *testing.T) {
	t.Helper()
	last := c.asksLast(t)
	world.Eventually(t, "the API server's log has caught up", func() error {
		if err := c.readAPIServers(); err != nil {
			return err
		}
		if _, ok := c.saw[last]; !ok {
			return fmt.Errorf("it has %d requests, and %q is not among them", len(c.saw), last)
		}
		return nil
	})
	lines, next, err := c.scene.gateway.AuditLinesFrom(t.Context(), c.next)
	if err != nil {
		t.Fatal(err)
	}
	c.next = next
	for line := range bytes.Lines(lines) {
		entry := audit.Entry{}
		if err := json.Unmarshal(line, &entry); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		// What a request does to each object is on record under the request's number, too.
		if entry.Type == audit.TypeRequest && entry.Stage == auditv1.StageRequestReceived && entry.Grant.Name == c.grant.Name {
			c.recorded[string(entry.AuditID)] = seen(entry.Verb, entry.ObjectRef)
		}
	}
}

// asksLast makes a request and returns its number.
func (c *comparison) asksLast(t *testing.T) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.grant.config(t).Host+ofConfigMaps+"/imap", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := c.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("the request that ends a round: %s, %v", response.Status, err)
	}
	return response.Header.Get("Audit-Id")
}

// readAPIServers reads on in the API server's log, as far as its lines are whole.
func (c *comparison) readAPIServers() error {
	file, err := os.Open(c.scene.ControlPlane.AuditLogPath())
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	if _, err := file.Seek(c.offset, io.SeekStart); err != nil {
		return err
	}
	lines := bufio.NewReader(file)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		c.offset += int64(len(line))
		if err := c.see(line); err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
	}
}

// see takes note of a line of the API server's log that is about the grant.
func (c *comparison) see(line []byte) error {
	mine := c.grant.Namespace + "/" + c.grant.Name
	if !bytes.Contains(line, []byte(mine)) {
		return nil
	}
	event := auditv1.Event{}
	if err := json.Unmarshal(line, &event); err != nil {
		return err
	}
	who := event.ImpersonatedUser
	if who == nil || !strings.HasPrefix(who.Username, v1alpha1.IdentityPrefix) || !slices.Contains(who.Extra["supportaccess.dev/grant"], mine) {
		return nil
	}
	// The gateway's own question whether it may act is about no object of the cluster.
	if event.ObjectRef == nil || event.ObjectRef.Resource != "selfsubjectreviews" {
		c.saw[string(event.AuditID)] = seen(event.Verb, event.ObjectRef)
	}
	return nil
}

// holds compares what was read since it was last asked.
func (c *comparison) holds(t *testing.T) {
	t.Helper()
	for id, request := range c.saw {
		was, ok := c.recorded[id]
		switch {
		case c.compared[id]:
		case !ok:
			t.Errorf("the API server was asked for %s (%s), and that is not on record", request, id)
		case was != request:
			t.Errorf("the gateway let through %s, the API server saw %s", was, request)
		}
	}
	for id, request := range c.recorded {
		// Of paths beside its resources the API server does not log every request.
		if _, ok := c.saw[id]; !c.compared[id] && !ok && request.Resource != "" {
			t.Errorf("%s (%s) is on record, and the API server never saw it", request, id)
		}
		c.compared[id] = true
	}
}

func TestTheAPIServerSawWhatIsOnRecordAndNothingElse(t *testing.T) {
	s := newScene(t)
	g := s.grants(t, "case-record", gen.WithDuration("12h"), gen.WithRoles(gen.Configuration, gen.Diagnostics, maintenance))
	c, begun := s.compares(t, g), time.Now()
	rounds, until, seed := course(t)
	clients := make([]*fuzzer, fuzzers)
	for i := range clients {
		clients[i] = newFuzzer(t, g, i%2 == 0, rand.New(rand.NewPCG(seed, uint64(i)))) //nolint:gosec // A test wants the same course each time.
	}
	n := 0
	for done := false; !done && !t.Failed(); {
		requests := aRound
		if rounds > 0 {
			requests, done = rounds, true
		}
		ask(t, clients, requests)
		n += requests
		c.read(t)
		c.holds(t)
		done = done || !time.Now().Before(until)
	}
	let := 0
	for _, f := range clients {
		let += int(f.let.Load())
	}
	took := time.Since(begun)
	t.Logf("%d requests in %s, %.0f a minute; %d of them were answered, %d reached the API server", n, took.Round(time.Second), float64(n)/took.Minutes(), let, len(c.saw))
	if let < n/20 {
		t.Errorf("%d of %d were let through: little is compared", let, n)
	}
	if report, err := s.gateway.VerifyAudit(t.Context()); err != nil || report.Entries < int64(len(c.recorded)) {
		t.Errorf("what is on record is not as it was written: %+v, %v", report, err)
	}
}

// course returns how many requests are made, or until when, and the seed from which they follow. With FUZZ_TIME it is a new
// one each time, unless FUZZ_SEED says which.
func course(t *testing.T) (n int, until time.Time, seed uint64) {
	t.Helper()
	said := os.Getenv("FUZZ_TIME")
	switch {
	case said != "":
		bound, err := time.ParseDuration(said)
		if err != nil {
			t.Fatalf("FUZZ_TIME: %v", err)
		}
		seed = seedOf(t)
		t.Logf("FUZZ_SEED=%d", seed)
		return 0, time.Now().Add(bound), seed
	case testing.Short():
		return 800, time.Time{}, 4711
	default:
		return 5 * aRound, time.Time{}, 4711
	}
}

func seedOf(t *testing.T) (seed uint64) {
	t.Helper()
	said := os.Getenv("FUZZ_SEED")
	if said == "" {
		return rand.Uint64() //nolint:gosec // It is no secret.
	}
	if _, err := fmt.Sscan(said, &seed); err != nil {
		t.Fatalf("FUZZ_SEED: %v", err)
	}
	return seed
}

// ask has the clients make so many requests, side by side.
func ask(t *testing.T, clients []*fuzzer, requests int) {
	t.Helper()
	group, ctx := errgroup.WithContext(t.Context())
	for _, f := range clients {
		group.Go(func() error {
			for range requests / len(clients) {
				method, target := f.next()
				if err := f.ask(ctx, method, target); err != nil {
					return fmt.Errorf("%s %s: %w", method, target, err)
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

// fuzzer is a client with a connection of its own. It reads of an answer what comes at once: of a watch that is its head.
type fuzzer struct {
	random *rand.Rand
	pod    string
	host   string
	token  string
	tls    *tls.Config
	// client speaks HTTP/2. Nil: bytes are written as they are.
	client *http.Client
	conn   *tls.Conn
	reader *bufio.Reader
	// let is how many requests were answered and not refused.
	let atomic.Int64
}

func newFuzzer(t *testing.T, g *grant, raw bool, random *rand.Rand) *fuzzer { //nolint:revive // Two kinds differ in this alone.
	t.Helper()
	config := g.config(t)
	tlsConfig, err := rest.TLSConfigFor(config)
	if err != nil {
		t.Fatal(err)
	}
	f := &fuzzer{random: random, pod: g.scene.pod, host: strings.TrimPrefix(config.Host, "https://"), token: config.BearerToken, tls: tlsConfig.Clone()}
	t.Cleanup(f.close)
	if raw {
		f.tls.NextProtos = []string{"http/1.1"}
		return f
	}
	f.client = &http.Client{
		Transport:     &http.Transport{TLSClientConfig: f.tls, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(f.client.CloseIdleConnections)
	return f
}

func (f *fuzzer) close() {
	if f.conn != nil {
		_ = f.conn.Close()
		f.conn = nil
	}
}

// next is what is asked for next.
func (f *fuzzer) next() (method, target string) {
	methods := []string{http.MethodGet, http.MethodGet, http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}
	method = methods[f.random.IntN(len(methods))]
	return method, f.mutated(method)
}

// ask makes a request.
func (f *fuzzer) ask(ctx context.Context, method, target string) error {
	ctx, cancel := context.WithTimeout(ctx, anAnswer)
	defer cancel()
	send := f.askRaw
	if f.client != nil {
		send = f.askClient
	}
	response, err := send(ctx, method, target)
	if errors.Is(err, errNotAskable) {
		return nil
	}
	if err != nil {
		return err
	}
	body, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	switch code := response.StatusCode; {
	case code == http.StatusTooManyRequests || code == http.StatusBadGateway || code == http.StatusServiceUnavailable:
		return fmt.Errorf("it is not the request that is refused: %s: %s", response.Status, body)
	case code < http.StatusBadRequest:
		f.let.Add(1)
	}
	return nil
}

// errNotAskable is for what Go's client cannot ask for.
var errNotAskable = errors.New("there is no such target")

// askClient asks as Go's client does, which writes a target anew where it is none.
func (f *fuzzer) askClient(ctx context.Context, method, target string) (*http.Response, error) {
	at, err := url.Parse("https://" + f.host + target)
	if err != nil || at.Host != f.host || at.Fragment != "" {
		// It keeps what stands behind a # to itself, and there is what has a change tried alone.
		return nil, errNotAskable
	}
	r := (&http.Request{Method: method, URL: at, Header: http.Header{"Authorization": {"Bearer " + f.token}}}).WithContext(ctx)
	response, err := f.client.Do(r)
	if err != nil {
		return nil, err
	}
	return response, f.headOf(response)
}

// askRaw writes a request as it is.
func (f *fuzzer) askRaw(ctx context.Context, method, target string) (*http.Response, error) {
	if f.conn == nil {
		raw, err := (&tls.Dialer{Config: f.tls}).DialContext(ctx, "tcp", f.host)
		if err != nil {
			return nil, err
		}
		f.conn = raw.(*tls.Conn)
		f.reader = bufio.NewReader(f.conn)
	}
	_ = f.conn.SetDeadline(time.Now().Add(anAnswer))
	if _, err := fmt.Fprintf(f.conn, "%s %s HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %s\r\n\r\n", method, target, f.token); err != nil {
		return nil, err
	}
	response, err := http.ReadResponse(f.reader, &http.Request{Method: method})
	if err != nil {
		return nil, err
	}
	if err := f.headOf(response); err != nil {
		return nil, err
	}
	if response.Close || response.ContentLength < 0 {
		f.close()
	}
	return response, nil
}

// headOf keeps of an answer what is known to be short: one without a length may be a watch, on which nothing happens.
func (f *fuzzer) headOf(response *http.Response) error {
	var body []byte
	var err error
	if response.ContentLength > 0 {
		body, err = io.ReadAll(response.Body)
	}
	if f.client != nil || response.ContentLength >= 0 {
		_ = response.Body.Close()
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	return err
}

// mutated is the target of a request that the grant allows, changed in ways by which servers come to differ.
func (f *fuzzer) mutated(method string) string {
	in := "/namespaces/" + tenant
	targets := []string{
		ofConfigMaps, ofConfigMaps + "/imap", ofConfigMaps + "/imap", "/api/v1" + in + "/pods", ofDeployments + "/mail-archive", ofDeployments + "/mail-archive/scale",
		"/api/v1/watch" + in + "/configmaps/imap", "/api/v1/watch" + in + "/configmaps", "/api/v1" + in, "/apis/apps/v1", "/version",
		"/api/v1" + in + "/pods/" + f.pod + "/log", "/api/v1" + in + "/services/http:mail:80/proxy/x", "/api/v1/proxy" + in + "/services/mail",
		"/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "/openapi/v3/apis/apps/v1",
	}
	target := f.one(targets)
	for range f.random.IntN(3) {
		target = f.mutate(target)
	}
	// What would change something is tried alone.
	query := "?dryRun=All&"
	if method == http.MethodGet || method == http.MethodHead {
		query = "?"
	}
	query += f.one([]string{
		"", "", "watch=1", "watch=true", "watch=", "watch", "watch=false", "watch=0&watch=1", "watch=1&watch=0", "Watch=1", "follow=1",
		"fieldSelector=metadata.name%3Dimap", "fieldSelector=metadata.name%21%3Dimap", "fieldSelector=metadata.name%3Dimap,metadata.name%3Dother", "watch=1&fieldSelector=metadata.name%3Dimap",
		"limit=1", "limit=x", "watch=1&limit=x", "a=%zz", "a;b", "watch=1;", "timeoutSeconds=x&watch=1", "labelSelector=a%3D", "labelSelector=%3D&watch=1", "pretty=1", "resourceVersion=x",
	})
	return target + strings.TrimSuffix(strings.TrimSuffix(query, "&"), "?")
}

func (f *fuzzer) mutate(target string) string {
	parts := []string{
		"/", "//", "/.", "/..", "/./", "/../", "%2f", "%2F", "%2e", "%2E%2e", "%5c", ";", ";a=b", "%3b", "%00", "%0a", "%25", "%252f", "%3f", "%23", "\\", "%zz", "#",
		"/secrets", "/proxy", "/proxy/", "/watch", "/watch/", "/status", "/scale", "/exec", "/log", "/api", "/namespaces", "/namespaces/default", "%20", "+", "@", ":", "~", "*", "%C3%A9", "%ff",
	}
	at := f.random.IntN(len(target) + 1)
	switch f.random.IntN(5) {
	case 0:
		return target[:at] + f.one(parts) + target[at:]
	case 1:
		return target + f.one(parts)
	case 2:
		segments := strings.Split(target, "/")
		i := f.random.IntN(len(segments))
		return strings.Join(slices.Delete(segments, i, i+1), "/")
	case 3:
		return f.one([]string{"https://gateway", "http://elsewhere.example", "//gateway", "/.", "*"}) + target
	default:
		return strings.Replace(target, "configmaps", f.one([]string{"ConfigMaps", "configmaps%20", "secrets", "configmaps/", "config%6daps", "configmaps.v1"}), 1)
	}
}

func (f *fuzzer) one(of []string) string { return of[f.random.IntN(len(of))] }
