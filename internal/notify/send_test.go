package notify

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/mail"
	"net/netip"
	"strings"
	"testing"
	"time"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/post"
)

// loopback lets channels reach this machine, where the tests' servers are.
var loopback = &Reach{Allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}

const (
	signingSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	password      = "correct-horse-battery"
)

func rootsOf(t *testing.T, bundle string) *x509.CertPool {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(bundle)) {
		t.Fatal("no certificate")
	}
	return roots
}

func mailTo(t *testing.T, s *post.MailServer, way v1alpha1.MailTLS) Mail {
	return Mail{Server: s.Address, TLS: way, Roots: rootsOf(t, s.CABundle), From: "access@operator.test", Reach: loopback}
}

func TestAMailComesOverTLSWithItsLoginAsTextAndAsAPage(t *testing.T) {
	for name, c := range map[string]struct {
		options post.MailOptions
		way     v1alpha1.MailTLS
	}{
		"STARTTLS":     {post.MailOptions{TLS: true, Username: "operator", Password: password}, v1alpha1.MailTLSStart},
		"implicit TLS": {post.MailOptions{Implicit: true, Username: "operator", Password: password}, v1alpha1.MailTLSImplicit},
	} {
		t.Run(name, func(t *testing.T) {
			server := post.StartMail(t, c.options)
			m := mailTo(t, server, c.way)
			m.Username, m.Password = "operator", password
			n := notice()
			result := m.Send(t.Context(), n, []string{"ana@customer.test", "bo@customer.test"}, n.Time)
			if result.Err != nil || len(result.Told) != 2 {
				t.Fatalf("it was not sent: %+v", result)
			}
			mails := server.Mails()
			if len(mails) != 2 || mails[0].To != "ana@customer.test" || mails[1].To != "bo@customer.test" {
				t.Fatalf("the server took %d mails: %+v", len(mails), mails)
			}
			if !mails[0].Private || mails[0].Username != "operator" {
				t.Errorf("private: %t, logged in as %q", mails[0].Private, mails[0].Username)
			}
			text, page := bodiesOf(t, mails[0].Data)
			for _, want := range []string{"CASE-4711", "ana@vendor.example", "mail-archive", "2026-11-24 12:00:00 UTC", "kubectl delete supportaccessgrant case-4711 -n mail-archive"} {
				if !strings.Contains(text, want) || !strings.Contains(page, want) {
					t.Errorf("%q is not in both:\n%s\n%s", want, text, page)
				}
			}
			if strings.Contains(mails[0].Data, "bo@customer.test") {
				t.Error("one recipient learns of the other")
			}
		})
	}
}

// bodiesOf returns the text and the page of a mail.
func bodiesOf(t *testing.T, data string) (string, string) {
	t.Helper()
	message, err := mail.ReadMessage(strings.NewReader(data))
	if err != nil {
		t.Fatalf("read the mail: %v\n%s", err, data)
	}
	_, params, err := mime.ParseMediaType(message.Header.Get("Content-Type"))
	if err != nil {
		t.Fatalf("read the content type: %v", err)
	}
	bodies := map[string]string{}
	for parts := multipart.NewReader(message.Body, params["boundary"]); ; {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return bodies["text/plain"], bodies["text/html"]
		}
		if err != nil {
			t.Fatalf("read a part: %v", err)
		}
		kind, _, _ := mime.ParseMediaType(part.Header.Get("Content-Type"))
		body, err := io.ReadAll(part)
		if err != nil {
			t.Fatal(err)
		}
		bodies[kind] = string(body)
	}
}

