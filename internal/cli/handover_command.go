package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// handingOver is one run of kubectl support-access handover.
type handingOver struct {
	*Desk
	grant, engineer, file string
	// again asks for another credential in the place of the present one, because of why.
	again bool
	why   string
	wait  waiting
}

func (d *Desk) handoverCommand() *cobra.Command {
	h := &handingOver{Desk: d, wait: waiting{wait: true}}
	command := &cobra.Command{
		Use:   "handover GRANT [ENGINEER]",
		Short: "Fetch the kubeconfig that an engineer is to be given",
		Long: "Fetch the kubeconfig that an engineer is to be given, and write it to standard output or to a file that only you can read. " +
			"Whoever has it has the access: send it by a channel that you trust. With a public key of the engineer in the grant it is " +
			"encrypted, and nobody else can use it.\n\nA kubeconfig for the gateway is kept until it is used. Was it lost, or seen by somebody else, --again has the operator put " +
			"another in its place: the old one lets nobody in any more, and what is open with it is cut.\n\nENGINEER may be left out where the grant names one. " +
			"Exit code: 0 it was written; 2 the grant has ended; 3 it is not open yet; 1 it could not be fetched.",
		Example: `  kubectl support-access handover case-4711 ana@vendor.example --file ana.kubeconfig

  # Another in the place of one that was lost
  kubectl support-access handover case-4711 --again --reason "Ana has lost her laptop" --file ana.kubeconfig`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: d.complete,
		RunE: func(command *cobra.Command, args []string) error {
			h.grant, h.engineer = args[0], strings.Join(args[1:], "")
			return h.run(command.Context())
		},
	}
	flags := command.Flags()
	flags.StringVarP(&h.file, "file", "f", "", "write to this file, which must not exist; standard output if left out")
	flags.BoolVar(&h.again, "again", false, "have the kubeconfig replaced by another first; the old one lets nobody in any more")
	flags.StringVar(&h.why, "reason", "", "with --again: why, for the record")
	flags.DurationVar(&h.wait.timeout, "timeout", time.Minute, "with --again: how long to wait for the other one")
	return command
}

func (h *handingOver) run(ctx context.Context) error {
	if h.again {
		if h.why == "" {
			return errNoReason
		}
		if err := h.replace(ctx); err != nil {
			return err
		}
	}
	content, err := h.fetchSoon(ctx)
	if err != nil {
		return err
	}
	return h.hand(content, h.file)
}

// fetchable is within what time the API server hears who may fetch a kubeconfig that was made just now.
const fetchable = 3 * time.Second

// fetchSoon fetches the kubeconfig. Where it was made just now, the API server may not yet know who may.
func (h *handingOver) fetchSoon(ctx context.Context) ([]byte, error) {
	if !h.again {
		return h.fetch(ctx, h.grant, h.engineer)
	}
	var content []byte
	var last error
	patience := waiting{timeout: fetchable}
	err := patience.until(ctx, func(ctx context.Context) (bool, error) {
		got, err := h.fetch(ctx, h.grant, h.engineer)
		if ctx.Err() == nil {
			content, last = got, err
		}
		return !apierrors.IsForbidden(err) && !apierrors.IsNotFound(err), nil
	})
	if last == nil && err != nil {
		last = err
	}
	return content, last
}

// replace decides that a credential is replaced, and waits until another is there.
func (h *handingOver) replace(ctx context.Context) error {
	namespace, err := h.namespace()
	if err != nil {
		return err
	}
	c, err := h.client()
	if err != nil {
		return err
	}
	grant := &v1alpha1.SupportAccessGrant{}
	if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: h.grant}, grant); err != nil {
		return fmt.Errorf("get grant %s in namespace %s: %w", h.grant, namespace, err)
	}
	before, err := toReplace(grant, h.engineer)
	if err != nil {
		return err
	}
	h.engineer = before.Name
	decision := decisionOn(namespace, utilrand.String(suffixLength), v1alpha1.SupportAccessDecisionSpec{
		Action: v1alpha1.ActionHandOver, Target: v1alpha1.DecisionTarget{Grant: h.grant, Engineer: h.engineer}, Reason: h.why,
	})
	output, aside := newOutput("created"), *h.Desk
	output.AddFlags(&cobra.Command{})
	// Standard output is the kubeconfig's.
	aside.Streams.Out = h.Streams.ErrOut
	if err := errors.Join(output.check(), aside.decide(ctx, c, []*v1alpha1.SupportAccessDecision{decision}, output)); err != nil {
		return err
	}
	return h.awaitOther(ctx, c, decision, grant, before.CredentialHash)
}

// awaitOther waits until the grant tells of another credential than the one that was to be replaced.
func (h *handingOver) awaitOther(ctx context.Context, c client.Client, decision *v1alpha1.SupportAccessDecision, grant *v1alpha1.SupportAccessGrant, hash string) error {
	err := h.wait.until(ctx, func(ctx context.Context) (bool, error) {
		if err := c.Get(ctx, client.ObjectKeyFromObject(grant), grant); err != nil {
			return false, fmt.Errorf("get grant %s: %w", grant.Name, err)
		}
		now := credentialOf(grant, h.engineer)
		return hasEnded(grant) || now == nil || now.CredentialHash != hash, nil
	})
	if errors.Is(err, errLate) {
		return fmt.Errorf("there is no other kubeconfig of %s after %s: is the operator running? The decision %s stands: the old one lets nobody in, and "+
			"handover without --again fetches the new one once it is there", h.engineer, h.wait.timeout, decision.Name)
	}
	if err != nil {
		return err
	}
	h.say("%s: the kubeconfig that %s had lets nobody in any more", decision.Name, h.engineer)
	return nil
}

