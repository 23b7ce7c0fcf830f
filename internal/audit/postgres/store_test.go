package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	clocktesting "k8s.io/utils/clock/testing"

	harness "supportaccess.dev/operator/hack/postgres"
	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/chain"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

func TestNobodyChangesOrDeletesAnEntryByAccident(t *testing.T) {
	store := mustOpen(t, options(t))
	log := mustBegin(t, store)
	for i := range 300 {
		mustAppend(t, log, i)
	}
	refused := func(statements map[string]string) {
		t.Helper()
		for name, statement := range statements {
			if _, err := store.writer.Exec(t.Context(), statement); err == nil || !strings.Contains(err.Error(), "audit log") {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := store.reader.Exec(t.Context(), statement); err == nil {
				t.Errorf("%s by who reads", name)
			}
		}
	}
	refused(map[string]string{
		"an entry is changed":             "UPDATE entries SET line = '' WHERE seq = 7",
		"an entry gets another number":    "UPDATE entries SET seq = 1000 WHERE seq = 7",
		"an entry is deleted":             "DELETE FROM entries WHERE seq = 7",
		"all are deleted":                 "DELETE FROM entries",
		"all are gone at once":            "TRUNCATE entries",
		"an entry is put in place of one": "INSERT INTO entries VALUES (7, '', '') ON CONFLICT (seq) DO UPDATE SET line = ''",
		"a checkpoint is changed":         "UPDATE checkpoints SET checkpoint = ''",
		"a checkpoint is deleted":         "DELETE FROM checkpoints",
		"checkpoints are gone at once":    "TRUNCATE checkpoints",
		"the log goes back":               "UPDATE standing SET size = 5",
		"the log stays with another root": "UPDATE standing SET edge = ''",
		"the log stands nowhere":          "DELETE FROM standing",
		"the log is gone at once":         "TRUNCATE standing",
	})
	if _, err := log.Cut(t.Context(), start.Add(20*time.Second)); err != nil {
		t.Fatal(err)
	}
	refused(map[string]string{
		"an entry is deleted after others were removed": "DELETE FROM entries WHERE seq = (SELECT min(seq) FROM entries)",
		"the stub goes back":                            "UPDATE stub SET through = 1",
		"the stub is deleted":                           "DELETE FROM stub",
		"the stub is gone at once":                      "TRUNCATE stub",
	})
	mustClose(t, log)
}

func TestARemovalThatWasBrokenOffIsBroughtToItsEnd(t *testing.T) {
	o := options(t)
	store := mustOpen(t, o)
	log := mustBegin(t, store)
	for i := range 50 {
		mustAppend(t, log, i)
	}
	if _, err := log.Cut(t.Context(), start.Add(10*time.Second)); err != nil {
		t.Fatal(err)
	}
	// As a crash would leave it: the stub says more than was removed.
	if _, err := store.writer.Exec(t.Context(), "UPDATE stub SET through = 30"); err != nil {
		t.Fatal(err)
	}
	page, err := store.Find(t.Context(), audit.Query{})
	if err != nil || page.Lines[len(page.Lines)-1].Seq != 31 {
		t.Errorf("the first that is shown is %d, %v; want 31", page.Lines[len(page.Lines)-1].Seq, err)
	}
	mustClose(t, log)
	store = mustOpen(t, o)
	for _, table := range []string{"entries", "facets"} {
		first := 0
		if err := store.reader.QueryRow(t.Context(), "SELECT min(seq) FROM "+table).Scan(&first); err != nil || first != 31 {
			t.Errorf("%s begin with %d, %v; want 31", table, first, err)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestTablesAreMadeOnceHoweverManyBegin(t *testing.T) {
	o := options(t)
	before := mustOpen(t, o)
	log := mustBegin(t, before)
	mustAppend(t, log, 1)
	known, err := steps()
	if err != nil {
		t.Fatal(err)
	}
	// A later version, several times at once, while the earlier one runs.
	next := append(known, "ALTER TABLE facets ADD COLUMN colour text; CREATE TABLE made_once (id int)")
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			if err := migrating(t, before, next); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	mustAppend(t, log, 2)
	if store, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "a later version has written it") {
		t.Errorf("got %v, %v", store, err)
	}
	if store, err := OpenReader(t.Context(), o); err == nil || !strings.Contains(err.Error(), "a later version has written it") {
		t.Errorf("got %v, %v", store, err)
	}
	if err := migrating(t, before, append(next, "CREATE TABLE half_made (id int)", "no SQL")); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("version %d", len(next)+2)) {
		t.Errorf("got %v of a step that is none", err)
	}
	var half, version int
	err = before.reader.QueryRow(t.Context(), "SELECT count(to_regclass('half_made')), (SELECT max(version) FROM migrations) ").Scan(&half, &version)
	if err != nil || half != 0 || version != len(next) {
		t.Errorf("half of it was done: %d, %d, %v", half, version, err)
	}
	mustClose(t, log)
}

func migrating(t *testing.T, s *Store, steps []string) error {
	return s.writer.AcquireFunc(t.Context(), func(conn *pgxpool.Conn) error { return migrate(t.Context(), conn.Conn(), steps) })
}

func TestADatabaseThatHasNoLogIsLeftAsItIs(t *testing.T) {
	o := options(t)
	if store, err := OpenReader(t.Context(), o); err == nil || !strings.Contains(err.Error(), "there is none in this database") {
		t.Errorf("got %v, %v", store, err)
	}
	conn := connect(t, o)
	if _, err := conn.Exec(t.Context(), "CREATE SCHEMA "+schema+"; CREATE TABLE "+schema+".mine (id int)", pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	if store, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "is something else's") {
		t.Errorf("got %v, %v", store, err)
	}
	tables := 0
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_tables WHERE schemaname = '"+schema+"'").Scan(&tables); err != nil || tables != 1 {
		t.Errorf("there are %d tables, %v", tables, err)
	}
	if _, err := conn.Exec(t.Context(), "DROP TABLE "+schema+".mine"); err != nil {
		t.Fatal(err)
	}
	// A schema that somebody has made for it is taken.
	if err := mustOpen(t, o).Close(); err != nil {
		t.Fatal(err)
	}
}

func TestADatabaseThatCannotTakeEveryTextIsRefused(t *testing.T) {
	o := options(t)
	server := harness.Shared(t)
	if err := server.Exec(t.Context(), "postgres", "CREATE DATABASE western ENCODING 'LATIN1' TEMPLATE template0"); err != nil {
		t.Fatal(err)
	}
	write(t, o.URL, server.URL("western"))
	if store, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "make one in UTF8") {
		t.Errorf("got %v, %v", store, err)
	}
	if err := server.Exec(t.Context(), "postgres", "DROP DATABASE western"); err != nil {
		t.Error(err)
	}
}

