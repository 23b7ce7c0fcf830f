package chart

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/world"
)

// sampleNamespace is where the product of the samples lives.
const sampleNamespace = "mail-archive"

// samplesApply applies every file of config/samples: the product first, then, as the namespace's own admin, what such an
// admin may apply, then the rest as a cluster admin.
func (i *installation) samplesApply(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(root(t), "config", "samples", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, path := range paths {
		names[filepath.Base(path)] = true
	}
	apply := func(kubeconfig, name string) string {
		if !names[name] {
			t.Fatalf("there is no sample %s", name)
		}
		delete(names, name)
		return i.MustKubectl(t, kubeconfig, "apply", "-f", filepath.Join(root(t), "config", "samples", name))
	}
	apply(i.kubeconfig, "mail-archive.yaml")
	world.Eventually(t, "the product's kind is served", func() error {
		_, _, err := i.Kubectl(t, i.kubeconfig, "get", "connectors.mail-archive.vendor.example", "--all-namespaces")
		return err
	})
	apply(i.kubeconfig, "mail-archive-connector.yaml")

	const adminName = "olga@customer.example"
	admin := i.Kubeconfig(t, i.namespaceAdmin(t, sampleNamespace, adminName), sampleNamespace)
	for _, name := range []string{"grant.yaml", "grant-scheduled.yaml", "grant-encrypted.yaml", "grant-gitops.yaml", "setting.yaml"} {
		apply(admin, name)
	}
	apply(i.kubeconfig, "grant-namespaces.yaml")
	// Who asked does not answer.
	apply(i.kubeconfig, "request.yaml")
	world.Eventually(t, "the API server has heard of the request", func() error {
		_, _, err := i.Kubectl(t, admin, "apply", "--dry-run=server", "-f", filepath.Join(root(t), "config", "samples", "grant-answer.yaml"))
		return err
	})
	apply(admin, "grant-answer.yaml")
	for _, name := range []string{"decision-revoke.yaml", "decision-engineer.yaml", "decision-shorten.yaml"} {
		apply(admin, name)
	}
	for _, name := range []string{"decision-approve.yaml", "decision-emergency-stop.yaml", "policy.yaml", "policy-accounts.yaml", "policy-flagged.yaml", "policy-notifications.yaml"} {
		apply(i.kubeconfig, name)
	}
	for name := range names {
		t.Errorf("nobody applies the sample %s", name)
	}

	grant := &v1alpha1.SupportAccessGrant{}
	if err := i.Admin.Get(t.Context(), client.ObjectKey{Namespace: sampleNamespace, Name: "case-4711"}, grant); err != nil {
		t.Fatal(err)
	}
	if grant.Spec.GrantedBy != adminName || !slices.Equal(grant.Spec.Roles, []string{"support-access-configuration", "support-access-diagnostics"}) {
		t.Errorf("the grant is %s, by %q", asJSON(t, grant.Spec), grant.Spec.GrantedBy)
	}
	i.engineerSeesTheProductsKind(t)
	i.letDecisionsGo(t)
}

// engineerSeesTheProductsKind asks whether who is granted configuration sees the product's own kind, which joins by label.
func (i *installation) engineerSeesTheProductsKind(t *testing.T) {
	t.Helper()
	i.MustKubectl(t, i.kubeconfig, "--namespace", sampleNamespace, "create", "rolebinding", "reader",
		"--clusterrole", "support-access-configuration", "--user", "reader")
	reader := i.Kubeconfig(t, i.Config("reader"), sampleNamespace)
	world.Eventually(t, "connectors are configuration", func() error {
		_, _, err := i.Kubectl(t, reader, "get", "connectors.mail-archive.vendor.example", "imap")
		return err
	})
	if err := i.ClientFor(t, i.Config("reader")).Get(t.Context(), client.ObjectKey{Namespace: sampleNamespace, Name: "imap"}, &corev1.Secret{}); err == nil {
		t.Error("configuration reads Secrets")
	}
	if _, stderr, err := i.Kubectl(t, reader, "get", "supportaccessgrants"); err == nil || !strings.Contains(stderr, "forbidden") {
		t.Errorf("configuration reads grants: %v", err)
	}
}
