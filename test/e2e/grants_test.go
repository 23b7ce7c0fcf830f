package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// minutes is long enough for a grant not to end by itself while a test runs.
const minutes = 30 * time.Minute

// theGrant is the name of a tenant's only grant.
const theGrant = "case-4711"

// grantInTest is one grant that a test follows, whether it is still there or not.
type grantInTest struct {
	types.NamespacedName
	tenant *tenant
	uid    types.UID
}

// grants makes a grant as the tenant's admin: for half an hour unless it is changed.
func (tn *tenant) grants(t testing.TB, name string, changes ...func(*v1alpha1.SupportAccessGrant)) *grantInTest {
	t.Helper()
	return tn.grantsAs(t, tn.admin, name, changes...)
}

// grantsAs is grants as somebody else.
func (tn *tenant) grantsAs(t testing.TB, who *person, name string, changes ...func(*v1alpha1.SupportAccessGrant)) *grantInTest {
	t.Helper()
	object := gen.ToApply(name, tn.namespace, append([]func(*v1alpha1.SupportAccessGrant){gen.WithDuration("30m")}, changes...)...)
	if err := who.Create(t.Context(), object); err != nil {
		t.Fatalf("%s makes grant %s: %v", who.name, name, err)
	}
	return tn.follow(object)
}

// follow returns a grant that was made already.
func (tn *tenant) follow(object *v1alpha1.SupportAccessGrant) *grantInTest {
	return &grantInTest{NamespacedName: client.ObjectKeyFromObject(object), tenant: tn, uid: object.UID}
}

// opens makes a grant and waits until it is open.
func (tn *tenant) opens(t testing.TB, name string, changes ...func(*v1alpha1.SupportAccessGrant)) *grantInTest {
	t.Helper()
	g := tn.grants(t, name, changes...)
	g.is(t, v1alpha1.StateActive)
	return g
}

// get reads the grant as the tenant's admin.
func (g *grantInTest) get(t testing.TB) (*v1alpha1.SupportAccessGrant, error) {
	t.Helper()
	object := &v1alpha1.SupportAccessGrant{}
	err := g.tenant.admin.Get(t.Context(), g.NamespacedName, object)
	return object, err
}

// is waits until the grant is in a state, and returns it as it is then.
func (g *grantInTest) is(t testing.TB, state string) *v1alpha1.SupportAccessGrant {
	t.Helper()
	return g.isWithin(t, time.Minute, state)
}

// isWithin waits for longer, where there is much to do.
func (g *grantInTest) isWithin(t testing.TB, limit time.Duration, state string) *v1alpha1.SupportAccessGrant {
	t.Helper()
	var found *v1alpha1.SupportAccessGrant
	world.EventuallyWithin(t, limit, fmt.Sprintf("grant %s is %s", g, state), func() error {
		object, err := g.get(t)
		if err != nil {
			return err
		}
		ready := apimeta.FindStatusCondition(object.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil || ready.Reason != state {
			return fmt.Errorf("its conditions are %s", conditions(object))
		}
		found = object
		return nil
	})
	return found
}

// isGone waits until there is no such grant.
func (g *grantInTest) isGone(t testing.TB) {
	t.Helper()
	world.Eventually(t, fmt.Sprintf("grant %s is gone", g), func() error {
		object, err := g.get(t)
		if apierrors.IsNotFound(err) || (err == nil && object.UID != g.uid) {
			return nil
		}
		return fmt.Errorf("%v, finalizers %v, conditions %s", err, object.Finalizers, conditions(object))
	})
}

// delete deletes the grant as the tenant's admin.
func (g *grantInTest) delete(t testing.TB) {
	t.Helper()
	object := &v1alpha1.SupportAccessGrant{ObjectMeta: metav1.ObjectMeta{Namespace: g.Namespace, Name: g.Name}}
	if err := g.tenant.admin.Delete(t.Context(), object); err != nil {
		t.Fatalf("delete grant %s: %v", g, err)
	}
}

func conditions(object *v1alpha1.SupportAccessGrant) string {
	var words []string
	for _, c := range object.Status.Conditions {
		words = append(words, fmt.Sprintf("%s=%s/%s (%s)", c.Type, c.Status, c.Reason, c.Message))
	}
	return strings.Join(words, ", ")
}

// isCondition fails the test unless a condition is so, and returns its message.
func isCondition(t testing.TB, object *v1alpha1.SupportAccessGrant, kind string, want metav1.ConditionStatus, reason string) string {
	t.Helper()
	c := apimeta.FindStatusCondition(object.Status.Conditions, kind)
	if c == nil {
		t.Errorf("there is no condition %s: %s", kind, conditions(object))
		return ""
	}
	if c.Status != want || c.Reason != reason || c.ObservedGeneration != object.Generation {
		t.Errorf("condition %s is %s/%s of generation %d, want %s/%s of %d: %s", kind, c.Status, c.Reason, c.ObservedGeneration, want, reason, object.Generation, c.Message)
	}
	return c.Message
}

// lacksConditions fails the test if one of the conditions is there.
func lacksConditions(t testing.TB, object *v1alpha1.SupportAccessGrant, kinds ...string) {
	t.Helper()
	for _, kind := range kinds {
		if c := apimeta.FindStatusCondition(object.Status.Conditions, kind); c != nil {
			t.Errorf("there is a condition %s: %s/%s", kind, c.Status, c.Reason)
		}
	}
}

// says fails the test unless a text contains every part.
func says(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q does not say %q", text, part)
		}
	}
}

