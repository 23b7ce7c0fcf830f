package lifecycle

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"supportaccess.dev/operator/api/v1alpha1"
)

// ApprovalRule is what the policies ask before a grant may open. Its zero value asks nothing.
type ApprovalRule struct {
	// Needed is how many must approve.
	Needed int
	// ByPeople is how many of them must not be ServiceAccounts.
	ByPeople int
	// Timeout is for how long the grant waits from its making, 0 for as long as it takes.
	Timeout time.Duration
	// ServiceAccounts are those whose approvals count.
	ServiceAccounts []string
	// Because says which policies ask it, and for which roles.
	Because string
}

// Approval is a decision that approves the grant and counts.
type Approval struct {
	// Decision is the decision.
	Decision *v1alpha1.SupportAccessDecision
	// By is who decided.
	By string
}

// maxApprovals is how many approvals are told of: more than any policy asks for.
const maxApprovals = 16

const serviceAccountPrefix = "system:serviceaccount:"

// approvals returns the approvals that count, the oldest first, each person's once. It goes by the decisions themselves:
// what the record says of them is an account, not an authority.
func approvals(f Facts) []Approval {
	var found []Approval
	for i := range f.Decisions {
		d := &f.Decisions[i]
		if d.Spec.Action == v1alpha1.ActionApprove && d.Spec.Target.Grant != "" && whyNot(f, d) == "" {
			found = append(found, Approval{Decision: d, By: d.Spec.DecidedBy})
		}
	}
	slices.SortFunc(found, func(a, b Approval) int {
		if byTime := a.Decision.CreationTimestamp.Compare(b.Decision.CreationTimestamp.Time); byTime != 0 {
			return byTime
		}
		return strings.Compare(a.Decision.Name, b.Decision.Name)
	})
	seen := map[string]bool{}
	found = slices.DeleteFunc(found, func(a Approval) bool {
		known := strings.ToLower(a.By)
		again := seen[known]
		seen[known] = true
		return again
	})
	return found[:min(len(found), maxApprovals)]
}

// whyNot returns why an approval does not count, empty if it does.
func whyNot(f Facts, d *v1alpha1.SupportAccessDecision) string {
	if reason := WhyNot(f.Grant, f.Record, d); reason != "" {
		return reason
	}
	rule := f.World.Approvals
	if isServiceAccount(d.Spec.DecidedBy) && !slices.Contains(rule.ServiceAccounts, d.Spec.DecidedBy) {
		return d.Spec.DecidedBy + " is a ServiceAccount that the policy does not name among its serviceAccountApprovers"
	}
	if provisioned(f) || Approved(f.Record, d) {
		return ""
	}
	if until := deadline(f); !until.IsZero() && !d.CreationTimestamp.Time.Before(until) {
		return "it came after the time in which the grant could be approved"
	}
	if since := f.World.AdmissionSince; !since.IsZero() && !d.CreationTimestamp.After(since) {
		return "it was made before the admission policies were in force: who decided is not proven"
	}
	return ""
}

// WhyNot returns why an approval does not count whatever the policies say, empty if it does as far as the grant, or its
// record, and the decision tell. One of the two may be nil.
func WhyNot(g *v1alpha1.SupportAccessGrant, record *v1alpha1.SupportAccessRecord, d *v1alpha1.SupportAccessDecision) string {
	f := Facts{Grant: g, Record: record}
	who, key := d.Spec.DecidedBy, grantOf(f)
	switch {
	case !Concerns(d, key):
		return "it was made before the grant, or is about another grant of its name"
	case d.Spec.Target.UID == "" && !d.CreationTimestamp.After(key.Created):
		return "it was made in the same second as the grant, and whether after it nobody can tell: decide again, or name the grant's UID"
	case who == "" || d.Spec.Authority == "":
		return "who decided, and with which authority, is not stamped on it"
	case isOurs(who):
		return who + " is an identity of support access"
	case who == grantedBy(f):
		return who + " made the grant"
	case isRequester(who, requestOf(f)):
		return who + " made the request that it answers"
	case slices.ContainsFunc(everyEngineer(f), func(name string) bool { return isName(who, name) }):
		return who + " is one of its engineers"
	case slices.ContainsFunc(claimedAuthors(f), func(name string) bool { return isName(who, name) }):
		return who + " is named as its author"
	case reachesBeyond(f) && d.Spec.Authority != v1alpha1.AuthorityCluster:
		return "the grant reaches beyond its namespace, and " + who + " holds the verb approve there only"
	default:
		return ""
	}
}

// awaits reports whether a grant that has not opened still needs approvals.
func awaits(f Facts) bool {
	return !provisioned(f) && !approved(f)
}

// approved reports whether as many approve as must. Under an open grant a policy that asks for more closes nothing; but what
// needs approval, and nobody approved, is not open.
func approved(f Facts) bool {
	rule := f.World.Approvals
	needed, byPeople := rule.Needed, rule.ByPeople
	if provisioned(f) {
		then := max(1, int(f.Record.Status.ApprovalsNeeded))
		needed, byPeople = min(needed, then), min(byPeople, then)
	}
	if needed == 0 {
		return true
	}
	found := approvals(f)
	people := 0
	for _, a := range found {
		if !isServiceAccount(a.By) {
			people++
		}
	}
	return len(found) >= needed && people >= byPeople
}

