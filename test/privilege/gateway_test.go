package privilege

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// gatewayUser is who the gateway is to the API server.
const gatewayUser = "system:serviceaccount:" + v1alpha1.SystemNamespace + ":support-access-gateway"

// usersPrefix begins the names of the ClusterRoles that list as whom the gateway may act.
const usersPrefix = "support-access-gateway-users-"

// allRoles are the shipped ones.
var allRoles = []string{gen.Configuration, gen.Diagnostics, gen.Operate, gen.Content}

// opensGateway starts a pod of the gateway at the address that kubeconfigs say.
func (r *run) opensGateway(t *testing.T, env ...string) *world.Operator {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	options := world.OperatorOptions{Dir: filepath.Join(r.ControlPlane.Dir(), "pods"), IP: r.ip, Env: env}
	gateway, err := world.OpenGateway(ctx, r.ControlPlane, r.installation, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := gateway.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the gateway's log ends with:\n%s", gateway.Tail())
		}
	})
	return gateway
}

// caller is an engineer who comes through the gateway.
type caller struct {
	kubeconfig string
	namespace  string
	address    string
	token      string
	http       *http.Client
}

// comes has an engineer of an open grant come in.
func (r *run) comes(t *testing.T, g *v1alpha1.SupportAccessGrant) *caller {
	t.Helper()
	secret, ref := &corev1.Secret{}, g.Status.Engineers[0].CredentialSecretRef
	if err := r.Admin.Get(t.Context(), types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}, secret); err != nil {
		t.Fatal(err)
	}
	// The engineer's own file is where the credential belongs: it lies outside of what is searched.
	c := &caller{kubeconfig: filepath.Join(t.TempDir(), "kubeconfig"), namespace: g.Namespace}
	if err := os.WriteFile(c.kubeconfig, secret.Data[ref.Key], 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(secret.Data[ref.Key])
	if err != nil {
		t.Fatal(err)
	}
	c.address, c.token = config.Host, config.BearerToken
	if !strings.HasPrefix(c.token, "sag_") || !strings.Contains(c.address, r.ip) {
		t.Fatalf("the credential is no credential of the gateway: it is for %s", c.address)
	}
	if c.http, err = rest.HTTPClientFor(config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.http.CloseIdleConnections)
	world.Eventually(t, "the gateway lets the engineer in", func() error {
		status, body, err := c.asks(t.Context(), http.MethodGet, "/api/v1/namespaces/"+c.namespace+"/configmaps", "")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("it answers %d: %s", status, body)
		}
		return err
	})
	return c
}

// asks sends one request and reads the beginning of what comes back.
func (c *caller) asks(ctx context.Context, method, path, body string) (status int, answer string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, c.address+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	request.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		request.Header.Set("Content-Type", "application/merge-patch+json")
	}
	response, err := c.http.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	if strings.Contains(path, "watch=true") && response.StatusCode == http.StatusOK {
		return response.StatusCode, "", nil
	}
	content, err := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	return response.StatusCode, string(content), err
}

// throughGateway is everything that an engineer may ask the gateway for, and something that no engineer may.
func (r *run) throughGateway(t *testing.T) {
	r.gateway = r.opensGateway(t)
	g := r.grants(t, gen.WithTransport(v1alpha1.TransportGateway), gen.WithRoles(allRoles...))
	r.create(t,
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: g.Namespace, Name: canaryName}, StringData: map[string]string{"password": r.canary}},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: g.Namespace, Name: "settings"}})
	r.becomes(t, g, v1alpha1.StateActive)
	c := r.comes(t, g)
	r.looksThroughGateway(t, c)
	for _, asked := range r.ceiling(t) {
		r.exercises(t, c, asked)
	}
	r.overtaken(t, g, c)
	r.decides(t, g, gen.Revoking(g.Name))
	r.becomes(t, g, v1alpha1.StateRevoked)
	r.kubectl(t, c.kubeconfig, "get", "configmaps", "-n", g.Namespace)
	world.Eventually(t, "everybody is disconnected", func() error {
		if record := r.onRecord(g.Namespace, g.Name); record.Status.DisconnectedTime == nil {
			return errors.New("the record does not say so")
		}
		return nil
	})
}

