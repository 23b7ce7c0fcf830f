// Package matrix tries who may write what: everybody who could try, on every object and subresource of ours, with every
// verb, and the API server answers. The answers are a page of the docs, docs/who-may-write-what.md, and the test holds
// the page to them.
package matrix

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/hack/controlplane"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

var update = flag.Bool("update", false, "write docs/who-may-write-what.md anew")

const (
	startTimeout = 5 * time.Minute
	grantName    = "case-4711"
	requestName  = "case-4717"
	serviceUser  = "system:serviceaccount:"
)

func TestMain(m *testing.M) {
	world.MainWith(m, controlplane.Options{})
}

// scene is a cluster with an open grant and an operator that has stopped, so that nothing changes while people try.
type scene struct {
	*world.World
	namespace string
	grant     *v1alpha1.SupportAccessGrant
	decision  *v1alpha1.SupportAccessDecision
	record    *v1alpha1.SupportAccessRecord
	session   *v1alpha1.SupportAccessSession
	users     *rbacv1.ClusterRole
	gateway   client.Client
	actors    []actor
	answers   map[string]answer
}

// actor is somebody who tries.
type actor struct {
	title  string
	client client.Client
}

var theScene = struct {
	once sync.Once
	set  *scene
}{}

// tried returns the scene, in which everybody has tried everything.
func tried(t *testing.T) *scene {
	t.Helper()
	theScene.once.Do(func() {
		s := &scene{World: world.New(t), answers: map[string]answer{}}
		s.open(t)
		s.cast(t)
		s.tryAll(t)
		theScene.set = s
	})
	if theScene.set == nil {
		t.Fatal("the scene could not be set")
	}
	return theScene.set
}

var theChart = struct {
	once         sync.Once
	installation *world.Installation
	err          error
}{}

// chart returns the installed chart, with the gateway.
func chart(w *world.World) (*world.Installation, error) {
	theChart.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		theChart.installation, theChart.err = world.Install(ctx, w.ControlPlane, w.ControlPlane.Dir(),
			map[string]any{"gateway": map[string]any{"enabled": true, "changes": map[string]any{"enabled": false}}})
	})
	return theChart.installation, theChart.err
}

// open has a grant opened, and stops the operator.
func (s *scene) open(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	installation, err := chart(s.World)
	if err != nil {
		t.Fatal(err)
	}
	operator, err := world.Run(ctx, s.ControlPlane, installation, world.OperatorOptions{Dir: filepath.Join(s.ControlPlane.Dir(), "pods")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = operator.Stop() })
	if err := operator.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	s.namespace = s.Namespace(t)
	s.grant = gen.ToApply(grantName, s.namespace)
	s.make(t, s.grant)
	s.record = &v1alpha1.SupportAccessRecord{}
	world.Eventually(t, "the grant is open", func() error {
		if err := s.Admin.Get(ctx, client.ObjectKeyFromObject(s.grant), s.grant); err != nil {
			return err
		}
		if !apimeta.IsStatusConditionTrue(s.grant.Status.Conditions, v1alpha1.ConditionActive) || len(s.grant.Status.Engineers) != 1 {
			return fmt.Errorf("its status is %+v", s.grant.Status)
		}
		return s.Admin.Get(ctx, client.ObjectKeyFromObject(s.grant), s.record)
	})
	if err := operator.Stop(); err != nil {
		t.Fatal(err)
	}
	s.gateway = s.asGateway(t)
	s.session = &v1alpha1.SupportAccessSession{
		ObjectMeta: metav1.ObjectMeta{Namespace: world.SystemNamespace, Name: "session-1"},
		Spec: v1alpha1.SupportAccessSessionSpec{
			Grant: v1alpha1.SessionGrant{Namespace: s.namespace, Name: grantName, UID: s.grant.UID}, Replica: gatewayPod,
		},
	}
	if err := s.gateway.Create(ctx, s.session); err != nil {
		t.Fatal(err)
	}
	s.users = &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "support-access-gateway-users-0"}, Rules: []rbacv1.PolicyRule{{
		APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"users"}, Verbs: []string{"impersonate:user-info"},
		ResourceNames: []string{v1alpha1.IdentityPrefix + "ana"},
	}}}
	s.make(t, s.users)
	kept := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: world.SystemNamespace, Name: v1alpha1.CheckpointConfigMap}}
	if err := s.as(t, world.SystemNamespace, v1alpha1.ControllerServiceAccount).Create(ctx, kept); err != nil {
		t.Fatal(err)
	}
	// Nobody reads it any more, so it keeps its finalizer.
	s.decision = gen.Decision("", s.namespace, gen.Revoking(grantName))
	s.decision.ObjectMeta = metav1.ObjectMeta{Namespace: s.namespace, Name: "unread"}
	s.decision.Spec.DecidedBy, s.decision.Spec.Authority, s.decision.Status = "", "", v1alpha1.SupportAccessDecisionStatus{}
	s.make(t, s.decision)
	s.make(t, &v1alpha1.SupportAccessSetting{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: v1alpha1.SettingName},
		Spec:       v1alpha1.SupportAccessSettingSpec{Engineers: []v1alpha1.Engineer{{Name: gen.Engineer}}, Reason: "just in case"},
	})
	s.make(t, gen.RequestToApply(requestName, s.namespace))
}

