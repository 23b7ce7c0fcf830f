package lifecycle

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
)

var t0 = time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC)

func at(d time.Duration) *metav1.Time {
	t := metav1.NewTime(t0.Add(d))
	return &t
}

// given returns a grant of one hour made at t0, with changes.
func given(changes ...func(*v1alpha1.SupportAccessGrant)) *v1alpha1.SupportAccessGrant {
	g := &v1alpha1.SupportAccessGrant{
		ObjectMeta: metav1.ObjectMeta{Namespace: "mail", Name: "case-1", UID: "uid-1", CreationTimestamp: *at(0)},
		Spec: v1alpha1.SupportAccessGrantSpec{
			Reason: "because", GrantedBy: "tess", Duration: "1h",
			Engineers: []v1alpha1.Engineer{{Name: "ana"}, {Name: "bob"}},
			Roles:     []string{"support-access-configuration"},
		},
	}
	for _, change := range changes {
		change(g)
	}
	return g
}

// recorded returns the record of a grant as it is once access was given, with changes.
func recorded(g *v1alpha1.SupportAccessGrant, changes ...func(*v1alpha1.SupportAccessRecord)) *v1alpha1.SupportAccessRecord {
	created, opened := g.CreationTimestamp, metav1.NewMicroTime(t0)
	r := &v1alpha1.SupportAccessRecord{
		ObjectMeta: metav1.ObjectMeta{Namespace: g.Namespace, Name: g.Name},
		Spec: v1alpha1.SupportAccessRecordSpec{
			Grant:     v1alpha1.RecordedGrant{Namespace: g.Namespace, Name: g.Name, UID: g.UID, SpecDigest: SpecDigest(g.Spec), CreationTime: &created},
			Engineers: names(g), Roles: g.Spec.Roles, Scope: g.Spec.Scope,
		},
		Status: v1alpha1.SupportAccessRecordStatus{StartTime: at(0), ExpirationTime: at(time.Hour), ProvisionedTime: &opened},
	}
	for _, change := range changes {
		change(r)
	}
	return r
}

func unopened(r *v1alpha1.SupportAccessRecord) { r.Status.ProvisionedTime = nil }

// unstarted is the record of a grant that was first seen while admission was not in force.
func unstarted(r *v1alpha1.SupportAccessRecord) { r.Status.StartTime = nil }

func unsettled(r *v1alpha1.SupportAccessRecord) {
	r.Status.StartTime, r.Status.ExpirationTime = nil, nil
}

func endedBecause(reason string) func(*v1alpha1.SupportAccessRecord) {
	return func(r *v1alpha1.SupportAccessRecord) {
		end := metav1.NewMicroTime(t0.Add(time.Minute))
		r.Status.EndTime, r.Status.EndReason, r.Status.EndedBy = &end, reason, "tess"
	}
}

func decided(made time.Duration, action v1alpha1.DecisionAction, target v1alpha1.DecisionTarget) v1alpha1.SupportAccessDecision {
	return v1alpha1.SupportAccessDecision{
		ObjectMeta: metav1.ObjectMeta{Namespace: "mail", Name: "d", CreationTimestamp: *at(made)},
		Spec:       v1alpha1.SupportAccessDecisionSpec{Action: action, Target: target, Reason: "enough", DecidedBy: "tom"},
	}
}

func shortenTo(d time.Duration) v1alpha1.SupportAccessDecision {
	decision := decided(time.Minute, v1alpha1.ActionShorten, v1alpha1.DecisionTarget{Grant: "case-1"})
	decision.Spec.ExpirationTime = at(d)
	return decision
}

