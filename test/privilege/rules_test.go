package privilege

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"

	"supportaccess.dev/operator/api/v1alpha1"
)

// right is the smallest thing that RBAC can give: one verb on one resource, anywhere or in a namespace, to all objects or
// to one; or on one path beside the resources.
type right struct {
	namespace, verb, group, resource, name, url string
}

const (
	// asUser is the verb of acting as somebody.
	asUser = "impersonate:user-info"
	// onBehalf begins the verbs of what may be done as somebody.
	onBehalf = "impersonate-on:user-info:"
)

func (r right) String() string {
	if r.url != "" {
		return r.verb + " " + r.url
	}
	where := "cluster-wide"
	if r.namespace != "" {
		where = "in " + r.namespace
	}
	what := r.resource
	if r.group != "" {
		what += "." + r.group
	}
	if r.name != "" {
		what += " " + r.name
	}
	return r.verb + " " + what + " " + where
}

// covers says whether a right allows what another asks for.
func (r right) covers(asked right) bool {
	if prefix, ok := strings.CutSuffix(r.url, "*"); ok {
		return r.verb == asked.verb && asked.url != r.url && strings.HasPrefix(asked.url, prefix)
	}
	if (r.namespace != "" && r.namespace != asked.namespace) || (r.name != "" && r.name != asked.name) {
		return false
	}
	return r.verb == asked.verb && r.group == asked.group && r.resource == asked.resource && r.url == asked.url
}

// path is how the API server is asked for it, of an object that is not there.
func (r right) path(namespace string) string {
	if r.url != "" {
		return strings.Replace(r.url, "*", "v1", 1)
	}
	path := "/api/v1"
	if r.group != "" {
		path = "/apis/" + r.group + "/v1"
	}
	if !strings.HasPrefix(r.resource, "selfsubject") {
		path += "/namespaces/" + namespace
	}
	resource, subresource, isPart := strings.Cut(r.resource, "/")
	path += "/" + resource
	if isPart {
		return path + "/none/" + subresource + "?command=true"
	}
	switch r.verb {
	case "list", "create":
		return path
	case "watch":
		return path + "?watch=true&timeoutSeconds=5"
	default:
		return path + "/none"
	}
}

// documents are the objects of a manifest.
type documents struct {
	roles        map[string][]rbacv1.PolicyRule
	bindings     []rbacv1.RoleBinding
	clusterRoles []rbacv1.ClusterRole
}

// rightsOf returns what a rendered manifest gives to one of its ServiceAccounts, beside the lists that the controller keeps.
func rightsOf(t *testing.T, manifest []byte, user string) []right {
	t.Helper()
	d, err := read(manifest)
	if err != nil {
		t.Fatalf("read the chart's roles: %v", err)
	}
	var rights []right
	for _, b := range d.bindings {
		if !slices.ContainsFunc(b.Subjects, is(user)) || strings.HasPrefix(b.RoleRef.Name, usersPrefix) {
			continue
		}
		where := b.Namespace
		if b.RoleRef.Kind == "ClusterRole" {
			where = ""
		}
		rules, ok := d.roles[b.RoleRef.Kind+" "+where+"/"+b.RoleRef.Name]
		if !ok {
			t.Errorf("the chart binds %s to %s %s, which it does not have", user, b.RoleRef.Kind, b.RoleRef.Name)
		}
		for _, rule := range rules {
			rights = append(rights, rightsIn(t, b.Namespace, rule)...)
		}
	}
	for _, given := range rights {
		if given.isTooMuch(user) {
			t.Errorf("the chart gives %s %s: too much", user, given)
		}
	}
	if len(rights) < 30 {
		t.Fatalf("the chart gives %s only %d rights", user, len(rights))
	}
	return rights
}

func is(user string) func(rbacv1.Subject) bool {
	return func(s rbacv1.Subject) bool {
		return s.Kind == rbacv1.ServiceAccountKind && "system:serviceaccount:"+s.Namespace+":"+s.Name == user
	}
}

