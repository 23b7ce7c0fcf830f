package lifecycle

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"supportaccess.dev/operator/api/v1alpha1"
)

// approval returns an approval of case-1 by somebody, made some time after the grant, with changes.
func approval(by string, made time.Duration, changes ...func(*v1alpha1.SupportAccessDecision)) v1alpha1.SupportAccessDecision {
	d := decided(made, v1alpha1.ActionApprove, v1alpha1.DecisionTarget{Grant: "case-1"})
	d.Name, d.UID = "by-"+by, types.UID("uid-of-"+by)
	d.Spec.DecidedBy, d.Spec.Authority = by, v1alpha1.AuthorityNamespace
	for _, change := range changes {
		change(&d)
	}
	return d
}

func inCluster(d *v1alpha1.SupportAccessDecision) { d.Spec.Authority = v1alpha1.AuthorityCluster }

func unstamped(d *v1alpha1.SupportAccessDecision) { d.Spec.Authority = "" }

func ofUID(uid types.UID) func(*v1alpha1.SupportAccessDecision) {
	return func(d *v1alpha1.SupportAccessDecision) { d.Spec.Target.UID = uid }
}

// asking is a world in which so many must approve within 72 hours.
func asking(needed int, changes ...func(*World)) World {
	w := World{Approvals: ApprovalRule{Needed: needed, Timeout: 72 * time.Hour, Because: "policy default asks for it"}}
	for _, change := range changes {
		change(&w)
	}
	return w
}

const robot = "system:serviceaccount:ci:approver"

