package lifecycle

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"supportaccess.dev/operator/api/v1alpha1"
)

// Operator is who ends a grant when nobody did: time, or the operator's own rules.
const Operator = "support-access"

// Unknown is by whom something was deleted: the API server does not say.
const Unknown = "unknown"

// byUnknown ends a sentence about what somebody unknown did.
const byUnknown = ", by whom unknown; see the API server's audit log"

// wideGrace is how long after its creation a wide revocation still ends new grants: one that was being made while the
// admin hit the switch was made in ignorance of it.
const wideGrace = 2 * time.Second

// Decide returns the verdict on one grant. Whatever takes access away is looked at before whatever gives it.
func Decide(f Facts) Verdict {
	if f.Grant != nil && f.Record == nil && f.Grant.Status.EndTime != nil {
		return endedBefore(f.Grant)
	}
	if f.Record == nil {
		return decideNew(f)
	}
	if f.Record.Status.EndTime != nil {
		return ended(f)
	}
	v := standing(f)
	if end := endOf(f, v); end != nil {
		return closing(f, v, end)
	}
	return open(f, v)
}

// decideNew judges a grant that has no record yet. It can end before it begins; it cannot be open.
func decideNew(f Facts) Verdict {
	if f.Grant == nil {
		return Verdict{Wants: WantsClosed}
	}
	v := Verdict{Engineers: names(f.Grant), Namespaces: ScopeOf(f.Grant.Spec.Scope, f.Grant.Namespace)}
	settleWhenReady(f, &v)
	consider(f, &v)
	if end := endOf(f, v); end != nil {
		return closing(f, v, end)
	}
	return open(f, v)
}

// standing returns the verdict as far as the record settles it: instants, people and places, less what was taken away.
func standing(f Facts) Verdict {
	v := Verdict{Start: timeOf(f.Record.Status.StartTime), Expiration: timeOf(f.Record.Status.ExpirationTime)}
	settleWhenReady(f, &v)
	consider(f, &v)
	v.Expiration, v.Shortened = shortened(f, v.Expiration)
	v.Removed = removed(f)
	v.Engineers = slices.DeleteFunc(slices.Clone(f.Record.Spec.Engineers), func(name string) bool {
		return slices.ContainsFunc(v.Removed, func(r Removal) bool { return r.Engineer == name })
	})
	v.Namespaces = remaining(f)
	v.Replaced = replaced(f, v.Engineers)
	return v
}

// settleWhenReady settles when access starts and ends, as far as that is not on record, once the grant is ready to open: a
// duration does not run while people are asked.
func settleWhenReady(f Facts, v *Verdict) {
	if f.Grant == nil || f.World.AdmissionPending != "" || f.World.Unanswered != "" || !v.Start.IsZero() && !v.Expiration.IsZero() {
		return
	}
	meant := Settle(f.Grant.Spec, f.Now)
	if awaits(f) {
		if f.Grant.Spec.ExpirationTime != nil && v.Expiration.IsZero() {
			v.Expiration = meant.Expiration
		}
		return
	}
	v.Start = meant.Start
	if v.Expiration.IsZero() || meant.Expiration.Before(v.Expiration) {
		v.Expiration = meant.Expiration
	}
}

// consider says which approvals the grant needs and has. While admission is not in force none is taken over.
func consider(f Facts, v *Verdict) {
	v.ApprovalsNeeded = f.World.Approvals.Needed
	if v.ApprovalsNeeded > 0 && f.World.AdmissionPending == "" {
		v.Approvals = approvals(f)
	}
}

// remaining returns the places of the record's scope in which nobody took access away.
func remaining(f Facts) []string {
	scope := ScopeOf(f.Record.Spec.Scope, f.Record.Spec.Grant.Namespace)
	return slices.DeleteFunc(slices.Clone(scope), func(namespace string) bool {
		if slices.ContainsFunc(f.World.Withdrawn, func(w Withdrawal) bool { return w.Namespace == namespace }) {
			return true
		}
		if provisioned(f) && slices.Contains(f.World.GoneNamespaces, namespace) {
			return true
		}
		return slices.ContainsFunc(f.Record.Status.Bindings, func(b v1alpha1.RecordedBinding) bool {
			return b.Withdrawn && b.Namespace == namespace
		})
	})
}

