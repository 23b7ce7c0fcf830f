package metrics

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"supportaccess.dev/operator/api/v1alpha1"
)

var now = time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC)

func grant(name, state string, end time.Time) *v1alpha1.SupportAccessGrant {
	expiration := metav1.NewTime(end)
	return &v1alpha1.SupportAccessGrant{
		ObjectMeta: metav1.ObjectMeta{Namespace: "mail", Name: name},
		Spec:       v1alpha1.SupportAccessGrantSpec{Engineers: []v1alpha1.Engineer{{Name: "ana@vendor.example"}}, GrantedBy: "tess@customer.example"},
		Status: v1alpha1.SupportAccessGrantStatus{
			ExpirationTime: &expiration,
			Conditions:     []metav1.Condition{{Type: v1alpha1.ConditionReady, Reason: state, Status: metav1.ConditionTrue}},
		},
	}
}

func binding(grant string) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "mail", Name: grant, Labels: map[string]string{
		v1alpha1.LabelManaged: "true", v1alpha1.LabelGrant: grant, v1alpha1.LabelGrantNamespace: "mail",
	}}}
}

func registryWith(t *testing.T, objects ...client.Object) *prometheus.Registry {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	if err := rbacv1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	reader := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()
	registry.MustRegister(&Grants{Reader: reader, Clock: clocktesting.NewFakePassiveClock(now)})
	if _, err := NewCounters(registry, "v0"); err != nil {
		t.Fatal(err)
	}
	if err := ShowWaiting(registry, func() int { return 3 }); err != nil {
		t.Fatal(err)
	}
	return registry
}

func TestABindingOfAGrantThatIsOverIsCounted(t *testing.T) {
	registry := registryWith(t,
		grant("open", v1alpha1.StateActive, now.Add(time.Second)), binding("open"),
		grant("over", v1alpha1.StateActive, now), binding("over"), binding("gone"))
	want := `
# HELP support_access_expired_bindings Bindings of grants that are over. It must be 0.
# TYPE support_access_expired_bindings gauge
support_access_expired_bindings 2
# HELP support_access_grants Grants by state.
# TYPE support_access_grants gauge
support_access_grants{state="Active"} 2
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "support_access_expired_bindings", "support_access_grants"); err != nil {
		t.Error(err)
	}
}

func TestRequestsThatWaitForAnAnswerAreCounted(t *testing.T) {
	request := func(name string, conditions ...metav1.Condition) *v1alpha1.SupportAccessRequest {
		return &v1alpha1.SupportAccessRequest{
			ObjectMeta: metav1.ObjectMeta{Namespace: "mail", Name: name},
			Status:     v1alpha1.SupportAccessRequestStatus{Conditions: conditions},
		}
	}
	open := metav1.Condition{Type: v1alpha1.ConditionReady, Reason: v1alpha1.RequestOpen, Status: metav1.ConditionTrue}
	want := `
# HELP support_access_requests Requests by state.
# TYPE support_access_requests gauge
support_access_requests{state="Open"} 2
support_access_requests{state="Unseen"} 1
`
	registry := registryWith(t, request("a", open), request("b", open), request("c"))
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "support_access_requests"); err != nil {
		t.Error(err)
	}
}

func TestGrantsThatWaitToOpenAreCounted(t *testing.T) {
	want := `
# HELP support_access_grants_waiting_to_open Grants that may open and wait for others to have opened.
# TYPE support_access_grants_waiting_to_open gauge
support_access_grants_waiting_to_open 3
`
	if err := testutil.GatherAndCompare(registryWith(t), strings.NewReader(want), "support_access_grants_waiting_to_open"); err != nil {
		t.Error(err)
	}
}

func TestMetricsFollowTheConventionsAndNameNobody(t *testing.T) {
	registry := registryWith(t, grant("open", v1alpha1.StateActive, now.Add(time.Second)))
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if len(families) < 7 {
		t.Errorf("got %d metrics, want all of them", len(families))
	}
	for _, family := range families {
		if text := family.String(); strings.Contains(text, "ana@") || strings.Contains(text, "tess@") {
			t.Errorf("a person is named: %s", text)
		}
	}
}
