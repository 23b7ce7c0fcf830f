package setting

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/internal/records"
)

// standing is how a namespace's setting is: the object, nil where there is none, and whether its stamp is proven.
type standing struct {
	setting *v1alpha1.SupportAccessSetting
	proven  bool
}

// newRecord renders the record of a namespace's setting.
func newRecord(namespace string) *v1alpha1.SupportAccessRecord {
	return &v1alpha1.SupportAccessRecord{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: v1alpha1.SettingRecordName, Labels: map[string]string{v1alpha1.LabelManaged: "true"},
		},
		Spec: v1alpha1.SupportAccessRecordSpec{Setting: &v1alpha1.RecordedSetting{Namespace: namespace}},
	}
}

// note puts on record, in place, what happened to a setting since the record was written, and how it stands now. What was
// written twice since is seen once, as it is now.
func note(record *v1alpha1.SupportAccessRecord, at standing, now time.Time) {
	before := record.Status.Setting
	if before != nil && (at.setting == nil || at.setting.UID != before.UID) {
		add(record, now, v1alpha1.Transition{Type: v1alpha1.EndSettingDeleted, By: lifecycle.Unknown, Message: "the setting was deleted, by whom unknown; see the API server's audit log"})
		before = nil
	}
	if at.setting == nil {
		record.Status.Setting = nil
		return
	}
	// That a setting was to be made by default is on record before it is.
	announced := before == nil && record.Status.EnabledByDefault != nil && len(record.Status.Transitions) == 1 && at.setting.Generation == 1
	if happened := happenedTo(before, at, now); happened.Type != "" && !announced {
		add(record, now, happened)
	}
	record.Status.Setting = switchOf(at.setting, now)
}

// happenedTo says what happened to a setting since it was as before, nil for one that was not there. Without a type nothing
// did that changes who may come in.
func happenedTo(before *v1alpha1.RecordedSwitch, at standing, now time.Time) v1alpha1.Transition {
	wasOn, isOn := before != nil && before.EnabledUntil != nil, lifecycle.On(at.setting, now)
	changed := before == nil || before.Generation != at.setting.Generation
	switch {
	case changed && isOn && wasOn:
		return at.by(v1alpha1.TransitionSettingChanged, saysOn(at.setting))
	case changed && isOn:
		return at.by(v1alpha1.TransitionSwitchedOn, saysOn(at.setting))
	case changed && wasOn:
		return at.by(v1alpha1.EndSwitchedOff, "support access was switched off")
	case wasOn && !isOn:
		return v1alpha1.Transition{
			Type: v1alpha1.EndExpired, By: lifecycle.Operator, Message: "its time was over at " + before.EnabledUntil.UTC().Format(time.RFC3339),
		}
	default:
		return v1alpha1.Transition{}
	}
}

// by says who switched; what is not proven is said to be so.
func (at standing) by(kind, message string) v1alpha1.Transition {
	by := at.setting.Spec.SwitchedBy
	switch {
	case by == "":
		by = lifecycle.Unknown
	case !at.proven:
		by, message = lifecycle.Unknown, fmt.Sprintf("%s; it says by %s, which is not proven", message, by)
	}
	return v1alpha1.Transition{Type: kind, By: by, Message: message}
}

// saysOn says what a setting that is on gives.
func saysOn(s *v1alpha1.SupportAccessSetting) string {
	var names []string
	for _, e := range s.Spec.Engineers {
		names = append(names, e.Name)
	}
	return fmt.Sprintf("%s may do what %s allow until %s: %s", strings.Join(names, ", "), strings.Join(s.Spec.Roles, ", "),
		s.Spec.EnabledUntil.UTC().Format(time.RFC3339), s.Spec.Reason)
}

// switchOf is how a setting stands.
func switchOf(s *v1alpha1.SupportAccessSetting, now time.Time) *v1alpha1.RecordedSwitch {
	seen := &v1alpha1.RecordedSwitch{UID: s.UID, Generation: s.Generation}
	if lifecycle.On(s, now) {
		seen.EnabledUntil = s.Spec.EnabledUntil.DeepCopy()
	}
	return seen
}

// add appends a transition.
func add(record *v1alpha1.SupportAccessRecord, now time.Time, t v1alpha1.Transition) {
	t.Time = metav1.NewMicroTime(now)
	records.Add(record, t)
}

// keep writes what is to be on record of a namespace's setting, before anything is made because of it. In a namespace that
// goes nothing is opened any more, and nothing is kept.
func (r *Reconciler) keep(ctx context.Context, namespace string, at standing, now time.Time) error {
	record, err := recordOfSetting(ctx, r.Client, namespace)
	if err != nil || record == nil && at.setting == nil {
		return err
	}
	fresh := record == nil
	if fresh {
		record = newRecord(namespace)
	}
	noted := record.DeepCopy()
	note(noted, at, now)
	if !fresh && equality.Semantic.DeepEqual(record.Status, noted.Status) {
		return nil
	}
	records.Fit(noted)
	if fresh {
		err = r.Client.Create(ctx, noted)
	} else {
		err = r.Client.Update(ctx, noted)
	}
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) || apierrors.IsNotFound(err) {
		return nil
	}
	if apierrors.IsAlreadyExists(err) {
		return apierrors.NewConflict(v1alpha1.GroupVersion.WithResource("supportaccessrecords").GroupResource(), noted.Name, err)
	}
	if err != nil {
		return fmt.Errorf("put the setting of %q on record: %w", namespace, err)
	}
	return nil
}

// recordOfSetting reads the record of a namespace's setting, nil if there is none.
func recordOfSetting(ctx context.Context, reader client.Reader, namespace string) (*v1alpha1.SupportAccessRecord, error) {
	record := &v1alpha1.SupportAccessRecord{}
	err := reader.Get(ctx, types.NamespacedName{Namespace: namespace, Name: v1alpha1.SettingRecordName}, record)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get the record of the setting of %q: %w", namespace, err)
	}
	return record, nil
}
