package gateway

import (
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/api/v1alpha1"
)

func TestASessionIsDeletedAnHourAfterItWasCutAndNotBefore(t *testing.T) {
	cut := metav1.NewMicroTime(epoch)
	for title, c := range map[string]struct {
		cut  *metav1.MicroTime
		now  time.Duration
		gone bool
		next time.Duration
	}{
		"open":             {nil, 100 * time.Hour, false, 0},
		"just cut":         {&cut, 0, false, time.Hour},
		"almost an hour":   {&cut, time.Hour - time.Second, false, time.Second},
		"an hour ago":      {&cut, time.Hour, true, 0},
		"long, long since": {&cut, 1000 * time.Hour, true, 0},
	} {
		t.Run(title, func(t *testing.T) {
			scheme := runtime.NewScheme()
			if err := v1alpha1.AddToScheme(scheme); err != nil {
				t.Fatal(err)
			}
			session := &v1alpha1.SupportAccessSession{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "session-1", UID: "1"}}
			session.Status.CutTime = c.cut
			api := fake.NewClientBuilder().WithScheme(scheme).WithObjects(session).Build()
			d := &Sessions{Client: api, Clock: testingclock.NewFakePassiveClock(epoch.Add(c.now))}
			key := client.ObjectKeyFromObject(session)
			result, err := d.Reconcile(t.Context(), reconcile.Request{NamespacedName: key})
			if err != nil {
				t.Fatal(err)
			}
			if result.RequeueAfter != c.next {
				t.Errorf("it is looked at again after %s, want %s", result.RequeueAfter, c.next)
			}
			err = api.Get(t.Context(), key, &v1alpha1.SupportAccessSession{})
			if apierrors.IsNotFound(err) != c.gone {
				t.Errorf("reading it gives %v", err)
			}
		})
	}
}
