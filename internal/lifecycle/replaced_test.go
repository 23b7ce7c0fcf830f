package lifecycle

import (
	"testing"
	"time"

	"supportaccess.dev/operator/api/v1alpha1"
)

func TestACredentialIsReplacedOnceForEachDecision(t *testing.T) {
	grant := given()
	gateway := func(r *v1alpha1.SupportAccessRecord) { r.Spec.Transport = v1alpha1.TransportGateway }
	replacedAt := func(after time.Duration) func(*v1alpha1.SupportAccessRecord) {
		return func(r *v1alpha1.SupportAccessRecord) {
			r.Status.ReplacedCredentials = []v1alpha1.ReplacedCredential{{Name: "ana", DecisionTime: *at(after)}}
		}
	}
	asked := func(engineer string, after time.Duration) v1alpha1.SupportAccessDecision {
		return decided(after, v1alpha1.ActionHandOver, v1alpha1.DecisionTarget{Grant: "case-1", Engineer: engineer})
	}
	type decisions = []v1alpha1.SupportAccessDecision
	for sentence, c := range map[string]struct {
		record    *v1alpha1.SupportAccessRecord
		decisions decisions
		want      time.Duration
	}{
		"asked for":                         {recorded(grant, gateway), decisions{asked("ana", time.Minute)}, time.Minute},
		"asked for twice, the later counts": {recorded(grant, gateway), decisions{asked("ana", time.Hour/2), asked("ana", time.Minute)}, time.Hour / 2},
		"asked for somebody else":           {recorded(grant, gateway), decisions{asked("eve", time.Minute)}, 0},
		"on record":                         {recorded(grant, gateway, replacedAt(time.Minute)), decisions{asked("ana", time.Minute)}, 0},
		"asked for again since":             {recorded(grant, gateway, replacedAt(time.Minute)), decisions{asked("ana", time.Minute), asked("ana", time.Minute+time.Second)}, time.Minute + time.Second},
		"of an earlier grant of the name":   {recorded(grant, gateway), decisions{asked("ana", -time.Second)}, 0},
		"where there is no gateway":         {recorded(grant), decisions{asked("ana", time.Minute)}, 0},
	} {
		got := Decide(Facts{Now: t0.Add(50 * time.Minute), Grant: grant, Record: c.record, Decisions: c.decisions}).Replaced
		if c.want == 0 && len(got) > 0 || c.want > 0 && (len(got) != 1 || !got[0].Decided.Equal(t0.Add(c.want)) || got[0].By != "tom") {
			t.Errorf("%s: got %+v", sentence, got)
		}
	}
}
