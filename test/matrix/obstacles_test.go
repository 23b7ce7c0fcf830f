package matrix

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

const foreignFinalizer = "example.com/hold"

// obstructed is a cluster with a running operator, in which things are put in its way.
type obstructed struct {
	*world.World
	// anyhow writes what admission lets the controller alone write: what was there before the chart, or is a mutation's.
	anyhow    client.Client
	namespace string
}

func obstruct(t *testing.T) *obstructed {
	t.Helper()
	w := world.New(t)
	installation, err := chart(w)
	if err != nil {
		t.Fatal(err)
	}
	w.StartOperator(t, installation)
	config := w.ControlPlane.AdminConfig()
	config.Impersonate = rest.ImpersonationConfig{
		UserName: serviceUser + world.SystemNamespace + ":" + v1alpha1.ControllerServiceAccount,
		Groups:   []string{"system:authenticated", "system:masters"},
	}
	return &obstructed{World: w, anyhow: w.ClientFor(t, config)}
}

// in is the same cluster, in a tenant's namespace of its own.
func (o *obstructed) in(t *testing.T) *obstructed {
	t.Helper()
	return &obstructed{World: o.World, anyhow: o.anyhow, namespace: o.Namespace(t)}
}

func (o *obstructed) grants(t *testing.T) *v1alpha1.SupportAccessGrant {
	t.Helper()
	grant := gen.ToApply(grantName, o.namespace)
	if err := o.Admin.Create(t.Context(), grant); err != nil {
		t.Fatalf("make a grant: %v", err)
	}
	return grant
}

// until waits until the status of the grant is as it should be.
func (o *obstructed) until(t *testing.T, what string, grant *v1alpha1.SupportAccessGrant, is func() error) {
	t.Helper()
	world.Eventually(t, what, func() error {
		if err := o.Admin.Get(t.Context(), client.ObjectKeyFromObject(grant), grant); err != nil {
			return err
		}
		return is()
	})
}

// opens waits until the grant is open and returns its engineer, as the issued kubeconfig makes them known.
func (o *obstructed) opens(t *testing.T, grant *v1alpha1.SupportAccessGrant) client.Client {
	t.Helper()
	o.until(t, "the grant is open", grant, func() error {
		return hasCondition(grant, v1alpha1.ConditionActive, metav1.ConditionTrue, v1alpha1.StateActive)
	})
	ref, secret := grant.Status.Engineers[0].CredentialSecretRef, &corev1.Secret{}
	if err := o.Admin.Get(t.Context(), client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, secret); err != nil {
		t.Fatal(err)
	}
	engineer := o.known(t, secret)
	world.Eventually(t, "the engineer may read", func() error { return reads(t.Context(), engineer, o.namespace) })
	return engineer
}

// known is whoever a credential Secret makes known.
func (o *obstructed) known(t *testing.T, secret *corev1.Secret) client.Client {
	t.Helper()
	config, err := clientcmd.RESTConfigFromKubeConfig(secret.Data["kubeconfig"])
	if err != nil {
		t.Fatalf("read the issued kubeconfig: %v", err)
	}
	return o.ClientFor(t, config)
}

// reads asks for a ConfigMap that is not there: whoever may read it is told so.
func reads(ctx context.Context, who client.Client, namespace string) error {
	err := who.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "nothing"}, &corev1.ConfigMap{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("read a ConfigMap: %w", err)
}

// isShutOut waits until an engineer is refused.
func (o *obstructed) isShutOut(t *testing.T, engineer client.Client) {
	t.Helper()
	world.Eventually(t, "the engineer is refused", func() error {
		err := reads(t.Context(), engineer, o.namespace)
		if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
			return nil
		}
		return fmt.Errorf("the API server says %v", err)
	})
}

func hasCondition(grant *v1alpha1.SupportAccessGrant, kind string, status metav1.ConditionStatus, reason string, parts ...string) error {
	c := apimeta.FindStatusCondition(grant.Status.Conditions, kind)
	if c == nil || c.Status != status || c.Reason != reason {
		return fmt.Errorf("the conditions are %+v", grant.Status.Conditions)
	}
	for _, part := range parts {
		if !strings.Contains(c.Message, part) {
			return fmt.Errorf("%s does not say %q: %q", kind, part, c.Message)
		}
	}
	return nil
}

