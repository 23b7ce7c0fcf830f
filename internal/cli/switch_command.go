package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// switches is one run of kubectl support-access enable or disable.
type switches struct {
	*Desk
	asked  switching
	output *output
	wait   waiting
}

func (d *Desk) enableCommand() *cobra.Command {
	s := &switches{Desk: d, output: newOutput("enabled")}
	command := &cobra.Command{
		Use:   "enable [--engineer NAME[=KEY] | --engineer-list LIST] [--for LENGTH | --until INSTANT]",
		Short: "Switch support access of a namespace on, or on for longer",
		Long: "Switch support access of a namespace on until an instant, when it switches itself off, or on for longer. It writes the namespace's " +
			"SupportAccessSetting; what no flag says stays as it is there. Whoever is connected is cut, and every engineer gets another credential.\n\n" +
			"Exit code with --wait: 0 it is on; 1 it is not yet; 2 it was refused, or has been ended.",
		Example: `  # Ana, for 30 days, in the namespace of the context, with the roles that are the default
  kubectl support-access enable --engineer ana@vendor.example

  # The same people, for longer
  kubectl support-access enable --for 168h --wait

  # The manifest, for Git
  kubectl support-access enable --engineer ana@vendor.example --until 2026-12-18T18:00Z --dry-run=client -o yaml`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error { return s.enable(command.Context()) },
	}
	flags := command.Flags()
	flags.StringArrayVar(&s.asked.engineers, "engineer", nil, "a person of the vendor, again for each, in place of those that are there: ana@vendor.example, or with = a public key (age1…, ssh-ed25519 …), or with =@ the file that holds one")
	flags.StringVar(&s.asked.list, "engineer-list", "", "a list of the policy's, in place of the people who are there: whoever is on it now has access")
	flags.StringVar(&s.asked.length, "for", "", "for how long from now, such as 168h; 720h if neither this nor --until is said")
	flags.StringVar(&s.asked.until, "until", "", "until when, such as 2026-12-18T18:00Z")
	flags.StringSliceVar(&s.asked.roles, "role", nil, "a ClusterRole that the policy offers and does not call elevated, again for each")
	flags.StringVar(&s.asked.transport, "transport", "", "gateway or direct")
	flags.StringVar(&s.asked.why, "reason", "", "why, for the other admins and for the record")
	s.addFlags(command, "wait until support access is on")
	return command
}

func (d *Desk) disableCommand() *cobra.Command {
	s := &switches{Desk: d, output: newOutput("disabled"), wait: waiting{wait: true}}
	command := &cobra.Command{
		Use:   "disable",
		Short: "Switch support access of a namespace off",
		Long: "Switch support access of a namespace off: who is connected is cut. It takes the instant out of the namespace's SupportAccessSetting, and leaves " +
			"there who may come in when it is switched on again. Then it waits until access is gone, and says how long that took. Grants that " +
			"people made stay: to end them, use revoke.",
		Example: `  kubectl support-access disable -n mail-archive`,
		Args:    cobra.NoArgs,
		RunE:    func(command *cobra.Command, _ []string) error { return s.disable(command.Context()) },
	}
	s.addFlags(command, "wait until access is gone")
	return command
}

// addFlags adds what both commands take.
func (s *switches) addFlags(command *cobra.Command, usage string) {
	s.output.addDryRun(command)
	s.wait.addFlags(command, usage)
	s.output.AddFlags(command)
	s.output.allowWide(command)
}

func (s *switches) enable(ctx context.Context) error {
	if err := s.output.check(); err != nil {
		return err
	}
	namespace, err := s.namespace()
	if err != nil {
		return err
	}
	if s.output.dryRun == dryRunClient {
		setting := newSetting(namespace)
		if err := s.asked.apply(setting, s.Clock.Now(), os.ReadFile); err != nil {
			return err
		}
		return s.print(setting)
	}
	c, err := s.client()
	if err != nil {
		return err
	}
	me, now := s.whoAndWhen(ctx, c)
	setting, err := s.write(ctx, c, namespace, func(setting *v1alpha1.SupportAccessSetting) error {
		stamp(setting, me)
		return s.asked.apply(setting, now, os.ReadFile)
	})
	if err != nil {
		return err
	}
	if s.output.dryRun != dryRunNone || !s.wait.wait {
		return s.print(setting)
	}
	err = s.awaitOn(ctx, c, setting)
	return errors.Join(s.print(setting), err)
}

func (s *switches) disable(ctx context.Context) error {
	if s.output.dryRun == dryRunClient {
		return errors.New("--dry-run: client asks nobody, and so does not know the setting: write server")
	}
	if err := s.output.check(); err != nil {
		return err
	}
	namespace, err := s.namespace()
	if err != nil {
		return err
	}
	c, err := s.client()
	if err != nil {
		return err
	}
	me, now := s.whoAndWhen(ctx, c)
	started, wasOff := s.Clock.Now(), false
	setting, err := s.write(ctx, c, namespace, func(setting *v1alpha1.SupportAccessSetting) error {
		if setting.UID == "" {
			return errNoSetting
		}
		if wasOff = setting.Spec.EnabledUntil == nil || !setting.Spec.EnabledUntil.After(now); !wasOff {
			stamp(setting, me)
			setting.Spec.EnabledUntil = nil
		}
		return nil
	})
	if errors.Is(err, errNoSetting) {
		s.say("There is nothing to switch off in %s.", placeOf(namespace))
		return nil
	}
	if err != nil {
		return err
	}
	if wasOff {
		s.say("Support access of %s was off before.", placeOf(namespace))
	}
	if s.output.dryRun == dryRunNone && s.wait.wait {
		err = s.awaitOff(ctx, c, setting, started)
	}
	return errors.Join(s.print(setting), err)
}

