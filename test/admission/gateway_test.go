package admission

import (
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// session returns what a replica of the gateway says of the grant case-1.
func session(replica string) *v1alpha1.SupportAccessSession {
	return &v1alpha1.SupportAccessSession{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "session-1"},
		Spec: v1alpha1.SupportAccessSessionSpec{
			Grant: v1alpha1.SessionGrant{Namespace: mail, Name: "case-1", UID: "1"}, Replica: replica,
		},
	}
}

const acknowledged = `{"status":{"cutReason":"Revoked","cutTime":"2026-12-01T18:00:00.000000Z"}}`

func TestSessionsAreWrittenByTheReplicaOfWhichTheySpeak(t *testing.T) {
	const sessions = "support-access-sessions"
	says := func(operation string, who *person) string {
		return "supportaccesssessions: " + operation + " by " + who.name + ": sessions are written by the gateway alone, and deleted by the operator"
	}
	mine := session(gatewayPod)
	w.gateway.make(t, mine)
	taken(t, w.gateway.merge(t, mine, acknowledged, client.DryRunAll))
	for _, who := range []*person{w.ana, w.cara, w.root, w.controller} {
		if who != w.ana {
			refused(t, who.try(t, session(gatewayPod)), sessions, says("CREATE", who))
			refused(t, who.merge(t, mine, acknowledged, client.DryRunAll), sessions, says("UPDATE", who))
			refused(t, who.merge(t, mine, `{"metadata":{"labels":{"a":"b"}}}`, client.DryRunAll), sessions, says("UPDATE", who))
		}
	}
	for _, who := range []*person{w.cara, w.root, w.gateway} {
		refused(t, who.Delete(t.Context(), mine.DeepCopy(), client.DryRunAll), sessions, says("DELETE", who))
	}
	taken(t, w.controller.Delete(t.Context(), mine.DeepCopy(), client.DryRunAll))
	for _, user := range []string{namespaceController, garbageCollector, controllerManager} {
		system := w.as(t, user)
		refused(t, system.try(t, session(gatewayPod)), sessions, says("CREATE", system))
		refused(t, system.merge(t, mine, acknowledged, client.DryRunAll), sessions, says("UPDATE", system))
		taken(t, system.merge(t, mine, `{"metadata":{"finalizers":["foregroundDeletion"]}}`, client.DryRunAll))
		taken(t, system.Delete(t.Context(), mine.DeepCopy(), client.DryRunAll))
	}
}

func TestAReplicaSpeaksForItselfAlone(t *testing.T) {
	const sessions = "support-access-sessions"
	mine := session(gatewayPod)
	w.gateway.make(t, mine)
	for pod, called := range map[string]string{"support-access-gateway-2": "support-access-gateway-2", "": "none"} {
		other, err := w.inPod(pod)
		if err != nil {
			t.Fatal(err)
		}
		says := "spec.replica: " + gatewayPod + " is not the pod that this token is bound to (" + called + "): a replica speaks for itself alone"
		forged := session(gatewayPod)
		forged.Name = "session-2"
		refused(t, other.try(t, forged), sessions, says)
		refused(t, other.merge(t, mine, acknowledged, client.DryRunAll), sessions, says)
		if pod != "" {
			own := session(pod)
			own.Name = "session-2"
			taken(t, other.try(t, own))
		}
	}
	elsewhere := session(gatewayPod)
	elsewhere.Namespace = mail
	refused(t, w.gateway.try(t, elsewhere), sessions, "metadata.namespace: sessions lie in support-access-system")
	invalid(t, w.gateway.merge(t, mine, `{"spec":{"grant":{"uid":"2"}}}`), "spec: a session object is of one replica and one grant")
}

