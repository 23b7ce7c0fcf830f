package cli

import (
	"errors"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
)

func TestARevocationNamesGrantsOrAllOfThem(t *testing.T) {
	for want, r := range map[string]revocation{
		"":                        {grants: []string{"a"}, why: "x"},
		"GRANT: is missing":       {why: "x"},
		"--all: ends every grant": {all: true, grants: []string{"a"}, why: "x"},
		"--all-namespaces: is given with --all, and only then": {allNamespaces: true, grants: []string{"a"}, why: "x"},
		"--reason: is missing: it goes into the record":        {all: true},
		`--engineer: "Ana" is no engineer's name`:              {all: true, engineer: "Ana", why: "x"},
	} {
		err := r.check()
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", r, err, want)
		}
	}
}

func TestADecisionIsMadeWhereItReaches(t *testing.T) {
	for sentence, c := range map[string]struct {
		asked     revocation
		namespace string
		targets   []v1alpha1.DecisionTarget
	}{
		"one for each grant":  {revocation{grants: []string{"a", "b"}}, gen.Namespace, []v1alpha1.DecisionTarget{{Grant: "a"}, {Grant: "b"}}},
		"one engineer":        {revocation{grants: []string{"a"}, engineer: gen.Engineer}, gen.Namespace, []v1alpha1.DecisionTarget{{Grant: "a", Engineer: gen.Engineer}}},
		"the namespace":       {revocation{all: true}, gen.Namespace, []v1alpha1.DecisionTarget{{Namespace: "All"}}},
		"the cluster":         {revocation{all: true, allNamespaces: true}, v1alpha1.SystemNamespace, []v1alpha1.DecisionTarget{{Cluster: "All"}}},
		"engineer everywhere": {revocation{all: true, allNamespaces: true, engineer: gen.Engineer}, v1alpha1.SystemNamespace, []v1alpha1.DecisionTarget{{Cluster: "All", Engineer: gen.Engineer}}},
	} {
		c.asked.namespace, c.asked.why = gen.Namespace, "over"
		made := c.asked.decisions("abcde")
		if len(made) != len(c.targets) {
			t.Errorf("%s: made %d decisions, want %d", sentence, len(made), len(c.targets))
			continue
		}
		for i, d := range made {
			if d.Namespace != c.namespace || d.Spec.Target != c.targets[i] || d.Spec.Action != v1alpha1.ActionRevoke || d.Spec.Reason != "over" {
				t.Errorf("%s: made %+v", sentence, d)
			}
			if d.Finalizers[0] != v1alpha1.FinalizerDecision {
				t.Errorf("%s: a decision without its finalizer could be deleted before it is seen", sentence)
			}
		}
	}
}

func TestADecisionsNameFits(t *testing.T) {
	for _, grant := range []string{"", "case-4711", strings.Repeat("x", 63), strings.Repeat("x", 49) + "-" + strings.Repeat("y", 13)} {
		d := decisionOn(gen.Namespace, "abcde", v1alpha1.SupportAccessDecisionSpec{Action: v1alpha1.ActionShorten, Target: v1alpha1.DecisionTarget{Grant: grant}})
		if wrong := validation.IsDNS1123Label(d.Name); len(wrong) > 0 || !strings.HasPrefix(d.Name, "shorten-") || !strings.HasSuffix(d.Name, "-abcde") {
			t.Errorf("%q: %s: %v", grant, d.Name, wrong)
		}
	}
}

func TestAGrantIsShortenedToAnInstant(t *testing.T) {
	for sentence, c := range map[string]struct {
		asked shortening
		end   time.Time
		wrong string
	}{
		"to a length from now": {shortening{length: "2h", why: "x"}, gen.Epoch.Add(2 * time.Hour), ""},
		"to an instant":        {shortening{until: "2026-12-01T10:00Z", why: "x"}, gen.Epoch.Add(time.Hour), ""},
		"days":                 {shortening{length: "1d", why: "x"}, time.Time{}, "--to: 1d: days and weeks are not units: write 24h"},
		"both":                 {shortening{length: "2h", until: "2026-12-01T10:00Z", why: "x"}, time.Time{}, "--to, --until: give one of them, not both"},
		"neither":              {shortening{why: "x"}, time.Time{}, "--to, --until: give one of them"},
		"the past":             {shortening{until: "2026-12-01T09:00Z", why: "x"}, time.Time{}, "has passed: to end the grant now, use revoke"},
		"no reason":            {shortening{length: "2h"}, time.Time{}, "--reason: is missing"},
	} {
		c.asked.namespace, c.asked.grant = gen.Namespace, "a"
		d, err := c.asked.decision(gen.Epoch.Add(300*time.Millisecond), "abcde")
		if c.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), c.wrong) || d != nil {
				t.Errorf("%s: got %v, want %s", sentence, err, c.wrong)
			}
			continue
		}
		if err != nil || !d.Spec.ExpirationTime.Time.Equal(c.end) || d.Spec.Target != (v1alpha1.DecisionTarget{Grant: "a"}) || d.Spec.Action != v1alpha1.ActionShorten {
			t.Errorf("%s: got %+v, %v", sentence, d, err)
		}
	}
}

func TestWhatWouldNotEndEarlierIsNotShortened(t *testing.T) {
	end := gen.Epoch.Add(time.Hour)
	open := gen.Grant("a", gen.Namespace, inState(v1alpha1.StateActive), endsAt(end))
	ended := gen.Grant("a", gen.Namespace, inState(v1alpha1.StateRevoked), endsAt(end))
	if err := wouldShorten(open, end.Add(-time.Second)); err != nil {
		t.Errorf("a second earlier: %v", err)
	}
	if err := wouldShorten(gen.Grant("a", gen.Namespace), end); err != nil {
		t.Errorf("no end yet: %v", err)
	}
	if err := wouldShorten(open, end); err == nil || !strings.Contains(err.Error(), "there is no lengthening") {
		t.Errorf("the same end: %v", err)
	}
	coded := (*exitError)(nil)
	if err := wouldShorten(ended, gen.Epoch); !errors.As(err, &coded) || coded.code != exitEnded {
		t.Errorf("an ended grant: %v", err)
	}
}

// inState gives a grant a state, and what goes with it.
func inState(state string) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) {
		truth := func(holds bool) metav1.ConditionStatus {
			if holds {
				return metav1.ConditionTrue
			}
			return metav1.ConditionFalse
		}
		stalled := state == v1alpha1.StateFailed || state == v1alpha1.StateRefused || state == v1alpha1.StateDenied
		ready := !stalled && state != v1alpha1.StateOpening && state != v1alpha1.StateClosing
		g.Status.Conditions = []metav1.Condition{
			{Type: v1alpha1.ConditionReady, Status: truth(ready), Reason: state, Message: "so it is"},
			{Type: v1alpha1.ConditionActive, Status: truth(state == v1alpha1.StateActive || state == v1alpha1.StateClosing), Reason: state},
		}
		if stalled {
			g.Status.Conditions = append(g.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionStalled, Status: metav1.ConditionTrue, Reason: state})
		}
	}
}

func endsAt(end time.Time) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) { g.Status.ExpirationTime = new(metav1.NewTime(end)) }
}
