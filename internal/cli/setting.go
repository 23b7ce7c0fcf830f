package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/printers"

	"supportaccess.dev/operator/api/v1alpha1"
)

// enabledFor is how long support access is on where nobody says: the maxEnabled of a policy that names none.
const enabledFor = v1alpha1.Duration("720h")

// switching is the standing switch as somebody asks for it on a command line. What is left out stays as it is.
type switching struct {
	engineers, roles                    []string
	list, length, until, transport, why string
}

// errTwoLists says that people were named in two ways.
var errTwoLists = errors.New("--engineer, --engineer-list: name people, or a list of the policy's, not both")

// newSetting is the setting of a namespace that has none yet.
func newSetting(namespace string) *v1alpha1.SupportAccessSetting {
	return &v1alpha1.SupportAccessSetting{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "SupportAccessSetting"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: v1alpha1.SettingName},
	}
}

// apply has a setting be as the flags say. All that is wrong with them is said at once.
func (w switching) apply(s *v1alpha1.SupportAccessSetting, now time.Time, readFile func(string) ([]byte, error)) error {
	engineers, engineersErr := parseEngineers(w.engineers, readFile)
	transport, transportErr := parseTransport(w.transport)
	end, endErr := w.end(now)
	switch {
	case len(w.engineers) > 0 && w.list != "":
		engineersErr = errTwoLists
	case len(w.engineers) == 0 && w.list == "" && len(s.Spec.Engineers) == 0:
		engineersErr = errNoEngineer
	}
	if err := errors.Join(engineersErr, endErr, transportErr); err != nil {
		return err
	}
	if before := s.Spec.EnabledUntil; before != nil && w.until == "" && before.Time.Equal(end) {
		// Within the second in which it was switched on last: written again as it is, it would change nothing, and what was ended
		// since would stay ended. Later than this the policy may not allow.
		end = end.Add(-time.Second)
	}
	s.Spec.EnabledUntil = new(metav1.NewTime(end))
	switch {
	case len(engineers) > 0:
		s.Spec.Engineers, s.Spec.EngineerList = engineers, ""
	case w.list != "":
		// Who is on it the API server writes.
		s.Spec.Engineers, s.Spec.EngineerList = nil, w.list
	}
	if len(w.roles) > 0 {
		s.Spec.Roles = w.roles
	}
	if transport != "" {
		s.Spec.Transport = transport
	}
	if w.why != "" {
		s.Spec.Reason = w.why
	}
	return nil
}

// end is the instant until which support access is to be on.
func (w switching) end(now time.Time) (time.Time, error) {
	switch {
	case w.length != "" && w.until != "":
		return time.Time{}, fmt.Errorf("--for, --until: %w", errTwoEnds)
	case w.until != "":
		end, err := parseInstant("--until", w.until)
		if err == nil && !end.After(now) {
			err = fmt.Errorf("--until: %s has passed: to switch off, use disable", w.until)
		}
		return end, err
	}
	length, err := enabledFor, error(nil)
	if w.length != "" {
		length, err = parseLength("--for", w.length)
	}
	return now.Add(length.OrZero()).UTC().Truncate(time.Second), err
}

// settingState is a setting's state as far as the operator has seen what is written there, and what it says of it.
func settingState(s *v1alpha1.SupportAccessSetting) (state, message string) {
	ready := apimeta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil || ready.ObservedGeneration != s.Generation {
		return unseen, "the operator has not yet seen it"
	}
	return ready.Reason, clean(ready.Message)
}

// isEnabled reports whether nothing more comes of a setting that was switched on: it is on, or a person must act.
func isEnabled(s *v1alpha1.SupportAccessSetting) bool {
	state, _ := settingState(s)
	return slices.Contains([]string{v1alpha1.SettingOn, v1alpha1.SettingOff, v1alpha1.StateFailed}, state) || isFinal(state)
}

// isDisabled reports whether nothing of a setting that was switched off is open any more.
func isDisabled(s *v1alpha1.SupportAccessSetting) bool {
	state, _ := settingState(s)
	return state == v1alpha1.SettingOff
}

// printSetting writes the table of one setting.
func printSetting(w io.Writer, s *v1alpha1.SupportAccessSetting) error {
	state, _ := settingState(s)
	table := printers.GetNewTabWriter(w)
	line(table, "NAMESPACE", "STATUS", "ENGINEERS", "UNTIL", "SWITCHED-BY", "ROLES", "TRANSPORT", "GRANT", "REASON")
	line(table, s.Namespace, state, strings.Join(namesOfEngineers(s.Spec.Engineers), ","), utc(s.Spec.EnabledUntil), dash(s.Spec.SwitchedBy),
		dash(strings.Join(s.Spec.Roles, ",")), dash(string(s.Spec.Transport)), dash(s.Status.Grant), dash(s.Spec.Reason))
	return table.Flush()
}