// deadline returns until when a grant may be approved, zero for ever.
func deadline(f Facts) time.Time {
	rule := f.World.Approvals
	if rule.Needed == 0 || rule.Timeout == 0 {
		return time.Time{}
	}
	return grantOf(f).Created.Add(rule.Timeout)
}

// Awaited says what a grant still needs, in a sentence.
func Awaited(rule ApprovalRule, found []Approval) string {
	message := fmt.Sprintf("%d of %s: %s", len(found), plural(rule.Needed), rule.Because)
	people := 0
	var by []string
	for _, a := range found {
		by = append(by, a.By)
		if !isServiceAccount(a.By) {
			people++
		}
	}
	if len(by) > 0 {
		message += "; approved by " + strings.Join(by, ", ")
	}
	if missing := rule.ByPeople - people; missing > 0 && len(found)+missing > rule.Needed {
		message += "; a person must be among those who approve"
	}
	return message
}

func plural(approvals int) string {
	if approvals == 1 {
		return "1 approval"
	}
	return fmt.Sprintf("%d approvals", approvals)
}

// endedByTimeout ends a grant that was not approved in time. It waits until admission is in force, as all does that proves
// who decided.
func endedByTimeout(f Facts, _ Verdict) *End {
	until := deadline(f)
	if until.IsZero() || f.Now.Before(until) || f.World.AdmissionPending != "" || !awaits(f) {
		return nil
	}
	return &End{Reason: v1alpha1.EndNotApproved, By: Operator, Message: fmt.Sprintf(
		"it was not approved within %s: %s", f.World.Approvals.Timeout, Awaited(f.World.Approvals, approvals(f)))}
}

// endedByLackOfApproval ends an open grant that needs approval and whose approvals are gone, or never were.
func endedByLackOfApproval(f Facts, _ Verdict) *End {
	if !provisioned(f) || approved(f) {
		return nil
	}
	return &End{Reason: v1alpha1.EndPolicyForbids, By: Operator, Message: "it is not approved: " + Awaited(f.World.Approvals, approvals(f))}
}

// Approved reports whether it is on record that a decision approved the grant.
func Approved(record *v1alpha1.SupportAccessRecord, d *v1alpha1.SupportAccessDecision) bool {
	return record != nil && slices.ContainsFunc(record.Status.Approvals, func(a v1alpha1.RecordedApproval) bool { return a.UID == d.UID })
}

func grantedBy(f Facts) string {
	if f.Record != nil && f.Record.Spec.GrantedBy != "" {
		return f.Record.Spec.GrantedBy
	}
	if f.Grant != nil {
		return f.Grant.Spec.GrantedBy
	}
	return ""
}

// everyEngineer are the people of the grant, those who were taken off included.
func everyEngineer(f Facts) []string {
	var out []string
	if f.Record != nil {
		out = append(out, f.Record.Spec.Engineers...)
	}
	if f.Grant != nil {
		out = append(out, names(f.Grant)...)
	}
	return out
}

// claimedAuthors are whom the grant named, when it was first seen and now: to unsay it changes nothing.
func claimedAuthors(f Facts) []string {
	var out []string
	if f.Record != nil && f.Record.Spec.ClaimedAuthor != "" {
		out = append(out, f.Record.Spec.ClaimedAuthor)
	}
	if f.Grant != nil && f.Grant.Annotations[v1alpha1.AnnotationAuthor] != "" {
		out = append(out, f.Grant.Annotations[v1alpha1.AnnotationAuthor])
	}
	return out
}

func reachesBeyond(f Facts) bool {
	var scope *v1alpha1.Scope
	switch {
	case f.Record != nil && f.Record.Spec.Scope != nil:
		scope = f.Record.Spec.Scope
	case f.Grant != nil:
		scope = f.Grant.Spec.Scope
	}
	home := homeOf(f)
	return slices.ContainsFunc(ScopeOf(scope, home), func(place string) bool { return place != home })
}

func isServiceAccount(user string) bool { return strings.HasPrefix(user, serviceAccountPrefix) }

// isOurs reports whether a user is one as whom an engineer or the operator itself acts.
func isOurs(user string) bool {
	return strings.HasPrefix(user, v1alpha1.IdentityPrefix) ||
		strings.HasPrefix(user, serviceAccountPrefix+v1alpha1.CredentialsNamespace+":") ||
		strings.HasPrefix(user, serviceAccountPrefix+v1alpha1.SystemNamespace+":")
}

// isName reports whether a user of the cluster bears a name, as it is or behind the prefix that an authenticator puts before
// the names that it knows.
func isName(user, name string) bool {
	user, name = strings.ToLower(user), strings.ToLower(strings.TrimSpace(name))
	if name == "" || !strings.HasSuffix(user, name) {
		return false
	}
	prefix := user[:len(user)-len(name)]
	return prefix == "" || strings.ContainsAny(prefix[len(prefix)-1:], ":#/|\\")
}
