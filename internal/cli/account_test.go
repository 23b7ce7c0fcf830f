package cli

import (
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
)

// told is the account of a grant as it is printed.
func told(t *testing.T, a account) string {
	t.Helper()
	a.now = gen.Epoch.Add(time.Hour)
	var out strings.Builder
	if err := a.print(&out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// says fails the test unless each of the words is in the text, in this order.
func says(t *testing.T, text string, words ...string) {
	t.Helper()
	rest := text
	for _, want := range words {
		_, after, found := strings.Cut(rest, want)
		if !found {
			t.Errorf("it does not say %q there:\n%s", want, text)
			return
		}
		rest = after
	}
}

func TestAnAccountTellsAllThatAnAdminAsks(t *testing.T) {
	grant := gen.Grant("case-4711", gen.Namespace, inState(v1alpha1.StateActive), endsAt(gen.Epoch.Add(24*time.Hour)),
		gen.WithEngineers("ana@vendor.example", "ben@vendor.example", "cleo@vendor.example"), gen.WithRoles(gen.Configuration, gen.Operate, "acme-tools"))
	grant.Spec.Case.URL = "https://support.vendor.example/4711"
	grant.Status.Transport = v1alpha1.TransportGateway
	dies := new(metav1.NewTime(gen.Epoch.Add(23 * time.Hour)))
	grant.Status.Engineers = []v1alpha1.EngineerStatus{
		{Name: "ana@vendor.example", Sessions: 2, CredentialExpirationTime: dies,
			CredentialSecretRef: &v1alpha1.SecretKeyReference{Namespace: v1alpha1.CredentialsNamespace, Name: "engineer-x", Key: "kubeconfig"}},
		{Name: "ben@vendor.example", EncryptedKubeconfig: "-----BEGIN", CredentialExpirationTime: dies, LastSeenTime: new(metav1.NewTime(gen.Epoch.Add(time.Minute)))},
	}
	grant.Status.Conditions = append(grant.Status.Conditions,
		metav1.Condition{Type: v1alpha1.ConditionRecorded, Status: metav1.ConditionTrue, Reason: "Gateway"},
		metav1.Condition{Type: "Novel", Status: metav1.ConditionUnknown, Reason: "New", Message: "nobody knew this"})
	record := gen.Record(grant)
	record.Status.RemovedEngineers = []v1alpha1.RemovedEngineer{{Name: "cleo@vendor.example", By: gen.Admin, Time: metav1.NewMicroTime(gen.Epoch.Add(30 * time.Minute))}}
	record.Status.Transitions = []v1alpha1.Transition{
		{Time: metav1.NewMicroTime(gen.Epoch), Type: "Granted", By: gen.Admin, Message: "two\nlines"},
		{Time: metav1.NewMicroTime(gen.Epoch.Add(time.Second)), Type: "Opened", By: "support-access"},
	}
	record.Status.DroppedTransitions = 3
	text := told(t, account{grant: grant, record: record, roles: map[string]*rbacv1.ClusterRole{
		"acme-tools": gen.ClusterRole("acme-tools", gen.Rule("acme.example", []string{"mailboxes"}, []string{"get"})),
	}})
	says(t, text,
		"Grant:", "mail-archive/case-4711\n", "State:", "Active: so it is\n", "Until:", "2026-12-02 09:00:00Z, in 23h\n",
		"Case:", "CASE-4711  https://support.vendor.example/4711\n", "Granted by:", gen.Admin+", 60m ago\n", "Where:", gen.Namespace+"\n", "Transport:", "Gateway\n",
		"\nThe engineers may:\n", "support-access-configuration", "see settings", "support-access-operate", "change ConfigMaps", "acme-tools", "get: mailboxes.acme.example\n",
		"\nEngineers:\n", "ana@vendor.example", "kubeconfig in Secret support-access-credentials/engineer-x; ends in 22h", "2 connections open\n",
		"ben@vendor.example", "encrypted to the engineer's key", "last seen 59m ago\n",
		"cleo@vendor.example", "taken off by "+gen.Admin+", 30m ago",
		"\nConditions:\n", "Active", "access exists", "Recorded", "each request is recorded", "Gateway\n", "Novel", "Unknown", "New: nobody knew this\n",
		"\nWhat happened:\n", "2026-12-01 09:00:00Z", "Granted", gen.Admin, "two lines\n", "Opened", "3 more were dropped\n")
}

func TestAnAccountOfAnEndedGrantSaysHowItEnded(t *testing.T) {
	grant := gen.Grant("case-4711", gen.Namespace, inState(v1alpha1.StateRevoked), endsAt(gen.Epoch.Add(24*time.Hour)), gen.WithGrantEnd(gen.Epoch.Add(50*time.Minute), "Deleted", "unknown"))
	says(t, told(t, account{grant: grant}), "State:", "Revoked", "Ended:", "09:50:00Z, 10m ago", "Ended by:", "unknown (Deleted)", "The engineers could, while it was open:", "no credential")
}

func TestAnAccountOfAGrantThatIsGoneComesFromItsRecord(t *testing.T) {
	grant := gen.Grant("case-4711", gen.Namespace)
	record := gen.Record(grant)
	ended := metav1.NewMicroTime(gen.Epoch.Add(time.Minute))
	for reason, state := range map[string]string{
		v1alpha1.EndExpired: v1alpha1.StateExpired, v1alpha1.EndDenied: v1alpha1.StateDenied, v1alpha1.EndRefused: v1alpha1.StateRefused,
		v1alpha1.EndDeleted: v1alpha1.StateRevoked, v1alpha1.EndBindingsWithdrawn: v1alpha1.StateRevoked,
	} {
		record.Status.EndTime, record.Status.EndReason, record.Status.EndMessage, record.Status.EndedBy = &ended, reason, "it is over", gen.Admin
		gone := grantOf(record)
		if exitOf(gone) != exitEnded || gone.UID != grant.UID {
			t.Errorf("%s: %+v", reason, gone)
		}
		says(t, told(t, account{grant: gone, record: record}), "mail-archive/case-4711", "State:", state+": it is over", "Ended by:", gen.Admin+" ("+reason+")", "Granted by:", grant.Spec.GrantedBy, gen.Engineer)
	}
}

func TestAnAccountSaysWhenAGrantOpens(t *testing.T) {
	grant := gen.Grant("case-4711", gen.Namespace, inState(v1alpha1.StateScheduled))
	grant.Status.StartTime = new(metav1.NewTime(gen.Epoch.Add(3 * time.Hour)))
	says(t, told(t, account{grant: grant}), "Lasts:", "24h from its opening", "Opens:", "12:00:00Z, in 120m")
	says(t, told(t, account{grant: gen.Grant("a", "n")}), "Pending: the operator has not yet seen it", "none: the operator has not yet seen the grant")
}

func TestRulesAreGatheredByTheirVerbs(t *testing.T) {
	role := gen.ClusterRole("mine",
		gen.Rule("", []string{"pods", "configmaps"}, []string{"get", "list"}),
		gen.Rule("apps", []string{"deployments"}, []string{"get", "list"}),
		gen.Rule("", []string{"pods"}, []string{"get", "list"}),
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"one", "two"}, Verbs: []string{"get"}},
		rbacv1.PolicyRule{NonResourceURLs: []string{"/metrics"}, Verbs: []string{"get"}})
	got := strings.Join(allowedBy("mine", role), "\n")
	want := "get, list: configmaps, deployments.apps, pods\nget: /metrics, secrets (one, two)"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := allowedBy("mine", gen.ClusterRole("mine")); got[0] != "nothing" {
		t.Errorf("a role without rules allows %v", got)
	}
	if got := allowedBy("mine", nil); !strings.Contains(got[0], "cannot be read by you") {
		t.Errorf("a role that cannot be read allows %v", got)
	}
}
