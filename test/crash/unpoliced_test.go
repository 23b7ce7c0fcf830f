package crash

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/hack/controlplane"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// abolish deletes every policy and the kind of policies, and brings both back when the test ends.
func (s *theater) abolish(t *testing.T) {
	t.Helper()
	policies := &v1alpha1.SupportAccessPolicyList{}
	if err := s.admin.List(t.Context(), policies); err != nil {
		t.Fatalf("list policies: %v", err)
	}
	t.Cleanup(func() { s.reinstate(t, policies.Items) })
	for i := range policies.Items {
		if err := s.admin.Delete(t.Context(), &policies.Items[i]); err != nil {
			t.Fatalf("delete policy %s: %v", policies.Items[i].Name, err)
		}
	}
	crd := policyKind(t)
	if err := s.admin.Delete(t.Context(), crd); err != nil {
		t.Fatalf("delete the kind of policies: %v", err)
	}
	world.Eventually(t, "the kind of policies is gone", func() error {
		if err := s.admin.Get(t.Context(), client.ObjectKeyFromObject(crd), &apiextensionsv1.CustomResourceDefinition{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("get the kind: %v", err)
		}
		return nil
	})
}

// reinstate brings policies and their kind back. The test's own context has ended by then.
func (s *theater) reinstate(t *testing.T, policies []v1alpha1.SupportAccessPolicy) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.admin.Create(ctx, policyKind(t)); ignoreExists(err) != nil {
		t.Errorf("bring the kind of policies back: %v", err)
	}
	for i := range policies {
		p := &v1alpha1.SupportAccessPolicy{ObjectMeta: metav1.ObjectMeta{Name: policies[i].Name, Labels: policies[i].Labels}, Spec: policies[i].Spec}
		if err := poll(ctx, 30*time.Second, func() error { return ignoreExists(s.admin.Create(ctx, p.DeepCopy())) }); err != nil {
			t.Errorf("bring policy %s back: %v", p.Name, err)
		}
	}
}

func policyKind(t *testing.T) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	root, err := controlplane.Root()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(root, "config", "crd", "supportaccess.dev_supportaccesspolicies.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.Unmarshal(content, crd); err != nil {
		t.Fatal(err)
	}
	return crd
}

// TestWithoutPoliciesAndTheirKindEveryGrantStillCloses deletes every policy and the kind of policies under open grants, and
// ends them in every way: under an operator that runs, and under one that starts when there is no such kind any more. What
// nobody ends stays open.
func TestWithoutPoliciesAndTheirKindEveryGrantStillCloses(t *testing.T) {
	long(t)
	s := inTheater(t)
	alone := s.alone(t)
	pod := s.readyPod(t, alone)
	s.caughtUp(t)
	r := s.newRun(t, "crash")
	short := time.Now().Add(45 * time.Second).Truncate(time.Second)
	for _, name := range []string{"stays", "deleted-1", "revoked-1", "deleted-2", "revoked-2"} {
		r.grant(name)
	}
	r.grant("expires", gen.WithExpiration(short))
	r.grant("scheduled-1", gen.WithStart(time.Now().Add(time.Hour).Truncate(time.Second)))
	r.grant("scheduled-2", gen.WithStart(time.Now().Add(time.Hour).Truncate(time.Second)))
	c := &crowd{runs: []*run{r}}
	c.awaitSound(t, 6, 0)

	s.abolish(t)
	r.delete("deleted-1")
	r.delete("scheduled-1")
	r.decide("revoke-1", gen.Revoking("revoked-1"))
	c.awaitEnded(t, "deleted-1", "scheduled-1", "revoked-1")
	if err := pod.Kill(); err != nil {
		t.Fatal(err)
	}
	s.pod(t, alone)
	r.delete("deleted-2")
	r.delete("scheduled-2")
	r.decide("revoke-2", gen.Revoking("revoked-2"))
	c.awaitEnded(t, "deleted-2", "scheduled-2", "revoked-2", "expires")
	c.awaitSound(t, 1, 7)
	r.delete("stays")
	c.awaitSound(t, 0, 8)
	for _, name := range []string{"deleted-1", "deleted-2", "scheduled-1", "scheduled-2", "stays"} {
		if err := s.admin.Get(t.Context(), r.key(name), &v1alpha1.SupportAccessGrant{}); !apierrors.IsNotFound(err) {
			t.Errorf("grant %s was deleted and is not gone: %v", name, err)
		}
	}
}

// awaitEnded waits until the records of some grants have an end.
func (c *crowd) awaitEnded(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		world.Eventually(t, name+" has ended", func() error {
			record := c.runs[0].look().recordOf(c.runs[0].key(name))
			if record == nil || record.Status.EndTime == nil {
				return fmt.Errorf("its record has no end")
			}
			return nil
		})
	}
}
