package operator

import (
	"encoding/json"
	"fmt"
	"runtime"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// TestAnOpenGrantCostsTheCacheLittle holds what the objects of one open grant take, decoded as from the API server. With
// 10,000 of them it is what most of the controller's memory is.
func TestAnOpenGrantCostsTheCacheLittle(t *testing.T) {
	const grants, most = 1000, 9 << 10
	plain := bytesPerGrant(t, grants, func(object any) (any, error) { return object, nil })
	trimmed := bytesPerGrant(t, grants, (&trimmer{}).trim)
	t.Logf("an open grant takes %d bytes as decoded, %d as kept", plain, trimmed)
	if trimmed > most {
		t.Errorf("the cache keeps %d bytes of an open grant, more than %d", trimmed, most)
	}
}

func bytesPerGrant(t *testing.T, grants int, transform func(any) (any, error)) uint64 {
	t.Helper()
	kept := make([]any, 0, 7*grants)
	before := heap()
	for i := range grants {
		for _, object := range objectsOf(i) {
			object, err := transform(decoded(t, object))
			if err != nil {
				t.Fatal(err)
			}
			kept = append(kept, object)
		}
	}
	size := (heap() - before) / uint64(grants)
	runtime.KeepAlive(kept)
	return size
}

func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// decoded is an object as a watch brings it: every string its own.
func decoded(t *testing.T, object client.Object) client.Object {
	t.Helper()
	if binding, ok := object.(*rbacv1.RoleBinding); ok {
		encoded, err := binding.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		out := &rbacv1.RoleBinding{}
		if err := out.Unmarshal(encoded); err != nil {
			t.Fatal(err)
		}
		return out
	}
	encoded, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	var out client.Object
	switch object.(type) {
	case *v1alpha1.SupportAccessGrant:
		out = &v1alpha1.SupportAccessGrant{}
	case *v1alpha1.SupportAccessRecord:
		out = &v1alpha1.SupportAccessRecord{}
	default:
		out = &metav1.PartialObjectMetadata{}
	}
	if err := json.Unmarshal(encoded, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// objectsOf are the objects of one open grant of one engineer with two roles in one namespace.
func objectsOf(i int) []client.Object {
	name, uid := fmt.Sprintf("case-%d", i), types.UID(fmt.Sprintf("0b7f3a52-9f3e-4a52-8a51-%012d", i))
	meta := func(namespace, name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{
			Namespace: namespace, Name: name, UID: uid, ResourceVersion: "123456", CreationTimestamp: metav1.Unix(1790000000, 0),
			Labels:      map[string]string{v1alpha1.LabelManaged: "true", v1alpha1.LabelGrant: fmt.Sprintf("case-%d", i), v1alpha1.LabelGrantNamespace: "mail"},
			Annotations: map[string]string{v1alpha1.AnnotationGrantUID: string(uid), v1alpha1.AnnotationEngineer: "ana@vendor.example"},
		}
	}
	identity := fmt.Sprintf("engineer-abcdefghijklmnopqrst%06d", i)
	binding := func(namespace, kind, role string) *rbacv1.RoleBinding {
		return &rbacv1.RoleBinding{
			ObjectMeta: meta(namespace, fmt.Sprintf("support-access-abcdefghijklmnopqrst%06d", i)),
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: role},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: v1alpha1.CredentialsNamespace, Name: identity}},
		}
	}
	at, micro := metav1.Unix(1790000000+int64(i/10), 0), metav1.NewMicroTime(time.Unix(1790000000, 0))
	roles := []string{"support-access-configuration", "support-access-diagnostics"}
	grant := &v1alpha1.SupportAccessGrant{ObjectMeta: meta("mail", name), Spec: v1alpha1.SupportAccessGrantSpec{
		Reason: "IMAP connector cannot reach the server", Engineers: []v1alpha1.Engineer{{Name: "ana@vendor.example"}},
		Roles: roles, Duration: "168h", GrantedBy: "tess@customer.example",
	}}
	grant.Labels, grant.Annotations, grant.Finalizers = nil, nil, []string{v1alpha1.FinalizerGrant}
	grant.Status = v1alpha1.SupportAccessGrantStatus{Transport: "Direct", StartTime: &at, ExpirationTime: &at, Engineers: []v1alpha1.EngineerStatus{{
		Name: "ana@vendor.example", Username: "system:serviceaccount:" + v1alpha1.CredentialsNamespace + ":" + identity, CredentialExpirationTime: &at,
		CredentialSecretRef: &v1alpha1.SecretKeyReference{Namespace: v1alpha1.CredentialsNamespace, Name: identity, Key: "kubeconfig"},
	}}}
	for _, kind := range []string{"Ready", "Active", "Approved", "Provisioned", "Verified"} {
		grant.Status.Conditions = append(grant.Status.Conditions, metav1.Condition{
			Type: kind, Status: "True", Reason: kind, Message: "access is open until " + at.UTC().Format(time.RFC3339), LastTransitionTime: at,
		})
	}
	record := &v1alpha1.SupportAccessRecord{ObjectMeta: meta("mail", name), Spec: v1alpha1.SupportAccessRecordSpec{
		Grant:     v1alpha1.RecordedGrant{Namespace: "mail", Name: name, UID: uid, SpecDigest: "sha256:" + string(uid) + string(uid), CreationTime: &at},
		GrantedBy: "tess@customer.example", Reason: grant.Spec.Reason, Engineers: []string{"ana@vendor.example"}, Roles: roles, Transport: "Direct", Policy: "default",
	}}
	record.Annotations = nil
	record.Status = v1alpha1.SupportAccessRecordStatus{StartTime: &at, ExpirationTime: &at, ProvisionedTime: &micro,
		AmbientBindings: []string{"ClusterRoleBinding system:basic-user", "ClusterRoleBinding system:discovery", "ClusterRoleBinding system:public-info-viewer"}}
	for _, role := range roles {
		record.Status.Bindings = append(record.Status.Bindings, v1alpha1.RecordedBinding{Namespace: "mail", Name: "support-access-abcdefghijklmnopqrst" + name, UID: uid, Role: role})
		record.Status.Rules = append(record.Status.Rules, v1alpha1.RecordedRules{Role: role, Digest: "sha256:" + string(uid[:8]) + "0123456789abcdef0123456789abcdef0123456789abcdef01234567"})
		record.Status.Transitions = append(record.Status.Transitions, v1alpha1.Transition{Time: micro, Type: "Opened", By: "support-access", Message: "access is open"})
	}
	metadata := func(kind string) *metav1.PartialObjectMetadata {
		return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{Kind: kind}, ObjectMeta: meta(v1alpha1.CredentialsNamespace, identity)}
	}
	return []client.Object{
		grant, record, binding("mail", "ClusterRole", roles[0]), binding("mail", "ClusterRole", roles[1]),
		binding(v1alpha1.CredentialsNamespace, "Role", identity), metadata("Secret"), metadata("ServiceAccount"),
	}
}
