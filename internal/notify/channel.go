package notify

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Result is what became of one attempt to tell a notice.
type Result struct {
	// Told are the addresses that need not be written to again: the notice is with them, or will never be.
	Told []string
	// Refused says of how many of those it will never be.
	Refused int
	// Err is why the notice is still owed, or why some will never have it; nil if all have it.
	Err error
	// Permanent says that trying again is of no use.
	Permanent bool
	// RetryAfter is for how long the other side asked to be left alone.
	RetryAfter time.Duration
}

// Failure returns why an attempt failed, without anything secret and without an end: it is stored where people read it.
func (r Result) Failure(secrets ...string) string {
	if r.Err == nil {
		return ""
	}
	err := r.Err
	// What was asked for is in the error, and the URL of a Slack webhook is its password.
	if failed, ok := errors.AsType[*url.Error](err); ok {
		err = failed.Err
	}
	return scrub(err.Error(), secrets...)
}

// scrub takes secrets out of a text, and whatever would not be shown in one line.
func scrub(text string, secrets ...string) string {
	// The longest first: one may be part of another.
	slices.SortFunc(secrets, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	for _, secret := range secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "[secret]")
		}
	}
	return cleanTo(text, 256)
}

// Digest is a short name of an address in a record, where the address itself need not be read.
func Digest(address string) string {
	sum := sha256.Sum256([]byte(strings.ToLower(address)))
	return hex.EncodeToString(sum[:8])
}

const (
	// firstWait is how long to wait after the first attempt in vain; each further wait is twice as long.
	firstWait = 5 * time.Second
	// longestWait is how long at most, unless the other side asks for more.
	longestWait = time.Hour
	// GiveUpAfter is how long after the first attempt a notice is given up.
	GiveUpAfter = 24 * time.Hour
)

// NextAttempt returns when a notice is tried again that was tried so often in vain, the first time then; zero if it is given
// up now. Waits differ by up to a quarter from one notice to another, so that what failed together does not return together.
func NextAttempt(id string, attempts int32, first, now time.Time, retryAfter time.Duration) time.Time {
	end := first.Add(GiveUpAfter)
	if !now.Before(end) {
		return time.Time{}
	}
	wait := longestWait
	if attempts < 16 {
		wait = min(firstWait<<max(attempts-1, 0), longestWait)
	}
	spread := sha256.Sum256([]byte(id))
	wait += wait / 4 * time.Duration(spread[0]) / 255
	wait = max(wait, retryAfter)
	if next := now.Add(wait); next.Before(end) {
		return next
	}
	// There is one last attempt before it is given up.
	return end
}
