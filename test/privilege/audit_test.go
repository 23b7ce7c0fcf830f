package privilege

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"supportaccess.dev/operator/api/v1alpha1"
)

// request is one line of the audit log.
type request struct {
	Verb       string
	RequestURI string
	User       struct{ Username string }
	// ImpersonatedUser is set where somebody else acted in the user's name.
	ImpersonatedUser *struct {
		Username string
		Groups   []string
		Extra    map[string][]string
	}
	// AuthenticationMetadata says which verb of impersonation let it through.
	AuthenticationMetadata *struct{ ImpersonationConstraint string }
	ObjectRef              *struct {
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

// requestsOf reads what one of the chart's ServiceAccounts asked for, in whoever's name. What others did in its name is
// not among it.
func (r *run) requestsOf(t *testing.T, user string) []request {
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
		if one.User.Username == user {
			all = append(all, one)
		}
	}
	if len(all) < 200 {
		t.Fatalf("the audit log has only %d requests of %s", len(all), user)
	}
	return all
}

func (r request) isRefused() bool {
	return r.ResponseStatus.Code == http.StatusForbidden || r.ResponseStatus.Code == http.StatusUnauthorized
}

func (r request) String() string {
	return fmt.Sprintf("%s %s: %d %s (%s)", r.Verb, r.RequestURI, r.ResponseStatus.Code, r.ResponseStatus.Message, r.Annotations["authorization.k8s.io/reason"])
}

func TestTheOperatorLacksNoRight(t *testing.T) {
	r := played(t)
	refused := 0
	for _, one := range r.requestsOf(t, controllerUser) {
		if !one.isRefused() {
			continue
		}
		if refused++; one.ObjectRef != nil && one.isExpected() {
			continue
		}
		t.Error(one)
	}
	if refused == 0 {
		t.Error("not even the canary was refused: the audit log does not tell")
	}
}

func TestTheGatewayLacksNoRight(t *testing.T) {
	r := played(t)
	for _, one := range r.requestsOf(t, gatewayUser) {
		if one.isRefused() && !one.isTooEarly() {
			t.Error(one)
		}
	}
}

// isTooEarly says whether a refusal is one by which the gateway finds out that the API server has not yet heard as whom it
// may act: it asks for nothing else before.
func (r request) isTooEarly() bool {
	return r.ObjectRef != nil && r.ObjectRef.Resource == "selfsubjectreviews" && strings.Contains(r.ResponseStatus.Message, asUser)
}

func TestTheOperatorUsesEveryRight(t *testing.T) {
	r := played(t)
	asked := map[right]bool{}
	for _, one := range r.requestsOf(t, controllerUser) {
		if one.ObjectRef != nil {
			asked[one.asks()] = true
		}
		if one.ImpersonatedUser != nil {
			t.Errorf("the controller acts as %s: %s", one.ImpersonatedUser.Username, one)
		}
	}
	// To bind takes the verb bind, of which the audit log says nothing: the API server asks itself. So it is with what the
	// lists of users hand out.
	if slices.ContainsFunc(slices.Collect(maps.Keys(asked)), bindsReader) {
		asked[right{namespace: v1alpha1.CredentialsNamespace, verb: "bind", group: rbacv1.GroupName, resource: "roles"}] = true
	}
	if slices.ContainsFunc(slices.Collect(maps.Keys(asked)), listsUsers) {
		asked[right{verb: asUser, group: authenticationv1.GroupName, resource: "users"}] = true
	}
	for _, bound := range r.rolesBound() {
		asked[right{verb: "bind", group: rbacv1.GroupName, resource: "clusterroles", name: bound}] = true
	}
	usesAll(t, rightsOf(t, r.installation.Manifest, controllerUser), asked)
}

func TestTheGatewayUsesEveryRight(t *testing.T) {
	r := played(t)
	asked, asSomebody := map[right]bool{}, 0
	for _, one := range r.requestsOf(t, gatewayUser) {
		switch {
		case one.ImpersonatedUser != nil:
			asSomebody++
			for _, right := range one.asksAsSomebody(t) {
				asked[right] = true
			}
		case one.ObjectRef != nil && !one.isRefused():
			asked[one.asks()] = true
		}
	}
	if asSomebody < 100 {
		t.Errorf("the gateway acted only %d times as an engineer", asSomebody)
	}
	usesAll(t, rightsOf(t, r.installation.Manifest, gatewayUser), asked)
}

// asksAsSomebody are the rights that a request in an engineer's name takes.
func (r request) asksAsSomebody(t *testing.T) []right {
	t.Helper()
	who := r.ImpersonatedUser
	if !strings.HasPrefix(who.Username, v1alpha1.IdentityPrefix) || r.AuthenticationMetadata == nil || r.AuthenticationMetadata.ImpersonationConstraint != asUser {
		t.Errorf("the gateway acts as %s under %+v: %s", who.Username, r.AuthenticationMetadata, r)
	}
	rights := []right{{verb: asUser, group: authenticationv1.GroupName, resource: "users", name: who.Username}}
	for _, group := range who.Groups {
		rights = append(rights, right{verb: asUser, group: authenticationv1.GroupName, resource: "groups", name: group})
	}
	for key := range who.Extra {
		rights = append(rights, right{verb: asUser, group: authenticationv1.GroupName, resource: "userextras/" + key})
	}
	if r.ObjectRef == nil {
		path, _, _ := strings.Cut(r.RequestURI, "?")
		return append(rights, right{verb: onBehalf + r.Verb, url: path})
	}
	done := r.asks()
	done.verb = onBehalf + done.verb
	return append(rights, done)
}

func usesAll(t *testing.T, rights []right, asked map[right]bool) {
	t.Helper()
	for _, given := range rights {
		used := false
		for one := range asked {
			used = used || given.covers(one)
		}
		if !used {
			t.Errorf("never used: %s", given)
		}
	}
}

// withoutBanners is what the controller needs in its own namespace where it shows no banners.
func withoutBanners(given right) bool {
	return given.verb == "create" && given.resource == "configmaps" && given.namespace == v1alpha1.SystemNamespace
}

func TestNoRightIsGivenTwice(t *testing.T) {
	for _, user := range []string{controllerUser, gatewayUser} {
		rights := rightsOf(t, played(t).installation.Manifest, user)
		for i, given := range rights {
			if !withoutBanners(given) && slices.ContainsFunc(slices.Delete(slices.Clone(rights), i, i+1), func(other right) bool { return other.covers(given) }) {
				t.Errorf("given to %s by another rule too: %s", user, given)
			}
		}
	}
}

// listsUsers says whether a request hands out as whom the gateway may act.
func listsUsers(asked right) bool {
	return asked.resource == "clusterroles" && strings.HasPrefix(asked.name, usersPrefix)
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
