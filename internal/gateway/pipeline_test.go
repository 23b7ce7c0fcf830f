package gateway

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/test/gen"
)

const configMaps = "/api/v1/namespaces/" + gen.Namespace + "/configmaps"

func TestWhatTheGrantAllowsReachesTheAPIServerAsTheEngineersIdentityAndNobodyElses(t *testing.T) {
	w := open(t)
	g := w.grant("case-1")
	code, body := w.get(g.token, configMaps+"/imap", func(r *http.Request) {
		r.Header.Set("X-Forwarded-For", "10.0.0.1")
		r.Header.Set("Cookie", "session=1")
		r.Header.Set("Audit-Id", "chosen-by-the-client")
	})
	if code != http.StatusOK || body != configMaps+"/imap" {
		t.Fatalf("got %d %q", code, body)
	}
	forwarded := w.forwarded()
	if len(forwarded) != 1 {
		t.Fatalf("got %d requests at the API server, want 1", len(forwarded))
	}
	header := forwarded[0].Header
	want := access.GatewayUsername(v1alpha1.RecordedGrant{Namespace: g.Namespace, Name: g.Name, UID: g.UID}, gen.Engineer)
	for name, value := range map[string]string{
		"Impersonate-User": want, "Impersonate-Group": v1alpha1.EngineersGroup, "Authorization": "Bearer the-gateways-own",
		"Impersonate-Extra-Supportaccess.dev%2fgrant": gen.Namespace + "/case-1", "Impersonate-Extra-Supportaccess.dev%2fcase": gen.CaseID,
		"Cookie": "", "X-Forwarded-For": "", "Impersonate-Uid": "",
	} {
		if got := valueOf(header, name); got != value {
			t.Errorf("header %s: got %q, want %q", name, got, value)
		}
	}
	id := header.Get("Audit-Id")
	if id == "chosen-by-the-client" || id == "" {
		t.Errorf("the request's id is %q: want one of the gateway's", id)
	}
	for _, entry := range w.log.all() {
		if string(entry.AuditID) != id {
			t.Errorf("the entry of stage %s has id %q, want %q", entry.Stage, entry.AuditID, id)
		}
	}
}

