package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// attemptTimeout bounds one attempt from its first byte to its last.
const attemptTimeout = 15 * time.Second

// Endpoint is where a webhook listens.
type Endpoint struct {
	// URL is where to post to.
	URL string
	// Roots are by whom the other side must be vouched for, nil for the system's.
	Roots *x509.CertPool
	// Reach is where it may lead.
	Reach *Reach
}

// Slack is an incoming webhook of Slack, or of what understands the same.
type Slack struct{ Endpoint }

// Send tells a notice.
func (s Slack) Send(ctx context.Context, notice Notice, now time.Time) Result {
	body, err := notice.slackBody()
	if err != nil {
		return Result{Err: err, Permanent: true}
	}
	return s.post(ctx, body, http.Header{"Content-Type": {"application/json"}}, now)
}

// Webhook is a receiver of CloudEvents.
type Webhook struct {
	Endpoint
	// Signing are the secrets with which each body is signed: whsec_ and Base64, one, or two while one is replaced.
	Signing string
}

// Send tells a notice, signed at an instant.
func (w Webhook) Send(ctx context.Context, notice Notice, now time.Time) Result {
	body, err := notice.eventBody()
	if err != nil {
		return Result{Err: err, Permanent: true}
	}
	return w.Post(ctx, Signed{ID: notice.ID, ContentType: "application/cloudevents+json; charset=utf-8", Body: body}, now)
}

// Signed is what is posted with a signature. Its ID is the same whenever the same is posted.
type Signed struct {
	ID, ContentType string
	Body            []byte
}

// Post posts something, signed at an instant as Standard Webhooks has it.
func (w Webhook) Post(ctx context.Context, what Signed, now time.Time) Result {
	signature, err := sign(w.Signing, what.ID, now, what.Body)
	if err != nil {
		return Result{Err: err}
	}
	return w.post(ctx, what.Body, http.Header{
		"Content-Type":      {what.ContentType},
		"Webhook-Id":        {what.ID},
		"Webhook-Timestamp": {strconv.FormatInt(now.Unix(), 10)},
		"Webhook-Signature": {signature},
	}, now)
}

// sign returns the signatures of a body as Standard Webhooks has them, one for each secret.
func sign(secrets, id string, now time.Time, body []byte) (string, error) {
	var signatures []string
	for i, secret := range strings.Fields(secrets) {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
		if err != nil || len(key) < 16 {
			return "", fmt.Errorf("signing secret %d is not whsec_ and Base64 of at least 16 bytes", i+1)
		}
		mac := hmac.New(sha256.New, key)
		_, _ = fmt.Fprintf(mac, "%s.%d.", id, now.Unix())
		_, _ = mac.Write(body)
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	if len(signatures) == 0 {
		return "", errors.New("there is no signing secret")
	}
	return strings.Join(signatures, " "), nil
}

// post posts a body of which nobody wants to know the answer.
func (e Endpoint) post(ctx context.Context, body []byte, header http.Header, now time.Time) Result {
	_, result := e.Exchange(ctx, body, header, now)
	return result
}

// maxAnswer is how much of an answer is read.
const maxAnswer = 64 << 10

// Exchange posts a body and returns the beginning of the answer to it, 64 KiB at most. Anything but a success is a failure, a
// redirect too: it would lead where nobody said.
func (e Endpoint) Exchange(ctx context.Context, body []byte, header http.Header, now time.Time) ([]byte, Result) {
	target, err := e.target()
	if err != nil {
		return nil, Result{Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return nil, Result{Err: errors.New("the URL cannot be asked")}
	}
	request.Header = header
	request.Header.Set("User-Agent", "support-access")
	client, done := e.client()
	defer done()
	response, err := client.Do(request)
	if err != nil {
		return nil, Result{Err: err}
	}
	defer func() { _ = response.Body.Close() }()
	answer, _ := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	return answer, answered(response, now)
}

// answered says what an answer means.
func answered(response *http.Response, now time.Time) Result {
	if response.StatusCode >= 200 && response.StatusCode < 300 {
		return Result{}
	}
	result := Result{
		Err:        fmt.Errorf("the answer was %d %s", response.StatusCode, http.StatusText(response.StatusCode)),
		Permanent:  response.StatusCode == http.StatusGone,
		RetryAfter: retryAfter(response.Header.Get("Retry-After"), now),
	}
	if response.StatusCode >= 300 && response.StatusCode < 400 {
		result.Err = fmt.Errorf("%w, and redirects are not followed", result.Err)
	}
	return result
}

// retryAfter reads seconds or an instant.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseInt(strings.TrimSpace(value), 10, 32); err == nil {
		return min(max(time.Duration(seconds)*time.Second, 0), GiveUpAfter)
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(at.Sub(now), 0), GiveUpAfter)
	}
	return 0
}

// target returns where to post to. What is wrong with it is said without it: a Slack URL is a secret.
func (e Endpoint) target() (string, error) {
	u, err := url.Parse(strings.TrimSpace(e.URL))
	if err != nil || u.Host == "" || u.User != nil {
		return "", errors.New("the URL is none, or names a user")
	}
	switch {
	case u.Scheme == "https":
	case u.Scheme == "http" && e.Reach.plaintext():
	default:
		return "", errors.New("the URL is not https; --notify-plaintext lets channels go without")
	}
	return u.String(), nil
}

// client returns a client that follows nothing, remembers nothing and asks no proxy, and how to be done with it.
func (e Endpoint) client() (*http.Client, func()) {
	transport := &http.Transport{
		DialContext:            e.Reach.dial,
		TLSClientConfig:        &tls.Config{RootCAs: e.Roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    dialTimeout,
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return client, transport.CloseIdleConnections
}
