package grant

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/review"
)

const (
	// ambientFor is for how long what was found is not looked for again: a storm of grants must not list all bindings of
	// the cluster for each.
	ambientFor = time.Minute
	// maxAmbient is how many bindings a record names.
	maxAmbient = 64
	// atOnce is how many requests about the places of one grant are under way.
	atOnce = 8
)

// ambientGroups are the groups that every engineer's identity is in, whether granted anything or not.
var ambientGroups = []string{"system:authenticated", "system:serviceaccounts", "system:serviceaccounts:" + v1alpha1.CredentialsNamespace}

// ambient is what the groups of every identity may do anyway in one place.
type ambient struct {
	// bindings name what gives it.
	bindings []string
	// reasons say what of it support access never gives.
	reasons []string
	at      time.Time
}

// ambience remembers, by namespace, what was found.
type ambience struct {
	mu    sync.Mutex
	found map[string]ambient
}

// ambientOf finds what an engineer of a grant for some places could do without it. Some clusters let every authenticated
// user read everything: there a Direct grant could not be taken away again, so it is refused.
func (r *Reconciler) ambientOf(ctx context.Context, scope []string, now time.Time) ([]ambient, error) {
	places := slices.Compact(slices.Sorted(slices.Values(append([]string{""}, scope...))))
	found := make([]ambient, len(places))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i, place := range places {
		group.Go(func() (err error) {
			found[i], err = r.ambientIn(groupCtx, place, now)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return found, nil
}

// addAmbient notes what was found, and what of it speaks against the grant.
func (s *sight) addAmbient(found []ambient) {
	for _, a := range found {
		s.ambient = append(s.ambient, a.bindings...)
		s.world.Refusals = append(s.world.Refusals, a.reasons...)
	}
	s.ambient = s.ambient[:min(len(s.ambient), maxAmbient)]
}

// recall returns what was found in a namespace not long ago.
func (a *ambience) recall(namespace string, now time.Time) (ambient, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	found, ok := a.found[namespace]
	return found, ok && now.Sub(found.at) < ambientFor
}

// remember keeps what was found in a namespace, and forgets what is too old to be used.
func (a *ambience) remember(namespace string, found ambient) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.found == nil {
		a.found = map[string]ambient{}
	}
	maps.DeleteFunc(a.found, func(_ string, old ambient) bool { return found.at.Sub(old.at) >= ambientFor })
	a.found[namespace] = found
}

// ambientIn reads the bindings of one namespace, or of the cluster, from the API server: the cache has only ours.
func (r *Reconciler) ambientIn(ctx context.Context, namespace string, now time.Time) (ambient, error) {
	if a, ok := r.ambience.recall(namespace, now); ok {
		return a, nil
	}
	bindings, err := r.bindingsIn(ctx, namespace)
	if err != nil {
		return ambient{}, err
	}
	a := ambient{at: now}
	for _, b := range bindings {
		if !slices.ContainsFunc(b.subjects, isAmbient) {
			continue
		}
		rules, err := r.rulesOf(ctx, namespace, b.role)
		if err != nil {
			return ambient{}, err
		}
		a.bindings = append(a.bindings, b.name)
		for _, reason := range review.Overlap(rules, slices.Concat(review.BuiltinNever(), review.DefaultNever())) {
			a.reasons = append(a.reasons, fmt.Sprintf("AmbientAccess: %s gives every identity what support access never gives: %s", b.name, reason))
		}
	}
	r.ambience.remember(namespace, a)
	return a, nil
}

// bound is one binding of either kind.
type bound struct {
	name     string
	role     rbacv1.RoleRef
	subjects []rbacv1.Subject
}

func (r *Reconciler) bindingsIn(ctx context.Context, namespace string) ([]bound, error) {
	var out []bound
	if namespace == "" {
		list := &rbacv1.ClusterRoleBindingList{}
		if err := r.Live.List(ctx, list); err != nil {
			return nil, fmt.Errorf("list cluster role bindings: %w", err)
		}
		for i := range list.Items {
			b := &list.Items[i]
			out = append(out, bound{name: "ClusterRoleBinding " + b.Name, role: b.RoleRef, subjects: b.Subjects})
		}
		return out, nil
	}
	list := &rbacv1.RoleBindingList{}
	if err := r.Live.List(ctx, list, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list role bindings in %q: %w", namespace, err)
	}
	for i := range list.Items {
		b := &list.Items[i]
		out = append(out, bound{name: "RoleBinding " + b.Namespace + "/" + b.Name, role: b.RoleRef, subjects: b.Subjects})
	}
	return out, nil
}

func isAmbient(s rbacv1.Subject) bool {
	return s.Kind == rbacv1.GroupKind && slices.Contains(ambientGroups, s.Name)
}

// rulesOf returns what a role allows; one that is not there allows nothing.
func (r *Reconciler) rulesOf(ctx context.Context, namespace string, ref rbacv1.RoleRef) ([]rbacv1.PolicyRule, error) {
	if ref.Kind == "Role" {
		role := &rbacv1.Role{}
		if err := r.Live.Get(ctx, types.NamespacedName{Namespace: namespace, Name: ref.Name}, role); err != nil && !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("get Role %s/%s: %w", namespace, ref.Name, err)
		}
		return role.Rules, nil
	}
	role := &rbacv1.ClusterRole{}
	if err := r.Client.Get(ctx, types.NamespacedName{Name: ref.Name}, role); err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("get ClusterRole %q: %w", ref.Name, err)
	}
	return role.Rules, nil
}
