package review

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"supportaccess.dev/operator/api/v1alpha1"
)

// limit is one rule of a policy.
type limit func(askedCase, *v1alpha1.SupportAccessPolicy) field.ErrorList

// limits are judged when a grant opens.
var limits = []limit{
	newGrants, protectedHome, protectedScope, offeredScope, offeredRoles, offeredFlags, offeredTransport, pipelines,
	longest, longestOfRole, menu, startDelay, elevatedCase, standingRoles, casePattern, engineerPattern, publicKeys,
	neverAllow,
}

// standing are judged again while a grant is open.
var standing = []limit{protectedHome, protectedScope, offeredTransport, neverAllow}

const (
	neverGiven = ", which support access never gives"
	// defaultLimit is the default of maxDuration and of maxStartDelay.
	defaultLimit = v1alpha1.Duration("168h")
	// defaultEnabled is the default of maxEnabled.
	defaultEnabled = v1alpha1.Duration("720h")
)

func newGrants(_ askedCase, p *v1alpha1.SupportAccessPolicy) field.ErrorList {
	if p.Spec.NewGrants == "" || p.Spec.NewGrants == v1alpha1.NewGrantsAllowed {
		return nil
	}
	return field.ErrorList{field.Forbidden(specPath, "new grants are "+string(p.Spec.NewGrants)+" by "+named(p)+" (newGrants)")}
}

func protectedHome(c askedCase, p *v1alpha1.SupportAccessPolicy) field.ErrorList {
	return forbid(namespacePath, within([]string{c.Grant.Namespace}, protectedBy(p)), " is protected by "+named(p)+" and takes no grants")
}

func protectedScope(c askedCase, p *v1alpha1.SupportAccessPolicy) field.ErrorList {
	return forbid(scopePath, within(c.elsewhere(), protectedBy(p)), " is protected by "+named(p))
}

func offeredScope(c askedCase, p *v1alpha1.SupportAccessPolicy) field.ErrorList {
	offered := p.Spec.Scopes
	if len(offered) == 0 {
		offered = []v1alpha1.ScopeKind{v1alpha1.ScopeNamespaces}
	}
	path, values, kind := scopePath, c.namespaces(), v1alpha1.ScopeNamespaces
	if c.cluster() {
		path, values, kind = clusterPath, []string{"true"}, v1alpha1.ScopeCluster
	}
	if slices.Contains(offered, kind) {
		return nil
	}
	return forbid(path, values, " is not offered: "+named(p)+" offers scopes "+list(offered))
}

func offeredRoles(c askedCase, p *v1alpha1.SupportAccessPolicy) field.ErrorList {
	var offered []string
	for _, r := range p.Spec.Roles {
		offered = append(offered, r.Name)
	}
	others := filter(c.roleNames(), func(name string) bool { return !slices.Contains(offered, name) })
	return forbid(specPath.Child("roles"), others, " is not offered: "+named(p)+" offers "+list(offered))
}

// offeredFlags holds flagged content to what a policy says of it, and to the transport that sees whether an object is flagged.
func offeredFlags(c askedCase, p *v1alpha1.SupportAccessPolicy) field.ErrorList {
	said := c.spec.FlaggedContent
	if said == "" {
		return nil
	}
	path := specPath.Child("flaggedContent")
	if p.Spec.FlaggedContent == nil {
		return forbid(path, []string{string(said)}, " is not offered: "+named(p)+" has no flaggedContent")
	}
	if c.Transport == v1alpha1.TransportGateway {
		return nil
	}
	return forbid(path, []string{string(said)}, " is for the transport Gateway alone, and "+string(c.Transport)+" is the default of "+named(p))
}

func offeredTransport(c askedCase, p *v1alpha1.SupportAccessPolicy) field.ErrorList {
	if slices.Contains(p.Spec.Transports, c.Transport) {
		return nil
	}
	return forbid(specPath.Child("transport"), []string{string(c.Transport)}, " is not offered: "+named(p)+" offers "+list(p.Spec.Transports))
}

