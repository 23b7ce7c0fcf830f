package operator

import (
	"context"
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

const signingSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// handing returns how batches are handed over to a server, and the options that say so.
func handing(t *testing.T, server *post.Receiver) (func(context.Context, string, []byte) error, *WebhookOptions) {
	t.Helper()
	folder := t.TempDir()
	o := &WebhookOptions{destination: destination{URL: server.URL, CA: filepath.Join(folder, "ca.crt")}, Signing: filepath.Join(folder, "signing.key")}
	for path, content := range map[string]string{o.Signing: signingSecret + "\n", o.CA: server.CABundle} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hand, err := o.post(clocktesting.NewFakePassiveClock(time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	return hand, o
}

func TestTheAuditLogIsHandedOverSignedAndByTheSecretThatIsThereNow(t *testing.T) {
	server := post.StartReceiver(t)
	hand, o := handing(t, server)
	const other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	for _, secrets := range []string{signingSecret, signingSecret + " " + other, other} {
		if err := os.WriteFile(o.Signing, []byte(secrets), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := hand(t.Context(), "log/1-2", []byte("[]")); err != nil {
			t.Fatal(err)
		}
		posted := server.Posted()
		last := posted[len(posted)-1]
		for _, secret := range []string{signingSecret, other} {
			if got, want := last.Signed(secret), strings.Contains(secrets, secret); got != want {
				t.Errorf("with %q in the file, signed by %q: %t", secrets, secret, got)
			}
		}
		if last.Header.Get("webhook-id") != "log/1-2" || !strings.HasPrefix(last.Header.Get("content-type"), "application/cloudevents-batch+json") {
			t.Errorf("it came with %v", last.Header)
		}
	}
	if err := os.WriteFile(o.Signing, []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := hand(t.Context(), "log/1-2", []byte("[]")); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("what signs is no secret, and it says %v", err)
	}
}

func TestWhatTheWebhookDoesNotTakeIsAnErrorAndItsTimeIsRespected(t *testing.T) {
	server := post.StartReceiver(t)
	hand, o := handing(t, server)
	server.Answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "90")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	err := hand(t.Context(), "log/1-2", []byte("[]"))
	if later, ok := errors.AsType[*audit.RetryLaterError](err); !ok || later.After != 90*time.Second {
		t.Errorf("429: %v", err)
	}
	for _, status := range []int{http.StatusInternalServerError, http.StatusFound, http.StatusGone, http.StatusBadRequest} {
		server.Answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		if err := hand(t.Context(), "log/1-2", []byte("[]")); err == nil {
			t.Errorf("%d counts as taken", status)
		}
	}
	o.CA = ""
	stranger, err := o.post(clocktesting.NewFakePassiveClock(time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	server.Answer(nil)
	if err := stranger(t.Context(), "log/1-2", []byte("[]")); err == nil {
		t.Error("a server that nobody vouches for is trusted")
	}
}

func TestAWebhookOfTheAuditLogIsHTTPSAndTakesALogThatIsKept(t *testing.T) {
	for url, want := range map[string]string{
		"": "", "https://siem.example/hook": "", "http://siem.example": "no https URL", "https://a:b@siem.example": "names a user", "siem": "no https URL",
	} {
		o := AuditOptions{Store: "audit.db", Address: "0", Webhook: WebhookOptions{destination: destination{URL: url}}}
		if err := o.check(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", url, err)
		}
	}
	lines := AuditOptions{Lines: "-", Address: "0", Webhook: WebhookOptions{destination: destination{URL: "https://siem.example"}}}
	if err := lines.check(); err == nil || !strings.Contains(err.Error(), "--audit-webhook-url: a file of lines is not handed on") {
		t.Errorf("it says %v", err)
	}
}