func TestAMailThatIsSentAgainHasTheSameIDAndNobodyHasItTwice(t *testing.T) {
	server := post.StartMail(t, post.MailOptions{TLS: true})
	m, n := mailTo(t, server, v1alpha1.MailTLSStart), notice()
	for range 2 {
		if result := m.Send(t.Context(), n, []string{"ana@customer.test"}, n.Time); result.Err != nil {
			t.Fatal(result.Err)
		}
	}
	ids := map[string]bool{}
	for _, taken := range server.Mails() {
		message, err := mail.ReadMessage(strings.NewReader(taken.Data))
		if err != nil {
			t.Fatal(err)
		}
		ids[message.Header.Get("Message-Id")] = true
	}
	if len(ids) != 1 {
		t.Errorf("two attempts have the ids %v", ids)
	}
}

func TestOneRefusedAddressKeepsNobodyElseFromTheMail(t *testing.T) {
	server := post.StartMail(t, post.MailOptions{TLS: true})
	server.Refuse(func(to string) error {
		switch to {
		case "gone@customer.test":
			return post.Refusal(550, "no such user")
		case "later@customer.test":
			return post.Refusal(451, "greylisted")
		default:
			return nil
		}
	})
	m, n := mailTo(t, server, v1alpha1.MailTLSStart), notice()
	result := m.Send(t.Context(), n, []string{"gone@customer.test", "ana@customer.test", "later@customer.test"}, n.Time)
	if result.Err == nil || result.Permanent || strings.Join(result.Told, " ") != "gone@customer.test ana@customer.test" || result.Refused != 1 {
		t.Fatalf("with one that may take it later: %+v", result)
	}
	server.Refuse(func(to string) error {
		if to == "gone@customer.test" {
			return post.Refusal(550, "no such user")
		}
		return nil
	})
	result = m.Send(t.Context(), n, []string{"gone@customer.test", "later@customer.test"}, n.Time)
	if !result.Permanent || len(result.Told) != 2 || !strings.Contains(result.Failure(), "refuses 1 of 2 addresses") {
		t.Fatalf("with one that never will: %+v", result)
	}
	if got := len(server.Mails()); got != 2 {
		t.Errorf("the server took %d mails", got)
	}
}

func TestAMailServerThatCannotBeTrustedGetsNothing(t *testing.T) {
	plain := post.StartMail(t, post.MailOptions{})
	foreign := post.StartMail(t, post.MailOptions{TLS: true})
	locked := post.StartMail(t, post.MailOptions{TLS: true, Username: "operator", Password: password})
	other := post.NewCertificate(t).Bundle
	n := notice()
	for name, c := range map[string]struct {
		mail Mail
		want string
	}{
		"offers no TLS":              {mailTo(t, plain, v1alpha1.MailTLSStart), "STARTTLS"},
		"is asked for none":          {mailTo(t, plain, v1alpha1.MailTLSNone), "--notify-plaintext"},
		"is vouched for by nobody":   {Mail{Server: foreign.Address, Roots: rootsOf(t, other), From: "a@operator.test", Reach: loopback}, "certificate"},
		"is on this machine":         {Mail{Server: foreign.Address, Roots: rootsOf(t, foreign.CABundle), From: "a@operator.test"}, "may not reach"},
		"does not take the password": {Mail{Server: locked.Address, Roots: rootsOf(t, locked.CABundle), From: "a@operator.test", Username: "operator", Password: "wrong-password", Reach: loopback}, "[secret] is not it"},
	} {
		t.Run(name, func(t *testing.T) {
			result := c.mail.Send(t.Context(), n, []string{"ana@customer.test"}, n.Time)
			if result.Err == nil || result.Permanent || len(result.Told) > 0 {
				t.Fatalf("%+v", result)
			}
			failure := result.Failure(c.mail.Password)
			if !strings.Contains(failure, c.want) || strings.Contains(failure, "wrong-password") {
				t.Errorf("the failure is %q, want %q in it", failure, c.want)
			}
		})
	}
	if n := len(plain.Mails()) + len(foreign.Mails()) + len(locked.Mails()); n > 0 {
		t.Errorf("%d mails were taken", n)
	}
}

