package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// merged is a grant as it lies in Git, with what Flux and Argo CD write on it.
func merged(until time.Time) string {
	return `
apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessGrant
metadata:
  name: case-4711
  labels:
    app.kubernetes.io/instance: mail-archive
    kustomize.toolkit.fluxcd.io/name: tenants
    kustomize.toolkit.fluxcd.io/namespace: flux-system
  annotations:
    argocd.argoproj.io/tracking-id: mail-archive:supportaccess.dev/SupportAccessGrant:mail-archive/case-4711
spec:
  case: {id: CASE-4711}
  reason: the connector cannot reach the server
  engineers: [{name: ana@vendor.example}]
  expirationTime: "` + until.UTC().Format(time.RFC3339) + `"
`
}

// tool is how a GitOps tool applies.
type tool struct{ name, manager string }

var tools = []tool{{"kustomize-controller", "kustomize-controller"}, {"argocd-application-controller", "argocd-controller"}}

// apply applies on the server, as both tools do.
func (tl tool) apply(t *testing.T, p *person, namespace, manifest string) (string, error) {
	t.Helper()
	return p.kubectl(t, namespace, manifest, "apply", "--server-side", "--force-conflicts", "--field-manager="+tl.manager, "-f", "-")
}

func TestApplyingTheSameAgainChangesNothing(t *testing.T) {
	t.Parallel()
	for _, tl := range tools {
		t.Run(tl.name, func(t *testing.T) {
			t.Parallel()
			tn := newTenant(t)
			pipeline := tn.pipeline(t, tl.name)
			manifest := merged(soon(minutes))
			g := tn.applied(t, tl, pipeline, manifest)
			g.is(t, v1alpha1.StateActive)
			before := g.settled(t)
			if before.Spec.GrantedBy != pipeline.name {
				t.Errorf("granted by %q, want %q", before.Spec.GrantedBy, pipeline.name)
			}
			for range 2 {
				if _, err := tl.apply(t, pipeline, tn.namespace, manifest); err != nil {
					t.Fatal(err)
				}
			}
			after, err := g.get(t)
			if err != nil {
				t.Fatal(err)
			}
			if after.ResourceVersion != before.ResourceVersion || after.Generation != 1 {
				t.Errorf("applying again made version %s generation %d of %s", after.ResourceVersion, after.Generation, before.ResourceVersion)
			}
			// Argo CD's Replace=true leaves out what the operator wrote, the finalizer of an open grant with it. That is
			// refused, or without effect; it never lets go of the grant.
			if _, err := pipeline.kubectl(t, tn.namespace, manifest, "replace", "-f", "-"); err != nil {
				says(t, err.Error(), "(Forbidden)", "metadata.finalizers: supportaccess.dev/close is removed by the operator alone")
			}
			after = g.is(t, v1alpha1.StateActive)
			if after.Generation != 1 || after.UID != g.uid || after.Spec.GrantedBy != pipeline.name || !slices.Contains(after.Finalizers, v1alpha1.FinalizerGrant) {
				t.Errorf("replacing made generation %d, granted by %q, finalizers %v", after.Generation, after.Spec.GrantedBy, after.Finalizers)
			}
			carriesOnlyOurs(t, g)
		})
	}
}

// applied applies a manifest as a tool and follows the grant.
func (tn *tenant) applied(t *testing.T, tl tool, p *person, manifest string) *grantInTest {
	t.Helper()
	if _, err := tl.apply(t, p, tn.namespace, manifest); err != nil {
		t.Fatal(err)
	}
	object := &v1alpha1.SupportAccessGrant{}
	if err := tn.admin.Get(t.Context(), client.ObjectKey{Namespace: tn.namespace, Name: theGrant}, object); err != nil {
		t.Fatal(err)
	}
	return tn.follow(object)
}

