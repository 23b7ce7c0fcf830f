package sqlite

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"supportaccess.dev/operator/internal/audit"
)

func TestAQueryFindsWhatItAsksForAndNothingElse(t *testing.T) {
	const entries = 400
	store, log := newLog(t)
	for i := range entries {
		mustAppend(t, log, i)
	}
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
		"after all":                  {audit.Query{From: instant(entries + 3600)}, func(int, audit.Facets) bool { return false }},
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
			for i := entries - 1; i >= 0; i-- {
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
	mustClose(t, log)
}

// BenchmarkFind shows how long a page of fifty takes in a large log. AUDIT_BENCH_ENTRIES says how large.
func BenchmarkFind(b *testing.B) {
	store, log := newLog(b)
	entries := benchEntries(b)
	fillFast(b, store, entries)
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
	mustClose(b, log)
}

// fillFast puts in rows by the thousand, without the tree.
func fillFast(b *testing.B, store *Store, entries int) {
	b.Helper()
	verbs := []string{"get", "list", "watch", "get", "get", "get", "list", "delete"}
	resources := []string{"configmaps", "pods", "services", "deployments.apps", "events", "secrets", "pods/log"}
	sections := []audit.Section{audit.SectionSettings, audit.SectionWorkloads, audit.SectionNetwork, audit.SectionWorkloads, audit.SectionWorkloads, audit.SectionContent, audit.SectionLogs}
	line := bytes.Repeat([]byte("x"), 1200)
	standing, err := store.Load(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for seq := standing.Size + 1; seq <= int64(entries); {
		var rows []audit.Row
		for range 1000 {
			i := int(seq)
			outcome := audit.OutcomeSucceeded
			switch {
			case i%2 == 0:
				outcome = audit.OutcomeAttempted
			case i%10007 == 0:
				outcome = audit.OutcomeCut
			case i%101 == 0:
				outcome = audit.OutcomeRefused
			}
			rows = append(rows, audit.Row{Seq: seq, Line: line, Hashes: standing.Edge[:1], Facets: audit.Facets{
				Time: start.Add(time.Duration(i) * time.Second), Source: audit.Source,
				Grant:    audit.Grant{Namespace: fmt.Sprint("team-", i/500%17), Name: fmt.Sprint("case-", i/500%1009), UID: fmt.Sprint("uid-", i/500%1009)},
				Engineer: fmt.Sprintf("engineer-%d@vendor.example", i/500%7), Case: fmt.Sprint("CASE-", i/500%1009), Namespace: fmt.Sprint("team-", i/500%17),
				Verb: verbs[i%8], Resource: resources[i%7], Section: sections[i%7], Outcome: outcome,
				Text: fmt.Sprintf("/api/v1/namespaces/team-%d/%s/settings-%d?limit=500", i/500%17, resources[i%7], i),
			}})
			seq++
		}
		standing.Size = seq - 1
		if err := store.Commit(b.Context(), rows, *standing); err != nil {
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