func TestDecide(t *testing.T) {
	onGrant := v1alpha1.DecisionTarget{Grant: "case-1"}
	gone := func(namespaces ...string) World { return World{GoneNamespaces: namespaces} }
	twoPlaces := given(func(g *v1alpha1.SupportAccessGrant) { g.Spec.Scope = &v1alpha1.Scope{Namespaces: []string{"a", "b"}} })
	deleted := given(func(g *v1alpha1.SupportAccessGrant) { g.DeletionTimestamp = at(time.Minute) })
	later := given(func(g *v1alpha1.SupportAccessGrant) { g.Spec.StartTime = at(10 * time.Minute) })
	past := given(func(g *v1alpha1.SupportAccessGrant) { g.Spec.Duration, g.Spec.ExpirationTime = "", at(-time.Hour) })
	again := given(func(g *v1alpha1.SupportAccessGrant) { g.UID = "uid-2" })
	edited := given(func(g *v1alpha1.SupportAccessGrant) { g.Spec.Roles = []string{"cluster-admin"} })
	restored := given(func(g *v1alpha1.SupportAccessGrant) {
		g.Status.EndTime, g.Status.EndReason = at(0), v1alpha1.EndRevoked
	})

	for name, c := range map[string]struct {
		facts Facts
		state string
		wants Wants
		end   string
		by    string
	}{
		"a new grant opens":                                {Facts{Grant: given()}, v1alpha1.StateOpening, WantsOpen, "", ""},
		"a grant that was opened stays open":               {Facts{Grant: given(), Record: recorded(given())}, v1alpha1.StateActive, WantsOpen, "", ""},
		"one that starts later waits":                      {Facts{Grant: later}, v1alpha1.StateScheduled, WantsNothing, "", ""},
		"at its start it opens":                            {Facts{Now: t0.Add(10 * time.Minute), Grant: later}, v1alpha1.StateOpening, WantsOpen, "", ""},
		"one whose end has passed is expired from birth":   {Facts{Grant: past}, v1alpha1.StateExpired, WantsClosed, v1alpha1.EndExpired, Operator},
		"a nanosecond before its end it is open":           {Facts{Now: t0.Add(time.Hour - 1), Grant: given(), Record: recorded(given())}, v1alpha1.StateActive, WantsOpen, "", ""},
		"at its end it is over":                            {Facts{Now: t0.Add(time.Hour), Grant: given(), Record: recorded(given())}, v1alpha1.StateExpired, WantsClosed, v1alpha1.EndExpired, Operator},
		"a grant that is being deleted closes":             {Facts{Grant: deleted, Record: recorded(deleted)}, v1alpha1.StateRevoked, WantsClosed, v1alpha1.EndDeleted, Unknown},
		"a grant that is gone closes":                      {Facts{Record: recorded(given())}, v1alpha1.StateRevoked, WantsClosed, v1alpha1.EndDeleted, Unknown},
		"an ended one stays ended":                         {Facts{Grant: given(), Record: recorded(given(), endedBecause(v1alpha1.EndRevoked))}, v1alpha1.StateRevoked, WantsClosed, "", ""},
		"an expired one stays expired when deleted":        {Facts{Grant: deleted, Record: recorded(deleted, endedBecause(v1alpha1.EndExpired))}, v1alpha1.StateExpired, WantsClosed, "", ""},
		"a used name opens nothing":                        {Facts{Grant: again, Record: recorded(given(), endedBecause(v1alpha1.EndExpired))}, v1alpha1.StateRevoked, WantsClosed, "", ""},
		"a used name ends the grant that had it":           {Facts{Grant: again, Record: recorded(given())}, v1alpha1.StateRevoked, WantsClosed, v1alpha1.EndDeleted, Unknown},
		"a spec that was changed past the rules closes":    {Facts{Grant: edited, Record: recorded(given())}, v1alpha1.StateRevoked, WantsClosed, v1alpha1.EndRevoked, Operator},
		"a restored grant whose status ended stays ended":  {Facts{Grant: restored}, v1alpha1.StateRevoked, WantsClosed, "", ""},
		"a decision revokes":                               {Facts{Grant: given(), Record: recorded(given()), Decisions: list(decided(0, v1alpha1.ActionRevoke, onGrant))}, v1alpha1.StateRevoked, WantsClosed, v1alpha1.EndRevoked, "tom"},
		"a decision revokes what is not on record yet":     {Facts{Grant: given(), Decisions: list(decided(0, v1alpha1.ActionRevoke, onGrant))}, v1alpha1.StateRevoked, WantsClosed, v1alpha1.EndRevoked, "tom"},
		"a decision made before the grant binds it not":    {Facts{Grant: given(), Record: recorded(given()), Decisions: list(decided(-time.Second, v1alpha1.ActionRevoke, onGrant))}, v1alpha1.StateActive, WantsOpen, "", ""},
		"a wide one reaches grants made 2 s later":         {Facts{Grant: given(), Record: recorded(given()), Decisions: list(decided(-2*time.Second, v1alpha1.ActionRevoke, v1alpha1.DecisionTarget{Namespace: "All"}))}, v1alpha1.StateRevoked, WantsClosed, v1alpha1.EndRevoked, "tom"},
		"and none made 3 s later":                          {Facts{Grant: given(), Record: recorded(given()), Decisions: list(decided(-3*time.Second, v1alpha1.ActionRevoke, v1alpha1.DecisionTarget{Namespace: "All"}))}, v1alpha1.StateActive, WantsOpen, "", ""},
		"cluster-wide counts only from our own namespace":  {Facts{Grant: given(), Record: recorded(given()), Decisions: list(decided(0, v1alpha1.ActionRevoke, v1alpha1.DecisionTarget{Cluster: "All"}))}, v1alpha1.StateActive, WantsOpen, "", ""},
		"a denial closes what has not opened":              {Facts{Grant: given(), Record: recorded(given(), unopened), Decisions: list(decided(0, v1alpha1.ActionDeny, onGrant))}, v1alpha1.StateDenied, WantsClosed, v1alpha1.EndDenied, "tom"},
		"a denial comes too late for what is open":         {Facts{Grant: given(), Record: recorded(given()), Decisions: list(decided(0, v1alpha1.ActionDeny, onGrant))}, v1alpha1.StateActive, WantsOpen, "", ""},
		"shortened into the past it is over":               {Facts{Now: t0.Add(2 * time.Minute), Grant: given(), Record: recorded(given()), Decisions: list(shortenTo(2 * time.Minute))}, v1alpha1.StateExpired, WantsClosed, v1alpha1.EndExpired, "tom"},
		"an approval does nothing to what is open":         {Facts{Grant: given(), Record: recorded(given()), Decisions: list(decided(0, v1alpha1.ActionApprove, onGrant))}, v1alpha1.StateActive, WantsOpen, "", ""},
		"its namespace deleted, it closes":                 {Facts{Grant: deleted, Record: recorded(deleted), World: gone("mail")}, v1alpha1.StateRevoked, WantsClosed, v1alpha1.EndNamespaceDeleted, Unknown},
		"one of two namespaces deleted, it stays open":     {Facts{Grant: twoPlaces, Record: recorded(twoPlaces), World: gone("a")}, v1alpha1.StateActive, WantsOpen, "", ""},
		"both deleted, it closes":                          {Facts{Grant: twoPlaces, Record: recorded(twoPlaces), World: gone("a", "b")}, v1alpha1.StateRevoked, WantsClosed, v1alpha1.EndNamespaceDeleted, Unknown},
		"a binding taken by hand closes":                   {Facts{Grant: given(), Record: recorded(given()), World: World{Withdrawn: []Withdrawal{{Namespace: "mail"}}}}, v1alpha1.StateRevoked, WantsClosed, v1alpha1.EndBindingsWithdrawn, Unknown},
		"in one of two namespaces, it stays open":          {Facts{Grant: twoPlaces, Record: recorded(twoPlaces), World: World{Withdrawn: []Withdrawal{{Namespace: "a"}}}}, v1alpha1.StateActive, WantsOpen, "", ""},
		"one engineer's credential deleted, it stays open": {Facts{Grant: given(), Record: recorded(given()), World: World{LostCredentials: []string{"ana"}}}, v1alpha1.StateActive, WantsOpen, "", ""},
		"every credential deleted, it closes":              {Facts{Grant: given(), Record: recorded(given()), World: World{LostCredentials: []string{"ana", "bob"}}}, v1alpha1.StateRevoked, WantsClosed, v1alpha1.EndEngineersRemoved, Unknown},
		"a widened role closes":                            {Facts{Grant: given(), Record: recorded(given()), World: World{WidenedRoles: []string{"it reaches Secrets"}}}, v1alpha1.StateRevoked, WantsClosed, v1alpha1.EndRoleWidened, Operator},
		"a deleted role closes":                            {Facts{Grant: given(), Record: recorded(given()), World: World{DeletedRoles: []string{"r"}}}, v1alpha1.StateRevoked, WantsClosed, v1alpha1.EndRoleDeleted, Unknown},
		"a policy's prohibition closes":                    {Facts{Grant: given(), Record: recorded(given()), World: World{Prohibitions: []string{"protected"}}}, v1alpha1.StateRevoked, WantsClosed, v1alpha1.EndPolicyForbids, Operator},
		"a policy's refusal is final":                      {Facts{Grant: given(), World: World{Refusals: []string{"too long"}}}, v1alpha1.StateRefused, WantsClosed, v1alpha1.EndRefused, Operator},
		"a refusal does not close what is open":            {Facts{Grant: given(), Record: recorded(given()), World: World{Refusals: []string{"too long"}}}, v1alpha1.StateActive, WantsOpen, "", ""},
		"what is missing can be mended":                    {Facts{Grant: given(), World: World{Missing: []string{"no such role"}}}, v1alpha1.StateFailed, WantsNothing, "", ""},
		"without admission nothing opens":                  {Facts{Grant: given(), World: World{AdmissionPending: "off"}}, v1alpha1.StateAdmissionNotInForce, WantsNothing, "", ""},
		"without admission what is open stays":             {Facts{Grant: given(), Record: recorded(given()), World: World{AdmissionPending: "off"}}, v1alpha1.StateActive, WantsOpen, "", ""},
		"without admission what must close closes":         {Facts{Grant: deleted, Record: recorded(deleted), World: World{AdmissionPending: "off"}}, v1alpha1.StateRevoked, WantsClosed, v1alpha1.EndDeleted, Unknown},
		"a grant from before admission is never opened":    {Facts{Now: t0.Add(time.Minute), Grant: given(), World: World{AdmissionSince: t0}}, v1alpha1.StateRefused, WantsClosed, v1alpha1.EndRefused, Operator},
		"nor when it was put on record meanwhile":          {Facts{Now: t0.Add(time.Minute), Grant: given(), Record: recorded(given(), unopened, unsettled), World: World{AdmissionSince: t0}}, v1alpha1.StateRefused, WantsClosed, v1alpha1.EndRefused, Operator},
		"nor when it was shortened meanwhile":              {Facts{Now: t0.Add(time.Minute), Grant: given(), Record: recorded(given(), unopened, unstarted), World: World{AdmissionSince: t0}}, v1alpha1.StateRefused, WantsClosed, v1alpha1.EndRefused, Operator},
		"one settled before a break is opened after it":    {Facts{Now: t0.Add(time.Minute), Grant: given(), Record: recorded(given(), unopened), World: World{AdmissionSince: t0.Add(30 * time.Second)}}, v1alpha1.StateOpening, WantsOpen, "", ""},
		"one made a second after it is opened":             {Facts{Now: t0.Add(time.Minute), Grant: given(), World: World{AdmissionSince: t0.Add(-time.Second)}}, v1alpha1.StateOpening, WantsOpen, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if c.facts.Now.IsZero() {
				c.facts.Now = t0
			}
			v := Decide(c.facts)
			if v.State != c.state || v.Wants != c.wants {
				t.Errorf("got %s, wants %d; want %s, %d (%s)", v.State, v.Wants, c.state, c.wants, v.Message)
			}
			end, by := "", ""
			if v.End != nil {
				end, by = v.End.Reason, v.End.By
			}
			if end != c.end || by != c.by {
				t.Errorf("ended %q by %q, want %q by %q", end, by, c.end, c.by)
			}
		})
	}
}

