package admission

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/hack/controlplane"
)

// The namespaces of the world, and by which policy each lives.
const (
	mail      = "mail"      // default
	shop      = "shop"      // default
	named     = "named"     // strict
	lost      = "lost"      // a label that names no policy
	wide      = "wide"      // wide
	frozen    = "frozen"    // frozen
	pipelines = "pipelines" // default; where the pipeline's ServiceAccount lives
)

// The roles that the policies offer.
const (
	configuration = "support-access-configuration"
	diagnostics   = "support-access-diagnostics"
	content       = "support-access-content"
	operate       = "support-access-operate"
)

// User names that are not plain.
const (
	controllerName = "system:serviceaccount:support-access-system:support-access-controller"
	gatewayName    = "system:serviceaccount:support-access-system:support-access-gateway"
	engineerName   = "system:serviceaccount:support-access-credentials:engineer"
	fluxName       = "system:serviceaccount:pipelines:flux"
	visitorName    = "supportaccess.dev:mail:case-1:ana@vendor.example"
)

var groupsOf = map[string][]string{visitorName: {"supportaccess.dev:engineers"}}

const (
	waitTimeout  = time.Minute
	pollInterval = 50 * time.Millisecond
)

// world is a cluster with our kinds, our admission objects, and people.
type world struct {
	cp      *controlplane.ControlPlane
	scheme  *runtime.Scheme
	shipped []client.Object

	// root may do everything that RBAC can give: what root is refused, admission refused.
	root *person
	// controller is the operator's ServiceAccount, with every right: what it is refused, admission refused.
	controller *person
	// gateway is the gateway's ServiceAccount, with every right, as in the pod gatewayPod.
	gateway *person
	// engineer and visitor are identities of support access, Direct and Gateway, with every right.
	engineer, visitor *person
	// ana may grant the plain roles in mail, and revoke there.
	ana *person
	// bob may make grants and decisions in mail, but holds no bind and no verb.
	bob *person
	// cara may grant any role anywhere, approve and revoke.
	cara *person
	// pat may write policies, and bind every role but operate in the whole cluster.
	pat *person
	// dan may revoke the grant named dans in mail, and eve may approve in mail.
	dan, eve *person
	// flux is a pipeline's ServiceAccount with ana's rights, in mail and in namespaces of other policies.
	flux *person

	heard                     heard
	floor                     []time.Duration
	canaryAfter, inForceAfter time.Duration
}

// person is a client that knows who uses it.
type person struct {
	client.Client
	name   string
	config *rest.Config
}

func (w *world) person(name string, config *rest.Config, warnings rest.WarningHandler) (*person, error) {
	config = rest.CopyConfig(config)
	config.WarningHandler = warnings
	options := client.Options{Scheme: w.scheme}
	if w.root != nil {
		options.Mapper = w.root.RESTMapper()
	}
	c, err := client.New(config, options)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	return &person{Client: c, name: name, config: config}, nil
}

