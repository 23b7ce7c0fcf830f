package gateway

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/audit"
	changes "supportaccess.dev/operator/internal/audit/change"
	"supportaccess.dev/operator/test/gen"
)

// reviewing is a gateway that the API server asks about changes.
func reviewing(t *testing.T) (*world, http.Handler) {
	t.Helper()
	w := open(t)
	masker, err := changes.NewMasker([]byte("the key of the log"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return w, w.gateway.Reviews(masker, func() []byte { return []byte(webhookKey) })
}

// webhookKey stands for the key of the webhook's certificate.
const webhookKey = "a key"

// aReview is what the API server asks when an engineer of a grant changes a ConfigMap.
func (w *world) aReview(g *granted) *admissionv1.AdmissionRequest {
	user := access.GatewayUsername(v1alpha1.RecordedGrant{Namespace: g.Namespace, Name: g.Name, UID: g.UID}, gen.Engineer)
	return &admissionv1.AdmissionRequest{
		UID: "asked", Operation: admissionv1.Update, Namespace: gen.Namespace, Name: "settings",
		Resource: metav1.GroupVersionResource{Version: "v1", Resource: "configmaps"},
		UserInfo: authenticationv1.UserInfo{Username: user, Groups: []string{v1alpha1.EngineersGroup}, Extra: map[string]authenticationv1.ExtraValue{
			extraGrant: {g.Namespace + "/" + g.Name}, extraRequest: {w.gateway.seal.id(user)},
		}},
		OldObject: runtime.RawExtension{Raw: []byte(`{"metadata":{"name":"settings","uid":"u-1","resourceVersion":"7"},"data":{"mode":"off"}}`)},
		Object:    runtime.RawExtension{Raw: []byte(`{"metadata":{"name":"settings","uid":"u-1"},"data":{"mode":"on"}}`)},
	}
}

func asked(t *testing.T, h http.Handler, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	t.Helper()
	return told(t, h, ReviewsPath, r)
}

// told is asked, at a path.
func told(t *testing.T, h http.Handler, path string, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	t.Helper()
	body, err := json.Marshal(admissionv1.AdmissionReview{Request: r})
	if err != nil {
		t.Fatal(err)
	}
	recorded := httptest.NewRecorder()
	h.ServeHTTP(recorded, httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, bytes.NewReader(body)))
	answered := &admissionv1.AdmissionReview{}
	if err := json.Unmarshal(recorded.Body.Bytes(), answered); err != nil || answered.Response == nil || answered.Response.UID != r.UID {
		t.Fatalf("answered %d %s: %v", recorded.Code, recorded.Body, err)
	}
	return answered.Response
}

func TestAChangeIsOnRecordBeforeItMayBeMadeUnderTheNumberOfItsRequest(t *testing.T) {
	w, h := reviewing(t)
	r := w.aReview(w.grant("case-1"))
	if response := asked(t, h, r); !response.Allowed {
		t.Fatalf("it is refused: %+v", response.Result)
	}
	entries := w.log.all()
	if len(entries) != 1 {
		t.Fatalf("there are %d entries", len(entries))
	}
	e := entries[0]
	if e.Type != audit.TypeChange || string(e.AuditID) != r.UserInfo.Extra[extraRequest][0] || e.Engineer != gen.Engineer || e.Grant.Name != "case-1" || e.Verb != "update" {
		t.Errorf("the entry is of type %q, request %q, engineer %q, grant %+v, verb %q", e.Type, e.AuditID, e.Engineer, e.Grant, e.Verb)
	}
	if e.Change.State != changes.Attempted || !strings.Contains(string(e.Change.Before), `"mode":"off"`) || !strings.Contains(string(e.Change.After), `"mode":"on"`) {
		t.Errorf("the change is %s: %s to %s", e.Change.State, e.Change.Before, e.Change.After)
	}
	if ref := e.ObjectRef; ref.Name != "settings" || ref.UID != "u-1" || ref.ResourceVersion != "7" {
		t.Errorf("it is about %+v", ref)
	}
	if outcome := audit.FacetsOf(&e).Outcome; outcome != audit.OutcomeAttempted {
		t.Errorf("its outcome is %s", outcome)
	}
}

func TestWhatTheGatewayDidNotLetInIsNotChanged(t *testing.T) {
	w, h := reviewing(t)
	g := w.grant("case-1")
	over := w.grant("case-2")
	reviewOfOver := w.aReview(over)
	w.revoke("case-2")
	stranger, err := newSeal(nil)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		mod  func(*admissionv1.AdmissionRequest)
		code int32
		says string
	}{
		"no id":                  {func(r *admissionv1.AdmissionRequest) { delete(r.UserInfo.Extra, extraRequest) }, 403, "through the gateway"},
		"an id that was made up": {func(r *admissionv1.AdmissionRequest) { r.UserInfo.Extra[extraRequest] = []string{uuid.NewString()} }, 403, "through the gateway"},
		"an id of another key": {
			func(r *admissionv1.AdmissionRequest) {
				r.UserInfo.Extra[extraRequest] = []string{stranger.id(r.UserInfo.Username)}
			}, 403, "through the gateway",
		},
		"an id of somebody else": {
			func(r *admissionv1.AdmissionRequest) {
				r.UserInfo.Extra[extraRequest] = []string{w.gateway.seal.id("supportaccess.dev:other")}
			}, 403, "through the gateway",
		},
		"two ids": {
			func(r *admissionv1.AdmissionRequest) {
				r.UserInfo.Extra[extraRequest] = append(r.UserInfo.Extra[extraRequest], "x")
			}, 403, "through the gateway",
		},
		"the group alone": {func(r *admissionv1.AdmissionRequest) { r.UserInfo.Username = "tess" }, 403, "through the gateway"},
		"a grant that nobody knows": {
			func(r *admissionv1.AdmissionRequest) { r.UserInfo.Extra[extraGrant] = []string{"other/case-1"} }, 503, "does not know the grant",
		},
		"a grant that is over": {func(r *admissionv1.AdmissionRequest) { *r = *reviewOfOver }, 403, "is not open"},
		"what cannot be read":  {func(r *admissionv1.AdmissionRequest) { r.Object.Raw = []byte(`["no object"]`) }, 503, "cannot be put on record"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := w.aReview(g)
			c.mod(r)
			response := asked(t, h, r)
			if response.Allowed || response.Result.Code != c.code || !strings.Contains(response.Result.Message, c.says) {
				t.Errorf("allowed %t: %+v", response.Allowed, response.Result)
			}
		})
	}
	w.log.fail()
	if response := asked(t, h, w.aReview(g)); response.Allowed || response.Result.Code != http.StatusServiceUnavailable {
		t.Errorf("without a log: allowed %t: %+v", response.Allowed, response.Result)
	}
	if entries := w.log.all(); len(entries) != 0 {
		t.Errorf("on record are %d entries", len(entries))
	}
}

