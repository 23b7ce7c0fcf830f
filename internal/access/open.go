package access

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// Opened is what Open found or made.
type Opened struct {
	// Bindings are the bindings that give access.
	Bindings []v1alpha1.RecordedBinding
	// Credentials are what engineers authenticate with, one each.
	Credentials []Credential
}

// concurrency bounds how many requests one grant has under way.
const concurrency = 8

// Open makes everything that an order asks for. The bindings come last: until then a credential opens nothing. They do not
// wait for the ways to fetch the credentials: the API server reads every binding of the controller before it lets it make a
// Role, and that takes as long as all the rest.
func (k Keeper) Open(ctx context.Context, order Order, until Until) (Opened, error) {
	var opened Opened
	group := errgroup.Group{}
	group.Go(func() error { return k.letFetch(ctx, order, until) })
	group.Go(func() (err error) {
		opened, err = k.give(ctx, order, until)
		return err
	})
	if err := group.Wait(); err != nil {
		return Opened{}, err
	}
	return opened, nil
}

// letFetch makes the ways to fetch the credentials of an order.
func (k Keeper) letFetch(ctx context.Context, order Order, until Until) error {
	group := errgroup.Group{}
	group.SetLimit(concurrency)
	for _, engineer := range order.Engineers {
		group.Go(func() error { return k.ensureReader(ctx, order, engineer.Name, until) })
	}
	return group.Wait()
}

