package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

func (d *Desk) statusCommand() *cobra.Command {
	output := newOutput("")
	command := &cobra.Command{
		Use:   "status GRANT",
		Short: "Tell how a grant stands: who, what, until when, and what happened",
		Long: "Tell how a grant stands: who may do what, where, until when, and what happened. Of a grant that was deleted its record tells.\n\n" +
			"Exit code: 0 access exists; 2 the grant has ended, or never opens; 3 it gives no access now, and has not ended; 1 it could not be told.",
		Example:           `  kubectl support-access status case-4711`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: d.complete,
		RunE: func(command *cobra.Command, args []string) error {
			if err := output.check(); err != nil {
				return err
			}
			return d.status(command.Context(), args[0], output)
		},
	}
	output.AddFlags(command)
	return command
}

func (d *Desk) status(ctx context.Context, name string, output *output) error {
	namespace, err := d.namespace()
	if err != nil {
		return err
	}
	c, err := d.client()
	if err != nil {
		return err
	}
	a, err := d.read(ctx, c, client.ObjectKey{Namespace: namespace, Name: name})
	if err != nil {
		return err
	}
	if err := d.tell(a, output); err != nil {
		return err
	}
	if code := exitOf(a.grant); code != exitOK {
		return &exitError{code: code}
	}
	return nil
}

// tell prints the account, or as -o says the grant; the record where the grant is gone.
func (d *Desk) tell(a account, output *output) error {
	if output.isTable() {
		return a.print(d.Streams.Out)
	}
	var object runtime.Object = a.grant
	if a.grant.ResourceVersion == "" {
		object = a.record
	}
	return output.print(object, d.Streams.Out)
}

// read gathers what there is to tell of a grant, as far as the person may read it.
func (d *Desk) read(ctx context.Context, c client.Client, key client.ObjectKey) (account, error) {
	a := account{grant: &v1alpha1.SupportAccessGrant{}, roles: map[string]*rbacv1.ClusterRole{}, now: d.Clock.Now()}
	grantErr := c.Get(ctx, key, a.grant)
	if client.IgnoreNotFound(grantErr) != nil {
		return a, fmt.Errorf("get grant %s in namespace %s: %w", key.Name, key.Namespace, grantErr)
	}
	record := &v1alpha1.SupportAccessRecord{}
	err := c.Get(ctx, key, record)
	switch {
	case err == nil:
		a.record = record
	case apierrors.IsNotFound(err) || apierrors.IsForbidden(err):
	default:
		return a, fmt.Errorf("get the record of grant %s: %w", key.Name, err)
	}
	if grantErr != nil {
		if a.record == nil {
			return a, fmt.Errorf("get grant %s in namespace %s: %w", key.Name, key.Namespace, grantErr)
		}
		a.grant = grantOf(a.record)
	}
	if a.record != nil && a.record.Spec.Grant.UID != a.grant.UID {
		// The name was used before: that record is about another grant.
		a.record = nil
	}
	for _, name := range a.grant.Spec.Roles {
		role := &rbacv1.ClusterRole{}
		// Most admins of a namespace may not read ClusterRoles. Then what is known of the role is told.
		if err := c.Get(ctx, client.ObjectKey{Name: name}, role); err == nil {
			a.roles[name] = role
		}
	}
	return a, nil
}
