package world_test

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	supportaccessv1alpha1 "supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/world"
)

func TestMain(m *testing.M) { world.Main(m) }

func TestTheChartIsInstalledItsOperatorRunsAndItIsUninstalled(t *testing.T) {
	w := world.New(t)
	installation := w.InstallChart(t, nil)
	operator := w.StartOperator(t, installation)
	defer func() {
		if t.Failed() {
			t.Logf("the operator's log ends with:\n%s", operator.Tail())
		}
	}()
	var policies supportaccessv1alpha1.SupportAccessPolicyList
	if err := w.Admin.List(t.Context(), &policies); err != nil {
		t.Fatal(err)
	}
	if len(policies.Items) != 1 || policies.Items[0].Name != "default" {
		t.Errorf("the chart's policies are %v, want default alone", policies.Items)
	}
	if err := w.UninstallChart(t, installation); err != nil {
		t.Fatal(err)
	}
	deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: world.SystemNamespace, Name: world.ControllerDeployment}}
	err := w.Admin.Get(t.Context(), client.ObjectKeyFromObject(deployment), deployment)
	if !apierrors.IsNotFound(err) {
		t.Errorf("after the uninstall the Deployment is there: %v", err)
	}
	world.Eventually(t, "the namespace of credentials is gone", func() error {
		err := w.Admin.Get(t.Context(), client.ObjectKey{Name: world.CredentialsNamespace}, &corev1.Namespace{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("get the namespace: %v", err)
	})
}

func TestTheSharedOperatorRunsAndIsOneForAll(t *testing.T) {
	_, operator := world.New(t).Installed(t)
	if operator.Exited() {
		t.Fatalf("the operator ended: %s", operator.Tail())
	}
	if again := world.New(t).Operator(t); again != operator {
		t.Error("the second to ask gets another operator")
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
