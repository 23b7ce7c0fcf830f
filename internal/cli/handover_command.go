package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

func (d *Desk) handoverCommand() *cobra.Command {
	file := ""
	command := &cobra.Command{
		Use:   "handover GRANT [ENGINEER]",
		Short: "Fetch the kubeconfig that an engineer is to be given",
		Long: "Fetch the kubeconfig that an engineer is to be given, and write it to standard output or to a file that only you can read. " +
			"Whoever has it has the access: send it by a channel that you trust. With a public key of the engineer in the grant it is " +
			"encrypted, and nobody else can use it.\n\nENGINEER may be left out where the grant names one. " +
			"Exit code: 0 it was written; 2 the grant has ended; 3 it is not open yet; 1 it could not be fetched.",
		Example:           `  kubectl support-access handover case-4711 ana@vendor.example --file ana.kubeconfig`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: d.complete,
		RunE: func(command *cobra.Command, args []string) error {
			content, err := d.fetch(command.Context(), args[0], strings.Join(args[1:], ""))
			if err != nil {
				return err
			}
			return d.hand(content, file)
		},
	}
	command.Flags().StringVarP(&file, "file", "f", "", "write to this file, which must not exist; standard output if left out")
	return command
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
	names := namesOf(grant)
	if engineer == "" {
		if len(names) != 1 {
			return nil, fmt.Errorf("ENGINEER: is missing: %s is for %s", grant.Name, strings.Join(names, ", "))
		}
		engineer = names[0]
	}
	said := fmt.Errorf("%s is %s: %s", grant.Name, stateOf(grant), saidOf(grant))
	if hasEnded(grant) {
		return nil, &exitError{code: exitEnded, err: said}
	}
	credential := credentialOf(grant, engineer)
	switch {
	case credential != nil && (credential.EncryptedKubeconfig != "" || credential.CredentialSecretRef != nil):
		return credential, nil
	case !isActive(grant):
		return nil, &exitError{code: exitNotOpen, err: fmt.Errorf("there is no kubeconfig yet: %w", said)}
	case credential != nil:
		return nil, fmt.Errorf("the kubeconfig of %s is not kept any more: it was handed over", engineer)
	default:
		return nil, fmt.Errorf("ENGINEER: %s has no access by %s, which is for %s", engineer, grant.Name, strings.Join(names, ", "))
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
