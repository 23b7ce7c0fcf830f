package crash

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
)

// end is a way in which a grant ends while no operator runs.
type end struct {
	name string
	act  func(*run)
}

func ends() []end {
	return []end{
		{"deleted", deletes},
		{"revoked", revokes},
		{"expired", expires},
		{"deleted and applied again", func(r *run) {
			r.delete(theGrant)
			err := r.stage.admin.Get(r.t.Context(), r.key(theGrant), &v1alpha1.SupportAccessGrant{})
			if apierrors.IsNotFound(err) {
				again()(r)
			}
		}},
	}
}

// interruptedFlows are flows in the middle of which the operator dies and the grant ends.
func interruptedFlows() []flow {
	return []flow{
		{name: "opening", acts: []func(*run){func(r *run) { r.grant(theGrant, both, inBoth(r)) }}},
		{name: "shortening", before: opened(), acts: []func(*run){func(r *run) { r.shorten(theGrant, 15*time.Minute) }}},
		{name: "taking off", before: opened(both), acts: []func(*run){func(r *run) { r.decide("off", gen.RevokingEngineer(theGrant, ana)) }}},
		{name: "cutting by hand", before: func(r *run) { opened(inBoth(r))(r) },
			acts: []func(*run){func(r *run) { r.cutByHand(r.bindingOf(theGrant, 0)) }}},
	}
}

// TestAGrantThatEndsWhileTheOperatorIsDeadIsNeverOpen kills the operator after every write of what it does for a grant,
// ends the grant while nobody looks, and starts another operator.
func TestAGrantThatEndsWhileTheOperatorIsDeadIsNeverOpen(t *testing.T) {
	long(t)
	for _, f := range interruptedFlows() {
		t.Run(f.name, func(t *testing.T) {
			s := inTheater(t)
			quiet := s.play(t, f, nil, nil)
			for k, write := range quiet.trace {
				for _, e := range ends() {
					t.Run(fmt.Sprintf("%d %s is the last, then %s", k+1, write, e.name), func(t *testing.T) {
						s.interrupt(t, f, &fault{how: killed, at: write}, quiet.trace, e)
					})
				}
			}
		})
	}
}

func (s *theater) interrupt(t *testing.T, f flow, kill *fault, trace []string, e end) {
	t.Helper()
	r := s.newRun(t, "crash")
	if f.before != nil {
		f.before(r)
	}
	first := r.newLife(kill, trace)
	f.acts[0](r)
	first.settle()
	if !first.wire.isDead() {
		t.Fatalf("the write did not come: %s", kill.at)
	}
	first.cancel()
	unbegun := r.look().recordOf(r.key(theGrant)) == nil
	e.act(r)
	r.newLife(nil, nil).settle()
	if unbegun && e.name == "expired" {
		// Nobody had put down when its time begins, so it began with the second process.
		e.act(r)
		r.newLife(nil, nil).settle()
	}
	if record := r.recordNamed(t, theGrant); record.Status.EndTime == nil {
		t.Errorf("the record has no end")
	}
	if more := r.newLife(nil, nil).settle(); len(more) > 0 {
		t.Errorf("a process that started when all was quiet wrote %v", more)
	}
}

// TestAGrantWhoseNamespaceGoesWhileTheOperatorIsDeadLeavesNothing kills the operator after every write of an opening,
// deletes the grant's namespace while nobody looks, its record with it, and starts another operator. The Role is made first:
// the operator does not watch Roles, and must know of it even so.
func TestAGrantWhoseNamespaceGoesWhileTheOperatorIsDeadLeavesNothing(t *testing.T) {
	long(t)
	s := inTheater(t)
	f := flow{name: "opening", acts: []func(*run){applies()}}
	trace := roleFirst(s.play(t, f, nil, nil).trace)
	for k, write := range trace {
		t.Run(fmt.Sprintf("%d %s is the last", k+1, write), func(t *testing.T) {
			r := s.newRun(t, "crash")
			first := r.newLife(&fault{how: killed, at: write}, trace)
			f.acts[0](r)
			first.settle()
			first.cancel()
			r.shut[r.key(theGrant)] = "its namespace was deleted"
			r.deleteNamespace(r.home)
			r.newLife(nil, nil).settle()
			s := r.look()
			for _, o := range slices.Concat(s.bindings, s.credentials) {
				t.Errorf("%T %s is left", o, o.GetName())
			}
			for key := range s.grants {
				t.Errorf("grant %s is still held", key)
			}
		})
	}
}

// roleFirst moves the Role of a credential before everything else of it.
func roleFirst(trace []string) []string {
	role := slices.IndexFunc(trace, func(w string) bool { return strings.HasPrefix(w, "create Role ") })
	what := trace[role]
	out := slices.Delete(slices.Clone(trace), role, role+1)
	first := slices.IndexFunc(out, func(w string) bool { return strings.Contains(w, v1alpha1.CredentialsNamespace) })
	return slices.Insert(out, first, what)
}

