package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/world"
)

const (
	// small is a ConfigMap of 1 KiB, and listed is how many a list returns.
	small  = "kib"
	listed = 500
	// carried is how many bytes a shell carries.
	carried = 100 << 20
	// slice is for how long one way is used before it is another's turn, and turns how often each has one.
	slice = time.Second
	turns = 5
)

// way is one by which the same engineer comes to the API server.
type way struct {
	name   string
	config *rest.Config
	http   *http.Client
	base   *url.URL
}

// ways are the gateway, what it is measured against, and what people know: kubectl proxy, which records nothing.
type ways struct{ gateway, direct, proxy *way }

func (w ways) each() []*way { return []*way{w.gateway, w.direct, w.proxy} }

// throughGateway measures what the gateway costs and how fast it cuts.
func (b *bench) throughGateway(ctx context.Context, o options) (err error) {
	gateway, err := world.OpenGateway(ctx, b.cp, b.installation, world.OperatorOptions{Dir: filepath.Join(b.dir, "pods"), IP: b.gatewayIP})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gateway.Stop()) }()
	if err := b.fill(ctx); err != nil {
		return err
	}
	w, closeWays, err := b.makeWays(ctx)
	if err != nil {
		return err
	}
	defer closeWays()
	for _, part := range []func(context.Context, ways, options) error{b.getOne, b.getMany, b.list, b.carry} {
		if err := part(ctx, w, o); err != nil {
			return err
		}
	}
	for _, cut := range []struct {
		streams, rounds int
		bar             string
	}{{1, o.rounds, "bar: p99 20ms"}, {100, 3, "bar: p99 50ms"}, {o.streams, 2, "bar: p99 250ms at 1000"}} {
		if err := b.cutStreams(ctx, gateway, cut.streams, cut.rounds, cut.bar); err != nil {
			return err
		}
	}
	return b.expireStreams(ctx, 100)
}

// fill makes what engineers look at.
func (b *bench) fill(ctx context.Context) error {
	value := strings.Repeat("x", 1<<10)
	if err := b.admin.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: small}, Data: map[string]string{"value": value}}); err != nil {
		return fmt.Errorf("create a ConfigMap: %w", err)
	}
	if err := each(ctx, listed, func(ctx context.Context, i int) error {
		return b.bare.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: fmt.Sprintf("listed-%d", i), Labels: map[string]string{"listed": "true"}},
			Data:       map[string]string{"value": value},
		})
	}); err != nil {
		return fmt.Errorf("create ConfigMaps: %w", err)
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: "pod"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "registry.example/main"}}},
	}
	if err := b.admin.Create(ctx, pod); err != nil {
		return fmt.Errorf("create a pod: %w", err)
	}
	return b.until(ctx, "a pod runs", func(ctx context.Context) (bool, error) {
		err := b.admin.Get(ctx, client.ObjectKeyFromObject(pod), pod)
		return pod.Status.Phase == corev1.PodRunning, err
	})
}

// makeWays opens one grant for each transport, of the same roles, and the ways by which its engineer comes.
func (b *bench) makeWays(ctx context.Context) (w ways, closeAll func(), err error) {
	through, err := b.admit(ctx, "gateway", v1alpha1.TransportGateway)
	if err != nil {
		return w, nil, err
	}
	direct, err := b.admit(ctx, "direct", v1alpha1.TransportDirect)
	if err != nil {
		return w, nil, err
	}
	proxied, stop, err := b.kubectlProxy(ctx, direct)
	if err != nil {
		return w, nil, err
	}
	for _, made := range []struct {
		name   string
		config *rest.Config
		way    **way
	}{{"gateway", through, &w.gateway}, {"direct", direct, &w.direct}, {"kubectl proxy", proxied, &w.proxy}} {
		if *made.way, err = newWay(made.name, made.config); err != nil {
			stop()
			return w, nil, err
		}
	}
	return w, stop, nil
}

func newWay(name string, config *rest.Config) (*way, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	transport, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("read the address: %w", err)
	}
	return &way{name: name, config: config, http: transport, base: base}, nil
}

// admit opens a grant and returns how its engineer connects, once that works.
func (b *bench) admit(ctx context.Context, name string, transport v1alpha1.Transport) (*rest.Config, error) {
	grant := newGrant(name, "2h")
	grant.Spec.Transport = transport
	grant.Spec.Roles = append([]string{content}, roles...)
	return b.admitWith(ctx, grant)
}

