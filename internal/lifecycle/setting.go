package lifecycle

import (
	"time"

	"supportaccess.dev/operator/api/v1alpha1"
)

// On reports whether a setting is on at an instant. At the very instant of its end it is off.
func On(s *v1alpha1.SupportAccessSetting, now time.Time) bool {
	return s.DeletionTimestamp.IsZero() && s.Spec.EnabledUntil != nil && now.Before(s.Spec.EnabledUntil.Time)
}

// EndBySetting returns how a grant ends because of the setting that it names, nil if it does not: the setting is gone, or
// another, or it was changed since. A grant that names none does not end so. A setting that is older than the grant's
// reference was read too early, and says nothing.
func EndBySetting(ref *v1alpha1.SettingReference, s *v1alpha1.SupportAccessSetting, now time.Time) *End {
	switch {
	case ref == nil:
		return nil
	case s == nil || s.UID != ref.UID || !s.DeletionTimestamp.IsZero():
		return &End{Reason: v1alpha1.EndSettingDeleted, By: Unknown, Message: "the setting was deleted" + byUnknown}
	case s.Generation <= ref.Generation:
		return nil
	case On(s, now):
		return &End{Reason: v1alpha1.EndReplaced, By: orUnknown(s.Spec.SwitchedBy), Message: "the setting was changed: another grant takes the place of this one"}
	default:
		return &End{Reason: v1alpha1.EndSwitchedOff, By: orUnknown(s.Spec.SwitchedBy), Message: "support access was switched off"}
	}
}

func orUnknown(by string) string {
	if by == "" {
		return Unknown
	}
	return by
}