func (s *scene) make(t *testing.T, o client.Object) {
	t.Helper()
	if err := s.Admin.Create(t.Context(), o); err != nil {
		t.Fatalf("create %T %s/%s: %v", o, o.GetNamespace(), o.GetName(), err)
	}
}

// cast brings everybody in: people with certificates, programs in the guise of their ServiceAccounts.
func (s *scene) cast(t *testing.T) {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "flux"}}
	s.make(t, account)
	for name, who := range map[string]rbacv1.Subject{
		"admins":    {APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: gen.Admin},
		"pipelines": {Kind: rbacv1.ServiceAccountKind, Namespace: s.namespace, Name: account.Name},
	} {
		s.make(t, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name}, Subjects: []rbacv1.Subject{who},
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"},
		})
	}
	s.actors = []actor{
		{"cluster admin", s.Admin},
		{"namespace admin", s.Client(t, gen.Admin)},
		{"pipeline", s.as(t, s.namespace, account.Name)},
		{"engineer", s.asUser(t, s.grant.Status.Engineers[0].Username, world.CredentialsNamespace)},
		{"stranger", s.Client(t, "stranger")},
		{"controller", s.as(t, world.SystemNamespace, v1alpha1.ControllerServiceAccount)},
		{"gateway", s.gateway},
		{"namespace-controller", s.as(t, "kube-system", "namespace-controller")},
		{"garbage collector", s.as(t, "kube-system", "generic-garbage-collector")},
	}
}

// as is somebody in the guise of a ServiceAccount, in its groups and no others.
func (s *scene) as(t *testing.T, namespace, name string) client.Client {
	t.Helper()
	return s.asUser(t, serviceUser+namespace+":"+name, namespace)
}

// gatewayPod is the replica of the gateway that tries.
const gatewayPod = "support-access-gateway-1"

// asGateway is the gateway with a token bound to its pod.
func (s *scene) asGateway(t *testing.T) client.Client {
	t.Helper()
	config := s.ControlPlane.AdminConfig()
	config.Impersonate = rest.ImpersonationConfig{
		UserName: serviceUser + world.SystemNamespace + ":" + v1alpha1.GatewayServiceAccount,
		Groups:   []string{"system:authenticated", "system:serviceaccounts", "system:serviceaccounts:" + world.SystemNamespace},
		Extra:    map[string][]string{"authentication.kubernetes.io/pod-name": {gatewayPod}},
	}
	return s.ClientFor(t, config)
}

func (s *scene) asUser(t *testing.T, user, namespace string) client.Client {
	t.Helper()
	config := s.ControlPlane.AdminConfig()
	config.Impersonate = rest.ImpersonationConfig{
		UserName: user, Groups: []string{"system:authenticated", "system:serviceaccounts", "system:serviceaccounts:" + namespace},
	}
	return s.ClientFor(t, config)
}
