package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// shortens is one run of kubectl support-access shorten.
type shortens struct {
	*Desk
	asked  shortening
	output *output
	wait   waiting
}

func (d *Desk) shortenCommand() *cobra.Command {
	s := &shortens{Desk: d, output: newOutput("created"), wait: waiting{wait: true}}
	command := &cobra.Command{
		Use:   "shorten GRANT (--to LENGTH | --until INSTANT) --reason TEXT",
		Short: "Have a grant end earlier",
		Long: "Have a grant end earlier. There is no lengthening: give more with another grant. The engineers' kubeconfigs may be replaced: " +
			"hand them over again.",
		Example: `  # Two hours from now
  kubectl support-access shorten case-4711 --to 2h --reason "Done sooner than expected"`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: d.complete,
		RunE: func(command *cobra.Command, args []string) error {
			s.asked.grant = args[0]
			return s.run(command.Context())
		},
	}
	flags := command.Flags()
	flags.StringVar(&s.asked.length, "to", "", "how long access lasts from now, such as 2h")
	flags.StringVar(&s.asked.until, "until", "", "when access ends, such as 2026-12-01T18:00Z")
	flags.StringVar(&s.asked.why, "reason", "", "why, for the record")
	s.output.addDryRun(command)
	s.wait.addFlags(command, "wait until the new end holds")
	s.output.AddFlags(command)
	return command
}

func (s *shortens) run(ctx context.Context) error {
	if err := s.output.check(); err != nil {
		return err
	}
	var err error
	if s.asked.namespace, err = s.namespace(); err != nil {
		return err
	}
	decision, err := s.asked.decision(s.Clock.Now(), utilrand.String(suffixLength))
	if err != nil {
		return err
	}
	if s.output.dryRun == dryRunClient {
		return s.output.print(decision, s.Streams.Out)
	}
	c, err := s.client()
	if err != nil {
		return err
	}
	grant := &v1alpha1.SupportAccessGrant{}
	if err := c.Get(ctx, client.ObjectKey{Namespace: s.asked.namespace, Name: s.asked.grant}, grant); err != nil {
		return fmt.Errorf("get grant %s in namespace %s: %w", s.asked.grant, s.asked.namespace, err)
	}
	end := decision.Spec.ExpirationTime.Time
	if err := wouldShorten(grant, end); err != nil {
		return err
	}
	if err := s.decide(ctx, c, []*v1alpha1.SupportAccessDecision{decision}, s.output); err != nil || s.output.dryRun != dryRunNone || !s.wait.wait {
		return err
	}
	return s.await(ctx, c, decision, grant)
}

// wouldShorten says why a grant would not end earlier, nil if it would.
func wouldShorten(grant *v1alpha1.SupportAccessGrant, end time.Time) error {
	if hasEnded(grant) {
		return &exitError{code: exitEnded, err: fmt.Errorf("%s had ended before: %s: %s", grant.Name, stateOf(grant), saidOf(grant))}
	}
	if present := endOf(grant); present != nil && !end.Before(present.Time) {
		return fmt.Errorf("%s ends at %s already, and there is no lengthening: give more with another grant", grant.Name, utc(present))
	}
	return nil
}

// await waits until the new end holds and is on record.
func (s *shortens) await(ctx context.Context, c client.Client, decision *v1alpha1.SupportAccessDecision, grant *v1alpha1.SupportAccessGrant) error {
	end := decision.Spec.ExpirationTime
	err := s.wait.awaitGrants(ctx, c, []v1alpha1.SupportAccessGrant{*grant}, grantWanted{
		is: func(g *v1alpha1.SupportAccessGrant) bool {
			return hasEnded(g) || (g.Status.ExpirationTime != nil && !g.Status.ExpirationTime.After(end.Time))
		},
		told: func(g *v1alpha1.SupportAccessGrant) {
			s.say("%s ends at %s, %s", g.Name, utc(endOf(g)), ago(endOf(g), s.Clock.Now()))
		},
	})
	if err != nil {
		return err
	}
	applied, err := s.wait.awaitApplied(ctx, c, decision)
	if err != nil {
		return err
	}
	s.say("%s: %s", decision.Name, clean(applied.Message))
	return nil
}
