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
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"

	"supportaccess.dev/operator/api/v1alpha1"
)

// right is the smallest thing that RBAC can give: one verb on one resource, anywhere or in a namespace, to all objects or
// to one.
type right struct {
	namespace, verb, group, resource, name string
}

func (r right) String() string {
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
	if (r.namespace != "" && r.namespace != asked.namespace) || (r.name != "" && r.name != asked.name) {
		return false
	}
	return r.verb == asked.verb && r.group == asked.group && r.resource == asked.resource
}

// documents are the objects of a manifest.
type documents struct {
	roles    map[string][]rbacv1.PolicyRule
	bindings []rbacv1.RoleBinding
}

// rightsOf returns what a rendered manifest gives to the controller's ServiceAccount.
func rightsOf(t *testing.T, manifest []byte) []right {
	t.Helper()
	d, err := read(manifest)
	if err != nil {
		t.Fatalf("read the chart's roles: %v", err)
	}
	var rights []right
	for _, b := range d.bindings {
		if !slices.ContainsFunc(b.Subjects, isController) {
			continue
		}
		where := b.Namespace
		if b.RoleRef.Kind == "ClusterRole" {
			where = ""
		}
		rules, ok := d.roles[b.RoleRef.Kind+" "+where+"/"+b.RoleRef.Name]
		if !ok {
			t.Errorf("the chart binds the controller to %s %s, which it does not have", b.RoleRef.Kind, b.RoleRef.Name)
		}
		for _, rule := range rules {
			rights = append(rights, rightsIn(t, b.Namespace, rule)...)
		}
	}
	if len(rights) < 30 {
		t.Fatalf("the chart gives the controller only %d rights", len(rights))
	}
	return rights
}

func isController(s rbacv1.Subject) bool {
	return s.Kind == rbacv1.ServiceAccountKind && s.Namespace == v1alpha1.SystemNamespace && s.Name == v1alpha1.ControllerServiceAccount
}

// rightsIn takes a rule apart.
func rightsIn(t *testing.T, namespace string, rule rbacv1.PolicyRule) []right {
	t.Helper()
	var rights []right
	names := rule.ResourceNames
	if len(names) == 0 {
		names = []string{""}
	}
	if len(rule.NonResourceURLs) > 0 {
		t.Errorf("the chart gives the controller paths: %s", rule.NonResourceURLs)
	}
	for _, group := range rule.APIGroups {
		for _, resource := range rule.Resources {
			for _, verb := range rule.Verbs {
				for _, name := range names {
					if strings.Contains(group+resource+verb+name, "*") || verb == "escalate" || strings.HasPrefix(verb, "impersonate") {
						t.Errorf("the chart gives the controller %s on %s.%s: too much", verb, resource, group)
					}
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
	case "RoleBinding", "ClusterRoleBinding":
		if err := yaml.Unmarshal(raw, &binding); err != nil {
			return fmt.Errorf("decode %s %s: %w", role.Kind, role.Name, err)
		}
		d.bindings = append(d.bindings, binding)
	}
	return nil
}
