package changes

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/change"
	"supportaccess.dev/operator/test/world"
)

// In which ways a body may be written.
const (
	inJSON      = "application/json"
	inPatches   = "application/json-patch+json"
	inMerge     = "application/merge-patch+json"
	inStrategic = "application/strategic-merge-patch+json"
	inApply     = "application/apply-patch+yaml"
)

const (
	aConfigMap  = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"settings","labels":{"all":"yes"}},"data":{"a":"1"}}`
	aDeployment = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"replicas":1,"selector":{"matchLabels":{"a":"b"}},` +
		`"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`
)

// deed is a request that changes something: which object, and what of it.
type deed struct {
	method, path, kind, body string
	want                     int
	// object is what changes, as the API server gives it; state is what is to become of it, empty where nothing is tried.
	object string
	state  change.State
}

func deeds(namespace string) []deed {
	maps, web := "/api/v1/namespaces/"+namespace+"/configmaps", "/apis/apps/v1/namespaces/"+namespace+"/deployments"
	one := maps + "/settings"
	return []deed{
		{http.MethodPost, maps, inJSON, aConfigMap, 201, one, change.Committed},
		{http.MethodPatch, one, inPatches, `[{"op":"add","path":"/data/b","value":"2"}]`, 200, one, change.Committed},
		{http.MethodPatch, one, inMerge, `{"data":{"c":"3"}}`, 200, one, change.Committed},
		{http.MethodPatch, one, inStrategic, `{"data":{"d":"4"}}`, 200, one, change.Committed},
		{http.MethodPatch, one + "?fieldManager=me", inApply, "apiVersion: v1\nkind: ConfigMap\ndata: {e: \"5\"}\n", 200, one, change.Committed},
		{http.MethodPut, one, inJSON, strings.Replace(aConfigMap, `"1"`, `"7"`, 1), 200, one, change.Committed},
		{http.MethodPatch, one + "?dryRun=All", inMerge, `{"data":{"z":"9"}}`, 200, one, ""},
		{http.MethodPost, web, inJSON, aDeployment, 201, web + "/web", change.Committed},
		{http.MethodPatch, web + "/web/scale", inMerge, `{"spec":{"replicas":3}}`, 200, web + "/web/scale", change.Committed},
		{http.MethodPatch, web + "/web/status", inMerge, `{"status":{"observedGeneration":1}}`, 200, web + "/web", change.Committed},
		{http.MethodPatch, web + "/web", inMerge, `{"spec":{"selector":{"matchLabels":{"other":"x"}}}}`, 422, web + "/web", ""},
		{http.MethodDelete, one, inJSON, "", 200, one, change.Committed},
		{http.MethodPost, maps, inJSON, aConfigMap, 201, one, change.Committed},
		{http.MethodDelete, maps + "?labelSelector=all%3Dyes", inJSON, "", 200, one, change.Committed},
	}
}

