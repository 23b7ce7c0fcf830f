package cli

import (
	"io"
	"slices"
	"strings"
	"time"

	"k8s.io/cli-runtime/pkg/printers"

	"supportaccess.dev/operator/api/v1alpha1"
)

// inOrder returns the grants that are not over, or with all the ended ones, too: what ends soonest comes first, what has no
// end yet after it, what has ended last, the latest end first.
func inOrder(grants []v1alpha1.SupportAccessGrant, all allOrOpen) []v1alpha1.SupportAccessGrant {
	kept := slices.DeleteFunc(slices.Clone(grants), func(g v1alpha1.SupportAccessGrant) bool { return all == openOnly && hasEnded(&g) })
	slices.SortStableFunc(kept, func(a, b v1alpha1.SupportAccessGrant) int {
		if byEnd := compareEnds(&a, &b); byEnd != 0 {
			return byEnd
		}
		if a.Namespace != b.Namespace {
			return strings.Compare(a.Namespace, b.Namespace)
		}
		return strings.Compare(a.Name, b.Name)
	})
	return kept
}

// allOrOpen says whether the ended grants are wanted, too.
type allOrOpen int

const (
	openOnly allOrOpen = iota
	endedToo
)

func compareEnds(a, b *v1alpha1.SupportAccessGrant) int {
	if rank := rankOf(a) - rankOf(b); rank != 0 {
		return rank
	}
	x, y := endOf(a), endOf(b)
	switch {
	case x.IsZero() || y.IsZero():
		return 0
	case hasEnded(a):
		return y.Compare(x.Time)
	default:
		return x.Compare(y.Time)
	}
}

// rankOf is the part of the list in which a grant is.
func rankOf(g *v1alpha1.SupportAccessGrant) int {
	switch {
	case hasEnded(g):
		return 2
	case endOf(g).IsZero():
		return 1
	default:
		return 0
	}
}

// printGrants writes the table of grants.
func printGrants(w io.Writer, grants []v1alpha1.SupportAccessGrant, now time.Time, wide columns) error {
	heads := []string{"NAMESPACE", "NAME", "STATUS", "ENGINEERS", "ROLES", "EXPIRES-IN", "CASE", "GRANTED-BY"}
	if wide == allColumns {
		heads = append(heads, "EXPIRES", "SCOPE", "TRANSPORT", "LAST-SEEN", "REASON")
	}
	table := printers.GetNewTabWriter(w)
	line(table, heads...)
	for i := range grants {
		g := &grants[i]
		cells := []string{
			g.Namespace, g.Name, stateOf(g), strings.Join(namesOf(g), ","), dash(strings.Join(g.Spec.Roles, ",")), expiresIn(g, now),
			dash(caseOf(g)), dash(g.Spec.GrantedBy),
		}
		if wide == allColumns {
			cells = append(cells, utc(endOf(g)), scopeOf(g), dash(string(transportOf(g))), lastSeen(g, now), g.Spec.Reason)
		}
		line(table, cells...)
	}
	return table.Flush()
}

// columns says which columns a table has.
type columns int

const (
	fewColumns columns = iota
	allColumns
)

// expiresIn says in how long access ends, or since when it is over.
func expiresIn(g *v1alpha1.SupportAccessGrant, now time.Time) string {
	end := endOf(g)
	switch {
	case hasEnded(g) && end.IsZero():
		return "ended"
	case hasEnded(g):
		return "ended " + ago(end, now)
	case end.IsZero():
		return string(g.Spec.Duration) + " once open"
	case end.After(now):
		return span(end.Sub(now))
	default:
		return "overdue " + span(now.Sub(end.Time))
	}
}

func caseOf(g *v1alpha1.SupportAccessGrant) string {
	if g.Spec.Case == nil {
		return ""
	}
	return g.Spec.Case.ID
}

// scopeOf says where the roles hold.
func scopeOf(g *v1alpha1.SupportAccessGrant) string {
	switch {
	case g.Spec.Scope == nil:
		return g.Namespace
	case g.Spec.Scope.Cluster:
		return "the whole cluster"
	default:
		return strings.Join(g.Spec.Scope.Namespaces, ",")
	}
}

// transportOf is the transport in force, else the one that was asked for.
func transportOf(g *v1alpha1.SupportAccessGrant) v1alpha1.Transport {
	if g.Status.Transport != "" {
		return g.Status.Transport
	}
	return g.Spec.Transport
}

// lastSeen says when any of the engineers was last seen.
func lastSeen(g *v1alpha1.SupportAccessGrant, now time.Time) string {
	last := ""
	var at time.Time
	for _, e := range g.Status.Engineers {
		if !e.LastSeenTime.IsZero() && e.LastSeenTime.After(at) {
			at, last = e.LastSeenTime.Time, ago(e.LastSeenTime, now)
		}
	}
	return dash(last)
}