// TestAStolenGatewayMakesNoGrantActiveLongerOrWider has every right that RBAC could give: what is left is admission.
func TestAStolenGatewayMakesNoGrantActiveLongerOrWider(t *testing.T) {
	g := grant(mail, "stolen")
	w.ana.make(t, g)
	r := record(mail, "stolen")
	w.controller.make(t, r)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: mail, Name: "default"}}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: mail, Name: "x"}}
	policy := &v1alpha1.SupportAccessPolicy{}
	if err := w.root.Get(t.Context(), types.NamespacedName{Name: "default"}, policy); err != nil {
		t.Fatal(err)
	}
	status := func(patch string) error {
		return w.gateway.Status().Patch(t.Context(), g.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(patch)))
	}
	attempts := map[string]struct {
		says string
		err  error
	}{
		"a grant of its own": {"CREATE supportaccessgrants.supportaccess.dev", w.gateway.try(t, grant(mail, "mine", expiring(inAnHour())))},
		"a grant's labels":   {"UPDATE supportaccessgrants.supportaccess.dev", w.gateway.merge(t, g, `{"metadata":{"labels":{"a":"b"}}}`, client.DryRunAll)},
		"a grant's end":      {"DELETE supportaccessgrants.supportaccess.dev", w.gateway.Delete(t.Context(), g.DeepCopy(), client.DryRunAll)},
		"a decision":         {"CREATE supportaccessdecisions.supportaccess.dev", w.gateway.try(t, decision(mail))},
		"a policy of its own": {"CREATE supportaccesspolicies.supportaccess.dev", w.gateway.try(t, &v1alpha1.SupportAccessPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: "mine"}, Spec: policy.Spec,
		})},
		"a wider policy": {"UPDATE supportaccesspolicies.supportaccess.dev", w.gateway.merge(t, policy, `{"spec":{"scopes":["Cluster"]}}`, client.DryRunAll)},
		"a wider role": {"UPDATE clusterroles.rbac.authorization.k8s.io", w.gateway.merge(t,
			&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: configuration}}, `{"rules":[]}`, client.DryRunAll)},
		"a higher ceiling": {"CREATE clusterroles.rbac.authorization.k8s.io", w.gateway.try(t, usersRole("support-access-gateway-users-0", "alice"))},
		"a binding":        {"CREATE rolebindings.rbac.authorization.k8s.io", w.gateway.try(t, binding(mail, "x", configuration, subjectUser("mallory")))},
		"a token": {"CREATE serviceaccounts/token", w.gateway.SubResource("token").Create(t.Context(), account,
			&authenticationv1.TokenRequest{}, &client.SubResourceCreateOptions{})},
		"a Secret": {"CREATE secrets", w.gateway.try(t, secret)},
	}
	for name, attempt := range attempts {
		t.Run(name, func(t *testing.T) {
			refused(t, attempt.err, "support-access-gateway", attempt.says+": never by the gateway, which writes sessions and nothing else")
		})
	}
	// What others guard too is refused by whoever is asked first.
	for name, err := range map[string]error{
		"an active grant":         status(`{"status":{"conditions":[{"type":"Active","status":"True","reason":"Active","message":"","lastTransitionTime":"2026-12-01T18:00:00Z"}]}}`),
		"a longer grant":          status(`{"status":{"expirationTime":"2030-12-01T18:00:00Z"}}`),
		"a credential of its own": status(`{"status":{"engineers":[{"name":"ana@vendor.example","credentialHash":"sha256:` + strings.Repeat("0", 64) + `"}]}}`),
		"a record":                w.gateway.try(t, record(mail, "mine")),
		"another record":          w.gateway.merge(t, r, `{"status":{"expirationTime":"2030-12-01T18:00:00Z"}}`, client.DryRunAll),
		"no record":               w.gateway.Delete(t.Context(), r.DeepCopy(), client.DryRunAll),
		"an engineer bound":       w.gateway.try(t, binding(mail, "x", configuration, subjectUser(visitorName))),
		"an engineer's identity": w.gateway.try(t, &corev1.ServiceAccount{
			ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.CredentialsNamespace, Name: "mine"},
		}),
	} {
		forbiddenByUs(t, name, err)
	}
	// And it goes on to do what it is there for.
	own := session(gatewayPod)
	own.Name = "session-stolen"
	taken(t, w.gateway.try(t, own))
}