func TestAGrantWaitsUntilAsManyApproveAsMust(t *testing.T) {
	wide := given(func(g *v1alpha1.SupportAccessGrant) {
		g.Spec.Scope = &v1alpha1.Scope{Namespaces: []string{"mail", "shop"}}
	})
	cluster := given(func(g *v1alpha1.SupportAccessGrant) { g.Spec.Scope = &v1alpha1.Scope{Cluster: true} })
	home := given(func(g *v1alpha1.SupportAccessGrant) { g.Spec.Scope = &v1alpha1.Scope{Namespaces: []string{"mail"}} })
	authored := given(func(g *v1alpha1.SupportAccessGrant) {
		g.Annotations = map[string]string{v1alpha1.AnnotationAuthor: "Tom@customer.example"}
	})
	claimed := recorded(given(), unopened, unsettled, func(r *v1alpha1.SupportAccessRecord) { r.Spec.ClaimedAuthor = "tom@customer.example" })
	listed := func(w *World) { w.Approvals.ServiceAccounts = []string{robot} }
	byAPerson := func(w *World) { w.Approvals.ByPeople = 1 }
	guardedSince := func(d time.Duration) func(*World) { return func(w *World) { w.AdmissionSince = t0.Add(d) } }
	grantedBy := func(who string) *v1alpha1.SupportAccessGrant {
		return given(func(g *v1alpha1.SupportAccessGrant) { g.Spec.GrantedBy = who })
	}
	inRecord := recorded(given(), unopened, unsettled, func(r *v1alpha1.SupportAccessRecord) {
		r.Status.AwaitingApprovalTime = at(0)
		r.Status.Approvals = []v1alpha1.RecordedApproval{{By: "tom", Decision: "by-tom", UID: "uid-of-tom", Time: *at(time.Minute)}}
	})

	for name, c := range map[string]struct {
		facts Facts
		state string
	}{
		"nobody approved":                             {Facts{Grant: given(), World: asking(1)}, v1alpha1.StateAwaitingApproval},
		"an admin did":                                {Facts{Grant: given(), World: asking(1), Decisions: list(approval("tom", time.Minute))}, v1alpha1.StateOpening},
		"one of two did":                              {Facts{Grant: given(), World: asking(2), Decisions: list(approval("tom", time.Minute))}, v1alpha1.StateAwaitingApproval},
		"both did":                                    {Facts{Grant: given(), World: asking(2), Decisions: list(approval("tom", time.Minute), approval("tim", time.Minute))}, v1alpha1.StateOpening},
		"one did twice":                               {Facts{Grant: given(), World: asking(2), Decisions: list(approval("tom", time.Minute), approval("tom", time.Hour))}, v1alpha1.StateAwaitingApproval},
		"one did, also in capitals":                   {Facts{Grant: given(), World: asking(2), Decisions: list(approval("tom", time.Minute), approval("TOM", time.Minute))}, v1alpha1.StateAwaitingApproval},
		"only the granter did":                        {Facts{Grant: given(), World: asking(1), Decisions: list(approval("tess", time.Minute))}, v1alpha1.StateAwaitingApproval},
		"only an engineer did":                        {Facts{Grant: given(), World: asking(1), Decisions: list(approval("ana", time.Minute))}, v1alpha1.StateAwaitingApproval},
		"only an engineer did, as OIDC has it":        {Facts{Grant: given(), World: asking(1), Decisions: list(approval("oidc:Ana", time.Minute))}, v1alpha1.StateAwaitingApproval},
		"somebody of whose name an engineer's ends":   {Facts{Grant: given(), World: asking(1), Decisions: list(approval("susana", time.Minute))}, v1alpha1.StateOpening},
		"only one of our identities did":              {Facts{Grant: given(), World: asking(1), Decisions: list(approval("supportaccess.dev:abc", time.Minute))}, v1alpha1.StateAwaitingApproval},
		"before the grant existed":                    {Facts{Grant: given(), World: asking(1), Decisions: list(approval("tom", -time.Second))}, v1alpha1.StateAwaitingApproval},
		"in the very second of its making":            {Facts{Grant: given(), World: asking(1), Decisions: list(approval("tom", 0))}, v1alpha1.StateAwaitingApproval},
		"in that second, naming its UID":              {Facts{Grant: given(), World: asking(1), Decisions: list(approval("tom", 0, ofUID("uid-1")))}, v1alpha1.StateOpening},
		"of another UID":                              {Facts{Grant: given(), World: asking(1), Decisions: list(approval("tom", time.Minute, ofUID("uid-0")))}, v1alpha1.StateAwaitingApproval},
		"in another namespace":                        {Facts{Grant: given(), World: asking(1), Decisions: list(approval("tom", time.Minute, func(d *v1alpha1.SupportAccessDecision) { d.Namespace = "shop" }))}, v1alpha1.StateAwaitingApproval},
		"of another grant":                            {Facts{Grant: given(), World: asking(1), Decisions: list(approval("tom", time.Minute, func(d *v1alpha1.SupportAccessDecision) { d.Spec.Target.Grant = "case-2" }))}, v1alpha1.StateAwaitingApproval},
		"of a request of that name":                   {Facts{Grant: given(), World: asking(1), Decisions: list(approval("tom", time.Minute, func(d *v1alpha1.SupportAccessDecision) { d.Spec.Target = v1alpha1.DecisionTarget{Request: "case-1"} }))}, v1alpha1.StateAwaitingApproval},
		"without a stamp":                             {Facts{Grant: given(), World: asking(1), Decisions: list(approval("tom", time.Minute, unstamped))}, v1alpha1.StateAwaitingApproval},
		"by nobody":                                   {Facts{Grant: given(), World: asking(1), Decisions: list(approval("", time.Minute))}, v1alpha1.StateAwaitingApproval},
		"a revocation of one engineer is no yes":      {Facts{Grant: given(), World: asking(1), Decisions: list(decided(time.Minute, v1alpha1.ActionRevoke, v1alpha1.DecisionTarget{Grant: "case-1", Engineer: "bob"}))}, v1alpha1.StateAwaitingApproval},
		"with authority here for more than here":      {Facts{Grant: wide, World: asking(1), Decisions: list(approval("tom", time.Minute))}, v1alpha1.StateAwaitingApproval},
		"with authority everywhere for more":          {Facts{Grant: wide, World: asking(1), Decisions: list(approval("tom", time.Minute, inCluster))}, v1alpha1.StateOpening},
		"with authority here for the cluster":         {Facts{Grant: cluster, World: asking(1), Decisions: list(approval("tom", time.Minute))}, v1alpha1.StateAwaitingApproval},
		"with authority here for here, in words":      {Facts{Grant: home, World: asking(1), Decisions: list(approval("tom", time.Minute))}, v1alpha1.StateOpening},
		"a ServiceAccount that nobody lists":          {Facts{Grant: given(), World: asking(1), Decisions: list(approval(robot, time.Minute))}, v1alpha1.StateAwaitingApproval},
		"a ServiceAccount that the policy lists":      {Facts{Grant: given(), World: asking(1, listed), Decisions: list(approval(robot, time.Minute))}, v1alpha1.StateOpening},
		"a listed one where a person must":            {Facts{Grant: given(), World: asking(1, listed, byAPerson), Decisions: list(approval(robot, time.Minute))}, v1alpha1.StateAwaitingApproval},
		"a listed one beside a person":                {Facts{Grant: given(), World: asking(2, listed, byAPerson), Decisions: list(approval(robot, time.Minute), approval("tom", time.Minute))}, v1alpha1.StateOpening},
		"the pipeline that granted":                   {Facts{Grant: grantedBy(robot), World: asking(1, listed), Decisions: list(approval(robot, time.Minute))}, v1alpha1.StateAwaitingApproval},
		"whom the grant names as its author":          {Facts{Grant: authored, World: asking(1), Decisions: list(approval("oidc:tom@customer.example", time.Minute))}, v1alpha1.StateAwaitingApproval},
		"another than its author":                     {Facts{Grant: authored, World: asking(1), Decisions: list(approval("oidc:tim@customer.example", time.Minute))}, v1alpha1.StateOpening},
		"its author, who is not named there any more": {Facts{Grant: given(), Record: claimed, World: asking(1), Decisions: list(approval("tom@customer.example", time.Minute))}, v1alpha1.StateAwaitingApproval},
		"before admission was in force":               {Facts{Grant: given(), Record: inRecord, World: asking(1, guardedSince(2*time.Minute)), Decisions: list(approval("tim", time.Minute))}, v1alpha1.StateAwaitingApproval},
		"on record since before it was":               {Facts{Grant: given(), Record: inRecord, World: asking(1, guardedSince(2*time.Minute)), Decisions: list(approval("tom", time.Minute))}, v1alpha1.StateOpening},
		"a record alone approves nothing":             {Facts{Grant: given(), Record: inRecord, World: asking(1)}, v1alpha1.StateAwaitingApproval},
		"one that is being deleted still counts":      {Facts{Grant: given(), World: asking(1), Decisions: list(approval("tom", time.Minute, func(d *v1alpha1.SupportAccessDecision) { d.DeletionTimestamp = at(time.Hour) }))}, v1alpha1.StateOpening},
	} {
		t.Run(name, func(t *testing.T) {
			c.facts.Now = t0.Add(2 * time.Hour)
			v := Decide(c.facts)
			if v.State != c.state {
				t.Errorf("got %s, want %s (%s)", v.State, c.state, v.Message)
			}
			if v.State == v1alpha1.StateAwaitingApproval && (v.Wants != WantsNothing || !v.Start.IsZero() || v.End != nil) {
				t.Errorf("a grant that waits wants %d, starts %s, ends %v", v.Wants, v.Start, v.End)
			}
		})
	}
}

