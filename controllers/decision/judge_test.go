package decision

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/lifecycle"
)

func TestAWideDecisionIsNotLetGoOfWhileItIsAboutAGrantThatCanBeMade(t *testing.T) {
	made := time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC)
	d := &v1alpha1.SupportAccessDecision{
		ObjectMeta: metav1.ObjectMeta{Namespace: "mail", Name: "stop", CreationTimestamp: metav1.NewTime(made)},
		Spec:       v1alpha1.SupportAccessDecisionSpec{Action: v1alpha1.ActionRevoke, Target: v1alpha1.DecisionTarget{Namespace: v1alpha1.TargetAll}},
	}
	for after, settled := range map[time.Duration]bool{
		0:                       false,
		2 * time.Second:         false,
		2500 * time.Millisecond: false,
		3*time.Second - 1:       false,
		3 * time.Second:         true,
		time.Hour:               true,
	} {
		now := made.Add(after)
		v := judge(d, nil, now)
		if v.settled != settled {
			t.Errorf("%s after it was made it is settled: %t; want %t", after, v.settled, settled)
		}
		madeNow := lifecycle.GrantKey{Namespace: "mail", Name: "new", Created: now.Truncate(time.Second)}
		if v.settled && lifecycle.Concerns(d, madeNow) {
			t.Errorf("%s after it was made it is let go of, and would end a grant that is made then", after)
		}
		if !v.settled && !now.Add(v.again).Equal(made.Add(3*time.Second)) {
			t.Errorf("%s after it was made it is looked at again in %s; want at the instant at which it is over", after, v.again)
		}
	}
}
