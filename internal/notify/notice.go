// Package notify knows what is told of a grant, or of a request, to whom and how: it makes notices of what a record says, renders them, and
// hands them to a channel. It must not know a cluster, nor decide about access; a notice never holds a credential.
package notify

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"time"

	"supportaccess.dev/operator/api/v1alpha1"
)

// Notice is one thing that people are told.
type Notice struct {
	// ID is the same whenever this is told, so that a receiver can drop what it has had.
	ID string
	// Event is what happened.
	Event v1alpha1.NotificationEvent
	// Time is when.
	Time time.Time
	// By is who or what did it.
	By string
	// Message says it in a sentence.
	Message string
	// Grant is what it happened to.
	Grant Grant
}

// Grant is what a notice says of a grant.
type Grant struct {
	Namespace, Name, UID string
	GrantedBy, Reason    string
	CaseID, CaseURL      string
	Engineers, Roles     []string
	// Places are the namespaces that it reaches, empty for the whole cluster.
	Places    []string
	Transport string
	Elevated  bool
	// Setting says that it is the grant of a namespace's setting.
	Setting bool
	// Request says that it is no grant but a request for one. RequestedBy asks, and for Duration.
	Request               bool
	RequestedBy, Duration string
	// Until is when it ends by itself, zero if that is not settled.
	Until time.Time
	// Over says that there is nothing to revoke any more.
	Over bool
}

// Telling is how one channel tells of a grant: of what, and how long before the end.
type Telling struct {
	Events []v1alpha1.NotificationEvent
	// Soon is how long before the end the end is announced.
	Soon time.Duration
	// Elevated are the names of the roles that are elevated.
	Elevated []string
	// ByDefault says that the grant is of a setting that a policy switched on: nobody did that just then, so it is not told.
	ByDefault bool
}

// defaultEvents are those of a channel that names none: every act of a person, and what is unusual. That a namespace's
// setting ended by itself is none.
var defaultEvents = []v1alpha1.NotificationEvent{
	v1alpha1.EventGranted, v1alpha1.EventApprovalNeeded, v1alpha1.EventApproved, v1alpha1.EventOpenedElevated, v1alpha1.EventOpenedDirect, v1alpha1.EventFirstUsed,
	v1alpha1.EventExpiringSoon, v1alpha1.EventShortened, v1alpha1.EventRevoked, v1alpha1.EventExpired, v1alpha1.EventDenied,
	v1alpha1.EventSwitchedOn, v1alpha1.EventSwitchedOff, v1alpha1.EventRequested, v1alpha1.EventRequestDenied,
	v1alpha1.EventEmergencyStop, v1alpha1.EventClosingFailed,
}

// operator is by whom something is done that nobody did.
const operator = "support-access"

// Notices returns what a record calls for, in the order in which it happened, told or not. The announcement of the end is
// among them once it is due.
func Notices(record *v1alpha1.SupportAccessRecord, telling Telling, now time.Time) []Notice {
	var notices []Notice
	grant := grantOf(record, telling)
	seen := map[string]int{}
	for _, t := range happened(record, telling, now) {
		key := t.Type + t.Time.UTC().Format(time.RFC3339Nano)
		seen[key]++
		event, ok := eventOf(record, t, grant, telling)
		if !ok {
			continue
		}
		notices = append(notices, Notice{
			ID: idOf(record, t, seen[key]), Event: event, Time: t.Time.Time, By: t.By, Message: t.Message, Grant: grant,
		})
	}
	return notices
}

// typeExpiringSoon is what is not on record: that the end is near follows from the clock.
const typeExpiringSoon = "ExpiringSoon"

// happened returns the transitions, and among them that the end is near, where it belongs.
func happened(record *v1alpha1.SupportAccessRecord, telling Telling, now time.Time) []v1alpha1.Transition {
	transitions := record.Status.Transitions
	at, ok := soonAt(record, telling.Soon)
	if !ok || now.Before(at) {
		return transitions
	}
	soon := v1alpha1.Transition{Type: typeExpiringSoon, By: operator, Message: "access ends soon unless it is ended before"}
	soon.Time.Time = at
	i := slices.IndexFunc(transitions, func(t v1alpha1.Transition) bool { return t.Time.After(at) })
	if i < 0 {
		i = len(transitions)
	}
	return slices.Insert(slices.Clone(transitions), i, soon)
}

// NextSoon returns when the end of a record's grant will have to be announced, zero if it will not or has been.
func NextSoon(record *v1alpha1.SupportAccessRecord, telling Telling, now time.Time) time.Time {
	at, ok := soonAt(record, telling.Soon)
	if !ok || !now.Before(at) {
		return time.Time{}
	}
	return at
}

