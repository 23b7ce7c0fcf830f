package records

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
)

func TestARecordIsToldFromItsCopiesAndAGrantsFromASettings(t *testing.T) {
	grant := v1alpha1.SupportAccessRecordSpec{Grant: v1alpha1.RecordedGrant{Namespace: "mail", Name: "case-1"}}
	setting := v1alpha1.SupportAccessRecordSpec{Setting: &v1alpha1.RecordedSetting{Namespace: "mail"}}
	for what, c := range map[string]struct {
		namespace, name string
		spec            v1alpha1.SupportAccessRecordSpec
		ofGrant, own    bool
	}{
		"a grant's own":                         {"mail", "case-1", grant, true, true},
		"a grant's copy where it reaches":       {"shop", "case-1", grant, true, false},
		"a grant's copy beside its own":         {"mail", "mail.case-1", grant, true, false},
		"a setting's own":                       {"mail", v1alpha1.SettingRecordName, setting, false, true},
		"a setting's copy":                      {"shop", v1alpha1.SettingRecordName, setting, false, false},
		"a setting's under the name of a grant": {"mail", "case-1", setting, false, false},
	} {
		record := &v1alpha1.SupportAccessRecord{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: c.name}, Spec: c.spec}
		if of, own := IsOfGrant(record), IsOwn(record); of != c.ofGrant || own != c.own {
			t.Errorf("%s: of a grant %v, own %v; want %v and %v", what, of, own, c.ofGrant, c.own)
		}
	}
}
