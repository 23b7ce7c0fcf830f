package gateway

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
)

// usersPrefix begins the names of the ClusterRoles that list as whom the gateway may act; a hexadecimal digit ends them.
const usersPrefix = "support-access-gateway-users-"

// shards is how many there are: one with all users could grow past what the API server stores.
const shards = 16

// gathered is for how long changes are gathered before they are written.
const gathered = 100 * time.Millisecond

// Users keeps the list of those as whom the gateway may act: the engineers of grants that are open, or are being opened.
type Users struct {
	// Client reads records and ClusterRoles from the cache, and writes the lists.
	Client client.Client
	// Clock says which grants have begun.
	Clock clock.PassiveClock
}

// SetupWithManager has the lists kept whenever a record changes, and made anew at the start.
func (u *Users) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("gateway-users").
		Watches(&v1alpha1.SupportAccessRecord{}, gathering(throughGateway)).
		Watches(&rbacv1.ClusterRole{}, gathering(isList)).
		WithOptions(controller.Options{MaxConcurrentReconciles: 1}).
		Complete(u)
}

// Reconcile brings the lists to what the records say.
func (u *Users) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	records := &v1alpha1.SupportAccessRecordList{}
	if err := u.Client.List(ctx, records, client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, fmt.Errorf("list records: %w", err)
	}
	now := u.Clock.Now()
	lists, next := usersOf(records.Items, now)
	for i, names := range lists {
		err := u.write(ctx, listName(i), names)
		if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) {
			// The cache lags behind what was written last.
			return reconcile.Result{RequeueAfter: gathered}, nil
		}
		if err != nil {
			return reconcile.Result{}, err
		}
	}
	if next.IsZero() {
		return reconcile.Result{}, nil
	}
	return reconcile.Result{RequeueAfter: max(next.Sub(now), time.Millisecond)}, nil
}

// write makes one list, or changes the one that is there. A list of nobody is deleted: a rule without names would be of
// everybody, and an uninstall leaves nothing behind.
func (u *Users) write(ctx context.Context, name string, names []string) error {
	var rules []rbacv1.PolicyRule
	if len(names) > 0 {
		rules = []rbacv1.PolicyRule{{
			APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"users"}, Verbs: []string{"impersonate:user-info"}, ResourceNames: names,
		}}
	}
	role := &rbacv1.ClusterRole{}
	err := u.Client.Get(ctx, types.NamespacedName{Name: name}, role)
	switch {
	case apierrors.IsNotFound(err) && rules == nil:
		return nil
	case apierrors.IsNotFound(err):
		role = &rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app.kubernetes.io/part-of": "support-access"}}, Rules: rules,
		}
		if err := u.Client.Create(ctx, role); err != nil {
			return fmt.Errorf("create ClusterRole %s: %w", name, err)
		}
		return nil
	case err != nil:
		return fmt.Errorf("get ClusterRole %s: %w", name, err)
	case rules != nil && equality.Semantic.DeepEqual(role.Rules, rules):
		return nil
	}
	updated := role.DeepCopy()
	updated.Rules = rules
	if err := u.Client.Update(ctx, updated); err != nil {
		return fmt.Errorf("update ClusterRole %s: %w", name, err)
	}
	if rules != nil {
		return nil
	}
	// Emptied first: one that something holds is there until it lets go.
	uid := updated.UID
	if err := u.Client.Delete(ctx, updated, client.Preconditions{UID: &uid}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete ClusterRole %s: %w", name, err)
	}
	return nil
}

// usersOf returns as whom the gateway may act, list by list, and when the next grant begins.
func usersOf(records []v1alpha1.SupportAccessRecord, now time.Time) (lists [shards][]string, next time.Time) {
	for i := range records {
		record := &records[i]
		if !throughGateway(record) || record.Status.EndTime != nil {
			continue
		}
		if begins, known := beginning(record); !known || begins.After(now) {
			if known && (next.IsZero() || begins.Before(next)) {
				next = begins
			}
			continue
		}
		for _, name := range namesOf(record) {
			at := shardOf(name)
			lists[at] = append(lists[at], name)
		}
	}
	for i := range lists {
		slices.Sort(lists[i])
	}
	return lists, next
}

// beginning returns from when the gateway may act as the engineers of a grant: a little before their bindings exist, so that
// nobody has to wait for the list. It is not known of a grant that waits for somebody.
func beginning(record *v1alpha1.SupportAccessRecord) (at time.Time, known bool) {
	switch {
	case record.Status.ProvisionedTime != nil:
		return time.Time{}, true
	case record.Status.StartTime != nil:
		return record.Status.StartTime.Time, true
	default:
		return time.Time{}, false
	}
}

// namesOf are the users of one grant who were not taken off.
func namesOf(record *v1alpha1.SupportAccessRecord) []string {
	var names []string
	for _, engineer := range record.Spec.Engineers {
		if !slices.ContainsFunc(record.Status.RemovedEngineers, func(e v1alpha1.RemovedEngineer) bool { return e.Name == engineer }) {
			names = append(names, access.GatewayUsername(record.Spec.Grant, engineer))
		}
	}
	return names
}

// shardOf returns the list on which a user is, always the same.
func shardOf(username string) int {
	return int(sha256.Sum256([]byte(username))[0] >> 4)
}

func listName(shard int) string { return fmt.Sprintf("%s%x", usersPrefix, shard) }

// throughGateway reports whether an object is the record, no copy of it, of a grant whose engineers come through the
// gateway.
func throughGateway(o client.Object) bool {
	record, ok := o.(*v1alpha1.SupportAccessRecord)
	return ok && record.Spec.Transport == v1alpha1.TransportGateway &&
		record.Namespace == record.Spec.Grant.Namespace && record.Name == record.Spec.Grant.Name
}

// isList reports whether an object is one of the lists: what somebody else writes into it does not stay.
func isList(o client.Object) bool {
	name := o.GetName()
	return len(name) == len(usersPrefix)+1 && name[:len(usersPrefix)] == usersPrefix
}

// gathering has the lists looked at a moment after an object that counts has changed: what comes in between is written
// with it.
func gathering(counts func(client.Object) bool) handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	look := func(o client.Object, q queue) {
		if counts(o) {
			q.AddAfter(reconcile.Request{NamespacedName: types.NamespacedName{Name: "users"}}, gathered)
		}
	}
	return handler.Funcs{
		CreateFunc:  func(_ context.Context, e event.CreateEvent, q queue) { look(e.Object, q) },
		UpdateFunc:  func(_ context.Context, e event.UpdateEvent, q queue) { look(e.ObjectNew, q) },
		DeleteFunc:  func(_ context.Context, e event.DeleteEvent, q queue) { look(e.Object, q) },
		GenericFunc: func(_ context.Context, e event.GenericEvent, q queue) { look(e.Object, q) },
	}
}
