package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	clocktesting "k8s.io/utils/clock/testing"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/cast"
)

// saw puts down what went over a stream, and that it ended.
func (s *served) saw(t *testing.T, id string, frames ...cast.Frame) {
	t.Helper()
	packs, err := cast.Pack(frames)
	if err != nil {
		t.Fatal(err)
	}
	e := &audit.Entry{
		Type: audit.TypeRecording, Recording: &audit.Recording{Piece: 1, Frames: packs[0]}, Labels: map[string]string{audit.LabelSource: audit.Source},
		Event: auditv1.Event{
			AuditID: types.UID(id), Verb: "get", Stage: auditv1.StageResponseStarted, RequestReceivedTimestamp: metav1.NewMicroTime(evening), StageTimestamp: metav1.NewMicroTime(evening),
			ObjectRef: &auditv1.ObjectReference{Resource: "pods", Subresource: "exec", Namespace: "mail", Name: "imap-0"},
		},
		Engineer: "ana@vendor.example", Grant: audit.Grant{Namespace: "mail", Name: "case-1"},
	}
	if err := s.log.Append(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	e.Type, e.Stage, e.Recording = audit.TypeRequest, auditv1.StageResponseComplete, &audit.Recording{Pieces: 1, Bytes: 1}
	if err := s.log.Append(t.Context(), e); err != nil {
		t.Fatal(err)
	}
}

// replays runs the plugin.
func (s *served) replays(t *testing.T, args ...string) (int, string, string) {
	t.Helper()
	var out, diagnostics bytes.Buffer
	desk := &Desk{Streams: genericiooptions.IOStreams{Out: &out, ErrOut: &diagnostics}, Clock: clocktesting.NewFakePassiveClock(evening)}
	code := desk.Run(t.Context(), append(append([]string{"replay", "-n", "mail"}, args...), s.flags...))
	return code, out.String(), diagnostics.String()
}

func TestWhatAPodPrintsSteersNoTerminalUnlessAskedFor(t *testing.T) {
	s := serveLog(t)
	steering := "\x1b]0;title\x07red\x1b[31m\r\nn\u202eext\u009b1m\n"
	s.saw(t, "one", cast.Frame{Kind: cast.Output, Data: []byte(steering)}, cast.Frame{Kind: cast.Errors, Data: []byte("o\xffh\n")})
	code, out, diagnostics := s.replays(t, "one", "--speed", "0")
	if code != exitOK || strings.ContainsAny(out+diagnostics, "\x1b\x07\u202e\u009b\r") || strings.Contains(diagnostics, "\xff") || !strings.Contains(out, "␛]0;title␇red␛[31m\nn") {
		t.Errorf("exit code %d: %q, %q", code, out, diagnostics)
	}
	if !strings.Contains(diagnostics, "ana@vendor.example, grant mail/case-1, exec of pod mail/imap-0, begun 2026-12-01T18:00:00Z") {
		t.Errorf("it says %q", diagnostics)
	}
	for _, entry := range []string{"one", "3"} {
		if code, out, diagnostics := s.replays(t, entry, "--raw"); code != exitOK || out != steering || diagnostics != "o\xffh\n" {
			t.Errorf("raw, by %s: exit code %d: %q, %q", entry, code, out, diagnostics)
		}
	}
	if code, out, _ := s.replays(t, "one", "-o", "asciicast"); code != exitOK || !strings.HasPrefix(out, `{"version":2,"width":80,"height":24,"timestamp":`) {
		t.Errorf("as an asciicast: exit code %d: %s", code, out)
	}
}

func TestAReplayTakesAsLongAsItTookButForPausesAndSpeed(t *testing.T) {
	s := serveLog(t)
	s.saw(t, "one", cast.Frame{Kind: cast.Output, Data: []byte("a")}, cast.Frame{At: 400 * time.Millisecond, Kind: cast.Output, Data: []byte("b")}, cast.Frame{At: time.Hour, Kind: cast.Output, Data: []byte("c")})
	began := time.Now()
	code, out, _ := s.replays(t, "one", "--speed", "2", "--idle-limit", "500ms")
	if took := time.Since(began); code != exitOK || out != "abc" || took < 450*time.Millisecond || took > patient {
		t.Errorf("exit code %d: %q after %s, want 450 ms", code, out, took)
	}
}

// patient is how long a replay of half a second may take on a busy machine.
const patient = 20 * time.Second

func TestWhoReplaysIsToldWhatIsMissing(t *testing.T) {
	s := serveLog(t)
	s.puts(t, "1", "configmaps", "settings", 200)
	for title, c := range map[string]struct {
		args []string
		says string
	}{
		"nothing":               {nil, "accepts 1 arg"},
		"no such request":       {[]string{"two"}, "there is no recording"},
		"no such entry":         {[]string{"99"}, "entry 99 is not there"},
		"a request without":     {[]string{"2"}, "there is no recording"},
		"a speed that is none":  {[]string{"1", "--speed", "-1"}, "--speed"},
		"an output that is not": {[]string{"1", "-o", "gif"}, "asciicast or nothing"},
	} {
		if code, out, diagnostics := s.replays(t, c.args...); code != exitFailed || out != "" || !strings.Contains(diagnostics, c.says) {
			t.Errorf("%s: exit code %d: %q, %q, want %q", title, code, out, diagnostics, c.says)
		}
	}
}

func TestAnExportOfTheWholeLogIsPlayedWithoutTheGateway(t *testing.T) {
	s := serveLog(t)
	frames := []cast.Frame{{Kind: cast.Output, Data: bytes.Repeat([]byte("a\xff\x00\r\n"), 40_000)}, {Kind: cast.Errors, Data: []byte("oh\n")}}
	s.saw(t, "one", frames...)
	s.saw(t, "two", cast.Frame{Kind: cast.Output, Data: []byte("another")})
	var whole, found bytes.Buffer
	if err := audit.Export(t.Context(), &whole, s.store); err != nil {
		t.Fatal(err)
	}
	if err := audit.ExportFound(t.Context(), &found, s.store, audit.Query{}); err != nil {
		t.Fatal(err)
	}
	file := func(content []byte) string {
		path := filepath.Join(t.TempDir(), "export.jsonl")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	path := file(whole.Bytes())
	s.flags = nil
	for _, entry := range []string{"one", "2", "3"} {
		if code, out, diagnostics := s.replays(t, entry, "--raw", "--file", path); code != exitOK || out != string(frames[0].Data) || diagnostics != "oh\n" {
			t.Errorf("by %s: exit code %d: %d bytes, %q", entry, code, len(out), diagnostics)
		}
	}
	if code, out, _ := s.replays(t, "two", "-o", "asciicast", "-f", path); code != exitOK || !strings.Contains(out, `"another"`) || strings.Contains(out, "oh") {
		t.Errorf("as an asciicast: exit code %d: %s", code, out)
	}
	for says, c := range map[string]struct{ entry, path string }{
		"there is no such recording": {"three", path}, "entry 99 is not in this export": {"99", path},
		"this is no export of an audit log": {"one", file([]byte("{}\n"))}, "is no export": {"one", file(nil)},
		"no such file": {"one", path + "-no"}, "what filters found has no recordings": {"one", file(found.Bytes())},
		"read the export at byte": {"one", file(append(whole.Bytes()[:200:200], "{\n"...))},
	} {
		if code, _, diagnostics := s.replays(t, c.entry, "--file", c.path); code == exitOK || !strings.Contains(diagnostics, says) {
			t.Errorf("want %q: exit code %d: %s", says, code, diagnostics)
		}
	}
}
