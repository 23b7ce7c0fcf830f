package operator

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"net/url"
	"os"

	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/notify"
)

// destination is a place on the network to which the audit log is handed on.
type destination struct {
	// URL is where, empty for nowhere.
	URL string
	// CA is the file with who vouches for the other side, empty for whom the system trusts.
	CA string
}

// parse returns where the flag leads, nil for nowhere.
func (d *destination) parse(flag string) (*url.URL, error) {
	if d.URL == "" {
		return nil, nil //nolint:nilnil // Nowhere is nowhere.
	}
	u, err := url.Parse(d.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, fmt.Errorf("%s: it is no https URL, or names a user", flag)
	}
	return u, nil
}

// endpoint is how it is reached. The installer says where to, so that no address is forbidden.
func (d *destination) endpoint(flag string) (notify.Endpoint, error) {
	everywhere := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	endpoint := notify.Endpoint{URL: d.URL, Reach: &notify.Reach{Allowed: everywhere}}
	if d.CA == "" {
		return endpoint, nil
	}
	bundle, err := os.ReadFile(d.CA)
	if err != nil {
		return endpoint, fmt.Errorf("read %s: %w", flag, err)
	}
	endpoint.Roots = x509.NewCertPool()
	if !endpoint.Roots.AppendCertsFromPEM(bundle) {
		return endpoint, fmt.Errorf("read %s: there is no certificate in %s", flag, d.CA)
	}
	return endpoint, nil
}

// triedAgain is why something must be handed over again, and not before when.
func triedAgain(r *notify.Result) error {
	if r.Err != nil && r.RetryAfter > 0 {
		return &audit.RetryLaterError{After: r.RetryAfter, Err: r.Err}
	}
	return r.Err
}

// handOn has the log handed on to whoever is to have it.
func (o *AuditOptions) handOn(mgr ctrl.Manager, log *auditLog, now clock.Clock) error {
	for name, receiver := range map[string]func(origin string, now clock.PassiveClock) (audit.Receiver, error){"webhook": o.Webhook.receiver, "otlp": o.OTLP.receiver} {
		to, err := receiver(log.ledger.Origin(), now)
		if err != nil {
			return err
		}
		if to == nil {
			continue
		}
		forward := &audit.Forward{
			From: log.reader, Carried: log.carried, Name: name, Holder: replicaName(), Clock: now, Logger: ctrl.Log.WithName("audit"), Measures: o.measures, To: to,
		}
		if err := mgr.Add(forward); err != nil {
			return fmt.Errorf("set up the handing on of the audit log (%s): %w", name, err)
		}
	}
	return nil
}
