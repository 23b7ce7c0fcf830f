package crash

import (
	"context"
	"fmt"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// indexGrant is the index by which the grant controller finds what was made for a grant.
const indexGrant = "grant"

// cached answers as the operator's cache would if it never lagged: it keeps to the labels that bound the cache, and it
// answers for the index by asking for the labels from which the index is made.
type cached struct {
	client.Client
}

// List lists what the cache would have.
func (c cached) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	options, err := asCached(list, opts)
	if err != nil {
		return err
	}
	return c.Client.List(ctx, list, options)
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
