package gateway

import (
	"fmt"
	"testing"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// isOn has Tess switch support access on, and waits until the engineer may come in.
func (s *scene) isOn(t *testing.T) *grant {
	t.Helper()
	setting := gen.SettingToApply(tenant, gen.SwitchedOn(time.Now().Add(time.Hour).Truncate(time.Second)))
	world.Eventually(t, "Tess switches on", func() error {
		setting.ResourceVersion = ""
		return s.tess.Create(t.Context(), setting)
	})
	object := &v1alpha1.SupportAccessGrant{}
	world.Eventually(t, "support access is on", func() error {
		if err := s.tess.Get(t.Context(), client.ObjectKeyFromObject(setting), setting); err != nil {
			return err
		}
		ready := apimeta.FindStatusCondition(setting.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil || ready.Reason != v1alpha1.SettingOn {
			return fmt.Errorf("its conditions are %v", setting.Status.Conditions)
		}
		return s.tess.Get(t.Context(), types.NamespacedName{Namespace: tenant, Name: setting.Status.Grant}, object)
	})
	return s.handsOver(t, object)
}

func TestSwitchingOffCutsWhoeverIsConnected(t *testing.T) {
	s := newScene(t)
	setting := &v1alpha1.SupportAccessSetting{}
	setting.Namespace, setting.Name = tenant, v1alpha1.SettingName
	takeOut := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"enabledUntil":null}}`))
	for name, c := range map[string]struct {
		off func() error
		// alone says that the controller is not there to see it.
		alone bool
	}{
		"the instant is taken out": {off: func() error { return s.tess.Patch(t.Context(), setting, takeOut) }},
		"the setting is deleted":   {off: func() error { return s.tess.Delete(t.Context(), setting) }},
		"the setting is deleted, and its grant orphaned": {off: func() error {
			return s.tess.Delete(t.Context(), setting, client.PropagationPolicy("Orphan"))
		}},
		"the instant is taken out while the controller is away": {off: func() error { return s.tess.Patch(t.Context(), setting, takeOut) }, alone: true},
	} {
		t.Run(name, func(t *testing.T) {
			g := s.isOn(t)
			streams := []*stream{
				g.starts(t, "imap", nil, "get", "configmaps", "-w"),
				g.starts(t, "", nil, "logs", "-f", s.pod),
			}
			s.haveBegun(t, g, "log", 1)
			if c.alone {
				if err := s.operator.Pause(); err != nil {
					t.Fatal(err)
				}
			}
			err := c.off()
			since := time.Now()
			for _, stream := range streams {
				t.Logf("%6s  %s: %q", stream.isCut(t, since).Round(time.Millisecond), stream.Name(), stream.Said())
			}
			if out, err := g.kubectl(t, "get", "configmaps"); err == nil {
				t.Errorf("switched off, the engineer reads %s", out)
			}
			if c.alone {
				if err := s.operator.Resume(); err != nil {
					t.Fatal(err)
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			s.isAcknowledged(t, g)
			world.Eventually(t, "the setting is gone", func() error {
				err := s.Admin.Delete(t.Context(), setting.DeepCopy())
				if client.IgnoreNotFound(err) != nil || err == nil {
					return fmt.Errorf("it is there: %v", err)
				}
				return nil
			})
		})
	}
}
