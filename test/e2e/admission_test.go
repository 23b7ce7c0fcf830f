package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/config/admission"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// admissionObjects are the objects that guard the cluster, by kind and name.
func admissionObjects(t *testing.T) map[string]client.Object {
	t.Helper()
	objects, err := admission.Objects(admission.Options{Stamp: true})
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]client.Object{}
	for _, o := range objects {
		kind := strings.TrimPrefix(fmt.Sprintf("%T", o), "*v1.")
		named[kind+" "+o.GetName()] = o
	}
	return named
}

// removeAdmission deletes one of the objects that guard the cluster until the returned function puts it back and the
// operator finds all in force, at the latest when the test ends. For tests that run alone.
func removeAdmission(t *testing.T, w *world.World, what string) (restore func()) {
	t.Helper()
	back := takeAdmission(t, w, what)
	restore = sync.OnceFunc(func() {
		back()
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		if err := theOperator.pod.WaitReady(ctx); err != nil {
			t.Errorf("wait until admission is in force again: %v", err)
		}
	})
	t.Cleanup(restore)
	return restore
}

// takeAdmission is removeAdmission that does not wait after putting back.
func takeAdmission(t *testing.T, w *world.World, what string) (back func()) {
	t.Helper()
	object := admissionObjects(t)[what]
	if object == nil {
		t.Fatalf("there is no %s", what)
	}
	live := object.DeepCopyObject().(client.Object)
	if err := w.Admin.Get(t.Context(), client.ObjectKeyFromObject(object), live); err != nil {
		t.Fatal(err)
	}
	if err := w.Admin.Delete(t.Context(), live.DeepCopyObject().(client.Object)); err != nil {
		t.Fatal(err)
	}
	return sync.OnceFunc(func() {
		live.SetResourceVersion("")
		live.SetUID("")
		if err := w.Admin.Create(context.Background(), live); err != nil {
			t.Errorf("put %s back: %v", what, err)
		}
	})
}

func TestNothingOpensWhileAnyObjectOfAdmissionIsMissingAndWhatWasMadeThenNeverDoes(t *testing.T) {
	tn := newTenant(t)
	open := tn.opens(t, "open")
	ana := open.engineer(t)
	mayRead(t, ana, tn.namespace)
	// It becomes due while the guards are away, and was made while they were there.
	waiting := tn.grants(t, "waiting", gen.WithStart(soon(20*time.Second)))
	waiting.is(t, v1alpha1.StateScheduled)

	var unguarded []*grantInTest
	back := func() {}
	names := slices.Sorted(maps.Keys(admissionObjects(t)))
	for i, what := range names {
		// The next goes before the last is back, so that the guards never all stand in between.
		next := takeAdmission(t, tn.World, what)
		t.Cleanup(next)
		back()
		back = next
		doubts(t)
		g := makeUnguarded(t, tn, fmt.Sprintf("unguarded-%d", i), what)
		unguarded = append(unguarded, g)
		object := g.is(t, v1alpha1.StateAdmissionNotInForce)
		isCondition(t, object, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.StateAdmissionNotInForce)
		isCondition(t, object, v1alpha1.ConditionActive, metav1.ConditionFalse, v1alpha1.ReasonNoAccess)
		lacksConditions(t, object, v1alpha1.ConditionStalled)
		if i == 0 {
			g.isKstatus(t, status.InProgressStatus)
		}
		if children := g.children(t); len(children) > 0 {
			t.Errorf("without %s there is %T %s", what, children[0], children[0].GetName())
		}
	}
	closesMeanwhile(t, open, waiting, ana)
	back()
	if len(unguarded) < 40 {
		t.Errorf("%d objects were taken away; there are more", len(unguarded))
	}
	if err := theOperator.pod.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	mayRead(t, waiting.engineer(t), tn.namespace)
	tn.opens(t, "guarded")
	for _, g := range unguarded {
		object := g.is(t, v1alpha1.StateRefused)
		says(t, isCondition(t, object, v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.StateRefused),
			"before the admission policies were in force", "who granted it is not proven; make another under a new name")
		g.leavesNothing(t)
	}
	hasEnded(t, tn.admin, unguarded[0].NamespacedName, ending{v1alpha1.EndRefused, theOperatorItself, "before the admission policies were in force"})
}

// doubts waits until the operator knows that a guard is missing. Until then it opens what is made, and the API server, which
// looks for changed policies once a second, still guards that.
func doubts(t *testing.T) {
	t.Helper()
	world.Eventually(t, "the operator misses a guard", func() error {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, theOperator.pod.ReadyURL(), nil)
		if err != nil {
			return err
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		_ = answer.Body.Close()
		if answer.StatusCode == http.StatusOK {
			return errors.New("it says that it is ready")
		}
		return nil
	})
}

// makeUnguarded makes a grant that waits because this guard is missing and no other. What the operator has not yet heard
// of it cannot say, so it is tried again. The grant carries its stamp, because nobody else may write it.
func makeUnguarded(t *testing.T, tn *tenant, name, what string) *grantInTest {
	t.Helper()
	want := "nothing opens while the admission policies are not in force: " + what + " is missing"
	var found *grantInTest
	attempts := 0
	world.Eventually(t, "a grant waits for "+what, func() error {
		attempts++
		g := tn.grants(t, fmt.Sprintf("%s-%d", name, attempts), gen.WithGrantedBy(tn.admin.name))
		object := g.is(t, v1alpha1.StateAdmissionNotInForce)
		if message := readyMessage(object); message != want {
			return fmt.Errorf("it says %q, want %q", message, want)
		}
		found = g
		return nil
	})
	return found
}

// readyMessage is what the condition Ready says.
func readyMessage(object *v1alpha1.SupportAccessGrant) string {
	return apimeta.FindStatusCondition(object.Status.Conditions, v1alpha1.ConditionReady).Message
}

// closesMeanwhile looks whether closing and waiting go on while a guard is missing.
func closesMeanwhile(t *testing.T, open, waiting *grantInTest, ana *person) {
	t.Helper()
	waiting.is(t, v1alpha1.StateAdmissionNotInForce)
	open.delete(t)
	ana.isRefusedEverywhere(t, open.Namespace)
	open.isGone(t)
	hasEnded(t, open.tenant.admin, open.NamespacedName, ending{v1alpha1.EndDeleted, "unknown", "the grant was deleted"})
	open.leavesNothing(t)
}
