package operator

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	stdlog "log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/chain"
	"supportaccess.dev/operator/internal/audit/postgres"
	"supportaccess.dev/operator/internal/audit/serve"
	"supportaccess.dev/operator/internal/audit/sqlite"
)

// AuditOptions are what the gateway can be told of its audit log.
type AuditOptions struct {
	Store     string
	Postgres  postgres.Options
	Key       string
	Origin    string
	Lines     string
	Retention time.Duration
	Webhook   WebhookOptions
	OTLP      OTLPOptions
	// Address is where it is read, Audience for whom a reader's token must be.
	Address  string
	Audience string

	measures *audit.Measures
}

func (o *AuditOptions) bind(flags *pflag.FlagSet) {
	flags.StringVar(&o.Store, "audit-store", "/var/log/support-access/audit.db", "file of the audit log, to which every request of an engineer is written before it goes on; empty for --audit-log alone, which proves nothing")
	bindPostgres(flags, &o.Postgres)
	flags.StringVar(&o.Key, "audit-key", "/var/log/support-access/audit.key", "file with the Ed25519 keys that sign the audit log, in PEM; made for a log that is new, if it is not there")
	flags.StringVar(&o.Origin, "audit-origin", "supportaccess.dev/audit", "name of an audit log that is new, by which auditors tell one installation from another")
	flags.StringVar(&o.Lines, "audit-log", "", "file of JSON lines to which the audit log is copied, a hyphen for standard output; empty for none")
	o.Webhook.bind(flags)
	o.OTLP.bind(flags)
	flags.DurationVar(&o.Retention, "audit-retention", 0, "for how long entries of the audit log are kept; 0 for ever")
	flags.StringVar(&o.Address, "audit-bind-address", "0", "address at which the audit log is read, over TLS and by who may get supportaccessrecords/log; 0 for none")
	flags.StringVar(&o.Audience, "audit-audience", "supportaccess.dev/audit", "for whom the token of a reader must have been issued; empty for tokens that are good for the API server")
}

// Where the environment says what a flag says: so that support-access audit, run in the gateway's pod, knows it too.
const (
	postgresVariable    = "SUPPORT_ACCESS_AUDIT_POSTGRES"
	postgresTLSVariable = "SUPPORT_ACCESS_AUDIT_POSTGRES_TLS"
	postgresCAVariable  = "SUPPORT_ACCESS_AUDIT_POSTGRES_CA"
)

// bindPostgres adds the flags that say which database.
func bindPostgres(flags *pflag.FlagSet, o *postgres.Options) {
	flags.StringVar(&o.URL, "audit-postgres", os.Getenv(postgresVariable), "file with the URL of a PostgreSQL database in which the audit log is kept, in place of --audit-store: several gateways write one log there; empty for none; "+postgresVariable+" in the environment says the same")
	flags.StringVar(&o.TLS, "audit-postgres-tls", cmp.Or(os.Getenv(postgresTLSVariable), postgres.TLSModes[0]), "how sure to be that it is the right server: verify-full, verify-ca, require or disable; "+postgresTLSVariable+" in the environment says the same")
	flags.StringVar(&o.CA, "audit-postgres-ca", os.Getenv(postgresCAVariable), "file with the certificates that vouch for the server, in PEM; empty for those that the system trusts; "+postgresCAVariable+" in the environment says the same")
}

func (o *AuditOptions) check() error {
	kept := o.isKept()
	if !kept && o.Lines == "" {
		return errors.New("--audit-store: without an audit log nobody is let in")
	}
	if !kept && o.Address != "0" {
		return errors.New("--audit-bind-address: a file of lines cannot be read there: give --audit-store")
	}
	if o.Postgres.URL != "" {
		if err := o.Postgres.Check(); err != nil {
			return fmt.Errorf("--audit-postgres: %w", err)
		}
	}
	if o.Retention < 0 {
		return fmt.Errorf("--audit-retention: %s is negative", o.Retention)
	}
	return o.checkReceivers()
}

// isKept reports whether there is a log that proves something, and not just a file of lines.
func (o *AuditOptions) isKept() bool { return o.Store != "" || o.Postgres.URL != "" }

func (o *AuditOptions) checkReceivers() error {
	for flag, to := range map[string]string{"--audit-webhook-url": o.Webhook.URL, "--audit-otlp-url": o.OTLP.URL} {
		if to != "" && !o.isKept() {
			return fmt.Errorf("%s: a file of lines is not handed on: give --audit-store", flag)
		}
	}
	return errors.Join(o.Webhook.check(), o.OTLP.check())
}

// auditLog is the log that was opened. The ledger, and who reads it, are nil where there is but a file of lines.
type auditLog struct {
	audit.Log
	io.Closer
	ledger *audit.Ledger
	reader audit.Reader
	// carried is how much of the log others have.
	carried audit.Carried
}

// measure has what is written counted.
func (o *AuditOptions) measure(registry prometheus.Registerer) (err error) {
	if o.measures, err = audit.NewMeasures(registry); err != nil {
		return fmt.Errorf("register metrics of the audit log: %w", err)
	}
	return nil
}

// open opens the log.
func (o *AuditOptions) open(ctx context.Context, now clock.PassiveClock) (*auditLog, error) {
	if !o.isKept() {
		log, err := audit.OpenFile(o.Lines)
		if err != nil {
			return nil, fmt.Errorf("open --audit-log: %w", err)
		}
		return &auditLog{Log: log, Closer: log}, nil
	}
	store, err := o.store(ctx)
	if err != nil {
		return nil, err
	}
	ledger, err := o.ledger(ctx, store, now)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return &auditLog{Log: ledger, Closer: ledger, ledger: ledger, reader: store, carried: store}, nil
}

