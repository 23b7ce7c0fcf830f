package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/chain"
	"supportaccess.dev/operator/internal/audit/sqlite"
)

var dawn = time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)

// chronicle is a gateway's history with a log and a cluster.
type chronicle struct {
	t     *testing.T
	api   client.Client
	store *sqlite.Store
	log   audit.Log
	clock *testingclock.FakeClock
	h     *History
}

func newChronicle(t *testing.T) *chronicle {
	t.Helper()
	key, err := chain.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	c := &chronicle{t: t, api: fake.NewClientBuilder().WithScheme(testScheme(t)).Build(), clock: testingclock.NewFakeClock(dawn.Add(time.Hour))}
	c.log, c.store = aLog(t, key, 0)
	c.starts()
	return c
}

// starts is the gateway started again: what it knew is gone.
func (c *chronicle) starts() {
	c.h = &History{Reader: c.api, Log: c.log, Past: c.store, Clock: c.clock, Replica: "gateway-1"}
}

func (c *chronicle) make(objects ...client.Object) {
	c.t.Helper()
	for _, o := range objects {
		if err := c.api.Create(c.t.Context(), o); err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *chronicle) update(o client.Object) {
	c.t.Helper()
	if err := c.api.Update(c.t.Context(), o); err != nil {
		c.t.Fatal(err)
	}
}

// looks has the history look at everything, as at its start.
func (c *chronicle) looks() error {
	c.t.Helper()
	for list, look := range map[client.ObjectList]reconcile.Func{
		&v1alpha1.SupportAccessRecordList{}: c.h.record, &v1alpha1.SupportAccessDecisionList{}: c.h.decision, &v1alpha1.SupportAccessPolicyList{}: c.h.policy,
	} {
		if err := c.api.List(c.t.Context(), list); err != nil {
			c.t.Fatal(err)
		}
		keys := []types.NamespacedName{{Name: "gone"}}
		switch l := list.(type) {
		case *v1alpha1.SupportAccessRecordList:
			for i := range l.Items {
				keys = append(keys, client.ObjectKeyFromObject(&l.Items[i]))
			}
		case *v1alpha1.SupportAccessDecisionList:
			for i := range l.Items {
				keys = append(keys, client.ObjectKeyFromObject(&l.Items[i]))
			}
		case *v1alpha1.SupportAccessPolicyList:
			for i := range l.Items {
				keys = append(keys, client.ObjectKeyFromObject(&l.Items[i]))
			}
		}
		for _, key := range keys {
			if _, err := look(c.t.Context(), reconcile.Request{NamespacedName: key}); err != nil {
				return err
			}
		}
	}
	return nil
}

// says is what the log has, oldest first.
func (c *chronicle) says() []string {
	c.t.Helper()
	var lines []string
	err := audit.EachEntry(c.t.Context(), c.store, audit.Query{Type: audit.TypeLifecycle}, func(e *audit.Entry) error {
		if e.Labels[audit.LabelSource] != audit.Source || e.Replica != "gateway-1" || e.Verb != strings.ToLower(e.Happened.What) || e.User.Username != e.Happened.By {
			c.t.Errorf("an entry is %+v", e)
		}
		lines = append(lines, fmt.Sprintf("%s %s by %s: %s", e.ObjectRef.Name, e.Happened.What, e.Happened.By, e.Happened.Message))
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	slices.Reverse(lines)
	return lines
}

// mustSay looks twice, the second time after a start, and compares.
func (c *chronicle) mustSay(want ...string) {
	c.t.Helper()
	for _, when := range []string{"at once", "again", "after a start"} {
		if err := c.looks(); err != nil {
			c.t.Fatal(err)
		}
		got := c.says()
		slices.Sort(got)
		sorted := slices.Sorted(slices.Values(want))
		if !slices.Equal(got, sorted) {
			c.t.Errorf("%s the log has\n\t%s\nwant\n\t%s", when, strings.Join(got, "\n\t"), strings.Join(sorted, "\n\t"))
		}
		if when == "again" {
			c.starts()
		}
	}
}

// transition is something that happened so many minutes after dawn.
func transition(minutes int, what, by, message string) v1alpha1.Transition {
	return v1alpha1.Transition{Time: metav1.NewMicroTime(dawn.Add(time.Duration(minutes) * time.Minute)), Type: what, By: by, Message: message}
}

func aRecord(namespace, name string, transitions ...v1alpha1.Transition) *v1alpha1.SupportAccessRecord {
	until := metav1.NewTime(dawn.Add(time.Hour))
	return &v1alpha1.SupportAccessRecord{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.SupportAccessRecordSpec{
			Grant: v1alpha1.RecordedGrant{Namespace: "mail", Name: "case-1", UID: "uid-1"}, Engineers: []string{"ana@vendor.example"},
			Roles: []string{"support-access-configuration"}, Case: &v1alpha1.Case{ID: "CASE-1"},
		},
		Status: v1alpha1.SupportAccessRecordStatus{ExpirationTime: &until, Transitions: transitions},
	}
}

const begun = "case-1 Granted by tess: ana@vendor.example may do what support-access-configuration allow in namespace mail until 2026-12-01T09:00:00Z: it is slow"

func TestWhatHappensToAGrantIsInTheLogOnce(t *testing.T) {
	c := newChronicle(t)
	record := aRecord("mail", "case-1", transition(0, "Granted", "tess", "it is slow"), transition(1, "Opened", "support-access", ""))
	c.make(record)
	c.mustSay(begun, "case-1 Opened by support-access: ")
	// Two engineers are taken off in one pass.
	record.Status.Transitions = append(record.Status.Transitions,
		transition(2, "FirstUsed", "ana@vendor.example", "came"), transition(3, "EngineerRemoved", "tess", "ben"), transition(3, "EngineerRemoved", "tess", "cy"))
	c.update(record)
	want := []string{
		begun, "case-1 Opened by support-access: ", "case-1 FirstUsed by ana@vendor.example: came",
		"case-1 EngineerRemoved by tess: ben", "case-1 EngineerRemoved by tess: cy",
	}
	c.mustSay(want...)
	// The record grows too large, and drops and shortens some; its copy in the operator's namespace goes on when its own is gone.
	record.Status.Transitions = slices.Delete(record.Status.Transitions, 1, 2)
	record.Status.DroppedTransitions = 1
	record.Status.Transitions[1].Message = "c…"
	record.Status.Transitions = append(record.Status.Transitions, transition(9, "Revoked", "tess", "done"))
	c.update(record)
	tombstone := aRecord(v1alpha1.SystemNamespace, "mail.case-1", slices.Clone(record.Status.Transitions)...)
	tombstone.Status.DroppedTransitions = 1
	mirror := aRecord("web", "mail.case-1", transition(50, "Copied", "nobody", ""))
	c.make(tombstone, mirror)
	want = append(want, "case-1 Revoked by tess: done")
	c.mustSay(want...)
	if err := c.api.Delete(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	tombstone.Status.Transitions = append(tombstone.Status.Transitions, transition(10, "Verified", "support-access", "gone"))
	c.update(tombstone)
	c.mustSay(append(want, "case-1 Verified by support-access: gone")...)
	page, err := c.store.Find(t.Context(), audit.Query{Engineer: "ana@vendor.example", Case: "CASE-1", Namespace: "mail", Section: audit.SectionSecurity})
	if err != nil || len(page.Lines) != 1 {
		t.Errorf("found %d, %v, want that she came", len(page.Lines), err)
	}
}

// full is a log that takes so many entries and then none.
type full struct {
	audit.Log
	left int
}

func (f *full) Append(ctx context.Context, e *audit.Entry) error {
	if f.left--; f.left < 0 {
		return errors.New("no space left on the disk")
	}
	return f.Log.Append(ctx, e)
}

func TestWhatCouldNotBePutDownIsPutDownLater(t *testing.T) {
	c := newChronicle(t)
	c.make(aRecord("mail", "case-1", transition(0, "Granted", "tess", "it is slow"), transition(1, "Opened", "support-access", ""), transition(2, "Revoked", "tess", "done")))
	c.h.Log = &full{c.log, 1}
	if err := c.looks(); err == nil || !strings.Contains(err.Error(), "put down what record mail/case-1 says") {
		t.Errorf("it says %v", err)
	}
	if got := c.says(); len(got) != 1 {
		t.Errorf("the log has %q", got)
	}
	c.h.Log = c.log
	c.mustSay(begun, "case-1 Opened by support-access: ", "case-1 Revoked by tess: done")
}

func TestWhatTheLogNoLongerKeepsIsNotPutDownAgain(t *testing.T) {
	c := newChronicle(t)
	old := &v1alpha1.SupportAccessDecision{ObjectMeta: metav1.ObjectMeta{Namespace: "mail", Name: "old", UID: "d-0", CreationTimestamp: metav1.NewTime(dawn)}}
	c.make(aRecord("mail", "case-1", transition(0, "Granted", "tess", "it is slow"), transition(50, "Revoked", "tess", "done")), old)
	c.h.Retention = 30 * time.Minute
	if err := c.looks(); err != nil {
		t.Fatal(err)
	}
	if got := c.says(); !slices.Equal(got, []string{"case-1 Revoked by tess: done"}) {
		t.Errorf("the log has %q", got)
	}
}

func TestWhatWasDecidedIsInTheLogOnce(t *testing.T) {
	c := newChronicle(t)
	made := func(name string, spec v1alpha1.SupportAccessDecisionSpec) *v1alpha1.SupportAccessDecision {
		return &v1alpha1.SupportAccessDecision{
			ObjectMeta: metav1.ObjectMeta{Namespace: "mail", Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(dawn)}, Spec: spec,
		}
	}
	end := metav1.NewTime(dawn.Add(time.Hour))
	c.make(aRecord("mail", "case-1"),
		made("end", v1alpha1.SupportAccessDecisionSpec{Action: v1alpha1.ActionRevoke, Target: v1alpha1.DecisionTarget{Grant: "case-1", Engineer: "ben"}, Reason: "left", DecidedBy: "tess"}),
		made("all", v1alpha1.SupportAccessDecisionSpec{Action: v1alpha1.ActionRevoke, Target: v1alpha1.DecisionTarget{Cluster: "All"}, Reason: "intrusion", DecidedBy: "root"}),
		made("never", v1alpha1.SupportAccessDecisionSpec{Action: v1alpha1.ActionShorten, Target: v1alpha1.DecisionTarget{Grant: "none"}, ExpirationTime: &end, Reason: "early"}))
	want := []string{
		"end Revoke by tess: grant case-1, engineer ben: left", "all Revoke by root: every grant of the cluster: intrusion",
		"never Shorten by unknown: grant none, to 2026-12-01T09:00:00Z: early",
	}
	c.mustSay(want...)
	page, err := c.store.Find(t.Context(), audit.Query{Grant: audit.Grant{Namespace: "mail", Name: "case-1", UID: "uid-1"}})
	if err != nil || len(page.Lines) != 1 {
		t.Errorf("of the grant there are %d entries, %v", len(page.Lines), err)
	}
	c.make(made("again", v1alpha1.SupportAccessDecisionSpec{Action: v1alpha1.ActionDeny, Target: v1alpha1.DecisionTarget{Request: "wish"}, Reason: "no", DecidedBy: "tess"}))
	c.mustSay(append(want, "again Deny by tess: request wish: no")...)
}

func TestChangesOfPoliciesAreInTheLogThoughTheGatewayWasAway(t *testing.T) {
	c := newChronicle(t)
	policy := &v1alpha1.SupportAccessPolicy{ObjectMeta: metav1.ObjectMeta{Name: "default", UID: "p-1", Generation: 1, CreationTimestamp: metav1.NewTime(dawn)}}
	c.make(policy)
	by := "by whom, the API server's audit log says"
	made := "default PolicyMade by unknown: " + by
	c.mustSay(made)
	policy.Generation, policy.Spec.MaxDuration = 2, "1h"
	c.update(policy)
	changed := "default PolicyChanged by unknown: " + by
	c.mustSay(made, changed)
	page, err := c.store.Find(t.Context(), audit.Query{Text: "policychanged"})
	if err != nil || len(page.Lines) != 1 || !strings.Contains(string(page.Lines[0].Text), `"requestObject":{"maxDuration":"1h"`) {
		t.Errorf("found %d, %v", len(page.Lines), err)
	}
	// It is deleted, and another made, while the gateway is away.
	if err := c.api.Delete(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	another := &v1alpha1.SupportAccessPolicy{ObjectMeta: metav1.ObjectMeta{Name: "strict", UID: "p-2", Generation: 7, CreationTimestamp: metav1.NewTime(dawn)}}
	c.make(another)
	c.starts()
	c.mustSay(made, changed, "default PolicyDeleted by unknown: "+by, "strict PolicyMade by unknown: "+by)
	again := &v1alpha1.SupportAccessPolicy{ObjectMeta: metav1.ObjectMeta{Name: "default", UID: "p-3", Generation: 1, CreationTimestamp: metav1.NewTime(dawn)}}
	c.make(again)
	c.mustSay(made, changed, "default PolicyDeleted by unknown: "+by, "strict PolicyMade by unknown: "+by, made)
}

func TestAChangeOfAPolicySaysWhenAndWithWhat(t *testing.T) {
	before, last := metav1.NewTime(dawn.Add(time.Minute)), metav1.NewTime(dawn.Add(time.Hour))
	policy := &v1alpha1.SupportAccessPolicy{ObjectMeta: metav1.ObjectMeta{Name: "default", CreationTimestamp: metav1.NewTime(dawn), ManagedFields: []metav1.ManagedFieldsEntry{
		{Manager: "kubectl-edit", Time: &last}, {Manager: "helm", Time: &before}, {Manager: "nobody"},
	}}}
	e, err := policyEntry(policy, policyChanged, metav1.NewMicroTime(dawn.Add(2*time.Hour)))
	if err != nil || !e.Happened.Time.Time.Equal(last.Time) || !strings.Contains(e.Happened.Message, "with kubectl-edit;") {
		t.Errorf("it says %+v, %v", e, err)
	}
}

func TestReplicasWithOneLogPutItDownOnceBetweenThem(t *testing.T) {
	c := newChronicle(t)
	c.make(aRecord("mail", "case-1", transition(0, "Granted", "tess", "it is slow")))
	others := []*History{c.h}
	for _, replica := range []string{"gateway-2", "gateway-3"} {
		others = append(others, &History{Reader: c.api, Log: c.log, Past: c.store, Clock: c.clock, Replica: replica})
	}
	key := reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "mail", Name: "case-1"}}
	for range 50 {
		for _, h := range others {
			h.Shared = true
			if _, err := h.record(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
		c.clock.Step(100 * time.Millisecond)
	}
	page, err := c.store.Find(t.Context(), audit.Query{Type: audit.TypeLifecycle})
	if err != nil || len(page.Lines) != 1 {
		t.Errorf("the log has it %d times, %v", len(page.Lines), err)
	}
}

func TestWhoSwitchedASettingIsInTheLogOnceForEachNamespace(t *testing.T) {
	c := newChronicle(t)
	of := func(namespace string, transitions ...v1alpha1.Transition) *v1alpha1.SupportAccessRecord {
		return &v1alpha1.SupportAccessRecord{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: v1alpha1.SettingRecordName},
			Spec:       v1alpha1.SupportAccessRecordSpec{Setting: &v1alpha1.RecordedSetting{Namespace: namespace}},
			Status:     v1alpha1.SupportAccessRecordStatus{Transitions: transitions},
		}
	}
	mail, shop := of("mail", transition(0, "SwitchedOn", "tess", "on")), of("shop", transition(0, "SwitchedOn", "tess", "on, too"))
	c.make(mail, shop)
	c.mustSay("support-access SwitchedOn by tess: on", "support-access SwitchedOn by tess: on, too")
	mail.Status.Transitions = append(mail.Status.Transitions, transition(5, "SwitchedOff", "ben", "off"))
	c.update(mail)
	c.mustSay("support-access SwitchedOn by tess: on", "support-access SwitchedOn by tess: on, too", "support-access SwitchedOff by ben: off")
}

func TestWhoAskedAndWhatBecameOfItIsInTheLogOnceForEachRequest(t *testing.T) {
	c := newChronicle(t)
	of := func(name string, transitions ...v1alpha1.Transition) *v1alpha1.SupportAccessRecord {
		return &v1alpha1.SupportAccessRecord{
			ObjectMeta: metav1.ObjectMeta{Namespace: "mail", Name: name + v1alpha1.RequestRecordSuffix},
			Spec: v1alpha1.SupportAccessRecordSpec{
				Request: &v1alpha1.RecordedRequest{Namespace: "mail", Name: name, UID: types.UID("uid-" + name), RequestedBy: "ana", Duration: "24h"},
				Roles:   []string{"support-access-configuration"}, Engineers: []string{"ana@vendor.example"}, Case: &v1alpha1.Case{ID: "CASE-1"},
			},
			Status: v1alpha1.SupportAccessRecordStatus{Transitions: transitions},
		}
	}
	asks := func(name string) string {
		return name + " Requested by ana: ana@vendor.example are to do what support-access-configuration allow, for 24h: it is slow"
	}
	// They ask in the same microsecond.
	one, two := of("one", transition(0, "Requested", "ana", "it is slow")), of("two", transition(0, "Requested", "ana", "it is slow"))
	c.make(one, two)
	c.mustSay(asks("one"), asks("two"))
	one.Status.Transitions = append(one.Status.Transitions, transition(5, "Granted", "tess", "grant case-1 answers it"))
	two.Status.Transitions = append(two.Status.Transitions, transition(5, "Denied", "tess", "not now"))
	c.update(one)
	c.update(two)
	c.mustSay(asks("one"), asks("two"), "one Granted by tess: grant case-1 answers it", "two Denied by tess: not now")
}
