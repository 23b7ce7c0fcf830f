package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// maxNames is how many names are tried where others use them up at the same time.
const maxNames = 8

// granting is one run of kubectl support-access grant.
type granting struct {
	*Desk
	wish   wish
	asked  string
	output *output
	wait   waiting
}

func (d *Desk) grantCommand() *cobra.Command {
	g := &granting{Desk: d, output: newOutput("created")}
	command := &cobra.Command{
		Use:   "grant [NAME] (--request REQUEST | --engineer NAME[=KEY] (--for LENGTH | --until INSTANT) --case ID --reason TEXT)",
		Short: "Give engineers access for a limited time",
		Long: "Give engineers access for a limited time. A grant is named after its case where NAME is left out. A name is used once, " +
			"and a grant is never edited.\n\nExit code with --wait: 0 it is open, or will be at --start; 1 it is not yet; 2 it was refused, or has ended.",
		Example: `  # Ana, for a day, in the namespace of the context, with the roles that are the default
  kubectl support-access grant --engineer ana@vendor.example --for 24h --case CASE-4711 --reason "IMAP does not connect" --wait

  # The credential is encrypted to Ana's key
  kubectl support-access grant --engineer ana@vendor.example=@ana.pub --until 2026-12-01T18:00Z --case CASE-4711 --reason "..."

  # What Ana has asked for, for four hours at most
  kubectl support-access grant --request case-4711 --for 4h

  # The manifest, for Git
  kubectl support-access grant --engineer ana@vendor.example --until 2026-12-01T18:00Z --case CASE-4711 --reason "..." --dry-run=client -o yaml`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			if len(args) == 1 {
				g.wish.name = args[0]
			}
			return g.run(command.Context())
		},
	}
	flags := command.Flags()
	flags.StringArrayVar(&g.wish.engineers, "engineer", nil, "a person of the vendor, again for each: ana@vendor.example, or with = a public key (age1…, ssh-ed25519 …), or with =@ the file that holds one")
	flags.StringVar(&g.wish.length, "for", "", "how long access lasts from its opening, such as 24h")
	flags.StringVar(&g.wish.until, "until", "", "when access ends, such as 2026-12-01T18:00Z")
	flags.StringVar(&g.wish.start, "start", "", "when access opens, such as 2026-12-01T08:00Z; at once if left out")
	flags.StringVar(&g.wish.caseID, "case", "", "the vendor's number of the support case")
	flags.StringVar(&g.wish.caseURL, "case-url", "", "where the case can be read, https only")
	flags.StringVar(&g.wish.why, "reason", "", "why, for the other admins and for the record")
	flags.StringSliceVar(&g.wish.roles, "role", nil, "a ClusterRole that the policy offers, again for each; configuration and diagnostics if left out")
	flags.StringSliceVar(&g.wish.toNamespaces, "to-namespace", nil, "a namespace in which the roles hold, again for each; the grant's own if left out")
	flags.BoolVar(&g.wish.toCluster, "to-cluster", false, "the roles hold in the whole cluster")
	flags.StringVar(&g.asked, "request", "", "the request that it answers: what is left out is as was asked for, and it gives no more")
	flags.StringVar(&g.wish.transport, "transport", "", "gateway or direct; the policy's first if left out")
	g.output.addDryRun(command)
	g.wait.addFlags(command, "wait until access is open, or cannot be")
	g.output.AddFlags(command)
	return command
}

func (g *granting) run(ctx context.Context) error {
	if err := g.output.check(); err != nil {
		return err
	}
	var err error
	if g.wish.namespace, err = g.namespace(); err != nil {
		return err
	}
	if err := g.readRequest(ctx); err != nil {
		return err
	}
	grant, err := g.wish.grant(g.Clock.Now(), os.ReadFile)
	if err != nil {
		return err
	}
	if g.output.dryRun == dryRunClient {
		return g.output.print(grant, g.Streams.Out)
	}
	c, err := g.client()
	if err != nil {
		return err
	}
	if err := g.create(ctx, c, grant); err != nil {
		return err
	}
	if g.output.dryRun != dryRunNone || !g.wait.wait {
		return g.output.print(grant, g.Streams.Out)
	}
	err = g.wait.awaitOpening(ctx, c, grant)
	if printErr := g.output.print(grant, g.Streams.Out); printErr != nil {
		return errors.Join(err, printErr)
	}
	if err == nil {
		g.next(grant)
	}
	return err
}

