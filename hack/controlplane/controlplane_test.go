package controlplane

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// shared is the control plane of this package's tests; each works in a namespace of its own.
var shared *ControlPlane

func TestMain(m *testing.M) {
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	logf := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	started := time.Now()
	cp, err := Start(context.Background(), Options{Kwok: true, Log: logf})
	if err != nil {
		logf("%v", err)
		return 1
	}
	logf("control plane ready in %s", time.Since(started).Round(time.Millisecond))
	shared = cp
	code := m.Run()
	stopping := time.Now()
	if err := cp.Stop(); err != nil {
		logf("%v", err)
		return 1
	}
	logf("control plane stopped in %s", time.Since(stopping).Round(time.Millisecond))
	return code
}

func TestKubectlParsesTheServersVersion(t *testing.T) {
	output := kubectl(t, "version", "--output=json")
	var version struct {
		ServerVersion struct{ GitVersion, Minor string }
	}
	if err := json.Unmarshal([]byte(output), &version); err != nil {
		t.Fatalf("decode %s: %v", output, err)
	}
	want := shared.binaries.Version
	if version.ServerVersion.GitVersion != want || version.ServerVersion.Minor != strings.Split(want, ".")[1] {
		t.Errorf("server says %+v, want %s", version.ServerVersion, want)
	}
}

func TestANamespaceThatIsDeletedGoes(t *testing.T) {
	client := clientFor(t, shared.AdminConfig())
	namespace := newNamespace(t)
	if err := client.CoreV1().Namespaces().Delete(t.Context(), namespace, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the namespace is gone", func() error {
		_, err := client.CoreV1().Namespaces().Get(t.Context(), namespace, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("get namespace: %v", err)
	})
}

func TestANamedUserMayDoWhatRBACSaysAndNoMore(t *testing.T) {
	namespace := newNamespace(t)
	user := clientFor(t, shared.UserConfig("tenant-admin@customer.example", "customers"))
	_, err := user.CoreV1().ConfigMaps(namespace).List(t.Context(), metav1.ListOptions{})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `"tenant-admin@customer.example"`) {
		t.Fatalf("without a binding: %v, want a refusal that names the user", err)
	}
	kubectl(t, "create", "rolebinding", "tenant", "--namespace="+namespace, "--clusterrole=view", "--group=customers")
	eventually(t, "the aggregated role view lets the group list ConfigMaps", func() error {
		_, err := user.CoreV1().ConfigMaps(namespace).List(t.Context(), metav1.ListOptions{})
		return err
	})
}

func TestAServiceAccountIsWhoItsTokenSays(t *testing.T) {
	namespace := newNamespace(t)
	kubectl(t, "create", "serviceaccount", "robot", "--namespace="+namespace)
	config, err := shared.ServiceAccountConfig(t.Context(), namespace, "robot")
	if err != nil {
		t.Fatal(err)
	}
	want := "system:serviceaccount:" + namespace + ":robot"
	if output := kubectlAs(t, config, "auth", "whoami"); !strings.Contains(output, want) {
		t.Errorf("whoami says %s, want %s", output, want)
	}
}

