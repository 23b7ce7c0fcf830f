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

// Open makes everything that an order asks for. The bindings come last: until then a credential opens nothing.
func (k Keeper) Open(ctx context.Context, order Order, until Until) (Opened, error) {
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
	// One that fails does not cut off the others: what they make after all would be known to nobody.
	group := errgroup.Group{}
	group.SetLimit(concurrency)
	for _, b := range bindings {
		group.Go(func() error {
			if err := until.check(k.Clock.Now()); err != nil {
				return err
			}
			return k.ensureBinding(ctx, b)
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

// ensureBinding makes a binding, or checks that the one that is there is what it should be.
func (k Keeper) ensureBinding(ctx context.Context, binding client.Object) error {
	wantedRef, wanted := roleRef(binding), Subjects(binding)
	if err := k.ensure(ctx, binding); err != nil {
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
func Intact(binding client.Object, recorded v1alpha1.RecordedBinding, grant v1alpha1.RecordedGrant, now, ever []string) bool {
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: recorded.Role}
	if binding.GetUID() != recorded.UID || !binding.GetDeletionTimestamp().IsZero() || roleRef(binding) != ref {
		return false
	}
	subjects := Subjects(binding)
	for _, engineer := range now {
		if !slices.Contains(subjects, identitySubject(grant, engineer)) {
			return false
		}
	}
	return !slices.ContainsFunc(subjects, func(s rbacv1.Subject) bool {
		return !slices.ContainsFunc(ever, func(engineer string) bool { return s == identitySubject(grant, engineer) })
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
