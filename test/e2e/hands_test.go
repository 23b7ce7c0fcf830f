package e2e

import (
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/records"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

func TestABindingDeletedByHandTakesItsNamespaceOutAndTheLastEndsTheGrant(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	tn.widen(t)
	other := tn.another(t)
	g := tn.opens(t, theGrant, gen.WithScope(tn.namespace, other))
	ana := g.engineer(t)
	mayRead(t, ana, tn.namespace)
	mayRead(t, ana, other)

	// One of the two bindings of one namespace.
	out := g.binding(t, other, gen.Diagnostics)
	if err := tn.Admin.Delete(t.Context(), out); err != nil {
		t.Fatal(err)
	}
	ana.isRefusedEverywhere(t, other)
	world.Eventually(t, "the record says what was withdrawn", func() error {
		record := g.record(t)
		withdrawn := 0
		for _, b := range record.Status.Bindings {
			if b.Withdrawn != (b.Namespace == other) {
				return fmt.Errorf("of %s in %s it says withdrawn: %t", b.Role, b.Namespace, b.Withdrawn)
			}
			if b.Withdrawn {
				withdrawn++
			}
		}
		if i := transition(record, v1alpha1.TransitionBindingWithdrawn); withdrawn != 2 || i < 0 || record.Status.Transitions[i].By != "unknown" {
			return fmt.Errorf("%d are withdrawn; the trail is %s", withdrawn, trail(record))
		}
		return nil
	})
	g.is(t, v1alpha1.StateActive)
	if err := ana.reads(t.Context(), tn.namespace); err != nil {
		t.Errorf("in the namespace that is left the engineer is refused: %v", err)
	}
	for _, o := range g.children(t) {
		if o.GetNamespace() == other {
			t.Errorf("%T %s is still there, or again", o, o.GetName())
		}
	}

	if err := tn.admin.Delete(t.Context(), g.binding(t, tn.namespace, gen.Configuration)); err != nil {
		t.Fatal(err)
	}
	ana.isRefusedEverywhere(t, tn.namespace, other)
	g.is(t, v1alpha1.StateRevoked)
	hasEnded(t, tn.admin, g.NamespacedName, ending{v1alpha1.EndBindingsWithdrawn, "unknown", "every binding was taken away by hand"})
	g.leavesNothing(t)
}

// binding is the recorded binding of a role in a namespace.
func (g *grantInTest) binding(t *testing.T, namespace, role string) *rbacv1.RoleBinding {
	t.Helper()
	recorded := g.bindings(t)
	i := slices.IndexFunc(recorded, func(b v1alpha1.RecordedBinding) bool { return b.Namespace == namespace && b.Role == role })
	if i < 0 {
		t.Fatalf("of %s in %s there is no binding on record: %v", role, namespace, recorded)
	}
	return &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: recorded[i].Name}}
}

func TestCuttingByLabelEndsTheGrantAndNoOther(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	g, other := tn.opens(t, theGrant), tn.opens(t, "case-4712")
	ana, ofOther := g.engineer(t), other.engineer(t)
	mayRead(t, ana, tn.namespace)
	mayRead(t, ofOther, tn.namespace)
	out := tn.admin.mustKubectl(t, tn.namespace, "", "delete", "rolebinding", "-l", "supportaccess.dev/grant="+theGrant, "-o", "name")
	says(t, out, "rolebinding.rbac.authorization.k8s.io/support-access-")
	ana.isRefusedEverywhere(t, tn.namespace)
	g.is(t, v1alpha1.StateRevoked)
	hasEnded(t, tn.admin, g.NamespacedName, ending{v1alpha1.EndBindingsWithdrawn, "unknown", byUnknown})
	g.leavesNothing(t)
	other.is(t, v1alpha1.StateActive)
	if err := ofOther.reads(t.Context(), tn.namespace); err != nil {
		t.Errorf("the engineer of the other grant: %v", err)
	}
}

