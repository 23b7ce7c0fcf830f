// Package post receives what the operator sends: a mail server and a webhook receiver on loopback, real ones, that can be told
// to refuse, to stall and to be gone.
package post

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// Mail is one mail that was taken.
type Mail struct {
	From, To string
	// Username is who had logged in.
	Username string
	// Private says that it came over TLS.
	Private bool
	Data    string
}

// MailServer is a mail server on loopback.
type MailServer struct {
	// Address is its host and port.
	Address string
	// CABundle is by whom its certificate is vouched for.
	CABundle string

	options MailOptions
	mu      sync.Mutex
	mails   []Mail
	refuse  func(to string) error
	server  *smtp.Server
	listen  net.Listener
}

// MailOptions say what a mail server is like.
type MailOptions struct {
	// TLS offers STARTTLS, Implicit expects TLS from the first byte.
	TLS, Implicit bool
	// Username and Password are asked for where they are given.
	Username, Password string
	// Address is where to listen, empty for a free port.
	Address string
	// Certificate is by an earlier server, so that a new one is known by the same bundle.
	Certificate *Certificate
}

// StartMail starts a mail server and stops it when the test ends.
func StartMail(t testing.TB, o MailOptions) *MailServer {
	t.Helper()
	if o.Certificate == nil {
		o.Certificate = NewCertificate(t)
	}
	if o.Address == "" {
		o.Address = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", o.Address)
	if err != nil {
		t.Fatalf("listen for mail: %v", err)
	}
	m := &MailServer{Address: listener.Addr().String(), CABundle: o.Certificate.Bundle, options: o}
	m.server = smtp.NewServer(m)
	m.server.Domain, m.server.AllowInsecureAuth, m.server.ErrorLog = "mail.test", false, quiet{}
	config := &tls.Config{Certificates: []tls.Certificate{o.Certificate.Pair}, MinVersion: tls.VersionTLS12}
	if o.TLS {
		m.server.TLSConfig = config
	}
	if o.Implicit {
		listener = tls.NewListener(listener, config)
	}
	m.listen = listener
	go func() { _ = m.server.Serve(listener) }()
	t.Cleanup(m.Stop)
	return m
}

// Stop makes the server be gone.
func (m *MailServer) Stop() {
	// One that was only just started does not know yet where it listens.
	_ = m.listen.Close()
	_ = m.server.Close()
}

// Refuse makes the server ask a function about each recipient.
func (m *MailServer) Refuse(f func(to string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuse = f
}

// Refusal is a refusal with a code, such as 550.
func Refusal(code int, message string) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 1, 1}, Message: message}
}

// Mails are those that were taken so far.
func (m *MailServer) Mails() []Mail {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Mail(nil), m.mails...)
}

// Subjects returns the subject lines of the mails to somebody, in the order in which they came.
func (m *MailServer) Subjects(to string) []string {
	var subjects []string
	for _, mail := range m.Mails() {
		if mail.To != to {
			continue
		}
		for line := range strings.Lines(mail.Data) {
			if subject, ok := strings.CutPrefix(line, "Subject: "); ok {
				subjects = append(subjects, strings.TrimSpace(subject))
				break
			}
		}
	}
	return subjects
}

// IDs returns the ids of the mails, each once.
func (m *MailServer) IDs() []string {
	var ids []string
	for _, mail := range m.Mails() {
		for line := range strings.Lines(mail.Data) {
			if id, ok := strings.CutPrefix(line, "Message-ID: "); ok && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// NewSession implements smtp.Backend.
func (m *MailServer) NewSession(c *smtp.Conn) (smtp.Session, error) {
	return &session{server: m, conn: c}, nil
}

type session struct {
	server             *MailServer
	conn               *smtp.Conn
	username, from, to string
}

// AuthMechanisms implements smtp.AuthSession.
func (s *session) AuthMechanisms() []string {
	if s.server.options.Username == "" {
		return nil
	}
	return []string{sasl.Plain}
}

// Auth implements smtp.AuthSession.
func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, username, password string) error {
		if username != s.server.options.Username || password != s.server.options.Password {
			return &smtp.SMTPError{Code: 535, EnhancedCode: smtp.EnhancedCode{5, 7, 8}, Message: "no, " + password + " is not it"}
		}
		s.username = username
		return nil
	}), nil
}

// Mail implements smtp.Session.
func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	if s.server.options.Username != "" && s.username == "" {
		return smtp.ErrAuthRequired
	}
	s.from = from
	return nil
}

// Rcpt implements smtp.Session.
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.server.mu.Lock()
	refuse := s.server.refuse
	s.server.mu.Unlock()
	if refuse != nil {
		if err := refuse(to); err != nil {
			return err
		}
	}
	s.to = to
	return nil
}

// Data implements smtp.Session.
func (s *session) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	_, private := s.conn.TLSConnectionState()
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.mails = append(s.server.mails, Mail{From: s.from, To: s.to, Username: s.username, Private: private, Data: string(data)})
	return nil
}

// Reset implements smtp.Session.
func (s *session) Reset() { s.from, s.to = "", "" }

// Logout implements smtp.Session.
func (s *session) Logout() error { return nil }

// quiet is a log that nobody reads: that a client hangs up is what some tests are about.
type quiet struct{}

func (quiet) Printf(string, ...any) {}
func (quiet) Println(...any)        {}

// Certificate is a certificate for loopback.
type Certificate struct {
	Pair   tls.Certificate
	Bundle string
}

// NewCertificate makes one that vouches for itself.
func NewCertificate(t testing.TB) *Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("make a key: %v", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "loopback"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatalf("make a certificate: %v", err)
	}
	var bundle bytes.Buffer
	if err := pem.Encode(&bundle, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
		t.Fatal(errors.Join(err))
	}
	return &Certificate{Pair: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, Bundle: bundle.String()}
}
