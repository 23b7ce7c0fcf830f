package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/partial"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// policyOf is the policy of a tenant.
func (tn *tenant) policyOf(t testing.TB) *v1alpha1.SupportAccessPolicy {
	t.Helper()
	namespace := partial.Object("Namespace")
	if err := tn.Admin.Get(t.Context(), client.ObjectKey{Name: tn.namespace}, namespace); err != nil {
		t.Fatal(err)
	}
	policy := &v1alpha1.SupportAccessPolicy{}
	if err := tn.Admin.Get(t.Context(), client.ObjectKey{Name: namespace.Labels[v1alpha1.LabelPolicy]}, policy); err != nil {
		t.Fatal(err)
	}
	return policy
}

// enablesByDefault has the cluster admin write into the tenant's policy that namespaces are on by default.
func (tn *tenant) enablesByDefault(t testing.TB, since time.Time) *v1alpha1.SupportAccessPolicy {
	t.Helper()
	policy := tn.policyOf(t)
	gen.EnablingByDefault(since)(policy)
	policy.Spec.EnabledByDefault.SwitchedBy = ""
	if err := tn.Admin.Update(t.Context(), policy); err != nil {
		t.Fatalf("have policy %s switch on by default: %v", policy.Name, err)
	}
	return policy
}

// settingRecord reads the record of the setting of a namespace.
func (tn *tenant) settingRecord(t testing.TB, namespace string) *v1alpha1.SupportAccessRecord {
	t.Helper()
	record := &v1alpha1.SupportAccessRecord{}
	world.Eventually(t, "the setting is on record", func() error {
		return tn.Admin.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: v1alpha1.SettingRecordName}, record)
	})
	return record
}

// saysOfSetting waits until the record of a setting has a trail.
func (tn *tenant) saysOfSetting(t testing.TB, namespace string, want ...string) {
	t.Helper()
	world.Eventually(t, "the record of the setting says what happened", func() error {
		var words []string
		for _, t := range tn.settingRecord(t, namespace).Status.Transitions {
			words = append(words, t.Type+" by "+t.By)
		}
		if got := strings.Join(words, ", "); got != strings.Join(want, ", ") {
			return fmt.Errorf("it says %s", got)
		}
		return nil
	})
}

func settingIn(namespace string) *v1alpha1.SupportAccessSetting {
	return &v1alpha1.SupportAccessSetting{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: v1alpha1.SettingName}}
}

func TestTheRecordOfASettingOutlivesItAndSaysWhoSwitched(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	s := tn.switchesOn(t, inHours(10))
	s.is(t, v1alpha1.SettingOn)
	s.writes(t, tn.admin, on(inHours(11)))
	s.is(t, v1alpha1.SettingOn)
	s.writes(t, tn.admin, switchedOff)
	s.is(t, v1alpha1.SettingOff)
	s.writes(t, tn.admin, on(time.Now().Add(4*time.Second).Truncate(time.Second)))
	by := tn.admin.name
	tn.saysOfSetting(t, tn.namespace, "SwitchedOn by "+by, "SettingChanged by "+by, "SwitchedOff by "+by, "SwitchedOn by "+by, "Expired by "+theOperatorItself)
	s.writes(t, tn.admin, on(inHours(10)))
	s.is(t, v1alpha1.SettingOn)
	if err := tn.admin.Delete(t.Context(), settingIn(tn.namespace)); err != nil {
		t.Fatal(err)
	}
	tn.saysOfSetting(t, tn.namespace, "SwitchedOn by "+by, "SettingChanged by "+by, "SwitchedOff by "+by, "SwitchedOn by "+by, "Expired by "+theOperatorItself,
		"SwitchedOn by "+by, "SettingDeleted by unknown")
}

func TestANamespaceThatComesUnderThePolicyIsSwitchedOnOnce(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	tomorrow := time.Now().Add(24 * time.Hour)
	policy := tn.enablesByDefault(t, tomorrow)
	label := map[string]string{v1alpha1.LabelPolicy: policy.Name}
	older := tn.LabelledNamespace(t, label)
	// What was there before is left alone until somebody asks for it.
	world.Consistently(t, "nothing is switched on", 2*time.Second, func() error {
		for _, namespace := range []string{tn.namespace, older} {
			if err := tn.Admin.Get(t.Context(), client.ObjectKeyFromObject(settingIn(namespace)), &v1alpha1.SupportAccessSetting{}); !apierrors.IsNotFound(err) {
				return fmt.Errorf("%s has a setting: %v", namespace, err)
			}
		}
		return nil
	})
	policy = tn.enablesByDefault(t, time.Now().Add(-time.Hour))
	writer := policy.Spec.EnabledByDefault.SwitchedBy
	s := &settingInTest{tenant: tn, key: client.ObjectKeyFromObject(settingIn(tn.namespace))}
	object := s.is(t, v1alpha1.SettingOn)
	if writer == "" || object.Spec.SwitchedBy != writer {
		t.Errorf("it was switched on by %q, the policy was written by %q", object.Spec.SwitchedBy, writer)
	}
	g := s.grant(t, object)
	if active := g.is(t, v1alpha1.StateActive); active.Spec.GrantedBy != writer {
		t.Errorf("its grant is by %q, want %q", active.Spec.GrantedBy, writer)
	}
	fresh := tn.LabelledNamespace(t, label)
	tn.saysOfSetting(t, fresh, "EnabledByDefault by "+writer)

	// Switched off or deleted it does not come back by itself; a person may switch it on.
	s.writes(t, tn.admin, switchedOff)
	s.is(t, v1alpha1.SettingOff)
	if err := tn.Admin.Delete(t.Context(), settingIn(fresh)); err != nil {
		t.Fatal(err)
	}
	if err := tn.admin.Delete(t.Context(), settingIn(tn.namespace)); err != nil {
		t.Fatal(err)
	}
	tn.saysOfSetting(t, fresh, "EnabledByDefault by "+writer, "SettingDeleted by unknown")
	touch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"again":"yes"}}}`))
	if err := tn.Admin.Patch(t.Context(), policy, touch); err != nil {
		t.Fatal(err)
	}
	world.Consistently(t, "it stays off", 2*time.Second, func() error {
		for _, namespace := range []string{tn.namespace, fresh} {
			if err := tn.Admin.Get(t.Context(), client.ObjectKeyFromObject(settingIn(namespace)), &v1alpha1.SupportAccessSetting{}); !apierrors.IsNotFound(err) {
				return fmt.Errorf("%s has a setting again: %v", namespace, err)
			}
		}
		return nil
	})
	tn.switchesOn(t, inHours(10)).is(t, v1alpha1.SettingOn)
}

func TestWhoeverHasASettingOfTheirOwnIsNotSwitchedOnByDefault(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	own := gen.SettingToApply(tn.namespace, gen.SwitchedOff())
	if err := tn.admin.Create(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	tn.enablesByDefault(t, time.Now().Add(-time.Hour))
	s := &settingInTest{tenant: tn, key: client.ObjectKeyFromObject(own)}
	world.Consistently(t, "it stays off", 2*time.Second, func() error {
		if object := s.is(t, v1alpha1.SettingOff); object.UID != own.UID || object.Generation != 1 {
			return fmt.Errorf("it is %+v", object.Spec)
		}
		return nil
	})
}
