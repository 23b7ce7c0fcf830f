package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/cast"
	"supportaccess.dev/operator/internal/audit/chain"
	"supportaccess.dev/operator/internal/audit/sqlite"
	"supportaccess.dev/operator/internal/audit/verify"
)

func TestWhoReadsIsAskedForAndPutDownFirst(t *testing.T) {
	d := newDesk(t)
	for name, test := range map[string]struct {
		token, target string
		code          int
		recorded      bool
		says          string
	}{
		"nobody":                      {"", "/v1/entries", 401, false, "give a token"},
		"nobody the API server knows": {"forged", "/v1/entries", 401, false, "does not know this token"},
		"an auditor":                  {"auditor", "/v1/entries", 200, true, `"entries":[{"seq":`},
		"an admin of the namespace":   {"shop-admin", "/v1/entries?namespace=shop", 200, true, `"namespace":"shop"`},
		"of another":                  {"shop-admin", "/v1/entries?namespace=mail", 403, false, "the audit log of namespace mail"},
		"of all":                      {"shop-admin", "/v1/entries", 403, false, "ask for one namespace"},
		"an export of another":        {"shop-admin", "/v1/export?namespace=mail", 403, false, "namespace mail"},
		"an export":                   {"auditor", "/v1/export", 200, true, `"whole":true`},
		"events":                      {"auditor", "/v1/export?format=ocsf", 200, true, `"class_uid":6003`},
		"a table":                     {"auditor", "/v1/export?format=csv", 200, true, "seq,time,source"},
		"the keys":                    {"shop-admin", "/v1/keys", 200, false, origin + "+"},
		"the checkpoint":              {"shop-admin", "/v1/checkpoint", 200, false, origin + "\n"},
		"the keys, by nobody":         {"", "/v1/keys", 401, false, "token"},
		"a filter that is mistyped":   {"auditor", "/v1/entries?engineers=ana", 400, false, "engineers: there is no such filter"},
		"a filter twice":              {"auditor", "/v1/entries?namespace=shop&namespace=mail", 400, false, "give it once"},
		"a format that is not":        {"auditor", "/v1/export?format=xml", 400, false, "neither jsonl nor csv nor ocsf"},
		"a format of a page":          {"auditor", "/v1/entries?format=csv", 400, false, "no such filter"},
		"a recording":                 {"auditor", "/v1/recordings/one", 200, true, `"o","printed"`},
		"a recording, by its admin":   {"shop-admin", "/v1/recordings/one?namespace=shop", 200, true, `{"version":2`},
		"a recording of another":      {"shop-admin", "/v1/recordings/one?namespace=mail", 403, false, "namespace mail"},
		"a recording of all":          {"shop-admin", "/v1/recordings/one", 403, false, "ask for one namespace"},
		"a recording that is not":     {"auditor", "/v1/recordings/two", 404, true, "no recording with this number"},
		"a recording of elsewhere":    {"auditor", "/v1/recordings/one?namespace=mail", 404, true, "not of this namespace"},
		"a part of a recording":       {"auditor", "/v1/recordings/one?verb=get", 400, false, "nothing else finds a part of one"},
		"a path that is not":          {"auditor", "/v1/entries/", 404, false, "there are /v1/entries"},
	} {
		before := d.size(t)
		code, body := d.get(t, test.token, test.target)
		if code != test.code || !strings.Contains(body, test.says) {
			t.Errorf("%s: %d %s, want %d with %q", name, code, body[:min(len(body), 200)], test.code, test.says)
		}
		if recorded := d.size(t) > before; recorded != test.recorded {
			t.Errorf("%s: put down: %t, want %t", name, recorded, test.recorded)
		}
	}
	_, body := d.get(t, "auditor", "/v1/entries?type=Read&limit=1&below="+fmt.Sprint(d.size(t)+1))
	page := Page{}
	if err := json.Unmarshal([]byte(body), &page); err != nil || len(page.Entries) != 1 {
		t.Fatalf("%s: %v", body, err)
	}
	e := audit.Entry{}
	if err := json.Unmarshal(page.Entries[0], &e); err != nil {
		t.Fatal(err)
	}
	if e.Type != audit.TypeRead || e.User.Username == "" || e.RequestURI == "" || e.Labels[audit.LabelSource] != audit.SourceLog || e.AuditID == "" {
		t.Errorf("put down as %+v", e)
	}
}

