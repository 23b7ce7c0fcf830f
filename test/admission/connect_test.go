package admission

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"testing"

	"k8s.io/client-go/kubernetes"
)

// connect opens, or fails to open, a stream to a subresource: the API server asks admission before it looks whether
// there is anything to connect to.
func (p *person) connect(t *testing.T, namespace, path string) error {
	t.Helper()
	clients, err := kubernetes.NewForConfig(p.config)
	if err != nil {
		t.Fatal(err)
	}
	request := clients.CoreV1().RESTClient().Post()
	if namespace != "" {
		request = request.Namespace(namespace)
	}
	return request.Suffix(path).Do(t.Context()).Error()
}

// certificateRequest is a request for a client certificate, as PEM.
func (w *world) certificateRequest(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "x"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request})
}