// as is root in the guise of another user, of whom the control plane has no certificate.
func (w *world) as(t *testing.T, user string, groups ...string) *person {
	t.Helper()
	config := rest.CopyConfig(w.root.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: append(groups, "system:masters")}
	p, err := w.person(user, config, rest.NoWarnings{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// gatewayPod is the pod to which the gateway's token is bound.
const gatewayPod = "support-access-gateway-1"

// inPod is root in the guise of the gateway's ServiceAccount, with a token bound to that pod; empty for one that is bound to none.
func (w *world) inPod(pod string) (*person, error) {
	config := rest.CopyConfig(w.root.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: gatewayName, Groups: []string{"system:masters"}}
	if pod != "" {
		config.Impersonate.Extra = map[string][]string{"authentication.kubernetes.io/pod-name": {pod}}
	}
	return w.person(gatewayName, config, rest.NoWarnings{})
}

// meetPeople makes the clients. The engineer's token is made before admission forbids it to everybody.
func (w *world) meetPeople(ctx context.Context) error {
	users := map[string]**person{"ana": &w.ana, "bob": &w.bob, "cara": &w.cara, "dan": &w.dan, "eve": &w.eve, "pat": &w.pat, visitorName: &w.visitor}
	for name, p := range users {
		made, err := w.person(name, w.cp.UserConfig(name, groupsOf[name]...), rest.NoWarnings{})
		if err != nil {
			return err
		}
		*p = made
	}
	var err error
	if w.gateway, err = w.inPod(gatewayPod); err != nil {
		return err
	}
	accounts := map[string]**person{controllerName: &w.controller, engineerName: &w.engineer, fluxName: &w.flux}
	for name, p := range accounts {
		account := strings.Split(name, ":")
		config, err := w.cp.ServiceAccountConfig(ctx, account[2], account[3])
		if err != nil {
			return err
		}
		if *p, err = w.person(name, config, rest.NoWarnings{}); err != nil {
			return err
		}
	}
	return nil
}

// applyFixture makes namespaces, policies, roles and who holds them.
func (w *world) applyFixture(ctx context.Context) error {
	var objects []client.Object
	for _, namespace := range w.namespaces() {
		objects = append(objects, namespace)
	}
	for account, namespace := range map[string]string{
		v1alpha1.ControllerServiceAccount: v1alpha1.SystemNamespace, "engineer": v1alpha1.CredentialsNamespace, "flux": pipelines,
	} {
		objects = append(objects, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account, Namespace: namespace}})
	}
	objects = append(objects, policies()...)
	// Something for the guards to guard: made while there are no guards.
	held := grant(shop, "held")
	held.Finalizers = []string{v1alpha1.FinalizerGrant}
	answer := grant(mail, "answer")
	answer.Spec.RequestRef = &v1alpha1.RequestReference{Name: "asked", UID: "1", RequestedBy: "cara"}
	objects = append(objects, held, answer, record(shop, "used"), setting(shop, on(at(10*time.Hour)), switchedBy("cara")), request(mail, "asked", askedBy("cara")))
	objects = append(objects, roles()...)
	objects = append(objects, holders()...)
	for _, object := range objects {
		if err := w.root.Create(ctx, object); err != nil {
			return fmt.Errorf("create %T %s: %w", object, object.GetName(), err)
		}
	}
	return nil
}

func policies() []client.Object {
	offered := []v1alpha1.OfferedRole{
		{Name: configuration}, {Name: diagnostics},
		{Name: content, Elevated: true, MaxDuration: "4h"},
		{Name: operate, Elevated: true},
	}
	policy := func(name string, change func(*v1alpha1.SupportAccessPolicySpec)) client.Object {
		p := &v1alpha1.SupportAccessPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}
		p.Spec.Roles = slices.Clone(offered)
		p.Spec.Transports = []v1alpha1.Transport{v1alpha1.TransportDirect}
		change(&p.Spec)
		return p
	}
	return []client.Object{
		policy("default", func(s *v1alpha1.SupportAccessPolicySpec) {}),
		policy("strict", func(s *v1alpha1.SupportAccessPolicySpec) {
			s.Durations = []v1alpha1.Duration{"1h", "24h"}
			s.MaxDuration, s.MaxStartDelay = "24h", "0s"
			s.Roles = s.Roles[:1]
			s.Transports = []v1alpha1.Transport{v1alpha1.TransportGateway, v1alpha1.TransportDirect}
			s.CasePattern, s.EngineerPattern = `^CASE-[0-9]+$`, `@vendor\.example$`
			s.ServiceAccountGrants = v1alpha1.ServiceAccountGrantsDeny
			s.ProtectedNamespaces = []string{shop}
			s.EngineerLists = []v1alpha1.EngineerList{
				{Name: "archive", Engineers: []v1alpha1.Engineer{{Name: "ana@vendor.example"}, {Name: "bo@vendor.example"}}},
				{Name: "strangers", Engineers: []v1alpha1.Engineer{{Name: "mallory"}}},
			}
		}),
		policy("wide", func(s *v1alpha1.SupportAccessPolicySpec) {
			s.Scopes = []v1alpha1.ScopeKind{v1alpha1.ScopeCluster}
			s.ServiceAccountGrants = v1alpha1.ServiceAccountGrantsAllow
			s.CredentialReaders = []v1alpha1.CredentialReader{{Kind: "User", Name: "ana"}}
		}),
		policy("frozen", func(s *v1alpha1.SupportAccessPolicySpec) { s.NewGrants = v1alpha1.NewGrantsSuspended }),
	}
}

