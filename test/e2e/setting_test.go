package e2e

import (
	"fmt"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// settingInTest is the setting of a tenant.
type settingInTest struct {
	*tenant
	key types.NamespacedName
}

// switchesOn has the tenant's admin switch support access on until an instant.
func (tn *tenant) switchesOn(t testing.TB, until time.Time) *settingInTest {
	t.Helper()
	object := gen.SettingToApply(tn.namespace, gen.SwitchedOn(until))
	if err := tn.admin.Create(t.Context(), object); err != nil {
		t.Fatalf("switch on: %v", err)
	}
	return &settingInTest{tenant: tn, key: client.ObjectKeyFromObject(object)}
}

// is waits until the setting is in a state, and returns it.
func (s *settingInTest) is(t testing.TB, state string) *v1alpha1.SupportAccessSetting {
	t.Helper()
	object := &v1alpha1.SupportAccessSetting{}
	world.Eventually(t, "the setting is "+state, func() error {
		if err := s.admin.Get(t.Context(), s.key, object); err != nil {
			return err
		}
		ready := apimeta.FindStatusCondition(object.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil || ready.Reason != state || ready.ObservedGeneration != object.Generation {
			return fmt.Errorf("it is %+v", ready)
		}
		return nil
	})
	return object
}

// writes has somebody change the setting.
func (s *settingInTest) writes(t testing.TB, who *person, patch string) {
	t.Helper()
	object := &v1alpha1.SupportAccessSetting{ObjectMeta: metav1.ObjectMeta{Namespace: s.key.Namespace, Name: s.key.Name}}
	if err := who.Patch(t.Context(), object, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		t.Fatalf("write %s: %v", patch, err)
	}
}

// grant is the grant that the setting names.
func (s *settingInTest) grant(t testing.TB, object *v1alpha1.SupportAccessSetting) *grantInTest {
	t.Helper()
	g := &v1alpha1.SupportAccessGrant{}
	if err := s.admin.Get(t.Context(), client.ObjectKey{Namespace: s.namespace, Name: object.Status.Grant}, g); err != nil {
		t.Fatalf("get the setting's grant: %v", err)
	}
	return s.follow(g)
}

func inHours(n time.Duration) time.Time { return time.Now().Add(n * time.Hour).Truncate(time.Second) }

func on(until time.Time) string {
	return `{"spec":{"enabledUntil":"` + until.UTC().Format(time.RFC3339) + `"}}`
}

const switchedOff = `{"spec":{"enabledUntil":null}}`

func TestASettingThatIsOnIsOneGrantUntilItIsSwitchedOff(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	until := inHours(10)
	s := tn.switchesOn(t, until)
	g := s.grant(t, s.is(t, v1alpha1.SettingOn))
	object := g.is(t, v1alpha1.StateActive)
	if object.Spec.GrantedBy != tn.admin.name || !object.Spec.ExpirationTime.Time.Equal(until) {
		t.Errorf("its grant is by %q until %s; want %q, %s", object.Spec.GrantedBy, object.Spec.ExpirationTime, tn.admin.name, until)
	}
	engineer := g.engineer(t)
	mayRead(t, engineer, tn.namespace)

	s.writes(t, tn.admin, switchedOff)
	s.is(t, v1alpha1.SettingOff)
	g.isOver(t, v1alpha1.StateRevoked, ending{reason: v1alpha1.EndSwitchedOff, by: tn.admin.name})
	engineer.isRefusedEverywhere(t, tn.namespace)

	// On again it is another grant, and renewed yet another; of them one is open.
	s.writes(t, tn.admin, on(inHours(11)))
	second := s.grant(t, s.is(t, v1alpha1.SettingOn))
	s.writes(t, tn.admin, on(inHours(12)))
	third := s.grant(t, s.is(t, v1alpha1.SettingOn))
	if g.Name == second.Name || second.Name == third.Name || g.Name == third.Name {
		t.Errorf("a name comes back: %s, %s, %s", g.Name, second.Name, third.Name)
	}
	second.isOver(t, v1alpha1.StateRevoked, ending{reason: v1alpha1.EndReplaced, by: tn.admin.name})
	third.is(t, v1alpha1.StateActive)
	if seen := s.is(t, v1alpha1.SettingOn); seen.Status.EngineerNames != gen.Engineer {
		t.Errorf("it shows the engineers %q", seen.Status.EngineerNames)
	}
}

func TestWhatEndsTheGrantOfASettingStaysEnded(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	s := tn.switchesOn(t, inHours(10))
	g := s.grant(t, s.is(t, v1alpha1.SettingOn))
	g.delete(t)
	g.isGone(t)
	s.is(t, v1alpha1.StateRevoked)
	world.Consistently(t, "no other grant is made", 2*time.Second, func() error {
		grants := &v1alpha1.SupportAccessGrantList{}
		if err := tn.admin.List(t.Context(), grants, client.InNamespace(tn.namespace)); err != nil || len(grants.Items) > 0 {
			return fmt.Errorf("%d grants, %v", len(grants.Items), err)
		}
		return nil
	})
	s.writes(t, tn.admin, on(inHours(11)))
	s.grant(t, s.is(t, v1alpha1.SettingOn)).is(t, v1alpha1.StateActive)
}

func TestWithItsSettingGoneAGrantIsOver(t *testing.T) {
	t.Parallel()
	for name, policy := range map[string]metav1.DeletionPropagation{
		"deleted": metav1.DeletePropagationBackground, "deleted, and its grant orphaned": metav1.DeletePropagationOrphan,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tn := newTenant(t)
			s := tn.switchesOn(t, inHours(10))
			g := s.grant(t, s.is(t, v1alpha1.SettingOn))
			engineer := g.engineer(t)
			mayRead(t, engineer, tn.namespace)
			object := &v1alpha1.SupportAccessSetting{ObjectMeta: metav1.ObjectMeta{Namespace: s.key.Namespace, Name: s.key.Name}}
			if err := tn.admin.Delete(t.Context(), object, client.PropagationPolicy(policy)); err != nil {
				t.Fatal(err)
			}
			engineer.isRefusedEverywhere(t, tn.namespace)
			world.Eventually(t, "it is on record", func() error {
				record := g.record(t)
				if record.Status.EndTime == nil {
					return fmt.Errorf("it has not ended: %s", trail(record))
				}
				if record.Status.EndReason != v1alpha1.EndSettingDeleted {
					t.Errorf("it ended as %s: %s", record.Status.EndReason, record.Status.EndMessage)
				}
				return nil
			})
			world.Eventually(t, "the setting is gone", func() error {
				if err := tn.admin.Get(t.Context(), s.key, object); !apierrors.IsNotFound(err) {
					return fmt.Errorf("it is there: %v", err)
				}
				return nil
			})
			// Made anew, it is another setting, and has another grant.
			again := tn.switchesOn(t, inHours(10))
			if next := again.grant(t, again.is(t, v1alpha1.SettingOn)); next.Name == g.Name {
				t.Errorf("the name %s comes back", g.Name)
			}
		})
	}
}

