package crash

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
)

// scene is what the API server has of one run, by the eyes of somebody who may see everything.
type scene struct {
	grants    map[types.NamespacedName]*v1alpha1.SupportAccessGrant
	records   map[types.NamespacedName]*v1alpha1.SupportAccessRecord
	decisions []*v1alpha1.SupportAccessDecision
	// bindings give access: they name our identities, or say that they are ours.
	bindings []client.Object
	// credentials are the ServiceAccounts, Secrets, Roles and RoleBindings in the namespace of credentials.
	credentials []client.Object
}

// look reads a scene.
func (r *run) look() *scene {
	s := &scene{grants: map[types.NamespacedName]*v1alpha1.SupportAccessGrant{}, records: map[types.NamespacedName]*v1alpha1.SupportAccessRecord{}}
	for _, place := range r.places() {
		for _, o := range r.list(&v1alpha1.SupportAccessGrantList{}, client.InNamespace(place)) {
			s.grants[client.ObjectKeyFromObject(o)] = o.(*v1alpha1.SupportAccessGrant)
		}
		for _, o := range r.list(&v1alpha1.SupportAccessDecisionList{}, client.InNamespace(place)) {
			s.decisions = append(s.decisions, o.(*v1alpha1.SupportAccessDecision))
		}
		for _, o := range r.list(&rbacv1.RoleBindingList{}, client.InNamespace(place)) {
			s.addBinding(o)
		}
	}
	mine := client.MatchingLabels{v1alpha1.LabelGrantNamespace: r.home}
	for _, o := range r.list(&v1alpha1.SupportAccessRecordList{}, mine) {
		s.records[client.ObjectKeyFromObject(o)] = o.(*v1alpha1.SupportAccessRecord)
	}
	for _, o := range r.list(&rbacv1.ClusterRoleBindingList{}, mine) {
		s.addBinding(o)
	}
	inCredentials := client.InNamespace(v1alpha1.CredentialsNamespace)
	for _, list := range []client.ObjectList{&corev1.ServiceAccountList{}, &corev1.SecretList{}, &rbacv1.RoleList{}, &rbacv1.RoleBindingList{}} {
		s.credentials = append(s.credentials, r.list(list, inCredentials, mine)...)
	}
	if r.stalled {
		s.credentials = slices.DeleteFunc(slices.Clone(s.credentials), s.bindsNothing)
	}
	return s
}

// bindsNothing reports whether an object is a Role of which there is no binding.
func (s *scene) bindsNothing(o client.Object) bool {
	_, role := o.(*rbacv1.Role)
	return role && !slices.ContainsFunc(s.credentials, func(b client.Object) bool {
		_, binding := b.(*rbacv1.RoleBinding)
		return binding && b.GetName() == o.GetName()
	})
}

// places are the namespaces of the run.
func (r *run) places() []string {
	if r.other == "" {
		return []string{r.home}
	}
	return []string{r.home, r.other}
}

// list returns what there is, as objects.
func (r *run) list(list client.ObjectList, opts ...client.ListOption) []client.Object {
	return r.listFrom(r.stage.eyes, list, opts...)
}

func (r *run) listFrom(from client.Reader, list client.ObjectList, opts ...client.ListOption) []client.Object {
	if err := from.List(r.t.Context(), list, opts...); err != nil {
		r.fatalf("list %T: %v", list, err)
	}
	return itemsOf(list)
}

func (s *scene) addBinding(o client.Object) {
	if _, ours := access.GrantOf(o); ours || access.Names(o) {
		s.bindings = append(s.bindings, o)
	}
}