// usersRole is the list of users as whom the gateway may act, as the controller writes it.
func usersRole(name string, names ...string) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"users"}, ResourceNames: names, Verbs: []string{"impersonate:user-info"},
		}},
	}
}

func TestTheControllerWritesListsOfEngineersAndNoOtherClusterRole(t *testing.T) {
	const (
		users = "support-access-gateway-users"
		name  = "support-access-gateway-users-a"
		who   = v1alpha1.IdentityPrefix + "abc"
		shape = "rules: the operator lets the gateway impersonate users, by impersonate:user-info, and do nothing else"
		only  = "rules: resourceNames: the operator names users that begin supportaccess.dev: and no others"
		joins = "metadata.labels, aggregationRule: a list of users joins no other role, and none joins it"
	)
	changed := func(change func(*rbacv1.ClusterRole)) *rbacv1.ClusterRole {
		role := usersRole(name, who)
		change(role)
		return role
	}
	for title, c := range map[string]struct {
		role *rbacv1.ClusterRole
		says string
	}{
		"another name":      {usersRole("support-access-content", who), "metadata.name: support-access-content: the operator writes"},
		"one more shard":    {usersRole("support-access-gateway-users-g", who), "metadata.name: support-access-gateway-users-g: the operator writes"},
		"a longer name":     {usersRole(name+"0", who), "metadata.name: " + name + "0: the operator writes"},
		"somebody else":     {usersRole(name, "alice"), only},
		"somebody else too": {usersRole(name, who, "alice"), only},
		"everybody":         {usersRole(name), only},
		"the ceiling":       {changed(func(r *rbacv1.ClusterRole) { r.Rules[0].Verbs = []string{"impersonate-on:user-info:get"} }), shape},
		"the old verb":      {changed(func(r *rbacv1.ClusterRole) { r.Rules[0].Verbs = []string{"impersonate:user-info", "impersonate"} }), shape},
		"every verb":        {changed(func(r *rbacv1.ClusterRole) { r.Rules[0].Verbs = []string{"*"} }), shape},
		"groups":            {changed(func(r *rbacv1.ClusterRole) { r.Rules[0].Resources = []string{"groups"} }), shape},
		"groups too":        {changed(func(r *rbacv1.ClusterRole) { r.Rules[0].Resources = []string{"users", "groups"} }), shape},
		"of another group":  {changed(func(r *rbacv1.ClusterRole) { r.Rules[0].APIGroups = []string{""} }), shape},
		"paths": {changed(func(r *rbacv1.ClusterRole) {
			r.Rules = append(r.Rules, rbacv1.PolicyRule{NonResourceURLs: []string{"/metrics"}, Verbs: []string{"get"}})
		}), shape},
		"a rule more": {changed(func(r *rbacv1.ClusterRole) {
			r.Rules = append(r.Rules, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get"}})
		}), shape},
		"into another role": {changed(func(r *rbacv1.ClusterRole) {
			r.Labels = map[string]string{"rbac.authorization.k8s.io/aggregate-to-view": "true"}
		}), joins},
		"out of other roles": {changed(func(r *rbacv1.ClusterRole) {
			r.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"a": "b"}}}}
		}), joins},
	} {
		t.Run(title, func(t *testing.T) { refused(t, w.controller.try(t, c.role), users, c.says) })
	}
	mine := changed(func(r *rbacv1.ClusterRole) { r.Labels = map[string]string{v1alpha1.LabelManaged: "true"} })
	w.controller.make(t, mine)
	taken(t, w.controller.merge(t, mine, `{"rules":[]}`, client.DryRunAll))
	nobody := mine.DeepCopy()
	nobody.Rules = nil
	taken(t, w.controller.Update(t.Context(), nobody, client.DryRunAll))
	refused(t, w.controller.merge(t, mine, `{"rules":[{"apiGroups":[""],"resources":["secrets"],"verbs":["get"]}]}`, client.DryRunAll), users, shape)
	refused(t, w.controller.merge(t, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: configuration}}, `{"rules":[]}`, client.DryRunAll),
		users, "metadata.name: "+configuration+": the operator writes")
	// Nobody else's roles are looked at.
	taken(t, w.root.try(t, usersRole("somebody-elses", "alice")))
}

