package crash

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/controllers/grant"
	"supportaccess.dev/operator/internal/operator"
	"supportaccess.dev/operator/test/world"
)

// indexGrant is the index by which the grant controller finds what was made for a grant.
const indexGrant = "grant"

// cached is what one process has for a client: it writes through its wire, and reads what the cache has.
type cached struct {
	client.Client
	wire  *wire
	cache client.Reader
}

// Get reads one object from the cache.
func (c cached) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	return c.wire.read(func() error { return c.cache.Get(ctx, key, o, opts...) })
}

// List lists what the cache has.
func (c cached) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	return c.wire.read(func() error { return c.cache.List(ctx, list, opts...) })
}

// mirror is the operator's own cache: the manager that main starts makes it, under the chart's ServiceAccount, with the
// labels, namespaces and indexes of production. Tests wait until it has heard of what they and the operator write, so that
// a run can be repeated; what comes of a cache that has not yet heard is a test of its own.
type mirror struct {
	client.Reader
	admin client.Client
}

// newMirror starts the cache. It ends with the tests of the package.
func newMirror(ctx context.Context, config *rest.Config, admin client.Client) (*mirror, error) {
	mgr, err := operator.NewManager(config, operator.Options{MetricsAddress: "0", HealthAddress: "0"})
	if err != nil {
		return nil, err
	}
	// The manager is never started, and so no controller is: only what they read is wanted, and how it is indexed.
	if err := (&grant.Reconciler{Client: mgr.GetClient(), Workers: 1}).SetupWithManager(ctx, mgr); err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- mgr.GetCache().Start(running) }()
	world.AtEnd(func() error { stop(); return <-ended })
	if !mgr.GetCache().WaitForCacheSync(ctx) {
		return nil, errors.New("the cache did not come to know what there is")
	}
	return &mirror{Reader: mgr.GetCache(), admin: admin}, nil
}

// catchUpLimit bounds how long the cache may take to hear of a write.
const catchUpLimit = 30 * time.Second

// catchUp waits until the cache has heard of what the API server has of an object now.
func (m *mirror) catchUp(ctx context.Context, o client.Object) error {
	kind, key := kindOf(o, m.admin.Scheme()), client.ObjectKeyFromObject(o)
	if !slices.Contains(remembered, kind) {
		return nil
	}
	live, err := m.read(ctx, m.admin, kind, key)
	if err != nil {
		return err
	}
	if live != nil && strings.HasSuffix(kind, "RoleBinding") && live.GetLabels()[v1alpha1.LabelManaged] != "true" {
		return nil // Of bindings the cache has only the operator's.
	}
	return pollEvery(ctx, time.Millisecond, catchUpLimit, func() error {
		known, err := m.read(ctx, m.Reader, kind, key)
		if err != nil || isAsNew(known, live) {
			return err
		}
		return fmt.Errorf("the cache has not yet heard of %s %s", kind, key)
	})
}

// read reads what a reader has of an object, nil where it has none.
func (m *mirror) read(ctx context.Context, from client.Reader, kind string, key client.ObjectKey) (client.Object, error) {
	o, err := m.blank(kind)
	if err != nil {
		return nil, err
	}
	err = from.Get(ctx, key, o)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get %s %s: %w", kind, key, err)
	}
	return o, nil
}

// blank is an object to read into, of the sort that the operator's cache keeps of a kind.
func (m *mirror) blank(kind string) (client.Object, error) {
	switch kind {
	case "Secret", "ServiceAccount", "Namespace":
		o := &metav1.PartialObjectMetadata{}
		o.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind))
		return o, nil
	}
	version := rbacv1.SchemeGroupVersion
	if strings.HasPrefix(kind, "SupportAccess") {
		version = v1alpha1.GroupVersion
	}
	o, err := m.admin.Scheme().New(version.WithKind(kind))
	if err != nil {
		return nil, err
	}
	return o.(client.Object), nil
}

// isAsNew reports whether what a cache has of an object is at least as new as what the API server had.
func isAsNew(known, live client.Object) bool {
	if known == nil || live == nil {
		return known == nil && live == nil
	}
	order, err := resourceversion.CompareResourceVersion(known.GetResourceVersion(), live.GetResourceVersion())
	return err == nil && order >= 0
}

// labelled answers for a cache where there is none, for an API server in memory: it keeps to the labels that bound the
// cache, and it answers for the index by asking for the labels from which the index is made.
type labelled struct {
	client.Reader
}

// List lists what the cache would have.
func (l labelled) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	options, err := asCached(list, opts)
	if err != nil {
		return err
	}
	return l.Reader.List(ctx, list, options)
}

// asCached turns what is asked of the cache into what the API server can answer.
func asCached(list client.ObjectList, opts []client.ListOption) (*client.ListOptions, error) {
	options := (&client.ListOptions{}).ApplyOptions(opts)
	options.UnsafeDisableDeepCopy = nil
	switch list.(type) {
	case *rbacv1.RoleBindingList, *rbacv1.ClusterRoleBindingList:
		client.MatchingLabels{v1alpha1.LabelManaged: "true"}.ApplyToList(options)
	case *admissionregistrationv1.ValidatingAdmissionPolicyList, *admissionregistrationv1.ValidatingAdmissionPolicyBindingList,
		*admissionregistrationv1.MutatingAdmissionPolicyList, *admissionregistrationv1.MutatingAdmissionPolicyBindingList:
		client.MatchingLabels{"app.kubernetes.io/part-of": "support-access"}.ApplyToList(options)
	}
	if options.FieldSelector == nil {
		return options, nil
	}
	key, ok := options.FieldSelector.RequiresExactMatch(indexGrant)
	namespace, name, split := strings.Cut(key, "/")
	if !ok || !split {
		return nil, fmt.Errorf("list %T: the harness knows no index for %s", list, options.FieldSelector)
	}
	options.FieldSelector = nil
	options.LabelSelector = labels.SelectorFromSet(labels.Set{
		v1alpha1.LabelManaged: "true", v1alpha1.LabelGrant: name, v1alpha1.LabelGrantNamespace: namespace,
	})
	return options, nil
}
