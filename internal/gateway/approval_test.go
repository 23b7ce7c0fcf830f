package gateway

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
)

// Whoever took over the controller can write a record and a status, and make no decision.
func TestWhatTheRecordCallsOpenStaysShutUntilItIsApproved(t *testing.T) {
	w := open(t)
	change(w, gen.Policy("default"), func(p *v1alpha1.SupportAccessPolicy) { p.Spec.Roles[0].Approvals = new(int32(2)) })
	g := w.grant("case-1")
	change(w, &v1alpha1.SupportAccessRecord{ObjectMeta: g.ObjectMeta}, func(r *v1alpha1.SupportAccessRecord) {
		r.Status.ApprovalsNeeded = 2
		r.Status.Approvals = []v1alpha1.RecordedApproval{{By: "pat", Decision: "yes", UID: "1"}, {By: "quinn", Decision: "yes-too", UID: "2"}}
	})
	isShut := func(why string) {
		t.Helper()
		w.look("case-1")
		if code, body := w.get(g.token, configMaps); code != http.StatusForbidden && code != http.StatusUnauthorized || !strings.Contains(body, why) {
			t.Errorf("got %d: %s; want a refusal that says %q", code, body, why)
		}
	}
	approve := func(name, by string) *v1alpha1.SupportAccessDecision {
		t.Helper()
		d := gen.Decision(name, gen.Namespace, gen.Approving("case-1"), gen.WithDecidedBy(by), gen.WithDecisionTime(gen.Epoch.Add(time.Second)))
		if err := w.objects.Create(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	isShut("0 of 2 approvals")
	approve("own", gen.Admin)
	isShut("0 of 2 approvals")
	approve("yes", "pat@customer.example")
	isShut("1 of 2 approvals")
	last := approve("yes-too", "quinn@customer.example")
	w.look("case-1")
	if code, body := w.get(g.token, configMaps); code != http.StatusOK {
		t.Fatalf("approved, it answers %d: %s", code, body)
	}
	if n := len(w.forwarded()); n != 1 {
		t.Errorf("%d requests reached the API server, want the approved one", n)
	}

	// An approval that somebody tears out of its finalizer is one that is gone, and what is open is cut.
	gone := watching(w)
	_, _ = w.watch(w.client(), g.token)
	last.Finalizers = nil
	for _, act := range []func() error{
		func() error { return w.objects.Update(t.Context(), last) },
		func() error { return client.IgnoreNotFound(w.objects.Delete(t.Context(), last)) },
	} {
		if err := act(); err != nil {
			t.Fatal(err)
		}
	}
	isShut("1 of 2 approvals")
	select {
	case <-gone:
	case <-time.After(patience):
		t.Error("the API server still has the stream")
	}
}
