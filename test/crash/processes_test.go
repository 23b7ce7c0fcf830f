package crash

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// pod starts a pod of the operator and ends it with the test. A test that kills it does so itself.
func (s *theater) pod(t *testing.T, installation *world.Installation) *world.Operator {
	t.Helper()
	pod, err := world.Run(t.Context(), s.world.ControlPlane, installation, world.OperatorOptions{Dir: filepath.Join(s.world.Dir, "pods")})
	if err != nil {
		t.Fatalf("start the operator: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log of pod %d ends with:\n%s", pod.PID(), pod.Tail())
		}
		if err := pod.Stop(); err != nil {
			t.Errorf("stop the operator: %v", err)
		}
	})
	return pod
}

// readyPod starts a pod and waits until it is ready.
func (s *theater) readyPod(t *testing.T, installation *world.Installation) *world.Operator {
	t.Helper()
	pod := s.pod(t, installation)
	if err := pod.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	return pod
}

// leader returns who holds the lease.
func (s *theater) leader(t *testing.T) string {
	t.Helper()
	lease := &coordinationv1.Lease{}
	key := types.NamespacedName{Namespace: v1alpha1.SystemNamespace, Name: v1alpha1.ControllerServiceAccount}
	if err := s.admin.Get(t.Context(), key, lease); err != nil || lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}

// leads waits until somebody else than before holds the lease.
func (s *theater) leads(t *testing.T, before string) string {
	t.Helper()
	now := ""
	world.Eventually(t, "somebody leads", func() error {
		if now = s.leader(t); now == "" || now == before {
			return fmt.Errorf("the lease is held by %q", now)
		}
		return nil
	})
	return now
}

// alone is an installation whose pods do not wait for a lease: one at a time, it starts at once.
func (s *theater) alone(t *testing.T) *world.Installation {
	t.Helper()
	manifest := bytes.ReplaceAll(s.installation.Manifest, []byte("- --leader-elect\n"), []byte("- --leader-elect=false\n"))
	if bytes.Equal(manifest, s.installation.Manifest) {
		t.Fatal("the Deployment has no flag --leader-elect")
	}
	alone := *s.installation
	alone.Manifest = manifest
	return &alone
}

// crowd are many grants in some namespaces, one run for each.
type crowd struct {
	runs []*run
}

func (s *theater) newCrowd(t *testing.T, namespaces int) *crowd {
	t.Helper()
	c := &crowd{}
	for range namespaces {
		c.runs = append(c.runs, s.newRun(t, "crash"))
	}
	return c
}

// each does something in every namespace at once.
func (c *crowd) each(act func(*run)) {
	var group sync.WaitGroup
	for _, r := range c.runs {
		group.Go(func() { act(r) })
	}
	group.Wait()
}

// sound says what is not as it must be at rest, nil if all is.
func (r *run) sound() (err error) {
	r.soft = true
	defer func() {
		r.soft = false
		if found := recover(); found != nil {
			what, ok := found.(brokenError)
			if !ok {
				panic(found)
			}
			err = what
		}
	}()
	r.tick()
	r.inspectQuiet()
	return nil
}

// awaitSound waits until every grant of a crowd is as it must be, and as the acts demand.
func (c *crowd) awaitSound(t *testing.T, open, ended int) {
	t.Helper()
	for _, r := range c.runs {
		world.Eventually(t, "all is as it must be in "+r.home, func() error {
			if err := r.sound(); err != nil {
				return err
			}
			var isOpen, isEnded int
			for _, record := range r.look().records {
				if r.isOpen(record) {
					isOpen++
				} else if record.Status.EndTime != nil {
					isEnded++
				}
			}
			if isOpen != open || isEnded != ended {
				return fmt.Errorf("%d are open and %d have ended, want %d and %d", isOpen, isEnded, open, ended)
			}
			return nil
		})
	}
}

// follow watches the bindings of access until the test ends, and hands on every event.
func (s *theater) follow(t *testing.T, list client.ObjectList, opts ...client.ListOption) <-chan watch.Event {
	t.Helper()
	watcher, err := s.admin.Watch(t.Context(), list, opts...)
	if err != nil {
		t.Fatalf("watch %T: %v", list, err)
	}
	t.Cleanup(watcher.Stop)
	return watcher.ResultChan()
}

