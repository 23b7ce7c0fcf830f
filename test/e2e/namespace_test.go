package e2e

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// deleteNamespace deletes a namespace, and vanishes waits until it is gone.
func deleteNamespace(t *testing.T, tn *tenant, name string) (vanishes func()) {
	t.Helper()
	if err := tn.Admin.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		world.Eventually(t, "namespace "+name+" is gone", func() error {
			namespace := &corev1.Namespace{}
			err := tn.Admin.Get(t.Context(), client.ObjectKey{Name: name}, namespace)
			if apierrors.IsNotFound(err) {
				return nil
			}
			return fmt.Errorf("%v: %v", err, namespace.Status.Conditions)
		})
	}
}

func TestANamespaceOfTheScopeThatIsDeletedLeavesTheGrantAndTheLastEndsIt(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	tn.widen(t)
	first, second := tn.another(t), tn.another(t)
	g := tn.opens(t, theGrant, gen.WithScope(first, second))
	ana := g.engineer(t)
	mayRead(t, ana, first)
	mayRead(t, ana, second)
	vanishes := deleteNamespace(t, tn, first)
	ana.isRefusedEverywhere(t, first)
	vanishes()
	world.Eventually(t, "the record says what became of it", func() error {
		record := g.record(t)
		i := transition(record, v1alpha1.TransitionBindingWithdrawn)
		if i < 0 {
			return fmt.Errorf("the trail is %s", trail(record))
		}
		says(t, record.Status.Transitions[i].Message, "the namespace was deleted")
		return nil
	})
	g.is(t, v1alpha1.StateActive)
	if err := ana.reads(t.Context(), second); err != nil {
		t.Errorf("in the namespace that is left the engineer is refused: %v", err)
	}
	vanishes = deleteNamespace(t, tn, second)
	g.is(t, v1alpha1.StateRevoked)
	ana.isRefusedEverywhere(t, second)
	vanishes()
	hasEnded(t, tn.admin, g.NamespacedName, ending{v1alpha1.EndNamespaceDeleted, "unknown", "every namespace of the scope was deleted" + byUnknown})
	g.leavesNothing(t)
}

// isBuried waits for a tombstone that says how the grant of a deleted namespace ended.
func (g *grantInTest) isBuried(t *testing.T, want ending) *v1alpha1.SupportAccessRecord {
	t.Helper()
	record := hasEnded(t, g.tenant.Admin, g.tombstone(), want)
	if record.Spec.Grant.UID != g.uid || record.Spec.GrantedBy != g.tenant.admin.name {
		t.Errorf("the tombstone is about %s, granted by %q", record.Spec.Grant.UID, record.Spec.GrantedBy)
	}
	if transition(record, v1alpha1.TransitionGranted) != 0 {
		t.Errorf("the tombstone's trail is %s", trail(record))
	}
	return record
}

// isMadeAnew makes the tenant's namespace again, under the same policy and with the same admin.
func (tn *tenant) isMadeAnew(t *testing.T) *tenant {
	t.Helper()
	anew := &tenant{World: tn.World, namespace: tn.namespace, policy: tn.policy}
	anew.settle(t)
	return anew
}

func TestAGrantEndsWithItsNamespaceAndComesBackWithNone(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	tn.widen(t)
	other := tn.another(t)
	g := tn.opens(t, theGrant, gen.WithScope(tn.namespace, other))
	ana := g.engineer(t)
	mayRead(t, ana, tn.namespace)
	mayRead(t, ana, other)
	bindings := g.record(t)
	vanishes := deleteNamespace(t, tn, tn.namespace)
	ana.isRefusedEverywhere(t, tn.namespace, other)
	vanishes()
	record := g.isBuried(t, ending{v1alpha1.EndNamespaceDeleted, "unknown", fmt.Sprintf("namespace %q was deleted%s", tn.namespace, byUnknown)})
	if record.Status.ProvisionedTime == nil || transition(record, v1alpha1.TransitionOpened) < 0 {
		t.Errorf("the tombstone does not say that access was given: %s", trail(record))
	}
	lacksRecorded(t, tn.World, bindings)
	for _, o := range g.children(t) {
		t.Errorf("%T %s/%s is still there", o, o.GetNamespace(), o.GetName())
	}
	anew := tn.isMadeAnew(t)
	second := anew.grants(t, theGrant)
	isInert(t, g, second)
	ana.isRefusedEverywhere(t, tn.namespace, other)
	anew.opens(t, "a-new-name")
}

func TestTheNamesOfANamespaceAreUsedWhetherTheirGrantsOpenedOrNot(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	ended, scheduled := tn.opens(t, "ended"), tn.grants(t, "scheduled", gen.WithStart(soon(time.Hour)))
	scheduled.is(t, v1alpha1.StateScheduled)
	tn.admin.decides(t, tn.namespace, "stop", gen.Revoking("ended"))
	ended.is(t, v1alpha1.StateRevoked)
	hasEnded(t, tn.admin, ended.NamespacedName, ending{v1alpha1.EndRevoked, tn.admin.name, "revoked"})
	deleteNamespace(t, tn, tn.namespace)()
	ended.isBuried(t, ending{v1alpha1.EndRevoked, tn.admin.name, `revoked by decision "stop"`})
	scheduled.isBuried(t, ending{v1alpha1.EndNamespaceDeleted, "unknown", ""})
	anew := tn.isMadeAnew(t)
	for _, g := range []*grantInTest{ended, scheduled} {
		isInert(t, g, anew.grants(t, g.Name))
	}
}

// What a namespace took along while nobody could see it is restored from a backup: the same manifests under new UIDs.
func TestTheNamesOfANamespaceThatIsDeletedWhileTheOperatorIsDownStayUsed(t *testing.T) {
	tn := newTenant(t)
	ended, scheduled := tn.opens(t, "ended"), tn.grants(t, "scheduled", gen.WithStart(soon(time.Hour)))
	ana := ended.engineer(t)
	scheduled.is(t, v1alpha1.StateScheduled)
	tn.admin.decides(t, tn.namespace, "stop", gen.Revoking("ended"))
	hasEnded(t, tn.admin, ended.NamespacedName, ending{v1alpha1.EndRevoked, tn.admin.name, "revoked"})
	for _, g := range []*grantInTest{ended, scheduled} {
		world.Eventually(t, "the name of grant "+g.Name+" is kept elsewhere", func() error {
			return tn.Admin.Get(t.Context(), g.tombstone(), &v1alpha1.SupportAccessRecord{})
		})
	}
	start := stopOperator(t)
	deleteNamespace(t, tn, tn.namespace)()
	anew := tn.isMadeAnew(t)
	restored := map[*grantInTest]*grantInTest{}
	for _, g := range []*grantInTest{ended, scheduled} {
		restored[g] = anew.grants(t, g.Name)
	}
	start()
	for first, second := range restored {
		isInert(t, first, second)
	}
	ana.isRefusedEverywhere(t, tn.namespace)
	anew.opens(t, "a-new-name")
}
