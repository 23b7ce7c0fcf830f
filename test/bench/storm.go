package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// workers is the concurrency of the operator, and so of the bare client beside it.
const workers = 16

// each does something for 0 to n-1, with the operator's concurrency.
func each(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	for i := range n {
		group.Go(func() error { return do(ctx, i) })
	}
	return group.Wait()
}

// expireAtOnce measures how late the bindings of grants are gone that all expire in the same second, in turn with a bare
// client that deletes as many.
func (b *bench) expireAtOnce(ctx context.Context, o options) error {
	say("\n%d grants that expire in one second, %d rounds", o.storm, o.storms)
	var late, floor [3]sample
	// Few open at once, and the more bindings there are, the longer each takes.
	margin := 15*time.Second + time.Duration(o.storm)*300*time.Millisecond
	for round := 0; round < o.storms; {
		deleteBare, err := b.makeBare(ctx, round, o.storm)
		if err != nil {
			return err
		}
		gone, bare, err := b.expireOnce(ctx, fmt.Sprintf("expire-%d-%d-", round, margin/time.Second), o.storm,
			time.Now().Add(margin).Truncate(time.Second), deleteBare)
		if errors.Is(err, errTooLate) && margin < patience*4 {
			margin *= 2
			continue
		}
		if err != nil {
			return err
		}
		say("  round %d: 99%% of the bindings gone after %s, floor %s", round+1, ms(gone.at(0.99)), ms(bare.at(0.99)))
		for i, quantile := range []float64{0.5, 0.99, 1} {
			late[i], floor[i] = append(late[i], gone.at(quantile)), append(floor[i], bare.at(quantile))
		}
		round++
	}
	compare("50% of the bindings gone after the instant", late[0], floor[0], "no bar")
	compare("99% of the bindings gone after the instant", late[1], floor[1], "bar: 1.25")
	compare("all bindings gone after the instant", late[2], floor[2], "no bar")
	return nil
}

// errTooLate says that grants were not yet open when they were to expire.
var errTooLate = errors.New("they were not all active in time")

// expireOnce applies grants that all end at one instant, and says how long after it each of their bindings was gone. When
// all are open the bare client deletes its own: both have the same cluster to deal with.
func (b *bench) expireOnce(ctx context.Context, prefix string, n int, end time.Time, deleteBare func(context.Context) (sample, error)) (late, bare sample, err error) {
	if err := each(ctx, n, func(ctx context.Context, i int) error {
		grant := newGrant(fmt.Sprintf("%s%d", prefix, i), "")
		at := metav1.NewTime(end)
		grant.Spec.ExpirationTime = &at
		return b.tess.Create(ctx, grant)
	}); err != nil {
		return nil, nil, fmt.Errorf("apply grants: %w", err)
	}
	// Two seconds before the end nothing but the waiting is under way, as for the bare client.
	inTime, cancel := context.WithDeadline(ctx, end.Add(-2*time.Second))
	defer cancel()
	if err := b.untilActive(inTime, prefix, n); err != nil {
		if inTime.Err() != nil && ctx.Err() == nil {
			say("  %v", err)
			return nil, nil, errors.Join(errTooLate, b.untilReleased(ctx, prefix))
		}
		return nil, nil, err
	}
	if bare, err = deleteBare(inTime); err != nil {
		if inTime.Err() != nil && ctx.Err() == nil {
			return nil, nil, errors.Join(errTooLate, b.untilReleased(ctx, prefix))
		}
		return nil, nil, err
	}
	gone, err := b.watchDeletions(ctx, n*len(roles), v1alpha1.LabelGrant, ofGrants(prefix))
	if err != nil {
		return nil, nil, err
	}
	late, err = gone(end)
	if err != nil {
		return nil, nil, err
	}
	return late, bare, b.untilReleased(ctx, prefix)
}

// makeBare makes as many bindings as the grants have. What it returns deletes them with the operator's concurrency, and says
// when each was gone.
func (b *bench) makeBare(ctx context.Context, round, n int) (func(context.Context) (sample, error), error) {
	prefix := fmt.Sprintf("bare-%d-", round)
	binding := func(i int) *rbacv1.RoleBinding {
		return bareBinding(fmt.Sprintf("%s%d", prefix, i/len(roles)), roles[i%len(roles)])
	}
	n *= len(roles)
	if err := each(ctx, n, func(ctx context.Context, i int) error {
		return client.IgnoreAlreadyExists(b.bare.Create(ctx, binding(i)))
	}); err != nil {
		return nil, fmt.Errorf("create bindings: %w", err)
	}
	return func(ctx context.Context) (sample, error) {
		gone, err := b.watchDeletions(ctx, n, v1alpha1.LabelGrant, ofGrants(prefix))
		if err != nil {
			return nil, err
		}
		started := time.Now()
		if err := each(ctx, n, func(ctx context.Context, i int) error { return b.bare.Delete(ctx, binding(i)) }); err != nil {
			return nil, fmt.Errorf("delete bindings: %w", err)
		}
		return gone(started)
	}, nil
}