// readRequest completes the wish by the request that is answered, if there is one.
func (g *granting) readRequest(ctx context.Context) error {
	if g.asked == "" {
		return nil
	}
	c, err := g.client()
	if err != nil {
		return err
	}
	request := &v1alpha1.SupportAccessRequest{}
	if err := c.Get(ctx, client.ObjectKey{Namespace: g.wish.namespace, Name: g.asked}, request); err != nil {
		return fmt.Errorf("--request: get request %s in namespace %s: %w", g.asked, g.wish.namespace, err)
	}
	if state, message := requestState(request); state == v1alpha1.RequestGranted || isFinal(state) {
		return fmt.Errorf("--request: %s waits for no answer: it is %s: %s", g.asked, state, message)
	}
	g.wish = g.wish.answering(request)
	return nil
}

// create makes the grant under its name, or under the first free one where the name was made here.
func (g *granting) create(ctx context.Context, c client.Client, grant *v1alpha1.SupportAccessGrant) error {
	// Servers that cannot write who grants ask for it. Where nobody may ask, the others write it.
	if me, err := whoAmI(ctx, c); err == nil {
		grant.Spec.GrantedBy = me
	}
	if g.wish.name != "" {
		return g.createNamed(ctx, c, grant)
	}
	used, err := usedNames(ctx, c, grant.Namespace)
	if err != nil {
		return err
	}
	wanted := grant.Name
	for range maxNames {
		trial := grant.DeepCopy()
		trial.Name = firstFree(wanted, used)
		err = c.Create(ctx, trial, g.output.createOptions()...)
		if !apierrors.IsAlreadyExists(err) {
			*grant = *trial
			break
		}
		used[trial.Name] = true
	}
	if err != nil {
		return fmt.Errorf("create the grant: %w", err)
	}
	return nil
}

func (g *granting) createNamed(ctx context.Context, c client.Client, grant *v1alpha1.SupportAccessGrant) error {
	record := &v1alpha1.SupportAccessRecord{}
	// Who may not read records is warned by the API server.
	if err := c.Get(ctx, client.ObjectKeyFromObject(grant), record); err == nil {
		return fmt.Errorf("NAME: %s was used before, says its record: a name is used once: choose another, or leave NAME out", grant.Name)
	}
	err := c.Create(ctx, grant, g.output.createOptions()...)
	if apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("NAME: %s is in use: a name is used once: choose another, or leave NAME out", grant.Name)
	}
	if err != nil {
		return fmt.Errorf("create the grant: %w", err)
	}
	return nil
}

// usedNames are the names of a namespace that would open nothing again.
func usedNames(ctx context.Context, c client.Client, namespace string) (map[string]bool, error) {
	used := map[string]bool{}
	grants := &v1alpha1.SupportAccessGrantList{}
	records := &v1alpha1.SupportAccessRecordList{}
	for _, list := range []client.ObjectList{grants, records} {
		// Who may make grants and not read them still may make one.
		if err := c.List(ctx, list, client.InNamespace(namespace)); err != nil && !apierrors.IsForbidden(err) {
			return nil, fmt.Errorf("look which names are used: %w", err)
		}
	}
	for i := range grants.Items {
		used[grants.Items[i].Name] = true
	}
	for i := range records.Items {
		used[records.Items[i].Name] = true
	}
	return used, nil
}

// next says what there is to do now.
func (g *granting) next(grant *v1alpha1.SupportAccessGrant) {
	g.say("%s: %s", stateOf(grant), saidOf(grant))
	if !isActive(grant) {
		return
	}
	for _, name := range namesOf(grant) {
		g.say("Hand over: kubectl support-access handover -n %s %s %s --file %s.kubeconfig", grant.Namespace, grant.Name, name, name)
	}
}
