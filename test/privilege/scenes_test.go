package privilege

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/records"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/post"
	"supportaccess.dev/operator/test/world"
)

const (
	policyName = "privilege"
	canaryName = "canary"
	second     = "bob@vendor.example"
)

// play is everything that the operator ever does. Whoever adds a right to the chart adds the scene that needs it.
func (r *run) play(t *testing.T) {
	r.create(t, policy(policyName))
	scenes := []struct {
		what string
		play func(*testing.T)
	}{
		{"nobody knows how engineers reach the API server, until somebody says it", r.addressIsSaid},
		{"a grant is open, and everybody looks", r.everybodyLooks},
		{"of two engineers in two namespaces one is taken off, the grant shortened, then revoked", r.takenOffShortenedRevoked},
		{"an engineer is taken off a grant of the whole cluster, which is then deleted", r.wholeCluster},
		{"a credential is handed over encrypted", r.encrypted},
		{"roles that only a case opens are granted", r.elevated},
		{"an engineer asks, and is answered and denied", r.asked},
		{"support access is switched on and off", r.switched},
		{"support access is switched on by default", r.switchedByDefault},
		{"admins are told, and the mail server does not take the password", r.told},
		{"a role widens", r.widens},
		{"a role is missing, and then it is there", r.waitsForRole},
		{"the namespace lets everybody do something anyway", r.ambient},
		{"a binding and an identity are deleted by hand", r.cutByHand},
		{"a policy is gone before a grant opens", r.policyGone},
		{"a namespace is deleted under an open grant", r.namespaceDeleted},
		{"a grant is deleted and its record old", r.recordDropped},
		{"an earlier leader left a binding", r.swept},
		{"an engineer comes through the gateway and does everything that engineers may", r.throughGateway},
		{"the gateway said something of a grant that is long over", r.oldSession},
		{"many engineers may come through the gateway", r.everyList},
		{"a grant ends while the gateway is away", r.gatewayStops},
		{"the metrics are scraped", r.scraped},
		{"the operator is started again, on a server that does not stream lists, and finds rules that nobody needs", r.restarted},
	}
	for _, scene := range scenes {
		t.Log(scene.what)
		scene.play(t)
	}
	r.remember(t)
	for _, pod := range []*world.Operator{r.gateway, r.operator} {
		if err := pod.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	for _, stop := range r.unwatch {
		stop()
	}
}

func policy(name string) *v1alpha1.SupportAccessPolicy {
	p := gen.Policy(name, gen.AnyDuration("168h"), gen.OfferingScopes(v1alpha1.ScopeNamespaces, v1alpha1.ScopeCluster),
		gen.OfferingTransports(v1alpha1.TransportDirect, v1alpha1.TransportGateway))
	p.Spec.RequirePublicKey = v1alpha1.PublicKeysNever
	for _, role := range []string{gen.Operate, gen.Content} {
		gen.Offering(v1alpha1.OfferedRole{Name: role, Elevated: true, Approvals: new(int32(0))})(p)
	}
	for _, role := range []string{roleWidens, roleAbsent} {
		gen.Offering(v1alpha1.OfferedRole{Name: role})(p)
	}
	p.ObjectMeta = metav1.ObjectMeta{Name: name}
	return p
}

func (r *run) create(t *testing.T, objects ...client.Object) {
	t.Helper()
	for _, o := range objects {
		if err := r.Admin.Create(t.Context(), o); err != nil {
			t.Fatalf("create %T %s/%s: %v", o, o.GetNamespace(), o.GetName(), err)
		}
	}
}

func (r *run) delete(t *testing.T, o client.Object) {
	t.Helper()
	if err := r.Admin.Delete(t.Context(), o); err != nil {
		t.Fatalf("delete %T %s/%s: %v", o, o.GetNamespace(), o.GetName(), err)
	}
}

func (r *run) tenant(t *testing.T) string {
	t.Helper()
	return r.LabelledNamespace(t, map[string]string{v1alpha1.LabelPolicy: policyName})
}

// grants makes a grant in a namespace of its own.
func (r *run) grants(t *testing.T, mods ...func(*v1alpha1.SupportAccessGrant)) *v1alpha1.SupportAccessGrant {
	t.Helper()
	g := gen.ToApply("case-4711", r.tenant(t), mods...)
	r.create(t, g)
	return g
}

// opens is grants, and waits until the grant is open.
func (r *run) opens(t *testing.T, mods ...func(*v1alpha1.SupportAccessGrant)) *v1alpha1.SupportAccessGrant {
	t.Helper()
	g := r.grants(t, mods...)
	r.becomes(t, g, v1alpha1.StateActive)
	return g
}

// becomes waits until a grant is in a state, all of its engineers known.
func (r *run) becomes(t *testing.T, g *v1alpha1.SupportAccessGrant, state string) {
	t.Helper()
	world.Eventually(t, fmt.Sprintf("grant %s/%s is %s", g.Namespace, g.Name, state), func() error {
		if err := r.Admin.Get(t.Context(), client.ObjectKeyFromObject(g), g); err != nil {
			return err
		}
		ready := apimeta.FindStatusCondition(g.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil || ready.Reason != state {
			return fmt.Errorf("its condition is %+v", ready)
		}
		return nil
	})
}

// decides makes a decision and waits until it says what it did.
func (r *run) decides(t *testing.T, g *v1alpha1.SupportAccessGrant, what func(*v1alpha1.SupportAccessDecision)) {
	t.Helper()
	d := gen.Decision("", g.Namespace, what)
	d.ObjectMeta, d.Spec.DecidedBy, d.Spec.Authority = metav1.ObjectMeta{Namespace: g.Namespace, GenerateName: "decision-"}, "", ""
	d.Status = v1alpha1.SupportAccessDecisionStatus{}
	r.create(t, d)
	world.Eventually(t, "the decision is applied", func() error {
		if err := r.Admin.Get(t.Context(), client.ObjectKeyFromObject(d), d); err != nil {
			return err
		}
		if !apimeta.IsStatusConditionTrue(d.Status.Conditions, v1alpha1.ConditionApplied) || len(d.Finalizers) > 0 {
			return fmt.Errorf("its finalizers are %s, its status %+v", d.Finalizers, d.Status)
		}
		return nil
	})
}

// isGone waits until an object is not there.
func (r *run) isGone(t *testing.T, o client.Object) {
	t.Helper()
	world.Eventually(t, fmt.Sprintf("%T %s/%s is gone", o, o.GetNamespace(), o.GetName()), func() error {
		err := r.Admin.Get(t.Context(), client.ObjectKeyFromObject(o), o)
		if err == nil {
			return errors.New("it is there")
		}
		return client.IgnoreNotFound(err)
	})
}

func (r *run) addressIsSaid(t *testing.T) {
	g := r.grants(t)
	r.becomes(t, g, v1alpha1.StateFailed)
	config := clientcmdapi.NewConfig()
	config.Clusters[""] = &clientcmdapi.Cluster{Server: r.ControlPlane.Server(), CertificateAuthorityData: r.ControlPlane.CABundle()}
	content, err := clientcmd.Write(*config)
	if err != nil {
		t.Fatal(err)
	}
	r.create(t, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespacePublic, Name: "cluster-info"}, Data: map[string]string{"kubeconfig": string(content)},
	})
	r.becomes(t, g, v1alpha1.StateActive)
}

