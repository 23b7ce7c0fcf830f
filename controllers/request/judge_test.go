package request

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/test/gen"
)

// course is a request from pass to pass, with the record and the status that each leaves.
type course struct {
	t *testing.T
	s sight
}

func newCourse(t *testing.T, mods ...func(*v1alpha1.SupportAccessRequest)) *course {
	request := gen.Request("wish", gen.Namespace, mods...)
	return &course{t: t, s: sight{
		now: gen.Epoch.Add(time.Second), key: types.NamespacedName{Namespace: request.Namespace, Name: request.Name}, request: request,
		limit: 5, timeout: 72 * time.Hour, policy: "default", since: gen.Epoch.Add(-time.Hour),
	}}
}

// pass decides, and leaves behind what the controller would write.
func (c *course) pass() plan {
	c.t.Helper()
	p := decide(c.s)
	if !p.unrecorded {
		if c.s.record == nil {
			c.s.record = newRecord(&c.s)
		}
		note(c.s.record, &c.s, p)
	}
	if c.s.request != nil {
		c.s.request.Status = statusOf(c.s, p)
	}
	c.s.answer = answer{}
	return p
}

// is fails the test unless a pass leads to a state.
func (c *course) is(state, says string) plan {
	c.t.Helper()
	p := c.pass()
	if p.state != state || !strings.Contains(p.message, says) {
		c.t.Fatalf("it is %s: %q; want %s: …%s…", p.state, p.message, state, says)
	}
	return p
}

// says fails the test unless the record tells this.
func (c *course) says(want, endReason, endedBy string) {
	c.t.Helper()
	var words []string
	for _, tr := range c.s.record.Status.Transitions {
		words = append(words, tr.Type+" by "+tr.By)
	}
	status := c.s.record.Status
	if got := strings.Join(words, ", "); got != want || status.EndReason != endReason || status.EndedBy != endedBy || (status.EndTime == nil) != (endReason == "") {
		c.t.Errorf("the record says %q, ended %q by %q; want %q, %q by %q", got, status.EndReason, status.EndedBy, want, endReason, endedBy)
	}
}

func (c *course) grant(name string, mods ...func(*v1alpha1.SupportAccessGrant)) *v1alpha1.SupportAccessGrant {
	g := gen.Grant(name, gen.Namespace, append([]func(*v1alpha1.SupportAccessGrant){gen.Answering(c.s.request), gen.WithUID("uid-" + name)}, mods...)...)
	c.s.grants = append(c.s.grants, *g)
	return g
}

const asked = "Requested by " + gen.Requester

func TestARequestWaitsAndExpiresUnanswered(t *testing.T) {
	c := newCourse(t)
	p := c.is(v1alpha1.RequestOpen, "it waits for an answer until 2026-12-04T09:00:00Z")
	if !p.until.Equal(gen.Epoch.Add(72 * time.Hour)) {
		t.Errorf("it is looked at again at %s", p.until)
	}
	// A policy that is changed meanwhile changes nothing about it.
	c.s.timeout, c.s.now = time.Hour, gen.Epoch.Add(72*time.Hour-time.Nanosecond)
	c.is(v1alpha1.RequestOpen, "")
	c.says(asked, "", "")
	c.s.now = gen.Epoch.Add(72 * time.Hour)
	c.is(v1alpha1.StateExpired, "nobody answered it until 2026-12-04T09:00:00Z")
	c.says(asked+", Expired by "+lifecycle.Operator, v1alpha1.StateExpired, lifecycle.Operator)
	// What comes then comes too late.
	c.grant("late")
	c.s.denials = []v1alpha1.SupportAccessDecision{*gen.Decision("no", gen.Namespace, gen.DenyingRequest("wish"), gen.WithDecisionTime(c.s.now))}
	c.is(v1alpha1.StateExpired, "")
	c.s.request = nil
	c.pass()
	c.says(asked+", Expired by "+lifecycle.Operator, v1alpha1.StateExpired, lifecycle.Operator)
}

