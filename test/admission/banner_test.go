package admission

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

func bannerIn(namespace string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: v1alpha1.BannerConfigMap}, Data: map[string]string{"text": "open"}}
}

func TestTheBannerIsWrittenByTheOperatorAlone(t *testing.T) {
	const policy = "support-access-banner"
	says := func(operation string, who *person) string {
		return "configmaps support-access-banner: " + operation + " by " + who.name + ": it says who has support access, and the operator alone writes it"
	}
	people := []*person{w.root, w.engineer, w.gateway}
	for _, who := range people {
		refused(t, who.try(t, bannerIn(mail)), policy, says("CREATE", who))
		another := bannerIn(mail)
		another.Name = "another-banner"
		taken(t, who.try(t, another))
	}
	shown := bannerIn(mail)
	w.controller.make(t, shown)
	for _, who := range append(people, w.as(t, controllerManager)) {
		for _, patch := range []string{
			`{"data":{"text":"call this number"}}`, `{"data":null}`, `{"binaryData":{"b":"Yg=="}}`, `{"immutable":true}`, `{"metadata":{"finalizers":["a.example/b"]}}`,
		} {
			refused(t, who.merge(t, shown, patch, client.DryRunAll), policy, says("UPDATE", who))
		}
		taken(t, who.merge(t, shown, `{"metadata":{"labels":{"a":"b"}}}`, client.DryRunAll))
	}
	taken(t, w.root.Delete(t.Context(), shown.DeepCopy(), client.DryRunAll))
	taken(t, w.controller.merge(t, shown, `{"data":{"text":"changed"}}`, client.DryRunAll))
	taken(t, w.controller.Delete(t.Context(), shown.DeepCopy(), client.DryRunAll))
}

func TestTheOperatorWritesNoConfigMapOfAProducts(t *testing.T) {
	const policy = "support-access-banner"
	says := func(operation string) string {
		return "configmaps: " + operation + " in " + mail + ": the operator writes no ConfigMap but support-access-banner"
	}
	settings := bannerIn(mail)
	settings.Name = "settings"
	refused(t, w.controller.try(t, settings.DeepCopy()), policy, says("CREATE"))
	if err := w.root.Create(t.Context(), settings); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.root.Delete(context.Background(), settings); err != nil {
			t.Error(err)
		}
	})
	refused(t, w.controller.merge(t, settings, `{"data":{"text":"changed"}}`, client.DryRunAll), policy, says("UPDATE"))
	refused(t, w.controller.Delete(t.Context(), settings.DeepCopy(), client.DryRunAll), policy, says("DELETE"))
	own := settings.DeepCopy()
	own.Namespace, own.ResourceVersion, own.UID = v1alpha1.SystemNamespace, "", ""
	taken(t, w.controller.try(t, own))
}