// settled returns an open grant once the operator writes no more to it.
func (g *grantInTest) settled(t *testing.T) *v1alpha1.SupportAccessGrant {
	t.Helper()
	last := g.is(t, v1alpha1.StateActive)
	since := time.Now()
	world.Eventually(t, "the operator has nothing more to write", func() error {
		object, err := g.get(t)
		if err != nil {
			return err
		}
		if object.ResourceVersion != last.ResourceVersion {
			last, since = object, time.Now()
		}
		if quiet := time.Since(since); quiet < time.Second {
			return fmt.Errorf("version %s is %s old", last.ResourceVersion, quiet)
		}
		return nil
	})
	return last
}

// carriesOnlyOurs fails the test if something that the operator made carries a label or an annotation of the grant's: a
// GitOps tool would take it for its own, and prune what it does not find in Git.
func carriesOnlyOurs(t *testing.T, g *grantInTest) {
	t.Helper()
	objects := append(g.children(t), g.record(t))
	if len(objects) < 7 {
		t.Errorf("of an open grant there are only %d objects", len(objects))
	}
	for _, o := range objects {
		for key := range o.GetLabels() {
			if key != v1alpha1.LabelManaged && key != v1alpha1.LabelGrant && key != v1alpha1.LabelGrantNamespace {
				t.Errorf("%T %s carries the label %s", o, o.GetName(), key)
			}
		}
		for key := range o.GetAnnotations() {
			if !strings.HasPrefix(key, "supportaccess.dev/") {
				t.Errorf("%T %s carries the annotation %s", o, o.GetName(), key)
			}
		}
		// A Role goes with its binding. Nothing goes with what a tool may prune.
		owners := slices.DeleteFunc(o.GetOwnerReferences(), func(owner metav1.OwnerReference) bool {
			_, isRole := o.(*rbacv1.Role)
			return isRole && owner.Kind == "RoleBinding" && owner.Name == o.GetName()
		})
		if len(owners) > 0 {
			t.Errorf("%T %s is owned by %v", o, o.GetName(), owners)
		}
	}
}

// comesBack is one way in which an ended grant is made again.
type comesBack func(t *testing.T, tn *tenant, manifest, backup string)

func waysBack() map[string]comesBack {
	ways := map[string]comesBack{
		"applied again by its admin": func(t *testing.T, tn *tenant, manifest, _ string) {
			tn.admin.mustKubectl(t, tn.namespace, manifest, "apply", "-f", "-")
		},
		"restored from kubectl get -o yaml": func(t *testing.T, tn *tenant, _, backup string) {
			for _, part := range []string{"uid:", "resourceVersion:", "supportaccess.dev/close", "endTime", "reason: Active"} {
				if part != "endTime" && !strings.Contains(backup, part) {
					t.Errorf("the backup has no %q", part)
				}
			}
			tn.admin.mustKubectl(t, tn.namespace, backup, "create", "-f", "-")
		},
		"replaced with force": func(t *testing.T, tn *tenant, manifest, _ string) {
			tn.admin.mustKubectl(t, tn.namespace, manifest, "replace", "--force", "-f", "-")
		},
	}
	for _, tl := range tools {
		ways["applied again by "+tl.name] = func(t *testing.T, tn *tenant, manifest, _ string) {
			if _, err := tl.apply(t, tn.pipeline(t, tl.name), tn.namespace, manifest); err != nil {
				t.Fatal(err)
			}
		}
	}
	return ways
}

