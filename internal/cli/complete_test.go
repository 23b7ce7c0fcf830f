package cli

import (
	"strings"
	"testing"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
)

func TestWhatMayComeNextIsOffered(t *testing.T) {
	grants := []v1alpha1.SupportAccessGrant{
		*gen.Grant("a", gen.Namespace, gen.WithEngineers("ana", "ben")), *gen.Grant("b", gen.Namespace, gen.WithEngineers("cleo")),
	}
	for line, want := range map[string]string{
		"status": "a b", "status a": "", "shorten": "a b", "shorten a": "", "revoke": "a b", "revoke a": "b", "revoke b a": "",
		"handover": "a b", "handover a": "ana ben", "handover b": "cleo", "handover c": "", "handover a ana": "",
	} {
		words := strings.Fields(line)
		if got := strings.Join(offers(words[0], words[1:], grants), " "); got != want {
			t.Errorf("after %q come %q, want %q", line, got, want)
		}
	}
}
