package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// longestEngineer has the longest name that an engineer can have, with every character that it may have.
func longestEngineer(i int) string {
	head, tail := fmt.Sprintf("%d.a_b+c-d", i), "@vendor.example"
	return head + strings.Repeat("+_.-", (128-len(head)-len(tail))/4) + strings.Repeat("e", (128-len(head)-len(tail))%4) + tail
}

func TestTheLongestNamesOpenAndEndAsTheShortestDo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tn := tenantIn(t, w, strings.Repeat("t", 63), gen.Offering(v1alpha1.OfferedRole{Name: longestRole}))
	makeRole(t, w, longestRole, rules()...)
	name, engineer := strings.Repeat("n", 63), longestEngineer(1)
	if len(longestRole) != 253 || len(engineer) != 128 {
		t.Fatalf("names of %d and %d characters are not the longest", len(longestRole), len(engineer))
	}
	g := tn.opens(t, name, gen.WithRoles(longestRole), gen.WithEngineers(engineer))
	ana := g.engineerNamed(t, engineer)
	mayRead(t, ana, tn.namespace)
	says(t, ana.mustKubectl(t, tn.namespace, "", "get", "configmaps", "-o", "name"), "kube-root-ca.crt")
	g.delete(t)
	ana.isRefusedEverywhere(t, tn.namespace)
	g.isGone(t)
	record := hasEnded(t, tn.admin, g.NamespacedName, ending{v1alpha1.EndDeleted, "unknown", "the grant was deleted"})
	lacksRecorded(t, w, record)
	g.leavesNothing(t)
}

func TestTheWidestGrantOpensAndEndsWhole(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, gen.Offering(v1alpha1.OfferedRole{Name: gen.Operate}), gen.Offering(v1alpha1.OfferedRole{Name: gen.Content}))
	tn.widen(t)
	scope := []string{tn.namespace}
	for len(scope) < 64 {
		scope = append(scope, tn.another(t))
	}
	var engineers []string
	for i := range 16 {
		engineers = append(engineers, longestEngineer(i))
	}
	roles := []string{gen.Configuration, gen.Diagnostics, gen.Operate, gen.Content}
	g := tn.grants(t, theGrant, gen.WithScope(scope...), gen.WithEngineers(engineers...), gen.WithRoles(roles...))
	// Two hundred and fifty-six bindings take as many passes as they take; on a busy machine that is more than a minute.
	object := g.isWithin(t, 4*time.Minute, v1alpha1.StateActive)
	if len(object.Status.Engineers) != 16 {
		t.Errorf("the status names %d engineers", len(object.Status.Engineers))
	}
	record := g.record(t)
	if len(record.Status.Bindings) != 256 {
		t.Errorf("%d bindings are on record, want 256", len(record.Status.Bindings))
	}
	first, last := g.engineerNamed(t, engineers[0]), g.engineerNamed(t, engineers[15])
	for _, namespace := range []string{scope[0], scope[1], scope[63]} {
		mayRead(t, first, namespace)
		mayRead(t, last, namespace)
	}
	mirror := &v1alpha1.SupportAccessRecord{}
	if err := tn.Admin.Get(t.Context(), client.ObjectKey{Namespace: scope[63], Name: tn.namespace + "." + theGrant}, mirror); err != nil || mirror.Spec.Grant.UID != g.uid {
		t.Errorf("the record is not shown in %s: %v", scope[63], err)
	}
	tn.admin.decides(t, tn.namespace, "stop", gen.Revoking(theGrant))
	first.isRefusedEverywhere(t, scope[0], scope[1], scope[63])
	last.isRefusedEverywhere(t, scope[0], scope[1], scope[63])
	g.is(t, v1alpha1.StateRevoked)
	lacksRecorded(t, tn.World, hasEnded(t, tn.admin, g.NamespacedName, ending{v1alpha1.EndRevoked, tn.admin.name, "revoked by decision"}))
	g.leavesNothing(t)
}

func TestGrantsWhoseNamesConcatenateAlikeAreTwo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	base := w.Name("alike")
	short, long := tenantIn(t, w, base), tenantIn(t, w, base+"-a")
	one, two := short.opens(t, "a-b"), long.opens(t, "b")
	ana, other := one.engineer(t), two.engineer(t)
	if ana.name == other.name {
		t.Fatal("the engineers of two grants are one to the cluster")
	}
	mayRead(t, ana, short.namespace)
	mayRead(t, other, long.namespace)
	if err := isRefused(ana.reads(t.Context(), long.namespace), ana.name, long.namespace); err != nil {
		t.Errorf("one grant's engineer in the other's namespace: %v", err)
	}
	names := map[string]bool{}
	for _, g := range []*grantInTest{one, two} {
		for _, b := range g.bindings(t) {
			if names[b.Name] {
				t.Errorf("two grants have bindings called %s", b.Name)
			}
			names[b.Name] = true
		}
	}
	one.delete(t)
	ana.isRefusedEverywhere(t, short.namespace)
	one.isGone(t)
	one.leavesNothing(t)
	two.is(t, v1alpha1.StateActive)
	if err := other.reads(t.Context(), long.namespace); err != nil {
		t.Errorf("the other grant's engineer: %v", err)
	}
}