// errNoSetting says that there is nothing to switch off.
var errNoSetting = errors.New("there is no setting")

// whoAndWhen asks the API server for whom it takes the person, and what time it is there: how far ahead a setting may be on
// is judged by that clock. Where nobody may ask, its own has to do, and the API server writes who it is.
func (s *switches) whoAndWhen(ctx context.Context, c client.Client) (string, time.Time) {
	me := &authenticationv1.SelfSubjectReview{}
	if err := c.Create(ctx, me); err != nil || me.CreationTimestamp.IsZero() {
		return me.Status.UserInfo.Username, s.Clock.Now()
	}
	return me.Status.UserInfo.Username, me.CreationTimestamp.Time
}

// stamp writes who switches. Servers that cannot write it ask for it.
func stamp(setting *v1alpha1.SupportAccessSetting, me string) {
	if me != "" {
		setting.Spec.SwitchedBy = me
	}
}

// write changes the namespace's setting, or makes it, and changes it again as often as it was changed meanwhile: the
// operator writes its status.
func (s *switches) write(ctx context.Context, c client.Client, namespace string, change func(*v1alpha1.SupportAccessSetting) error) (*v1alpha1.SupportAccessSetting, error) {
	setting := newSetting(namespace)
	err := retry.OnError(retry.DefaultBackoff, overtaken, func() error {
		setting = newSetting(namespace)
		err := c.Get(ctx, client.ObjectKeyFromObject(setting), setting)
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("get the setting of %s: %w", placeOf(namespace), err)
		}
		before, fresh := setting.DeepCopy(), apierrors.IsNotFound(err)
		if err := change(setting); err != nil {
			return err
		}
		if fresh {
			err = c.Create(ctx, setting, s.output.createOptions()...)
		} else {
			patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
			err = c.Patch(ctx, setting, patch, s.output.patchOptions()...)
		}
		if err != nil {
			return fmt.Errorf("write the setting of %s: %w", placeOf(namespace), err)
		}
		return nil
	})
	return setting, err
}

// overtaken reports whether somebody else wrote the setting first.
func overtaken(err error) bool { return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) }

// print prints the setting as -o says, or says in a line what was done to it.
func (s *switches) print(setting *v1alpha1.SupportAccessSetting) error {
	if s.output.isWide() {
		return printSetting(s.Streams.Out, setting)
	}
	return s.output.print(setting, s.Streams.Out)
}

// awaitOn waits until nothing more comes of a setting by itself, and says what came of it.
func (s *switches) awaitOn(ctx context.Context, c client.Client, setting *v1alpha1.SupportAccessSetting) error {
	err := s.await(ctx, c, setting, isEnabled)
	state, message := settingState(setting)
	switch {
	case errors.Is(err, errLate):
		return fmt.Errorf("support access is not on after %s: it is %s: %s", s.wait.timeout, state, message)
	case err != nil:
		return err
	case state != v1alpha1.SettingOn:
		return &exitError{code: exitEnded, err: fmt.Errorf("support access is %s: %s", state, message)}
	}
	s.say("%s: %s", state, message)
	for _, name := range namesOfEngineers(setting.Spec.Engineers) {
		s.say("Hand over: kubectl support-access handover -n %s %s %s --file %s.kubeconfig", setting.Namespace, setting.Status.Grant, name, name)
	}
	return nil
}

// awaitOff waits until nothing of a setting is open any more, and says how long that took.
func (s *switches) awaitOff(ctx context.Context, c client.Client, setting *v1alpha1.SupportAccessSetting, started time.Time) error {
	err := s.await(ctx, c, setting, isDisabled)
	switch {
	case errors.Is(err, errLate):
		state, message := settingState(setting)
		return fmt.Errorf("support access is not yet off after %s: it is %s: %s\nIt stays switched off. To cut access by hand, with or without the operator:\n"+
			"  kubectl delete rolebinding,clusterrolebinding -A -l %s=%s,%s=%s", s.wait.timeout, state, message,
			v1alpha1.LabelGrant, dash(setting.Status.Grant), v1alpha1.LabelGrantNamespace, setting.Namespace)
	case err != nil:
		return err
	}
	s.say("Access was gone after %s.", s.Clock.Since(started).Round(time.Millisecond))
	return nil
}

// await waits until the setting is as is wanted.
func (s *switches) await(ctx context.Context, c client.Client, setting *v1alpha1.SupportAccessSetting, is func(*v1alpha1.SupportAccessSetting) bool) error {
	return s.wait.until(ctx, func(ctx context.Context) (bool, error) {
		if err := c.Get(ctx, client.ObjectKeyFromObject(setting), setting); err != nil {
			return false, fmt.Errorf("get the setting of %s: %w", placeOf(setting.Namespace), err)
		}
		return is(setting), nil
	})
}
