package gateway

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/internal/partial"
	"supportaccess.dev/operator/internal/policies"
	"supportaccess.dev/operator/internal/review"
)

// Grants are the grants whose engineers come through the gateway. An end that it has seen it never forgets: a cache that
// goes back in time opens nothing.
type Grants struct {
	// Reader reads from the cache.
	Reader client.Reader
	// Clock says what time it is.
	Clock clock.PassiveClock
	// Cut ends what is open of a grant. It returns at once.
	Cut func(Cutting)

	// looked says that every grant was looked at once.
	looked atomic.Bool
	// waiting is how many credentials are waited for.
	waiting atomic.Int32

	mu     sync.RWMutex
	byKey  map[types.NamespacedName]*standing
	byHash map[string]*standing
	// ended are the ends that were seen, by the UID of the grant.
	ended map[types.UID]*end
	// withdrawn are the bindings that were seen to vanish, by their UID.
	withdrawn map[types.UID]bool
}

// Cutting is what is to be ended.
type Cutting struct {
	// Grant is the grant's UID.
	Grant types.UID
	// Staying are the engineers who may stay, in Namespaces; nobody where the grant itself is over.
	Staying []string
	// Credentials are those with which they may stay, by their hashes.
	Credentials map[string]string
	// Reason is why, in one word, and Message in a sentence.
	Reason, Message string
	// Over says that the grant has ended for ever.
	Over bool
}

// workers is how many grants are looked at at once.
const workers = 4

// SetupWithManager has the grants watched, and everything on which a verdict depends.
func (g *Grants) SetupWithManager(mgr ctrl.Manager) error {
	binding := handler.Funcs{DeleteFunc: func(_ context.Context, e event.DeleteEvent, q queue) { g.vanished(e.Object, q) }}
	replica := false
	return ctrl.NewControllerManagedBy(mgr).Named("gateway").
		Watches(&v1alpha1.SupportAccessGrant{}, handler.EnqueueRequestsFromMapFunc(ofGrant)).
		Watches(&v1alpha1.SupportAccessRecord{}, handler.EnqueueRequestsFromMapFunc(ofRecord)).
		Watches(&v1alpha1.SupportAccessDecision{}, handler.EnqueueRequestsFromMapFunc(g.ofDecision)).
		Watches(&v1alpha1.SupportAccessSetting{}, handler.EnqueueRequestsFromMapFunc(g.ofSetting)).
		Watches(&v1alpha1.SupportAccessPolicy{}, handler.EnqueueRequestsFromMapFunc(g.all)).
		Watches(&rbacv1.ClusterRole{}, handler.EnqueueRequestsFromMapFunc(g.ofRole)).
		Watches(&rbacv1.RoleBinding{}, binding).
		Watches(&rbacv1.ClusterRoleBinding{}, binding).
		WatchesMetadata(partial.Object("Namespace"), handler.EnqueueRequestsFromMapFunc(g.ofNamespace), builder.WithPredicates(partial.NamespaceChanged())).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, NeedLeaderElection: &replica}).
		Complete(g)
}

// queue is where grants wait to be looked at.
type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// Reconcile looks at one grant and ends what may not be open any more.
func (g *Grants) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	now := g.Clock.Now()
	s, err := g.see(ctx, request.NamespacedName, now)
	if err != nil {
		return reconcile.Result{}, err
	}
	if s == nil {
		g.forget(request.NamespacedName)
		return reconcile.Result{}, nil
	}
	verdict := s.verdict(now)
	g.put(s, verdict)
	ended := endOfVerdict(s, verdict)
	if ended != nil {
		g.Cut(Cutting{Grant: s.uid, Reason: ended.reason, Message: ended.message, Over: s.over(verdict)})
		return g.again(verdict, now), nil
	}
	g.Cut(Cutting{Grant: s.uid, Staying: verdict.Engineers, Credentials: s.hashes, Reason: v1alpha1.TransitionEngineerRemoved, Message: "you were taken off the grant"})
	return g.again(verdict, now), nil
}

// LookAtAll looks at every grant once. Until it has, what is not known may only not have been looked at.
func (g *Grants) LookAtAll(ctx context.Context) error {
	list := &v1alpha1.SupportAccessGrantList{}
	if err := g.Reader.List(ctx, list); err != nil {
		return fmt.Errorf("list grants: %w", err)
	}
	for i := range list.Items {
		if _, err := g.Reconcile(ctx, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])}); err != nil {
			return err
		}
	}
	g.looked.Store(true)
	return nil
}