// ofGrants tells the bindings of grants with a prefix.
func ofGrants(prefix string) func(*rbacv1.RoleBinding) bool {
	return func(o *rbacv1.RoleBinding) bool {
		return o.Namespace == tenant && strings.HasPrefix(o.Labels[v1alpha1.LabelGrant], prefix)
	}
}

// watchDeletions begins to watch the bindings that have a label, and notes when each of n that count was gone. What it returns
// waits for the last, and says how long after an instant each was.
func (b *bench) watchDeletions(ctx context.Context, n int, label string, counts func(*rbacv1.RoleBinding) bool) (func(since time.Time) (sample, error), error) {
	list := &rbacv1.RoleBindingList{}
	if err := b.admin.List(ctx, list, client.HasLabels{label}); err != nil {
		return nil, fmt.Errorf("list bindings: %w", err)
	}
	events, err := b.admin.Watch(ctx, &rbacv1.RoleBindingList{}, client.HasLabels{label}, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: list.ResourceVersion}})
	if err != nil {
		return nil, fmt.Errorf("watch bindings: %w", err)
	}
	gone := make(chan time.Time, n)
	go func() {
		defer close(gone)
		for seen := 0; seen < n; {
			event, open := <-events.ResultChan()
			if !open {
				return
			}
			if o, ok := event.Object.(*rbacv1.RoleBinding); ok && event.Type == watch.Deleted && counts(o) {
				gone <- time.Now()
				seen++
			}
		}
	}()
	return func(since time.Time) (sample, error) {
		defer events.Stop()
		timeout := time.After(time.Until(since) + patience)
		var late sample
		for len(late) < n {
			select {
			case at, open := <-gone:
				if !open {
					return nil, errors.New("the watch of the bindings ended")
				}
				late = append(late, at.Sub(since))
			case <-timeout:
				return nil, fmt.Errorf("only %d of %d bindings were deleted", len(late), n)
			}
		}
		return late, nil
	}, nil
}

// untilActive waits until grants with a prefix are active.
func (b *bench) untilActive(ctx context.Context, prefix string, n int) error {
	return b.untilAll(ctx, fmt.Sprintf("%d grants are active", n), func(ctx context.Context) (int, error) {
		active, err := b.count(ctx, prefix, func(g *v1alpha1.SupportAccessGrant) bool {
			return meta.IsStatusConditionTrue(g.Status.Conditions, v1alpha1.ConditionActive)
		})
		return n - active, err
	})
}

// untilReleased waits until the operator holds no grant with a prefix any more.
func (b *bench) untilReleased(ctx context.Context, prefix string) error {
	return b.untilAll(ctx, "the grants have ended", func(ctx context.Context) (int, error) {
		return b.count(ctx, prefix, func(g *v1alpha1.SupportAccessGrant) bool { return len(g.Finalizers) > 0 })
	})
}

// untilAll waits until none is left, looking seldom enough not to be in the way.
func (b *bench) untilAll(ctx context.Context, what string, left func(context.Context) (int, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Minute)
	defer cancel()
	missing := -1
	for {
		n, err := left(ctx)
		if err == nil && n == 0 {
			return nil
		}
		if err == nil {
			missing = n
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %d are missing: %w", what, missing, ctx.Err())
		case <-time.After(time.Second):
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("wait until %s: %w", what, err)
		}
	}
}

// count says how many grants with a prefix are as asked, from one list in pages, which costs the API server least.
func (b *bench) count(ctx context.Context, prefix string, is func(*v1alpha1.SupportAccessGrant) bool) (int, error) {
	n, grants := 0, &v1alpha1.SupportAccessGrantList{}
	for next := true; next; next = grants.Continue != "" {
		if err := b.admin.List(ctx, grants, client.InNamespace(tenant), client.Limit(500), client.Continue(grants.Continue)); err != nil {
			return 0, fmt.Errorf("list grants: %w", err)
		}
		for i := range grants.Items {
			if g := &grants.Items[i]; strings.HasPrefix(g.Name, prefix) && is(g) {
				n++
			}
		}
	}
	return n, nil
}

