package gateway

import (
	"context"
	"fmt"
	"time"

	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/api/v1alpha1"
)

// keptAfterCut is how long a session is kept after the gateway has cut it: what it says is in the record by then.
const keptAfterCut = time.Hour

// Sessions deletes what the gateway has said of grants that are long over.
type Sessions struct {
	// Client reads sessions from the cache, and deletes them.
	Client client.Client
	// Clock says which are old.
	Clock clock.PassiveClock
}

// SetupWithManager has every session looked at when it changes, and when its time is over.
func (d *Sessions) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("gateway-sessions").
		Watches(&v1alpha1.SupportAccessSession{}, &handler.EnqueueRequestForObject{}).
		Complete(d)
}

// Reconcile deletes one session if it is old.
func (d *Sessions) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	session := &v1alpha1.SupportAccessSession{}
	if err := d.Client.Get(ctx, request.NamespacedName, session); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if session.Status.CutTime == nil {
		return reconcile.Result{}, nil
	}
	if left := session.Status.CutTime.Add(keptAfterCut).Sub(d.Clock.Now()); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	uid := session.UID
	if err := d.Client.Delete(ctx, session, client.Preconditions{UID: &uid}); client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("delete session %s: %w", session.Name, err)
	}
	return reconcile.Result{}, nil
}