// endOf returns how the grant ends now, nil if it does not. The first reason that holds is the one recorded: what a
// person did comes before what time and rules did.
func endOf(f Facts, v Verdict) *End {
	for _, cause := range []func(Facts, Verdict) *End{
		endedByUse, endedByNamespace, endedBySetting, endedByDeletion, endedByDecision, endedByRemoval,
		endedByWithdrawal, endedByRole, endedByPolicy, endedByLackOfApproval, endedByTime, endedByRefusal, endedByTimeout,
	} {
		if end := cause(f, v); end != nil {
			return end
		}
	}
	return nil
}

// endedByUse ends the earlier grant of a name that another grant now carries.
func endedByUse(f Facts, _ Verdict) *End {
	if !nameUsed(f) {
		return nil
	}
	if f.Grant.UID == f.Record.Spec.Grant.UID {
		return &End{Reason: v1alpha1.EndRevoked, By: Operator, Message: "the spec is not the one that was recorded: it was changed past the API server's rules"}
	}
	return &End{Reason: v1alpha1.EndDeleted, By: Unknown, Message: "the grant was deleted and its name used again" + byUnknown}
}

// endedByNamespace ends a grant whose namespace, or every namespace of whose scope, is gone or going.
func endedByNamespace(f Facts, v Verdict) *End {
	home := homeOf(f)
	if slices.Contains(f.World.GoneNamespaces, home) {
		return &End{Reason: v1alpha1.EndNamespaceDeleted, By: Unknown, Message: fmt.Sprintf("namespace %q was deleted", home) + byUnknown}
	}
	if provisioned(f) && len(v.Namespaces) == 0 && len(f.World.GoneNamespaces) > 0 && len(f.World.Withdrawn) == 0 {
		return &End{Reason: v1alpha1.EndNamespaceDeleted, By: Unknown, Message: "every namespace of the scope was deleted" + byUnknown}
	}
	return nil
}

// endedBySetting comes before the deletion: with a setting the garbage collector deletes the grants that were made because
// of it.
func endedBySetting(f Facts, _ Verdict) *End { return f.World.Switched }

func endedByDeletion(f Facts, _ Verdict) *End {
	if f.Grant != nil && f.Grant.DeletionTimestamp.IsZero() {
		return nil
	}
	return &End{Reason: v1alpha1.EndDeleted, By: Unknown, Message: "the grant was deleted" + byUnknown}
}

func endedByDecision(f Facts, _ Verdict) *End {
	for i := range f.Decisions {
		d := &f.Decisions[i]
		switch {
		case d.Spec.Action == v1alpha1.ActionRevoke && d.Spec.Target.Engineer == "" && Concerns(d, grantOf(f)):
			return &End{Reason: revocation(d), By: by(d), Message: said("revoked", d)}
		case d.Spec.Action == v1alpha1.ActionDeny && !provisioned(f) && Concerns(d, grantOf(f)):
			return &End{Reason: v1alpha1.EndDenied, By: by(d), Message: said("denied", d)}
		}
	}
	return nil
}

// revocation is how a decision to revoke ends a grant: one about every grant of the cluster is the emergency stop.
func revocation(d *v1alpha1.SupportAccessDecision) string {
	if d.Spec.Target.Cluster != "" {
		return v1alpha1.EndEmergencyStop
	}
	return v1alpha1.EndRevoked
}

func endedByRemoval(f Facts, v Verdict) *End {
	if f.Record == nil || len(v.Engineers) > 0 || len(v.Removed) == 0 {
		return nil
	}
	last := v.Removed[len(v.Removed)-1]
	return &End{Reason: v1alpha1.EndEngineersRemoved, By: last.By, Message: "every engineer was taken off"}
}

func endedByWithdrawal(f Facts, v Verdict) *End {
	if !provisioned(f) || len(v.Namespaces) > 0 {
		return nil
	}
	messages := []string{"every binding was taken away by hand"}
	for _, w := range f.World.Withdrawn {
		messages = append(messages, w.Message)
	}
	return &End{Reason: v1alpha1.EndBindingsWithdrawn, By: Unknown, Message: strings.Join(messages, "; ") + byUnknown}
}