// looksThroughGateway has an engineer read and write content, none of which may be found anywhere afterwards.
func (r *run) looksThroughGateway(t *testing.T, c *caller) {
	t.Helper()
	base := "/api/v1/namespaces/" + c.namespace
	status, body, err := c.asks(t.Context(), http.MethodGet, base+"/secrets/"+canaryName, "")
	if err != nil || status != http.StatusOK {
		t.Fatalf("the engineer reads the Secret: %d %v: %s", status, err, body)
	}
	written := `{"data":{"written":"` + r.written + `"}}`
	if status, body, err = c.asks(t.Context(), http.MethodPatch, base+"/configmaps/settings?dryRun=All", written); err != nil || status != http.StatusOK {
		t.Fatalf("the engineer writes a ConfigMap: %d %v: %s", status, err, body)
	}
	for _, args := range [][]string{
		{"get", "configmaps,pods,events", "-o", "yaml"}, {"get", "secrets"}, {"auth", "can-i", "--list"}, {"auth", "whoami"},
		{"exec", "none", "--", "true"}, {"get", "sag"}, {"describe", "configmap", "settings"}, {"get", "secret", canaryName},
		{"cp", "none:/etc/passwd", "/dev/null"}, {"get", "nodes"}, {"get", "--raw", "/metrics"},
	} {
		r.kubectl(t, c.kubeconfig, append(args, "-n", c.namespace)...)
	}
}

// ceiling is what the chart lets the gateway do as an engineer, whoever it is.
func (r *run) ceiling(t *testing.T) []right {
	t.Helper()
	var rights []right
	for _, given := range rightsOf(t, r.installation.Manifest, gatewayUser) {
		if verb, ok := strings.CutPrefix(given.verb, onBehalf); ok {
			given.verb = verb
			rights = append(rights, given)
		}
	}
	if len(rights) < 100 {
		t.Fatalf("the ceiling has only %d rights", len(rights))
	}
	return rights
}

// methods are how the verbs are asked for.
var methods = map[string]string{
	"get": http.MethodGet, "list": http.MethodGet, "watch": http.MethodGet, "create": http.MethodPost,
	"update": http.MethodPut, "patch": http.MethodPatch, "delete": http.MethodDelete,
}

// exercises has an engineer ask for one thing that the ceiling allows, of an object that is not there, of a kind that may
// not be: whether it is allowed is decided before.
func (r *run) exercises(t *testing.T, c *caller, asked right) {
	t.Helper()
	path, body := asked.path(c.namespace), ""
	if method := methods[asked.verb]; method != http.MethodGet && method != http.MethodDelete {
		body = "{}"
	}
	status, answer, err := c.asks(t.Context(), methods[asked.verb], path, body)
	switch {
	case err != nil:
		t.Errorf("%s: %v", asked, err)
	case status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusServiceUnavailable:
		t.Errorf("%s: %s %s: %d %s", asked, methods[asked.verb], path, status, answer)
	}
}

// overtaken has somebody else write what the gateway says of its sessions, so that it must read it again.
func (r *run) overtaken(t *testing.T, g *v1alpha1.SupportAccessGrant, c *caller) {
	t.Helper()
	session := r.sessionOf(t, g)
	before := session.ResourceVersion
	session.Labels = map[string]string{"overtaken": "true"}
	if err := r.asGateway(t).Update(t.Context(), session); err != nil {
		t.Fatal(err)
	}
	world.Eventually(t, "the gateway goes on with its session", func() error {
		if _, _, err := c.asks(t.Context(), http.MethodGet, "/api/v1/namespaces/"+c.namespace+"/configmaps", ""); err != nil {
			return err
		}
		now := r.sessionOf(t, g)
		if now.ResourceVersion == before || now.ResourceVersion == session.ResourceVersion {
			return errors.New("it has not written it")
		}
		return nil
	})
}

// sessionOf is what the gateway says of a grant.
func (r *run) sessionOf(t *testing.T, g *v1alpha1.SupportAccessGrant) *v1alpha1.SupportAccessSession {
	t.Helper()
	list := &v1alpha1.SupportAccessSessionList{}
	if err := r.Admin.List(t.Context(), list, client.InNamespace(world.SystemNamespace)); err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		if list.Items[i].Spec.Grant.UID == g.UID {
			return &list.Items[i]
		}
	}
	t.Fatalf("no session of grant %s/%s", g.Namespace, g.Name)
	return nil
}