// lookAtOverdue looks again at the grants whose time is over and that are not known to have ended. Timers count what has
// passed; this asks what the clock says, which may have been set.
func (g *Grants) lookAtOverdue(ctx context.Context) error {
	now := g.Clock.Now()
	var overdue []types.NamespacedName
	g.mu.RLock()
	for key, s := range g.byKey {
		if at := s.facts.Record.Status.ExpirationTime; at != nil && !now.Before(at.Time) && g.ended[s.uid] == nil {
			overdue = append(overdue, key)
		}
	}
	g.mu.RUnlock()
	for _, key := range overdue {
		if _, err := g.Reconcile(ctx, reconcile.Request{NamespacedName: key}); err != nil {
			return err
		}
	}
	return nil
}

// again comes back when the verdict changes by itself.
func (g *Grants) again(v lifecycle.Verdict, now time.Time) reconcile.Result {
	if v.Until.IsZero() {
		return reconcile.Result{}
	}
	return reconcile.Result{RequeueAfter: max(v.Until.Sub(now), time.Millisecond)}
}

// see gathers what a verdict on a grant needs, from the cache alone. It returns nil for what is no concern of the
// gateway's: a grant that is gone and on no record, or that does without a gateway.
func (g *Grants) see(ctx context.Context, key types.NamespacedName, now time.Time) (*standing, error) {
	grant, record := &v1alpha1.SupportAccessGrant{}, &v1alpha1.SupportAccessRecord{}
	grant, err := optional(grant, g.Reader.Get(ctx, key, grant))
	if err != nil {
		return nil, fmt.Errorf("get grant %s: %w", key, err)
	}
	record, err = optional(record, g.Reader.Get(ctx, key, record))
	if err != nil {
		return nil, fmt.Errorf("get record %s: %w", key, err)
	}
	if record == nil || record.Spec.Transport != v1alpha1.TransportGateway || grant == nil && record.Status.EndTime != nil {
		return nil, nil
	}
	s := &standing{key: key, uid: record.Spec.Grant.UID, hashes: map[string]string{}, roles: map[string][]rbacv1.PolicyRule{}}
	if record.Spec.Case != nil {
		s.caseID = record.Spec.Case.ID
	}
	s.facts = lifecycle.Facts{Grant: grant, Record: record}
	for _, step := range []func(context.Context, *standing) error{g.seeDecisions, g.seeRoles} {
		if err := step(ctx, s); err != nil {
			return nil, err
		}
	}
	inForce, gone, err := g.seePlaces(ctx, s)
	if err != nil {
		return nil, err
	}
	s.judge(now, inForce, gone)
	if err := g.seeSetting(ctx, s, now); err != nil {
		return nil, err
	}
	g.seeWithdrawn(s)
	s.seeCredentials(now)
	return s, nil
}

// optional returns nil for an object that is not there.
func optional[T any](object *T, err error) (*T, error) {
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return object, err
}

func (g *Grants) seeDecisions(ctx context.Context, s *standing) error {
	places := []string{s.key.Namespace, v1alpha1.SystemNamespace}
	slices.Sort(places)
	for _, namespace := range slices.Compact(places) {
		list := &v1alpha1.SupportAccessDecisionList{}
		if err := g.Reader.List(ctx, list, client.InNamespace(namespace)); err != nil {
			return fmt.Errorf("list decisions in %q: %w", namespace, err)
		}
		s.facts.Decisions = append(s.facts.Decisions, list.Items...)
	}
	return nil
}

// seeSetting notes whether the setting because of which the grant was made still is as it was.
func (g *Grants) seeSetting(ctx context.Context, s *standing, now time.Time) error {
	grant := s.facts.Grant
	if grant == nil || grant.Spec.SettingRef == nil {
		return nil
	}
	setting := &v1alpha1.SupportAccessSetting{}
	key := types.NamespacedName{Namespace: s.key.Namespace, Name: v1alpha1.SettingName}
	setting, err := optional(setting, g.Reader.Get(ctx, key, setting))
	if err != nil {
		return fmt.Errorf("get setting %s: %w", key, err)
	}
	s.facts.World.Switched = lifecycle.EndBySetting(grant.Spec.SettingRef, setting, now)
	return nil
}

