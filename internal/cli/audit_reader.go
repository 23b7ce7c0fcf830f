package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Where the environment says what a flag says.
const (
	serverVariable = "SUPPORT_ACCESS_AUDIT_SERVER"
	caVariable     = "SUPPORT_ACCESS_AUDIT_CA"
)

// readerToken is for how long a token is good that is made to read with: the shortest that there is.
const readerToken = 10 * time.Minute

// reader is how the audit log is read over HTTP: where, and as whom.
type reader struct {
	*Desk
	server, ca, serverName string
	account, tokenFile     string
	audience               string
}

func (r *reader) bind(flags *pflag.FlagSet) {
	flags.StringVar(&r.server, "audit-server", os.Getenv(serverVariable), "URL of the audit log's API; "+serverVariable+" in the environment says the same")
	flags.StringVar(&r.ca, "audit-ca", os.Getenv(caVariable), "file with the certificates by which its server is known; empty for those that this machine trusts; "+caVariable+" says the same")
	flags.StringVar(&r.serverName, "audit-server-name", "", "name that the server's certificate bears, where it is not that of the URL")
	flags.StringVar(&r.account, "service-account", "", "read as this ServiceAccount, NAMESPACE/NAME: a token for the log alone is asked for, which takes the right to create serviceaccounts/token")
	flags.StringVar(&r.tokenFile, "audit-token-file", "", "file with a token for the log, as kubectl create token --audience makes one")
	flags.StringVar(&r.audience, "audience", "supportaccess.dev/audit", "for whom the token of --service-account is made: what the chart's gateway.audit.api.audience says")
}

// errNoServer and errNoToken say what is missing, and how to get it.
var (
	errNoServer = errors.New("--audit-server: say where the log is read, such as https://localhost:9444 after\n" +
		"  kubectl port-forward -n support-access-system svc/support-access-audit 9444:443\n" +
		"It is there with the chart's value gateway.audit.api.enabled")
	errNoToken = errors.New("say as whom to read: --service-account NAMESPACE/NAME, or --audit-token-file with what kubectl create token --audience supportaccess.dev/audit prints. " +
		"Your own credential is not sent: it would be good for more than the log")
)

// open makes ready to read.
func (r *reader) open(ctx context.Context) (*logClient, error) {
	if r.server == "" {
		return nil, errNoServer
	}
	base, err := url.Parse(r.server)
	if err != nil || base.Scheme != "https" || base.Host == "" {
		return nil, fmt.Errorf("--audit-server: %q is no URL that begins with https://", r.server)
	}
	trust, err := r.trust()
	if err != nil {
		return nil, err
	}
	token, err := r.token(ctx)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: trust, ForceAttemptHTTP2: true}
	return &logClient{base: base, token: token, http: &http.Client{Transport: transport}}, nil
}

// trust says by what the server is known.
func (r *reader) trust() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: r.serverName}
	if r.ca == "" {
		return config, nil
	}
	content, err := os.ReadFile(r.ca)
	if err != nil {
		return nil, fmt.Errorf("read --audit-ca: %w", err)
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("read --audit-ca: %s has no certificate in PEM", r.ca)
	}
	return config, nil
}

// token returns the token to read with.
func (r *reader) token(ctx context.Context) (string, error) {
	switch {
	case r.account != "" && r.tokenFile != "":
		return "", errors.New("--service-account and --audit-token-file: give one of them, not both")
	case r.tokenFile != "":
		content, err := os.ReadFile(r.tokenFile)
		if err != nil {
			return "", fmt.Errorf("read --audit-token-file: %w", err)
		}
		return strings.TrimSpace(string(content)), nil
	case r.account == "":
		return "", errNoToken
	}
	namespace, name, ok := strings.Cut(r.account, "/")
	if !ok || namespace == "" || name == "" {
		return "", fmt.Errorf("--service-account: %q is not NAMESPACE/NAME", r.account)
	}
	c, err := r.client()
	if err != nil {
		return "", err
	}
	seconds := int64(readerToken / time.Second)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	if r.audience != "" {
		request.Spec.Audiences = []string{r.audience}
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	if err := c.SubResource("token").Create(ctx, account, request); err != nil {
		return "", fmt.Errorf("make a token of ServiceAccount %s: %w", r.account, err)
	}
	return request.Status.Token, nil
}

// logClient asks the log.
type logClient struct {
	base  *url.URL
	token string
	http  *http.Client
}

// maxRefusal is how much of an answer that is none is read.
const maxRefusal = 4 << 10

// get asks for a path. Whoever gets the body closes it.
func (c *logClient) get(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	at := c.base.JoinPath(path)
	at.RawQuery = query.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+c.token)
	response, err := c.http.Do(request)
	unknown := &tls.CertificateVerificationError{}
	if errors.As(err, &unknown) {
		return nil, fmt.Errorf("ask the audit log: %w: give --audit-ca, and --audit-server-name where the certificate bears another name; a certificate that the operator made "+
			"bears support-access-gateway.support-access-system.svc, and its CA is ca.crt of the Secret support-access-gateway-tls", unknown.Err)
	}
	if err != nil {
		return nil, fmt.Errorf("ask the audit log: %w", err)
	}
	if response.StatusCode == http.StatusOK {
		return response.Body, nil
	}
	said, _ := io.ReadAll(io.LimitReader(response.Body, maxRefusal))
	_ = response.Body.Close()
	return nil, fmt.Errorf("the audit log answers %d: %s", response.StatusCode, clean(string(said)))
}