func TestTheOldestGrantThatFitsAnswersAndStaysTheAnswer(t *testing.T) {
	c := newCourse(t)
	c.is(v1alpha1.RequestOpen, "")
	c.grant("wide", gen.WithRoles(gen.Content))
	c.grant("over", gen.WithGrantEnd(gen.Epoch, v1alpha1.EndDeleted, "x"))
	c.grant("going", gen.WithDeletion(gen.Epoch))
	c.is(v1alpha1.RequestOpen, "")
	first := c.grant("first")
	c.grant("second", gen.WithCreation(gen.Epoch.Add(time.Second)))
	p := c.is(v1alpha1.RequestGranted, "grant first answers it")
	if p.answer.UID != first.UID || c.s.request.Status.Grant.UID != first.UID {
		t.Errorf("it is answered by %+v, its status says %+v", p.answer, c.s.request.Status.Grant)
	}
	// No end by time any more, no denial, no other answer.
	c.s.now = gen.Epoch.Add(100 * time.Hour)
	c.s.denials = []v1alpha1.SupportAccessDecision{*gen.Decision("no", gen.Namespace, gen.DenyingRequest("wish"), gen.WithDecisionTime(c.s.now))}
	c.s.grants = c.s.grants[len(c.s.grants)-1:]
	c.is(v1alpha1.RequestGranted, "grant first answers it")
	c.says(asked+", Granted by "+gen.Admin, "", "")
	c.s.answer.over = true
	c.is(v1alpha1.EndGranted, "")
	c.says(asked+", Granted by "+gen.Admin, v1alpha1.EndGranted, gen.Admin)
}

func TestAnAnswerThatIsRefusedIsNoneAndTheNextIsTaken(t *testing.T) {
	c := newCourse(t)
	c.grant("first")
	c.is(v1alpha1.RequestGranted, "")
	c.s.grants, c.s.answer.void = nil, "grant first was refused: suspended"
	c.is(v1alpha1.RequestOpen, "; grant first was refused: suspended")
	if c.s.request.Status.Grant != nil {
		t.Errorf("its status names %+v", c.s.request.Status.Grant)
	}
	c.grant("second")
	c.is(v1alpha1.RequestGranted, "grant second answers it")
	c.s.grants, c.s.answer.void = nil, "grant second was refused: suspended"
	c.grant("third", gen.WithGrantedBy("pat"))
	c.is(v1alpha1.RequestGranted, "grant third answers it")
	c.says(asked+", Granted by "+gen.Admin+", AnswerRefused by "+lifecycle.Operator+", Granted by "+gen.Admin+", AnswerRefused by "+lifecycle.Operator+", Granted by pat", "", "")
}

