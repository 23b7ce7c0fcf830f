package grant

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/internal/records"
)

// outcome is what a pass did: what the status needs beside the verdict.
type outcome struct {
	// credentials are those that this pass made or renewed.
	credentials []access.Credential
	// again is when to look again besides the verdict's own instant, zero for never.
	again time.Time
	// leftover is why an identity of an ended grant may still do something, as the API server says it.
	leftover string
	// problem is an error of the pass that the status shows.
	problem error
	// gave says that some of the access may exist, because the pass did not come to its end.
	gave bool
}

// Reconcile brings the cluster to what one grant demands now.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	s, err := r.glance(ctx, request.NamespacedName)
	if err != nil {
		return reconcile.Result{}, err
	}
	if r.cutFirst(ctx, s) {
		return behind(), nil
	}
	if verdict := r.foresee(s); verdict.Wants == lifecycle.WantsOpen && !r.room.enter(s.key) {
		return r.next(s, verdict, outcome{})
	}
	defer r.room.leave(s.key)
	return r.look(ctx, s)
}

// look looks at a grant, does what it demands and says so.
func (r *Reconciler) look(ctx context.Context, s *sight) (reconcile.Result, error) {
	err := r.observe(ctx, s)
	if overtaken(err) {
		return reconcile.Result{RequeueAfter: overtakenAgain}, nil
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	verdict := lifecycle.Decide(s.facts())
	done := r.enact(ctx, s, &verdict)
	if overtaken(done.problem) {
		return reconcile.Result{RequeueAfter: overtakenAgain}, nil
	}
	changed, err := r.save(ctx, s, verdict, done)
	if overtaken(err) {
		return reconcile.Result{RequeueAfter: overtakenAgain}, nil
	}
	if err != nil {
		return reconcile.Result{}, errors.Join(done.problem, err)
	}
	// A grant that vanishes is told of once it has: until then its status does not say so.
	if changed && s.unsaved == nil {
		r.announce(ctx, s, verdict, done)
	}
	if s.unannounced && s.unsaved == nil {
		r.announceNotified(s)
	}
	err = r.release(ctx, s, verdict, done)
	if overtaken(err) {
		return reconcile.Result{RequeueAfter: overtakenAgain}, nil
	}
	if err != nil {
		return reconcile.Result{}, errors.Join(done.problem, err, r.saveNonetheless(ctx, s))
	}
	if changed && s.unsaved != nil {
		r.announce(ctx, s, verdict, done)
	}
	return r.next(s, verdict, done)
}

// overtakenAgain is how soon a pass is tried again that knew less than the API server.
const overtakenAgain = 20 * time.Millisecond

// overtaken reports whether a pass failed because the cache lagged behind what an earlier pass wrote. Nothing is wrong
// then, and there is nothing to tell.
func overtaken(err error) bool {
	var stale *staleError
	return apierrors.IsConflict(err) || errors.As(err, &stale)
}

// staleError says that the cache had not yet seen an object that is there.
type staleError struct{ what string }

// Error says which object it is.
func (e *staleError) Error() string { return e.what + " is there, and the cache had not yet seen it" }

// mendAgain is how soon a grant is looked at again that waits for a person to mend what no watch tells of: the address of
// the API server, or an object in the grant's way.
const mendAgain = 10 * time.Second

// next says when to come back: at the instant at which the verdict changes, or earlier where something is due. It is counted
// from now, not from when the pass began: a pass that took long would come back as late.
func (r *Reconciler) next(s *sight, verdict lifecycle.Verdict, done outcome) (reconcile.Result, error) {
	if done.problem != nil && !s.obstructed(verdict, done) {
		return reconcile.Result{}, done.problem
	}
	at := earlier(verdict.Until, done.again)
	if verdict.State == v1alpha1.StateFailed || done.problem != nil {
		at = earlier(at, s.now.Add(mendAgain))
	}
	if at.IsZero() {
		return reconcile.Result{}, nil
	}
	priority := priorityOpen
	if at.Equal(verdict.Expiration) {
		priority = priorityEnd
	}
	return reconcile.Result{RequeueAfter: max(at.Sub(r.Clock.Now()), time.Millisecond), Priority: &priority}, nil
}

// obstructed reports whether a pass met what a person must first remove: an object under a name of ours, or, on the way of
// opening, a quota or another rule that forbids an object of ours.
func (s *sight) obstructed(verdict lifecycle.Verdict, done outcome) bool {
	opening := verdict.Wants == lifecycle.WantsOpen && !s.provisioned()
	return access.IsNameTaken(done.problem) || opening && apierrors.IsForbidden(done.problem)
}

// enact does what a verdict wants.
func (r *Reconciler) enact(ctx context.Context, s *sight, verdict *lifecycle.Verdict) outcome {
	switch verdict.Wants {
	case lifecycle.WantsOpen:
		if s.provisioned() {
			return r.keepOpen(ctx, s, *verdict)
		}
		return r.open(ctx, s, verdict)
	case lifecycle.WantsClosed:
		return r.close(ctx, s, *verdict)
	default:
		return r.settle(ctx, s, *verdict)
	}
}

// settle makes sure that a grant which may not open yet is on record: its name is used from now on, and its instants
// are fixed as soon as they are known.
func (r *Reconciler) settle(ctx context.Context, s *sight, verdict lifecycle.Verdict) outcome {
	if s.record == nil {
		return outcome{problem: r.createRecord(ctx, s, verdict)}
	}
	if verdict.Wants == lifecycle.WantsNothing {
		if err := r.dropBegun(ctx, s); err != nil {
			return outcome{problem: err}
		}
	}
	if err := r.dropRemoved(ctx, s, verdict); err != nil {
		return outcome{problem: err}
	}
	settled := s.record.Status.ExpirationTime.Equal(instant(verdict.Expiration)) || verdict.Expiration.IsZero()
	if settled && len(verdict.Removed) == len(s.record.Status.RemovedEngineers) && approvalsRecorded(s.record, verdict) {
		return outcome{}
	}
	return outcome{problem: r.updateRecord(ctx, s, func(record *v1alpha1.SupportAccessRecord) {
		recordApprovals(record, verdict, s.now)
		recordInstants(record, verdict, s.now)
		recordRemovals(record, verdict, s.now)
	})}
}

// dropRemoved takes away what a pass that died in the middle of opening made for people who were taken off since. Until that
// is on record it asks the API server, whatever the cache shows.
func (r *Reconciler) dropRemoved(ctx context.Context, s *sight, verdict lifecycle.Verdict) error {
	for _, removal := range verdict.Removed {
		name := access.IdentityName(s.record.Spec.Grant, removal.Engineer)
		if s.takenOff(removal.Engineer) && !s.shows(name) {
			continue
		}
		if err := r.Keeper.DismantleOwn(ctx, s.record.Spec.Grant, name); err != nil {
			return fmt.Errorf("take %q off: %w", removal.Engineer, err)
		}
	}
	return nil
}

// takenOff reports whether it is on record that an engineer was taken off.
func (s *sight) takenOff(engineer string) bool {
	return slices.ContainsFunc(s.record.Status.RemovedEngineers, func(e v1alpha1.RemovedEngineer) bool { return e.Name == engineer })
}

// shows reports whether the cache has something of an identity.
func (s *sight) shows(name string) bool {
	return s.credentials[name] != nil || s.accounts[name] != nil || s.readers[name]
}

// open gives access, in the order that a crash at any line leaves safe: no access without a record, none without the
// finalizer that holds the grant, and none on the word of a cache.
func (r *Reconciler) open(ctx context.Context, s *sight, verdict *lifecycle.Verdict) outcome {
	if problem := r.inTheWay(s); problem != nil {
		return outcome{problem: problem}
	}
	held := controllerutil.ContainsFinalizer(s.grant, v1alpha1.FinalizerGrant)
	if err := r.begin(ctx, s, *verdict); err != nil {
		return outcome{problem: err, gave: held && r.mayHaveBegun(ctx, s)}
	}
	if s.provisioned() {
		return outcome{problem: &staleError{what: "the opened record of " + s.key.String()}}
	}
	*verdict = lifecycle.Decide(s.facts())
	if verdict.Wants != lifecycle.WantsOpen {
		return r.enact(ctx, s, verdict)
	}
	if err := r.show(ctx, s); err != nil {
		return outcome{problem: err, gave: held && r.mayHaveBegun(ctx, s)}
	}
	if err := r.checkNames(ctx, s, *verdict); err != nil {
		return r.halfOpen(ctx, s, err)
	}
	giving, cancel := context.WithTimeout(ctx, passTime)
	defer cancel()
	opened, err := r.Keeper.Open(giving, s.order(*verdict), s.until)
	if err != nil {
		return r.halfOpen(ctx, s, err)
	}
	if err := r.recordOpening(ctx, s, *verdict, opened); err != nil {
		return outcome{problem: err, gave: true}
	}
	r.Counters.Issued(len(opened.Credentials))
	*verdict = lifecycle.Decide(s.facts())
	return outcome{credentials: opened.Credentials, again: r.renewalDue(s, opened.Credentials)}
}

// mayHaveBegun reports whether a process that died has given some of what a grant gives: the cache may not show it yet.
func (r *Reconciler) mayHaveBegun(ctx context.Context, s *sight) bool {
	return s.record == nil || r.Keeper.MayHaveBegun(ctx, s.record.Spec.Grant)
}

// halfOpen is what becomes of an opening that did not come to its end. It is tried again at once, and so left as it is;
// but where a person must first remove what is in its way, the bindings are taken back: a grant opens whole or not at all.
func (r *Reconciler) halfOpen(ctx context.Context, s *sight, problem error) outcome {
	if !access.IsNameTaken(problem) && !apierrors.IsForbidden(problem) {
		return outcome{problem: problem, gave: true}
	}
	remains := access.RemainsOf(s.record, s.scope())
	if err := r.Keeper.Unbind(ctx, remains); err != nil {
		return outcome{problem: err, gave: true}
	}
	if apierrors.IsForbidden(problem) {
		r.forbidden.Store(s.key, obstacle{grant: s.grant.UID, met: s.now, problem: problem})
	}
	return outcome{problem: problem}
}

// obstacle is what the API server forbade when a grant was to open.
type obstacle struct {
	grant   types.UID
	met     time.Time
	problem error
}

// inTheWay returns what was in a grant's way not long ago, nil if it may be tried. Each try gives for a moment what is not
// forbidden, and what is taken back then wakes the next pass: without a pause one would follow upon the other.
func (r *Reconciler) inTheWay(s *sight) error {
	known, ok := r.forbidden.Load(s.key)
	if !ok {
		return nil
	}
	o := known.(obstacle)
	if o.grant == s.grant.UID && s.now.Before(o.met.Add(mendAgain)) {
		return o.problem
	}
	r.forbidden.Delete(s.key)
	return nil
}

// begin puts a grant on record and holds it, and reads meanwhile whatever may have taken it away: all that must come
// before anything is given, side by side, since none of it waits for another. What a pass has just written is what the API
// server has; what it has not written it reads from there, because a cache that has not yet heard of a revocation must not
// open what was revoked.
func (r *Reconciler) begin(ctx context.Context, s *sight, verdict lifecycle.Verdict) error {
	var grant *v1alpha1.SupportAccessGrant
	var decisions []v1alpha1.SupportAccessDecision
	var found []ambient
	places := s.scope()
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error { return r.putOnRecord(groupCtx, s, verdict) })
	group.Go(func() (err error) {
		grant, err = r.hold(groupCtx, s.grant)
		return err
	})
	group.Go(func() (err error) {
		decisions, err = decisionsFor(groupCtx, r.Live, s.key.Namespace)
		return err
	})
	group.Go(func() (err error) {
		found, err = r.ambientOf(groupCtx, places, s.now)
		return err
	})
	group.Go(func() error { return r.seeSetting(groupCtx, r.Live, s) })
	if err := group.Wait(); err != nil {
		return err
	}
	s.grant, s.decisions = grant, decisions
	s.addAmbient(found)
	return nil
}

