package cli

import (
	"errors"
	"testing"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
)

func TestEachStateHasAnExitCode(t *testing.T) {
	const failed = -1
	for state, want := range map[string]struct {
		status  int
		settled bool
		waited  int
	}{
		v1alpha1.StateActive:           {exitOK, true, exitOK},
		v1alpha1.StateClosing:          {exitOK, false, exitOK},
		v1alpha1.StateScheduled:        {exitNotOpen, true, exitOK},
		v1alpha1.StateAwaitingApproval: {exitNotOpen, true, exitOK},
		v1alpha1.StateOpening:          {exitNotOpen, false, exitOK},
		v1alpha1.StateFailed:           {exitNotOpen, true, failed},
		v1alpha1.StateExpired:          {exitEnded, true, exitEnded},
		v1alpha1.StateRevoked:          {exitEnded, true, exitEnded},
		v1alpha1.StateDenied:           {exitEnded, true, exitEnded},
		v1alpha1.StateRefused:          {exitEnded, true, exitEnded},
	} {
		grant := gen.Grant("a", gen.Namespace, inState(state))
		if got := exitOf(grant); got != want.status {
			t.Errorf("%s: status ends with %d, want %d", state, got, want.status)
		}
		if got := isSettled(grant); got != want.settled {
			t.Errorf("%s: settled is %t, want %t", state, got, want.settled)
		}
		if got := codeOf(cameOf(grant)); got != want.waited {
			t.Errorf("%s: grant --wait ends with %d, want %d", state, got, want.waited)
		}
	}
	unheard := gen.Grant("a", gen.Namespace)
	if stateOf(unheard) != unseen || isSettled(unheard) || exitOf(unheard) != exitNotOpen {
		t.Errorf("a grant that nobody has seen is %s, settled %t, %d", stateOf(unheard), isSettled(unheard), exitOf(unheard))
	}
}

// codeOf is the exit code of an error, -1 for one that has none of its own.
func codeOf(err error) int {
	coded := (*exitError)(nil)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &coded):
		return coded.code
	default:
		return -1
	}
}