func TestTheTimeOfAGrantRunsFromItsApproval(t *testing.T) {
	waiting := recorded(given(), unopened, unsettled, func(r *v1alpha1.SupportAccessRecord) { r.Status.AwaitingApprovalTime = at(0) })
	facts := Facts{Now: t0.Add(30 * time.Hour), Grant: given(), Record: waiting, World: asking(1), Decisions: list(approval("tom", 29*time.Hour))}
	if v := Decide(facts); !v.Start.Equal(t0.Add(30*time.Hour)) || !v.Expiration.Equal(t0.Add(31*time.Hour)) {
		t.Errorf("a grant of 1h that is approved after 30h lasts from %s to %s", v.Start, v.Expiration)
	}
	until := given(func(g *v1alpha1.SupportAccessGrant) { g.Spec.Duration, g.Spec.ExpirationTime = "", at(40*time.Hour) })
	facts.Grant, facts.Record, facts.Decisions = until, nil, nil
	if v := Decide(facts); v.State != v1alpha1.StateAwaitingApproval || !v.Expiration.Equal(t0.Add(40*time.Hour)) || !v.Until.Equal(v.Expiration) {
		t.Errorf("one that ends at an instant is %s, ends at %s, is looked at again at %s", v.State, v.Expiration, v.Until)
	}
	facts.Now = t0.Add(40 * time.Hour)
	if v := Decide(facts); v.State != v1alpha1.StateExpired {
		t.Errorf("at its end one that nobody approved is %s", v.State)
	}
	shortened := recorded(given(), unopened, unsettled, func(r *v1alpha1.SupportAccessRecord) {
		r.Status.AwaitingApprovalTime, r.Status.ExpirationTime = at(0), at(30*time.Hour+time.Minute)
	})
	facts = Facts{Now: t0.Add(30 * time.Hour), Grant: given(), Record: shortened, World: asking(1), Decisions: list(approval("tom", time.Hour))}
	if v := Decide(facts); !v.Start.Equal(facts.Now) || !v.Expiration.Equal(t0.Add(30*time.Hour+time.Minute)) {
		t.Errorf("one that was shortened while it waited lasts from %s to %s", v.Start, v.Expiration)
	}
}

