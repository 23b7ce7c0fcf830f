package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// answering is one run of kubectl support-access approve or deny.
type answering struct {
	*Desk
	action v1alpha1.DecisionAction
	asked  string
	why    string
	output *output
	wait   waiting
}

func (d *Desk) approveCommand() *cobra.Command {
	_, command := d.answerCommand(v1alpha1.ActionApprove)
	command.Use, command.Short = "approve GRANT --reason TEXT", "Say yes to a grant that waits for approval"
	command.Long = "Say yes to a grant that waits for approval. It makes a SupportAccessDecision about the very grant that is there now, waits until the " +
		"operator has taken it over, and says whether it counts and what is still missing. Your own grants, and those that name you as an engineer, you cannot approve."
	command.Example = `  kubectl support-access status case-4716
  kubectl support-access approve case-4716 --reason "The index is corrupt, and its Secret has to be looked at"`
	return command
}

func (d *Desk) denyCommand() *cobra.Command {
	a, command := d.answerCommand(v1alpha1.ActionDeny)
	command.Args = cobra.MaximumNArgs(1)
	command.Flags().StringVar(&a.asked, "request", "", "the request to which you say no, in place of a grant")
	command.Use, command.Short = "deny (GRANT | --request REQUEST) --reason TEXT", "Say no to a grant that has not opened, or to a request"
	command.Long = "Say no to a grant that has not opened, for ever and whoever has approved it. It makes a SupportAccessDecision, and waits until the operator " +
		"has taken it over. What is open is ended with revoke. Who may revoke in a namespace may say no to what is asked for there."
	command.Example = `  kubectl support-access deny case-4716 --reason "Ask for the settings first"
  kubectl support-access deny --request case-4717 --reason "Not during the audit"`
	return command
}

func (d *Desk) answerCommand(action v1alpha1.DecisionAction) (*answering, *cobra.Command) {
	a := &answering{Desk: d, action: action, output: newOutput("created"), wait: waiting{wait: true}}
	command := &cobra.Command{
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: d.complete,
		RunE: func(command *cobra.Command, args []string) error {
			return a.run(command.Context(), args)
		},
	}
	command.Flags().StringVar(&a.why, "reason", "", "why, for the record")
	a.output.addDryRun(command)
	a.wait.addFlags(command, "wait until the operator has taken it over")
	a.output.AddFlags(command)
	return a, command
}

func (a *answering) run(ctx context.Context, args []string) error {
	var errs []error
	if a.why == "" {
		errs = append(errs, errNoReason)
	}
	if (len(args) == 1) == (a.asked != "") {
		errs = append(errs, errors.New("GRANT, --request: say which, and one of them"))
	}
	if err := errors.Join(append(errs, a.output.check())...); err != nil {
		return err
	}
	if a.asked != "" {
		return a.refuse(ctx, a.asked)
	}
	return a.answer(ctx, args[0])
}

// answer says yes or no to a grant.
func (a *answering) answer(ctx context.Context, name string) error {
	namespace, err := a.namespace()
	if err != nil {
		return err
	}
	decision := decisionOn(namespace, utilrand.String(suffixLength), v1alpha1.SupportAccessDecisionSpec{
		Action: a.action, Target: v1alpha1.DecisionTarget{Grant: name}, Reason: a.why,
	})
	if a.output.dryRun == dryRunClient {
		return a.output.print(decision, a.Streams.Out)
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	grant := &v1alpha1.SupportAccessGrant{}
	if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, grant); err != nil {
		return fmt.Errorf("get grant %s in namespace %s: %w", name, namespace, err)
	}
	if err := a.canStill(grant); err != nil {
		return err
	}
	// The very grant that was read: another of its name is another question.
	decision.Spec.Target.UID = grant.UID
	if err := a.decide(ctx, c, []*v1alpha1.SupportAccessDecision{decision}, a.output); err != nil || a.output.dryRun != dryRunNone || !a.wait.wait {
		return err
	}
	return a.await(ctx, c, decision, grant)
}

// canStill says why an answer changes nothing any more.
func (a *answering) canStill(grant *v1alpha1.SupportAccessGrant) error {
	switch {
	case hasEnded(grant):
		return &exitError{code: exitEnded, err: fmt.Errorf("%s had ended before: %s: %s", grant.Name, stateOf(grant), saidOf(grant))}
	case isActive(grant) && a.action == v1alpha1.ActionDeny:
		return fmt.Errorf("%s is open: to end it, use revoke", grant.Name)
	case isActive(grant):
		return fmt.Errorf("%s is open, and waits for nobody", grant.Name)
	default:
		return nil
	}
}

// await waits until the operator has taken the decision over, and says what came of it.
func (a *answering) await(ctx context.Context, c client.Client, decision *v1alpha1.SupportAccessDecision, grant *v1alpha1.SupportAccessGrant) error {
	applied, err := a.wait.awaitApplied(ctx, c, decision)
	if err != nil {
		return err
	}
	if applied.Reason == v1alpha1.ReasonDoesNotCount || applied.Reason == v1alpha1.ReasonNoSuchGrant {
		return fmt.Errorf("%s: %s", decision.Name, clean(applied.Message))
	}
	a.say("%s: %s", decision.Name, clean(applied.Message))
	err = a.wait.until(ctx, func(ctx context.Context) (bool, error) {
		if err := c.Get(ctx, client.ObjectKeyFromObject(grant), grant); err != nil {
			return false, fmt.Errorf("get grant %s: %w", grant.Name, err)
		}
		return isSettled(grant) && tellsOf(grant, decision), nil
	})
	if err != nil && !errors.Is(err, errLate) {
		return err
	}
	a.say("%s is %s: %s", grant.Name, stateOf(grant), saidOf(grant))
	return nil
}

// tellsOf reports whether a grant's status is of after a decision: it has left the wait, or names who decided.
func tellsOf(grant *v1alpha1.SupportAccessGrant, decision *v1alpha1.SupportAccessDecision) bool {
	if stateOf(grant) != v1alpha1.StateAwaitingApproval {
		return true
	}
	approved := apimeta.FindStatusCondition(grant.Status.Conditions, v1alpha1.ConditionApproved)
	return approved != nil && strings.Contains(approved.Message, decision.Spec.DecidedBy)
}
