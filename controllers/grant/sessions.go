package grant

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/internal/partial"
)

const (
	// copyEvery is how often at most the status of a grant follows what its sessions say, unless somebody comes or goes.
	copyEvery = 10 * time.Second
	// confirmWithin is how long after the end the replicas of the gateway may take to say that nobody is connected.
	confirmWithin = 30 * time.Second
	// defaultHandover is for how long a credential lies in its Secret where no policy says otherwise.
	defaultHandover = 24 * time.Hour
)

// use is what the replicas of the gateway say of one engineer, taken together.
type use struct {
	connections int32
	first, last *metav1.Time
}

// seeSessions reads who uses the grant, or used it, through the gateway.
func (r *Reconciler) seeSessions(ctx context.Context, s *sight) error {
	s.gatewayless = r.Sessions == nil
	if r.Sessions == nil || s.record == nil || !s.throughGateway() {
		return nil
	}
	list := &v1alpha1.SupportAccessSessionList{}
	mine := client.MatchingFields{indexGrant: string(s.record.Spec.Grant.UID)}
	if err := r.Sessions.List(ctx, list, client.InNamespace(v1alpha1.SystemNamespace), mine); err != nil {
		return fmt.Errorf("list sessions of grant %s: %w", s.key, err)
	}
	for i := range list.Items {
		if behind := list.Items[i].Status.LeftBehind; behind != nil {
			s.leftBehind = behind
			continue
		}
		s.sessions = append(s.sessions, list.Items[i])
	}
	return nil
}

// seeGateway asks whether a replica of the gateway says that it can let nobody in.
func (r *Reconciler) seeGateway(ctx context.Context, s *sight) error {
	if r.Sessions == nil {
		return nil
	}
	list := &v1alpha1.SupportAccessSessionList{}
	replicas := client.MatchingFields{indexGrant: v1alpha1.GatewayItself}
	if err := r.Sessions.List(ctx, list, client.InNamespace(v1alpha1.SystemNamespace), replicas); err != nil {
		return fmt.Errorf("list what the replicas of the gateway say: %w", err)
	}
	for i := range list.Items {
		if unable := list.Items[i].Status.Unable; unable != "" {
			s.world.Missing = append(s.world.Missing, unable)
			return nil
		}
	}
	return nil
}

// grantsOfSession maps a session to its grant. What a replica says of itself is of no grant.
func grantsOfSession(_ context.Context, o client.Object) []types.NamespacedName {
	grant := o.(*v1alpha1.SupportAccessSession).Spec.Grant
	if grant.UID == v1alpha1.GatewayItself {
		return nil
	}
	return []types.NamespacedName{{Namespace: grant.Namespace, Name: grant.Name}}
}

// usesOf takes together what the replicas say. A name that is none of the grant's engineers counts for nothing.
func usesOf(sessions []v1alpha1.SupportAccessSession, engineers []string) map[string]use {
	uses := map[string]use{}
	for i := range sessions {
		for _, e := range sessions[i].Status.Engineers {
			if !slices.Contains(engineers, e.Name) {
				continue
			}
			u := uses[e.Name]
			if sessions[i].Status.CutTime == nil {
				u.connections += e.Connections
			}
			if e.FirstSeenTime != nil && (u.first == nil || e.FirstSeenTime.Before(u.first)) {
				u.first = e.FirstSeenTime
			}
			if e.LastSeenTime != nil && (u.last == nil || u.last.Before(e.LastSeenTime)) {
				u.last = e.LastSeenTime
			}
			uses[e.Name] = u
		}
	}
	return uses
}

// recordFirstUses stores who came in for the first time.
func recordFirstUses(record *v1alpha1.SupportAccessRecord, sessions []v1alpha1.SupportAccessSession) {
	uses := usesOf(sessions, record.Spec.Engineers)
	for _, engineer := range record.Spec.Engineers {
		u := uses[engineer]
		if u.first == nil || hasInstant(record.Status.FirstUses, engineer) {
			continue
		}
		record.Status.FirstUses = append(record.Status.FirstUses, v1alpha1.EngineerInstant{Name: engineer, Time: metav1.NewMicroTime(u.first.Time)})
		addTransition(record, u.first.Time, v1alpha1.TransitionFirstUsed, engineer, engineer+" came in through the gateway for the first time")
	}
}