func TestAGrantThatIsMadeAgainUnderAUsedNameOpensNothing(t *testing.T) {
	t.Parallel()
	for how, back := range waysBack() {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			tn := newTenant(t)
			manifest := merged(soon(minutes))
			tn.admin.mustKubectl(t, tn.namespace, manifest, "apply", "-f", "-")
			object := &v1alpha1.SupportAccessGrant{}
			if err := tn.admin.Get(t.Context(), client.ObjectKey{Namespace: tn.namespace, Name: theGrant}, object); err != nil {
				t.Fatal(err)
			}
			first := tn.follow(object)
			ana := first.engineer(t)
			mayRead(t, ana, tn.namespace)
			backup := tn.admin.mustKubectl(t, tn.namespace, "", "get", "sag", theGrant, "-o", "yaml")
			if how != "replaced with force" {
				first.delete(t)
				first.isGone(t)
			}
			back(t, tn, manifest, backup)
			if err := tn.admin.Get(t.Context(), first.NamespacedName, object); err != nil {
				t.Fatal(err)
			}
			second := tn.follow(object)
			if second.uid == first.uid {
				t.Fatal("the grant was never gone")
			}
			isInert(t, first, second)
			ana.isRefusedEverywhere(t, tn.namespace)
			record := hasEnded(t, tn.admin, first.NamespacedName, ending{v1alpha1.EndDeleted, "unknown", "the grant was deleted"})
			if record.Spec.Grant.UID != first.uid {
				t.Errorf("the record is about %s, want %s", record.Spec.Grant.UID, first.uid)
			}
			second.delete(t)
			second.isGone(t)
		})
	}
}

// isInert looks whether a grant under a used name says so and opens nothing.
func isInert(t *testing.T, first, second *grantInTest) {
	t.Helper()
	object := second.is(t, v1alpha1.StateRevoked)
	message := isCondition(t, object, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.StateRevoked)
	says(t, message, "name used before: ", string(first.uid), "choose a new name")
	isCondition(t, object, v1alpha1.ConditionActive, metav1.ConditionFalse, v1alpha1.ReasonNoAccess)
	second.isKstatus(t, "Current")
	if s := object.Status; s.EndTime == nil || s.EndReason != v1alpha1.EndNameUsed || s.ExpirationTime != nil || len(s.Engineers) > 0 {
		t.Errorf("its status is %+v", s)
	}
	second.leavesNothing(t)
}

func TestAnEndedGrantThatIsStillInGitStaysEnded(t *testing.T) {
	t.Parallel()
	for _, tl := range tools {
		t.Run(tl.name, func(t *testing.T) {
			t.Parallel()
			tn := newTenant(t)
			pipeline := tn.pipeline(t, tl.name)
			// One is revoked while it lies in Git, the other runs out there.
			manifest := merged(soon(minutes))
			revoked := tn.applied(t, tl, pipeline, manifest)
			revoked.is(t, v1alpha1.StateActive)
			tn.admin.decides(t, tn.namespace, "stop", gen.Revoking(theGrant))
			revoked.is(t, v1alpha1.StateRevoked)
			short := strings.ReplaceAll(merged(soon(6*time.Second)), "case-4711", "case-4712")
			if _, err := tl.apply(t, pipeline, tn.namespace, short); err != nil {
				t.Fatal(err)
			}
			object := &v1alpha1.SupportAccessGrant{}
			if err := tn.admin.Get(t.Context(), client.ObjectKey{Namespace: tn.namespace, Name: "case-4712"}, object); err != nil {
				t.Fatal(err)
			}
			expired := tn.follow(object)
			expired.is(t, v1alpha1.StateExpired)
			for range 2 {
				for _, m := range []string{manifest, short} {
					if _, err := tl.apply(t, pipeline, tn.namespace, m); err != nil {
						t.Fatal(err)
					}
				}
			}
			// The operator has looked once more when a later grant is open.
			tn.opens(t, "case-4713")
			for g, state := range map[*grantInTest]string{revoked: v1alpha1.StateRevoked, expired: v1alpha1.StateExpired} {
				if after := g.is(t, state); after.UID != g.uid || after.Generation != 1 {
					t.Errorf("grant %s was made anew: %s, generation %d", g, after.UID, after.Generation)
				}
				g.leavesNothing(t)
			}
			// Deleted and applied again: what has ended has ended.
			expired.delete(t)
			expired.isGone(t)
			again := strings.ReplaceAll(merged(soon(minutes)), "case-4711", "case-4712")
			if _, err := tl.apply(t, pipeline, tn.namespace, again); err != nil {
				t.Fatal(err)
			}
			if err := tn.admin.Get(t.Context(), expired.NamespacedName, object); err != nil {
				t.Fatal(err)
			}
			isInert(t, expired, tn.follow(object))
		})
	}
}

