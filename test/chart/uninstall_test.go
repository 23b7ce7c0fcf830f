package chart

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/world"
)

// uninstallerName is who revokes when the chart is uninstalled.
const uninstallerName = "system:serviceaccount:support-access-system:support-access-uninstall"

// TestAnUninstallClosesWhatIsOpen has the operator at work. It leaves the CRDs and the records behind, which the story of
// an installation takes as it finds them.
func TestAnUninstallClosesWhatIsOpen(t *testing.T) {
	w := world.New(t)
	installation := w.InstallChart(t, nil)
	w.StartOperator(t, installation)
	grant := simpleGrant(w.Namespace(t), "open")
	if err := w.Admin.Create(t.Context(), grant); err != nil {
		t.Fatal(err)
	}
	world.Eventually(t, "the grant is active", func() error { return isActive(t, w.Admin, grant) })
	waiting := waitingGrants(t, w, grant.Namespace)
	if open := managed(t, w.Admin); len(open) == 0 {
		t.Fatal("an active grant has no binding")
	}
	if err := w.UninstallChart(t, installation); err != nil {
		t.Fatal(err)
	}
	if open := managed(t, w.Admin); len(open) > 0 {
		t.Errorf("bindings are left: %v", open)
	}
	world.Eventually(t, "nothing is left where credentials lay", func() error {
		err := w.Admin.Get(t.Context(), client.ObjectKey{Name: v1alpha1.CredentialsNamespace}, &corev1.Namespace{})
		if err == nil {
			return errors.New("the namespace is there")
		}
		return client.IgnoreNotFound(err)
	})
	if err := w.Admin.Get(t.Context(), client.ObjectKeyFromObject(grant), grant); err != nil {
		t.Fatal(err)
	}
	if len(grant.Finalizers) > 0 || grant.Status.EndTime == nil {
		t.Errorf("the grant has the finalizers %v and ended at %v", grant.Finalizers, grant.Status.EndTime)
	}
	record := &v1alpha1.SupportAccessRecord{}
	if err := w.Admin.Get(t.Context(), client.ObjectKeyFromObject(grant), record); err != nil {
		t.Fatal(err)
	}
	if record.Status.EndReason != v1alpha1.EndRevoked || !strings.Contains(record.Status.EndedBy, uninstallerName) {
		t.Errorf("the record says %s by %q", record.Status.EndReason, record.Status.EndedBy)
	}
	for _, waits := range waiting {
		if err := w.Admin.Get(t.Context(), client.ObjectKeyFromObject(waits), waits); err != nil {
			t.Fatal(err)
		}
		if waits.Status.EndTime == nil || waits.Status.EndReason != v1alpha1.EndRevoked {
			t.Errorf("the next installation would open grant %s: it ended at %v, %q", waits.Name, waits.Status.EndTime, waits.Status.EndReason)
		}
	}
	decisions := &v1alpha1.SupportAccessDecisionList{}
	if err := w.Admin.List(t.Context(), decisions); err != nil {
		t.Fatal(err)
	}
	for _, decision := range decisions.Items {
		if len(decision.Finalizers) > 0 {
			t.Errorf("decision %s is stuck with %v", decision.Name, decision.Finalizers)
		}
	}
}

// managed names every binding that the operator made.
func managed(t *testing.T, c client.Client) []string {
	t.Helper()
	var names []string
	for _, list := range []client.ObjectList{&rbacv1.RoleBindingList{}, &rbacv1.ClusterRoleBindingList{}} {
		if err := c.List(t.Context(), list, client.MatchingLabels{v1alpha1.LabelManaged: "true"}); err != nil {
			t.Fatal(err)
		}
		err := meta.EachListItem(list, func(object runtime.Object) error {
			names = append(names, client.ObjectKeyFromObject(object.(client.Object)).String())
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return names
}

func isActive(t *testing.T, c client.Client, grant *v1alpha1.SupportAccessGrant) error {
	t.Helper()
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(grant), grant); err != nil {
		return err
	}
	if !meta.IsStatusConditionTrue(grant.Status.Conditions, v1alpha1.ConditionActive) {
		return fmt.Errorf("its conditions are %s", asJSON(t, grant.Status.Conditions))
	}
	return nil
}

// waitingGrants makes grants that hold nothing and would open later: one has a start, one waits for a person.
func waitingGrants(t *testing.T, w *world.World, namespace string) []*v1alpha1.SupportAccessGrant {
	t.Helper()
	scheduled, failed := simpleGrant(namespace, "scheduled"), simpleGrant(namespace, "failed")
	start := metav1.NewTime(time.Now().Add(time.Hour).Truncate(time.Second))
	scheduled.Spec.StartTime = &start
	failed.Spec.Scope = &v1alpha1.Scope{Namespaces: []string{namespace, "not-yet-there"}}
	for grant, state := range map[*v1alpha1.SupportAccessGrant]string{scheduled: v1alpha1.StateScheduled, failed: v1alpha1.StateFailed} {
		if err := w.Admin.Create(t.Context(), grant); err != nil {
			t.Fatal(err)
		}
		world.Eventually(t, "grant "+grant.Name+" waits", func() error {
			if err := w.Admin.Get(t.Context(), client.ObjectKeyFromObject(grant), grant); err != nil {
				return err
			}
			if ready := meta.FindStatusCondition(grant.Status.Conditions, v1alpha1.ConditionReady); ready == nil || ready.Reason != state {
				return fmt.Errorf("its conditions are %s", asJSON(t, grant.Status.Conditions))
			}
			return nil
		})
		if len(grant.Finalizers) > 0 {
			t.Errorf("grant %s has the finalizers %v", grant.Name, grant.Finalizers)
		}
	}
	return []*v1alpha1.SupportAccessGrant{scheduled, failed}
}