func (b *bench) admitWith(ctx context.Context, grant *v1alpha1.SupportAccessGrant) (*rest.Config, error) {
	if err := b.tess.Create(ctx, grant); err != nil {
		return nil, fmt.Errorf("apply grant %s: %w", grant.Name, err)
	}
	secret := &corev1.Secret{}
	if err := b.until(ctx, "the credential of "+grant.Name+" is there", func(ctx context.Context) (bool, error) {
		if err := b.tess.Get(ctx, client.ObjectKeyFromObject(grant), grant); err != nil {
			return false, err
		}
		if len(grant.Status.Engineers) == 0 || grant.Status.Engineers[0].CredentialSecretRef == nil {
			return false, nil
		}
		ref := grant.Status.Engineers[0].CredentialSecretRef
		return true, b.admin.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, secret)
	}); err != nil {
		return nil, err
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(secret.Data[grant.Status.Engineers[0].CredentialSecretRef.Key])
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	w, err := newWay(grant.Name, config)
	if err != nil {
		return nil, err
	}
	return config, b.until(ctx, "the engineer of "+grant.Name+" is let in", func(ctx context.Context) (bool, error) {
		return w.get(ctx, onePath) == nil, nil
	})
}

// kubectlProxy starts kubectl proxy for an engineer.
func (b *bench) kubectlProxy(ctx context.Context, engineer *rest.Config) (*rest.Config, func(), error) {
	path := filepath.Join(b.dir, "proxy.kubeconfig")
	if err := b.cp.WriteKubeconfig(path, engineer, tenant); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	command := exec.CommandContext(ctx, b.cp.Kubectl(), "--kubeconfig", path, "proxy", "--port=0", "--disable-filter") //nolint:gosec // The control plane's own kubectl.
	// It ends with the bench, however that ends.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := command.StdoutPipe()
	if err == nil {
		err = command.Start()
	}
	if err != nil {
		cancel()
		return nil, nil, fmt.Errorf("start kubectl proxy: %w", err)
	}
	stop := func() {
		cancel()
		_ = command.Wait()
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	_, address, found := strings.Cut(strings.TrimSpace(line), "Starting to serve on ")
	if err != nil || !found {
		stop()
		return nil, nil, fmt.Errorf("start kubectl proxy: it said %q: %w", line, err)
	}
	return &rest.Config{Host: "http://" + address}, stop, nil
}

const (
	onePath  = "/api/v1/namespaces/" + tenant + "/configmaps/" + small
	manyPath = "/api/v1/namespaces/" + tenant + "/configmaps?labelSelector=listed%3Dtrue"
)

// get asks for a path and reads the answer to its end.
func (w *way) get(ctx context.Context, path string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.base.Scheme+"://"+w.base.Host+path, http.NoBody)
	if err != nil {
		return err
	}
	response, err := w.http.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s through %s: %s", path, w.name, response.Status)
	}
	return nil
}

// getOne measures one client that reads 1 KiB, each way in turn.
func (b *bench) getOne(ctx context.Context, w ways, o options) error {
	n := 100 * o.rounds
	say("\nGET of 1 KiB, one client, %d each way", n)
	took := map[*way]sample{}
	for range n {
		for _, i := range rand.Perm(3) {
			way := w.each()[i]
			started := time.Now()
			if err := way.get(ctx, onePath); err != nil {
				return err
			}
			took[way] = append(took[way], time.Since(started))
		}
	}
	for _, way := range w.each() {
		s := took[way]
		say("  %-16s median %s  p99 %s", way.name, fine(s.at(0.5)), fine(s.at(0.99)))
	}
	say("  gateway - direct  %s (bar: 1ms)", fine(took[w.gateway].at(0.5)-took[w.direct].at(0.5)))
	return nil
}

func fine(d time.Duration) string { return fmt.Sprintf("%.2fms", float64(d)/float64(time.Millisecond)) }

// getMany measures 16 clients that read 1 KiB, and list measures two that list.
func (b *bench) getMany(ctx context.Context, w ways, _ options) error {
	say("\nGET of 1 KiB, %d clients", workers)
	return rates(ctx, w, workers, onePath, 0.6)
}

func (b *bench) list(ctx context.Context, w ways, _ options) error {
	say("\nLIST of %d ConfigMaps of 1 KiB, 2 clients", listed)
	return rates(ctx, w, 2, manyPath, 0.7)
}

// rates measures how often clients get a path each way, in turns.
func rates(ctx context.Context, w ways, clients int, path string, bar float64) error {
	counts := map[*way]int64{}
	for range turns {
		for _, i := range rand.Perm(3) {
			way := w.each()[i]
			n, err := way.load(ctx, clients, path)
			if err != nil {
				return err
			}
			counts[way] += n
		}
	}
	rate := func(way *way) float64 { return float64(counts[way]) / (turns * slice.Seconds()) }
	for _, way := range w.each() {
		say("  %-16s %.0f/s", way.name, rate(way))
	}
	say("  gateway / direct  %.2f (bar: %.1f)", rate(w.gateway)/rate(w.direct), bar)
	return nil
}