func TestASettingWhoseTimeHasPassedIsOff(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	s := tn.switchesOn(t, time.Now().Add(15*time.Second).Truncate(time.Second))
	g := s.grant(t, s.is(t, v1alpha1.SettingOn))
	s.is(t, v1alpha1.SettingOff)
	g.isOver(t, v1alpha1.StateExpired, ending{reason: v1alpha1.EndExpired, by: theOperatorItself})
	// Git applies it again and again.
	s.writes(t, tn.admin, on(time.Now().Add(-time.Hour)))
	if seen := s.is(t, v1alpha1.SettingOff); seen.Status.Grant != g.Name {
		t.Errorf("it has the grant %s, the last was %s", seen.Status.Grant, g.Name)
	}
}

func TestARestartOfTheOperatorDoesNothingToASettingThatIsOn(t *testing.T) {
	tn, other, third := newTenant(t), newTenant(t), newTenant(t)
	s := tn.switchesOn(t, inHours(10))
	g := s.grant(t, s.is(t, v1alpha1.SettingOn))
	stays := open{g, g.engineer(t)}
	mayRead(t, stays.ana, tn.namespace)
	off := other.switchesOn(t, inHours(10))
	ends := off.grant(t, off.is(t, v1alpha1.SettingOn))
	engineer := ends.engineer(t)
	mayRead(t, engineer, other.namespace)
	before, settled := g.settled(t), s.is(t, v1alpha1.SettingOn)

	start := stopOperator(t)
	off.writes(t, other.admin, switchedOff)
	unseen := third.switchesOn(t, inHours(10))
	start()
	off.is(t, v1alpha1.SettingOff)
	ends.isOver(t, v1alpha1.StateRevoked, ending{reason: v1alpha1.EndSwitchedOff, by: other.admin.name})
	engineer.isRefusedEverywhere(t, other.namespace)
	unseen.grant(t, unseen.is(t, v1alpha1.SettingOn)).is(t, v1alpha1.StateActive)
	isAsBefore(t, stays, before)
	if after := s.is(t, v1alpha1.SettingOn); after.ResourceVersion != settled.ResourceVersion {
		t.Errorf("the restart wrote to the setting: %+v, before %+v", after.Status, settled.Status)
	}
}

func TestWithItsNamespaceASettingIsOver(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	s := tn.switchesOn(t, inHours(10))
	g := s.grant(t, s.is(t, v1alpha1.SettingOn))
	engineer := g.engineer(t)
	mayRead(t, engineer, tn.namespace)
	vanishes := deleteNamespace(t, tn, tn.namespace)
	engineer.isRefusedEverywhere(t, tn.namespace)
	vanishes()
	g.leavesNothing(t)
	world.Eventually(t, "its record is kept", func() error {
		record := &v1alpha1.SupportAccessRecord{}
		key := client.ObjectKey{Namespace: world.SystemNamespace, Name: tn.namespace + "." + g.Name}
		if err := tn.Admin.Get(t.Context(), key, record); err != nil {
			return err
		}
		if record.Status.EndTime == nil || record.Spec.SettingRef == nil || record.Spec.GrantedBy != tn.admin.name {
			return fmt.Errorf("it says %+v", record)
		}
		return nil
	})
}
