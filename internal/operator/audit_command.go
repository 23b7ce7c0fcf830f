package operator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/export"
	"supportaccess.dev/operator/internal/audit/postgres"
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

// source is the log that is read.
type source struct {
	path     string
	postgres postgres.Options
	flags    *pflag.FlagSet
}

// bind adds the flags that say which log.
func (s *source) bind(flags *pflag.FlagSet) {
	s.flags = flags
	flags.StringVar(&s.path, storeFlag, "/var/log/support-access/audit.db", "file of the audit log")
	bindPostgres(flags, &s.postgres)
}

const storeFlag = "audit-store"

func auditShowCommand(name, short string, show func(*audit.Standing) string) *cobra.Command {
	var from source
	command := &cobra.Command{
		Use: name, Short: short, Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return from.read(command.Context(), func(store audit.Reader) error {
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
	from.bind(command.Flags())
	return command
}

// read does something with a log that others may be writing. A file that is named goes before what the environment says.
func (s *source) read(ctx context.Context, do func(audit.Reader) error) error {
	if s.postgres.URL != "" && !s.flags.Changed(storeFlag) {
		store, err := postgres.OpenReader(ctx, s.postgres)
		if err != nil {
			return err
		}
		return errors.Join(do(store), store.Close())
	}
	store, err := sqlite.OpenReader(ctx, s.path)
	if err != nil {
		return err
	}
	return errors.Join(do(store), store.Close())
}

// exporting is one run of support-access audit export.
type exporting struct {
	from   source
	format string
	// filters are flags by the name that a query has for them.
	filters map[string]*string
	query   audit.Query
}

func auditExportCommand() *cobra.Command {
	x := &exporting{filters: map[string]*string{}}
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
			return x.from.read(command.Context(), func(store audit.Reader) error {
				return export.Write(command.Context(), command.OutOrStdout(), store, x.query, x.format)
			})
		},
	}
	x.bind(command.Flags())
	return command
}

func (x *exporting) bind(flags *pflag.FlagSet) {
	x.from.bind(flags)
	flags.StringVar(&x.format, "format", "jsonl", "jsonl, which can be verified, csv, which is for reading, or ocsf, events of the Open Cybersecurity Schema Framework")
	for name, usage := range map[string]string{
		"grant":     "only of this grant, NAMESPACE/NAME",
		"engineer":  "only of this engineer",
		"case":      "only of this case",
		"namespace": "only what was done in this namespace, or allowed by a grant of it",
		"source":    audit.Source + " for what engineers did, " + audit.SourceLog + " for what was done with the log",
		"verb":      "only this verb, such as get",
		"resource":  "only this resource, such as pods/exec or deployments.apps",
		"section":   "only this section, such as Settings",
		"outcome":   "only Attempted, Succeeded, Refused, Failed or Cut",
		"text":      "only with this in the URI, the command, the cause or the message",
		"from":      "only since this instant, such as 2026-11-22T09:00:00Z",
		"to":        "only before this instant",
	} {
		x.filters[name] = flags.String(name, "", usage)
	}
}

// complete reads the flags.
func (x *exporting) complete() error {
	if err := audit.CheckFormat(x.format); err != nil {
		return fmt.Errorf("--%w", err)
	}
	values := url.Values{}
	for name, value := range x.filters {
		if *value != "" {
			values.Set(name, *value)
		}
	}
	query, err := audit.ParseQuery(values)
	if err != nil {
		return fmt.Errorf("--%w", err)
	}
	x.query = query
	return nil
}
