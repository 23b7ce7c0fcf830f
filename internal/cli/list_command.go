package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

func (d *Desk) listCommand() *cobra.Command {
	output := newOutput("")
	all, allNamespaces := false, false
	command := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "Show who has access now, what ends soonest first",
		Example: `  # Everything that is open, or will be, in the cluster
  kubectl support-access list -A

  # What was, too
  kubectl support-access list --all`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := output.check(); err != nil {
				return err
			}
			which := openOnly
			if all {
				which = endedToo
			}
			namespace := metav1.NamespaceAll
			if !allNamespaces {
				var err error
				if namespace, err = d.namespace(); err != nil {
					return err
				}
			}
			c, err := d.client()
			if err != nil {
				return err
			}
			grants, err := find(command.Context(), c, namespace, which)
			if err != nil {
				return err
			}
			return d.show(grants, namespace, output)
		},
	}
	command.Flags().BoolVar(&all, "all", false, "also what has ended")
	command.Flags().BoolVarP(&allNamespaces, "all-namespaces", "A", false, "in every namespace")
	output.AddFlags(command)
	output.allowWide(command)
	return command
}

// find lists the grants of a namespace, or of the cluster.
func find(ctx context.Context, c client.Client, namespace string, which allOrOpen) ([]v1alpha1.SupportAccessGrant, error) {
	list := &v1alpha1.SupportAccessGrantList{}
	if err := c.List(ctx, list, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list the grants of %s: %w", placeOf(namespace), err)
	}
	return inOrder(list.Items, which), nil
}

// placeOf says a namespace, or the cluster.
func placeOf(namespace string) string {
	if namespace == metav1.NamespaceAll {
		return "the cluster"
	}
	return "namespace " + namespace
}

// show prints grants as a table, or as -o says.
func (d *Desk) show(grants []v1alpha1.SupportAccessGrant, namespace string, output *output) error {
	if !output.isTable() {
		list, err := asList(grants)
		if err != nil {
			return err
		}
		return output.print(list, d.Streams.Out)
	}
	if len(grants) == 0 {
		d.say("No grants in %s.", placeOf(namespace))
		return nil
	}
	wide := fewColumns
	if output.isWide() {
		wide = allColumns
	}
	return printGrants(d.Streams.Out, grants, d.Clock.Now(), wide)
}
