package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/audit/chain"
	"supportaccess.dev/operator/internal/audit/verify"
)

// exitFaulty says that an audit log is not as it was written.
const exitFaulty = 4

func (d *Desk) auditCommand() *cobra.Command {
	l := &listing{reader: reader{Desk: d}}
	command := &cobra.Command{
		Use:   "audit",
		Short: "Show what engineers did, and what became of grants, from the audit log",
		Long: "Show what engineers did, and what became of grants, from the audit log of the gateway, the oldest first. Of each request the table has how it ended; " +
			"-o json has every entry. Reading is an entry itself.\n\nIt takes the verb get on supportaccessrecords/log, in the namespace or with -A in the cluster, for the ServiceAccount as which you read.",
		Example: `  # What was done with a grant
  kubectl support-access audit -n mail-archive --grant case-4711 --audit-server https://localhost:9444 --audit-ca ca.crt --service-account audit/auditor

  # Who looked at content in the last day, and who does now
  kubectl support-access audit -A --section Content --since 24h --follow`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error { return l.run(command.Context()) },
	}
	flags := command.Flags()
	l.reader.bind(flags)
	l.filter.bind(flags)
	flags.BoolVarP(&l.follow, "follow", "f", false, "go on with what comes")
	flags.IntVar(&l.limit, "limit", 100, "show so many at most, the newest; 0 for all")
	flags.StringVarP(&l.output, "output", "o", "", "json, yaml, name or wide")
	command.AddCommand(
		d.auditVerifyCommand(), d.auditExportCommand(),
		d.auditShowCommand("keys", pathKeys, "Print the public keys by which the log is checked"),
		d.auditShowCommand("checkpoint", pathCheckpoint, "Print what the log says of itself now, signed"),
	)
	return command
}

// verifying is one run of kubectl support-access audit verify.
type verifying struct {
	*Desk
	keys, checkpoints []string
	witness           bool
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
			"was kept elsewhere, or --witness: what the operator keeps where the log's writer cannot reach it.\n\nFILE may be a hyphen for standard input. Exit code: 0 it is as it was written; 4 it is not, and the first bad entry is named; " +
			"1 it could not be read.",
		Example: `  kubectl support-access audit verify audit.jsonl --key audit.pub

  # Not an older copy either
  kubectl support-access audit verify audit.jsonl --key audit.pub --checkpoint last-week.txt

  # By what the operator keeps of it in the cluster
  kubectl support-access audit verify audit.jsonl --key audit.pub --witness`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error { return v.run(command.Context(), args[0]) },
	}
	flags := command.Flags()
	flags.StringArrayVar(&v.keys, "key", nil, "public key of the log, NAME+HASH+KEY, or a file with some, one a line; may be repeated")
	flags.StringArrayVar(&v.checkpoints, "checkpoint", nil, "file with a signed checkpoint that was kept elsewhere, or with the ConfigMap "+v1alpha1.CheckpointConfigMap+"; may be repeated")
	flags.BoolVar(&v.witness, "witness", false, "hold it against the ConfigMap "+v1alpha1.CheckpointConfigMap+" of the cluster, which only the operator writes; without --key take the log's key from there, too")
	flags.StringVarP(&v.output, "output", "o", "", "json for what was found, in JSON")
	return command
}

func (v *verifying) run(ctx context.Context, path string) error {
	if v.output != "" && v.output != "json" {
		return fmt.Errorf("-o %q is not known: it is json or nothing", v.output)
	}
	options, err := v.options(ctx)
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
func (v *verifying) options(ctx context.Context) (verify.Options, error) {
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
		if err == nil {
			err = addKept(&options, content)
		}
		if err != nil {
			return options, fmt.Errorf("read --checkpoint: %w", err)
		}
	}
	if !v.witness {
		return options, nil
	}
	config, err := v.kept(ctx)
	if err != nil {
		return options, err
	}
	return options, addWitness(&options, config.Data)
}

// kept reads what the operator keeps of logs.
func (v *verifying) kept(ctx context.Context) (*corev1.ConfigMap, error) {
	c, err := v.client()
	if err != nil {
		return nil, err
	}
	config := &corev1.ConfigMap{}
	key := client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: v1alpha1.CheckpointConfigMap}
	if err := c.Get(ctx, key, config); err != nil {
		return nil, fmt.Errorf("read what the operator keeps of the log: %w", err)
	}
	return config, nil
}

// addKept adds what a file has: a checkpoint, or the ConfigMap.
func addKept(options *verify.Options, content []byte) error {
	config := corev1.ConfigMap{}
	if err := yaml.Unmarshal(content, &config); err == nil && config.Kind == "ConfigMap" {
		return addWitness(options, config.Data)
	}
	options.Checkpoints = append(options.Checkpoints, string(content))
	return nil
}

// addWitness adds what is kept of the log, and its keys where none were given.
func addWitness(options *verify.Options, data map[string]string) error {
	witness, err := chain.ReadWitness(data)
	if err != nil {
		return fmt.Errorf("ConfigMap %s: %w", v1alpha1.CheckpointConfigMap, err)
	}
	logs := witness.Logs()
	if len(options.Keys) > 0 {
		logs = slices.DeleteFunc(logs, func(k *chain.Kept) bool {
			return !slices.ContainsFunc(k.Keys, func(key string) bool { return slices.Contains(options.Keys, key) })
		})
	}
	switch {
	case len(logs) == 0 && len(options.Keys) > 0:
		return fmt.Errorf("ConfigMap %s has nothing of a log with that key: another log may have been put in its place", v1alpha1.CheckpointConfigMap)
	case len(logs) == 0:
		return fmt.Errorf("ConfigMap %s has nothing of any log", v1alpha1.CheckpointConfigMap)
	case len(logs) > 1:
		return fmt.Errorf("ConfigMap %s is of several logs: say which with --key, such as %s", v1alpha1.CheckpointConfigMap, logs[0].Keys[0])
	}
	options.Checkpoints = append(options.Checkpoints, logs[0].Checkpoint)
	for _, key := range logs[0].Keys {
		if !slices.Contains(options.Keys, key) {
			options.Keys = append(options.Keys, key)
		}
	}
	return nil
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
