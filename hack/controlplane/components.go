package controlplane

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// auditPolicy writes one line for every request when it is answered, without bodies.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
`

func (cp *ControlPlane) etcdArgs() []string {
	client, peer := "https://"+loopback(cp.ports.etcd), "http://"+loopback(cp.ports.etcdPeer)
	args := []string{
		"--name=default",
		"--data-dir=" + cp.file("etcd"),
		"--listen-client-urls=" + client,
		"--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer,
		"--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=default=" + peer,
		"--cert-file=" + cp.file("etcd.crt"),
		"--key-file=" + cp.file("etcd.key"),
		"--trusted-ca-file=" + cp.file("ca.crt"),
		"--client-cert-auth",
		"--log-level=warn",
	}
	if !cp.options.Fsync {
		args = append(args, "--unsafe-no-fsync")
	}
	return args
}

func (cp *ControlPlane) apiServerArgs() []string {
	args := []string{
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		"--secure-port=" + strconv.Itoa(cp.ports.apiServer),
		// The address is a loopback one, which the endpoints of the service "kubernetes" may not hold.
		"--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=10.96.0.0/16",
		"--etcd-servers=https://" + loopback(cp.ports.etcd),
		"--etcd-cafile=" + cp.file("ca.crt"),
		"--etcd-certfile=" + cp.file("kube-apiserver.crt"),
		"--etcd-keyfile=" + cp.file("kube-apiserver.key"),
		"--tls-cert-file=" + cp.file("kube-apiserver.crt"),
		"--tls-private-key-file=" + cp.file("kube-apiserver.key"),
		"--client-ca-file=" + cp.file("ca.crt"),
		"--authorization-mode=RBAC",
		"--service-account-issuer=" + Issuer,
		"--service-account-key-file=" + cp.ServiceAccountSigningKeyPath(),
		"--service-account-signing-key-file=" + cp.ServiceAccountSigningKeyPath(),
		"--kubelet-certificate-authority=" + cp.file("ca.crt"),
		"--kubelet-client-certificate=" + cp.file("kube-apiserver.crt"),
		"--kubelet-client-key=" + cp.file("kube-apiserver.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--audit-policy-file=" + cp.file("audit-policy.yaml"),
		"--audit-log-path=" + cp.AuditLogPath(),
		// In megabytes, never reached: a rotated log would look like a shorter one.
		"--audit-log-maxsize=100000",
		"--profiling=false",
	}
	return append(args, cp.options.APIServerArgs...)
}

func (cp *ControlPlane) controllerManagerArgs() []string {
	return []string{
		"--kubeconfig=" + cp.file("kube-controller-manager.kubeconfig"),
		"--leader-elect=false",
		"--use-service-account-credentials",
		"--service-account-private-key-file=" + cp.ServiceAccountSigningKeyPath(),
		"--root-ca-file=" + cp.file("ca.crt"),
		"--secure-port=0",
	}
}

func (cp *ControlPlane) schedulerArgs() []string {
	return []string{
		"--kubeconfig=" + cp.file("kube-scheduler.kubeconfig"),
		"--leader-elect=false",
		"--secure-port=0",
	}
}

// etcdClient is how the API server knows etcd, and etcd the API server.
func (cp *ControlPlane) etcdClient() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(cp.file("kube-apiserver.crt"), cp.file("kube-apiserver.key"))
	if err != nil {
		return nil, fmt.Errorf("load the certificate for etcd: %w", err)
	}
	return &tls.Config{RootCAs: cp.ca.pool(), Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}

// etcdListens succeeds once etcd takes connections. That it is this control plane's own, its certificate tells.
func (cp *ControlPlane) etcdListens(ctx context.Context) error {
	config, err := cp.etcdClient()
	if err != nil {
		return err
	}
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: time.Second}, Config: config}
	connection, err := dialer.DialContext(ctx, "tcp", loopback(cp.ports.etcd))
	if err != nil {
		return fmt.Errorf("connect to etcd: %w", err)
	}
	return connection.Close()
}

func apiServerReady(client kubernetes.Interface) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	}
}

// clusterFilled succeeds once the controllers have done what tests and people take for granted.
func clusterFilled(client kubernetes.Interface) func(context.Context) error {
	return func(ctx context.Context) error {
		for _, name := range []string{"view", "edit", "admin"} {
			role, err := client.RbacV1().ClusterRoles().Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return fmt.Errorf("get ClusterRole %q: %w", name, err)
			}
			if len(role.Rules) == 0 {
				return fmt.Errorf("ClusterRole %q has no rules yet", name)
			}
		}
		if _, err := client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{}); err != nil {
			return fmt.Errorf("get ServiceAccount \"default\": %w", err)
		}
		_, err := client.CoreV1().ConfigMaps(metav1.NamespaceDefault).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("get ConfigMap \"kube-root-ca.crt\": %w", err)
		}
		return nil
	}
}

// errNodeNotReady says that kwok has not reported its node yet.
var errNodeNotReady = errors.New("the node is not ready")