func TestTheIDOfARequestGoesWithTheIdentityWhereAdmissionSeesItAndNowhereElse(t *testing.T) {
	w := open(t)
	g := w.grant("case-1", gen.WithRoles(gen.Configuration, gen.Diagnostics, gen.Content))
	pod := "/api/v1/namespaces/" + gen.Namespace + "/pods/archive"
	for _, asked := range []struct {
		method, path string
		want         bool
	}{
		{http.MethodGet, configMaps + "/imap", false},
		{http.MethodHead, configMaps + "/imap", false},
		{http.MethodGet, configMaps, false},
		{http.MethodGet, configMaps + "?watch=true", false},
		{http.MethodGet, pod + "/log?follow=true", false},
		{http.MethodGet, "/apis", false},
		{http.MethodGet, pod + "/exec?command=ls", true},
		{http.MethodPost, pod + "/exec?command=ls", true},
		{http.MethodPost, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", true},
	} {
		before := len(w.forwarded())
		response, err := w.ask(w.client(), g.token, asked.method, asked.path)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		forwarded := w.forwarded()
		if len(forwarded) != before+1 {
			t.Fatalf("%s %s: %s, and did not reach the API server", asked.method, asked.path, response.Status)
		}
		header := forwarded[before].Header
		id := valueOf(header, "Impersonate-Extra-Supportaccess.dev%2frequest")
		if (id != "") != asked.want || asked.want && id != header.Get("Audit-Id") {
			t.Errorf("%s %s: the identity has request %q, want one: %t", asked.method, asked.path, id, asked.want)
		}
	}
}

// valueOf finds a header whatever the case of its letters.
func valueOf(header http.Header, name string) string {
	for key, values := range header {
		if strings.EqualFold(key, name) {
			return strings.Join(values, "|")
		}
	}
	return ""
}

func TestWhatARequestMayNotSayIsRefusedAndNeverForwarded(t *testing.T) {
	w := open(t)
	g := w.grant("case-1")
	header := func(name string, values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header[name] = values }
	}
	target := func(opaque string) func(*http.Request) {
		return func(r *http.Request) { r.URL.Opaque = opaque }
	}
	for name, mod := range map[string]func(*http.Request){
		"another user":                     header("Impersonate-User", "system:admin"),
		"another user, spelled otherwise":  header("iMpErSoNaTe-UsEr", "system:admin"),
		"another group":                    header("Impersonate-Group", "system:masters"),
		"another UID":                      header("Impersonate-Uid", "1"),
		"an extra":                         header("Impersonate-Extra-Scopes", "all"),
		"a header of impersonation to be":  header("Impersonate-Whatever", "1"),
		"a front proxy's word":             header("X-Remote-User", "system:admin"),
		"a front proxy's group":            header("X-Remote-Group", "system:masters"),
		"a header that is to be dropped":   header("Connection", "Impersonate-User"),
		"one more in a list":               header("Connection", "keep-alive, X-Remote-User"),
		"one more in another header":       header("Connection", "keep-alive", "Authorization"),
		"an underscore in a name":          header("Impersonate_User", "system:admin"),
		"two credentials":                  header("Authorization", "Bearer "+g.token, "Bearer x"),
		"a path with an escaped slash":     target("/api/v1/namespaces/mail-archive%2Fconfigmaps"),
		"a path with a dot segment":        target("/api/v1/namespaces/mail-archive/../other/configmaps"),
		"a path with escaped dot segments": target("/api/v1/namespaces/mail-archive/%2e%2e/other/configmaps"),
		"a path with an empty segment":     target("/api/v1//namespaces/mail-archive/configmaps"),
		"a path with a backslash":          target("/api/v1/namespaces/mail-archive/configmaps%5c"),
		"a path with a semicolon":          target("/api/v1/namespaces/mail-archive/configmaps;x"),
		"a path with a line break":         target("/api/v1/namespaces/mail-archive/configmaps/a%0ab"),
		"a path escaped twice":             target("/api/v1/namespaces/mail-archive/configmaps/%252e"),
		"a query with a semicolon":         target(configMaps + "?a=1;watch=1"),
		"a query with a bad escape":        target(configMaps + "?watch=%zz"),
		"a parameter that is no number":    target(configMaps + "?limit=x&watch=1"),
		"a selector that cannot be read":   target(configMaps + "?labelSelector=%2B"),
		"a method that nobody needs":       func(r *http.Request) { r.Method = "TRACE" },
		"an upgrade to something else":     func(r *http.Request) { r.Header.Set("Connection", "Upgrade"); r.Header.Set("Upgrade", "h2c") },
		"a credential as a subprotocol": func(r *http.Request) {
			r.Header.Set("Connection", "Upgrade")
			r.Header.Set("Upgrade", "websocket")
			r.Header.Set("Sec-Websocket-Protocol", "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.eA")
		},
	} {
		t.Run(name, func(t *testing.T) {
			response, err := w.ask(w.client("http/1.1"), g.token, http.MethodGet, configMaps, mod)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			if response.StatusCode != http.StatusBadRequest {
				body, _ := io.ReadAll(response.Body)
				t.Errorf("got %d %s, want 400", response.StatusCode, body)
			}
		})
	}
	if forwarded := w.forwarded(); len(forwarded) != 0 {
		t.Errorf("forwarded: %v", forwarded[0].URL)
	}
}

func TestOnlyTheCredentialOfAnOpenGrantOpensTheDoor(t *testing.T) {
	w := open(t)
	g := w.grant("case-1")
	other, err := access.NewToken(strings.NewReader(strings.Repeat("x", 64)))
	if err != nil {
		t.Fatal(err)
	}
	hash, _ := access.TokenHash(g.token)
	for name, token := range map[string]string{"none": "", "garbage": "garbage", "another": other, "its hash": hash, "the gateway's own": "the-gateways-own"} {
		if code, body := w.get(token, configMaps); code != http.StatusUnauthorized || strings.Contains(body, "case-1") {
			t.Errorf("%s: got %d %s, want 401 that says nothing", name, code, body)
		}
	}
	if code, _ := w.get(g.token, configMaps); code != http.StatusOK {
		t.Errorf("the credential itself: got %d", code)
	}
}

