package gateway

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// maintenance is a role of the product's own, elevated, and with it goes what the gateway may carry through for it.
const maintenance = "mail-archive-maintenance"

// offersMaintenance makes the product's role, and adds to the ceiling what it allows.
func (s *scene) offersMaintenance(t *testing.T) {
	t.Helper()
	writes := []string{"create", "update", "patch", "delete"}
	all := append([]string{"deletecollection", "get", "list", "watch"}, writes...)
	role := gen.ClusterRole(maintenance,
		gen.Rule("", []string{"configmaps"}, all), gen.Rule("apps", []string{"deployments"}, all),
		gen.Rule("apps", []string{"deployments/scale", "deployments/status"}, []string{"get", "update", "patch"}),
		gen.Rule("", []string{"pods/ephemeralcontainers"}, []string{"patch", "update"}),
	)
	ceiling := gen.ClusterRole(maintenance + "-ceiling")
	ceiling.Labels = map[string]string{"supportaccess.dev/aggregate-to-gateway-ceiling": "true"}
	for _, rule := range role.Rules {
		through := rule.DeepCopy()
		for i, verb := range through.Verbs {
			through.Verbs[i] = "impersonate-on:user-info:" + verb
		}
		ceiling.Rules = append(ceiling.Rules, *through)
	}
	for _, object := range []client.Object{role, ceiling} {
		if err := s.Admin.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
}

// deed is a request that changes something, and what is to be on record of it.
type deed struct {
	method, target, kind, body string
	want                       int
	record                     string
}

const (
	ofConfigMaps  = "/api/v1/namespaces/" + tenant + "/configmaps"
	ofDeployments = "/apis/apps/v1/namespaces/" + tenant + "/deployments"
	aConfigMap    = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"deeds","labels":{"deeds":"yes"}},"data":{"a":"1"}}`
	inPatches     = "application/json-patch+json"
	inMerge       = "application/merge-patch+json"
	inStrategic   = "application/strategic-merge-patch+json"
	inApply       = "application/apply-patch+yaml"
	inApplyCBOR   = "application/apply-patch+cbor"
	inAnyJSON     = "application/json"
)

func deeds() []deed {
	one := ofConfigMaps + "/deeds"
	return []deed{
		{http.MethodPost, ofConfigMaps + "?dryRun=All", inAnyJSON, aConfigMap, 201, "create configmaps/"},
		{http.MethodGet, one, inAnyJSON, "", 404, "get configmaps/deeds"},
		{http.MethodPost, ofConfigMaps, inAnyJSON, aConfigMap, 201, "create configmaps/"},
		{http.MethodPost, ofConfigMaps, inAnyJSON, aConfigMap, 409, "create configmaps/"},
		{http.MethodPatch, one, inPatches, `[{"op":"add","path":"/data/b","value":"2"}]`, 200, "patch configmaps/deeds"},
		{http.MethodPatch, one, inMerge, `{"data":{"c":"3"}}`, 200, "patch configmaps/deeds"},
		{http.MethodPatch, one, inStrategic, `{"data":{"d":"4"}}`, 200, "patch configmaps/deeds"},
		{http.MethodPatch, one + "?fieldManager=me", inApply, "apiVersion: v1\nkind: ConfigMap\ndata: {e: \"5\"}\n", 200, "patch configmaps/deeds"},
		{http.MethodPatch, one + "?fieldManager=other", inApply, "apiVersion: v1\nkind: ConfigMap\ndata: {e: \"6\"}\n", 409, "patch configmaps/deeds"},
		// CBOR is behind a gate of the API server's, which says so itself.
		{http.MethodPatch, one + "?fieldManager=me", inApplyCBOR, "\xd9\xd9\xf7\xa0", 415, "patch configmaps/deeds"},
		{http.MethodPut, one, inAnyJSON, strings.Replace(aConfigMap, `"1"`, `"7"`, 1), 200, "update configmaps/deeds"},
		{http.MethodPatch, ofDeployments + "/mail-archive/scale", inMerge, `{"spec":{"replicas":3}}`, 200, "patch deployments/scale/mail-archive"},
		{http.MethodPatch, ofDeployments + "/mail-archive/status", inMerge, `{"status":{"observedGeneration":1}}`, 200, "patch deployments/status/mail-archive"},
		{http.MethodDelete, one, inAnyJSON, `{"apiVersion":"v1","kind":"DeleteOptions","dryRun":["All"]}`, 200, "delete configmaps/deeds"},
		{http.MethodDelete, one, inAnyJSON, `{"apiVersion":"v1","kind":"DeleteOptions"}`, 200, "delete configmaps/deeds"},
		{http.MethodDelete, one, inAnyJSON, "", 404, "delete configmaps/deeds"},
		{http.MethodPost, ofConfigMaps, inAnyJSON, aConfigMap, 201, "create configmaps/"},
		{http.MethodDelete, ofConfigMaps + "?labelSelector=deeds%3Dyes", inAnyJSON, "", 200, "deletecollection configmaps/"},
		{http.MethodPost, "/api/v1/namespaces/" + tenant + "/pods", inAnyJSON, "{}", 403, "create pods/"},
	}
}

func TestEveryWayToChangeSomethingGoesThroughAndIsOnRecordWithItsOutcome(t *testing.T) {
	s := newScene(t)
	g := s.grants(t, "case-changes", gen.WithRoles(gen.Configuration, maintenance))
	before := len(s.entries(t))
	for _, d := range deeds() {
		response := g.asks(t, d.method, d.target, http.Header{"Content-Type": {d.kind}}, strings.NewReader(d.body))
		body, _ := io.ReadAll(response.Body)
		if response.StatusCode != d.want {
			t.Errorf("%s %s in %s: %s, want %d: %.300s", d.method, d.target, d.kind, response.Status, d.want, body)
		}
	}
	deployment := &appsv1.Deployment{}
	if err := s.Admin.Get(t.Context(), client.ObjectKey{Namespace: tenant, Name: "mail-archive"}, deployment); err != nil || *deployment.Spec.Replicas != 3 {
		t.Errorf("the Deployment was not scaled: %v, %v", deployment.Spec.Replicas, err)
	}
	world.Eventually(t, "every deed is on record, in its order, with its outcome", func() error {
		return s.areOnRecord(t, before)
	})
}

// areOnRecord compares the ends of requests on record, since a number of entries, with the deeds.
func (s *scene) areOnRecord(t *testing.T, since int) error {
	var got, want []string
	for _, entry := range s.entries(t)[since:] {
		ref, _ := entry["objectRef"].(map[string]any)
		status, _ := entry["responseStatus"].(map[string]any)
		// The end of a list that was made before may be written down later.
		if ref == nil || status == nil || entry["stage"] == "ResponseStarted" || entry["verb"] == "list" {
			continue
		}
		name := fmt.Sprint(ref["resource"]) + "/"
		for _, part := range []string{"subresource", "name"} {
			if said, ok := ref[part].(string); ok {
				name += said + map[string]string{"subresource": "/"}[part]
			}
		}
		got = append(got, fmt.Sprintf("%s %s %v", entry["verb"], name, status["code"]))
	}
	for _, d := range deeds() {
		want = append(want, fmt.Sprintf("%s %d", d.record, d.want))
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		return fmt.Errorf("on record is\n%s\nwant\n%s", g, w)
	}
	return nil
}

func TestABodyIsAsLongAsTheAPIServerTakesOneAndNoLonger(t *testing.T) {
	s := newScene(t)
	g := s.grants(t, "case-large", gen.WithRoles(gen.Configuration, maintenance))
	const limit = 3 << 20
	for length, want := range map[int]int{limit: http.StatusCreated, limit + 1: http.StatusRequestEntityTooLarge} {
		body := append([]byte(aConfigMap), bytes.Repeat([]byte(" "), length-len(aConfigMap))...)
		response := g.asks(t, http.MethodPost, ofConfigMaps+"?dryRun=All", http.Header{"Content-Type": {inAnyJSON}}, bytes.NewReader(body))
		if response.StatusCode != want {
			t.Errorf("a body of %d bytes: %s, want %d", length, response.Status, want)
		}
	}
}

func TestKubectlDebugAddsAContainerWhereARoleAllowsItAndNowhereElse(t *testing.T) {
	s := newScene(t)
	debug := []string{"debug", s.pod, "--image=busybox", "--container=look", "--attach=false"}
	without := s.grants(t, "case-look", gen.WithRoles(gen.Configuration, gen.Content))
	if out, err := without.kubectl(t, debug...); err == nil || !strings.Contains(err.Error(), "none of its roles") {
		t.Errorf("without a role that allows it: %q, %v", out, err)
	}
	with := s.grants(t, "case-debug", gen.WithRoles(gen.Configuration, maintenance))
	if out, err := with.kubectl(t, debug...); err != nil {
		t.Errorf("with a role that allows it: %q, %v", out, err)
	}
	pod := &corev1.Pod{}
	if err := s.Admin.Get(t.Context(), client.ObjectKey{Namespace: tenant, Name: s.pod}, pod); err != nil || len(pod.Spec.EphemeralContainers) != 1 {
		t.Errorf("the pod has %d containers for looking, %v", len(pod.Spec.EphemeralContainers), err)
	}
}
