package banner

import (
	"maps"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/records"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func record(namespace, name string, mods ...func(*v1alpha1.SupportAccessRecord)) v1alpha1.SupportAccessRecord {
	opened, until := metav1.NewMicroTime(noon), metav1.NewTime(noon.Add(time.Hour))
	r := v1alpha1.SupportAccessRecord{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.SupportAccessRecordSpec{
			Grant: v1alpha1.RecordedGrant{Namespace: namespace, Name: name}, GrantedBy: "tess", Engineers: []string{"ana", "ben"},
			Case: &v1alpha1.Case{ID: "CASE-1"}, Roles: []string{"support-access-configuration"},
		},
		Status: v1alpha1.SupportAccessRecordStatus{ProvisionedTime: &opened, ExpirationTime: &until},
	}
	for _, mod := range mods {
		mod(&r)
	}
	return r
}

func ended(r *v1alpha1.SupportAccessRecord) {
	end := metav1.NewMicroTime(noon)
	r.Status.EndTime = &end
}

func unopened(r *v1alpha1.SupportAccessRecord) { r.Status.ProvisionedTime = nil }

func withoutBen(r *v1alpha1.SupportAccessRecord) {
	r.Status.RemovedEngineers = []v1alpha1.RemovedEngineer{{Name: "ben"}}
}

func everywhereToo(r *v1alpha1.SupportAccessRecord) { r.Spec.Scope = &v1alpha1.Scope{Cluster: true} }

func withdrawn(r *v1alpha1.SupportAccessRecord) {
	r.Status.Bindings = []v1alpha1.RecordedBinding{{Namespace: "mail", Withdrawn: true}}
}

func ofSetting(r *v1alpha1.SupportAccessRecord) {
	r.Spec.Case, r.Spec.SettingRef = nil, &v1alpha1.SettingReference{UID: "s", Generation: 1}
}

func copied(r *v1alpha1.SupportAccessRecord) { r.Namespace = v1alpha1.SystemNamespace }

func aboutSetting(r *v1alpha1.SupportAccessRecord) {
	r.Spec.Grant, r.Spec.Setting = v1alpha1.RecordedGrant{}, &v1alpha1.RecordedSetting{Namespace: "mail"}
	r.Spec.Scope = &v1alpha1.Scope{Namespaces: []string{"mail"}}
}

func TestABannerSaysWhoMayComeInUntilWhenAndNothingWhereNobodyMay(t *testing.T) {
	later := metav1.NewTime(noon.Add(48 * time.Hour))
	for name, c := range map[string]struct {
		records []v1alpha1.SupportAccessRecord
		want    map[string]string
	}{
		"nothing":                        {nil, nil},
		"what has ended":                 {[]v1alpha1.SupportAccessRecord{record("mail", "a", ended)}, nil},
		"what has not opened":            {[]v1alpha1.SupportAccessRecord{record("mail", "a", unopened)}, nil},
		"what was taken away by hand":    {[]v1alpha1.SupportAccessRecord{record("mail", "a", withdrawn)}, nil},
		"what is open somewhere else":    {[]v1alpha1.SupportAccessRecord{record("web", "a")}, nil},
		"a copy of a grant's record":     {[]v1alpha1.SupportAccessRecord{record("mail", "a", copied)}, nil},
		"the record of a setting itself": {[]v1alpha1.SupportAccessRecord{record("mail", "a", aboutSetting)}, nil},
		"a grant": {[]v1alpha1.SupportAccessRecord{record("mail", "a", withoutBen)}, map[string]string{
			"text": "Support access to this namespace is open: ana until 2026-11-23 13:00 UTC for case CASE-1", "until": "2026-11-23T13:00:00Z", "engineers": "ana", "grant": "mail/a",
		}},
		"two grants, one of the whole cluster": {
			[]v1alpha1.SupportAccessRecord{record("web", "b", everywhereToo, func(r *v1alpha1.SupportAccessRecord) { r.Status.ExpirationTime = &later }), record("mail", "a", ofSetting)},
			map[string]string{
				"text":  "Support access to this namespace is open: ana, ben until 2026-11-23 13:00 UTC, switched on by tess; ana, ben until 2026-11-25 12:00 UTC for case CASE-1",
				"until": "2026-11-25T12:00:00Z", "engineers": "ana, ben", "grant": "mail/a, web/b",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := dataOf("mail", c.records); !maps.Equal(got, c.want) {
				t.Errorf("it says %q, want %q", got, c.want)
			}
		})
	}
}

func TestABannerStaysSmallHoweverManyMayComeIn(t *testing.T) {
	var records []v1alpha1.SupportAccessRecord
	for i := range 3000 {
		records = append(records, record("mail", strings.Repeat("x", 60)+string(rune('a'+i%26))+strings.Repeat("y", i%7)))
	}
	data := dataOf("mail", records)
	size := 0
	for _, value := range data {
		size += len(value)
	}
	if size > 64<<10 || !strings.Contains(data["text"], "; and 2968 more") {
		t.Errorf("it has %d bytes and ends with %q", size, data["text"][len(data["text"])-40:])
	}
}

func TestTheBannerComesGoesAndIsMended(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	open := record("mail", "a")
	api := fake.NewClientBuilder().WithScheme(scheme).WithObjects(&open).WithIndex(&v1alpha1.SupportAccessRecord{}, records.IndexPlaces, records.Places).Build()
	r := &Reconciler{Client: api}
	banner := &corev1.ConfigMap{}
	looks := func() error {
		t.Helper()
		if _, err := r.Reconcile(t.Context(), request("mail")); err != nil {
			t.Fatal(err)
		}
		*banner = corev1.ConfigMap{}
		return api.Get(t.Context(), client.ObjectKey{Namespace: "mail", Name: v1alpha1.BannerConfigMap}, banner)
	}
	if err := looks(); err != nil || banner.Data["grant"] != "mail/a" || banner.Labels[v1alpha1.LabelBanner] != "true" {
		t.Fatalf("%v: %v", banner, err)
	}
	banner.Data = map[string]string{"text": "nobody is here"}
	if err := api.Update(t.Context(), banner); err != nil {
		t.Fatal(err)
	}
	if err := looks(); err != nil || banner.Data["engineers"] != "ana, ben" {
		t.Fatalf("%v: %v", banner, err)
	}
	ended(&open)
	if err := api.Update(t.Context(), &open); err != nil {
		t.Fatal(err)
	}
	if err := looks(); client.IgnoreNotFound(err) != nil || err == nil {
		t.Fatalf("after the end it is there: %v", err)
	}
	for _, ours := range []string{v1alpha1.SystemNamespace, v1alpha1.CredentialsNamespace} {
		if _, err := r.Reconcile(t.Context(), request(ours)); err != nil {
			t.Error(err)
		}
	}
}
