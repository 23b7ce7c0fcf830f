package gateway

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// sessions makes known who is connected: one object for each grant that was used through this replica.
type sessions struct {
	client client.Client
	clock  clock.PassiveClock
	// replica is the pod's name, owner the pod where it is known: its objects go with it.
	replica string
	owner   []metav1.OwnerReference
	// presenceOf says who is connected with a grant, endedOf why nobody of it can come any more, nil while somebody can.
	presenceOf func(types.UID) map[string]presence
	endedOf    func(types.UID) *end

	mu   sync.Mutex
	said map[types.UID]*said
	// owed are the cuts that could not be said yet.
	owed map[types.UID]owed
}

// owed is a cut that is still to be acknowledged.
type owed struct {
	reason      string
	connections int
}

// said is what was made known of one grant.
type said struct {
	// busy is held while its object is written.
	busy sync.Mutex
	// object is as it was last written, nil before it was.
	object *v1alpha1.SupportAccessSession
	// lost says that somebody else has written or deleted it since.
	lost bool
	// arrived are the engineers who were let in.
	arrived map[string]arrival
}

// arrival is an engineer who was let in: when for the first time, and with which credential the last.
type arrival struct {
	first metav1.Time
	hash  string
}

// sessionName returns the name of the object of one replica and one grant.
func sessionName(replica string, uid types.UID) string {
	sum := sha256.Sum256([]byte(replica + "/" + string(uid)))
	return "session-" + hex.EncodeToString(sum[:16])
}

// Arrive writes the object before the first request of an engineer goes on.
func (s *sessions) Arrive(ctx context.Context, of *standing, engineer, hash string) error {
	known := s.of(of.uid)
	known.busy.Lock()
	defer known.busy.Unlock()
	before, came := known.arrived[engineer]
	if came && before.hash == hash {
		return nil
	}
	arrived := maps.Clone(known.arrived)
	if arrived == nil {
		arrived = map[string]arrival{}
	}
	if !came {
		before.first = metav1.NewTime(s.clock.Now().Truncate(time.Second))
	}
	arrived[engineer] = arrival{first: before.first, hash: hash}
	wanted := &v1alpha1.SupportAccessSession{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: sessionName(s.replica, of.uid), OwnerReferences: s.owner},
		Spec: v1alpha1.SupportAccessSessionSpec{
			Grant:   v1alpha1.SessionGrant{Namespace: of.key.Namespace, Name: of.key.Name, UID: of.uid},
			Replica: s.replica,
		},
	}
	wanted.Status = s.status(wanted, arrived)
	if err := s.write(ctx, known, wanted); err != nil {
		return fmt.Errorf("make known that an engineer of grant %s is here: %w", of.key, err)
	}
	known.arrived = arrived
	return nil
}

func (s *sessions) of(uid types.UID) *said {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.said[uid]
	if known == nil {
		if s.said == nil {
			s.said = map[types.UID]*said{}
		}
		known = &said{}
		s.said[uid] = known
	}
	return known
}

// status says who is connected now.
func (s *sessions) status(of *v1alpha1.SupportAccessSession, arrived map[string]arrival) v1alpha1.SupportAccessSessionStatus {
	now := metav1.NewMicroTime(s.clock.Now())
	status := v1alpha1.SupportAccessSessionStatus{RenewTime: &now}
	present := s.presenceOf(of.Spec.Grant.UID)
	for name, came := range arrived {
		seen := v1alpha1.EngineerSession{Name: name, CredentialHash: came.hash, FirstSeenTime: &came.first, LastSeenTime: &came.first}
		for _, before := range of.Status.Engineers {
			if before.Name == name && before.LastSeenTime != nil {
				seen.LastSeenTime = before.LastSeenTime
			}
		}
		if p, ok := present[name]; ok {
			last := metav1.NewTime(p.lastSeen.Truncate(time.Second))
			seen.Connections = int32(min(p.connections, 1<<16)) //nolint:gosec // Bounded in this line.
			if last.After(seen.LastSeenTime.Time) {
				seen.LastSeenTime = &last
			}
		}
		status.Engineers = append(status.Engineers, seen)
	}
	slices.SortFunc(status.Engineers, func(a, b v1alpha1.EngineerSession) int { return strings.Compare(a.Name, b.Name) })
	return status
}

