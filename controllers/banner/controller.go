// Package banner shows in each namespace, as a ConfigMap that a product may display, that support access to it is open. It
// goes by the records alone, and nothing waits for it.
package banner

import (
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/internal/partial"
	"supportaccess.dev/operator/internal/records"
)

// Reconciler keeps the banner of one namespace.
type Reconciler struct {
	// Client reads from the cache and writes.
	Client client.Client
}

const workers = 2

// SetupWithManager registers the controller and what it watches. It goes by records.IndexPlaces.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	err := ctrl.NewControllerManagedBy(mgr).Named("banner").
		Watches(&v1alpha1.SupportAccessRecord{}, handler.EnqueueRequestsFromMapFunc(r.namespacesOf)).
		Watches(&corev1.ConfigMap{}, handler.EnqueueRequestsFromMapFunc(namespaceOf)).
		WatchesMetadata(partial.Object("Namespace"), handler.EnqueueRequestsFromMapFunc(itself), builder.WithPredicates(partial.NamespaceChanged())).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	return nil
}

// namespacesOf maps a record to the namespaces that its grant reaches.
func (r *Reconciler) namespacesOf(ctx context.Context, o client.Object) []reconcile.Request {
	record := o.(*v1alpha1.SupportAccessRecord)
	if !records.IsOfGrant(record) || !records.IsOwn(record) {
		return nil
	}
	var requests []reconcile.Request
	for _, place := range lifecycle.ScopeOf(record.Spec.Scope, record.Spec.Grant.Namespace) {
		if place != "" {
			requests = append(requests, request(place))
			continue
		}
		all := partial.List("Namespace")
		if err := r.Client.List(ctx, all); err != nil {
			continue
		}
		for i := range all.Items {
			requests = append(requests, request(all.Items[i].Name))
		}
	}
	return requests
}

func namespaceOf(_ context.Context, o client.Object) []reconcile.Request {
	return []reconcile.Request{request(o.GetNamespace())}
}

func itself(_ context.Context, o client.Object) []reconcile.Request {
	return []reconcile.Request{request(o.GetName())}
}

func request(namespace string) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Name: namespace}}
}

// Reconcile has a namespace's banner say what is open there, and takes it away where nothing is.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	namespace := request.Name
	if namespace == v1alpha1.SystemNamespace || namespace == v1alpha1.CredentialsNamespace {
		return reconcile.Result{}, nil
	}
	var reaching []v1alpha1.SupportAccessRecord
	for _, place := range []string{namespace, records.Everywhere} {
		found := &v1alpha1.SupportAccessRecordList{}
		if err := r.Client.List(ctx, found, client.MatchingFields{records.IndexPlaces: place}, client.UnsafeDisableDeepCopy); err != nil {
			return reconcile.Result{}, fmt.Errorf("list what reaches namespace %s: %w", namespace, err)
		}
		reaching = append(reaching, found.Items...)
	}
	if err := r.show(ctx, namespace, dataOf(namespace, reaching)); err != nil {
		return reconcile.Result{}, fmt.Errorf("show the banner of namespace %s: %w", namespace, err)
	}
	return reconcile.Result{}, nil
}

// show makes the ConfigMap say what is given, or takes it away where that is nothing.
func (r *Reconciler) show(ctx context.Context, namespace string, data map[string]string) error {
	shown := &corev1.ConfigMap{}
	err := r.Client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: v1alpha1.BannerConfigMap}, shown)
	switch {
	case apierrors.IsNotFound(err) && data == nil:
		return nil
	case apierrors.IsNotFound(err):
		return goneWithNamespace(r.Client.Create(ctx, bannerOf(namespace, data)))
	case err != nil:
		return err
	case data == nil:
		return client.IgnoreNotFound(r.Client.Delete(ctx, shown, client.Preconditions{UID: &shown.UID}))
	case maps.Equal(shown.Data, data) && len(shown.BinaryData) == 0:
		return nil
	}
	changed := shown.DeepCopy()
	changed.Data, changed.BinaryData = data, nil
	return client.IgnoreNotFound(r.Client.Update(ctx, changed))
}

// goneWithNamespace lets an error pass that says that the namespace is gone, or about to go.
func goneWithNamespace(err error) error {
	if apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	return err
}

func bannerOf(namespace string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: v1alpha1.BannerConfigMap, Labels: map[string]string{v1alpha1.LabelBanner: "true"},
		},
		Data: data,
	}
}