func TestAMailServerThatHangsIsLeftWhenTheTimeIsOver(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	m := Mail{Server: listener.Addr().String(), From: "a@operator.test", Reach: loopback}
	if result := m.Send(ctx, notice(), []string{"ana@customer.test"}, time.Now()); result.Err == nil {
		t.Error("it was sent")
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestAWebhookIsACloudEventThatIsSignedWithEachSecret(t *testing.T) {
	receiver := post.StartReceiver(t)
	second := "whsec_c2Vjb25kLXNlY29uZC1zZWNvbmQtc2Vjb25k"
	w := Webhook{Endpoint: Endpoint{URL: receiver.URL, Roots: rootsOf(t, receiver.CABundle), Reach: loopback}, Signing: signingSecret + " " + second}
	n := notice()
	if result := w.Send(t.Context(), n, n.Time); result.Err != nil {
		t.Fatal(result.Err)
	}
	posted := receiver.Posted()
	if len(posted) != 1 || !posted[0].Signed(signingSecret) || !posted[0].Signed(second) || posted[0].Signed("whsec_b3RoZXItb3RoZXItb3RoZXItb3RoZXI=") {
		t.Fatalf("it came %d times, signed: %v", len(posted), posted)
	}
	var event map[string]any
	if err := json.Unmarshal([]byte(posted[0].Body), &event); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"specversion": "1.0", "id": n.ID, "type": "dev.supportaccess.granted", "source": "/supportaccess.dev/grants/mail-archive",
		"subject": "case-4711", "time": "2026-11-23T12:00:00Z", "datacontenttype": "application/json",
	} {
		if event[key] != want {
			t.Errorf("%s is %v, want %v", key, event[key], want)
		}
	}
	if id := posted[0].Header.Get("webhook-id"); id != n.ID {
		t.Errorf("webhook-id is %q", id)
	}
}

func TestTheSignatureIsTheOneOfTheSpecification(t *testing.T) {
	got, err := sign(signingSecret, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	for _, bad := range []string{"", "whsec_short", "whsec_%%%", signingSecret + " whsec_c2hvcnQ="} {
		if _, err := sign(bad, "id", time.Now(), nil); err == nil || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("with %q: %v", bad, err)
		}
	}
}

func TestWhatAnAnswerOfAWebhookMeans(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	elsewhere := post.StartReceiver(t)
	for name, c := range map[string]struct {
		answer    http.HandlerFunc
		permanent bool
		after     time.Duration
		want      string
	}{
		"taken":              {status(http.StatusAccepted, ""), false, 0, ""},
		"too many":           {status(http.StatusTooManyRequests, "120"), false, 2 * time.Minute, "429"},
		"too many, until":    {status(http.StatusTooManyRequests, "Mon, 23 Nov 2026 12:10:00 GMT"), false, 10 * time.Minute, "429"},
		"too many, for ever": {status(http.StatusTooManyRequests, "99999999"), false, 24 * time.Hour, "429"},
		"too many, nonsense": {status(http.StatusTooManyRequests, "soon"), false, 0, "429"},
		"broken":             {status(http.StatusInternalServerError, ""), false, 0, "500"},
		"gone":               {status(http.StatusGone, ""), true, 0, "410"},
		"somewhere else": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		}, false, 0, "redirects are not followed"},
		"hangs up":           {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, false, 0, "EOF"},
		"a body without end": {endless, false, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			receiver := post.StartReceiver(t)
			receiver.Answer(c.answer)
			result := Slack{Endpoint{URL: receiver.URL, Roots: rootsOf(t, receiver.CABundle), Reach: loopback}}.Send(t.Context(), notice(), now)
			if (result.Err == nil) != (c.want == "") || result.Permanent != c.permanent || result.RetryAfter != c.after {
				t.Fatalf("%+v", result)
			}
			if failure := result.Failure(); !strings.Contains(failure, c.want) || strings.Contains(failure, receiver.URL) {
				t.Errorf("the failure is %q", failure)
			}
		})
	}
	if n := len(elsewhere.Posted()); n > 0 {
		t.Errorf("a redirect was followed %d times", n)
	}
}

