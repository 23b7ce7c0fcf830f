package cli

import (
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// approver is somebody who may approve in the namespace.
func (tn *tenant) approver(t testing.TB, name string) person {
	t.Helper()
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: tn.namespace, GenerateName: "test-"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "support-access-approver"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}},
	}
	if err := tn.Admin.Create(t.Context(), binding); err != nil {
		t.Fatal(err)
	}
	c := tn.Client(t, name)
	world.Eventually(t, name+" may approve", func() error {
		d := &v1alpha1.SupportAccessDecision{ObjectMeta: metav1.ObjectMeta{Namespace: tn.namespace, Name: "trial"}}
		gen.Approving("trial")(d)
		d.Spec.Reason = why
		return c.Create(t.Context(), d, client.DryRunAll)
	})
	return tn.person(t, name)
}

// needing has every grant of the default roles need approvals.
func (tn *tenant) needing(t testing.TB, approvals int32) {
	t.Helper()
	policy := &v1alpha1.SupportAccessPolicy{}
	if err := tn.Admin.Get(t.Context(), client.ObjectKey{Name: tn.policy}, policy); err != nil {
		t.Fatal(err)
	}
	policy.Spec.Roles[1].Approvals = &approvals
	if err := tn.Admin.Update(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
}

func TestWhoMayApproveSaysYesFromATerminalAndHearsWhatIsStillMissing(t *testing.T) {
	tn := newTenant(t)
	tn.needing(t, 2)
	pat, quinn := tn.approver(t, "pat@customer.example"), tn.approver(t, "quinn@customer.example")
	tn.grant(t, "case-4711")
	tn.admin.run(t, "list").has(t, 0, v1alpha1.StateAwaitingApproval)
	tn.admin.run(t, "status", "case-4711").has(t, 3, v1alpha1.StateAwaitingApproval, "0 of 2 approvals", "somebody must say yes")
	pat.run(t, "approve", "case-4711").has(t, 1, "--reason: is missing")
	pat.run(t, "approve", "case-4711", "--reason", why, "--dry-run=client", "-o", "yaml").has(t, 0, "action: Approve", "grant: case-4711")
	pat.run(t, "approve", "case-4711", "--reason", why).has(t, 0, "created", "is on record for 1 grant", "case-4711 is AwaitingApproval: 1 of 2 approvals", "approved by pat@customer.example")
	tn.admin.run(t, "status", "case-4711").has(t, 3, "1 of 2 approvals", "approved by pat@customer.example")
	quinn.run(t, "approve", "case-4711", "--reason", why).has(t, 0, "is on record for 1 grant", "case-4711 is Active")
	quinn.run(t, "approve", "case-4711", "--reason", why).has(t, 1, "case-4711 is open, and waits for nobody")
	quinn.run(t, "deny", "case-4711", "--reason", why).has(t, 1, "case-4711 is open: to end it, use revoke")
	tn.admin.run(t, "status", "case-4711").has(t, 0, "Approved", "pat@customer.example", "quinn@customer.example")

	// Each names the very grant, and says with which authority.
	for _, d := range tn.decisions(t) {
		if d.Spec.Action == v1alpha1.ActionApprove && (d.Spec.Target.UID == "" || d.Spec.Authority != v1alpha1.AuthorityNamespace) {
			t.Errorf("decision %s is %+v", d.Name, d.Spec)
		}
	}
}

func TestAnApprovalThatDoesNotCountIsAnErrorAndADenialIsForEver(t *testing.T) {
	tn := newTenant(t)
	tn.needing(t, 1)
	tn.grant(t, "case-4711")
	tn.admin.run(t, "approve", "case-4711", "--reason", why).has(t, 1, "lacks the verb approve on supportaccessgrants case-4711")
	tess := tn.approver(t, tn.name)
	tess.run(t, "approve", "case-4711", "--reason", why).has(t, 1, "it does not count: "+tn.name+" made the grant")
	tess.run(t, "approve", "case-0", "--reason", why).has(t, 1, "get grant case-0")
	tess.run(t, "deny", "case-4711", "--reason", "not today").has(t, 0, "is on record for 1 grant", "case-4711 is Denied", "not today")
	tess.run(t, "deny", "case-4711", "--reason", why).has(t, 2, "case-4711 had ended before: Denied")
}
