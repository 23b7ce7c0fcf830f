package grant

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/internal/records"
)

// save writes the status if it changed, and reports whether the state did. A grant that is about to vanish is not
// written: nobody could read it.
func (r *Reconciler) save(ctx context.Context, s *sight, verdict lifecycle.Verdict, done outcome) (bool, error) {
	if s.grant == nil {
		return false, nil
	}
	before := s.grant.DeepCopy()
	s.grant.Status = statusOf(s, verdict, done)
	stateChanged := readyReason(before) != readyReason(s.grant)
	s.unannounced = notifiedReason(before) != notifiedReason(s.grant)
	if equality.Semantic.DeepEqual(before.Status, s.grant.Status) {
		return stateChanged, nil
	}
	if vanishing(s, verdict, done) {
		s.unsaved = before
		return stateChanged, nil
	}
	if err := r.writeStatus(ctx, s, before); err != nil {
		return false, err
	}
	return stateChanged, nil
}

// writeStatus writes the status of the grant as it was read: of two passes that see the same change, the second must not
// tell of it again, and one that lags must not take back what a later one has said.
func (r *Reconciler) writeStatus(ctx context.Context, s *sight, before *v1alpha1.SupportAccessGrant) error {
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Status().Patch(ctx, s.grant, patch); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write status of grant %s: %w", s.key, err)
	}
	return nil
}

// saveNonetheless writes the status of a grant that was to vanish and did not.
func (r *Reconciler) saveNonetheless(ctx context.Context, s *sight) error {
	if s.unsaved == nil {
		return nil
	}
	return r.writeStatus(ctx, s, s.unsaved)
}

// vanishing reports whether this pass takes off the last finalizer of a grant that is being deleted.
func vanishing(s *sight, verdict lifecycle.Verdict, done outcome) bool {
	finalizers := s.grant.Finalizers
	return !s.grant.DeletionTimestamp.IsZero() && verdict.Wants == lifecycle.WantsClosed && done.problem == nil &&
		len(finalizers) == 1 && finalizers[0] == v1alpha1.FinalizerGrant
}

