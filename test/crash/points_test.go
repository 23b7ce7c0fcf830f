package crash

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/test/gen"
)

// TestWhateverWriteFailsTheGrantIsWhollyOpenOrWhollyClosed disturbs every write of every flow: it fails, its answer is
// lost, or it is the last of its process. What remains is what remains of an undisturbed run. In the short run these are
// one flow of opening and one of closing; every write of theirs fails, and is the last.
func TestWhateverWriteFailsTheGrantIsWhollyOpenOrWhollyClosed(t *testing.T) {
	all, hows := flows(), []string{failed, lost, killed}
	if testing.Short() {
		all, hows = slices.DeleteFunc(all, func(f flow) bool { return !f.short }), []string{failed, killed}
	}
	for _, f := range all {
		t.Run(f.name, func(t *testing.T) {
			s := inTheater(t)
			restoreSpare(t, s)
			quiet := s.play(t, f, nil, nil)
			t.Logf("%d writes:\n  %s", len(quiet.trace), strings.Join(quiet.trace, "\n  "))
			for k, write := range quiet.trace {
				for _, how := range hows {
					t.Run(fmt.Sprintf("%d %s %s", k+1, write, how), func(t *testing.T) {
						restoreSpare(t, s)
						disturbed := s.play(t, f, &fault{how: how, at: write}, quiet.trace)
						disturbed.sameAs(t, quiet)
					})
				}
			}
		})
	}
}

// play is what came of one run of a flow.
type play struct {
	// trace are the writes in answer to the acts.
	trace   []string
	outcome string
	hit     bool
	strayed []string
}

// play runs a flow, with a fault or without.
func (s *theater) play(t *testing.T, f flow, fault *fault, trace []string) *play {
	t.Helper()
	r := s.newRun(t, f.policyName())
	if f.before != nil {
		f.before(r)
	}
	l := r.newLife(fault, trace)
	p := &play{}
	for _, act := range f.acts {
		act(r)
		p.trace = append(p.trace, l.settle()...)
		if l.wire.isDead() {
			p.hit, p.strayed = true, l.wire.strayed
			r.log("another process takes over")
			l.cancel()
			l = r.newLife(nil, nil)
			l.settle()
		}
	}
	p.hit = p.hit || l.wire.fired
	p.strayed = append(p.strayed, l.wire.strayed...)
	r.rest()
	// A process that starts when all is quiet finds nothing to write.
	if more := r.newLife(nil, nil).settle(); len(more) > 0 {
		r.wrong("a process that started when all was quiet wrote: %s", strings.Join(more, ", "))
	}
	p.outcome = r.outcome()
	return p
}

// keptBy is when at the latest a record that lies with its namespace alone has its copy.
const keptBy = 15 * time.Second

// rest lets time go on until what is copied only after a while was copied: whether a run took that long is no difference
// between it and another.
func (r *run) rest() {
	r.step(keptBy)
	r.newLife(nil, nil).settle()
	s := r.look()
	for key, record := range s.records {
		copied := lifecycle.TombstoneKey(grantKeyOf(record))
		if record.Status.EndTime != nil && s.records[copied] == nil {
			r.wrong("record %s has long had an end, and %s is not there", key, copied)
		}
	}
}

// sameAs compares a disturbed run with an undisturbed one.
func (p *play) sameAs(t *testing.T, quiet *play) {
	t.Helper()
	if len(p.strayed) > 0 {
		t.Errorf("the run strayed from the trace: %s", strings.Join(p.strayed, "; "))
	}
	if !p.hit {
		t.Errorf("the write did not come; the writes were:\n  %s", strings.Join(p.trace, "\n  "))
	}
	if p.outcome != quiet.outcome {
		t.Errorf("it ended as\n%s\nand undisturbed it ends as\n%s", p.outcome, quiet.outcome)
	}
}

// restoreSpare puts the spare role back.
func restoreSpare(t *testing.T, s *theater) {
	t.Helper()
	role := gen.ClusterRole(spare, spareRules()...)
	if err := s.admin.Update(t.Context(), role); err != nil {
		t.Fatalf("put the spare role back: %v", err)
	}
	if err := s.caches.catchUp(t.Context(), role); err != nil {
		t.Fatal(err)
	}
}