// soonAt returns when the end of a grant is announced. One that has ended before, or opened later, is not announced.
func soonAt(record *v1alpha1.SupportAccessRecord, soon time.Duration) (time.Time, bool) {
	status := record.Status
	if status.ExpirationTime == nil || status.ProvisionedTime == nil || soon <= 0 {
		return time.Time{}, false
	}
	at := status.ExpirationTime.Add(-soon)
	if !at.After(status.ProvisionedTime.Time) || status.EndTime != nil && !at.Before(status.EndTime.Time) {
		return time.Time{}, false
	}
	return at, true
}

// eventOf returns of what a transition tells, if the channel tells of it.
func eventOf(record *v1alpha1.SupportAccessRecord, t v1alpha1.Transition, grant Grant, telling Telling) (v1alpha1.NotificationEvent, bool) {
	if telling.ByDefault && t.Type == v1alpha1.TransitionGranted {
		return "", false
	}
	wanted := telling.Events
	if len(wanted) == 0 {
		wanted = defaultEvents
	}
	for _, event := range eventsOf(record, t, grant) {
		if slices.Contains(wanted, event) {
			return event, true
		}
	}
	return "", false
}

// eventsOf returns what a transition is, the most telling first.
func eventsOf(record *v1alpha1.SupportAccessRecord, t v1alpha1.Transition, grant Grant) []v1alpha1.NotificationEvent {
	one := func(event v1alpha1.NotificationEvent) []v1alpha1.NotificationEvent {
		return []v1alpha1.NotificationEvent{event}
	}
	if grant.Request {
		return requestEvents(t)
	}
	switch t.Type {
	case v1alpha1.TransitionGranted:
		return grantedEvents(record, t)
	case v1alpha1.TransitionAwaitingApproval:
		return one(v1alpha1.EventApprovalNeeded)
	case v1alpha1.TransitionApproved:
		return one(v1alpha1.EventApproved)
	case v1alpha1.TransitionOpened:
		return openedEvents(grant)
	case v1alpha1.TransitionFirstUsed:
		return one(v1alpha1.EventFirstUsed)
	case typeExpiringSoon:
		if grant.Setting {
			return nil
		}
		return one(v1alpha1.EventExpiringSoon)
	case v1alpha1.TransitionShortened, v1alpha1.TransitionEngineerRemoved, v1alpha1.TransitionBindingWithdrawn:
		return one(v1alpha1.EventShortened)
	case v1alpha1.TransitionClosingFailed:
		return one(v1alpha1.EventClosingFailed)
	case v1alpha1.EndEmergencyStop:
		return []v1alpha1.NotificationEvent{v1alpha1.EventEmergencyStop, v1alpha1.EventRevoked}
	case v1alpha1.EndDenied, v1alpha1.EndNotApproved, v1alpha1.EndRefused:
		return one(v1alpha1.EventDenied)
	case v1alpha1.EndSwitchedOff, v1alpha1.EndSettingDeleted:
		return one(v1alpha1.EventSwitchedOff)
	case v1alpha1.EndExpired:
		if grant.Setting {
			return one(v1alpha1.EventSwitchedOffByItself)
		}
		return one(v1alpha1.EventExpired)
	case v1alpha1.EndRevoked, v1alpha1.EndDeleted, v1alpha1.EndBindingsWithdrawn, v1alpha1.EndRoleWidened, v1alpha1.EndRoleDeleted,
		v1alpha1.EndPolicyForbids, v1alpha1.EndNamespaceDeleted, v1alpha1.EndEngineersRemoved:
		return one(v1alpha1.EventRevoked)
	default:
		// That a setting was changed is told by the grant that takes its place; the rest is for the record alone.
		return nil
	}
}

// requestEvents returns what a transition of a request is. That it was granted its grant tells.
func requestEvents(t v1alpha1.Transition) []v1alpha1.NotificationEvent {
	switch t.Type {
	case v1alpha1.TransitionRequested:
		return []v1alpha1.NotificationEvent{v1alpha1.EventRequested}
	case v1alpha1.StateDenied:
		return []v1alpha1.NotificationEvent{v1alpha1.EventRequestDenied}
	case v1alpha1.StateExpired:
		return []v1alpha1.NotificationEvent{v1alpha1.EventRequestExpired}
	default:
		return nil
	}
}

