package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// What --dry-run may say.
const (
	dryRunNone   = "none"
	dryRunClient = "client"
	dryRunServer = "server"
)

// said is what a command says of what it did, and with --dry-run did not do.
var said = map[string]string{dryRunNone: "%s", dryRunClient: "%s (dry run)", dryRunServer: "%s (server dry run)"}

// output is how a command prints objects: -o, and what --dry-run says of them.
type output struct {
	*genericclioptions.PrintFlags
	dryRun string
}

// newOutput returns the output of a command that does something to what it prints, or only reads it.
func newOutput(operation string) *output {
	return &output{PrintFlags: genericclioptions.NewPrintFlags(operation).WithTypeSetter(scheme()), dryRun: dryRunNone}
}

// addDryRun adds --dry-run, for what writes.
func (o *output) addDryRun(command *cobra.Command) {
	command.Flags().StringVar(&o.dryRun, "dry-run", o.dryRun, "none, client or server: client sends nothing at all, server has the API server judge it and store nothing")
}

// allowWide has -o take wide, and say so.
func (o *output) allowWide(command *cobra.Command) {
	formats := append([]string{"wide"}, o.AllowedFormats()...)
	command.Flags().Lookup("output").Usage = fmt.Sprintf("Output format. One of: (%s).", strings.Join(formats, ", "))
}

// isTable reports whether people are to read it, and not a program.
func (o *output) isTable() bool {
	return (*o.OutputFormat == "" && !o.OutputFlagSpecified()) || o.isWide()
}

func (o *output) isWide() bool { return *o.OutputFormat == "wide" }

// check says what is wrong with the flags.
func (o *output) check() error {
	switch o.dryRun {
	case dryRunNone, dryRunClient, dryRunServer:
	default:
		return fmt.Errorf("--dry-run: %s: write client or server", o.dryRun)
	}
	if err := o.Complete(said[o.dryRun]); err != nil {
		return err
	}
	if o.isTable() {
		return nil
	}
	if _, err := o.ToPrinter(); err != nil {
		return fmt.Errorf("--output: %w", err)
	}
	return nil
}

// createOptions are what a dry run asks of the API server.
func (o *output) createOptions() []client.CreateOption {
	if o.dryRun == dryRunServer {
		return []client.CreateOption{client.DryRunAll}
	}
	return nil
}

// patchOptions are what a dry run asks of the API server.
func (o *output) patchOptions() []client.PatchOption {
	if o.dryRun == dryRunServer {
		return []client.PatchOption{client.DryRunAll}
	}
	return nil
}

// print prints an object as -o says, or says in a line what was done to it.
func (o *output) print(object runtime.Object, w io.Writer) error {
	if o.dryRun == dryRunClient {
		manifest, err := asManifest(object)
		if err != nil {
			return err
		}
		object = manifest
	}
	printer, err := o.ToPrinter()
	if err != nil {
		return err
	}
	return printer.PrintObj(object, w)
}