// bindings are those of the grant in the tenant's namespace.
func (o *obstructed) bindings(t *testing.T) []rbacv1.RoleBinding {
	t.Helper()
	list := &rbacv1.RoleBindingList{}
	if err := o.Admin.List(t.Context(), list, client.InNamespace(o.namespace), client.HasLabels{v1alpha1.LabelGrant}); err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// credentials are those of the grant.
func (o *obstructed) credentials(t *testing.T) []corev1.Secret {
	t.Helper()
	list := &corev1.SecretList{}
	mine := client.MatchingLabels{v1alpha1.LabelGrantNamespace: o.namespace}
	if err := o.Admin.List(t.Context(), list, client.InNamespace(world.CredentialsNamespace), mine); err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// forbids has a quota allow so many objects of a kind, and returns it once it counts.
func (o *obstructed) forbids(t *testing.T, namespace string, what corev1.ResourceName, allowed string) *corev1.ResourceQuota {
	t.Helper()
	quota := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: o.Name("narrow")},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{what: resource.MustParse(allowed)}},
	}
	if err := o.anyhow.Create(t.Context(), quota); err != nil {
		t.Fatalf("make a quota: %v", err)
	}
	t.Cleanup(func() { _ = client.IgnoreNotFound(o.anyhow.Delete(context.WithoutCancel(t.Context()), quota)) })
	world.Eventually(t, "the quota counts", func() error {
		if err := o.Admin.Get(t.Context(), client.ObjectKeyFromObject(quota), quota); err != nil {
			return err
		}
		if _, counts := quota.Status.Hard[what]; !counts {
			return fmt.Errorf("its status is %+v", quota.Status)
		}
		return nil
	})
	return quota
}

func TestWhatAQuotaForbidsIsNamedAndOpensOnceTheQuotaIsGone(t *testing.T) {
	everywhere := obstruct(t)
	const bindings = "count/rolebindings.rbac.authorization.k8s.io"
	for what, limit := range map[string]struct {
		resource, allowed string
		// beside says that it is in the way of what lies beside the credentials.
		beside bool
	}{
		"no RoleBinding":                        {resource: bindings, allowed: "0"},
		"one RoleBinding of two":                {resource: bindings, allowed: "1"},
		"no Secret beside the credentials":      {resource: "count/secrets", allowed: "0", beside: true},
		"no ServiceAccount beside the identity": {resource: "count/serviceaccounts", allowed: "0", beside: true},
	} {
		t.Run(what, func(t *testing.T) {
			o := everywhere.in(t)
			namespace := o.namespace
			if limit.beside {
				namespace = world.CredentialsNamespace
			}
			quota := o.forbids(t, namespace, corev1.ResourceName(limit.resource), limit.allowed)
			grant := o.grants(t)
			o.until(t, "the status names the quota", grant, func() error {
				return hasCondition(grant, v1alpha1.ConditionProvisioned, metav1.ConditionFalse, v1alpha1.ReasonError, quota.Name, " "+namespace+"/", limit.resource)
			})
			if err := hasCondition(grant, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.StateFailed, quota.Name); err != nil {
				t.Error(err)
			}
			o.until(t, "nothing is half open", grant, func() error {
				if left := o.bindings(t); len(left) > 0 {
					return fmt.Errorf("there are bindings: %v", left)
				}
				return hasCondition(grant, v1alpha1.ConditionActive, metav1.ConditionFalse, v1alpha1.ReasonNoAccess)
			})
			for _, secret := range o.credentials(t) {
				if len(secret.Data) > 0 {
					o.isShutOut(t, o.known(t, &secret))
				}
			}
			if err := o.anyhow.Delete(t.Context(), quota); err != nil {
				t.Fatal(err)
			}
			o.opens(t, grant)
		})
	}
}

