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
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/controllers/grant"
	"supportaccess.dev/operator/internal/operator"
	"supportaccess.dev/operator/internal/records"
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

// caches are two: the operator's own, as the manager that main starts makes it, under the chart's ServiceAccount, with the
// labels, namespaces and indexes of production; and one that has everything, through which tests look. Tests wait until
// both have heard of what they and the operator write, so that a run can be repeated; what comes of a cache that has not
// yet heard is a test of its own.
type caches struct {
	operator, all client.Reader
	admin         client.Client
}

// newCaches starts the caches. They end with the tests of the package.
func newCaches(ctx context.Context, controller, everybody *rest.Config, admin client.Client) (*caches, error) {
	mgr, err := operator.NewManager(controller, operator.Options{MetricsAddress: "0", HealthAddress: "0"})
	if err != nil {
		return nil, err
	}
	// The manager is never started, and so no controller is: only what they read is wanted, and how it is indexed.
	if err := records.AddIndex(ctx, mgr.GetFieldIndexer()); err != nil {
		return nil, err
	}
	if err := (&grant.Reconciler{Client: mgr.GetClient(), Sessions: mgr.GetClient(), Workers: 1}).SetupWithManager(ctx, mgr); err != nil {
		return nil, err
	}
	all, err := cache.New(everybody, cache.Options{Scheme: world.Scheme()})
	if err != nil {
		return nil, err
	}
	for _, c := range []cache.Cache{mgr.GetCache(), all} {
		running, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- c.Start(running) }()
		world.AtEnd(func() error { stop(); return <-ended })
		if !c.WaitForCacheSync(ctx) {
			return nil, errors.New("the cache did not come to know what there is")
		}
	}
	return &caches{operator: mgr.GetCache(), all: all, admin: admin}, nil
}

// catchUpLimit bounds how long a cache may take to hear of a write.
const catchUpLimit = 30 * time.Second

// catchUp waits until the caches have heard of what the API server has of an object now.
func (c *caches) catchUp(ctx context.Context, o client.Object) error {
	kind, key := kindOf(o, c.admin.Scheme()), client.ObjectKeyFromObject(o)
	if !slices.Contains(remembered, kind) && kind != "Role" {
		return nil
	}
	live, err := c.read(ctx, c.admin, kind, key)
	if err != nil {
		return err
	}
	for _, from := range []client.Reader{c.all, c.operator} {
		if from == c.operator && !isKept(kind, live) {
			continue
		}
		err := pollEvery(ctx, time.Millisecond, catchUpLimit, func() error {
			known, err := c.read(ctx, from, kind, key)
			if err != nil || isAsNew(known, live) {
				return err
			}
			return fmt.Errorf("the cache has not yet heard of %s %s", kind, key)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// isKept reports whether the operator's cache keeps an object: of bindings it has only the operator's, and no Roles.
func isKept(kind string, live client.Object) bool {
	if live != nil && strings.HasSuffix(kind, "RoleBinding") {
		return live.GetLabels()[v1alpha1.LabelManaged] == "true"
	}
	return kind != "Role"
}

// read reads what a reader has of an object, nil where it has none.
func (c *caches) read(ctx context.Context, from client.Reader, kind string, key client.ObjectKey) (client.Object, error) {
	o, err := c.blank(from, kind)
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

// blank is an object to read into. Of some kinds the operator's cache keeps only the metadata.
func (c *caches) blank(from client.Reader, kind string) (client.Object, error) {
	version := rbacv1.SchemeGroupVersion
	switch {
	case strings.HasPrefix(kind, "SupportAccess"):
		version = v1alpha1.GroupVersion
	case kind == "Secret" || kind == "ServiceAccount" || kind == "Namespace":
		version = corev1.SchemeGroupVersion
		if from == c.operator {
			o := &metav1.PartialObjectMetadata{}
			o.SetGroupVersionKind(version.WithKind(kind))
			return o, nil
		}
	}
	o, err := c.admin.Scheme().New(version.WithKind(kind))
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
	if _, sessions := list.(*v1alpha1.SupportAccessSessionList); ok && sessions {
		options.FieldSelector, options.LabelSelector = nil, labels.SelectorFromSet(labels.Set{labelGrantUID: key})
		return options, nil
	}
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