func TestWhatTheGrantDoesNotAllowIsRefusedWithTheGrantAndTheRule(t *testing.T) {
	w := open(t)
	g := w.grant("case-1", gen.WithRoles(gen.Configuration, gen.Content))
	post := func(r *http.Request) { r.Method = http.MethodPost }
	remove := func(r *http.Request) { r.Method = http.MethodDelete }
	for name, c := range map[string]struct {
		path string
		mod  func(*http.Request)
		want string
	}{
		"another namespace":                {"/api/v1/namespaces/another/configmaps", nil, "namespace another: the grant is for mail-archive"},
		"all namespaces":                   {"/api/v1/configmaps", nil, "list configmaps of all namespaces"},
		"what has no namespace":            {"/api/v1/nodes", nil, "list nodes of all namespaces, or of something that is in none"},
		"a resource that no role names":    {"/api/v1/namespaces/mail-archive/services", nil, "list services: none of its roles"},
		"a verb that no role names":        {configMaps + "/a", remove, "delete configmaps: none of its roles"},
		"another group of the same name":   {"/apis/x.example/v1/namespaces/mail-archive/configmaps", nil, "list configmaps.x.example: none of its roles"},
		"a subresource that no role names": {"/api/v1/namespaces/mail-archive/pods/a/status", nil, "get pods/status: none of its roles"},
		"a list of Secrets":                {"/api/v1/namespaces/mail-archive/secrets", nil, "a rule that never bends: allows list of secrets"},
		"a watch of Secrets":               {"/api/v1/namespaces/mail-archive/secrets?watch=1", nil, "a rule that never bends: allows watch of secrets"},
		"a watch of Secrets by path":       {"/api/v1/watch/namespaces/mail-archive/secrets", nil, "a rule that never bends"},
		"a port forwarded":                 {"/api/v1/namespaces/mail-archive/pods/a/portforward", post, "a rule that never bends: allows create of pods/portforward"},
		"a proxy":                          {"/api/v1/namespaces/mail-archive/pods/a/proxy/x", nil, "a rule that never bends"},
		"a token":                          {"/api/v1/namespaces/mail-archive/serviceaccounts/a/token", post, "a rule that never bends"},
		"another grant":                    {"/apis/supportaccess.dev/v1alpha1/namespaces/mail-archive/supportaccessgrants", nil, "a rule that never bends"},
		"the metrics":                      {"/metrics", nil, "path /metrics is beside the API's resources"},
		"a profile":                        {"/debug/pprof/heap", nil, "is beside the API's resources"},
		"a write to discovery":             {"/version", post, "POST of /version"},
		"files out of a pod":               {"/api/v1/namespaces/mail-archive/pods/a/exec?command=tar&command=cf&command=-", post, "exec of tar"},
		"files out of a pod, wrapped":      {"/api/v1/namespaces/mail-archive/pods/a/exec?command=sh&command=-c&command=/bin/tar+cf+-", post, "exec of tar"},
	} {
		t.Run(name, func(t *testing.T) {
			mod := c.mod
			if mod == nil {
				mod = func(*http.Request) {}
			}
			code, body := w.get(g.token, c.path, mod)
			status := metav1.Status{}
			if err := json.Unmarshal([]byte(body), &status); err != nil {
				t.Fatalf("got %d %q, not a Status: %v", code, body, err)
			}
			if code != http.StatusForbidden || status.Code != http.StatusForbidden || status.Reason != metav1.StatusReasonForbidden {
				t.Errorf("got %d %+v, want 403 Forbidden", code, status)
			}
			if !strings.Contains(status.Message, "grant mail-archive/case-1 does not allow this: ") || !strings.Contains(status.Message, c.want) {
				t.Errorf("got %q, want it to name the grant and say %q", status.Message, c.want)
			}
		})
	}
	if n := len(w.forwarded()); n != 0 {
		t.Errorf("%d of them were forwarded", n)
	}
	if code, body := w.get(g.token, "/api/v1/namespaces/mail-archive/secrets/imap"); code != http.StatusOK {
		t.Errorf("a Secret by name, which the role allows: got %d %s", code, body)
	}
}