// engineer is a client with a credential that was issued.
func (r *run) engineer(t *testing.T, e v1alpha1.EngineerStatus) (*rest.Config, string) {
	t.Helper()
	secret, ref := &corev1.Secret{}, e.CredentialSecretRef
	if err := r.Admin.Get(t.Context(), types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}, secret); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(secret.Data[ref.Key])
	if err != nil {
		t.Fatal(err)
	}
	// The engineer's own file is where the credential belongs: it lies outside of what is searched.
	elsewhere := *r.World
	elsewhere.Dir = t.TempDir()
	return config, elsewhere.Kubeconfig(t, config, "")
}

func (r *run) everybodyLooks(t *testing.T) {
	g := r.grants(t, gen.WithRoles(gen.Configuration, gen.Diagnostics, gen.Content))
	r.create(t,
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: g.Namespace, Name: canaryName}, StringData: map[string]string{"password": r.canary}},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: g.Namespace, Name: "settings"}})
	r.becomes(t, g, v1alpha1.StateActive)
	config, kubeconfig := r.engineer(t, g.Status.Engineers[0])
	secret := &corev1.Secret{}
	key := types.NamespacedName{Namespace: g.Namespace, Name: canaryName}
	if err := r.ClientFor(t, config).Get(t.Context(), key, secret); err != nil || string(secret.Data["password"]) != r.canary {
		t.Fatalf("the engineer reads the Secret: %v", err)
	}
	for _, args := range [][]string{
		{"get", "configmaps,pods,events", "-o", "yaml"}, {"get", "secrets"}, {"auth", "can-i", "--list"}, {"auth", "whoami"},
		{"exec", "none", "--", "true"}, {"get", "sag"}, {"describe", "configmap", "settings"},
	} {
		r.kubectl(t, kubeconfig, append(args, "-n", g.Namespace)...)
	}
	for _, args := range [][]string{
		{"get", "sag,sarec,sad,sap"}, {"get", "sag,sarec,sad,sap", "-o", "yaml"}, {"describe", "sag,sarec"}, {"get", "events"}, {"describe", "secrets"},
		{"get", "roles,rolebindings,serviceaccounts", "-o", "yaml"},
	} {
		if out := r.kubectl(t, r.kubeconfig, append(args, "-n", g.Namespace)...); len(out) == 0 {
			t.Errorf("kubectl %s says nothing", args)
		}
	}
	for _, args := range [][]string{
		{"get", "roles,rolebindings,serviceaccounts,resourcequotas", "-o", "yaml"}, {"describe", "secrets,roles,rolebindings,serviceaccounts"}, {"get", "events"},
	} {
		r.kubectl(t, r.kubeconfig, append(args, "-n", world.CredentialsNamespace)...)
	}
	r.decides(t, g, gen.Revoking(g.Name))
	r.becomes(t, g, v1alpha1.StateRevoked)
	r.kubectl(t, kubeconfig, "get", "configmaps", "-n", g.Namespace)
}