// auditStore is where the log is kept, for who writes and who reads.
type auditStore interface {
	audit.Store
	audit.Reader
	audit.Carried
}

func (o *AuditOptions) store(ctx context.Context) (auditStore, error) {
	if o.Postgres.URL != "" {
		store, err := postgres.Open(ctx, o.Postgres)
		if err != nil {
			return nil, fmt.Errorf("open --audit-postgres: %w", err)
		}
		return store, nil
	}
	store, err := sqlite.Open(ctx, o.Store)
	if err != nil {
		return nil, fmt.Errorf("open --audit-store: %w", err)
	}
	return store, nil
}

// keep says by which keys the log is checked, has it copied, and has old entries removed.
func (o *AuditOptions) keep(mgr ctrl.Manager, log *auditLog, now clock.Clock) error {
	logger := ctrl.Log.WithName("audit")
	if log.ledger == nil {
		logger.Info("The audit log is a file of lines, which proves nothing", "path", o.Lines)
		return nil
	}
	logger.Info("The audit log is open", "origin", log.ledger.Origin(), "publicKeys", log.ledger.PublicKeys())
	if o.Lines != "" {
		if err := mgr.Add(&audit.Copy{From: log.reader, Path: o.Lines, Clock: now, Logger: logger, Measures: o.measures}); err != nil {
			return fmt.Errorf("set up the copy of the audit log: %w", err)
		}
	}
	if err := o.handOn(mgr, log, now); err != nil {
		return err
	}
	if o.Retention == 0 {
		return nil
	}
	if err := mgr.Add(&retention{ledger: log.ledger, keep: o.Retention, clock: now, logger: logger}); err != nil {
		return fmt.Errorf("set up the retention of the audit log: %w", err)
	}
	return nil
}

func (o *AuditOptions) ledger(ctx context.Context, store audit.Store, now clock.PassiveClock) (*audit.Ledger, error) {
	key, err := o.key(ctx, store)
	if err != nil {
		return nil, fmt.Errorf("read --audit-key: %w", err)
	}
	ledger, err := audit.OpenLedger(ctx, audit.LedgerOptions{Store: store, Origin: o.Origin, Key: key, Clock: now, Replica: replicaName(), Measures: o.measures})
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	return ledger, nil
}

// key reads the log's keys, and makes one for a log that is new. A log that has lost its key gets no other by itself: those
// who trust the old one would not trust it. One that several write gets none either: each would make another.
func (o *AuditOptions) key(ctx context.Context, store audit.Store) ([]byte, error) {
	content, err := os.ReadFile(o.Key)
	if !errors.Is(err, fs.ErrNotExist) {
		return content, err
	}
	if o.Postgres.URL != "" {
		return nil, fmt.Errorf("%w: gateways that write one log in PostgreSQL share a key, so it must be given to each", err)
	}
	standing, loading := store.Load(ctx)
	if loading != nil {
		return nil, loading
	}
	if standing != nil {
		return nil, fmt.Errorf("%w: the log exists, and nobody else's key is put in the place of its own", err)
	}
	made, err := chain.NewKey()
	if err != nil {
		return nil, err
	}
	return made, writeDurably(o.Key, made)
}

// writeDurably makes a file that only its owner reads, and that is there after a crash.
func writeDurably(path string, content []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // The path is the operator's own flag.
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	return errors.Join(err, file.Sync(), file.Close(), audit.SyncFolder(filepath.Dir(path)))
}

// serve has the log read at its address.
func (o *AuditOptions) serve(mgr ctrl.Manager, log *auditLog, certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) error {
	if o.Address == "0" {
		return nil
	}
	listener, err := net.Listen("tcp", o.Address)
	if err != nil {
		return fmt.Errorf("listen on --audit-bind-address: %w", err)
	}
	guard := &serve.APIServer{Client: mgr.GetClient()}
	if o.Audience != "" {
		guard.Audiences = []string{o.Audience}
	}
	logger := ctrl.Log.WithName("audit")
	// Who follows the log would keep the gateway from stopping.
	stopping, stop := context.WithCancel(context.Background())
	answers := &http.Server{
		Handler:           &serve.Handler{Reader: log.reader, Journal: log.ledger, Guard: guard, Clock: clock.RealClock{}, Logger: logger},
		BaseContext:       func(net.Listener) context.Context { return stopping },
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: stdlog.New(io.Discard, "", 0),
	}
	answers.RegisterOnShutdown(stop)
	server := &manager.Server{
		Name:     "audit log",
		Listener: tls.NewListener(listener, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate}),
		Server:   answers,
	}
	if err := mgr.Add(server); err != nil {
		return fmt.Errorf("set up the reading of the audit log: %w", err)
	}
	return nil
}

// retention removes entries that are old enough, now and every hour.
type retention struct {
	ledger *audit.Ledger
	keep   time.Duration
	clock  clock.Clock
	logger logr.Logger
}

// Start removes entries until the context ends.
func (r *retention) Start(ctx context.Context) error {
	for {
		through, err := r.ledger.Cut(ctx, r.clock.Now().Add(-r.keep))
		switch {
		case err != nil && ctx.Err() == nil:
			r.logger.Error(err, "Old entries of the audit log could not be removed")
		case through > 0:
			r.logger.Info("Old entries of the audit log were removed", "through", through)
		}
		timer := r.clock.NewTimer(time.Hour)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C():
		}
	}
}
