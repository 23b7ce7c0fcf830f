package lifecycle

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
)

func answerTo(r *v1alpha1.SupportAccessRequest, mods ...func(*v1alpha1.SupportAccessGrant)) *v1alpha1.SupportAccessGrant {
	return gen.Grant("answer", gen.Namespace, append([]func(*v1alpha1.SupportAccessGrant){gen.Answering(r)}, mods...)...)
}

func answeredBy(g *v1alpha1.SupportAccessGrant) func(*v1alpha1.SupportAccessRequest) {
	return func(r *v1alpha1.SupportAccessRequest) {
		r.Status.Grant = &v1alpha1.AnsweringGrant{Name: g.Name, UID: g.UID}
	}
}

func TestAGrantOpensOnlyIfItIsTheOneThatAnswersItsRequest(t *testing.T) {
	asked := gen.Request("wish", gen.Namespace)
	mine := answerTo(asked)
	for name, c := range map[string]struct {
		grant            *v1alpha1.SupportAccessGrant
		request          *v1alpha1.SupportAccessRequest
		refusal, pending string
	}{
		"it names none":         {grant: gen.Grant("other", gen.Namespace)},
		"it answers":            {grant: mine, request: gen.Request("wish", gen.Namespace, answeredBy(mine))},
		"not yet":               {grant: mine, request: asked, pending: "request wish is to take this grant for its answer"},
		"another answers":       {grant: mine, request: gen.Request("wish", gen.Namespace, answeredBy(gen.Grant("first", gen.Namespace))), refusal: "request wish is answered by grant first already"},
		"the request is gone":   {grant: mine, refusal: "request wish is not there any more"},
		"another of that name":  {grant: mine, request: gen.Request("wish", gen.Namespace, func(r *v1alpha1.SupportAccessRequest) { r.UID = "another" }), refusal: "request wish is not there any more"},
		"the request is denied": {grant: mine, request: gen.Request("wish", gen.Namespace, gen.RequestIs(v1alpha1.StateDenied)), refusal: "takes no answer any more: it is Denied"},
		"it has expired":        {grant: mine, request: gen.Request("wish", gen.Namespace, gen.RequestIs(v1alpha1.StateExpired)), refusal: "takes no answer any more: it is Expired"},
		"it is open":            {grant: mine, request: gen.Request("wish", gen.Namespace, gen.RequestIs(v1alpha1.RequestOpen)), pending: "is to take this grant"},
	} {
		got := AnswerTo(c.grant, c.request)
		if (got.Refusal == "") != (c.refusal == "") || !strings.Contains(got.Refusal, c.refusal) || (got.Pending == "") != (c.pending == "") || !strings.Contains(got.Pending, c.pending) {
			t.Errorf("%s: got %+v, want refusal %q, pending %q", name, got, c.refusal, c.pending)
		}
	}
}

func TestAnAnswerGivesNoMoreThanWasAskedFor(t *testing.T) {
	asked := gen.Request("wish", gen.Namespace, gen.AskingFor(func(s *v1alpha1.SupportAccessRequestSpec) {
		s.Engineers = []v1alpha1.Engineer{{Name: "ana", PublicKey: "age1a"}, {Name: "ben"}}
		s.Scope = &v1alpha1.Scope{Namespaces: []string{gen.Namespace, "db"}}
	}))
	whole := gen.Request("wish", gen.Namespace, gen.AskingFor(func(s *v1alpha1.SupportAccessRequestSpec) { s.Scope = &v1alpha1.Scope{Cluster: true} }))
	start := gen.Epoch.Add(time.Hour)
	for name, c := range map[string]struct {
		request *v1alpha1.SupportAccessRequest
		mods    []func(*v1alpha1.SupportAccessGrant)
		says    string
	}{
		"all of it":               {asked, grants(gen.WithEngineers("ana", "ben"), gen.WithScope(gen.Namespace, "db")), ""},
		"less":                    {asked, grants(gen.WithEngineers("ben"), gen.WithRoles(gen.Configuration), gen.WithDuration("1h")), ""},
		"another engineer":        {asked, grants(gen.WithEngineers("ana", "mallory")), "spec.engineers: mallory, which request wish does not ask for"},
		"another key":             {asked, grants(gen.WithEngineers("ana"), gen.WithPublicKey("ana", "age1b")), "spec.engineers[].publicKey: of ana"},
		"a key where none was":    {asked, grants(gen.WithEngineers("ben"), gen.WithPublicKey("ben", "age1b")), ""},
		"another role":            {asked, grants(gen.WithEngineers("ben"), gen.WithRoles(gen.Configuration, gen.Content)), "spec.roles: support-access-content, which request wish does not ask for"},
		"another place":           {asked, grants(gen.WithEngineers("ben"), gen.WithScope("web")), "spec.scope: "},
		"the cluster":             {asked, grants(gen.WithEngineers("ben"), gen.WithCluster()), "spec.scope: "},
		"a place of the cluster":  {whole, grants(gen.WithScope("web")), ""},
		"the cluster as asked":    {whole, grants(gen.WithCluster()), ""},
		"longer":                  {asked, grants(gen.WithEngineers("ben"), gen.WithDuration("24h0m1s")), "spec.duration: is longer than 24h"},
		"until later":             {asked, grants(gen.WithEngineers("ben"), gen.WithExpiration(gen.Epoch.Add(24*time.Hour+time.Second))), "spec.duration: is longer than 24h"},
		"until then":              {asked, grants(gen.WithEngineers("ben"), gen.WithExpiration(gen.Epoch.Add(24*time.Hour))), ""},
		"later, and for as long":  {asked, grants(gen.WithEngineers("ben"), gen.WithStart(start), gen.WithExpiration(start.Add(24*time.Hour))), ""},
		"later, and for longer":   {asked, grants(gen.WithEngineers("ben"), gen.WithStart(start), gen.WithExpiration(start.Add(25*time.Hour))), "spec.duration: is longer than 24h"},
		"by who asked":            {asked, grants(gen.WithEngineers("ben"), gen.WithGrantedBy(gen.Requester)), "somebody else must answer it"},
		"by her other login":      {asked, grants(gen.WithEngineers("ben"), gen.WithGrantedBy("ana@vendor.example")), "somebody else must answer it"},
		"under another's request": {asked, grants(gen.WithEngineers("ben"), func(g *v1alpha1.SupportAccessGrant) { g.Spec.RequestRef.RequestedBy = "mallory" }), "spec.requestRef.requestedBy: is not who made the request"},
	} {
		if got := Exceeds(answerTo(c.request, c.mods...), c.request); (got == "") != (c.says == "") || !strings.Contains(got, c.says) {
			t.Errorf("%s: it says %q, want %q", name, got, c.says)
		}
	}
}

