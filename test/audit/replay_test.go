package audit

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/sqlite"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// runsPod makes a pod in a namespace, and waits until it runs.
func (s *scene) runsPod(t *testing.T, namespace string) string {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "imap-0"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "imap", Image: "imap.example/imap"}}},
	}
	s.make(t, pod)
	world.Eventually(t, "the pod runs", func() error {
		if err := s.Admin.Get(t.Context(), client.ObjectKeyFromObject(pod), pod); err != nil {
			return err
		}
		if pod.Status.Phase != corev1.PodRunning {
			return fmt.Errorf("it is %s", pod.Status.Phase)
		}
		return nil
	})
	return pod.Name
}

// run is one command in a pod, and what the engineer got of it.
type run struct {
	spdy, tty   bool
	command     string
	types       string
	out, errors bytes.Buffer
}

// size is how large a terminal is, said once.
type size struct{ told bool }

// Next says it.
func (s *size) Next() *remotecommand.TerminalSize {
	if s.told {
		return nil
	}
	s.told = true
	return &remotecommand.TerminalSize{Width: 132, Height: 43}
}

// execs has the engineer run a command in a pod, as kubectl does.
func (e *engineer) execs(t *testing.T, pod string, r *run) error {
	t.Helper()
	clients, err := kubernetes.NewForConfig(e.config)
	if err != nil {
		t.Fatal(err)
	}
	options := &corev1.PodExecOptions{Command: []string{"sh", "-c", r.command}, Stdin: r.types != "", Stdout: true, Stderr: !r.tty, TTY: r.tty}
	at := clients.CoreV1().RESTClient().Post().Namespace(e.grant.Namespace).Resource("pods").Name(pod).SubResource("exec").VersionedParams(options, scheme.ParameterCodec).URL()
	executor, err := remotecommand.NewWebSocketExecutor(e.config, http.MethodGet, at.String())
	if r.spdy {
		executor, err = remotecommand.NewSPDYExecutor(e.config, http.MethodPost, at)
	}
	if err != nil {
		t.Fatal(err)
	}
	streams := remotecommand.StreamOptions{Stdout: &r.out, Tty: r.tty}
	if r.types != "" {
		// Somebody at a keyboard types, and does not go away.
		keyboard, keys := io.Pipe()
		defer func() { _ = keys.Close() }()
		go func() { _, _ = io.WriteString(keys, r.types) }()
		streams.Stdin = keyboard
	}
	if r.tty {
		streams.TerminalSizeQueue = &size{}
	} else {
		streams.Stderr = &r.errors
	}
	ctx, cancel := context.WithTimeout(t.Context(), runTimeout)
	defer cancel()
	return executor.StreamWithContext(ctx, streams)
}

// newest returns the number of the newest request of a resource, once its end is on record.
func (s *scene) newest(t *testing.T, e *engineer, subresource string, after int64) (id string, seq int64) {
	t.Helper()
	world.Eventually(t, "the end of "+subresource+" is on record", func() error {
		store, err := sqlite.OpenReader(t.Context(), s.gateway.AuditLog())
		if err != nil {
			return err
		}
		defer func() { _ = store.Close() }()
		found, err := store.Find(t.Context(), audit.Query{Grant: audit.Grant{UID: string(e.grant.UID)}, Resource: "pods/" + subresource, Above: after, Limit: 1})
		if err != nil || len(found.Lines) == 0 || !bytes.Contains(found.Lines[0].Text, []byte(`"ResponseComplete"`)) {
			return fmt.Errorf("there are %d entries, %w", len(found.Lines), err)
		}
		id, seq = string(regexp.MustCompile(`"auditID":"([^"]+)"`).FindSubmatch(found.Lines[0].Text)[1]), found.Lines[0].Seq
		return nil
	})
	return id, seq
}