func TestATokenOfOurOwnIsTakenUntilItExpires(t *testing.T) {
	namespace := newNamespace(t)
	kubectl(t, "create", "serviceaccount", "robot", "--namespace="+namespace)
	account, err := clientFor(t, shared.AdminConfig()).CoreV1().ServiceAccounts(namespace).Get(t.Context(), "robot", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	whoami := func(expiry time.Time) (string, error) {
		token, err := shared.SignToken(map[string]any{
			"iss": Issuer, "aud": []string{Issuer}, "sub": "system:serviceaccount:" + namespace + ":robot",
			"iat": time.Now().Add(-time.Hour).Unix(), "nbf": time.Now().Add(-time.Hour).Unix(), "exp": expiry.Unix(),
			"kubernetes.io": map[string]any{
				"namespace":      namespace,
				"serviceaccount": map[string]any{"name": "robot", "uid": string(account.UID)},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		config := shared.anonymousConfig()
		config.BearerToken = token
		return runKubectl(t, config, "auth", "whoami")
	}
	if output, err := whoami(time.Now().Add(time.Hour)); err != nil {
		t.Errorf("a token for an hour: %v: %s", err, output)
	}
	if output, err := whoami(time.Now().Add(-2 * time.Minute)); err == nil || !strings.Contains(output, "Unauthorized") {
		t.Errorf("an expired token: %v: %s, want Unauthorized", err, output)
	}
}

func TestAPodRunsPrintsItsLogAndTakesCommands(t *testing.T) {
	namespace := newNamespace(t)
	kubectl(t, "create", "deployment", "mail", "--namespace="+namespace, "--image=mail:1", "--replicas=1")
	kubectl(t, "wait", "--namespace="+namespace, "--for=condition=Available", "deployment/mail", "--timeout=60s")
	in := "--namespace=" + namespace

	if output := kubectl(t, "logs", in, "deployment/mail"); !strings.Contains(output, "the pod has started") {
		t.Errorf("logs: %q", output)
	}
	if output := kubectl(t, "exec", in, "deployment/mail", "--", "echo", "hello from the pod"); output != "hello from the pod\n" {
		t.Errorf("exec: %q", output)
	}
	if output, err := runKubectl(t, shared.AdminConfig(), "exec", in, "deployment/mail", "--", "false"); err == nil {
		t.Errorf("exec of a command that fails succeeds: %q", output)
	}
}

func TestAttachShowsWhatAPodPrintsFromNowOn(t *testing.T) {
	namespace := newNamespace(t)
	kubectl(t, "run", "mail", "--namespace="+namespace, "--image=mail:1")
	kubectl(t, "wait", "--namespace="+namespace, "--for=condition=Ready", "pod/mail", "--timeout=60s")
	path := kubeconfig(t, shared.AdminConfig())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	attach := exec.CommandContext(ctx, shared.Kubectl(), "--kubeconfig="+path, "attach", "--namespace="+namespace, "mail")
	stdout, err := attach.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := attach.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = attach.Wait()
	}()
	read := make(chan string, 1)
	go func() {
		buffer := make([]byte, 1024)
		n, _ := stdout.Read(buffer)
		read <- string(buffer[:n])
	}()
	eventually(t, "the attached kubectl prints a new line", func() error {
		if err := shared.AppendPodLog("a line for those attached"); err != nil {
			return err
		}
		select {
		case line := <-read:
			if !strings.Contains(line, "a line for those attached") {
				t.Fatalf("attach printed %q", line)
			}
			return nil
		default:
			return fmt.Errorf("nothing yet")
		}
	})
}

func TestAPortOfAPodEchoes(t *testing.T) {
	namespace := newNamespace(t)
	kubectl(t, "run", "mail", "--namespace="+namespace, "--image=mail:1")
	kubectl(t, "wait", "--namespace="+namespace, "--for=condition=Ready", "pod/mail", "--timeout=60s")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	forward := exec.CommandContext(ctx, shared.Kubectl(), "--kubeconfig="+kubeconfig(t, shared.AdminConfig()),
		"port-forward", "--namespace="+namespace, "--address=127.0.0.1", "mail", ":1143")
	stdout, err := forward.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := forward.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = forward.Wait()
	}()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("kubectl port-forward said %q: %v", line, err)
	}
	address, _, _ := strings.Cut(strings.TrimPrefix(line, "Forwarding from "), " ")
	connection, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatalf("kubectl port-forward said %q: %v", line, err)
	}
	defer func() { _ = connection.Close() }()
	if err := connection.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := connection.Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	if answer, err := bufio.NewReader(connection).ReadString('\n'); err != nil || answer != "hello\n" {
		t.Errorf("the port answers %q, %v", answer, err)
	}
}

