package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"supportaccess.dev/operator/hack/controlplane"
)

// playedVariable makes this test binary the program that the tests play.
const playedVariable = "KUBELET_TEST_PROGRAM"

const manifest = `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: played, namespace: play}
spec:
  selector: {matchLabels: {app: played}}
  template:
    metadata: {labels: {app: played}}
    spec:
      serviceAccountName: player
      containers:
      - name: program
        image: example.test/program:1
        args: [serve, --probes=:8081, "--metrics=0.0.0.0:8443", --config=/etc/settings/color, "--name=$(POD_NAME)", --near=/etc/settingsandmore, --price=$$5]
        env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        - {name: GOMEMLIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory}}}
        - {name: PASSWORD, valueFrom: {secretKeyRef: {name: password, key: word}}}
        - {name: MISSING, valueFrom: {secretKeyRef: {name: nowhere, key: word, optional: true}}}
        - {name: PASSWORD_FILE, value: /etc/password}
        ports:
        - {name: probes, containerPort: 8081}
        readinessProbe: {httpGet: {path: /readyz, port: probes}}
        livenessProbe: {httpGet: {path: /healthz, port: 8081}}
        resources: {limits: {memory: 64Mi}}
        securityContext: {readOnlyRootFilesystem: true}
        volumeMounts:
        - {name: settings, mountPath: /etc/settings}
        - {name: password, mountPath: /etc/password, subPath: word}
      volumes:
      - {name: settings, configMap: {name: settings}}
      - {name: password, secret: {secretName: password}}
`

// seen is what the program found; it prints it first.
type seen struct {
	Args     []string
	Env      map[string]string
	Config   string
	Password string
	User     string
}

var cluster *controlplane.ControlPlane