// revocations is how many grants are revoked in the storm.
const revocations = 10

// revokeInStorm measures revocations while many grants are being opened.
func (b *bench) revokeInStorm(ctx context.Context, o options) error {
	say("\nA revocation in the middle of %d grants that open", o.storm)
	var quiet, stormy sample
	var victims []*opened
	for round := range 2 * revocations {
		g, err := b.openGrant(ctx, fmt.Sprintf("victim-%d", round))
		if err != nil {
			return err
		}
		if round >= revocations {
			victims = append(victims, g)
			continue
		}
		revoke, err := b.revokeGrant(ctx, g)
		if err != nil {
			return err
		}
		quiet = append(quiet, revoke)
	}
	storm, stormCtx := errgroup.WithContext(ctx)
	started := time.Now()
	storm.Go(func() error {
		err := each(stormCtx, o.storm, func(ctx context.Context, i int) error {
			return b.tess.Create(ctx, newGrant(fmt.Sprintf("storm-%d", i), "1h"))
		})
		say("  applied in %s", time.Since(started).Round(time.Second))
		return err
	})
	over := make(chan struct{})
	storm.Go(func() error {
		defer close(over)
		return b.untilActive(stormCtx, "storm-", o.storm)
	})
	for _, g := range victims {
		select {
		case <-over:
		case <-time.After(time.Duration(o.storm) * 2 * time.Millisecond):
			revoke, err := b.revokeGrant(ctx, g)
			if err != nil {
				return err
			}
			stormy = append(stormy, revoke)
		}
	}
	if err := storm.Wait(); err != nil {
		return fmt.Errorf("open grants: %w", err)
	}
	say("  opened in %s, with %d revocations meanwhile", time.Since(started).Round(time.Second), len(stormy))
	if len(stormy) == 0 {
		return errors.New("the storm was over before anything was revoked: give more with -storm")
	}
	compare("revoke -> refused, in the storm", stormy, quiet, "bar: 3 of the quiet one")
	return nil
}

// holdMany measures the operator's memory with many active grants, and what it writes when nothing happens.
func (b *bench) holdMany(ctx context.Context, o options) error {
	say("\n%d active grants", o.grants)
	b.sayMemory("resident memory before")
	started := time.Now()
	if err := each(ctx, o.grants, func(ctx context.Context, i int) error {
		return b.tess.Create(ctx, newGrant(fmt.Sprintf("hold-%d", i), "168h"))
	}); err != nil {
		return fmt.Errorf("apply grants: %w", err)
	}
	if err := b.untilActive(ctx, "hold-", o.grants); err != nil {
		return err
	}
	say("  opened in %s", time.Since(started).Round(time.Second))
	b.sayMemory("resident memory after opening them")
	say("  of writes the lease of the leader election, %s/%s, and events are not counted", v1alpha1.SystemNamespace, v1alpha1.ControllerServiceAccount)
	if err := b.sayWrites(ctx, "writes in 30 s of idleness"); err != nil {
		return err
	}
	if err := b.operator.Stop(); err != nil {
		return err
	}
	before, err := b.writes()
	if err != nil {
		return err
	}
	if err := b.startOperator(ctx); err != nil {
		return err
	}
	if err := b.sayWrites(ctx, "writes in 30 s after the restart"); err != nil {
		return err
	}
	after, err := b.writes()
	if err != nil {
		return err
	}
	say("%-46s %d (bar: 0)", "writes since the restart", len(after)-len(before))
	b.sayMemory("resident memory after the restart")
	return nil
}

func (b *bench) sayWrites(ctx context.Context, what string) error {
	before, err := b.writes()
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(30 * time.Second):
	}
	after, err := b.writes()
	if err != nil {
		return err
	}
	say("%-46s %d (bar: 0)", what, len(after)-len(before))
	byWhat := map[string]int{}
	for _, write := range after[len(before):] {
		byWhat[write.what]++
	}
	for _, what := range slices.Sorted(maps.Keys(byWhat)) {
		say("  %6d  %s", byWhat[what], what)
	}
	return nil
}

// sayMemory prints what the kernel says of the operator's process.
func (b *bench) sayMemory(what string) {
	pid := b.operator.PID()
	say("%-46s %d MiB, of which %d are the program's own pages (bar: 200)", what, memory(pid), memoryOf(pid, "RssFile:"))
}
