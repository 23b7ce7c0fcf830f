// Package lifecycle knows WHEN access is given and taken away: it turns facts about one grant into a verdict. It knows
// no client, context, clock or log, so that the controller, the gateway and the command line reach the same verdict.
package lifecycle

import (
	"time"

	"supportaccess.dev/operator/api/v1alpha1"
)

// Facts are everything that a verdict on one grant depends on.
type Facts struct {
	// Now is the instant of the pass.
	Now time.Time
	// Grant is the grant, nil once it is gone.
	Grant *v1alpha1.SupportAccessGrant
	// Record is the record under the grant's name, nil before the grant was first seen.
	Record *v1alpha1.SupportAccessRecord
	// Decisions are the decisions that may concern the grant: those of its namespace and the cluster-wide ones.
	Decisions []v1alpha1.SupportAccessDecision
	// World is what was found in the cluster. Its zero value is a world in which nothing speaks against the grant.
	World World
}

// World is what was found in the cluster that bears on one grant.
type World struct {
	// AdmissionPending says why nothing may open at present, empty when the admission policies are in force.
	AdmissionPending string
	// AdmissionSince is since when they have been in force without a break. A grant made before then was not guarded.
	AdmissionSince time.Time
	// Refusals are the reasons for which the policies refuse to open the grant.
	Refusals []string
	// Prohibitions are the reasons for which the policies no longer let the open grant be.
	Prohibitions []string
	// Missing is what a person must mend before the grant can open.
	Missing []string
	// WidenedRoles are the reasons for which roles of the open grant now reach what is never allowed.
	WidenedRoles []string
	// DeletedRoles are the roles of the open grant that are gone.
	DeletedRoles []string
	// Withdrawn are the namespaces in which somebody deleted or changed a binding of the open grant.
	Withdrawn []Withdrawal
	// LostCredentials are engineers whose ServiceAccount or Secret somebody deleted.
	LostCredentials []string
	// GoneNamespaces are the namespaces of the grant's scope that are gone or going.
	GoneNamespaces []string
	// Approvals is what the policies ask before the grant may open.
	Approvals ApprovalRule
	// Unanswered says why the grant may not open yet because of the request that it names, empty if it may: AnswerTo says so.
	Unanswered string
	// Switched is how the setting ends the grant that was made because of it, nil if it does not: EndBySetting says so.
	Switched *End
}

// Withdrawal is a binding of an open grant that somebody deleted or changed.
type Withdrawal struct {
	// Namespace is the binding's namespace, empty for a ClusterRoleBinding.
	Namespace string
	// Message says which binding, and what became of it.
	Message string
}

// Wants is what a verdict asks to be done.
type Wants int

const (
	// WantsNothing leaves the cluster as it is: nothing is open and nothing may be.
	WantsNothing Wants = iota
	// WantsOpen wants access to exist for the verdict's engineers in its namespaces, and nowhere else.
	WantsOpen
	// WantsClosed wants nothing of the grant to be left.
	WantsClosed
)

// Verdict is what is to become of a grant, now.
type Verdict struct {
	// State is the grant's state, the reason of its condition Ready.
	State string
	// Message says why, in a sentence.
	Message string
	// Wants is what is to be done.
	Wants Wants
	// Start and Expiration bound the time of access. Zero while they are not settled.
	Start, Expiration time.Time
	// Until is when the verdict changes by itself. Zero means that only an event changes it.
	Until time.Time
	// Engineers are the people who may have access now. Meaningful with WantsOpen.
	Engineers []string
	// Removed are the people who were taken off, with who did it.
	Removed []Removal
	// Namespaces are where access may be now, the empty string standing for the whole cluster. Meaningful with WantsOpen.
	Namespaces []string
	// Approvals are those that count, where the grant needs any.
	Approvals []Approval
	// ApprovalsNeeded is how many it needs.
	ApprovalsNeeded int
	// Replaced are the engineers whose credential is to be replaced, and nobody may come in with the present one. Meaningful
	// with WantsOpen and the transport Gateway.
	Replaced []Replacement
	// End is how the record's grant ends, nil while it does not.
	End *End
	// NameUsed says that the grant carries a used name: the record is another grant's, and End speaks of that one.
	NameUsed bool
	// Shortened says who moved the end earlier, nil if nobody did since the record was last written.
	Shortened *Act
}

// End is how a grant ends.
type End struct {
	// Reason is one of the End constants of the API.
	Reason string
	// By is who or what ended it, never empty.
	By string
	// Message says it in a sentence.
	Message string
}

// Act is something that a person decided.
type Act struct {
	// By is who decided.
	By string
	// Message says what, and why.
	Message string
}

// Removal is an engineer who was taken off.
type Removal struct {
	// Engineer is the person.
	Engineer string
	// By is who did it.
	By string
	// Message says why.
	Message string
}

// Replacement is an engineer whose credential is to be replaced.
type Replacement struct {
	// Engineer is the person.
	Engineer string
	// By is who decided.
	By string
	// Message says why.
	Message string
	// Decided is when it was decided, by the API server's clock.
	Decided time.Time
}

// Settled are the instants at which access starts and ends.
type Settled struct {
	Start, Expiration time.Time
}

// Settle returns the instants that a grant's spec means when it is first ready to open, at now. They are stored once,
// and from then on everybody compares with what is stored. Instants are whole seconds, as the API stores them; the
// start is rounded down, so that rounding never lengthens access.
func Settle(spec v1alpha1.SupportAccessGrantSpec, now time.Time) Settled {
	start := now.Truncate(time.Second)
	if spec.StartTime != nil && spec.StartTime.After(start) {
		start = spec.StartTime.Time
	}
	if spec.ExpirationTime != nil {
		return Settled{Start: start, Expiration: spec.ExpirationTime.Time}
	}
	return Settled{Start: start, Expiration: start.Add(spec.Duration.OrZero())}
}

// ScopeOf returns the namespaces that a scope means for a grant in a namespace; the empty string alone stands for the
// whole cluster.
func ScopeOf(scope *v1alpha1.Scope, namespace string) []string {
	if scope == nil {
		return []string{namespace}
	}
	if scope.Cluster {
		return []string{""}
	}
	return scope.Namespaces
}
