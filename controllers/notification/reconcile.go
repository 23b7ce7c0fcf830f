package notification

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/notify"
	"supportaccess.dev/operator/internal/records"
)

// Reconcile tells what is to be told of one record, each channel its next notice, and writes down what became of it.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	record := &v1alpha1.SupportAccessRecord{}
	if err := r.Client.Get(ctx, request.NamespacedName, record); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	speaks, err := r.speaks(ctx, record)
	if err != nil || !speaks {
		return reconcile.Result{}, err
	}
	channels, err := r.channelsOf(ctx, record)
	if err != nil {
		return reconcile.Result{}, err
	}
	now := r.Clock.Now()
	p := planOf(record, channels, now)
	if len(p.due) == 0 {
		return again(p.next, now), nil
	}
	// The cache may not have heard yet of what was told: nobody is to hear it twice because of that.
	if err := r.Live.Get(ctx, request.NamespacedName, record); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	p = planOf(record, channels, now)
	told, wait := r.tell(ctx, record, p.due, now)
	if err := r.write(ctx, record, told); err != nil {
		return reconcile.Result{}, err
	}
	r.announce(ctx, record, told)
	if wait > 0 {
		p.later(now.Add(wait))
	}
	return again(p.next, now), nil
}

// again returns when to look again. A write of the record wakes the controller anyway.
func again(next, now time.Time) reconcile.Result {
	if next.IsZero() {
		return reconcile.Result{}
	}
	return reconcile.Result{RequeueAfter: max(next.Sub(now), 10*time.Millisecond)}
}

// speaks reports whether it is from this record that people are told: the grant's own, or the request's, or, where a grant's
// went with its namespace, what was buried of it. All others are copies; and that a setting was switched its grant tells.
func (r *Reconciler) speaks(ctx context.Context, record *v1alpha1.SupportAccessRecord) (bool, error) {
	if records.IsOwn(record) {
		return record.Spec.Setting == nil, nil
	}
	home, end := records.Home(record), record.Status.EndTime
	if record.Namespace != v1alpha1.SystemNamespace || end == nil || r.Clock.Now().Sub(end.Time) > 7*horizon {
		return false, nil
	}
	own := &v1alpha1.SupportAccessRecord{}
	if err := r.Client.Get(ctx, home, own); !apierrors.IsNotFound(err) {
		return false, err
	}
	err := r.Live.Get(ctx, home, own)
	return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
}

// outcome is what became of one errand.
type outcome struct {
	errand
	state   v1alpha1.ChannelState
	word    string
	failure string
}

// tell runs errands, each channel by itself, so that none waits for another. It returns what became of those whose channel
// was free, and how soon one may be that was not.
func (r *Reconciler) tell(ctx context.Context, record *v1alpha1.SupportAccessRecord, due []errand, now time.Time) ([]outcome, time.Duration) {
	var mu sync.Mutex
	var outcomes []outcome
	var soonest time.Duration
	var group sync.WaitGroup
	for _, e := range due {
		held, _ := r.gates.LoadOrStore(e.channel.key, &gate{})
		if wait := held.(*gate).enter(now); wait > 0 {
			if soonest == 0 || wait < soonest {
				soonest = wait
			}
			continue
		}
		group.Go(func() {
			o := r.run(ctx, e, stateOf(record, e.channel.key), held.(*gate))
			mu.Lock()
			defer mu.Unlock()
			outcomes = append(outcomes, o)
		})
	}
	group.Wait()
	return outcomes, soonest
}

// run tells one notice.
func (r *Reconciler) run(ctx context.Context, e errand, state v1alpha1.ChannelState, held *gate) outcome {
	pause, result, failure := pace, notify.Result{}, ""
	if e.channel.spec.Slack != nil {
		pause = slackPace
	}
	defer func() {
		// That one address is refused says nothing of the channel.
		if result.Err != nil && len(result.Told) == 0 {
			held.rest(r.Clock.Now(), result.RetryAfter)
			return
		}
		held.leave(r.Clock.Now(), pause)
	}()
	result, failure = r.send(ctx, e.channel, e.notice, e.told)
	o := outcome{errand: e, failure: failure}
	o.state, o.word = settle(state, e.notice, result, failure, r.Clock.Now())
	return o
}

// writeTimeout bounds how long it takes to write down what was told, when the operator is asked to stop meanwhile.
const writeTimeout = 5 * time.Second

// write keeps what became of errands, in one write. Others write the record too: what they wrote stays. What was told is
// written down although the operator is to stop: nobody need hear it again.
func (r *Reconciler) write(ctx context.Context, record *v1alpha1.SupportAccessRecord, told []outcome) error {
	if len(told) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	key, uid := client.ObjectKeyFromObject(record), record.UID
	fresh := record
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if fresh == nil {
			fresh = &v1alpha1.SupportAccessRecord{}
			if err := r.Live.Get(ctx, key, fresh); err != nil {
				return err
			}
		}
		changed := fresh
		fresh = nil
		if changed.UID != uid {
			return nil
		}
		for _, o := range told {
			keep(changed, o.state)
		}
		records.Fit(changed)
		return r.Client.Update(ctx, changed)
	})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write down in record %s what was told: %w", key, err)
	}
	return nil
}

// announce says what was given up, and counts.
func (r *Reconciler) announce(ctx context.Context, record *v1alpha1.SupportAccessRecord, told []outcome) {
	for _, o := range told {
		r.Counters.Notified(o.channel.key, o.word)
		switch o.word {
		case outcomeDead:
			r.Recorder.Eventf(record, nil, corev1.EventTypeWarning, v1alpha1.ReasonDeadLetter, "Notify",
				"notice %s (%s) was given up on channel %s: %s", o.notice.ID, o.notice.Event, o.channel.key, o.failure)
			log.FromContext(ctx).Info("Notice given up", "channel", o.channel.key, "event", o.notice.Event, "notice", o.notice.ID, "why", o.failure)
		case outcomeFailed:
			log.FromContext(ctx).Info("Notice not delivered", "channel", o.channel.key, "event", o.notice.Event, "notice", o.notice.ID, "attempts", o.state.Attempts, "why", o.failure)
		default:
			log.FromContext(ctx).Info("Notice delivered", "channel", o.channel.key, "event", o.notice.Event, "notice", o.notice.ID)
		}
	}
}
