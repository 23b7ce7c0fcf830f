// Package setting keeps, for each SupportAccessSetting that is on, the one grant that it stands for, and the record of who
// switched it; and it makes the settings of namespaces that are on by default. Whether and when a grant opens and ends is the
// grant's own matter: a setting never opens anything itself.
package setting

import (
	"context"
	"fmt"
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
	"supportaccess.dev/operator/internal/access"
)

// Admission says whether the admission policies guard the cluster.
type Admission interface {
	// InForce returns since when they have done so without a break, and otherwise why nothing may open.
	InForce() (since time.Time, pending string)
}

// Reconciler makes the grants of settings, and says what became of them.
type Reconciler struct {
	// Client reads from the cache and writes.
	Client client.Client
	// Live reads from the API server itself, before a grant is made.
	Live client.Reader
	// Admission says whether anything may be made.
	Admission Admission
	// Recorder announces changes as Kubernetes Events.
	Recorder events.EventRecorder
	// Clock is read once a pass.
	Clock clock.PassiveClock
}

const (
	// workers is how many settings are worked on at once.
	workers = 4
	// lookAgain is how soon a setting is looked at again of which nobody tells that the way is free.
	lookAgain = 10 * time.Second
	// lookAlways is how soon every setting is looked at again: since when admission is in force is in its status.
	lookAlways = 5 * time.Minute
)

// SetupWithManager registers the controller and what it watches.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("setting").
		For(&v1alpha1.SupportAccessSetting{}).
		Watches(&v1alpha1.SupportAccessGrant{}, handler.EnqueueRequestsFromMapFunc(settingOfGrant)).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, ReconciliationTimeout: time.Minute}).
		Complete(r)
}

// settingOfGrant maps a grant to the setting because of which it was made.
func settingOfGrant(_ context.Context, o client.Object) []reconcile.Request {
	if o.(*v1alpha1.SupportAccessGrant).Spec.SettingRef == nil {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: v1alpha1.SettingName}}}
}

// Reconcile brings one setting to what it demands now.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	s, err := r.observe(ctx, request.NamespacedName)
	if err != nil {
		return reconcile.Result{}, err
	}
	result, err := r.enact(ctx, s)
	if apierrors.IsConflict(err) {
		return reconcile.Result{RequeueAfter: overtakenAgain}, nil
	}
	return result, err
}

// enact puts on record what happened, makes the grant that is wanted, and says what became of it.
func (r *Reconciler) enact(ctx context.Context, s *sight) (reconcile.Result, error) {
	if s.setting == nil {
		// Whatever was made because of it ends by itself.
		return reconcile.Result{}, r.keep(ctx, s.namespace, standing{}, s.now)
	}
	p := decide(*s)
	// Who switched on is on record before anybody has access.
	err := r.keep(ctx, s.namespace, standing{setting: s.setting, proven: p.proven}, s.now)
	if err != nil {
		return reconcile.Result{}, err
	}
	if p.wants {
		if p, err = r.make(ctx, *s, p); err != nil {
			return reconcile.Result{}, err
		}
	}
	if err := r.save(ctx, *s, p); err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{RequeueAfter: p.again(s.now)}, nil
}

// overtakenAgain is how soon a setting is looked at again of which the cache had not yet heard the latest.
const overtakenAgain = 20 * time.Millisecond

// sight is everything that a pass has learnt about one setting.
type sight struct {
	now       time.Time
	namespace string
	// setting is nil where it is gone.
	setting *v1alpha1.SupportAccessSetting
	// grants are those that were made because of it.
	grants []v1alpha1.SupportAccessGrant
	// used is the record of its present generation's grant, nil where there is none.
	used *v1alpha1.SupportAccessRecord
	// since and pending say whether admission is in force.
	since   time.Time
	pending string
}

// observe gathers what a decision on a setting needs.
func (r *Reconciler) observe(ctx context.Context, key types.NamespacedName) (*sight, error) {
	s := &sight{now: r.Clock.Now(), namespace: key.Namespace}
	setting := &v1alpha1.SupportAccessSetting{}
	if err := r.Client.Get(ctx, key, setting); err != nil {
		return s, client.IgnoreNotFound(err)
	}
	s.setting = setting
	s.since, s.pending = r.Admission.InForce()
	grants := &v1alpha1.SupportAccessGrantList{}
	if err := r.Client.List(ctx, grants, client.InNamespace(key.Namespace)); err != nil {
		return nil, fmt.Errorf("list grants in %q: %w", key.Namespace, err)
	}
	for i := range grants.Items {
		if ref := grants.Items[i].Spec.SettingRef; ref != nil && ref.UID == s.setting.UID {
			s.grants = append(s.grants, grants.Items[i])
		}
	}
	var err error
	s.used, err = r.recordOf(ctx, r.Client, s.setting)
	return s, err
}

// recordOf reads the record of the grant of a setting's present generation, nil if there is none.
func (r *Reconciler) recordOf(ctx context.Context, reader client.Reader, setting *v1alpha1.SupportAccessSetting) (*v1alpha1.SupportAccessRecord, error) {
	record, key := &v1alpha1.SupportAccessRecord{}, types.NamespacedName{Namespace: setting.Namespace, Name: access.SettingGrantName(setting)}
	err := reader.Get(ctx, key, record)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get record %s: %w", key, err)
	}
	return record, nil
}

// make makes the grant that a setting stands for. It looks at the API server itself before it does: a grant of this
// generation that somebody ended is not made again, and nothing is made of what the cache alone still shows.
func (r *Reconciler) make(ctx context.Context, s sight, p plan) (plan, error) {
	setting := &v1alpha1.SupportAccessSetting{}
	if err := r.Live.Get(ctx, client.ObjectKeyFromObject(s.setting), setting); err != nil {
		return p, fmt.Errorf("get setting %s: %w", client.ObjectKeyFromObject(s.setting), err)
	}
	if setting.UID != s.setting.UID || setting.Generation != s.setting.Generation || !setting.DeletionTimestamp.IsZero() {
		return plan{state: v1alpha1.StateOpening, message: "the setting was changed just now", until: s.now.Add(overtakenAgain)}, nil
	}
	used, err := r.recordOf(ctx, r.Live, setting)
	if err != nil {
		return p, err
	}
	if used != nil {
		s.used = used
		return decide(s), nil
	}
	err = r.Client.Create(ctx, grantOf(setting))
	if err == nil || apierrors.IsAlreadyExists(err) {
		return p, nil
	}
	if apierrors.IsForbidden(err) && strings.Contains(err.Error(), "'support-access-setting-grant'") {
		// The API server judges by its own watch, and that had not yet heard of the setting as it is.
		return plan{state: v1alpha1.StateOpening, message: "the API server is to hear of the setting", until: s.now.Add(overtakenAgain), proven: p.proven}, nil
	}
	if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) {
		return plan{state: v1alpha1.StateRefused, message: clip("no grant could be made: " + err.Error()), until: s.now.Add(lookAgain), proven: p.proven}, nil
	}
	return p, fmt.Errorf("create the grant of setting %s: %w", client.ObjectKeyFromObject(setting), err)
}