// write creates the object, or updates the one that is there. One that an earlier process of this pod left, or that somebody
// else wrote or deleted, is taken over or made anew: what is to be said of a grant must not be lost with it.
func (s *sessions) write(ctx context.Context, known *said, wanted *v1alpha1.SupportAccessSession) error {
	if known.object == nil || known.lost {
		made := wanted.DeepCopy()
		made.ObjectMeta = metav1.ObjectMeta{Namespace: wanted.Namespace, Name: wanted.Name, OwnerReferences: s.owner}
		err := s.client.Create(ctx, made)
		if err == nil {
			known.object, known.lost = made, false
			return nil
		}
		if !apierrors.IsAlreadyExists(err) {
			return err
		}
		found := &v1alpha1.SupportAccessSession{}
		if err := s.client.Get(ctx, client.ObjectKeyFromObject(wanted), found); err != nil {
			return err
		}
		known.object, known.lost = found, false
	}
	updated := known.object.DeepCopy()
	updated.Status = wanted.Status
	if err := s.client.Update(ctx, updated); err != nil {
		known.lost = apierrors.IsConflict(err) || apierrors.IsNotFound(err)
		return err
	}
	known.object = updated
	return nil
}

// owe notes a cut that is to be acknowledged later.
func (s *sessions) owe(uid types.UID, reason string, connections int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owed == nil {
		s.owed = map[types.UID]owed{}
	}
	s.owed[uid] = owed{reason: reason, connections: connections}
}

// settle acknowledges what is owed.
func (s *sessions) settle(ctx context.Context) error {
	s.mu.Lock()
	debts := maps.Clone(s.owed)
	s.mu.Unlock()
	var first error
	for uid, debt := range debts {
		if err := s.cut(ctx, uid, debt.reason, debt.connections); err != nil {
			first = cmp.Or(first, err)
			continue
		}
		s.mu.Lock()
		delete(s.owed, uid)
		s.mu.Unlock()
	}
	return first
}

// renew brings every object up to date of which something changed, and those of who is connected in any case.
func (s *sessions) renew(ctx context.Context) error {
	s.mu.Lock()
	known := maps.Clone(s.said)
	s.mu.Unlock()
	first := s.settle(ctx)
	for _, of := range known {
		first = cmp.Or(first, s.renewOne(ctx, of))
	}
	return first
}

func (s *sessions) renewOne(ctx context.Context, known *said) error {
	known.busy.Lock()
	defer known.busy.Unlock()
	if known.object == nil || known.object.Status.CutTime != nil {
		return nil
	}
	wanted := known.object.DeepCopy()
	wanted.Status = s.status(known.object, known.arrived)
	// Whoever arrived in the very moment of the end was made known after the cut.
	if ended := s.endedOf(known.object.Spec.Grant.UID); ended != nil && len(s.presenceOf(known.object.Spec.Grant.UID)) == 0 {
		wanted.Status.CutTime, wanted.Status.CutReason = wanted.Status.RenewTime, ended.reason
		return s.write(ctx, known, wanted)
	}
	if same(wanted.Status, known.object.Status) {
		return nil
	}
	return s.write(ctx, known, wanted)
}

// same reports whether nobody came, went or did anything.
func same(a, b v1alpha1.SupportAccessSessionStatus) bool {
	return slices.EqualFunc(a.Engineers, b.Engineers, func(a, b v1alpha1.EngineerSession) bool {
		return a.Name == b.Name && a.Connections == 0 && b.Connections == 0 && a.LastSeenTime.Equal(b.LastSeenTime)
	})
}

// cut acknowledges that nobody of a grant is connected any more and that nobody can come.
func (s *sessions) cut(ctx context.Context, uid types.UID, reason string, connections int) error {
	s.mu.Lock()
	known := s.said[uid]
	s.mu.Unlock()
	if known == nil {
		return nil
	}
	known.busy.Lock()
	defer known.busy.Unlock()
	if known.object == nil || known.object.Status.CutTime != nil {
		return nil
	}
	wanted := known.object.DeepCopy()
	wanted.Status = s.status(known.object, known.arrived)
	wanted.Status.CutTime, wanted.Status.CutReason, wanted.Status.CutConnections = wanted.Status.RenewTime, reason, int32(min(connections, 1<<16)) //nolint:gosec // Bounded in this line.
	return s.write(ctx, known, wanted)
}