func (g *Grants) seeRoles(ctx context.Context, s *standing) error {
	for _, name := range s.facts.Record.Spec.Roles {
		role := &rbacv1.ClusterRole{}
		found, err := optional(role, g.Reader.Get(ctx, types.NamespacedName{Name: name}, role))
		if err != nil {
			return fmt.Errorf("get ClusterRole %q: %w", name, err)
		}
		if found != nil {
			s.roles[name] = found.Rules
		}
	}
	return nil
}

// seePlaces returns the policies of the grant's namespaces, and those namespaces that are gone or going.
func (g *Grants) seePlaces(ctx context.Context, s *standing) (map[string]review.NamespacePolicy, []string, error) {
	seen, gone := map[string]review.NamespacePolicy{}, []string(nil)
	places := append([]string{s.key.Namespace}, lifecycle.ScopeOf(s.facts.Record.Spec.Scope, s.key.Namespace)...)
	for _, name := range places {
		if _, known := seen[name]; known || name == "" {
			continue
		}
		namespace := partial.Object("Namespace")
		found, err := optional(namespace, g.Reader.Get(ctx, types.NamespacedName{Name: name}, namespace))
		if err != nil {
			return nil, nil, fmt.Errorf("get namespace %q: %w", name, err)
		}
		if found == nil || !found.DeletionTimestamp.IsZero() {
			gone = append(gone, name)
			seen[name] = policies.OfNone()
			continue
		}
		if seen[name], err = policies.Of(ctx, g.Reader, found); err != nil {
			return nil, nil, err
		}
	}
	return seen, gone, nil
}

// seeWithdrawn notes the bindings of the grant that were seen to vanish. A UID never comes back, so what was seen once
// is true for ever; who took the binding away the controller finds out.
func (g *Grants) seeWithdrawn(s *standing) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, b := range s.facts.Record.Status.Bindings {
		if !b.Withdrawn && g.withdrawn[b.UID] {
			s.facts.World.Withdrawn = append(s.facts.World.Withdrawn, lifecycle.Withdrawal{
				Namespace: b.Namespace, Message: "binding " + b.Name + " of role " + b.Role + " was deleted",
			})
		}
	}
}

// put takes a grant over, and latches its end.
func (g *Grants) put(s *standing, verdict lifecycle.Verdict) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.byKey == nil {
		g.byKey, g.byHash, g.ended = map[types.NamespacedName]*standing{}, map[string]*standing{}, map[types.UID]*end{}
	}
	over := s.over(verdict)
	if ended := endOfVerdict(s, verdict); over && g.ended[s.uid] == nil {
		g.ended[s.uid] = ended
	}
	if before := g.byKey[s.key]; before != nil {
		for hash, engineer := range before.hashes {
			_, stays := s.hashes[hash]
			switch {
			case stays:
			case over && before.uid == s.uid:
				// Whoever comes with it is told what became of the grant.
				s.hashes[hash] = engineer
			default:
				delete(g.byHash, hash)
			}
		}
	}
	g.byKey[s.key] = s
	for hash := range s.hashes {
		g.byHash[hash] = s
	}
}

// forget drops a grant that is gone. Its end stays latched.
func (g *Grants) forget(key types.NamespacedName) {
	g.mu.Lock()
	before := g.byKey[key]
	if before != nil {
		delete(g.byKey, key)
		for hash := range before.hashes {
			delete(g.byHash, hash)
		}
		if g.ended[before.uid] == nil {
			g.ended[before.uid] = &end{reason: v1alpha1.EndDeleted, message: "the grant is gone"}
		}
	}
	g.mu.Unlock()
	if before != nil {
		g.Cut(Cutting{Grant: before.uid, Reason: v1alpha1.EndDeleted, Message: "the grant is gone", Over: true})
	}
}

// find returns the grant and the engineer to whom a credential belongs; ok is false where it belongs to nobody.
func (g *Grants) find(hash string) (s *standing, engineer string, ok bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	s, ok = g.byHash[hash]
	if !ok {
		return nil, "", false
	}
	return s, s.hashes[hash], true
}

