package cli

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
)

// maxName is the longest name that is made here: there is room for a suffix behind it.
const maxName = 57

var (
	label    = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	notLabel = regexp.MustCompile(`[^a-z0-9]+`)
)

// wish is a grant as somebody asks for it on a command line.
type wish struct {
	name, namespace      string
	engineers, roles     []string
	length, until, start string
	caseID, caseURL, why string
	toNamespaces         []string
	toCluster            bool
	transport            string
	// request is the one that is answered, nil if none.
	request *v1alpha1.SupportAccessRequest
}

// grant renders the grant. All that is wrong with the flags is said at once.
func (w wish) grant(now time.Time, readFile func(string) ([]byte, error)) (*v1alpha1.SupportAccessGrant, error) {
	grant := &v1alpha1.SupportAccessGrant{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "SupportAccessGrant"},
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace},
		Spec:       v1alpha1.SupportAccessGrantSpec{Reason: w.why, Roles: w.roles},
	}
	if slices.Contains(w.roles, v1alpha1.FlaggedRole) {
		grant.Spec.FlaggedContent = v1alpha1.FlaggedContentAllow
	}
	var errs []error
	for _, set := range []func(*v1alpha1.SupportAccessGrant) error{
		w.setName, w.setCase, w.setScope, w.setTransport,
		func(g *v1alpha1.SupportAccessGrant) error { return w.setEngineers(g, readFile) },
		func(g *v1alpha1.SupportAccessGrant) error { return w.setEnd(g, now) },
		w.setStart, w.setRequest,
	} {
		errs = append(errs, set(grant))
	}
	if w.why == "" {
		errs = append(errs, errors.New("--reason: is missing: it tells the other admins, and whoever reads the record later, why"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return grant, nil
}

func (w wish) setName(g *v1alpha1.SupportAccessGrant) error {
	switch {
	case w.name != "" && !label.MatchString(w.name):
		return fmt.Errorf("NAME: %q: write at most 63 lower-case letters, digits and hyphens", w.name)
	case w.name != "":
		g.Name = w.name
	case w.caseID == "":
		return errors.New("NAME: is missing: give it, or --case, of which it is made")
	default:
		if g.Name = nameOf(w.caseID); g.Name == "" {
			return fmt.Errorf("NAME: is missing, and of --case %s none can be made", w.caseID)
		}
	}
	return nil
}

func (w wish) setCase(g *v1alpha1.SupportAccessGrant) error {
	if w.caseID == "" && w.caseURL != "" {
		return errors.New("--case-url: is given with --case, and only then")
	}
	if w.caseURL != "" && !strings.HasPrefix(w.caseURL, "https://") {
		return fmt.Errorf("--case-url: %s: https:// only", w.caseURL)
	}
	if w.caseID != "" {
		g.Spec.Case = &v1alpha1.Case{ID: w.caseID, URL: w.caseURL}
	}
	return nil
}

func (w wish) setScope(g *v1alpha1.SupportAccessGrant) error {
	switch {
	case w.toCluster && len(w.toNamespaces) > 0:
		return errors.New("--to-namespace, --to-cluster: give one of them, not both")
	case w.toCluster:
		g.Spec.Scope = &v1alpha1.Scope{Cluster: true}
	case len(w.toNamespaces) > 0:
		g.Spec.Scope = &v1alpha1.Scope{Namespaces: w.toNamespaces}
	}
	return nil
}

func (w wish) setTransport(g *v1alpha1.SupportAccessGrant) (err error) {
	g.Spec.Transport, err = parseTransport(w.transport)
	return err
}

// parseTransport reads a transport, however its letters are written. Empty stays empty.
func parseTransport(text string) (v1alpha1.Transport, error) {
	for _, known := range []v1alpha1.Transport{"", v1alpha1.TransportGateway, v1alpha1.TransportDirect} {
		if strings.EqualFold(text, string(known)) {
			return known, nil
		}
	}
	return "", fmt.Errorf("--transport: %s: write gateway or direct", text)
}

func (w wish) setEngineers(g *v1alpha1.SupportAccessGrant, readFile func(string) ([]byte, error)) (err error) {
	if len(w.engineers) == 0 && w.request != nil {
		return nil
	}
	if len(w.engineers) == 0 {
		return errNoEngineer
	}
	g.Spec.Engineers, err = parseEngineers(w.engineers, readFile)
	return err
}

func (w wish) setEnd(g *v1alpha1.SupportAccessGrant, now time.Time) error {
	switch {
	case w.length == "" && w.until == "":
		return fmt.Errorf("--for, --until: %w", errNoEnd)
	case w.length != "" && w.until != "":
		return fmt.Errorf("--for, --until: %w", errTwoEnds)
	case w.length != "":
		length, err := parseLength("--for", w.length)
		g.Spec.Duration = length
		return err
	}
	until, err := parseInstant("--until", w.until)
	if err != nil {
		return err
	}
	if !until.After(now) {
		return fmt.Errorf("--until: %s has passed", w.until)
	}
	g.Spec.ExpirationTime = new(metav1.NewTime(until))
	return nil
}

func (w wish) setStart(g *v1alpha1.SupportAccessGrant) error {
	if w.start == "" {
		return nil
	}
	start, err := parseInstant("--start", w.start)
	if err != nil {
		return err
	}
	if end := g.Spec.ExpirationTime; end != nil && !start.Before(end.Time) {
		return fmt.Errorf("--start: %s: must be before --until %s", w.start, w.until)
	}
	g.Spec.StartTime = new(metav1.NewTime(start))
	return nil
}

// nameOf makes a name of a case's number: case-4711 of CASE-4711. Empty means that there is nothing in it to make one of.
func nameOf(caseID string) string {
	name := strings.Trim(notLabel.ReplaceAllString(strings.ToLower(caseID), "-"), "-")
	if len(name) > maxName {
		name = strings.TrimRight(name[:maxName], "-")
	}
	return name
}

// firstFree returns the name, or the first of name-2, name-3 and so on that nobody has used.
func firstFree(name string, used map[string]bool) string {
	if !used[name] {
		return name
	}
	for i := 2; ; i++ {
		if next := name + "-" + strconv.Itoa(i); !used[next] {
			return next
		}
	}
}