func TestDiscoveryAndQuestionsAboutOneselfAreLetThrough(t *testing.T) {
	w := open(t)
	g := w.grant("case-1")
	for _, path := range []string{"/api", "/apis", "/api/v1", "/apis/apps/v1", "/openapi/v2", "/openapi/v3", "/openapi/v3/api/v1", "/version"} {
		if code, body := w.get(g.token, path); code != http.StatusOK {
			t.Errorf("%s: got %d %s", path, code, body)
		}
	}
	for _, path := range []string{"/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "/apis/authentication.k8s.io/v1/selfsubjectreviews"} {
		if code, body := w.get(g.token, path, func(r *http.Request) { r.Method = http.MethodPost }); code >= http.StatusBadRequest {
			t.Errorf("%s: got %d %s", path, code, body)
		}
	}
}

func TestAPolicysNeverAllowIsHeldAgainstEachRequest(t *testing.T) {
	w := open(t)
	g := w.grant("case-1")
	named := configMaps + "/hidden"
	if code, _ := w.get(g.token, named); code != http.StatusOK {
		t.Fatalf("before: got %d", code)
	}
	// What a policy forbids a role to say at all would end the grant: so the rule names one object, and the role another.
	change(w, gen.ClusterRole(gen.Configuration), func(role *rbacv1.ClusterRole) {
		role.Rules = []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{"shown"}}}
	})
	w.look("case-1")
	if code, body := w.get(g.token, named); code != http.StatusForbidden {
		t.Errorf("after the role was narrowed: got %d %s", code, body)
	}
	if code, body := w.get(g.token, configMaps); code != http.StatusForbidden {
		t.Errorf("a list by a role for one name: got %d %s", code, body)
	}
	if code, body := w.get(g.token, configMaps+"/shown"); code != http.StatusOK {
		t.Errorf("what the role still allows: got %d %s", code, body)
	}
}

