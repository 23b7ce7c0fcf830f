package admission

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// raw attempts a grant whose spec ends in this line, which our types need not be able to say.
func raw(t *testing.T, line string) error {
	t.Helper()
	g := &unstructured.Unstructured{}
	manifest := `
apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessGrant
metadata: {name: raw, namespace: mail}
spec:
  reason: the connector cannot reach the server
  engineers: [{name: ana@vendor.example}]
  ` + line
	if err := yaml.Unmarshal([]byte(manifest), &g.Object); err != nil {
		t.Fatal(err)
	}
	return w.ana.Create(t.Context(), g, client.DryRunAll)
}

func TestDurationsThatGoCannotReadAreRefusedWithWhatToWrite(t *testing.T) {
	for written, says := range map[string]string{
		"3d": "days and weeks are not units: for 3 days write 72h", "1w": "days and weeks are not units", "3 days": "for 3 days write 72h",
		"-1h": "write hours, minutes and seconds", "garbage 3d": "write hours, minutes and seconds",
		"1h1h": "write hours, minutes and seconds", "1.5h": "write hours, minutes and seconds", "1m1h": "write hours, minutes and seconds",
		"0h": "must be longer than zero", "0h0m": "must be longer than zero",
	} {
		invalid(t, raw(t, `duration: "`+written+`"`), says)
	}
	for _, written := range []string{"24h", "1h30m", "90m", "3600s"} {
		taken(t, raw(t, `duration: "`+written+`"`))
	}
}

func TestInstantsThatGoCannotReadAreRefused(t *testing.T) {
	for _, written := range []string{
		"2026-12-01t18:00:00Z", "2026-12-01T18:00:00z", "2026-12-01 18:00:00Z", "2026-12-01T18:00:00", "2026-12-01",
		"2026-02-30T00:00:00Z", "2026-13-01T00:00:00Z", "2026-12-01T24:00:00Z", "2026-12-01T18:00:60Z", "2026-12-01T18:00:00+25:00",
		"0000-01-01T00:00:00Z", "tomorrow",
	} {
		invalid(t, raw(t, `expirationTime: "`+written+`"`), "spec.expirationTime")
		invalid(t, raw(t, "duration: 24h\n  startTime: \""+written+`"`), "spec.startTime")
	}
	taken(t, raw(t, `expirationTime: "`+inAnHour()+`"`))
}

func TestAPatternThatIsNoRegularExpressionIsRefusedWhenThePolicyIsWritten(t *testing.T) {
	for _, bad := range []string{"[", "(?=x)", `\`, "a{2,1}"} {
		p := policyNamed("bad-pattern")
		p.Spec.CasePattern = bad
		invalid(t, w.root.try(t, p), "spec.casePattern: Invalid value")
		p = policyNamed("bad-pattern")
		p.Spec.EngineerPattern = bad
		invalid(t, w.root.try(t, p), "spec.engineerPattern: Invalid value")
	}
	p := policyNamed("good-pattern")
	p.Spec.CasePattern, p.Spec.EngineerPattern = `^CASE-[0-9]+$`, `@vendor\.example$`
	taken(t, w.root.try(t, p))
}

func TestAGrantsNameIsADNSLabel(t *testing.T) {
	long := strings.Repeat("x", 63)
	taken(t, w.ana.try(t, grant(mail, long)))
	for _, name := range []string{long + "x", "case.1"} {
		invalid(t, w.ana.try(t, grant(mail, name)), "metadata.name: must be a DNS label")
	}
}

func TestAGeneratedNameIsStampedAndLimitedLikeAnother(t *testing.T) {
	g := grant(mail, "")
	g.GenerateName = "case-"
	taken(t, w.ana.try(t, g))
	g.Spec.Duration = "200h"
	refused(t, w.ana.try(t, g), limits, "spec.duration: 200h exceeds 168h, the limit of policy default")
	g.Spec.GrantedBy, g.Spec.Duration = "bob", "24h"
	refused(t, w.ana.try(t, g), "support-access-grant-stamp", `spec.grantedBy: "bob" is not who makes this grant`)
}
