package cli

import (
	"slices"

	"github.com/spf13/cobra"

	"supportaccess.dev/operator/api/v1alpha1"
)

// complete offers the grants that are not over, and behind a grant that is to be handed over its engineers.
func (d *Desk) complete(command *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	namespace, err := d.namespace()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	c, err := d.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	grants, err := find(command.Context(), c, namespace, openOnly)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return offers(command.Name(), args, grants), cobra.ShellCompDirectiveNoFileComp
}

// offers are the words that may come next.
func offers(command string, args []string, grants []v1alpha1.SupportAccessGrant) []string {
	var words []string
	for i := range grants {
		switch {
		case len(args) == 0 || command == "revoke" && !slices.Contains(args, grants[i].Name):
			words = append(words, grants[i].Name)
		case command == "handover" && len(args) == 1 && args[0] == grants[i].Name:
			words = append(words, namesOf(&grants[i])...)
		}
	}
	return words
}
