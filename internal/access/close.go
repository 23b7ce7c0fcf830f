package access

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// Remains are what may be left of one grant.
type Remains struct {
	// Grant is the grant.
	Grant v1alpha1.RecordedGrant
	// Transport is the way by which its engineers came.
	Transport v1alpha1.Transport
	// Engineers are all who ever had access.
	Engineers []string
	// Bindings are the bindings to delete. One without a UID is deleted if it was made for the grant.
	Bindings []v1alpha1.RecordedBinding
	// Given says that access was given once. Until then what lies under the grant's names may be a stranger's.
	Given bool
	// Cut says that the bindings were deleted already, and that it is left to make sure of it.
	Cut bool
}

// RemainsOf returns everything that may ever have been made for a record's grant: what the record names, and, by their
// names, the bindings that a pass may have made before it could record them.
func RemainsOf(record *v1alpha1.SupportAccessRecord, namespaces []string) Remains {
	remains := Remains{Grant: record.Spec.Grant, Transport: record.Spec.Transport, Engineers: record.Spec.Engineers}
	for _, b := range record.Status.Bindings {
		if !b.Withdrawn {
			remains.Bindings = append(remains.Bindings, b)
		}
	}
	if remains.Given = record.Status.ProvisionedTime != nil; remains.Given {
		return remains
	}
	for _, namespace := range namespaces {
		for _, role := range record.Spec.Roles {
			remains.Bindings = append(remains.Bindings, v1alpha1.RecordedBinding{
				Namespace: namespace, Name: BindingName(record.Spec.Grant, namespace, role), Role: role,
			})
		}
	}
	return remains
}

// Close takes all access away: the bindings first, because their absence denies the next request within milliseconds,
// then credentials and identities. It returns once the API server itself says that the bindings are gone. It tries
// everything, whatever fails.
func (k Keeper) Close(ctx context.Context, remains Remains) error {
	bindingsErr := k.Unbind(ctx, remains)
	group := errgroup.Group{}
	group.SetLimit(concurrency)
	failures := make([]error, len(remains.Engineers))
	for i, engineer := range remains.Engineers {
		group.Go(func() error {
			name := IdentityName(remains.Grant, engineer)
			if remains.Given {
				failures[i] = k.Dismantle(ctx, name)
			} else {
				failures[i] = k.DismantleOwn(ctx, remains.Grant, name)
			}
			return nil
		})
	}
	_ = group.Wait()
	return errors.Join(bindingsErr, errors.Join(failures...))
}

// TakeOff takes engineers off the bindings of a grant that stays open for the others, then takes away what they
// authenticate as.
func (k Keeper) TakeOff(ctx context.Context, remains Remains, staying []string) error {
	people := People{Grant: remains.Grant, Transport: remains.Transport}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(concurrency)
	for _, b := range remains.Bindings {
		group.Go(func() error { return k.narrow(groupCtx, people, b, staying) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, engineer := range remains.Engineers {
		if slices.Contains(staying, engineer) {
			continue
		}
		if err := k.Dismantle(ctx, IdentityName(remains.Grant, engineer)); err != nil {
			return err
		}
	}
	return nil
}

// narrow leaves in a binding only the subjects of the engineers who stay. It writes nothing where that is so already.
func (k Keeper) narrow(ctx context.Context, people People, recorded v1alpha1.RecordedBinding, staying []string) error {
	binding := emptyBinding(recorded)
	err := k.Live.Get(ctx, client.ObjectKeyFromObject(binding), binding)
	if apierrors.IsNotFound(err) || (err == nil && binding.GetUID() != recorded.UID) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("get binding %s/%s: %w", recorded.Namespace, recorded.Name, err)
	}
	kept := slices.DeleteFunc(slices.Clone(Subjects(binding)), func(s rbacv1.Subject) bool {
		return !slices.ContainsFunc(staying, func(engineer string) bool { return s == people.subject(engineer) })
	})
	if len(kept) == len(Subjects(binding)) {
		return nil
	}
	setSubjects(binding, kept)
	if err := k.Client.Update(ctx, binding); err != nil {
		return fmt.Errorf("take engineers off binding %s/%s: %w", recorded.Namespace, recorded.Name, err)
	}
	return nil
}

// Cut deletes recorded bindings and asks for nothing else, so that one grant holds up others as little as can be. It tries
// all of them, whatever fails. Unbind makes sure that they are gone.
func (k Keeper) Cut(ctx context.Context, bindings []v1alpha1.RecordedBinding) error {
	return forEach(bindings, func(b v1alpha1.RecordedBinding) error { return k.cut(ctx, b) })
}

// cut deletes a recorded binding. It leaves one that was put in its place.
func (k Keeper) cut(ctx context.Context, recorded v1alpha1.RecordedBinding) error {
	err := k.Client.Delete(ctx, emptyBinding(recorded), client.Preconditions{UID: &recorded.UID})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete binding %s/%s: %w", recorded.Namespace, recorded.Name, err)
	}
	return nil
}

// Unbind deletes bindings and makes sure that they are gone. It tries all of them, whatever fails.
func (k Keeper) Unbind(ctx context.Context, remains Remains) error {
	return forEach(remains.Bindings, func(b v1alpha1.RecordedBinding) error {
		if b.UID != "" && !remains.Cut {
			if err := k.cut(ctx, b); err != nil {
				return err
			}
		}
		return k.unbind(ctx, remains.Grant, b)
	})
}

// forEach does something for each binding, some at a time.
func forEach(bindings []v1alpha1.RecordedBinding, do func(v1alpha1.RecordedBinding) error) error {
	group := errgroup.Group{}
	group.SetLimit(concurrency)
	failures := make([]error, len(bindings))
	for i, b := range bindings {
		group.Go(func() error {
			failures[i] = do(b)
			return nil
		})
	}
	_ = group.Wait()
	return errors.Join(failures...)
}

// unbind makes sure that a binding is gone. One that was replaced under the same name is deleted too if it was made for
// the grant; a stranger's is left alone.
func (k Keeper) unbind(ctx context.Context, grant v1alpha1.RecordedGrant, recorded v1alpha1.RecordedBinding) error {
	binding := emptyBinding(recorded)
	err := k.Live.Get(ctx, client.ObjectKeyFromObject(binding), binding)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("get binding %s/%s: %w", recorded.Namespace, recorded.Name, err)
	}
	if binding.GetUID() != recorded.UID && binding.GetAnnotations()[v1alpha1.AnnotationGrantUID] != string(grant.UID) {
		return nil
	}
	return k.wrest(ctx, binding)
}