func TestWhatAnEngineerSawIsReplayedToTheByte(t *testing.T) {
	s := newScene(t)
	ana := s.comes(t, "case-4720", gen.WithRoles(gen.Configuration, gen.Diagnostics, gen.Content))
	pod := s.runsPod(t, ana.grant.Namespace)
	auditor, tenant, stranger := s.readers(t, ana.grant.Namespace)
	after := int64(0)
	var id string
	for name, r := range map[string]*run{
		"WebSocket":                     {command: "printf 'grüße \\033[1m'; head -c 300000 /dev/urandom; echo oh >&2"},
		"SPDY":                          {command: "printf 'grüße \\033[1m'; head -c 300000 /dev/urandom; echo oh >&2", spdy: true},
		"WebSocket, a terminal":         {command: "read line; stty -echo; read hidden; echo got $line", types: "typed\ncanary\n", tty: true},
		"SPDY, a terminal":              {command: "read line; stty -echo; read hidden; echo got $line", types: "typed\ncanary\n", tty: true, spdy: true},
		"a command that fails":          {command: "echo before; exit 3"},
		"SPDY, a command that fails":    {command: "echo before; exit 3", spdy: true},
		"WebSocket, 12 MB in one go":    {command: "yes 'a line of some length' | head -c 12000000"},
		"SPDY, 12 MB in one go":         {command: "yes 'a line of some length' | head -c 12000000", spdy: true},
		"what is typed is seen by none": {command: "read line; echo done", types: "canary\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := ana.execs(t, pod, r); (err != nil) != strings.Contains(r.command, "exit 3") {
				t.Fatalf("the command ended with %v", err)
			}
			if r.out.Len() == 0 {
				t.Fatal("the command printed nothing")
			}
			id, after = s.newest(t, ana, "exec", after)
			replayed := s.runs(t, s.ControlPlane.AdminConfig(), append([]string{"replay", id, "-n", ana.grant.Namespace, "--raw"}, s.as(t, tenant)...)...)
			if replayed.code != 0 || replayed.out != r.out.String() || replayed.err != r.errors.String() {
				t.Errorf("exit code %d: %d bytes of output and %d of errors were replayed, the engineer got %d and %d: %.300s",
					replayed.code, len(replayed.out), len(replayed.err), r.out.Len(), r.errors.Len(), replayed.err)
			}
			file := s.runs(t, s.ControlPlane.AdminConfig(), append([]string{"replay", fmt.Sprint(after), "-A", "-o", "asciicast"}, s.as(t, auditor)...)...)
			head, _, _ := strings.Cut(file.out, "\n")
			if file.code != 0 || !strings.Contains(head, `{"version":2,"width":`) || r.tty != strings.Contains(file.out, `"r","132x43"`) || !strings.Contains(head, "exec of pod "+ana.grant.Namespace+"/"+pod) {
				t.Errorf("exit code %d: the asciicast begins with %s%s", file.code, head, file.err)
			}
			if strings.Contains(file.out, `"i",`) || strings.Contains(r.types, "canary") && !r.tty && strings.Contains(file.out, "canary") {
				t.Errorf("the asciicast is %.2000s", file.out)
			}
		})
	}
	s.runs(t, s.ControlPlane.AdminConfig(), append([]string{"replay", id, "-n", ana.grant.Namespace}, s.as(t, stranger)...)...).has(t, 1, "403")
	s.runs(t, s.ControlPlane.AdminConfig(), append([]string{"replay", id, "-n", "default"}, s.as(t, auditor)...)...).has(t, 1, "there is no recording")
	s.reads(t, auditor, "-A", "--type", "Read", "-o", "json", "--limit", "3").has(t, 0, "/v1/recordings/"+id)
	if r := s.reads(t, auditor, "-n", ana.grant.Namespace, "-o", "json", "--limit", "0"); r.code != 0 || strings.Contains(r.out, `"frames"`) {
		t.Errorf("the trail has pieces of recordings: exit code %d, %d bytes, %s", r.code, len(r.out), r.err)
	}
	s.isIntactUnlessARecordingIsTouched(t)
}

// isIntactUnlessARecordingIsTouched verifies the log as it is, and with one byte of a recording changed.
func (s *scene) isIntactUnlessARecordingIsTouched(t *testing.T) {
	t.Helper()
	path := s.exported(t)
	admin := s.ControlPlane.AdminConfig()
	s.runs(t, admin, "audit", "verify", path).has(t, 0, "Intact")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(text, []byte(`"frames":"`))
	if at < 0 {
		t.Fatal("the export has no recording")
	}
	text[at+40] ^= 1
	touched := filepath.Join(s.Dir, "touched.jsonl")
	if err := os.WriteFile(touched, text, 0o600); err != nil {
		t.Fatal(err)
	}
	line := text[bytes.LastIndexByte(text[:at], '\n')+1 : at]
	seq := regexp.MustCompile(`"seq":([0-9]+)`).FindSubmatch(line)[1]
	s.runs(t, admin, "audit", "verify", touched).has(t, 4, "entry "+string(seq)+" is not as it was written")
}

func TestWhatAnEngineerSawOfALogIsReplayed(t *testing.T) {
	s := newScene(t)
	ana := s.comes(t, "case-4721")
	pod := s.runsPod(t, ana.grant.Namespace)
	_, tenant, _ := s.readers(t, ana.grant.Namespace)
	if err := s.ControlPlane.AppendPodLog("what the pod says"); err != nil {
		t.Fatal(err)
	}
	clients, err := kubernetes.NewForConfig(ana.config)
	if err != nil {
		t.Fatal(err)
	}
	var seen []byte
	world.Eventually(t, "the engineer sees the log", func() error {
		body, err := clients.CoreV1().Pods(ana.grant.Namespace).GetLogs(pod, &corev1.PodLogOptions{}).Stream(t.Context())
		if err != nil {
			return err
		}
		seen, err = io.ReadAll(body)
		if err == nil && !bytes.Contains(seen, []byte("what the pod says")) {
			err = fmt.Errorf("it says %q", seen)
		}
		return err
	})
	id, _ := s.newest(t, ana, "log", 0)
	r := s.runs(t, s.ControlPlane.AdminConfig(), append([]string{"replay", id, "-n", ana.grant.Namespace, "--raw"}, s.as(t, tenant)...)...)
	if r.code != 0 || r.out != string(seen) {
		t.Errorf("exit code %d: %q was replayed, the engineer saw %q: %s", r.code, r.out, seen, r.err)
	}
}
