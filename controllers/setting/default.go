package setting

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/internal/partial"
	"supportaccess.dev/operator/internal/policies"
	"supportaccess.dev/operator/internal/records"
)

// Defaults makes the settings of namespaces that come under a policy with enabledByDefault, each once. What becomes of such
// a setting is as with any other.
type Defaults struct {
	// Client reads from the cache and writes.
	Client client.Client
	// Live reads from the API server itself, before a setting is made.
	Live client.Reader
	// Admission says whether anything may be made.
	Admission Admission
	// Recorder announces changes as Kubernetes Events.
	Recorder events.EventRecorder
	// Clock is read once a pass.
	Clock clock.PassiveClock
}

const (
	// makeWithin is for how long after it was put on record a setting may still be made that is not there: long enough for an
	// operator that died between the two. After that it may be one that somebody has deleted.
	makeWithin = time.Minute
	// clocksDiffer is how much earlier than duration says a setting ends, so that the API server finds it within its limits.
	clocksDiffer = 10 * time.Second
)

// SetupWithManager registers the controller and what it watches. Whoever deletes the kind of policies keeps no other
// controller from working.
func (r *Defaults) SetupWithManager(mgr ctrl.Manager) error {
	toPolicy := handler.TypedEnqueueRequestForObject[client.Object]{}
	return ctrl.NewControllerManagedBy(mgr).Named("setting-default").
		WatchesRawSource(policies.Unawaited{Source: source.Kind(mgr.GetCache(), client.Object(&v1alpha1.SupportAccessPolicy{}), &toPolicy)}).
		WatchesMetadata(partial.Object("Namespace"), handler.EnqueueRequestsFromMapFunc(policyOfNamespace), builder.WithPredicates(partial.NamespaceChanged())).
		WithOptions(controller.Options{MaxConcurrentReconciles: 1, ReconciliationTimeout: time.Minute}).
		Complete(r)
}

// policyOfNamespace maps a namespace to its policy.
func policyOfNamespace(_ context.Context, o client.Object) []reconcile.Request {
	return []reconcile.Request{{NamespacedName: client.ObjectKey{Name: policies.NameOf(o)}}}
}

// Reconcile switches on what has come under one policy.
func (r *Defaults) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	policy := &v1alpha1.SupportAccessPolicy{}
	if err := r.Client.Get(ctx, request.NamespacedName, policy); err != nil {
		if apimeta.IsNoMatchError(err) {
			return reconcile.Result{}, nil
		}
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if policy.Spec.EnabledByDefault == nil {
		return reconcile.Result{}, nil
	}
	guard := lifecycle.Guard{Now: r.Clock.Now()}
	guard.Since, guard.Pending = r.Admission.InForce()
	refused := standingOf(policy, guard)
	if err := r.save(ctx, policy, guard, refused); err != nil {
		if apierrors.IsConflict(err) {
			return reconcile.Result{RequeueAfter: overtakenAgain}, nil
		}
		return reconcile.Result{}, err
	}
	if refused.reason != "" {
		return reconcile.Result{RequeueAfter: refused.again}, nil
	}
	return reconcile.Result{RequeueAfter: lookAlways}, r.enableAll(ctx, policy, guard.Now)
}

// refusal is why nothing is switched on by a policy. Without a reason it is.
type refusal struct {
	reason, message string
	again           time.Duration
}

// standingOf says whether a policy switches on.
func standingOf(policy *v1alpha1.SupportAccessPolicy, guard lifecycle.Guard) refusal {
	switch {
	case guard.Pending != "":
		return refusal{v1alpha1.StateAdmissionNotInForce, guard.Pending, lookAgain}
	case !proofOf(policy).Of(writtenOf(policy), guard):
		return refusal{v1alpha1.StateRefused, "who wrote this is not proven: it was written before the admission policies were in force, or the operator did not see it then: write it again", lookAlways}
	case policy.Spec.NewGrants == v1alpha1.NewGrantsSuspended:
		return refusal{v1alpha1.StateRefused, "new grants are suspended (newGrants)", lookAlways}
	default:
		return refusal{}
	}
}

func proofOf(policy *v1alpha1.SupportAccessPolicy) lifecycle.Proof {
	status := policy.Status
	return lifecycle.Proof{Seen: status.SeenGeneration, Proven: status.ProvenGeneration, GuardedSince: status.GuardedSince}
}

func writtenOf(policy *v1alpha1.SupportAccessPolicy) lifecycle.Written {
	return lifecycle.Written{Created: policy.CreationTimestamp.Time, Generation: policy.Generation}
}

// save writes the policy's status if it changed.
func (r *Defaults) save(ctx context.Context, before *v1alpha1.SupportAccessPolicy, guard lifecycle.Guard, refused refusal) error {
	after := before.DeepCopy()
	proof := proofOf(before).Next(writtenOf(before), guard)
	after.Status.SeenGeneration, after.Status.ProvenGeneration, after.Status.GuardedSince = proof.Seen, proof.Proven, proof.GuardedSince
	says := metav1.Condition{
		Type: v1alpha1.ConditionEnabledByDefault, Status: metav1.ConditionTrue, Reason: v1alpha1.SettingOn,
		Message: "namespaces made since " + before.Spec.EnabledByDefault.CreatedSince.UTC().Format(time.RFC3339) + " are switched on once",
	}
	if refused.reason != "" {
		says.Status, says.Reason, says.Message = metav1.ConditionFalse, refused.reason, clip(refused.message)
	}
	says.ObservedGeneration, says.LastTransitionTime = before.Generation, metav1.NewTime(guard.Now)
	apimeta.SetStatusCondition(&after.Status.Conditions, says)
	if equality.Semantic.DeepEqual(before.Status, after.Status) {
		return nil
	}
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Status().Patch(ctx, after, patch); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write status of policy %q: %w", before.Name, err)
	}
	return nil
}