// isKstatus fails the test unless kstatus, which Flux and Argo CD wait by, takes the grant for this.
func (g *grantInTest) isKstatus(t testing.TB, want status.Status) {
	t.Helper()
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("SupportAccessGrant"))
	if err := g.tenant.admin.Get(t.Context(), g.NamespacedName, object); err != nil {
		t.Fatal(err)
	}
	result, err := status.Compute(object)
	if err != nil {
		t.Fatalf("compute kstatus: %v", err)
	}
	if result.Status != want {
		t.Errorf("kstatus is %s, want %s: %s", result.Status, want, result.Message)
	}
}

// statusOf returns where an engineer of the grant finds the credential.
func statusOf(t testing.TB, object *v1alpha1.SupportAccessGrant, name string) v1alpha1.EngineerStatus {
	t.Helper()
	for _, e := range object.Status.Engineers {
		if e.Name == name {
			return e
		}
	}
	t.Fatalf("the status of grant %s/%s names no engineer %q: %v", object.Namespace, object.Name, name, object.Status.Engineers)
	return v1alpha1.EngineerStatus{}
}

// engineer is the engineer of an open grant, with the kubeconfig that the tenant's admin fetched.
func (g *grantInTest) engineer(t testing.TB) *person {
	t.Helper()
	return g.engineerNamed(t, gen.Engineer)
}

// engineerNamed is engineer where there are several.
func (g *grantInTest) engineerNamed(t testing.TB, name string) *person {
	t.Helper()
	object := g.is(t, v1alpha1.StateActive)
	return meetEngineer(t, g.tenant.World, statusOf(t, object, name).Username, g.kubeconfig(t, g.tenant.admin, statusOf(t, object, name)))
}

// kubeconfig fetches a credential as somebody who may.
func (g *grantInTest) kubeconfig(t testing.TB, who *person, e v1alpha1.EngineerStatus) []byte {
	t.Helper()
	ref := e.CredentialSecretRef
	if ref == nil {
		t.Fatalf("the status of %s names no Secret", e.Name)
	}
	var content []byte
	world.Eventually(t, who.name+" fetches the credential of "+e.Name, func() error {
		secret := &corev1.Secret{}
		if err := who.Get(t.Context(), types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}, secret); err != nil {
			return err
		}
		content = secret.Data[ref.Key]
		if len(content) == 0 {
			return fmt.Errorf("it holds no %s", ref.Key)
		}
		return nil
	})
	return content
}

// meetEngineer makes a client from an issued kubeconfig. The person is called what the cluster calls it.
func meetEngineer(t testing.TB, w *world.World, username string, kubeconfig []byte) *person {
	t.Helper()
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		t.Fatalf("read the issued kubeconfig: %v", err)
	}
	return meet(t, w, username, config)
}

// isRefusedEverywhere waits until an engineer is refused in every namespace given.
func (p *person) isRefusedEverywhere(t testing.TB, namespaces ...string) {
	t.Helper()
	for _, namespace := range namespaces {
		isRefusedRead(t, p, p.name, namespace)
	}
}