func TestWhatIsAcknowledgedIsOnTheDiskThoughTheServerIsToldNotTo(t *testing.T) {
	o := options(t)
	conn := connect(t, o)
	if _, err := conn.Exec(t.Context(), "DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET synchronous_commit = off'; END $$"); err != nil {
		t.Fatal(err)
	}
	store := mustOpen(t, o)
	setting := ""
	if err := store.writer.QueryRow(t.Context(), "SHOW synchronous_commit").Scan(&setting); err != nil || setting != "on" {
		t.Errorf("synchronous_commit is %s, %v", setting, err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

const password = harness.Password

func TestAServerIsKnownByItsCertificateOrNotTalkedTo(t *testing.T) {
	server := harness.Shared(t)
	folder, database := t.TempDir(), server.Database(t)
	file := filepath.Join(folder, "url")
	other := filepath.Join(folder, "other.crt")
	ours, err := os.ReadFile(server.CA)
	if err != nil {
		t.Fatal(err)
	}
	write(t, other, strings.Replace(string(ours), "\nMII", "\nMIJ", 1))
	byName, byNumber := server.RemoteURL(database, password), strings.Replace(server.RemoteURL(database, password), "localhost", "127.0.0.1", 1)
	for name, test := range map[string]struct {
		url, mode, ca string
		want          string
	}{
		"it is known":                             {byName, "verify-full", server.CA, ""},
		"nobody vouches for it":                   {byName, "verify-full", "", "certificate"},
		"it has another name":                     {byNumber, "verify-full", server.CA, "certificate"},
		"it has another name, which is all right": {byNumber, "verify-ca", server.CA, ""},
		"nobody asks who it is":                   {byName, "require", "", ""},
		"in plaintext":                            {byName, "disable", "", ""},
		"another mode in the URL":                 {byName + "?sslmode=disable", "verify-full", server.CA, `its sslmode is "disable", and the gateway was told "verify-full"`},
		"the same mode in the URL":                {byName + "?sslmode=require", "require", "", ""},
		"a mode that is none":                     {byName, "prefer", "", `the TLS mode "prefer" is none of`},
		"certificates that are not there":         {byName, "verify-full", "/none", "no such file"},
		"certificates that are none":              {byName, "verify-full", file, "has none in PEM"},
	} {
		t.Run(name, func(t *testing.T) {
			write(t, file, test.url)
			store, err := Open(t.Context(), Options{URL: file, TLS: test.mode, CA: test.ca})
			switch {
			case err == nil && test.want == "":
				if err := store.Close(); err != nil {
					t.Error(err)
				}
			case err == nil:
				t.Errorf("it was let in, want %q: %v", test.want, store.Close())
			case test.want == "" || !strings.Contains(err.Error(), test.want):
				t.Errorf("got %v, want %q", err, test.want)
			}
			wantNoSecret(t, err)
		})
	}
}

func TestNoErrorRepeatsThePassword(t *testing.T) {
	server := harness.Shared(t)
	file := filepath.Join(t.TempDir(), "url")
	good := server.RemoteURL(server.Database(t), password)
	for name, url := range map[string]string{
		"a wrong password":         strings.Replace(good, "://postgres", "://nobody", 1),
		"a database that is not":   server.RemoteURL("none", password),
		"a socket that is not":     "postgres://a:" + password + "@/b?host=/none",
		"a port of nobody":         "postgres://a:" + password + "@127.0.0.1:1/b",
		"a port that is none":      "postgres://a:" + password + "@127.0.0.1:" + password + "/b",
		"no scheme":                "a:" + password + "@127.0.0.1/b",
		"another scheme":           "mysql://a:" + password + "@127.0.0.1/b",
		"words":                    "host=127.0.0.1 password=" + password,
		"a password with a space":  "postgres://a:" + password + " x@127.0.0.1/b",
		"a password with percent":  "postgres://a:%zz" + password + "@127.0.0.1/b",
		"a password with a slash":  "postgres://a:x/" + password + "@127.0.0.1/b",
		"a query that is none":     good + "?password=" + password + "&%zz=" + password,
		"an option that is none":   good + "?" + password + "=1&connect_timeout=" + password,
		"no user and no database":  "postgres://:" + password + "@127.0.0.1",
		"another who asks by name": "postgres://localhost/" + "b?user=a&connect_timeout=x&password=" + password,
		"nothing":                  "",
	} {
		write(t, file, url)
		o := Options{URL: file, TLS: "require"}
		for how, open := range map[string]func(context.Context, Options) (*Store, error){"open": Open, "read": OpenReader} {
			store, err := open(t.Context(), o)
			if err == nil {
				t.Errorf("%s: it was opened: %v", name, store.Close())
				continue
			}
			t.Logf("%s, %s: %v", name, how, err)
			wantNoSecret(t, err)
		}
	}
	// Later, when the log is open.
	write(t, file, good)
	store := mustOpen(t, Options{URL: file, TLS: "require"})
	log := mustBegin(t, store)
	for name, breaks := range map[string]func(){
		"another password":   func() { write(t, file, server.RemoteURL("postgres", password+"-wrong")) },
		"a URL that is none": func() { write(t, file, "postgres://a:"+password+"@:x/") },
	} {
		breaks()
		cutOff(t, server)
		for i := range 3 {
			err := log.Append(t.Context(), sample(i))
			if err == nil {
				t.Errorf("%s: it was written", name)
			}
			wantNoSecret(t, err)
		}
		_, err := store.Find(t.Context(), audit.Query{})
		wantNoSecret(t, err)
		_, err = store.Load(t.Context())
		wantNoSecret(t, err)
	}
	write(t, file, good)
	mustAppend(t, log, 1)
	mustClose(t, log)
}

// wantNoSecret fails if an error, or what a logger makes of it, repeats the password.
func wantNoSecret(t *testing.T, err error) {
	t.Helper()
	for _, text := range []string{fmt.Sprintf("%v", err), fmt.Sprintf("%+v", err), fmt.Sprintf("%#v", err)} {
		if strings.Contains(text, password) {
			t.Errorf("the password is in %s", text)
		}
	}
	// These carry it where whoever unwraps them finds it.
	var connecting *pgconn.ConnectError
	var parsing *pgconn.ParseConfigError
	if errors.As(err, &connecting) || errors.As(err, &parsing) {
		t.Errorf("the password goes with %v", err)
	}
}

func TestAPasswordIsReplacedWhileTheGatewayRuns(t *testing.T) {
	server := harness.Shared(t)
	file, database := filepath.Join(t.TempDir(), "url"), server.Database(t)
	grant := "CREATE ROLE gateway LOGIN PASSWORD 'first'; ALTER DATABASE " + database + " OWNER TO gateway"
	if err := server.Exec(t.Context(), database, grant); err != nil {
		t.Fatal(err)
	}
	as := func(word string) string {
		return strings.Replace(server.RemoteURL(database, word), "postgres:"+word, "gateway:"+word, 1)
	}
	write(t, file, as("first"))
	store := mustOpen(t, Options{URL: file, TLS: "require"})
	log := mustBegin(t, store)
	if err := server.Exec(t.Context(), database, "ALTER ROLE gateway PASSWORD 'second'"); err != nil {
		t.Fatal(err)
	}
	// Connections that are open stay so.
	mustAppend(t, log, 1)
	cutOff(t, server)
	if err := log.Append(t.Context(), sample(2)); err == nil || !strings.Contains(err.Error(), "password authentication failed") {
		t.Errorf("got %v with the old password", err)
	}
	write(t, file, as("second"))
	mustAppend(t, log, 3)
	mustClose(t, log)
	if err := server.Exec(t.Context(), database, "REASSIGN OWNED BY gateway TO postgres; DROP OWNED BY gateway; DROP ROLE gateway"); err != nil {
		t.Error(err)
	}
}

// cutOff ends all connections but its own.
func cutOff(t *testing.T, server *harness.Server) {
	t.Helper()
	err := server.Exec(t.Context(), "postgres", "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'")
	if err != nil {
		t.Fatal(err)
	}
}

var start = time.Date(2026, 11, 22, 9, 30, 0, 0, time.UTC)

func sample(i int) *audit.Entry {
	at := metav1.NewMicroTime(start.Add(time.Duration(i) * time.Second))
	return &audit.Entry{
		Event:  auditv1.Event{Level: auditv1.LevelMetadata, Stage: auditv1.StageResponseComplete, Verb: "get", StageTimestamp: at, RequestReceivedTimestamp: at},
		Labels: map[string]string{audit.LabelSource: audit.Source}, Engineer: "ana@vendor.example",
	}
}

// options lead to a database of the test's own.
func options(t *testing.T) Options {
	t.Helper()
	server := harness.Shared(t)
	file := filepath.Join(t.TempDir(), "url")
	write(t, file, server.URL(server.Database(t))+"\n")
	return Options{URL: file, TLS: "disable"}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func connect(t *testing.T, o Options) *pgx.Conn {
	t.Helper()
	config, err := o.config()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.ConnectConfig(t.Context(), config.ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func mustOpen(t *testing.T, o Options) *Store {
	t.Helper()
	store, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func mustBegin(t *testing.T, store *Store) *audit.Ledger {
	t.Helper()
	key, err := chain.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	log, err := audit.OpenLedger(t.Context(), audit.LedgerOptions{
		Store: store, Origin: "support.cluster.example/audit", Clock: clocktesting.NewFakePassiveClock(start), Key: key,
	})
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func mustAppend(t *testing.T, log *audit.Ledger, i int) {
	t.Helper()
	if err := log.Append(t.Context(), sample(i)); err != nil {
		t.Fatal(err)
	}
}

func mustClose(t *testing.T, log *audit.Ledger) {
	t.Helper()
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
}
