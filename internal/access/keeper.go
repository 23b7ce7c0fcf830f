package access

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// Keeper opens and closes access. Each of its acts is safe to repeat after a crash at any line.
type Keeper struct {
	// Client writes. Its reads are not used: they may be stale.
	Client client.Client
	// Live reads from the API server itself.
	Live client.Reader
	// Clock says what time it is when a credential is made and when a pass is too old to give anything.
	Clock clock.PassiveClock
}

// Until is the instant after which a pass gives nothing more. A process that was stopped in the middle of a pass, and
// lost its lease meanwhile, must not finish what it began.
type Until time.Time

// check fails once the instant has passed.
func (u Until) check(now time.Time) error {
	if deadline := time.Time(u); now.After(deadline) {
		return fmt.Errorf("give access: the pass is too old: its deadline was %s", deadline.UTC().Format(time.RFC3339))
	}
	return nil
}

// NameTakenError is an object that carries the name of one of ours and is not ours. A person must remove it.
type NameTakenError struct {
	// Kind, Namespace and Name say which object it is.
	Kind, Namespace, Name string
}

// Error says which object is in the way.
func (e *NameTakenError) Error() string {
	return fmt.Sprintf("%s %s/%s exists and was not made for this grant: remove it", strings.TrimPrefix(e.Kind, "*v1."), e.Namespace, e.Name)
}

// IsNameTaken reports whether an error says that a name is taken.
func IsNameTaken(err error) bool {
	var taken *NameTakenError
	return errors.As(err, &taken)
}

// ensure creates an object, or reads the one that an earlier pass created for the same grant into it. An object of that
// name which was not made for this grant is not adopted. Where a pass goes on with what another began it asks first: to try
// costs the API server more, for a Role the reading of every binding that its creator has.
func (k Keeper) ensure(ctx context.Context, object client.Object, order Order) error {
	kind := fmt.Sprintf("%T", object)
	if order.Begun {
		if err := k.adopt(ctx, object); !apierrors.IsNotFound(err) {
			return err
		}
	}
	err := k.Client.Create(ctx, object)
	if apierrors.IsAlreadyExists(err) {
		return k.adopt(ctx, object)
	}
	if err != nil {
		return fmt.Errorf("create %s %s/%s: %w", kind, object.GetNamespace(), object.GetName(), err)
	}
	return nil
}

// adopt reads an object that was made for the same grant.
func (k Keeper) adopt(ctx context.Context, object client.Object) error {
	uid, kind := object.GetAnnotations()[v1alpha1.AnnotationGrantUID], fmt.Sprintf("%T", object)
	if err := k.Live.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
		return fmt.Errorf("get %s %s/%s: %w", kind, object.GetNamespace(), object.GetName(), err)
	}
	if object.GetAnnotations()[v1alpha1.AnnotationGrantUID] != uid {
		return &NameTakenError{Kind: kind, Namespace: object.GetNamespace(), Name: object.GetName()}
	}
	return nil
}
