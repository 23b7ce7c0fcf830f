package gateway

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	apirequest "k8s.io/apiserver/pkg/endpoints/request"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/test/gen"
)

const mails = "/apis/archive.example/v1/namespaces/" + gen.Namespace + "/mails"

// flagging is a world in which a policy releases flagged mails and a grant allows them; the API server answers a mail with
// what answer says.
func flagging(t *testing.T) (*world, *granted, *atomic.Value) {
	t.Helper()
	w := open(t)
	change(w, gen.Policy("default"), func(p *v1alpha1.SupportAccessPolicy) {
		gen.ReleasingFlagged("archive.example", "mails")(p)
		// The role does not have the one, and the API server would not store the other.
		p.Spec.FlaggedContent.Resources = append(p.Spec.FlaggedContent.Resources, v1alpha1.FlaggedResource{Group: "archive.example", Resource: "contacts"}, v1alpha1.FlaggedResource{Resource: "secrets"})
	})
	role := gen.ClusterRole(v1alpha1.FlaggedRole,
		gen.Rule("archive.example", []string{"mails", "mails/status", "mailboxes"}, []string{"get", "list", "watch"}),
		gen.Rule("", []string{"secrets"}, []string{"get"}))
	if err := w.objects.Create(t.Context(), role); err != nil {
		t.Fatal(err)
	}
	answer := &atomic.Value{}
	answer.Store(aMail("malware"))
	w.answers(func(response http.ResponseWriter, _ *http.Request) {
		response.Header().Set("Content-Type", "application/json")
		response.Header().Set("Warning", `299 - "of the object"`)
		_, _ = io.WriteString(response, answer.Load().(string))
	})
	return w, w.grant("case-1", gen.AllowingFlagged(gen.Configuration)), answer
}

// aMail is an object with a flag, or with none.
func aMail(flag string) string {
	labels := `"a":"b"`
	if flag != "" {
		labels += fmt.Sprintf(`,"supportaccess.dev/flagged":%q`, flag)
	}
	return fmt.Sprintf(`{"apiVersion":"archive.example/v1","kind":"Mail","metadata":{"name":"m1","namespace":%q,"labels":{%s}},"spec":{"size":12345678901234567,"body":"a canary <b>"}}`,
		gen.Namespace, labels)
}

func TestFlaggedContentIsReleasedByNameAndOnRecordAsContent(t *testing.T) {
	for _, protocol := range []string{"h2", "http/1.1"} {
		t.Run(protocol, func(t *testing.T) {
			w, g, _ := flagging(t)
			response, err := w.ask(w.client(protocol), g.token, http.MethodGet, mails+"/m1", func(r *http.Request) {
				r.Header.Set("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
				r.Header.Set("If-None-Match", "x")
				r.Header.Set("Accept-Encoding", "gzip")
			})
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(response.Body)
			_ = response.Body.Close()
			var got, want any
			if err := json.Unmarshal(body, &got); err != nil || json.Unmarshal([]byte(aMail("malware")), &want) != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("got %s %s, %v", response.Status, body, err)
			}
			if !strings.Contains(string(body), "12345678901234567") || !strings.Contains(string(body), "a canary <b>") {
				t.Errorf("the object is not as it was: %s", body)
			}
			forwarded := w.forwarded()[0]
			if accept := forwarded.Header.Get("Accept"); accept != "application/json" || forwarded.Header.Get("If-None-Match") != "" {
				t.Errorf("the API server was asked for %q: %v", accept, forwarded.Header)
			}
			eventually(t, "the end is on record", func() bool { return strings.Contains(w.log.trail(), "ResponseComplete get 200") })
			for _, entry := range w.log.all() {
				if entry.Section != audit.SectionContent {
					t.Errorf("the entry of stage %s is in section %q", entry.Stage, entry.Section)
				}
			}
			if last := w.log.all()[1]; last.Flagged != audit.FlaggedReleased {
				t.Errorf("the end says %q", last.Flagged)
			}
		})
	}
}

func TestOfAnObjectWithoutTheFlagNothingIsToldNotEvenWhetherThereIsOne(t *testing.T) {
	w, g, answer := flagging(t)
	gone := `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","code":404}`
	first := ""
	for what, found := range map[string]string{
		"no flag": aMail(""), "another flag": aMail("bulk"), "no object": gone, "no labels": strings.Replace(aMail(""), `"labels":{"a":"b"},`, "", 1),
		"another's name":      strings.Replace(aMail("malware"), `"m1"`, `"m2"`, 1),
		"another's namespace": strings.Replace(aMail("malware"), gen.Namespace, "another", 1),
		"another version":     strings.Replace(aMail("malware"), "example/v1", "example/v2", 1),
		"a list":              `{"apiVersion":"archive.example/v1","kind":"MailList","metadata":{},"items":[` + aMail("malware") + `]}`,
		"two objects":         aMail("malware") + aMail(""),
		"two metadata":        strings.Replace(aMail("malware"), `"spec"`, `"metadata":{"name":"m1","namespace":"`+gen.Namespace+`"},"spec"`, 1),
		"other letters":       strings.Replace(aMail("malware"), `"labels"`, `"Labels"`, 1),
		"a flag that is none": strings.Replace(aMail("malware"), `"malware"`, `["malware"]`, 1),
		"no JSON":             "a canary",
		"too long":            strings.Replace(aMail("malware"), "a canary", strings.Repeat("x", maxBody), 1),
	} {
		answer.Store(found)
		code, body := w.get(g.token, mails+"/m1")
		if first == "" {
			first = body
		}
		if code != http.StatusForbidden || strings.Contains(body, "canary") || body != first {
			t.Errorf("%s: got %d %s, want what is said of every other", what, code, body)
		}
	}
	eventually(t, "the ends are on record", func() bool { return strings.Count(w.log.trail(), "ResponseComplete get 403") == 14 })
	for _, entry := range w.log.all() {
		if entry.Section != audit.SectionContent || entry.ResponseStatus != nil && entry.Flagged != audit.FlaggedWithheld {
			t.Errorf("the entry of stage %s says %q of section %q", entry.Stage, entry.Flagged, entry.Section)
		}
	}
}

