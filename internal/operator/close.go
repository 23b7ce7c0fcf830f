package operator

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	authenticationv1 "k8s.io/api/authentication/v1"
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

// closeAll revokes each grant that has not ended, and waits until each has and the operator holds no grant and no decision
// any more. A decision for each, because wide ones are for people.
func closeAll(ctx context.Context, c client.Client, timeout time.Duration) error {
	grants, err := liveGrants(ctx, c)
	if err != nil {
		return err
	}
	if err := revoke(ctx, c, grants); err != nil {
		return err
	}
	fmt.Printf("%d grants are revoked\n", len(grants))
	var held []string
	err = wait.PollUntilContextTimeout(ctx, time.Second, timeout, true, func(ctx context.Context) (bool, error) {
		if held, err = heldObjects(ctx, c); err != nil {
			return false, err
		}
		return len(held) == 0, nil
	})
	if err != nil {
		return fmt.Errorf("close everything: %d objects are not yet settled, %s first: %w", len(held), first(held), err)
	}
	fmt.Println("nothing is open")
	return nil
}

// revoke makes a decision on each grant. It says by whom, for servers that do not write it.
func revoke(ctx context.Context, c client.Client, grants []client.ObjectKey) error {
	if len(grants) == 0 {
		return nil
	}
	me := &authenticationv1.SelfSubjectReview{}
	if err := c.Create(ctx, me); err != nil {
		return fmt.Errorf("ask who I am: %w", err)
	}
	for _, grant := range grants {
		decision := &v1alpha1.SupportAccessDecision{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "uninstall-", Namespace: grant.Namespace, Finalizers: []string{v1alpha1.FinalizerDecision}},
			Spec: v1alpha1.SupportAccessDecisionSpec{
				Action:    v1alpha1.ActionRevoke,
				Target:    v1alpha1.DecisionTarget{Grant: grant.Name},
				Reason:    "support access is being uninstalled",
				DecidedBy: me.Status.UserInfo.Username,
			},
		}
		if err := c.Create(ctx, decision); err != nil {
			return fmt.Errorf("revoke grant %s: %w", grant, err)
		}
	}
	return nil
}

func first(held []string) string {
	if len(held) == 0 {
		return "none"
	}
	return held[0]
}

// heldObjects names the grants that have not ended and the decisions that are not yet recorded.
func heldObjects(ctx context.Context, c client.Client) ([]string, error) {
	grants, err := liveGrants(ctx, c)
	if err != nil {
		return nil, err
	}
	var held []string
	for _, grant := range grants {
		held = append(held, "grant "+grant.String())
	}
	decisions := &v1alpha1.SupportAccessDecisionList{}
	if err := c.List(ctx, decisions); err != nil {
		return nil, fmt.Errorf("list decisions: %w", err)
	}
	for i := range decisions.Items {
		if controllerutil.ContainsFinalizer(&decisions.Items[i], v1alpha1.FinalizerDecision) {
			held = append(held, "decision "+client.ObjectKeyFromObject(&decisions.Items[i]).String())
		}
	}
	return held, nil
}

// liveGrants returns the grants that have not ended: those of which something may be open, and those that wait for their
// start, for admission or for a person. The next installation would open what waits.
func liveGrants(ctx context.Context, c client.Client) ([]client.ObjectKey, error) {
	grants := &v1alpha1.SupportAccessGrantList{}
	if err := c.List(ctx, grants); err != nil {
		return nil, fmt.Errorf("list grants: %w", err)
	}
	var live []client.ObjectKey
	for i := range grants.Items {
		grant := &grants.Items[i]
		if grant.Status.EndTime == nil || controllerutil.ContainsFinalizer(grant, v1alpha1.FinalizerGrant) {
			live = append(live, client.ObjectKeyFromObject(grant))
		}
	}
	return live, nil
}