// asGateway is the cluster admin in the guise of the gateway's pod: nothing of that counts as the gateway's.
func (r *run) asGateway(t *testing.T) client.Client {
	t.Helper()
	config := r.ControlPlane.AdminConfig()
	config.Impersonate = rest.ImpersonationConfig{
		UserName: gatewayUser, Groups: []string{"system:authenticated"},
		Extra: map[string][]string{"authentication.kubernetes.io/pod-name": {r.gateway.Name}},
	}
	return r.ClientFor(t, config)
}

// oldSession leaves what a gateway said of a grant that is long over.
func (r *run) oldSession(t *testing.T) {
	long := metav1.NewMicroTime(time.Now().Add(-2 * time.Hour))
	session := &v1alpha1.SupportAccessSession{
		ObjectMeta: metav1.ObjectMeta{Namespace: world.SystemNamespace, Name: "session-long-over"},
		Spec: v1alpha1.SupportAccessSessionSpec{
			Grant: v1alpha1.SessionGrant{Namespace: "long-over", Name: "case-1", UID: "long-over"}, Replica: r.gateway.Name,
		},
		Status: v1alpha1.SupportAccessSessionStatus{RenewTime: &long, CutTime: &long, CutReason: v1alpha1.EndExpired},
	}
	if err := r.asGateway(t).Create(t.Context(), session); err != nil {
		t.Fatal(err)
	}
	r.isGone(t, session)
}

// everyList opens grants of many engineers until each list of users was made and changed, and ends them, with which the lists
// go: on which list a user is, chance decides.
func (r *run) everyList(t *testing.T) {
	t.Helper()
	var engineers []string
	for i := range 16 {
		engineers = append(engineers, fmt.Sprintf("engineer-%d@vendor.example", i))
	}
	var open []*v1alpha1.SupportAccessGrant
	for range 16 {
		open = append(open, r.opens(t, gen.WithTransport(v1alpha1.TransportGateway), gen.WithRoles(gen.Configuration), gen.WithEngineers(engineers...)))
		if r.lists(t, 2) == 16 {
			break
		}
	}
	if full := r.lists(t, 2); full < 16 {
		t.Errorf("only %d lists of users were made and changed: is a list chosen by chance still?", full)
	}
	for _, g := range open {
		r.decides(t, g, gen.Revoking(g.Name))
		r.becomes(t, g, v1alpha1.StateRevoked)
	}
	world.Eventually(t, "lists of nobody are gone", func() error {
		if left := r.lists(t, 0); left > 0 {
			return fmt.Errorf("%d are left", left)
		}
		return nil
	})
}

// lists counts the lists that have at least so many users.
func (r *run) lists(t *testing.T, users int) int {
	t.Helper()
	roles := &rbacv1.ClusterRoleList{}
	if err := r.Admin.List(t.Context(), roles); err != nil {
		t.Fatal(err)
	}
	lists := 0
	for i := range roles.Items {
		role := &roles.Items[i]
		if strings.HasPrefix(role.Name, usersPrefix) && len(role.Rules) > 0 && len(role.Rules[0].ResourceNames) >= users {
			lists++
		}
	}
	return lists
}

// gatewayStops ends a grant while the gateway is away, which starts again on a server that does not stream lists. A
// credential of this grant is encrypted.
func (r *run) gatewayStops(t *testing.T) {
	encrypted := r.opens(t, gen.WithTransport(v1alpha1.TransportGateway), gen.WithPublicKey(gen.Engineer, r.key.Recipient().String()))
	g := r.opens(t, gen.WithTransport(v1alpha1.TransportGateway))
	r.comes(t, g)
	if err := r.gateway.Stop(); err != nil {
		t.Fatal(err)
	}
	r.decides(t, g, gen.Revoking(g.Name))
	r.becomes(t, g, v1alpha1.StateRevoked)
	r.gateway = r.opensGateway(t, "KUBE_FEATURE_WatchListClient=false")
	after := r.opens(t, gen.WithTransport(v1alpha1.TransportGateway))
	r.comes(t, after)
	r.delete(t, after)
	r.isGone(t, after)
	r.says("the encrypted grant of the gateway", r.kubectl(t, r.kubeconfig, "get", "sag", "-o", "yaml", "-n", encrypted.Namespace))
}
