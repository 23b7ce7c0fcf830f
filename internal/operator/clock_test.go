package operator

import (
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/events"
)

func TestClocksThatAreApartAreAWarningOnTheDeployment(t *testing.T) {
	recorder := events.NewFakeRecorder(4)
	tell := tellClock(recorder)
	tell(true, -5*time.Second)
	tell(false, 0)
	for _, want := range []string{"Warning ClockSkew The clock of the operator and the API server's are at least 5s apart", "Normal ClockInStep"} {
		select {
		case got := <-recorder.Events:
			if !strings.HasPrefix(got, want) {
				t.Errorf("the event is %q, want %q", got, want)
			}
		default:
			t.Errorf("there is no event %q", want)
		}
	}
}
