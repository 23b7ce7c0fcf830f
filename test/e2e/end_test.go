package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// kindOfEnd is one way in which access ends.
type kindOfEnd struct {
	// policy and grant are what is particular about them.
	policy []func(*v1alpha1.SupportAccessPolicy)
	grant  []func(*v1alpha1.SupportAccessGrant)
	// before makes what the grant needs.
	before func(*testing.T, *tenant)
	// end ends it, and says how the record is to say so.
	end func(*testing.T, *grantInTest) ending
	// state is the grant's state after it; empty means that the grant is gone.
	state string
}

const theOperatorItself = "support-access"

// deletedByHand ends what messages say about deeds of somebody unknown.
const byUnknown = ", by whom unknown; see the API server's audit log"

func kindsOfEnd() map[string]kindOfEnd {
	owned := func(role string) kindOfEnd {
		return kindOfEnd{
			policy: []func(*v1alpha1.SupportAccessPolicy){gen.Offering(v1alpha1.OfferedRole{Name: role})},
			grant:  []func(*v1alpha1.SupportAccessGrant){gen.WithRoles(role)},
			before: func(t *testing.T, tn *tenant) { makeRole(t, tn.World, role, rules()...) },
			state:  v1alpha1.StateRevoked,
		}
	}
	deleted, widened, wild := owned(roleDeleted), owned(roleWidens), owned(roleWild)
	deleted.end, widened.end, wild.end = endByDeletedRole, endByWidenedRole, endByWildRole
	return map[string]kindOfEnd{
		"the grant is deleted":                            {end: endByDeletion},
		"a decision revokes it":                           {end: endByDecision, state: v1alpha1.StateRevoked},
		"a decision revokes its namespace":                {end: endByNamespaceDecision, state: v1alpha1.StateRevoked},
		"its time is over":                                {end: endByTime, state: v1alpha1.StateExpired, grant: []func(*v1alpha1.SupportAccessGrant){gen.WithDuration("15s")}},
		"it is shortened to an instant that has passed":   {end: endByShorteningAtOnce, state: v1alpha1.StateExpired},
		"it is shortened to a little later":               {end: endByShortening, state: v1alpha1.StateExpired},
		"its last engineer is taken off":                  {end: endByRemoval, state: v1alpha1.StateRevoked},
		"its binding is deleted by the namespace's admin": {end: endByBinding, state: v1alpha1.StateRevoked},
		"its credential is deleted":                       {end: endByCredential, state: v1alpha1.StateRevoked},
		"its identity is deleted":                         {end: endByIdentity, state: v1alpha1.StateRevoked},
		"its ClusterRole is deleted":                      deleted,
		"its ClusterRole reaches the never-list":          widened,
		"its ClusterRole gets a wildcard":                 wild,
		"its policy forbids what its role allows":         {end: endByNeverAllow, state: v1alpha1.StateRevoked},
		"its policy protects its namespace":               {end: endByProtection, state: v1alpha1.StateRevoked},
		"its policy takes its transport away":             {end: endByTransport, state: v1alpha1.StateRevoked},
	}
}

func TestAfterEachKindOfEndNothingIsLeftAndTheRecordSaysHow(t *testing.T) {
	t.Parallel()
	for name, kind := range kindsOfEnd() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kind.try(t)
		})
	}
}

// try opens a grant, ends it, and looks at what is left.
func (k kindOfEnd) try(t *testing.T) {
	tn := newTenant(t, k.policy...)
	if k.before != nil {
		k.before(t, tn)
	}
	g := tn.opens(t, theGrant, k.grant...)
	ana := g.engineer(t)
	mayRead(t, ana, tn.namespace)
	opened := g.record(t)

	want := k.end(t, g)
	ana.isRefusedEverywhere(t, tn.namespace)
	if k.state != "" {
		g.isOver(t, k.state, want)
	} else {
		g.isGone(t)
	}
	record := hasEnded(t, tn.admin, g.NamespacedName, want)
	g.leavesNothing(t)
	lacksRecorded(t, tn.World, record)
	if !record.Status.ProvisionedTime.Equal(opened.Status.ProvisionedTime) || record.Status.EndTime.Before(opened.Status.ProvisionedTime) {
		t.Errorf("the record says opened %v, ended %v, and said opened %v", record.Status.ProvisionedTime, record.Status.EndTime, opened.Status.ProvisionedTime)
	}
	world.Eventually(t, "the credential itself is refused", func() error { return isUnauthorized(ana.reads(t.Context(), tn.namespace)) })
	world.Eventually(t, "an Event tells of the end", func() error {
		if seen := g.told(t); seen[v1alpha1.StateActive] != 1 || seen[v1alpha1.StateRevoked]+seen[v1alpha1.StateExpired] != 1 || len(seen) != 2 {
			return fmt.Errorf("the Events are %v", seen)
		}
		return nil
	})
}

