package grant

import (
	"errors"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/lifecycle"
)

func TestWhatWasForbiddenIsTriedAgainAfterAPauseAndByAnotherGrantAtOnce(t *testing.T) {
	r := &Reconciler{Keeper: access.Keeper{Client: fake.NewFakeClient(), Live: fake.NewFakeClient()}, Clock: clocktesting.NewFakePassiveClock(time.Unix(0, 0))}
	at := func(uid types.UID, now time.Time) *sight {
		grant := &v1alpha1.SupportAccessGrant{ObjectMeta: metav1.ObjectMeta{Namespace: home, Name: victim, UID: uid}}
		return &sight{key: types.NamespacedName{Namespace: home, Name: victim}, now: now, grant: grant, record: &v1alpha1.SupportAccessRecord{}}
	}
	began := time.Unix(0, 0)
	if err := r.inTheWay(at("a", began)); err != nil {
		t.Fatalf("a grant that was never tried is held up by %v", err)
	}
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "rolebindings"}, "b", errors.New("exceeded quota"))
	verdict := lifecycle.Verdict{Wants: lifecycle.WantsOpen}
	done := r.halfOpen(t.Context(), at("a", began), forbidden)
	result, err := r.next(at("a", began), verdict, done)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.inTheWay(at("a", began.Add(result.RequeueAfter-time.Millisecond))); !errors.Is(err, forbidden) {
		t.Errorf("before the pass comes back another one tries: %v", err)
	}
	if err := r.inTheWay(at("a", began.Add(result.RequeueAfter))); err != nil {
		t.Errorf("the pass that comes back after %s does not try: %v", result.RequeueAfter, err)
	}
	r.halfOpen(t.Context(), at("a", began), forbidden)
	if err := r.inTheWay(at("b", began)); err != nil {
		t.Errorf("another grant of the name is held up by %v", err)
	}
}

func TestAPassThatTookLongComesBackNoLater(t *testing.T) {
	began := time.Unix(0, 0)
	r := &Reconciler{Clock: clocktesting.NewFakePassiveClock(began.Add(3 * time.Second))}
	result, err := r.next(&sight{now: began}, lifecycle.Verdict{Until: began.Add(10 * time.Second)}, outcome{})
	if err != nil || result.RequeueAfter != 7*time.Second {
		t.Errorf("it comes back after %s: %v", result.RequeueAfter, err)
	}
}
