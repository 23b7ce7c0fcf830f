package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// replica makes a pod of the gateway that runs nowhere, and somebody who says what it would say.
func replica(t testing.TB, w *world.World) *person {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: world.SystemNamespace, Name: w.Name("replica")},
		Spec: corev1.PodSpec{
			ServiceAccountName: v1alpha1.GatewayServiceAccount,
			SecurityContext:    &corev1.PodSecurityContext{RunAsNonRoot: new(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{Name: "gateway", Image: "none", SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			}}},
		},
	}
	if err := w.Admin.Create(t.Context(), pod); err != nil {
		t.Fatalf("make a pod of the gateway: %v", err)
	}
	t.Cleanup(func() {
		_ = w.Admin.Delete(context.Background(), pod, client.GracePeriodSeconds(0))
	})
	seconds := int64(3600)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &seconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: world.SystemNamespace, Name: v1alpha1.GatewayServiceAccount}}
	if err := w.Admin.SubResource("token").Create(t.Context(), account, request); err != nil {
		t.Fatalf("get the token of a pod of the gateway: %v", err)
	}
	config := rest.AnonymousClientConfig(w.ControlPlane.AdminConfig())
	config.BearerToken = request.Status.Token
	return meet(t, w, pod.Name, config)
}

// connects has a replica say that an engineer is connected.
func (p *person) connects(t testing.TB, object *v1alpha1.SupportAccessGrant, connections int32) *v1alpha1.SupportAccessSession {
	t.Helper()
	session := gen.Session(object, p.name, time.Now().Truncate(time.Second))
	session.Status.Engineers[0].Connections = connections
	if err := p.Create(t.Context(), session); err != nil {
		t.Fatalf("%s says who is connected: %v", p.name, err)
	}
	return session
}

// cuts has a replica say that nobody is connected any more.
func (p *person) cuts(t testing.TB, session *v1alpha1.SupportAccessSession, connections int32) {
	t.Helper()
	now := metav1.NewMicroTime(time.Now())
	session.Status.Engineers[0].Connections = 0
	session.Status.CutTime, session.Status.CutReason, session.Status.CutConnections = &now, v1alpha1.EndDeleted, connections
	if err := p.Update(t.Context(), session); err != nil {
		t.Fatalf("%s says that nobody is connected: %v", p.name, err)
	}
}

func TestTheStatusShowsWhoIsConnectedAndTheRecordWhoCameFirst(t *testing.T) {
	t.Parallel()
	tn := throughTheGateway(t)
	g := tn.opens(t, theGrant, gen.WithTransport(v1alpha1.TransportGateway))
	object := g.is(t, v1alpha1.StateActive)
	isCondition(t, object, v1alpha1.ConditionRecorded, metav1.ConditionTrue, v1alpha1.ReasonGateway)
	isCondition(t, object, v1alpha1.ConditionDisconnectable, metav1.ConditionTrue, v1alpha1.ReasonGateway)
	lacksConditions(t, object, v1alpha1.ConditionDisconnected)

	one, two := replica(t, tn.World), replica(t, tn.World)
	first, second := one.connects(t, object, 2), two.connects(t, object, 1)
	world.Eventually(t, "the status shows the connections of both replicas", func() error {
		e := statusOf(t, g.is(t, v1alpha1.StateActive), gen.Engineer)
		if e.Sessions != 3 || e.LastSeenTime == nil {
			return fmt.Errorf("it shows %d, last seen %v", e.Sessions, e.LastSeenTime)
		}
		return nil
	})
	wasHandedOver(t, tn, g)

	// Nobody is taken for disconnected before all replicas have said so.
	if err := tn.admin.Delete(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	hasEnded(t, tn.admin, g.NamespacedName, ending{reason: v1alpha1.EndDeleted, by: lifecycle.Unknown})
	g.leavesNothing(t)
	one.cuts(t, first, 2)
	if record := g.record(t); record.Status.DisconnectedTime != nil {
		t.Error("one of two replicas was enough")
	}
	two.cuts(t, second, 1)
	world.Eventually(t, "the record says that nobody is connected", func() error {
		record := g.record(t)
		i := transition(record, v1alpha1.TransitionDisconnected)
		if i < 0 || record.Status.DisconnectedTime == nil {
			return errors.New(trail(record))
		}
		says(t, record.Status.Transitions[i].Message, "3 connections were closed", " ms after the end")
		return nil
	})
}

// wasHandedOver waits until the credential of a grant that was used is out of the cluster, the grant open as before.
func wasHandedOver(t testing.TB, tn *tenant, g *grantInTest) {
	t.Helper()
	world.Eventually(t, "the credential is out of the cluster", func() error {
		err := tn.Admin.Get(t.Context(), types.NamespacedName{Namespace: world.CredentialsNamespace, Name: g.identity(gen.Engineer)}, &corev1.Secret{})
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("reading its Secret gives %v", err)
		}
		e := statusOf(t, g.is(t, v1alpha1.StateActive), gen.Engineer)
		if e.CredentialSecretRef != nil || e.CredentialHash == "" {
			return fmt.Errorf("the status has %+v", e)
		}
		return nil
	})
	record := g.record(t)
	for _, kind := range []string{v1alpha1.TransitionFirstUsed, v1alpha1.TransitionHandedOver} {
		if transition(record, kind) < 0 {
			t.Errorf("there is no transition %s: %s", kind, trail(record))
		}
	}
	if i := transition(record, v1alpha1.TransitionFirstUsed); i >= 0 && record.Status.Transitions[i].By != gen.Engineer {
		t.Errorf("the first use is %q's", record.Status.Transitions[i].By)
	}
	world.Consistently(t, "the grant is open for the engineer", 2*time.Second, func() error {
		object, err := g.get(t)
		if err != nil {
			return err
		}
		if len(object.Status.Engineers) != 1 || !apimeta.IsStatusConditionTrue(object.Status.Conditions, v1alpha1.ConditionActive) {
			return fmt.Errorf("its status is %+v", object.Status)
		}
		return nil
	})
}

