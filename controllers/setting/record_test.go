package setting

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/internal/records"
	"supportaccess.dev/operator/test/gen"
)

// trail is what a record says happened, in one line.
func trail(record *v1alpha1.SupportAccessRecord) string {
	var words []string
	for _, t := range record.Status.Transitions {
		words = append(words, t.Type+" by "+t.By)
	}
	return strings.Join(words, ", ")
}

func TestTheRecordOfASettingSaysWhoSwitchedItAndWhen(t *testing.T) {
	until := gen.Epoch.Add(240 * time.Hour)
	const ben = "ben@customer.example"
	on := func(mods ...func(*v1alpha1.SupportAccessSetting)) standing {
		return standing{setting: gen.Setting(gen.Namespace, mods...), proven: true}
	}
	twice, byBen := gen.WithSettingGeneration(2), gen.SwitchedBy(ben)
	another := func(s *v1alpha1.SupportAccessSetting) { s.UID = "another" }
	unproven := on()
	unproven.proven = false
	for name, c := range map[string]struct {
		seen []standing
		now  time.Time
		want string
	}{
		"on":                             {[]standing{on()}, gen.Epoch, "SwitchedOn by " + gen.Admin},
		"seen twice":                     {[]standing{on(), on()}, gen.Epoch, "SwitchedOn by " + gen.Admin},
		"on, then changed":               {[]standing{on(), on(twice, byBen)}, gen.Epoch, "SwitchedOn by " + gen.Admin + ", SettingChanged by " + ben},
		"on, then off":                   {[]standing{on(), on(twice, byBen, gen.SwitchedOff())}, gen.Epoch, "SwitchedOn by " + gen.Admin + ", SwitchedOff by " + ben},
		"off, then on":                   {[]standing{on(gen.SwitchedOff()), on(twice, byBen)}, gen.Epoch, "SwitchedOn by " + ben},
		"off, and changed while off":     {[]standing{on(gen.SwitchedOff()), on(twice, byBen, gen.SwitchedOff())}, gen.Epoch, ""},
		"on, then deleted":               {[]standing{on(), {}}, gen.Epoch, "SwitchedOn by " + gen.Admin + ", SettingDeleted by unknown"},
		"deleted, and looked at again":   {[]standing{on(), {}, {}}, gen.Epoch, "SwitchedOn by " + gen.Admin + ", SettingDeleted by unknown"},
		"on, deleted and made anew":      {[]standing{on(), on(another, byBen)}, gen.Epoch, "SwitchedOn by " + gen.Admin + ", SettingDeleted by unknown, SwitchedOn by " + ben},
		"its time is over when seen":     {[]standing{on()}, until, ""},
		"who switched on is not proven":  {[]standing{unproven}, gen.Epoch, "SwitchedOn by " + lifecycle.Unknown},
		"nobody says who switched it on": {[]standing{on(gen.SwitchedBy(""))}, gen.Epoch, "SwitchedOn by " + lifecycle.Unknown},
	} {
		record := newRecord(gen.Namespace)
		for _, at := range c.seen {
			note(record, at, c.now)
		}
		if got := trail(record); got != c.want {
			t.Errorf("%s: the record says %q, want %q", name, got, c.want)
		}
	}
	// Switched off by itself it is at that very instant, once.
	record := newRecord(gen.Namespace)
	for _, now := range []time.Time{gen.Epoch, until.Add(-time.Nanosecond), until, until.Add(time.Hour)} {
		note(record, on(), now)
		if now.Before(until) != (record.Status.Setting.EnabledUntil != nil) {
			t.Errorf("at %s it is on until %v", now, record.Status.Setting.EnabledUntil)
		}
	}
	if got := trail(record); got != "SwitchedOn by "+gen.Admin+", Expired by "+lifecycle.Operator {
		t.Errorf("the record says %q", got)
	}
	if message := record.Status.Transitions[0].Message; !strings.Contains(message, gen.Engineer+" may do what "+gen.Configuration) || !strings.Contains(message, until.Format(time.RFC3339)) {
		t.Errorf("it says %q", message)
	}
}

func TestARecordOfASettingKeepsTheFirstAndTheLatest(t *testing.T) {
	record := newRecord(gen.Namespace)
	const many = records.MaxTransitions + 10
	for i := range int64(many) {
		mods := []func(*v1alpha1.SupportAccessSetting){gen.WithSettingGeneration(i + 1)}
		if i == 0 {
			mods = append(mods, gen.SwitchedBy("first"))
		}
		if i == many-1 {
			mods = append(mods, gen.SwitchedBy("last"))
		}
		note(record, standing{setting: gen.Setting(gen.Namespace, mods...), proven: true}, gen.Epoch.Add(time.Duration(i)))
	}
	kept := record.Status.Transitions
	if len(kept) != records.MaxTransitions || record.Status.DroppedTransitions != 10 || kept[0].By != "first" || kept[records.MaxTransitions-1].By != "last" {
		t.Errorf("%d are kept, %d are counted; the first is by %s, the last by %s", len(kept), record.Status.DroppedTransitions, kept[0].By, kept[len(kept)-1].By)
	}
}

