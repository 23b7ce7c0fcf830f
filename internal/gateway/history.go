package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/internal/records"
)

// History puts into the audit log what happened to grants and settings: who granted or switched, what was decided, how it
// ended, and how policies changed. It takes that from records, decisions and policies, and asks the log what it has already: so each is there
// once, though the gateway was away or is started again.
type History struct {
	// Reader reads from the cache.
	Reader client.Reader
	// Log takes entries, Past finds those that it has.
	Log  audit.Log
	Past audit.Finder
	// Retention is for how long the log keeps entries, 0 for ever: what is older is not put down again.
	Retention time.Duration
	// Shared says that other replicas write to the same log. Then each waits its turn before it asks what the log has.
	Shared bool
	// Clock says what time it is.
	Clock clock.PassiveClock
	// Replica is the gateway's pod.
	Replica string

	// turns are from when on this replica may put down what it waits to.
	mu    sync.Mutex
	turns map[string]time.Time
	// known is how much of each record the log has. Each kind has one worker.
	known map[types.NamespacedName]int
	// decided are the decisions that the log has, by UID; nil before it was asked.
	decided map[types.UID]bool
	// policies are the policies that the log has and that were not deleted, by name; nil before it was asked.
	policies map[string]policyKnown
}

// policyKnown is what the log has of a policy.
type policyKnown struct {
	uid        types.UID
	generation int64
}

// What the log calls the objects.
const (
	grantsResource    = "supportaccessgrants"
	settingsResource  = "supportaccesssettings"
	requestsResource  = "supportaccessrequests"
	decisionsResource = "supportaccessdecisions"
	policiesResource  = "supportaccesspolicies"
)

// SetupWithManager has records, decisions and policies looked at whenever they change, by every replica: each has a log.
func (h *History) SetupWithManager(mgr ctrl.Manager) error {
	everywhere := false
	for _, of := range []struct {
		name   string
		object client.Object
		look   reconcile.Func
	}{
		{"history-of-grants", &v1alpha1.SupportAccessRecord{}, h.record},
		{"history-of-decisions", &v1alpha1.SupportAccessDecision{}, h.decision},
		{"history-of-policies", &v1alpha1.SupportAccessPolicy{}, h.policy},
	} {
		err := ctrl.NewControllerManagedBy(mgr).Named(of.name).For(of.object).
			WithOptions(controller.Options{MaxConcurrentReconciles: 1, NeedLeaderElection: &everywhere}).
			Complete(of.look)
		if err != nil {
			return fmt.Errorf("watch %T: %w", of.object, err)
		}
	}
	return nil
}

