// Package guard watches the admission policies that guard support access. It knows whether they are in force, and
// nothing of grants: what must wait asks it.
package guard

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/config/admission"
)

const (
	// passTime bounds one check.
	passTime = 30 * time.Second
	// recheck is how often the canary is tried while nothing seems to change.
	recheck = 5 * time.Minute
	// retry is how soon it is tried again while the policies are not in force.
	retry = time.Second
	// settling is how long after a change of the policies API servers may still judge by the old ones. They look for
	// changed policies once a second.
	settling = 3 * time.Second
)

// Guard says whether the admission policies that this version ships are in force.
type Guard struct {
	// Client reads the policies from the cache and tries the canary.
	Client client.Client
	// Clock is read once a pass.
	Clock clock.PassiveClock
	// Options say which policies this cluster gets.
	Options admission.Options
	// Wake is told whenever the policies come into force. It has room for one word.
	Wake chan<- event.GenericEvent

	mu      sync.RWMutex
	since   time.Time
	pending string
	broken  bool
}

// the one request of this controller: all policies are judged together.
var all = reconcile.Request{NamespacedName: types.NamespacedName{Name: "admission"}}

// NotYetChecked is why nothing opens before the first check.
const NotYetChecked = "the admission policies have not yet been checked"

// InForce returns since when the policies have been in force without a break, and otherwise why nothing may open.
func (g *Guard) InForce() (since time.Time, pending string) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.since.IsZero() && g.pending == "" {
		return time.Time{}, NotYetChecked
	}
	return g.since, g.pending
}

// Ready fails while nothing may open: a health check of the operator.
func (g *Guard) Ready() error {
	since, pending := g.InForce()
	if pending != "" {
		return errors.New(pending)
	}
	// The API server says in whole seconds when a grant was made, and it must be after that instant.
	if made := g.Clock.Now().Truncate(time.Second); !made.After(since) {
		return fmt.Errorf("the admission policies are settling until %s", since.UTC().Format(time.RFC3339))
	}
	return nil
}

// SetupWithManager registers the controller and what it watches. It needs no lease: each replica must know for itself.
func (g *Guard) SetupWithManager(mgr ctrl.Manager) error {
	everyone := false
	toAll := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request { return []reconcile.Request{all} })
	start := make(chan event.GenericEvent, 1)
	start <- event.GenericEvent{Object: &admissionregistrationv1.ValidatingAdmissionPolicy{}}
	b := ctrl.NewControllerManagedBy(mgr).Named("guard").
		WatchesRawSource(source.Channel(start, toAll)).
		WithOptions(controller.Options{MaxConcurrentReconciles: 1, NeedLeaderElection: &everyone, ReconciliationTimeout: passTime})
	for _, kind := range g.kinds() {
		b = b.Watches(kind, toAll)
	}
	return b.Complete(g)
}

// kinds are the kinds of objects to watch.
func (g *Guard) kinds() []client.Object {
	kinds := []client.Object{&admissionregistrationv1.ValidatingAdmissionPolicy{}, &admissionregistrationv1.ValidatingAdmissionPolicyBinding{}}
	if g.Options.Stamp {
		kinds = append(kinds, &admissionregistrationv1.MutatingAdmissionPolicy{}, &admissionregistrationv1.MutatingAdmissionPolicyBinding{})
	}
	return kinds
}

// Reconcile looks whether every policy is there as this version ships it, and tries the canary.
func (g *Guard) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	live, err := g.live(ctx)
	if err != nil {
		g.set(time.Time{}, "the admission policies could not be read")
		return reconcile.Result{}, err
	}
	since, err := g.judge(ctx, live)
	if err != nil {
		ctrl.LoggerFrom(ctx).Info("Admission is not in force; nothing opens", "why", err.Error())
		g.set(time.Time{}, "nothing opens while the admission policies are not in force: "+err.Error())
		return reconcile.Result{RequeueAfter: retry}, nil
	}
	if g.set(since, "") {
		ctrl.LoggerFrom(ctx).Info("Admission is in force", "since", since)
		g.wake()
	}
	if wait := since.Sub(g.Clock.Now()); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	return reconcile.Result{RequeueAfter: recheck}, nil
}

// judge returns since when the policies are in force, or why they are not.
func (g *Guard) judge(ctx context.Context, live []client.Object) (time.Time, error) {
	shipped, err := admission.Objects(g.Options)
	if err != nil {
		return time.Time{}, err
	}
	if err := admission.Compare(live, shipped); err != nil {
		return time.Time{}, err
	}
	err = g.Client.Create(ctx, admission.CanaryGrant(), client.DryRunAll)
	switch {
	case err == nil:
		return time.Time{}, errors.New("a grant with a forged stamp was let through in a dry run")
	case !admission.CanaryRefused(err):
		return time.Time{}, fmt.Errorf("a grant with a forged stamp was refused for another reason: %w", err)
	default:
		return lastChange(live).Add(settling), nil
	}
}

// live reads the policies of ours that the cache has.
func (g *Guard) live(ctx context.Context) ([]client.Object, error) {
	var out []client.Object
	policies, bindings := &admissionregistrationv1.ValidatingAdmissionPolicyList{}, &admissionregistrationv1.ValidatingAdmissionPolicyBindingList{}
	mutating, mutatingBindings := &admissionregistrationv1.MutatingAdmissionPolicyList{}, &admissionregistrationv1.MutatingAdmissionPolicyBindingList{}
	lists := []client.ObjectList{policies, bindings}
	if g.Options.Stamp {
		lists = append(lists, mutating, mutatingBindings)
	}
	for _, list := range lists {
		if err := g.Client.List(ctx, list); err != nil {
			return nil, fmt.Errorf("list %T: %w", list, err)
		}
	}
	for i := range policies.Items {
		out = append(out, &policies.Items[i])
	}
	for i := range bindings.Items {
		out = append(out, &bindings.Items[i])
	}
	for i := range mutating.Items {
		out = append(out, &mutating.Items[i])
	}
	for i := range mutatingBindings.Items {
		out = append(out, &mutatingBindings.Items[i])
	}
	return out, nil
}

// lastChange returns when the last of the policies was made or changed. What only its status says does not count.
func lastChange(objects []client.Object) time.Time {
	var last time.Time
	for _, o := range objects {
		if at := o.GetCreationTimestamp().Time; at.After(last) {
			last = at
		}
		for _, field := range o.GetManagedFields() {
			if field.Subresource == "" && field.Time != nil && field.Time.After(last) {
				last = field.Time.Time
			}
		}
	}
	return last
}

// set stores the finding and reports whether the policies came into force. After a break they count from now on: what
// was let through in between is not known.
func (g *Guard) set(since time.Time, pending string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if pending != "" {
		g.broken = g.broken || (g.pending == "" && !g.since.IsZero())
		g.since, g.pending = time.Time{}, pending
		return false
	}
	came := g.pending != "" || g.since.IsZero()
	if g.broken && came {
		since = later(since, g.Clock.Now())
		g.broken = false
	} else if !came {
		since = later(since, g.since)
	}
	changed := came || !since.Equal(g.since)
	g.since, g.pending = since, ""
	return changed
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// wake tells whoever waits, without waiting itself: one word that is still unread says it all.
func (g *Guard) wake() {
	select {
	case g.Wake <- event.GenericEvent{Object: &v1alpha1.SupportAccessGrant{}}:
	default:
	}
}
