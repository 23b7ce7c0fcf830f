// Package privilege has the operator do everything that it ever does, once, and then reads what is left of that: the API
// server's audit log, which must use every right that the chart gives and ask for none that it does not, and every file,
// object and output, in none of which may be a secret.
package privilege

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/hack/controlplane"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// controllerUser is who the controller is to the API server.
const controllerUser = "system:serviceaccount:" + v1alpha1.SystemNamespace + ":" + v1alpha1.ControllerServiceAccount

// Roles of the tests' own, beside the shipped ones.
const (
	roleWidens = "privilege-widens"
	roleAbsent = "privilege-absent"
)

const startTimeout = 5 * time.Minute

func TestMain(m *testing.M) {
	world.MainWith(m, controlplane.Options{})
}

// run is everything that the operator does, and what came of it.
type run struct {
	*world.World
	installation *world.Installation
	operator     *world.Operator
	gateway      *world.Operator
	// ip is the address of the gateway.
	ip         string
	kubeconfig string
	key        *keyPair
	// canary is what lies in a tenant's Secret, written what an engineer writes, password a channel's.
	canary, written, password string

	// unwatch ends what watches.
	unwatch []func()

	mu sync.Mutex
	// tokens are those that were issued, by whom they are for.
	tokens map[string]string
	// records are all that was ever on record, in JSON, by namespace and name.
	records map[string]*v1alpha1.SupportAccessRecord
	// said is what people and machines were told, by what told it.
	said map[string]string
}

var theRun = struct {
	once  sync.Once
	ended *run
}{}

// played returns the run, which the first test of the package that asks plays.
func played(t *testing.T) *run {
	t.Helper()
	theRun.once.Do(func() {
		r := begin(t)
		r.play(t)
		theRun.ended = r
	})
	if theRun.ended == nil {
		t.Fatal("the run did not come to its end")
	}
	return theRun.ended
}

// begin installs the chart as it is where nothing says how engineers reach the API server, with a short memory and a long
// tongue, and starts the operator.
func begin(t *testing.T) *run {
	t.Helper()
	w := *world.New(t)
	// What kubectl leaves in its home is searched with the rest.
	w.Dir = filepath.Join(w.ControlPlane.Dir(), "run")
	if err := os.MkdirAll(w.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r := &run{World: &w, tokens: map[string]string{}, records: map[string]*v1alpha1.SupportAccessRecord{}, said: map[string]string{}}
	r.key, r.canary, r.written, r.password = newKey(t), random(t), random(t), random(t)
	r.kubeconfig = r.Kubeconfig(t, r.ControlPlane.AdminConfig(), "")
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	var err error
	if r.ip, err = world.GatewayIP(); err != nil {
		t.Fatal(err)
	}
	r.installation, err = world.Install(ctx, r.ControlPlane, r.Dir, world.GatewayValues(r.ip, map[string]any{
		"offeredRoles":    []any{gen.Configuration, gen.Diagnostics, gen.Operate, gen.Content, roleWidens, roleAbsent},
		"recordRetention": "2s",
		"notifications":   map[string]any{"allow": []any{"127.0.0.0/8"}},
		"log":             map[string]any{"level": "debug"},
		"cluster":         map[string]any{"server": "", "caBundle": ""},
	}))
	if err != nil {
		t.Fatal(err)
	}
	r.operator = r.start(t)
	r.watch(t, &corev1.SecretList{}, r.keepToken, client.InNamespace(world.CredentialsNamespace))
	r.watch(t, &v1alpha1.SupportAccessRecordList{}, r.keepRecord)
	return r
}

// start starts a pod of the operator and waits until it is ready.
func (r *run) start(t *testing.T, env ...string) *world.Operator {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	operator, err := world.Run(ctx, r.ControlPlane, r.installation, world.OperatorOptions{Dir: filepath.Join(r.ControlPlane.Dir(), "pods"), Env: env})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := operator.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the operator's log ends with:\n%s", operator.Tail())
		}
	})
	if err := operator.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	return operator
}

// watch hands over every version of every object of a kind until the test ends.
func (r *run) watch(t *testing.T, list client.ObjectList, take func(client.Object) error, options ...client.ListOption) {
	t.Helper()
	watcher, err := r.ClientFor(t, r.ControlPlane.AdminConfig()).Watch(t.Context(), list, options...)
	if err != nil {
		t.Fatalf("watch %T: %v", list, err)
	}
	done := make(chan error, 1)
	go func() { done <- takeAll(watcher, take) }()
	stop := sync.OnceFunc(func() {
		watcher.Stop()
		if err := <-done; err != nil {
			t.Errorf("watch %T: %v", list, err)
		}
	})
	t.Cleanup(stop)
	r.unwatch = append(r.unwatch, stop)
}

func takeAll(watcher watch.Interface, take func(client.Object) error) error {
	var first error
	for event := range watcher.ResultChan() {
		object, ok := event.Object.(client.Object)
		if !ok || event.Type == watch.Error {
			continue
		}
		if err := take(object); err != nil && first == nil {
			first = fmt.Errorf("%T %s/%s: %w", object, object.GetNamespace(), object.GetName(), err)
		}
	}
	return first
}

// keepRecord remembers a record as it last was: retention drops it soon.
func (r *run) keepRecord(o client.Object) error {
	encoded, err := json.Marshal(o)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	key := o.GetNamespace() + "/" + o.GetName()
	r.records[key] = o.(*v1alpha1.SupportAccessRecord)
	r.said["record "+key+" at "+o.GetResourceVersion()] = string(encoded)
	return nil
}

// onRecord returns a record that is or was there.
func (r *run) onRecord(namespace, name string) *v1alpha1.SupportAccessRecord {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.records[namespace+"/"+name]
}

// says keeps what somebody was told.
func (r *run) says(who, what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said[who] += what
}

// heard returns what somebody was told.
func (r *run) heard(who string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.said[who]
}

// kubectl runs kubectl as somebody and keeps what it prints, refusals too.
func (r *run) kubectl(t *testing.T, kubeconfig string, args ...string) string {
	t.Helper()
	stdout, stderr, _ := r.Kubectl(t, kubeconfig, args...)
	r.says(fmt.Sprintf("kubectl %q", args), stdout+stderr)
	return stdout + stderr
}
