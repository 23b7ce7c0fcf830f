package changes

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/sqlite"
	"supportaccess.dev/operator/test/world"
)

const tess = "tess@customer.example"

// admin is tess, an admin of a namespace and of the policies.
func (s *scene) admin(t *testing.T, namespace string) client.Client {
	t.Helper()
	policies := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: s.Name("policies")},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"supportaccesspolicies"}, Verbs: []string{"get", "patch"}}},
	}
	subjects := []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: tess}}
	for _, object := range []client.Object{
		policies,
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: policies.Name}, Subjects: subjects,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: policies.Name},
		},
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "tess"}, Subjects: subjects,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"},
		},
	} {
		if err := s.Admin.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	return s.ClientFor(t, s.ControlPlane.UserConfig(tess))
}

// acts returns what the log has been told that people asked for, by resource and name.
func (s *scene) acts(t *testing.T) map[string]audit.Entry {
	t.Helper()
	store, err := sqlite.OpenReader(t.Context(), s.gateway.AuditLog())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	found := map[string]audit.Entry{}
	err = audit.EachEntry(t.Context(), store, audit.Query{Type: audit.TypeAct, Source: audit.Source, Outcome: audit.OutcomeAttempted}, func(e *audit.Entry) error {
		found[e.Happened.What+" "+e.ObjectRef.Resource+"/"+e.ObjectRef.Name] = *e
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestWhoDeletedAGrantOrABindingOrChangedAPolicyIsOnRecord(t *testing.T) {
	s := newScene(t)
	e := s.comes(t, "case-deleted")
	admin := s.admin(t, e.grant.Namespace)
	world.Eventually(t, "the API server has the path, and tess is an admin", func() error {
		policy := &v1alpha1.SupportAccessPolicy{ObjectMeta: metav1.ObjectMeta{Name: s.policy}}
		patch := client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"maxDuration":"24h"}}`))
		if err := admin.Patch(t.Context(), policy, patch); err != nil {
			return err
		}
		change, ok := s.acts(t)["ChangeAsked supportaccesspolicies/"+s.policy]
		if !ok {
			return fmt.Errorf("it is not on record: %v", s.acts(t))
		}
		if change.Happened.By != tess {
			return fmt.Errorf("it is on record as done by %s", change.Happened.By)
		}
		return nil
	})
	bindings := &rbacv1.RoleBindingList{}
	if err := s.Admin.List(t.Context(), bindings, client.InNamespace(e.grant.Namespace), client.MatchingLabels{v1alpha1.LabelManaged: "true"}); err != nil || len(bindings.Items) == 0 {
		t.Fatalf("the grant has %d bindings: %v", len(bindings.Items), err)
	}
	taken := bindings.Items[0].Name
	if err := admin.Delete(t.Context(), &bindings.Items[0]); err != nil {
		t.Fatal(err)
	}
	if err := admin.Delete(t.Context(), e.grant); err != nil {
		t.Fatal(err)
	}
	told := s.acts(t)
	for _, what := range []string{"DeletionAsked rolebindings/" + taken, "DeletionAsked supportaccessgrants/" + e.grant.Name} {
		act, ok := told[what]
		if !ok || act.Happened.By != tess || act.Grant.UID != string(e.grant.UID) || act.Labels[audit.LabelSource] != audit.Source {
			t.Errorf("%s: on record: %t, by %+v, of grant %+v", what, ok, act.Happened, act.Grant)
		}
	}
	world.Eventually(t, "the grant is gone", func() error {
		return gone(s.Admin.Get(t.Context(), client.ObjectKeyFromObject(e.grant), &v1alpha1.SupportAccessGrant{}))
	})
	for what, act := range s.acts(t) {
		if strings.HasPrefix(act.Happened.By, "system:serviceaccount:") {
			t.Errorf("%s is on record as asked for by %s", what, act.Happened.By)
		}
	}
}

func gone(err error) error {
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	if err == nil {
		return errors.New("it is there")
	}
	return nil
}
