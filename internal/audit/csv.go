package audit

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Formats are those of an export: what can be verified, a table for reading, and events for systems that know the schema.
var Formats = []string{"jsonl", "csv", "ocsf"}

// CheckFormat says what is wrong with a format.
func CheckFormat(format string) error {
	if !slices.Contains(Formats, format) {
		return fmt.Errorf("format: %q is neither jsonl nor csv nor ocsf", format)
	}
	return nil
}

// csvColumns are what a table of entries says of each.
var csvColumns = []struct {
	name string
	of   func(*Entry, *Facets) string
}{
	{"seq", func(e *Entry, _ *Facets) string { return strconv.FormatInt(e.Seq, 10) }},
	{"time", func(_ *Entry, f *Facets) string { return f.Time.Format(time.RFC3339Nano) }},
	{"source", func(_ *Entry, f *Facets) string { return f.Source }},
	{"type", func(e *Entry, _ *Facets) string { return string(e.Type) }},
	{"engineer", func(e *Entry, _ *Facets) string { return e.Engineer }},
	{"case", func(e *Entry, _ *Facets) string { return e.Case }},
	{"grant", func(e *Entry, _ *Facets) string { return strings.Trim(e.Grant.Namespace+"/"+e.Grant.Name, "/") }},
	{"section", func(e *Entry, _ *Facets) string { return string(e.Section) }},
	{"verb", func(e *Entry, _ *Facets) string { return e.Verb }},
	{"resource", func(_ *Entry, f *Facets) string { return f.Resource }},
	{"namespace", func(_ *Entry, f *Facets) string { return f.Namespace }},
	{"name", nameOfObject},
	{"outcome", func(_ *Entry, f *Facets) string { return string(f.Outcome) }},
	{"code", codeOf},
	{"stage", func(e *Entry, _ *Facets) string { return string(e.Stage) }},
	{"command", func(e *Entry, _ *Facets) string { return strings.Join(e.Command, " ") }},
	{"cause", func(e *Entry, _ *Facets) string { return e.Cause }},
	{"uri", func(e *Entry, _ *Facets) string { return e.RequestURI }},
	{"address", func(e *Entry, _ *Facets) string { return strings.Join(e.SourceIPs, " ") }},
	{"agent", func(e *Entry, _ *Facets) string { return e.UserAgent }},
	{"request", func(e *Entry, _ *Facets) string { return string(e.AuditID) }},
	{"bytesIn", func(e *Entry, _ *Facets) string { return strconv.FormatInt(e.BytesIn, 10) }},
	{"bytesOut", func(e *Entry, _ *Facets) string { return strconv.FormatInt(e.BytesOut, 10) }},
	{"by", func(e *Entry, _ *Facets) string { return e.happening().By }},
	{"message", func(e *Entry, _ *Facets) string { return e.happening().Message }},
	{"durationMillis", func(e *Entry, _ *Facets) string { return strconv.FormatFloat(e.DurationMillis, 'f', -1, 64) }},
}

func nameOfObject(e *Entry, _ *Facets) string {
	if e.ObjectRef == nil {
		return ""
	}
	return e.ObjectRef.Name
}

func codeOf(e *Entry, _ *Facets) string {
	if e.ResponseStatus == nil {
		return ""
	}
	return strconv.Itoa(int(e.ResponseStatus.Code))
}

// ExportCSV writes the entries that a query asks for as a table, the newest first. It is for reading: what proves
// something is an export.
func ExportCSV(ctx context.Context, w io.Writer, s Reader, q Query) error {
	table := csv.NewWriter(w)
	row := make([]string, len(csvColumns))
	for i, column := range csvColumns {
		row[i] = column.name
	}
	if err := table.Write(row); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	err := EachEntry(ctx, s, q, func(e *Entry) error {
		facets := FacetsOf(e)
		for i, column := range csvColumns {
			row[i] = harmless(column.of(e, &facets))
		}
		if err := table.Write(row); err != nil {
			return fmt.Errorf("write the table: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	table.Flush()
	if err := table.Error(); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	return nil
}

// harmless keeps a spreadsheet from taking for a formula what an engineer has chosen: a command, an agent, a name.
func harmless(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
		return "'" + cell
	}
	return cell
}
