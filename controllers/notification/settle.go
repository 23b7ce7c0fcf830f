package notification

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/notify"
)

const (
	// hold is how long a notice waits before it is told: the operator is writing the record just then, and what is found out
	// at once, such as that the grant is refused, is found out.
	hold = 2 * time.Second
	// horizon is how far back a channel tells of what happened before there was one.
	horizon = 24 * time.Hour
	// maxDeadLetters is how many notices that were given up a record names for each channel.
	maxDeadLetters = 4
)

// errand is what a channel is to tell next.
type errand struct {
	channel channel
	notice  notify.Notice
	told    []string
}

// plan is what is to be told now, and when to look again.
type plan struct {
	due []errand
	// next is when to look again, zero if a change of the record will say.
	next time.Time
}

// planOf says what each channel is to tell now: of what it owes the first, for what happened is told in order.
func planOf(record *v1alpha1.SupportAccessRecord, channels []channel, now time.Time) plan {
	var p plan
	for _, c := range channels {
		state := stateOf(record, c.key)
		p.later(notify.NextSoon(record, c.telling, now))
		owed := owedBy(state, notify.Notices(record, c.telling, now), now)
		if len(owed) == 0 {
			continue
		}
		at := owed[0].Time.Add(hold)
		if state.NextAttemptTime != nil {
			at = state.NextAttemptTime.Time
		}
		if now.Before(at) {
			p.later(at)
			continue
		}
		p.due = append(p.due, errand{channel: c, notice: owed[0], told: state.Told})
	}
	return p
}

func (p *plan) later(at time.Time) {
	if !at.IsZero() && (p.next.IsZero() || at.Before(p.next)) {
		p.next = at
	}
}

// owedBy returns what a channel has yet to tell. Where the record has no room any more for what was told last, it goes by
// the instant.
func owedBy(state v1alpha1.ChannelState, notices []notify.Notice, now time.Time) []notify.Notice {
	if state.SettledTime == nil {
		if state.Attempts > 0 {
			return notices
		}
		return slices.DeleteFunc(notices, func(n notify.Notice) bool { return now.Sub(n.Time) > horizon })
	}
	if i := slices.IndexFunc(notices, func(n notify.Notice) bool { return n.ID == state.SettledID }); i >= 0 {
		return notices[i+1:]
	}
	return slices.DeleteFunc(notices, func(n notify.Notice) bool { return !n.Time.After(state.SettledTime.Time) })
}

// stateOf returns how far a channel has come.
func stateOf(record *v1alpha1.SupportAccessRecord, key string) v1alpha1.ChannelState {
	for _, state := range record.Status.Notifications {
		if state.Channel == key {
			return *state.DeepCopy()
		}
	}
	return v1alpha1.ChannelState{Channel: key}
}

// Outcomes of an attempt, as the metric names them.
const (
	outcomeDelivered = "delivered"
	outcomeFailed    = "failed"
	outcomeDead      = "dead"
)

// settle returns how far a channel has come after an attempt, and what came of it.
func settle(state v1alpha1.ChannelState, notice notify.Notice, result notify.Result, failure string, now time.Time) (v1alpha1.ChannelState, string) {
	if result.Err == nil {
		state.Delivered++
		return settled(state, notice), outcomeDelivered
	}
	state.Attempts++
	if state.FirstAttemptTime == nil {
		state.FirstAttemptTime = seconds(now)
	}
	for _, address := range result.Told {
		if digest := notify.Digest(address); !slices.Contains(state.Told, digest) && len(state.Told) < maxRecipients {
			state.Told = append(state.Told, digest)
		}
	}
	next := notify.NextAttempt(notice.ID, state.Attempts, state.FirstAttemptTime.Time, now, result.RetryAfter)
	if result.Permanent || next.IsZero() {
		return givenUp(state, notice, failure, now), outcomeDead
	}
	state.NextAttemptTime, state.LastError = seconds(next.Add(time.Second)), failure
	return state, outcomeFailed
}

func settled(state v1alpha1.ChannelState, notice notify.Notice) v1alpha1.ChannelState {
	at := metav1.NewMicroTime(notice.Time)
	state.SettledID, state.SettledTime = notice.ID, &at
	state.Attempts, state.FirstAttemptTime, state.NextAttemptTime, state.LastError, state.Told = 0, nil, nil, "", nil
	return state
}

func givenUp(state v1alpha1.ChannelState, notice notify.Notice, failure string, now time.Time) v1alpha1.ChannelState {
	state.DeadLetters = append(state.DeadLetters, v1alpha1.DeadLetter{
		ID: notice.ID, Event: string(notice.Event), Time: *seconds(now), Error: failure,
	})
	if over := len(state.DeadLetters) - maxDeadLetters; over > 0 {
		state.DeadLetters = state.DeadLetters[over:]
		state.DroppedDeadLetters += int32(over)
	}
	return settled(state, notice)
}

func seconds(t time.Time) *metav1.Time {
	at := metav1.NewTime(t.Truncate(time.Second))
	return &at
}

// keep puts how far a channel has come into a record.
func keep(record *v1alpha1.SupportAccessRecord, state v1alpha1.ChannelState) {
	i := slices.IndexFunc(record.Status.Notifications, func(s v1alpha1.ChannelState) bool { return s.Channel == state.Channel })
	if i >= 0 {
		record.Status.Notifications[i] = state
		return
	}
	record.Status.Notifications = append(record.Status.Notifications, state)
}
