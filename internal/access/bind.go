package access

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Binder knows which ClusterRoles the operator itself may bind. A role that a policy offers and the installation does not
// is seen before anything is made: what the API server says when a binding is refused tells nobody what to mend.
type Binder struct {
	// Client asks the API server.
	Client client.Client
	// Clock says when a yes is to be asked for again. A no is asked for again each time: somebody is about to mend it.
	Clock clock.PassiveClock

	mu  sync.Mutex
	may map[string]time.Time
}

// MayBind reports whether the operator may bind a ClusterRole.
func (b *Binder) MayBind(ctx context.Context, role string) (bool, error) {
	now := b.Clock.Now()
	if b.recall(role, now) {
		return true, nil
	}
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Group: rbacv1.GroupName, Resource: "clusterroles", Name: role, Verb: "bind"},
	}}
	err := b.Client.Create(ctx, review)
	if apierrors.IsForbidden(err) {
		// A cluster may let nobody ask. The binding itself will be refused then, if it must be.
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask whether ClusterRole %q may be bound: %w", role, err)
	}
	if review.Status.Allowed {
		b.remember(role, now)
	}
	return review.Status.Allowed, nil
}

func (b *Binder) recall(role string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	asked, ok := b.may[role]
	return ok && now.Sub(asked) < remembered
}

// remember keeps a yes, and forgets those that are too old to be used.
func (b *Binder) remember(role string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.may == nil {
		b.may = map[string]time.Time{}
	}
	maps.DeleteFunc(b.may, func(_ string, asked time.Time) bool { return now.Sub(asked) >= remembered })
	b.may[role] = now
}
