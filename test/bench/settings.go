package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// switchOffAtOnce measures how long it takes, when the settings of many namespaces are switched off at once, until their
// bindings are gone, beside a bare client that writes and deletes as much.
func (b *bench) switchOffAtOnce(ctx context.Context, o options) error {
	say("\n%d settings that are switched off at once", o.storm)
	if err := each(ctx, o.storm, func(ctx context.Context, i int) error { return b.switchOn(ctx, i) }); err != nil {
		return err
	}
	if err := b.untilAll(ctx, fmt.Sprintf("%d settings are on", o.storm), func(ctx context.Context) (int, error) { return b.settingsLeft(ctx, o.storm, v1alpha1.SettingOn) }); err != nil {
		return err
	}
	bare, err := b.switchBareOff(ctx, o.storm)
	if err != nil {
		return err
	}
	gone, err := b.watchDeletions(ctx, o.storm*len(roles), v1alpha1.LabelManaged, ofSettings)
	if err != nil {
		return err
	}
	off := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"enabledUntil":null}}`))
	started := time.Now()
	if err := each(ctx, o.storm, func(ctx context.Context, i int) error { return b.admin.Patch(ctx, settingOf(i), off) }); err != nil {
		return fmt.Errorf("switch off: %w", err)
	}
	say("  switched off in %s", time.Since(started).Round(time.Millisecond))
	late, err := gone(started)
	if err != nil {
		return err
	}
	if err := b.untilAll(ctx, "the settings are off", func(ctx context.Context) (int, error) { return b.settingsLeft(ctx, o.storm, v1alpha1.SettingOff) }); err != nil {
		return err
	}
	say("  all off, and on record, %s after the first", time.Since(started).Round(time.Millisecond))
	compare("50% of the bindings gone", sample{late.at(0.5)}, sample{bare.at(0.5)}, "no bar")
	compare("99% of the bindings gone", sample{late.at(0.99)}, sample{bare.at(0.99)}, "no bar")
	compare("all bindings gone", sample{late.at(1)}, sample{bare.at(1)}, "no bar")
	return nil
}

const settingPrefix = "bench-setting-"

func settingNamespace(i int) string { return fmt.Sprintf("%s%d", settingPrefix, i) }

func settingOf(i int) *v1alpha1.SupportAccessSetting {
	return &v1alpha1.SupportAccessSetting{ObjectMeta: metav1.ObjectMeta{Namespace: settingNamespace(i), Name: v1alpha1.SettingName}}
}

// switchOn makes a namespace and switches it on.
func (b *bench) switchOn(ctx context.Context, i int) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: settingNamespace(i), Labels: map[string]string{v1alpha1.LabelPolicy: tenant}}}
	if err := b.admin.Create(ctx, namespace); err != nil {
		return fmt.Errorf("make a namespace: %w", err)
	}
	s := settingOf(i)
	until := metav1.NewTime(time.Now().Add(100 * time.Hour).Truncate(time.Second))
	s.Spec.EnabledUntil, s.Spec.Engineers = &until, []v1alpha1.Engineer{{Name: "ana@vendor.example"}}
	return b.until(ctx, "namespace "+namespace.Name+" is switched on", func(ctx context.Context) (bool, error) {
		// Admission may not yet know the namespace.
		return b.admin.Create(ctx, s) == nil, nil
	})
}

// settingsLeft counts the settings that are not in a state.
func (b *bench) settingsLeft(ctx context.Context, n int, state string) (int, error) {
	settings := &v1alpha1.SupportAccessSettingList{}
	for next := true; next; next = settings.Continue != "" {
		if err := b.admin.List(ctx, settings, client.Limit(500), client.Continue(settings.Continue)); err != nil {
			return 0, fmt.Errorf("list settings: %w", err)
		}
		for i := range settings.Items {
			ready := meta.FindStatusCondition(settings.Items[i].Status.Conditions, v1alpha1.ConditionReady)
			if ready != nil && ready.Reason == state && strings.HasPrefix(settings.Items[i].Namespace, settingPrefix) {
				n--
			}
		}
	}
	return n, nil
}

// bareLabel marks the bindings of the bare client.
const bareLabel = "bench.example/bare"

// switchBareOff makes as many bindings, and writes a ConfigMap and deletes the bindings beside it for each, with the
// operator's concurrency. It says when each binding was gone.
func (b *bench) switchBareOff(ctx context.Context, n int) (sample, error) {
	binding := func(i, role int) *rbacv1.RoleBinding {
		o := bareBinding(fmt.Sprintf("bare-%d", i), roles[role])
		o.Namespace, o.Labels = settingNamespace(i), map[string]string{bareLabel: "true"}
		return o
	}
	flip := func(i int) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: settingNamespace(i), Name: "bare"}}
	}
	err := each(ctx, n, func(ctx context.Context, i int) error {
		errs := []error{b.bare.Create(ctx, flip(i))}
		for role := range roles {
			errs = append(errs, b.bare.Create(ctx, binding(i, role)))
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return nil, fmt.Errorf("create bindings: %w", err)
	}
	gone, err := b.watchDeletions(ctx, n*len(roles), bareLabel, ofSettings)
	if err != nil {
		return nil, err
	}
	off, started := client.RawPatch(types.MergePatchType, []byte(`{"data":{"off":"true"}}`)), time.Now()
	err = each(ctx, n, func(ctx context.Context, i int) error {
		errs := []error{b.bare.Patch(ctx, flip(i), off)}
		for role := range roles {
			errs = append(errs, b.bare.Delete(ctx, binding(i, role)))
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return nil, fmt.Errorf("delete bindings: %w", err)
	}
	return gone(started)
}

// ofSettings tells the bindings of the settings' namespaces.
func ofSettings(o *rbacv1.RoleBinding) bool { return strings.HasPrefix(o.Namespace, settingPrefix) }