func TestFlaggedContentIsAskedForInOneWayAlone(t *testing.T) {
	w, g, _ := flagging(t)
	for _, asked := range []string{
		"GET " + mails, "GET " + mails + "?fieldSelector=metadata.name%3Dm1", "GET " + mails + "?watch=1&fieldSelector=metadata.name%3Dm1",
		"GET " + mails + "?labelSelector=supportaccess.dev%2Fflagged%3Dmalware", "GET " + mails + "/m1/status", "GET " + mails + "/m1?resourceVersion=0",
		"GET " + mails + "/m1?resourceVersion=17", "GET " + mails + "/m1?resourceVersionMatch=Exact&resourceVersion=1", "GET " + mails + "/m1?watch=1", "HEAD " + mails + "/m1", "PATCH " + mails + "/m1",
		"DELETE " + mails + "/m1", "GET " + strings.Replace(mails, "namespaces/", "watch/namespaces/", 1) + "/m1", "GET " + strings.Replace(mails, "mails", "mailboxes", 1) + "/m1",
		"GET " + strings.Replace(mails, "mails", "contacts", 1) + "/m1",
		"GET " + strings.Replace(mails, gen.Namespace, "another", 1) + "/m1", "GET /apis/archive.example/v1/mails/m1",
		"GET /api/v1/namespaces/" + gen.Namespace + "/secrets/m1", "GET " + mails + "/m1%2f..%2fm2", "GET " + mails + "/%6d1/", "GET " + mails + "/m1%3fx",
	} {
		method, target, _ := strings.Cut(asked, " ")
		before := len(w.forwarded())
		response, err := w.ask(w.client(), g.token, method, target)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		released := response.StatusCode == http.StatusOK
		if want := asked == "GET "+mails+"/%6d1/"; released != want || !want && len(w.forwarded()) != before {
			t.Errorf("%s: %s %s", asked, response.Status, body)
		}
	}
	response, err := w.ask(w.client("http/1.1"), g.token, http.MethodGet, mails+"/m1", func(r *http.Request) {
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "websocket")
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusForbidden {
		t.Errorf("as a stream: %s", response.Status)
	}
}

func TestWhatIsReleasedFollowsThePolicyTheGrantAndTheRole(t *testing.T) {
	w, g, _ := flagging(t)
	released := func(what string, g *granted, want bool) {
		t.Helper()
		code, body := w.get(g.token, mails+"/m1")
		if (code == http.StatusOK) != want {
			t.Errorf("%s: %d %s", what, code, body)
		}
	}
	released("flagged, allowed, in the policy", g, true)
	// The role alone, as no API server would let it be granted.
	other := w.grant("case-2", gen.WithRoles(gen.Configuration, v1alpha1.FlaggedRole))
	released("a grant that does not say so", other, false)
	change(w, gen.Policy("default"), func(p *v1alpha1.SupportAccessPolicy) {
		p.Spec.NeverAllow = []v1alpha1.Rule{{APIGroups: []string{"archive.example"}, Resources: []string{"mails"}, Verbs: []string{"get"}, ResourceNames: []string{"m1"}}}
	})
	w.look("case-1")
	released("never allowed", g, false)
	change(w, gen.Policy("default"), func(p *v1alpha1.SupportAccessPolicy) { p.Spec.NeverAllow, p.Spec.FlaggedContent = nil, nil })
	w.look("case-1")
	released("no more in the policy", g, false)
}

func TestASelectorThatAsksForNothingReleasesNothing(t *testing.T) {
	for what, selector := range map[string]v1alpha1.FlagSelector{
		"nothing":          {},
		"no such operator": {MatchExpressions: []v1alpha1.FlagRequirement{{Key: v1alpha1.LabelFlagged, Operator: "Resembles"}}},
		"what is missing":  {MatchExpressions: []v1alpha1.FlagRequirement{{Key: v1alpha1.LabelFlagged, Operator: "DoesNotExist"}}},
	} {
		p := gen.Policy("default", gen.ReleasingFlagged("", "configmaps"))
		p.Spec.FlaggedContent.Selector = selector
		if flagsIn(p) != nil {
			t.Errorf("%s: something is released", what)
		}
	}
	exists := gen.Policy("default", gen.ReleasingFlagged("archive.example", "mails"))
	exists.Spec.FlaggedContent.Selector.MatchExpressions[0] = v1alpha1.FlagRequirement{Key: v1alpha1.LabelFlagged, Operator: v1alpha1.FlagExists}
	info := &apirequest.RequestInfo{Name: "m1", Namespace: gen.Namespace, APIGroup: "archive.example", APIVersion: "v1"}
	if _, ok := flagsIn(exists).judge(info, []byte(aMail("bulk"))); !ok {
		t.Error("any value: a flagged object is not released")
	}
}