func TestBeforeAndAfterAreWhatTheAPIServerHasForEveryWayToChangeSomething(t *testing.T) {
	s := newScene(t)
	e := s.comes(t, "case-ways")
	_, from := s.entries(t, 1)
	for i, d := range deeds(e.grant.Namespace) {
		before := s.truth(t, d.object)
		status, answer, err := e.asks(t, d.method, d.path, d.kind, d.body)
		if err != nil || status != d.want {
			t.Fatalf("deed %d: %s %s: %d, want %d: %s %v", i, d.method, d.path, status, d.want, answer, err)
		}
		after := s.truth(t, d.object)
		var entries []audit.Entry
		world.Eventually(t, "the end of the request is on record", func() error {
			entries, _ = s.entries(t, from)
			// The end of a list that was made before may be written down later.
			entries = slices.DeleteFunc(entries, func(e audit.Entry) bool { return e.Verb == "list" })
			if n := len(entries); n < 2 || entries[n-1].Stage != "ResponseComplete" {
				return fmt.Errorf("there are %d", n)
			}
			return nil
		})
		_, from = s.entries(t, from)
		first, last := entries[0], entries[len(entries)-1]
		tries := entries[1 : len(entries)-1]
		if d.state == "" {
			for _, try := range tries {
				if status < 400 {
					t.Errorf("deed %d: a trial has an entry: %+v", i, try.Change)
				}
			}
			continue
		}
		if len(tries) == 0 || len(tries) > 1 && !moving(d) || tries[0].Type != audit.TypeChange || tries[0].AuditID != first.AuditID || last.AuditID != first.AuditID {
			t.Fatalf("deed %d: there are %d entries of changes; the last says %+v", i, len(tries), last.Change)
		}
		if last.Change == nil || last.Change.State != d.state || tries[0].Change.State != change.Attempted {
			t.Errorf("deed %d: became %+v, want %s", i, last.Change, d.state)
		}
		try := tries[len(tries)-1].Change
		same(t, fmt.Sprintf("deed %d: before", i), shown(t, d, try.Before), part(d, before))
		same(t, fmt.Sprintf("deed %d: after", i), shown(t, d, try.After), part(d, after))
		if strings.HasSuffix(d.path, "/status") && !strings.Contains(string(try.After), `"observedGeneration":1`) {
			t.Errorf("deed %d: the status is on record as %s", i, try.After)
		}
	}
}

// moving reports whether a controller of Kubernetes writes the object, too: then only what is wanted of it holds still.
func moving(d deed) bool { return strings.Contains(d.object, "/deployments/") }

// part returns of an object what holds still.
func part(d deed, object map[string]any) map[string]any {
	if object == nil || !moving(d) {
		return object
	}
	return map[string]any{"spec": object["spec"]}
}

// shown reads what is on record of an object, and returns what of it holds still.
func shown(t *testing.T, d deed, recorded json.RawMessage) map[string]any {
	t.Helper()
	if len(recorded) == 0 {
		return nil
	}
	var object map[string]any
	if err := json.Unmarshal(recorded, &object); err != nil {
		t.Fatal(err)
	}
	return part(d, object)
}