// isOver looks at the status of a grant that has ended.
func (g *grantInTest) isOver(t *testing.T, state string, want ending) {
	t.Helper()
	g.is(t, state)
	var object *v1alpha1.SupportAccessGrant
	world.Eventually(t, "the end is verified", func() error {
		object = g.is(t, state)
		if !slices.ContainsFunc(object.Status.Conditions, func(c metav1.Condition) bool {
			return c.Type == v1alpha1.ConditionVerified && c.Status == metav1.ConditionTrue
		}) {
			return fmt.Errorf("its conditions are %s", conditions(object))
		}
		return nil
	})
	g.isKstatus(t, status.CurrentStatus)
	says(t, isCondition(t, object, v1alpha1.ConditionReady, metav1.ConditionTrue, state), want.says)
	isCondition(t, object, v1alpha1.ConditionActive, metav1.ConditionFalse, v1alpha1.ReasonNoAccess)
	isCondition(t, object, v1alpha1.ConditionProvisioned, metav1.ConditionFalse, v1alpha1.ReasonTakenAway)
	isCondition(t, object, v1alpha1.ConditionVerified, metav1.ConditionTrue, v1alpha1.ReasonNoAccess)
	lacksConditions(t, object, v1alpha1.ConditionStalled, v1alpha1.ConditionReconciling)
	if s := object.Status; s.EndTime == nil || s.EndReason != want.reason || s.EndedBy != want.by || len(s.Engineers) > 0 {
		t.Errorf("the status says ended %v, %q by %q, and names the credentials %v; want %q by %q", s.EndTime, s.EndReason, s.EndedBy, s.Engineers, want.reason, want.by)
	}
}

func endByDeletion(t *testing.T, g *grantInTest) ending {
	g.delete(t)
	return ending{v1alpha1.EndDeleted, "unknown", "the grant was deleted" + byUnknown}
}

func endByDecision(t *testing.T, g *grantInTest) ending {
	tess := g.tenant.admin
	isApplied(t, tess, tess.decides(t, g.Namespace, "stop", gen.Revoking(g.Name)), metav1.ConditionTrue, v1alpha1.ReasonLatched)
	return ending{v1alpha1.EndRevoked, tess.name, `revoked by decision "stop": case closed`}
}

func endByNamespaceDecision(t *testing.T, g *grantInTest) ending {
	tess := g.tenant.admin
	isApplied(t, tess, tess.decides(t, g.Namespace, "all", gen.RevokingNamespace()), metav1.ConditionTrue, v1alpha1.ReasonLatched)
	return ending{v1alpha1.EndRevoked, tess.name, `revoked by decision "all": case closed`}
}

func endByTime(t *testing.T, g *grantInTest) ending {
	record := hasEnded(t, g.tenant.admin, g.NamespacedName, ending{v1alpha1.EndExpired, theOperatorItself, ""})
	if at := timeOf(record.Status.ExpirationTime); record.Status.EndTime.Time.Before(at) {
		t.Errorf("it ended at %s, before %s", record.Status.EndTime, at)
	}
	return ending{v1alpha1.EndExpired, theOperatorItself, "its time was over at " + timeOf(record.Status.ExpirationTime).UTC().Format(time.RFC3339)}
}

