// Package sweep asks the API server everything that an engineer of each shipped role could ask of it: every resource and
// subresource that it serves or that a role names, every verb, in the granted namespace, in another and cluster-wide. What
// it allows is written down in testdata, one page per role, and some of it is ruled out whatever a page says.
package sweep

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/hack/controlplane"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

var update = flag.Bool("update", false, "write the pages in testdata anew")

const (
	// policyName is the policy that offers every shipped role.
	policyName   = "sweep"
	startTimeout = 5 * time.Minute
)

// shipped are the roles that engineers can be given, and whether they are plain: offered by the default policy.
func shipped() map[string]bool {
	return map[string]bool{gen.Configuration: true, gen.Diagnostics: true, gen.Operate: false, gen.Content: false}
}

func TestMain(m *testing.M) {
	world.MainWith(m, controlplane.Options{})
}

var installed = struct {
	once sync.Once
	err  error
}{}

// newWorld returns a test's world, in which the operator may bind every shipped role and a policy offers them.
func newWorld(t *testing.T) *world.World {
	t.Helper()
	w := world.New(t)
	installed.once.Do(func() { installed.err = install(w) })
	if installed.err != nil {
		t.Fatalf("install the chart and start the operator: %v", installed.err)
	}
	return w
}

func install(w *world.World) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	roles, policy := []any{}, gen.Policy(policyName, gen.AnyDuration("168h"))
	policy.UID, policy.Spec.Roles, policy.Spec.RequirePublicKey = "", nil, v1alpha1.PublicKeysNever
	for role, plain := range shipped() {
		roles = append(roles, role)
		policy.Spec.Roles = append(policy.Spec.Roles, v1alpha1.OfferedRole{Name: role, Elevated: !plain, Approvals: new(int32(0))})
	}
	dir := w.ControlPlane.Dir()
	installation, err := world.Install(ctx, w.ControlPlane, dir, map[string]any{"offeredRoles": roles})
	if err != nil {
		return err
	}
	if err := w.Admin.Create(ctx, policy); err != nil {
		return fmt.Errorf("create policy %s: %w", policyName, err)
	}
	operator, err := world.Run(ctx, w.ControlPlane, installation, world.OperatorOptions{Dir: filepath.Join(dir, "pods")})
	if err != nil {
		return err
	}
	world.AtEnd(operator.Stop)
	return operator.WaitReady(ctx)
}

// engineer is somebody with an open grant of one role.
type engineer struct {
	role      string
	namespace string
	// secret is where the credential lies.
	secret string
	config *rest.Config
}

// opens grants a role in a namespace of its own and returns the engineer, as the issued kubeconfig makes them known.
func opens(t *testing.T, w *world.World, role string) engineer {
	t.Helper()
	namespace := w.LabelledNamespace(t, map[string]string{v1alpha1.LabelPolicy: policyName})
	grant := gen.ToApply("case-4711", namespace, gen.WithRoles(role))
	if err := w.Admin.Create(t.Context(), grant); err != nil {
		t.Fatalf("grant %s: %v", role, err)
	}
	key := client.ObjectKeyFromObject(grant)
	world.Eventually(t, "the grant of "+role+" is open", func() error {
		if err := w.Admin.Get(t.Context(), key, grant); err != nil {
			return err
		}
		if len(grant.Status.Engineers) != 1 || grant.Status.Engineers[0].CredentialSecretRef == nil || !isActive(grant) {
			return fmt.Errorf("its status is %+v", grant.Status)
		}
		return nil
	})
	ref := grant.Status.Engineers[0].CredentialSecretRef
	return engineer{role: role, namespace: namespace, secret: ref.Name, config: kubeconfigIn(t, w, *ref)}
}