const (
	// hearsayTime is for how long a credential is waited for that was made just now: its owner may be faster than the
	// watch that tells of it.
	hearsayTime = 500 * time.Millisecond
	// hearsayEvery is how often it is looked for, and hearsayMost how many are waited for at once.
	hearsayEvery = 20 * time.Millisecond
	hearsayMost  = 64
)

// await is find for a credential that may not be known yet.
func (g *Grants) await(ctx context.Context, hash string) (s *standing, engineer string, ok bool) {
	if s, engineer, ok = g.find(hash); ok {
		return s, engineer, ok
	}
	if g.waiting.Add(1) > hearsayMost {
		g.waiting.Add(-1)
		return nil, "", false
	}
	defer g.waiting.Add(-1)
	_ = wait.PollUntilContextTimeout(ctx, hearsayEvery, hearsayTime, false, func(context.Context) (bool, error) {
		s, engineer, ok = g.find(hash)
		return ok, nil
	})
	return s, engineer, ok
}

// endOf returns why an engineer of a grant may not come in now, nil if the engineer may. It looks at the grant as it is
// known now, not as it was when the request came.
func (g *Grants) endOf(x *exchange) *end {
	key, uid := x.standing.key, x.standing.uid
	g.mu.RLock()
	ended, s := g.ended[uid], g.byKey[key]
	g.mu.RUnlock()
	switch {
	case ended != nil:
		return ended
	case s == nil || s.uid != uid:
		return &end{reason: v1alpha1.EndDeleted, message: "the grant is gone"}
	default:
		return s.endOf(x.engineer, x.hash, g.Clock.Now())
	}
}

// vanished latches that a binding is gone and has its grant looked at.
func (g *Grants) vanished(o client.Object, q queue) {
	key, ok := access.GrantOf(o)
	if !ok {
		return
	}
	g.mu.Lock()
	if g.withdrawn == nil {
		g.withdrawn = map[types.UID]bool{}
	}
	g.withdrawn[o.GetUID()] = true
	g.mu.Unlock()
	q.Add(reconcile.Request{NamespacedName: key})
}

func ofGrant(_ context.Context, o client.Object) []reconcile.Request {
	return []reconcile.Request{{NamespacedName: client.ObjectKeyFromObject(o)}}
}

// ofRecord passes over mirrors and tombstones: the gateway goes by the record beside the grant.
func ofRecord(ctx context.Context, o client.Object) []reconcile.Request {
	grant := o.(*v1alpha1.SupportAccessRecord).Spec.Grant
	if o.GetNamespace() != grant.Namespace || o.GetName() != grant.Name {
		return nil
	}
	return ofGrant(ctx, o)
}

func (g *Grants) ofDecision(ctx context.Context, o client.Object) []reconcile.Request {
	decision := o.(*v1alpha1.SupportAccessDecision)
	if name := decision.Spec.Target.Grant; name != "" {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: decision.Namespace, Name: name}}}
	}
	return g.all(ctx, o)
}

// ofSetting maps a setting to the grants of its namespace that were made because of one.
func (g *Grants) ofSetting(_ context.Context, o client.Object) []reconcile.Request {
	return g.those(func(s *standing) bool {
		return s.key.Namespace == o.GetNamespace() && s.facts.Grant != nil && s.facts.Grant.Spec.SettingRef != nil
	})
}

func (g *Grants) all(context.Context, client.Object) []reconcile.Request {
	return g.those(func(*standing) bool { return true })
}

func (g *Grants) ofRole(_ context.Context, o client.Object) []reconcile.Request {
	return g.those(func(s *standing) bool { return slices.Contains(s.facts.Record.Spec.Roles, o.GetName()) })
}

func (g *Grants) ofNamespace(_ context.Context, o client.Object) []reconcile.Request {
	return g.those(func(s *standing) bool {
		return s.key.Namespace == o.GetName() ||
			slices.Contains(lifecycle.ScopeOf(s.facts.Record.Spec.Scope, s.key.Namespace), o.GetName())
	})
}

// those returns the grants that are not over and of which something holds.
func (g *Grants) those(hold func(*standing) bool) []reconcile.Request {
	g.mu.RLock()
	defer g.mu.RUnlock()
	var requests []reconcile.Request
	for key, s := range g.byKey {
		if g.ended[s.uid] == nil && hold(s) {
			requests = append(requests, reconcile.Request{NamespacedName: key})
		}
	}
	return requests
}