func hasInstant(instants []v1alpha1.EngineerInstant, engineer string) bool {
	return slices.ContainsFunc(instants, func(e v1alpha1.EngineerInstant) bool { return e.Name == engineer })
}

// followSessions decides whether the status is to follow what the sessions say, and when to look again if not yet.
func (r *Reconciler) followSessions(s *sight) time.Time {
	differ, crossed := false, false
	uses := usesOf(s.sessions, s.record.Spec.Engineers)
	for _, e := range s.grant.Status.Engineers {
		u := uses[e.Name]
		differ = differ || e.Sessions != u.connections || u.last != nil && !u.last.Equal(e.LastSeenTime)
		crossed = crossed || (e.Sessions == 0) != (u.connections == 0)
	}
	if !differ {
		return time.Time{}
	}
	if before, ok := r.followed.Load(s.key); ok && !crossed {
		if due := before.(time.Time).Add(copyEvery); s.now.Before(due) {
			return due
		}
	}
	s.follow = true
	r.followed.Store(s.key, s.now)
	return time.Time{}
}

// usedStatus adds to what a status says of an engineer what the sessions say.
func (s *sight) usedStatus(e v1alpha1.EngineerStatus) v1alpha1.EngineerStatus {
	if !s.follow {
		return e
	}
	u := usesOf(s.sessions, s.record.Spec.Engineers)[e.Name]
	e.Sessions = u.connections
	if u.last != nil {
		e.LastSeenTime = u.last
	}
	return e
}

// handOver takes credentials out of the cluster that were handed over: their engineers have used them, or their time has
// come. It is on record before it is done, so that nobody takes it for a removal.
func (r *Reconciler) handOver(ctx context.Context, s *sight, order access.Order) (time.Time, error) {
	var due []string
	var next time.Time
	for _, engineer := range order.Engineers {
		secret := s.credentials[access.IdentityName(order.Grant, engineer.Name)]
		if secret == nil || engineer.PublicKey != "" || !s.toldHash(engineer.Name, access.HashOf(secret)) {
			continue
		}
		at := s.handoverDue(secret)
		if !s.now.Before(at) || s.usedCredential(engineer.Name, access.HashOf(secret)) || s.handedOver(engineer.Name) {
			due = append(due, engineer.Name)
			continue
		}
		next = earlier(next, at)
	}
	for _, engineer := range due {
		if err := r.recordHandover(ctx, s, engineer); err != nil {
			return time.Time{}, err
		}
		if err := r.Keeper.HandOver(ctx, order.Grant, engineer); err != nil {
			return time.Time{}, err
		}
		delete(s.credentials, access.IdentityName(order.Grant, engineer))
	}
	return next, nil
}

// handoverDue returns until when a credential may lie in its Secret.
func (s *sight) handoverDue(secret metav1.Object) time.Time {
	window := defaultHandover
	if policy := s.policies[s.key.Namespace].Policy; policy != nil && policy.Spec.HandoverWindow.OrZero() > 0 {
		window = policy.Spec.HandoverWindow.OrZero()
	}
	issued, err := time.Parse(time.RFC3339, secret.GetAnnotations()[access.AnnotationIssued])
	if err != nil {
		return secret.GetCreationTimestamp().Add(window)
	}
	return issued.Add(window)
}

func (s *sight) handedOver(engineer string) bool {
	return hasInstant(s.record.Status.HandedOver, engineer)
}

func (r *Reconciler) recordHandover(ctx context.Context, s *sight, engineer string) error {
	if s.handedOver(engineer) {
		return nil
	}
	return r.updateRecord(ctx, s, func(record *v1alpha1.SupportAccessRecord) {
		record.Status.HandedOver = append(record.Status.HandedOver, v1alpha1.EngineerInstant{Name: engineer, Time: metav1.NewMicroTime(s.now)})
		why := "its time in the cluster is over"
		if s.usedCredential(engineer, s.hashOf(engineer)) {
			why = "it was used"
		}
		addTransition(record, s.now, v1alpha1.TransitionHandedOver, lifecycle.Operator, "the credential of "+engineer+" was taken out of the cluster: "+why)
	})
}

