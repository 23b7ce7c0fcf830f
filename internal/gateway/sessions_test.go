package gateway

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"supportaccess.dev/operator/api/v1alpha1"
)

func TestWhatSomebodyElseWroteOrDeletedIsSaidAnew(t *testing.T) {
	for what, meddle := range map[string]func(client.Client, *v1alpha1.SupportAccessSession) error{
		"written": func(c client.Client, o *v1alpha1.SupportAccessSession) error {
			o.Labels = map[string]string{"written": "true"}
			return c.Update(t.Context(), o)
		},
		"deleted": func(c client.Client, o *v1alpha1.SupportAccessSession) error { return c.Delete(t.Context(), o) },
	} {
		t.Run(what, func(t *testing.T) {
			scheme := runtime.NewScheme()
			if err := v1alpha1.AddToScheme(scheme); err != nil {
				t.Fatal(err)
			}
			api := fake.NewClientBuilder().WithScheme(scheme).Build()
			s := &sessions{
				client: api, clock: clocktesting.NewFakePassiveClock(time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC)), replica: "gateway-1",
				presenceOf: func(types.UID) map[string]presence {
					return map[string]presence{"ana@vendor.example": {connections: 1}}
				},
			}
			of := &standing{key: types.NamespacedName{Namespace: "mail-archive", Name: "case-4711"}, uid: "uid-1"}
			if err := s.Arrive(t.Context(), of, "ana@vendor.example", "sha256:00"); err != nil {
				t.Fatal(err)
			}
			found := &v1alpha1.SupportAccessSession{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: sessionName("gateway-1", "uid-1")}}
			if err := api.Get(t.Context(), client.ObjectKeyFromObject(found), found); err != nil {
				t.Fatal(err)
			}
			if err := meddle(api, found.DeepCopy()); err != nil {
				t.Fatal(err)
			}
			if err := s.cut(t.Context(), "uid-1", v1alpha1.EndRevoked, 1); err == nil {
				t.Fatal("that somebody else was there goes unnoticed")
			}
			s.owe("uid-1", v1alpha1.EndRevoked, 1)
			if err := s.settle(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := api.Get(t.Context(), client.ObjectKeyFromObject(found), found); err != nil {
				t.Fatal(err)
			}
			if found.Status.CutTime == nil || found.Status.CutReason != v1alpha1.EndRevoked || len(found.Status.Engineers) != 1 {
				t.Errorf("it says %+v", found.Status)
			}
		})
	}
}
