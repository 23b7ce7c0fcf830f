package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/world"
)

// changesWebhook is the configuration by which the API server asks about engineers' changes, and nobody else's.
const changesWebhook = "config/changes/webhook.yaml"

// writers is how many of somebody else write at once, where they are many.
const writers = 16

// everybodyElse measures what the match conditions of the webhook for changes cost those whose changes it is not about: how
// long a write takes with the configuration there, beside how long it takes without.
func (b *bench) everybodyElse(ctx context.Context, o options) error {
	configuration, err := readWebhook()
	if err != nil {
		return err
	}
	for i := range writers {
		written := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: fmt.Sprintf("written-%d", i)}}
		if err := b.bare.Create(ctx, written); err != nil {
			return fmt.Errorf("create a ConfigMap: %w", err)
		}
	}
	for _, at := range []int{1, writers} {
		with, without, err := b.inTurn(ctx, configuration, at, o.rounds*10)
		if err != nil {
			return err
		}
		compare(fmt.Sprintf("somebody else's update, %d at once, webhook there", at), with, without, "no bar: published")
		say("%-46s %.3fms more at the median, %.3fms at the 99th of a hundred", "  difference",
			milliseconds(with.at(0.5)-without.at(0.5)), milliseconds(with.at(0.99)-without.at(0.99)))
	}
	return nil
}

// inTurn has so many write so often, in turn with the configuration and without it.
func (b *bench) inTurn(ctx context.Context, configuration *admissionregistrationv1.ValidatingWebhookConfiguration, at, times int) (with, without sample, err error) {
	for range turns {
		for there, took := range map[bool]*sample{false: &without, true: &with} {
			if err := b.setWebhook(ctx, configuration, there); err != nil {
				return nil, nil, err
			}
			more, err := b.write(ctx, at, times)
			if err != nil {
				return nil, nil, err
			}
			*took = append(*took, more...)
		}
	}
	return with, without, nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// readWebhook reads the configuration as it is installed.
func readWebhook() (*admissionregistrationv1.ValidatingWebhookConfiguration, error) {
	content, err := os.ReadFile(changesWebhook)
	if err != nil {
		return nil, fmt.Errorf("read the webhook: %w", err)
	}
	first, _, _ := strings.Cut(string(content), "\n---\n")
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	if err := yaml.Unmarshal([]byte(first), configuration); err != nil {
		return nil, fmt.Errorf("read %s: %w", changesWebhook, err)
	}
	return configuration, nil
}

// setWebhook makes the configuration or takes it away, and waits until the API server acts on that: an engineer's write
// asks a gateway that is not there, and fails.
func (b *bench) setWebhook(ctx context.Context, configuration *admissionregistrationv1.ValidatingWebhookConfiguration, there bool) error { //nolint:revive // There or not is what is measured.
	var err error
	if there {
		err = client.IgnoreAlreadyExists(b.admin.Create(ctx, configuration.DeepCopy()))
	} else {
		err = client.IgnoreNotFound(b.admin.Delete(ctx, configuration.DeepCopy()))
	}
	if err != nil {
		return fmt.Errorf("set ValidatingWebhookConfiguration %s: %w", configuration.Name, err)
	}
	config := rest.CopyConfig(b.cp.AdminConfig())
	config.Impersonate = rest.ImpersonationConfig{UserName: v1alpha1.IdentityPrefix + "ana@vendor.example", Groups: []string{"system:masters"}}
	engineer, err := client.New(config, client.Options{Scheme: world.Scheme(), Mapper: b.admin.RESTMapper()})
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	return b.until(ctx, fmt.Sprintf("the webhook is there: %t", there), func(ctx context.Context) (bool, error) {
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: "written-0"}}
		err := engineer.Patch(ctx, object, client.RawPatch("application/merge-patch+json", []byte(`{"data":{"by":"engineer"}}`)), client.DryRunAll)
		asked := err != nil && strings.Contains(err.Error(), "failed calling webhook")
		if err != nil && !asked {
			return false, fmt.Errorf("write as an engineer: %w", err)
		}
		return asked == there, nil
	})
}

// write has so many write at once, each one object of its own, and returns how long each write took.
func (b *bench) write(ctx context.Context, at, times int) (sample, error) {
	took := make(sample, at*times)
	err := each(ctx, at, func(ctx context.Context, i int) error {
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: fmt.Sprintf("written-%d", i)}}
		for n := range times {
			object.ResourceVersion = ""
			object.Data = map[string]string{"n": strconv.Itoa(n), "at": time.Now().String()}
			began := time.Now()
			if err := b.bare.Update(ctx, object); err != nil {
				return fmt.Errorf("update ConfigMap %s: %w", object.Name, err)
			}
			took[i*times+n] = time.Since(began)
		}
		return nil
	})
	return took, err
}
