package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"supportaccess.dev/operator/internal/audit/verify"
)

// exitFaulty says that an audit log is not as it was written.
const exitFaulty = 4

func (d *Desk) auditCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "audit",
		Short: "Verify the audit log of what engineers did",
		Args:  cobra.NoArgs,
		RunE:  func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(d.auditVerifyCommand())
	return command
}

// verifying is one run of kubectl support-access audit verify.
type verifying struct {
	*Desk
	keys, checkpoints []string
	output            string
}

func (d *Desk) auditVerifyCommand() *cobra.Command {
	v := &verifying{Desk: d}
	command := &cobra.Command{
		Use:   "verify FILE",
		Short: "Find out whether an export of the audit log is as it was written",
		Long: "Find out whether an export of the audit log is as it was written: that no entry was changed, taken out, put in or moved, and that the log's " +
			"key has signed it. It asks nobody: neither the cluster nor the gateway.\n\nThe public key comes from where the log cannot change it, such as " +
			"your notes of the day it was set up. Without --key the log is checked with the keys that it names itself: that shows it to be of one piece, " +
			"and not whose it is. Whoever has the key can write another log. That, and an older copy, is found out with --checkpoint: one that " +
			"was kept elsewhere.\n\nFILE may be a hyphen for standard input. Exit code: 0 it is as it was written; 4 it is not, and the first bad entry is named; " +
			"1 it could not be read.",
		Example: `  kubectl support-access audit verify audit.jsonl --key audit.pub

  # Not an older copy either
  kubectl support-access audit verify audit.jsonl --key audit.pub --checkpoint last-week.txt`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return v.run(args[0]) },
	}
	flags := command.Flags()
	flags.StringArrayVar(&v.keys, "key", nil, "public key of the log, NAME+HASH+KEY, or a file with some, one a line; may be repeated")
	flags.StringArrayVar(&v.checkpoints, "checkpoint", nil, "file with a signed checkpoint that was kept elsewhere; may be repeated")
	flags.StringVarP(&v.output, "output", "o", "", "json for what was found, in JSON")
	return command
}

func (v *verifying) run(path string) error {
	if v.output != "" && v.output != "json" {
		return fmt.Errorf("-o %q is not known: it is json or nothing", v.output)
	}
	options, err := v.options()
	if err != nil {
		return err
	}
	from := v.Streams.In
	if path != "-" {
		file, err := os.Open(path) //nolint:gosec // The path is the person's own.
		if err != nil {
			return fmt.Errorf("open the export: %w", err)
		}
		defer func() { _ = file.Close() }()
		from = file
	}
	return v.judge(from, options)
}

// options reads the keys and checkpoints that are named.
func (v *verifying) options() (verify.Options, error) {
	var options verify.Options
	for _, key := range v.keys {
		content, err := os.ReadFile(key) //nolint:gosec // The path is the person's own.
		if err != nil {
			// Whoever mistypes a file's name is told so, and not that it is no key.
			if strings.Count(key, "+") < 2 {
				return options, fmt.Errorf("read --key: %w", err)
			}
			content = []byte(key)
		}
		options.Keys = append(options.Keys, strings.Fields(string(content))...)
	}
	if len(v.keys) > 0 && len(options.Keys) == 0 {
		return options, errors.New("--key: the file is empty")
	}
	for _, path := range v.checkpoints {
		content, err := os.ReadFile(path) //nolint:gosec // The path is the person's own.
		if err != nil {
			return options, fmt.Errorf("read --checkpoint: %w", err)
		}
		options.Checkpoints = append(options.Checkpoints, string(content))
	}
	return options, nil
}

// judge verifies and says what was found.
func (v *verifying) judge(from io.Reader, options verify.Options) error {
	report, err := verify.Log(from, options)
	fault := &verify.Fault{}
	switch {
	case errors.As(err, &fault):
		err = &exitError{code: exitFaulty, err: fault}
	case err != nil:
		return fmt.Errorf("verify the export: %w", err)
	default:
		fault = nil
	}
	if v.output == "json" {
		return errors.Join(err, v.print(verdict{Intact: fault == nil, Report: report, Fault: fault}))
	}
	if err == nil {
		v.tell(report)
	}
	return err
}

// verdict is what was found, for programs.
type verdict struct {
	Intact bool           `json:"intact"`
	Report *verify.Report `json:"report,omitempty"`
	Fault  *verify.Fault  `json:"fault,omitempty"`
}

func (v *verifying) print(found verdict) error {
	encoder := json.NewEncoder(v.Streams.Out)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(found); err != nil {
		return fmt.Errorf("print what was found: %w", err)
	}
	return nil
}

// tell says what was found in words.
func (v *verifying) tell(r *verify.Report) {
	which := fmt.Sprintf("all %d entries, %d to %d,", r.Entries, r.First, r.Last)
	if !r.Whole {
		which = fmt.Sprintf("%d entries of %d", r.Entries, r.Size)
	}
	_, _ = fmt.Fprintf(v.Streams.Out, "Intact: %s are as they were written in the log %s.\n", which, r.Origin)
	if r.Removed > 0 {
		_, _ = fmt.Fprintf(v.Streams.Out, "Entries 1 to %d were removed because they were old, as the log says.\n", r.Removed)
	}
	_, _ = fmt.Fprintf(v.Streams.Out, "Root:      %s of %d entries\nSigned by: %s\nChecked:   %d checkpoints\n", r.Root, r.Size, strings.Join(r.SignedBy, ", "), r.Checkpoints)
	for _, note := range r.Notes {
		v.say("note: %s", note)
	}
}
