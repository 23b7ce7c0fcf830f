package crash

import (
	"bytes"
	"context"
	"errors"
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

// caughtUp waits until whoever leads has gone through what the tests before have left: a new grant then opens at once.
func (s *theater) caughtUp(t *testing.T) {
	t.Helper()
	r := s.newRun(t, "crash")
	r.grant(theGrant)
	err := pollEvery(t.Context(), time.Second, 15*time.Minute, func() error {
		if record := r.look().recordOf(r.key(theGrant)); record == nil || !r.isOpen(record) {
			return errors.New("a grant is not open")
		}
		return nil
	})
	if err != nil {
		t.Fatalf("wait until the operator has caught up: %v", err)
	}
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
			for _, record := range r.look().originals() {
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

// follow watches what a list is of until the test ends, and hands on every event from now on.
func (s *theater) follow(t *testing.T, list client.ObjectList, opts ...client.ListOption) <-chan watch.Event {
	t.Helper()
	if err := s.admin.List(t.Context(), list, opts...); err != nil {
		t.Fatalf("list %T: %v", list, err)
	}
	since := &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: list.GetResourceVersion()}}
	watcher, err := s.admin.Watch(t.Context(), list, append(slices.Clone(opts), since)...)
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
	s.caughtUp(t)
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
	then := c.census()
	t.Logf("when the leader was killed: %s", then)
	if then.opened+then.ended == 50 {
		t.Error("the storm was over when the leader was killed: this proves nothing")
	}
	s.leads(t, first)
	took := time.Since(killed)
	c.awaitSound(t, 5, 5)
	t.Logf("the other led after %s, and all was done after %s", took.Round(time.Millisecond), time.Since(killed).Round(time.Millisecond))
}

// census says how far grants are.
type census struct{ recorded, bound, opened, ended int }

// String says it in words.
func (c census) String() string {
	return fmt.Sprintf("%d grants on record, %d half open, %d open, %d ended", c.recorded, c.bound, c.opened, c.ended)
}

func (c *crowd) census() census {
	var n census
	for _, r := range c.runs {
		s := r.look()
		for _, record := range s.originals() {
			key := grantKeyOf(record)
			n.recorded++
			switch {
			case record.Status.EndTime != nil:
				n.ended++
			case record.Status.ProvisionedTime != nil:
				n.opened++
			case slices.ContainsFunc(s.bindings, func(b client.Object) bool { k, _ := access.GrantOf(b); return k == key }):
				n.bound++
			}
		}
	}
	return n
}

// TestALeaderStoppedInTheMiddleOfOpeningOpensNothingThatStays stops the leader of two processes while 50 grants open, has
// all of them revoked and the other process close them, and lets the first go on after a minute. It gives nothing any more.
func TestALeaderStoppedInTheMiddleOfOpeningOpensNothingThatStays(t *testing.T) {
	long(t)
	s := inTheater(t)
	leader := s.readyPod(t, s.installation)
	first := s.leads(t, "")
	s.caughtUp(t)
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
	stopped := time.Now()
	storm.Wait()
	then := c.census()
	t.Logf("when the leader was stopped: %s", then)
	if then.opened == 50 {
		t.Error("every grant was open when the leader was stopped: this proves nothing")
	}
	c.each(func(r *run) { r.decide("stop", gen.RevokingNamespace()) })
	s.leads(t, first)
	c.awaitSound(t, 0, 10)
	world.Consistently(t, "nothing is open while the leader stands still", time.Minute-time.Since(stopped), c.closed)

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
	t.Logf("the leader went on after %s and ended", time.Since(stopped).Round(time.Second))
	for _, what := range late() {
		t.Errorf("the leader that went on made %s", what)
	}
}

// closed says what of a crowd is open, nil if nothing is.
func (c *crowd) closed() error {
	for _, r := range c.runs {
		if s := r.look(); len(s.bindings)+len(s.credentials) > 0 {
			return fmt.Errorf("%d bindings and %d objects of credentials are in %s", len(s.bindings), len(s.credentials), r.home)
		}
	}
	return nil
}

// lateArrivals follows what is made from now on; the returned function ends that, and says what was made.
func (s *theater) lateArrivals(t *testing.T) func() []string {
	t.Helper()
	inCredentials := client.InNamespace(v1alpha1.CredentialsNamespace)
	var mu sync.Mutex
	var made []string
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for _, list := range []client.ObjectList{
		&rbacv1.RoleBindingList{}, &rbacv1.ClusterRoleBindingList{}, &rbacv1.RoleList{}, &corev1.SecretList{}, &corev1.ServiceAccountList{},
	} {
		opts := []client.ListOption{managed}
		if !strings.HasSuffix(fmt.Sprintf("%T", list), "BindingList") {
			opts = append(opts, inCredentials)
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
					if o, ok := e.Object.(client.Object); ok && e.Type == watch.Added {
						mu.Lock()
						made = append(made, fmt.Sprintf("%T %s/%s", o, o.GetNamespace(), o.GetName()))
						mu.Unlock()
					}
				}
			}
		})
	}
	return func() []string {
		cancel()
		group.Wait()
		return made
	}
}

