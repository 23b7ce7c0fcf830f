// Command support-access is the operator: one binary, a subcommand for each of its Deployments and jobs.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"supportaccess.dev/operator/internal/operator"
)

// version is set when the binary is built.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:           "support-access",
		Short:         "Time-limited support access to a cluster, given by its admins",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(operator.ControllerCommand(version), operator.GatewayCommand(version), operator.CloseCommand(), operator.AuditCommand())
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "support-access: "+err.Error())
		stop()
		os.Exit(1)
	}
}
