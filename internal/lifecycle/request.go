package lifecycle

import (
	"fmt"
	"slices"
	"strings"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"

	"supportaccess.dev/operator/api/v1alpha1"
)

// Answer is how a grant stands to the request that it names. Its zero value lets the grant open.
type Answer struct {
	// Refusal says why the grant never opens because of that request.
	Refusal string
	// Pending says why it may not open yet.
	Pending string
}

// AnswerTo returns how a grant stands to the request that it names; request is nil where there is none of that name. The
// request's status says which grant answers it: only that one opens.
func AnswerTo(g *v1alpha1.SupportAccessGrant, request *v1alpha1.SupportAccessRequest) Answer {
	if g.Spec.RequestRef == nil {
		return Answer{}
	}
	if excess := Exceeds(g, request); excess != "" {
		return Answer{Refusal: excess}
	}
	if by := request.Status.Grant; by != nil {
		if by.UID == g.UID {
			return Answer{}
		}
		return Answer{Refusal: fmt.Sprintf("spec.requestRef: request %s is answered by grant %s already", request.Name, by.Name)}
	}
	if ready := apimeta.FindStatusCondition(request.Status.Conditions, v1alpha1.ConditionReady); ready != nil && isClosed(ready.Reason) {
		return Answer{Refusal: fmt.Sprintf("spec.requestRef: request %s takes no answer any more: it is %s", request.Name, ready.Reason)}
	}
	return Answer{Pending: fmt.Sprintf("request %s is to take this grant for its answer", request.Name)}
}

// isClosed reports whether a request in a state is over without an answer.
func isClosed(state string) bool {
	return slices.Contains([]string{v1alpha1.StateDenied, v1alpha1.StateExpired, v1alpha1.StateRefused}, state)
}

// Exceeds returns why a grant that names a request is no answer to it, empty if it is: it names another one of that name, is
// by whoever asked, or gives more than was asked for. Its words are those of the admission policies, which judge the same as
// far as they have heard of the request.
func Exceeds(g *v1alpha1.SupportAccessGrant, request *v1alpha1.SupportAccessRequest) string {
	ref := g.Spec.RequestRef
	switch {
	case request == nil || request.UID != ref.UID || !request.DeletionTimestamp.IsZero():
		return fmt.Sprintf("spec.requestRef: request %s is not there any more", ref.Name)
	case request.Spec.RequestedBy == "" || ref.RequestedBy != request.Spec.RequestedBy:
		return "spec.requestRef.requestedBy: is not who made the request"
	case isRequester(g.Spec.GrantedBy, ref):
		return fmt.Sprintf("spec.requestRef: %s made request %s: somebody else must answer it", g.Spec.GrantedBy, ref.Name)
	}
	asked := fmt.Sprintf(", which request %s does not ask for", ref.Name)
	for _, e := range g.Spec.Engineers {
		i := slices.IndexFunc(request.Spec.Engineers, func(p v1alpha1.Engineer) bool { return p.Name == e.Name })
		if i < 0 {
			return "spec.engineers: " + e.Name + asked
		}
		if key := request.Spec.Engineers[i].PublicKey; key != "" && e.PublicKey != "" && key != e.PublicKey {
			return fmt.Sprintf("spec.engineers[].publicKey: of %s is not the one of request %s", e.Name, ref.Name)
		}
	}
	if more := without(g.Spec.Roles, request.Spec.Roles); len(more) > 0 {
		return "spec.roles: " + strings.Join(more, ", ") + asked
	}
	if !covers(ScopeOf(request.Spec.Scope, request.Namespace), ScopeOf(g.Spec.Scope, g.Namespace)) {
		return "spec.scope: names what request " + ref.Name + " does not ask for"
	}
	if lengthOf(g) > request.Spec.Duration.OrZero() {
		return fmt.Sprintf("spec.duration: is longer than %s, for which request %s asks", request.Spec.Duration, ref.Name)
	}
	return ""
}

// covers reports whether places are all among others; the empty string stands for the whole cluster.
func covers(others, places []string) bool {
	return slices.Contains(others, "") || len(without(places, others)) == 0
}

func without(values, others []string) []string {
	return slices.DeleteFunc(slices.Clone(values), func(value string) bool { return slices.Contains(others, value) })
}

// lengthOf is for how long a grant gives access at most.
func lengthOf(g *v1alpha1.SupportAccessGrant) time.Duration {
	meant := Settle(g.Spec, g.CreationTimestamp.Time)
	return meant.Expiration.Sub(meant.Start)
}

// isRequester reports whether a user made the request that a grant answers.
func isRequester(user string, ref *v1alpha1.RequestReference) bool {
	return ref != nil && isSame(user, ref.RequestedBy)
}

// isSame reports whether two users are one person, whichever of them an authenticator put its prefix before.
func isSame(a, b string) bool {
	return a != "" && b != "" && (a == b || isName(a, b) || isName(b, a))
}

// requestOf is the request that a grant answers, as its record or the grant itself has it; nil if none.
func requestOf(f Facts) *v1alpha1.RequestReference {
	if f.Record != nil && f.Record.Spec.RequestRef != nil {
		return f.Record.Spec.RequestRef
	}
	if f.Grant != nil {
		return f.Grant.Spec.RequestRef
	}
	return nil
}

// ConcernsRequest reports whether a decision says no to a request: the one of its name that was there when the decision was
// made. Within the same second no wins.
func ConcernsRequest(d *v1alpha1.SupportAccessDecision, request v1alpha1.RecordedRequest) bool {
	created := timeOf(request.CreationTime)
	return d.Spec.Action == v1alpha1.ActionDeny && d.Namespace == request.Namespace && d.Spec.Target.Request == request.Name &&
		!created.After(d.CreationTimestamp.Time)
}

// WhyNoDenial returns why a decision that says no to a request does not count, empty if it does.
func WhyNoDenial(d *v1alpha1.SupportAccessDecision, request v1alpha1.RecordedRequest) string {
	who := d.Spec.DecidedBy
	switch {
	case who == "":
		return "who decided is not stamped on it"
	case isOurs(who):
		return who + " is an identity of support access"
	case isSame(who, request.RequestedBy):
		return who + " made the request: to withdraw it, delete it"
	default:
		return ""
	}
}