// disconnection is what the replicas of the gateway say of an ended grant.
type disconnection struct {
	// open are the replicas that have not said that nobody is connected.
	open []string
	// anybody says that somebody used the grant.
	anybody bool
	// connections is how many were cut, the last at an instant.
	connections int32
	last        time.Time
}

// seeDisconnection finds out which replicas still owe an answer. One whose pod is gone holds no connection.
func (r *Reconciler) seeDisconnection(ctx context.Context, s *sight) (disconnection, error) {
	d := disconnection{anybody: len(s.sessions) > 0 || len(s.record.Status.FirstUses) > 0}
	for i := range s.sessions {
		session := &s.sessions[i]
		if cut := session.Status.CutTime; cut != nil {
			d.connections += session.Status.CutConnections
			if cut.After(d.last) {
				d.last = cut.Time
			}
			continue
		}
		pod := partial.Object("Pod")
		err := r.Live.Get(ctx, types.NamespacedName{Namespace: v1alpha1.SystemNamespace, Name: session.Spec.Replica}, pod)
		if err == nil {
			d.open = append(d.open, session.Spec.Replica)
		} else if !apierrors.IsNotFound(err) {
			return disconnection{}, fmt.Errorf("get pod %q of the gateway: %w", session.Spec.Replica, err)
		}
	}
	slices.Sort(d.open)
	return d, nil
}

// disconnect waits for the replicas of the gateway to say, after the end, that nobody is connected any more, and stores
// that they did. Nothing waits for it.
func (r *Reconciler) disconnect(ctx context.Context, s *sight, done outcome) outcome {
	r.followed.Delete(s.key)
	if r.Sessions == nil || !s.ended() || !s.throughGateway() || done.problem != nil {
		return done
	}
	d, err := r.seeDisconnection(ctx, s)
	if err != nil {
		log.FromContext(ctx).Error(err, "It is not known yet who is connected")
		s.disconnection = disconnection{anybody: true}
		done.again = earlier(done.again, s.now.Add(mendAgain))
		return done
	}
	s.disconnection = d
	unknown := slices.ContainsFunc(s.record.Spec.Engineers, func(engineer string) bool {
		return usesOf(s.sessions, s.record.Spec.Engineers)[engineer].first != nil && !hasInstant(s.record.Status.FirstUses, engineer)
	})
	settled := len(d.open) == 0 && d.anybody && s.record.Status.DisconnectedTime == nil
	told := s.leftBehind != nil && s.record.Status.LeftBehind == nil
	if settled || unknown || told {
		err := r.updateRecord(ctx, s, func(record *v1alpha1.SupportAccessRecord) {
			recordFirstUses(record, s.sessions)
			if settled {
				recordDisconnection(record, d, s.now)
			}
			if told {
				record.Status.LeftBehind = s.leftBehind.DeepCopy()
			}
		})
		if err != nil {
			done.again = earlier(done.again, s.now.Add(overtakenAgain))
		}
	}
	if len(d.open) > 0 && s.now.Sub(s.record.Status.EndTime.Time) < verifyFor {
		done.again = earlier(done.again, s.confirmBy())
	}
	return done
}

// confirmBy is when it is next asked whether the replicas have answered.
func (s *sight) confirmBy() time.Time {
	if by := s.record.Status.EndTime.Add(confirmWithin); s.now.Before(by) {
		return by
	}
	return s.now.Add(confirmWithin)
}

func recordDisconnection(record *v1alpha1.SupportAccessRecord, d disconnection, now time.Time) {
	at := metav1.NewMicroTime(now)
	record.Status.DisconnectedTime = &at
	message := "nobody is connected any more: every replica of the gateway that was used is gone"
	if !d.last.IsZero() {
		message = fmt.Sprintf("nobody is connected any more: %d connections were closed, the last %d ms after the end", d.connections, d.after(record).Milliseconds())
	}
	addTransition(record, now, v1alpha1.TransitionDisconnected, lifecycle.Operator, message)
}