// TestAnEngineerTakenOffWhileTheOperatorIsDeadLeavesTheOthersIn kills the operator after every write of an opening, takes
// one of two engineers off while nobody looks, and starts another operator: the grant opens for the one who stays, alone.
func TestAnEngineerTakenOffWhileTheOperatorIsDeadLeavesTheOthersIn(t *testing.T) {
	long(t)
	s := inTheater(t)
	f := flow{name: "opening", acts: []func(*run){applies(both)}}
	quiet := s.play(t, f, nil, nil)
	for k, write := range quiet.trace {
		t.Run(fmt.Sprintf("%d %s is the last", k+1, write), func(t *testing.T) {
			r := s.newRun(t, "crash")
			first := r.newLife(&fault{how: killed, at: write}, quiet.trace)
			f.acts[0](r)
			first.settle()
			first.cancel()
			r.decide("off", gen.RevokingEngineer(theGrant, ana))
			r.newLife(nil, nil).settle()
			if record := r.recordNamed(t, theGrant); !r.isOpen(record) || len(record.Status.RemovedEngineers) != 1 {
				t.Errorf("it is not open for the one who stays: %+v", record.Status)
			}
		})
	}
}

// TestALeaderThatWasStoppedInTheMiddleOpensNothingThatStays stops a leader before every write that it makes, for a minute
// in which another leader takes over and the grant is revoked and closed; then it goes on, without knowing.
func TestALeaderThatWasStoppedInTheMiddleOpensNothingThatStays(t *testing.T) {
	long(t)
	for _, f := range interruptedFlows() {
		t.Run(f.name, func(t *testing.T) {
			s := inTheater(t)
			quiet := s.play(t, f, nil, nil)
			through := map[string]int{}
			for k, write := range quiet.trace {
				e := ends()[k%len(ends())]
				t.Run(fmt.Sprintf("%d before %s it is %s", k+1, write, e.name), func(t *testing.T) {
					for _, what := range s.stop(t, f, write, quiet.trace, e) {
						through[what]++
					}
				})
			}
			t.Logf("of %d stopped leaders, what still got through after the end, and was swept by the other: %v", len(quiet.trace), through)
		})
	}
}

// stop plays one flow whose leader stands still before a write, and returns what it gave after the grant had ended.
func (s *theater) stop(t *testing.T, f flow, write string, trace []string, e end) []string {
	t.Helper()
	r := s.newRun(t, "crash")
	if f.before != nil {
		f.before(r)
	}
	pause := &fault{how: paused, at: write, meanwhile: func() {
		r.log("the leader stands still before: %s", write)
		r.step(time.Minute)
		e.act(r)
		r.newLife(nil, nil).settle()
		r.tolerant, r.stalled = true, true
		r.log("the leader goes on")
	}}
	old := r.newLife(pause, trace)
	f.acts[0](r)
	for !old.wire.fired {
		if writes, _, err := old.round(); writes == 0 && err == nil {
			t.Fatalf("the write did not come: %s", write)
		}
	}
	old.cancel()
	given := r.opened
	r.tolerant, r.opened = false, nil
	r.newLife(nil, nil).settle()
	if record := r.recordNamed(t, theGrant); record.Status.EndTime == nil {
		t.Errorf("the record has no end")
	}
	return given
}

// TestALeaderThatWasStoppedInTheMiddleSpoilsNothing stops a leader before every write of every flow, while another does
// what is to be done; then it goes on. What remains is what remains of an undisturbed run.
func TestALeaderThatWasStoppedInTheMiddleSpoilsNothing(t *testing.T) {
	long(t)
	for _, f := range flows() {
		t.Run(f.name, func(t *testing.T) {
			s := inTheater(t)
			restoreSpare(t, s)
			quiet := s.play(t, f, nil, nil)
			for k, write := range quiet.trace {
				t.Run(fmt.Sprintf("%d before %s", k+1, write), func(t *testing.T) {
					restoreSpare(t, s)
					s.overtake(t, f, write, quiet)
				})
			}
		})
	}
}

func (s *theater) overtake(t *testing.T, f flow, write string, quiet *play) {
	t.Helper()
	r := s.newRun(t, f.policyName())
	if f.before != nil {
		f.before(r)
	}
	other := r.newLife(nil, nil)
	pause := &fault{how: paused, at: write, meanwhile: func() {
		r.log("the leader stands still before: %s", write)
		r.step(10 * time.Second)
		other.settle()
		r.tolerant, r.stalled = true, true
		r.log("the leader goes on")
	}}
	old := r.newLife(pause, quiet.trace)
	for _, act := range f.acts {
		act(r)
		for rounds := 0; !old.wire.fired && rounds < maxRounds; rounds++ {
			writes, wait, err := old.round()
			if writes > 0 || err != nil {
				continue
			}
			if wait == 0 || wait > soon {
				break
			}
			r.step(wait)
		}
		r.tolerant = false
		other.settle()
	}
	old.cancel()
	if !old.wire.fired {
		t.Errorf("the write did not come: %s", write)
	}
	r.rest()
	if outcome := r.outcome(); outcome != quiet.outcome {
		t.Errorf("it ended as\n%s\nand undisturbed it ends as\n%s", outcome, quiet.outcome)
	}
}