// wrest deletes a binding that a delete left there, because its UID was another or because something holds it: it takes
// the subjects out first, since a binding that is only being deleted still gives access.
func (k Keeper) wrest(ctx context.Context, binding client.Object) error {
	if !binding.GetDeletionTimestamp().IsZero() {
		binding.SetFinalizers(nil)
		setSubjects(binding, nil)
		if err := k.Client.Update(ctx, binding); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("empty binding %s/%s: %w", binding.GetNamespace(), binding.GetName(), err)
		}
		return nil
	}
	uid := binding.GetUID()
	if err := k.Client.Delete(ctx, binding, client.Preconditions{UID: &uid}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete binding %s/%s: %w", binding.GetNamespace(), binding.GetName(), err)
	}
	err := k.Live.Get(ctx, client.ObjectKeyFromObject(binding), binding)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("get binding %s/%s: %w", binding.GetNamespace(), binding.GetName(), err)
	}
	return fmt.Errorf("delete binding %s/%s: it is still there", binding.GetNamespace(), binding.GetName())
}

func emptyBinding(recorded v1alpha1.RecordedBinding) client.Object {
	if recorded.Namespace == "" {
		binding := &rbacv1.ClusterRoleBinding{}
		binding.Name = recorded.Name
		return binding
	}
	binding := &rbacv1.RoleBinding{}
	binding.Namespace, binding.Name = recorded.Namespace, recorded.Name
	return binding
}

func setSubjects(binding client.Object, subjects []rbacv1.Subject) {
	switch b := binding.(type) {
	case *rbacv1.RoleBinding:
		b.Subjects = subjects
	case *rbacv1.ClusterRoleBinding:
		b.Subjects = subjects
	}
}

// LiveBinding reads a recorded binding from the API server itself; nil if it is not there.
func (k Keeper) LiveBinding(ctx context.Context, recorded v1alpha1.RecordedBinding) (client.Object, error) {
	binding := emptyBinding(recorded)
	err := k.Live.Get(ctx, client.ObjectKeyFromObject(binding), binding)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get binding %s/%s: %w", recorded.Namespace, recorded.Name, err)
	}
	return binding, nil
}

// Probe is one request that an engineer could make while the grant was open.
type Probe struct {
	Namespace, Verb, Group, Resource string
}

// Leftover asks the API server whether any engineer may still make any of the probed requests, and returns its own
// reason for the first that it allows, empty if it allows none.
func (k Keeper) Leftover(ctx context.Context, people People, engineers []string, probes []Probe) (string, error) {
	remains := make([]string, len(engineers)*len(probes))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(concurrency)
	for i := range remains {
		group.Go(func() (err error) {
			remains[i], err = k.ask(groupCtx, people, engineers[i/len(probes)], probes[i%len(probes)])
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return "", err
	}
	if first := slices.IndexFunc(remains, func(reason string) bool { return reason != "" }); first >= 0 {
		return remains[first], nil
	}
	return "", nil
}

// ask asks the API server whether an engineer may still make a request, and returns why, empty if not.
func (k Keeper) ask(ctx context.Context, people People, engineer string, p Probe) (string, error) {
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User:   people.Username(engineer),
		Groups: people.groups(),
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: p.Namespace, Verb: p.Verb, Group: p.Group, Resource: p.Resource,
		},
	}}
	if err := k.Client.Create(ctx, review); err != nil {
		return "", fmt.Errorf("ask whether %q may still %s %s: %w", engineer, p.Verb, p.Resource, err)
	}
	if !review.Status.Allowed {
		return "", nil
	}
	return fmt.Sprintf("%s may still %s %s in %q: %s", engineer, p.Verb, p.Resource, p.Namespace, review.Status.Reason), nil
}