// truth is an object as the API server has it, nil if it has none.
func (s *scene) truth(t *testing.T, path string) map[string]any {
	t.Helper()
	admin, err := rest.HTTPClientFor(s.ControlPlane.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer admin.CloseIdleConnections()
	e := &engineer{address: s.ControlPlane.Server(), http: admin}
	status, body, err := e.asks(t, http.MethodGet, path, "", "")
	if err != nil || status != http.StatusOK && status != http.StatusNotFound {
		t.Fatalf("get %s: %d %v", path, status, err)
	}
	if status == http.StatusNotFound {
		return nil
	}
	var object map[string]any
	if err := json.Unmarshal(body, &object); err != nil {
		t.Fatal(err)
	}
	return object
}

// same compares what is on record of an object with the truth, but for what the API server gives it when it is stored.
func same(t *testing.T, what string, got, truth map[string]any) {
	t.Helper()
	for _, object := range []map[string]any{got, truth} {
		if object == nil {
			continue
		}
		metadata, _ := object["metadata"].(map[string]any)
		delete(metadata, "managedFields")
		delete(metadata, "resourceVersion")
	}
	if !reflect.DeepEqual(got, truth) {
		recorded, _ := json.Marshal(got)
		stored, _ := json.Marshal(truth)
		t.Errorf("%s is on record as\n%s\nand is\n%s", what, recorded, stored)
	}
}

func TestUnderConflictsTheLastAttemptOfEachRequestFollowsFromTheOneBeforeIt(t *testing.T) {
	s := newScene(t)
	e := s.comes(t, "case-conflicts")
	maps := "/api/v1/namespaces/" + e.grant.Namespace + "/configmaps"
	if status, answer, err := e.asks(t, http.MethodPost, maps, inJSON, aConfigMap); err != nil || status != 201 {
		t.Fatalf("%d %s %v", status, answer, err)
	}
	_, from := s.entries(t, 1)
	const writers = 8
	var wait sync.WaitGroup
	for i := range writers {
		wait.Go(func() {
			if status, answer, err := e.asks(t, http.MethodPatch, maps+"/settings", inMerge, fmt.Sprintf(`{"data":{"w%d":"x"}}`, i)); err != nil || status != 200 {
				t.Errorf("writer %d: %d %s %v", i, status, answer, err)
			}
		})
	}
	wait.Wait()
	stale := strings.Replace(aConfigMap, `"name"`, `"resourceVersion":"1","name"`, 1)
	if status, answer, err := e.asks(t, http.MethodPut, maps+"/settings", inJSON, stale); err != nil || status != 409 {
		t.Errorf("a stale update: %d %s %v", status, answer, err)
	}
	entries, _ := s.entries(t, from)
	last, ends := map[string]*change.Change{}, map[string]change.State{}
	for _, entry := range entries {
		switch {
		case entry.Type == audit.TypeChange:
			last[string(entry.AuditID)] = entry.Change
		case entry.Change != nil:
			ends[string(entry.AuditID)] = entry.Change.State
		}
	}
	var steps [][2]map[string]any
	rejected := 0
	for id, state := range ends {
		if state == change.Rejected {
			rejected++
			continue
		}
		steps = append(steps, [2]map[string]any{dataOf(t, last[id].Before), dataOf(t, last[id].After)})
	}
	if len(steps) != writers || rejected != 1 {
		t.Fatalf("%d are committed and %d rejected", len(steps), rejected)
	}
	slices.SortFunc(steps, func(a, b [2]map[string]any) int { return len(a[0]) - len(b[0]) })
	for i := 1; i < len(steps); i++ {
		if !reflect.DeepEqual(steps[i][0], steps[i-1][1]) {
			t.Errorf("after is %v, and before the next %v", steps[i-1][1], steps[i][0])
		}
	}
	truth, _ := s.truth(t, maps+"/settings")["data"].(map[string]any)
	if !reflect.DeepEqual(steps[writers-1][1], truth) {
		t.Errorf("the last says %v, the API server has %v", steps[writers-1][1], truth)
	}
}

func dataOf(t *testing.T, object json.RawMessage) map[string]any {
	t.Helper()
	var read struct{ Data map[string]any }
	if err := json.Unmarshal(object, &read); err != nil {
		t.Fatal(err)
	}
	return read.Data
}

func TestFiftySecretsAreInNoEntryWhateverWayTheyWereWritten(t *testing.T) {
	s := newScene(t)
	e := s.comes(t, "case-secrets")
	secrets := "/api/v1/namespaces/" + e.grant.Namespace + "/secrets"
	web := "/apis/apps/v1/namespaces/" + e.grant.Namespace + "/deployments"
	var canaries []string
	canary := func() string {
		canaries = append(canaries, fmt.Sprintf("canary-%d-b7d1", len(canaries)))
		return canaries[len(canaries)-1]
	}
	coded := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	does := func(method, path, kind, body string, want int) {
		t.Helper()
		if status, answer, err := e.asks(t, method, path, kind, body); err != nil || status != want {
			t.Fatalf("%s %s: %d, want %d: %s %v", method, path, status, want, answer, err)
		}
	}
	for i := range 5 {
		name := fmt.Sprintf("s%d", i)
		one, applied := secrets+"/"+name, coded(canary())
		// Nobody makes Secrets with support access.
		made := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: e.grant.Namespace, Name: name, Annotations: map[string]string{
				"kubectl.kubernetes.io/last-applied-configuration": fmt.Sprintf(`{"data":{"a":%q}}`, applied),
			}},
			StringData: map[string]string{"a": canary(), "b": canary()},
		}
		if err := s.Admin.Create(t.Context(), made); err != nil {
			t.Fatal(err)
		}
		does(http.MethodPatch, one, inPatches, fmt.Sprintf(`[{"op":"add","path":"/data/c","value":%q}]`, coded(canary())), 200)
		does(http.MethodPatch, one, inMerge, fmt.Sprintf(`{"stringData":{"d":%q}}`, canary()), 200)
		does(http.MethodPatch, one, inStrategic, fmt.Sprintf(`{"data":{"e":%q}}`, coded(canary())), 200)
		does(http.MethodPatch, one+"?fieldManager=me", inApply, fmt.Sprintf("apiVersion: v1\nkind: Secret\ndata: {f: %s}\n", coded(canary())), 200)
		does(http.MethodPost, "/api/v1/namespaces/"+e.grant.Namespace+"/configmaps", inJSON,
			fmt.Sprintf(`{"metadata":{"name":%q},"data":{"password":%q,"shown":"in the clear"}}`, name, canary()), 201)
		deployment := strings.Replace(strings.Replace(aDeployment, `"image":"i"`, fmt.Sprintf(`"image":"i","env":[{"name":"P","value":%q}]`, canary()), 1), `"web"`, `"`+name+`"`, 1)
		does(http.MethodPost, web, inJSON, deployment, 201)
		does(http.MethodPatch, web+"/"+name, inMerge, fmt.Sprintf(`{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"i","env":[{"name":"P","value":%q}]}]}}}}`, canary()), 200)
		does(http.MethodPut, one, inJSON, fmt.Sprintf(`{"metadata":{"name":%q},"data":{"g":%q}}`, name, coded(canary())), 200)
		does(http.MethodDelete, one, inJSON, "", 200)
	}
	if len(canaries) < 50 {
		t.Fatalf("there are %d", len(canaries))
	}
	content, err := s.gateway.AuditLines(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	log := string(content)
	for _, c := range canaries {
		if strings.Contains(log, c) || strings.Contains(log, coded(c)) {
			t.Errorf("%s is on record", c)
		}
	}
	if !strings.Contains(log, "in the clear") || !strings.Contains(log, "masked:") {
		t.Error("what is no secret is not on record, or nothing is masked")
	}
}

