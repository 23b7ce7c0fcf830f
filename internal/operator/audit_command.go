package operator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/sqlite"
)

// AuditCommand returns the subcommand that reads the gateway's audit log where it lies: in the gateway's pod.
func AuditCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "audit",
		Short: "Read the audit log of the gateway in whose pod this runs",
		Args:  cobra.NoArgs,
		RunE:  func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(auditExportCommand(), auditShowCommand("keys", "Print the public keys by which the log is checked", func(s *audit.Standing) string {
		return strings.Join(s.Keys, "\n") + "\n"
	}), auditShowCommand("checkpoint", "Print what the log says of itself now, signed", func(s *audit.Standing) string {
		return s.Checkpoint
	}))
	return command
}

// bindStore adds the flag that says which log.
func bindStore(flags *pflag.FlagSet, path *string) {
	flags.StringVar(path, "audit-store", "/var/log/support-access/audit.db", "file of the audit log")
}

func auditShowCommand(name, short string, show func(*audit.Standing) string) *cobra.Command {
	path := ""
	command := &cobra.Command{
		Use: name, Short: short, Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return reading(command.Context(), path, func(store *sqlite.Store) error {
				standing, err := store.Load(command.Context())
				if err != nil {
					return err
				}
				if standing == nil {
					return audit.ErrEmpty
				}
				_, err = io.WriteString(command.OutOrStdout(), show(standing))
				return err
			})
		},
	}
	bindStore(command.Flags(), &path)
	return command
}

// reading does something with a log that another process may be writing.
func reading(ctx context.Context, path string, do func(*sqlite.Store) error) error {
	store, err := sqlite.OpenReader(ctx, path)
	if err != nil {
		return err
	}
	return errors.Join(do(store), store.Close())
}

// exporting is one run of support-access audit export.
type exporting struct {
	path, format    string
	grant, from, to string
	query           audit.Query
}

func auditExportCommand() *cobra.Command {
	x := &exporting{}
	command := &cobra.Command{
		Use:   "export",
		Short: "Write the log, or some of its entries, to standard output",
		Long: "Write the log to standard output. Without a filter that is every entry as it is kept, which kubectl support-access audit verify checks whole. " +
			"With one it is the entries found, the newest first, each with the proof that it is of this log.",
		Example: `  kubectl exec -n support-access-system deploy/support-access-gateway -- /support-access audit export > audit.jsonl
  kubectl exec -n support-access-system deploy/support-access-gateway -- /support-access audit export --grant mail-archive/case-4711 --format csv`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := x.complete(); err != nil {
				return err
			}
			return reading(command.Context(), x.path, func(store *sqlite.Store) error {
				return x.run(command.Context(), command.OutOrStdout(), store)
			})
		},
	}
	x.bind(command.Flags())
	return command
}

func (x *exporting) bind(flags *pflag.FlagSet) {
	bindStore(flags, &x.path)
	flags.StringVar(&x.format, "format", "jsonl", "jsonl, which can be verified, or csv, which is for reading")
	flags.StringVar(&x.grant, "grant", "", "only of this grant, NAMESPACE/NAME")
	flags.StringVar(&x.query.Engineer, "engineer", "", "only of this engineer")
	flags.StringVar(&x.query.Case, "case", "", "only of this case")
	flags.StringVar(&x.query.Namespace, "namespace", "", "only what was done in this namespace, or allowed by a grant of it")
	flags.StringVar(&x.query.Source, "source", "", audit.Source+" for what engineers did, "+audit.SourceLog+" for what was done with the log")
	flags.StringVar(&x.query.Verb, "verb", "", "only this verb, such as get")
	flags.StringVar(&x.query.Resource, "resource", "", "only this resource, such as pods/exec or deployments.apps")
	flags.StringVar((*string)(&x.query.Section), "section", "", "only this section, such as Settings")
	flags.StringVar((*string)(&x.query.Outcome), "outcome", "", "only Attempted, Succeeded, Refused, Failed or Cut")
	flags.StringVar(&x.query.Text, "text", "", "only with this in the URI, the command, the cause or the message")
	flags.StringVar(&x.from, "from", "", "only since this instant, such as 2026-11-22T09:00:00Z")
	flags.StringVar(&x.to, "to", "", "only before this instant")
}

// complete reads the flags that are more than a word.
func (x *exporting) complete() error {
	if x.format != "jsonl" && x.format != "csv" {
		return fmt.Errorf("--format: %q is neither jsonl nor csv", x.format)
	}
	if x.grant != "" {
		namespace, name, ok := strings.Cut(x.grant, "/")
		if !ok || namespace == "" || name == "" {
			return fmt.Errorf("--grant: %q is not NAMESPACE/NAME", x.grant)
		}
		x.query.Grant = audit.Grant{Namespace: namespace, Name: name}
	}
	if s := x.query.Section; s != "" && !slices.Contains(audit.Sections, s) {
		return fmt.Errorf("--section: %q is none of %q", s, audit.Sections)
	}
	if o := x.query.Outcome; o != "" && !slices.Contains(audit.Outcomes, o) {
		return fmt.Errorf("--outcome: %q is none of %q", o, audit.Outcomes)
	}
	for _, bound := range []struct {
		flag, text string
		into       *time.Time
	}{{"--from", x.from, &x.query.From}, {"--to", x.to, &x.query.To}} {
		if bound.text == "" {
			continue
		}
		instant, err := time.Parse(time.RFC3339, bound.text)
		if err != nil {
			return fmt.Errorf("%s: write an instant such as 2026-11-22T09:00:00Z: %w", bound.flag, err)
		}
		*bound.into = instant
	}
	return nil
}

func (x *exporting) run(ctx context.Context, w io.Writer, store *sqlite.Store) error {
	switch {
	case x.format == "csv":
		return audit.ExportCSV(ctx, w, store, x.query)
	case x.query == audit.Query{}:
		return audit.Export(ctx, w, store)
	}
	return audit.ExportFound(ctx, w, store, x.query)
}