func TestWhatLiesUnderAChildsNameIsNotAdopted(t *testing.T) {
	tn := newTenant(t)
	// Whoever keeps the control plane may write where others may not.
	keeper := user(t, tn.World, "system:kube-controller-manager")
	resume := pauseOperator(t, tn.World)
	grants := map[string]*grantInTest{}
	planted := map[string]client.Object{}
	for _, kind := range []string{"RoleBinding", "Secret", "ServiceAccount"} {
		g := tn.grants(t, "case-"+strings.ToLower(kind))
		recorded := v1alpha1.RecordedGrant{Namespace: g.Namespace, Name: g.Name, UID: g.uid}
		in := metav1.ObjectMeta{Namespace: world.CredentialsNamespace, Name: access.IdentityName(recorded, gen.Engineer)}
		who := client.Client(keeper)
		var object client.Object
		switch kind {
		case "RoleBinding":
			in = metav1.ObjectMeta{Namespace: tn.namespace, Name: access.BindingName(recorded, tn.namespace, gen.Configuration)}
			who = tn.Admin
			object = &rbacv1.RoleBinding{
				ObjectMeta: in, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
				Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "mallory"}},
			}
		case "Secret":
			object = &corev1.Secret{ObjectMeta: in, Data: map[string][]byte{"kubeconfig": []byte("planted")}}
		case "ServiceAccount":
			object = &corev1.ServiceAccount{ObjectMeta: in}
		}
		if err := who.Create(t.Context(), object); err != nil {
			t.Fatalf("plant a %s: %v", kind, err)
		}
		grants[kind], planted[kind] = g, object
	}
	resume()
	for kind, g := range grants {
		object := g.is(t, v1alpha1.StateFailed)
		g.isKstatus(t, status.FailedStatus)
		where := fmt.Sprintf("%s %s/%s exists and was not made for this grant: remove it", kind, planted[kind].GetNamespace(), planted[kind].GetName())
		says(t, isCondition(t, object, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.StateFailed), where)
		says(t, isCondition(t, object, v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.StateFailed), where)
		says(t, isCondition(t, object, v1alpha1.ConditionProvisioned, metav1.ConditionFalse, v1alpha1.ReasonNameTaken), where)
		isCondition(t, object, v1alpha1.ConditionActive, metav1.ConditionFalse, v1alpha1.ReasonNoAccess)
		isAsPlanted(t, tn, planted[kind])
		// Whether the way is free by now is tried again and again.
		world.Eventually(t, "it gives nothing, not half", func() error {
			for _, o := range g.children(t) {
				if _, ok := o.(*rbacv1.RoleBinding); ok && o.GetNamespace() != world.CredentialsNamespace {
					return fmt.Errorf("there is RoleBinding %s", o.GetName())
				}
			}
			return nil
		})
	}
	isTriedWithoutGiving(t, grants["RoleBinding"], planted["RoleBinding"])
	// Those in whose way a binding or a Secret is are given up, and the stranger's outlives them; the last is mended.
	for _, kind := range []string{"RoleBinding", "Secret"} {
		grants[kind].delete(t)
		grants[kind].isGone(t)
		isAsPlanted(t, tn, planted[kind])
		if kind == "Secret" {
			says(t, theOperator.pod.Tail(), "Left alone what was not made for this grant")
		}
	}
	if err := tn.Admin.Delete(t.Context(), planted["ServiceAccount"]); err != nil {
		t.Fatal(err)
	}
	object := grants["ServiceAccount"].is(t, v1alpha1.StateActive)
	lacksConditions(t, object, v1alpha1.ConditionStalled)
	mayRead(t, grants["ServiceAccount"].engineer(t), tn.namespace)
}

