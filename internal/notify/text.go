package notify

import (
	"bytes"
	"fmt"
	htmltemplate "html/template"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"supportaccess.dev/operator/api/v1alpha1"
)

const (
	// maxValue is how long a value may be in a message, in bytes.
	maxValue = 512
	// maxLine is how long the first line may be, which is a mail's subject.
	maxLine = 160
	// maxListed is how many of many are named.
	maxListed = 16
)

// clean makes a value safe to be shown in one line, wherever it came from: no line break that could begin a header or a
// sentence of its own, no escape that a terminal obeys, nothing invisible that turns text around, and no end to its length.
func clean(value string) string { return cleanTo(value, maxValue) }

func cleanTo(value string, limit int) string {
	// What is far too long is not even looked at.
	value = value[:min(len(value), 4*limit)]
	value = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError:
			return '?'
		case unicode.IsSpace(r), unicode.IsControl(r):
			return ' '
		case unicode.In(r, unicode.Cf, unicode.Co, unicode.Cs, unicode.Zl, unicode.Zp):
			return -1
		default:
			return r
		}
	}, value)
	value = strings.Join(strings.Fields(value), " ")
	if len(value) <= limit {
		return value
	}
	end := limit - len("…")
	for end > 0 && !utf8.RuneStart(value[end]) {
		end--
	}
	return value[:end] + "…"
}

// line is one line of what a notice says.
type line struct{ Label, Value string }

// headline says in one line what happened.
func (n Notice) headline() string {
	what := map[v1alpha1.NotificationEvent]string{
		v1alpha1.EventGranted:             "granted",
		v1alpha1.EventApprovalNeeded:      "needs approval",
		v1alpha1.EventApproved:            "approved",
		v1alpha1.EventOpened:              "opened",
		v1alpha1.EventOpenedElevated:      "opened, ELEVATED",
		v1alpha1.EventOpenedDirect:        "opened, past the gateway",
		v1alpha1.EventFirstUsed:           "used for the first time",
		v1alpha1.EventExpiringSoon:        "ends soon",
		v1alpha1.EventShortened:           "narrowed",
		v1alpha1.EventRevoked:             "revoked",
		v1alpha1.EventExpired:             "expired",
		v1alpha1.EventDenied:              "denied",
		v1alpha1.EventSwitchedOn:          "switched on",
		v1alpha1.EventSwitchedOff:         "switched off",
		v1alpha1.EventSwitchedOffByItself: "switched off by itself",
		v1alpha1.EventRequested:           "requested",
		v1alpha1.EventRequestDenied:       "request denied",
		v1alpha1.EventRequestExpired:      "request expired unanswered",
		v1alpha1.EventEmergencyStop:       "ended by an EMERGENCY STOP",
		v1alpha1.EventClosingFailed:       "COULD NOT BE CLOSED",
	}[n.Event]
	about := n.Grant.Namespace + "/" + n.Grant.Name
	if n.Grant.Setting {
		about = n.Grant.Namespace
	}
	if n.Grant.CaseID != "" {
		about += " (" + n.Grant.CaseID + ")"
	}
	return cleanTo(fmt.Sprintf("Support access %s: %s", what, about), maxLine)
}

// lines are who, what, where, until when, because of which case, and how to end it.
func (n Notice) lines() []line {
	g := n.Grant
	lines := []line{
		{"By", clean(n.By)},
		{"At", instant(n.Time)},
		{"What happened", clean(n.Message)},
		{g.kind(), clean(g.Namespace + "/" + g.Name)},
		{"Granted by", clean(g.GrantedBy)},
		{"Requested by", clean(g.RequestedBy)},
		{"Reason", clean(g.Reason)},
		{"Case", clean(strings.TrimSpace(g.CaseID + " " + g.CaseURL))},
		{"Engineers", list(g.Engineers)},
		{"Access", list(g.Roles)},
		{"Where", g.where()},
		{"Transport", clean(g.Transport)},
		{"For", clean(g.Duration)},
	}
	switch {
	case g.Request && g.Over:
		lines = append(lines, line{"Now", "it waits for no answer any more"})
	case g.Request:
		lines = append(lines, line{"Answer until", instant(g.Until)})
	case g.Over:
		lines = append(lines, line{"Now", "access has ended"})
	case !g.Until.IsZero():
		lines = append(lines, line{"Until", instant(g.Until)})
	}
	if n.Event == v1alpha1.EventApprovalNeeded {
		lines = append(lines, line{"To approve it", g.Approve()})
	}
	lines = append(lines, line{"To grant it", g.Answer()}, line{"To deny it", g.Deny()}, line{"To end it now", g.Revoke()})
	out := lines[:0]
	for _, l := range lines {
		if l.Value != "" {
			out = append(out, l)
		}
	}
	return out
}

func (g Grant) kind() string {
	if g.Request {
		return "Request"
	}
	return "Grant"
}

func (g Grant) where() string {
	if len(g.Places) == 0 {
		return "the whole cluster"
	}
	return list(g.Places)
}

// list names the first of many, and counts the others.
func list(values []string) string {
	named := make([]string, 0, maxListed)
	for _, value := range values[:min(len(values), maxListed)] {
		named = append(named, cleanTo(value, 128))
	}
	text := strings.Join(named, ", ")
	if more := len(values) - len(named); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func instant(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// text renders a notice as plain text.
func (n Notice) text() string {
	var b strings.Builder
	b.WriteString(n.headline() + "\n\n")
	for _, l := range n.lines() {
		fmt.Fprintf(&b, "%-14s %s\n", l.Label+":", l.Value)
	}
	fmt.Fprintf(&b, "\nNotice %s\n", n.ID)
	return b.String()
}

// page is a mail in HTML: nothing is fetched, nothing runs, and there is no link to follow.
var page = htmltemplate.Must(htmltemplate.New("mail").Parse(`<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{{.Headline}}</title></head>
<body style="font-family: sans-serif">
<h1 style="font-size: 1.2em">{{.Headline}}</h1>
<table>
{{- range .Lines}}
<tr><th scope="row" style="text-align: left; vertical-align: top; padding-right: 1em">{{.Label}}</th><td>{{.Value}}</td></tr>
{{- end}}
</table>
<p style="color: #555">Notice {{.ID}}</p>
</body>
</html>
`))

// html renders a notice as a page.
func (n Notice) html() (string, error) {
	var b bytes.Buffer
	err := page.Execute(&b, struct {
		Headline, ID string
		Lines        []line
	}{n.headline(), n.ID, n.lines()})
	if err != nil {
		return "", fmt.Errorf("render notice %s: %w", n.ID, err)
	}
	return b.String(), nil
}
