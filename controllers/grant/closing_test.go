package grant

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/lifecycle"
)

// stuck is a grant that has ended, and an API server that does not let its binding be deleted.
type stuck struct {
	*Reconciler
	forbids error
}

func newStuck(t *testing.T) *stuck {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	opened := metav1.NewMicroTime(time.Unix(0, 0))
	s := &stuck{}
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(
		&v1alpha1.SupportAccessRecord{
			ObjectMeta: metav1.ObjectMeta{Namespace: home, Name: victim},
			Spec:       v1alpha1.SupportAccessRecordSpec{Grant: v1alpha1.RecordedGrant{Namespace: home, Name: victim, UID: "uid"}},
			Status: v1alpha1.SupportAccessRecordStatus{
				ProvisionedTime: &opened, Bindings: []v1alpha1.RecordedBinding{{Namespace: home, Name: "b", Role: "r", UID: "b-uid"}},
			},
		},
		&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: home, Name: "b", UID: "b-uid", Labels: map[string]string{v1alpha1.LabelManaged: "true"}}},
	).WithInterceptorFuncs(interceptor.Funcs{Delete: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.DeleteOption) error {
		if s.forbids != nil {
			return s.forbids
		}
		return c.Delete(ctx, object, options...)
	}}).Build()
	s.Reconciler = &Reconciler{Client: c, Live: c, Keeper: access.Keeper{Client: c, Live: c}, Clock: clocktesting.NewFakePassiveClock(opened.Time)}
	return s
}

// closes has the grant closed at an instant and returns what the record then says had happened.
func (s *stuck) closes(t *testing.T, at time.Time) (happened []string, problem error) {
	t.Helper()
	record := &v1alpha1.SupportAccessRecord{}
	if err := s.Client.Get(t.Context(), types.NamespacedName{Namespace: home, Name: victim}, record); err != nil {
		t.Fatal(err)
	}
	sight := &sight{key: types.NamespacedName{Namespace: home, Name: victim}, now: at, record: record}
	done := s.close(t.Context(), sight, lifecycle.Verdict{Wants: lifecycle.WantsClosed, End: &lifecycle.End{Reason: v1alpha1.EndExpired, By: lifecycle.Operator}})
	if err := s.Client.Get(t.Context(), types.NamespacedName{Namespace: home, Name: victim}, record); err != nil {
		t.Fatal(err)
	}
	for _, transition := range record.Status.Transitions {
		happened = append(happened, transition.Type+" "+transition.Message)
	}
	return happened, done.problem
}

func TestAccessThatCannotBeTakenAwayForAMinuteIsOnRecordOnceWithTheReason(t *testing.T) {
	s, began := newStuck(t), time.Unix(0, 0)
	s.forbids = errors.New("a guard of bindings says no")
	for _, c := range []struct {
		after time.Duration
		want  int
	}{{0, 0}, {59 * time.Second, 0}, {time.Minute, 1}, {time.Hour, 1}} {
		happened, problem := s.closes(t, began.Add(c.after))
		if !errors.Is(problem, s.forbids) {
			t.Fatalf("after %s the problem is %v", c.after, problem)
		}
		if len(happened) != c.want || c.want == 1 && (!strings.HasPrefix(happened[0], v1alpha1.TransitionClosingFailed) || !strings.Contains(happened[0], s.forbids.Error())) {
			t.Errorf("after %s the record says %q, want %d", c.after, happened, c.want)
		}
	}
	s.forbids = nil
	happened, problem := s.closes(t, began.Add(2*time.Hour))
	if problem != nil || len(happened) < 2 || !strings.HasPrefix(happened[1], v1alpha1.EndExpired) {
		t.Errorf("once it is let it says %q: %v", happened, problem)
	}
}

func TestWhatGoesWrongForLessThanAMinuteIsNotSaidAndCountedAnewTheNextTime(t *testing.T) {
	s, began := newStuck(t), time.Unix(0, 0)
	s.forbids = errors.New("the API server is away")
	_, _ = s.closes(t, began)
	s.forbids = nil
	if _, problem := s.closes(t, began.Add(30*time.Second)); problem != nil {
		t.Fatal(problem)
	}
	if _, failing := s.failing.Load(types.UID("uid")); failing {
		t.Error("it is closed, and still counted")
	}
}