func (r *run) takenOffShortenedRevoked(t *testing.T) {
	other := r.tenant(t)
	g := gen.ToApply("case-4711", r.tenant(t), gen.WithEngineers(gen.Engineer, second))
	gen.WithScope(g.Namespace, other)(g)
	r.create(t, g)
	r.becomes(t, g, v1alpha1.StateActive)
	before := g.Status.Engineers[0].CredentialExpirationTime
	r.decides(t, g, gen.RevokingEngineer(g.Name, second))
	r.decides(t, g, gen.Shortening(g.Name, time.Now().Add(2*time.Hour).Truncate(time.Second)))
	world.Eventually(t, "the credential ends earlier", func() error {
		if err := r.Admin.Get(t.Context(), client.ObjectKeyFromObject(g), g); err != nil {
			return err
		}
		i := slices.IndexFunc(g.Status.Engineers, func(e v1alpha1.EngineerStatus) bool { return e.Name == gen.Engineer })
		if i < 0 || !g.Status.Engineers[i].CredentialExpirationTime.Before(before) {
			return fmt.Errorf("its status is %+v", g.Status.Engineers)
		}
		return nil
	})
	r.decides(t, g, gen.Revoking(g.Name))
	r.becomes(t, g, v1alpha1.StateRevoked)
	if r.onRecord(other, g.Namespace+"."+g.Name) == nil {
		t.Errorf("no record of the grant was seen in %s", other)
	}
}

