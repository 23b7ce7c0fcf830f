package privilege

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"

	"supportaccess.dev/operator/api/v1alpha1"
)

// request is one line of the audit log.
type request struct {
	Verb       string
	RequestURI string
	User       struct{ Username string }
	// ImpersonatedUser is set where somebody else acted in the user's name.
	ImpersonatedUser *struct{ Username string }
	ObjectRef        *struct {
		Resource, Subresource, APIGroup, Namespace, Name string
	}
	ResponseStatus struct {
		Code            int
		Message, Reason string
	}
	Annotations map[string]string
}

// asks is the right that a request takes.
func (r request) asks() right {
	resource := r.ObjectRef.Resource
	if r.ObjectRef.Subresource != "" {
		resource += "/" + r.ObjectRef.Subresource
	}
	return right{
		namespace: r.ObjectRef.Namespace, verb: r.Verb, group: r.ObjectRef.APIGroup, resource: resource, name: r.ObjectRef.Name,
	}
}

// isExpected says whether a refusal is one that the operator provokes or cannot avoid: its canary, and a namespace that is
// going while the operator closes what was open in it.
func (r request) isExpected() bool {
	canary := r.ObjectRef.Resource == "supportaccessgrants" && strings.Contains(r.RequestURI, "dryRun=All")
	return canary || strings.Contains(r.ResponseStatus.Message, "because it is being terminated")
}

// requestsOfController reads what the controller asked for.
func (r *run) requestsOfController(t *testing.T) []request {
	t.Helper()
	content, err := os.ReadFile(r.ControlPlane.AuditLogPath())
	if err != nil {
		t.Fatal(err)
	}
	var all []request
	for line := range bytes.Lines(content) {
		var one request
		if err := json.Unmarshal(line, &one); err != nil {
			t.Fatalf("read the audit log: %v: %s", err, line)
		}
		if one.User.Username == controllerUser && one.ImpersonatedUser == nil {
			all = append(all, one)
		}
	}
	if len(all) < 200 {
		t.Fatalf("the audit log has only %d requests of %s", len(all), controllerUser)
	}
	return all
}

func TestTheOperatorLacksNoRight(t *testing.T) {
	r := played(t)
	refused := 0
	for _, one := range r.requestsOfController(t) {
		if one.ResponseStatus.Code != http.StatusForbidden && one.ResponseStatus.Code != http.StatusUnauthorized {
			continue
		}
		if refused++; one.ObjectRef != nil && one.isExpected() {
			continue
		}
		t.Errorf("%s %s: %d %s (%s)", one.Verb, one.RequestURI, one.ResponseStatus.Code, one.ResponseStatus.Message, one.Annotations["authorization.k8s.io/reason"])
	}
	if refused == 0 {
		t.Error("not even the canary was refused: the audit log does not tell")
	}
}

func TestTheOperatorUsesEveryRight(t *testing.T) {
	r := played(t)
	asked := map[right]bool{}
	for _, one := range r.requestsOfController(t) {
		if one.ObjectRef != nil {
			asked[one.asks()] = true
		}
	}
	// To bind takes the verb bind, of which the audit log says nothing: the API server asks itself.
	if slices.ContainsFunc(slices.Collect(maps.Keys(asked)), bindsReader) {
		asked[right{namespace: v1alpha1.CredentialsNamespace, verb: "bind", group: rbacv1.GroupName, resource: "roles"}] = true
	}
	for _, bound := range r.rolesBound() {
		asked[right{verb: "bind", group: rbacv1.GroupName, resource: "clusterroles", name: bound}] = true
	}
	for _, given := range rightsOf(t, r.installation.Manifest) {
		used := false
		for one := range asked {
			used = used || given.covers(one)
		}
		if !used {
			t.Errorf("never used: %s", given)
		}
	}
}

func TestNoRightIsGivenTwice(t *testing.T) {
	rights := rightsOf(t, played(t).installation.Manifest)
	for i, given := range rights {
		if slices.ContainsFunc(slices.Delete(slices.Clone(rights), i, i+1), func(other right) bool { return other.covers(given) }) {
			t.Errorf("given by another rule too: %s", given)
		}
	}
}

// bindsReader says whether a request gives somebody a Role by which a credential is fetched.
func bindsReader(asked right) bool {
	return asked.verb == "create" && asked.resource == "rolebindings" && asked.namespace == v1alpha1.CredentialsNamespace
}

// rolesBound are the ClusterRoles that the operator has bound.
func (r *run) rolesBound() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for _, record := range r.records {
		for _, b := range record.Status.Bindings {
			names = append(names, b.Role)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