func TestWhatBecomesOfAnAnswer(t *testing.T) {
	by := gen.Grant("g", gen.Namespace)
	for name, c := range map[string]struct {
		record *v1alpha1.SupportAccessRecord
		there  bool
		want   answer
	}{
		"it is being made":             {nil, true, answer{}},
		"it was deleted before":        {nil, false, answer{void: "grant g was deleted before it could open"}},
		"it waits for approval":        {gen.Record(by, gen.Unprovisioned()), true, answer{}},
		"it is open":                   {gen.Record(by), true, answer{over: true}},
		"it was denied":                {gen.Record(by, gen.Unprovisioned(), gen.WithRecordEnd(gen.Epoch, v1alpha1.EndDenied, "x")), true, answer{over: true}},
		"it was refused":               {gen.Record(by, gen.Unprovisioned(), gen.WithRecordEnd(gen.Epoch, v1alpha1.EndRefused, "x")), true, answer{void: "grant g was refused: "}},
		"it was deleted after opening": {gen.Record(by, gen.WithRecordEnd(gen.Epoch, v1alpha1.EndDeleted, "x")), false, answer{over: true}},
	} {
		got := answerOf("g", c.record, c.there)
		if got.over != c.want.over || (got.void == "") != (c.want.void == "") || !strings.HasPrefix(got.void, c.want.void) {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

func TestADenialComesBeforeAnAnswerOfTheSameMoment(t *testing.T) {
	c := newCourse(t)
	c.s.denials = []v1alpha1.SupportAccessDecision{
		*gen.Decision("own", gen.Namespace, gen.DenyingRequest("wish"), gen.WithDecidedBy(gen.Requester), gen.WithDecisionTime(gen.Epoch)),
		*gen.Decision("early", gen.Namespace, gen.DenyingRequest("wish"), gen.WithDecisionTime(gen.Epoch.Add(-time.Minute))),
	}
	c.is(v1alpha1.RequestOpen, "")
	c.s.denials = append(c.s.denials, *gen.Decision("no", gen.Namespace, gen.DenyingRequest("wish"), gen.WithDecisionTime(gen.Epoch), gen.WithDecisionReason("not now")))
	c.grant("first")
	c.is(v1alpha1.StateDenied, `denied by decision "no": not now`)
	c.says(asked+", Denied by "+gen.Admin, v1alpha1.StateDenied, gen.Admin)
}

func TestARequestThatIsDeletedWasWithdrawnOrAnswered(t *testing.T) {
	c := newCourse(t)
	c.is(v1alpha1.RequestOpen, "")
	c.s.request = nil
	c.pass()
	c.says(asked+", Withdrawn by "+lifecycle.Unknown, v1alpha1.EndWithdrawn, lifecycle.Unknown)

	c = newCourse(t)
	c.grant("first")
	c.is(v1alpha1.RequestGranted, "")
	c.s.request = nil
	c.pass()
	c.says(asked+", Granted by "+gen.Admin, v1alpha1.EndGranted, gen.Admin)
}

func TestWhoAskedMustBeProven(t *testing.T) {
	c := newCourse(t)
	c.s.pending = "a policy is missing"
	c.is(v1alpha1.StateAdmissionNotInForce, "a policy is missing")
	if c.s.record != nil {
		t.Error("what is not proven is on record")
	}
	c.s.pending = ""
	c.is(v1alpha1.RequestOpen, "")
	// Once it is on record, a break changes nothing.
	c.s.since = gen.Epoch.Add(time.Hour)
	c.is(v1alpha1.RequestOpen, "")

	for name, c := range map[string]*course{"made before": newCourse(t), "without a stamp": newCourse(t, gen.AskedBy(""))} {
		if name == "made before" {
			c.s.since = gen.Epoch
		}
		c.is(v1alpha1.StateRefused, "who asked is not proven")
		c.s.since = gen.Epoch.Add(-time.Hour)
		if c.is(v1alpha1.StateRefused, "who asked is not proven"); c.s.record != nil {
			t.Errorf("%s: it is on record", name)
		}
	}
}

func TestOneTooManyIsRefusedForEver(t *testing.T) {
	c := newCourse(t)
	c.s.others = 4
	c.is(v1alpha1.RequestOpen, "")
	c = newCourse(t)
	c.s.others = 5
	c.is(v1alpha1.StateRefused, gen.Requester+" has 5 requests open")
	c.s.others = 0
	c.is(v1alpha1.StateRefused, "has 5 requests open")
	c = newCourse(t)
	c.s.record = newRecord(&sight{request: gen.Request("wish", gen.Namespace, func(r *v1alpha1.SupportAccessRequest) { r.UID = "before" }), key: c.s.key, now: c.s.now})
	before := c.s.record.DeepCopy()
	c.is(v1alpha1.StateRefused, "name used before")
	if len(before.Status.Transitions) != len(c.s.record.Status.Transitions) {
		t.Error("the record of the earlier one was written")
	}
}

func TestWhichRequestsCountAgainstTheLimit(t *testing.T) {
	mine := gen.Request("b", gen.Namespace)
	other := func(name string, mods ...func(*v1alpha1.SupportAccessRequest)) *v1alpha1.SupportAccessRequest {
		return gen.Request(name, gen.Namespace, mods...)
	}
	going := func(r *v1alpha1.SupportAccessRequest) { r.DeletionTimestamp = &metav1.Time{Time: gen.Epoch} }
	for name, c := range map[string]struct {
		other  *v1alpha1.SupportAccessRequest
		counts bool
	}{
		"itself":                       {mine, false},
		"an open one":                  {other("c", gen.RequestIs(v1alpha1.RequestOpen)), true},
		"a granted one":                {other("a", gen.RequestIs(v1alpha1.RequestGranted)), false},
		"a refused one":                {other("a", gen.RequestIs(v1alpha1.StateRefused)), false},
		"another's":                    {other("a", gen.RequestIs(v1alpha1.RequestOpen), gen.AskedBy("ben")), false},
		"one that goes":                {other("a", gen.RequestIs(v1alpha1.RequestOpen), going), false},
		"an earlier one, unseen":       {other("c", gen.AskedAt(gen.Epoch.Add(-time.Second))), true},
		"one of its second, by name":   {other("a"), true},
		"one of its second, behind it": {other("c"), false},
		"a later one, unseen":          {other("a", gen.AskedAt(gen.Epoch.Add(time.Second))), false},
	} {
		if got := countsBeside(c.other, mine); got != c.counts {
			t.Errorf("%s counts: %t", name, got)
		}
	}
	withdrawn := newCourse(t)
	withdrawn.pass()
	withdrawn.s.request = nil
	withdrawn.pass()
	at := withdrawn.s.now
	if !withdrawnLately(withdrawn.s.record, mine, at.Add(time.Hour-time.Second)) || withdrawnLately(withdrawn.s.record, mine, at.Add(time.Hour)) {
		t.Error("what was withdrawn does not count for an hour")
	}
	if withdrawnLately(withdrawn.s.record, gen.Request("b", gen.Namespace, gen.AskedBy("ben")), at) || withdrawnLately(gen.Record(gen.Grant("g", "n")), mine, at) {
		t.Error("what another withdrew counts")
	}
}
