package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// suffixLength is the length of what makes a decision's name its own.
const suffixLength = 5

// revoking is one run of kubectl support-access revoke.
type revoking struct {
	*Desk
	asked  revocation
	yes    bool
	output *output
	wait   waiting
}

func (d *Desk) revokeCommand() *cobra.Command {
	r := &revoking{Desk: d, output: newOutput("created"), wait: waiting{wait: true}}
	command := &cobra.Command{
		Use:   "revoke (GRANT... | --all) --reason TEXT",
		Short: "End grants now, or take one engineer off them",
		Long: "End grants now, or take one engineer off them. It makes a SupportAccessDecision, waits until access is gone, and says how long " +
			"that took. A decision stands: with the operator down it is carried out when the operator is back.",
		Example: `  kubectl support-access revoke case-4711 --reason "Case closed"

  # One person; the others keep their access
  kubectl support-access revoke case-4713 --engineer ben@vendor.example --reason "Ben has left the case"

  # Everything in the cluster
  kubectl support-access revoke --all --all-namespaces --reason "Suspected intrusion at the vendor"`,
		ValidArgsFunction: d.complete,
		RunE: func(command *cobra.Command, args []string) error {
			r.asked.grants = args
			return r.run(command.Context())
		},
	}
	flags := command.Flags()
	flags.BoolVar(&r.asked.all, "all", false, "every grant of the namespace")
	flags.BoolVarP(&r.asked.allNamespaces, "all-namespaces", "A", false, "with --all: every grant of the cluster")
	flags.StringVar(&r.asked.engineer, "engineer", "", "take this person off, and leave the others their access")
	flags.StringVar(&r.asked.why, "reason", "", "why, for the record")
	flags.BoolVarP(&r.yes, "yes", "y", false, "do not ask whether --all is meant")
	r.output.addDryRun(command)
	r.wait.addFlags(command, "wait until access is gone")
	r.output.AddFlags(command)
	return command
}

func (r *revoking) run(ctx context.Context) error {
	if err := errors.Join(r.output.check(), r.asked.check()); err != nil {
		return err
	}
	var err error
	if r.asked.namespace, err = r.namespace(); err != nil {
		return err
	}
	decisions := r.asked.decisions(utilrand.String(suffixLength))
	if r.output.dryRun == dryRunClient {
		return r.printAll(decisions)
	}
	c, err := r.client()
	if err != nil {
		return err
	}
	grants, err := r.targets(ctx, c)
	if err != nil || len(grants) == 0 {
		return err
	}
	if err := r.confirm(grants); err != nil {
		return err
	}
	if !r.asked.all {
		decisions = slices.DeleteFunc(decisions, func(d *v1alpha1.SupportAccessDecision) bool { return !names(grants, d.Spec.Target.Grant) })
	}
	started := r.Clock.Now()
	if err := r.decide(ctx, c, decisions, r.output); err != nil || r.output.dryRun != dryRunNone || !r.wait.wait {
		return err
	}
	return r.await(ctx, c, decisions, grants, started)
}

func names(grants []v1alpha1.SupportAccessGrant, name string) bool {
	return slices.ContainsFunc(grants, func(g v1alpha1.SupportAccessGrant) bool { return g.Name == name })
}

// targets are the grants that would be ended. What had ended before is said, and left out.
func (r *revoking) targets(ctx context.Context, c client.Client) ([]v1alpha1.SupportAccessGrant, error) {
	if r.asked.all {
		namespace := r.asked.namespace
		if r.asked.allNamespaces {
			namespace = metav1.NamespaceAll
		}
		grants, err := find(ctx, c, namespace, openOnly)
		grants = slices.DeleteFunc(grants, func(g v1alpha1.SupportAccessGrant) bool {
			return r.asked.engineer != "" && !slices.Contains(namesOf(&g), r.asked.engineer)
		})
		if err == nil && len(grants) == 0 {
			r.say("There is nothing to revoke in %s.", placeOf(namespace))
		}
		return grants, err
	}
	var grants []v1alpha1.SupportAccessGrant
	for _, name := range slices.Compact(slices.Sorted(slices.Values(r.asked.grants))) {
		grant := v1alpha1.SupportAccessGrant{}
		if err := c.Get(ctx, client.ObjectKey{Namespace: r.asked.namespace, Name: name}, &grant); err != nil {
			return nil, fmt.Errorf("get grant %s in namespace %s: %w", name, r.asked.namespace, err)
		}
		if r.asked.engineer != "" && !slices.Contains(namesOf(&grant), r.asked.engineer) {
			return nil, fmt.Errorf("--engineer: %s is not on %s, which is for %s", r.asked.engineer, name, strings.Join(namesOf(&grant), ", "))
		}
		if hasEnded(&grant) {
			r.say("%s had ended before: %s: %s", name, stateOf(&grant), saidOf(&grant))
			continue
		}
		grants = append(grants, grant)
	}
	return grants, nil
}