// toReplace returns the credential of an engineer that can be replaced, or why there is none.
func toReplace(grant *v1alpha1.SupportAccessGrant, engineer string) (*v1alpha1.EngineerStatus, error) {
	engineer, err := whom(grant, engineer)
	if err != nil {
		return nil, err
	}
	credential := credentialOf(grant, engineer)
	switch {
	case hasEnded(grant):
		return nil, &exitError{code: exitEnded, err: stateError(grant)}
	case !isActive(grant):
		return nil, &exitError{code: exitNotOpen, err: fmt.Errorf("there is no kubeconfig yet: %w", stateError(grant))}
	case credential == nil:
		return nil, noAccess(grant, engineer)
	case credential.CredentialHash == "":
		return nil, fmt.Errorf("--again: %s is Direct: its kubeconfig stays where it is, and handover without --again fetches it. To make it worthless, revoke", grant.Name)
	}
	return credential, nil
}

// whom returns the engineer who is meant.
func whom(grant *v1alpha1.SupportAccessGrant, engineer string) (string, error) {
	names := namesOf(grant)
	if engineer != "" {
		return engineer, nil
	}
	if len(names) != 1 {
		return "", fmt.Errorf("ENGINEER: is missing: %s is for %s", grant.Name, strings.Join(names, ", "))
	}
	return names[0], nil
}

func stateError(grant *v1alpha1.SupportAccessGrant) error {
	return fmt.Errorf("%s is %s: %s", grant.Name, stateOf(grant), saidOf(grant))
}

func noAccess(grant *v1alpha1.SupportAccessGrant, engineer string) error {
	return fmt.Errorf("ENGINEER: %s has no access by %s, which is for %s", engineer, grant.Name, strings.Join(namesOf(grant), ", "))
}

// fetch returns the kubeconfig of an engineer, encrypted where the grant has a key.
func (d *Desk) fetch(ctx context.Context, name, engineer string) ([]byte, error) {
	namespace, err := d.namespace()
	if err != nil {
		return nil, err
	}
	c, err := d.client()
	if err != nil {
		return nil, err
	}
	grant := &v1alpha1.SupportAccessGrant{}
	if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, grant); err != nil {
		return nil, fmt.Errorf("get grant %s in namespace %s: %w", name, namespace, err)
	}
	credential, err := toHandOver(grant, engineer)
	if err != nil {
		return nil, err
	}
	if credential.EncryptedKubeconfig != "" {
		return []byte(credential.EncryptedKubeconfig), nil
	}
	ref := credential.CredentialSecretRef
	secret := &corev1.Secret{}
	err = c.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, secret)
	if apierrors.IsForbidden(err) {
		return nil, fmt.Errorf("get the kubeconfig of %s: %w\nOnly who granted, %s, may fetch it, and whom the policy names among credentialReaders", credential.Name, err, clean(grant.Spec.GrantedBy))
	}
	if err != nil {
		return nil, fmt.Errorf("get the kubeconfig of %s: %w", credential.Name, err)
	}
	if len(secret.Data[ref.Key]) == 0 {
		return nil, fmt.Errorf("get the kubeconfig of %s: Secret %s/%s has none under %s: try again in a moment", credential.Name, ref.Namespace, ref.Name, ref.Key)
	}
	return secret.Data[ref.Key], nil
}

// toHandOver returns where the credential of an engineer is, or why there is none to hand over.
func toHandOver(grant *v1alpha1.SupportAccessGrant, engineer string) (*v1alpha1.EngineerStatus, error) {
	engineer, err := whom(grant, engineer)
	if err != nil {
		return nil, err
	}
	if hasEnded(grant) {
		return nil, &exitError{code: exitEnded, err: stateError(grant)}
	}
	credential := credentialOf(grant, engineer)
	switch {
	case credential != nil && (credential.EncryptedKubeconfig != "" || credential.CredentialSecretRef != nil):
		return credential, nil
	case !isActive(grant):
		return nil, &exitError{code: exitNotOpen, err: fmt.Errorf("there is no kubeconfig yet: %w", stateError(grant))}
	case credential != nil:
		return nil, fmt.Errorf("the kubeconfig of %s is not kept any more: it was handed over. With --again there is another", engineer)
	default:
		return nil, noAccess(grant, engineer)
	}
}

// hand writes a credential. Nothing is overwritten: the file would keep the mode that it had.
func (d *Desk) hand(content []byte, path string) error {
	if path == "" {
		_, err := d.Streams.Out.Write(content)
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("--file: %s exists: remove it, or give another", path)
	}
	if err != nil {
		return fmt.Errorf("--file: %w", err)
	}
	if _, err := file.Write(content); err != nil {
		return errors.Join(fmt.Errorf("--file: %w", err), file.Close())
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("--file: %w", err)
	}
	how := "It is not encrypted: whoever has the file has the access."
	if isEncrypted(content) {
		how = "It is encrypted to the engineer's key."
	}
	d.say("Wrote %s. %s The engineer: kubectl support-access login %s", path, how, path)
	return nil
}