func list(ds ...v1alpha1.SupportAccessDecision) []v1alpha1.SupportAccessDecision { return ds }

// The instants are real ones; what the API server keeps of them, and the decision is judged by, is their second.
func TestAWideDecisionIsAboutEveryGrantThatCanBeMadeBeforeItIsOver(t *testing.T) {
	made := metav1.NewTime(t0)
	for name, c := range map[string]struct {
		target    v1alpha1.DecisionTarget
		namespace string
	}{
		"of a namespace":   {v1alpha1.DecisionTarget{Namespace: v1alpha1.TargetAll}, "mail"},
		"of the cluster":   {v1alpha1.DecisionTarget{Cluster: v1alpha1.TargetAll}, v1alpha1.SystemNamespace},
		"about one person": {v1alpha1.DecisionTarget{Namespace: v1alpha1.TargetAll, Engineer: "ana"}, "mail"},
	} {
		d := decided(0, v1alpha1.ActionRevoke, c.target)
		d.Namespace, d.CreationTimestamp = c.namespace, made
		for later, concerned := range map[time.Duration]bool{
			-time.Hour:                       true,
			0:                                true,
			2 * time.Second:                  true,
			2*time.Second + 1:                true,
			3*time.Second - 1:                true,
			3 * time.Second:                  false,
			3*time.Second + 1:                false,
			wideGrace + time.Hour:            false,
			wideGrace + 999*time.Millisecond: true,
		} {
			t.Run(fmt.Sprintf("one %s, a grant %s later", name, later), func(t *testing.T) {
				grantMade := t0.Add(later)
				if over := !grantMade.Before(WideUntil(&d)); over == concerned {
					t.Errorf("over is %t; want %t", over, !concerned)
				}
				for what, kept := range map[string]time.Time{"its second": grantMade.Truncate(time.Second), "the instant itself": grantMade} {
					key := GrantKey{Namespace: "mail", Name: "case-1", Created: kept}
					if got := Concerns(&d, key); got != concerned {
						t.Errorf("by %s it concerns the grant: %t; want %t", what, got, concerned)
					}
				}
			})
		}
	}
}