// policy is one that switches on what is made since Epoch.
func policy(mods ...func(*v1alpha1.SupportAccessPolicy)) *v1alpha1.SupportAccessPolicy {
	return gen.Policy("accounts", append([]func(*v1alpha1.SupportAccessPolicy){gen.EnablingByDefault(gen.Epoch)}, mods...)...)
}

func TestByDefaultIsSwitchedOnWhatIsMadeSince(t *testing.T) {
	namespace := func(name, label string, made time.Time) *metav1.PartialObjectMetadata {
		n := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(made)}}
		if label != "" {
			n.Labels = map[string]string{v1alpha1.LabelPolicy: label}
		}
		return n
	}
	going := namespace("shop", "accounts", gen.Epoch)
	going.DeletionTimestamp = &metav1.Time{Time: gen.Epoch}
	asDefault := policy()
	asDefault.Name = v1alpha1.DefaultPolicyName
	for name, c := range map[string]struct {
		namespace *metav1.PartialObjectMetadata
		policy    *v1alpha1.SupportAccessPolicy
		want      bool
	}{
		"made at that instant":          {namespace("shop", "accounts", gen.Epoch), policy(), true},
		"made a second earlier":         {namespace("shop", "accounts", gen.Epoch.Add(-time.Second)), policy(), false},
		"of another policy":             {namespace("shop", "strict", gen.Epoch), policy(), false},
		"of no policy":                  {namespace("shop", "", gen.Epoch), policy(), false},
		"of no policy, by the default":  {namespace("shop", "", gen.Epoch), asDefault, true},
		"about to go":                   {going, policy(), false},
		"protected":                     {namespace("shop", "accounts", gen.Epoch), policy(gen.Protecting("shop")), false},
		"the operator's":                {namespace(v1alpha1.SystemNamespace, "accounts", gen.Epoch), policy(), false},
		"that of the credentials":       {namespace(v1alpha1.CredentialsNamespace, "accounts", gen.Epoch), policy(), false},
		"protected, but another's name": {namespace("shop", "accounts", gen.Epoch), policy(gen.Protecting("shops")), true},
	} {
		if got := comesUnder(c.namespace, c.policy); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestByAPolicyThatNobodyGuardedNothingIsSwitchedOn(t *testing.T) {
	made := func(at time.Time) func(*v1alpha1.SupportAccessPolicy) {
		return func(p *v1alpha1.SupportAccessPolicy) { p.CreationTimestamp = metav1.NewTime(at) }
	}
	seen := func(seen, proven int64) func(*v1alpha1.SupportAccessPolicy) {
		return func(p *v1alpha1.SupportAccessPolicy) {
			p.Status.SeenGeneration, p.Status.ProvenGeneration = seen, proven
		}
	}
	inForce := lifecycle.Guard{Now: guarded.Add(time.Hour), Since: guarded}
	for name, c := range map[string]struct {
		policy *v1alpha1.SupportAccessPolicy
		guard  lifecycle.Guard
		want   string
	}{
		"made under guard":              {policy(made(guarded.Add(time.Second))), inForce, ""},
		"made before":                   {policy(made(guarded.Add(-time.Second))), inForce, v1alpha1.StateRefused},
		"made before, and proven then":  {policy(made(guarded.Add(-time.Second)), seen(1, 1)), inForce, ""},
		"made under guard, and now not": {policy(made(guarded.Add(time.Second))), lifecycle.Guard{Now: inForce.Now, Pending: "away"}, v1alpha1.StateAdmissionNotInForce},
		"suspended":                     {policy(made(guarded.Add(time.Second)), gen.Suspended()), inForce, v1alpha1.StateRefused},
	} {
		if got := standingOf(c.policy, c.guard); got.reason != c.want {
			t.Errorf("%s: it is %q: %s; want %q", name, got.reason, got.message, c.want)
		}
	}
}

func TestASettingByDefaultIsMadeOnceAndSoonOrNotAtAll(t *testing.T) {
	now := gen.Epoch
	record := newRecord(gen.Namespace)
	record.Status.EnabledByDefault = &v1alpha1.RecordedDefault{Policy: "accounts", Time: metav1.NewMicroTime(now)}
	add(record, now, v1alpha1.Transition{Type: v1alpha1.TransitionEnabledByDefault, By: gen.Admin})
	if !unfinished(record, now.Add(makeWithin-1)) || unfinished(record, now.Add(makeWithin)) {
		t.Error("a setting that nobody has seen is to be made for a minute, and no longer")
	}
	made := settingBy(policy(), gen.Namespace, now)
	made.UID, made.Generation = "made", 1
	note(record, standing{setting: made, proven: true}, now)
	if got := trail(record); got != "EnabledByDefault by "+gen.Admin || unfinished(record, now) {
		t.Errorf("once it is there, the record says %q, and it is unfinished: %t", got, unfinished(record, now))
	}
	note(record, standing{}, now)
	if got := trail(record); got != "EnabledByDefault by "+gen.Admin+", SettingDeleted by unknown" || unfinished(record, now) {
		t.Errorf("once it is deleted, the record says %q, and it is unfinished: %t", got, unfinished(record, now))
	}
}
