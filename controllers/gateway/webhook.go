package gateway

import (
	"context"
	"fmt"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
)

const (
	// ChangesWebhook is the ValidatingWebhookConfiguration by which the API server asks the gateway about changes.
	ChangesWebhook = "support-access-changes"
	// ChangesSecret is the Secret with the certificate for that, which the controller makes.
	ChangesSecret = "support-access-webhook-tls"
	// ChangesName is the name of the Service, and of the certificate.
	ChangesName = "support-access-webhook." + v1alpha1.SystemNamespace + ".svc"
	// checkEvery is how soon the configuration is looked at again: who applies it anew may leave out its CA.
	checkEvery = 30 * time.Second
)

// Webhook makes the certificate by which the API server knows the gateway where it asks about changes, and puts its CA
// where the API server looks for it, with the path that nobody else knows. Until it has, engineers change nothing.
type Webhook struct {
	// Client writes the configuration and the Secret.
	Client client.Client
	// Live reads them: they are in no cache.
	Live client.Reader
	// Clock says when to look again.
	Clock clock.Clock
}

// NeedLeaderElection says that one process alone does it.
func (w *Webhook) NeedLeaderElection() bool { return true }

// Start keeps both as they should be, until the context ends.
func (w *Webhook) Start(ctx context.Context) error {
	for {
		wait := checkEvery
		if err := w.Keep(ctx); err != nil {
			log.FromContext(ctx).Error(err, "The webhook of changes could not be set up")
			wait = lookAgain
		}
		timer := w.Clock.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C():
		}
	}
}

// Keep makes the certificate if there is none that is good for long enough, and has the configuration name its CA.
func (w *Webhook) Keep(ctx context.Context) error {
	certificate := &Certificate{Client: w.Client, Live: w.Live, Clock: w.Clock, Secret: ChangesSecret, ServerName: ChangesName}
	if err := certificate.Renew(ctx); err != nil {
		return err
	}
	secret := &corev1.Secret{}
	if err := w.Live.Get(ctx, client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: ChangesSecret}, secret); err != nil {
		return fmt.Errorf("get Secret %s: %w", ChangesSecret, err)
	}
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	if err := w.Live.Get(ctx, client.ObjectKey{Name: ChangesWebhook}, configuration); err != nil {
		return fmt.Errorf("get ValidatingWebhookConfiguration %s: %w", ChangesWebhook, err)
	}
	before := configuration.DeepCopy()
	for i := range configuration.Webhooks {
		to := &configuration.Webhooks[i].ClientConfig
		to.CABundle = secret.Data[access.KeyCA]
		if to.Service != nil && to.Service.Path != nil && strings.HasPrefix(*to.Service.Path, access.ActsPath) {
			to.Service.Path = new(access.PathOfActs(secret.Data[corev1.TLSPrivateKeyKey]))
		}
	}
	if equality.Semantic.DeepEqual(before, configuration) {
		return nil
	}
	if err := w.Client.Update(ctx, configuration); err != nil {
		return fmt.Errorf("name the CA and the path in ValidatingWebhookConfiguration %s: %w", ChangesWebhook, err)
	}
	log.FromContext(ctx).Info("The API server can ask the gateway about changes")
	return nil
}