func TestOnlyADecisionAboutEveryGrantOfTheClusterIsAnEmergencyStop(t *testing.T) {
	for want, target := range map[string]v1alpha1.DecisionTarget{
		v1alpha1.EndEmergencyStop: {Cluster: v1alpha1.TargetAll}, v1alpha1.EndRevoked: {Namespace: v1alpha1.TargetAll},
	} {
		d := decided(0, v1alpha1.ActionRevoke, target)
		if target.Cluster != "" {
			d.Namespace = v1alpha1.SystemNamespace
		}
		v := Decide(Facts{Now: t0, Grant: given(), Record: recorded(given()), Decisions: list(d)})
		if v.End == nil || v.End.Reason != want || v.State != v1alpha1.StateRevoked {
			t.Errorf("about %+v it ends by %+v, want %s", target, v.End, want)
		}
	}
}

func TestTakingOffOneEngineerLeavesTheOther(t *testing.T) {
	off := decided(0, v1alpha1.ActionRevoke, v1alpha1.DecisionTarget{Grant: "case-1", Engineer: "ana"})
	v := Decide(Facts{Now: t0, Grant: given(), Record: recorded(given()), Decisions: list(off)})
	if len(v.Engineers) != 1 || v.Engineers[0] != "bob" || len(v.Removed) != 1 || v.Removed[0].By != "tom" {
		t.Errorf("got engineers %v, removed %v; want bob to stay and tom to have taken ana off", v.Engineers, v.Removed)
	}
}