// grantedEvents says of what it tells that a grant was made. One that was refused at once was never given, and what the
// operator switched on by itself nobody did.
func grantedEvents(record *v1alpha1.SupportAccessRecord, t v1alpha1.Transition) []v1alpha1.NotificationEvent {
	if end := record.Status.EndTime; end != nil && end.Equal(&t.Time) {
		return nil
	}
	if record.Spec.SettingRef == nil {
		return []v1alpha1.NotificationEvent{v1alpha1.EventGranted}
	}
	if t.By == operator {
		return nil
	}
	return []v1alpha1.NotificationEvent{v1alpha1.EventSwitchedOn}
}

func openedEvents(grant Grant) []v1alpha1.NotificationEvent {
	var events []v1alpha1.NotificationEvent
	if grant.Elevated {
		events = append(events, v1alpha1.EventOpenedElevated)
	}
	if grant.Transport == string(v1alpha1.TransportDirect) {
		events = append(events, v1alpha1.EventOpenedDirect)
	}
	return append(events, v1alpha1.EventOpened)
}

// grantOf takes from a record what a notice says of its grant. There is no credential in a record.
func grantOf(record *v1alpha1.SupportAccessRecord, telling Telling) Grant {
	spec := record.Spec
	namespace, name, uid := subjectOf(record)
	g := Grant{
		Namespace: namespace, Name: name, UID: uid,
		GrantedBy: spec.GrantedBy, Reason: spec.Reason, Engineers: spec.Engineers, Roles: spec.Roles,
		Places: []string{namespace}, Transport: string(spec.Transport),
		Setting: spec.SettingRef != nil, Over: record.Status.EndTime != nil,
		Elevated: slices.ContainsFunc(spec.Roles, func(role string) bool { return slices.Contains(telling.Elevated, role) }),
	}
	if spec.Case != nil {
		g.CaseID, g.CaseURL = spec.Case.ID, spec.Case.URL
	}
	switch scope := spec.Scope; {
	case scope == nil:
	case scope.Cluster:
		g.Places = nil
	case len(scope.Namespaces) > 0:
		g.Places = scope.Namespaces
	}
	if record.Status.ExpirationTime != nil {
		g.Until = record.Status.ExpirationTime.Time
	}
	if of := spec.Request; of != nil {
		g.Request, g.RequestedBy, g.Duration = true, of.RequestedBy, string(of.Duration)
		g.Over = g.Over || record.Status.Answer != nil
	}
	return g
}

// subjectOf is what a record is about: a grant, or a request.
func subjectOf(record *v1alpha1.SupportAccessRecord) (namespace, name, uid string) {
	if of := record.Spec.Request; of != nil {
		return of.Namespace, of.Name, string(of.UID)
	}
	grant := record.Spec.Grant
	return grant.Namespace, grant.Name, string(grant.UID)
}

// idOf returns the id of what is told of a transition: the same in every attempt, and another for every other transition.
func idOf(record *v1alpha1.SupportAccessRecord, t v1alpha1.Transition, nth int) string {
	hash := sha256.New()
	namespace, name, uid := subjectOf(record)
	for _, part := range []string{
		uid, namespace, name, t.Type, t.Time.UTC().Format(time.RFC3339Nano), strconv.Itoa(nth),
	} {
		// A hash never fails to be written to.
		_ = binary.Write(hash, binary.BigEndian, uint32(len(part)))
		_, _ = hash.Write([]byte(part))
	}
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(hash.Sum(nil))[:26])
}

// Approve returns the command that says yes to the grant, empty where there is nothing to approve any more.
func (g Grant) Approve() string {
	if g.Over {
		return ""
	}
	return "kubectl support-access approve " + clean(g.Name) + " -n " + clean(g.Namespace) + " --reason WHY"
}

// Answer returns the command that answers the request with a grant, and Deny the one that says no to it; both are empty where
// there is nothing to answer any more.
func (g Grant) Answer() string {
	if !g.Request || g.Over {
		return ""
	}
	return "kubectl support-access grant --request " + clean(g.Name) + " -n " + clean(g.Namespace)
}

// Deny returns the command that says no to the request.
func (g Grant) Deny() string {
	if !g.Request || g.Over {
		return ""
	}
	return "kubectl support-access deny --request " + clean(g.Name) + " -n " + clean(g.Namespace) + " --reason WHY"
}

// Revoke returns the command that ends the grant, empty where there is nothing to end.
func (g Grant) Revoke() string {
	switch {
	case g.Over, g.Request:
		return ""
	case g.Setting:
		return "kubectl delete supportaccesssetting support-access -n " + clean(g.Namespace)
	default:
		return "kubectl delete supportaccessgrant " + clean(g.Name) + " -n " + clean(g.Namespace)
	}
}