func (r *run) wholeCluster(t *testing.T) {
	g := r.opens(t, gen.WithCluster(), gen.WithRoles(gen.Configuration), gen.WithEngineers(gen.Engineer, second))
	r.decides(t, g, gen.RevokingEngineer(g.Name, second))
	r.delete(t, g)
	r.isGone(t, g)
}

func (r *run) encrypted(t *testing.T) {
	g := r.opens(t, gen.WithPublicKey(gen.Engineer, r.key.Recipient().String()))
	if !strings.HasPrefix(g.Status.Engineers[0].EncryptedKubeconfig, "-----BEGIN AGE ENCRYPTED FILE-----") {
		t.Errorf("the engineer's status is %+v", g.Status.Engineers[0])
	}
	r.says("the encrypted grant", r.kubectl(t, r.kubeconfig, "get", "sag", "-o", "yaml", "-n", g.Namespace))
}

func (r *run) elevated(t *testing.T) { r.opens(t, gen.WithRoles(gen.Operate, gen.Content)) }

func (r *run) widens(t *testing.T) {
	reads := gen.Rule("", []string{"configmaps"}, []string{"get"})
	role := gen.ClusterRole(roleWidens, reads)
	r.create(t, role)
	g := r.opens(t, gen.WithRoles(roleWidens))
	role.Rules = append(role.Rules, gen.Rule("", []string{"secrets"}, []string{"list"}))
	if err := r.Admin.Update(t.Context(), role); err != nil {
		t.Fatal(err)
	}
	r.becomes(t, g, v1alpha1.StateRevoked)
	if g.Status.EndReason != v1alpha1.EndRoleWidened {
		t.Errorf("the grant ended: %s", g.Status.EndReason)
	}
}

func (r *run) waitsForRole(t *testing.T) {
	g := r.grants(t, gen.WithRoles(roleAbsent))
	r.becomes(t, g, v1alpha1.StateFailed)
	r.create(t, gen.ClusterRole(roleAbsent, gen.Rule("", []string{"configmaps"}, []string{"get"})))
	r.becomes(t, g, v1alpha1.StateActive)
}

// asController is the cluster admin in the controller's guise: nothing of that counts as the controller's.
func (r *run) asController(t *testing.T) client.Client {
	t.Helper()
	config := r.ControlPlane.AdminConfig()
	config.Impersonate = rest.ImpersonationConfig{UserName: controllerUser, Groups: []string{"system:authenticated"}}
	return r.ClientFor(t, config)
}

func (r *run) ambient(t *testing.T) {
	namespace := r.tenant(t)
	meta := metav1.ObjectMeta{Namespace: namespace, Name: "everybody"}
	r.create(t,
		&rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{gen.Rule("", []string{"services"}, []string{"get"})}},
		&rbacv1.RoleBinding{
			ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:authenticated"}},
		})
	g := gen.ToApply("case-4711", namespace)
	r.create(t, g)
	r.becomes(t, g, v1alpha1.StateActive)
}

func (r *run) cutByHand(t *testing.T) {
	g := r.opens(t, gen.WithEngineers(gen.Engineer, second))
	r.delete(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{
		Namespace: world.CredentialsNamespace, Name: access.IdentityName(r.onRecord(g.Namespace, g.Name).Spec.Grant, second),
	}})
	world.Eventually(t, second+" is taken off", func() error {
		if record := r.onRecord(g.Namespace, g.Name); len(record.Status.RemovedEngineers) == 0 {
			return errors.New("the record names nobody")
		}
		return nil
	})
	for _, b := range r.onRecord(g.Namespace, g.Name).Status.Bindings {
		r.delete(t, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: b.Namespace, Name: b.Name}})
	}
	r.becomes(t, g, v1alpha1.StateRevoked)
}

