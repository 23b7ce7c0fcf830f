package review

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"supportaccess.dev/operator/api/v1alpha1"
)

var (
	specPath      = field.NewPath("spec")
	namespacePath = field.NewPath("metadata", "namespace")
	scopePath     = specPath.Child("scope", "namespaces")
	clusterPath   = specPath.Child("scope", "cluster")
)

// ours are the operator's own namespaces, in no grant's scope whatever a policy says.
var ours = []string{v1alpha1.SystemNamespace, v1alpha1.CredentialsNamespace}

// askedCase is a grant with what every limit asks of it.
type askedCase struct {
	Input

	spec v1alpha1.SupportAccessGrantSpec
	// created is the API server's instant at which the grant was made.
	created time.Time
	// start is when access opens at the earliest, and length how long it then lasts.
	start  time.Time
	length time.Duration
	// endPath and end are the field that says how long, and what it says.
	endPath *field.Path
	end     string
}

func newCase(in Input) askedCase {
	c := askedCase{Input: in, spec: in.Grant.Spec, created: in.Grant.CreationTimestamp.Time}
	if c.created.IsZero() {
		c.created = in.Now
	}
	c.start = c.created
	if c.spec.StartTime != nil && c.spec.StartTime.After(c.start) {
		c.start = c.spec.StartTime.Time
	}
	c.length, c.endPath, c.end = c.spec.Duration.OrZero(), specPath.Child("duration"), string(c.spec.Duration)
	if c.spec.ExpirationTime != nil {
		c.length = c.spec.ExpirationTime.Sub(c.start)
		c.endPath, c.end = specPath.Child("expirationTime"), instant(c.spec.ExpirationTime.Time)
	}
	if c.Transport == "" {
		c.Transport = ResolveTransport(in.Grant, in.Policies[in.Grant.Namespace].Policy)
	}
	return c
}

// policies returns the policies that judge the grant, each once, in the order of their names.
func (c askedCase) policies() []*v1alpha1.SupportAccessPolicy {
	var found []*v1alpha1.SupportAccessPolicy
	for _, namespace := range append([]string{c.Grant.Namespace}, c.elsewhere()...) {
		if p := c.Policies[namespace].Policy; p != nil {
			found = append(found, p)
		}
	}
	slices.SortFunc(found, func(a, b *v1alpha1.SupportAccessPolicy) int { return cmp.Compare(a.Name, b.Name) })
	return slices.CompactFunc(found, func(a, b *v1alpha1.SupportAccessPolicy) bool { return a.Name == b.Name })
}

// namespaces returns the namespaces that the scope names, the grant's own if it says nothing, none if it is the cluster.
func (c askedCase) namespaces() []string {
	if c.spec.Scope == nil {
		return []string{c.Grant.Namespace}
	}
	return c.spec.Scope.Namespaces
}

// elsewhere returns the namespaces that the scope names in words.
func (c askedCase) elsewhere() []string {
	if c.spec.Scope == nil {
		return nil
	}
	return c.spec.Scope.Namespaces
}

func (c askedCase) cluster() bool { return c.spec.Scope != nil && c.spec.Scope.Cluster }

// pipeline reports whether a ServiceAccount made the grant.
func (c askedCase) pipeline() bool {
	return strings.HasPrefix(c.spec.GrantedBy, "system:serviceaccount:")
}

func (c askedCase) roleNames() []string { return c.spec.Roles }

// ownNamespaces refuses the operator's own namespaces, as a place of grants and in a scope.
func (c askedCase) ownNamespaces() field.ErrorList {
	errs := forbid(namespacePath, within([]string{c.Grant.Namespace}, ours), " belongs to the operator and takes no grants")
	return append(errs, forbid(scopePath, within(c.elsewhere(), ours), " belongs to the operator and is never in the scope of a grant")...)
}

// withoutPolicy refuses namespaces that have no policy: what nobody limits is not given.
func (c askedCase) withoutPolicy() field.ErrorList {
	var errs field.ErrorList
	for i, namespace := range append([]string{c.Grant.Namespace}, c.elsewhere()...) {
		p := c.Policies[namespace]
		if p.Policy != nil || p.Gone {
			continue
		}
		path := scopePath
		if i == 0 {
			path = namespacePath
		}
		reason := " takes no grants: its label " + v1alpha1.LabelPolicy + " names policy " + p.Name + ", which does not exist"
		if p.Name == "" || p.Name == v1alpha1.DefaultPolicyName {
			reason = " takes no grants: there is no policy " + v1alpha1.DefaultPolicyName + ", and its label " + v1alpha1.LabelPolicy + " names no other"
		}
		errs = append(errs, forbid(path, []string{namespace}, reason)...)
	}
	return errs
}

// ownSecrets refuses the whole cluster to a role that reads Secrets: the other engineers' credentials would be among
// them. Who writes or enters something in the operator's own namespaces is refused by admission, request by request.
func (c askedCase) ownSecrets() field.ErrorList {
	if !c.cluster() {
		return nil
	}
	var errs field.ErrorList
	for _, name := range c.roleNames() {
		if len(Overlap(c.Roles[name], anySecret())) > 0 {
			errs = append(errs, field.Forbidden(clusterPath,
				"true is not for "+name+": it reaches Secrets, and those of "+v1alpha1.CredentialsNamespace+" are other people's credentials: name namespaces"))
		}
	}
	return errs
}

// forbid returns one error that names values, none if there are none.
func forbid(path *field.Path, values []string, reason string) field.ErrorList {
	if len(values) == 0 {
		return nil
	}
	return field.ErrorList{field.Forbidden(path, strings.Join(values, ", ")+reason)}
}

// forbidEach returns one error for each reason against a role.
func forbidEach(path *field.Path, role string, reasons []string, because string) field.ErrorList {
	var errs field.ErrorList
	for _, reason := range reasons {
		errs = append(errs, field.Forbidden(path, role+" "+reason+because))
	}
	return errs
}

func rolePath(i int) *field.Path { return specPath.Child("roles").Index(i) }

// within returns the values that are in a list, without those that are not.
func within(values, list []string) []string {
	return filter(values, func(v string) bool { return slices.Contains(list, v) })
}

func filter(values []string, keep func(string) bool) []string {
	return slices.DeleteFunc(slices.Clone(values), func(v string) bool { return !keep(v) })
}

// instant returns an instant as manifests write it.
func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }
