package access

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"supportaccess.dev/operator/api/v1alpha1"
)

// CheckNames says which object lies under a name that an order needs and was not made for its grant, nil if none does.
// A grant that was in somebody's way once is tried again only when the way is free: else each try would give some of the
// access for a moment.
func (k Keeper) CheckNames(ctx context.Context, order Order) error {
	objects := Bindings(order)
	for _, engineer := range order.Engineers {
		objects = append(objects, identityObjects(IdentityName(order.Grant, engineer.Name))...)
	}
	group := errgroup.Group{}
	group.SetLimit(concurrency)
	failures := make([]error, len(objects))
	for i, object := range objects {
		group.Go(func() error {
			there, ours, err := k.look(ctx, order.Grant, object)
			if err == nil && there && !ours {
				err = &NameTakenError{Kind: fmt.Sprintf("%T", object), Namespace: object.GetNamespace(), Name: object.GetName()}
			}
			failures[i] = err
			return nil
		})
	}
	_ = group.Wait()
	first := slices.IndexFunc(failures, func(err error) bool { return err != nil })
	if first < 0 {
		return nil
	}
	return failures[first]
}

// look reads an object from the API server itself and reports whether it is there and was made for a grant.
func (k Keeper) look(ctx context.Context, grant v1alpha1.RecordedGrant, object client.Object) (there, ours bool, err error) {
	err = k.Live.Get(ctx, client.ObjectKeyFromObject(object), object)
	if apierrors.IsNotFound(err) {
		return false, false, nil
	}
	if err != nil {
		return false, false, fmt.Errorf("get %T %s/%s: %w", object, object.GetNamespace(), object.GetName(), err)
	}
	return true, object.GetAnnotations()[v1alpha1.AnnotationGrantUID] == string(grant.UID), nil
}

// identityObjects are what carries the name of one identity, in the order in which it is taken away: the way to fetch the
// credential, the credential, the identity. A Role is seen by its binding alone, and so goes before it.
func identityObjects(name string) []client.Object {
	meta := metav1.ObjectMeta{Namespace: v1alpha1.CredentialsNamespace, Name: name}
	return []client.Object{
		&rbacv1.Role{ObjectMeta: meta}, &rbacv1.RoleBinding{ObjectMeta: meta},
		&corev1.Secret{ObjectMeta: meta}, &corev1.ServiceAccount{ObjectMeta: meta},
	}
}

// DismantleOwn is Dismantle for a grant that never opened: under its names may lie what kept it from opening, and that is
// a stranger's. It is left alone, and said.
func (k Keeper) DismantleOwn(ctx context.Context, grant v1alpha1.RecordedGrant, name string) error {
	for _, object := range identityObjects(name) {
		there, ours, err := k.look(ctx, grant, object)
		if err != nil {
			return err
		}
		if !there {
			continue
		}
		if !ours {
			ctrllog.FromContext(ctx).Info("Left alone what was not made for this grant", "kind", fmt.Sprintf("%T", object),
				"namespace", object.GetNamespace(), "name", object.GetName())
			continue
		}
		uid := object.GetUID()
		if err := k.Client.Delete(ctx, object, client.Preconditions{UID: &uid}); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete %T %s: %w", object, name, err)
		}
	}
	return nil
}
