package world_test

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	supportaccessv1alpha1 "supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/world"
)

func TestMain(m *testing.M) { world.Main(m) }

func TestTheInstalledChartsOperatorRunsAsItsServiceAccount(t *testing.T) {
	w := world.New(t)
	installation, operator := w.Installed(t)
	if operator.Exited() {
		t.Fatalf("the operator ended: %s", operator.Tail())
	}
	var deployment appsv1.Deployment
	if err := w.Admin.Get(t.Context(), client.ObjectKey{Namespace: world.SystemNamespace, Name: world.ControllerDeployment}, &deployment); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(installation.Manifest), deployment.Spec.Template.Spec.ServiceAccountName) {
		t.Errorf("the manifest does not name ServiceAccount %q", deployment.Spec.Template.Spec.ServiceAccountName)
	}
	var policies supportaccessv1alpha1.SupportAccessPolicyList
	if err := w.Admin.List(t.Context(), &policies); err != nil {
		t.Fatal(err)
	}
	if len(policies.Items) != 1 || policies.Items[0].Name != "default" {
		t.Errorf("the chart's policies are %v, want default alone", policies.Items)
	}
}

func TestPeopleMeetTheAPIServersOwnRefusals(t *testing.T) {
	w := world.New(t)
	namespace := w.Namespace(t)
	kubeconfig := w.Kubeconfig(t, w.Config("stranger@elsewhere.example"), namespace)
	_, stderr, err := w.Kubectl(t, kubeconfig, "get", "configmaps")
	if err == nil || !strings.Contains(stderr, `User "stranger@elsewhere.example" cannot list resource "configmaps"`) {
		t.Errorf("%v: %s", err, stderr)
	}
	err = w.Apply(t, kubeconfig, "{apiVersion: v1, kind: ConfigMap, metadata: {name: mine}}")
	if err == nil || !strings.Contains(err.Error(), "Forbidden") {
		t.Errorf("apply: %v", err)
	}
	admin := w.Kubeconfig(t, w.ControlPlane.AdminConfig(), namespace)
	if err := w.Apply(t, admin, "{apiVersion: v1, kind: ConfigMap, metadata: {name: mine}}"); err != nil {
		t.Error(err)
	}
	var mine corev1.ConfigMap
	if err := w.Admin.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "mine"}, &mine); err != nil {
		t.Error(err)
	}
}