func (r *run) policyGone(t *testing.T) {
	short := policy("privilege-short-lived")
	r.create(t, short)
	namespace := r.LabelledNamespace(t, map[string]string{v1alpha1.LabelPolicy: short.Name})
	g := gen.ToApply("case-4711", namespace, gen.WithStart(time.Now().Add(time.Hour).Truncate(time.Second)))
	world.Eventually(t, "the API server knows the policy", func() error { return r.Admin.Create(t.Context(), g) })
	r.becomes(t, g, v1alpha1.StateScheduled)
	r.delete(t, short)
	r.becomes(t, g, v1alpha1.StateRefused)
}

func (r *run) namespaceDeleted(t *testing.T) {
	g := r.opens(t)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: g.Namespace}}
	r.delete(t, namespace)
	r.isGone(t, namespace)
	world.Eventually(t, "the record outlived the namespace", func() error {
		if r.onRecord(world.SystemNamespace, g.Namespace+"."+g.Name) == nil {
			return errors.New("there was none in " + world.SystemNamespace)
		}
		return nil
	})
}

func (r *run) recordDropped(t *testing.T) {
	g := r.opens(t)
	r.delete(t, g)
	r.isGone(t, g)
	r.isGone(t, &v1alpha1.SupportAccessRecord{ObjectMeta: metav1.ObjectMeta{Namespace: g.Namespace, Name: g.Name}})
}

// swept leaves a binding behind as the controller itself would make it.
func (r *run) swept(t *testing.T) {
	g := r.opens(t)
	recorded := r.onRecord(g.Namespace, g.Name).Status.Bindings[0]
	binding := &rbacv1.RoleBinding{}
	if err := r.Admin.Get(t.Context(), types.NamespacedName{Namespace: recorded.Namespace, Name: recorded.Name}, binding); err != nil {
		t.Fatal(err)
	}
	r.decides(t, g, gen.Revoking(g.Name))
	r.becomes(t, g, v1alpha1.StateRevoked)
	binding.ObjectMeta = metav1.ObjectMeta{
		Namespace: binding.Namespace, Name: binding.Name, Labels: binding.Labels, Annotations: binding.Annotations,
	}
	if err := r.asController(t).Create(t.Context(), binding); err != nil {
		t.Fatalf("leave a binding behind: %v", err)
	}
	r.isGone(t, binding)
}

func (r *run) scraped(t *testing.T) {
	meta := metav1.ObjectMeta{Namespace: r.Namespace(t), Name: "prometheus"}
	account := &corev1.ServiceAccount{ObjectMeta: meta}
	r.create(t, account, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "prometheus"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "support-access-metrics-reader"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: meta.Namespace, Name: meta.Name}},
	})
	token := &authenticationv1.TokenRequest{}
	if err := r.Admin.SubResource("token").Create(t.Context(), account, token); err != nil {
		t.Fatal(err)
	}
	r.keep("prometheus", token.Status.Token)
	for _, pod := range []*world.Operator{r.operator, r.gateway} {
		r.tellsMetrics(t, pod, token.Status.Token)
	}
}

func (r *run) tellsMetrics(t *testing.T, pod *world.Operator, token string) {
	t.Helper()
	address, err := pod.URL("metrics", "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	what := "metrics of " + pod.Name
	world.Eventually(t, what, func() error {
		answer, err := scrape(t.Context(), strings.Replace(address, "http://", "https://", 1), token)
		if err != nil {
			return err
		}
		r.says(what, answer)
		return nil
	})
	if metrics := r.heard(what); !strings.Contains(metrics, "support_access_") {
		t.Errorf("%s tell nothing of support access:\n%.400s", what, metrics)
	}
}

func scrape(ctx context.Context, address, token string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	// The certificate is the program's own.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	answer, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("it says %s: %s", answer.Status, body)
	}
	return string(body), err
}

