package grant

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
