package gateway

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/audit/chain"
)

// crossing is for how long a checkpoint may be without proof before anybody is told: it may have crossed the one before it
// on the way.
const crossing = time.Minute

// Checkpoints keep what the gateway's audit logs say of themselves, in a ConfigMap that admission lets nobody else write.
// A log that went back, or was written anew, is not kept, and told of.
type Checkpoints struct {
	// Client reads sessions from the cache, and writes the ConfigMap.
	Client client.Client
	// Live reads the ConfigMap: it is in no cache.
	Live client.Reader
	// Clock says for how long something was without proof.
	Clock clock.PassiveClock
	// Recorder tells people.
	Recorder events.EventRecorder
	// Counters tell machines.
	Counters interface {
		CheckpointKept()
		CheckpointRefused(reason string)
	}

	// told is what people were told of a session, unproven since when it has no proof. There is one worker.
	told     map[types.NamespacedName]string
	unproven map[types.NamespacedName]time.Time
}

// SetupWithManager has every checkpoint looked at that the gateway hands over, one at a time.
func (c *Checkpoints) SetupWithManager(mgr ctrl.Manager) error {
	handsOver := predicate.NewPredicateFuncs(func(o client.Object) bool { return o.(*v1alpha1.SupportAccessSession).Status.Log != nil })
	return ctrl.NewControllerManagedBy(mgr).Named("gateway-checkpoints").
		Watches(&v1alpha1.SupportAccessSession{}, &handler.EnqueueRequestForObject{}).
		WithEventFilter(handsOver).
		WithOptions(controller.Options{MaxConcurrentReconciles: 1}).
		Complete(c)
}

// Reconcile keeps the checkpoint of one session, or says why not.
func (c *Checkpoints) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	session := &v1alpha1.SupportAccessSession{}
	if err := c.Client.Get(ctx, request.NamespacedName, session); err != nil {
		delete(c.told, request.NamespacedName)
		delete(c.unproven, request.NamespacedName)
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if session.Status.Log == nil {
		return reconcile.Result{}, nil
	}
	config, witness, err := c.read(ctx)
	if err != nil {
		return reconcile.Result{}, err
	}
	known := len(witness.Logs())
	taking, err := take(witness, session)
	refusal := &chain.Refusal{}
	if errors.As(err, &refusal) {
		return c.refuse(ctx, session, refusal), nil
	}
	delete(c.told, request.NamespacedName)
	delete(c.unproven, request.NamespacedName)
	if err != nil || taking == chain.TookNothing {
		return reconcile.Result{}, err
	}
	if err := c.write(ctx, config, witness); err != nil {
		return reconcile.Result{}, err
	}
	c.Counters.CheckpointKept()
	if taking == chain.TookAnother {
		c.announce(ctx, session, known)
	}
	return reconcile.Result{}, nil
}

// read returns what is kept. Where nothing is, the ConfigMap has no version.
func (c *Checkpoints) read(ctx context.Context) (*corev1.ConfigMap, *chain.Witness, error) {
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: v1alpha1.CheckpointConfigMap}}
	if err := c.Live.Get(ctx, client.ObjectKeyFromObject(config), config); client.IgnoreNotFound(err) != nil {
		return nil, nil, fmt.Errorf("get ConfigMap %s: %w", config.Name, err)
	}
	witness, err := chain.ReadWitness(config.Data)
	if err != nil {
		return nil, nil, fmt.Errorf("read ConfigMap %s, which nobody else may write: %w", config.Name, err)
	}
	return config, witness, nil
}

// take has the witness take what a session hands over.
func take(witness *chain.Witness, session *v1alpha1.SupportAccessSession) (chain.Taking, error) {
	head := session.Status.Log
	offer := chain.Offer{Checkpoint: head.Checkpoint, Keys: head.Keys, Since: head.Since}
	if session.Status.RenewTime != nil {
		offer.Time = session.Status.RenewTime.Time
	}
	for i, text := range head.Proof {
		decoded, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(decoded) != tlog.HashSize {
			return chain.TookNothing, &chain.Refusal{Reason: chain.RefusedMalformed, Message: fmt.Sprintf("proof[%d] is no hash", i)}
		}
		offer.Proof = append(offer.Proof, tlog.Hash(decoded))
	}
	return witness.Take(offer)
}

// write stores what is kept, unless somebody has since: then it is looked at again.
func (c *Checkpoints) write(ctx context.Context, config *corev1.ConfigMap, witness *chain.Witness) error {
	config.Data = witness.Data()
	if config.ResourceVersion == "" {
		config.Labels = map[string]string{"app.kubernetes.io/part-of": "support-access"}
		if err := c.Client.Create(ctx, config); err != nil {
			return fmt.Errorf("create ConfigMap %s: %w", config.Name, err)
		}
		return nil
	}
	if err := c.Client.Update(ctx, config); err != nil {
		return fmt.Errorf("update ConfigMap %s: %w", config.Name, err)
	}
	return nil
}

// announce tells of a log that was not known. The first is how it begins; another is that the one before is not gone on with.
func (c *Checkpoints) announce(ctx context.Context, session *v1alpha1.SupportAccessSession, known int) {
	kind, message := corev1.EventTypeNormal, "The audit log of replica %s is kept account of from here on."
	if known > 0 {
		kind, message = corev1.EventTypeWarning, "Replica %s has an audit log that was not known. Where it should go on with an older one, that one is gone."
	}
	log.FromContext(ctx).Info("An audit log was not known", "replica", session.Spec.Replica, "known", known)
	c.Recorder.Eventf(session, nil, kind, v1alpha1.ReasonAuditLogBegan, "KeepCheckpoint", message, session.Spec.Replica)
}

// refuse counts what is not kept, and tells of it once.
func (c *Checkpoints) refuse(ctx context.Context, session *v1alpha1.SupportAccessSession, why *chain.Refusal) reconcile.Result {
	key := client.ObjectKeyFromObject(session)
	if why.Reason == chain.RefusedUnproven {
		since, seen := c.unproven[key]
		if !seen {
			since = c.Clock.Now()
			c.unproven = with(c.unproven, key, since)
		}
		if left := since.Add(crossing).Sub(c.Clock.Now()); left > 0 {
			return reconcile.Result{RequeueAfter: left}
		}
	}
	c.Counters.CheckpointRefused(why.Reason)
	if c.told[key] == why.Error() {
		return reconcile.Result{}
	}
	c.told = with(c.told, key, why.Error())
	log.FromContext(ctx).Info("A checkpoint of the audit log is not kept", "replica", session.Spec.Replica, "reason", why.Reason, "message", why.Message)
	c.Recorder.Eventf(session, nil, corev1.EventTypeWarning, v1alpha1.ReasonCheckpointRefused, "KeepCheckpoint",
		"The audit log of replica %s is not what it was: %s", session.Spec.Replica, why.Error())
	return reconcile.Result{}
}

func with[V any](m map[types.NamespacedName]V, key types.NamespacedName, value V) map[types.NamespacedName]V {
	if m == nil {
		m = map[types.NamespacedName]V{}
	}
	m[key] = value
	return m
}