func TestAWithdrawnNamespaceStaysOut(t *testing.T) {
	g := given(func(g *v1alpha1.SupportAccessGrant) { g.Spec.Scope = &v1alpha1.Scope{Namespaces: []string{"a", "b"}} })
	r := recorded(g, func(r *v1alpha1.SupportAccessRecord) {
		r.Status.Bindings = []v1alpha1.RecordedBinding{{Namespace: "a", Withdrawn: true}, {Namespace: "b"}}
	})
	if v := Decide(Facts{Now: t0, Grant: g, Record: r}); len(v.Namespaces) != 1 || v.Namespaces[0] != "b" {
		t.Errorf("got namespaces %v, want only b", v.Namespaces)
	}
}

func TestShorteningMovesTheEndEarlierAndNeverLater(t *testing.T) {
	for name, c := range map[string]struct{ to, want time.Duration }{
		"earlier counts":            {30 * time.Minute, 30 * time.Minute},
		"later changes nothing":     {2 * time.Hour, time.Hour},
		"the same changes nothing":  {time.Hour, time.Hour},
		"one second earlier counts": {time.Hour - time.Second, time.Hour - time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			v := Decide(Facts{Now: t0, Grant: given(), Record: recorded(given()), Decisions: list(shortenTo(c.to))})
			if want := t0.Add(c.want); !v.Expiration.Equal(want) || !v.Until.Equal(want) {
				t.Errorf("got an end at %s, looked at again at %s; want %s", v.Expiration, v.Until, want)
			}
			if (v.Shortened != nil) != (c.want < time.Hour) {
				t.Errorf("got shortened by %v", v.Shortened)
			}
		})
	}
}