func endedByRole(f Facts, _ Verdict) *End {
	if !provisioned(f) {
		return nil
	}
	if len(f.World.WidenedRoles) > 0 {
		return &End{Reason: v1alpha1.EndRoleWidened, By: Operator, Message: strings.Join(f.World.WidenedRoles, "; ")}
	}
	if len(f.World.DeletedRoles) > 0 {
		return &End{Reason: v1alpha1.EndRoleDeleted, By: Unknown, Message: "ClusterRole deleted: " + strings.Join(f.World.DeletedRoles, ", ")}
	}
	return nil
}

func endedByPolicy(f Facts, _ Verdict) *End {
	if !provisioned(f) || len(f.World.Prohibitions) == 0 {
		return nil
	}
	return &End{Reason: v1alpha1.EndPolicyForbids, By: Operator, Message: strings.Join(f.World.Prohibitions, "; ")}
}

// endedByTime ends a grant at the very instant of its expiration, not after it.
func endedByTime(f Facts, v Verdict) *End {
	if v.Expiration.IsZero() || f.Now.Before(v.Expiration) {
		return nil
	}
	if v.Shortened != nil {
		return &End{Reason: v1alpha1.EndExpired, By: v.Shortened.By, Message: v.Shortened.Message}
	}
	return &End{Reason: v1alpha1.EndExpired, By: Operator, Message: "its time was over at " + v.Expiration.UTC().Format(time.RFC3339)}
}

// endedByRefusal settles that a grant will never open. It waits until admission is in force: only then is it known
// whether the grant was guarded.
func endedByRefusal(f Facts, _ Verdict) *End {
	if provisioned(f) || f.World.AdmissionPending != "" || f.Grant == nil {
		return nil
	}
	if len(f.World.Refusals) > 0 {
		return &End{Reason: v1alpha1.EndRefused, By: Operator, Message: strings.Join(f.World.Refusals, "; ")}
	}
	if !settled(f) && !f.Grant.CreationTimestamp.After(f.World.AdmissionSince) && !f.World.AdmissionSince.IsZero() {
		return &End{Reason: v1alpha1.EndRefused, By: Operator, Message: fmt.Sprintf(
			"the grant was made at %s, before the admission policies were in force (%s): who granted it is not proven; make another under a new name",
			f.Grant.CreationTimestamp.UTC().Format(time.RFC3339), f.World.AdmissionSince.UTC().Format(time.RFC3339))}
	}
	return nil
}

// open returns the verdict on a grant that has not ended.
func open(f Facts, v Verdict) Verdict {
	switch {
	case f.Record != nil && provisioned(f):
		v.State, v.Wants, v.Until = v1alpha1.StateActive, WantsOpen, v.Expiration
		v.Message = "access is open until " + v.Expiration.UTC().Format(time.RFC3339)
	case f.World.AdmissionPending == "" && f.World.Unanswered != "":
		v.State, v.Until, v.Message = v1alpha1.StateOpening, v.Expiration, f.World.Unanswered
	case f.World.AdmissionPending == "" && awaits(f):
		v.State, v.Until = v1alpha1.StateAwaitingApproval, sooner(deadline(f), v.Expiration)
		v.Message = Awaited(f.World.Approvals, v.Approvals)
	case f.Now.Before(v.Start):
		v.State, v.Until = v1alpha1.StateScheduled, v.Start
		v.Message = "access opens at " + v.Start.UTC().Format(time.RFC3339)
	case f.World.AdmissionPending != "":
		v.State, v.Message = v1alpha1.StateAdmissionNotInForce, f.World.AdmissionPending
	case len(f.World.Missing) > 0:
		v.State, v.Until = v1alpha1.StateFailed, v.Expiration
		v.Message = strings.Join(f.World.Missing, "; ")
	default:
		v.State, v.Wants, v.Until = v1alpha1.StateOpening, WantsOpen, v.Expiration
		v.Message = "access is being opened"
	}
	return v
}