func readyReason(grant *v1alpha1.SupportAccessGrant) string {
	ready := meta.FindStatusCondition(grant.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil {
		return ""
	}
	return ready.Reason
}

func notifiedReason(grant *v1alpha1.SupportAccessGrant) string {
	notified := meta.FindStatusCondition(grant.Status.Conditions, v1alpha1.ConditionNotified)
	if notified == nil {
		return ""
	}
	return notified.Reason
}

// statusOf returns the status that a pass leads to. It takes facts from the record and conditions from the verdict; of
// the present status it keeps only what cannot be known otherwise: where credentials are, and since when a condition holds.
func statusOf(s *sight, verdict lifecycle.Verdict, done outcome) v1alpha1.SupportAccessGrantStatus {
	status := *s.grant.Status.DeepCopy()
	status.ObservedGeneration = s.grant.Generation
	status.EngineerNames = records.NamesInLine(s.grant.Spec.Engineers)
	if s.record != nil && !verdict.NameUsed {
		status.Transport = s.record.Spec.Transport
		status.StartTime, status.ExpirationTime = s.record.Status.StartTime, sooner(status.ExpirationTime, s.record.Status.ExpirationTime)
		if end := s.record.Status.EndTime; end != nil {
			at := metav1.NewTime(end.Time)
			at = at.Rfc3339Copy()
			status.EndTime, status.EndReason, status.EndedBy = &at, s.record.Status.EndReason, s.record.Status.EndedBy
		}
	}
	if verdict.NameUsed && status.EndTime == nil {
		at := metav1.NewTime(s.now)
		at = at.Rfc3339Copy()
		status.EndTime, status.EndReason, status.EndedBy = &at, v1alpha1.EndNameUsed, lifecycle.Operator
	}
	status.Engineers = engineersOf(s, verdict, done)
	for _, c := range conditionsOf(s, verdict, done) {
		c.ObservedGeneration = s.grant.Generation
		if c.LastTransitionTime.IsZero() {
			c.LastTransitionTime = metav1.NewTime(s.now)
		}
		meta.SetStatusCondition(&status.Conditions, c)
	}
	for _, abnormal := range []string{v1alpha1.ConditionStalled, v1alpha1.ConditionReconciling} {
		if c := meta.FindStatusCondition(status.Conditions, abnormal); c != nil && c.Status == metav1.ConditionFalse {
			meta.RemoveStatusCondition(&status.Conditions, abnormal)
		}
	}
	return status
}

// sooner returns the earlier of two ends: the cache may not yet have heard that the record's was moved.
func sooner(said, recorded *metav1.Time) *metav1.Time {
	if said != nil && (recorded == nil || said.Before(recorded)) {
		return said
	}
	return recorded
}

// engineersOf returns where each engineer finds the credential. Nothing is left of it once the grant has ended.
func engineersOf(s *sight, verdict lifecycle.Verdict, done outcome) []v1alpha1.EngineerStatus {
	if verdict.Wants != lifecycle.WantsOpen || s.record == nil {
		return nil
	}
	known := map[string]v1alpha1.EngineerStatus{}
	for _, e := range s.grant.Status.Engineers {
		known[e.Name] = e
	}
	for _, c := range done.credentials {
		known[c.Engineer] = engineerStatus(c)
	}
	var out []v1alpha1.EngineerStatus
	for _, name := range verdict.Engineers {
		if e, ok := known[name]; ok {
			if s.throughGateway() {
				e = throughGatewayStatus(s, e, verdict)
			}
			out = append(out, e)
		}
	}
	return out
}

func engineerStatus(c access.Credential) v1alpha1.EngineerStatus {
	dies := metav1.NewTime(c.Expiration)
	e := v1alpha1.EngineerStatus{
		Name: c.Engineer, Username: c.Username, CredentialExpirationTime: &dies, CredentialHash: c.Hash, EncryptedKubeconfig: c.Encrypted,
	}
	if c.SecretName != "" {
		e.CredentialSecretRef = &v1alpha1.SecretKeyReference{
			Namespace: v1alpha1.CredentialsNamespace, Name: c.SecretName, Key: access.KeyKubeconfig,
		}
	}
	return e
}

// conditionsOf returns every condition of a grant. Stalled and Reconciling are False where they are to be absent.
func conditionsOf(s *sight, verdict lifecycle.Verdict, done outcome) []metav1.Condition {
	state, message := verdict.State, verdict.Message
	closed := verdict.Wants == lifecycle.WantsClosed
	if closed && done.problem != nil {
		state, message = v1alpha1.StateClosing, "access is being taken away: "+verdict.Message
	}
	if s.obstructed(verdict, done) && !closed {
		state, message = v1alpha1.StateFailed, publicMessage(done.problem)
	}
	conditions := []metav1.Condition{
		condition(v1alpha1.ConditionReady, ready(state), state, message),
		activeCondition(s, verdict, done),
		approvedCondition(s, verdict),
		provisionedCondition(s, verdict, done),
		verifiedCondition(s, verdict, done),
		condition(v1alpha1.ConditionStalled, stalled(state), state, message),
		condition(v1alpha1.ConditionReconciling, reconciling(state), state, message),
	}
	conditions = append(conditions, notifiedCondition(s, verdict)...)
	return append(conditions, transportConditions(s, verdict)...)
}

// ready says whether the cluster is as a grant in a state demands. An end is as good as an opening: kstatus takes False for
// work in progress, for ever.
func ready(state string) metav1.ConditionStatus {
	switch state {
	case v1alpha1.StateScheduled, v1alpha1.StateAwaitingApproval, v1alpha1.StateActive, v1alpha1.StateExpired, v1alpha1.StateRevoked:
		return metav1.ConditionTrue
	default:
		return metav1.ConditionFalse
	}
}

// stalled says whether a grant in a state waits for a person.
func stalled(state string) metav1.ConditionStatus {
	switch state {
	case v1alpha1.StateDenied, v1alpha1.StateRefused, v1alpha1.StateFailed:
		return metav1.ConditionTrue
	default:
		return metav1.ConditionFalse
	}
}

// reconciling says whether a grant in a state is being opened or closed.
func reconciling(state string) metav1.ConditionStatus {
	switch state {
	case v1alpha1.StateOpening, v1alpha1.StateClosing:
		return metav1.ConditionTrue
	default:
		return metav1.ConditionFalse
	}
}

func activeCondition(s *sight, verdict lifecycle.Verdict, done outcome) metav1.Condition {
	switch {
	case s.provisioned() && verdict.Wants == lifecycle.WantsOpen:
		return condition(v1alpha1.ConditionActive, metav1.ConditionTrue, v1alpha1.StateActive, verdict.Message)
	case done.problem != nil && verdict.Wants == lifecycle.WantsOpen && (done.gave || s.mayExist()):
		return condition(v1alpha1.ConditionActive, metav1.ConditionTrue, v1alpha1.StateOpening, "some of the access may exist: "+publicMessage(done.problem))
	case done.problem != nil && (done.gave || s.provisioned() && !s.ended() || s.mayExist()):
		return condition(v1alpha1.ConditionActive, metav1.ConditionTrue, v1alpha1.StateClosing, "access may still exist: "+publicMessage(done.problem))
	default:
		return condition(v1alpha1.ConditionActive, metav1.ConditionFalse, v1alpha1.ReasonNoAccess, "no access exists")
	}
}

// mayExist reports whether some of the access may exist: the cache shows a binding, or an earlier pass has said so and none
// has come to its end since. The cache may not have seen yet what that one made.
func (s *sight) mayExist() bool {
	return len(s.bindings) > 0 || s.grant != nil && meta.IsStatusConditionTrue(s.grant.Status.Conditions, v1alpha1.ConditionActive)
}

func provisionedCondition(s *sight, verdict lifecycle.Verdict, done outcome) metav1.Condition {
	switch {
	case done.problem != nil:
		return condition(v1alpha1.ConditionProvisioned, metav1.ConditionFalse, reasonOf(done.problem), publicMessage(done.problem))
	case verdict.Wants == lifecycle.WantsClosed:
		return condition(v1alpha1.ConditionProvisioned, metav1.ConditionFalse, v1alpha1.ReasonTakenAway, "nothing of this grant is left")
	case s.provisioned():
		return condition(v1alpha1.ConditionProvisioned, metav1.ConditionTrue, v1alpha1.ReasonProvisioned, "identities, credentials and bindings are in place")
	case verdict.State == v1alpha1.StateFailed:
		return condition(v1alpha1.ConditionProvisioned, metav1.ConditionFalse, v1alpha1.ReasonMissing, verdict.Message)
	default:
		return condition(v1alpha1.ConditionProvisioned, metav1.ConditionFalse, v1alpha1.ReasonNotYet, "access has not been opened")
	}
}

func verifiedCondition(s *sight, verdict lifecycle.Verdict, done outcome) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionVerified, Status: metav1.ConditionUnknown, Reason: v1alpha1.ReasonNotYet, Message: "it is asked when the grant has ended"}
	switch {
	case !s.ended() || verdict.NameUsed:
	case s.unconfirmed() != "":
		c.Reason, c.Message = v1alpha1.ReasonNotConfirmed, clip("the gateway has not said that nobody is connected any more: "+s.unconfirmed())
	case s.record.Status.VerifiedTime != nil || s.record.Status.ProvisionedTime == nil:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, v1alpha1.ReasonNoAccess, "the API server says that no engineer of this grant may do anything"
		if s.record.Status.ProvisionedTime == nil {
			c.Message = "access was never given"
		}
	case done.leftover != "":
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v1alpha1.ReasonAccessRemains, clip(done.leftover)
	default:
		c.Reason, c.Message = v1alpha1.ReasonCouldNotAsk, "the API server could not yet be asked"
	}
	return c
}

func condition(kind string, status metav1.ConditionStatus, reason, message string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: clip(message)}
}

func reasonOf(err error) string {
	if access.IsNameTaken(err) {
		return v1alpha1.ReasonNameTaken
	}
	return v1alpha1.ReasonError
}

// publicMessage returns what of an error may be shown: the API server's messages name objects and rules, never content.
func publicMessage(err error) string {
	if taken, ok := errors.AsType[*access.NameTakenError](err); ok {
		return taken.Error()
	}
	return clip(err.Error())
}
