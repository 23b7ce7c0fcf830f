package operator

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"os"

	"github.com/spf13/pflag"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/otlp"
)

// OTLPOptions are to which receiver of OTLP/HTTP the audit log is handed on.
type OTLPOptions struct {
	destination
	// Headers is the file with what a request must say besides, empty for nothing.
	Headers string
}

func (o *OTLPOptions) bind(flags *pflag.FlagSet) {
	flags.StringVar(&o.URL, "audit-otlp-url", "", "https URL to which the audit log is handed on, as log records of OpenTelemetry over OTLP/HTTP, with its path, which mostly is /v1/logs; empty for nowhere")
	flags.StringVar(&o.Headers, "audit-otlp-headers", "", "file with headers of what goes to --audit-otlp-url, such as Authorization: Bearer ..., one a line; empty for none")
	flags.StringVar(&o.CA, "audit-otlp-ca", "", "file with the certificates that vouch for --audit-otlp-url, in PEM; empty for those that the system trusts")
}

func (o *OTLPOptions) check() error {
	u, err := o.parse("--audit-otlp-url")
	if err == nil && u != nil && u.Path == "" {
		return errors.New("--audit-otlp-url: it has no path, which mostly is /v1/logs")
	}
	return err
}

// receiver returns who takes the log, nil for nobody.
func (o *OTLPOptions) receiver(origin string, now clock.PassiveClock) (audit.Receiver, error) {
	if o.URL == "" {
		return nil, nil //nolint:nilnil // Nobody is nobody.
	}
	endpoint, err := o.endpoint("--audit-otlp-ca")
	if err != nil {
		return nil, err
	}
	return &otlp.Receiver{Origin: origin, Logger: ctrl.Log.WithName("audit").WithValues("receiver", "otlp"), Post: func(ctx context.Context, body []byte) ([]byte, error) {
		header, err := o.header()
		if err != nil {
			return nil, fmt.Errorf("read --audit-otlp-headers: %w", err)
		}
		answer, result := endpoint.Exchange(ctx, body, header, now.Now())
		return answer, triedAgain(&result)
	}}, nil
}

// header reads what a request must say, anew for each, so that it can be replaced. What is wrong with it is said without it.
func (o *OTLPOptions) header() (http.Header, error) {
	header := http.Header{}
	if o.Headers != "" {
		content, err := os.ReadFile(o.Headers)
		if err != nil {
			return nil, err
		}
		lines := textproto.NewReader(bufio.NewReader(io.MultiReader(bytes.NewReader(bytes.TrimSpace(content)), bytes.NewReader([]byte("\r\n\r\n")))))
		read, err := lines.ReadMIMEHeader()
		if err != nil {
			return nil, errors.New("it is not NAME: VALUE, one a line")
		}
		header = http.Header(read)
	}
	header.Set("Content-Type", otlp.ContentType)
	return header, nil
}
