package crash

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// fakeAPI is an API server in memory, for as many courses of events as a real one has no time for. It has UIDs, versions,
// preconditions, finalizers, creation times, tokens, and an authorizer that knows bindings. What it has not: admission
// and the rules of CRDs, RBAC of the operator itself, garbage collection, and the deletion of namespaces.
type fakeAPI struct {
	now  func() time.Time
	made int
}

// newFakeAPI returns a client for everybody.
func newFakeAPI(now func() time.Time) client.WithWatch {
	api := &fakeAPI{now: now}
	inner := fake.NewClientBuilder().WithScheme(world.Scheme()).
		WithStatusSubresource(&v1alpha1.SupportAccessGrant{}, &v1alpha1.SupportAccessDecision{}).Build()
	return interceptor.NewClient(inner, interceptor.Funcs{
		Create: api.create,
		Delete: api.delete,
		SubResourceCreate: func(_ context.Context, _ client.Client, _ string, _, body client.Object, _ ...client.SubResourceCreateOption) error {
			return api.token(body)
		},
	})
}

// create does what the API server and admission do when something is made.
func (a *fakeAPI) create(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
	if review, ok := o.(*authorizationv1.SubjectAccessReview); ok {
		return authorize(ctx, c, review)
	}
	a.made++
	o.SetUID(types.UID(fmt.Sprintf("uid-%d", a.made)))
	o.SetCreationTimestamp(metav1.NewTime(a.now().Truncate(time.Second)))
	o.SetGeneration(1)
	switch made := o.(type) {
	case *v1alpha1.SupportAccessGrant:
		made.Spec.GrantedBy = gen.Admin
		if len(made.Spec.Roles) == 0 {
			made.Spec.Roles = []string{gen.Configuration, gen.Diagnostics}
		}
	case *v1alpha1.SupportAccessDecision:
		made.Spec.DecidedBy, made.Spec.Authority = gen.Admin, v1alpha1.AuthorityCluster
		made.Finalizers = []string{v1alpha1.FinalizerDecision}
	}
	return c.Create(ctx, o, opts...)
}

// delete knows UIDs as a precondition, which the client in memory does not.
func (a *fakeAPI) delete(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
	options := (&client.DeleteOptions{}).ApplyOptions(opts)
	if options.Preconditions == nil || options.Preconditions.UID == nil {
		return c.Delete(ctx, o, opts...)
	}
	present := o.DeepCopyObject().(client.Object)
	if err := c.Get(ctx, client.ObjectKeyFromObject(o), present); err != nil {
		return err
	}
	if present.GetUID() != *options.Preconditions.UID {
		return apierrors.NewConflict(schema.GroupResource{Resource: kindOf(o, c.Scheme())}, o.GetName(), fmt.Errorf("the UID is another"))
	}
	return c.Delete(ctx, o)
}

func (a *fakeAPI) token(body client.Object) error {
	request := body.(*authenticationv1.TokenRequest)
	a.made++
	request.Status.Token = fmt.Sprintf("token-%d", a.made)
	lifetime := min(time.Duration(*request.Spec.ExpirationSeconds)*time.Second, tokenCap)
	request.Status.ExpirationTimestamp = metav1.NewTime(a.now().Add(lifetime).Truncate(time.Second))
	return nil
}

// authorize allows whatever a binding in the namespace, or of the cluster, may give.
func authorize(ctx context.Context, c client.Client, review *authorizationv1.SubjectAccessReview) error {
	bindings, clusterBindings := &rbacv1.RoleBindingList{}, &rbacv1.ClusterRoleBindingList{}
	if err := c.List(ctx, bindings, client.InNamespace(review.Spec.ResourceAttributes.Namespace)); err != nil {
		return err
	}
	if err := c.List(ctx, clusterBindings); err != nil {
		return err
	}
	for _, b := range slices.Concat(itemsOf(bindings), itemsOf(clusterBindings)) {
		for _, subject := range access.Subjects(b) {
			if review.Spec.User == subject.Name || strings.HasSuffix(review.Spec.User, ":"+subject.Name) {
				review.Status.Allowed = true
				review.Status.Reason = "binding " + b.GetName()
			}
		}
	}
	return nil
}
