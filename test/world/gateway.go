package world

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/hack/controlplane"
	"supportaccess.dev/operator/hack/controlplane/kubelet"
	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/sqlite"
	"supportaccess.dev/operator/internal/audit/verify"
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

// GatewayValues are the values of a chart whose gateway is reached at an address. The API server does not ask it about
// changes: nothing here does what kube-proxy does, and Lead must.
func GatewayValues(address string, values map[string]any) map[string]any {
	base := map[string]any{
		"gateway": map[string]any{"enabled": true, "shutdownDelay": "0s", "changes": map[string]any{"enabled": false}, "server": fmt.Sprintf("https://%s:%d", address, gatewayPort)},
	}
	return merge(base, values)
}

// webhookService is where the API server asks the gateway about changes.
const webhookService = "support-access-webhook"

// Lead has the Service at which the API server asks about changes lead to a pod: nothing here does what kube-proxy does.
func Lead(ctx context.Context, admin client.Client, ip string) error {
	service := &corev1.Service{}
	err := admin.Get(ctx, client.ObjectKey{Namespace: SystemNamespace, Name: webhookService}, service)
	if err != nil || service.Spec.ExternalName == ip {
		return client.IgnoreNotFound(err)
	}
	if service.Spec.Type == corev1.ServiceTypeExternalName {
		service.Spec.ExternalName = ip
		if err := admin.Update(ctx, service); err != nil {
			return fmt.Errorf("have Service %s lead to %s: %w", webhookService, ip, err)
		}
		return nil
	}
	stand := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: SystemNamespace, Name: webhookService},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: ip},
	}
	if err := admin.Delete(ctx, service); err != nil {
		return fmt.Errorf("delete Service %s: %w", webhookService, err)
	}
	if err := admin.Create(ctx, stand); err != nil {
		return fmt.Errorf("have Service %s lead to %s: %w", webhookService, ip, err)
	}
	return nil
}

// RunGateway starts one pod of the gateway, once its certificate is made, and does not wait for it. The API server asks it
// from the start.
func RunGateway(ctx context.Context, cp *controlplane.ControlPlane, i *Installation, options OperatorOptions) (*Operator, error) {
	admin, err := client.New(cp.AdminConfig(), client.Options{Scheme: Scheme()})
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	if options.IP != "" {
		if err := Lead(ctx, admin, options.IP); err != nil {
			return nil, err
		}
	}
	return runGateway(ctx, cp, admin, i, options)
}

func runGateway(ctx context.Context, cp *controlplane.ControlPlane, admin client.Client, i *Installation, options OperatorOptions) (*Operator, error) {
	err := wait.PollUntilContextTimeout(ctx, eventuallyEvery, eventuallyTimeout, true, func(ctx context.Context) (bool, error) {
		secret := &corev1.Secret{}
		err := admin.Get(ctx, types.NamespacedName{Namespace: SystemNamespace, Name: gatewayTLS}, secret)
		return len(secret.Data[corev1.TLSCertKey]) > 0, err
	})
	if err != nil {
		return nil, fmt.Errorf("wait for the gateway's certificate: %w", err)
	}
	options.Deployment = GatewayDeployment
	return Run(ctx, cp, i, options)
}

// OpenGateway starts one pod of the gateway and waits until it is ready. From then on the API server asks it, as it would ask
// what is ready behind a Service.
func OpenGateway(ctx context.Context, cp *controlplane.ControlPlane, i *Installation, options OperatorOptions) (*Operator, error) {
	admin, err := client.New(cp.AdminConfig(), client.Options{Scheme: Scheme()})
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	gateway, err := runGateway(ctx, cp, admin, i, options)
	if err != nil {
		return nil, err
	}
	if err := gateway.WaitReady(ctx); err != nil {
		return nil, errors.Join(err, gateway.Stop())
	}
	if options.IP == "" {
		return gateway, nil
	}
	if err := Lead(ctx, admin, options.IP); err != nil {
		return nil, errors.Join(err, gateway.Stop())
	}
	return gateway, nil
}

// StartGateway starts one pod of the gateway at an address and stops it when the test ends.
func (w *World) StartGateway(t testing.TB, i *Installation, ip string) *Operator {
	t.Helper()
	gateway, err := OpenGateway(t.Context(), w.ControlPlane, i, OperatorOptions{Dir: filepath.Join(shared.dir, "pods"), IP: ip})
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
	return gateway
}

// AuditLog is where a pod of the gateway keeps what engineers do.
func (o *Operator) AuditLog() string { return filepath.Join(o.Dir, "volumes", "audit", "audit.db") }

// VerifyAudit has a pod's log verified as an auditor would who trusts the keys that it says are its own.
func (o *Operator) VerifyAudit(ctx context.Context) (report *verify.Report, err error) {
	store, err := sqlite.OpenReader(ctx, o.AuditLog())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	standing, err := store.Load(ctx)
	if err != nil {
		return nil, err
	}
	if standing == nil {
		return nil, audit.ErrEmpty
	}
	var export bytes.Buffer
	if err := audit.Export(ctx, &export, store); err != nil {
		return nil, err
	}
	return verify.Log(&export, verify.Options{Keys: standing.Keys, Checkpoints: []string{standing.Checkpoint}})
}

// ofNoRequest reports whether an entry is of what became of grants, or of who asked for that, or a piece of what went over a stream.
func ofNoRequest(line []byte) bool {
	return bytes.Contains(line, []byte(`,"type":"`+audit.TypeRecording+`"`)) || bytes.Contains(line, []byte(`,"type":"`+audit.TypeLifecycle+`"`)) || bytes.Contains(line, []byte(`,"type":"`+audit.TypeAct+`"`))
}

// AuditLines reads what a pod of the gateway has put on record about engineers, an entry a line.
func (o *Operator) AuditLines(ctx context.Context) ([]byte, error) {
	lines, _, err := o.AuditLinesFrom(ctx, 1)
	return lines, err
}

// AuditLinesFrom is AuditLines from an entry's number on. It returns the number from which to read on.
func (o *Operator) AuditLinesFrom(ctx context.Context, from int64) (lines []byte, next int64, err error) {
	store, err := sqlite.OpenReader(ctx, o.AuditLog())
	if err != nil {
		return nil, from, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	for {
		page, err := store.Lines(ctx, from, math.MaxInt64)
		if err != nil || len(page) == 0 {
			return lines, from, err
		}
		for _, line := range page {
			from = line.Seq + 1
			// What the log says of itself, what became of grants and what a pod printed is nothing that an engineer did.
			if bytes.Contains(line.Text, []byte(`"`+audit.LabelSource+`":"`+audit.Source+`"`)) && !ofNoRequest(line.Text) {
				lines = append(append(lines, line.Text...), '\n')
			}
		}
	}
}
