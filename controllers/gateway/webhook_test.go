package gateway

import (
	"bytes"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
)

func leadingTo(path string) admissionregistrationv1.WebhookClientConfig {
	return admissionregistrationv1.WebhookClientConfig{Service: &admissionregistrationv1.ServiceReference{Path: &path}}
}

func TestTheAPIServerIsToldTheCAOfTheWebhookAndToldAgainWhenSomebodyTakesItAway(t *testing.T) {
	c := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: ChangesSecret}},
		&admissionregistrationv1.ValidatingWebhookConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: ChangesWebhook}, Webhooks: []admissionregistrationv1.ValidatingWebhook{
				{Name: "changes.supportaccess.dev", ClientConfig: leadingTo("/changes")}, {Name: "acts.supportaccess.dev", ClientConfig: leadingTo("/acts/")},
			},
		},
	).Build()
	w := &Webhook{Client: c, Live: c, Clock: testingclock.NewFakeClock(epoch)}
	known := func() (configuration *admissionregistrationv1.ValidatingWebhookConfiguration, ca []byte) {
		t.Helper()
		if err := w.Keep(t.Context()); err != nil {
			t.Fatal(err)
		}
		configuration, secret := &admissionregistrationv1.ValidatingWebhookConfiguration{}, &corev1.Secret{}
		if err := c.Get(t.Context(), client.ObjectKey{Name: ChangesWebhook}, configuration); err != nil {
			t.Fatal(err)
		}
		if err := c.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: ChangesSecret}, secret); err != nil {
			t.Fatal(err)
		}
		return configuration, secret.Data[access.KeyCA]
	}
	configuration, ca := known()
	if len(ca) == 0 || !bytes.Equal(configuration.Webhooks[0].ClientConfig.CABundle, ca) {
		t.Fatalf("the API server is told %q, the CA is %q", configuration.Webhooks[0].ClientConfig.CABundle, ca)
	}
	secret := &corev1.Secret{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: ChangesSecret}, secret); err != nil {
		t.Fatal(err)
	}
	if path := *configuration.Webhooks[0].ClientConfig.Service.Path; path != "/changes" {
		t.Errorf("changes are asked about at %s", path)
	}
	if path := *configuration.Webhooks[1].ClientConfig.Service.Path; !access.IsPathOfActs(path, secret.Data[corev1.TLSPrivateKeyKey]) {
		t.Errorf("acts are told at %s, which the gateway does not know", path)
	}
	version := configuration.ResourceVersion
	if configuration, _ = known(); configuration.ResourceVersion != version {
		t.Error("what is right is written again")
	}
	configuration.Webhooks[0].ClientConfig.CABundle = nil
	if err := c.Update(t.Context(), configuration); err != nil {
		t.Fatal(err)
	}
	if configuration, ca = known(); !bytes.Equal(configuration.Webhooks[0].ClientConfig.CABundle, ca) {
		t.Error("what was taken away is not put back")
	}
}
