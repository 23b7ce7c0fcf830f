package gen

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
)

// Setting is the setting of a namespace as an API server stores it: on for ten days from Epoch, for the engineer and the
// default roles, written once by the admin.
func Setting(namespace string, mods ...func(*v1alpha1.SupportAccessSetting)) *v1alpha1.SupportAccessSetting {
	return build(&v1alpha1.SupportAccessSetting{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "SupportAccessSetting"},
		ObjectMeta: metav1.ObjectMeta{
			Name: v1alpha1.SettingName, Namespace: namespace, UID: UID(namespace + "/" + v1alpha1.SettingName), Generation: 1,
			CreationTimestamp: metav1.NewTime(Epoch),
		},
		Spec: v1alpha1.SupportAccessSettingSpec{
			EnabledUntil: at(Epoch.Add(240 * time.Hour)), Engineers: []v1alpha1.Engineer{{Name: Engineer}},
			Roles: []string{Configuration, Diagnostics}, Reason: "support access is switched on for this namespace", SwitchedBy: Admin,
		},
		Status: v1alpha1.SupportAccessSettingStatus{ObservedGeneration: -1},
	}, mods)
}

// SettingToApply is a setting as an admin writes it: without what the API server and admission add.
func SettingToApply(namespace string, mods ...func(*v1alpha1.SupportAccessSetting)) *v1alpha1.SupportAccessSetting {
	s := Setting(namespace, mods...)
	s.UID, s.Generation, s.CreationTimestamp, s.Spec.SwitchedBy = "", 0, metav1.Time{}, ""
	s.Status = v1alpha1.SupportAccessSettingStatus{}
	return s
}

// SwitchedOn has it be on until an instant.
func SwitchedOn(until time.Time) func(*v1alpha1.SupportAccessSetting) {
	return func(s *v1alpha1.SupportAccessSetting) { s.Spec.EnabledUntil = at(until) }
}

// SwitchedOff has it be off.
func SwitchedOff() func(*v1alpha1.SupportAccessSetting) {
	return func(s *v1alpha1.SupportAccessSetting) { s.Spec.EnabledUntil = nil }
}

// SwitchedBy stamps it.
func SwitchedBy(user string) func(*v1alpha1.SupportAccessSetting) {
	return func(s *v1alpha1.SupportAccessSetting) { s.Spec.SwitchedBy = user }
}

// WithSettingGeneration has it be written so many times.
func WithSettingGeneration(generation int64) func(*v1alpha1.SupportAccessSetting) {
	return func(s *v1alpha1.SupportAccessSetting) { s.Generation = generation }
}