// holds puts a finalizer of somebody else's on an object, until the test ends.
func (o *obstructed) holds(t *testing.T, object client.Object) {
	t.Helper()
	if err := o.Admin.Get(t.Context(), client.ObjectKeyFromObject(object), object); err != nil {
		t.Fatal(err)
	}
	before := object.DeepCopyObject().(client.Object)
	object.SetFinalizers(append(object.GetFinalizers(), foreignFinalizer))
	if err := o.anyhow.Patch(t.Context(), object, client.MergeFrom(before)); err != nil {
		t.Fatalf("hold %T %s: %v", object, object.GetName(), err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		err := o.anyhow.Patch(ctx, object, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`)))
		if client.IgnoreNotFound(err) != nil {
			t.Errorf("let go of %T %s: %v", object, object.GetName(), err)
		}
	})
}

func TestAForeignFinalizerKeepsNobodysAccess(t *testing.T) {
	everywhere := obstruct(t)
	beside := func(o *obstructed, t *testing.T) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: world.CredentialsNamespace, Name: o.credentials(t)[0].Name}
	}
	for what, held := range map[string]struct {
		object func(*obstructed, *testing.T) client.Object
		// stays says that the object stays, deleted and of no use, for as long as it is held.
		stays bool
	}{
		"a binding": {object: func(o *obstructed, t *testing.T) client.Object { return &o.bindings(t)[0] }},
		"the way to fetch the credential": {stays: true, object: func(o *obstructed, t *testing.T) client.Object {
			return &rbacv1.RoleBinding{ObjectMeta: beside(o, t)}
		}},
		"the credential": {stays: true, object: func(o *obstructed, t *testing.T) client.Object {
			return &corev1.Secret{ObjectMeta: beside(o, t)}
		}},
		"the identity": {stays: true, object: func(o *obstructed, t *testing.T) client.Object {
			return &corev1.ServiceAccount{ObjectMeta: beside(o, t)}
		}},
		"the grant": {stays: true, object: func(o *obstructed, _ *testing.T) client.Object {
			return &v1alpha1.SupportAccessGrant{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: grantName}}
		}},
	} {
		t.Run(what, func(t *testing.T) {
			o := everywhere.in(t)
			grant := o.grants(t)
			engineer := o.opens(t, grant)
			object := held.object(o, t)
			o.holds(t, object)
			if err := o.Admin.Delete(t.Context(), grant); err != nil {
				t.Fatal(err)
			}
			o.isShutOut(t, engineer)
			o.hasEnded(t, grant)
			if left := o.bindings(t); len(left) > 0 {
				t.Errorf("there are bindings: %v", left)
			}
			err := o.Admin.Get(t.Context(), client.ObjectKeyFromObject(object), object)
			if held.stays != (err == nil) || err == nil && object.GetDeletionTimestamp() == nil {
				t.Errorf("%T: %v, deleted at %v, held by %v", object, err, object.GetDeletionTimestamp(), object.GetFinalizers())
			}
			if err == nil && !slices.Equal(object.GetFinalizers(), []string{foreignFinalizer}) {
				t.Errorf("%T is held by %v", object, object.GetFinalizers())
			}
		})
	}
}

// hasEnded waits until the grant is released and its record says that it ended and that nobody has access.
func (o *obstructed) hasEnded(t *testing.T, grant *v1alpha1.SupportAccessGrant) {
	t.Helper()
	world.Eventually(t, "the grant is over", func() error {
		record, key := &v1alpha1.SupportAccessRecord{}, client.ObjectKeyFromObject(grant)
		if err := o.Admin.Get(t.Context(), key, record); err != nil {
			return err
		}
		if record.Status.EndReason != v1alpha1.EndDeleted || record.Status.VerifiedTime == nil {
			return fmt.Errorf("its end is %q, verified at %v", record.Status.EndReason, record.Status.VerifiedTime)
		}
		err := o.Admin.Get(t.Context(), key, grant)
		if err == nil && slices.Contains(grant.Finalizers, v1alpha1.FinalizerGrant) {
			return fmt.Errorf("the grant is held by %v", grant.Finalizers)
		}
		return client.IgnoreNotFound(err)
	})
}