// putOnRecord makes sure that a grant is on record, and that the record is the API server's.
func (r *Reconciler) putOnRecord(ctx context.Context, s *sight, verdict lifecycle.Verdict) error {
	known := s.record
	if err := r.settle(ctx, s, verdict).problem; err != nil || s.record != known {
		return err
	}
	record, err := r.liveRecord(ctx, s.record)
	if err != nil {
		return err
	}
	s.record = record
	return nil
}

// lookAgain reads the grant, its record and the decisions from the API server itself: before somebody who has access gets a
// new credential, and before a hand is blamed.
func (r *Reconciler) lookAgain(ctx context.Context, s *sight) error {
	var grant *v1alpha1.SupportAccessGrant
	var record *v1alpha1.SupportAccessRecord
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		grant, err = r.liveGrant(groupCtx, s.key)
		return err
	})
	group.Go(func() (err error) {
		record, err = r.liveRecord(groupCtx, s.record)
		return err
	})
	group.Go(func() (err error) {
		s.decisions, err = decisionsFor(groupCtx, r.Live, s.key.Namespace)
		return err
	})
	group.Go(func() error { return r.seeSetting(groupCtx, r.Live, s) })
	if err := group.Wait(); err != nil {
		return err
	}
	s.grant, s.record = grant, record
	return nil
}