// load has clients get a path for one slice of time, and returns how often they did.
func (w *way) load(ctx context.Context, clients int, path string) (int64, error) {
	var n atomic.Int64
	until := time.Now().Add(slice)
	group, ctx := errgroup.WithContext(ctx)
	for range clients {
		group.Go(func() error {
			for time.Now().Before(until) {
				if err := w.get(ctx, path); err != nil {
					return err
				}
				n.Add(1)
			}
			return nil
		})
	}
	err := group.Wait()
	return n.Load(), err
}

// carry measures a shell that prints a lot.
func (b *bench) carry(ctx context.Context, w ways, _ options) error {
	say("\nexec that prints %d MiB, 3 each way", carried>>20)
	took := map[*way]sample{}
	for range 3 {
		for _, i := range rand.Perm(3) {
			way := w.each()[i]
			started := time.Now()
			n, err := b.exec(ctx, way, "head", "-c", fmt.Sprint(carried), "/dev/zero")
			if err != nil {
				return fmt.Errorf("exec through %s: %w", way.name, err)
			}
			if n != carried {
				return fmt.Errorf("exec through %s: %d bytes of %d came", way.name, n, carried)
			}
			took[way] = append(took[way], time.Since(started))
		}
	}
	speed := func(way *way) float64 { return float64(carried>>20) / took[way].at(0.5).Seconds() }
	for _, way := range w.each() {
		say("  %-16s %.0f MiB/s", way.name, speed(way))
	}
	say("  gateway / direct  %.2f (bar: 0.7)", speed(w.gateway)/speed(w.direct))
	return nil
}

// exec has kubectl run a command in the pod, and returns how much it printed.
func (b *bench) exec(ctx context.Context, w *way, command ...string) (int64, error) {
	path := filepath.Join(b.dir, strings.ReplaceAll(w.name, " ", "-")+".kubeconfig")
	if err := b.cp.WriteKubeconfig(path, w.config, tenant); err != nil {
		return 0, err
	}
	var out countingWriter
	var said strings.Builder
	args := append([]string{"--kubeconfig", path, "exec", "pod", "--"}, command...)
	run := exec.CommandContext(ctx, b.cp.Kubectl(), args...) //nolint:gosec // The control plane's own kubectl.
	run.Stdout, run.Stderr = &out, &said
	if err := run.Run(); err != nil {
		return 0, fmt.Errorf("kubectl exec: %w: %s", err, said.String())
	}
	return out.n, nil
}

type countingWriter struct{ n int64 }

// Write counts.
func (w *countingWriter) Write(p []byte) (int, error) {
	w.n += int64(len(p))
	return len(p), nil
}

// cutStreams measures from when the deletion of a grant is sent until each of its watches has ended, each over a connection of
// its own, beside how long the API server takes to tell anybody who watches grants: the gateway cannot know sooner.
func (b *bench) cutStreams(ctx context.Context, gateway *world.Operator, streams, rounds int, bar string) error {
	say("\nRevoke a grant with %d watches, %d rounds", streams, rounds)
	var cut, heard, answered sample
	for round := range rounds {
		grant := newGrant(fmt.Sprintf("cut-%d-%d", streams, round), "2h")
		grant.Spec.Transport = v1alpha1.TransportGateway
		before := memory(gateway.PID())
		watching, err := b.watchMany(ctx, grant, streams)
		if err != nil {
			return err
		}
		if round == 0 {
			say("  gateway's memory: %d MiB before, %d MiB with %d idle watches (bar: 250 MiB with 1000)", before, memory(gateway.PID()), streams)
		}
		told, err := b.hears(ctx, grant)
		if err != nil {
			return err
		}
		sent := time.Now()
		if err := b.tess.Delete(ctx, grant); err != nil {
			return fmt.Errorf("revoke grant %s: %w", grant.Name, err)
		}
		answered = append(answered, time.Since(sent))
		ended, err := watching.wait(ctx, sent)
		if err != nil {
			return err
		}
		cut = append(cut, ended...)
		at, ok := <-told
		if !ok {
			return errors.New("the watch of the grant ended")
		}
		heard = append(heard, at.Sub(sent))
	}
	say("  sent -> ended     median %s  p99 %s  max %s (%s)", ms(cut.at(0.5)), ms(cut.at(0.99)), ms(cut.at(1)), bar)
	say("  sent -> heard     median %s  p99 %s  max %s (a bare watch: the floor)", ms(heard.at(0.5)), ms(heard.at(0.99)), ms(heard.at(1)))
	say("  sent -> answered  median %s  max %s", ms(answered.at(0.5)), ms(answered.at(1)))
	return nil
}