// moments are at which object of a grant's, made or deleted, a process is killed.
var moments = []int{1, 2, 3, 4, 5, 6}

// TestAnOperatorKilledInAnyStateFinishesWhatItBegan kills the operator's process as soon as the n-th object of an opening
// appears, deletes the grant or leaves it, and starts another.
func TestAnOperatorKilledInAnyStateFinishesWhatItBegan(t *testing.T) {
	long(t)
	s := inTheater(t)
	alone := s.alone(t)
	for _, n := range moments {
		t.Run(fmt.Sprintf("at object %d", n), func(t *testing.T) {
			left, deleted := s.newRun(t, "crash"), s.newRun(t, "crash")
			pod := s.readyPod(t, alone)
			s.caughtUp(t)
			made := deleted.children(watch.Added)
			left.grant(theGrant)
			deleted.grant(theGrant)
			s.killAt(t, pod, made, n)
			t.Logf("when it was killed: %s", (&crowd{runs: []*run{deleted}}).census())
			deleted.delete(theGrant)
			s.readyPod(t, alone)
			(&crowd{runs: []*run{left}}).awaitSound(t, 1, 0)
			(&crowd{runs: []*run{deleted}}).awaitSound(t, 0, 1)
		})
	}
}

// TestAnOperatorKilledWhileItClosesIsFollowedByOneThatCloses kills the operator's process as soon as the n-th object of a
// grant that was deleted is gone, with another one revoked at the same time, and starts another.
func TestAnOperatorKilledWhileItClosesIsFollowedByOneThatCloses(t *testing.T) {
	long(t)
	s := inTheater(t)
	alone := s.alone(t)
	for _, n := range moments {
		t.Run(fmt.Sprintf("at object %d", n), func(t *testing.T) {
			revoked, deleted := s.newRun(t, "crash"), s.newRun(t, "crash")
			both := &crowd{runs: []*run{revoked, deleted}}
			pod := s.readyPod(t, alone)
			s.caughtUp(t)
			both.each(func(r *run) { r.grant(theGrant) })
			both.awaitSound(t, 1, 0)
			gone := deleted.children(watch.Deleted)
			revoked.decide("revoke", gen.Revoking(theGrant))
			deleted.delete(theGrant)
			s.killAt(t, pod, gone, n)
			t.Logf("when it was killed: %s", both.census())
			s.readyPod(t, alone)
			both.awaitSound(t, 0, 1)
		})
	}
}

// killAt kills a pod with the n-th event.
func (s *theater) killAt(t *testing.T, pod *world.Operator, events <-chan struct{}, n int) {
	t.Helper()
	timer := time.NewTimer(time.Minute)
	defer timer.Stop()
	for range n {
		select {
		case <-events:
		case <-timer.C:
			t.Fatalf("%d such events do not come", n)
		}
	}
	if err := pod.Kill(); err != nil {
		t.Fatal(err)
	}
}

// children reports when something of this run's grants is made, or deleted.
func (r *run) children(what watch.EventType) <-chan struct{} {
	out := make(chan struct{}, 100)
	for _, list := range []client.ObjectList{
		&v1alpha1.SupportAccessRecordList{}, &corev1.SecretList{}, &corev1.ServiceAccountList{}, &rbacv1.RoleList{}, &rbacv1.RoleBindingList{},
	} {
		events := r.stage.follow(r.t, list, client.MatchingLabels{v1alpha1.LabelManaged: "true", v1alpha1.LabelGrantNamespace: r.home})
		go func() {
			for e := range events {
				if e.Type == what {
					out <- struct{}{}
				}
			}
		}()
	}
	return out
}