// isTooMuch says whether nobody may hold a right. The controller may hand out that the gateway acts as somebody, but it may
// do nothing as anybody; the gateway may act as nobody whom the chart could name.
func (r right) isTooMuch(user string) bool {
	ofUsers := r.verb == asUser && r.resource == "users"
	acts := strings.HasPrefix(r.verb, "impersonate")
	switch {
	case strings.Contains(r.group+r.resource+r.verb+r.name, "*") || r.verb == "escalate" || r.url == "*" || r.url == "/*":
		return true
	case user == controllerUser:
		return r.url != "" || acts && !ofUsers
	default:
		return ofUsers && r.name != v1alpha1.ProbeUser || acts && r.verb != asUser && !strings.HasPrefix(r.verb, onBehalf)
	}
}

// rightsIn takes a rule apart.
func rightsIn(t *testing.T, namespace string, rule rbacv1.PolicyRule) []right {
	t.Helper()
	var rights []right
	names := rule.ResourceNames
	if len(names) == 0 {
		names = []string{""}
	}
	for _, url := range rule.NonResourceURLs {
		for _, verb := range rule.Verbs {
			rights = append(rights, right{verb: verb, url: url})
		}
	}
	for _, group := range rule.APIGroups {
		for _, resource := range rule.Resources {
			for _, verb := range rule.Verbs {
				for _, name := range names {
					rights = append(rights, right{namespace: namespace, verb: verb, group: group, resource: resource, name: name})
				}
			}
		}
	}
	return rights
}

// read finds roles and bindings in a manifest.
func read(manifest []byte) (documents, error) {
	d := documents{roles: map[string][]rbacv1.PolicyRule{}}
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096)
	for {
		content := runtime.RawExtension{}
		if err := decoder.Decode(&content); errors.Is(err, io.EOF) {
			d.aggregate()
			return d, nil
		} else if err != nil {
			return d, fmt.Errorf("decode the manifest: %w", err)
		}
		if err := d.add(content.Raw); err != nil {
			return d, err
		}
	}
}

func (d *documents) add(raw []byte) error {
	// Roles and bindings of both kinds differ only in their kind and namespace.
	role, binding := rbacv1.Role{}, rbacv1.RoleBinding{}
	if len(raw) == 0 || !bytes.Contains(raw, []byte(rbacv1.GroupName)) {
		return nil
	}
	if err := yaml.Unmarshal(raw, &role); err != nil {
		return nil //nolint:nilerr // It is of another kind, with a field of the same name.
	}
	switch role.Kind {
	case "Role", "ClusterRole":
		d.roles[role.Kind+" "+role.Namespace+"/"+role.Name] = role.Rules
		whole := rbacv1.ClusterRole{}
		if err := yaml.Unmarshal(raw, &whole); err != nil {
			return fmt.Errorf("decode %s %s: %w", role.Kind, role.Name, err)
		}
		d.clusterRoles = append(d.clusterRoles, whole)
	case "RoleBinding", "ClusterRoleBinding":
		if err := yaml.Unmarshal(raw, &binding); err != nil {
			return fmt.Errorf("decode %s %s: %w", role.Kind, role.Name, err)
		}
		d.bindings = append(d.bindings, binding)
	}
	return nil
}

// aggregate gives roles the rules of those that they gather, as the API server's controller does.
func (d *documents) aggregate() {
	for _, role := range d.clusterRoles {
		if role.AggregationRule == nil {
			continue
		}
		for _, selector := range role.AggregationRule.ClusterRoleSelectors {
			wanted := labels.SelectorFromSet(selector.MatchLabels)
			for _, other := range d.clusterRoles {
				if wanted.Matches(labels.Set(other.Labels)) {
					d.roles["ClusterRole /"+role.Name] = append(d.roles["ClusterRole /"+role.Name], other.Rules...)
				}
			}
		}
	}
}
