package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	stdlog "log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/chain"
	"supportaccess.dev/operator/internal/audit/serve"
	"supportaccess.dev/operator/internal/audit/sqlite"
)

// anybody may read: who may is for other tests.
type anybody struct{}

func (anybody) Identify(_ context.Context, token string) (*authenticationv1.UserInfo, error) {
	if token != "good" {
		return nil, nil
	}
	return &authenticationv1.UserInfo{Username: "auditor"}, nil
}

func (anybody) MayRead(context.Context, *authenticationv1.UserInfo, string) (bool, error) {
	return true, nil
}

var evening = time.Date(2026, 12, 1, 18, 0, 0, 0, time.UTC)

// served is a log that is read over the network, and the flags that say how.
type served struct {
	log   *audit.Ledger
	store *sqlite.Store
	flags []string
}

func serveLog(t *testing.T) *served {
	t.Helper()
	folder := t.TempDir()
	store, err := sqlite.Open(t.Context(), filepath.Join(folder, "audit.db"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := chain.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	log, err := audit.OpenLedger(t.Context(), audit.LedgerOptions{Store: store, Origin: "support.example/audit", Key: key, Clock: clocktesting.NewFakePassiveClock(evening)})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(&serve.Handler{Reader: store, Journal: log, Guard: anybody{}, Clock: clock.RealClock{}, Logger: logr.Discard()})
	server.Config.ErrorLog = stdlog.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(func() {
		server.Close()
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	ca, token := filepath.Join(folder, "ca.crt"), filepath.Join(folder, "token")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for path, content := range map[string][]byte{ca: certificate, token: []byte("good\n")} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &served{log: log, store: store, flags: []string{"--audit-server", server.URL, "--audit-ca", ca, "--audit-token-file", token}}
}

// puts puts one request of Ana's down: how it began, and how it ended.
func (s *served) puts(t *testing.T, id, resource, name string, code int32) {
	t.Helper()
	for _, stage := range []auditv1.Stage{auditv1.StageRequestReceived, auditv1.StageResponseComplete} {
		e := &audit.Entry{
			Event: auditv1.Event{
				AuditID: types.UID(id), Verb: "get", Stage: stage, StageTimestamp: metav1.NewMicroTime(evening),
				ObjectRef: &auditv1.ObjectReference{Resource: resource, Namespace: "mail", Name: name},
			},
			Engineer: "ana@vendor.example", Case: "CASE-1", Grant: audit.Grant{Namespace: "mail", Name: "case-1"}, Labels: map[string]string{audit.LabelSource: audit.Source},
		}
		if stage == auditv1.StageResponseComplete {
			e.ResponseStatus = &metav1.Status{Code: code}
		}
		if err := s.log.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
}

// shows runs the plugin.
func (s *served) shows(t *testing.T, args ...string) (int, string, string) {
	t.Helper()
	var out, diagnostics bytes.Buffer
	desk := &Desk{Streams: genericiooptions.IOStreams{Out: &out, ErrOut: &diagnostics}, Clock: clocktesting.NewFakePassiveClock(evening.Add(time.Hour))}
	code := desk.Run(t.Context(), append(append([]string{"audit"}, args...), s.flags...))
	return code, out.String(), diagnostics.String()
}

func TestTheTrailIsATableOfHowThingsEnded(t *testing.T) {
	s := serveLog(t)
	s.puts(t, "1", "configmaps", "settings", 200)
	s.puts(t, "2", "secrets", "root\x1b[31m", 403)
	happened := audit.Happening{What: "Revoked", By: "tess", Time: metav1.NewMicroTime(evening), Message: "case closed"}
	e := audit.Lifecycle(happened, auditv1.ObjectReference{APIGroup: "supportaccess.dev", Resource: "supportaccessgrants", Namespace: "mail", Name: "case-1"}, nil, metav1.NewMicroTime(evening))
	e.Grant, e.Verb = audit.Grant{Namespace: "mail", Name: "case-1"}, "revoked"
	if err := s.log.Append(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	_, out, diagnostics := s.shows(t, "-n", "mail", "--source", "support")
	want := []string{
		"TIME WHO GRANT SECTION DID WHAT OUTCOME",
		"2026-12-01 18:00:00Z ana@vendor.example mail/case-1 Settings get configmaps mail/settings Succeeded",
		"2026-12-01 18:00:00Z ana@vendor.example mail/case-1 Content get secrets mail/root [31m Refused",
		"2026-12-01 18:00:00Z tess mail/case-1 Security policy revoked case-1: case closed Succeeded",
	}
	var got []string
	for row := range strings.Lines(out) {
		got = append(got, strings.Join(strings.Fields(row), " "))
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") || diagnostics != "" {
		t.Errorf("it shows\n%s%s", out, diagnostics)
	}
	_, out, _ = s.shows(t, "-n", "mail", "--section", "content", "--outcome", "REFUSED", "-o", "wide")
	if rows := strings.Count(out, "\n"); rows != 2 || !strings.Contains(out, "CASE-1") || !strings.Contains(out, "403") {
		t.Errorf("of what was refused it shows\n%s", out)
	}
}

func TestTheTrailIsForProgramsToo(t *testing.T) {
	s := serveLog(t)
	for _, id := range []string{"1", "2", "3"} {
		s.puts(t, id, "configmaps", "settings-"+id, 200)
	}
	_, out, diagnostics := s.shows(t, "-n", "mail", "--source", "Support", "-o", "json", "--limit", "4")
	list := struct{ Entries []audit.Entry }{}
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list.Entries) != 4 || list.Entries[0].AuditID != "2" || list.Entries[3].Stage != auditv1.StageResponseComplete {
		t.Errorf("%v: %s", err, out)
	}
	if !strings.Contains(diagnostics, "There are older entries") {
		t.Errorf("it says %q", diagnostics)
	}
	_, out, _ = s.shows(t, "-n", "mail", "--source", "Support", "-o", "name", "--limit", "0")
	if out != "entry/2\nentry/3\nentry/4\nentry/5\nentry/6\nentry/7\n" {
		t.Errorf("the names are\n%s", out)
	}
	if _, out, _ = s.shows(t, "-n", "mail", "-o", "yaml", "--limit", "1", "--source", "Support"); !strings.Contains(out, "entries:\n- ") || !strings.Contains(out, "auditID: \"3\"") {
		t.Errorf("as YAML:\n%s", out)
	}
	if _, out, _ = s.shows(t, "-n", "mail", "--since", "30m", "-o", "name", "--source", "Support"); out != "" {
		t.Errorf("of the last half hour there are\n%s", out)
	}
	if _, out, _ = s.shows(t, "-n", "mail", "--since", "2h", "--until", "2026-12-01T18:01Z", "-o", "name", "--source", "Support", "--limit", "1"); out != "entry/7\n" {
		t.Errorf("of the hour before there are\n%s", out)
	}
}

func TestWhoReadsTheLogIsToldWhatIsMissing(t *testing.T) {
	s := serveLog(t)
	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, []byte("bad"), 0o600); err != nil {
		t.Fatal(err)
	}
	for title, c := range map[string]struct {
		args []string
		says string
	}{
		"another's token":       {[]string{"-A", "--audit-token-file", bad}, "401"},
		"a section that is not": {[]string{"-A", "--section", "Kitchen"}, `--section: "Kitchen" is none of`},
		"a time without a zone": {[]string{"-A", "--since", "2026-12-01T18:00"}, "names no time zone"},
		"days":                  {[]string{"-A", "--since", "3d"}, "write 72h"},
		"an output that is not": {[]string{"-A", "-o", "xml"}, "json, yaml, name or wide"},
		"a limit below zero":    {[]string{"-A", "--limit", "-1"}, "--limit"},
		"no https":              {[]string{"-A", "--audit-server", "http://x"}, "https://"},
		"no certificate":        {[]string{"-A", "--audit-ca", bad}, "no certificate in PEM"},
		"nobody vouches":        {[]string{"-A", "--audit-ca", ""}, "give --audit-ca"},
		"another's name":        {[]string{"-A", "--audit-server-name", "x.example"}, "--audit-server-name"},
		"two tokens":            {[]string{"-A", "--service-account", "a/b"}, "give one of them"},
		"a format that is not":  {[]string{"export", "-A", "--format", "xml"}, "neither jsonl nor csv"},
	} {
		// What is said last holds.
		said := append(slices.Clone(s.flags), c.args...)
		if c.args[0] == "export" {
			said = append(append([]string{"export"}, s.flags...), c.args[1:]...)
		}
		code, out, diagnostics := (&served{}).shows(t, said...)
		if code != exitFailed || out != "" || !strings.Contains(diagnostics, c.says) {
			t.Errorf("%s: exit code %d: %s%s, want %q", title, code, out, diagnostics, c.says)
		}
	}
	for says, args := range map[string][]string{"--audit-server: say where": nil, "as whom to read": {"--audit-server", "https://localhost:1"}} {
		if code, _, diagnostics := (&served{}).shows(t, append([]string{"-A"}, args...)...); code != exitFailed || !strings.Contains(diagnostics, says) {
			t.Errorf("%d: %s, want %q", code, diagnostics, says)
		}
	}
}

func TestHalfAnExportIsNoFile(t *testing.T) {
	s := serveLog(t)
	s.puts(t, "1", "configmaps", "settings", 200)
	folder := t.TempDir()
	whole := filepath.Join(folder, "whole.jsonl")
	if code, _, diagnostics := s.shows(t, "export", "-A", "--file", whole); code != exitOK {
		t.Fatal(diagnostics)
	}
	if code, out, _ := (&served{}).shows(t, "verify", whole); code != exitOK {
		t.Errorf("verifying it: %s", out)
	}
	broken := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("half"))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	defer broken.Close()
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: broken.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(folder, "half.jsonl")
	code, _, diagnostics := (&served{flags: append(s.flags, "--audit-server", broken.URL, "--audit-ca", ca)}).shows(t, "export", "-A", "--file", half)
	if code != exitFailed || !strings.Contains(diagnostics, "this is not all") {
		t.Errorf("exit code %d: %s", code, diagnostics)
	}
	files, err := os.ReadDir(folder)
	if err != nil || len(files) != 1 {
		t.Errorf("there are %v, %v", files, err)
	}
}
