package grant

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/internal/partial"
	"supportaccess.dev/operator/test/gen"
)

const (
	home   = "mail"
	victim = "open-already"
)

type inForce struct{}

func (inForce) InForce() (time.Time, string) { return gen.Epoch.Add(-time.Hour), "" }

// house is a controller whose openings get no further than their first request to the API server itself, until they may.
type house struct {
	*Reconciler
	api   client.Client
	queue priorityqueue.PriorityQueue[reconcile.Request]
	// shut shuts the queue. That is not to be done twice.
	shut func()

	mu sync.Mutex
	// at are the grants whose opening waits for the API server, began those that ever did, in their order.
	at    map[string]bool
	began []string
	most  int
	may   chan struct{}
	// failures are what passes failed with that were not held up.
	failures []error
}

var errNoFurther = errors.New("the test lets nothing open")

func newHouse(t *testing.T, workers int, objects ...client.Object) *house {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, rbacv1.AddToScheme, metav1.AddMetaToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	byGrant := func(o client.Object) []string {
		key, _ := access.GrantOf(o)
		return []string{key.String()}
	}
	builder := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...)
	for _, kind := range []client.Object{&rbacv1.RoleBinding{}, &rbacv1.ClusterRoleBinding{}, partial.Object("Secret"), partial.Object("ServiceAccount")} {
		builder = builder.WithIndex(kind, indexGrant, byGrant)
	}
	h := &house{at: map[string]bool{}, may: make(chan struct{})}
	inner := builder.Build()
	h.api = inner
	live := interceptor.NewClient(inner, interceptor.Funcs{Get: h.get})
	now := clocktesting.NewFakePassiveClock(gen.Epoch.Add(time.Second))
	h.Reconciler = &Reconciler{
		Client: inner, Live: live, Admission: inForce{}, Clock: now, Workers: workers,
		Keeper: access.Keeper{Client: inner, Live: live, Clock: now},
	}
	h.queue = priorityqueue.New[reconcile.Request](t.Name())
	if err := h.furnish(t.Context(), h.queue); err != nil {
		t.Fatal(err)
	}
	h.shut = sync.OnceFunc(h.queue.ShutDown)
	patience, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	context.AfterFunc(patience, h.shut)
	return h
}

// get holds up whoever asks for a record: an opening does so before all else.
func (h *house) get(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	if _, ok := o.(*v1alpha1.SupportAccessRecord); !ok || key.Name == victim {
		return c.Get(ctx, key, o, opts...)
	}
	h.mu.Lock()
	h.at[key.Name] = true
	h.began, h.most = append(h.began, key.Name), max(h.most, len(h.at))
	h.mu.Unlock()
	select {
	case <-h.may:
	case <-ctx.Done():
	}
	h.mu.Lock()
	delete(h.at, key.Name)
	h.mu.Unlock()
	return errNoFurther
}

// work starts as many workers as the controller has. They do what controller-runtime's do, and try nothing again.
func (h *house) work(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	for range h.Workers {
		go func() {
			for {
				request, _, over := h.queue.GetWithPriority()
				if over {
					return
				}
				_, err := h.Reconcile(ctx, request)
				h.hadPass(err)
				h.queue.Done(request)
			}
		}()
	}
	// A queue that is shut may hold up for ever who says that he is done: the workers are not waited for.
	t.Cleanup(func() {
		cancel()
		h.shut()
	})
}

func (h *house) hadPass(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil && !errors.Is(err, errNoFurther) {
		h.failures = append(h.failures, err)
	}
}

func (h *house) hears(priority int, names ...string) {
	for _, name := range names {
		enqueue(h.queue, priority, []types.NamespacedName{{Namespace: home, Name: name}})
	}
}

// called returns who is next in the queue.
func (h *house) called(t *testing.T) string {
	t.Helper()
	request, _, over := h.queue.GetWithPriority()
	if over {
		t.Fatal("nobody was called any more")
	}
	h.queue.Done(request)
	return request.Name
}

// openings returns how many wait for the API server now, how many ever did, and the most at once.
func (h *house) openings() (now, ever, most int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.at), len(h.began), h.most
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := wait.PollUntilContextCancel(ctx, time.Millisecond, true, func(context.Context) (bool, error) { return holds(), nil }); err != nil {
		t.Fatalf("never: %s", what)
	}
}

