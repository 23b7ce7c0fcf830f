package crash

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
)

// remembered are the kinds that the operator reads from its cache.
var remembered = []string{
	"SupportAccessGrant", "SupportAccessRecord", "SupportAccessDecision", "SupportAccessPolicy", "SupportAccessSetting", "SupportAccessRequest",
	"RoleBinding", "ClusterRoleBinding", "ClusterRole", "Namespace", "Secret", "ServiceAccount", "SupportAccessSession",
}

// memory has every version of every object of a run, in the order in which they were written. It sees what the admin and
// the operator write, each through a client of its own; nobody else writes there.
type memory struct {
	run    *run
	scheme *runtime.Scheme

	mu       sync.Mutex
	now      int
	versions map[id][]version
}

type id struct {
	kind string
	key  types.NamespacedName
}

// version is an object as it was from an instant on, nil once it was gone.
type version struct {
	since  int
	object client.Object
}

// newMemory begins to remember a run: from now on, and what is there already.
func newMemory(r *run) *memory {
	m := &memory{run: r, scheme: r.stage.admin.Scheme(), versions: map[id][]version{}}
	first := []client.Object{namespaceOf(r.home)}
	if r.other != "" {
		first = append(first, namespaceOf(r.other))
	}
	for _, name := range []string{gen.Configuration, gen.Diagnostics, spare} {
		first = append(first, gen.ClusterRole(name))
	}
	for _, name := range []string{"crash", "crash-wide", "crash-frozen", r.own} {
		first = append(first, &v1alpha1.SupportAccessPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	for _, o := range first {
		if o.GetName() != "" {
			m.saw(o)
		}
	}
	r.afterWrite = m.saw
	return m
}

func namespaceOf(name string) client.Object {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

// saw remembers what the API server has of an object after a write.
func (m *memory) saw(o client.Object) {
	kind := kindOf(o, m.scheme)
	if !slices.Contains(remembered, kind) {
		return
	}
	key := client.ObjectKeyFromObject(o)
	fresh, err := m.scheme.New(gvkOf(o, m.scheme))
	if err != nil {
		m.run.note("remember %s %s: %v", kind, key, err)
		return
	}
	object := fresh.(client.Object)
	if err := m.run.stage.admin.Get(m.run.t.Context(), key, object); apierrors.IsNotFound(err) {
		object = nil
	} else if err != nil {
		m.run.note("remember %s %s: %v", kind, key, err)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now++
	m.versions[id{kind, key}] = append(m.versions[id{kind, key}], version{since: m.now, object: object})
}

func gvkOf(o client.Object, scheme *runtime.Scheme) schema.GroupVersionKind {
	if gvk := o.GetObjectKind().GroupVersionKind(); !gvk.Empty() {
		return gvk
	}
	gvks, _, err := scheme.ObjectKinds(o)
	if err != nil || len(gvks) == 0 {
		return schema.GroupVersionKind{}
	}
	return gvks[0]
}

// at returns an object as it was at an instant, nil if it was not there.
func (m *memory) at(i id, instant int) client.Object {
	m.mu.Lock()
	defer m.mu.Unlock()
	var object client.Object
	for _, v := range m.versions[i] {
		if v.since <= instant {
			object = v.object
		}
	}
	return object
}

// ids are the objects of a kind that ever were, in a fixed order.
func (m *memory) ids(kind string) []id {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []id
	for i := range m.versions {
		if i.kind == kind {
			out = append(out, i)
		}
	}
	slices.SortFunc(out, func(a, b id) int { return cmp.Compare(a.key.String(), b.key.String()) })
	return out
}

// instants are the moments between which something changed of some kinds, the beginning and the present among them.
func (m *memory) instants(kinds []string) []int {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := []int{0, m.now}
	for i, versions := range m.versions {
		if slices.Contains(kinds, i.kind) {
			for _, v := range versions {
				out = append(out, v.since)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// instant is how much has been written so far.
func (m *memory) instant() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// lagging is a cache that shows the past: what was there at an instant of each kind's own.
type lagging struct {
	client.Client
	memory *memory
	// instant says what is shown of a kind.
	instant func(kind string) int
}

// Get reads one object as it was.
func (l lagging) Get(_ context.Context, key client.ObjectKey, out client.Object, _ ...client.GetOption) error {
	kind := kindOf(out, l.memory.scheme)
	object := l.memory.at(id{kind, key}, l.instant(kind))
	if object == nil {
		return apierrors.NewNotFound(schema.GroupResource{Resource: kind}, key.Name)
	}
	if partial, ok := out.(*metav1.PartialObjectMetadata); ok {
		*partial = *partialOf(object, kind)
		return nil
	}
	reflect.ValueOf(out).Elem().Set(reflect.ValueOf(object.DeepCopyObject()).Elem())
	return nil
}

// List lists objects as they were.
func (l lagging) List(_ context.Context, list client.ObjectList, opts ...client.ListOption) error {
	options, err := asCached(list, opts)
	if err != nil {
		return err
	}
	selector := options.LabelSelector
	if selector == nil {
		selector = labels.Everything()
	}
	kind := listKind(list, l.memory.scheme)
	_, metadataOnly := list.(*metav1.PartialObjectMetadataList)
	var items []runtime.Object
	for _, i := range l.memory.ids(kind) {
		object := l.memory.at(i, l.instant(kind))
		if object == nil || options.Namespace != "" && options.Namespace != object.GetNamespace() || !selector.Matches(labels.Set(object.GetLabels())) {
			continue
		}
		if metadataOnly {
			items = append(items, partialOf(object, kind))
		} else {
			items = append(items, object.DeepCopyObject())
		}
	}
	if err := apimeta.SetList(list, items); err != nil {
		return fmt.Errorf("list %s as it was: %w", kind, err)
	}
	return nil
}

func listKind(list client.ObjectList, scheme *runtime.Scheme) string {
	kind := list.GetObjectKind().GroupVersionKind().Kind
	if kind == "" {
		if gvks, _, err := scheme.ObjectKinds(list); err == nil && len(gvks) > 0 {
			kind = gvks[0].Kind
		}
	}
	return kind[:max(0, len(kind)-len("List"))]
}

func partialOf(object client.Object, kind string) *metav1.PartialObjectMetadata {
	accessor, err := apimeta.Accessor(object.DeepCopyObject())
	if err != nil {
		panic(err)
	}
	partial := &metav1.PartialObjectMetadata{}
	partial.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind))
	partial.Name, partial.Namespace, partial.UID = accessor.GetName(), accessor.GetNamespace(), accessor.GetUID()
	partial.Labels, partial.Annotations = accessor.GetLabels(), accessor.GetAnnotations()
	partial.ResourceVersion, partial.Finalizers = accessor.GetResourceVersion(), accessor.GetFinalizers()
	partial.DeletionTimestamp, partial.CreationTimestamp = accessor.GetDeletionTimestamp(), accessor.GetCreationTimestamp()
	return partial
}