func roles() []client.Object {
	role := func(name string, rules ...rbacv1.PolicyRule) client.Object {
		return &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
	}
	ours := func(verbs ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: []string{"supportaccess.dev"}, Resources: []string{"supportaccessgrants"}, Verbs: verbs}
	}
	bind := func(names ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: []string{rbacv1.GroupName}, Resources: []string{"clusterroles"}, Verbs: []string{"bind"}, ResourceNames: names}
	}
	reads := rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get"}}
	revokeDans := ours("revoke")
	revokeDans.ResourceNames = []string{"dans"}
	return []client.Object{
		role(configuration, reads), role(diagnostics, reads), role(content, reads), role(operate, reads),
		// Everything in our group, subresources too: where admission refuses, RBAC did not.
		role("test-write", rbacv1.PolicyRule{
			APIGroups: []string{"supportaccess.dev"}, Resources: []string{"*"},
			Verbs: []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"},
		}),
		role("test-bind-plain", bind(configuration, diagnostics)),
		role("test-bind-most", bind(configuration, diagnostics, content)),
		role("test-bind-any", bind()),
		role("test-revoke", ours("revoke")),
		role("test-approve", ours("approve")),
		role("test-revoke-dans", revokeDans),
	}
}

// holders are the bindings. They are made before the admission objects.
func holders() []client.Object {
	user := func(name string) rbacv1.Subject {
		return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}
	}
	account := func(namespace, name string) rbacv1.Subject {
		return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}
	}
	var bindings []client.Object
	in := func(namespace string, who rbacv1.Subject, roles ...string) {
		for _, role := range roles {
			bindings = append(bindings, binding(namespace, strings.NewReplacer(":", "-", "@", "-").Replace(who.Name)+"-"+role, role, who))
		}
	}
	in(mail, user("ana"), "test-write", "test-bind-plain", "test-revoke")
	in(shop, user("ana"), "test-write")
	in(mail, user("bob"), "test-write")
	in(mail, user("dan"), "test-write", "test-revoke-dans")
	in(mail, user("eve"), "test-write", "test-approve")
	in("", user("pat"), "test-write", "test-bind-most")
	in("", user("cara"), "test-write", "test-bind-any", "test-revoke", "test-approve")
	for _, namespace := range []string{mail, named, wide} {
		in(namespace, account(pipelines, "flux"), "test-write", "test-bind-plain", "test-revoke")
	}
	in("", account(v1alpha1.SystemNamespace, v1alpha1.ControllerServiceAccount), "cluster-admin")
	in("", account(v1alpha1.CredentialsNamespace, "engineer"), "cluster-admin")
	in("", user(visitorName), "cluster-admin")
	return bindings
}

// binding returns a RoleBinding of a ClusterRole, or a ClusterRoleBinding where the namespace is empty.
func binding(namespace, name, role string, subjects ...rbacv1.Subject) client.Object {
	object := metav1.ObjectMeta{Namespace: namespace, Name: name}
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}
	if namespace == "" {
		return &rbacv1.ClusterRoleBinding{ObjectMeta: object, RoleRef: ref, Subjects: subjects}
	}
	return &rbacv1.RoleBinding{ObjectMeta: object, RoleRef: ref, Subjects: subjects}
}

// grant returns a grant that the default policy takes from anybody who may bind the plain roles.
func grant(namespace, name string, changes ...func(*v1alpha1.SupportAccessGrant)) *v1alpha1.SupportAccessGrant {
	g := &v1alpha1.SupportAccessGrant{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	g.Spec.Reason = "the connector cannot reach the server"
	g.Spec.Engineers = []v1alpha1.Engineer{{Name: "ana@vendor.example"}}
	g.Spec.Duration = "24h"
	for _, change := range changes {
		change(g)
	}
	return g
}

// decision returns a revocation of the grant case-1.
func decision(namespace string, changes ...func(*v1alpha1.SupportAccessDecision)) *v1alpha1.SupportAccessDecision {
	d := &v1alpha1.SupportAccessDecision{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "decision-"}}
	d.Spec.Action = v1alpha1.ActionRevoke
	d.Spec.Target.Grant = "case-1"
	d.Spec.Reason = "the case is closed"
	for _, change := range changes {
		change(d)
	}
	return d
}