func TestTheAuditLogTellsWhoDidWhat(t *testing.T) {
	namespace := newNamespace(t)
	user := clientFor(t, shared.UserConfig("curious@vendor.example"))
	_, _ = user.CoreV1().Secrets(namespace).Get(t.Context(), "audited", metav1.GetOptions{})
	content, err := os.ReadFile(shared.AuditLogPath())
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(content) {
		var event struct {
			Stage, Level, Verb string
			User               struct{ Username string }
			ObjectRef          struct{ Resource, Namespace, Name string }
			ResponseStatus     struct{ Code int }
		}
		if err := json.Unmarshal(line, &event); err != nil {
			t.Fatalf("decode %s: %v", line, err)
		}
		if event.Stage == "RequestReceived" || event.Level != "Metadata" {
			t.Fatalf("the audit policy lets through %s", line)
		}
		if event.User.Username == "curious@vendor.example" && event.ObjectRef.Namespace == namespace {
			if event.Verb != "get" || event.ObjectRef.Name != "audited" || event.ResponseStatus.Code != 403 {
				t.Errorf("logged as %s", line)
			}
			return
		}
	}
	t.Error("the audit log does not have the request")
}

func TestStopLeavesNoProcessAndNoFile(t *testing.T) {
	cp, err := Start(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	var records []ProcessRecord
	for _, p := range cp.processes {
		records = append(records, ProcessRecord{Name: p.Name, PID: p.PID(), Path: p.Path()})
	}
	if len(records) != 3 {
		t.Fatalf("%d processes, want etcd, kube-apiserver and kube-controller-manager", len(records))
	}
	for _, record := range records {
		if !record.alive() {
			t.Errorf("%s does not run before Stop", record.Name)
		}
	}
	if err := cp.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, record := range records {
		if record.alive() {
			t.Errorf("%s (%d) runs after Stop", record.Name, record.PID)
		}
	}
	if _, err := os.Stat(cp.Dir()); !os.IsNotExist(err) {
		t.Errorf("the folder is still there: %v", err)
	}
}

func TestAServerThatCannotStartSaysWhyAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	_, err := Start(t.Context(), Options{Dir: dir, Detach: true, APIServerArgs: []string{"--no-such-flag"}})
	if err == nil || !strings.Contains(err.Error(), "unknown flag: --no-such-flag") {
		t.Fatalf("%v, want the API server's own words", err)
	}
	running, err := Running(dir)
	if err != nil || running {
		t.Errorf("running: %t, %v", running, err)
	}
}

func TestADetachedControlPlaneRunsUntilDown(t *testing.T) {
	dir := t.TempDir()
	cp, err := Start(t.Context(), Options{Dir: dir, Detach: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cp.Stop() }()
	if running, err := Running(dir); err != nil || !running {
		t.Fatalf("running: %t, %v", running, err)
	}
	if err := Down(t.Context(), dir, t.Logf); err != nil {
		t.Fatal(err)
	}
	for _, p := range cp.processes {
		if !p.Await(stopGrace) {
			t.Errorf("%s runs after Down", p.Name)
		}
	}
}

// newNamespace makes a namespace whose ServiceAccount "default" is there.
func newNamespace(t *testing.T) string {
	t.Helper()
	client := clientFor(t, shared.AdminConfig())
	namespace, err := client.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the ServiceAccount of the namespace is there", func() error {
		_, err := client.CoreV1().ServiceAccounts(namespace.Name).Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
	return namespace.Name
}

func clientFor(t *testing.T, config *rest.Config) kubernetes.Interface {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return kubectlAs(t, shared.AdminConfig(), args...)
}

func kubectlAs(t *testing.T, config *rest.Config, args ...string) string {
	t.Helper()
	output, err := runKubectl(t, config, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, output)
	}
	return output
}

func runKubectl(t *testing.T, config *rest.Config, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	output, err := exec.CommandContext(ctx, shared.Kubectl(), append([]string{"--kubeconfig=" + kubeconfig(t, config)}, args...)...).CombinedOutput()
	return string(output), err
}

func kubeconfig(t *testing.T, config *rest.Config) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := shared.WriteKubeconfig(path, config, "default"); err != nil {
		t.Fatal(err)
	}
	return path
}

func eventually(t *testing.T, what string, condition func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s: %v", what, err)
		}
		if err := pause(t.Context(), 50*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
}
