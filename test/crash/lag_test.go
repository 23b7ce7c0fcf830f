package crash

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
)

// laggards are the kinds whose cache lags, while that of the others does not.
func laggards() map[string][]string {
	sets := map[string][]string{
		"everything":           remembered,
		"all but records":      slices.DeleteFunc(slices.Clone(remembered), func(k string) bool { return k == "SupportAccessRecord" }),
		"all but grants":       slices.DeleteFunc(slices.Clone(remembered), func(k string) bool { return k == "SupportAccessGrant" }),
		"children":             {"RoleBinding", "ClusterRoleBinding", "Secret", "ServiceAccount"},
		"records and children": {"SupportAccessRecord", "RoleBinding", "ClusterRoleBinding", "Secret", "ServiceAccount"},
	}
	for _, kind := range remembered {
		sets[kind] = []string{kind}
	}
	return sets
}

// newLaggard starts a process whose cache shows some kinds as they were at an instant.
func (r *run) newLaggard(m *memory, kinds []string, instant int) *life {
	w := r.newWire()
	l := r.lifeWith(w, lagging{Client: w.client(), memory: m, instant: func(kind string) int {
		if slices.Contains(kinds, kind) {
			return instant
		}
		return m.instant()
	}})
	l.lags = true
	return l
}

// TestACacheThatLagsRevokesNobody has a process look at an open grant through a cache that shows the past, each moment of
// it: before the role and the policy were mended, before the grant was made, before it was opened, shortened, and rid of an
// engineer. Whatever it sees, it takes nothing from anybody.
func TestACacheThatLagsRevokesNobody(t *testing.T) {
	long(t)
	s := inTheater(t)
	restoreSpare(t, s)
	r := s.newRun(t, "crash")
	r.withOther("crash")
	m := newMemory(r)
	own := r.policyOfItsOwn()
	r.editPolicy(own, func(p *v1alpha1.SupportAccessPolicySpec) {
		p.NewGrants = v1alpha1.NewGrantsSuspended
		p.ProtectedNamespaces = append(p.ProtectedNamespaces, r.home)
	})
	r.setSpare(gen.Rule("", []string{"secrets"}, []string{"list"}))
	r.editPolicy(own, func(p *v1alpha1.SupportAccessPolicySpec) {
		p.NewGrants, p.ProtectedNamespaces = v1alpha1.NewGrantsAllowed, nil
	})
	r.setSpare(spareRules()...)
	r.grant(theGrant, both, gen.WithRoles(spare), gen.WithScope(r.home, r.other))
	r.newLife(nil, nil).settle()
	r.shorten(theGrant, 20*time.Minute)
	r.newLife(nil, nil).settle()
	r.decide("off", gen.RevokingEngineer(theGrant, ben))
	r.newLife(nil, nil).settle()

	before, looks := r.atRest(), 0
	for name, kinds := range laggards() {
		t.Run(name, func(t *testing.T) {
			for _, instant := range m.instants(kinds) {
				l := r.newLaggard(m, kinds, instant)
				r.log("a cache that shows %s at %d", name, instant)
				l.glance()
				looks++
				if after := r.atRest(); after != before {
					t.Fatalf("%s, as at write %d: it was\n%s\nand is\n%s", name, instant, before, after)
				}
			}
		})
	}
	r.inspectQuiet()
	t.Logf("%d looks at %d moments of the past", looks, m.instant()+1)
}

// atRest says what has become of everything, and which bindings there are.
func (r *run) atRest() string {
	var uids []string
	for _, b := range r.look().bindings {
		uids = append(uids, string(b.GetUID()))
	}
	slices.Sort(uids)
	return r.outcome() + "\nbindings " + strings.Join(uids, " ")
}

// TestACacheThatHasNotHeardOfTheEndOpensNothing ends a grant in each way, before it was opened, half opened and open, and
// has processes look at it through caches that show the past. None of them gives anything, and nothing is left.
func TestACacheThatHasNotHeardOfTheEndOpensNothing(t *testing.T) {
	for _, e := range ends() {
		for kill := range 16 {
			if testing.Short() && (kill != 2 && kill != 5 || e.name != "deleted" && e.name != "revoked") {
				continue
			}
			if kill == 0 && strings.Contains(e.name, "again") {
				// A grant that nobody saw and that is made again is a new one.
				continue
			}
			t.Run(fmt.Sprintf("%s after %d writes", e.name, kill), func(t *testing.T) {
				s := inTheater(t)
				r := s.newRun(t, "crash")
				m := newMemory(r)
				r.grant(theGrant)
				r.killAfter(kill)
				if e.name == "expired" && r.look().recordOf(r.key(theGrant)) == nil {
					t.Skip("the grant is not on record yet: its time has not begun")
				}
				e.act(r)
				heard := m.instant()
				for _, kinds := range laggards() {
					for instant := heard - 1; instant >= 0; instant-- {
						if (instant+kill)%5 == 0 {
							r.newLaggard(m, kinds, instant).glance()
						}
					}
				}
				r.newLife(nil, nil).settle()
				for _, kinds := range laggards() {
					r.newLaggard(m, kinds, heard-1).glance()
				}
				r.newLife(nil, nil).settle()
			})
		}
	}
}

// killAfter runs a process that is killed after so many writes.
func (r *run) killAfter(writes int) {
	l := r.newLife(nil, nil)
	l.wire.lifespan = writes
	l.wire.mortal = true
	l.wire.dead = writes == 0
	l.settle()
}

// TestAFlowSeenThroughALaggingCacheEndsTheSame plays every flow with a cache that is a few writes behind, until it catches
// up. What remains is what remains where nothing lagged.
func TestAFlowSeenThroughALaggingCacheEndsTheSame(t *testing.T) {
	long(t)
	for _, f := range flows() {
		if strings.Contains(f.name, "namespace deleted") || strings.Contains(f.name, "namespace of the scope") {
			// What the namespace controller deletes, the harness does not see.
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			s := inTheater(t)
			restoreSpare(t, s)
			quiet := s.play(t, f, nil, nil)
			for _, lag := range []int{1, 2, 3, 5, 8, 13} {
				t.Run(fmt.Sprintf("%d writes behind", lag), func(t *testing.T) {
					restoreSpare(t, s)
					s.playBehind(t, f, lag, quiet)
				})
			}
		})
	}
}

func (s *theater) playBehind(t *testing.T, f flow, lag int, quiet *play) {
	t.Helper()
	r := s.newRun(t, f.policyName())
	m := newMemory(r)
	if f.before != nil {
		f.before(r)
	}
	behind := lag
	w := r.newWire()
	l := r.lifeWith(w, lagging{Client: w.client(), memory: m, instant: func(string) int { return max(0, m.instant()-behind) }})
	for _, act := range f.acts {
		behind = lag
		act(r)
		for ; behind > 0; behind-- {
			l.glance()
		}
		l.settle()
	}
	r.rest()
	if more := r.newLife(nil, nil).settle(); len(more) > 0 {
		t.Errorf("a process that started when all was quiet wrote: %s", strings.Join(more, ", "))
	}
	if outcome := r.outcome(); outcome != quiet.outcome {
		t.Errorf("it ended as\n%s\nand where nothing lagged as\n%s", outcome, quiet.outcome)
	}
}
