package cli

import (
	"encoding/json"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// requester is an engineer of the vendor with a login to the cluster.
func (tn *tenant) requester(t testing.TB, name string) person {
	t.Helper()
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: tn.namespace, GenerateName: "test-"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "support-access-requester"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}},
	}
	if err := tn.Admin.Create(t.Context(), binding); err != nil {
		t.Fatal(err)
	}
	c := tn.Client(t, name)
	world.Eventually(t, name+" may ask", func() error {
		return c.Create(t.Context(), gen.RequestToApply("trial", tn.namespace), client.DryRunAll)
	})
	return tn.person(t, name)
}

func TestAnEngineerAsksFromATerminalAndAnAdminAnswersWithoutYAML(t *testing.T) {
	tn := newTenant(t)
	const name = "ana@vendor.example"
	ana := tn.requester(t, name)
	asking := []string{"request", "--engineer", gen.Engineer, "--for", "24h", "--role", gen.Configuration, "--case", gen.CaseID, "--reason", why}
	ana.run(t, "request", "--engineer", "Ana").has(t, 1, "--for: a request says for how long", "--engineer: \"Ana\" is no name", "--reason: is missing", "NAME: is missing")
	ana.run(t, append(asking, "--dry-run=client", "-o", "yaml")...).has(t, 0, "kind: SupportAccessRequest", "duration: 24h", "name: case-4711")
	ana.run(t, append(asking, "--dry-run=server")...).has(t, 0, "case-4711")
	ana.run(t, append(asking, "--wait", "--timeout=3s")...).has(t, 1, "created", "case-4711 has no answer after 3s: it is Open: it waits for an answer until")
	// The next has a name of its own.
	ana.run(t, asking...).has(t, 0, "case-4711-2", "created")
	ana.run(t, append([]string{"request", "case-4711"}, asking[1:]...)...).has(t, 1, "NAME: case-4711 is in use")

	// What is not said is as it was asked for, roles included; more nobody gives.
	tn.admin.run(t, "grant", "--request", "no-such").has(t, 1, "--request: get request no-such in namespace "+tn.namespace)
	shown := tn.admin.run(t, "grant", "--request", "case-4711", "--for", "4h", "--dry-run=server", "-o", "json")
	shown.has(t, 0)
	var grant v1alpha1.SupportAccessGrant
	if err := json.Unmarshal([]byte(shown.out), &grant); err != nil {
		t.Fatal(err)
	}
	if grant.Spec.Duration != "4h" || len(grant.Spec.Roles) != 1 || grant.Spec.Roles[0] != gen.Configuration || grant.Spec.Case.ID != gen.CaseID || grant.Spec.Reason != why ||
		grant.Spec.RequestRef == nil || grant.Spec.RequestRef.RequestedBy != name || grant.Spec.GrantedBy != tn.name {
		t.Errorf("it would be %+v", grant.Spec)
	}
	tn.admin.run(t, "grant", "--request", "case-4711", "--for", "48h").has(t, 1, "is longer than 24h, for which request case-4711 asks")
	tn.admin.run(t, "grant", "--request", "case-4711", "--role", gen.Diagnostics).has(t, 1, "support-access-diagnostics, which request case-4711 does not ask for")
	tn.admin.run(t, "grant", "--request", "case-4711", "--wait").has(t, 0, "created", "Active: access is open until")
	tn.admin.run(t, "grant", "--request", "case-4711").has(t, 1, "--request: case-4711 waits for no answer: it is Granted: grant case-4711 answers it")

	// No is said with a reason, and she hears it.
	tn.admin.run(t, "deny", "--request", "case-4711-2").has(t, 1, "--reason: is missing")
	tn.admin.run(t, "deny", "case-4711", "--request", "case-4711-2", "--reason", why).has(t, 1, "GRANT, --request: say which, and one of them")
	tn.admin.run(t, "deny", "--reason", why).has(t, 1, "GRANT, --request: say which, and one of them")
	tn.admin.run(t, "deny", "--request", "case-4711-2", "--reason", "not during the audit", "--dry-run=client", "-o", "yaml").has(t, 0, "action: Deny", "request: case-4711-2")
	ana.run(t, "deny", "--request", "case-4711-2", "--reason", why).has(t, 1, "cannot create resource")
	tn.admin.run(t, "deny", "--request", "case-4711-2", "--reason", "not during the audit").has(t, 0, "created", "the request was denied")
	tn.admin.run(t, "deny", "--request", "case-4711-2", "--reason", why).has(t, 2, "case-4711-2 waits for no answer: it is Denied: denied by decision", "not during the audit")
	listed, _, err := tn.Kubectl(t, ana.kubeconfig, "get", "sareq")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Granted", "Denied", name} {
		if !strings.Contains(listed, want) {
			t.Errorf("kubectl get says\n%s\nand not %s", listed, want)
		}
	}
}
