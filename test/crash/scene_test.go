package crash

import (
	"cmp"
	"fmt"
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

// look reads a scene. It asks for everything at once: the API server lets each list wait until it is sure to be up to date.
func (r *run) look() *scene {
	s := &scene{grants: map[types.NamespacedName]*v1alpha1.SupportAccessGrant{}, records: map[types.NamespacedName]*v1alpha1.SupportAccessRecord{}}
	mine, inCredentials := client.MatchingLabels{v1alpha1.LabelGrantNamespace: r.home}, client.InNamespace(v1alpha1.CredentialsNamespace)
	records, clusterBindings := r.ask(&v1alpha1.SupportAccessRecordList{}, mine), r.ask(&rbacv1.ClusterRoleBindingList{}, mine)
	var grants, decisions, bindings, credentials []answer
	for _, place := range r.places() {
		in := client.InNamespace(place)
		grants = append(grants, r.ask(&v1alpha1.SupportAccessGrantList{}, in))
		decisions = append(decisions, r.ask(&v1alpha1.SupportAccessDecisionList{}, in))
		bindings = append(bindings, r.ask(&rbacv1.RoleBindingList{}, in))
	}
	for _, list := range []client.ObjectList{&corev1.ServiceAccountList{}, &corev1.SecretList{}, &rbacv1.RoleList{}, &rbacv1.RoleBindingList{}} {
		credentials = append(credentials, r.ask(list, inCredentials, mine))
	}
	for _, o := range r.heard(grants...) {
		s.grants[client.ObjectKeyFromObject(o)] = o.(*v1alpha1.SupportAccessGrant)
	}
	for _, o := range r.heard(decisions...) {
		s.decisions = append(s.decisions, o.(*v1alpha1.SupportAccessDecision))
	}
	for _, o := range r.heard(append(bindings, clusterBindings)...) {
		s.addBinding(o)
	}
	for _, o := range r.heard(records) {
		s.records[client.ObjectKeyFromObject(o)] = o.(*v1alpha1.SupportAccessRecord)
	}
	s.credentials = r.heard(credentials...)
	return s
}

// places are the namespaces of the run.
func (r *run) places() []string {
	if r.other == "" {
		return []string{r.home}
	}
	return []string{r.home, r.other}
}

// answer is what a list will have, or why it has not.
type answer chan func() ([]client.Object, error)

// ask lists something while others are asked too.
func (r *run) ask(list client.ObjectList, opts ...client.ListOption) answer {
	a := make(answer, 1)
	go func() {
		err := r.stage.admin.List(r.t.Context(), list, opts...)
		a <- func() ([]client.Object, error) {
			if err != nil {
				return nil, fmt.Errorf("list %T: %w", list, err)
			}
			return itemsOf(list), nil
		}
	}()
	return a
}

// heard are the answers, one after the other.
func (r *run) heard(answers ...answer) []client.Object {
	var out []client.Object
	for _, a := range answers {
		objects, err := (<-a)()
		if err != nil {
			r.fatalf("%v", err)
		}
		out = append(out, objects...)
	}
	return out
}

func (s *scene) addBinding(o client.Object) {
	if _, ours := access.GrantOf(o); ours || access.Names(o) {
		s.bindings = append(s.bindings, o)
	}
}

// list returns what a list has, as objects.
func (r *run) list(list client.ObjectList, opts ...client.ListOption) []client.Object {
	if err := r.stage.admin.List(r.t.Context(), list, opts...); err != nil {
		r.fatalf("list %T: %v", list, err)
	}
	return itemsOf(list)
}

func itemsOf(list client.ObjectList) []client.Object {
	switch l := list.(type) {
	case *v1alpha1.SupportAccessGrantList:
		return pointers(l.Items)
	case *v1alpha1.SupportAccessRecordList:
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
	grants, records, decisions []types.NamespacedName
}

// keys asks the cache what there is.
func (r *run) keys() keys {
	var k keys
	for _, place := range r.places() {
		in := client.InNamespace(place)
		for _, o := range r.cached(&v1alpha1.SupportAccessGrantList{}, in) {
			k.grants = append(k.grants, client.ObjectKeyFromObject(o))
		}
		for _, o := range r.cached(&v1alpha1.SupportAccessDecisionList{}, in) {
			k.decisions = append(k.decisions, client.ObjectKeyFromObject(o))
		}
	}
	mine := client.MatchingLabels{v1alpha1.LabelGrantNamespace: r.home}
	for _, o := range r.cached(&v1alpha1.SupportAccessRecordList{}, mine) {
		k.records = append(k.records, client.ObjectKeyFromObject(o))
		k.grants = append(k.grants, grantKeyOf(o.(*v1alpha1.SupportAccessRecord)))
	}
	for _, list := range []client.ObjectList{
		&rbacv1.RoleBindingList{}, &rbacv1.ClusterRoleBindingList{}, partialList("Secret"), partialList("ServiceAccount"),
	} {
		for _, o := range r.cached(list, mine) {
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

// cached returns what the cache has, as objects.
func (r *run) cached(list client.ObjectList, opts ...client.ListOption) []client.Object {
	if err := r.stage.cache.List(r.t.Context(), list, opts...); err != nil {
		r.fatalf("list %T of the cache: %v", list, err)
	}
	return itemsOf(list)
}

func grantKeyOf(record *v1alpha1.SupportAccessRecord) types.NamespacedName {
	return types.NamespacedName{Namespace: record.Spec.Grant.Namespace, Name: record.Spec.Grant.Name}
}

// recordOf returns the record of a grant's name: at home, else its tombstone.
func (s *scene) recordOf(key types.NamespacedName) *v1alpha1.SupportAccessRecord {
	if record := s.records[key]; record != nil {
		return record
	}
	return s.records[types.NamespacedName{Namespace: v1alpha1.SystemNamespace, Name: key.Namespace + "." + key.Name}]
}