func TestAStreamIntoAPodAndAContainerForLookingAreSeen(t *testing.T) {
	s := newScene(t)
	e := s.comes(t, "case-pods")
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: e.grant.Namespace, Name: "web"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	world.Eventually(t, "the pod is there", func() error { return s.Admin.Create(t.Context(), pod) })
	_, from := s.entries(t, 1)
	path := "/api/v1/namespaces/" + e.grant.Namespace + "/pods/web"
	body := `{"spec":{"ephemeralContainers":[{"name":"look","image":"busybox","env":[{"name":"P","value":"canary"}]}]}}`
	if status, answer, err := e.asks(t, http.MethodPatch, path+"/ephemeralcontainers", inStrategic, body); err != nil || status != 200 {
		t.Fatalf("%d %s %v", status, answer, err)
	}
	if _, _, err := e.asks(t, http.MethodPost, path+"/exec?command=true&stdout=true", "", ""); err != nil {
		t.Fatal(err)
	}
	entries, _ := s.entries(t, from)
	var seen []string
	for _, entry := range entries {
		if entry.Type == audit.TypeChange {
			seen = append(seen, entry.Change.Operation+" "+audit.ResourceName(entry.ObjectRef))
			if strings.Contains(string(entry.Change.After), "canary") {
				t.Error("a variable is not masked")
			}
		}
	}
	if want := []string{"UPDATE pods/ephemeralcontainers", "CONNECT pods/exec"}; !slices.Equal(seen, want) {
		t.Errorf("seen is %q, want %q", seen, want)
	}
}

