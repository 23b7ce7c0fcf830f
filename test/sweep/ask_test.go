package sweep

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/world"
)

// atOnce bounds how many questions are under way.
const atOnce = 8

// Verbs: those of requests, and those that only authority asks for.
var (
	requests = []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "*"}
	asked    = []string{"bind", "escalate", "impersonate", "approve", "sign", "attest", "revoke", "use"}
)

// hidden are resources that discovery may not list and that authorizers know: doors into nodes and identities, and
// what only a wildcard gives.
var hidden = []string{
	"*.*", "*", "*/*",
	"nodes/proxy", "nodes/exec", "nodes/run", "nodes/log", "nodes/stats", "nodes/metrics", "nodes/spec", "nodes/pods", "nodes/healthz",
	"pods/exec", "pods/attach", "pods/portforward", "pods/proxy", "pods/ephemeralcontainers", "services/proxy", "serviceaccounts/token",
	"users", "groups", "userextras.authentication.k8s.io", "uids.authentication.k8s.io",
	"signers.certificates.k8s.io", "certificatesigningrequests.certificates.k8s.io/approval",
	"volumesnapshots.snapshot.storage.k8s.io", "secrets.metrics.k8s.io",
	"supportaccessrequests.supportaccess.dev", "supportaccesssettings.supportaccess.dev", "supportaccesssessions.supportaccess.dev",
}

// paths are doors beside the API's resources.
var paths = []string{
	"/", "/api", "/apis", "/openapi/v3", "/version", "/healthz", "/livez", "/readyz", "/metrics", "/metrics/slis", "/logs", "/logs/kube-apiserver.log",
	"/debug/pprof/profile", "/debug/flags/v", "/configz", "/statusz", "/flagz", "/.well-known/openid-configuration", "/openid/v1/jwks", "/*",
}

// resource is what requests are about, written name.group/subresource.
type resource struct{ group, name, sub string }

func parse(text string) resource {
	var r resource
	text, r.sub, _ = strings.Cut(text, "/")
	r.name, r.group, _ = strings.Cut(text, ".")
	return r
}

func (r resource) String() string {
	text := r.name
	if r.group != "" {
		text += "." + r.group
	}
	if r.sub != "" {
		text += "/" + r.sub
	}
	return text
}

// universe is everything that there is to ask for: what the API server says that it serves, what the ClusterRoles of the
// cluster name, and what is hidden.
func universe(t *testing.T, w *world.World) []resource {
	t.Helper()
	found := map[resource]bool{}
	for _, text := range hidden {
		found[parse(text)] = true
	}
	served(t, w, found)
	roles := &rbacv1.ClusterRoleList{}
	if err := w.Admin.List(t.Context(), roles); err != nil {
		t.Fatal(err)
	}
	for _, role := range roles.Items {
		for _, rule := range role.Rules {
			for _, group := range rule.APIGroups {
				for _, name := range rule.Resources {
					r := parse(name)
					r.group = group
					found[r] = true
				}
			}
		}
	}
	if len(found) < 150 {
		t.Fatalf("only %d resources are known: discovery told little", len(found))
	}
	return slices.SortedFunc(maps.Keys(found), func(a, b resource) int { return strings.Compare(a.String(), b.String()) })
}

// served adds what the API server says that it serves.
func served(t *testing.T, w *world.World, found map[resource]bool) {
	t.Helper()
	d, err := discovery.NewDiscoveryClientForConfig(w.ControlPlane.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	_, lists, err := d.ServerGroupsAndResources()
	if err != nil {
		t.Fatalf("ask what the API server serves: %v", err)
	}
	for _, list := range lists {
		group, _, isGrouped := strings.Cut(list.GroupVersion, "/")
		if !isGrouped {
			group = ""
		}
		for _, r := range list.APIResources {
			name, sub, _ := strings.Cut(r.Name, "/")
			found[resource{group: group, name: name, sub: sub}] = true
		}
	}
}

// identity is who somebody is to the API server.
type identity struct {
	user   string
	uid    string
	groups []string
	extra  map[string]authorizationv1.ExtraValue
}

// whoami asks the API server, with somebody's own credential, for whom it takes them.
func whoami(t *testing.T, config *rest.Config) identity {
	t.Helper()
	c := kubernetes.NewForConfigOrDie(config)
	review, err := c.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, createOptions)
	if err != nil {
		t.Fatalf("ask who the engineer is: %v", err)
	}
	user := review.Status.UserInfo
	who := identity{user: user.Username, uid: user.UID, groups: user.Groups, extra: map[string]authorizationv1.ExtraValue{}}
	for key, value := range user.Extra {
		who.extra[key] = authorizationv1.ExtraValue(value)
	}
	return who
}

// question is one request that somebody could make.
type question struct {
	namespace string
	verb      string
	resource  resource
	// path is asked for instead of a resource.
	path string
}