func status(code int, retryAfter string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		w.WriteHeader(code)
	}
}

func endless(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		if _, err := w.Write(make([]byte, 1<<16)); err != nil {
			return
		}
	}
}

func TestAWebhookThatHangsIsLeftWhenTheTimeIsOver(t *testing.T) {
	receiver := post.StartReceiver(t)
	receiver.Answer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	result := Slack{Endpoint{URL: receiver.URL, Roots: rootsOf(t, receiver.CABundle), Reach: loopback}}.Send(ctx, notice(), time.Now())
	if result.Err == nil || !errors.Is(result.Err, context.DeadlineExceeded) {
		t.Errorf("%+v", result)
	}
}

func TestAWebhookGoesNowhereThatItMayNot(t *testing.T) {
	receiver := post.StartReceiver(t)
	roots := rootsOf(t, receiver.CABundle)
	named := strings.Replace(receiver.URL, "127.0.0.1", "localhost", 1)
	for name, c := range map[string]struct {
		url   string
		reach *Reach
		want  string
	}{
		"loopback":                 {receiver.URL, nil, "may not reach"},
		"a name that means it":     {named, nil, "may not reach"},
		"loopback as IPv6 in IPv4": {strings.Replace(receiver.URL, "127.0.0.1", "[::ffff:127.0.0.1]", 1), nil, "may not reach"},
		"the metadata of a cloud":  {"https://169.254.169.254/latest", nil, "may not reach"},
		"without TLS":              {strings.Replace(receiver.URL, "https", "http", 1), loopback, "not https"},
		"a file":                   {"file:///etc/passwd", loopback, "is none"},
		"with a user":              {strings.Replace(receiver.URL, "https://", "https://me:secret@", 1), loopback, "names a user"},
		"nonsense":                 {"https://%zz", loopback, "is none"},
	} {
		t.Run(name, func(t *testing.T) {
			result := Slack{Endpoint{URL: c.url, Roots: roots, Reach: c.reach}}.Send(t.Context(), notice(), time.Now())
			if result.Err == nil || !strings.Contains(result.Failure(), c.want) {
				t.Errorf("%q, want %q in it", result.Failure(), c.want)
			}
			if strings.Contains(result.Failure(), "secret") {
				t.Errorf("the URL is in the failure: %s", result.Failure())
			}
		})
	}
	if n := len(receiver.Posted()); n > 0 {
		t.Errorf("the receiver was reached %d times", n)
	}
	if result := (Slack{Endpoint{URL: named, Roots: roots, Reach: &Reach{Allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}}}}).Send(t.Context(), notice(), time.Now()); result.Err != nil {
		t.Errorf("where it may, it does not either: %v", result.Err)
	}
}

func TestWhichAddressesAChannelMayReach(t *testing.T) {
	for address, want := range map[string]bool{
		"10.0.0.25": true, "192.168.1.1": true, "93.184.216.34": true, "2001:db8::1": true, "fd12::1": true,
		"127.0.0.1": false, "127.9.9.9": false, "::1": false, "::ffff:127.0.0.1": false, "169.254.169.254": false, "fe80::1": false,
		"fe80::1%eth0": false, "0.0.0.0": false, "0.1.2.3": false, "::": false, "224.0.0.1": false, "ff02::1": false,
		"255.255.255.255": false, "240.0.0.1": false, "100.100.100.200": false, "168.63.129.16": false, "fd00:ec2::254": false,
		"64:ff9b::a9fe:a9fe": false, "64:ff9b::5db8:d822": true, "2002:7f00:1::": false, "::7f00:1": false,
	} {
		if got := (*Reach)(nil).Permits(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %t", address, got)
		}
	}
	if (*Reach)(nil).Permits(netip.Addr{}) {
		t.Error("no address at all")
	}
}