// awaitEvents waits until so many objects were added.
func awaitEvents(t *testing.T, events <-chan watch.Event, n int) {
	t.Helper()
	timer := time.NewTimer(time.Minute)
	defer timer.Stop()
	for n > 0 {
		select {
		case e := <-events:
			if e.Type == watch.Added {
				n--
			}
		case <-timer.C:
			t.Fatalf("%d objects are still to come", n)
		}
	}
}

var managed = client.MatchingLabels{v1alpha1.LabelManaged: "true"}

// TestALeaderKilledInAStormLeavesEveryGrantOpenOrClosed kills the leader of two processes while 25 grants open and 25
// close, and has the other one finish.
func TestALeaderKilledInAStormLeavesEveryGrantOpenOrClosed(t *testing.T) {
	long(t)
	s := inTheater(t)
	leader := s.readyPod(t, s.installation)
	first := s.leads(t, "")
	s.readyPod(t, s.installation)
	c := s.newCrowd(t, 5)
	c.each(func(r *run) {
		for i := range 5 {
			r.grant(fmt.Sprintf("old-%d", i))
		}
	})
	c.awaitSound(t, 5, 0)

	events := s.follow(t, &rbacv1.RoleBindingList{}, managed)
	var storm sync.WaitGroup
	storm.Go(func() {
		c.each(func(r *run) {
			for i := range 5 {
				r.grant(fmt.Sprintf("new-%d", i))
				if i%2 == 0 {
					r.delete(fmt.Sprintf("old-%d", i))
				} else {
					r.decide(fmt.Sprintf("revoke-%d", i), gen.Revoking(fmt.Sprintf("old-%d", i)))
				}
			}
		})
	})
	awaitEvents(t, events, 10)
	killed := time.Now()
	if err := leader.Kill(); err != nil {
		t.Fatal(err)
	}
	storm.Wait()
	t.Logf("when the leader was killed: %s", c.census())
	s.leads(t, first)
	took := time.Since(killed)
	c.awaitSound(t, 5, 5)
	t.Logf("the other led after %s, and all was done after %s", took.Round(time.Millisecond), time.Since(killed).Round(time.Millisecond))
}

// census counts how far grants are.
func (c *crowd) census() string {
	var recorded, bound, opened, ended int
	for _, r := range c.runs {
		s := r.look()
		for key, record := range s.records {
			recorded++
			switch {
			case record.Status.EndTime != nil:
				ended++
			case record.Status.ProvisionedTime != nil:
				opened++
			case slices.ContainsFunc(s.bindings, func(b client.Object) bool { k, _ := access.GrantOf(b); return k == key }):
				bound++
			}
		}
	}
	return fmt.Sprintf("%d grants on record, %d half open, %d open, %d ended", recorded, bound, opened, ended)
}

// TestALeaderStoppedInTheMiddleOfOpeningOpensNothingThatStays stops the leader of two processes while 50 grants open, has
// all of them revoked and the other process close them, and lets the first go on. It measures how long anything existed
// that the first one still made.
func TestALeaderStoppedInTheMiddleOfOpeningOpensNothingThatStays(t *testing.T) {
	long(t)
	if testing.Short() {
		t.Skip("a lease must run out")
	}
	s := inTheater(t)
	leader := s.readyPod(t, s.installation)
	first := s.leads(t, "")
	s.readyPod(t, s.installation)
	c := s.newCrowd(t, 5)
	events := s.follow(t, &rbacv1.RoleBindingList{}, managed)
	var storm sync.WaitGroup
	storm.Go(func() {
		c.each(func(r *run) {
			for i := range 10 {
				r.grant(fmt.Sprintf("case-%d", i))
			}
		})
	})
	awaitEvents(t, events, 20)
	if err := leader.Pause(); err != nil {
		t.Fatal(err)
	}
	storm.Wait()
	t.Logf("when the leader was stopped: %s", c.census())
	c.each(func(r *run) { r.decide("stop", gen.RevokingNamespace()) })
	s.leads(t, first)
	c.awaitSound(t, 0, 10)

	late := s.lateArrivals(t)
	if err := leader.Resume(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-leader.Done():
	case <-time.After(time.Minute):
		t.Error("the leader that lost its lease does not end")
	}
	c.awaitSound(t, 0, 10)
	t.Logf("the leader that went on %s", late())
}

