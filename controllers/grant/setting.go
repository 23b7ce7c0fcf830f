package grant

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/lifecycle"
)

// glanceAtSetting notes of the cache that the setting was changed since it made the grant: a later generation is never
// taken back. That it is gone the API server is asked first, in seeSetting.
func (r *Reconciler) glanceAtSetting(ctx context.Context, s *sight) error {
	if s.ended() {
		return nil
	}
	if err := r.seeSetting(ctx, r.Client, s); err != nil {
		return err
	}
	if s.world.Switched != nil && s.world.Switched.Reason == v1alpha1.EndSettingDeleted {
		s.world.Switched = nil
	}
	return nil
}

// seeSetting notes whether the setting because of which the grant was made still is as it was.
func (r *Reconciler) seeSetting(ctx context.Context, reader client.Reader, s *sight) error {
	s.world.Switched = nil
	ref := s.settingRef()
	if ref == nil {
		return nil
	}
	setting, err := settingIn(ctx, reader, s.key.Namespace)
	if err != nil {
		return err
	}
	s.world.Switched = lifecycle.EndBySetting(ref, setting, s.now)
	return nil
}

// settingRef is the setting because of which the grant was made, nil where somebody made it.
func (s *sight) settingRef() *v1alpha1.SettingReference {
	if s.grant == nil {
		return nil
	}
	return s.grant.Spec.SettingRef
}

// settingIn reads the setting of a namespace, nil if there is none.
func settingIn(ctx context.Context, reader client.Reader, namespace string) (*v1alpha1.SupportAccessSetting, error) {
	setting := &v1alpha1.SupportAccessSetting{}
	err := reader.Get(ctx, types.NamespacedName{Namespace: namespace, Name: v1alpha1.SettingName}, setting)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get the setting of %q: %w", namespace, err)
	}
	return setting, nil
}

// grantsOfSetting maps a setting to the grants of its namespace that were made because of one and have not ended.
func (r *Reconciler) grantsOfSetting(ctx context.Context, o client.Object) []types.NamespacedName {
	grants := &v1alpha1.SupportAccessGrantList{}
	if err := r.Client.List(ctx, grants, client.InNamespace(o.GetNamespace()), client.UnsafeDisableDeepCopy); err != nil {
		return nil
	}
	var keys []types.NamespacedName
	for i := range grants.Items {
		if g := &grants.Items[i]; g.Spec.SettingRef != nil && g.Status.EndTime == nil {
			keys = append(keys, client.ObjectKeyFromObject(g))
		}
	}
	return keys
}