// record returns the record of a grant.
func record(namespace, name string) *v1alpha1.SupportAccessRecord {
	r := &v1alpha1.SupportAccessRecord{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	r.Spec.Grant = v1alpha1.RecordedGrant{Namespace: namespace, Name: name, UID: "0", SpecDigest: "0"}
	r.Spec.GrantedBy = "ana"
	return r
}

// refused asserts that a policy refused, with 403 and in these words.
func refused(t *testing.T, err error, policy, says string) {
	t.Helper()
	if err == nil {
		t.Fatalf("was let through; want the refusal of %s: %s", policy, says)
	}
	w.heard.add(err.Error())
	if !apierrors.IsForbidden(err) {
		t.Errorf("is not a 403: %v", err)
	}
	if !isDenial(err, policy) || !strings.Contains(err.Error(), "denied request: "+says) {
		t.Errorf("the API server says:\n\t%v\nwant %s to say:\n\t%s", err, policy, says)
	}
}

func isDenial(err error, policy string) bool {
	return err != nil && strings.Contains(err.Error(), "ValidatingAdmissionPolicy '"+policy+"' ")
}

// invalid asserts that the CRD refused, with 422 and in these words.
func invalid(t *testing.T, err error, says string) {
	t.Helper()
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), says) {
		t.Errorf("the API server says:\n\t%v\nwant 422 and:\n\t%s", err, says)
	}
}

// taken asserts that the API server took it.
func taken(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("was not let through: %v", err)
	}
}

// try asks whether an object would be taken, and leaves nothing behind.
func (p *person) try(t *testing.T, object client.Object) error {
	t.Helper()
	return p.Create(t.Context(), object.DeepCopyObject().(client.Object), client.DryRunAll)
}

// make creates an object that is removed when the test ends.
func (p *person) make(t *testing.T, object client.Object) {
	t.Helper()
	if err := p.Create(t.Context(), object); err != nil {
		t.Fatalf("create %T %s: %v", object, object.GetName(), err)
	}
	t.Cleanup(func() { w.remove(t, object) })
}

// remove deletes an object, by the controller's hand where nobody else may.
func (w *world) remove(t *testing.T, object client.Object) {
	t.Helper()
	ctx := context.Background()
	key := client.ObjectKeyFromObject(object)
	if err := w.controller.Delete(ctx, object); client.IgnoreNotFound(err) != nil {
		t.Errorf("delete %T %s: %v", object, key, err)
	}
	err := w.controller.Get(ctx, key, object)
	if err == nil && len(object.GetFinalizers()) > 0 {
		object.SetFinalizers(nil)
		err = w.controller.Update(ctx, object)
	}
	if client.IgnoreNotFound(err) != nil {
		t.Errorf("remove the finalizers of %T %s: %v", object, key, err)
	}
}

// until polls until an attempt succeeds.
func until(ctx context.Context, what string, attempt func() error) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, pollInterval, waitTimeout, true, func(context.Context) (bool, error) {
		last = attempt()
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("wait until %s: %w; last seen: %w", what, err, last)
	}
	return nil
}

// warnings collects what the API server warns of.
type warnings struct {
	mu   sync.Mutex
	said []string
}

func (c *warnings) HandleWarningHeader(_ int, _ string, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.said = append(c.said, text)
}

// warned returns of what the API server warns a person who makes an object.
func (w *world) warned(ctx context.Context, who *person, object client.Object) ([]string, error) {
	collected := &warnings{}
	p, err := w.person(who.name, who.config, collected)
	if err != nil {
		return nil, err
	}
	if err := p.Create(ctx, object.DeepCopyObject().(client.Object), client.DryRunAll); err != nil {
		return nil, err
	}
	for _, said := range collected.said {
		w.heard.add(said)
	}
	return collected.said, nil
}

func subjectUser(name string) rbacv1.Subject {
	return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}
}

func subjectGroup(name string) rbacv1.Subject {
	return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: name}
}

func subjectAccount(namespace, name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}
}
