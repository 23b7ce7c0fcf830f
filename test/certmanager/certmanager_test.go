// Package certmanager has cert-manager's own controller issue the gateway's certificate. It is not built by make test, as it
// takes nine minutes: CERT_MANAGER is a folder in which it was, with its sources.
package certmanager

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/hack/controlplane"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

func TestMain(m *testing.M) { world.MainWith(m, controlplane.Options{}) }

// folder says where cert-manager is: its sources, and in them the program "controller", which go build made of cmd/controller.
const folder = "CERT_MANAGER"

// authority is an issuer with a CA of its own, as an admin would make one.
const authority = `
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: root}
spec: {selfSigned: {}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: ca}
spec:
  isCA: true
  commonName: ca.example
  secretName: ca
  privateKey: {algorithm: ECDSA, size: 256}
  issuerRef: {name: root}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: ca}
spec: {ca: {secretName: ca}}
`

func TestWithACertificateOfCertManagersEngineersComeInAndKnowTheGateway(t *testing.T) {
	home := os.Getenv(folder)
	if home == "" {
		t.Skipf("%s names no folder with cert-manager's sources and its controller", folder)
	}
	w := world.New(t)
	admin := w.Kubeconfig(t, w.ControlPlane.AdminConfig(), world.SystemNamespace)
	w.MustKubectl(t, admin, "apply", "--server-side", "-f", filepath.Join(home, "deploy/crds"))
	starts(t, filepath.Join(home, "controller"), admin)
	ip, err := world.GatewayIP()
	if err != nil {
		t.Fatal(err)
	}
	values := func(bundle string) map[string]any {
		return world.GatewayValues(ip, map[string]any{
			"gateway":       map[string]any{"caBundle": bundle, "tls": map[string]any{"mode": "CertManager", "issuerRef": map[string]any{"name": "ca", "kind": "Issuer"}}},
			"defaultPolicy": map[string]any{"spec": map[string]any{"transports": []any{"Gateway"}, "durations": nil, "requirePublicKey": "Never"}},
		})
	}
	installation := w.InstallChart(t, values(""))
	world.Eventually(t, "the issuer is made", func() error { return w.Apply(t, admin, authority) })
	issued := &corev1.Secret{}
	world.Eventually(t, "the authority has a certificate", func() error {
		return w.Admin.Get(t.Context(), client.ObjectKey{Namespace: world.SystemNamespace, Name: "ca"}, issued)
	})
	if err := installation.Upgrade(t.Context(), w.ControlPlane, values(string(issued.Data[corev1.TLSCertKey]))); err != nil {
		t.Fatal(err)
	}
	w.StartOperator(t, installation)
	w.StartGateway(t, installation, ip)

	namespace := w.Namespace(t)
	grant := gen.ToApply("case-1", namespace, gen.WithDuration("30m"), func(g *v1alpha1.SupportAccessGrant) { g.Spec.Transport = "" })
	world.Eventually(t, "the grant is made", func() error { return w.Admin.Create(t.Context(), grant) })
	world.Eventually(t, "the grant is open", func() error {
		err := w.Admin.Get(t.Context(), client.ObjectKeyFromObject(grant), grant)
		if err == nil && (!apimeta.IsStatusConditionTrue(grant.Status.Conditions, v1alpha1.ConditionActive) || len(grant.Status.Engineers) == 0 || grant.Status.Engineers[0].CredentialSecretRef == nil) {
			return fmt.Errorf("its status is %+v", grant.Status)
		}
		return err
	})
	ref, handed := grant.Status.Engineers[0].CredentialSecretRef, &corev1.Secret{}
	if err := w.Admin.Get(t.Context(), client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, handed); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, handed.Data[ref.Key], 0o600); err != nil {
		t.Fatal(err)
	}
	if out, diagnostics, err := w.KubectlWith(t, path, "", "get", "configmaps"); err != nil {
		t.Errorf("the engineer comes in: %v: %s %s", err, out, diagnostics)
	}
}

// starts starts cert-manager's controller and stops it when the test ends.
func starts(t *testing.T, program, kubeconfig string) {
	t.Helper()
	var said bytes.Buffer
	controller := exec.CommandContext(t.Context(), program, "--kubeconfig="+kubeconfig, "--leader-elect=false", "--namespace="+world.SystemNamespace, //nolint:gosec // Whoever runs the test says which program.
		"--metrics-listen-address=127.0.0.1:0",
		"--controllers=issuers,certificates-trigger,certificates-issuing,certificates-key-manager,certificates-request-manager,certificates-readiness,certificates-revision-manager,certificaterequests-approver,certificaterequests-issuer-ca,certificaterequests-issuer-selfsigned")
	controller.Stdout, controller.Stderr = &said, &said
	controller.Cancel = func() error { return controller.Process.Signal(syscall.SIGTERM) }
	if err := controller.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = controller.Process.Kill()
		_ = controller.Wait()
		if t.Failed() {
			t.Logf("cert-manager says:\n%s", said.String())
		}
	})
}
