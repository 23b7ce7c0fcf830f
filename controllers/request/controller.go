// Package request says what became of each SupportAccessRequest: which grant answers it, who denied it, that its time was
// over. It gives nothing: whether the grant that answers opens is the grant's own matter.
package request

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/partial"
	"supportaccess.dev/operator/internal/policies"
)

// Admission says whether the admission policies guard the cluster.
type Admission interface {
	// InForce returns since when they have done so without a break, and otherwise why nothing may open.
	InForce() (since time.Time, pending string)
}

// Reconciler answers requests.
type Reconciler struct {
	// Client reads from the cache and writes.
	Client client.Client
	// Live reads from the API server itself, before it is said that a grant is gone.
	Live client.Reader
	// Admission says whether who asked is proven.
	Admission Admission
	// Recorder announces changes as Kubernetes Events.
	Recorder events.EventRecorder
	// Clock is read once a pass.
	Clock clock.PassiveClock
}

const (
	// workers is how many requests are worked on at once. It is one: how many of one requester are open is counted.
	workers = 1
	// lookAgain is how soon a request is looked at again of which nobody tells that the way is free.
	lookAgain = 10 * time.Second
	// overtakenAgain is how soon a request is looked at again of which the cache had not yet heard the latest.
	overtakenAgain = 20 * time.Millisecond
)

// SetupWithManager registers the controller and what it watches.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("request").
		For(&v1alpha1.SupportAccessRequest{}).
		Watches(&v1alpha1.SupportAccessGrant{}, handler.EnqueueRequestsFromMapFunc(requestOfGrant)).
		Watches(&v1alpha1.SupportAccessRecord{}, handler.EnqueueRequestsFromMapFunc(requestOfRecord)).
		Watches(&v1alpha1.SupportAccessDecision{}, handler.EnqueueRequestsFromMapFunc(requestOfDecision)).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, ReconciliationTimeout: time.Minute}).
		Complete(r)
}

func one(namespace, name string) []reconcile.Request {
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: namespace, Name: name}}}
}

// requestOfGrant maps a grant to the request that it names.
func requestOfGrant(_ context.Context, o client.Object) []reconcile.Request {
	ref := o.(*v1alpha1.SupportAccessGrant).Spec.RequestRef
	if ref == nil {
		return nil
	}
	return one(o.GetNamespace(), ref.Name)
}

// requestOfRecord maps the record of a request to it, and that of a grant to the request that the grant names.
func requestOfRecord(_ context.Context, o client.Object) []reconcile.Request {
	spec := o.(*v1alpha1.SupportAccessRecord).Spec
	switch {
	case spec.Request != nil:
		return one(spec.Request.Namespace, spec.Request.Name)
	case spec.RequestRef != nil && o.GetNamespace() == spec.Grant.Namespace:
		return one(spec.Grant.Namespace, spec.RequestRef.Name)
	default:
		return nil
	}
}

// requestOfDecision maps a decision to the request to which it says no.
func requestOfDecision(_ context.Context, o client.Object) []reconcile.Request {
	if target := o.(*v1alpha1.SupportAccessDecision).Spec.Target; target.Request != "" {
		return one(o.GetNamespace(), target.Request)
	}
	return nil
}

// Reconcile brings one request to what is to be said of it now.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	s, err := r.observe(ctx, request.NamespacedName)
	if err != nil || s.request == nil && s.record == nil {
		return reconcile.Result{}, err
	}
	p := decide(*s)
	// What happened is on record before anybody goes by it.
	err = r.keep(ctx, s, p)
	if err == nil && s.request != nil {
		err = r.save(ctx, *s, p)
	}
	if apierrors.IsConflict(err) {
		return reconcile.Result{RequeueAfter: overtakenAgain}, nil
	}
	if err != nil || p.until.IsZero() {
		return reconcile.Result{}, err
	}
	return reconcile.Result{RequeueAfter: max(p.until.Sub(r.Clock.Now()), time.Millisecond)}, nil
}

// sight is everything that a pass has learnt about one request.
type sight struct {
	now time.Time
	key types.NamespacedName
	// request is nil where it is gone, record where it is not on record.
	request *v1alpha1.SupportAccessRequest
	record  *v1alpha1.SupportAccessRecord
	// grants are those that name it, oldest first.
	grants []v1alpha1.SupportAccessGrant
	// answer is what became of the grant that answers it.
	answer answer
	// denials are the decisions that say no to a request of its name.
	denials []v1alpha1.SupportAccessDecision
	// others is how many requests of the same requester count besides it, limit how many may. Known before it is on record.
	others, limit int
	// timeout is for how long it waits for an answer.
	timeout time.Duration
	// policy is the policy of its namespace.
	policy string
	// since and pending say whether admission is in force.
	since   time.Time
	pending string
}

// answer is what became of the grant that answers a request.
type answer struct {
	// void says why it is none any more: it never opened. Empty means that it stands.
	void string
	// over says that it has opened, or ended otherwise: nothing changes about the request any more.
	over bool
}

