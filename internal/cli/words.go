package cli

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"supportaccess.dev/operator/api/v1alpha1"
)

var (
	// lengths is what the API takes for a duration; with the two units that it does not take before it.
	lengths = regexp.MustCompile(`^(?:([0-9]{1,4})w)?(?:([0-9]{1,4})d)?([0-9]{1,5}h)?([0-9]{1,6}m)?([0-9]{1,8}s)?$`)
	// localTime is an instant without a zone.
	localTime = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?$`)
)

// parseLength reads a duration as the API takes it. Days and weeks are answered with the hours to write.
func parseLength(flag, text string) (v1alpha1.Duration, error) {
	parts := lengths.FindStringSubmatch(text)
	if text == "" || parts == nil {
		return "", fmt.Errorf("%s: %q: write hours, minutes and seconds, in this order, such as 24h, 90m or 1h30m", flag, text)
	}
	if parts[1] != "" || parts[2] != "" {
		weeks, _ := strconv.Atoi(parts[1])
		days, _ := strconv.Atoi(parts[2])
		rest, err := v1alpha1.Duration(parts[3] + parts[4] + parts[5]).Parse()
		if err != nil {
			return "", fmt.Errorf("%s: %w", flag, err)
		}
		hours := rest + time.Duration(weeks*7*24+days*24)*time.Hour
		return "", fmt.Errorf("%s: %s: days and weeks are not units: write %s", flag, text, lengthOf(hours))
	}
	length := v1alpha1.Duration(text)
	if length.OrZero() <= 0 {
		return "", fmt.Errorf("%s: %s: must be longer than zero", flag, text)
	}
	return length, nil
}

// lengthOf writes a duration as the API takes it: 72h, not 72h0m0s.
func lengthOf(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// parseInstant reads an instant, whose seconds may be left out and whose zone may not: a wrong guess would be hours off.
func parseInstant(flag, text string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z07:00", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04Z07:00"} {
		if instant, err := time.Parse(layout, text); err == nil {
			return instant.UTC().Truncate(time.Second), nil
		}
	}
	if localTime.MatchString(text) {
		return time.Time{}, fmt.Errorf("%s: %s names no time zone: write %sZ for UTC, or an offset such as %s+01:00", flag, text, text, text)
	}
	return time.Time{}, fmt.Errorf("%s: %q is no instant: write one such as 2026-12-01T18:00Z", flag, text)
}

// errTwoEnds and errNoEnd say what a pair of flags for an end must be.
var (
	errTwoEnds = errors.New("give one of them, not both")
	errNoEnd   = errors.New("give one of them")
)

// clean makes text that others wrote fit for a terminal: one line, nothing that moves the cursor or turns the text around.
func clean(text string) string {
	return strings.TrimRight(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text), " ")
}

// span says how long something is, as kubectl says it.
func span(d time.Duration) string { return duration.HumanDuration(d) }

// utc writes an instant for people, "-" for none.
func utc(t *metav1.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// ago says how long ago an instant was, or in how long it will be.
func ago(t *metav1.Time, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	if t.After(now) {
		return "in " + span(t.Sub(now))
	}
	return span(now.Sub(t.Time)) + " ago"
}

// dash is the text, or "-" for none: a column is never empty.
func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
