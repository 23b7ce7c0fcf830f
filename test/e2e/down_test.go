package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// open is a grant that was open before the operator went down.
type open struct {
	*grantInTest
	ana *person
}

func (tn *tenant) isOpenBefore(t *testing.T, name string, changes ...func(*v1alpha1.SupportAccessGrant)) open {
	t.Helper()
	g := tn.opens(t, name, changes...)
	ana := g.engineer(t)
	mayRead(t, ana, tn.namespace)
	return open{g, ana}
}

// stillReads fails the test if an engineer whose access nobody took away is refused.
func (o open) stillReads(t *testing.T) {
	t.Helper()
	if err := o.ana.reads(t.Context(), o.Namespace); err != nil {
		t.Errorf("grant %s: its engineer is refused: %v", o, err)
	}
}

func TestWhatHappensWhileTheOperatorIsDownIsDoneWhenItIsBack(t *testing.T) {
	tn, cut := newTenant(t), newTenant(t)
	stays := tn.isOpenBefore(t, "stays", gen.WithDuration("4h"))
	deleted, revoked := tn.isOpenBefore(t, "deleted"), tn.isOpenBefore(t, "revoked")
	shortened := tn.isOpenBefore(t, "shortened")
	byLabel := cut.isOpenBefore(t, "by-label")
	due := tn.grants(t, "due", gen.WithStart(soon(10*time.Second)))
	due.is(t, v1alpha1.StateScheduled)
	expires := tn.isOpenBefore(t, "expires", gen.WithDuration("10s"))
	before := stays.settled(t)

	start := stopOperator(t)
	deleted.delete(t)
	tn.admin.decides(t, tn.namespace, "stop", gen.Revoking("revoked"))
	tn.admin.decides(t, tn.namespace, "shorter", gen.Shortening("shortened", soon(time.Second)))
	unseen := tn.grants(t, "unseen")
	cut.admin.mustKubectl(t, cut.namespace, "", "delete", "rolebinding", "-l", "supportaccess.dev/grant=by-label")
	byLabel.ana.isRefusedEverywhere(t, cut.namespace)
	dying := stays.ana.dying(t, time.Now().Add(-57*time.Second))
	if err := dying.reads(t.Context(), tn.namespace); err != nil {
		t.Errorf("a token that dies in 3 s is refused: %v", err)
	}
	over := timeOf(expires.is(t, v1alpha1.StateActive).Status.ExpirationTime)
	world.Eventually(t, "the token dies by itself", func() error { return isUnauthorized(dying.reads(t.Context(), tn.namespace)) })
	world.Eventually(t, "the end of the short grant has passed", func() error {
		if left := time.Until(over); left > 0 {
			return fmt.Errorf("%s are left", left)
		}
		return nil
	})
	// Nobody takes away what is not the API server's own to take; nobody forgets it either.
	stays.stillReads(t)
	deleted.stillReads(t)
	if object, err := deleted.get(t); err != nil || object.DeletionTimestamp.IsZero() {
		t.Errorf("a grant that is open was let go while nobody could close it: %v", err)
	}
	if object, err := unseen.get(t); err != nil || object.Status.ObservedGeneration != -1 {
		t.Errorf("somebody has seen a grant while the operator was down: %v", err)
	}

	start()
	for _, g := range []*grantInTest{unseen, due} {
		mayRead(t, g.engineer(t), tn.namespace)
	}
	for g, want := range map[open]ending{
		expires:   {v1alpha1.EndExpired, theOperatorItself, "its time was over at "},
		deleted:   {v1alpha1.EndDeleted, "unknown", "the grant was deleted"},
		revoked:   {v1alpha1.EndRevoked, tn.admin.name, `revoked by decision "stop"`},
		shortened: {v1alpha1.EndExpired, tn.admin.name, `by decision "shorter"`},
		byLabel:   {v1alpha1.EndBindingsWithdrawn, "unknown", "every binding was taken away by hand"},
	} {
		g.ana.isRefusedEverywhere(t, g.Namespace)
		lacksRecorded(t, tn.World, hasEnded(t, g.tenant.admin, g.NamespacedName, want))
		g.leavesNothing(t)
	}
	deleted.isGone(t)
	isAsBefore(t, stays, before)
}

// isAsBefore fails the test if a restart of the operator did anything to a grant that nothing happened to.
func isAsBefore(t *testing.T, g open, before *v1alpha1.SupportAccessGrant) {
	t.Helper()
	after := g.is(t, v1alpha1.StateActive)
	if after.ResourceVersion != before.ResourceVersion {
		t.Errorf("the restart wrote to grant %s: version %s, before %s: %s", g, after.ResourceVersion, before.ResourceVersion, conditions(after))
	}
	g.stillReads(t)
	if fresh := g.engineer(t); fresh.config.BearerToken != g.ana.config.BearerToken {
		t.Error("the restart changed the credential")
	}
}

func TestTheEmergencyCutWithTheOperatorDeadIsFinal(t *testing.T) {
	tn := newTenant(t, gen.OfferingScopes(v1alpha1.ScopeNamespaces, v1alpha1.ScopeCluster))
	tn.widen(t)
	one, all := tn.isOpenBefore(t, "one"), tn.isOpenBefore(t, "all", gen.WithCluster(), gen.WithRoles(gen.Configuration))
	start := stopOperator(t)
	admin := meet(t, tn.World, "cluster-admin", tn.ControlPlane.AdminConfig())
	out := admin.mustKubectl(t, "default", "", "delete", "rolebinding,clusterrolebinding", "-A", "-l", "supportaccess.dev/managed=true")
	says(t, out, one.binding(t, tn.namespace, gen.Configuration).Name, all.bindings(t)[0].Name)
	one.ana.isRefusedEverywhere(t, tn.namespace)
	all.ana.isRefusedEverywhere(t, tn.namespace, "default")
	start()
	for _, g := range []open{one, all} {
		g.is(t, v1alpha1.StateRevoked)
		hasEnded(t, tn.admin, g.NamespacedName, ending{v1alpha1.EndBindingsWithdrawn, "unknown", "every binding was taken away by hand"})
		g.leavesNothing(t)
		g.ana.isRefusedEverywhere(t, tn.namespace)
	}
	// A grant that is opened now is opened after everything that might have come back.
	later := tn.opens(t, "later")
	mine := map[types.UID]bool{}
	for _, b := range later.bindings(t) {
		mine[b.UID] = true
	}
	isOnlyOf(t, tn, mine)
	later.delete(t)
	later.isGone(t)
}

// isOnlyOf fails the test if a managed binding outside the credentials namespace is there that is not one of these.
func isOnlyOf(t *testing.T, tn *tenant, mine map[types.UID]bool) {
	t.Helper()
	managed := client.MatchingLabels{v1alpha1.LabelManaged: "true"}
	bindings, wide := &rbacv1.RoleBindingList{}, &rbacv1.ClusterRoleBindingList{}
	for _, list := range []client.ObjectList{bindings, wide} {
		if err := tn.Admin.List(context.Background(), list, managed); err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range bindings.Items {
		if b.Namespace != world.CredentialsNamespace && !mine[b.UID] {
			t.Errorf("RoleBinding %s/%s of %v came back", b.Namespace, b.Name, b.Labels)
		}
	}
	for _, b := range wide.Items {
		t.Errorf("ClusterRoleBinding %s of %v came back", b.Name, b.Labels)
	}
}
