package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

func (d *Desk) leftBehindCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "left-behind GRANT",
		Short: "Show what engineers left in the cluster, and what to rotate, after a grant has ended",
		Long: "Show what the engineers of a grant that has ended made or changed and did not delete, as its record says, and what to rotate: Secrets that they read, and what " +
			"was at hand in the pods they were in. What of it still exists is asked with your rights: what you may not read is unknown.\n\n" +
			"Exit code: 0 it was told; 3 the grant has not ended, or it is not known yet; 1 it could not be told.",
		Example:           `  kubectl support-access left-behind case-4711 -n mail-archive`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: d.complete,
		RunE:              func(command *cobra.Command, args []string) error { return d.leftBehind(command.Context(), args[0]) },
	}
}

func (d *Desk) leftBehind(ctx context.Context, name string) error {
	namespace, err := d.namespace()
	if err != nil {
		return err
	}
	c, err := d.client()
	if err != nil {
		return err
	}
	record := &v1alpha1.SupportAccessRecord{}
	if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, record); err != nil {
		return fmt.Errorf("get the record of grant %s: %w", name, err)
	}
	if why := notToldYet(record); why != "" {
		return &exitError{code: exitNotOpen, err: errors.New(why)}
	}
	if record.Status.LeftBehind == nil {
		d.say("Nobody used grant %s.", name)
		return nil
	}
	look, err := d.looker(c)
	if err != nil {
		return err
	}
	return printLeft(d.Streams.Out, look.at(ctx, record.Status.LeftBehind))
}

// notToldYet says why a record cannot tell yet what was left behind, empty if it can.
func notToldYet(record *v1alpha1.SupportAccessRecord) string {
	switch status := &record.Status; {
	case status.EndTime == nil:
		return fmt.Sprintf("grant %s has not ended: what is left behind is known once it has", record.Spec.Grant.Name)
	case status.LeftBehind == nil && len(status.FirstUses) > 0:
		return fmt.Sprintf("what was left behind by grant %s is not known yet: the gateway tells it a few seconds after everybody is disconnected", record.Spec.Grant.Name)
	}
	return ""
}

// looker looks with the person's rights what exists.
type looker struct {
	client   client.Reader
	metadata metadata.Interface
	mapper   apimeta.RESTMapper
}

func (d *Desk) looker(c client.Reader) (*looker, error) {
	config, err := d.flags.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	objects, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	mapper, err := d.flags.ToRESTMapper()
	if err != nil {
		return nil, fmt.Errorf("find out which kinds there are: %w", err)
	}
	return &looker{client: c, metadata: objects, mapper: mapper}, nil
}

// found is what was left behind with what the API server says of it now.
type found struct {
	behind *v1alpha1.LeftBehind
	// now says of each object whether it is there, rotate what to do about each thing seen.
	now, rotate []string
}

// What became of an object.
const (
	isThere   = "yes"
	isGone    = "no"
	isAnother = "another of that name"
	isUnknown = "unknown"
)

func (l *looker) at(ctx context.Context, behind *v1alpha1.LeftBehind) found {
	f := found{behind: behind}
	for i := range behind.Objects {
		f.now = append(f.now, l.object(ctx, &behind.Objects[i]))
	}
	for i := range behind.Seen {
		f.rotate = append(f.rotate, l.seen(ctx, &behind.Seen[i]))
	}
	return f
}

// object says whether an object exists.
func (l *looker) object(ctx context.Context, o *v1alpha1.LeftObject) string {
	if o.Name == "" || o.Outlives == v1alpha1.OutlivingToken && o.Group == "" {
		return isUnknown
	}
	resource, err := l.mapper.ResourceFor(schema.GroupVersionResource{Group: o.Group, Resource: o.Resource})
	if err != nil {
		return isUnknown + ": there is no such kind any more"
	}
	object, err := l.metadata.Resource(resource).Namespace(o.Namespace).Get(ctx, o.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return isGone
	case apierrors.IsForbidden(err):
		return isUnknown + ": you may not read it"
	case err != nil:
		return isUnknown + ": " + err.Error()
	case o.UID != "" && object.UID != o.UID:
		return isAnother
	}
	return isThere
}

