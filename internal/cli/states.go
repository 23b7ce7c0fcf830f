package cli

import (
	"slices"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
)

// unseen is shown for a grant that the operator has not yet seen.
const unseen = "Pending"

// stateOf is a grant's state: the reason of its condition Ready.
func stateOf(grant *v1alpha1.SupportAccessGrant) string {
	if c := apimeta.FindStatusCondition(grant.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		return c.Reason
	}
	return unseen
}

// saidOf is what the operator says of a grant's state.
func saidOf(grant *v1alpha1.SupportAccessGrant) string {
	if c := apimeta.FindStatusCondition(grant.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		return clean(c.Message)
	}
	return "the operator has not yet seen it"
}

// isFinal reports whether a state is the last one of a grant.
func isFinal(state string) bool {
	return slices.Contains([]string{v1alpha1.StateExpired, v1alpha1.StateRevoked, v1alpha1.StateDenied, v1alpha1.StateRefused}, state)
}

// hasEnded reports whether a grant gives nothing any more, and never will again.
func hasEnded(grant *v1alpha1.SupportAccessGrant) bool { return isFinal(stateOf(grant)) }

// isActive reports whether access exists.
func isActive(grant *v1alpha1.SupportAccessGrant) bool {
	return apimeta.IsStatusConditionTrue(grant.Status.Conditions, v1alpha1.ConditionActive)
}

// isStalled reports whether a person must act before anything changes.
func isStalled(grant *v1alpha1.SupportAccessGrant) bool {
	return apimeta.IsStatusConditionTrue(grant.Status.Conditions, v1alpha1.ConditionStalled)
}

// exitOf is what a grant's state comes to for a script.
func exitOf(grant *v1alpha1.SupportAccessGrant) int {
	switch {
	case hasEnded(grant):
		return exitEnded
	case isActive(grant):
		return exitOK
	default:
		return exitNotOpen
	}
}

// namesOf are the engineers whom a grant names.
func namesOf(grant *v1alpha1.SupportAccessGrant) []string {
	return namesOfEngineers(grant.Spec.Engineers)
}

func namesOfEngineers(engineers []v1alpha1.Engineer) []string {
	names := make([]string, 0, len(engineers))
	for _, engineer := range engineers {
		names = append(names, engineer.Name)
	}
	return names
}

// credentialOf is where an engineer's credential is, nil for none.
func credentialOf(grant *v1alpha1.SupportAccessGrant, engineer string) *v1alpha1.EngineerStatus {
	for i := range grant.Status.Engineers {
		if grant.Status.Engineers[i].Name == engineer {
			return &grant.Status.Engineers[i]
		}
	}
	return nil
}

// endOf is when a grant ended, or ends unless it is ended earlier; nil where that is not yet known.
func endOf(grant *v1alpha1.SupportAccessGrant) *metav1.Time {
	if grant.Status.EndTime != nil {
		return grant.Status.EndTime
	}
	if grant.Status.ExpirationTime != nil {
		return grant.Status.ExpirationTime
	}
	return grant.Spec.ExpirationTime
}
