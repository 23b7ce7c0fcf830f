// Package e2e watches the running operator keep its word: what opens, what ends it, what is left, and what nobody can
// bring back. The control plane is real, the chart is installed by Helm, the operator runs from its rendered Deployment,
// and everybody acts with their own rights: admins of namespaces, engineers with the kubeconfigs they were given,
// pipelines, strangers. The cluster admin only sets the scene.
//
// Tests that stop the operator, or take the cluster's guards away, run one after another; all others run at the same
// time after them.
package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/hack/controlplane"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// Most tests wait most of the time, so many go at once.
const atOnce = "16"

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", atOnce); err != nil {
		panic(err)
	}
	world.MainWith(m, controlplane.Options{})
}

// Roles that tests make, change and delete, each its own. The controller may bind them from the start.
const (
	roleAppears = "e2e-appears"
	roleChanges = "e2e-changes"
	roleDeleted = "e2e-deleted"
	roleWidens  = "e2e-widens"
	roleWild    = "e2e-wild"
	roleNever   = "e2e-never"
	// roleUnoffered is one that the controller may not bind.
	roleUnoffered = "e2e-unoffered"
)

// longestRole has the longest name that a ClusterRole of a grant can have.
var longestRole = "e2e-" + strings.Repeat("r", 249)

// lender may be bound to who lends the test roles; admins of namespaces have it through aggregation.
const lender = "e2e-lender"

func offered() []string {
	return []string{
		gen.Configuration, gen.Diagnostics, gen.Operate, gen.Content,
		roleAppears, roleChanges, roleDeleted, roleWidens, roleWild, roleNever, longestRole,
	}
}

// theOperator is the one operator of the package. Tests that run alone may stop it.
var theOperator operator

type operator struct {
	once         sync.Once
	err          error
	dir          string
	controlPlane *controlplane.ControlPlane
	installation *world.Installation
	pod          *world.Operator
	mapper       apimeta.RESTMapper
}

const startTimeout = 5 * time.Minute

// newWorld returns a test's world, in which the chart is installed and the operator runs.
func newWorld(t testing.TB) *world.World {
	t.Helper()
	w := world.New(t)
	theOperator.once.Do(func() { theOperator.err = theOperator.install(w) })
	if theOperator.err != nil {
		t.Fatalf("install the chart and start the operator: %v", theOperator.err)
	}
	if theOperator.pod.Exited() {
		t.Fatalf("the operator has ended with code %d:\n%s", theOperator.pod.ExitCode(), theOperator.pod.Tail())
	}
	return w
}

func values() map[string]any {
	return map[string]any{
		"offeredRoles": offered(), "log": map[string]any{"level": "debug"},
		// The tests' mail server and webhook receiver are on this machine.
		"notifications": map[string]any{"allow": []any{"127.0.0.0/8"}},
		"gateway":       map[string]any{"enabled": true, "server": gatewayServer, "changes": map[string]any{"enabled": false}},
		// Most tests go without the gateway; those of it have policies of their own.
		"defaultPolicy": map[string]any{"spec": map[string]any{"transports": []any{"Direct"}}},
	}
}

func (o *operator) install(w *world.World) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	o.controlPlane, o.dir = w.ControlPlane, filepath.Join(w.ControlPlane.Dir(), "e2e")
	var err error
	if o.installation, err = world.Install(ctx, o.controlPlane, w.ControlPlane.Dir(), values()); err != nil {
		return err
	}
	if err := w.Admin.Create(ctx, lends()); err != nil {
		return fmt.Errorf("let admins lend the test roles: %w", err)
	}
	o.mapper = w.Admin.RESTMapper()
	world.AtEnd(o.stop)
	return o.start(ctx)
}

// lends is the ClusterRole of who may lend the test roles.
func lends() *rbacv1.ClusterRole {
	role := gen.ClusterRole(lender, gen.Rule(rbacv1.GroupName, []string{"clusterroles"}, []string{"bind"}))
	role.Rules[0].ResourceNames = append(offered(), roleUnoffered)
	role.Labels = map[string]string{"rbac.authorization.k8s.io/aggregate-to-admin": "true"}
	return role
}

// start starts a pod of the operator and waits until a grant that is made now would open.
func (o *operator) start(ctx context.Context) error {
	pod, err := world.Run(ctx, o.controlPlane, o.installation, world.OperatorOptions{Dir: o.dir})
	if err != nil {
		return err
	}
	o.pod = pod
	return pod.WaitReady(ctx)
}

