package operator

import (
	"slices"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
)

// The cache holds seven objects for each open grant. Of those that are only read it drops what nobody reads, and of the
// strings that all grants have in common it keeps one copy: every decoded object brings its own.

// trimmer makes small what the cache keeps.
type trimmer struct {
	mu     sync.Mutex
	shared map[string]string
}

// maxShared is how many strings are remembered at a time. Past it they are learnt anew; what is cached keeps its copies.
const maxShared = 8192

// trim is the cache's transform. Records keep all that they say: the next version of one is written from the cached.
func (t *trimmer) trim(object any) (any, error) {
	accessor, err := meta.Accessor(object)
	if err != nil {
		return object, nil // What stands for a deletion that the watch missed has no metadata.
	}
	accessor.SetManagedFields(nil)
	switch o := object.(type) {
	case *rbacv1.RoleBinding:
		o.Annotations = nil
		t.shareRef(&o.RoleRef)
		t.shareSubjects(o.Subjects)
		if o.Namespace == v1alpha1.CredentialsNamespace {
			o.Subjects = nil
		}
	case *rbacv1.ClusterRoleBinding:
		o.Annotations = nil
		t.shareRef(&o.RoleRef)
		t.shareSubjects(o.Subjects)
	case *metav1.PartialObjectMetadata:
		// What the annotations of a credential say is read; an identity's say nothing that its name does not.
		delete(o.Annotations, v1alpha1.AnnotationEngineer)
		if o.Kind == "ServiceAccount" {
			o.Annotations = nil
		}
	case *v1alpha1.SupportAccessGrant:
		o.Annotations = authorOf(o)
		t.shareGrant(o)
	case *v1alpha1.SupportAccessRecord:
		t.shareRecord(o)
	}
	accessor.SetNamespace(t.one(accessor.GetNamespace()))
	accessor.SetLabels(t.shareMap(accessor.GetLabels()))
	accessor.SetAnnotations(t.shareMap(accessor.GetAnnotations()))
	return object, nil
}

// authorOf returns the one annotation of a grant that is read.
func authorOf(grant *v1alpha1.SupportAccessGrant) map[string]string {
	author, named := grant.Annotations[v1alpha1.AnnotationAuthor]
	if !named {
		return nil
	}
	return map[string]string{v1alpha1.AnnotationAuthor: author}
}

// one returns the one copy of a string.
func (t *trimmer) one(s string) string {
	if s == "" {
		return ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if known, ok := t.shared[s]; ok {
		return known
	}
	if t.shared == nil || len(t.shared) >= maxShared {
		t.shared = map[string]string{}
	}
	t.shared[s] = s
	return s
}

func (t *trimmer) share(strings ...*string) {
	for _, s := range strings {
		*s = t.one(*s)
	}
}

// shareMap returns a map of labels or annotations whose keys are the one copy; most values are a grant's own.
func (t *trimmer) shareMap(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	out := make(map[string]string, len(m))
	for key, value := range m {
		if key == v1alpha1.LabelManaged || key == v1alpha1.LabelGrantNamespace {
			value = t.one(value)
		}
		out[t.one(key)] = value
	}
	return out
}

func (t *trimmer) shareList(list []string) []string {
	list = slices.Clone(list)
	for i := range list {
		t.share(&list[i])
	}
	return list
}

func (t *trimmer) shareRef(ref *rbacv1.RoleRef) {
	t.share(&ref.APIGroup, &ref.Kind)
	if ref.Kind == "ClusterRole" {
		t.share(&ref.Name)
	}
}

func (t *trimmer) shareSubjects(subjects []rbacv1.Subject) {
	for i := range subjects {
		t.share(&subjects[i].Kind, &subjects[i].APIGroup, &subjects[i].Namespace)
	}
}

func (t *trimmer) shareConditions(conditions []metav1.Condition) {
	for i := range conditions {
		c := &conditions[i]
		status := string(c.Status)
		t.share(&c.Type, &status, &c.Reason, &c.Message)
		c.Status = metav1.ConditionStatus(status)
	}
}

func (t *trimmer) shareGrant(grant *v1alpha1.SupportAccessGrant) {
	t.share(&grant.Spec.GrantedBy, &grant.Spec.Reason)
	grant.Spec.Roles, grant.Finalizers = t.shareList(grant.Spec.Roles), t.shareList(grant.Finalizers)
	grant.Status.Conditions = slices.Clone(grant.Status.Conditions)
	t.shareConditions(grant.Status.Conditions)
	for i := range grant.Spec.Engineers {
		t.share(&grant.Spec.Engineers[i].Name)
	}
	for i := range grant.Status.Engineers {
		e := &grant.Status.Engineers[i]
		t.share(&e.Name)
		if e.CredentialSecretRef != nil {
			t.share(&e.CredentialSecretRef.Namespace, &e.CredentialSecretRef.Key)
		}
	}
}

func (t *trimmer) shareRecord(record *v1alpha1.SupportAccessRecord) {
	spec, status := &record.Spec, &record.Status
	t.share(&spec.Grant.Namespace, &spec.GrantedBy, &spec.Reason, &spec.Policy)
	spec.Roles, spec.Engineers = t.shareList(spec.Roles), t.shareList(spec.Engineers)
	status.AmbientBindings = t.shareList(status.AmbientBindings)
	status.Bindings, status.Rules = slices.Clone(status.Bindings), slices.Clone(status.Rules)
	status.Transitions = slices.Clone(status.Transitions)
	for i := range status.Bindings {
		t.share(&status.Bindings[i].Namespace, &status.Bindings[i].Role)
	}
	for i := range status.Rules {
		t.share(&status.Rules[i].Role, &status.Rules[i].Digest)
	}
	for i := range status.Transitions {
		transition := &status.Transitions[i]
		t.share(&transition.Type, &transition.By, &transition.Message)
	}
}