func TestACredentialThatNobodyFetchesLeavesTheClusterWhenItsTimeIsOver(t *testing.T) {
	t.Parallel()
	tn := throughTheGateway(t, gen.WithSpec(func(s *v1alpha1.SupportAccessPolicySpec) { s.HandoverWindow = "3s" }))
	g := tn.opens(t, theGrant, gen.WithTransport(v1alpha1.TransportGateway))
	world.Eventually(t, "the credential is on record as handed over", func() error {
		if transition(g.record(t), v1alpha1.TransitionHandedOver) < 0 {
			return errors.New(trail(g.record(t)))
		}
		return nil
	})
	world.Eventually(t, "its Secret is gone and the grant open", func() error {
		e := statusOf(t, g.is(t, v1alpha1.StateActive), gen.Engineer)
		if e.CredentialSecretRef != nil || e.CredentialHash == "" {
			return fmt.Errorf("the status has %+v", e)
		}
		return nil
	})
}

func TestOfAGrantThatNobodyUsedTheStatusSaysSo(t *testing.T) {
	t.Parallel()
	tn := throughTheGateway(t)
	g := tn.opens(t, theGrant, gen.WithTransport(v1alpha1.TransportGateway))
	tn.admin.decides(t, tn.namespace, "over", gen.Revoking(theGrant))
	object := g.is(t, v1alpha1.StateRevoked)
	isCondition(t, object, v1alpha1.ConditionDisconnected, metav1.ConditionTrue, v1alpha1.ReasonNobody)
	isCondition(t, object, v1alpha1.ConditionRecorded, metav1.ConditionTrue, v1alpha1.ReasonGateway)
}

func TestADirectGrantSaysThatNothingIsRecordedAndNobodyDisconnected(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	object := tn.opens(t, theGrant).is(t, v1alpha1.StateActive)
	says(t, isCondition(t, object, v1alpha1.ConditionRecorded, metav1.ConditionFalse, v1alpha1.ReasonDirect), "audit log")
	says(t, isCondition(t, object, v1alpha1.ConditionDisconnectable, metav1.ConditionFalse, v1alpha1.ReasonDirect), "may live on")
}

func TestTheGatewayMayActAsAnEngineerWhileTheGrantIsOpenAndTheControllerNever(t *testing.T) {
	t.Parallel()
	tn := throughTheGateway(t)
	g := tn.opens(t, theGrant, gen.WithTransport(v1alpha1.TransportGateway))
	name := access.GatewayUsername(g.recorded(), gen.Engineer)
	listed := func() (int, error) {
		roles, found := &rbacv1.ClusterRoleList{}, 0
		if err := tn.Admin.List(t.Context(), roles); err != nil {
			return 0, err
		}
		for _, role := range roles.Items {
			for _, rule := range role.Rules {
				if strings.HasPrefix(role.Name, "support-access-gateway-users-") && len(rule.ResourceNames) == 0 {
					t.Errorf("ClusterRole %s is of every user", role.Name)
				}
				if slices.Contains(rule.ResourceNames, name) {
					found++
				}
			}
		}
		return found, nil
	}
	is := func(want int) func() error {
		return func() error {
			found, err := listed()
			if err == nil && found != want {
				err = fmt.Errorf("it is on %d lists", found)
			}
			return err
		}
	}
	world.Eventually(t, "the engineer's user is on one list", is(1))

	controller := tn.ServiceAccount(t, world.SystemNamespace, v1alpha1.ControllerServiceAccount)
	controller.Impersonate = rest.ImpersonationConfig{UserName: name, Groups: []string{v1alpha1.EngineersGroup}}
	if err := meet(t, tn.World, "the controller as "+name, controller).reads(t.Context(), tn.namespace); !apierrors.IsForbidden(err) {
		t.Errorf("the controller acts as an engineer: %v", err)
	}
	gateway := tn.ServiceAccount(t, world.SystemNamespace, v1alpha1.GatewayServiceAccount)
	gateway.Impersonate = rest.ImpersonationConfig{UserName: name, Groups: []string{v1alpha1.EngineersGroup}}
	asEngineer := meet(t, tn.World, "the gateway as "+name, gateway)
	mayRead(t, asEngineer, tn.namespace)

	g.delete(t)
	g.isGone(t)
	world.Eventually(t, "the engineer's user is on no list", is(0))
	world.Eventually(t, "the gateway acts as the engineer no more", func() error {
		if err := asEngineer.reads(t.Context(), tn.namespace); !apierrors.IsForbidden(err) {
			return fmt.Errorf("it gets %v", err)
		}
		return nil
	})
}
