package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/cli-runtime/pkg/printers"
	"sigs.k8s.io/yaml"

	"supportaccess.dev/operator/internal/audit"
)

// printEntries prints entries, the oldest first.
type printEntries func(w io.Writer, entries []seen) error

// printerOf returns how -o says that entries are printed.
func printerOf(output string) (printEntries, error) {
	switch output {
	case "":
		return printTable(fewColumns), nil
	case "wide":
		return printTable(allColumns), nil
	case "json":
		return printJSON, nil
	case "yaml":
		return printYAML, nil
	case "name":
		return printNames, nil
	}
	return nil, fmt.Errorf("-o %q is not known: it is json, yaml, name or wide", output)
}

// streamOf is printerOf for entries that come one by one.
func streamOf(output string) printEntries {
	switch output {
	case "json":
		return printLines
	case "yaml":
		return printDocuments
	case "name":
		return printNames
	case "wide":
		return printRows(allColumns)
	}
	return printRows(fewColumns)
}

// entryList is what -o json prints.
type entryList struct {
	Entries []json.RawMessage `json:"entries"`
}

func listOf(entries []seen) entryList {
	list := entryList{Entries: []json.RawMessage{}}
	for i := range entries {
		list.Entries = append(list.Entries, entries[i].line)
	}
	return list
}

func printJSON(w io.Writer, entries []seen) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "    ")
	return encoder.Encode(listOf(entries))
}

func printYAML(w io.Writer, entries []seen) error {
	text, err := yaml.Marshal(listOf(entries))
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

func printLines(w io.Writer, entries []seen) error {
	for i := range entries {
		if _, err := fmt.Fprintf(w, "%s\n", entries[i].line); err != nil {
			return err
		}
	}
	return nil
}

func printDocuments(w io.Writer, entries []seen) error {
	for i := range entries {
		text, err := yaml.JSONToYAML(entries[i].line)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "---\n%s", text); err != nil {
			return err
		}
	}
	return nil
}

func printNames(w io.Writer, entries []seen) error {
	for i := range entries {
		if _, err := fmt.Fprintf(w, "entry/%d\n", entries[i].Seq); err != nil {
			return err
		}
	}
	return nil
}

// The columns, and how wide they are where entries come one by one.
var (
	entryColumns = []string{"TIME", "WHO", "GRANT", "SECTION", "DID", "WHAT", "OUTCOME"}
	entryWidths  = []int{20, 24, 26, 22, 10, 48, 9}
	moreColumns  = []string{"SEQ", "CASE", "CODE", "FROM", "WITH", "CAUSE"}
)

// printTable prints a table. Of a request it has what became of it: the line that says how it began is left out.
func printTable(wide columns) printEntries {
	return func(w io.Writer, entries []seen) error {
		table := printers.GetNewTabWriter(w)
		heads := entryColumns
		if wide == allColumns {
			heads = slices.Concat(heads, moreColumns)
		}
		line(table, slices.Clone(heads)...)
		for _, e := range outcomes(entries) {
			line(table, cellsOf(&e, wide)...)
		}
		return table.Flush()
	}
}

// printRows prints rows of a table that has no end.
func printRows(wide columns) printEntries {
	return func(w io.Writer, entries []seen) error {
		for i := range entries {
			if err := printRow(w, cellsOf(&entries[i], wide)); err != nil {
				return err
			}
		}
		return nil
	}
}

func printRow(w io.Writer, cells []string) error {
	padded := make([]string, len(cells))
	for i, cell := range cells {
		padded[i] = clean(cell)
		if i < len(entryWidths) {
			padded[i] = fmt.Sprintf("%-*s", entryWidths[i], padded[i])
		}
	}
	_, err := fmt.Fprintln(w, strings.TrimRight(strings.Join(padded, "  "), " "))
	return err
}

// printHeads prints the heads of a table that has no end.
func printHeads(w io.Writer, output string) error {
	switch output {
	case "":
		return printRow(w, entryColumns)
	case "wide":
		return printRow(w, slices.Concat(entryColumns, moreColumns))
	}
	return nil
}

// outcomes leaves out how requests began of which is known how they went on.
func outcomes(entries []seen) []seen {
	last := map[string]int64{}
	for i := range entries {
		last[string(entries[i].AuditID)] = entries[i].Seq
	}
	var kept []seen
	for _, e := range entries {
		if e.Type != audit.TypeRequest || e.AuditID == "" || e.Stage == auditv1.StageResponseComplete || last[string(e.AuditID)] == e.Seq {
			kept = append(kept, e)
		}
	}
	return kept
}

func cellsOf(e *seen, wide columns) []string {
	facets := audit.FacetsOf(&e.Entry)
	who := e.Engineer
	if who == "" {
		who = e.User.Username
	}
	cells := []string{
		facets.Time.Format("2006-01-02 15:04:05Z"), dash(who), dash(strings.Trim(e.Grant.Namespace+"/"+e.Grant.Name, "/")), dash(string(e.Section)), dash(e.Verb),
		dash(whatOf(e, &facets)), string(facets.Outcome),
	}
	if wide == fewColumns {
		return cells
	}
	code := ""
	if e.ResponseStatus != nil {
		code = strconv.Itoa(int(e.ResponseStatus.Code))
	}
	return append(cells, strconv.FormatInt(e.Seq, 10), dash(e.Case), dash(code), dash(strings.Join(e.SourceIPs, ",")), dash(e.UserAgent), dash(e.Cause))
}

// whatOf says what an entry is about: an object and what was run in it, or what became of a grant.
func whatOf(e *seen, facets *audit.Facets) string {
	if e.Happened != nil {
		return strings.TrimSuffix(e.ObjectRef.Name+": "+e.Happened.Message, ": ")
	}
	if e.ObjectRef == nil {
		return e.RequestURI
	}
	what := facets.Resource
	if place := strings.Trim(e.ObjectRef.Namespace+"/"+e.ObjectRef.Name, "/"); place != "" {
		what += " " + place
	}
	if len(e.Command) > 0 {
		what += ": " + strings.Join(e.Command, " ")
	}
	return what
}