func (q question) String() string {
	where := "cluster-wide"
	if q.namespace != "" {
		where = "in " + q.namespace
	}
	if q.path != "" {
		return q.verb + " " + q.path
	}
	return q.verb + " " + q.resource.String() + " " + where
}

// questions are all that can be asked with these verbs in a namespace, "" for the whole cluster.
func questions(resources []resource, namespace string, verbs ...string) []question {
	var all []question
	for _, r := range resources {
		for _, verb := range verbs {
			all = append(all, question{namespace: namespace, verb: verb, resource: r})
		}
	}
	return all
}

// questionsElsewhere are those that are asked outside of a granted namespace: in another, about paths, and cluster-wide.
// What RBAC allows cluster-wide it allows in every namespace, so a short run leaves the last out, and authority's verbs.
func questionsElsewhere(resources []resource, namespace string) []question {
	all := questions(resources, namespace, requests...)
	if !testing.Short() {
		all = append(all, questions(resources, namespace, asked...)...)
		all = append(all, questions(resources, "", slices.Concat(requests, asked)...)...)
	}
	for _, path := range paths {
		for _, verb := range []string{"get", "post", "put", "patch", "delete"} {
			all = append(all, question{verb: verb, path: path})
		}
	}
	return all
}

// allowed asks the API server what somebody may do, and returns what it allows, in the order of the questions.
func allowed(t *testing.T, w *world.World, who identity, all []question) []question {
	t.Helper()
	config := w.ControlPlane.AdminConfig()
	// Tens of thousands of questions: the short form is the cheap one.
	config.ContentType = "application/vnd.kubernetes.protobuf"
	c := kubernetes.NewForConfigOrDie(config)
	yes := make([]bool, len(all))
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(atOnce)
	for i, q := range all {
		group.Go(func() (err error) {
			yes[i], err = ask(ctx, c, who, q)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	var those []question
	for i, q := range all {
		if yes[i] {
			those = append(those, q)
		}
	}
	return those
}

func ask(ctx context.Context, c kubernetes.Interface, who identity, q question) (bool, error) {
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: who.user, UID: who.uid, Groups: who.groups, Extra: who.extra,
	}}
	if q.path != "" {
		review.Spec.NonResourceAttributes = &authorizationv1.NonResourceAttributes{Path: q.path, Verb: q.verb}
	} else {
		review.Spec.ResourceAttributes = &authorizationv1.ResourceAttributes{
			Namespace: q.namespace, Verb: q.verb, Group: q.resource.group, Resource: q.resource.name, Subresource: q.resource.sub,
		}
	}
	answer, err := c.AuthorizationV1().SubjectAccessReviews().Create(ctx, review, createOptions)
	if err != nil {
		return false, fmt.Errorf("ask whether %s may %s: %w", who.user, q, err)
	}
	return answer.Status.Allowed, nil
}

// named returns the rules that hold for somebody in a namespace and only for objects by name: a question that names no
// object does not find them.
func named(t *testing.T, config *rest.Config, namespace string) []authorizationv1.ResourceRule {
	t.Helper()
	c := kubernetes.NewForConfigOrDie(config)
	review, err := c.AuthorizationV1().SelfSubjectRulesReviews().Create(t.Context(), &authorizationv1.SelfSubjectRulesReview{
		Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace},
	}, createOptions)
	if err != nil {
		t.Fatalf("ask for the engineer's rules in %s: %v", namespace, err)
	}
	if review.Status.Incomplete {
		t.Fatalf("the engineer's rules in %s are incomplete: %s", namespace, review.Status.EvaluationError)
	}
	return slices.DeleteFunc(review.Status.ResourceRules, func(r authorizationv1.ResourceRule) bool { return len(r.ResourceNames) == 0 })
}

func isActive(grant *v1alpha1.SupportAccessGrant) bool {
	return apimeta.IsStatusConditionTrue(grant.Status.Conditions, v1alpha1.ConditionActive)
}

// kubeconfigIn reads an issued kubeconfig.
func kubeconfigIn(t *testing.T, w *world.World, ref v1alpha1.SecretKeyReference) *rest.Config {
	t.Helper()
	secret := &corev1.Secret{}
	if err := w.Admin.Get(t.Context(), types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}, secret); err != nil {
		t.Fatalf("read the issued kubeconfig: %v", err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(secret.Data[ref.Key])
	if err != nil {
		t.Fatalf("read the issued kubeconfig: %v", err)
	}
	return config
}

// rulesOf are the rules of a ClusterRole as they are resolved in the cluster.
func rulesOf(t *testing.T, w *world.World, name string) []rbacv1.PolicyRule {
	t.Helper()
	role := &rbacv1.ClusterRole{}
	if err := w.Admin.Get(t.Context(), client.ObjectKey{Name: name}, role); err != nil {
		t.Fatal(err)
	}
	if len(role.Rules) == 0 {
		t.Fatalf("ClusterRole %s has no rules", name)
	}
	return role.Rules
}
