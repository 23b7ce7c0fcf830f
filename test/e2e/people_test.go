package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// person is somebody, with the rights that they have and no others.
type person struct {
	client.Client
	name   string
	config *rest.Config
	world  *world.World
}

// meet makes a client for whoever a config is for.
func meet(t testing.TB, w *world.World, name string, config *rest.Config) *person {
	t.Helper()
	config = rest.CopyConfig(config)
	config.QPS, config.WarningHandler = -1, rest.NoWarnings{}
	c, err := client.New(config, client.Options{Scheme: world.Scheme(), Mapper: theOperator.mapper})
	if err != nil {
		t.Fatalf("make a client for %s: %v", name, err)
	}
	return &person{Client: c, name: name, config: config, world: w}
}

// user is a person with a client certificate.
func user(t testing.TB, w *world.World, name string, groups ...string) *person {
	t.Helper()
	return meet(t, w, name, w.Config(name, groups...))
}

// kubectl runs kubectl as this person in a namespace; what it says on failure is in the error.
func (p *person) kubectl(t testing.TB, namespace, stdin string, args ...string) (string, error) {
	t.Helper()
	out, diagnostics, err := p.world.KubectlWith(t, p.world.Kubeconfig(t, p.config, namespace), stdin, args...)
	if err != nil {
		return out, fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(diagnostics))
	}
	return out, nil
}

// mustKubectl is kubectl where a failure ends the test.
func (p *person) mustKubectl(t testing.TB, namespace, stdin string, args ...string) string {
	t.Helper()
	out, err := p.kubectl(t, namespace, stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// reads asks for a ConfigMap that is not there: that it is not found says that the request was let through.
func (p *person) reads(ctx context.Context, namespace string) error {
	err := p.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "probe"}, &corev1.ConfigMap{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// mayRead waits until the person's requests are let through. A binding takes its time to reach the authorizer.
func mayRead(t testing.TB, p *person, namespace string) {
	t.Helper()
	world.Eventually(t, p.name+" reads in "+namespace, func() error { return p.reads(t.Context(), namespace) })
}

// isRefused says whether an answer is the API server's refusal of an engineer's request to read in a namespace: by RBAC
// in its own words, or of the credential itself.
func isRefused(err error, username, namespace string) error {
	if isUnauthorized(err) == nil {
		return nil
	}
	words := fmt.Sprintf(`configmaps "probe" is forbidden: User %q cannot get resource "configmaps" in API group "" in the namespace %q`, username, namespace)
	if apierrors.IsForbidden(err) && err.Error() == words {
		return nil
	}
	return fmt.Errorf("the API server says %v, want %q or Unauthorized", err, words)
}

// isUnauthorized says whether an answer is the API server's refusal of a credential.
func isUnauthorized(err error) error {
	if apierrors.IsUnauthorized(err) && err.Error() == "Unauthorized" {
		return nil
	}
	return fmt.Errorf("the API server says %v, want Unauthorized", err)
}

// isRefusedRead waits until the person's requests are refused, in the API server's own words.
func isRefusedRead(t testing.TB, p *person, username, namespace string) {
	t.Helper()
	world.Eventually(t, p.name+" is refused in "+namespace, func() error {
		return isRefused(p.reads(t.Context(), namespace), username, namespace)
	})
}

// tenant is a namespace with a policy of its own and an admin, who has the built-in role admin there and nothing else.
type tenant struct {
	*world.World
	namespace string
	policy    string
	admin     *person
}

// newTenant makes a tenant whose policy lets grants last any time and offers the plain roles, but for what is changed.
func newTenant(t testing.TB, changes ...func(*v1alpha1.SupportAccessPolicy)) *tenant {
	t.Helper()
	w := newWorld(t)
	return tenantIn(t, w, w.Name("tenant"), changes...)
}

// tenantIn is newTenant in a namespace of this name.
func tenantIn(t testing.TB, w *world.World, namespace string, changes ...func(*v1alpha1.SupportAccessPolicy)) *tenant {
	t.Helper()
	tn := &tenant{World: w, namespace: namespace, policy: w.Name("policy")}
	makePolicy(t, w, tn.policy, changes...)
	tn.settle(t)
	return tn
}

// makePolicy makes a policy that is good for tests: any duration.
func makePolicy(t testing.TB, w *world.World, name string, changes ...func(*v1alpha1.SupportAccessPolicy)) {
	t.Helper()
	policy := gen.Policy(name, append([]func(*v1alpha1.SupportAccessPolicy){gen.AnyDuration("168h")}, changes...)...)
	policy.ObjectMeta = metav1.ObjectMeta{Name: name}
	if err := w.Admin.Create(t.Context(), policy); err != nil {
		t.Fatalf("make policy %s: %v", name, err)
	}
}

// settle makes the namespace and its admin, and waits until the admin may grant there.
func (tn *tenant) settle(t testing.TB) {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: tn.namespace, Labels: map[string]string{v1alpha1.LabelPolicy: tn.policy},
	}}
	if err := tn.Admin.Create(t.Context(), namespace); err != nil {
		t.Fatalf("make namespace %s: %v", tn.namespace, err)
	}
	tn.admin = tn.newAdmin(t, "tess@"+tn.namespace+".customer.example")
	world.Eventually(t, tn.admin.name+" may grant in "+tn.namespace, func() error {
		trial := gen.ToApply("trial", tn.namespace)
		err := tn.admin.Create(t.Context(), trial, client.DryRunAll)
		if isPolicys(err) {
			// The limits of this policy are in force: that is all the trial was for.
			return nil
		}
		return err
	})
}

// isPolicys says whether a policy refused a grant, and not RBAC.
func isPolicys(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "support-access-grant-limits") && strings.Contains(err.Error(), "policy ")
}