// isTriedWithoutGiving has a grant tried again in whose way something is, and fails the test if a try made a binding.
func isTriedWithoutGiving(t *testing.T, g *grantInTest, planted client.Object) {
	t.Helper()
	before := g.requests(t)
	looks := func(log []string) (n int) {
		for _, line := range log {
			if strings.HasPrefix(line, "get rolebindings") && strings.HasSuffix(line, planted.GetName()) {
				n++
			}
		}
		return n
	}
	var after []string
	world.Eventually(t, "it is tried twice more", func() error {
		object, err := g.get(t)
		if err != nil {
			return err
		}
		// A look at the grant is a try.
		object.Annotations = map[string]string{"look": object.ResourceVersion}
		if err := g.tenant.admin.Update(t.Context(), object); err != nil {
			return err
		}
		after = g.requests(t)
		if now := looks(after); now < looks(before)+4 {
			return fmt.Errorf("the operator has looked %d times", now)
		}
		return nil
	})
	for _, line := range after[len(before):] {
		if strings.HasPrefix(line, "create rolebindings") {
			t.Errorf("a try gave something: %s", line)
		}
	}
}

// requests are what the operator asked of the API server in the grant's namespace, as verb, resource and name.
func (g *grantInTest) requests(t *testing.T) []string {
	t.Helper()
	content, err := os.ReadFile(g.tenant.ControlPlane.AuditLogPath())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range bytes.Lines(content) {
		var one struct {
			Verb      string
			User      struct{ Username string }
			ObjectRef struct{ Namespace, Resource, Name string }
		}
		if json.Unmarshal(line, &one) != nil || one.ObjectRef.Namespace != g.Namespace || !strings.HasSuffix(one.User.Username, ":"+v1alpha1.ControllerServiceAccount) {
			continue
		}
		out = append(out, fmt.Sprintf("%s %s %s", one.Verb, one.ObjectRef.Resource, one.ObjectRef.Name))
	}
	return out
}

// isAsPlanted fails the test if an object is not as somebody made it.
func isAsPlanted(t *testing.T, tn *tenant, planted client.Object) {
	t.Helper()
	live := planted.DeepCopyObject().(client.Object)
	if err := tn.Admin.Get(t.Context(), client.ObjectKeyFromObject(planted), live); err != nil {
		t.Errorf("what was planted: %v", err)
		return
	}
	if live.GetUID() != planted.GetUID() || live.GetResourceVersion() != planted.GetResourceVersion() {
		t.Errorf("%T %s was changed", live, live.GetName())
	}
}

func TestTokensLiveNoLongerThanTheirGrants(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	for _, lifetime := range []time.Duration{11*time.Minute + 30*time.Second, 12 * time.Minute, time.Hour, time.Hour + 77*time.Second, 168 * time.Hour} {
		g := tn.grants(t, tn.Name("case"), gen.WithDuration(v1alpha1.Duration(fmt.Sprintf("%ds", int(lifetime.Seconds())))))
		object := g.is(t, v1alpha1.StateActive)
		end := timeOf(object.Status.ExpirationTime)
		dies := tokenOf(t, g.engineer(t)).expiry(t)
		// The API server takes a token for a minute longer, and what it remembers for ten seconds more.
		if over := dies.Add(70 * time.Second); over.After(end.Add(time.Second)) {
			t.Errorf("the token of a grant of %s is taken until %s, %s after its end", lifetime, over, over.Sub(end))
		}
		// The API server reads its clock twice: for what it says, and for what it writes into the token.
		if said := timeOf(statusOf(t, object, gen.Engineer).CredentialExpirationTime); said.Sub(dies).Abs() > time.Second {
			t.Errorf("the status says that the token of a grant of %s dies at %s, and it does at %s", lifetime, said, dies)
		}
	}
	short := tn.opens(t, "short", gen.WithDuration("5m"))
	end := timeOf(short.is(t, v1alpha1.StateActive).Status.ExpirationTime)
	if dies := tokenOf(t, short.engineer(t)).expiry(t); dies.Before(end) || dies.After(end.Add(6*time.Minute)) {
		t.Errorf("the token of a grant until %s lives until %s", end, dies)
	}
}

func TestTheCredentialOfAnEngineerBelongsToOneGrantAlone(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	one, two := tn.opens(t, "one"), tn.opens(t, "two")
	ana, again := one.engineer(t), two.engineer(t)
	mayRead(t, ana, tn.namespace)
	mayRead(t, again, tn.namespace)
	one.delete(t)
	ana.isRefusedEverywhere(t, tn.namespace)
	if err := again.reads(t.Context(), tn.namespace); err != nil {
		t.Errorf("the same person's other grant: %v", err)
	}
	names := []string{}
	for _, o := range two.children(t) {
		names = append(names, o.GetName())
	}
	if slices.Contains(names, one.identity(gen.Engineer)) {
		t.Error(errors.New("two grants share an identity"))
	}
}
