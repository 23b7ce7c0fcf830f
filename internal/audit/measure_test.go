package audit_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	clocktesting "k8s.io/utils/clock/testing"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/sqlite"
)

func TestWhatIsPutDownAndWhatCouldNotBeIsCounted(t *testing.T) {
	registry := prometheus.NewRegistry()
	measures, err := audit.NewMeasures(registry)
	if err != nil {
		t.Fatal(err)
	}
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "audit.db"))
	if err != nil {
		t.Fatal(err)
	}
	log, err := audit.OpenLedger(t.Context(), audit.LedgerOptions{
		Store: store, Origin: origin, Key: theKey(t), Clock: clocktesting.NewFakePassiveClock(start), Measures: measures,
	})
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, log, 1)
	if err := log.Trail(t.Context(), sample(2)); err != nil {
		t.Fatal(err)
	}
	if err := log.Read(t.Context(), audit.Reading{}); err != nil {
		t.Fatal(err)
	}
	if err := log.Append(t.Context(), &audit.Entry{Engineer: strings.Repeat("x", audit.MaxLine)}); err == nil {
		t.Fatal("an entry that is too long is taken")
	}
	measures.CopyFailed()
	mustClose(t, log)
	want := `
# HELP support_access_audit_copy_failures_total Times that the copy of the audit log could not be brought up to date, and was tried again.
# TYPE support_access_audit_copy_failures_total counter
support_access_audit_copy_failures_total 1
# HELP support_access_audit_entries_total Entries that were made durable in the audit log, by type; those without are requests.
# TYPE support_access_audit_entries_total counter
support_access_audit_entries_total{type=""} 2
support_access_audit_entries_total{type="Keys"} 1
support_access_audit_entries_total{type="Read"} 1
# HELP support_access_audit_failures_total Entries that could not be put into the audit log. What they tell of was not done.
# TYPE support_access_audit_failures_total counter
support_access_audit_failures_total 1
# HELP support_access_audit_waiting_entries Entries that wait to become durable.
# TYPE support_access_audit_waiting_entries gauge
support_access_audit_waiting_entries 0
`
	names := []string{"support_access_audit_copy_failures_total", "support_access_audit_entries_total", "support_access_audit_failures_total", "support_access_audit_waiting_entries"}
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
	if got := testutil.CollectAndCount(registry, "support_access_audit_append_duration_seconds"); got != 1 {
		t.Errorf("%d histograms", got)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
}