// record reads the grant's record as the tenant's admin.
func (g *grantInTest) record(t testing.TB) *v1alpha1.SupportAccessRecord {
	t.Helper()
	record := &v1alpha1.SupportAccessRecord{}
	if err := g.tenant.admin.Get(t.Context(), g.NamespacedName, record); err != nil {
		t.Fatalf("read the record of grant %s: %v", g, err)
	}
	return record
}

// tombstone is where the record lies when the grant's namespace is gone.
func (g *grantInTest) tombstone() types.NamespacedName {
	return lifecycle.TombstoneKey(g.NamespacedName)
}

// ending is how a record says that a grant ended.
type ending struct {
	reason, by string
	// says is what the message contains.
	says string
}

// hasEnded waits until the record at a key says how the grant ended and that it was verified.
func hasEnded(t testing.TB, who client.Client, key types.NamespacedName, want ending) *v1alpha1.SupportAccessRecord {
	t.Helper()
	record := &v1alpha1.SupportAccessRecord{}
	world.Eventually(t, fmt.Sprintf("record %s says how it ended", key), func() error {
		if err := who.Get(t.Context(), key, record); err != nil {
			return err
		}
		if record.Status.EndTime == nil || (record.Status.ProvisionedTime != nil && record.Status.VerifiedTime == nil) {
			return fmt.Errorf("its end is %v %s, verified %v", record.Status.EndTime, record.Status.EndReason, record.Status.VerifiedTime)
		}
		return nil
	})
	s := record.Status
	if s.EndReason != want.reason || s.EndedBy != want.by || !strings.Contains(s.EndMessage, want.says) {
		t.Errorf("record %s says %q by %q: %q; want %q by %q: …%s…", key, s.EndReason, s.EndedBy, s.EndMessage, want.reason, want.by, want.says)
	}
	if i := transition(record, want.reason); i < 0 || record.Status.Transitions[i].By != want.by {
		t.Errorf("record %s has no transition %s by %q: %s", key, want.reason, want.by, trail(record))
	}
	if s.ProvisionedTime != nil && transition(record, v1alpha1.TransitionVerified) < 0 {
		t.Errorf("record %s has no transition %s: %s", key, v1alpha1.TransitionVerified, trail(record))
	}
	return record
}

// transition returns where in the record something happened, -1 if it did not.
func transition(record *v1alpha1.SupportAccessRecord, kind string) int {
	return slices.IndexFunc(record.Status.Transitions, func(tr v1alpha1.Transition) bool { return tr.Type == kind })
}

// trail is what happened, in words.
func trail(record *v1alpha1.SupportAccessRecord) string {
	var words []string
	for _, tr := range record.Status.Transitions {
		words = append(words, fmt.Sprintf("%s by %s (%s)", tr.Type, tr.By, tr.Message))
	}
	return strings.Join(words, ", ")
}

// children returns everything that the operator made for the grant and that is still there: bindings, identities,
// credentials and who may read those.
func (g *grantInTest) children(t testing.TB) []client.Object {
	t.Helper()
	mine := client.MatchingLabels{v1alpha1.LabelGrant: g.Name, v1alpha1.LabelGrantNamespace: g.Namespace}
	var found []client.Object
	for _, list := range []client.ObjectList{
		&rbacv1.RoleBindingList{}, &rbacv1.ClusterRoleBindingList{}, &rbacv1.RoleList{}, &corev1.SecretList{}, &corev1.ServiceAccountList{},
	} {
		if err := g.tenant.Admin.List(t.Context(), list, mine); err != nil {
			t.Fatal(err)
		}
		objects, err := apimeta.ExtractList(list)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			found = append(found, o.(client.Object))
		}
	}
	return found
}

// leavesNothing fails the test if anything of an ended grant is there: whatever the operator made, under its labels or
// under the names that it gives, and the finalizer.
func (g *grantInTest) leavesNothing(t testing.TB) {
	t.Helper()
	for _, o := range g.children(t) {
		t.Errorf("%T %s/%s of grant %s is still there", o, o.GetNamespace(), o.GetName(), g)
	}
	world.Eventually(t, fmt.Sprintf("grant %s is let go", g), func() error {
		object, err := g.get(t)
		if err == nil && slices.Contains(object.Finalizers, v1alpha1.FinalizerGrant) {
			return errors.New("it has the finalizer")
		}
		if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
			return nil
		}
		return err
	})
}

