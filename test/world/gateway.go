package world

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"supportaccess.dev/operator/hack/controlplane/kubelet"
)

const (
	// GatewayDeployment is the chart's Deployment of the gateway.
	GatewayDeployment = "support-access-gateway"
	// gatewayTLS is the Secret of the gateway's certificate.
	gatewayTLS = "support-access-gateway-tls"
	// gatewayPort is where the gateway's pod listens for engineers.
	gatewayPort = 9443
)

// GatewayIP chooses the address of a gateway's pod before there is one: kubeconfigs must say it.
func GatewayIP() (string, error) {
	return kubelet.FreeIP(corev1.ContainerPort{ContainerPort: gatewayPort}, corev1.ContainerPort{ContainerPort: 8443}, corev1.ContainerPort{ContainerPort: 8081})
}

// GatewayValues are the values of a chart whose gateway is reached at an address.
func GatewayValues(address string, values map[string]any) map[string]any {
	base := map[string]any{
		"gateway": map[string]any{"enabled": true, "server": fmt.Sprintf("https://%s:%d", address, gatewayPort)},
	}
	return merge(base, values)
}

// StartGateway starts one pod of the gateway at an address, once its certificate is made, and waits until it is ready. It
// stops it when the test ends.
func (w *World) StartGateway(t testing.TB, i *Installation, ip string) *Operator {
	t.Helper()
	Eventually(t, "the gateway's certificate is made", func() error {
		return hasCertificate(t.Context(), w)
	})
	gateway, err := Run(t.Context(), w.ControlPlane, i, OperatorOptions{
		Deployment: GatewayDeployment, Dir: filepath.Join(shared.dir, "pods"), IP: ip,
	})
	if err != nil {
		t.Fatalf("start the gateway: %v", err)
	}
	t.Cleanup(func() {
		if err := gateway.Stop(); err != nil {
			t.Errorf("stop the gateway: %v", err)
		}
		if t.Failed() {
			t.Logf("the gateway's log ends with:\n%s", gateway.Tail())
		}
	})
	if err := gateway.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	return gateway
}

func hasCertificate(ctx context.Context, w *World) error {
	secret := &corev1.Secret{}
	if err := w.Admin.Get(ctx, types.NamespacedName{Namespace: SystemNamespace, Name: gatewayTLS}, secret); err != nil {
		return err
	}
	if len(secret.Data[corev1.TLSCertKey]) == 0 {
		return fmt.Errorf("Secret %s is empty", gatewayTLS)
	}
	return nil
}
