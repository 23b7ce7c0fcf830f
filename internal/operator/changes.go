package operator

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"supportaccess.dev/operator/internal/audit/change"
	"supportaccess.dev/operator/internal/gateway"
)

// ChangeOptions are what the gateway can be told of how changes are put on record, before and after.
type ChangeOptions struct {
	// Address is where the API server asks, CertDir has the certificate by which it knows the gateway.
	Address string
	CertDir string
	// Mask are the paths of what is secret besides Secrets.
	Mask []string
}

func (o *ChangeOptions) bind(flags *pflag.FlagSet) {
	flags.StringVar(&o.Address, "webhook-bind-address", "0", "address at which the API server asks before an engineer changes something, over TLS; 0 for none")
	flags.StringVar(&o.CertDir, "webhook-cert-dir", "/etc/support-access/webhook", "folder with tls.crt and tls.key for that, read again when they change")
	flags.StringArrayVar(&o.Mask, "audit-mask", nil, "what is masked in objects on record besides Secrets and environment variables: RESOURCE:PATH or RESOURCE.GROUP:PATH, such as configmaps:data.password; may be given again")
}

func (o *ChangeOptions) check() error {
	if _, err := change.NewMasker(nil, o.Mask); err != nil {
		return fmt.Errorf("--audit-mask: %w", err)
	}
	return nil
}

// serve has the gateway answer the API server.
func (o *ChangeOptions) serve(mgr ctrl.Manager, door *gateway.Gateway, secret []byte) error {
	if o.Address == "0" {
		return nil
	}
	masker, err := change.NewMasker(secret, o.Mask)
	if err != nil {
		return fmt.Errorf("--audit-mask: %w", err)
	}
	certificate := &gateway.Certificate{Dir: o.CertDir, Clock: clock.RealClock{}}
	if err := mgr.Add(certificate); err != nil {
		return fmt.Errorf("set up the webhook's certificate: %w", err)
	}
	listener, err := net.Listen("tcp", o.Address)
	if err != nil {
		return fmt.Errorf("listen on --webhook-bind-address: %w", err)
	}
	server := &manager.Server{
		Name:     "changes",
		Listener: tls.NewListener(listener, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate.Get, NextProtos: []string{"h2", "http/1.1"}}),
		Server: &http.Server{
			Handler: door.Reviews(masker, certificate.Key), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
			MaxHeaderBytes: 64 << 10, ErrorLog: stdlog.New(io.Discard, "", 0),
		},
	}
	// A question that meets the closing of a connection that was kept is lost, and with it an engineer's change: the API server
	// does not ask twice. So none is kept.
	server.Server.SetKeepAlivesEnabled(false)
	if err := mgr.Add(server); err != nil {
		return fmt.Errorf("set up the webhook of changes: %w", err)
	}
	if err := mgr.AddReadyzCheck("webhook-certificate", certificate.Ready); err != nil {
		return fmt.Errorf("add readiness check: %w", err)
	}
	return nil
}

// secrets returns what replicas that share the log's keys share: the keys themselves, from which others are made. A log that
// is just a file of lines has none.
func (o *AuditOptions) secrets() ([][]byte, error) {
	if !o.isKept() {
		own := make([]byte, 32)
		_, _ = rand.Read(own)
		return [][]byte{own}, nil
	}
	content, err := os.ReadFile(o.Key)
	if err != nil {
		return nil, fmt.Errorf("read --audit-key: %w", err)
	}
	var secrets [][]byte
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		secrets = append(secrets, block.Bytes)
	}
	if len(secrets) == 0 {
		return nil, errors.New("read --audit-key: there is no key in PEM")
	}
	return secrets, nil
}