// after returns how long after the end the last connection was closed. The end is on record once the bindings are gone;
// the gateway does not wait for that.
func (d disconnection) after(record *v1alpha1.SupportAccessRecord) time.Duration {
	end := record.Status.EndTime.Time
	if expired := record.Status.ExpirationTime; record.Status.EndReason == v1alpha1.EndExpired && expired != nil {
		end = expired.Time
	}
	return max(0, d.last.Sub(end))
}

// unconfirmed names the replicas that have not said in time that nobody is connected, empty if there are none.
func (s *sight) unconfirmed() string {
	if len(s.disconnection.open) == 0 || s.now.Before(s.record.Status.EndTime.Add(confirmWithin)) {
		return ""
	}
	return strings.Join(s.disconnection.open, ", ")
}

// transportConditions are the conditions that say what the transport means.
func transportConditions(s *sight, verdict lifecycle.Verdict) []metav1.Condition {
	if s.foreign || verdict.NameUsed {
		return nil
	}
	switch s.transport() {
	case v1alpha1.TransportGateway:
		conditions := []metav1.Condition{
			condition(v1alpha1.ConditionRecorded, metav1.ConditionTrue, v1alpha1.ReasonGateway, "every request is recorded before it is let through"),
			condition(v1alpha1.ConditionDisconnectable, metav1.ConditionTrue, v1alpha1.ReasonGateway, "the end of the grant closes every connection"),
		}
		if s.ended() {
			conditions = append(conditions, disconnectedCondition(s))
		}
		if s.gatewayless && s.provisioned() {
			return withoutGateway(conditions)
		}
		return conditions
	case v1alpha1.TransportDirect:
		return []metav1.Condition{
			condition(v1alpha1.ConditionRecorded, metav1.ConditionFalse, v1alpha1.ReasonDirect,
				"what engineers do is recorded only if the cluster's own audit log is on"),
			condition(v1alpha1.ConditionDisconnectable, metav1.ConditionFalse, v1alpha1.ReasonDirect,
				"the end stops new requests; a stream that was opened before, such as a watch or an exec, may live on"),
		}
	default:
		return nil
	}
}

// withoutGateway returns the conditions of a grant that was opened through a gateway which was taken away since. Engineers
// reach nothing without one. Where one still runs, it alone records and cuts, and nobody says so here.
func withoutGateway(conditions []metav1.Condition) []metav1.Condition {
	for i := range conditions {
		c := &conditions[i]
		// What was confirmed stays so. That nobody ever came in is not known where nobody tells of sessions.
		if c.Reason == v1alpha1.TransitionDisconnected {
			continue
		}
		c.Status, c.Reason = metav1.ConditionUnknown, v1alpha1.ReasonNoGateway
		c.Message = "there is no gateway any more, as far as the operator was told (gateway.server): without one engineers reach nothing, and nobody says who is connected"
	}
	return conditions
}

func disconnectedCondition(s *sight) metav1.Condition {
	c := condition(v1alpha1.ConditionDisconnected, metav1.ConditionUnknown, v1alpha1.ReasonNotYet, "the gateway is closing what is connected")
	open := strings.Join(s.disconnection.open, ", ")
	switch {
	case s.record.Status.DisconnectedTime != nil && open == "":
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, v1alpha1.TransitionDisconnected, disconnectedMessage(s.record)
	case s.unconfirmed() != "":
		c.Reason, c.Message = v1alpha1.ReasonNotConfirmed, clip("not confirmed by "+open)
	case open == "" && !s.disconnection.anybody:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, v1alpha1.ReasonNobody, "nobody used the grant"
	}
	return c
}

func disconnectedMessage(record *v1alpha1.SupportAccessRecord) string {
	for _, t := range record.Status.Transitions {
		if t.Type == v1alpha1.TransitionDisconnected {
			return t.Message
		}
	}
	return "nobody is connected any more"
}