func endByShorteningAtOnce(t *testing.T, g *grantInTest) ending {
	tess := g.tenant.admin
	isApplied(t, tess, tess.decides(t, g.Namespace, "now", gen.Shortening(g.Name, soon(-time.Minute))), metav1.ConditionTrue, v1alpha1.ReasonLatched)
	return ending{v1alpha1.EndExpired, tess.name, "shortened to "}
}

func endByShortening(t *testing.T, g *grantInTest) ending {
	tess, end := g.tenant.admin, soon(4*time.Second)
	isApplied(t, tess, tess.decides(t, g.Namespace, "soon", gen.Shortening(g.Name, end)), metav1.ConditionTrue, v1alpha1.ReasonLatched)
	record := hasEnded(t, tess, g.NamespacedName, ending{v1alpha1.EndExpired, theOperatorItself, ""})
	if !timeOf(record.Status.ExpirationTime).Equal(end) || record.Status.EndTime.Time.Before(end) {
		t.Errorf("it ended at %s, expiring %s, want %s", record.Status.EndTime, record.Status.ExpirationTime, end)
	}
	if i := transition(record, v1alpha1.TransitionShortened); i < 0 || record.Status.Transitions[i].By != tess.name {
		t.Errorf("the record's trail is %s", trail(record))
	}
	return ending{v1alpha1.EndExpired, theOperatorItself, "its time was over at "}
}

func endByRemoval(t *testing.T, g *grantInTest) ending {
	tess := g.tenant.admin
	tess.decides(t, g.Namespace, "off", gen.RevokingEngineer(g.Name, gen.Engineer))
	return ending{v1alpha1.EndEngineersRemoved, tess.name, "every engineer was taken off"}
}

func endByBinding(t *testing.T, g *grantInTest) ending {
	b := g.bindings(t)[0]
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: b.Namespace, Name: b.Name}}
	if err := g.tenant.admin.Delete(t.Context(), binding); err != nil {
		t.Fatal(err)
	}
	return ending{v1alpha1.EndBindingsWithdrawn, "unknown",
		fmt.Sprintf("every binding was taken away by hand; RoleBinding %s of role %s in %q was deleted%s", b.Name, b.Role, b.Namespace, byUnknown)}
}

func endByCredential(t *testing.T, g *grantInTest) ending {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: world.CredentialsNamespace, Name: g.identity(gen.Engineer)}}
	if err := g.tenant.Admin.Delete(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	return ending{v1alpha1.EndEngineersRemoved, "unknown", "every engineer was taken off"}
}

func endByIdentity(t *testing.T, g *grantInTest) ending {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: world.CredentialsNamespace, Name: g.identity(gen.Engineer)}}
	if err := g.tenant.Admin.Delete(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	return ending{v1alpha1.EndEngineersRemoved, "unknown", "every engineer was taken off"}
}

func endByDeletedRole(t *testing.T, g *grantInTest) ending {
	if err := g.tenant.Admin.Delete(t.Context(), gen.ClusterRole(roleDeleted)); err != nil {
		t.Fatal(err)
	}
	return ending{v1alpha1.EndRoleDeleted, "unknown", "ClusterRole deleted: " + roleDeleted}
}

func endByWidenedRole(t *testing.T, g *grantInTest) ending {
	changeRole(t, g.tenant.World, roleWidens, rules(gen.Rule("", []string{"secrets"}, []string{"get", "list"}))...)
	return ending{v1alpha1.EndRoleWidened, theOperatorItself, fmt.Sprintf("ClusterRole %q: allows list of secrets", roleWidens)}
}

func endByWildRole(t *testing.T, g *grantInTest) ending {
	changeRole(t, g.tenant.World, roleWild, rules(gen.Rule("apps", []string{"*"}, []string{"get"}))...)
	return ending{v1alpha1.EndRoleWidened, theOperatorItself, fmt.Sprintf("ClusterRole %q: allows get of * in apps, a wildcard", roleWild)}
}

