package lifecycle

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Guard says whether the admission policies are in force: since when without a break, or why they are not.
type Guard struct {
	Now, Since time.Time
	Pending    string
}

// holds reports whether what is written now is guarded.
func (g Guard) holds() bool { return g.Pending == "" && !g.Now.Before(g.Since) }

// Written is a spec as it is: when its object was made, and how often it was written.
type Written struct {
	Created    time.Time
	Generation int64
}

// Proof is what was found, when a spec was last looked at, of whether it was written while the admission policies were in
// force, so that its stamp is the writer's.
type Proof struct {
	// Seen is the generation that was seen then, Proven the latest that is known to be guarded.
	Seen, Proven int64
	// GuardedSince is since when the policies had been in force then.
	GuardedSince *metav1.Time
}

// Of reports whether a spec, as it is now, was written while the admission policies were in force: its object was made
// since they are, or it was found so before, or an earlier generation of it was seen since they are.
func (p Proof) Of(w Written, g Guard) bool {
	switch {
	case p.Proven == w.Generation:
		return true
	case !g.holds():
		return false
	case w.Created.After(g.Since):
		return true
	default:
		return p.GuardedSince != nil && !p.GuardedSince.Time.Before(g.Since.Truncate(time.Second)) && p.Seen > 0 && p.Seen < w.Generation
	}
}

// Next is what is found by looking now.
func (p Proof) Next(w Written, g Guard) Proof {
	next := Proof{Seen: w.Generation, Proven: p.Proven, GuardedSince: p.GuardedSince}
	if p.Of(w, g) {
		next.Proven = w.Generation
	}
	// What is written from now on is guarded, until there is a break.
	if g.holds() {
		next.GuardedSince = &metav1.Time{Time: g.Since.Truncate(time.Second).UTC()}
	} else if next.Seen != p.Seen {
		next.GuardedSince = nil
	}
	return next
}