func TestWhatIsNotApprovedInTimeIsDenied(t *testing.T) {
	for name, c := range map[string]struct {
		now       time.Duration
		decisions []v1alpha1.SupportAccessDecision
		pending   string
		state     string
	}{
		"a nanosecond before":                            {72*time.Hour - 1, nil, "", v1alpha1.StateAwaitingApproval},
		"at the instant":                                 {72 * time.Hour, nil, "", v1alpha1.StateDenied},
		"with an approval that comes too late":           {73 * time.Hour, list(approval("tom", 72*time.Hour)), "", v1alpha1.StateDenied},
		"with one in time, however late the operator is": {99 * time.Hour, list(approval("tom", 72*time.Hour-time.Second)), "", v1alpha1.StateOpening},
		"while nobody's word is proven":                  {99 * time.Hour, nil, "off", v1alpha1.StateAdmissionNotInForce},
		"denied by a person at once":                     {time.Minute, list(approval("tom", time.Minute), decided(time.Minute, v1alpha1.ActionDeny, v1alpha1.DecisionTarget{Grant: "case-1"})), "", v1alpha1.StateDenied},
	} {
		t.Run(name, func(t *testing.T) {
			v := Decide(Facts{Now: t0.Add(c.now), Grant: given(), Decisions: c.decisions, World: asking(1, func(w *World) { w.AdmissionPending = c.pending })})
			if v.State != c.state {
				t.Fatalf("got %s, want %s (%s)", v.State, c.state, v.Message)
			}
			if c.state == v1alpha1.StateAwaitingApproval && !v.Until.Equal(t0.Add(72*time.Hour)) {
				t.Errorf("it is looked at again at %s", v.Until)
			}
		})
	}
}

func TestWhatIsOpenMustBeApprovedByTheDecisionsThemselves(t *testing.T) {
	opened := func(needed int32) *v1alpha1.SupportAccessRecord {
		return recorded(given(), func(r *v1alpha1.SupportAccessRecord) {
			r.Status.ApprovalsNeeded = needed
			r.Status.Approvals = []v1alpha1.RecordedApproval{{By: "tom", Decision: "by-tom", UID: "uid-of-tom", Time: *at(time.Minute)}}
		})
	}
	late := approval("tom", 100*time.Hour)
	for name, c := range map[string]struct {
		record    *v1alpha1.SupportAccessRecord
		world     World
		decisions []v1alpha1.SupportAccessDecision
		state     string
	}{
		"approved":                                   {opened(1), asking(1), list(approval("tom", time.Minute)), v1alpha1.StateActive},
		"the record says so, and no decision":        {opened(1), asking(1), nil, v1alpha1.StateRevoked},
		"the record says that none was needed":       {opened(0), asking(1), nil, v1alpha1.StateRevoked},
		"by the granter":                             {opened(1), asking(1), list(approval("tess", time.Minute)), v1alpha1.StateRevoked},
		"a policy that asks for more closes nothing": {opened(1), asking(2), list(approval("tom", time.Minute)), v1alpha1.StateActive},
		"one of the two that it needed":              {opened(2), asking(2), list(approval("tom", time.Minute)), v1alpha1.StateRevoked},
		"a policy that asks for none any more":       {opened(1), asking(0), nil, v1alpha1.StateActive},
		"a shorter timeout closes nothing":           {opened(1), asking(1), list(late), v1alpha1.StateActive},
		"nor does a break of admission":              {opened(1), asking(1, func(w *World) { w.AdmissionSince = t0.Add(time.Hour) }), list(approval("tom", time.Minute)), v1alpha1.StateActive},
	} {
		t.Run(name, func(t *testing.T) {
			v := Decide(Facts{Now: t0.Add(time.Minute), Grant: given(), Record: c.record, World: c.world, Decisions: c.decisions})
			if v.State != c.state {
				t.Errorf("got %s, want %s (%s)", v.State, c.state, v.Message)
			}
			if v.End != nil && v.End.Reason != v1alpha1.EndPolicyForbids {
				t.Errorf("it ends by %s", v.End.Reason)
			}
		})
	}
}

func TestAGrantThatWaitedWhileAdmissionWasInForceIsNotUnprovenAfterABreak(t *testing.T) {
	waiting := recorded(given(), unopened, unsettled, func(r *v1alpha1.SupportAccessRecord) { r.Status.AwaitingApprovalTime = at(0) })
	v := Decide(Facts{Now: t0.Add(2 * time.Hour), Grant: given(), Record: waiting, World: asking(1, func(w *World) { w.AdmissionSince = t0.Add(time.Hour) })})
	if v.State != v1alpha1.StateAwaitingApproval {
		t.Errorf("it is %s: %s", v.State, v.Message)
	}
}

func TestWhatAGrantStillNeedsIsSaid(t *testing.T) {
	rule := ApprovalRule{Needed: 2, ByPeople: 1, Because: "policy default asks for 2, for support-access-content"}
	found := []Approval{{By: robot, Decision: &v1alpha1.SupportAccessDecision{ObjectMeta: metav1.ObjectMeta{Name: "d"}}}}
	for _, want := range []string{"1 of 2 approvals: policy default asks for 2, for support-access-content", "approved by " + robot} {
		if got := Awaited(rule, found); !strings.Contains(got, want) {
			t.Errorf("it says %q, and not %q", got, want)
		}
	}
}