func grants(mods ...func(*v1alpha1.SupportAccessGrant)) []func(*v1alpha1.SupportAccessGrant) {
	return mods
}

func TestAGrantThatMustWaitForItsRequestHasNoInstantsAndOpensNothing(t *testing.T) {
	f := Facts{Now: gen.Epoch.Add(time.Second), Grant: answerTo(gen.Request("wish", gen.Namespace)), World: World{AdmissionSince: gen.Epoch.Add(-time.Hour), Unanswered: "not yet"}}
	v := Decide(f)
	if v.State != v1alpha1.StateOpening || v.Wants != WantsNothing || v.Message != "not yet" || !v.Start.IsZero() || !v.Expiration.IsZero() {
		t.Errorf("while it waits: %+v", v)
	}
	f.World.Approvals = ApprovalRule{Needed: 1}
	if v := Decide(f); v.State != v1alpha1.StateOpening {
		t.Errorf("while it waits, and needs approval: %+v", v)
	}
	f.World.Unanswered, f.World.Approvals = "", ApprovalRule{}
	if v := Decide(f); v.Wants != WantsOpen || v.Start.IsZero() {
		t.Errorf("once it answers: %+v", v)
	}
}

func TestTheApprovalOfWhoAskedDoesNotCount(t *testing.T) {
	asked := gen.Request("wish", gen.Namespace, gen.AskedBy("mia@customer.example"))
	g := answerTo(asked)
	record := gen.Record(g)
	record.Spec.RequestRef = g.Spec.RequestRef
	for who, counts := range map[string]bool{"mia@customer.example": false, "oidc:mia@customer.example": false, "pat@customer.example": true, "nomia@customer.example": true} {
		d := gen.Decision("yes", gen.Namespace, gen.Approving("answer"), gen.WithDecidedBy(who), gen.WithDecisionTime(gen.Epoch.Add(time.Minute)))
		for what, why := range map[string]string{"the grant": WhyNot(g, nil, d), "its record": WhyNot(nil, record, d)} {
			if counts != (why == "") || !counts && !strings.Contains(why, "made the request that it answers") {
				t.Errorf("%s, by %s: %q", who, what, why)
			}
		}
	}
}

func TestANoIsAboutTheRequestThatWasThereAndByNobodyWhoAsked(t *testing.T) {
	created := metav1.NewTime(gen.Epoch)
	request := v1alpha1.RecordedRequest{Namespace: gen.Namespace, Name: "wish", RequestedBy: gen.Requester, CreationTime: &created}
	no := func(mods ...func(*v1alpha1.SupportAccessDecision)) *v1alpha1.SupportAccessDecision {
		return gen.Decision("no", gen.Namespace, append([]func(*v1alpha1.SupportAccessDecision){gen.DenyingRequest("wish"), gen.WithDecisionTime(gen.Epoch)}, mods...)...)
	}
	elsewhere := no()
	elsewhere.Namespace = "web"
	for name, c := range map[string]struct {
		d        *v1alpha1.SupportAccessDecision
		concerns bool
	}{
		"in the same second":  {no(), true},
		"later":               {no(gen.WithDecisionTime(gen.Epoch.Add(time.Hour))), true},
		"before":              {no(gen.WithDecisionTime(gen.Epoch.Add(-time.Second))), false},
		"of another name":     {no(gen.DenyingRequest("another")), false},
		"in another place":    {elsewhere, false},
		"of a grant so named": {no(gen.Denying("wish")), false},
	} {
		if got := ConcernsRequest(c.d, request); got != c.concerns {
			t.Errorf("%s: concerns it: %t", name, got)
		}
	}
	for who, counts := range map[string]bool{
		gen.Admin: true, gen.Requester: false, "ana@vendor.example": false, "joana@vendor.example": true, "": false, v1alpha1.IdentityPrefix + "x": false, "system:serviceaccount:" + v1alpha1.CredentialsNamespace + ":e": false,
	} {
		if why := WhyNoDenial(no(gen.WithDecidedBy(who)), request); counts != (why == "") {
			t.Errorf("by %q: %q", who, why)
		}
	}
	// No grant ends by it.
	f := Facts{Now: gen.Epoch.Add(time.Minute), Grant: gen.Grant("wish", gen.Namespace), Decisions: []v1alpha1.SupportAccessDecision{*no()}}
	if v := Decide(f); v.End != nil {
		t.Errorf("a grant of the same name ends: %+v", v.End)
	}
}
