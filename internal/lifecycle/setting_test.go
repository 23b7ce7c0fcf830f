package lifecycle

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
)

func TestHowASettingEndsItsGrant(t *testing.T) {
	now := gen.Epoch.Add(time.Hour)
	ref := &v1alpha1.SettingReference{UID: gen.Setting(gen.Namespace).UID, Generation: 2}
	deleting := func(s *v1alpha1.SupportAccessSetting) {
		at := metav1.NewTime(now)
		s.DeletionTimestamp = &at
	}
	another := func(s *v1alpha1.SupportAccessSetting) { s.UID = "another" }
	setting := func(generation int64, mods ...func(*v1alpha1.SupportAccessSetting)) *v1alpha1.SupportAccessSetting {
		return gen.Setting(gen.Namespace, append(mods, gen.WithSettingGeneration(generation), gen.SwitchedBy("ben"))...)
	}
	for name, c := range map[string]struct {
		ref        *v1alpha1.SettingReference
		setting    *v1alpha1.SupportAccessSetting
		reason, by string
	}{
		"no setting is named":                    {nil, nil, "", ""},
		"it is as it was":                        {ref, setting(2), "", ""},
		"it was read too early, when it was off": {ref, setting(1, gen.SwitchedOff()), "", ""},
		"it is gone":                             {ref, nil, v1alpha1.EndSettingDeleted, Unknown},
		"it is going":                            {ref, setting(2, deleting), v1alpha1.EndSettingDeleted, Unknown},
		"another is in its place":                {ref, setting(2, another), v1alpha1.EndSettingDeleted, Unknown},
		"it was switched off":                    {ref, setting(3, gen.SwitchedOff()), v1alpha1.EndSwitchedOff, "ben"},
		"it was put to an instant that is now":   {ref, setting(3, gen.SwitchedOn(now)), v1alpha1.EndSwitchedOff, "ben"},
		"it was renewed, or somebody was added":  {ref, setting(3), v1alpha1.EndReplaced, "ben"},
	} {
		t.Run(name, func(t *testing.T) {
			end := EndBySetting(c.ref, c.setting, now)
			if end == nil {
				end = &End{}
			}
			if end.Reason != c.reason || end.By != c.by {
				t.Errorf("it ends as %q by %q; want %q by %q", end.Reason, end.By, c.reason, c.by)
			}
			grant := gen.Grant("g", gen.Namespace)
			verdict := Decide(Facts{Now: now, Grant: grant, Record: gen.Record(grant, gen.WithSpecDigest(SpecDigest(grant.Spec))), World: World{Switched: EndBySetting(c.ref, c.setting, now)}})
			if closed := verdict.Wants == WantsClosed; closed != (c.reason != "") {
				t.Errorf("the grant is to be closed: %t", closed)
			}
		})
	}
}