func endByNeverAllow(t *testing.T, g *grantInTest) ending {
	g.tenant.changePolicy(t, func(s *v1alpha1.SupportAccessPolicySpec) {
		s.NeverAllow = []v1alpha1.Rule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods/log"}}}
	})
	return ending{v1alpha1.EndPolicyForbids, theOperatorItself,
		"spec.roles[1]: " + gen.Diagnostics + " allows get of pods/log, which policy " + g.tenant.policy + " never allows (neverAllow)"}
}

func endByProtection(t *testing.T, g *grantInTest) ending {
	g.tenant.changePolicy(t, func(s *v1alpha1.SupportAccessPolicySpec) {
		s.ProtectedNamespaces = append(s.ProtectedNamespaces, g.Namespace)
	})
	return ending{v1alpha1.EndPolicyForbids, theOperatorItself,
		"metadata.namespace: " + g.Namespace + " is protected by policy " + g.tenant.policy + " and takes no grants"}
}

func endByTransport(t *testing.T, g *grantInTest) ending {
	g.tenant.changePolicy(t, func(s *v1alpha1.SupportAccessPolicySpec) {
		s.Transports = []v1alpha1.Transport{v1alpha1.TransportGateway}
	})
	return ending{v1alpha1.EndPolicyForbids, theOperatorItself,
		"spec.transport: Direct is not offered: policy " + g.tenant.policy + " offers Gateway"}
}

func TestAShortenedGrantGetsANewCredentialThatDiesInTime(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	g := tn.opens(t, theGrant, gen.WithDuration("4h"))
	before := statusOf(t, g.is(t, v1alpha1.StateActive), gen.Engineer)
	old, secret := g.engineer(t), &corev1.Secret{}
	key := types.NamespacedName{Namespace: before.CredentialSecretRef.Namespace, Name: before.CredentialSecretRef.Name}
	if err := tn.admin.Get(t.Context(), key, secret); err != nil {
		t.Fatal(err)
	}
	mayRead(t, old, tn.namespace)

	end := soon(20 * time.Minute)
	isApplied(t, tn.admin, tn.admin.decides(t, tn.namespace, "shorter", gen.Shortening(theGrant, end)), metav1.ConditionTrue, v1alpha1.ReasonLatched)
	renewed := &corev1.Secret{}
	world.Eventually(t, "the credential is another", func() error {
		if err := tn.admin.Get(t.Context(), key, renewed); err != nil {
			return err
		}
		if renewed.UID == secret.UID || len(renewed.Data) == 0 {
			return fmt.Errorf("Secret %s has UID %s and %d data", renewed.Name, renewed.UID, len(renewed.Data))
		}
		return nil
	})
	world.Eventually(t, "the old token is refused", func() error { return isUnauthorized(old.reads(t.Context(), tn.namespace)) })
	object := g.is(t, v1alpha1.StateActive)
	if !timeOf(object.Status.ExpirationTime).Equal(end) {
		t.Errorf("the status says that it expires at %s, want %s", object.Status.ExpirationTime, end)
	}
	fresh := g.engineer(t)
	if fresh.config.BearerToken == old.config.BearerToken {
		t.Error("the token is the old one")
	}
	mayRead(t, fresh, tn.namespace)
	if dies := tokenOf(t, fresh).expiry(t); dies.After(end) {
		t.Errorf("the new token lives until %s, the grant until %s", dies, end)
	}
	record := g.record(t)
	if i := transition(record, v1alpha1.TransitionShortened); i < 0 || record.Status.Transitions[i].By != tn.admin.name {
		t.Errorf("the record's trail is %s", trail(record))
	}
	if !timeOf(record.Status.ExpirationTime).Equal(end) {
		t.Errorf("the record says that it expires at %s", record.Status.ExpirationTime)
	}
	if seen := g.told(t); seen[v1alpha1.StateActive] != 1 || len(seen) != 1 {
		t.Errorf("the Events are %v, want one that it is Active", seen)
	}
}