func pipelines(c askedCase, p *v1alpha1.SupportAccessPolicy) field.ErrorList {
	if !c.pipeline() {
		return nil
	}
	switch p.Spec.ServiceAccountGrants {
	case v1alpha1.ServiceAccountGrantsAllow:
		return nil
	case v1alpha1.ServiceAccountGrantsDeny:
		return field.ErrorList{field.Forbidden(specPath.Child("grantedBy"),
			c.spec.GrantedBy+" is a ServiceAccount: "+named(p)+" takes grants from people only (serviceAccountGrants: Deny)")}
	}
	if c.spec.ExpirationTime != nil {
		return nil
	}
	return field.ErrorList{field.Forbidden(specPath.Child("duration"),
		c.end+" would start anew whenever a pipeline applies this again: instead of it write expirationTime: "+
			strconv.Quote(instant(c.start.Add(c.length)))+" (serviceAccountGrants: ExpirationTimeOnly, in "+named(p)+")")}
}

func longest(c askedCase, p *v1alpha1.SupportAccessPolicy) field.ErrorList {
	if c.spec.SettingRef != nil {
		limit := p.Spec.MaxEnabled
		if limit == "" {
			limit = defaultEnabled
		}
		return c.exceeds(limit, "settings in "+named(p))
	}
	return c.exceeds(orDefault(p.Spec.MaxDuration), named(p))
}

func longestOfRole(c askedCase, p *v1alpha1.SupportAccessPolicy) field.ErrorList {
	var errs field.ErrorList
	for _, r := range p.Spec.Roles {
		if r.MaxDuration != "" && slices.Contains(c.roleNames(), r.Name) {
			errs = append(errs, c.exceeds(r.MaxDuration, "role "+r.Name+" in "+named(p))...)
		}
	}
	return errs
}

// exceeds refuses a grant that lasts longer than a limit of somebody's.
func (c askedCase) exceeds(limit v1alpha1.Duration, whose string) field.ErrorList {
	if c.length <= limit.OrZero() {
		return nil
	}
	advice := ""
	if c.spec.ExpirationTime != nil {
		advice = ": give at most " + instant(c.start.Add(limit.OrZero()))
	}
	return field.ErrorList{field.Forbidden(c.endPath, c.end+" exceeds "+string(limit)+", the limit of "+whose+advice)}
}

// menu refuses a duration that is not on the policy's menu. It binds durations, not instants: 24h and 1440m are one.
func menu(c askedCase, p *v1alpha1.SupportAccessPolicy) field.ErrorList {
	if c.spec.ExpirationTime != nil || len(p.Spec.Durations) == 0 {
		return nil
	}
	if slices.ContainsFunc(p.Spec.Durations, func(d v1alpha1.Duration) bool { return d.OrZero() == c.length }) {
		return nil
	}
	return field.ErrorList{field.Forbidden(c.endPath, c.end+" is not offered: "+named(p)+" offers "+list(p.Spec.Durations))}
}

// startDelay is counted from the grant's creation: a grant that had to wait has not been asked for later.
func startDelay(c askedCase, p *v1alpha1.SupportAccessPolicy) field.ErrorList {
	limit := orDefault(p.Spec.MaxStartDelay)
	if c.spec.StartTime == nil || c.spec.StartTime.Sub(c.created) <= limit.OrZero() {
		return nil
	}
	return field.ErrorList{field.Forbidden(specPath.Child("startTime"), instant(c.spec.StartTime.Time)+" is more than "+string(limit)+
		" ahead, the limit of "+named(p)+": give at most "+instant(c.created.Add(limit.OrZero())))}
}

func elevatedCase(c askedCase, p *v1alpha1.SupportAccessPolicy) field.ErrorList {
	elevated := c.elevatedIn(p)
	if c.spec.Case != nil || c.spec.SettingRef != nil || len(elevated) == 0 {
		return nil
	}
	return field.ErrorList{field.Forbidden(specPath.Child("case"), "is missing: "+list(elevated)+" is elevated in "+named(p)+
		" and given for a case only: add spec.case.id")}
}

// standingRoles refuses elevated roles to settings: they are for one case, and a setting stands for none.
func standingRoles(c askedCase, p *v1alpha1.SupportAccessPolicy) field.ErrorList {
	if c.spec.SettingRef == nil {
		return nil
	}
	return forbid(specPath.Child("roles"), c.elevatedIn(p), " is elevated in "+named(p)+": it is granted for a case, not by a setting")
}

// elevatedIn returns the grant's roles that a policy calls elevated.
func (c askedCase) elevatedIn(p *v1alpha1.SupportAccessPolicy) []string {
	var elevated []string
	for _, r := range p.Spec.Roles {
		if r.Elevated && slices.Contains(c.roleNames(), r.Name) {
			elevated = append(elevated, r.Name)
		}
	}
	return elevated
}