func itemsOf(list client.ObjectList) []client.Object {
	switch l := list.(type) {
	case *v1alpha1.SupportAccessGrantList:
		return pointers(l.Items)
	case *v1alpha1.SupportAccessRecordList:
		return pointers(l.Items)
	case *v1alpha1.SupportAccessSessionList:
		return pointers(l.Items)
	case *v1alpha1.SupportAccessDecisionList:
		return pointers(l.Items)
	case *rbacv1.RoleBindingList:
		return pointers(l.Items)
	case *rbacv1.ClusterRoleBindingList:
		return pointers(l.Items)
	case *rbacv1.RoleList:
		return pointers(l.Items)
	case *corev1.ServiceAccountList:
		return pointers(l.Items)
	case *corev1.SecretList:
		return pointers(l.Items)
	case *metav1.PartialObjectMetadataList:
		return pointers(l.Items)
	default:
		return nil
	}
}

func pointers[T any, P interface {
	*T
	client.Object
}](items []T) []client.Object {
	out := make([]client.Object, 0, len(items))
	for i := range items {
		out = append(out, P(&items[i]))
	}
	return out
}

// keys are what the watches would have the reconcilers look at.
type keys struct {
	grants, records, decisions, settings, requests []types.NamespacedName
}

// keys asks the cache what there is.
func (r *run) keys() keys {
	var k keys
	for _, place := range r.places() {
		in := client.InNamespace(place)
		for _, o := range r.listFrom(r.stage.cache, &v1alpha1.SupportAccessGrantList{}, in) {
			k.grants = append(k.grants, client.ObjectKeyFromObject(o))
		}
		for _, o := range r.listFrom(r.stage.cache, &v1alpha1.SupportAccessDecisionList{}, in) {
			k.decisions = append(k.decisions, client.ObjectKeyFromObject(o))
		}
	}
	if r.switched {
		k.settings = append(k.settings, r.key(v1alpha1.SettingName))
	}
	if r.asked {
		k.requests = append(k.requests, r.key(theRequest))
	}
	mine := client.MatchingLabels{v1alpha1.LabelGrantNamespace: r.home}
	for _, o := range r.listFrom(r.stage.cache, &v1alpha1.SupportAccessRecordList{}, mine) {
		k.records = append(k.records, client.ObjectKeyFromObject(o))
		k.grants = append(k.grants, grantKeyOf(o.(*v1alpha1.SupportAccessRecord)))
	}
	for _, list := range []client.ObjectList{
		&rbacv1.RoleBindingList{}, &rbacv1.ClusterRoleBindingList{}, partialList("Secret"), partialList("ServiceAccount"),
	} {
		for _, o := range r.listFrom(r.stage.cache, list, mine) {
			if key, ok := access.GrantOf(o); ok {
				k.grants = append(k.grants, key)
			}
		}
	}
	inOrder := func(a, b types.NamespacedName) int { return cmp.Compare(a.String(), b.String()) }
	for _, list := range []*[]types.NamespacedName{&k.grants, &k.records, &k.decisions} {
		slices.SortFunc(*list, inOrder)
		*list = slices.Compact(*list)
	}
	return k
}

func partialList(kind string) *metav1.PartialObjectMetadataList {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind + "List"))
	return list
}

func grantKeyOf(record *v1alpha1.SupportAccessRecord) types.NamespacedName {
	return types.NamespacedName{Namespace: record.Spec.Grant.Namespace, Name: record.Spec.Grant.Name}
}

// recordedOpen reports whether it is on record that a grant was opened, and not that it has ended.
func (s *scene) recordedOpen(key types.NamespacedName) bool {
	record := s.recordOf(key)
	return record != nil && record.Status.ProvisionedTime != nil && record.Status.EndTime == nil
}

// originals are the records that lie with their grants; the others are copies.
func (s *scene) originals() []*v1alpha1.SupportAccessRecord {
	var found []*v1alpha1.SupportAccessRecord
	for key, record := range s.records {
		if key == grantKeyOf(record) {
			found = append(found, record)
		}
	}
	return found
}

// recordOf returns the record of a grant's name: at home, else its tombstone.
func (s *scene) recordOf(key types.NamespacedName) *v1alpha1.SupportAccessRecord {
	if record := s.records[key]; record != nil {
		return record
	}
	return s.records[types.NamespacedName{Namespace: v1alpha1.SystemNamespace, Name: key.Namespace + "." + key.Name}]
}
