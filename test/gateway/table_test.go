package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/internal/review"
	"supportaccess.dev/operator/test/gen"
)

var update = flag.Bool("update", false, "write the pages in testdata anew")

// nobody is the name of no object: what is let through changes nothing.
const nobody = "nobody"

// resource is something to ask for.
type resource struct {
	prefix, group, name, sub string
	namespaced               bool
}

func (r resource) String() string {
	text := r.name
	if r.group != "" {
		text += "." + r.group
	}
	if r.sub != "" {
		text += "/" + r.sub
	}
	return text
}

// question is one request that an engineer could make.
type question struct {
	place, what, verb string
	method, target    string
	rule              *rbacv1.PolicyRule
}

// Places in which the same is asked for.
const (
	here       = "in the granted namespace"
	there      = "in another namespace"
	everywhere = "of the whole cluster"
	beside     = "paths beside the API's resources"
)

// served is what the API server says that it serves, and what the shipped roles name besides: kinds that a cluster may have.
func (s *scene) served(t *testing.T, roles []string) []resource {
	t.Helper()
	d, err := discovery.NewDiscoveryClientForConfig(s.ControlPlane.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	_, lists, err := d.ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]resource{}
	for _, list := range lists {
		group, _, grouped := strings.Cut(list.GroupVersion, "/")
		prefix := "/apis/" + list.GroupVersion
		if !grouped {
			group, prefix = "", "/api/"+list.GroupVersion
		}
		for _, served := range list.APIResources {
			r := resource{prefix: prefix, group: group, namespaced: served.Namespaced}
			r.name, r.sub, _ = strings.Cut(served.Name, "/")
			found[r.String()] = r
		}
	}
	if len(found) < 100 {
		t.Fatalf("only %d resources are known: discovery told little", len(found))
	}
	for _, role := range roles {
		for _, rule := range s.rulesOf(t, role) {
			for _, group := range rule.APIGroups {
				for _, name := range rule.Resources {
					r := resource{prefix: "/apis/" + group + "/v1", group: group, namespaced: true}
					r.name, r.sub, _ = strings.Cut(name, "/")
					if _, known := found[r.String()]; !known {
						found[r.String()] = r
					}
				}
			}
		}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b resource) int { return cmp.Compare(a.String(), b.String()) })
}

func (s *scene) rulesOf(t *testing.T, role string) []rbacv1.PolicyRule {
	t.Helper()
	found := &rbacv1.ClusterRole{}
	if err := s.Admin.Get(t.Context(), client.ObjectKey{Name: role}, found); err != nil {
		t.Fatal(err)
	}
	return found.Rules
}

// questions are all that can be asked about resources, and about what lies beside them.
func questions(resources []resource) []question {
	var out []question
	for _, r := range resources {
		places := map[string]string{everywhere: ""}
		if r.namespaced {
			places[here], places[there] = "/namespaces/"+tenant, "/namespaces/default"
		}
		for _, place := range slices.Sorted(maps.Keys(places)) {
			out = append(out, r.questions(place, r.prefix+places[place]+"/"+r.name)...)
		}
	}
	for _, path := range []string{
		"/", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/openapi/v2", "/openapi/v3", "/openapi/v3/api/v1", "/version", "/healthz", "/livez", "/readyz",
		"/healthz/etcd", "/livez/ping", "/readyz/etcd", "/metrics", "/metrics/slis", "/logs", "/logs/kube-apiserver.log", "/debug/pprof/profile", "/debug/flags/v",
		"/configz", "/statusz", "/flagz", "/.well-known/openid-configuration", "/openid/v1/jwks", "/swagger.json", "/ui", "/apis/metrics.k8s.io/v1beta1", "/anything",
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
			out = append(out, question{place: beside, what: path, verb: strings.ToLower(method), method: method, target: path})
		}
	}
	return out
}

// questions are every verb that a path can be asked with.
func (r resource) questions(place, path string) []question {
	one := path + "/" + nobody
	if r.sub != "" {
		one += "/" + r.sub
	}
	ask := func(verb, method, target string) question {
		name := strings.TrimSuffix(r.name+"/"+r.sub, "/")
		return question{place: place, what: r.String(), verb: verb, method: method, target: target, rule: &rbacv1.PolicyRule{
			Verbs: []string{verb}, APIGroups: []string{r.group}, Resources: []string{name},
		}}
	}
	const dry = "?dryRun=All"
	out := []question{
		ask("get", http.MethodGet, one), ask("update", http.MethodPut, one+dry), ask("patch", http.MethodPatch, one+dry), ask("delete", http.MethodDelete, one+dry),
	}
	if r.sub != "" {
		return append(out, ask("create", http.MethodPost, one+dry))
	}
	return append(out, ask("list", http.MethodGet, path), ask("watch", http.MethodGet, path+"?watch=1"),
		ask("create", http.MethodPost, path+dry), ask("deletecollection", http.MethodDelete, path+dry))
}