func TestNobodyElsesChangeIsAskedAboutAndWithoutTheGatewayEngineersAloneAreRefused(t *testing.T) {
	s := newScene(t)
	e := s.comes(t, "case-away")
	maps := "/api/v1/namespaces/" + e.grant.Namespace + "/configmaps"
	writes := func(name string) error {
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: e.grant.Namespace, Name: name}}
		return s.Admin.Create(t.Context(), object)
	}
	_, from := s.entries(t, 1)
	for i := range 10 {
		if err := writes(fmt.Sprintf("mine-%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if status, answer, err := e.asks(t, http.MethodPost, maps, inJSON, aConfigMap); err != nil || status != 201 {
		t.Fatalf("%d %s %v", status, answer, err)
	}
	entries, _ := s.entries(t, from)
	asked := 0
	for _, entry := range entries {
		if entry.Type == audit.TypeChange {
			asked++
		}
	}
	if asked != 1 {
		t.Errorf("the gateway was asked %d times, want once", asked)
	}
	s.guises(t, e)
	s.webhookIsAway(t)
	if status, answer, err := e.asks(t, http.MethodPatch, maps+"/settings", inMerge, `{"data":{"b":"2"}}`); err != nil || status != 500 || !strings.Contains(string(answer), "changes.supportaccess.dev") {
		t.Errorf("without the webhook: %d %s %v", status, answer, err)
	}
	if status, _, err := e.asks(t, http.MethodGet, maps+"/settings", "", ""); err != nil || status != 200 {
		t.Errorf("reading without the webhook: %d %v", status, err)
	}
	if err := writes("mine-without"); err != nil {
		t.Errorf("somebody else without the webhook: %v", err)
	}
}

// TestNoQuestionOfTheAPIServersMeetsTheClosingOfAConnectionThatWasKept: it would be lost, as a replica of the gateway stops, and
// an engineer's change with it.
func TestNoQuestionOfTheAPIServersMeetsTheClosingOfAConnectionThatWasKept(t *testing.T) {
	s := newScene(t)
	secret := &corev1.Secret{}
	if err := s.Admin.Get(t.Context(), client.ObjectKey{Namespace: world.SystemNamespace, Name: webhook + "-tls"}, secret); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(secret.Data["ca.crt"])
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: webhook + "." + world.SystemNamespace + ".svc", MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, fmt.Sprintf("https://%s/changes", net.JoinHostPort(s.gateway.IP, "9445")), strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if !response.Close {
		t.Errorf("it was answered with %s, and the connection is kept", response.Status)
	}
}

// guises has an admin take an engineer's identity without the gateway.
func (s *scene) guises(t *testing.T, e *engineer) {
	t.Helper()
	config := s.ControlPlane.AdminConfig()
	config.Impersonate = rest.ImpersonationConfig{UserName: v1alpha1.IdentityPrefix + "somebody", Groups: []string{v1alpha1.EngineersGroup, "system:masters"}}
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: e.grant.Namespace, Name: "guise"}}
	if err := s.ClientFor(t, config).Create(t.Context(), object); err == nil || !strings.Contains(err.Error(), "did not come through the gateway") {
		t.Errorf("in the guise of an engineer: %v", err)
	}
}

// webhookIsAway has the webhook's Service lead nowhere until the test ends.
func (s *scene) webhookIsAway(t *testing.T) {
	t.Helper()
	leads := func(ctx context.Context, port int64) error {
		patch := fmt.Appendf(nil, `[{"op":"replace","path":"/webhooks/0/clientConfig/service/port","value":%d}]`, port)
		object := &unstructured.Unstructured{}
		object.SetGroupVersionKind(admissionregistrationv1.SchemeGroupVersion.WithKind("ValidatingWebhookConfiguration"))
		object.SetName("support-access-changes")
		return s.Admin.Patch(ctx, object, client.RawPatch("application/json-patch+json", patch))
	}
	if err := leads(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := leads(context.Background(), 9445); err != nil {
			t.Error(err)
		}
	})
	probe := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "webhook-probe"}}
	config := s.ControlPlane.AdminConfig()
	config.Impersonate = rest.ImpersonationConfig{UserName: v1alpha1.IdentityPrefix + "somebody", Groups: []string{"system:masters"}}
	as := s.ClientFor(t, config)
	world.Eventually(t, "the API server has heard that the webhook is away", func() error {
		if err := as.Create(t.Context(), probe); err == nil || !strings.Contains(err.Error(), "failed calling webhook") {
			return fmt.Errorf("it says %w", err)
		}
		return nil
	})
}