// restarted starts another pod, which asks for lists as it must where a server does not stream them. It finds the rules of a
// record that was dropped long ago, which the API server, by its own clock, would have been made just now.
func (r *run) restarted(t *testing.T) {
	old := &corev1.ConfigMap{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: world.SystemNamespace, Name: records.RulesName(strings.Repeat("a", 64)), UID: "5a0c1f5e-6a55-4f0e-9b5c-0d6c3c1b7a11",
			CreationTimestamp: metav1.NewTime(time.Now().Add(-2 * records.RulesGrace)), Labels: map[string]string{v1alpha1.LabelManaged: "true"},
		},
	}
	content, err := json.Marshal(old)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.ControlPlane.Restore(t.Context(), "configmaps/"+old.Namespace+"/"+old.Name, content); err != nil {
		t.Fatal(err)
	}
	if err := r.operator.Stop(); err != nil {
		t.Fatal(err)
	}
	r.operator = r.start(t, "KUBE_FEATURE_WatchListClient=false")
	g := r.opens(t)
	r.decides(t, g, gen.Revoking(g.Name))
	r.becomes(t, g, v1alpha1.StateRevoked)
	r.isGone(t, old)
	rules := &corev1.ConfigMapList{}
	managed := client.MatchingLabels{v1alpha1.LabelManaged: "true"}
	if err := r.Admin.List(t.Context(), rules, client.InNamespace(world.SystemNamespace), managed); err != nil || len(rules.Items) == 0 {
		t.Errorf("the rules that were stored just now are gone: %v", err)
	}
}

// remember keeps what people are told at the end.
func (r *run) remember(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{
		{"get", "sag,sarec,sad,sap,events", "-A", "-o", "yaml"}, {"describe", "sag,sarec,sad,sap", "-A"}, {"get", "configmaps", "-A", "-o", "yaml"},
		{"describe", "secrets", "-n", world.CredentialsNamespace}, {"get", "leases", "-n", world.SystemNamespace, "-o", "yaml"},
		{"get", "supportaccesssessions", "-n", world.SystemNamespace, "-o", "yaml"}, {"get", "clusterroles", "-o", "yaml"},
	} {
		if out := r.kubectl(t, r.kubeconfig, args...); len(out) < 100 {
			t.Errorf("kubectl %s says only %q", args, out)
		}
	}
}

