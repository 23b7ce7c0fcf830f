package audit_test

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"supportaccess.dev/operator/internal/audit"
)

func TestAQueryFindsWhatItAsksForAndNothingElse(t *testing.T) {
	onEach(t, func(t *testing.T, open func() backend) {
		store := open()
		log := resume(t, store, theKey(t))
		for i := range findables {
			mustAppend(t, log, findable(i))
		}
		findAll(t, store)
		mustClose(t, log)
	})
}

// findables is how many entries there are to be found.
const findables = 400

func findAll(t *testing.T, store audit.Reader) {
	instant := func(i int) time.Time { return start.Add(time.Duration(i) * time.Second) }
	for name, test := range map[string]struct {
		query audit.Query
		want  func(i int, f audit.Facets) bool
	}{
		"a grant":                    {audit.Query{Grant: audit.Grant{Namespace: "shop", Name: "case-2"}}, func(i int, _ audit.Facets) bool { return i%4 == 2 }},
		"a grant by its UID":         {audit.Query{Grant: audit.Grant{UID: "uid-3"}}, func(i int, _ audit.Facets) bool { return i%4 == 3 }},
		"an engineer":                {audit.Query{Engineer: "engineer-1"}, func(i int, _ audit.Facets) bool { return i%2 == 1 }},
		"a case":                     {audit.Query{Case: "CASE-1"}, func(i int, _ audit.Facets) bool { return i%4 == 1 }},
		"a namespace":                {audit.Query{Namespace: "mail"}, func(i int, _ audit.Facets) bool { return i%3 == 1 }},
		"the namespace of the grant": {audit.Query{Namespace: "shop"}, func(int, audit.Facets) bool { return true }},
		"a verb":                     {audit.Query{Verb: "list"}, func(i int, _ audit.Facets) bool { return i%2 == 1 }},
		"a resource":                 {audit.Query{Resource: "secrets"}, func(i int, _ audit.Facets) bool { return i%3 == 2 }},
		"a section":                  {audit.Query{Section: audit.SectionContent}, func(i int, _ audit.Facets) bool { return i%3 == 2 }},
		"an outcome":                 {audit.Query{Outcome: audit.OutcomeRefused}, func(i int, _ audit.Facets) bool { return i%5 == 3 }},
		"support":                    {audit.Query{Source: audit.Source}, func(int, audit.Facets) bool { return true }},
		"a word, in capitals or not": {audit.Query{Text: "wEB-39"}, func(i int, _ audit.Facets) bool { return i == 39 || i/10 == 39 }},
		"since":                      {audit.Query{From: instant(390)}, func(i int, _ audit.Facets) bool { return i >= 390 }},
		"until":                      {audit.Query{To: instant(10)}, func(i int, _ audit.Facets) bool { return i < 10 }},
		"between":                    {audit.Query{From: instant(200), To: instant(210)}, func(i int, _ audit.Facets) bool { return i >= 200 && i < 210 }},
		"after all":                  {audit.Query{From: instant(findables + 3600)}, func(int, audit.Facets) bool { return false }},
		"before all":                 {audit.Query{To: instant(-3600)}, func(int, audit.Facets) bool { return false }},
		"several": {
			audit.Query{Namespace: "billing", Engineer: "engineer-0", Outcome: audit.OutcomeFailed, From: instant(100)},
			func(i int, _ audit.Facets) bool { return i%3 == 2 && i%2 == 0 && i%5 == 4 && i >= 100 },
		},
		"nobody":              {audit.Query{Engineer: "engineer-0' OR '1'='1"}, func(int, audit.Facets) bool { return false }},
		"text that is no SQL": {audit.Query{Text: "%"}, func(int, audit.Facets) bool { return false }},
	} {
		t.Run(name, func(t *testing.T) {
			var want []string
			for i := findables - 1; i >= 0; i-- {
				if test.want(i, audit.Facets{}) {
					want = append(want, fmt.Sprint("web-", i))
				}
			}
			test.query.Limit = 1 + rand.IntN(40)
			test.query.Type = ""
			if test.query.Source == "" {
				test.query.Source = audit.Source
			}
			var got []string
			err := audit.Each(t.Context(), store, test.query, func(line audit.Line) error {
				e := audit.Entry{}
				if err := json.Unmarshal(line.Text, &e); err != nil {
					return err
				}
				if e.Seq != line.Seq {
					t.Errorf("number %d of entry %d", line.Seq, e.Seq)
				}
				got = append(got, e.ObjectRef.Name)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if strings.Join(got, " ") != strings.Join(want, " ") {
				t.Errorf("%d found, want %d:\n%v\n%v", len(got), len(want), got, want)
			}
		})
	}
}

// findable returns an entry with something to find it by.
func findable(i int) *audit.Entry {
	namespaces := []string{"shop", "mail", "billing"}
	verbs := []string{"get", "list"}
	codes := []int32{200, 200, 200, 403, 500}
	resource := []string{"pods", "configmaps", "secrets"}[i%3]
	at := metav1.NewMicroTime(start.Add(time.Duration(i) * time.Second))
	return &audit.Entry{
		Event: auditv1.Event{
			Level: auditv1.LevelMetadata, Stage: auditv1.StageResponseComplete, Verb: verbs[i%2],
			RequestURI:     fmt.Sprintf("/api/v1/namespaces/%s/%s/Web-%d", namespaces[i%3], resource, i),
			ObjectRef:      &auditv1.ObjectReference{Resource: resource, Namespace: namespaces[i%3], Name: fmt.Sprint("web-", i)},
			ResponseStatus: &metav1.Status{Code: codes[i%5]}, StageTimestamp: at, RequestReceivedTimestamp: at,
		},
		Labels:   map[string]string{audit.LabelSource: audit.Source},
		Grant:    audit.Grant{Namespace: "shop", Name: fmt.Sprint("case-", i%4), UID: fmt.Sprint("uid-", i%4)},
		Engineer: fmt.Sprint("engineer-", i%2), Case: fmt.Sprint("CASE-", i%4),
	}
}

func mustAppend(t testing.TB, log *audit.Ledger, e *audit.Entry) {
	t.Helper()
	if err := log.Append(t.Context(), e); err != nil {
		t.Fatal(err)
	}
}

// TestWhatNoStoreExpectsIsOnRecordAndFound sends what an engineer may send, and no name is: it must not keep others out.
func TestWhatNoStoreExpectsIsOnRecordAndFound(t *testing.T) {
	odd := map[string]string{
		"a zero byte":         "a\x00b",
		"no UTF-8":            "a\xff\xfeb",
		"half a character":    "a\xe2\x80",
		"very long":           strings.Repeat("long and of no end ", 300),
		"just as long":        strings.Repeat("long and of no end ", 299) + "long and of no enD ",
		"not to be squeezed":  incompressible(8 << 10),
		"a quote":             `a'"\b`,
		"as what is no UTF-8": "a\uFFFD",
	}
	onEach(t, func(t *testing.T, open func() backend) {
		store := open()
		log := resume(t, store, theKey(t))
		for name, value := range odd {
			e := findable(1)
			e.ObjectRef.Namespace, e.ObjectRef.Resource, e.Verb, e.Engineer, e.Case = value, value, value, value, value
			e.ObjectRef.Name, e.RequestURI, e.Command = name, value, []string{value, value}
			mustAppend(t, log, e)
		}
		for name, value := range odd {
			for _, q := range []audit.Query{
				{Namespace: value}, {Resource: value}, {Verb: value}, {Engineer: value}, {Case: value}, {Text: value, Engineer: value},
			} {
				page, err := store.Find(t.Context(), q)
				if err != nil || len(page.Lines) != 1 || !bytes.Contains(page.Lines[0].Text, []byte(`"name":"`+name+`"`)) {
					t.Errorf("%s: %d found, %v", name, len(page.Lines), err)
				}
			}
		}
		mustVerify(t, exported(t, store), nil)
		mustClose(t, log)
	})
}

// incompressible returns text that no index can make small.
func incompressible(length int) string {
	random := rand.New(rand.NewPCG(1, 2))
	var text strings.Builder
	for text.Len() < length {
		text.WriteByte(byte('a' + random.IntN(26)))
	}
	return text.String()
}

// BenchmarkFind shows how long a page of fifty takes in a large log. AUDIT_BENCH_ENTRIES says how large.
func BenchmarkFind(b *testing.B) {
	for kind, open := range stores {
		b.Run(kind, func(b *testing.B) {
			dir := b.TempDir()
			store := open(b, dir)
			log := resume(b, store, theKey(b))
			fillFast(b, store, benchEntries(b))
			if kind == "sqlite" {
				awaitIndex(b, dir, benchEntries(b))
			}
			benchmarkFind(b, store, benchEntries(b))
			mustClose(b, log)
		})
	}
}

func benchmarkFind(b *testing.B, store audit.Reader, entries int) {
	for name, query := range map[string]audit.Query{
		"newest":               {},
		"grant":                {Grant: audit.Grant{Namespace: "team-3", Name: "case-77"}},
		"engineer":             {Engineer: "engineer-3@vendor.example"},
		"namespace":            {Namespace: "team-5"},
		"namespace+outcome":    {Namespace: "team-5", Outcome: audit.OutcomeRefused},
		"section+verb":         {Section: audit.SectionContent, Verb: "delete"},
		"rare outcome":         {Outcome: audit.OutcomeCut},
		"rare of two frequent": {Namespace: "team-5", Verb: "get", Outcome: audit.OutcomeCut},
		"never":                {Engineer: "engineer-3@vendor.example", Verb: "patch", Resource: "secrets"},
		"old time":             {From: start.Add(time.Duration(entries/9) * time.Second), To: start.Add(time.Duration(entries/8) * time.Second)},
		"old time+engineer":    {Engineer: "engineer-3@vendor.example", To: start.Add(time.Duration(entries/8) * time.Second)},
		"text, frequent":       {Text: "settings"},
		"text, once":           {Text: fmt.Sprintf("settings-%d", entries/7)},
		"text, never":          {Text: "nowhere to be found"},
	} {
		b.Run(name, func(b *testing.B) {
			query.Limit = 50
			found := 0
			for range b.N {
				page, err := store.Find(b.Context(), query)
				if err != nil {
					b.Fatal(err)
				}
				found = len(page.Lines)
			}
			b.ReportMetric(float64(found), "found")
		})
	}
}

// awaitIndex waits until the index that lies beside a log has all its entries.
func awaitIndex(b *testing.B, dir string, entries int) {
	b.Helper()
	indexes, err := filepath.Glob(filepath.Join(dir, "*.index"))
	if err != nil || len(indexes) != 1 {
		b.Fatalf("there are indexes %v, %v; want one", indexes, err)
	}
	db, err := sql.Open("sqlite", "file:"+indexes[0]+"?_pragma=query_only(ON)&_pragma=busy_timeout(10000)")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	err = wait.PollUntilContextTimeout(b.Context(), 100*time.Millisecond, 30*time.Minute, true, func(ctx context.Context) (bool, error) {
		through := 0
		err := db.QueryRowContext(ctx, "SELECT through FROM progress").Scan(&through)
		return through >= entries, err
	})
	if err != nil {
		b.Fatalf("wait until the index has all entries: %v", err)
	}
}

// fillFast puts in rows by the thousand, without the tree.
func fillFast(b *testing.B, store backend, entries int) {
	b.Helper()
	verbs := []string{"get", "list", "watch", "get", "get", "get", "list", "delete"}
	resources := []string{"configmaps", "pods", "services", "deployments.apps", "events", "secrets", "pods/log"}
	sections := []audit.Section{audit.SectionSettings, audit.SectionWorkloads, audit.SectionNetwork, audit.SectionWorkloads, audit.SectionWorkloads, audit.SectionContent, audit.SectionLogs}
	agent := strings.Repeat("kubectl ", 60)
	standing, err := store.Load(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for seq := standing.Size + 1; seq <= int64(entries); {
		var rows []audit.Row
		for range 1000 {
			i := int(seq)
			e := &audit.Entry{
				Event: auditv1.Event{
					Stage: auditv1.StageResponseComplete, Verb: verbs[i%8], StageTimestamp: metav1.NewMicroTime(start.Add(time.Duration(i) * time.Second)),
					RequestURI:     fmt.Sprintf("/api/v1/namespaces/team-%d/%s/settings-%d?limit=500", i/500%17, resources[i%7], i),
					ObjectRef:      &auditv1.ObjectReference{Namespace: fmt.Sprint("team-", i/500%17), Resource: resources[i%7]},
					ResponseStatus: &metav1.Status{Code: 200}, UserAgent: agent,
				},
				Type: audit.TypeRequest, Labels: map[string]string{audit.LabelSource: audit.Source},
				Grant:    audit.Grant{Namespace: fmt.Sprint("team-", i/500%17), Name: fmt.Sprint("case-", i/500%1009), UID: fmt.Sprint("uid-", i/500%1009)},
				Engineer: fmt.Sprintf("engineer-%d@vendor.example", i/500%7), Case: fmt.Sprint("CASE-", i/500%1009), Section: sections[i%7],
			}
			switch {
			case i%2 == 0:
				e.Stage = auditv1.StageRequestReceived
			case i%10007 == 0:
				e.Cause = "Revoked"
			case i%101 == 0:
				e.ResponseStatus.Code = 403
			}
			line, err := json.Marshal(e)
			if err != nil {
				b.Fatal(err)
			}
			rows = append(rows, audit.Row{Seq: seq, Line: line, Hashes: standing.Edge[:1], Facets: audit.FacetsOf(e)})
			seq++
		}
		standing.Size = seq - 1
		err := store.Commit(b.Context(), func(*audit.Standing) ([]audit.Row, audit.Standing, error) { return rows, *standing, nil })
		if err != nil {
			b.Fatal(err)
		}
	}
}

func benchEntries(b *testing.B) int {
	b.Helper()
	entries := 0
	if _, err := fmt.Sscan(cmp.Or(os.Getenv("AUDIT_BENCH_ENTRIES"), "100000"), &entries); err != nil {
		b.Fatal(err)
	}
	return entries
}