// TestAListOfAThousandUsersIsTaken is about what expressions may cost.
func TestAListOfAThousandUsersIsTaken(t *testing.T) {
	var names []string
	for i := range 1000 {
		names = append(names, v1alpha1.IdentityPrefix+time.Unix(int64(i), 0).UTC().Format("20060102150405000000000000"))
	}
	taken(t, w.controller.try(t, usersRole("support-access-gateway-users-f", names...)))
}

// checkpoint is what is kept of audit logs.
func checkpoint(data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: v1alpha1.CheckpointConfigMap}, Data: data}
}

func TestWhatAuditLogsSayOfThemselvesIsKeptByTheOperatorAlone(t *testing.T) {
	const policy = "support-access-checkpoint"
	says := func(operation string, who *person) string {
		return policy + ": " + operation + " by " + who.name + ": what audit logs say of themselves is kept by the operator alone"
	}
	forged, label := `{"data":{"a.checkpoint":"forged"}}`, `{"metadata":{"labels":{"a":"b"}}}`
	made := func(name string) *corev1.ConfigMap {
		config := checkpoint(nil)
		config.Name = name
		return config
	}
	for _, who := range []*person{w.root, w.gateway, w.as(t, namespaceController)} {
		refused(t, who.try(t, checkpoint(nil)), policy, says("CREATE", who))
	}
	kept := checkpoint(map[string]string{"a.checkpoint": "signed"})
	w.controller.make(t, kept)
	for _, who := range []*person{w.root, w.gateway} {
		refused(t, who.merge(t, kept, forged, client.DryRunAll), policy, says("UPDATE", who))
		refused(t, who.merge(t, kept, label, client.DryRunAll), policy, says("UPDATE", who))
		refused(t, who.Delete(t.Context(), kept.DeepCopy(), client.DryRunAll), policy, says("DELETE", who))
		refused(t, who.DeleteAllOf(t.Context(), &corev1.ConfigMap{}, client.InNamespace(v1alpha1.SystemNamespace), client.DryRunAll), policy, says("DELETE", who))
		// Another ConfigMap is nobody's business, nor is one of that name elsewhere.
		taken(t, who.try(t, made("another")))
	}
	elsewhere := checkpoint(nil)
	elsewhere.Namespace = mail
	taken(t, w.root.try(t, elsewhere))
	for _, user := range []string{namespaceController, garbageCollector, controllerManager} {
		system := w.as(t, user)
		refused(t, system.merge(t, kept, forged, client.DryRunAll), policy, says("UPDATE", system))
		refused(t, system.merge(t, kept, `{"binaryData":{"b":"Yg=="}}`, client.DryRunAll), policy, says("UPDATE", system))
		refused(t, system.merge(t, kept, `{"immutable":true}`, client.DryRunAll), policy, says("UPDATE", system))
		taken(t, system.merge(t, kept, `{"metadata":{"finalizers":["foregroundDeletion"]}}`, client.DryRunAll))
		taken(t, system.Delete(t.Context(), kept.DeepCopy(), client.DryRunAll))
	}
	taken(t, w.controller.merge(t, kept, forged, client.DryRunAll))
	taken(t, w.controller.Delete(t.Context(), kept.DeepCopy(), client.DryRunAll))
}

// forbiddenByUs asserts that one of our policies refused, whichever was asked first.
func forbiddenByUs(t *testing.T, what string, err error) {
	t.Helper()
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'support-access-") {
		t.Errorf("%s: the API server says %v, want the refusal of a policy", what, err)
	}
}