func TestABindingChangedByHandIsTakenAsARevocation(t *testing.T) {
	tn := newTenant(t)
	g := tn.opens(t, theGrant)
	ana := g.engineer(t)
	mayRead(t, ana, tn.namespace)
	key := client.ObjectKeyFromObject(g.binding(t, tn.namespace, gen.Configuration))
	change := func() error {
		binding := &rbacv1.RoleBinding{}
		if err := tn.Admin.Get(t.Context(), key, binding); err != nil {
			return err
		}
		binding.Subjects = append(binding.Subjects, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "mallory"})
		return tn.Admin.Update(t.Context(), binding)
	}
	err := change()
	if !apierrors.IsForbidden(err) {
		t.Fatalf("a cluster admin adds a subject to a managed binding: %v", err)
	}
	says(t, err.Error(), "an identity of support access is bound by the operator alone")
	// The cluster admin insists, and takes the guard away first.
	restore := removeAdmission(t, tn.World, "ValidatingAdmissionPolicyBinding support-access-binding-subjects")
	world.Eventually(t, "without the guard the binding is changed", change)
	ana.isRefusedEverywhere(t, tn.namespace)
	g.is(t, v1alpha1.StateRevoked)
	hasEnded(t, tn.admin, g.NamespacedName, ending{v1alpha1.EndBindingsWithdrawn, "unknown", "in \"" + tn.namespace + "\" was changed"})
	g.leavesNothing(t)
	restore()
}

func TestAnEngineerWhoseCredentialIsDeletedIsTakenOff(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	const bob, eve = "bob@vendor.example", "eve@vendor.example"
	g := tn.opens(t, theGrant, gen.WithEngineers(gen.Engineer, bob, eve))
	ana, ofBob, ofEve := g.engineer(t), g.engineerNamed(t, bob), g.engineerNamed(t, eve)
	for _, p := range []*person{ana, ofBob, ofEve} {
		mayRead(t, p, tn.namespace)
	}
	for _, o := range []client.Object{
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: world.CredentialsNamespace, Name: g.identity(gen.Engineer)}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: world.CredentialsNamespace, Name: g.identity(bob)}},
	} {
		if err := tn.Admin.Delete(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	ana.isRefusedEverywhere(t, tn.namespace)
	ofBob.isRefusedEverywhere(t, tn.namespace)
	world.Eventually(t, "the record says who was taken off", func() error {
		record := g.record(t)
		if removed := record.Status.RemovedEngineers; len(removed) != 2 || removed[0].By != "unknown" || removed[1].By != "unknown" {
			return fmt.Errorf("taken off are %v", removed)
		}
		return nil
	})
	world.Eventually(t, "nothing of theirs comes back", func() error {
		for _, o := range g.children(t) {
			if o.GetName() == g.identity(gen.Engineer) || o.GetName() == g.identity(bob) {
				return fmt.Errorf("there is %T %s", o, o.GetName())
			}
		}
		return nil
	})
	if err := ofEve.reads(t.Context(), tn.namespace); err != nil {
		t.Errorf("the third engineer: %v", err)
	}
	g.is(t, v1alpha1.StateActive)
}

func TestAClusterRoleThatChangesHarmlesslyIsPutOnRecord(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, gen.Offering(v1alpha1.OfferedRole{Name: roleChanges}))
	makeRole(t, tn.World, roleChanges, rules()...)
	g := tn.opens(t, theGrant, gen.WithRoles(roleChanges))
	ana := g.engineer(t)
	mayRead(t, ana, tn.namespace)
	before := g.record(t).Status.Rules
	changeRole(t, tn.World, roleChanges, rules(gen.Rule("", []string{"services"}, []string{"get"}))...)
	var record *v1alpha1.SupportAccessRecord
	world.Eventually(t, "the record says that the role changed", func() error {
		record = g.record(t)
		if transition(record, v1alpha1.TransitionRoleChanged) < 0 {
			return fmt.Errorf("the trail is %s", trail(record))
		}
		return nil
	})
	after := record.Status.Rules
	if len(before) != 1 || len(after) != 1 || before[0].Digest == after[0].Digest {
		t.Fatalf("the rules on record were %v and are %v", before, after)
	}
	for _, digest := range []string{before[0].Digest, after[0].Digest} {
		config := &corev1.ConfigMap{}
		if err := tn.Admin.Get(t.Context(), types.NamespacedName{Namespace: world.SystemNamespace, Name: records.RulesName(digest)}, config); err != nil {
			t.Errorf("what the role allowed: %v", err)
			continue
		}
		if wantsServices := digest == after[0].Digest; wantsServices {
			says(t, config.Data["rules.json"], "services")
		}
	}
	g.is(t, v1alpha1.StateActive)
	if err := ana.reads(t.Context(), tn.namespace); err != nil {
		t.Errorf("the engineer: %v", err)
	}
	if seen := g.told(t); len(seen) != 1 || seen[v1alpha1.StateActive] != 1 {
		t.Errorf("the Events are %v, want one that it is Active", seen)
	}
}

