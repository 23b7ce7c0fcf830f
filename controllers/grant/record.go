package grant

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/internal/records"
	"supportaccess.dev/operator/internal/review"
)

// maxTransitions is how many transitions a record keeps; the first and the latest matter most.
const maxTransitions = 128

// createRecord puts a grant on record. It never overwrites: where there is one already, the next pass reads it.
func (r *Reconciler) createRecord(ctx context.Context, s *sight, verdict lifecycle.Verdict) error {
	record := newRecord(s, verdict)
	err := r.Client.Create(ctx, record)
	if apierrors.IsAlreadyExists(err) {
		return &staleError{what: "record " + s.key.String()}
	}
	if err != nil {
		return fmt.Errorf("create record %s: %w", s.key, err)
	}
	s.record = record
	return nil
}

// newRecord renders the record of a grant as first seen.
func newRecord(s *sight, verdict lifecycle.Verdict) *v1alpha1.SupportAccessRecord {
	spec := s.grant.Spec
	created := s.grant.CreationTimestamp
	record := &v1alpha1.SupportAccessRecord{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.key.Namespace,
			Name:      s.key.Name,
			Labels: map[string]string{
				v1alpha1.LabelManaged: "true", v1alpha1.LabelGrant: s.key.Name, v1alpha1.LabelGrantNamespace: s.key.Namespace,
			},
		},
		Spec: v1alpha1.SupportAccessRecordSpec{
			Grant: v1alpha1.RecordedGrant{
				Namespace: s.key.Namespace, Name: s.key.Name, UID: s.grant.UID,
				SpecDigest: lifecycle.SpecDigest(spec), CreationTime: &created,
			},
			GrantedBy: spec.GrantedBy, ClaimedAuthor: clip(s.grant.Annotations[v1alpha1.AnnotationAuthor]), Case: spec.Case, Reason: spec.Reason, Roles: spec.Roles, Scope: spec.Scope,
			Transport: s.transport(), Policy: s.policies[s.key.Namespace].Name, SettingRef: spec.SettingRef, RequestRef: spec.RequestRef,
		},
	}
	for _, e := range spec.Engineers {
		record.Spec.Engineers = append(record.Spec.Engineers, e.Name)
	}
	addTransition(record, s.now, v1alpha1.TransitionGranted, orUnknown(spec.GrantedBy), spec.Reason)
	recordApprovals(record, verdict, s.now)
	recordInstants(record, verdict, s.now)
	if verdict.End != nil {
		recordEndOf(record, *verdict.End, s.now)
	}
	return record
}

// updateRecord changes the record in one write that fails if somebody else wrote it since it was read.
func (r *Reconciler) updateRecord(ctx context.Context, s *sight, change func(*v1alpha1.SupportAccessRecord)) error {
	record := s.record.DeepCopy()
	change(record)
	records.Fit(record)
	if err := r.Client.Update(ctx, record); err != nil {
		return fmt.Errorf("update record %s/%s: %w", record.Namespace, record.Name, err)
	}
	records.Whole(record)
	s.record = record
	return nil
}

// recordInstants stores when access starts and ends, once they are known.
func recordInstants(record *v1alpha1.SupportAccessRecord, verdict lifecycle.Verdict, now time.Time) {
	if record.Status.StartTime == nil {
		record.Status.StartTime = instant(verdict.Start)
	}
	if verdict.Shortened != nil {
		addTransition(record, now, v1alpha1.TransitionShortened, verdict.Shortened.By, verdict.Shortened.Message)
	}
	if at := instant(verdict.Expiration); at != nil && (record.Status.ExpirationTime == nil || at.Before(record.Status.ExpirationTime)) {
		record.Status.ExpirationTime = at
	}
}

// recordOpening stores that access was given, by which bindings, and what it allows. It is the last write of opening:
// only from here on does a missing binding count as taken away.
func (r *Reconciler) recordOpening(ctx context.Context, s *sight, verdict lifecycle.Verdict, opened access.Opened) error {
	return r.updateRecord(ctx, s, func(record *v1alpha1.SupportAccessRecord) {
		recordApprovals(record, verdict, s.now)
		recordInstants(record, verdict, s.now)
		recordRemovals(record, verdict, s.now)
		at := metav1.NewMicroTime(r.Clock.Now())
		record.Status.ProvisionedTime, record.Status.Bindings = &at, opened.Bindings
		for _, name := range record.Spec.Roles {
			if role := s.roles[name]; role != nil {
				record.Status.Rules = append(record.Status.Rules, v1alpha1.RecordedRules{Role: name, Digest: review.RulesDigest(role.Rules)})
			}
		}
		record.Status.AmbientBindings = s.ambient
		addTransition(record, at.Time, v1alpha1.TransitionOpened, lifecycle.Operator,
			fmt.Sprintf("access is open until %s", verdict.Expiration.UTC().Format(time.RFC3339)))
	})
}

