package controlplane

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Issuer is the issuer, and the audience, of the tokens of ServiceAccounts.
const Issuer = "https://kubernetes.default.svc"

// mastersGroup may do everything, whatever RBAC says.
const mastersGroup = "system:masters"

// Server is the URL of the API server.
func (cp *ControlPlane) Server() string { return "https://" + loopback(cp.ports.apiServer) }

// CABundle is the certificate, as PEM, that clients trust.
func (cp *ControlPlane) CABundle() []byte { return cp.ca.bundle }

// Dir is the folder of data, logs and keys.
func (cp *ControlPlane) Dir() string { return cp.dir }

// BinDir is the folder of the programs that were built here.
func (cp *ControlPlane) BinDir() string { return cp.binaries.Dir }

// Kubectl is the path of a kubectl of the API server's version.
func (cp *ControlPlane) Kubectl() string { return cp.binaries.Kubectl }

// AuditLogPath is the API server's audit log: a JSON object in each line.
func (cp *ControlPlane) AuditLogPath() string { return cp.file("audit.log") }

// ServiceAccountSigningKeyPath is the private key, as PEM, that signs the tokens of ServiceAccounts.
func (cp *ControlPlane) ServiceAccountSigningKeyPath() string { return cp.file("service-account.key") }

// SignToken makes a token of these claims with the key that signs the tokens of ServiceAccounts.
func (cp *ControlPlane) SignToken(claims any) (string, error) { return signToken(cp.tokenKey, claims) }

// Restore puts an object into etcd as it is, in JSON, past the API server: its UID and its creation time are what they say.
// The key is that of the API server, such as configmaps/NAMESPACE/NAME.
func (cp *ControlPlane) Restore(ctx context.Context, key string, object []byte) error {
	config, err := cp.etcdClient()
	if err != nil {
		return err
	}
	// Bytes are base64 in the JSON that etcd takes.
	body, err := json.Marshal(map[string][]byte{"key": []byte("/registry/" + key), "value": object})
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+loopback(cp.ports.etcd)+"/v3/kv/put", bytes.NewReader(body))
	if err != nil {
		return err
	}
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("put %s into etcd: %w", key, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("put %s into etcd: it said %s", key, response.Status)
	}
	return nil
}

// AdminConfig is for somebody who may do everything.
func (cp *ControlPlane) AdminConfig() *rest.Config {
	return cp.UserConfig("cluster-admin@local", mastersGroup)
}

// UserConfig is for a person with a client certificate, who may do what RBAC gives that name and those groups.
func (cp *ControlPlane) UserConfig(name string, groups ...string) *rest.Config {
	pair, err := cp.ca.client(name, groups...)
	if err != nil {
		panic(fmt.Sprintf("sign a certificate for %q with our own key: %v", name, err))
	}
	config := cp.anonymousConfig()
	config.CertData, config.KeyData = pair.certificate, pair.key
	return config
}

// ServiceAccountConfig is for a ServiceAccount that exists, with a token for an hour.
func (cp *ControlPlane) ServiceAccountConfig(ctx context.Context, namespace, name string) (*rest.Config, error) {
	client, err := kubernetes.NewForConfig(cp.AdminConfig())
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	token, err := client.CoreV1().ServiceAccounts(namespace).
		CreateToken(ctx, name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("request a token for ServiceAccount %s/%s: %w", namespace, name, err)
	}
	config := cp.anonymousConfig()
	config.BearerToken = token.Status.Token
	return config, nil
}

func (cp *ControlPlane) anonymousConfig() *rest.Config {
	return &rest.Config{
		Host:            cp.Server(),
		TLSClientConfig: rest.TLSClientConfig{CAData: cp.CABundle()},
		QPS:             -1,
	}
}

// WriteKubeconfig writes a kubeconfig for config, complete in itself, with namespace as its default.
func (cp *ControlPlane) WriteKubeconfig(path string, config *rest.Config, namespace string) error {
	const name = "local"
	kubeconfig := clientcmdapi.NewConfig()
	kubeconfig.Clusters[name] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData, TLSServerName: config.ServerName}
	kubeconfig.AuthInfos[name] = &clientcmdapi.AuthInfo{
		ClientCertificateData: config.CertData,
		ClientKeyData:         config.KeyData,
		Token:                 config.BearerToken,
		TokenFile:             config.BearerTokenFile,
		Impersonate:           config.Impersonate.UserName,
		ImpersonateGroups:     config.Impersonate.Groups,
	}
	kubeconfig.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name, Namespace: namespace}
	kubeconfig.CurrentContext = name
	content, err := clientcmd.Write(*kubeconfig)
	if err != nil {
		return fmt.Errorf("encode the kubeconfig: %w", err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return fmt.Errorf("write the kubeconfig: %w", err)
	}
	return nil
}
