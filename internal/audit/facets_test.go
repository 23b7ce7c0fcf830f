package audit

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

func TestEveryKindIsInTheSectionWhereAnAdminLooksForIt(t *testing.T) {
	for kind, want := range map[Kind]Section{
		{"", "configmaps", ""}:                           SectionSettings,
		{"mail.example", "connectors", ""}:               SectionSettings,
		{"mail.example", "connectors", "status"}:         SectionSettings,
		{"", "serviceaccounts", ""}:                      SectionUsers,
		{"", "serviceaccounts", "token"}:                 SectionContent,
		{"rbac.authorization.k8s.io", "roles", ""}:       SectionUsers,
		{"authorization.k8s.io", "subjectaccess", ""}:    SectionUsers,
		{"", "services", ""}:                             SectionNetwork,
		{"", "services", "proxy"}:                        SectionContent,
		{"networking.k8s.io", "ingresses", "status"}:     SectionNetwork,
		{"gateway.networking.k8s.io", "httproutes", ""}:  SectionNetwork,
		{"", "pods", ""}:                                 SectionWorkloads,
		{"", "pods", "eviction"}:                         SectionWorkloads,
		{"apps", "deployments", "scale"}:                 SectionWorkloads,
		{"events.k8s.io", "events", ""}:                  SectionWorkloads,
		{"", "pods", "log"}:                              SectionLogs,
		{"policy", "poddisruptionbudgets", ""}:           SectionSecurity,
		{"supportaccess.dev", "supportaccessgrants", ""}: SectionSecurity,
		{"", "secrets", ""}:                              SectionContent,
		{"", "pods", "exec"}:                             SectionContent,
		{"", "pods", "portforward"}:                      SectionContent,
	} {
		if got := SectionOf(kind); got != want {
			t.Errorf("%v is in %q, want %q", kind, got, want)
		}
	}
	if got := sectionOf(nil); got != "" {
		t.Errorf("what is about no kind is in %q", got)
	}
}

func TestTheOutcomeIsWhatBecameOfARequest(t *testing.T) {
	ended := func(code int32, cause string) *Entry {
		return &Entry{Cause: cause, Event: auditv1.Event{Stage: auditv1.StageResponseComplete, ResponseStatus: &metav1.Status{Code: code}}}
	}
	for name, test := range map[string]struct {
		entry *Entry
		want  Outcome
	}{
		"let through":       {&Entry{Event: auditv1.Event{Stage: auditv1.StageRequestReceived}}, OutcomeAttempted},
		"a stream that is":  {&Entry{Event: auditv1.Event{Stage: auditv1.StageResponseStarted, ResponseStatus: &metav1.Status{Code: 101}}}, OutcomeAttempted},
		"answered":          {ended(200, ""), OutcomeSucceeded},
		"a stream that was": {ended(101, ""), OutcomeSucceeded},
		"not allowed":       {ended(403, ""), OutcomeRefused},
		"not known":         {ended(401, ""), OutcomeRefused},
		"not found":         {ended(404, ""), OutcomeFailed},
		"out of order":      {ended(500, ""), OutcomeFailed},
		"cut":               {ended(200, "Revoked: by the customer"), OutcomeCut},
		"about the log":     {&Entry{Type: TypeKeys}, OutcomeSucceeded},
	} {
		if got := FacetsOf(test.entry).Outcome; got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

func TestWhatIsAboutNoNamespaceIsAboutThatOfItsGrant(t *testing.T) {
	e := full()
	e.ObjectRef.Namespace = "elsewhere"
	if f := FacetsOf(e); f.Namespace != "elsewhere" || f.Resource != "pods/exec" || f.Grant != e.Grant || f.Source != Source {
		t.Errorf("got %+v", f)
	}
	e.ObjectRef = &auditv1.ObjectReference{APIGroup: "apps", Resource: "deployments", Subresource: "scale"}
	if f := FacetsOf(e); f.Namespace != "shop" || f.Resource != "deployments.apps/scale" {
		t.Errorf("got %+v", f)
	}
	e.ObjectRef = nil
	if f := FacetsOf(e); f.Namespace != "shop" || f.Resource != "" || f.Text != "/api/v1/namespaces/shop/pods/web-0/exec?command=sh&stdin=true sh  Revoked: by the customer" {
		t.Errorf("got %+v", f)
	}
}