// liveGrant reads a grant from the API server itself, nil if it is gone.
func (r *Reconciler) liveGrant(ctx context.Context, key client.ObjectKey) (*v1alpha1.SupportAccessGrant, error) {
	grant := &v1alpha1.SupportAccessGrant{}
	err := r.Live.Get(ctx, key, grant)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get grant %s: %w", key, err)
	}
	return grant, nil
}

// liveRecord reads a record from the API server itself.
func (r *Reconciler) liveRecord(ctx context.Context, known *v1alpha1.SupportAccessRecord) (*v1alpha1.SupportAccessRecord, error) {
	record, key := &v1alpha1.SupportAccessRecord{}, client.ObjectKeyFromObject(known)
	if err := r.Live.Get(ctx, key, record); err != nil {
		return nil, fmt.Errorf("get record %s: %w", key, err)
	}
	records.Whole(record)
	return record, nil
}

// order is what a verdict wants to be open.
func (s *sight) order(verdict lifecycle.Verdict) access.Order {
	order := access.Order{
		Grant:      s.record.Spec.Grant,
		Transport:  s.record.Spec.Transport,
		GrantedBy:  s.record.Spec.GrantedBy,
		Roles:      s.record.Spec.Roles,
		Namespaces: verdict.Namespaces,
		Expiration: verdict.Expiration,
		Cluster:    s.cluster,
		Begun:      s.hasChildren(),
	}
	for _, e := range s.grant.Spec.Engineers {
		if slices.Contains(verdict.Engineers, e.Name) {
			order.Engineers = append(order.Engineers, e)
		}
	}
	if policy := s.policies[s.key.Namespace].Policy; policy != nil {
		order.Readers = policy.Spec.CredentialReaders
	}
	return order
}

