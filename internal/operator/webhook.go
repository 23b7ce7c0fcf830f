package operator

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"

	"github.com/spf13/pflag"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/cloudevents"
	"supportaccess.dev/operator/internal/notify"
)

// WebhookOptions are where the audit log is handed on to.
type WebhookOptions struct {
	// URL is where, empty for nowhere.
	URL string
	// Signing is the file with what signs, CA that with who vouches for the other side.
	Signing, CA string
}

func (o *WebhookOptions) bind(flags *pflag.FlagSet) {
	flags.StringVar(&o.URL, "audit-webhook-url", "", "https URL to which the audit log is handed on, as signed batches of CloudEvents; empty for nowhere")
	flags.StringVar(&o.Signing, "audit-webhook-signing", "/etc/support-access/audit-webhook/signing.key", "file with the secrets that sign what goes to --audit-webhook-url: whsec_ and Base64, two while one is replaced")
	flags.StringVar(&o.CA, "audit-webhook-ca", "", "file with the certificates that vouch for --audit-webhook-url, in PEM; empty for those that the system trusts")
}

func (o *WebhookOptions) check() error {
	if o.URL == "" {
		return nil
	}
	if u, err := url.Parse(o.URL); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return errors.New("--audit-webhook-url: it is no https URL, or names a user")
	}
	return nil
}

// addTo has the log handed on.
func (o *WebhookOptions) addTo(mgr ctrl.Manager, log *auditLog, now clock.Clock, measures *audit.Measures) error {
	if o.URL == "" {
		return nil
	}
	post, err := o.post(now)
	if err != nil {
		return err
	}
	forward := &audit.Forward{
		From: log.reader, Carried: log.carried, Name: "webhook", Holder: replicaName(), Clock: now, Logger: ctrl.Log.WithName("audit"), Measures: measures,
		To: &cloudevents.Receiver{Origin: log.ledger.Origin(), Post: post},
	}
	if err := mgr.Add(forward); err != nil {
		return fmt.Errorf("set up the webhook of the audit log: %w", err)
	}
	return nil
}

// post returns how a batch is handed over. The installer says where to, so that no address is forbidden.
func (o *WebhookOptions) post(now clock.PassiveClock) (func(ctx context.Context, id string, body []byte) error, error) {
	everywhere := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	endpoint := notify.Endpoint{URL: o.URL, Reach: &notify.Reach{Allowed: everywhere}}
	if o.CA != "" {
		bundle, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, fmt.Errorf("read --audit-webhook-ca: %w", err)
		}
		endpoint.Roots = x509.NewCertPool()
		if !endpoint.Roots.AppendCertsFromPEM(bundle) {
			return nil, fmt.Errorf("read --audit-webhook-ca: there is no certificate in %s", o.CA)
		}
	}
	return func(ctx context.Context, id string, body []byte) error {
		// It is read anew for each batch, so that it can be replaced.
		signing, err := os.ReadFile(o.Signing)
		if err != nil {
			return fmt.Errorf("read --audit-webhook-signing: %w", err)
		}
		webhook := notify.Webhook{Endpoint: endpoint, Signing: string(signing)}
		result := webhook.Post(ctx, notify.Signed{ID: id, ContentType: cloudevents.ContentType, Body: body}, now.Now())
		if result.Err != nil && result.RetryAfter > 0 {
			return &audit.RetryLaterError{After: result.RetryAfter, Err: result.Err}
		}
		return result.Err
	}, nil
}