func TestWhatIsStoredCountsAndNotWhatTheClockWouldSayNow(t *testing.T) {
	r := recorded(given(), unopened)
	v := Decide(Facts{Now: t0.Add(30 * time.Minute), Grant: given(), Record: r})
	if !v.Expiration.Equal(t0.Add(time.Hour)) {
		t.Errorf("a pass half an hour later moved the end to %s", v.Expiration)
	}
}

func TestRoundingNeverLengthensAccess(t *testing.T) {
	s := Settle(given().Spec, t0.Add(999*time.Millisecond))
	if !s.Start.Equal(t0) || !s.Expiration.Equal(t0.Add(time.Hour)) {
		t.Errorf("got %s to %s, want whole seconds, rounded down", s.Start, s.Expiration)
	}
}

func TestTheDigestIsOfWhatCannotBeCorrected(t *testing.T) {
	base := given()
	base.Spec.Case = &v1alpha1.Case{ID: "C-1"}
	want := SpecDigest(base.Spec)
	corrected := base.DeepCopy()
	corrected.Spec.Reason, corrected.Spec.Case.URL = "another", "https://x.example/1"
	corrected.Spec.Engineers[0], corrected.Spec.Engineers[1] = corrected.Spec.Engineers[1], corrected.Spec.Engineers[0]
	if SpecDigest(corrected.Spec) != want {
		t.Error("a corrected reason, link or order changed the digest")
	}
	for name, change := range map[string]func(*v1alpha1.SupportAccessGrantSpec){
		"case":       func(s *v1alpha1.SupportAccessGrantSpec) { s.Case.ID = "C-2" },
		"engineer":   func(s *v1alpha1.SupportAccessGrantSpec) { s.Engineers[0].Name = "eve" },
		"publicKey":  func(s *v1alpha1.SupportAccessGrantSpec) { s.Engineers[0].PublicKey = "age1x" },
		"role":       func(s *v1alpha1.SupportAccessGrantSpec) { s.Roles = append(s.Roles, "more") },
		"scope":      func(s *v1alpha1.SupportAccessGrantSpec) { s.Scope = &v1alpha1.Scope{Cluster: true} },
		"duration":   func(s *v1alpha1.SupportAccessGrantSpec) { s.Duration = "2h" },
		"expiration": func(s *v1alpha1.SupportAccessGrantSpec) { s.ExpirationTime = at(0) },
		"start":      func(s *v1alpha1.SupportAccessGrantSpec) { s.StartTime = at(0) },
		"transport":  func(s *v1alpha1.SupportAccessGrantSpec) { s.Transport = v1alpha1.TransportDirect },
		"grantedBy":  func(s *v1alpha1.SupportAccessGrantSpec) { s.GrantedBy = "eve" },
	} {
		changed := base.DeepCopy()
		change(&changed.Spec)
		if SpecDigest(changed.Spec) == want {
			t.Errorf("a changed %s left the digest as it was", name)
		}
	}
}
