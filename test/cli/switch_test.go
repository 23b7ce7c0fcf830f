package cli

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// setting is that of the namespace, nil if there is none.
func (tn *tenant) setting(t testing.TB) *v1alpha1.SupportAccessSetting {
	t.Helper()
	s := &v1alpha1.SupportAccessSetting{}
	err := tn.Admin.Get(t.Context(), client.ObjectKey{Namespace: tn.namespace, Name: v1alpha1.SettingName}, s)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAnAdminSwitchesSupportAccessOnAndOffWithoutYAML(t *testing.T) {
	tn := newTenant(t)
	tn.admin.run(t, "disable").has(t, 0, "There is nothing to switch off in namespace "+tn.namespace)
	tn.admin.run(t, "enable").has(t, 1, "--engineer: is missing")
	tn.admin.run(t, "enable", "--engineer", gen.Engineer, "--reason", "Ana looks after it", "--wait").
		has(t, 0, "supportaccesssetting.supportaccess.dev/support-access enabled", "On: support access is on until", "Hand over: kubectl support-access handover -n "+tn.namespace)
	first := tn.setting(t)
	if left := time.Until(first.Spec.EnabledUntil.Time); left > 720*time.Hour || left < 719*time.Hour {
		t.Errorf("it is on for %s", left)
	}
	if first.Spec.SwitchedBy != tn.name || first.Spec.Reason != "Ana looks after it" || len(first.Spec.Roles) != 2 {
		t.Errorf("it is %+v", first.Spec)
	}
	file := filepath.Join(tn.Dir, "ana.kubeconfig")
	tn.admin.run(t, "handover", first.Status.Grant, "--file", file).has(t, 0)
	tn.reads(t, file)

	tn.admin.run(t, "enable", "--for", "48h", "--wait").has(t, 0, "enabled", "On: ")
	second := tn.setting(t)
	if second.Spec.Reason != first.Spec.Reason || len(second.Spec.Engineers) != 1 || time.Until(second.Spec.EnabledUntil.Time) > 48*time.Hour {
		t.Errorf("it is %+v", second.Spec)
	}
	if second.Status.Grant == first.Status.Grant {
		t.Error("it has the grant that it had before")
	}
	again := filepath.Join(tn.Dir, "again.kubeconfig")
	tn.admin.run(t, "handover", second.Status.Grant, "--file", again).has(t, 0)
	tn.reads(t, again)

	tn.admin.run(t, "disable").has(t, 0, "support-access disabled", "Access was gone after")
	tn.isRefused(t, again)
	if off := tn.setting(t); off.Spec.EnabledUntil != nil || off.Spec.SwitchedBy != tn.name || len(off.Spec.Engineers) != 1 {
		t.Errorf("switched off, it is %+v", off.Spec)
	}
	tn.admin.run(t, "disable").has(t, 0, "Support access of namespace "+tn.namespace+" was off before")
}

func TestWhoeverIsOnAListOfThePolicyComesInWhileItIsOn(t *testing.T) {
	tn := newTenant(t)
	policy := &v1alpha1.SupportAccessPolicy{ObjectMeta: metav1.ObjectMeta{Name: tn.policy}}
	lists := `{"spec":{"engineerLists":[{"name":"archive","engineers":[{"name":"` + gen.Engineer + `"},{"name":"ben@vendor.example"}]}]}}`
	if err := tn.Admin.Patch(t.Context(), policy, client.RawPatch(types.MergePatchType, []byte(lists))); err != nil {
		t.Fatal(err)
	}
	tn.admin.run(t, "enable", "--engineer-list", "nobody").has(t, 1, "spec.engineers: is missing: name the people, or in spec.engineerList one of the lists")
	world.Eventually(t, "the API server has heard of the list", func() error {
		if got := tn.admin.run(t, "enable", "--engineer-list", "archive", "--wait"); got.code != 0 {
			return fmt.Errorf("%d: %s", got.code, got.err)
		}
		return nil
	})
	on := tn.setting(t)
	if len(on.Spec.Engineers) != 2 || on.Spec.EngineerList != "archive" || on.Spec.SwitchedBy != tn.name {
		t.Errorf("it is %+v", on.Spec)
	}
	file := filepath.Join(tn.Dir, "ana.kubeconfig")
	tn.admin.run(t, "handover", on.Status.Grant, gen.Engineer, "--file", file).has(t, 0)
	tn.reads(t, file)

	tn.admin.run(t, "enable", "--engineer", "ben@vendor.example", "--wait").has(t, 0, "On: ")
	if now := tn.setting(t); len(now.Spec.Engineers) != 1 || now.Spec.EngineerList != "" {
		t.Errorf("with one person in place of the list it is %+v", now.Spec)
	}
}

func TestASwitchIsPrintedAsPeopleAndProgramsWantIt(t *testing.T) {
	tn := newTenant(t)
	ask := []string{"enable", "--engineer", gen.Engineer, "--until", time.Now().Add(100 * time.Hour).UTC().Format("2006-01-02T15:04Z")}
	tn.admin.run(t, append(ask, "--dry-run=client", "-o", "yaml")...).has(t, 0, "kind: SupportAccessSetting", "name: support-access", "- name: "+gen.Engineer)
	tn.admin.run(t, append(ask, "--dry-run=server")...).has(t, 0, "enabled (server dry run)")
	if s := tn.setting(t); s != nil {
		t.Fatalf("a dry run has made %+v", s.Spec)
	}
	tn.admin.run(t, append(ask, "-o", "name")...).has(t, 0, "supportaccesssetting.supportaccess.dev/support-access\n")
	tn.admin.run(t, append(ask, "-o", "wide")...).has(t, 0, "SWITCHED-BY", gen.Engineer, tn.name)
	var s v1alpha1.SupportAccessSetting
	printed := tn.admin.run(t, append(ask, "-o", "json", "--wait")...)
	if err := json.Unmarshal([]byte(printed.out), &s); err != nil || s.UID != tn.setting(t).UID || s.Kind != "SupportAccessSetting" {
		t.Errorf("%v: %s", err, printed.out)
	}
	tn.admin.run(t, "disable", "--dry-run=server").has(t, 0, "disabled (server dry run)")
	tn.admin.run(t, "disable", "--dry-run=client").has(t, 1, "--dry-run: client asks nobody")
	if tn.setting(t).Spec.EnabledUntil == nil {
		t.Error("a dry run has switched it off")
	}
}

func TestASwitchTellsWhatTheAPIServerRefuses(t *testing.T) {
	tn := newTenant(t)
	tn.admin.run(t, "enable", "--engineer", gen.Engineer, "--for", "721h").has(t, 1, "is more than 720h ahead", "give at most")
	tn.admin.run(t, "enable", "--engineer", gen.Engineer, "--role", "cluster-admin").has(t, 1, "cluster-admin")
	stranger := tn.person(t, "stranger@elsewhere.example")
	stranger.run(t, "enable", "--engineer", gen.Engineer).has(t, 1, `User "stranger@elsewhere.example" cannot get resource`)
	stranger.run(t, "disable").has(t, 1, `User "stranger@elsewhere.example" cannot get resource`)
	if s := tn.setting(t); s != nil {
		t.Errorf("there is %+v", s.Spec)
	}

	// Of a grant of the setting's that somebody has revoked there is nothing to wait for.
	tn.admin.run(t, "enable", "--engineer", gen.Engineer, "--wait").has(t, 0, "On: ")
	tn.admin.run(t, "revoke", tn.setting(t).Status.Grant, "--reason", why).has(t, 0, "access was gone")
	tn.admin.run(t, "enable", "--wait").has(t, 0, "On: ")
}
