package cli

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
)

func TestWhatNoFlagSaysStaysAsItIsInTheSetting(t *testing.T) {
	until := func(at time.Time) *metav1.Time { return new(metav1.NewTime(at)) }
	for sentence, c := range map[string]struct {
		asked switching
		want  func(*v1alpha1.SupportAccessSetting)
	}{
		"switched on again, it is on for 30 days": {switching{}, func(s *v1alpha1.SupportAccessSetting) { s.Spec.EnabledUntil = until(gen.Epoch.Add(720 * time.Hour)) }},
		"for a length": {switching{length: "90m"}, func(s *v1alpha1.SupportAccessSetting) { s.Spec.EnabledUntil = until(gen.Epoch.Add(90 * time.Minute)) }},
		"until an instant": {switching{until: "2026-12-01T20:00+01:00"},
			func(s *v1alpha1.SupportAccessSetting) { s.Spec.EnabledUntil = until(gen.Epoch.Add(10 * time.Hour)) }},
		"other engineers take the place of those that were there": {switching{length: "1h", engineers: []string{"ben@vendor.example=" + sshKey, "cleo@vendor.example"}},
			func(s *v1alpha1.SupportAccessSetting) {
				s.Spec.EnabledUntil = until(gen.Epoch.Add(time.Hour))
				s.Spec.Engineers = []v1alpha1.Engineer{{Name: "ben@vendor.example", PublicKey: sshKey}, {Name: "cleo@vendor.example"}}
			}},
		"a list takes the place of those that were there": {switching{length: "1h", list: "archive"},
			func(s *v1alpha1.SupportAccessSetting) {
				s.Spec.EnabledUntil, s.Spec.Engineers, s.Spec.EngineerList = until(gen.Epoch.Add(time.Hour)), nil, "archive"
			}},
		"roles, transport and reason": {switching{length: "1h", roles: []string{"a"}, transport: "DIRECT", why: "so"},
			func(s *v1alpha1.SupportAccessSetting) {
				s.Spec.EnabledUntil = until(gen.Epoch.Add(time.Hour))
				s.Spec.Roles, s.Spec.Transport, s.Spec.Reason = []string{"a"}, v1alpha1.TransportDirect, "so"
			}},
	} {
		got := gen.Setting(gen.Namespace, func(s *v1alpha1.SupportAccessSetting) { s.Spec.Transport = v1alpha1.TransportGateway })
		want := got.DeepCopy()
		c.want(want)
		if err := c.asked.apply(got, gen.Epoch, noFiles); err != nil || !equality.Semantic.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v, want %+v", sentence, got.Spec, err, want.Spec)
		}
	}
}

func TestToSwitchOnWithinTheSameSecondChangesTheSetting(t *testing.T) {
	setting := gen.Setting(gen.Namespace)
	for i, want := range []time.Duration{time.Hour, time.Hour - time.Second, time.Hour} {
		if err := (switching{length: "1h"}).apply(setting, gen.Epoch, noFiles); err != nil || !setting.Spec.EnabledUntil.Equal(new(metav1.NewTime(gen.Epoch.Add(want)))) {
			t.Errorf("the %d. time it is on until %v, %v", i+1, setting.Spec.EnabledUntil, err)
		}
	}
	// An instant that somebody has named is that instant.
	for range 2 {
		if err := (switching{until: "2026-12-01T20:00Z"}).apply(setting, gen.Epoch, noFiles); err != nil || !setting.Spec.EnabledUntil.Equal(new(metav1.NewTime(gen.Epoch.Add(11*time.Hour)))) {
			t.Errorf("it is on until %v, %v", setting.Spec.EnabledUntil, err)
		}
	}
}

func TestABadFlagOfTheSwitchIsSaidInASentenceThatNamesIt(t *testing.T) {
	for want, asked := range map[string]switching{
		"--engineer: is missing":                                            {},
		"--engineer: ana@vendor.example is named twice":                     {engineers: []string{gen.Engineer, gen.Engineer}},
		"--for, --until: give one of them, not both":                        {length: "1h", until: "2026-12-01T18:00Z"},
		"--for: 3d: days and weeks are not units: write 72h":                {length: "3d"},
		"--until: 2026-12-01T09:00Z has passed: to switch off, use disable": {until: "2026-12-01T09:00Z"},
		"--transport: tunnel: write gateway or direct":                      {transport: "tunnel"},
		"--engineer, --engineer-list: name people, or a list":               {engineers: []string{gen.Engineer}, list: "archive"},
	} {
		if err := asked.apply(newSetting(gen.Namespace), gen.Epoch, noFiles); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	setting := newSetting(gen.Namespace)
	err := switching{length: "3d", transport: "tunnel"}.apply(setting, gen.Epoch, noFiles)
	if err == nil || strings.Count(err.Error(), "\n") != 2 || setting.Spec.EnabledUntil != nil {
		t.Errorf("not all that is wrong is said at once, or it is written: %v", err)
	}
}

func TestASettingIsAsTheOperatorLastSawIt(t *testing.T) {
	ready := func(reason string) func(*v1alpha1.SupportAccessSetting) {
		return func(s *v1alpha1.SupportAccessSetting) {
			s.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Reason: reason, ObservedGeneration: 1}}
		}
	}
	for reason, want := range map[string][2]bool{
		v1alpha1.SettingOn: {true, false}, v1alpha1.SettingOff: {true, true}, v1alpha1.StateRevoked: {true, false}, v1alpha1.StateRefused: {true, false},
		v1alpha1.StateOpening: {false, false}, v1alpha1.StateClosing: {false, false}, v1alpha1.StateAdmissionNotInForce: {false, false},
	} {
		s := gen.Setting(gen.Namespace, ready(reason))
		if got := [2]bool{isEnabled(s), isDisabled(s)}; got != want {
			t.Errorf("%s: got %v, want %v", reason, got, want)
		}
		s.Generation = 2
		if state, _ := settingState(s); isEnabled(s) || isDisabled(s) || state != unseen {
			t.Errorf("%s: what the operator said before it was changed counts: %s", reason, state)
		}
	}
}