func TestNothingIsShownThatCouldNotBePutDown(t *testing.T) {
	d := newDesk(t)
	d.handler.Journal = broken{}
	for _, target := range []string{"/v1/entries", "/v1/export", "/v1/entries?namespace=shop", "/v1/recordings/one"} {
		code, body := d.get(t, "auditor", target)
		if code != http.StatusServiceUnavailable || strings.Contains(body, "disk") || strings.Contains(body, "ana@") || strings.Contains(body, "printed") {
			t.Errorf("%s: %d %s", target, code, body)
		}
	}
	d = newDesk(t)
	d.guard.down = true
	if code, _ := d.get(t, "auditor", "/v1/entries"); code != http.StatusServiceUnavailable {
		t.Errorf("without the API server: %d", code)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.server.URL+"/v1/entries", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := d.server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", response.StatusCode)
	}
}

func TestPagesFollowEachOtherWithoutGapOrRepetition(t *testing.T) {
	d := newDesk(t)
	var seen []int64
	target := "/v1/entries?source=Support&limit=7"
	for range 20 {
		_, body := d.get(t, "auditor", target)
		page := Page{}
		if err := json.Unmarshal([]byte(body), &page); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		for _, raw := range page.Entries {
			e := audit.Entry{}
			if err := json.Unmarshal(raw, &e); err != nil {
				t.Fatal(err)
			}
			seen = append(seen, e.Seq)
		}
		if page.Next == 0 {
			break
		}
		target = fmt.Sprintf("/v1/entries?source=Support&limit=7&below=%d", page.Next)
	}
	if len(seen) != entries || !slices.IsSortedFunc(seen, func(a, b int64) int { return int(b - a) }) || len(slices.Compact(seen)) != entries {
		t.Errorf("%d entries: %v", len(seen), seen)
	}
}

func TestWhatIsExportedOverTheNetworkIsVerified(t *testing.T) {
	d := newDesk(t)
	_, keys := d.get(t, "auditor", "/v1/keys")
	_, checkpoint := d.get(t, "auditor", "/v1/checkpoint")
	for _, target := range []string{"/v1/export", "/v1/export?engineer=" + url.QueryEscape("ana@vendor.example"), "/v1/export?namespace=shop&text=settings"} {
		_, body := d.get(t, "auditor", target)
		report, err := verify.Log(strings.NewReader(body), verify.Options{Keys: strings.Fields(keys), Checkpoints: []string{checkpoint}})
		if err != nil || report.Entries < 20 {
			t.Errorf("%s: %+v, %v", target, report, err)
		}
	}
}