// confirm asks whether all of them are meant, where no grant was named.
func (r *revoking) confirm(grants []v1alpha1.SupportAccessGrant) error {
	if !r.asked.all || r.yes || r.output.dryRun != dryRunNone {
		return nil
	}
	if err := printGrants(r.Streams.ErrOut, grants, r.Clock.Now(), fewColumns); err != nil {
		return err
	}
	what := "End these"
	if r.asked.engineer != "" {
		what = "Take " + r.asked.engineer + " off these"
	}
	r.say("%s %d grants? Type yes:", what, len(grants))
	answer, err := bufio.NewReader(io.LimitReader(r.Streams.In, 16)).ReadString('\n')
	if strings.TrimSpace(answer) == "yes" {
		return nil
	}
	if err != nil {
		return errors.New("--all: nobody answered, and nothing was done: say --yes where nobody can")
	}
	return errors.New("--all: not confirmed, and nothing was done")
}

// decide makes the decisions and prints each. One that fails does not keep the others from being made.
func (d *Desk) decide(ctx context.Context, c client.Client, decisions []*v1alpha1.SupportAccessDecision, output *output) error {
	me, whoErr := whoAmI(ctx, c)
	var errs []error
	for _, decision := range decisions {
		// Servers that cannot write who decides ask for it. Where nobody may ask, the others write it.
		if whoErr == nil {
			decision.Spec.DecidedBy = me
			if authority, err := authorityOf(ctx, c, decision.Spec.Action); err == nil {
				decision.Spec.Authority = authority
			}
		}
		if err := c.Create(ctx, decision, output.createOptions()...); err != nil {
			errs = append(errs, fmt.Errorf("make the decision %s: %w", decision.Name, err))
			continue
		}
		errs = append(errs, output.print(decision, d.Streams.Out))
	}
	return errors.Join(errs...)
}

func (r *revoking) printAll(decisions []*v1alpha1.SupportAccessDecision) error {
	for _, decision := range decisions {
		if err := r.output.print(decision, r.Streams.Out); err != nil {
			return err
		}
	}
	return nil
}

// await waits until access is gone and the decisions are on record, and says how long it took.
func (r *revoking) await(ctx context.Context, c client.Client, decisions []*v1alpha1.SupportAccessDecision, grants []v1alpha1.SupportAccessGrant, started time.Time) error {
	err := r.wait.awaitGrants(ctx, c, grants, grantWanted{
		is: func(g *v1alpha1.SupportAccessGrant) bool { return r.isGone(g) },
		told: func(g *v1alpha1.SupportAccessGrant) {
			took := r.Clock.Since(started).Round(time.Millisecond)
			r.say("%s: %s after %s", r.titleOf(g), r.whatIsGone(g), took)
		},
	})
	if err != nil {
		return err
	}
	for _, decision := range decisions {
		applied, err := r.wait.awaitApplied(ctx, c, decision)
		if err != nil {
			return err
		}
		r.say("%s: %s", decision.Name, clean(applied.Message))
	}
	return nil
}

// isGone reports whether what was asked for has come: the grant has ended, or the engineer's credential is gone.
func (r *revoking) isGone(g *v1alpha1.SupportAccessGrant) bool {
	if g.Status.EndTime != nil {
		return true
	}
	return r.asked.engineer != "" && isActive(g) && credentialOf(g, r.asked.engineer) == nil
}

// titleOf names a grant, with its namespace where there are several.
func (r *revoking) titleOf(g *v1alpha1.SupportAccessGrant) string {
	if r.asked.allNamespaces {
		return g.Namespace + "/" + g.Name
	}
	return g.Name
}

func (r *revoking) whatIsGone(g *v1alpha1.SupportAccessGrant) string {
	if r.asked.engineer != "" && g.Status.EndTime == nil {
		return r.asked.engineer + " was off it"
	}
	return "access was gone"
}