func TestTheGatewayLetsThroughWhatTheRoleSaysAndRefusesEverythingElse(t *testing.T) {
	s := newScene(t)
	roles := []string{gen.Configuration, gen.Diagnostics, gen.Operate, gen.Content}
	every := questions(s.served(t, roles))
	for i, role := range roles {
		t.Run(role, func(t *testing.T) {
			g := s.grants(t, fmt.Sprintf("case-table-%d", i), gen.WithRoles(role))
			through := g.letThrough(t, every)
			t.Logf("%d of %d are let through", len(through), len(every))
			isOnPage(t, role, page(role, through))
			for _, q := range through {
				if q.rule == nil {
					continue
				}
				for _, reason := range review.Never([]rbacv1.PolicyRule{*q.rule}) {
					t.Errorf("%s %s %s: %s", q.verb, q.what, q.place, reason)
				}
			}
			g.revoke(t)
		})
	}
}

// letThrough asks all questions and returns those that the gateway passed on to the API server.
func (g *grant) letThrough(t *testing.T, every []question) []question {
	t.Helper()
	passed := make([]bool, len(every))
	group, ctx := errgroup.WithContext(t.Context())
	for worker := range fuzzers {
		c := g.client(t)
		group.Go(func() (err error) {
			for i := worker; i < len(every) && err == nil; i += fuzzers {
				passed[i], err = every[i].ask(ctx, c, g.host(t))
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	var out []question
	for i, q := range every {
		if passed[i] {
			out = append(out, q)
		}
	}
	return out
}

// client is the engineer's, with a connection of its own.
func (g *grant) client(t *testing.T) *http.Client {
	t.Helper()
	config := g.config(t)
	tlsConfig, err := rest.TLSConfigFor(config)
	if err != nil {
		t.Fatal(err)
	}
	own := &http.Transport{TLSClientConfig: tlsConfig.Clone(), ForceAttemptHTTP2: true}
	t.Cleanup(own.CloseIdleConnections)
	transport, err := rest.HTTPWrappersForConfig(config, own)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Transport: transport}
}

func (g *grant) host(t *testing.T) string {
	t.Helper()
	return g.config(t).Host
}

// ask reports whether a request reached the API server, which gives each answer the request's id. A refusal of the gateway's
// says which grant does not allow it; what reached the API server that allows too, or the roles and the ceiling differ.
func (q question) ask(ctx context.Context, c *http.Client, host string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, anAnswer)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, q.method, host+q.target, nil)
	if err != nil {
		return false, err
	}
	response, err := c.Do(r)
	if err != nil {
		return false, err
	}
	defer func() { _ = response.Body.Close() }()
	passed := response.Header.Get("Audit-Id") != ""
	if passed && response.StatusCode < http.StatusBadRequest {
		return true, nil
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if err != nil {
		return false, err
	}
	status := metav1.Status{}
	if q.method != http.MethodHead && !passed {
		if err := json.Unmarshal(body, &status); err != nil {
			return false, fmt.Errorf("%s %s: %s: %s", q.method, q.target, response.Status, body)
		}
	}
	switch {
	case passed && response.StatusCode == http.StatusForbidden:
		return false, fmt.Errorf("%s %s: the gateway lets it through and the API server does not: %s", q.method, q.target, body)
	case passed:
		return true, nil
	case response.StatusCode != http.StatusForbidden || q.method != http.MethodHead && !strings.Contains(status.Message, " does not allow this: "):
		return false, fmt.Errorf("%s %s: %s: %s", q.method, q.target, response.Status, body)
	default:
		return false, nil
	}
}

// page is what is let through, as it lies in testdata: a line for each resource, with its verbs.
func page(role string, through []question) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# What the gateway lets through of an engineer who has %s. Everything else it refuses.\n# Written by go test ./test/gateway -run LetsThrough -update.\n", role)
	for _, place := range []string{here, there, everywhere, beside} {
		fmt.Fprintf(&b, "\n[%s]\n", place)
		var lines []string
		verbs := map[string][]string{}
		for _, q := range through {
			if q.place != place {
				continue
			}
			if verbs[q.what] == nil {
				lines = append(lines, q.what)
			}
			verbs[q.what] = append(verbs[q.what], q.verb)
		}
		for _, what := range lines {
			fmt.Fprintf(&b, "%s: %s\n", what, strings.Join(verbs[what], " "))
		}
		if len(lines) == 0 {
			b.WriteString("nothing\n")
		}
	}
	return b.String()
}

// isOnPage compares what was found with the page in testdata, or writes it.
func isOnPage(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		t.Fatalf("there is no page %s: write it with -update, and read it", path)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the gateway lets through\n%s\nand on the page is\n%s", got, want)
	}
}