func TestOneEngineerIsTakenOffAndTheOtherGoesOn(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	const bob = "bob@vendor.example"
	g := tn.opens(t, theGrant, gen.WithEngineers(gen.Engineer, bob))
	ana, ofBob := g.engineer(t), g.engineerNamed(t, bob)
	mayRead(t, ana, tn.namespace)
	mayRead(t, ofBob, tn.namespace)
	isApplied(t, tn.admin, tn.admin.decides(t, tn.namespace, "off", gen.RevokingEngineer(theGrant, gen.Engineer)), metav1.ConditionTrue, v1alpha1.ReasonLatched)
	ana.isRefusedEverywhere(t, tn.namespace)
	world.Eventually(t, "the credential itself is refused", func() error { return isUnauthorized(ana.reads(t.Context(), tn.namespace)) })
	if err := ofBob.reads(t.Context(), tn.namespace); err != nil {
		t.Errorf("the other engineer: %v", err)
	}
	world.Eventually(t, "the status names the other alone", func() error {
		object := g.is(t, v1alpha1.StateActive)
		if len(object.Status.Engineers) != 1 || object.Status.Engineers[0].Name != bob {
			return fmt.Errorf("it names %v", object.Status.Engineers)
		}
		return nil
	})
	for _, o := range g.children(t) {
		if o.GetName() == g.identity(gen.Engineer) {
			t.Errorf("%T %s is still there", o, o.GetName())
		}
		if binding, ok := o.(*rbacv1.RoleBinding); ok && slices.ContainsFunc(binding.Subjects, func(s rbacv1.Subject) bool { return s.Name == g.identity(gen.Engineer) }) {
			t.Errorf("RoleBinding %s still names who was taken off", binding.Name)
		}
	}
	record := g.record(t)
	if removed := record.Status.RemovedEngineers; len(removed) != 1 || removed[0].Name != gen.Engineer || removed[0].By != tn.admin.name {
		t.Errorf("the record says taken off: %v", removed)
	}
	if i := transition(record, v1alpha1.TransitionEngineerRemoved); i < 0 || !strings.Contains(record.Status.Transitions[i].Message, `taken off by decision "off": case closed`) {
		t.Errorf("the record's trail is %s", trail(record))
	}
	tn.admin.decides(t, tn.namespace, "off-too", gen.RevokingEngineer(theGrant, bob))
	ofBob.isRefusedEverywhere(t, tn.namespace)
	g.is(t, v1alpha1.StateRevoked)
	hasEnded(t, tn.admin, g.NamespacedName, ending{v1alpha1.EndEngineersRemoved, tn.admin.name, "every engineer was taken off"})
	g.leavesNothing(t)
}

func TestAccessThatRemainsForAnotherReasonIsSaid(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	g := tn.opens(t, theGrant, gen.WithRoles(gen.Configuration))
	ana := g.engineer(t)
	mayRead(t, ana, tn.namespace)
	tn.bind(t, gen.Configuration, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:authenticated"})
	mayRead(t, user(t, tn.World, "stranger@elsewhere.example"), tn.namespace)
	tn.admin.decides(t, tn.namespace, "stop", gen.Revoking(theGrant))
	var message string
	world.Eventually(t, "it is said that access remains", func() error {
		object := g.is(t, v1alpha1.StateRevoked)
		for _, c := range object.Status.Conditions {
			if c.Type == v1alpha1.ConditionVerified && c.Status == metav1.ConditionFalse && c.Reason == v1alpha1.ReasonAccessRemains {
				message = c.Message
				return nil
			}
		}
		return fmt.Errorf("its conditions are %s", conditions(object))
	})
	says(t, message, gen.Engineer+" may still ", fmt.Sprintf("in %q", tn.namespace), "RBAC: allowed by RoleBinding", `to Group "system:authenticated"`)
	g.leavesNothing(t)
	if record := g.record(t); record.Status.EndTime == nil || record.Status.VerifiedTime != nil {
		t.Errorf("the record says ended %v, verified %v", record.Status.EndTime, record.Status.VerifiedTime)
	}
	world.Eventually(t, "a warning tells of it", func() error {
		if seen := g.told(t); seen[v1alpha1.ReasonAccessRemains] != 1 {
			return fmt.Errorf("the Events are %v", seen)
		}
		return nil
	})
	world.Eventually(t, "the credential itself is refused", func() error { return isUnauthorized(ana.reads(t.Context(), tn.namespace)) })
}
