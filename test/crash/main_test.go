// Package crash proves that no crash leaves access open or a door half shut. It runs the operator's own reconcilers, one
// pass at a time, against a real API server under the chart's ServiceAccount, and lets every write of every flow fail, lose
// its answer, or be the last of its process.
package crash

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/config/admission"
	"supportaccess.dev/operator/controllers/guard"
	"supportaccess.dev/operator/hack/controlplane"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// spare is a ClusterRole that the chart of these tests offers besides its own: one that a test may change.
const spare = "crash-spare"

// tokenCap is how long the API server lets a token live, so that credentials of long grants must be renewed.
const tokenCap = time.Hour

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	world.MainWith(m, controlplane.Options{
		APIServerArgs: []string{"--service-account-max-token-expiration=" + tokenCap.String()},
	})
}

// long leaves a test to make test-long: with a pass for each write of each flow it takes many minutes.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("make test-long runs it")
	}
}

// stage is what the tests share: the chart is installed, and no pod of the operator runs unless a test starts it.
type stage struct {
	world *world.World
	admin client.WithWatch
	// gateway are clients for the replicas of the gateway: the API server takes no word of one for another.
	gateway      map[string]client.WithWatch
	installation *world.Installation
	guard        *guard.Guard
	cluster      access.Cluster
	caches       *caches
}

var (
	stageOnce sync.Once
	theStage  *stage
	stageErr  error
)

// onStage returns the stage; the first test that asks has it built.
func onStage(t *testing.T) *stage {
	t.Helper()
	w := world.New(t)
	stageOnce.Do(func() { theStage, stageErr = build(t, w) })
	if stageErr != nil {
		t.Fatalf("build the stage: %v", stageErr)
	}
	s := *theStage
	s.world = w
	return &s
}

func build(t *testing.T, w *world.World) (*stage, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	installation, err := world.Install(ctx, w.ControlPlane, filepath.Dir(w.ControlPlane.Dir()), map[string]any{
		"offeredRoles": []any{gen.Configuration, gen.Diagnostics, gen.Operate, gen.Content, spare},
		"gateway":      map[string]any{"enabled": true, "server": gatewayServer, "changes": map[string]any{"enabled": false}},
	})
	if err != nil {
		return nil, err
	}
	s := &stage{
		world: w, admin: w.ClientFor(t, w.ControlPlane.AdminConfig()), installation: installation,
		cluster: access.Cluster{Server: w.ControlPlane.Server(), CABundle: w.ControlPlane.CABundle()},
	}
	if s.gateway, err = startReplicas(ctx, t, s); err != nil {
		return nil, err
	}
	config := w.ServiceAccount(t, v1alpha1.SystemNamespace, v1alpha1.ControllerServiceAccount)
	if s.caches, err = newCaches(ctx, config, w.ControlPlane.AdminConfig(), s.admin); err != nil {
		return nil, fmt.Errorf("start the caches: %w", err)
	}
	objects := []client.Object{
		gen.ClusterRole(spare, spareRules()...),
		policy("crash", nil), policy("crash-wide", func(p *v1alpha1.SupportAccessPolicySpec) {
			p.Scopes = []v1alpha1.ScopeKind{v1alpha1.ScopeNamespaces, v1alpha1.ScopeCluster}
		}),
		policy("crash-approved", asking(1)), policy("crash-approved-twice", asking(2)),
		policy("crash-frozen", func(p *v1alpha1.SupportAccessPolicySpec) { p.NewGrants = v1alpha1.NewGrantsSuspended }),
	}
	for _, o := range objects {
		if err := s.admin.Create(ctx, o); err != nil {
			return nil, fmt.Errorf("create %T %s: %w", o, o.GetName(), err)
		}
		if err := s.caches.catchUp(ctx, o); err != nil {
			return nil, err
		}
	}
	if err := s.requester(ctx); err != nil {
		return nil, err
	}
	if err := s.approvers(ctx); err != nil {
		return nil, fmt.Errorf("let people approve: %w", err)
	}
	return s, s.awaitAdmission(ctx, t)
}

// awaitAdmission lets the real guard look until it says that admission is in force.
func (s *stage) awaitAdmission(ctx context.Context, t *testing.T) error {
	c := s.controller(t)
	s.guard = &guard.Guard{
		Client: cached{Client: c, wire: newWire(c, nil), cache: s.caches.operator}, Clock: clock.RealClock{}, Options: admission.Options{Stamp: true},
		Wake: make(chan event.GenericEvent, 1),
	}
	return poll(ctx, time.Minute, func() error {
		if _, err := s.guard.Reconcile(ctx, reconcile.Request{}); err != nil {
			return err
		}
		if since, pending := s.guard.InForce(); pending != "" {
			return errors.New(pending)
		} else if now := time.Now(); now.Before(since.Add(time.Second)) {
			return fmt.Errorf("in force since %s, it is %s", since, now)
		}
		return nil
	})
}

// poll asks until there is no error, for a limited time.
func poll(ctx context.Context, limit time.Duration, condition func() error) error {
	return pollEvery(ctx, 20*time.Millisecond, limit, condition)
}

// pollEvery is poll at a pace.
func pollEvery(ctx context.Context, pace, limit time.Duration, condition func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	for {
		err := condition()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %w", limit, err)
		case <-ticker.C:
		}
	}
}

// controller is a client, without a cache, for the chart's ServiceAccount.
func (s *stage) controller(t *testing.T) client.WithWatch {
	t.Helper()
	config := s.world.ServiceAccount(t, v1alpha1.SystemNamespace, v1alpha1.ControllerServiceAccount)
	config.WarningHandlerWithContext = rest.NoWarnings{}
	return s.world.ClientFor(t, config)
}

// policy is a policy that lets these tests grant what they need, for any time.
func policy(name string, change func(*v1alpha1.SupportAccessPolicySpec)) *v1alpha1.SupportAccessPolicy {
	p := gen.Policy(name, gen.AnyDuration("168h"), gen.Offering(v1alpha1.OfferedRole{Name: spare}),
		gen.OfferingTransports(v1alpha1.TransportDirect, v1alpha1.TransportGateway))
	p.ObjectMeta, p.Spec.HandoverWindow = metav1.ObjectMeta{Name: name}, v1alpha1.Duration(handoverWindow.String())
	if change != nil {
		change(&p.Spec)
	}
	return p
}

// spareRules are what the spare role allows until a test changes it.
func spareRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{gen.Rule("", []string{"services"}, []string{"get", "list"})}
}

// ignoreExists drops the error that says that an object is there already.
func ignoreExists(err error) error {
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