// keepOpen keeps an open grant as the verdict wants it: what was taken away stays away, and credentials live until the
// end. In a quiet pass it writes nothing.
func (r *Reconciler) keepOpen(ctx context.Context, s *sight, verdict lifecycle.Verdict) outcome {
	if err := r.takeAway(ctx, s, verdict); err != nil {
		return outcome{problem: err}
	}
	if err := r.recordChanges(ctx, s, verdict); err != nil {
		return outcome{problem: err}
	}
	return r.renew(ctx, s, verdict)
}

// takeAway takes engineers and namespaces out of an open grant.
func (r *Reconciler) takeAway(ctx context.Context, s *sight, verdict lifecycle.Verdict) error {
	away := access.RemainsOf(s.record, nil)
	staying := access.RemainsOf(s.record, nil)
	inScope := func(b v1alpha1.RecordedBinding) bool { return slices.Contains(verdict.Namespaces, b.Namespace) }
	away.Bindings = slices.DeleteFunc(away.Bindings, inScope)
	staying.Bindings = slices.DeleteFunc(staying.Bindings, func(b v1alpha1.RecordedBinding) bool { return !inScope(b) })
	if err := r.Keeper.Unbind(ctx, away); err != nil {
		return err
	}
	if !s.mustTakeOff(verdict) {
		return nil
	}
	return r.Keeper.TakeOff(ctx, staying, verdict.Engineers)
}