// lateArrivals follows what is made from now on; the returned function says for how long it existed.
func (s *theater) lateArrivals(t *testing.T) func() string {
	t.Helper()
	inCredentials := client.InNamespace(v1alpha1.CredentialsNamespace)
	var mu sync.Mutex
	since, lived := map[types.UID]time.Time{}, map[string]time.Duration{}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for _, list := range []client.ObjectList{&rbacv1.RoleBindingList{}, &rbacv1.RoleList{}, &corev1.SecretList{}, &corev1.ServiceAccountList{}} {
		opts := []client.ListOption{managed}
		if _, bindings := list.(*rbacv1.RoleBindingList); !bindings {
			opts = append(opts, inCredentials)
		}
		for _, o := range s.present(t, list, opts...) {
			since[o] = time.Time{}
		}
		events := s.follow(t, list, opts...)
		group.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case e, open := <-events:
					if !open {
						return
					}
					o, ok := e.Object.(metav1.Object)
					if !ok {
						continue
					}
					mu.Lock()
					made, known := since[o.GetUID()]
					switch {
					case e.Type == watch.Added && !known:
						since[o.GetUID()] = time.Now()
					case e.Type == watch.Deleted && known && !made.IsZero():
						kind := fmt.Sprintf("%T", e.Object)
						lived[kind] = max(lived[kind], time.Since(made))
						delete(since, o.GetUID())
					}
					mu.Unlock()
				}
			}
		})
	}
	return func() string {
		cancel()
		group.Wait()
		var said []string
		for kind, d := range lived {
			said = append(said, fmt.Sprintf("a %s that existed for at most %s", strings.TrimPrefix(kind, "*v1."), d.Round(time.Millisecond)))
		}
		if len(said) == 0 {
			return "made nothing"
		}
		slices.Sort(said)
		return "made " + strings.Join(said, ", ")
	}
}

// present are the UIDs of what is there.
func (s *theater) present(t *testing.T, list client.ObjectList, opts ...client.ListOption) []types.UID {
	t.Helper()
	into := list.DeepCopyObject().(client.ObjectList)
	if err := s.admin.List(t.Context(), into, opts...); err != nil {
		t.Fatalf("list %T: %v", list, err)
	}
	var uids []types.UID
	for _, o := range itemsOf(into) {
		uids = append(uids, o.GetUID())
	}
	return uids
}

// TestAnOperatorKilledInAnyStateFinishesWhatItBegan kills the operator's process as soon as the n-th object of an opening
// appears, deletes the grant or leaves it, and starts another.
func TestAnOperatorKilledInAnyStateFinishesWhatItBegan(t *testing.T) {
	long(t)
	s := inTheater(t)
	alone := s.alone(t)
	moments := []int{1, 2, 3, 4, 5, 6}
	if testing.Short() {
		moments = []int{2, 5}
	}
	for _, n := range moments {
		t.Run(fmt.Sprintf("at object %d", n), func(t *testing.T) {
			left, deleted := s.newRun(t, "crash"), s.newRun(t, "crash")
			pod := s.readyPod(t, alone)
			mine := client.MatchingLabels{v1alpha1.LabelManaged: "true", v1alpha1.LabelGrantNamespace: deleted.home}
			made := s.anything(t, mine)
			left.grant(theGrant)
			deleted.grant(theGrant)
			for range n {
				select {
				case <-made:
				case <-time.After(time.Minute):
					t.Fatal("nothing is made")
				}
			}
			if err := pod.Kill(); err != nil {
				t.Fatal(err)
			}
			t.Logf("when it was killed: %s", (&crowd{runs: []*run{deleted}}).census())
			deleted.delete(theGrant)
			s.readyPod(t, alone)
			(&crowd{runs: []*run{left}}).awaitSound(t, 1, 0)
			(&crowd{runs: []*run{deleted}}).awaitSound(t, 0, 1)
		})
	}
}

// anything reports everything that is made with some labels.
func (s *theater) anything(t *testing.T, labels client.MatchingLabels) <-chan struct{} {
	t.Helper()
	made := make(chan struct{}, 100)
	lists := []client.ObjectList{
		&v1alpha1.SupportAccessRecordList{}, &corev1.SecretList{}, &corev1.ServiceAccountList{}, &rbacv1.RoleList{}, &rbacv1.RoleBindingList{},
	}
	for _, list := range lists {
		events := s.follow(t, list, labels)
		go func() {
			for e := range events {
				if e.Type == watch.Added {
					made <- struct{}{}
				}
			}
		}()
	}
	return made
}