func TestEveryEndShutsTheDoorAndItStaysShut(t *testing.T) {
	decision := func(w *world, mods ...func(*v1alpha1.SupportAccessDecision)) {
		d := gen.Decision("d", gen.Namespace, mods...)
		d.CreationTimestamp = metav1.NewTime(w.clock.Now())
		if err := w.objects.Create(w.t.Context(), d); err != nil {
			w.t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		end  func(*world)
		want string
	}{
		"it is deleted":                        {func(w *world) { w.revoke("case-1") }, "is not open: Deleted"},
		"it is revoked, the controller asleep": {func(w *world) { decision(w, gen.RevokingNamespace()) }, "is not open: Revoked: revoked by decision"},
		"its time is over":                     {func(w *world) { w.hears(48 * time.Hour); w.clock.Step(24 * time.Hour) }, "is not open: Expired"},
		"it is shortened":                      {func(w *world) { decision(w, gen.Shortening("case-1", w.clock.Now())) }, "is not open: Expired"},
		"its engineer is taken off":            {func(w *world) { decision(w, gen.RevokingEngineer("case-1", gen.Engineer)) }, "was taken off"},
		"its record says so": {func(w *world) {
			change(w, gen.Record(gen.Grant("case-1", gen.Namespace)), func(r *v1alpha1.SupportAccessRecord) {
				gen.WithRecordEnd(w.clock.Now(), v1alpha1.EndBindingsWithdrawn, "unknown")(r)
			})
		}, "is not open: BindingsWithdrawn"},
	} {
		t.Run(name, func(t *testing.T) {
			w := open(t)
			g := w.grant("case-1", gen.WithEngineers(gen.Engineer, "ben@vendor.example"))
			if code, body := w.get(g.token, configMaps); code != http.StatusOK {
				t.Fatalf("before: got %d %s", code, body)
			}
			before := len(w.forwarded())
			c.end(w)
			w.look("case-1")
			if code, body := w.get(g.token, configMaps); code != http.StatusForbidden || !strings.Contains(body, c.want) {
				t.Errorf("got %d %s, want 403 that says %q", code, body, c.want)
			}
			if len(w.forwarded()) != before {
				t.Error("it was forwarded")
			}
		})
	}
}

func TestAnEndOnceSeenIsNeverForgotten(t *testing.T) {
	w := open(t)
	g := w.grant("case-1")
	stored := g.DeepCopy()
	w.revoke("case-1")
	// A cache that goes back in time shows the grant as it was.
	key := &v1alpha1.SupportAccessGrant{}
	key.Namespace, key.Name = stored.Namespace, stored.Name
	change(w, key, func(found *v1alpha1.SupportAccessGrant) { found.Finalizers = nil })
	stored.ResourceVersion = ""
	if err := w.objects.Create(t.Context(), stored); err != nil {
		t.Fatal(err)
	}
	w.look("case-1")
	if code, body := w.get(g.token, configMaps); code == http.StatusOK {
		t.Errorf("the grant came back to life: %s", body)
	}
}

func TestWhatIsNotOnRecordIsNotDone(t *testing.T) {
	w := open(t)
	g := w.grant("case-1")
	w.log.fail()
	code, body := w.get(g.token, configMaps)
	if code != http.StatusServiceUnavailable || !strings.Contains(body, "could not be put on record") {
		t.Errorf("got %d %s, want 503", code, body)
	}
	if n := len(w.forwarded()); n != 0 {
		t.Errorf("%d requests reached the API server off the record", n)
	}
}

func TestNothingReachesTheAPIServerBeforeItIsOnRecord(t *testing.T) {
	w := open(t)
	g := w.grant("case-1")
	w.log.hold = make(chan struct{})
	done := make(chan int, 1)
	go func() {
		code, _ := w.get(g.token, configMaps)
		done <- code
	}()
	eventually(t, "the request waits for the record", func() bool { return w.log.waiting() > 0 })
	if n := len(w.forwarded()); n != 0 {
		t.Errorf("%d requests reached the API server first", n)
	}
	close(w.log.hold)
	if code := <-done; code != http.StatusOK {
		t.Errorf("got %d once it was on record", code)
	}
}

func TestTheEndOfAChangeIsOnRecordBeforeItsClientHearsOfItAndThatOfAReadBeforeTheGatewayStops(t *testing.T) {
	w := open(t)
	g := w.grant("case-1")
	hold := make(chan struct{})
	w.answers(func(http.ResponseWriter, *http.Request) {
		w.log.mu.Lock()
		defer w.log.mu.Unlock()
		w.log.hold = hold
	})
	if code, _ := w.get(g.token, configMaps+"/imap"); code != http.StatusOK {
		t.Fatalf("a read is answered %d while the log takes nothing", code)
	}
	eventually(t, "the end of the read waits for the log", func() bool { return w.log.waiting() == 1 })
	w.log.mu.Lock()
	w.log.hold = nil
	w.log.mu.Unlock()
	done := make(chan int, 1)
	go func() {
		response, err := w.ask(w.client(), g.token, http.MethodPost, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
		if err != nil {
			t.Error(err)
			done <- 0
			return
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		done <- response.StatusCode
	}()
	eventually(t, "the end of the change waits for the log", func() bool { return w.log.waiting() == 2 })
	select {
	case code := <-done:
		t.Fatalf("a change is answered %d before its end is on record", code)
	case <-time.After(50 * time.Millisecond):
	}
	flushed := make(chan struct{})
	go func() {
		w.gateway.journal.flush()
		close(flushed)
	}()
	select {
	case <-flushed:
		t.Error("the gateway stops before the end of the read is on record")
	case <-time.After(20 * time.Millisecond):
	}
	close(hold)
	if code := <-done; code != http.StatusOK {
		t.Errorf("a change is answered %d", code)
	}
	<-flushed
	if got, want := len(w.log.all()), 4; got != want {
		t.Errorf("%d entries, want %d: %s", got, want, w.log.trail())
	}
}

func TestARequestAndItsEndAreOnRecordWithWhoWhatAndHow(t *testing.T) {
	w := open(t)
	g := w.grant("case-1")
	w.get(g.token, configMaps+"/imap?fieldManager=x")
	eventually(t, "the end is on record", func() bool { return len(w.log.all()) == 2 })
	w.get(g.token, "/api/v1/namespaces/another/configmaps")
	eventually(t, "three entries", func() bool { return len(w.log.all()) == 3 })
	if got, want := w.log.trail(), "RequestReceived get, ResponseComplete get 200, ResponseComplete list 403"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, entry := range w.log.all() {
		raw, err := json.Marshal(entry)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{`"case-1"`, `"` + gen.Engineer + `"`, `"` + gen.CaseID + `"`, `"Support"`} {
			if !strings.Contains(string(raw), want) {
				t.Errorf("the entry %s does not say %s", raw, want)
			}
		}
		if strings.Contains(string(raw), g.token[len(access.TokenPrefix):]) {
			t.Errorf("the entry shows the credential: %s", raw)
		}
	}
}

func TestAReplicaMakesKnownWhoIsThereBeforeTheFirstRequestGoesOn(t *testing.T) {
	w := open(t)
	g := w.grant("case-1")
	w.answers(func(response http.ResponseWriter, _ *http.Request) {
		list := &v1alpha1.SupportAccessSessionList{}
		if err := w.objects.List(w.t.Context(), list); err != nil || len(list.Items) != 1 {
			http.Error(response, "nobody knows", http.StatusInternalServerError)
			return
		}
		session := list.Items[0]
		if session.Namespace != v1alpha1.SystemNamespace || session.Spec.Grant.UID != g.UID || session.Status.Engineers[0].Name != gen.Engineer {
			http.Error(response, "it says something else", http.StatusInternalServerError)
		}
	})
	if code, body := w.get(g.token, configMaps); code != http.StatusOK {
		t.Errorf("got %d %s", code, body)
	}
}

func TestOneConnectionIsOneEngineersAtATime(t *testing.T) {
	// Over HTTP/1.1 one request has ended before another begins: so an ingress can keep connections for whoever comes next.
	for protocol, second := range map[string]int{"h2": http.StatusBadRequest, "http/1.1": http.StatusOK} {
		t.Run(protocol, func(t *testing.T) {
			w := open(t)
			one, two := w.grant("case-1"), w.grant("case-2")
			c := w.client(protocol)
			for _, step := range []struct {
				token string
				want  int
			}{{one.token, http.StatusOK}, {two.token, second}} {
				response, err := w.ask(c, step.token, http.MethodGet, configMaps)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
				if response.StatusCode != step.want {
					t.Errorf("got %d, want %d", response.StatusCode, step.want)
				}
			}
			if code, body := w.get(two.token, configMaps); code != http.StatusOK {
				t.Errorf("over a connection of its own: got %d %s", code, body)
			}
		})
	}
}

func TestAConnectionThatWasHandedOnIsCutWithItsLastEngineerAndNotWithTheFirst(t *testing.T) {
	w := open(t)
	one, two := w.grant("case-1"), w.grant("case-2")
	c := w.client("http/1.1")
	response, err := w.ask(c, one.token, http.MethodGet, configMaps)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	watching(w)
	_, lines := w.watch(c, two.token)
	if n := w.gateway.connections.count(); n != 1 {
		t.Fatalf("there are %v connections: nothing is shown", n)
	}
	w.revoke("case-1")
	if n := w.gateway.connections.count(); n != 1 {
		t.Error("the connection went with its first engineer")
	}
	w.revoke("case-2")
	if last, err := io.ReadAll(lines); err != nil && len(last) == 0 || !strings.Contains(string(last), "case-2 is not open") {
		t.Errorf("the watch ended with %q, %v", last, err)
	}
}

func TestAGatewayThatHearsNothingOfGrantsLetsNobodyIn(t *testing.T) {
	w := open(t)
	g := w.grant("case-1")
	w.clock.Step(staleAfter + time.Second)
	if code, body := w.get(g.token, configMaps); code != http.StatusServiceUnavailable || !strings.Contains(body, "heard nothing of grants") {
		t.Errorf("got %d %s, want 503", code, body)
	}
	w.hearing.hear("/apis/supportaccess.dev/v1alpha1/supportaccessgrants")
	if code, body := w.get(g.token, configMaps); code != http.StatusOK {
		t.Errorf("after it heard: got %d %s", code, body)
	}
}

func TestAnAPIServerThatSendsAClientElsewhereIsNotFollowed(t *testing.T) {
	w := open(t)
	g := w.grant("case-1")
	w.answers(func(response http.ResponseWriter, r *http.Request) {
		http.Redirect(response, r, "https://elsewhere.example/", http.StatusFound)
	})
	code, body := w.get(g.token, configMaps)
	if code != http.StatusBadGateway || strings.Contains(body, "elsewhere") {
		t.Errorf("got %d %s, want 502", code, body)
	}
}

func TestABodyLongerThanTheAPIServerTakesIsRefused(t *testing.T) {
	w := open(t)
	change(w, gen.ClusterRole(gen.Configuration), func(role *rbacv1.ClusterRole) {
		role.Rules = append(role.Rules, gen.Rule("", []string{"configmaps"}, []string{"update"}))
	})
	g := w.grant("case-1")
	w.answers(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	code, body := w.get(g.token, configMaps+"/imap", func(r *http.Request) {
		r.Method, r.Body, r.ContentLength = http.MethodPut, io.NopCloser(strings.NewReader(strings.Repeat("x", maxBody+1))), -1
	})
	if code != http.StatusRequestEntityTooLarge {
		t.Errorf("got %d %s, want 413", code, body)
	}
}

func TestWhatLooksSecretInACommandIsInNoEntryAndSaysWhatItIsEqualTo(t *testing.T) {
	w := open(t)
	g := w.grant("case-1", gen.WithRoles(gen.Configuration, gen.Content))
	for _, command := range []string{"command=psql&command=--password&command=hunter2", "command=sh&command=-c&command=" + url.QueryEscape("PGPASSWORD=hunter2 psql")} {
		w.get(g.token, "/api/v1/namespaces/mail-archive/pods/a/exec?"+command)
	}
	masked := regexp.MustCompile(`masked:[0-9a-f]+:[\w-]+`)
	seen := map[string]int{}
	eventually(t, "both are on record", func() bool { return len(w.log.all()) >= 2 })
	for _, entry := range w.log.all() {
		line, err := json.Marshal(entry)
		if err != nil || bytes.Contains(line, []byte("hunter2")) || len(entry.Command) == 0 {
			t.Errorf("%s, %v", line, err)
		}
		for _, secret := range masked.FindAllString(strings.Join(entry.Command, " "), -1) {
			seen[secret]++
		}
	}
	if len(seen) != 1 {
		t.Errorf("one secret is masked as %v", seen)
	}
}

func TestAnEntryIsBoundedAndSaysWhatWasCut(t *testing.T) {
	w := open(t)
	g := w.grant("case-1", gen.WithRoles(gen.Configuration, gen.Content))
	long := strings.Repeat("x", maxCommand+100)
	w.get(g.token, configMaps+"?labelSelector="+url.QueryEscape("app in ("+strings.Repeat("value,", maxURI/5)+"last)")+"&a=hidden", func(r *http.Request) { r.Header.Set("User-Agent", long) })
	w.get(g.token, "/api/v1/namespaces/mail-archive/pods/a/exec?command=sh&command="+long+"&command=more")
	eventually(t, "five entries", func() bool { return len(w.log.all()) == 5 })
	for _, entry := range w.log.all() {
		if len(entry.RequestURI) > maxURI || len(entry.UserAgent) > maxAgent {
			t.Errorf("the target has %d bytes, the agent %d", len(entry.RequestURI), len(entry.UserAgent))
		}
		if !strings.HasSuffix(entry.RequestURI, cutMark) {
			t.Errorf("%q does not say that it was cut", entry.RequestURI)
		}
		if strings.Contains(entry.RequestURI, "hidden") {
			t.Errorf("the value of a parameter that may be anything is kept: %s", entry.RequestURI)
		}
		if entry.Annotations["supportaccess.dev/source"] != "Support" {
			t.Errorf("the annotations are %v", entry.Annotations)
		}
		if n := len(entry.Command); n > 0 && (n != 2 || !strings.HasSuffix(entry.Command[1], cutMark)) {
			t.Errorf("the command has %d words", n)
		}
	}
}
