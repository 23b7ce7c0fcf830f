// Package cli is the kubectl plugin: what an admin says on a command line becomes grants, decisions and settings, what
// became of them is told in an admin's words, and what an engineer was handed becomes a context. It does nothing that
// kubectl with the same kubeconfig could not do, and decides nothing: the API server does.
package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// fieldOwner is who the API server takes the plugin for in managed fields. Not kubectl's: a later kubectl apply would then
// think that these fields were its own.
const fieldOwner = "support-access-cli"

// Exit codes, for scripts.
const (
	exitOK     = 0
	exitFailed = 1
	// exitEnded says that the grant has ended, or never opens.
	exitEnded = 2
	// exitNotOpen says that the grant gives no access now, and has not ended.
	exitNotOpen = 3
)

// exitError is an error with an exit code of its own. Without err nothing is printed.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// Desk is what every command works with.
type Desk struct {
	// Streams are the person's.
	Streams genericiooptions.IOStreams
	// Clock says what time it is.
	Clock clock.PassiveClock
	// Version is the plugin's own.
	Version string

	flags *genericclioptions.ConfigFlags
}

// Run does what a command line says and returns the exit code.
func (d *Desk) Run(ctx context.Context, args []string) int {
	command := d.command()
	command.SetArgs(args)
	err := command.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	code, coded := exitFailed, (*exitError)(nil)
	if errors.As(err, &coded) {
		code = coded.code
	}
	if coded == nil || coded.err != nil {
		d.say("error: %v", err)
	}
	return code
}

// command is the whole tree of commands.
func (d *Desk) command() *cobra.Command {
	d.flags = genericclioptions.NewConfigFlags(true)
	root := &cobra.Command{
		Use:           "kubectl-support_access",
		Short:         "Grant, watch and end support access",
		Long:          "Grant engineers of the vendor access to a namespace for a limited time, see who has it, and take it away.",
		Version:       d.Version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl support-access"},
	}
	root.SetIn(d.Streams.In)
	root.SetOut(d.Streams.Out)
	root.SetErr(d.Streams.ErrOut)
	root.CompletionOptions.HiddenDefaultCmd = true
	d.flags.AddFlags(root.PersistentFlags())
	root.AddCommand(
		d.requestCommand(), d.grantCommand(), d.listCommand(), d.statusCommand(), d.approveCommand(), d.denyCommand(), d.revokeCommand(), d.shortenCommand(), d.handoverCommand(), d.loginCommand(),
		d.enableCommand(), d.disableCommand(), d.auditCommand(), d.replayCommand(), d.leftBehindCommand(),
	)
	return root
}

// client returns a client that acts as the person. It looks nothing up to find the kinds, and prints the API server's
// warnings.
func (d *Desk) client() (client.Client, error) {
	config, err := d.flags.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	config = rest.CopyConfig(config)
	// As kubectl's own: to wait for many grants is not to wait for oneself.
	config.QPS, config.Burst = 50, 300
	config.UserAgent = "kubectl-support_access/" + d.Version
	config.WarningHandler = rest.NewWarningWriter(d.Streams.ErrOut, rest.WarningWriterOptions{Deduplicate: true})
	c, err := client.New(config, client.Options{Scheme: scheme(), Mapper: mapper()})
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	return client.WithFieldOwner(c, fieldOwner), nil
}

// namespace returns the namespace of -n, else of the kubeconfig's context.
func (d *Desk) namespace() (string, error) {
	namespace, _, err := d.flags.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return "", fmt.Errorf("find the namespace: %w", err)
	}
	return namespace, nil
}

// say tells the person something beside what the command prints. Nobody can be told that it could not be said.
func (d *Desk) say(format string, args ...any) {
	_, _ = fmt.Fprintf(d.Streams.ErrOut, format+"\n", args...)
}

// whoAmI asks the API server for whom it takes the person.
func whoAmI(ctx context.Context, c client.Client) (string, error) {
	me := &authenticationv1.SelfSubjectReview{}
	if err := c.Create(ctx, me); err != nil {
		return "", fmt.Errorf("ask who you are: %w", err)
	}
	return me.Status.UserInfo.Username, nil
}

// authorityOf asks the API server whether the person holds the verb that an action takes in the whole cluster.
func authorityOf(ctx context.Context, c client.Client, action v1alpha1.DecisionAction) (v1alpha1.Authority, error) {
	verb := "revoke"
	if action == v1alpha1.ActionApprove || action == v1alpha1.ActionDeny {
		verb = "approve"
	}
	may := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Group: v1alpha1.GroupVersion.Group, Resource: "supportaccessgrants"},
	}}
	if err := c.Create(ctx, may); err != nil {
		return "", fmt.Errorf("ask what you may %s: %w", verb, err)
	}
	if may.Status.Allowed {
		return v1alpha1.AuthorityCluster, nil
	}
	return v1alpha1.AuthorityNamespace, nil
}

func scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		v1alpha1.AddToScheme, corev1.AddToScheme, rbacv1.AddToScheme, authenticationv1.AddToScheme, authorizationv1.AddToScheme,
	} {
		if err := add(s); err != nil {
			panic(fmt.Sprintf("register known kinds: %v", err))
		}
	}
	return s
}

// mapper knows the few kinds that the plugin uses, so that no discovery is needed.
func mapper() apimeta.RESTMapper {
	m := apimeta.NewDefaultRESTMapper(nil)
	for _, kind := range []struct {
		version schema.GroupVersion
		kind    string
		scope   apimeta.RESTScope
	}{
		{v1alpha1.GroupVersion, "SupportAccessGrant", apimeta.RESTScopeNamespace},
		{v1alpha1.GroupVersion, "SupportAccessDecision", apimeta.RESTScopeNamespace},
		{v1alpha1.GroupVersion, "SupportAccessRecord", apimeta.RESTScopeNamespace},
		{v1alpha1.GroupVersion, "SupportAccessSetting", apimeta.RESTScopeNamespace},
		{v1alpha1.GroupVersion, "SupportAccessRequest", apimeta.RESTScopeNamespace},
		{corev1.SchemeGroupVersion, "Secret", apimeta.RESTScopeNamespace},
		{corev1.SchemeGroupVersion, "ConfigMap", apimeta.RESTScopeNamespace},
		{corev1.SchemeGroupVersion, "Pod", apimeta.RESTScopeNamespace},
		{corev1.SchemeGroupVersion, "ServiceAccount", apimeta.RESTScopeNamespace},
		{rbacv1.SchemeGroupVersion, "ClusterRole", apimeta.RESTScopeRoot},
		{authenticationv1.SchemeGroupVersion, "SelfSubjectReview", apimeta.RESTScopeRoot},
		{authorizationv1.SchemeGroupVersion, "SelfSubjectAccessReview", apimeta.RESTScopeRoot},
	} {
		m.Add(kind.version.WithKind(kind.kind), kind.scope)
	}
	return m
}