func TestAPipelineRevokesByPruningAndIsOnRecordAsWhoGranted(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, gen.WithSpec(func(s *v1alpha1.SupportAccessPolicySpec) {
		s.CredentialReaders = []v1alpha1.CredentialReader{{Kind: "User", Name: "desk@customer.example"}}
	}))
	flux := tn.pipeline(t, tools[0].name)
	g := tn.applied(t, tools[0], flux, merged(soon(minutes)))
	object := g.is(t, v1alpha1.StateActive)
	e := statusOf(t, object, gen.Engineer)
	ana := meetEngineer(t, tn.World, e.Username, g.kubeconfig(t, user(t, tn.World, "desk@customer.example"), e))
	mayRead(t, ana, tn.namespace)
	// Who grants through Git is no person, and fetches nothing.
	err := flux.Get(t.Context(), client.ObjectKey{Namespace: world.CredentialsNamespace, Name: e.CredentialSecretRef.Name}, &corev1.Secret{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("the pipeline fetches the credential: %v", err)
	}
	flux.mustKubectl(t, tn.namespace, "", "delete", "sag", theGrant)
	ana.isRefusedEverywhere(t, tn.namespace)
	record := hasEnded(t, tn.admin, g.NamespacedName, ending{v1alpha1.EndDeleted, "unknown", "the grant was deleted" + byUnknown})
	if record.Spec.GrantedBy != flux.name {
		t.Errorf("on record as who granted is %q, want %q", record.Spec.GrantedBy, flux.name)
	}
	g.leavesNothing(t)
}

func TestEventsTellOfChangesOfStateAndOfNothingElse(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	g := tn.grants(t, theGrant, gen.WithStart(soon(5*time.Second)))
	g.is(t, v1alpha1.StateScheduled)
	g.is(t, v1alpha1.StateActive)
	// Passes in which nothing changes: a corrected reason, a policy, a decision about nobody.
	for i := range 3 {
		object, err := g.get(t)
		if err != nil {
			t.Fatal(err)
		}
		object.Spec.Reason = fmt.Sprintf("corrected %d times", i+1)
		if err := tn.admin.Update(t.Context(), object); err != nil {
			t.Fatal(err)
		}
		world.Eventually(t, "the correction is seen", func() error {
			seen, err := g.get(t)
			if err == nil && seen.Status.ObservedGeneration != seen.Generation {
				return fmt.Errorf("observed generation %d of %d", seen.Status.ObservedGeneration, seen.Generation)
			}
			return err
		})
		tn.changePolicy(t, func(s *v1alpha1.SupportAccessPolicySpec) {
			s.MaxStartDelay = v1alpha1.Duration(fmt.Sprintf("%dh", i+1))
		})
	}
	g.is(t, v1alpha1.StateActive)
	tn.admin.decides(t, tn.namespace, "stop", gen.Revoking(theGrant))
	g.is(t, v1alpha1.StateRevoked)
	hasEnded(t, tn.admin, g.NamespacedName, ending{v1alpha1.EndRevoked, tn.admin.name, "revoked"})
	want := map[string]int{v1alpha1.StateScheduled: 1, v1alpha1.StateActive: 1, v1alpha1.StateRevoked: 1}
	world.Eventually(t, "the Events are one for each state", func() error {
		if seen := g.told(t); fmt.Sprint(seen) != fmt.Sprint(want) {
			return fmt.Errorf("they are %v, want %v", seen, want)
		}
		return nil
	})
}