// recordChanges stores what changed about an open grant: its end, its people, its places, its roles. It writes nothing
// where nothing changed.
func (r *Reconciler) recordChanges(ctx context.Context, s *sight, verdict lifecycle.Verdict) error {
	changed := s.record.DeepCopy()
	recordInstants(changed, verdict, s.now)
	recordRemovals(changed, verdict, s.now)
	recordWithdrawals(changed, s, verdict)
	recordRoleChanges(changed, s)
	recordFirstUses(changed, s.sessions)
	if len(changed.Status.Transitions) == len(s.record.Status.Transitions) && changed.Status.DroppedTransitions == s.record.Status.DroppedTransitions {
		return nil
	}
	if err := r.keepAllRules(ctx, s); err != nil {
		return err
	}
	return r.updateRecord(ctx, s, func(record *v1alpha1.SupportAccessRecord) { *record = *changed })
}

// closingTooLong is for how long it may go wrong to take access away before people are told: the API server may have been
// away for a moment.
const closingTooLong = time.Minute

// recordFailure stores that access which has ended could not be taken away for too long, and why. It is said once, for the
// grant's conditions say whether that is still so. Since when it goes wrong is known in memory alone.
func (r *Reconciler) recordFailure(ctx context.Context, s *sight, problem error) error {
	uid := s.record.Spec.Grant.UID
	if problem == nil {
		r.failing.Delete(uid)
		return nil
	}
	if overtaken(problem) {
		return nil
	}
	since, _ := r.failing.LoadOrStore(uid, s.now)
	if s.now.Sub(since.(time.Time)) < closingTooLong || happenedTo(s.record, v1alpha1.TransitionClosingFailed) {
		return nil
	}
	return r.updateRecord(ctx, s, func(record *v1alpha1.SupportAccessRecord) {
		addTransition(record, s.now, v1alpha1.TransitionClosingFailed, lifecycle.Operator, "access that has ended could not be taken away: "+publicMessage(problem))
	})
}

func happenedTo(record *v1alpha1.SupportAccessRecord, kind string) bool {
	return slices.ContainsFunc(record.Status.Transitions, func(t v1alpha1.Transition) bool { return t.Type == kind })
}

func recordRemovals(record *v1alpha1.SupportAccessRecord, verdict lifecycle.Verdict, now time.Time) {
	for _, removal := range verdict.Removed {
		if slices.ContainsFunc(record.Status.RemovedEngineers, func(e v1alpha1.RemovedEngineer) bool { return e.Name == removal.Engineer }) {
			continue
		}
		record.Status.RemovedEngineers = append(record.Status.RemovedEngineers, v1alpha1.RemovedEngineer{
			Name: removal.Engineer, Time: metav1.NewMicroTime(now), By: removal.By,
		})
		addTransition(record, now, v1alpha1.TransitionEngineerRemoved, removal.By, removal.Engineer+" "+removal.Message)
	}
}

func recordWithdrawals(record *v1alpha1.SupportAccessRecord, s *sight, verdict lifecycle.Verdict) {
	for i := range record.Status.Bindings {
		b := &record.Status.Bindings[i]
		if b.Withdrawn || slices.Contains(verdict.Namespaces, b.Namespace) {
			continue
		}
		b.Withdrawn = true
		message := fmt.Sprintf("role %s in namespace %q", b.Role, b.Namespace)
		for _, w := range s.world.Withdrawn {
			if w.Namespace == b.Namespace {
				message = w.Message
			}
		}
		if s.gone(b.Namespace) {
			message += ": the namespace was deleted"
		}
		addTransition(record, s.now, v1alpha1.TransitionBindingWithdrawn, lifecycle.Unknown, message)
	}
}