// storm returns new grants, and one that is open and revoked, with its record and its binding.
func storm(n int) (names []string, objects []client.Object) {
	for i := range n {
		names = append(names, fmt.Sprintf("new-%d", i))
		objects = append(objects, gen.Grant(names[i], home))
	}
	revoked := gen.Grant(victim, home, gen.WithDeletion(gen.Epoch.Add(time.Second)))
	revoked.Finalizers = []string{v1alpha1.FinalizerGrant}
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: home, Name: "b", UID: "binding"}}
	record := gen.Record(revoked, gen.WithSpecDigest(lifecycle.SpecDigest(revoked.Spec)))
	record.Status.Bindings = []v1alpha1.RecordedBinding{{Namespace: home, Name: binding.Name, UID: binding.UID}}
	return names, append(objects, revoked, binding, record)
}

func TestARevocationIsNotKeptWaitingByOpeningsThatGetNoFurther(t *testing.T) {
	names, objects := storm(40)
	h := newHouse(t, 16, objects...)
	h.work(t)
	h.hears(priorityOpen, names...)
	eventually(t, "two openings are under way", func() bool { now, _, _ := h.openings(); return now == 2 })
	h.hears(priorityEnd, victim)
	eventually(t, "the binding of the revoked grant is gone", func() bool {
		return apierrors.IsNotFound(h.api.Get(t.Context(), types.NamespacedName{Namespace: home, Name: "b"}, &rbacv1.RoleBinding{}))
	})
	if now, ever, _ := h.openings(); now != 2 || ever != 2 {
		t.Errorf("%d openings are under way and %d ever were; want the same two all the time", now, ever)
	}
	close(h.may)
	eventually(t, "every grant had its turn", func() bool { _, ever, _ := h.openings(); return ever == len(names) })
	if _, _, most := h.openings(); most != 2 {
		t.Errorf("%d openings were under way at once; want 2", most)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.failures) > 0 {
		t.Errorf("passes failed: %v", h.failures)
	}
}

func TestGrantsOpenInTheOrderInWhichTheyCame(t *testing.T) {
	names, objects := storm(5)
	h := newHouse(t, 4, objects...)
	h.room.enter(types.NamespacedName{Namespace: home, Name: "another"})
	for _, name := range append(names, names...) {
		pass(t, h, name)
	}
	close(h.may)
	if waiting := h.WaitingToOpen(); waiting != len(names) {
		t.Errorf("%d are said to wait, want all", waiting)
	}
	h.room.leave(types.NamespacedName{Namespace: home, Name: "another"})
	for i := range names {
		pass(t, h, h.called(t))
		// The next one was called, and waits no more.
		if waiting := h.WaitingToOpen(); waiting != max(0, len(names)-i-2) {
			t.Errorf("%d have opened, and %d are said to wait", i+1, waiting)
		}
	}
	if fmt.Sprint(h.began) != fmt.Sprint(names) {
		t.Errorf("they opened as %v; want %v", h.began, names)
	}
	if left := h.queue.Len(); left != 0 {
		t.Errorf("%d were called more than once", left)
	}
}

func pass(t *testing.T, h *house, name string) reconcile.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	result, err := h.Reconcile(ctx, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: home, Name: name}})
	if err != nil && !errors.Is(err, errNoFurther) {
		t.Fatalf("a pass over %s: %v", name, err)
	}
	return result
}

func TestAGrantThatFindsNoRoomIsLookedAtAgainWhenItsTimeIsOver(t *testing.T) {
	names, objects := storm(1)
	h := newHouse(t, 4, objects...)
	h.room.enter(types.NamespacedName{Namespace: home, Name: "another"})
	result := pass(t, h, names[0])
	if result.RequeueAfter != 24*time.Hour || result.Priority == nil || *result.Priority != priorityEnd {
		t.Errorf("got %+v; want its end, with the priority of ends", result)
	}
	if _, ever, _ := h.openings(); ever != 0 {
		t.Error("it asked the API server for something")
	}
}

func TestAGrantThatWasCalledAndNoLongerOpensMakesRoomForTheNext(t *testing.T) {
	names, objects := storm(2)
	h := newHouse(t, 4, objects...)
	another := types.NamespacedName{Namespace: home, Name: "another"}
	h.room.enter(another)
	pass(t, h, names[0])
	pass(t, h, names[1])
	if err := h.api.Delete(t.Context(), objects[0]); err != nil {
		t.Fatal(err)
	}
	h.room.leave(another)
	pass(t, h, names[0])
	called := []string{}
	for range names {
		called = append(called, h.called(t))
	}
	if fmt.Sprint(called) != fmt.Sprint(names) {
		t.Errorf("called were %v; want %v", called, names)
	}
}
