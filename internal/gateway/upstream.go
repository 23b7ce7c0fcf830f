package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/rest"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
)

// Extras that travel with an engineer's identity, so that the API server's audit log and every webhook see them.
const (
	extraGrant   = "supportaccess.dev/grant"
	extraCase    = "supportaccess.dev/case"
	extraRequest = "supportaccess.dev/request"
)

// upstream is the way to the API server.
type upstream struct {
	base *url.URL
	// plain shares connections, upgrade makes one for each stream: one that was upgraded is never used again.
	plain, upgrade http.RoundTripper
}

// newUpstream returns the way to the API server that a client configuration means.
func newUpstream(config *rest.Config) (*upstream, error) {
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("find the API server: %w", err)
	}
	if base.Path != "" && base.Path != "/" {
		return nil, fmt.Errorf("find the API server: %s: a path below the address is not supported", base)
	}
	tlsConfig, err := rest.TLSConfigFor(config)
	if err != nil {
		return nil, fmt.Errorf("read the certificates of the API server: %w", err)
	}
	plain, err := rest.HTTPWrappersForConfig(config, transport(tlsConfig, true))
	if err != nil {
		return nil, fmt.Errorf("make the way to the API server: %w", err)
	}
	upgrade, err := rest.HTTPWrappersForConfig(config, transport(tlsConfig, false))
	if err != nil {
		return nil, fmt.Errorf("make the way to the API server: %w", err)
	}
	return &upstream{base: base, plain: plain, upgrade: upgrade}, nil
}

func transport(tlsConfig *tls.Config, shared bool) *http.Transport { //nolint:revive // Two transports differ in this alone.
	t := &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		TLSClientConfig:       tlsConfig.Clone(),
		MaxIdleConnsPerHost:   100,
		IdleConnTimeout:       90 * time.Second,
		ForceAttemptHTTP2:     shared,
		DisableKeepAlives:     !shared,
		DisableCompression:    true,
		ExpectContinueTimeout: time.Second,
		WriteBufferSize:       32 << 10,
		ReadBufferSize:        32 << 10,
	}
	if shared {
		return t
	}
	t.TLSClientConfig.NextProtos = []string{"http/1.1"}
	t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	return t
}

// RoundTrip sends a request on the way that its protocol needs.
func (u *upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	if upgrading(r) {
		return u.upgrade.RoundTrip(r)
	}
	return u.plain.RoundTrip(r)
}

type exchangeKey struct{}

// proxy forwards what was let through.
func (u *upstream) proxy() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			x, _ := p.In.Context().Value(exchangeKey{}).(*exchange)
			u.rewrite(p, x)
		},
		Transport:      u,
		BufferPool:     &buffers{},
		ModifyResponse: modifyResponse,
		ErrorHandler:   failed,
		ErrorLog:       discardLog,
	}
}

// rewrite has a request come from the engineer's identity, and from nobody else.
func (u *upstream) rewrite(p *httputil.ProxyRequest, x *exchange) {
	out := p.Out
	out.URL.Scheme, out.URL.Host, out.Host = u.base.Scheme, u.base.Host, ""
	for _, name := range ownHeaders {
		out.Header.Del(name)
	}
	out.Header.Set("Audit-Id", x.id)
	actAs(out.Header, x)
}

// connecting are the subresources that connect to something, whatever the verb.
var connecting = []string{"exec", "attach", "portforward", "proxy"}

// reviewed reports whether admission sees a request: then its id goes with the identity, which is all that a webhook is
// told. Of all others it does not: the API server remembers for 10 s that the gateway may act as somebody, and takes an
// identity with a new id for somebody new (docs/decisions/23-what-the-gateway-costs.md).
func reviewed(info *apirequest.RequestInfo) bool {
	return info.Verb != "watch" && !slices.Contains(reads, info.Verb) || slices.Contains(connecting, info.Subresource)
}

// changing reports whether a request may change something that is kept. Questions about rights and names are not kept.
func changing(info *apirequest.RequestInfo) bool {
	return info.IsResourceRequest && reviewed(info) && !slices.Contains(connecting, info.Subresource) &&
		info.APIGroup != authenticationv1.GroupName && info.APIGroup != authorizationv1.GroupName
}

// actAs has a request come from the engineer of an exchange.
func actAs(header http.Header, x *exchange) {
	header.Set("Impersonate-User", access.GatewayUsername(x.standing.facts.Record.Spec.Grant, x.engineer))
	header["Impersonate-Group"] = []string{v1alpha1.EngineersGroup}
	extra := func(key, value string) {
		header["Impersonate-Extra-"+url.PathEscape(key)] = []string{value}
	}
	extra(extraGrant, x.standing.key.String())
	if reviewed(x.info) {
		extra(extraRequest, x.id)
	}
	if x.standing.caseID != "" {
		extra(extraCase, x.standing.caseID)
	}
}

// errRedirect is an answer that would send the client, with its credential, somewhere else.
var errRedirect = errors.New("the API server answered with a redirect")

func modifyResponse(r *http.Response) error {
	if r.StatusCode >= 300 && r.StatusCode < 400 && r.StatusCode != http.StatusNotModified {
		return errRedirect
	}
	if r.StatusCode == http.StatusSwitchingProtocols && !upgrading(r.Request) {
		return errors.New("the API server changed the protocol unasked")
	}
	if x, ok := r.Request.Context().Value(exchangeKey{}).(*exchange); ok {
		x.answered = r.Header
		if x.tape != nil && r.StatusCode == http.StatusSwitchingProtocols {
			var err error
			x.dialect, err = dialectOf(x, r.Header)
			return err
		}
	}
	return nil
}

// failed answers when the API server did not, or when the exchange was cut before it did.
func failed(w http.ResponseWriter, r *http.Request, err error) {
	x, _ := r.Context().Value(exchangeKey{}).(*exchange)
	tooLong := &http.MaxBytesError{}
	switch why := x.cause.Load(); {
	case why != nil:
		answer(w, x.over(why))
	case errors.As(err, &tooLong):
		answer(w, &refusal{
			code: http.StatusRequestEntityTooLarge, reason: string(metav1.StatusReasonRequestEntityTooLarge), message: "the body is longer than 3 MiB",
		})
	case errors.Is(err, errUnreadable):
		answer(w, &refusal{code: http.StatusBadGateway, reason: "BadGateway", message: "support access: " + err.Error() + ", so it could not be put on record"})
	case errors.Is(err, context.Canceled):
		// The client is gone.
		answer(w, &refusal{code: 499, reason: "ClientClosedRequest", message: "the client is gone"})
	default:
		answer(w, &refusal{code: http.StatusBadGateway, reason: "BadGateway", message: "support access: the API server could not be asked"})
	}
}

// buffers are what bodies are copied through.
type buffers struct{ pool sync.Pool }

const bufferSize = 64 << 10

// Get returns a buffer.
func (b *buffers) Get() []byte {
	if found, ok := b.pool.Get().(*[]byte); ok {
		return *found
	}
	return make([]byte, bufferSize)
}

// Put takes a buffer back.
func (b *buffers) Put(p []byte) { b.pool.Put(&p) }