// recordRoleChanges stores that a ClusterRole allows something else than when access opened, allowed or not.
func recordRoleChanges(record *v1alpha1.SupportAccessRecord, s *sight) {
	for i := range record.Status.Rules {
		rules := &record.Status.Rules[i]
		role := s.roles[rules.Role]
		if role == nil {
			continue
		}
		if digest := review.RulesDigest(role.Rules); digest != rules.Digest {
			addTransition(record, s.now, v1alpha1.TransitionRoleChanged, lifecycle.Unknown,
				// The names come first: where a record must be made small, a message loses its end.
				fmt.Sprintf("what was allowed is in %s, what is allowed now in %s: ClusterRole %s was changed",
					records.RulesName(rules.Digest), records.RulesName(digest), rules.Role))
			rules.Digest = digest
		}
	}
}

// recordEnd asks the API server for evidence that nothing is left, and stores that the grant has ended.
func (r *Reconciler) recordEnd(ctx context.Context, s *sight, verdict lifecycle.Verdict) outcome {
	leftover, askErr := "", error(nil)
	if s.provisioned() {
		leftover, askErr = r.Keeper.Leftover(ctx, access.PeopleOf(s.record), s.record.Spec.Engineers, s.probes())
	}
	err := r.updateRecord(ctx, s, func(record *v1alpha1.SupportAccessRecord) {
		recordApprovals(record, verdict, s.now)
		recordRemovals(record, verdict, s.now)
		recordInstants(record, verdict, s.now)
		at := r.Clock.Now()
		recordEndOf(record, *verdict.End, at)
		if record.Status.ProvisionedTime != nil && leftover == "" && askErr == nil {
			recordVerified(record, at)
		}
	})
	if apierrors.IsNotFound(err) {
		// The record went with its namespace. The end is kept where nothing is deleted with it.
		tombstone := s.record.DeepCopy()
		recordEndOf(tombstone, *verdict.End, r.Clock.Now())
		err = r.createTombstone(ctx, tombstone)
	}
	if err != nil {
		return outcome{problem: err}
	}
	r.Counters.Ended(s.tookAway(verdict, r.Clock.Now()))
	if leftover != "" || askErr != nil {
		return outcome{leftover: leftover, again: s.now.Add(time.Second)}
	}
	return outcome{}
}

// tookAway returns how long it took to take access away: from the instant of its expiration, and for all other ends from
// when the operator heard of it. What follows the bindings gives nobody anything.
func (s *sight) tookAway(verdict lifecycle.Verdict, now time.Time) time.Duration {
	asked, gone := s.now, now
	if !s.cut.gone.IsZero() {
		asked, gone = s.cut.heard, s.cut.gone
	}
	if verdict.End.Reason == v1alpha1.EndExpired {
		asked = verdict.Expiration
	}
	return gone.Sub(asked)
}

// createTombstone keeps a record in the operator's namespace. One that is there already says as much.
func (r *Reconciler) createTombstone(ctx context.Context, record *v1alpha1.SupportAccessRecord) error {
	tombstone := lifecycle.Mirror(record, v1alpha1.SystemNamespace)
	records.Fit(tombstone)
	if err := r.Client.Create(ctx, tombstone); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create tombstone of %s/%s: %w", record.Namespace, record.Name, err)
	}
	return nil
}