// casePattern asks no case of a setting's grant: it stands for none.
func casePattern(c askedCase, p *v1alpha1.SupportAccessPolicy) field.ErrorList {
	pattern := p.Spec.CasePattern
	if pattern == "" || c.spec.SettingRef != nil {
		return nil
	}
	whose := ", the casePattern of " + named(p)
	path := specPath.Child("case", "id")
	if c.spec.Case == nil {
		return field.ErrorList{field.Forbidden(path, "is missing: give one that matches "+pattern+whose)}
	}
	return forbid(path, mismatches(pattern, []string{c.spec.Case.ID}), " does not match "+pattern+whose)
}

func engineerPattern(c askedCase, p *v1alpha1.SupportAccessPolicy) field.ErrorList {
	pattern := p.Spec.EngineerPattern
	if pattern == "" {
		return nil
	}
	var people []string
	for _, e := range c.spec.Engineers {
		people = append(people, e.Name)
	}
	return forbid(specPath.Child("engineers"), mismatches(pattern, people), " does not match "+pattern+", the engineerPattern of "+named(p))
}

// publicKeys refuses engineers to whom a credential could only be handed over in plaintext.
func publicKeys(c askedCase, p *v1alpha1.SupportAccessPolicy) field.ErrorList {
	var keyless []string
	for _, e := range c.spec.Engineers {
		if e.PublicKey == "" {
			keyless = append(keyless, e.Name)
		}
	}
	elevated, rule := c.elevatedIn(p), p.Spec.RequirePublicKey
	if rule == "" {
		rule = v1alpha1.PublicKeysElevatedRoles
	}
	if len(keyless) == 0 || rule == v1alpha1.PublicKeysNever || rule == v1alpha1.PublicKeysElevatedRoles && len(elevated) == 0 {
		return nil
	}
	why := "it is demanded by "
	if rule == v1alpha1.PublicKeysElevatedRoles {
		why = list(elevated) + " is elevated in "
	}
	return field.ErrorList{field.Forbidden(specPath.Child("engineers[]", "publicKey"), "is missing for "+list(keyless)+": "+why+named(p)+
		" (requirePublicKey: "+string(rule)+"): give an age recipient or an ssh-ed25519 public key of each")}
}

func neverAllow(c askedCase, p *v1alpha1.SupportAccessPolicy) field.ErrorList {
	var errs field.ErrorList
	never := RulesOf(p.Spec.NeverAllow)
	for i, name := range c.roleNames() {
		errs = append(errs, forbidEach(rolePath(i), name, Overlap(c.Roles[name], never), ", which "+named(p)+" never allows (neverAllow)")...)
	}
	return errs
}

// RulesOf returns a policy's rules as RBAC writes them.
func RulesOf(rules []v1alpha1.Rule) []rbacv1.PolicyRule {
	converted := make([]rbacv1.PolicyRule, 0, len(rules))
	for _, r := range rules {
		converted = append(converted, rbacv1.PolicyRule{
			Verbs: r.Verbs, APIGroups: r.APIGroups, Resources: r.Resources, ResourceNames: r.ResourceNames, NonResourceURLs: r.NonResourceURLs,
		})
	}
	return converted
}

// mismatches returns the values that do not match a pattern: all of them where it is no pattern, which the API server
// refuses to store.
func mismatches(pattern string, values []string) []string {
	compiled, err := regexp.Compile(pattern)
	if err != nil {
		return values
	}
	return filter(values, func(v string) bool { return !compiled.MatchString(v) })
}

// protectedBy returns the namespaces that a policy protects. One that says nothing protects the default ones.
func protectedBy(p *v1alpha1.SupportAccessPolicy) []string {
	if p.Spec.ProtectedNamespaces == nil {
		return []string{"kube-system", "kube-public", "kube-node-lease"}
	}
	return p.Spec.ProtectedNamespaces
}

func orDefault(d v1alpha1.Duration) v1alpha1.Duration {
	if d == "" {
		return defaultLimit
	}
	return d
}

func named(p *v1alpha1.SupportAccessPolicy) string { return "policy " + p.Name }

func list[T ~string](values []T) string {
	words := make([]string, 0, len(values))
	for _, v := range values {
		words = append(words, string(v))
	}
	return strings.Join(words, ", ")
}
