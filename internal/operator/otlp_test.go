package operator

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/test/post"
)

// collecting returns what hands the log over to a server, and the options that say so.
func collecting(t *testing.T, server *post.Receiver) (audit.Receiver, *OTLPOptions) {
	t.Helper()
	folder := t.TempDir()
	o := &OTLPOptions{destination: destination{URL: server.URL + "/v1/logs", CA: filepath.Join(folder, "ca.crt")}, Headers: filepath.Join(folder, "headers")}
	if err := os.WriteFile(o.CA, []byte(server.CABundle), 0o600); err != nil {
		t.Fatal(err)
	}
	writes(t, o.Headers, "authorization: Bearer one\nX-Scope-OrgID: tenant\n")
	receiver, err := o.receiver("log", clocktesting.NewFakePassiveClock(time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	return receiver, o
}

func writes(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

var oneLine = []audit.Line{{Seq: 1, Text: []byte(`{"seq":1,"labels":{}}`)}}

func TestTheAuditLogIsHandedOverWithTheHeadersThatAreThereNow(t *testing.T) {
	server := post.StartReceiver(t)
	receiver, o := collecting(t, server)
	for _, token := range []string{"one", "two"} {
		writes(t, o.Headers, "\nauthorization: Bearer "+token+"\r\nX-Scope-OrgID: tenant\nContent-Type: text/plain")
		if err := receiver.Receive(t.Context(), oneLine); err != nil {
			t.Fatal(err)
		}
		posted := server.Posted()
		header := posted[len(posted)-1].Header
		if header.Get("Authorization") != "Bearer "+token || header.Get("X-Scope-Orgid") != "tenant" || header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("it came with %v", header)
		}
	}
	before := len(server.Posted())
	for _, wrong := range []string{"hunter2", "Authorization Bearer hunter2", "Authorization: Bearer hunter2\x00"} {
		writes(t, o.Headers, wrong)
		if err := receiver.Receive(t.Context(), oneLine); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q says nothing that can be said, and the error is %v", wrong, err)
		}
	}
	if got := len(server.Posted()); got != before {
		t.Errorf("%d are posted with headers that are none", got-before)
	}
}

func TestWhatACollectorDoesNotTakeIsAnErrorAndItsTimeIsRespected(t *testing.T) {
	server := post.StartReceiver(t)
	receiver, _ := collecting(t, server)
	server.Answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "90")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	err := receiver.Receive(t.Context(), oneLine)
	if later, ok := errors.AsType[*audit.RetryLaterError](err); !ok || later.After != 90*time.Second {
		t.Errorf("503: %v", err)
	}
	for _, status := range []int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusFound} {
		server.Answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		if err := receiver.Receive(t.Context(), oneLine); err == nil {
			t.Errorf("%d counts as taken", status)
		}
	}
}

func TestACollectorIsHTTPSWithItsPathAndTakesALogThatIsKept(t *testing.T) {
	for url, want := range map[string]string{
		"": "", "https://otel.example:4318/v1/logs": "", "http://otel.example/v1/logs": "no https URL", "https://a:b@otel.example/v1/logs": "names a user", "https://otel.example:4318": "no path",
	} {
		o := AuditOptions{Store: "audit.db", Address: "0", OTLP: OTLPOptions{destination: destination{URL: url}}}
		if err := o.check(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", url, err)
		}
	}
	lines := AuditOptions{Lines: "-", Address: "0", OTLP: OTLPOptions{destination: destination{URL: "https://otel.example/v1/logs"}}}
	if err := lines.check(); err == nil || !strings.Contains(err.Error(), "--audit-otlp-url: a file of lines is not handed on") {
		t.Errorf("it says %v", err)
	}
}