// lacksRecorded fails the test if a binding that the record names is there.
func lacksRecorded(t testing.TB, w *world.World, record *v1alpha1.SupportAccessRecord) {
	t.Helper()
	if len(record.Status.Bindings) == 0 {
		t.Errorf("record %s/%s names no bindings", record.Namespace, record.Name)
	}
	for _, b := range record.Status.Bindings {
		var object client.Object = &rbacv1.RoleBinding{}
		if b.Namespace == "" {
			object = &rbacv1.ClusterRoleBinding{}
		}
		err := w.Admin.Get(t.Context(), types.NamespacedName{Namespace: b.Namespace, Name: b.Name}, object)
		if !apierrors.IsNotFound(err) {
			t.Errorf("recorded binding %s/%s: %v, want it not to be there", b.Namespace, b.Name, err)
		}
	}
}

// bindings returns the recorded bindings of an open grant.
func (g *grantInTest) bindings(t testing.TB) []v1alpha1.RecordedBinding {
	t.Helper()
	bindings := g.record(t).Status.Bindings
	if len(bindings) == 0 {
		t.Fatalf("the record of grant %s names no bindings", g)
	}
	return bindings
}

// identity is the name of what one of the grant's engineers authenticates as.
func (g *grantInTest) identity(engineer string) string {
	return access.IdentityName(v1alpha1.RecordedGrant{Namespace: g.Namespace, Name: g.Name, UID: g.uid}, engineer)
}

// told returns the reasons of the grant's Kubernetes Events, each as often as it was seen. On a busy machine a pass may be
// tried again, and its grant be Opening or Closing in between: that is left out.
func (g *grantInTest) told(t testing.TB) map[string]int {
	t.Helper()
	list := &eventsv1.EventList{}
	if err := g.tenant.Admin.List(t.Context(), list, client.InNamespace(g.Namespace)); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, e := range list.Items {
		if e.Regarding.UID != g.uid || e.Reason == v1alpha1.StateOpening || e.Reason == v1alpha1.StateClosing {
			continue
		}
		seen[e.Reason]++
		if e.Series != nil {
			seen[e.Reason] += int(e.Series.Count) - 1
		}
	}
	return seen
}

// decides makes a decision as somebody, and returns where it is.
func (p *person) decides(t testing.TB, namespace, name string, change func(*v1alpha1.SupportAccessDecision)) types.NamespacedName {
	t.Helper()
	if err := p.tries(t, namespace, name, change); err != nil {
		t.Fatalf("%s decides: %v", p.name, err)
	}
	return types.NamespacedName{Namespace: namespace, Name: name}
}

// tries is decides where a refusal is expected.
func (p *person) tries(t testing.TB, namespace, name string, change func(*v1alpha1.SupportAccessDecision)) error {
	t.Helper()
	decision := &v1alpha1.SupportAccessDecision{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	decision.Spec.Reason = "case closed"
	change(decision)
	return p.Create(t.Context(), decision)
}

// isApplied waits until a decision says what it did and is let go, and returns it.
func isApplied(t testing.TB, who *person, key types.NamespacedName, want metav1.ConditionStatus, reason string) *v1alpha1.SupportAccessDecision {
	t.Helper()
	decision := &v1alpha1.SupportAccessDecision{}
	world.Eventually(t, fmt.Sprintf("decision %s is applied", key), func() error {
		if err := who.Get(t.Context(), key, decision); err != nil {
			return err
		}
		c := apimeta.FindStatusCondition(decision.Status.Conditions, v1alpha1.ConditionApplied)
		if c == nil || c.Status != want || c.Reason != reason || slices.Contains(decision.Finalizers, v1alpha1.FinalizerDecision) {
			return fmt.Errorf("its finalizers are %v, its condition %+v", decision.Finalizers, c)
		}
		return nil
	})
	return decision
}

// appliedMessage is what a decision says that it did.
func appliedMessage(decision *v1alpha1.SupportAccessDecision) string {
	return apimeta.FindStatusCondition(decision.Status.Conditions, v1alpha1.ConditionApplied).Message
}
