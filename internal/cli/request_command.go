package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// requesting is one run of kubectl support-access request.
type requesting struct {
	*Desk
	wish   wish
	output *output
	wait   waiting
}

func (d *Desk) requestCommand() *cobra.Command {
	r := &requesting{Desk: d, output: newOutput("created")}
	command := &cobra.Command{
		Use:   "request [NAME] --engineer NAME[=KEY] --for LENGTH --case ID --reason TEXT",
		Short: "Ask for access",
		Long: "Ask for access, as an engineer of the vendor with a login of one's own. A request gives nothing: an admin answers it with grant --request, " +
			"or says no with deny --request; unanswered it expires. It is named after its case where NAME is left out, and never edited: to withdraw it, delete it.\n\n" +
			"Exit code with --wait: 0 a grant answers it; 1 nobody has answered yet; 2 it was denied, refused, or has expired.",
		Example: `  # For a day, in the namespace of the context, with the roles that are the default
  kubectl support-access request --engineer ana@vendor.example=@ana.pub --for 24h --case CASE-4711 --reason "IMAP does not connect: may I see its settings?"

  # What became of it
  kubectl get supportaccessrequests`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			if len(args) == 1 {
				r.wish.name = args[0]
			}
			return r.run(command.Context())
		},
	}
	flags := command.Flags()
	flags.StringArrayVar(&r.wish.engineers, "engineer", nil, "who is to have access, again for each: ana@vendor.example, or with = a public key (age1…, ssh-ed25519 …), or with =@ the file that holds one")
	flags.StringVar(&r.wish.length, "for", "", "how long access is to last from its opening, such as 24h")
	flags.StringVar(&r.wish.caseID, "case", "", "your number of the support case")
	flags.StringVar(&r.wish.caseURL, "case-url", "", "where the case can be read, https only")
	flags.StringVar(&r.wish.why, "reason", "", "what is to be done, and why it takes access")
	flags.StringSliceVar(&r.wish.roles, "role", nil, "a ClusterRole that the policy offers, again for each; configuration and diagnostics if left out")
	flags.StringSliceVar(&r.wish.toNamespaces, "to-namespace", nil, "a namespace in which the roles are to hold, again for each; the request's own if left out")
	flags.BoolVar(&r.wish.toCluster, "to-cluster", false, "the roles are to hold in the whole cluster")
	r.output.addDryRun(command)
	r.wait.addFlags(command, "wait until somebody answers")
	r.output.AddFlags(command)
	return command
}

func (r *requesting) run(ctx context.Context) error {
	if err := r.output.check(); err != nil {
		return err
	}
	var err error
	if r.wish.namespace, err = r.namespace(); err != nil {
		return err
	}
	request, err := r.wish.asked(r.Clock.Now(), os.ReadFile)
	if err != nil {
		return err
	}
	if r.output.dryRun == dryRunClient {
		return r.output.print(request, r.Streams.Out)
	}
	c, err := r.client()
	if err != nil {
		return err
	}
	if err := r.create(ctx, c, request); err != nil {
		return err
	}
	if err := r.output.print(request, r.Streams.Out); err != nil || r.output.dryRun != dryRunNone || !r.wait.wait {
		return err
	}
	return r.await(ctx, c, request)
}

// create makes the request under its name, or under the first free one where the name was made here.
func (r *requesting) create(ctx context.Context, c client.Client, request *v1alpha1.SupportAccessRequest) error {
	// Servers that cannot write who asks ask for it. Where nobody may ask, the others write it.
	if me, err := whoAmI(ctx, c); err == nil {
		request.Spec.RequestedBy = me
	}
	wanted, used := request.Name, map[string]bool{}
	var err error
	for range maxNames {
		trial := request.DeepCopy()
		trial.Name = firstFree(wanted, used)
		err = c.Create(ctx, trial, r.output.createOptions()...)
		if err == nil {
			*request = *trial
			return nil
		}
		if !apierrors.IsAlreadyExists(err) {
			break
		}
		if r.wish.name != "" {
			return fmt.Errorf("NAME: %s is in use: a name is used once: choose another, or leave NAME out", wanted)
		}
		used[trial.Name] = true
	}
	return fmt.Errorf("create the request: %w", err)
}

// await waits until somebody has answered, and says what the answer is.
func (r *requesting) await(ctx context.Context, c client.Client, request *v1alpha1.SupportAccessRequest) error {
	err := r.wait.until(ctx, func(ctx context.Context) (bool, error) {
		if err := c.Get(ctx, client.ObjectKeyFromObject(request), request); err != nil {
			return false, fmt.Errorf("get request %s: %w", request.Name, err)
		}
		state, _ := requestState(request)
		return state == v1alpha1.RequestGranted || isFinal(state), nil
	})
	state, message := requestState(request)
	switch {
	case errors.Is(err, errLate):
		return fmt.Errorf("%s has no answer after %s: it is %s: %s", request.Name, r.wait.timeout, state, message)
	case err != nil:
		return err
	case state != v1alpha1.RequestGranted:
		return &exitError{code: exitEnded, err: fmt.Errorf("%s is %s: %s", request.Name, state, message)}
	}
	r.say("%s is %s: %s", request.Name, state, message)
	return nil
}

// requestState is a request's state, and what the operator says of it.
func requestState(request *v1alpha1.SupportAccessRequest) (state, message string) {
	ready := apimeta.FindStatusCondition(request.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil {
		return unseen, "the operator has not yet seen it"
	}
	return ready.Reason, clean(ready.Message)
}

// refuse says no to a request, and waits until the operator has taken that over.
func (a *answering) refuse(ctx context.Context, name string) error {
	namespace, err := a.namespace()
	if err != nil {
		return err
	}
	decision := decisionOn(namespace, utilrand.String(suffixLength), v1alpha1.SupportAccessDecisionSpec{
		Action: a.action, Target: v1alpha1.DecisionTarget{Request: name}, Reason: a.why,
	})
	if a.output.dryRun == dryRunClient {
		return a.output.print(decision, a.Streams.Out)
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	request := &v1alpha1.SupportAccessRequest{}
	if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, request); err != nil {
		return fmt.Errorf("get request %s in namespace %s: %w", name, namespace, err)
	}
	if state, message := requestState(request); state == v1alpha1.RequestGranted || isFinal(state) {
		return &exitError{code: exitEnded, err: fmt.Errorf("%s waits for no answer: it is %s: %s", name, state, message)}
	}
	if err := a.decide(ctx, c, []*v1alpha1.SupportAccessDecision{decision}, a.output); err != nil || a.output.dryRun != dryRunNone || !a.wait.wait {
		return err
	}
	applied, err := a.wait.awaitApplied(ctx, c, decision)
	if err != nil {
		return err
	}
	if applied.Reason != v1alpha1.ReasonLatched {
		return fmt.Errorf("%s: %s", decision.Name, clean(applied.Message))
	}
	a.say("%s: %s", decision.Name, clean(applied.Message))
	return nil
}
