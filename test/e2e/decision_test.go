package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

func TestADecisionSaysWhatItDidAndHowOften(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	const bob = "bob@vendor.example"
	one := tn.opens(t, "one", gen.WithEngineers(gen.Engineer, bob))
	two := tn.opens(t, "two", gen.WithEngineers(gen.Engineer, bob))
	tess := tn.admin

	later := tess.decides(t, tn.namespace, "later", gen.Shortening("one", soon(48*time.Hour)))
	says(t, appliedMessage(isApplied(t, tess, later, metav1.ConditionTrue, v1alpha1.ReasonNothingToDo)), "nothing")
	if end := timeOf(one.is(t, v1alpha1.StateActive).Status.ExpirationTime); end.After(soon(minutes)) {
		t.Errorf("a decision moved the end to %s", end)
	}

	nobody := tess.decides(t, tn.namespace, "nobody", gen.RevokingEngineer("one", "eve@vendor.example"))
	isApplied(t, tess, nobody, metav1.ConditionTrue, v1alpha1.ReasonNothingToDo)

	off := tess.decides(t, tn.namespace, "off-everywhere", func(d *v1alpha1.SupportAccessDecision) {
		gen.RevokingNamespace()(d)
		d.Spec.Target.Engineer = bob
	})
	if d := isApplied(t, tess, off, metav1.ConditionTrue, v1alpha1.ReasonLatched); d.Status.Grants != 2 || d.Spec.DecidedBy != tess.name {
		t.Errorf("a decision about one engineer of two grants acted on %d, by %q", d.Status.Grants, d.Spec.DecidedBy)
	}
	for _, g := range []*grantInTest{one, two} {
		if removed := g.record(t).Status.RemovedEngineers; len(removed) != 1 || removed[0].Name != bob {
			t.Errorf("of grant %s are taken off: %v", g, removed)
		}
		g.is(t, v1alpha1.StateActive)
	}

	all := tess.decides(t, tn.namespace, "all", gen.RevokingNamespace())
	d := isApplied(t, tess, all, metav1.ConditionTrue, v1alpha1.ReasonLatched)
	if d.Status.Grants != 2 || d.Status.ObservedGeneration != d.Generation {
		t.Errorf("a decision about a namespace of two grants acted on %d, observed generation %d", d.Status.Grants, d.Status.ObservedGeneration)
	}
	says(t, appliedMessage(d), "it is on record for 2 grants")
	for _, g := range []*grantInTest{one, two} {
		hasEnded(t, tess, g.NamespacedName, ending{v1alpha1.EndRevoked, tess.name, `revoked by decision "all": case closed`})
		g.leavesNothing(t)
	}

	again := tess.decides(t, tn.namespace, "again", gen.Revoking("one"))
	isApplied(t, tess, again, metav1.ConditionTrue, v1alpha1.ReasonNothingToDo)
	if err := tess.Delete(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	world.Eventually(t, "an applied decision can be deleted", func() error {
		if err := tess.Get(t.Context(), all, d); !apierrors.IsNotFound(err) {
			return fmt.Errorf("%v, finalizers %v", err, d.Finalizers)
		}
		return nil
	})
}

func TestADecisionOnNoGrantBindsNoLaterOne(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	key := tn.admin.decides(t, tn.namespace, "early", gen.Revoking(theGrant))
	decision := isApplied(t, tn.admin, key, metav1.ConditionFalse, v1alpha1.ReasonNoSuchGrant)
	says(t, appliedMessage(decision), `there was no grant "case-4711" when this was decided; it binds no later one`)
	nextSecond(t, decision.CreationTimestamp)
	g := tn.opens(t, theGrant)
	ana := g.engineer(t)
	mayRead(t, ana, tn.namespace)
	// A pass in which the decision is looked at again.
	tn.changePolicy(t, func(s *v1alpha1.SupportAccessPolicySpec) { s.MaxDuration = "100h" })
	tn.admin.decides(t, tn.namespace, "off", gen.RevokingEngineer(theGrant, "eve@vendor.example"))
	if err := ana.reads(t.Context(), tn.namespace); err != nil {
		t.Errorf("the engineer of the later grant: %v", err)
	}
	g.is(t, v1alpha1.StateActive)
}

// nextSecond waits until what is made now is younger than an instant: the API server counts in seconds.
func nextSecond(t *testing.T, after metav1.Time) {
	t.Helper()
	world.Eventually(t, "the next second", func() error {
		if now := time.Now().Truncate(time.Second); !now.After(after.Time) {
			return fmt.Errorf("it is %s", now)
		}
		return nil
	})
}

func TestADecisionDeletedBeforeTheOperatorSawItStillCounts(t *testing.T) {
	tn := newTenant(t)
	g := tn.opens(t, theGrant)
	ana := g.engineer(t)
	mayRead(t, ana, tn.namespace)
	resume := pauseOperator(t, tn.World)
	key := tn.admin.decides(t, tn.namespace, "stop", gen.Revoking(theGrant))
	decision := &v1alpha1.SupportAccessDecision{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	if err := tn.admin.Delete(t.Context(), decision); err != nil {
		t.Fatal(err)
	}
	if err := tn.admin.Get(t.Context(), key, decision); err != nil || decision.DeletionTimestamp.IsZero() {
		t.Fatalf("a decision that nobody has seen was deleted: %v", err)
	}
	if err := ana.reads(t.Context(), tn.namespace); err != nil {
		t.Errorf("while the operator is stopped the engineer is refused: %v", err)
	}
	resume()
	ana.isRefusedEverywhere(t, tn.namespace)
	g.is(t, v1alpha1.StateRevoked)
	hasEnded(t, tn.admin, g.NamespacedName, ending{v1alpha1.EndRevoked, tn.admin.name, `revoked by decision "stop": case closed`})
	g.leavesNothing(t)
	world.Eventually(t, "the decision is let go", func() error {
		if err := tn.admin.Get(t.Context(), key, decision); !apierrors.IsNotFound(err) {
			return fmt.Errorf("%v, finalizers %v", err, decision.Finalizers)
		}
		return nil
	})
}

func TestADeniedGrantNeverOpens(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	pat := user(t, tn.World, "pat@"+tn.namespace+".customer.example")
	tn.bind(t, "support-access-approver", rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: pat.name})
	start := soon(20 * time.Second)
	g := tn.grants(t, theGrant, gen.WithStart(start))
	g.is(t, v1alpha1.StateScheduled)
	world.Eventually(t, "the approver says no", func() error { return pat.tries(t, tn.namespace, "no", gen.Denying(theGrant)) })
	object := g.is(t, v1alpha1.StateDenied)
	g.isKstatus(t, status.FailedStatus)
	says(t, isCondition(t, object, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.StateDenied), `denied by decision "no": case closed`)
	isCondition(t, object, v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.StateDenied)
	isCondition(t, object, v1alpha1.ConditionActive, metav1.ConditionFalse, v1alpha1.ReasonNoAccess)
	lacksConditions(t, object, v1alpha1.ConditionReconciling)
	isApplied(t, pat, client.ObjectKey{Namespace: tn.namespace, Name: "no"}, metav1.ConditionTrue, v1alpha1.ReasonLatched)
	hasEnded(t, tn.admin, g.NamespacedName, ending{v1alpha1.EndDenied, pat.name, `denied by decision "no": case closed`})
	g.leavesNothing(t)
	// What begins now, after the start that was denied, is seen after what would have begun then.
	later := tn.grants(t, "later", gen.WithStart(start.Add(time.Second)))
	later.is(t, v1alpha1.StateActive)
	g.is(t, v1alpha1.StateDenied)
	g.leavesNothing(t)

	open := tn.opens(t, "open")
	if err := pat.tries(t, tn.namespace, "too-late", gen.Denying("open")); err != nil {
		t.Fatal(err)
	}
	isApplied(t, pat, client.ObjectKey{Namespace: tn.namespace, Name: "too-late"}, metav1.ConditionTrue, v1alpha1.ReasonNothingToDo)
	open.is(t, v1alpha1.StateActive)
}

func TestAClusterWideRevocationEndsEveryGrantAndOnlyInTheOperatorsNamespace(t *testing.T) {
	here, there := newTenant(t), newTenant(t)
	open, other := here.opens(t, theGrant), there.opens(t, theGrant)
	scheduled := there.grants(t, "scheduled", gen.WithStart(soon(time.Hour)))
	scheduled.is(t, v1alpha1.StateScheduled)
	ana, ofOther := open.engineer(t), other.engineer(t)
	mayRead(t, ana, here.namespace)
	mayRead(t, ofOther, there.namespace)

	carla := user(t, here.World, "carla@customer.example")
	made := gen.ClusterRole(here.Name("e2e-emergency"), gen.Rule(v1alpha1.GroupVersion.Group, []string{"supportaccessdecisions"}, []string{"create", "get"}),
		gen.Rule(v1alpha1.GroupVersion.Group, []string{"supportaccessgrants"}, []string{"revoke"}))
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: made.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: made.Name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: carla.name}},
	}
	for _, o := range []client.Object{made, binding} {
		if err := here.Admin.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	err := here.admin.tries(t, here.namespace, "emergency", gen.RevokingCluster())
	if !apierrors.IsForbidden(err) {
		t.Errorf("the admin of a namespace ends all grants of the cluster: %v", err)
	}
	world.Eventually(t, "carla ends everything", func() error {
		return carla.tries(t, world.SystemNamespace, "emergency", gen.RevokingCluster())
	})
	ana.isRefusedEverywhere(t, here.namespace)
	ofOther.isRefusedEverywhere(t, there.namespace)
	for _, g := range []*grantInTest{open, other, scheduled} {
		g.is(t, v1alpha1.StateRevoked)
		hasEnded(t, g.tenant.admin, g.NamespacedName, ending{v1alpha1.EndEmergencyStop, carla.name, `revoked by decision "emergency": case closed`})
		g.leavesNothing(t)
	}
	decision := isApplied(t, carla, client.ObjectKey{Namespace: world.SystemNamespace, Name: "emergency"}, metav1.ConditionTrue, v1alpha1.ReasonLatched)
	if decision.Status.Grants < 3 {
		t.Errorf("it acted on %d grants, want at least these three", decision.Status.Grants)
	}
	// It ends what was, and what was being made; not what comes after.
	nextSecond(t, metav1.NewTime(decision.CreationTimestamp.Add(2*time.Second)))
	later := here.opens(t, "later")
	mayRead(t, later.engineer(t), here.namespace)
}
