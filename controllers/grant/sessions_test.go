package grant

import (
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/test/gen"
)

func TestAGrantWhoseGatewayWasTakenAwaySaysSo(t *testing.T) {
	grant := gen.Grant("case-1", gen.Namespace, gen.WithTransport(v1alpha1.TransportGateway))
	gone := gen.Record(grant)
	confirmed := metav1.NewMicroTime(gen.Epoch.Add(time.Hour))
	settled := gen.Record(grant, gen.WithRecordEnd(gen.Epoch, v1alpha1.EndExpired, "us"))
	settled.Status.DisconnectedTime = &confirmed
	ended := gen.Record(grant, gen.WithRecordEnd(gen.Epoch, v1alpha1.EndExpired, "us"))
	for sentence, c := range map[string]struct {
		s    *sight
		want map[string]string
	}{
		"with a gateway":         {&sight{grant: grant, record: gone}, map[string]string{v1alpha1.ConditionRecorded: v1alpha1.ReasonGateway, v1alpha1.ConditionDisconnectable: v1alpha1.ReasonGateway}},
		"while it is open":       {&sight{grant: grant, record: gone, gatewayless: true}, map[string]string{v1alpha1.ConditionRecorded: v1alpha1.ReasonNoGateway, v1alpha1.ConditionDisconnectable: v1alpha1.ReasonNoGateway}},
		"once it has ended":      {&sight{grant: grant, record: ended, gatewayless: true}, map[string]string{v1alpha1.ConditionDisconnected: v1alpha1.ReasonNoGateway}},
		"once all had said so":   {&sight{grant: grant, record: settled, gatewayless: true}, map[string]string{v1alpha1.ConditionDisconnected: v1alpha1.TransitionDisconnected}},
		"before it was ever one": {&sight{grant: grant, record: gen.Record(grant, gen.Unprovisioned()), gatewayless: true}, map[string]string{v1alpha1.ConditionRecorded: v1alpha1.ReasonGateway}},
	} {
		c.s.now = gen.Epoch.Add(time.Second)
		said := map[string]string{}
		for _, condition := range transportConditions(c.s, lifecycle.Verdict{}) {
			said[condition.Type] = condition.Reason
		}
		for kind, reason := range c.want {
			if said[kind] != reason {
				t.Errorf("%s: %s is %q, want %q", sentence, kind, said[kind], reason)
			}
		}
	}
}

func TestWhileOneReplicaOfTheGatewayCanLetNobodyInTheGrantSaysWhyInsteadOfOpening(t *testing.T) {
	replica := func(name string, of types.UID, unable string) client.Object {
		session := &v1alpha1.SupportAccessSession{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: name}}
		session.Spec.Grant.UID, session.Spec.Replica, session.Status.Unable = of, name, unable
		return session
	}
	const why = "the API server does not let it act as engineers"
	for sentence, c := range map[string]struct {
		says []client.Object
		want []string
	}{
		"nobody says anything":                   {nil, nil},
		"every replica can":                      {[]client.Object{replica("a", v1alpha1.GatewayItself, ""), replica("b", v1alpha1.GatewayItself, "")}, nil},
		"one cannot":                             {[]client.Object{replica("a", v1alpha1.GatewayItself, ""), replica("b", v1alpha1.GatewayItself, why)}, []string{why}},
		"none can, which is said once":           {[]client.Object{replica("a", v1alpha1.GatewayItself, why), replica("b", v1alpha1.GatewayItself, why)}, []string{why}},
		"it is said of a grant, and of no other": {[]client.Object{replica("a", gen.UID("case-2"), why)}, nil},
	} {
		r := &Reconciler{Sessions: sessionsOf(t, c.says...)}
		s := &sight{}
		if err := r.seeGateway(t.Context(), s); err != nil || !slices.Equal(s.world.Missing, c.want) {
			t.Errorf("%s: missing is %q, %v, want %q", sentence, s.world.Missing, err, c.want)
		}
	}
	if err := (&Reconciler{}).seeGateway(t.Context(), &sight{}); err != nil {
		t.Errorf("without a gateway: %v", err)
	}
}

func TestWhatAReplicaSaysOfItselfHasNoGrantLookedAt(t *testing.T) {
	session := &v1alpha1.SupportAccessSession{}
	session.Spec.Grant = v1alpha1.SessionGrant{Namespace: v1alpha1.SystemNamespace, Name: v1alpha1.GatewayServiceAccount, UID: v1alpha1.GatewayItself}
	if got := grantsOfSession(t.Context(), session); len(got) != 0 {
		t.Errorf("got %v", got)
	}
	session.Spec.Grant = v1alpha1.SessionGrant{Namespace: gen.Namespace, Name: "case-1", UID: gen.UID("case-1")}
	if got := grantsOfSession(t.Context(), session); len(got) != 1 || got[0].Name != "case-1" {
		t.Errorf("got %v, want the grant", got)
	}
}

// sessionsOf reads what the replicas of the gateway say, as the controller's cache does.
func sessionsOf(t *testing.T, says ...client.Object) client.Reader {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(says...).WithIndex(&v1alpha1.SupportAccessSession{}, indexGrant, func(o client.Object) []string {
		return []string{string(o.(*v1alpha1.SupportAccessSession).Spec.Grant.UID)}
	}).Build()
}