// enableAll switches on whatever has come under the policy and was never on. One namespace does not keep the others waiting.
func (r *Defaults) enableAll(ctx context.Context, policy *v1alpha1.SupportAccessPolicy, now time.Time) error {
	namespaces := partial.List("Namespace")
	if err := r.Client.List(ctx, namespaces); err != nil {
		return fmt.Errorf("list namespaces: %w", err)
	}
	var errs []error
	for i := range namespaces.Items {
		if comesUnder(&namespaces.Items[i], policy) {
			errs = append(errs, r.enable(ctx, policy, namespaces.Items[i].Name, now))
		}
	}
	return errors.Join(errs...)
}

// comesUnder reports whether a policy switches a namespace on, if it was never switched.
func comesUnder(namespace *metav1.PartialObjectMetadata, policy *v1alpha1.SupportAccessPolicy) bool {
	ours := []string{v1alpha1.SystemNamespace, v1alpha1.CredentialsNamespace}
	return policies.NameOf(namespace) == policy.Name && namespace.DeletionTimestamp.IsZero() &&
		!namespace.CreationTimestamp.Before(&policy.Spec.EnabledByDefault.CreatedSince) &&
		!slices.Contains(policy.Spec.ProtectedNamespaces, namespace.Name) && !slices.Contains(ours, namespace.Name)
}

// enable switches one namespace on, if it never had a setting. That it does is on record before: a setting that is deleted
// does not come back.
func (r *Defaults) enable(ctx context.Context, policy *v1alpha1.SupportAccessPolicy, namespace string, now time.Time) error {
	record, err := recordOfSetting(ctx, r.Client, namespace)
	if err != nil || record != nil && !unfinished(record, now) {
		return err
	}
	setting := settingBy(policy, namespace, now)
	err = r.Live.Get(ctx, client.ObjectKeyFromObject(setting), &v1alpha1.SupportAccessSetting{})
	if err == nil || !apierrors.IsNotFound(err) {
		// Who has one of their own is asked nothing.
		return err
	}
	if record == nil {
		if record, err = r.begin(ctx, policy, setting, now); err != nil || record == nil {
			return err
		}
	}
	err = r.Client.Create(ctx, setting)
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("switch %q on by default: %w", namespace, err)
	}
	r.Recorder.Eventf(setting, nil, corev1.EventTypeNormal, v1alpha1.TransitionEnabledByDefault, "Create", "policy %s switches support access on: %s", policy.Name, saysOn(setting))
	return r.finish(ctx, record, setting, now)
}

// unfinished reports whether a setting was to be made by default just now and nobody has seen it.
func unfinished(record *v1alpha1.SupportAccessRecord, now time.Time) bool {
	by := record.Status.EnabledByDefault
	return by != nil && record.Status.Setting == nil && len(record.Status.Transitions) == 1 && now.Before(by.Time.Add(makeWithin))
}

// begin asks the API server whether it would take the setting, and then puts on record that it is made. Nil means that
// another has put something on record.
func (r *Defaults) begin(ctx context.Context, policy *v1alpha1.SupportAccessPolicy, setting *v1alpha1.SupportAccessSetting, now time.Time) (*v1alpha1.SupportAccessRecord, error) {
	if err := r.Client.Create(ctx, setting.DeepCopy(), client.DryRunAll); err != nil {
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil, nil
		}
		if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) {
			r.Recorder.Eventf(policy, nil, corev1.EventTypeWarning, v1alpha1.StateRefused, "Create", "%s", clip(fmt.Sprintf("namespace %s cannot be switched on: %v", setting.Namespace, err)))
		}
		return nil, fmt.Errorf("try to switch %q on by default: %w", setting.Namespace, err)
	}
	record := newRecord(setting.Namespace)
	record.Status.EnabledByDefault = &v1alpha1.RecordedDefault{Policy: policy.Name, Time: metav1.NewMicroTime(now)}
	add(record, now, v1alpha1.Transition{
		Type: v1alpha1.TransitionEnabledByDefault, By: setting.Spec.SwitchedBy, Message: "by policy " + policy.Name + ": " + saysOn(setting),
	})
	records.Fit(record)
	if err := r.Client.Create(ctx, record); err != nil {
		return nil, fmt.Errorf("put on record that %q is switched on by default: %w", setting.Namespace, err)
	}
	return record, nil
}

// finish puts on record that the setting is there, unless another has done so.
func (r *Defaults) finish(ctx context.Context, record *v1alpha1.SupportAccessRecord, setting *v1alpha1.SupportAccessSetting, now time.Time) error {
	made := record.DeepCopy()
	made.Status.Setting = switchOf(setting, now)
	if err := r.Client.Update(ctx, made); err != nil && !apierrors.IsConflict(err) {
		return fmt.Errorf("put on record that %q was switched on by default: %w", setting.Namespace, err)
	}
	return nil
}

// settingBy renders the setting that a policy gives to a namespace.
func settingBy(policy *v1alpha1.SupportAccessPolicy, namespace string, now time.Time) *v1alpha1.SupportAccessSetting {
	by := policy.Spec.EnabledByDefault
	until := metav1.NewTime(now.Add(by.Duration.OrZero() - clocksDiffer).Truncate(time.Second))
	return &v1alpha1.SupportAccessSetting{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: v1alpha1.SettingName},
		Spec: v1alpha1.SupportAccessSettingSpec{
			EnabledUntil: &until, Engineers: by.Engineers, Roles: by.Roles, Transport: by.Transport, Reason: by.Reason, SwitchedBy: by.SwitchedBy,
		},
	}
}
