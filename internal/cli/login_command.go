package cli

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
)

// maxHanded is the largest file that is read as a kubeconfig.
const maxHanded = 1 << 20

// loggingIn is one run of kubectl support-access login.
type loggingIn struct {
	*Desk
	identity, name string
	use            bool
}

func (d *Desk) loginCommand() *cobra.Command {
	l := &loggingIn{Desk: d}
	command := &cobra.Command{
		Use:   "login (FILE | -)",
		Short: "For engineers: add the kubeconfig that you were handed to your own",
		Long: "For engineers: add the kubeconfig that you were handed to your own, as a context support-NAMESPACE-GRANT. Log in again with a " +
			"newer file, and the context has the newer credential. Of the file only the server, its CA and the token are taken: one that would " +
			"run a program is refused.",
		Example: `  kubectl support-access login ana.kubeconfig --use

  # Encrypted to your key
  kubectl support-access login ana.kubeconfig.age --identity key.txt`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return l.run(args[0]) },
	}
	flags := command.Flags()
	flags.StringVarP(&l.identity, "identity", "i", "", "the file of your age identity or of your SSH private key, where the kubeconfig is encrypted")
	flags.StringVar(&l.name, "name", "", "the name of the context, instead of support-NAMESPACE-GRANT")
	flags.BoolVar(&l.use, "use", false, "make it the current context")
	return command
}

func (l *loggingIn) run(path string) error {
	content, err := l.read(path)
	if err != nil {
		return err
	}
	h, err := readHanded(content)
	if err != nil {
		return fmt.Errorf("FILE: %s: %w", path, err)
	}
	if !h.expires.IsZero() && !h.expires.After(l.Clock.Now()) {
		return &exitError{code: exitEnded, err: fmt.Errorf("FILE: %s: its credential ended at %s: ask for a newer one", path, utc(new(metav1.NewTime(h.expires))))}
	}
	name := l.name
	if name == "" {
		name = h.contextName()
	}
	access := l.flags.ToRawKubeConfigLoader().ConfigAccess()
	config, err := access.GetStartingConfig()
	if err != nil {
		return fmt.Errorf("read your kubeconfig: %w", err)
	}
	if err := h.mergeInto(config, name); err != nil {
		return err
	}
	if l.use {
		config.CurrentContext = name
	}
	if err := clientcmd.ModifyConfig(access, *config, false); err != nil {
		return fmt.Errorf("write your kubeconfig: %w", err)
	}
	l.tell(h, name)
	return nil
}

// read returns the kubeconfig in plaintext.
func (l *loggingIn) read(path string) ([]byte, error) {
	content, err := l.readFile(path)
	if err != nil {
		return nil, fmt.Errorf("FILE: %w", err)
	}
	switch {
	case !isEncrypted(content) && l.identity != "":
		// A file that was put in the place of the encrypted one would otherwise pass for it.
		return nil, fmt.Errorf("--identity: %s is not encrypted: leave --identity out if that is as it should be", path)
	case !isEncrypted(content):
		return content, nil
	case l.identity == "":
		return nil, fmt.Errorf("--identity: is missing: %s is encrypted: give the file of your private key", path)
	}
	identity, err := os.ReadFile(l.identity)
	if err != nil {
		return nil, fmt.Errorf("--identity: %w", err)
	}
	return decrypt(content, identity)
}

func (l *loggingIn) readFile(path string) ([]byte, error) {
	in := l.Streams.In
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer func() { _ = file.Close() }()
		in = file
	}
	content, err := io.ReadAll(io.LimitReader(in, maxHanded+1))
	if err == nil && len(content) > maxHanded {
		err = errors.New("is larger than any kubeconfig")
	}
	return content, err
}

// tell says how to use the context, and until when.
func (l *loggingIn) tell(h handed, name string) {
	l.say("Context %s: grant %s in namespace %s.", name, h.grant, h.namespace)
	if !h.expires.IsZero() {
		expires := new(metav1.NewTime(h.expires))
		l.say("It works until %s at the latest, %s.", utc(expires), ago(expires, l.Clock.Now()))
	}
	if !l.use {
		l.say("Use it: kubectl --context %s get pods", name)
	}
}
