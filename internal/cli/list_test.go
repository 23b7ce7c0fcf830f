package cli

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
)

func TestWhatEndsSoonestComesFirstAndWhatHasEndedLast(t *testing.T) {
	grants := []v1alpha1.SupportAccessGrant{
		*gen.Grant("ended-first", "a", inState(v1alpha1.StateExpired), gen.WithGrantEnd(gen.Epoch, "Expired", "support-access")),
		*gen.Grant("unseen", "a"),
		*gen.Grant("late", "a", inState(v1alpha1.StateActive), endsAt(gen.Epoch.Add(9*time.Hour))),
		*gen.Grant("soon", "b", inState(v1alpha1.StateActive), endsAt(gen.Epoch.Add(time.Hour))),
		*gen.Grant("soon", "a", inState(v1alpha1.StateActive), endsAt(gen.Epoch.Add(time.Hour))),
		*gen.Grant("ended-last", "a", inState(v1alpha1.StateRevoked), gen.WithGrantEnd(gen.Epoch.Add(time.Minute), "Revoked", gen.Admin)),
		*gen.Grant("closing", "a", inState(v1alpha1.StateClosing), endsAt(gen.Epoch.Add(-time.Hour))),
		*gen.Grant("scheduled", "a", inState(v1alpha1.StateScheduled), gen.WithExpiration(gen.Epoch.Add(5*time.Hour))),
	}
	open := "a/closing a/soon b/soon a/scheduled a/late a/unseen"
	for want, which := range map[string]allOrOpen{open: openOnly, open + " a/ended-last a/ended-first": endedToo} {
		var got []string
		for _, g := range inOrder(grants, which) {
			got = append(got, g.Namespace+"/"+g.Name)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("got %s, want %s", strings.Join(got, " "), want)
		}
	}
	if grants[0].Name != "ended-first" {
		t.Error("the list that was given has changed")
	}
}

func TestTheTableSaysWhoMayWhatUntilWhen(t *testing.T) {
	now := gen.Epoch
	grants := []v1alpha1.SupportAccessGrant{
		*gen.Grant("case-1", gen.Namespace, inState(v1alpha1.StateActive), endsAt(now.Add(90*time.Minute)), gen.WithEngineers(gen.Engineer, "ben@vendor.example")),
		*gen.Grant("case-2", gen.Namespace, gen.WithCase(""), gen.WithGrantedBy(""), gen.WithReason("two\nlines\x1b[31m"), gen.WithCluster()),
	}
	grants[0].Status.Engineers = []v1alpha1.EngineerStatus{
		{Name: gen.Engineer, LastSeenTime: new(metav1.NewTime(now.Add(-time.Hour)))},
		{Name: "ben@vendor.example", LastSeenTime: new(metav1.NewTime(now.Add(-time.Minute)))},
	}
	grants[0].Status.Transport = v1alpha1.TransportGateway
	var out strings.Builder
	if err := printGrants(&out, grants, now, fewColumns); err != nil {
		t.Fatal(err)
	}
	want := `NAMESPACE      NAME     STATUS    ENGINEERS                               ROLES                                                     EXPIRES-IN      CASE        GRANTED-BY
mail-archive   case-1   Active    ana@vendor.example,ben@vendor.example   support-access-configuration,support-access-diagnostics   90m             CASE-4711   admin@customer.example
mail-archive   case-2   Pending   ana@vendor.example                      support-access-configuration,support-access-diagnostics   24h once open   -           -
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	out.Reset()
	if err := printGrants(&out, grants, now, allColumns); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"EXPIRES ", "2026-12-01 10:30:00Z", "Gateway", "60s ago", "the whole cluster", "two lines [31m"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the wide table does not say %q:\n%s", want, out.String())
		}
	}
	if strings.Count(out.String(), "\n") != 3 {
		t.Errorf("the wide table is not three lines:\n%s", out.String())
	}
}

func TestAnEndIsSaidAsItStands(t *testing.T) {
	now := gen.Epoch
	for want, grant := range map[string]*v1alpha1.SupportAccessGrant{
		"24h once open": gen.Grant("a", "n"),
		"3h":            gen.Grant("a", "n", endsAt(now.Add(3*time.Hour))),
		"5h":            gen.Grant("a", "n", gen.WithExpiration(now.Add(5*time.Hour))),
		"overdue 0s":    gen.Grant("a", "n", endsAt(now)),
		"overdue 2m":    gen.Grant("a", "n", inState(v1alpha1.StateClosing), endsAt(now.Add(-2*time.Minute))),
		"ended 2m ago":  gen.Grant("a", "n", inState(v1alpha1.StateRevoked), endsAt(now.Add(time.Hour)), gen.WithGrantEnd(now.Add(-2*time.Minute), "Revoked", "b")),
		"ended":         gen.Grant("a", "n", inState(v1alpha1.StateRefused)),
	} {
		if got := expiresIn(grant, now); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