// seen says what is to be rotated because of what an engineer came to know.
func (l *looker) seen(ctx context.Context, s *v1alpha1.SeenObject) string {
	where := "in " + s.Namespace
	if s.Namespace == "" {
		where = "in every namespace"
	}
	switch {
	case s.Kind == v1alpha1.SeenSecret && s.Name == "":
		return "every Secret " + where
	case s.Kind == v1alpha1.SeenSecret:
		return fmt.Sprintf("Secret %s %s", s.Name, where)
	case s.Name == "":
		return "the ServiceAccounts and Secrets of every pod " + where
	}
	pod := &corev1.Pod{}
	err := l.client.Get(ctx, client.ObjectKey{Namespace: s.Namespace, Name: s.Name}, pod)
	if err != nil {
		return fmt.Sprintf("the ServiceAccount and the Secrets of pod %s %s: see what made it, since it cannot be read: %s", s.Name, where, apierrors.ReasonForError(err))
	}
	account := pod.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	names := append([]string{fmt.Sprintf("ServiceAccount %s of pod %s %s", account, s.Name, where)}, secretsOf(&pod.Spec)...)
	return strings.Join(names, ", Secret ")
}

// secretsOf names the Secrets that lie open to whoever is in a pod.
func secretsOf(spec *corev1.PodSpec) []string {
	var names []string
	for i := range spec.Volumes {
		v := &spec.Volumes[i]
		if v.Secret != nil {
			names = append(names, v.Secret.SecretName)
		}
		if v.Projected == nil {
			continue
		}
		for _, source := range v.Projected.Sources {
			if source.Secret != nil {
				names = append(names, source.Secret.Name)
			}
		}
	}
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			names = append(names, secretsIn(&containers[i])...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// secretsIn names the Secrets in the environment of a container.
func secretsIn(c *corev1.Container) []string {
	var names []string
	for _, from := range c.EnvFrom {
		if from.SecretRef != nil {
			names = append(names, from.SecretRef.Name)
		}
	}
	for _, e := range c.Env {
		if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
			names = append(names, e.ValueFrom.SecretKeyRef.Name)
		}
	}
	return names
}

// doubts are what is not known of an object, in words.
var doubts = map[v1alpha1.Doubt]string{
	v1alpha1.DoubtUnconfirmed:   ", unconfirmed",
	v1alpha1.DoubtDeletionAsked: ", deletion asked",
	v1alpha1.DoubtUnnamed:       ", name unknown",
}

// printLeft prints what was left behind, and what to do about it.
func printLeft(out io.Writer, f found) error {
	behind := f.behind
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	if len(behind.Objects) == 0 && len(behind.Seen) == 0 && behind.Unknown == "" {
		say("Nothing was left behind, and there is nothing to rotate.")
		return w.Flush()
	}
	if len(behind.Objects) > 0 {
		say("STILL THERE\tWHAT\tNAMESPACE\tNAME\tDEED\tOUTLIVES\tBY")
	}
	for i, o := range behind.Objects {
		say("%s\t%s\t%s\t%s\t%s\t%s\t%s", f.now[i], schema.GroupResource{Group: o.Group, Resource: o.Resource}, o.Namespace, o.Name, string(o.Deed)+doubts[o.Doubt], o.Outlives, o.By)
	}
	if behind.DroppedObjects > 0 {
		say("%d more are in the audit log: kubectl support-access audit --grant …", behind.DroppedObjects)
	}
	if len(behind.Seen) > 0 {
		say("\nROTATE\tSEEN BY")
	}
	for i, s := range behind.Seen {
		say("%s\t%s", f.rotate[i], s.By)
	}
	if behind.DroppedSeen > 0 {
		say("%d more are in the audit log: kubectl support-access audit --grant …", behind.DroppedSeen)
	}
	if behind.Unknown != "" {
		say("\nThere may be more: %s.", behind.Unknown)
	}
	if deletions := deletionsOf(f); len(deletions) > 0 {
		say("\nTo delete what was made and is still there:")
		for _, line := range deletions {
			say("  %s", line)
		}
	}
	return w.Flush()
}

// deletionsOf are the commands that delete what engineers made.
func deletionsOf(f found) []string {
	var lines []string
	for i, o := range f.behind.Objects {
		if f.now[i] != isThere || o.Deed != v1alpha1.DeedCreated {
			continue
		}
		// With a slash no name is taken for a flag.
		line := "kubectl delete " + quoted(fmt.Sprintf("%s/%s", schema.GroupResource{Group: o.Group, Resource: o.Resource}, o.Name))
		if o.Namespace != "" {
			line += " -n " + quoted(o.Namespace)
		}
		lines = append(lines, line)
	}
	return lines
}

// plain is what a shell takes as it is.
var plain = regexp.MustCompile(`^[a-zA-Z0-9./:_@][a-zA-Z0-9./:_@-]*$`)

// quoted returns a text as one word of a shell: what an engineer named may be anything.
func quoted(text string) string {
	if plain.MatchString(text) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