// mustTakeOff reports whether an engineer whom the verdict takes off may still have something.
func (s *sight) mustTakeOff(verdict lifecycle.Verdict) bool {
	return slices.ContainsFunc(verdict.Removed, func(removal lifecycle.Removal) bool {
		return !s.takenOff(removal.Engineer) || s.shows(access.IdentityName(s.record.Spec.Grant, removal.Engineer))
	})
}

// renew keeps the credentials of an open grant alive until its end, and replaces those that would outlive it.
func (r *Reconciler) renew(ctx context.Context, s *sight, verdict lifecycle.Verdict) outcome {
	var done outcome
	order := s.order(verdict)
	if s.throughGateway() {
		return r.tell(ctx, s, order)
	}
	for _, engineer := range order.Engineers {
		renewal := access.Renewal{Reissue: true}
		if secret := s.credentials[access.IdentityName(order.Grant, engineer.Name)]; secret != nil {
			if issued, dies, filled := access.CredentialTimes(secret); filled {
				renewal = access.RenewalOf(issued, dies, verdict.Expiration, s.now)
				renewal.Untold = !s.told(engineer.Name, dies)
			}
		}
		credential, err := r.apply(ctx, s, order, engineer, renewal)
		if overtaken(err) {
			return outcome{problem: err}
		}
		if err != nil {
			done.problem = errors.Join(done.problem, err)
			continue
		}
		if credential != nil {
			done.credentials = append(done.credentials, *credential)
		}
		if renewal.Reissue || renewal.Renew {
			r.Counters.Issued(1)
		}
		done.again = earlier(done.again, renewal.Next)
	}
	if len(done.credentials) > 0 {
		done.again = earlier(done.again, r.renewalDue(s, done.credentials))
	}
	return done
}