// sooner returns the earlier of two instants, where zero means never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// closing returns the verdict on a grant that ends now.
func closing(f Facts, v Verdict, end *End) Verdict {
	v.State, v.Message, v.Wants, v.End, v.Until = StateOfEnd(end.Reason), end.Message, WantsClosed, end, time.Time{}
	if nameUsed(f) {
		return usedName(f, v)
	}
	return v
}

// ended returns the verdict on a grant whose record has an end: it stays ended, whatever comes.
func ended(f Facts) Verdict {
	s := f.Record.Status
	v := Verdict{State: StateOfEnd(s.EndReason), Message: s.EndMessage, Wants: WantsClosed, Start: timeOf(s.StartTime), Expiration: timeOf(s.ExpirationTime)}
	if nameUsed(f) {
		return usedName(f, v)
	}
	return v
}

// endedBefore returns the verdict on a grant without a record whose status says that it ended: the record was lost or
// not yet restored, and a grant that has ended never opens.
func endedBefore(g *v1alpha1.SupportAccessGrant) Verdict {
	return Verdict{State: StateOfEnd(g.Status.EndReason), Message: "ended before: " + g.Status.EndReason, Wants: WantsClosed}
}

func usedName(f Facts, v Verdict) Verdict {
	v.State, v.NameUsed, v.Start, v.Expiration = v1alpha1.StateRevoked, true, time.Time{}, time.Time{}
	v.Message = fmt.Sprintf("name used before: record %q is about the grant with UID %s; choose a new name", f.Record.Name, f.Record.Spec.Grant.UID)
	return v
}

// StateOfEnd returns the state of a grant that ended for a reason.
func StateOfEnd(reason string) string {
	switch reason {
	case v1alpha1.EndExpired:
		return v1alpha1.StateExpired
	case v1alpha1.EndDenied, v1alpha1.EndNotApproved:
		return v1alpha1.StateDenied
	case v1alpha1.EndRefused:
		return v1alpha1.StateRefused
	default:
		return v1alpha1.StateRevoked
	}
}

// shortened returns the earliest end that the record and the decisions allow, and who moved it there.
func shortened(f Facts, expiration time.Time) (time.Time, *Act) {
	var act *Act
	for i := range f.Decisions {
		d := &f.Decisions[i]
		if d.Spec.Action != v1alpha1.ActionShorten || d.Spec.ExpirationTime == nil || !Concerns(d, grantOf(f)) {
			continue
		}
		if expiration.IsZero() || d.Spec.ExpirationTime.Time.Before(expiration) {
			expiration = d.Spec.ExpirationTime.Time
			act = &Act{By: by(d), Message: said("shortened to "+expiration.UTC().Format(time.RFC3339), d)}
		}
	}
	return expiration, act
}

// removed returns the people who were taken off: those whom the record names, those whom decisions name, and those whose
// credentials somebody deleted.
func removed(f Facts) []Removal {
	var out []Removal
	add := func(r Removal) {
		known := slices.ContainsFunc(out, func(o Removal) bool { return o.Engineer == r.Engineer })
		if !known && slices.Contains(f.Record.Spec.Engineers, r.Engineer) {
			out = append(out, r)
		}
	}
	for _, r := range f.Record.Status.RemovedEngineers {
		add(Removal{Engineer: r.Name, By: r.By})
	}
	for i := range f.Decisions {
		d := &f.Decisions[i]
		if d.Spec.Action == v1alpha1.ActionRevoke && d.Spec.Target.Engineer != "" && Concerns(d, grantOf(f)) {
			add(Removal{Engineer: d.Spec.Target.Engineer, By: by(d), Message: said("taken off", d)})
		}
	}
	for _, name := range f.World.LostCredentials {
		add(Removal{Engineer: name, By: Unknown, Message: "the credential was deleted by hand" + byUnknown})
	}
	return out
}

