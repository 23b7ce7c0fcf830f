package notify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wneessen/go-mail"

	"supportaccess.dev/operator/api/v1alpha1"
)

// mailTimeout bounds one attempt, however many are written to.
const mailTimeout = 30 * time.Second

// Mail is a mail server.
type Mail struct {
	// Server is its host and port.
	Server string
	// TLS says how the connection is made private.
	TLS v1alpha1.MailTLS
	// Roots are by whom the server must be vouched for, nil for the system's.
	Roots *x509.CertPool
	// From is the sender's address.
	From string
	// Username and Password are who to be there, both empty to be nobody.
	Username, Password string
	// Reach is where it may lead.
	Reach *Reach
}

// Send writes to each address a mail of its own, so that nobody learns of the others and one that is refused keeps nobody
// from having it.
func (m Mail) Send(ctx context.Context, notice Notice, to []string, now time.Time) Result {
	if len(to) == 0 {
		return Result{}
	}
	ctx, cancel := context.WithTimeout(ctx, mailTimeout)
	defer cancel()
	messages := make([]*mail.Msg, 0, len(to))
	for _, address := range to {
		message, err := m.message(notice, address, now)
		if err != nil {
			return Result{Err: err}
		}
		messages = append(messages, message)
	}
	var line wire
	client, err := m.client(&line)
	if err != nil {
		return Result{Err: err}
	}
	// Whatever becomes of the conversation, and of those who hang in it, the line is closed at the end.
	defer line.close()
	defer context.AfterFunc(ctx, line.close)()
	if err := client.DialWithContext(ctx); err != nil {
		return Result{Err: fmt.Errorf("begin with the mail server: %w", err)}
	}
	err = client.Send(messages...)
	// What was said is said: that the server does not say goodbye is no failure.
	_ = client.Close()
	return mailed(to, messages, err)
}

// mailed says what became of each mail. Whom the server refuses for good is not written to again.
func mailed(to []string, messages []*mail.Msg, all error) Result {
	var result Result
	var owed, refused error
	for i, message := range messages {
		switch failed, _ := errors.AsType[*mail.SendError](message.SendError()); {
		case message.IsDelivered():
			result.Told = append(result.Told, to[i])
		case failed != nil && failed.Reason == mail.ErrSMTPRcptTo && failed.ErrorCode() >= 500:
			result.Told, result.Refused, refused = append(result.Told, to[i]), result.Refused+1, failed
		case failed != nil:
			owed = failed
		default:
			owed = errors.Join(all, errors.New("the mail was not taken"))
		}
	}
	switch {
	case owed != nil:
		result.Err = fmt.Errorf("write to %d of %d: %w", len(to)-len(result.Told), len(to), owed)
	case refused != nil:
		result.Err, result.Permanent = fmt.Errorf("the mail server refuses %d of %d addresses: %w", result.Refused, len(to), refused), true
	}
	return result
}

// message renders a mail. Its id is the same in every attempt.
func (m Mail) message(notice Notice, to string, now time.Time) (*mail.Msg, error) {
	message := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := errors.Join(message.From(m.From), message.To(to)); err != nil {
		return nil, fmt.Errorf("address a mail: %w", err)
	}
	page, err := notice.html()
	if err != nil {
		return nil, err
	}
	_, domain, _ := strings.Cut(m.From, "@")
	message.Subject(notice.headline())
	message.SetDateWithValue(now)
	message.SetMessageIDWithValue(notice.ID + "." + Digest(to) + "@" + domain)
	message.SetGenHeader("Auto-Submitted", "auto-generated")
	message.SetGenHeader("X-Support-Access-Notice", notice.ID)
	message.SetBodyString(mail.TypeTextPlain, notice.text())
	message.AddAlternativeString(mail.TypeTextHTML, page)
	return message, nil
}

// wire is the connection to a mail server, from when there is one.
type wire struct {
	mu   sync.Mutex
	conn net.Conn
}

func (w *wire) hold(conn net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conn = conn
}

func (w *wire) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn != nil {
		_ = w.conn.Close()
	}
}

// client returns a client that connects where it may.
func (m Mail) client(line *wire) (*mail.Client, error) {
	host, port, err := net.SplitHostPort(m.Server)
	if err != nil {
		return nil, fmt.Errorf("read mail server %q: %w", m.Server, err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("read the port of mail server %q: %w", m.Server, err)
	}
	config := &tls.Config{ServerName: host, RootCAs: m.Roots, MinVersion: tls.VersionTLS12}
	policy := mail.TLSMandatory
	switch {
	case m.TLS == v1alpha1.MailTLSNone && !m.Reach.plaintext():
		return nil, errors.New("the channel asks for no TLS; --notify-plaintext lets channels go without")
	case m.TLS == v1alpha1.MailTLSNone, m.TLS == v1alpha1.MailTLSImplicit:
		policy = mail.NoTLS
	}
	options := []mail.Option{
		mail.WithPort(int(number)), mail.WithTimeout(attemptTimeout), mail.WithTLSConfig(config), mail.WithTLSPolicy(policy),
		mail.WithHELO("support-access"), mail.WithDialContextFunc(m.dialer(config, line)),
	}
	if m.Username != "" {
		options = append(options, mail.WithUsername(m.Username), mail.WithPassword(m.Password), mail.WithOpportunisticSMTPAuth(
			mail.SMTPAuthSCRAMSHA256, mail.SMTPAuthSCRAMSHA1, mail.SMTPAuthPlain, mail.SMTPAuthLogin))
	}
	client, err := mail.NewClient(host, options...)
	if err != nil {
		return nil, fmt.Errorf("address mail server %q: %w", m.Server, err)
	}
	return client, nil
}

// dialer connects, and where TLS begins at once begins it: what is returned then is known to be private.
func (m Mail) dialer(config *tls.Config, line *wire) mail.DialContextFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := m.Reach.dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		line.hold(conn)
		if m.TLS != v1alpha1.MailTLSImplicit {
			return conn, nil
		}
		private := tls.Client(conn, config)
		if err := private.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("begin TLS: %w", err)
		}
		return private, nil
	}
}