// switched switches a namespace on, and off again.
func (r *run) switched(t *testing.T) {
	s := gen.SettingToApply(r.tenant(t), gen.SwitchedOn(time.Now().Add(time.Hour)))
	r.create(t, s)
	r.stands(t, s, v1alpha1.SettingOn)
	if err := r.Admin.Patch(t.Context(), s, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"enabledUntil":null}}`))); err != nil {
		t.Fatal(err)
	}
	r.stands(t, s, v1alpha1.SettingOff)
}

// asked has an engineer ask, an admin answer one request and deny another.
func (r *run) asked(t *testing.T) {
	namespace := r.tenant(t)
	r.create(t, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "requester"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "support-access-requester"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: gen.Requester}},
	})
	ana := r.Client(t, gen.Requester)
	wish, other := gen.RequestToApply("wish", namespace), gen.RequestToApply("other", namespace)
	for _, request := range []*v1alpha1.SupportAccessRequest{wish, other} {
		world.Eventually(t, "an engineer may ask", func() error { return ana.Create(t.Context(), request) })
		r.hears(t, request, v1alpha1.RequestOpen)
	}
	no := gen.Decision("", namespace, gen.DenyingRequest(other.Name), gen.WithDecidedBy(""), gen.WithAuthority(""))
	no.ObjectMeta = metav1.ObjectMeta{Namespace: namespace, Name: "no"}
	r.create(t, no)
	r.hears(t, other, v1alpha1.StateDenied)
	g := gen.ToApply("case-4711", namespace, func(g *v1alpha1.SupportAccessGrant) {
		g.Spec.RequestRef = &v1alpha1.RequestReference{Name: wish.Name}
	})
	world.Eventually(t, "the request is answered", func() error { return r.Admin.Create(t.Context(), g) })
	r.becomes(t, g, v1alpha1.StateActive)
	r.hears(t, wish, v1alpha1.RequestGranted)
	r.delete(t, g)
}

// hears waits until a request is in a state.
func (r *run) hears(t *testing.T, request *v1alpha1.SupportAccessRequest, state string) {
	t.Helper()
	world.Eventually(t, "request "+request.Name+" is "+state, func() error {
		if err := r.Admin.Get(t.Context(), client.ObjectKeyFromObject(request), request); err != nil {
			return err
		}
		if ready := apimeta.FindStatusCondition(request.Status.Conditions, v1alpha1.ConditionReady); ready == nil || ready.Reason != state {
			return fmt.Errorf("it is %+v", ready)
		}
		return nil
	})
}

// switchedByDefault has a policy switch a namespace on.
func (r *run) switchedByDefault(t *testing.T) {
	policy := gen.Policy(r.Name("accounts"), gen.EnablingByDefault(time.Now().Add(-time.Hour)))
	policy.ObjectMeta = metav1.ObjectMeta{Name: policy.Name}
	policy.Spec.EnabledByDefault.SwitchedBy = ""
	r.create(t, policy)
	namespace := r.LabelledNamespace(t, map[string]string{v1alpha1.LabelPolicy: policy.Name})
	r.stands(t, gen.SettingToApply(namespace), v1alpha1.SettingOn)
}

// told has a policy tell by a webhook, and by a mail server that repeats the password which it refuses.
func (r *run) told(t *testing.T) {
	receiver, server := post.StartReceiver(t), post.StartMail(t, post.MailOptions{TLS: true, Username: "operator", Password: "another"})
	telling := policy("telling")
	telling.Spec.Notifications = &v1alpha1.Notifications{
		Admins: []string{"admins@customer.test"},
		Channels: []v1alpha1.NotificationChannel{
			{Name: "hook", CABundle: receiver.CABundle, Webhook: &v1alpha1.WebhookChannel{URL: receiver.URL, SigningKey: "hook"}},
			{Name: "mail", CABundle: server.CABundle, Email: &v1alpha1.EmailChannel{
				Server: server.Address, From: "access@operator.test", Username: "operator", PasswordKey: "mail",
			}},
		},
	}
	r.create(t, telling, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: world.SystemNamespace, Name: v1alpha1.NotificationsSecret},
		StringData: map[string]string{"hook": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "mail": r.password},
	})
	g := gen.ToApply("case-4711", r.LabelledNamespace(t, map[string]string{v1alpha1.LabelPolicy: "telling"}))
	r.create(t, g)
	world.Eventually(t, "the webhook was told, and why the mail server was not is on record", func() error {
		failure := ""
		if record := r.onRecord(g.Namespace, g.Name); record != nil {
			for _, c := range record.Status.Notifications {
				failure += c.LastError
			}
		}
		if len(receiver.Posted()) == 0 || !strings.Contains(failure, "[secret] is not it") {
			return fmt.Errorf("told %d times; the failure is %q", len(receiver.Posted()), failure)
		}
		return nil
	})
	r.delete(t, g)
}

// stands waits until a setting is in a state.
func (r *run) stands(t *testing.T, s *v1alpha1.SupportAccessSetting, state string) {
	t.Helper()
	world.Eventually(t, "the setting of "+s.Namespace+" is "+state, func() error {
		if err := r.Admin.Get(t.Context(), client.ObjectKeyFromObject(s), s); err != nil {
			return err
		}
		if ready := apimeta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionReady); ready == nil || ready.Reason != state {
			return fmt.Errorf("it is %+v", ready)
		}
		return nil
	})
}