func TestATrialAndSomebodyElsesChangeAreNotOnRecordAndNotInTheWay(t *testing.T) {
	w, h := reviewing(t)
	dry, others := w.aReview(w.grant("case-1")), w.aReview(w.grant("case-2"))
	dry.DryRun = new(true)
	others.UserInfo = authenticationv1.UserInfo{Username: "tess@customer.example", Groups: []string{"system:authenticated"}}
	w.log.fail()
	for name, r := range map[string]*admissionv1.AdmissionRequest{"a trial": dry, "somebody else's": others} {
		if response := asked(t, h, r); !response.Allowed {
			t.Errorf("%s: %+v", name, response.Result)
		}
	}
	if entries := w.log.all(); len(entries) != 0 {
		t.Errorf("on record are %d entries", len(entries))
	}
}

func TestAReplicaKnowsTheRequestsOfAnotherWithTheSameKeyAlsoWhileItIsReplaced(t *testing.T) {
	old, _ := newSeal([][]byte{[]byte("old")})
	both, _ := newSeal([][]byte{[]byte("new"), []byte("old")})
	if id := old.id("supportaccess.dev:a"); !both.knows(id, "supportaccess.dev:a") || both.knows(id, "supportaccess.dev:b") {
		t.Error("the id of another replica is not known, or known for somebody else")
	}
	id := both.id("supportaccess.dev:a")
	if old.knows(id, "supportaccess.dev:a") {
		t.Error("an id is known without its key")
	}
	if parsed, err := uuid.Parse(id); err != nil || parsed.Version() != 8 || parsed.Variant() != uuid.RFC4122 {
		t.Errorf("%s is no UUID of version 8: %v", id, err)
	}
	if upper := strings.ToUpper(id); upper != id && both.knows(upper, "supportaccess.dev:a") {
		t.Error("an id is known in another spelling: entries would not be joined by it")
	}
}

func TestReplicasThatShareASecretKnowEachOthersRequestsAlsoWhenItChanges(t *testing.T) {
	one, _ := newSeal(nil)
	other, _ := newSeal(nil)
	alone := one.id("supportaccess.dev:a")
	if other.knows(alone, "supportaccess.dev:a") {
		t.Error("a replica knows another's request without anything that they share")
	}
	secret := []byte("first")
	for _, s := range []*seal{one, other} {
		s.share(func() []byte { return secret })
	}
	first := one.id("supportaccess.dev:a")
	secret = []byte("second")
	second := one.id("supportaccess.dev:a")
	for name, id := range map[string]string{"before the change": first, "after it": second} {
		if !one.knows(id, "supportaccess.dev:a") || name == "after it" && !other.knows(id, "supportaccess.dev:a") {
			t.Errorf("%s the request is not known", name)
		}
	}
	if !one.knows(alone, "supportaccess.dev:a") {
		t.Error("what was under way before there was a secret is not known any more")
	}
	secret = nil
	if id := one.id("supportaccess.dev:a"); !other.knows(second, "supportaccess.dev:a") || !one.knows(id, "supportaccess.dev:a") {
		t.Error("without the file the last secret is forgotten")
	}
}

func TestTheEndOfARequestSaysWhatBecameOfItsChanges(t *testing.T) {
	w, _ := reviewing(t)
	ends := func(status int, method, path string) *changes.Change {
		w.answers(func(response http.ResponseWriter, _ *http.Request) { response.WriteHeader(status) })
		before := len(w.log.all())
		g := w.grant("case-"+strings.ToLower(method)+"-"+http.StatusText(status)[:2], gen.WithRoles("changes"))
		response, err := w.ask(w.client(), g.token, method, path)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		eventually(t, "its end is on record", func() bool { return len(w.log.all()) == before+2 })
		return w.log.all()[before+1].Change
	}
	role := gen.ClusterRole("changes", gen.Rule("", []string{"configmaps"}, []string{"get", "update", "deletecollection"}))
	if err := w.objects.Create(t.Context(), role); err != nil {
		t.Fatal(err)
	}
	one := "/api/v1/namespaces/" + gen.Namespace + "/configmaps/settings"
	for status, want := range map[int]changes.State{200: changes.Committed, 409: changes.Rejected, 500: changes.Unknown} {
		if got := ends(status, http.MethodPut, one); got == nil || got.State != want {
			t.Errorf("%d: got %+v, want %s", status, got, want)
		}
	}
	if got := ends(200, http.MethodGet, one); got != nil {
		t.Errorf("a read has %+v", got)
	}
}