// hears watches a grant and tells when the API server says that it is being deleted.
func (b *bench) hears(ctx context.Context, grant *v1alpha1.SupportAccessGrant) (<-chan time.Time, error) {
	events, err := b.admin.Watch(ctx, &v1alpha1.SupportAccessGrantList{}, client.InNamespace(grant.Namespace), client.MatchingFields{"metadata.name": grant.Name})
	if err != nil {
		return nil, fmt.Errorf("watch grant %s: %w", grant.Name, err)
	}
	told := make(chan time.Time, 1)
	go func() {
		defer close(told)
		defer events.Stop()
		for event := range events.ResultChan() {
			if event.Type == watch.Deleted || event.Object.(client.Object).GetDeletionTimestamp() != nil {
				told <- time.Now()
				return
			}
		}
	}()
	return told, nil
}

// expireStreams measures how late watches end when their grant's time is over.
func (b *bench) expireStreams(ctx context.Context, streams int) error {
	say("\nA grant with %d watches expires", streams)
	grant := newGrant("expires", "")
	at := metav1.NewTime(time.Now().Add(20 * time.Second).Truncate(time.Second))
	grant.Spec.ExpirationTime, grant.Spec.Transport = &at, v1alpha1.TransportGateway
	watching, err := b.watchMany(ctx, grant, streams)
	if err != nil {
		return err
	}
	ended, err := watching.wait(ctx, at.Time)
	if err != nil {
		return err
	}
	say("  instant -> ended  min %s  median %s  max %s (bar: 100ms)", ms(ended.at(0)), ms(ended.at(0.5)), ms(ended.at(1)))
	return nil
}

// watches are streams that run.
type watches struct {
	mu    sync.Mutex
	ended []time.Time
	all   chan struct{}
	want  int
}

// watchMany opens a grant, and watches through the gateway.
func (b *bench) watchMany(ctx context.Context, grant *v1alpha1.SupportAccessGrant, streams int) (*watches, error) {
	config, err := b.admitWith(ctx, grant)
	if err != nil {
		return nil, err
	}
	w := &watches{all: make(chan struct{}), want: streams}
	return w, each(ctx, streams, func(context.Context, int) error {
		body, err := openWatch(ctx, config)
		if err != nil {
			return err
		}
		go w.read(body)
		return nil
	})
}

// openWatch begins a watch over a connection of its own and returns once its first event has come.
func openWatch(ctx context.Context, config *rest.Config) (io.ReadCloser, error) {
	own := rest.CopyConfig(config)
	own.Dial = nil
	tlsConfig, err := rest.TLSConfigFor(own)
	if err != nil {
		return nil, fmt.Errorf("read the certificates: %w", err)
	}
	transport, err := rest.HTTPWrappersForConfig(own, &http.Transport{TLSClientConfig: tlsConfig, ForceAttemptHTTP2: true})
	if err != nil {
		return nil, fmt.Errorf("make a transport: %w", err)
	}
	target := own.Host + "/api/v1/namespaces/" + tenant + "/configmaps?watch=true&resourceVersion=0&fieldSelector=metadata.name%3D" + small
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, target, http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := (&http.Client{Transport: transport}).Do(r) //nolint:bodyclose // Whoever reads the watch closes it.
	if err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	first := make([]byte, 1)
	if _, err := io.ReadFull(response.Body, first); err != nil || response.StatusCode != http.StatusOK {
		_ = response.Body.Close()
		return nil, fmt.Errorf("watch: %s: %w", response.Status, err)
	}
	return response.Body, nil
}

func (w *watches) read(body io.ReadCloser) {
	_, _ = io.Copy(io.Discard, body)
	at := time.Now()
	_ = body.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = append(w.ended, at)
	if len(w.ended) == w.want {
		close(w.all)
	}
}

// wait returns how long after an instant each watch ended.
func (w *watches) wait(ctx context.Context, since time.Time) (sample, error) {
	select {
	case <-w.all:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(patience):
		return nil, fmt.Errorf("not every watch ended within %s", patience)
	}
	var took sample
	for _, at := range w.ended {
		took = append(took, at.Sub(since))
	}
	return took, nil
}

// memory returns the resident memory of a process in MiB, 0 if it cannot be read.
func memory(pid int) int { return memoryOf(pid, "VmRSS:") }

// memoryOf returns one line of what the kernel says of a process's memory, in MiB.
func memoryOf(pid int, line string) int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	kib := 0
	if _, after, found := bytes.Cut(status, []byte(line)); found {
		_, _ = fmt.Sscan(string(after), &kib)
	}
	return kib / 1024
}