// show puts the record where the admins of the other namespaces that the grant reaches can see it, and its roles' rules
// where they stay readable, before access is given. The record controller keeps the copies as the record is.
func (r *Reconciler) show(ctx context.Context, s *sight) error {
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, place := range lifecycle.MirrorPlaces(s.record) {
		group.Go(func() error { return r.showIn(groupCtx, s, place) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return r.keepAllRules(ctx, s)
}

// showIn makes one copy of the record, unless an earlier pass did.
func (r *Reconciler) showIn(ctx context.Context, s *sight, place string) error {
	mirror := lifecycle.Mirror(s.record, place)
	if err := r.Client.Get(ctx, client.ObjectKeyFromObject(mirror), &v1alpha1.SupportAccessRecord{}); err == nil {
		return nil
	}
	if err := r.Client.Create(ctx, mirror); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("show record %s in %q: %w", s.key, place, err)
	}
	return nil
}

// keepAllRules stores what the roles of a grant allow.
func (r *Reconciler) keepAllRules(ctx context.Context, s *sight) error {
	for _, name := range s.roleNames() {
		role := s.roles[name]
		if role == nil {
			continue
		}
		if err := r.Rules.Keep(ctx, role.Rules); err != nil {
			return fmt.Errorf("keep the rules of ClusterRole %q: %w", name, err)
		}
	}
	return nil
}

// verifyFor is for how long after the end the API server is asked again whether an identity may still do something.
const verifyFor = time.Hour

// verify asks again, for a grant that has ended and of which it is not yet proven that nothing is left.
func (r *Reconciler) verify(ctx context.Context, s *sight) outcome {
	status := s.record.Status
	if status.ProvisionedTime == nil || status.VerifiedTime != nil || s.now.Sub(status.EndTime.Time) > verifyFor {
		return outcome{}
	}
	leftover, err := r.Keeper.Leftover(ctx, access.PeopleOf(s.record), s.record.Spec.Engineers, s.probes())
	if err != nil || leftover != "" {
		return outcome{leftover: leftover, again: s.now.Add(time.Minute)}
	}
	return outcome{problem: r.updateRecord(ctx, s, func(record *v1alpha1.SupportAccessRecord) { recordVerified(record, r.Clock.Now()) })}
}

func recordVerified(record *v1alpha1.SupportAccessRecord, now time.Time) {
	at := metav1.NewMicroTime(now)
	record.Status.VerifiedTime = &at
	addTransition(record, now, v1alpha1.TransitionVerified, lifecycle.Operator, "the API server says that no engineer may do anything any more")
}

// maxProbes is how many requests are asked about for each engineer, where there are more: one in each place then, of one
// role after the other.
const maxProbes = 64

// probes are requests that engineers could make while the grant was open: the first that each of its roles allows, in
// each of its places.
func (s *sight) probes() []access.Probe {
	var probes []access.Probe
	namespaces, roles := lifecycle.ScopeOf(s.record.Spec.Scope, s.record.Spec.Grant.Namespace), s.record.Spec.Roles
	for i, namespace := range namespaces {
		asked := roles
		if len(namespaces)*len(roles) > maxProbes {
			asked = roles[i%len(roles):][:1]
		}
		for _, name := range asked {
			probes = append(probes, s.probeOf(namespace, name))
		}
	}
	return slices.Compact(probes)
}

// probeOf returns the first request that a role allows in a namespace.
func (s *sight) probeOf(namespace, name string) access.Probe {
	role := s.roles[name]
	if role == nil || len(role.Rules) == 0 || len(role.Rules[0].Resources) == 0 {
		return access.Probe{Namespace: namespace, Verb: "get", Resource: "configmaps"}
	}
	rule := role.Rules[0]
	return access.Probe{Namespace: namespace, Verb: rule.Verbs[0], Group: rule.APIGroups[0], Resource: rule.Resources[0]}
}

func recordEndOf(record *v1alpha1.SupportAccessRecord, end lifecycle.End, now time.Time) {
	at := metav1.NewMicroTime(now)
	record.Status.EndTime, record.Status.EndReason, record.Status.EndedBy = &at, end.Reason, end.By
	record.Status.EndMessage = clip(end.Message)
	addTransition(record, now, end.Reason, end.By, end.Message)
	if record.Spec.Transport == v1alpha1.TransportDirect && record.Status.ProvisionedTime != nil {
		record.Status.LeftBehind = &v1alpha1.LeftBehind{Time: at, Unknown: "engineers came by the transport Direct: what they did, only the API server's own audit log says"}
	}
}

// addTransition appends a transition; past the limit it counts it, so that the record stays readable and bounded.
func addTransition(record *v1alpha1.SupportAccessRecord, now time.Time, kind, by, message string) {
	if len(record.Status.Transitions) >= maxTransitions {
		record.Status.DroppedTransitions++
		record.Status.Transitions = record.Status.Transitions[:maxTransitions-1]
	}
	record.Status.Transitions = append(record.Status.Transitions, v1alpha1.Transition{
		Time: metav1.NewMicroTime(now), Type: kind, By: by, Message: clip(message),
	})
}

func clip(message string) string { return records.Clip(message, records.MaxMessage) }

func orUnknown(by string) string {
	if by == "" {
		return lifecycle.Unknown
	}
	return by
}

// instant returns a time as the API stores it, nil for none.
func instant(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	at := metav1.NewTime(t.Truncate(time.Second))
	return &at
}