func TestTighterLimitsCloseNothing(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	g := tn.opens(t, theGrant, gen.WithDuration("2h"))
	ana := g.engineer(t)
	mayRead(t, ana, tn.namespace)
	tn.changePolicy(t, func(s *v1alpha1.SupportAccessPolicySpec) {
		s.NewGrants, s.MaxDuration, s.CasePattern, s.EngineerPattern = v1alpha1.NewGrantsSuspended, "10m", "^NO-", "^nobody$"
		s.Roles = []v1alpha1.OfferedRole{{Name: gen.Content, Elevated: true}}
		s.ServiceAccountGrants = v1alpha1.ServiceAccountGrantsDeny
	})
	// What the policy says now is in force: it refuses another grant of this kind.
	world.Eventually(t, "the limits are in force", func() error {
		err := tn.admin.Create(t.Context(), gen.ToApply("another", tn.namespace), client.DryRunAll)
		if !isPolicys(err) {
			return fmt.Errorf("another grant: %v", err)
		}
		return nil
	})
	// A change that does show in the record, made after the one that does not, shows that the operator has seen both.
	tn.admin.decides(t, tn.namespace, "shorter", gen.Shortening(theGrant, soon(minutes)))
	world.Eventually(t, "the operator has looked again", func() error {
		if record := g.record(t); transition(record, v1alpha1.TransitionShortened) < 0 {
			return fmt.Errorf("the trail is %s", trail(record))
		}
		return nil
	})
	g.is(t, v1alpha1.StateActive)
	mayRead(t, g.engineer(t), tn.namespace)
}

func TestADeletedPolicyOpensNothingAndClosesNothing(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	g, dropped := tn.opens(t, theGrant), tn.opens(t, "case-4712")
	ana, ofDropped := g.engineer(t), dropped.engineer(t)
	mayRead(t, ana, tn.namespace)
	mayRead(t, ofDropped, tn.namespace)
	policy := &v1alpha1.SupportAccessPolicy{ObjectMeta: metav1.ObjectMeta{Name: tn.policy}}
	if err := tn.Admin.Delete(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	late := tn.grants(t, "case-4713")
	late.is(t, v1alpha1.StateRefused)
	g.is(t, v1alpha1.StateActive)
	if err := ana.reads(t.Context(), tn.namespace); err != nil {
		t.Errorf("without a policy the engineer of an open grant is refused: %v", err)
	}
	tn.admin.decides(t, tn.namespace, "stop", gen.Revoking(theGrant))
	ana.isRefusedEverywhere(t, tn.namespace)
	g.is(t, v1alpha1.StateRevoked)
	hasEnded(t, tn.admin, g.NamespacedName, ending{v1alpha1.EndRevoked, tn.admin.name, `revoked by decision "stop"`})
	g.leavesNothing(t)
	g.delete(t)
	g.isGone(t)
	dropped.delete(t)
	ofDropped.isRefusedEverywhere(t, tn.namespace)
	dropped.isGone(t)
	hasEnded(t, tn.admin, dropped.NamespacedName, ending{v1alpha1.EndDeleted, "unknown", "the grant was deleted"})
	dropped.leavesNothing(t)
}

func TestABindingOfNoLiveGrantIsSwept(t *testing.T) {
	tn := newTenant(t)
	g := tn.opens(t, theGrant)
	ana := g.engineer(t)
	mayRead(t, ana, tn.namespace)
	binding := &rbacv1.RoleBinding{}
	if err := tn.Admin.Get(t.Context(), client.ObjectKeyFromObject(g.binding(t, tn.namespace, gen.Configuration)), binding); err != nil {
		t.Fatal(err)
	}
	tn.admin.decides(t, tn.namespace, "stop", gen.Revoking(theGrant))
	g.is(t, v1alpha1.StateRevoked)
	g.leavesNothing(t)
	// Somebody restores the bindings from a backup, past the guards.
	restore := removeAdmission(t, tn.World, "ValidatingAdmissionPolicyBinding support-access-binding-subjects")
	binding.ObjectMeta = metav1.ObjectMeta{Namespace: binding.Namespace, Name: binding.Name, Labels: binding.Labels, Annotations: binding.Annotations}
	world.Eventually(t, "the backup is restored", func() error { return tn.Admin.Create(t.Context(), binding.DeepCopy()) })
	world.Eventually(t, "what was restored is gone", func() error {
		err := tn.Admin.Get(t.Context(), client.ObjectKeyFromObject(binding), &rbacv1.RoleBinding{})
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("the binding: %v", err)
		}
		return nil
	})
	restore()
	g.is(t, v1alpha1.StateRevoked)
}
