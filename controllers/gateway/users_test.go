package gateway

import (
	"slices"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/test/gen"
)

const engineer = "ana@vendor.example"

// recordOf is the record of an open grant through the gateway, but for what is changed.
func recordOf(grant string, change func(*v1alpha1.SupportAccessRecord)) *v1alpha1.SupportAccessRecord {
	started, opened := metav1.NewTime(epoch), metav1.NewMicroTime(epoch)
	record := &v1alpha1.SupportAccessRecord{
		ObjectMeta: metav1.ObjectMeta{Namespace: "mail", Name: grant},
		Spec: v1alpha1.SupportAccessRecordSpec{
			Grant:     v1alpha1.RecordedGrant{Namespace: "mail", Name: grant, UID: gen.UID(grant)},
			Engineers: []string{engineer}, Transport: v1alpha1.TransportGateway,
		},
		Status: v1alpha1.SupportAccessRecordStatus{StartTime: &started, ProvisionedTime: &opened},
	}
	if change != nil {
		change(record)
	}
	return record
}

func userOf(record *v1alpha1.SupportAccessRecord, engineer string) string {
	return access.GatewayUsername(record.Spec.Grant, engineer)
}

func TestTheGatewayMayActAsTheEngineersOfOpenGrantsAndOfNobodyElse(t *testing.T) {
	later := metav1.NewTime(epoch.Add(time.Minute))
	for title, c := range map[string]struct {
		change func(*v1alpha1.SupportAccessRecord)
		want   []string
	}{
		"open":                    {nil, []string{engineer}},
		"being opened":            {func(r *v1alpha1.SupportAccessRecord) { r.Status.ProvisionedTime = nil }, []string{engineer}},
		"yet to begin":            {func(r *v1alpha1.SupportAccessRecord) { r.Status.ProvisionedTime, r.Status.StartTime = nil, &later }, nil},
		"not yet settled":         {func(r *v1alpha1.SupportAccessRecord) { r.Status.ProvisionedTime, r.Status.StartTime = nil, nil }, nil},
		"ended":                   {func(r *v1alpha1.SupportAccessRecord) { r.Status.EndTime = r.Status.ProvisionedTime }, nil},
		"without a gateway":       {func(r *v1alpha1.SupportAccessRecord) { r.Spec.Transport = v1alpha1.TransportDirect }, nil},
		"a copy in another place": {func(r *v1alpha1.SupportAccessRecord) { r.Namespace = "web" }, nil},
		"one of two people was gone": {func(r *v1alpha1.SupportAccessRecord) {
			r.Spec.Engineers = append(r.Spec.Engineers, "ben@vendor.example")
			r.Status.RemovedEngineers = []v1alpha1.RemovedEngineer{{Name: "ben@vendor.example"}}
		}, []string{engineer}},
	} {
		t.Run(title, func(t *testing.T) {
			record := recordOf("case-1", c.change)
			lists, _ := usersOf([]v1alpha1.SupportAccessRecord{*record}, epoch)
			var want []string
			for _, name := range c.want {
				want = append(want, userOf(record, name))
			}
			if got := slices.Concat(lists[:]...); !slices.Equal(got, want) {
				t.Errorf("the lists name %v, want %v", got, want)
			}
		})
	}
}

func TestAGrantThatIsYetToBeginIsLookedAtWhenItDoes(t *testing.T) {
	var records []v1alpha1.SupportAccessRecord
	for i, minutes := range []int{3, 1, 2} {
		at := metav1.NewTime(epoch.Add(time.Duration(minutes) * time.Minute))
		records = append(records, *recordOf("case-"+string(rune('a'+i)), func(r *v1alpha1.SupportAccessRecord) {
			r.Status.ProvisionedTime, r.Status.StartTime = nil, &at
		}))
	}
	if _, next := usersOf(records, epoch); !next.Equal(epoch.Add(time.Minute)) {
		t.Errorf("it is looked at again at %s", next)
	}
}

func TestUsersAreSpreadOverAllListsAndEachIsAlwaysOnTheSame(t *testing.T) {
	var records []v1alpha1.SupportAccessRecord
	for i := range 400 {
		records = append(records, *recordOf("case-"+strings.Repeat("x", i%20)+string(rune('a'+i/20)), nil))
	}
	first, _ := usersOf(records, epoch)
	slices.Reverse(records)
	second, _ := usersOf(records, epoch)
	for i := range first {
		if len(first[i]) == 0 || len(first[i]) > 60 {
			t.Errorf("list %x has %d of 400 users", i, len(first[i]))
		}
		if !slices.Equal(first[i], second[i]) {
			t.Errorf("list %x depends on the order of the records", i)
		}
	}
}

func TestAListIsMadeAndDeletedAgainButNeverWithoutNames(t *testing.T) {
	scheme := runtime.NewScheme()
	_, _ = clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)
	record := recordOf("case-1", nil)
	stray := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: listName((shardOf(userOf(record, engineer)) + 1) % shards)}, Rules: []rbacv1.PolicyRule{{
		APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"users"}, Verbs: []string{"impersonate:user-info"}, ResourceNames: []string{"supportaccess.dev:left"},
	}}}
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(record, stray).Build()
	u := &Users{Client: c, Clock: testingclock.NewFakePassiveClock(epoch)}
	look := func() []rbacv1.PolicyRule {
		t.Helper()
		if _, err := u.Reconcile(t.Context(), reconcile.Request{}); err != nil {
			t.Fatal(err)
		}
		var rules []rbacv1.PolicyRule
		for i := range shards {
			role := &rbacv1.ClusterRole{}
			err := c.Get(t.Context(), types.NamespacedName{Name: listName(i)}, role)
			if client.IgnoreNotFound(err) != nil {
				t.Fatal(err)
			}
			if apierrors.IsNotFound(err) {
				continue
			}
			if rules = append(rules, role.Rules...); len(role.Rules) == 0 {
				t.Errorf("ClusterRole %s is there, and of nobody", role.Name)
			}
		}
		return rules
	}
	rules := look()
	if len(rules) != 1 || !slices.Equal(rules[0].ResourceNames, []string{userOf(record, engineer)}) || !slices.Equal(rules[0].Verbs, []string{"impersonate:user-info"}) {
		t.Fatalf("while the grant is open the lists are %v", rules)
	}
	now := metav1.NewMicroTime(epoch)
	record.Status.EndTime = &now
	if err := c.Update(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	if rules := look(); len(rules) != 0 {
		t.Errorf("after the end the lists are %v: a rule without names would be of everybody", rules)
	}
}