func TestMain(m *testing.M) {
	if os.Getenv(playedVariable) != "" {
		program()
		return
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	cp, err := controlplane.Start(context.Background(), controlplane.Options{Kwok: true, LeaveJobs: []string{"play"}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cluster = cp
	code := m.Run()
	if err := cp.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func TestAPodGetsWhatItsManifestSays(t *testing.T) {
	prepare(t)
	pod := start(t, t.TempDir())
	if err := pod.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := report(t, pod)
	wantArgs := []string{
		"serve", "--probes=" + pod.IP + ":8081", "--metrics=" + pod.IP + ":8443",
		"--config=" + filepath.Join(pod.Dir, "volumes", "settings", "color"), "--name=" + pod.Name, "--near=/etc/settingsandmore", "--price=$5",
	}
	if fmt.Sprint(got.Args) != fmt.Sprint(wantArgs) {
		t.Errorf("args\n%q, want\n%q", got.Args, wantArgs)
	}
	wantEnv := map[string]string{
		"POD_NAME": pod.Name, "POD_NAMESPACE": "play", "POD_IP": pod.IP, "GOMEMLIMIT": "67108864", "PASSWORD": "open sesame",
		"PASSWORD_FILE": filepath.Join(pod.Dir, "volumes", "password", "word"),
	}
	for name, want := range wantEnv {
		if got.Env[name] != want {
			t.Errorf("%s is %q, want %q", name, got.Env[name], want)
		}
	}
	for _, name := range []string{"MISSING", "GOPATH", "GOCACHE"} {
		if value, set := got.Env[name]; set {
			t.Errorf("%s is set to %q", name, value)
		}
	}
	if _, err := os.Stat(got.Env["TMPDIR"]); !os.IsNotExist(err) {
		t.Errorf("a read-only root filesystem has a folder for temporary files: %q", got.Env["TMPDIR"])
	}
	if got.Config != "green" || got.Password != "open sesame" {
		t.Errorf("mounted files say %q and %q", got.Config, got.Password)
	}
	if got.User != "system:serviceaccount:play:player" {
		t.Errorf("the API server takes it for %q", got.User)
	}
}

func TestAPodIsPausedResumedKilledAndStopped(t *testing.T) {
	prepare(t)
	dir := t.TempDir()
	first, second := start(t, dir), start(t, dir)
	if first.IP == second.IP || first.Name == second.Name {
		t.Fatalf("two pods share %q or %q", first.IP, first.Name)
	}
	for _, pod := range []*Pod{first, second} {
		if err := pod.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := first.probe(t.Context()); err == nil {
		t.Error("a paused pod answers")
	}
	if err := first.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := first.probe(t.Context()); err != nil {
		t.Errorf("a resumed pod does not answer: %v", err)
	}
	if err := first.Stop(); err != nil || first.ExitCode() != 0 {
		t.Errorf("stopped: %v, code %d, want the program's own 0", err, first.ExitCode())
	}
	if err := second.Kill(); err != nil || second.ExitCode() != -1 {
		t.Errorf("killed: %v, code %d, want -1", err, second.ExitCode())
	}
}

func TestAProgramThatRefusesItsFlagsIsReportedWithItsWords(t *testing.T) {
	prepare(t)
	broken := strings.Replace(manifest, "serve,", "serve, --no-such-flag,", 1)
	pod, err := Start(t.Context(), cluster, options(t.TempDir(), broken))
	if err != nil {
		t.Fatal(err)
	}
	err = pod.WaitReady(t.Context())
	if err == nil || !strings.Contains(err.Error(), "unknown flag: --no-such-flag") {
		t.Errorf("%v, want the program's words", err)
	}
}

func TestJobsArePlayedToTheirEnd(t *testing.T) {
	client := prepare(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	played := options(t.TempDir(), "")
	go func() { done <- PlayJobs(ctx, cluster, "play", played) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	createJob(t, client, "good", "exit-0")
	createJob(t, client, "bad", "exit-3")
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(time.Minute)
	for {
		good, bad := finished(t, client, "good"), finished(t, client, "bad")
		if good == batchv1.JobComplete && bad == batchv1.JobFailed {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("good is %q, bad is %q", good, bad)
		}
	}
}

func createJob(t *testing.T, client kubernetes.Interface, name, arg string) {
	t.Helper()
	never := int32(0)
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: batchv1.JobSpec{
			BackoffLimit: &never,
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				RestartPolicy:      corev1.RestartPolicyNever,
				ServiceAccountName: "player",
				Containers:         []corev1.Container{{Name: "program", Image: "example.test/program:1", Args: []string{arg}}},
			}},
		},
	}
	if _, err := client.BatchV1().Jobs("play").Create(t.Context(), job, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// finished returns the condition that ended a Job, if one did.
func finished(t *testing.T, client kubernetes.Interface, name string) batchv1.JobConditionType {
	t.Helper()
	job, err := client.BatchV1().Jobs("play").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, condition := range job.Status.Conditions {
		if condition.Status == corev1.ConditionTrue && (condition.Type == batchv1.JobComplete || condition.Type == batchv1.JobFailed) {
			return condition.Type
		}
	}
	return ""
}

// prepare makes the namespace "play" with what the manifest names, once.
func prepare(t *testing.T) kubernetes.Interface {
	t.Helper()
	client, err := kubernetes.NewForConfig(cluster.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Namespaces().Get(t.Context(), "play", metav1.GetOptions{}); err == nil {
		return client
	}
	core, named := client.CoreV1(), func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name} }
	_, err = core.Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: named("play")}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = core.ServiceAccounts("play").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: named("player")}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	settings := &corev1.ConfigMap{ObjectMeta: named("settings"), Data: map[string]string{"color": "green"}}
	if _, err := core.ConfigMaps("play").Create(t.Context(), settings, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	password := &corev1.Secret{ObjectMeta: named("password"), StringData: map[string]string{"word": "open sesame"}}
	if _, err := core.Secrets("play").Create(t.Context(), password, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return client
}

func options(dir, manifest string) Options {
	return Options{
		Manifest: []byte(manifest), Deployment: types.NamespacedName{Namespace: "play", Name: "played"},
		Binary: os.Args[0], Dir: dir, Env: []string{playedVariable + "=1"},
	}
}

func start(t *testing.T, dir string) *Pod {
	t.Helper()
	pod, err := Start(t.Context(), cluster, options(dir, manifest))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pod.Stop(); err != nil {
			t.Error(err)
		}
	})
	return pod
}

func report(t *testing.T, pod *Pod) seen {
	t.Helper()
	var got seen
	if err := json.Unmarshal([]byte(pod.Tail()), &got); err != nil {
		t.Fatalf("decode %s: %v", pod.Tail(), err)
	}
	return got
}

// program is what the tests play: it tells what it sees, serves its probes and ends when asked.
func program() {
	switch {
	case strings.HasPrefix(os.Args[1], "exit-"):
		os.Exit(int(os.Args[1][len("exit-")] - '0'))
	case os.Args[2] == "--no-such-flag":
		fmt.Println("unknown flag: --no-such-flag")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	found := seen{Args: os.Args[1:], Env: map[string]string{}, User: whoami(ctx)}
	for _, assignment := range os.Environ() {
		name, value, _ := strings.Cut(assignment, "=")
		found.Env[name] = value
	}
	found.Config = read(strings.TrimPrefix(os.Args[4], "--config="))
	found.Password = read(os.Getenv("PASSWORD_FILE"))
	content, err := json.Marshal(found)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(content))
	server := &http.Server{
		Addr: strings.TrimPrefix(os.Args[2], "--probes="), ReadHeaderTimeout: time.Second,
		Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
	}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		panic(err)
	}
}

func read(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(content)
}

func whoami(ctx context.Context) string {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return err.Error()
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err.Error()
	}
	review, err := client.AuthenticationV1().SelfSubjectReviews().
		Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return err.Error()
	}
	return review.Status.UserInfo.Username
}