func TestTheAPIServerIsAskedWhoAndWhether(t *testing.T) {
	var asked authorizationv1.SubjectAccessReviewSpec
	var reviewed authenticationv1.TokenReviewSpec
	var answer authenticationv1.TokenReviewStatus
	c := fake.NewClientBuilder().WithScheme(clientgoscheme.Scheme).WithInterceptorFuncs(interceptor.Funcs{
		Create: func(_ context.Context, _ client.WithWatch, object client.Object, _ ...client.CreateOption) error {
			switch review := object.(type) {
			case *authenticationv1.TokenReview:
				reviewed, review.Status = review.Spec, answer
			case *authorizationv1.SubjectAccessReview:
				asked, review.Status.Allowed = review.Spec, review.Spec.ResourceAttributes.Namespace == "shop"
			}
			return nil
		},
	}).Build()
	guard := &APIServer{Client: c, Audiences: []string{"supportaccess.dev/audit"}}
	known := authenticationv1.UserInfo{Username: "eve", UID: "7", Groups: []string{"auditors"}, Extra: map[string]authenticationv1.ExtraValue{"a": {"b"}}}
	for name, test := range map[string]struct {
		status    authenticationv1.TokenReviewStatus
		audiences []string
		known     bool
	}{
		"a token for the log":            {authenticationv1.TokenReviewStatus{Authenticated: true, User: known, Audiences: []string{"x", "supportaccess.dev/audit"}}, guard.Audiences, true},
		"a token for something else":     {authenticationv1.TokenReviewStatus{Authenticated: true, User: known, Audiences: []string{"x"}}, guard.Audiences, false},
		"a token without an audience":    {authenticationv1.TokenReviewStatus{Authenticated: true, User: known}, guard.Audiences, false},
		"no token":                       {authenticationv1.TokenReviewStatus{User: known, Audiences: guard.Audiences}, guard.Audiences, false},
		"a token for the API server":     {authenticationv1.TokenReviewStatus{Authenticated: true, User: known}, nil, true},
		"no token, where none is for us": {authenticationv1.TokenReviewStatus{}, nil, false},
	} {
		answer, guard.Audiences = test.status, test.audiences
		who, err := guard.Identify(t.Context(), "token")
		if err != nil || (who != nil) != test.known || reviewed.Token != "token" || !slices.Equal(reviewed.Audiences, test.audiences) {
			t.Errorf("%s: %+v, %v; asked %+v", name, who, err, reviewed)
		}
	}
	for namespace, want := range map[string]bool{"shop": true, "mail": false, "": false} {
		may, err := guard.MayRead(t.Context(), &known, namespace)
		if err != nil || may != want {
			t.Errorf("%q: %t, %v", namespace, may, err)
		}
		a := asked.ResourceAttributes
		if asked.User != "eve" || asked.UID != "7" || len(asked.Groups) != 1 || len(asked.Extra) != 1 || a.Verb != "get" || a.Resource != "supportaccessrecords" || a.Subresource != "log" || a.Group != "supportaccess.dev" {
			t.Errorf("asked %+v", asked)
		}
	}
}

const (
	origin  = "support.example/audit"
	entries = 60
)

// desk is a handler with a log and those who read it.
type desk struct {
	handler *Handler
	guard   *guards
	store   *sqlite.Store
	server  *httptest.Server
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "audit.db"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := chain.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	log, err := audit.OpenLedger(t.Context(), audit.LedgerOptions{Store: store, Origin: origin, Key: key, Clock: clock.RealClock{}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range entries {
		err := log.Append(t.Context(), &audit.Entry{
			Event:    auditv1.Event{Verb: "get", RequestURI: "/settings", ObjectRef: &auditv1.ObjectReference{Resource: "configmaps", Namespace: []string{"shop", "mail"}[i%2]}},
			Engineer: "ana@vendor.example", Labels: map[string]string{audit.LabelSource: audit.Source},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	packs, err := cast.Pack([]cast.Frame{{Kind: cast.Output, Data: []byte("printed")}})
	if err != nil {
		t.Fatal(err)
	}
	err = log.Append(t.Context(), &audit.Entry{
		Type: audit.TypeRecording, Recording: &audit.Recording{Piece: 1, Frames: packs[0]}, Labels: map[string]string{audit.LabelSource: audit.Source},
		Event: auditv1.Event{AuditID: "one", Verb: "get", ObjectRef: &auditv1.ObjectReference{Resource: "pods", Subresource: "exec", Namespace: "shop"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{store: store, guard: &guards{}}
	d.handler = &Handler{Reader: store, Journal: log, Guard: d.guard, Clock: clock.RealClock{}, Logger: logr.Discard()}
	d.server = httptest.NewServer(d.handler)
	t.Cleanup(func() {
		d.server.Close()
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *desk) get(t *testing.T, token, target string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, d.server.URL+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := d.server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func (d *desk) size(t *testing.T) int64 {
	t.Helper()
	standing, err := d.store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return standing.Size
}

// guards know an auditor and the admin of a namespace.
type guards struct{ down bool }

func (g *guards) Identify(_ context.Context, token string) (*authenticationv1.UserInfo, error) {
	if g.down {
		return nil, errors.New("the API server is down")
	}
	if token == "forged" {
		return nil, nil
	}
	return &authenticationv1.UserInfo{Username: token}, nil
}

func (g *guards) MayRead(_ context.Context, who *authenticationv1.UserInfo, namespace string) (bool, error) {
	return who.Username == "auditor" || (who.Username == "shop-admin" && namespace == "shop"), nil
}

type broken struct{}

func (broken) Read(context.Context, audit.Reading) error {
	return errors.New("no space left on the disk")
}