// stop asks the operator to end, as the kubelet does.
func (o *operator) stop() error {
	if o.pod == nil {
		return nil
	}
	if o.pod.Exited() {
		return fmt.Errorf("the operator had ended by itself with code %d:\n%s", o.pod.ExitCode(), o.pod.Tail())
	}
	if err := o.pod.Stop(); err != nil {
		return err
	}
	if code := o.pod.ExitCode(); code != 0 {
		return fmt.Errorf("the operator ended with code %d when it was asked to:\n%s", code, o.pod.Tail())
	}
	return nil
}

// stopOperator leaves the cluster without an operator until the returned function starts one, at the latest when the
// test ends. For tests that run alone.
func stopOperator(t *testing.T) (start func()) {
	t.Helper()
	if err := theOperator.stop(); err != nil {
		t.Fatal(err)
	}
	start = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		if err := theOperator.start(ctx); err != nil {
			t.Errorf("start the operator again: %v", err)
		}
	})
	t.Cleanup(start)
	return start
}

// pauseOperator stops the operator in its tracks until the returned function lets it go on. For tests that run alone. An
// operator that lost its lease meanwhile ends, and is started anew, as the kubelet does.
func pauseOperator(t *testing.T, w *world.World) (resume func()) {
	t.Helper()
	if err := theOperator.pod.Pause(); err != nil {
		t.Fatal(err)
	}
	resume = sync.OnceFunc(func() {
		resumed := time.Now()
		if err := theOperator.pod.Resume(); err != nil {
			t.Errorf("let the operator go on: %v", err)
		}
		err := await(context.Background(), func(ctx context.Context) error {
			if theOperator.pod.Exited() {
				return theOperator.start(ctx)
			}
			return renewed(ctx, w, resumed)
		})
		if err != nil {
			t.Errorf("wait until the operator leads again: %v", err)
		}
	})
	t.Cleanup(resume)
	return resume
}

// renewed says whether the operator has renewed its lease since an instant.
func renewed(ctx context.Context, w *world.World, since time.Time) error {
	lease := &coordinationv1.Lease{}
	if err := w.Admin.Get(ctx, client.ObjectKey{Namespace: world.SystemNamespace, Name: v1alpha1.ControllerServiceAccount}, lease); err != nil {
		return err
	}
	if lease.Spec.RenewTime == nil || lease.Spec.RenewTime.Time.Before(since) {
		return errors.New("it has not renewed its lease")
	}
	return nil
}

// await polls until a condition holds, where no test can be failed: in clean-up.
func await(ctx context.Context, condition func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := condition(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-ticker.C:
		}
	}
}

// rules are what a test's own role allows unless it says otherwise.
func rules(more ...rbacv1.PolicyRule) []rbacv1.PolicyRule {
	return append([]rbacv1.PolicyRule{gen.Rule("", []string{"configmaps"}, []string{"get", "list"})}, more...)
}

// makeRole makes a ClusterRole for as long as the test lasts.
func makeRole(t testing.TB, w *world.World, name string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
	t.Helper()
	role := gen.ClusterRole(name, rules...)
	if err := w.Admin.Create(t.Context(), role); err != nil {
		t.Fatalf("make ClusterRole %q: %v", name, err)
	}
	t.Cleanup(func() {
		if err := client.IgnoreNotFound(w.Admin.Delete(context.Background(), gen.ClusterRole(name))); err != nil {
			t.Errorf("delete ClusterRole %q: %v", name, err)
		}
	})
	return role
}

// changeRole gives a ClusterRole other rules.
func changeRole(t testing.TB, w *world.World, name string, rules ...rbacv1.PolicyRule) {
	t.Helper()
	role := &rbacv1.ClusterRole{}
	if err := w.Admin.Get(t.Context(), client.ObjectKey{Name: name}, role); err != nil {
		t.Fatal(err)
	}
	role.Rules = rules
	if err := w.Admin.Update(t.Context(), role); err != nil {
		t.Fatalf("change ClusterRole %q: %v", name, err)
	}
}

// soon is an instant a little ahead, as the API stores instants.
func soon(ahead time.Duration) time.Time { return time.Now().Add(ahead).Truncate(time.Second) }

// timeOf is the instant of a time of the API, zero for none.
func timeOf(t *metav1.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.Time
}
