package postgres

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Options say which database, and how it is reached.
type Options struct {
	// URL is a file with the URL of the database. It is read again for every connection, so that a password can be replaced.
	URL string
	// TLS is how sure one wants to be whom one talks to: one of TLSModes.
	TLS string
	// CA is a file with the certificates that vouch for the server, in PEM. Empty means those that the system trusts.
	CA string
}

// TLSModes are the ways to reach a server, in PostgreSQL's own words: the strictest first.
var TLSModes = []string{"verify-full", "verify-ca", "require", "disable"}

// Check says what is wrong with them, as far as that can be known without asking anybody.
func (o Options) Check() error {
	_, err := o.config()
	return err
}

// config reads what is to be connected to. What the URL is made of is repeated in no error: it has the password in it.
func (o Options) config() (*pgxpool.Config, error) {
	if !slices.Contains(TLSModes, o.TLS) {
		return nil, fmt.Errorf("the TLS mode %q is none of %q", o.TLS, TLSModes)
	}
	if err := o.checkCA(); err != nil {
		return nil, err
	}
	content, err := os.ReadFile(o.URL)
	if err != nil {
		return nil, fmt.Errorf("read the URL of the database: %w", err)
	}
	given, err := o.complete(strings.TrimSpace(string(content)))
	if err != nil {
		return nil, fmt.Errorf("the URL in %s: %w", o.URL, err)
	}
	config, err := pgxpool.ParseConfig(given)
	if err != nil {
		return nil, fmt.Errorf("the URL in %s cannot be read as %s", o.URL, form)
	}
	if config.ConnConfig.Database == "" || config.ConnConfig.User == "" {
		return nil, fmt.Errorf("the URL in %s names no database or no user: want %s", o.URL, form)
	}
	return config, nil
}

// form is how a URL looks.
const form = "postgres://USER:PASSWORD@HOST:PORT/DATABASE, with what is special in a password as %XX"

func (o Options) checkCA() error {
	if o.CA == "" {
		return nil
	}
	content, err := os.ReadFile(o.CA)
	if err != nil {
		return fmt.Errorf("read the certificates that vouch for the server: %w", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(content) {
		return fmt.Errorf("read the certificates that vouch for the server: %s has none in PEM", o.CA)
	}
	return nil
}

// complete adds to a URL how the server is known. There may be several hosts in it, which net/url does not read.
func (o Options) complete(given string) (string, error) {
	if !strings.HasPrefix(given, "postgres://") && !strings.HasPrefix(given, "postgresql://") {
		return "", errors.New("it does not begin with postgres://")
	}
	base, query, _ := strings.Cut(given, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", errors.New("what follows its question mark is no query")
	}
	for name, want := range map[string]string{"sslmode": o.TLS, "sslrootcert": o.CA} {
		if said := values.Get(name); values.Has(name) && said != want {
			return "", fmt.Errorf("its %s is %q, and the gateway was told %q: leave it out of the URL", name, said, want)
		}
		if want != "" {
			values.Set(name, want)
		}
	}
	return base + "?" + values.Encode(), nil
}

const (
	// patience is how long a connection, or what is done with one, may take: a server that is gone says nothing.
	patience = 15 * time.Second
	// silence is after how long a connection that says nothing is asked whether it is still there.
	silence = 15 * time.Second
	// writers is how many write at once: one goes on with the log, one removes what is old, one says what was handed on.
	writers = 3
	// readers is how many read at once.
	readers = 4
)

// What each connection is told first. Nothing is looked up in schemas that others may write to.
const (
	session = `SET search_path = ` + schema + `, pg_temp; SET client_min_messages = warning; SET jit = off; SET statement_timeout = '60s'; `
	// Who has its turn and says nothing any more loses it, and does not hold up the others.
	writing = session + `SET idle_in_transaction_session_timeout = '5s';
		SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'`
	// A plan for any value is a bad one for values of which there are few.
	reading = session + `SET default_transaction_read_only = on; SET plan_cache_mode = force_custom_plan`
)

// pool returns connections that are told something first.
func (o Options) pool(ctx context.Context, connections int32, first string) (*pgxpool.Pool, error) {
	config, err := o.config()
	if err != nil {
		return nil, err
	}
	config.MaxConns = connections
	// A server that was away for a moment has ended every connection. Who goes on with the log in a transaction sees that
	// and takes another; who reads is given one that is asked first.
	config.ShouldPing = func(_ context.Context, idle pgxpool.ShouldPingParams) bool {
		return first == reading || idle.IdleDuration > time.Second
	}
	o.harden(config.ConnConfig, first)
	config.BeforeConnect = func(_ context.Context, next *pgx.ConnConfig) error {
		again, err := o.config()
		if err != nil {
			return err
		}
		o.harden(again.ConnConfig, first)
		*next = *again.ConnConfig
		return nil
	}
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, first, pgx.QueryExecModeSimpleProtocol)
		return err
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	return pool, said(err)
}

// harden sees to it that a server that is gone is noticed, and that who writes does not end up on one that cannot.
func (o Options) harden(config *pgx.ConnConfig, first string) {
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = patience
	}
	config.DialFunc = (&net.Dialer{KeepAlive: silence}).DialContext
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "support-access"
	}
	if first == writing && config.ValidateConnect == nil {
		config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
}

// said returns what a server said, or the way to it, and nothing of what pgx's errors carry besides: the password is there.
func said(err error) error {
	for _, known := range []error{nil, context.Canceled, context.DeadlineExceeded, pgx.ErrNoRows} {
		if errors.Is(err, known) {
			return known
		}
	}
	return errors.New(strings.Join(strings.Fields(err.Error()), " "))
}