// replaced returns the people whose credential decisions ask to replace, each by the latest of them, unless that is on
// record already.
func replaced(f Facts, engineers []string) []Replacement {
	if f.Record.Spec.Transport != v1alpha1.TransportGateway {
		return nil
	}
	latest := map[string]Replacement{}
	for i := range f.Decisions {
		d := &f.Decisions[i]
		person, made := d.Spec.Target.Engineer, d.CreationTimestamp.Time
		if d.Spec.Action != v1alpha1.ActionHandOver || !slices.Contains(engineers, person) || !Concerns(d, grantOf(f)) || Replaced(f.Record, person, made) {
			continue
		}
		if known, ok := latest[person]; !ok || made.After(known.Decided) {
			latest[person] = Replacement{Engineer: person, By: by(d), Message: said("the credential was replaced", d), Decided: made}
		}
	}
	var out []Replacement
	for _, person := range engineers {
		if r, ok := latest[person]; ok {
			out = append(out, r)
		}
	}
	return out
}

// Replaced reports whether it is on record that an engineer's credential was replaced by a decision made at an instant, or
// by a later one. Within the same second they are one.
func Replaced(record *v1alpha1.SupportAccessRecord, engineer string, decided time.Time) bool {
	return slices.ContainsFunc(record.Status.ReplacedCredentials, func(r v1alpha1.ReplacedCredential) bool {
		return r.Name == engineer && !r.DecisionTime.Time.Before(decided)
	})
}

// GrantKey is what of a grant decides whether a decision concerns it.
type GrantKey struct {
	Namespace, Name string
	UID             types.UID
	Created         time.Time
}

// Concerns reports whether a decision is about a grant. One that names a grant is about the grant that existed when it
// was made, and binds no later one; a wide one is also about grants made before WideUntil. Both instants are the API
// server's, in whole seconds; within the same second, taking away wins.
func Concerns(d *v1alpha1.SupportAccessDecision, g GrantKey) bool {
	made, target := d.CreationTimestamp.Time, d.Spec.Target
	switch {
	case target.Grant != "" && target.UID != "" && target.UID != g.UID:
		return false
	case target.Grant != "":
		return d.Namespace == g.Namespace && target.Grant == g.Name && !g.Created.After(made)
	case target.Namespace == v1alpha1.TargetAll:
		return d.Namespace == g.Namespace && g.Created.Before(WideUntil(d))
	case target.Cluster == v1alpha1.TargetAll:
		return d.Namespace == v1alpha1.SystemNamespace && g.Created.Before(WideUntil(d))
	default:
		return false
	}
}

// WideUntil returns the first instant at which a grant can be made that a wide decision is not about. The API server keeps
// whole seconds of both: the decision may have been made at the very end of its second, so the grace counts from there.
func WideUntil(d *v1alpha1.SupportAccessDecision) time.Time {
	return d.CreationTimestamp.Truncate(time.Second).Add(time.Second + wideGrace)
}

func grantOf(f Facts) GrantKey {
	if f.Record != nil {
		g := f.Record.Spec.Grant
		return GrantKey{Namespace: g.Namespace, Name: g.Name, UID: g.UID, Created: timeOf(g.CreationTime)}
	}
	return GrantKey{Namespace: f.Grant.Namespace, Name: f.Grant.Name, UID: f.Grant.UID, Created: f.Grant.CreationTimestamp.Time}
}

func homeOf(f Facts) string {
	return grantOf(f).Namespace
}

// settled reports whether the grant was on record with its start while admission was in force. One that was put on record
// before that is as unproven as one that is not on record.
func settled(f Facts) bool {
	return f.Record != nil && (f.Record.Status.StartTime != nil || f.Record.Status.AwaitingApprovalTime != nil)
}

func provisioned(f Facts) bool {
	return f.Record != nil && f.Record.Status.ProvisionedTime != nil
}

func names(g *v1alpha1.SupportAccessGrant) []string {
	out := make([]string, 0, len(g.Spec.Engineers))
	for _, e := range g.Spec.Engineers {
		out = append(out, e.Name)
	}
	return out
}

func by(d *v1alpha1.SupportAccessDecision) string {
	if d.Spec.DecidedBy != "" {
		return d.Spec.DecidedBy
	}
	return Unknown
}

func said(what string, d *v1alpha1.SupportAccessDecision) string {
	return fmt.Sprintf("%s by decision %q: %s", what, d.Name, d.Spec.Reason)
}