// record puts down what happened to one grant, or setting, since it was last looked at. The copies of a record in other places say
// nothing new, but that in the operator's own namespace outlives the grant's.
func (h *History) record(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	record := &v1alpha1.SupportAccessRecord{}
	if err := h.Reader.Get(ctx, request.NamespacedName, record); err != nil {
		delete(h.known, request.NamespacedName)
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	total := len(record.Status.Transitions) + int(record.Status.DroppedTransitions)
	if isMirror := !records.IsOwn(record) && record.Namespace != v1alpha1.SystemNamespace; isMirror || h.known[request.NamespacedName] == total {
		return reconcile.Result{}, nil
	}
	if wait := h.turn("record", request.NamespacedName); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	missing, err := h.missing(ctx, record)
	if err != nil {
		return reconcile.Result{}, err
	}
	for i := range missing {
		if err := h.append(ctx, transitionEntry(record, &missing[i], h.now())); err != nil {
			return reconcile.Result{}, fmt.Errorf("put down what record %s says: %w", request.NamespacedName, err)
		}
	}
	if h.known == nil {
		h.known = map[types.NamespacedName]int{}
	}
	h.known[request.NamespacedName] = total
	return reconcile.Result{}, nil
}

// turn says how long to leave to other replicas that write to the same log.
func (h *History) turn(kind string, key types.NamespacedName) time.Duration {
	if !h.Shared {
		return 0
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	name, now := kind+"/"+key.String(), h.Clock.Now()
	at, waits := h.turns[name]
	if !waits {
		at = now.Add(time.Millisecond + turnOf(h.Replica, name))
		if h.turns == nil {
			h.turns = map[string]time.Time{}
		}
		h.turns[name] = at
	}
	if left := at.Sub(now); left > 0 {
		return left
	}
	delete(h.turns, name)
	return 0
}

// step tells transitions apart. A record drops some where it grows too large, and cuts messages: neither their place nor
// their words tell.
type step struct {
	what string
	time int64
}

// missing returns the transitions that the log does not have, oldest first.
func (h *History) missing(ctx context.Context, record *v1alpha1.SupportAccessRecord) ([]v1alpha1.Transition, error) {
	have := map[step]int{}
	err := h.each(ctx, entriesOf(record), func(e *audit.Entry) {
		// A namespace has many requests, and each its own record.
		if of := record.Spec.Request; of == nil || e.ObjectRef.UID == of.UID {
			have[step{e.Happened.What, e.Happened.Time.UnixMicro()}]++
		}
	})
	if err != nil {
		return nil, fmt.Errorf("find what is known of record %s/%s: %w", record.Namespace, record.Name, err)
	}
	var missing []v1alpha1.Transition
	for _, t := range record.Status.Transitions {
		key := step{t.Type, t.Time.UnixMicro()}
		if have[key] > 0 {
			have[key]--
			continue
		}
		if !h.isOld(t.Time.Time) {
			missing = append(missing, t)
		}
	}
	return missing, nil
}

// entriesOf asks for the entries of what a record is about.
func entriesOf(record *v1alpha1.SupportAccessRecord) audit.Query {
	if setting := record.Spec.Setting; setting != nil {
		return audit.Query{Type: audit.TypeLifecycle, Resource: settingsResource + "." + v1alpha1.GroupVersion.Group, Namespace: setting.Namespace}
	}
	if of := record.Spec.Request; of != nil {
		return audit.Query{Type: audit.TypeLifecycle, Resource: requestsResource + "." + v1alpha1.GroupVersion.Group, Namespace: of.Namespace}
	}
	grant := record.Spec.Grant
	return audit.Query{
		Type: audit.TypeLifecycle, Resource: grantsResource + "." + v1alpha1.GroupVersion.Group,
		Grant: audit.Grant{Namespace: grant.Namespace, Name: grant.Name, UID: string(grant.UID)},
	}
}

// each does something with every entry of something that happened which a query asks for.
func (h *History) each(ctx context.Context, query audit.Query, do func(*audit.Entry)) error {
	return audit.EachEntry(ctx, h.Past, query, func(e *audit.Entry) error {
		if e.Happened != nil {
			do(e)
		}
		return nil
	})
}

// isOld reports whether the log has removed what happened then, or would at once.
func (h *History) isOld(at time.Time) bool {
	return h.Retention > 0 && at.Before(h.Clock.Now().Add(-h.Retention))
}

func (h *History) now() metav1.MicroTime { return metav1.NewMicroTime(h.Clock.Now()) }

// append puts an entry down.
func (h *History) append(ctx context.Context, e *audit.Entry) error {
	e.Replica = h.Replica
	e.Verb = strings.ToLower(e.Happened.What)
	return h.Log.Append(ctx, e)
}

// transitionEntry is the entry of one transition of a record.
func transitionEntry(record *v1alpha1.SupportAccessRecord, t *v1alpha1.Transition, now metav1.MicroTime) *audit.Entry {
	if setting := record.Spec.Setting; setting != nil {
		return audit.Lifecycle(audit.Happening{What: t.Type, By: t.By, Time: t.Time, Message: t.Message},
			reference(settingsResource, setting.Namespace, v1alpha1.SettingName, ""), nil, now)
	}
	if record.Spec.Request != nil {
		return requestEntry(record, t, now)
	}
	grant := record.Spec.Grant
	e := audit.Lifecycle(
		audit.Happening{What: t.Type, By: t.By, Time: t.Time, Message: messageOf(record, t)},
		reference(grantsResource, grant.Namespace, grant.Name, grant.UID), nil, now)
	e.Grant = audit.Grant{Namespace: grant.Namespace, Name: grant.Name, UID: string(grant.UID)}
	if record.Spec.Case != nil {
		e.Case = record.Spec.Case.ID
	}
	for _, engineer := range record.Spec.Engineers {
		if t.By == engineer {
			e.Engineer = engineer
		}
	}
	return e
}

// requestEntry is the entry of one transition of a request's record. Of the beginning it says what was asked for.
func requestEntry(record *v1alpha1.SupportAccessRecord, t *v1alpha1.Transition, now metav1.MicroTime) *audit.Entry {
	of, message := record.Spec.Request, t.Message
	if t.Type == v1alpha1.TransitionRequested {
		message = fmt.Sprintf("%s are to do what %s allow, for %s: %s", strings.Join(record.Spec.Engineers, ", "), strings.Join(record.Spec.Roles, ", "), of.Duration, t.Message)
	}
	e := audit.Lifecycle(audit.Happening{What: t.Type, By: t.By, Time: t.Time, Message: message},
		reference(requestsResource, of.Namespace, of.Name, of.UID), nil, now)
	if record.Spec.Case != nil {
		e.Case = record.Spec.Case.ID
	}
	return e
}

// messageOf says what happened. Of the beginning it says what was granted, too.
func messageOf(record *v1alpha1.SupportAccessRecord, t *v1alpha1.Transition) string {
	if t.Type != v1alpha1.TransitionGranted {
		return t.Message
	}
	spec := &record.Spec
	where := "namespace " + spec.Grant.Namespace
	switch {
	case spec.Scope != nil && spec.Scope.Cluster:
		where = "the whole cluster"
	case spec.Scope != nil && len(spec.Scope.Namespaces) > 0:
		where = "namespaces " + strings.Join(spec.Scope.Namespaces, ", ")
	}
	until := ""
	if at := record.Status.ExpirationTime; at != nil {
		until = " until " + at.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("%s may do what %s allow in %s%s: %s", strings.Join(spec.Engineers, ", "), strings.Join(spec.Roles, ", "), where, until, t.Message)
}

func reference(resource, namespace, name string, uid types.UID) auditv1.ObjectReference {
	return auditv1.ObjectReference{
		APIGroup: v1alpha1.GroupVersion.Group, APIVersion: v1alpha1.GroupVersion.Version,
		Resource: resource, Namespace: namespace, Name: name, UID: uid,
	}
}

// decision puts down what was decided, once.
func (h *History) decision(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	decision := &v1alpha1.SupportAccessDecision{}
	if err := h.Reader.Get(ctx, request.NamespacedName, decision); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if h.decided[decision.UID] {
		return reconcile.Result{}, nil
	}
	if wait := h.turn("decision", request.NamespacedName); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	if h.decided == nil || h.Shared {
		decided := map[types.UID]bool{}
		query := audit.Query{Type: audit.TypeLifecycle, Resource: decisionsResource + "." + v1alpha1.GroupVersion.Group}
		if err := h.each(ctx, query, func(e *audit.Entry) { decided[e.ObjectRef.UID] = true }); err != nil {
			return reconcile.Result{}, fmt.Errorf("find which decisions are known: %w", err)
		}
		h.decided = decided
	}
	if h.decided[decision.UID] || h.isOld(decision.CreationTimestamp.Time) {
		return reconcile.Result{}, nil
	}
	entry, err := h.decisionEntry(ctx, decision)
	if err == nil {
		err = h.append(ctx, entry)
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("put down decision %s: %w", request.NamespacedName, err)
	}
	h.decided[decision.UID] = true
	return reconcile.Result{}, nil
}

func (h *History) decisionEntry(ctx context.Context, decision *v1alpha1.SupportAccessDecision) (*audit.Entry, error) {
	spec := &decision.Spec
	by := spec.DecidedBy
	if by == "" {
		by = lifecycle.Unknown
	}
	e := audit.Lifecycle(
		audit.Happening{What: string(spec.Action), By: by, Time: metav1.NewMicroTime(decision.CreationTimestamp.Time), Message: targetOf(spec) + ": " + spec.Reason},
		reference(decisionsResource, decision.Namespace, decision.Name, decision.UID), nil, h.now())
	if spec.Target.Grant == "" {
		return e, nil
	}
	record := &v1alpha1.SupportAccessRecord{}
	key := types.NamespacedName{Namespace: decision.Namespace, Name: spec.Target.Grant}
	if err := h.Reader.Get(ctx, key, record); err != nil {
		// There may never have been such a grant.
		return e, client.IgnoreNotFound(err)
	}
	grant := record.Spec.Grant
	e.Grant = audit.Grant{Namespace: grant.Namespace, Name: grant.Name, UID: string(grant.UID)}
	if record.Spec.Case != nil {
		e.Case = record.Spec.Case.ID
	}
	return e, nil
}

// targetOf says on what a decision acts.
func targetOf(spec *v1alpha1.SupportAccessDecisionSpec) string {
	what := "every grant of the namespace"
	switch target := spec.Target; {
	case target.Grant != "":
		what = "grant " + target.Grant
	case target.Request != "":
		what = "request " + target.Request
	case target.Cluster != "":
		what = "every grant of the cluster"
	}
	if spec.Target.Engineer != "" {
		what += ", engineer " + spec.Target.Engineer
	}
	if spec.ExpirationTime != nil {
		what += ", to " + spec.ExpirationTime.UTC().Format(time.RFC3339)
	}
	return what
}

// What happens to policies.
const (
	policyMade    = "PolicyMade"
	policyChanged = "PolicyChanged"
	policyDeleted = "PolicyDeleted"
)

// policy puts down that a policy is new, changed or gone, and what it says.
func (h *History) policy(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	if wait := h.turn("policy", request.NamespacedName); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	if err := h.recallPolicies(ctx); err != nil {
		return reconcile.Result{}, err
	}
	if err := h.lookAtPolicy(ctx, request.Name); err != nil {
		return reconcile.Result{}, fmt.Errorf("put down what happened to policy %s: %w", request.Name, err)
	}
	return reconcile.Result{}, nil
}

// recallPolicies asks the log which policies it has, once where nobody else writes to it, and looks at those that are gone.
func (h *History) recallPolicies(ctx context.Context) error {
	if h.policies != nil && !h.Shared {
		return nil
	}
	var last []*audit.Entry
	query := audit.Query{Type: audit.TypeLifecycle, Resource: policiesResource + "." + v1alpha1.GroupVersion.Group}
	seen := map[string]bool{}
	err := h.each(ctx, query, func(e *audit.Entry) {
		// The newest come first.
		if !seen[e.ObjectRef.Name] {
			seen[e.ObjectRef.Name] = true
			last = append(last, e)
		}
	})
	if err != nil {
		return fmt.Errorf("find which policies are known: %w", err)
	}
	h.policies = map[string]policyKnown{}
	for _, e := range last {
		if e.Happened.What != policyDeleted {
			h.policies[e.ObjectRef.Name] = policyKnown{e.ObjectRef.UID, e.Happened.Generation}
		}
	}
	for name := range h.policies {
		if err := h.lookAtPolicy(ctx, name); err != nil {
			h.policies = nil
			return fmt.Errorf("put down what happened to policy %s: %w", name, err)
		}
	}
	return nil
}

// lookAtPolicy puts down what happened to one policy since the log's last entry of it.
func (h *History) lookAtPolicy(ctx context.Context, name string) error {
	policy := &v1alpha1.SupportAccessPolicy{}
	known, isKnown := h.policies[name]
	err := h.Reader.Get(ctx, types.NamespacedName{Name: name}, policy)
	switch {
	case apierrors.IsNotFound(err) && !isKnown:
		return nil
	case apierrors.IsNotFound(err):
		e := audit.Lifecycle(audit.Happening{What: policyDeleted, By: lifecycle.Unknown, Time: h.now(), Message: "by whom, the API server's audit log says"},
			reference(policiesResource, "", name, known.uid), nil, h.now())
		if err := h.append(ctx, e); err != nil {
			return err
		}
		delete(h.policies, name)
		return nil
	case err != nil:
		return err
	case isKnown && known.uid == policy.UID && known.generation >= policy.Generation:
		return nil
	}
	what := policyMade
	if isKnown && known.uid == policy.UID {
		what = policyChanged
	}
	e, err := policyEntry(policy, what, h.now())
	if err == nil {
		err = h.append(ctx, e)
	}
	if err != nil {
		return err
	}
	h.policies[name] = policyKnown{policy.UID, policy.Generation}
	return nil
}

// maxPolicy is how long a policy may be that is in its entry.
const maxPolicy = 64 << 10

// policyEntry says what a policy is now. Who made it so the API server tells its own audit log, and here with what.
func policyEntry(policy *v1alpha1.SupportAccessPolicy, what string, now metav1.MicroTime) (*audit.Entry, error) {
	says, err := json.Marshal(policy.Spec)
	if err != nil {
		return nil, err
	}
	if len(says) > maxPolicy {
		says = nil
	}
	happened := audit.Happening{What: what, By: lifecycle.Unknown, Time: metav1.NewMicroTime(policy.CreationTimestamp.Time), Generation: policy.Generation}
	happened.Message = "by whom, the API server's audit log says"
	for i := range policy.ManagedFields {
		field := &policy.ManagedFields[i]
		if field.Time != nil && !field.Time.Time.Before(happened.Time.Time) {
			happened.Time, happened.Message = metav1.NewMicroTime(field.Time.Time), "with "+field.Manager+"; by whom, the API server's audit log says"
		}
	}
	return audit.Lifecycle(happened, reference(policiesResource, "", policy.Name, policy.UID), says, now), nil
}