// give makes the credentials of an order, and then its bindings.
func (k Keeper) give(ctx context.Context, order Order, until Until) (Opened, error) {
	credentials := make([]Credential, len(order.Engineers))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(concurrency)
	for i, engineer := range order.Engineers {
		group.Go(func() (err error) {
			credentials[i], err = k.issue(groupCtx, order, engineer, until)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return Opened{}, err
	}
	bindings, err := k.bind(ctx, order, until)
	if err != nil {
		return Opened{}, err
	}
	return Opened{Bindings: bindings, Credentials: credentials}, nil
}

// bind makes the bindings of an order.
func (k Keeper) bind(ctx context.Context, order Order, until Until) ([]v1alpha1.RecordedBinding, error) {
	bindings := Bindings(order)
	var begun map[client.ObjectKey]client.Object
	if order.Begun {
		var err error
		if begun, err = k.begun(ctx, order.Grant); err != nil {
			return nil, err
		}
	}
	// One that fails does not cut off the others: what they make after all would be known to nobody.
	group := errgroup.Group{}
	group.SetLimit(concurrency)
	for _, b := range bindings {
		group.Go(func() error {
			if err := until.check(k.Clock.Now()); err != nil {
				return err
			}
			return k.ensureBinding(ctx, b, begun[client.ObjectKeyFromObject(b)])
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	recorded := make([]v1alpha1.RecordedBinding, 0, len(bindings))
	for _, b := range bindings {
		recorded = append(recorded, v1alpha1.RecordedBinding{
			Namespace: b.GetNamespace(), Name: b.GetName(), UID: b.GetUID(), Role: roleRef(b).Name,
		})
	}
	return recorded, nil
}

// MayHaveBegun reports whether a grant has a binding, by the API server's word; also where it does not answer.
func (k Keeper) MayHaveBegun(ctx context.Context, grant v1alpha1.RecordedGrant) bool {
	found, err := k.begun(ctx, grant)
	return err != nil || len(found) > 0
}

// begun returns the bindings that an earlier pass made for a grant. One of many namespaces that is too much for one pass
// would be too much for every other one, if each began by making again what is there.
func (k Keeper) begun(ctx context.Context, grant v1alpha1.RecordedGrant) (map[client.ObjectKey]client.Object, error) {
	mine := client.MatchingLabels{v1alpha1.LabelGrant: grant.Name, v1alpha1.LabelGrantNamespace: grant.Namespace}
	found := map[client.ObjectKey]client.Object{}
	bindings, wide := &rbacv1.RoleBindingList{}, &rbacv1.ClusterRoleBindingList{}
	for _, list := range []client.ObjectList{bindings, wide} {
		if err := k.Live.List(ctx, list, mine); err != nil {
			return nil, fmt.Errorf("list the bindings of grant %s/%s: %w", grant.Namespace, grant.Name, err)
		}
	}
	for i := range bindings.Items {
		found[client.ObjectKeyFromObject(&bindings.Items[i])] = &bindings.Items[i]
	}
	for i := range wide.Items {
		found[client.ObjectKeyFromObject(&wide.Items[i])] = &wide.Items[i]
	}
	return found, nil
}

// ensureBinding makes a binding, or checks that the one that is there is what it should be.
func (k Keeper) ensureBinding(ctx context.Context, binding, begun client.Object) error {
	wantedRef, wanted := roleRef(binding), Subjects(binding)
	if begun != nil && begun.GetAnnotations()[v1alpha1.AnnotationGrantUID] == binding.GetAnnotations()[v1alpha1.AnnotationGrantUID] {
		become(binding, begun)
	} else if err := k.ensure(ctx, binding, Order{}); err != nil {
		return err
	}
	present := Subjects(binding)
	if roleRef(binding) == wantedRef && equality.Semantic.DeepEqual(present, wanted) {
		return nil
	}
	missing := func(s rbacv1.Subject) bool { return !slices.Contains(present, s) }
	if roleRef(binding) != wantedRef || slices.ContainsFunc(wanted, missing) {
		return &NameTakenError{Kind: fmt.Sprintf("%T", binding), Namespace: binding.GetNamespace(), Name: binding.GetName()}
	}
	// An earlier pass made it for somebody who was taken off since.
	setSubjects(binding, wanted)
	if err := k.Client.Update(ctx, binding); err != nil {
		return fmt.Errorf("take engineers off binding %s/%s: %w", binding.GetNamespace(), binding.GetName(), err)
	}
	return nil
}

// become turns a rendered binding into the one that is there.
func become(binding, there client.Object) {
	switch b := binding.(type) {
	case *rbacv1.RoleBinding:
		there.(*rbacv1.RoleBinding).DeepCopyInto(b)
	case *rbacv1.ClusterRoleBinding:
		there.(*rbacv1.ClusterRoleBinding).DeepCopyInto(b)
	}
}

func roleRef(binding client.Object) rbacv1.RoleRef {
	switch b := binding.(type) {
	case *rbacv1.RoleBinding:
		return b.RoleRef
	case *rbacv1.ClusterRoleBinding:
		return b.RoleRef
	default:
		return rbacv1.RoleRef{}
	}
}

// Subjects returns the subjects of a RoleBinding or ClusterRoleBinding.
func Subjects(binding client.Object) []rbacv1.Subject {
	switch b := binding.(type) {
	case *rbacv1.RoleBinding:
		return b.Subjects
	case *rbacv1.ClusterRoleBinding:
		return b.Subjects
	default:
		return nil
	}
}

// Intact reports whether a binding still gives what the grant gives: its role, to at least the engineers who have access
// now and at most those who ever had it. Between the two lies the moment in which one is taken off.
func Intact(binding client.Object, recorded v1alpha1.RecordedBinding, people People, now, ever []string) bool {
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: recorded.Role}
	if binding.GetUID() != recorded.UID || !binding.GetDeletionTimestamp().IsZero() || roleRef(binding) != ref {
		return false
	}
	subjects := Subjects(binding)
	for _, engineer := range now {
		if !slices.Contains(subjects, people.subject(engineer)) {
			return false
		}
	}
	return !slices.ContainsFunc(subjects, func(s rbacv1.Subject) bool {
		return !slices.ContainsFunc(ever, func(engineer string) bool { return s == people.subject(engineer) })
	})
}

// Names says whether a binding names a subject that only the operator's bindings may name: an identity of the
// credentials namespace, its group, or a user or group of ours.
func Names(binding client.Object) bool {
	accounts := "system:serviceaccount:" + v1alpha1.CredentialsNamespace + ":"
	return slices.ContainsFunc(Subjects(binding), func(s rbacv1.Subject) bool {
		switch s.Kind {
		case rbacv1.ServiceAccountKind:
			return s.Namespace == v1alpha1.CredentialsNamespace
		case rbacv1.UserKind:
			return strings.HasPrefix(s.Name, accounts) || strings.HasPrefix(s.Name, v1alpha1.IdentityPrefix)
		default:
			return s.Name == "system:serviceaccounts:"+v1alpha1.CredentialsNamespace || strings.HasPrefix(s.Name, v1alpha1.IdentityPrefix)
		}
	})
}
