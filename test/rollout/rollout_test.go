// Package rollout goes from the chart to a gateway that is ready: the controller makes the certificate, the gateway's pod
// takes it, and an upgrade leaves it alone.
package rollout

import (
	"bytes"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/hack/controlplane"
	"supportaccess.dev/operator/test/world"
)

func TestMain(m *testing.M) { world.MainWith(m, controlplane.Options{}) }

// values are those of a gateway that nobody has to reach here.
func values() map[string]any {
	return map[string]any{
		"gateway":       map[string]any{"enabled": true, "shutdownDelay": "0s", "changes": map[string]any{"enabled": false}, "server": "https://gateway.example"},
		"defaultPolicy": map[string]any{"spec": map[string]any{"transports": []any{"Gateway"}}},
	}
}

func TestTheChartsGatewayGetsACertificateIsReadyAndKeepsItThroughAnUpgrade(t *testing.T) {
	w := world.New(t)
	installation := w.InstallChart(t, values())
	w.StartOperator(t, installation)
	made := map[string][]byte{}
	world.Eventually(t, "the certificate is made", func() error {
		made = certificate(t, w)
		if keys := slices.Sorted(maps.Keys(made)); !slices.Equal(keys, []string{"ca.crt", "ca.key", "tls.crt", "tls.key"}) {
			return errors.New("the Secret has not all of it")
		}
		return nil
	})
	gateway, err := world.Run(t.Context(), w.ControlPlane, installation, world.OperatorOptions{
		Deployment: "support-access-gateway", Dir: filepath.Join(w.Dir, "pods"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := gateway.Stop(); err != nil {
			t.Errorf("stop the gateway: %v", err)
		}
	})
	if err := gateway.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	speaksForItself(t, w, gateway)

	changed := values()
	changed["podLabels"] = map[string]any{"upgraded": "yes"}
	if err := installation.Upgrade(t.Context(), w.ControlPlane, changed); err != nil {
		t.Fatal(err)
	}
	if after := certificate(t, w); !maps.EqualFunc(made, after, bytes.Equal) {
		t.Errorf("after an upgrade the Secret has the keys %v and another content, or others", slices.Sorted(maps.Keys(after)))
	}
}

func certificate(t *testing.T, w *world.World) map[string][]byte {
	t.Helper()
	secret := &corev1.Secret{}
	if err := w.Admin.Get(t.Context(), types.NamespacedName{Namespace: v1alpha1.SystemNamespace, Name: "support-access-gateway-tls"}, secret); err != nil {
		t.Fatal(err)
	}
	return secret.Data
}

// speaksForItself has the pod's own token write sessions: its own, and another replica's.
func speaksForItself(t *testing.T, w *world.World, gateway *world.Operator) {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(gateway.Dir, "kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	pod := w.ClientFor(t, config)
	session := func(replica string) *v1alpha1.SupportAccessSession {
		return &v1alpha1.SupportAccessSession{
			ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: w.Name("session")},
			Spec: v1alpha1.SupportAccessSessionSpec{
				Grant: v1alpha1.SessionGrant{Namespace: "tenant", Name: "case-1", UID: "1"}, Replica: replica,
			},
		}
	}
	if err := pod.Create(t.Context(), session(gateway.Name)); err != nil {
		t.Errorf("a replica of itself: %v", err)
	}
	if err := pod.Create(t.Context(), session("support-access-gateway-other")); !apierrors.IsForbidden(err) {
		t.Errorf("a replica of another: %v", err)
	}
	unbound := w.ClientFor(t, w.ServiceAccount(t, v1alpha1.SystemNamespace, v1alpha1.GatewayServiceAccount))
	if err := unbound.Create(t.Context(), session(gateway.Name)); !apierrors.IsForbidden(err) {
		t.Errorf("somebody with a token of no pod: %v", err)
	}
}
