package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
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

// expireAtOnce measures how late the bindings of grants are gone that all expire in the same second.
func (b *bench) expireAtOnce(ctx context.Context, o options) error {
	say("\n%d grants that expire in one second", o.storm)
	floor, err := b.deleteBare(ctx, o.storm)
	if err != nil {
		return err
	}
	end := time.Now().Add(20*time.Second + time.Duration(o.storm)*40*time.Millisecond).Truncate(time.Second)
	if err := each(ctx, o.storm, func(ctx context.Context, i int) error {
		grant := newGrant(fmt.Sprintf("expire-%d", i), "")
		at := metav1.NewTime(end)
		grant.Spec.ExpirationTime = &at
		return b.tess.Create(ctx, grant)
	}); err != nil {
		return fmt.Errorf("apply grants: %w", err)
	}
	if err := b.untilActive(ctx, "expire-", o.storm); err != nil {
		return err
	}
	say("  all are active %s before they expire", time.Until(end).Round(time.Second))
	if time.Until(end) < time.Second {
		return errors.New("they were not all active in time: give fewer with -storm")
	}
	late, err := b.watchDeletions(ctx, o.storm*len(roles), end)
	if err != nil {
		return err
	}
	say("%-46s 50%% %8s  99%% %8s  all %8s", "bindings gone after the instant", ms(late.at(0.5)), ms(late.at(0.99)), ms(late.at(1)))
	say("%-46s 50%% %8s  99%% %8s  all %8s", "  floor: a bare client deletes them", ms(floor.at(0.5)), ms(floor.at(0.99)), ms(floor.at(1)))
	say("%-46s %.2f (bar: 1.25)", "  ratio at 99%", float64(late.at(0.99))/float64(floor.at(0.99)))
	return nil
}

// deleteBare deletes as many bindings as the grants have, with the operator's concurrency, and says when each was gone.
func (b *bench) deleteBare(ctx context.Context, n int) (sample, error) {
	if err := each(ctx, n, func(ctx context.Context, i int) error {
		for _, role := range roles {
			if err := b.admin.Create(ctx, bareBinding(fmt.Sprintf("storm-%d", i), role)); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("create bindings: %w", err)
	}
	took, started := make(sample, n*len(roles)), time.Now()
	err := each(ctx, n, func(ctx context.Context, i int) error {
		for j, role := range roles {
			if err := b.admin.Delete(ctx, bareBinding(fmt.Sprintf("storm-%d", i), role)); err != nil {
				return err
			}
			took[i*len(roles)+j] = time.Since(started)
		}
		return nil
	})
	return took, err
}

// watchDeletions says how long after an instant each of n managed bindings was gone.
func (b *bench) watchDeletions(ctx context.Context, n int, since time.Time) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Until(since)+patience)
	defer cancel()
	list := &rbacv1.RoleBindingList{}
	managed := client.MatchingLabels{v1alpha1.LabelManaged: "true"}
	if err := b.admin.List(ctx, list, client.InNamespace(tenant), managed); err != nil {
		return nil, fmt.Errorf("list bindings: %w", err)
	}
	events, err := b.admin.Watch(ctx, &rbacv1.RoleBindingList{}, client.InNamespace(tenant), managed,
		&client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: list.ResourceVersion}})
	if err != nil {
		return nil, fmt.Errorf("watch bindings: %w", err)
	}
	defer events.Stop()
	var late sample
	for event := range events.ResultChan() {
		if event.Type == watch.Deleted {
			if late = append(late, time.Since(since)); len(late) == n {
				return late, nil
			}
		}
	}
	return nil, fmt.Errorf("only %d of %d bindings were deleted", len(late), n)
}

// untilActive waits until grants with a prefix are active.
func (b *bench) untilActive(ctx context.Context, prefix string, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Minute)
	defer cancel()
	for {
		grants := &v1alpha1.SupportAccessGrantList{}
		if err := b.admin.List(ctx, grants, client.InNamespace(tenant)); err != nil {
			return fmt.Errorf("list grants: %w", err)
		}
		active := 0
		for i := range grants.Items {
			g := &grants.Items[i]
			if strings.HasPrefix(g.Name, prefix) && meta.IsStatusConditionTrue(g.Status.Conditions, v1alpha1.ConditionActive) {
				active++
			}
		}
		if active == n {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d grants are active: %w", active, n, ctx.Err())
		case <-time.After(time.Second):
		}
	}
}

// revokeInStorm measures a revocation while many grants are being opened.
func (b *bench) revokeInStorm(ctx context.Context, o options) error {
	say("\nA revocation in the middle of %d grants that open", o.storm)
	var quiet, stormy sample
	for round := range 5 {
		_, revoke, err := b.grantOnce(ctx, fmt.Sprintf("quiet-%d", round))
		if err != nil {
			return err
		}
		quiet = append(quiet, revoke)
	}
	storm, stormCtx := errgroup.WithContext(ctx)
	var applied atomic.Int64
	storm.Go(func() error {
		return each(stormCtx, o.storm, func(ctx context.Context, i int) error {
			applied.Add(1)
			return b.tess.Create(ctx, newGrant(fmt.Sprintf("storm-%d", i), "1h"))
		})
	})
	for round := 0; round < 5 && applied.Load() < int64(o.storm); round++ {
		_, revoke, err := b.grantOnce(ctx, fmt.Sprintf("stormy-%d", round))
		if err != nil {
			return err
		}
		stormy = append(stormy, revoke)
	}
	if err := storm.Wait(); err != nil {
		return fmt.Errorf("apply grants: %w", err)
	}
	compare("revoke -> refused, in the storm", stormy, quiet, "bar: 3 of the quiet one")
	return b.untilActive(ctx, "storm-", o.storm)
}

// holdMany measures the operator's memory with many active grants, and what it writes when nothing happens.
func (b *bench) holdMany(ctx context.Context, o options) error {
	say("\n%d active grants", o.grants)
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
	if err := b.sayMemory("resident memory after opening them"); err != nil {
		return err
	}
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
	return b.sayMemory("resident memory after the restart")
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
	return nil
}

// sayMemory prints what the kernel says of the operator's process.
func (b *bench) sayMemory(what string) error {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.operator.PID()))
	if err != nil {
		return fmt.Errorf("read the operator's memory: %w", err)
	}
	for line := range strings.SplitSeq(string(status), "\n") {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmRSS:" {
			kib, err := strconv.Atoi(fields[1])
			if err != nil {
				return fmt.Errorf("read the operator's memory: %w", err)
			}
			say("%-46s %d MiB (bar: 200)", what, kib/1024)
		}
	}
	return nil
}