// newAdmin makes somebody admin of the namespace.
func (tn *tenant) newAdmin(t testing.TB, name string) *person {
	t.Helper()
	tn.bind(t, "admin", rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name})
	return user(t, tn.World, name)
}

// bind binds a ClusterRole in the namespace.
func (tn *tenant) bind(t testing.TB, role string, subject rbacv1.Subject) {
	t.Helper()
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: tn.namespace, GenerateName: "test-"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{subject},
	}
	if err := tn.Admin.Create(t.Context(), binding); err != nil {
		t.Fatalf("bind %s to %s in %s: %v", role, subject.Name, tn.namespace, err)
	}
}

// widen lets the admin grant anywhere: it takes bind cluster-wide.
func (tn *tenant) widen(t testing.TB) {
	t.Helper()
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: lender},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: tn.admin.name}},
	}
	if err := tn.Admin.Create(t.Context(), binding); err != nil {
		t.Fatalf("let %s lend roles cluster-wide: %v", tn.admin.name, err)
	}
	t.Cleanup(func() { _ = tn.Admin.Delete(context.Background(), binding) })
	world.Eventually(t, tn.admin.name+" may grant elsewhere", func() error {
		err := tn.admin.Create(t.Context(), gen.ToApply("trial", tn.namespace, gen.WithScope("elsewhere")), client.DryRunAll)
		if isPolicys(err) {
			return nil
		}
		return err
	})
}

// pipeline is a ServiceAccount of the namespace with the rights of its admin: what Flux and Argo CD apply with.
func (tn *tenant) pipeline(t testing.TB, name string) *person {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: tn.namespace, Name: name}}
	if err := tn.Admin.Create(t.Context(), account); err != nil {
		t.Fatalf("make ServiceAccount %s: %v", name, err)
	}
	tn.bind(t, "admin", rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: tn.namespace, Name: name})
	p := meet(t, tn.World, "system:serviceaccount:"+tn.namespace+":"+name, tn.ServiceAccount(t, tn.namespace, name))
	world.Eventually(t, p.name+" may grant", func() error {
		return p.Create(t.Context(), gen.ToApply("trial", tn.namespace, gen.WithExpiration(soon(minutes))), client.DryRunAll)
	})
	return p
}

// namespaceOf makes one more namespace under the tenant's policy, with no admin.
func (tn *tenant) another(t testing.TB) string {
	t.Helper()
	return tn.LabelledNamespace(t, map[string]string{v1alpha1.LabelPolicy: tn.policy})
}

// changePolicy edits the tenant's policy.
func (tn *tenant) changePolicy(t testing.TB, change func(*v1alpha1.SupportAccessPolicySpec)) {
	t.Helper()
	policy := &v1alpha1.SupportAccessPolicy{}
	if err := tn.Admin.Get(t.Context(), types.NamespacedName{Name: tn.policy}, policy); err != nil {
		t.Fatal(err)
	}
	change(&policy.Spec)
	if err := tn.Admin.Update(t.Context(), policy); err != nil {
		t.Fatalf("change policy %s: %v", tn.policy, err)
	}
}
