package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"supportaccess.dev/operator/internal/audit"
)

// Paths of the log's API.
const (
	pathEntries    = "v1/entries"
	pathExport     = "v1/export"
	pathKeys       = "v1/keys"
	pathCheckpoint = "v1/checkpoint"
)

// listing is one run of kubectl support-access audit.
type listing struct {
	reader
	filter
	follow bool
	limit  int
	output string
}

func (l *listing) run(ctx context.Context) error {
	table, err := printerOf(l.output)
	if err != nil {
		return err
	}
	if l.limit < 0 {
		return fmt.Errorf("--limit: %d is less than 0", l.limit)
	}
	query, err := l.asked()
	if err != nil {
		return err
	}
	log, err := l.open(ctx)
	if err != nil {
		return err
	}
	entries, more, err := l.pages(ctx, log, query)
	if err != nil {
		return err
	}
	if !l.follow {
		if more {
			l.say("There are older entries: --limit 0 shows all, --until those before an instant.")
		}
		return table(l.Streams.Out, entries)
	}
	if err := printHeads(l.Streams.Out, l.output); err != nil {
		return err
	}
	if err := streamOf(l.output)(l.Streams.Out, entries); err != nil {
		return err
	}
	if len(entries) > 0 {
		query.Set("above", strconv.FormatInt(entries[len(entries)-1].Seq, 10))
	}
	return l.following(ctx, log, query)
}

// asked is the filter, with the namespace of the command line.
func (l *listing) asked() (url.Values, error) {
	namespace, err := l.namespace()
	if err != nil {
		return nil, err
	}
	return l.query(namespace, l.Clock.Now())
}

// seen is an entry, and the line that it is.
type seen struct {
	audit.Entry
	line json.RawMessage
}

func readSeen(line []byte) (seen, error) {
	s := seen{line: slices.Clone(line)}
	if err := json.Unmarshal(line, &s.Entry); err != nil {
		return s, fmt.Errorf("read an entry: %w", err)
	}
	return s, nil
}

// pages returns the newest entries, the oldest of them first, and whether there are older ones.
func (l *listing) pages(ctx context.Context, log *logClient, query url.Values) (entries []seen, more bool, err error) {
	query = cloneOf(query)
	for {
		left := l.limit - len(entries)
		if l.limit > 0 {
			query.Set("limit", strconv.Itoa(min(left, 500)))
		}
		page, next, err := l.page(ctx, log, query)
		if err != nil {
			return nil, false, err
		}
		entries = append(entries, page...)
		if next == 0 || l.limit > 0 && len(entries) >= l.limit {
			slices.Reverse(entries)
			return entries, next > 0, nil
		}
		query.Set("below", strconv.FormatInt(next, 10))
	}
}

func cloneOf(values url.Values) url.Values {
	clone := url.Values{}
	for name, given := range values {
		clone[name] = slices.Clone(given)
	}
	return clone
}

func (l *listing) page(ctx context.Context, log *logClient, query url.Values) ([]seen, int64, error) {
	body, err := log.get(ctx, pathEntries, query)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = body.Close() }()
	page := struct {
		Entries []json.RawMessage `json:"entries"`
		Next    int64             `json:"next"`
	}{}
	if err := json.NewDecoder(body).Decode(&page); err != nil {
		return nil, 0, fmt.Errorf("read what the audit log answers: %w", err)
	}
	var entries []seen
	for _, line := range page.Entries {
		one, err := readSeen(line)
		if err != nil {
			return nil, 0, err
		}
		entries = append(entries, one)
	}
	return entries, page.Next, nil
}

// following prints entries as they come, until the person or the log ends it.
func (l *listing) following(ctx context.Context, log *logClient, query url.Values) error {
	query.Set("follow", "true")
	body, err := log.get(ctx, pathEntries, query)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	row := streamOf(l.output)
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 2*audit.MaxLine)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		one, err := readSeen(lines.Bytes())
		if err == nil {
			err = row(l.Streams.Out, []seen{one})
		}
		if err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return errors.Join(errors.New("the audit log does not tell any more: what you may has changed, your token is over, or the gateway has stopped"), lines.Err())
}

// exporting is one run of kubectl support-access audit export.
type exporting struct {
	reader
	filter
	format, file string
}

func (d *Desk) auditExportCommand() *cobra.Command {
	x := &exporting{reader: reader{Desk: d}}
	command := &cobra.Command{
		Use:   "export",
		Short: "Write the log, or some of its entries, so that it can be verified",
		Long: "Write the log, or some of its entries, so that audit verify can check it. With -A and no filter that is the whole log. Otherwise it is the entries found, " +
			"the newest first, each with the proof that it is of this log; that none is left out only the whole shows. With --format csv it is a table, and with ocsf it is events for other systems: neither proves anything.",
		Example: `  # The whole log
  kubectl support-access audit export -A --file audit.jsonl

  # What was done with one grant, with proofs
  kubectl support-access audit export -n mail-archive --grant case-4711 --file case-4711.jsonl`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error { return x.run(command.Context()) },
	}
	x.reader.bind(command.Flags())
	x.filter.bind(command.Flags())
	command.Flags().StringVar(&x.format, "format", "jsonl", "jsonl, which can be verified, csv, which is for reading, or ocsf, events of the Open Cybersecurity Schema Framework")
	command.Flags().StringVar(&x.file, "file", "", "write to this file, which is there only when all of it is; empty for standard output")
	return command
}

func (x *exporting) run(ctx context.Context) error {
	if err := audit.CheckFormat(x.format); err != nil {
		return fmt.Errorf("--%w", err)
	}
	namespace, err := x.namespace()
	if err != nil {
		return err
	}
	query, err := x.query(namespace, x.Clock.Now())
	if err != nil {
		return err
	}
	query.Set("format", x.format)
	log, err := x.open(ctx)
	if err != nil {
		return err
	}
	body, err := log.get(ctx, pathExport, query)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if x.file == "" {
		return copied(x.Streams.Out, body)
	}
	return x.write(body)
}

func copied(to io.Writer, from io.Reader) error {
	if _, err := io.Copy(to, from); err != nil {
		return fmt.Errorf("read the export, of which this is not all: %w", err)
	}
	return nil
}

// write makes the file once all of it is there.
func (x *exporting) write(body io.Reader) error {
	part, err := os.CreateTemp(filepath.Dir(x.file), ".audit-*")
	if err != nil {
		return fmt.Errorf("write --file: %w", err)
	}
	err = errors.Join(copied(part, body), part.Sync(), part.Close())
	if err == nil {
		err = os.Rename(part.Name(), x.file)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write --file: %w", err), os.Remove(part.Name()))
	}
	x.say("Written to %s", x.file)
	return nil
}

// auditShowCommand prints what a path of the API answers.
func (d *Desk) auditShowCommand(name, path, short string) *cobra.Command {
	r := &reader{Desk: d}
	command := &cobra.Command{
		Use: name, Short: short, Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			log, err := r.open(command.Context())
			if err != nil {
				return err
			}
			body, err := log.get(command.Context(), path, nil)
			if err != nil {
				return err
			}
			defer func() { _ = body.Close() }()
			return copied(d.Streams.Out, body)
		},
	}
	r.bind(command.Flags())
	return command
}
