package operator

import (
	"bytes"
	"context"
	"encoding/csv"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	harness "supportaccess.dev/operator/hack/postgres"
	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/chain"
	"supportaccess.dev/operator/internal/audit/postgres"
	"supportaccess.dev/operator/internal/audit/verify"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

func TestALogThatIsNewGetsAKeyAndOneThatHasLostItsKeyDoesNot(t *testing.T) {
	o := auditIn(t.TempDir())
	log := mustOpenLog(t, o)
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(o.Key)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the key: %v, %v", info, err)
	}
	again := mustOpenLog(t, o)
	if again.ledger.PublicKeys()[0] != log.ledger.PublicKeys()[0] {
		t.Error("it has another key")
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(o.Key); err != nil {
		t.Fatal(err)
	}
	if lost, err := o.open(t.Context(), clock.RealClock{}); err == nil || !strings.Contains(err.Error(), "nobody else's key") {
		t.Errorf("got %v, %v", lost, err)
	}
	if _, err := os.Stat(o.Key); err == nil {
		t.Error("another key was made")
	}
}

func TestOptionsOfTheAuditLogAreSaidWhereTheyAreWrong(t *testing.T) {
	for want, o := range map[string]AuditOptions{
		"--audit-store: ":        {},
		"--audit-retention: ":    {Store: "a", Retention: -time.Hour, Address: "0"},
		"--audit-bind-address: ": {Lines: "a", Address: ":9444"},
	} {
		if err := o.check(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: got %v, want %s", o, err, want)
		}
	}
	file := AuditOptions{Lines: filepath.Join(t.TempDir(), "audit.log"), Address: "0"}
	log, err := file.open(t.Context(), clock.RealClock{})
	if err != nil || log.ledger != nil || file.check() != nil {
		t.Fatalf("a file alone: %v, %v", log, err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsOldIsRemovedEveryHour(t *testing.T) {
	now := clocktesting.NewFakeClock(time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC))
	o := auditIn(t.TempDir())
	log, err := o.open(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- (&retention{ledger: log.ledger, keep: 90 * time.Minute, clock: now, logger: logr.Discard()}).Start(t.Context())
	}()
	for hour := range 3 {
		waitFor(t, now.HasWaiters)
		stub, err := log.reader.Stub(t.Context())
		if gone := stub != nil; err != nil || gone != (hour == 2) {
			t.Errorf("after %d hours: %+v, %v", hour, stub, err)
		}
		now.Step(time.Hour)
	}
	waitFor(t, now.HasWaiters)
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestTheLogIsExportedWholeOrWithProofsOrAsATable(t *testing.T) {
	o := auditIn(t.TempDir())
	exports(t, o, "--audit-store="+o.Store)
}

// TestTheLogInADatabaseIsExportedInThePodWithoutASay has the pod's environment say where it lies.
func TestTheLogInADatabaseIsExportedInThePodWithoutASay(t *testing.T) {
	o := inDatabase(t)
	t.Setenv(postgresVariable, o.Postgres.URL)
	t.Setenv(postgresTLSVariable, o.Postgres.TLS)
	exports(t, o)
}

// exports runs the commands that read a log where it lies.
func exports(t *testing.T, o AuditOptions, where ...string) {
	t.Helper()
	log := mustOpenLog(t, o)
	for _, engineer := range []string{"ana@vendor.example", "ben@vendor.example", "=ana"} {
		err := log.Append(t.Context(), &audit.Entry{
			Engineer: engineer, Grant: audit.Grant{Namespace: "shop", Name: "case-1"}, Labels: map[string]string{audit.LabelSource: audit.Source},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) string {
		t.Helper()
		var out bytes.Buffer
		command := AuditCommand()
		command.SetArgs(append(args, where...))
		command.SetOut(&out)
		if err := command.ExecuteContext(t.Context()); err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return out.String()
	}
	keys, checkpoint := strings.Fields(run("keys")), run("checkpoint")
	for entries, args := range map[int64][]string{4: {"export"}, 3: {"export", "--grant=shop/case-1"}, 1: {"export", "--engineer=ben@vendor.example", "--source=Support"}} {
		report, err := verify.Log(strings.NewReader(run(args...)), verify.Options{Keys: keys, Checkpoints: []string{checkpoint}})
		if err != nil || report.Entries != entries {
			t.Errorf("%v: %+v, %v", args, report, err)
		}
	}
	rows, err := csv.NewReader(strings.NewReader(run("export", "--format=csv", "--grant=shop/case-1"))).ReadAll()
	if err != nil || len(rows) != 4 || rows[0][4] != "engineer" || rows[1][4] != "'=ana" || rows[1][6] != "shop/case-1" {
		t.Errorf("got %q, %v", rows, err)
	}
	for _, wrong := range []string{"--grant=shop", "--format=xml", "--section=Everything", "--outcome=Well", "--from=yesterday"} {
		command := AuditCommand()
		command.SetArgs(append([]string{"export", wrong}, where...))
		command.SilenceErrors, command.SilenceUsage = true, true
		flag, _, _ := strings.Cut(wrong, "=")
		if err := command.ExecuteContext(t.Context()); err == nil || !strings.HasPrefix(err.Error(), flag+": ") {
			t.Errorf("%s: got %v", wrong, err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
}

// inDatabase returns what says of a log that it is in a database of the test's own.
func inDatabase(t *testing.T) AuditOptions {
	t.Helper()
	server := harness.Shared(t)
	o := auditIn(t.TempDir())
	o.Postgres = postgres.Options{URL: filepath.Join(t.TempDir(), "url"), TLS: "require"}
	if err := os.WriteFile(o.Postgres.URL, []byte(server.RemoteURL(server.Database(t), harness.Password)), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := chain.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.Key, key, 0o600); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestReplicasOfOneLogAreGivenAKeyAndMakeNone(t *testing.T) {
	o := inDatabase(t)
	if err := os.Remove(o.Key); err != nil {
		t.Fatal(err)
	}
	if log, err := o.open(t.Context(), clock.RealClock{}); err == nil || !strings.Contains(err.Error(), "--audit-key: ") || !strings.Contains(err.Error(), "share a key") {
		t.Errorf("got %v, %v", log, err)
	}
	if _, err := os.Stat(o.Key); err == nil {
		t.Error("a key was made")
	}
}

func TestADatabaseThatCannotBeIsSaidBeforeAnythingIsStarted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(file, []byte("postgres://gateway:hush-hush@db.example:port/audit"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, o := range map[string]postgres.Options{
		"no such file":                            {URL: file + "x", TLS: "verify-full"},
		"cannot be read as":                       {URL: file, TLS: "verify-full"},
		`the TLS mode "prefer" is none of`:        {URL: file, TLS: "prefer"},
		"the certificates that vouch for the ser": {URL: file, TLS: "verify-full", CA: file},
	} {
		all := AuditOptions{Postgres: o, Address: "0"}
		err := all.check()
		if err == nil || !strings.HasPrefix(err.Error(), "--audit-postgres: ") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush-hush") {
			t.Errorf("%+v: got %v, want %s", o, err, want)
		}
	}
}

func auditIn(folder string) AuditOptions {
	return AuditOptions{Store: filepath.Join(folder, "audit.db"), Key: filepath.Join(folder, "audit.key"), Origin: "support.example/audit"}
}

func mustOpenLog(t *testing.T, o AuditOptions) *auditLog {
	t.Helper()
	log, err := o.open(t.Context(), clocktesting.NewFakePassiveClock(metav1.Now().Time))
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) { return condition(), nil })
	if err != nil {
		t.Fatalf("it never came to be: %v", err)
	}
}
