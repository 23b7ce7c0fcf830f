package setting

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/test/gen"
)

// guarded is since when admission is in force, and written when the setting was first written.
var guarded = gen.Epoch.Add(time.Hour)

func seen(observed, proven int64, since time.Time) func(*v1alpha1.SupportAccessSetting) {
	return func(s *v1alpha1.SupportAccessSetting) {
		s.Status.ObservedGeneration, s.Status.ProvenGeneration = observed, proven
		if !since.IsZero() {
			at := metav1.NewTime(since)
			s.Status.GuardedSince = &at
		}
	}
}

func made(at time.Time) func(*v1alpha1.SupportAccessSetting) {
	return func(s *v1alpha1.SupportAccessSetting) { s.CreationTimestamp = metav1.NewTime(at) }
}

func TestOfASettingThatNobodyGuardedNoGrantIsMade(t *testing.T) {
	before := guarded.Add(-time.Minute)
	for name, c := range map[string]struct {
		generation int64
		mods       []func(*v1alpha1.SupportAccessSetting)
		wants      bool
	}{
		"made under guard": {1, []func(*v1alpha1.SupportAccessSetting){made(guarded.Add(time.Second))}, true},
		"made in the second in which admission came into force": {1, []func(*v1alpha1.SupportAccessSetting){made(guarded)}, false},
		"made before":                                            {1, []func(*v1alpha1.SupportAccessSetting){made(before)}, false},
		"made before, and proven then":                           {1, []func(*v1alpha1.SupportAccessSetting){made(before), seen(1, 1, before)}, true},
		"changed during a break":                                 {2, []func(*v1alpha1.SupportAccessSetting){made(before), seen(1, 1, before)}, false},
		"changed, nobody knows when, seen during a break":        {2, []func(*v1alpha1.SupportAccessSetting){made(before), seen(2, 1, time.Time{})}, false},
		"changed during a break and seen after it":               {2, []func(*v1alpha1.SupportAccessSetting){made(before), seen(2, 1, guarded)}, false},
		"changed during a break, and written again after it":     {3, []func(*v1alpha1.SupportAccessSetting){made(before), seen(2, 1, guarded)}, true},
		"changed after the operator saw it under the same guard": {2, []func(*v1alpha1.SupportAccessSetting){made(before), seen(1, 1, guarded)}, true},
		"changed before the operator ever saw it":                {2, []func(*v1alpha1.SupportAccessSetting){made(before), seen(-1, 0, time.Time{})}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := gen.Setting(gen.Namespace, append(c.mods, gen.WithSettingGeneration(c.generation))...)
			p := decide(sight{now: guarded.Add(time.Hour), setting: s, since: guarded})
			if p.wants != c.wants || p.proven != c.wants {
				t.Errorf("it wants a grant: %t, proven: %t; want %t: %s", p.wants, p.proven, c.wants, p.message)
			}
			if !c.wants && p.state != v1alpha1.StateRefused {
				t.Errorf("it is %s", p.state)
			}
			if p := decide(sight{now: guarded.Add(time.Hour), setting: s, pending: "away"}); p.wants {
				t.Error("it wants a grant while admission is away")
			}
		})
	}
}

func TestASettingHasOneGrantAtATime(t *testing.T) {
	now := gen.Epoch.Add(time.Hour)
	s := gen.Setting(gen.Namespace, gen.WithSettingGeneration(2), seen(2, 2, gen.Epoch))
	grantOfGeneration := func(generation int64, mods ...func(*v1alpha1.SupportAccessGrant)) v1alpha1.SupportAccessGrant {
		older := gen.Setting(gen.Namespace, gen.WithSettingGeneration(generation))
		g := gen.Grant(access.SettingGrantName(older), gen.Namespace, mods...)
		g.Spec.SettingRef = &v1alpha1.SettingReference{UID: s.UID, Generation: generation}
		return *g
	}
	over := gen.WithGrantEnd(now, v1alpha1.EndRevoked, gen.Admin)
	for name, c := range map[string]struct {
		setting *v1alpha1.SupportAccessSetting
		grants  []v1alpha1.SupportAccessGrant
		used    *v1alpha1.SupportAccessRecord
		wants   bool
		state   string
	}{
		"none yet":                         {s, nil, nil, true, v1alpha1.StateOpening},
		"the one before is open":           {s, []v1alpha1.SupportAccessGrant{grantOfGeneration(1)}, nil, false, v1alpha1.StateClosing},
		"the one before has ended":         {s, []v1alpha1.SupportAccessGrant{grantOfGeneration(1, over)}, nil, true, v1alpha1.StateOpening},
		"its own is there":                 {s, []v1alpha1.SupportAccessGrant{grantOfGeneration(2)}, nil, false, v1alpha1.StateOpening},
		"its own was ended":                {s, []v1alpha1.SupportAccessGrant{grantOfGeneration(2, over)}, nil, false, v1alpha1.StateRevoked},
		"its own was deleted":              {s, nil, gen.Record(gen.Grant("g", gen.Namespace), gen.WithRecordEnd(now, v1alpha1.EndDeleted, "x")), false, v1alpha1.StateRevoked},
		"it is off, and its own is open":   {gen.Setting(gen.Namespace, gen.SwitchedOff()), []v1alpha1.SupportAccessGrant{grantOfGeneration(1)}, nil, false, v1alpha1.StateClosing},
		"it is off":                        {gen.Setting(gen.Namespace, gen.SwitchedOff()), nil, nil, false, v1alpha1.SettingOff},
		"its time is over at this instant": {gen.Setting(gen.Namespace, gen.SwitchedOn(now)), nil, nil, false, v1alpha1.SettingOff},
	} {
		t.Run(name, func(t *testing.T) {
			p := decide(sight{now: now, setting: c.setting, grants: c.grants, used: c.used, since: gen.Epoch})
			if p.wants != c.wants || p.state != c.state {
				t.Errorf("it is %s and wants a grant: %t; want %s, %t: %s", p.state, p.wants, c.state, c.wants, p.message)
			}
		})
	}
}

func TestTheGrantOfASettingIsNamedAfterItsGeneration(t *testing.T) {
	first, second := gen.Setting(gen.Namespace), gen.Setting(gen.Namespace, gen.WithSettingGeneration(2))
	other := gen.Setting(gen.Namespace)
	other.UID = "another"
	names := map[string]bool{}
	for _, s := range []*v1alpha1.SupportAccessSetting{first, second, other, gen.Setting("elsewhere")} {
		names[grantOf(s).Name] = true
	}
	if len(names) != 4 || !names[grantOf(gen.Setting(gen.Namespace)).Name] {
		t.Errorf("four settings have the names %v", names)
	}
}
