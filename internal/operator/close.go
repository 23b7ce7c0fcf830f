package operator

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"supportaccess.dev/operator/api/v1alpha1"
)

// CloseCommand returns the subcommand that revokes every grant and waits until nothing is open. The chart runs it before
// it removes the operator.
func CloseCommand() *cobra.Command {
	var timeout time.Duration
	command := &cobra.Command{
		Use:   "close",
		Short: "Revoke every grant and wait until nothing is open",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			config, err := ctrl.GetConfig()
			if err != nil {
				return fmt.Errorf("find the API server: %w", err)
			}
			scheme, err := Scheme()
			if err != nil {
				return err
			}
			c, err := client.New(config, client.Options{Scheme: scheme})
			if err != nil {
				return fmt.Errorf("make a client: %w", err)
			}
			return closeAll(command.Context(), c, timeout)
		},
	}
	command.Flags().DurationVar(&timeout, "timeout", 2*time.Minute, "how long to wait until nothing is open")
	return command
}

// closeAll makes one decision that revokes everything, and waits until no grant is held by the operator any more.
func closeAll(ctx context.Context, c client.Client, timeout time.Duration) error {
	held, err := heldGrants(ctx, c)
	if err != nil {
		return err
	}
	if len(held) == 0 {
		fmt.Println("nothing is open")
		return nil
	}
	decision := &v1alpha1.SupportAccessDecision{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "uninstall-", Namespace: v1alpha1.SystemNamespace, Finalizers: []string{v1alpha1.FinalizerDecision}},
		Spec: v1alpha1.SupportAccessDecisionSpec{
			Action: v1alpha1.ActionRevoke,
			Target: v1alpha1.DecisionTarget{Cluster: v1alpha1.TargetAll},
			Reason: "support access is being uninstalled",
		},
	}
	if err := c.Create(ctx, decision); err != nil {
		return fmt.Errorf("revoke %d grants: %w", len(held), err)
	}
	fmt.Printf("revoking %d grants\n", len(held))
	err = wait.PollUntilContextTimeout(ctx, time.Second, timeout, true, func(ctx context.Context) (bool, error) {
		if held, err = heldGrants(ctx, c); err != nil {
			return false, err
		}
		return len(held) == 0, nil
	})
	if err != nil {
		return fmt.Errorf("%d grants are still open, %s among them: %w", len(held), first(held), err)
	}
	fmt.Println("nothing is open any more")
	return nil
}

func first(held []string) string {
	if len(held) == 0 {
		return "none"
	}
	return held[0]
}

// heldGrants names the grants of which something may be open.
func heldGrants(ctx context.Context, c client.Client) ([]string, error) {
	grants := &v1alpha1.SupportAccessGrantList{}
	if err := c.List(ctx, grants); err != nil {
		return nil, fmt.Errorf("list grants: %w", err)
	}
	var held []string
	for i := range grants.Items {
		if controllerutil.ContainsFinalizer(&grants.Items[i], v1alpha1.FinalizerGrant) {
			held = append(held, client.ObjectKeyFromObject(&grants.Items[i]).String())
		}
	}
	return held, nil
}