// observe gathers what is to be known of a request.
func (r *Reconciler) observe(ctx context.Context, key types.NamespacedName) (*sight, error) {
	s := &sight{now: r.Clock.Now(), key: key}
	request, record := &v1alpha1.SupportAccessRequest{}, &v1alpha1.SupportAccessRecord{}
	err := r.Client.Get(ctx, key, request)
	if err == nil && request.DeletionTimestamp.IsZero() {
		s.request = request
	} else if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("get request %s: %w", key, err)
	}
	err = r.Client.Get(ctx, types.NamespacedName{Namespace: key.Namespace, Name: key.Name + v1alpha1.RequestRecordSuffix}, record)
	if err == nil {
		s.record = record
	} else if !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("get the record of request %s: %w", key, err)
	}
	if s.request == nil || s.record != nil && s.record.Status.EndTime != nil {
		return s, nil
	}
	s.since, s.pending = r.Admission.InForce()
	for _, look := range []func(context.Context, *sight) error{r.seeGrants, r.seeAnswer, r.seeDenials, r.seeLimits} {
		if err := look(ctx, s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (r *Reconciler) seeGrants(ctx context.Context, s *sight) error {
	grants := &v1alpha1.SupportAccessGrantList{}
	if err := r.Client.List(ctx, grants, client.InNamespace(s.key.Namespace)); err != nil {
		return fmt.Errorf("list grants in %q: %w", s.key.Namespace, err)
	}
	for i := range grants.Items {
		if ref := grants.Items[i].Spec.RequestRef; ref != nil && ref.UID == s.request.UID {
			s.grants = append(s.grants, grants.Items[i])
		}
	}
	slices.SortFunc(s.grants, func(a, b v1alpha1.SupportAccessGrant) int {
		if byTime := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); byTime != 0 {
			return byTime
		}
		return strings.Compare(a.Name, b.Name)
	})
	return nil
}

// seeAnswer looks what became of the grant that answers the request. That it is gone the API server itself must say.
func (r *Reconciler) seeAnswer(ctx context.Context, s *sight) error {
	if s.record == nil || s.record.Status.Answer == nil {
		return nil
	}
	by := *s.record.Status.Answer
	key := types.NamespacedName{Namespace: s.key.Namespace, Name: by.Name}
	there := slices.ContainsFunc(s.grants, func(g v1alpha1.SupportAccessGrant) bool { return g.UID == by.UID })
	record, err := r.recordOf(ctx, r.Client, key, by)
	if err == nil && record == nil && !there {
		grant := &v1alpha1.SupportAccessGrant{}
		if err = r.Live.Get(ctx, key, grant); err == nil {
			there = grant.UID == by.UID
		} else if apierrors.IsNotFound(err) {
			record, err = r.recordOf(ctx, r.Live, key, by)
		}
	}
	if err != nil {
		return fmt.Errorf("look for grant %s: %w", key, err)
	}
	s.answer = answerOf(by.Name, record, there)
	return nil
}

// recordOf reads the record of the grant that answers, nil if there is none.
func (r *Reconciler) recordOf(ctx context.Context, reader client.Reader, key types.NamespacedName, by v1alpha1.AnsweringGrant) (*v1alpha1.SupportAccessRecord, error) {
	record := &v1alpha1.SupportAccessRecord{}
	if err := reader.Get(ctx, key, record); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	if record.Spec.Grant.UID != by.UID {
		return nil, nil
	}
	return record, nil
}

func (r *Reconciler) seeDenials(ctx context.Context, s *sight) error {
	decisions := &v1alpha1.SupportAccessDecisionList{}
	if err := r.Client.List(ctx, decisions, client.InNamespace(s.key.Namespace)); err != nil {
		return fmt.Errorf("list decisions in %q: %w", s.key.Namespace, err)
	}
	s.denials = slices.DeleteFunc(decisions.Items, func(d v1alpha1.SupportAccessDecision) bool { return d.Spec.Target.Request != s.key.Name })
	return nil
}

// The limits where a policy names none, or there is none.
const (
	defaultTimeout = v1alpha1.Duration("72h")
	defaultLimit   = 5
)

// seeLimits looks, before a request is on record, for how long it may wait and how many others of its requester count.
func (r *Reconciler) seeLimits(ctx context.Context, s *sight) error {
	if s.record != nil {
		return nil
	}
	namespace := partial.Object("Namespace")
	if err := r.Client.Get(ctx, types.NamespacedName{Name: s.key.Namespace}, namespace); err != nil {
		return client.IgnoreNotFound(err)
	}
	found, err := policies.Of(ctx, r.Client, namespace)
	if err != nil && !errors.Is(err, policies.ErrNoKind) {
		return err
	}
	s.policy, s.timeout, s.limit = found.Name, defaultTimeout.OrZero(), defaultLimit
	if policy := found.Policy; policy != nil && policy.Spec.RequestTimeout != "" {
		s.timeout = policy.Spec.RequestTimeout.OrZero()
	}
	if policy := found.Policy; policy != nil && policy.Spec.MaxOpenRequests != nil {
		s.limit = int(*policy.Spec.MaxOpenRequests)
	}
	s.others, err = r.countOthers(ctx, s)
	return err
}

// countOthers counts the requests of the same requester that are open, or were withdrawn not long ago: to ask and withdraw is
// not to ask for nothing.
func (r *Reconciler) countOthers(ctx context.Context, s *sight) (int, error) {
	requests, records := &v1alpha1.SupportAccessRequestList{}, &v1alpha1.SupportAccessRecordList{}
	if err := r.Client.List(ctx, requests, client.InNamespace(s.key.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return 0, fmt.Errorf("list requests in %q: %w", s.key.Namespace, err)
	}
	if err := r.Client.List(ctx, records, client.InNamespace(s.key.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return 0, fmt.Errorf("list records in %q: %w", s.key.Namespace, err)
	}
	count := 0
	for i := range requests.Items {
		if countsBeside(&requests.Items[i], s.request) {
			count++
		}
	}
	for i := range records.Items {
		if withdrawnLately(&records.Items[i], s.request, s.now) {
			count++
		}
	}
	return count, nil
}
