package cli

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/test/gen"
)

func TestALengthIsHoursMinutesAndSeconds(t *testing.T) {
	for text, wrong := range map[string]string{
		"24h":      "",
		"1h30m":    "",
		"90m":      "",
		"45s":      "",
		"3d":       "--for: 3d: days and weeks are not units: write 72h",
		"1w":       "write 168h",
		"1d12h":    "write 36h",
		"1w1d1h5m": "write 193h5m",
		"":         `--for: "": write hours`,
		"24":       `--for: "24": write hours`,
		"1m1h":     "in this order",
		"1.5h":     "write hours",
		"-1h":      "write hours",
		"0h":       "must be longer than zero",
		"24h ":     "write hours",
	} {
		length, err := parseLength("--for", text)
		if wrong == "" && (err != nil || string(length) != text) {
			t.Errorf("%q: got %q, %v", text, length, err)
		}
		if wrong != "" && (err == nil || !strings.Contains(err.Error(), wrong) || length != "") {
			t.Errorf("%q: got %q, %v, want %q", text, length, err, wrong)
		}
	}
}

func TestAnInstantHasATimeZone(t *testing.T) {
	for text, want := range map[string]string{
		"2026-12-01T18:00:00Z":      "2026-12-01T18:00:00Z",
		"2026-12-01T18:00Z":         "2026-12-01T18:00:00Z",
		"2026-12-01 18:00Z":         "2026-12-01T18:00:00Z",
		"2026-12-01T18:00+01:00":    "2026-12-01T17:00:00Z",
		"2026-12-01 18:00:30-02:30": "2026-12-01T20:30:30Z",
		"2026-12-01T18:00:00.9Z":    "2026-12-01T18:00:00Z",
		"2026-12-01T18:00":          "names no time zone: write 2026-12-01T18:00Z for UTC",
		"2026-12-01 18:00:00":       "names no time zone",
		"2026-12-01":                "is no instant: write one such as",
		"tomorrow":                  "is no instant",
		"2026-13-01T18:00Z":         "is no instant",
		"":                          "is no instant",
	} {
		instant, err := parseInstant("--until", text)
		got := instant.Format(time.RFC3339)
		if err != nil {
			got = err.Error()
		}
		if got != want && (err == nil || !strings.Contains(got, want)) {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}

func TestWhatOthersWroteCannotMoveTheCursor(t *testing.T) {
	for text, want := range map[string]string{
		"plain words":         "plain words",
		"two\nlines":          "two lines",
		"\x1b[31mred\x1b[0m":  " [31mred [0m",
		"a\tb":                "a b",
		"turned \u202eround":  "turned  round",
		"ends with space  \n": "ends with space",
		"Grüße, 東京":           "Grüße, 東京",
	} {
		if got := clean(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestInstantsAreSaidInUTCAndFromNow(t *testing.T) {
	later, before := metav1.NewTime(gen.Epoch.Add(3*time.Hour)), metav1.NewTime(gen.Epoch.Add(-5*time.Minute))
	for want, got := range map[string]string{
		"in 3h":                ago(&later, gen.Epoch),
		"5m ago":               ago(&before, gen.Epoch),
		"0s ago":               ago(&later, later.Time),
		"-":                    ago(nil, gen.Epoch),
		"2026-12-01 12:00:00Z": utc(new(metav1.NewTime(later.In(time.FixedZone("east", 3600))))),
	} {
		if want != got {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := utc(nil); got != "-" {
		t.Errorf("no instant is said as %q", got)
	}
}
