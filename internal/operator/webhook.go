package operator

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/pflag"
	"k8s.io/utils/clock"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/cloudevents"
	"supportaccess.dev/operator/internal/notify"
)

// WebhookOptions are to which webhook the audit log is handed on.
type WebhookOptions struct {
	destination
	// Signing is the file with what signs.
	Signing string
}

func (o *WebhookOptions) bind(flags *pflag.FlagSet) {
	flags.StringVar(&o.URL, "audit-webhook-url", "", "https URL to which the audit log is handed on, as signed batches of CloudEvents; empty for nowhere")
	flags.StringVar(&o.Signing, "audit-webhook-signing", "/etc/support-access/audit-webhook/signing.key", "file with the secrets that sign what goes to --audit-webhook-url: whsec_ and Base64, two while one is replaced")
	flags.StringVar(&o.CA, "audit-webhook-ca", "", "file with the certificates that vouch for --audit-webhook-url, in PEM; empty for those that the system trusts")
}

func (o *WebhookOptions) check() error {
	_, err := o.parse("--audit-webhook-url")
	return err
}

// receiver returns who takes the log, nil for nobody.
func (o *WebhookOptions) receiver(origin string, now clock.PassiveClock) (audit.Receiver, error) {
	if o.URL == "" {
		return nil, nil //nolint:nilnil // Nobody is nobody.
	}
	post, err := o.post(now)
	if err != nil {
		return nil, err
	}
	return &cloudevents.Receiver{Origin: origin, Post: post}, nil
}

// post returns how a batch is handed over.
func (o *WebhookOptions) post(now clock.PassiveClock) (func(ctx context.Context, id string, body []byte) error, error) {
	endpoint, err := o.endpoint("--audit-webhook-ca")
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, id string, body []byte) error {
		// It is read anew for each batch, so that it can be replaced.
		signing, err := os.ReadFile(o.Signing)
		if err != nil {
			return fmt.Errorf("read --audit-webhook-signing: %w", err)
		}
		webhook := notify.Webhook{Endpoint: endpoint, Signing: string(signing)}
		result := webhook.Post(ctx, notify.Signed{ID: id, ContentType: cloudevents.ContentType, Body: body}, now.Now())
		return triedAgain(&result)
	}, nil
}
