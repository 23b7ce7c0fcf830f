package crash

import (
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/test/gen"
)

// settingFlows are what happens to a setting.
func settingFlows() []flow {
	on := func(r *run) { r.switchOn(10 * time.Hour) }
	wasOn := func(r *run) { on(r); r.newLife(nil, nil).settle() }
	return []flow{
		{name: "a setting switched off", before: wasOn, acts: []func(*run){(*run).switchOff}, short: true},
	}
}

// setting reads the setting at home, nil if there is none.
func (r *run) setting() *v1alpha1.SupportAccessSetting {
	r.t.Helper()
	s := &v1alpha1.SupportAccessSetting{}
	err := r.stage.admin.Get(r.t.Context(), r.key(v1alpha1.SettingName), s)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		r.fatalf("get the setting: %v", err)
	}
	return s
}

// switchOn has the cluster's admin write an instant so long from now. What the setting gave until then is over.
func (r *run) switchOn(length time.Duration) {
	r.t.Helper()
	r.writeSetting(func(s *v1alpha1.SupportAccessSetting) {
		s.Spec.EnabledUntil = new(metav1.NewTime(r.clock.Now().Add(length).Truncate(time.Second)))
	})
}

func (r *run) switchOff() {
	r.t.Helper()
	r.writeSetting(func(s *v1alpha1.SupportAccessSetting) { s.Spec.EnabledUntil = nil })
}

func (r *run) writeSetting(change func(*v1alpha1.SupportAccessSetting)) {
	r.t.Helper()
	r.shutAll("its setting was changed")
	s := r.setting()
	var err error
	if s != nil {
		change(s)
		err = r.stage.admin.Update(r.t.Context(), s)
	} else {
		s = gen.SettingToApply(r.home)
		change(s)
		err = poll(r.t.Context(), 10*time.Second, func() error { return r.stage.admin.Create(r.t.Context(), s) })
	}
	if err != nil {
		r.fatalf("write the setting: %v", err)
	}
	r.switched = true
	r.wrote(s)
	r.log("admin: wrote the setting, until %v", s.Spec.EnabledUntil)
}

// shutAll says that nothing more may be given because of the setting as it was.
func (r *run) shutAll(why string) {
	for key, g := range r.look().grants {
		if g.Spec.SettingRef != nil {
			r.shut[key] = why
		}
	}
}

// meetSetting learns the name that the operator will give to the grant of a setting as it is.
func (r *run) meetSetting(s *v1alpha1.SupportAccessSetting) {
	r.names[access.SettingGrantName(s)] = fmt.Sprintf("setting-%d", s.Generation)
}

// outcomeOfSetting is what has become of the setting.
func (r *run) outcomeOfSetting() []string {
	if !r.switched {
		return nil
	}
	line := "setting: none"
	if s := r.setting(); s != nil {
		ready := apimeta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionReady)
		line = fmt.Sprintf("setting: generation %d, proven %d, grant %s, %v", s.Generation, s.Status.ProvenGeneration, s.Status.Grant, ready != nil && ready.Reason == v1alpha1.SettingOn)
	}
	record := &v1alpha1.SupportAccessRecord{}
	if err := r.stage.admin.Get(r.t.Context(), types.NamespacedName{Namespace: r.home, Name: v1alpha1.SettingRecordName}, record); err != nil {
		r.wrong("there was a setting, and it is not on record: %v", err)
	}
	if seen, s := record.Status.Setting, r.setting(); (seen == nil) != (s == nil) || seen != nil && (seen.UID != s.UID || seen.Generation != s.Generation) {
		r.wrong("the record of the setting says %+v, and it is %+v", seen, s)
	}
	for _, t := range record.Status.Transitions {
		line += fmt.Sprintf(" → %s by %s", t.Type, t.By)
	}
	grants := 0
	for _, g := range r.look().grants {
		if g.Spec.SettingRef != nil && g.Status.EndTime == nil {
			grants++
		}
	}
	return []string{line, fmt.Sprintf("open grants of the setting: %d", grants)}
}
