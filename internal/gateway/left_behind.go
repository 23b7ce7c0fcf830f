package gateway

import (
	"context"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/left"
	"supportaccess.dev/operator/internal/records"
)

// LeftBehind tells of each grant that has ended what its engineers left behind, by the audit log: so a gateway that is started
// again in the middle forgets nothing. It tells it in a session object of its own, which the controller copies to the record;
// while the record does not have it, it is told again by whichever replica is there.
type LeftBehind struct {
	// Client reads records from the cache, and writes session objects.
	Client client.Client
	// Past finds the entries of the log, nil where nobody can.
	Past audit.Finder
	// Retention is for how long the log keeps entries, 0 for ever.
	Retention time.Duration
	// Shared says that other replicas write to the same log. Then each waits its turn: mostly one tells for all.
	Shared bool
	// Clock says what time it is.
	Clock clock.PassiveClock
	// Replica is the name of the gateway's pod, ReplicaUID its UID where it is known.
	Replica    string
	ReplicaUID types.UID
	Logger     logr.Logger

	// told are the grants that were told of, or that nobody used.
	told map[types.UID]bool
}

const (
	// settleWithin is for how long after the end it is waited that every replica says that nobody is connected.
	settleWithin = time.Minute
	// tellWithin is how long after the end it is told. Later a record has been made small.
	tellWithin = 6 * 24 * time.Hour
)

// SetupWithManager has records looked at whenever they change, by every replica.
func (l *LeftBehind) SetupWithManager(mgr ctrl.Manager) error {
	everywhere := false
	err := ctrl.NewControllerManagedBy(mgr).Named("left-behind").For(&v1alpha1.SupportAccessRecord{}).
		WithOptions(controller.Options{MaxConcurrentReconciles: 1, NeedLeaderElection: &everywhere}).
		Complete(l)
	if err != nil {
		return fmt.Errorf("watch records: %w", err)
	}
	return nil
}

// Reconcile tells what was left behind by the grant of one record, if it has ended and the record does not say so yet.
func (l *LeftBehind) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	record := &v1alpha1.SupportAccessRecord{}
	if err := l.Client.Get(ctx, request.NamespacedName, record); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	now := l.Clock.Now()
	if !l.owes(record, now) {
		return reconcile.Result{}, nil
	}
	if wait := l.dueAt(record).Sub(now); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	behind, used, err := l.find(ctx, record)
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("find what was left behind by the grant of record %s: %w", request.NamespacedName, err)
	}
	if used {
		if err := l.tell(ctx, record, behind); err != nil {
			return reconcile.Result{}, fmt.Errorf("tell what was left behind by the grant of record %s: %w", request.NamespacedName, err)
		}
		l.Logger.Info("Told what was left behind", "grant", record.Spec.Grant.Namespace+"/"+record.Spec.Grant.Name, "objects", len(behind.Objects), "seen", len(behind.Seen))
	}
	if l.told == nil {
		l.told = map[types.UID]bool{}
	}
	l.told[record.Spec.Grant.UID] = true
	return reconcile.Result{}, nil
}

// owes reports whether it is to be told what was left behind. The copies of a record are none of a grant's own.
func (l *LeftBehind) owes(record *v1alpha1.SupportAccessRecord, now time.Time) bool {
	status, grant := &record.Status, record.Spec.Grant
	return records.IsOwn(record) && records.IsOfGrant(record) && record.Spec.Transport == v1alpha1.TransportGateway &&
		status.EndTime != nil && status.ProvisionedTime != nil && status.LeftBehind == nil &&
		now.Sub(status.EndTime.Time) < tellWithin && !l.told[grant.UID]
}

// dueAt is when it is told: once nobody is connected any more, and every replica has put down how what it cut has ended.
func (l *LeftBehind) dueAt(record *v1alpha1.SupportAccessRecord) time.Time {
	at := record.Status.EndTime.Add(settleWithin)
	if gone := record.Status.DisconnectedTime; gone != nil {
		at = gone.Add(time.Second)
	}
	if !l.Shared {
		return at
	}
	return at.Add(turnOf(l.Replica, string(record.Spec.Grant.UID)))
}

// find asks the log what was left behind, and whether anybody used the grant.
func (l *LeftBehind) find(ctx context.Context, record *v1alpha1.SupportAccessRecord) (v1alpha1.LeftBehind, bool, error) {
	now := metav1.NewMicroTime(l.Clock.Now())
	used := len(record.Status.FirstUses) > 0
	if l.Past == nil {
		return v1alpha1.LeftBehind{Time: now, Unknown: "the audit log is a file in which nothing is found again (--audit-store)"}, used, nil
	}
	reckoning := left.New()
	grant := record.Spec.Grant
	query := audit.Query{Grant: audit.Grant{Namespace: grant.Namespace, Name: grant.Name, UID: string(grant.UID)}}
	err := audit.EachEntry(ctx, l.Past, query, func(e *audit.Entry) error {
		reckoning.Add(e)
		return nil
	})
	if err != nil {
		return v1alpha1.LeftBehind{}, false, err
	}
	behind := reckoning.Behind(left.MaxObjects, left.MaxSeen)
	behind.Time = now
	missing, err := l.missing(ctx, record)
	if missing != "" {
		behind.Unknown = missing
	}
	return behind, used || reckoning.Requests() > 0, err
}

// missing says why the log does not have all that was done, empty if it has.
func (l *LeftBehind) missing(ctx context.Context, record *v1alpha1.SupportAccessRecord) (string, error) {
	opened := record.Status.ProvisionedTime.Time
	if l.Retention > 0 && opened.Before(l.Clock.Now().Add(-l.Retention)) {
		return fmt.Sprintf("the audit log keeps entries for %s: what was done before is not listed", l.Retention), nil
	}
	var began time.Time
	err := audit.EachEntry(ctx, l.Past, audit.Query{Type: audit.TypeKeys, Below: 2}, func(first *audit.Entry) error {
		began = first.StageTimestamp.Time
		return nil
	})
	if err != nil {
		return "", err
	}
	if began.After(opened) {
		return fmt.Sprintf("the audit log begins at %s, after access was opened: what was done before is not listed", began.UTC().Format(time.RFC3339)), nil
	}
	return "", nil
}

// tell writes the session object that says what was left behind. One that is there is of this replica, and says the same.
func (l *LeftBehind) tell(ctx context.Context, record *v1alpha1.SupportAccessRecord, behind v1alpha1.LeftBehind) error {
	grant := record.Spec.Grant
	session := &v1alpha1.SupportAccessSession{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: v1alpha1.SystemNamespace, Name: sessionName(l.Replica, "left behind/"+grant.UID), OwnerReferences: ownerOf(l.Replica, l.ReplicaUID),
		},
		Spec: v1alpha1.SupportAccessSessionSpec{
			Grant: v1alpha1.SessionGrant{Namespace: grant.Namespace, Name: grant.Name, UID: grant.UID}, Replica: l.Replica,
		},
		// It is deleted when it is old, as one of a grant that was cut.
		Status: v1alpha1.SupportAccessSessionStatus{RenewTime: &behind.Time, CutTime: &behind.Time, CutReason: record.Status.EndReason, LeftBehind: &behind},
	}
	if err := l.Client.Create(ctx, session); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return nil
}
