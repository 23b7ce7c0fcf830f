package operator

import (
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/randfill"

	"supportaccess.dev/operator/api/v1alpha1"
)

func TestWhatTheCacheKeepsOfARecordIsAllThatItSays(t *testing.T) {
	fill, trimmer := randfill.NewWithSeed(1).NilChance(0.3).NumElements(0, 4), &trimmer{}
	for range 200 {
		record := &v1alpha1.SupportAccessRecord{}
		fill.Fill(&record.Spec)
		fill.Fill(&record.Status)
		record.Labels, record.Annotations = map[string]string{v1alpha1.LabelManaged: "true"}, map[string]string{"theirs": "kept"}
		record.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "support-access"}}
		want := record.DeepCopy()
		want.ManagedFields = nil
		if got, err := trimmer.trim(record); err != nil || !equality.Semantic.DeepEqual(got, want) {
			t.Fatalf("%v: the cache has %+v, the API server %+v", err, got, want)
		}
	}
}

func TestWhatTheCacheKeepsOfAGrantIsAllButTheAnnotationsOfOthers(t *testing.T) {
	fill, trimmer := randfill.NewWithSeed(1).NilChance(0.3).NumElements(0, 4), &trimmer{}
	for range 200 {
		grant := &v1alpha1.SupportAccessGrant{}
		fill.Fill(&grant.Spec)
		fill.Fill(&grant.Status)
		grant.Finalizers, grant.Annotations = []string{v1alpha1.FinalizerGrant}, map[string]string{v1alpha1.AnnotationAuthor: "tom"}
		want := grant.DeepCopy()
		grant.Annotations["kubectl.kubernetes.io/last-applied-configuration"] = "{}"
		if got, err := trimmer.trim(grant); err != nil || !equality.Semantic.DeepEqual(got, want) {
			t.Fatalf("%v: the cache has %+v, the API server %+v", err, got, want)
		}
	}
}

func TestWhatTheCacheKeepsOfABindingIsWhoAndWhat(t *testing.T) {
	subject := rbacv1.Subject{Kind: "ServiceAccount", Namespace: v1alpha1.CredentialsNamespace, Name: "engineer-a"}
	for namespace, want := range map[string]int{"mail": 1, v1alpha1.CredentialsNamespace: 0} {
		binding := &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "b", UID: "1", Labels: map[string]string{v1alpha1.LabelGrant: "case"}},
			RoleRef:    rbacv1.RoleRef{Kind: "ClusterRole", Name: "view"}, Subjects: []rbacv1.Subject{subject},
		}
		if _, err := (&trimmer{}).trim(binding); err != nil {
			t.Fatal(err)
		}
		if len(binding.Subjects) != want || binding.RoleRef.Name != "view" || binding.UID != "1" || binding.Labels[v1alpha1.LabelGrant] != "case" {
			t.Errorf("in %s the cache has %+v", namespace, binding)
		}
	}
}

func TestWhatStandsForAMissedDeletionIsKeptAsItIs(t *testing.T) {
	gone := cache.DeletedFinalStateUnknown{Key: "a/b"}
	if got, err := (&trimmer{}).trim(gone); err != nil || got != gone {
		t.Errorf("%v, %v", got, err)
	}
}