func (r *Reconciler) apply(ctx context.Context, s *sight, order access.Order, engineer v1alpha1.Engineer, renewal access.Renewal) (*access.Credential, error) {
	var credential access.Credential
	var err error
	giving, cancel := context.WithTimeout(ctx, passTime)
	defer cancel()
	if renewal.Reissue || renewal.Renew {
		if err := r.mayStillGive(ctx, s, engineer.Name); err != nil {
			return nil, err
		}
	}
	switch {
	case renewal.Reissue:
		credential, err = r.Keeper.Reissue(giving, order, engineer, s.until)
	case renewal.Renew:
		credential, err = r.Keeper.Renew(giving, order, engineer, s.until)
	case renewal.Untold:
		return r.find(ctx, s, order, engineer)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &credential, nil
}

// find returns the credential that an earlier pass made and could not tell of. Mostly it did tell, and only the cache has
// not yet heard: then there is nothing to do.
func (r *Reconciler) find(ctx context.Context, s *sight, order access.Order, engineer v1alpha1.Engineer) (*access.Credential, error) {
	grant := &v1alpha1.SupportAccessGrant{}
	if err := r.Live.Get(ctx, s.key, grant); err != nil {
		return nil, fmt.Errorf("get grant %s: %w", s.key, err)
	}
	if grant.ResourceVersion != s.grant.ResourceVersion {
		return nil, &staleError{what: "a later status of grant " + s.key.String()}
	}
	credential, err := r.Keeper.Find(ctx, order, engineer)
	if apierrors.IsNotFound(err) {
		return nil, &staleError{what: "the end of the credential of " + engineer.Name}
	}
	if err != nil {
		return nil, err
	}
	return &credential, nil
}

// mayStillGive makes sure, by the API server's word, that an engineer is to have a new credential: the cache may not have
// heard that the grant has ended, or that this person was taken off.
func (r *Reconciler) mayStillGive(ctx context.Context, s *sight, engineer string) error {
	if err := r.lookAgain(ctx, s); err != nil {
		return err
	}
	verdict := lifecycle.Decide(s.facts())
	if verdict.Wants != lifecycle.WantsOpen || !slices.Contains(verdict.Engineers, engineer) {
		return &staleError{what: "what takes " + engineer + " off grant " + s.key.String()}
	}
	return nil
}

// told reports whether the status already says where an engineer finds the credential that lives until an instant. A pass
// that made one may have died before it could say so.
func (s *sight) told(engineer string, dies time.Time) bool {
	return slices.ContainsFunc(s.grant.Status.Engineers, func(e v1alpha1.EngineerStatus) bool {
		return e.Name == engineer && e.CredentialExpirationTime != nil && e.CredentialExpirationTime.Time.Equal(dies)
	})
}

// renewalDue returns when the first of some credentials wants renewal.
func (r *Reconciler) renewalDue(s *sight, credentials []access.Credential) time.Time {
	var due time.Time
	for _, c := range credentials {
		due = earlier(due, access.RenewalOf(s.now, c.Expiration, s.record.Status.ExpirationTime.Time, s.now).Next)
	}
	return due
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// close takes everything away and then says so in the record, or that it could not.
func (r *Reconciler) close(ctx context.Context, s *sight, verdict lifecycle.Verdict) outcome {
	if s.record == nil {
		return r.closeUnrecorded(ctx, s, verdict)
	}
	done := r.shut(ctx, s, verdict)
	done.problem = errors.Join(done.problem, r.recordFailure(ctx, s, done.problem))
	return done
}

// shut waits for nothing but the bindings and credentials.
func (r *Reconciler) shut(ctx context.Context, s *sight, verdict lifecycle.Verdict) outcome {
	if s.ended() {
		if err := r.sweep(ctx, s); err != nil {
			return outcome{problem: err}
		}
		return r.disconnect(ctx, s, r.verify(ctx, s))
	}
	remains := access.RemainsOf(s.record, lifecycle.ScopeOf(s.record.Spec.Scope, s.record.Spec.Grant.Namespace))
	remains.Cut = s.cut.grant == remains.Grant.UID
	if err := r.recordCut(ctx, s, verdict, remains); err != nil {
		return outcome{problem: err}
	}
	if err := r.Keeper.Close(ctx, remains); err != nil {
		r.Counters.CleanupFailed()
		return outcome{problem: err, gave: true}
	}
	s.strike(remains)
	if err := r.sweep(ctx, s); err != nil {
		return outcome{problem: err}
	}
	return r.disconnect(ctx, s, r.recordEnd(ctx, s, verdict))
}

// recordCut puts on record what somebody took away by hand, before the other credentials follow: a pass that came after a
// crash could not tell any more what was cut and what was closed. Of whom the record then says that they were taken off,
// nothing is left.
func (r *Reconciler) recordCut(ctx context.Context, s *sight, verdict lifecycle.Verdict, remains access.Remains) error {
	if !s.cutByHand() {
		return nil
	}
	if err := r.Keeper.Unbind(ctx, remains); err != nil {
		r.Counters.CleanupFailed()
		return err
	}
	for _, removal := range verdict.Removed {
		if err := r.Keeper.Dismantle(ctx, access.IdentityName(s.record.Spec.Grant, removal.Engineer)); err != nil {
			r.Counters.CleanupFailed()
			return fmt.Errorf("take %q off: %w", removal.Engineer, err)
		}
	}
	return r.recordChanges(ctx, s, verdict)
}

// closeUnrecorded settles a grant that never was on record: it is put on record as ended, and what carries its labels
// is swept.
func (r *Reconciler) closeUnrecorded(ctx context.Context, s *sight, verdict lifecycle.Verdict) outcome {
	if err := r.sweep(ctx, s); err != nil {
		return outcome{problem: err}
	}
	switch {
	case s.grant == nil || verdict.End == nil:
		return outcome{}
	case controllerutil.ContainsFinalizer(s.grant, v1alpha1.FinalizerGrant):
		return r.closeHeld(ctx, s, verdict)
	case !s.grant.DeletionTimestamp.IsZero():
		return outcome{}
	default:
		return outcome{problem: r.createRecord(ctx, s, verdict)}
	}
}

// closeHeld closes a grant that is held and not on record: a pass died between the two, or the record went with its
// namespace. What the cache does not show of what was begun has a known name.
func (r *Reconciler) closeHeld(ctx context.Context, s *sight, verdict lifecycle.Verdict) outcome {
	record := newRecord(s, verdict)
	if err := r.Keeper.Close(ctx, access.RemainsOf(record, s.scope())); err != nil {
		r.Counters.CleanupFailed()
		return outcome{problem: err, gave: true}
	}
	if s.gone(s.key.Namespace) {
		return outcome{problem: r.createTombstone(ctx, record)}
	}
	return outcome{problem: r.createRecord(ctx, s, verdict)}
}

// strike forgets what was taken away in this pass: the cache shows it for a moment longer.
func (s *sight) strike(remains access.Remains) {
	s.bindings = slices.DeleteFunc(s.bindings, func(b client.Object) bool {
		return slices.ContainsFunc(remains.Bindings, func(r v1alpha1.RecordedBinding) bool {
			return r.Namespace == b.GetNamespace() && r.Name == b.GetName()
		})
	})
	for _, engineer := range remains.Engineers {
		name := access.IdentityName(remains.Grant, engineer)
		delete(s.credentials, name)
		delete(s.accounts, name)
		delete(s.readers, name)
	}
}

// sweep deletes what the cache still has of a grant that has ended: what an earlier leader made in its last breath.
func (r *Reconciler) sweep(ctx context.Context, s *sight) error {
	for _, b := range s.bindings {
		if !access.Names(b) {
			continue
		}
		uid := b.GetUID()
		if err := r.Client.Delete(ctx, b, client.Preconditions{UID: &uid}); ignoreGone(err) != nil {
			return fmt.Errorf("sweep binding %s/%s: %w", b.GetNamespace(), b.GetName(), err)
		}
	}
	for _, name := range s.identities() {
		if err := r.Keeper.Dismantle(ctx, name); err != nil {
			return fmt.Errorf("sweep: %w", err)
		}
	}
	return nil
}

// identities are the names under which the cache has a credential, an account or a way to fetch a credential.
func (s *sight) identities() []string {
	names := slices.Concat(slices.Collect(maps.Keys(s.credentials)), slices.Collect(maps.Keys(s.accounts)), slices.Collect(maps.Keys(s.readers)))
	slices.Sort(names)
	return slices.Compact(names)
}

// ignoreGone drops the errors that say that an object is gone or another by now.
func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// hold puts the finalizer on a grant before anything of it may be open, and returns the grant as the API server has it,
// nil if it is gone.
func (r *Reconciler) hold(ctx context.Context, grant *v1alpha1.SupportAccessGrant) (*v1alpha1.SupportAccessGrant, error) {
	key := client.ObjectKeyFromObject(grant)
	if controllerutil.ContainsFinalizer(grant, v1alpha1.FinalizerGrant) {
		return r.liveGrant(ctx, key)
	}
	held := grant.DeepCopy()
	controllerutil.AddFinalizer(held, v1alpha1.FinalizerGrant)
	err := r.Client.Patch(ctx, held, client.MergeFromWithOptions(grant, client.MergeFromWithOptimisticLock{}))
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("hold grant %s: %w", key, err)
	}
	return held, nil
}

// release takes the finalizer off a grant of which nothing is open any more.
func (r *Reconciler) release(ctx context.Context, s *sight, verdict lifecycle.Verdict, done outcome) error {
	if done.problem != nil || verdict.Wants != lifecycle.WantsClosed || s.grant == nil ||
		!controllerutil.ContainsFinalizer(s.grant, v1alpha1.FinalizerGrant) {
		return nil
	}
	released := s.grant.DeepCopy()
	controllerutil.RemoveFinalizer(released, v1alpha1.FinalizerGrant)
	patch := client.MergeFromWithOptions(s.grant, client.MergeFromWithOptimisticLock{})
	err := r.Client.Patch(ctx, released, patch)
	if apierrors.IsNotFound(err) {
		return &staleError{what: "the end of grant " + s.key.String()}
	}
	if err != nil {
		return fmt.Errorf("release grant %s: %w", s.key, err)
	}
	return nil
}
