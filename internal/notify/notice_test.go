package notify

import (
	"encoding/json"
	"fmt"
	"net/mail"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func notice() Notice {
	return Notice{
		ID: "abcdefghijklmnopqrstuvwxyz", Event: v1alpha1.EventGranted, Time: noon, By: "root@customer.test", Message: "IMAP is down",
		Grant: Grant{
			Namespace: "mail-archive", Name: "case-4711", UID: "u-1", GrantedBy: "root@customer.test", Reason: "IMAP is down",
			CaseID: "CASE-4711", CaseURL: "https://support.vendor.example/4711", Engineers: []string{"ana@vendor.example"},
			Roles: []string{"support-access-configuration"}, Places: []string{"mail-archive"}, Transport: "Gateway", Until: noon.Add(24 * time.Hour),
		},
	}
}

// record is one of a grant of a day, granted at noon and opened a minute later.
func record(mods ...func(*v1alpha1.SupportAccessRecord)) *v1alpha1.SupportAccessRecord {
	provisioned, expiration := metav1.NewMicroTime(noon.Add(time.Minute)), metav1.NewTime(noon.Add(24*time.Hour))
	r := &v1alpha1.SupportAccessRecord{
		Spec: v1alpha1.SupportAccessRecordSpec{
			Grant:     v1alpha1.RecordedGrant{Namespace: "mail-archive", Name: "case-4711", UID: "u-1"},
			GrantedBy: "root@customer.test", Roles: []string{"support-access-configuration"}, Transport: v1alpha1.TransportGateway,
		},
		Status: v1alpha1.SupportAccessRecordStatus{ProvisionedTime: &provisioned, ExpirationTime: &expiration},
	}
	happens(r, noon, v1alpha1.TransitionGranted, "root@customer.test")
	happens(r, noon.Add(time.Minute), v1alpha1.TransitionOpened, operator)
	for _, mod := range mods {
		mod(r)
	}
	return r
}

func happens(r *v1alpha1.SupportAccessRecord, at time.Time, kind, by string) {
	r.Status.Transitions = append(r.Status.Transitions, v1alpha1.Transition{Time: metav1.NewMicroTime(at), Type: kind, By: by, Message: "so it was"})
}

func ends(at time.Time, reason, by string) func(*v1alpha1.SupportAccessRecord) {
	return func(r *v1alpha1.SupportAccessRecord) {
		end := metav1.NewMicroTime(at)
		r.Status.EndTime, r.Status.EndReason, r.Status.EndedBy = &end, reason, by
		happens(r, at, reason, by)
	}
}

func setting(r *v1alpha1.SupportAccessRecord) {
	r.Spec.SettingRef = &v1alpha1.SettingReference{UID: "s", Generation: 1}
}

func direct(r *v1alpha1.SupportAccessRecord) { r.Spec.Transport = v1alpha1.TransportDirect }

func elevated(r *v1alpha1.SupportAccessRecord) { r.Spec.Roles = []string{"support-access-content"} }

func byNobody(r *v1alpha1.SupportAccessRecord) { r.Status.Transitions[0].By = operator }

func then(at time.Duration, kind string) func(*v1alpha1.SupportAccessRecord) {
	return func(r *v1alpha1.SupportAccessRecord) { happens(r, noon.Add(at), kind, "somebody") }
}

func TestOfWhatPeopleAreToldUnlessAPolicySaysOtherwise(t *testing.T) {
	type mods = []func(*v1alpha1.SupportAccessRecord)
	hour := noon.Add(time.Hour)
	for name, c := range map[string]struct {
		mods mods
		want string
	}{
		"a grant is granted, and that it opens follows": {nil, "Granted"},
		"a Direct one opens":                            {mods{direct}, "Granted OpenedDirect"},
		"an elevated one opens":                         {mods{elevated}, "Granted OpenedElevated"},
		"one that is both":                              {mods{elevated, direct}, "Granted OpenedElevated"},
		"it is used":                                    {mods{then(time.Hour, v1alpha1.TransitionFirstUsed)}, "Granted FirstUsed"},
		"it is shortened":                               {mods{then(time.Hour, v1alpha1.TransitionShortened)}, "Granted Shortened"},
		"an engineer is taken off":                      {mods{then(time.Hour, v1alpha1.TransitionEngineerRemoved)}, "Granted Shortened"},
		"a binding is deleted":                          {mods{then(time.Hour, v1alpha1.TransitionBindingWithdrawn)}, "Granted Shortened"},
		"it is revoked":                                 {mods{ends(hour, v1alpha1.EndRevoked, "bo")}, "Granted Revoked"},
		"it is deleted":                                 {mods{ends(hour, v1alpha1.EndDeleted, "unknown")}, "Granted Revoked"},
		"a role became too wide":                        {mods{ends(hour, v1alpha1.EndRoleWidened, operator)}, "Granted Revoked"},
		"the cluster is stopped":                        {mods{ends(hour, v1alpha1.EndEmergencyStop, "bo")}, "Granted EmergencyStop"},
		"it cannot be closed for long":                  {mods{then(time.Hour, v1alpha1.TransitionClosingFailed), ends(hour.Add(time.Minute), v1alpha1.EndRevoked, "bo")}, "Granted ClosingFailed Revoked"},
		"its time is over":                              {mods{ends(noon.Add(24*time.Hour), v1alpha1.EndExpired, operator)}, "Granted ExpiringSoon Expired"},
		"it is denied":                                  {mods{ends(hour, v1alpha1.EndDenied, "bo")}, "Granted Denied"},
		"it waits for an approval": {mods{then(time.Second, v1alpha1.TransitionAwaitingApproval), then(time.Minute, v1alpha1.TransitionApproved)},
			"Granted ApprovalNeeded Approved"},
		"nobody approves in time": {mods{then(time.Second, v1alpha1.TransitionAwaitingApproval), ends(hour, v1alpha1.EndNotApproved, operator)},
			"Granted ApprovalNeeded Denied"},
		"it is refused at once":        {mods{ends(noon, v1alpha1.EndRefused, operator)}, "Denied"},
		"what is for the record alone": {mods{then(time.Hour, v1alpha1.TransitionVerified), then(time.Hour, v1alpha1.TransitionHandedOver)}, "Granted"},
		"a setting is switched on":     {mods{setting}, "SwitchedOn"},
		"a setting is on by default":   {mods{setting, byNobody}, ""},
		"a setting is switched off":    {mods{setting, ends(hour, v1alpha1.EndSwitchedOff, "bo")}, "SwitchedOn SwitchedOff"},
		"a setting is deleted":         {mods{setting, ends(hour, v1alpha1.EndSettingDeleted, "unknown")}, "SwitchedOn SwitchedOff"},
		"a setting is changed":         {mods{setting, ends(hour, v1alpha1.EndReplaced, "bo")}, "SwitchedOn"},
		"a setting's time is over":     {mods{setting, ends(noon.Add(24*time.Hour), v1alpha1.EndExpired, operator)}, "SwitchedOn"},
	} {
		t.Run(name, func(t *testing.T) {
			telling := Telling{Soon: time.Hour, Elevated: []string{"support-access-content"}}
			if got := eventNames(Notices(record(c.mods...), telling, noon.Add(30*time.Hour))); c.want != got && c.want+" ExpiringSoon" != got {
				t.Errorf("people are told %q, want %q", got, c.want)
			}
		})
	}
}

func eventNames(notices []Notice) string {
	var names []string
	for _, n := range notices {
		names = append(names, string(n.Event))
	}
	return strings.Join(names, " ")
}

func TestAChannelThatAsksOnlyForRevocationsIsToldOfAnEmergencyStop(t *testing.T) {
	r := record(ends(noon.Add(time.Hour), v1alpha1.EndEmergencyStop, "bo"))
	if got := eventNames(Notices(r, Telling{Events: []v1alpha1.NotificationEvent{v1alpha1.EventRevoked}}, noon.Add(2*time.Hour))); got != "Revoked" {
		t.Errorf("people are told %q", got)
	}
}

func TestThatASettingIsOnByDefaultIsNotToldAndThatItIsSwitchedOffIs(t *testing.T) {
	r := record(setting, ends(noon.Add(time.Hour), v1alpha1.EndSwitchedOff, "bo"))
	if got := eventNames(Notices(r, Telling{ByDefault: true}, noon.Add(2*time.Hour))); got != "SwitchedOff" {
		t.Errorf("people are told %q", got)
	}
}

func TestAChannelTellsOfTheEventsThatItNames(t *testing.T) {
	r := record(direct, setting, ends(noon.Add(24*time.Hour), v1alpha1.EndExpired, operator))
	for want, events := range map[string][]v1alpha1.NotificationEvent{
		"Opened":                  {v1alpha1.EventOpened},
		"OpenedDirect":            {v1alpha1.EventOpened, v1alpha1.EventOpenedDirect},
		"SwitchedOffByItself":     {v1alpha1.EventSwitchedOffByItself},
		"":                        {v1alpha1.EventDenied},
		"SwitchedOn OpenedDirect": nil,
	} {
		if got := eventNames(Notices(r, Telling{Events: events}, noon.Add(30*time.Hour))); got != want {
			t.Errorf("%v: %q, want %q", events, got, want)
		}
	}
}

func TestTheEndIsAnnouncedOnceItIsNearAndOnlyOfAnOpenGrant(t *testing.T) {
	telling := Telling{Soon: time.Hour, Events: []v1alpha1.NotificationEvent{v1alpha1.EventExpiringSoon, v1alpha1.EventRevoked}}
	near := noon.Add(23 * time.Hour)
	for name, c := range map[string]struct {
		record *v1alpha1.SupportAccessRecord
		now    time.Time
		want   string
		next   time.Time
	}{
		"not yet":                {record(), near.Add(-time.Nanosecond), "", near},
		"now":                    {record(), near, "ExpiringSoon", time.Time{}},
		"later":                  {record(), near.Add(time.Minute), "ExpiringSoon", time.Time{}},
		"ended before":           {record(ends(noon.Add(time.Hour), v1alpha1.EndRevoked, "bo")), near.Add(time.Hour), "Revoked", time.Time{}},
		"ended after it was due": {record(ends(near.Add(time.Minute), v1alpha1.EndRevoked, "bo")), near.Add(time.Hour), "ExpiringSoon Revoked", time.Time{}},
		"never opened":           {record(func(r *v1alpha1.SupportAccessRecord) { r.Status.ProvisionedTime = nil }), near, "", time.Time{}},
		"shorter than that": {record(func(r *v1alpha1.SupportAccessRecord) {
			at := metav1.NewTime(noon.Add(time.Hour))
			r.Status.ExpirationTime = &at
		}), noon.Add(2 * time.Hour), "", time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := eventNames(Notices(c.record, telling, c.now)); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if got := NextSoon(c.record, telling, c.now); !got.Equal(c.next) {
				t.Errorf("to be announced at %s, want %s", got, c.next)
			}
		})
	}
}

func TestEachNoticeHasAnIDOfItsOwnThatStaysWhenTheRecordIsMadeSmall(t *testing.T) {
	r := record(then(time.Hour, v1alpha1.TransitionEngineerRemoved), then(time.Hour, v1alpha1.TransitionEngineerRemoved), ends(noon.Add(2*time.Hour), v1alpha1.EndRevoked, "bo"))
	before := Notices(r, Telling{}, noon.Add(3*time.Hour))
	ids := map[string]bool{}
	for _, n := range before {
		ids[n.ID] = true
	}
	if len(before) != 4 || len(ids) != 4 {
		t.Fatalf("%d notices have %d ids", len(before), len(ids))
	}
	r.Status.Transitions[3].Message, r.Status.Transitions[3].By = "so …", "some…"
	r.Status.Transitions = slices.Delete(r.Status.Transitions, 1, 2)
	for i, n := range Notices(r, Telling{}, noon.Add(3*time.Hour)) {
		if n.ID != before[i].ID {
			t.Errorf("notice %d has another id", i)
		}
	}
	r.Spec.Grant.UID = "u-2"
	if Notices(r, Telling{}, noon.Add(3*time.Hour))[0].ID == before[0].ID {
		t.Error("another grant of the same name has the same ids")
	}
}

func TestTheCommandThatRevokesIsThereAsLongAsThereIsSomethingToRevoke(t *testing.T) {
	g := Grant{Namespace: "shop", Name: "case-1"}
	if got := g.Revoke(); got != "kubectl delete supportaccessgrant case-1 -n shop" {
		t.Error(got)
	}
	g.Setting = true
	if got := g.Revoke(); got != "kubectl delete supportaccesssetting support-access -n shop" {
		t.Error(got)
	}
	g.Over = true
	if got := g.Revoke(); got != "" {
		t.Error(got)
	}
	over := notice()
	over.Grant.Over = true
	if text := over.text(); strings.Contains(text, "kubectl") || !strings.Contains(text, "access has ended") {
		t.Error(text)
	}
}

// requested is the record of a request that was made at noon.
func requested(mods ...func(*v1alpha1.SupportAccessRecord)) *v1alpha1.SupportAccessRecord {
	expires := metav1.NewTime(noon.Add(72 * time.Hour))
	r := &v1alpha1.SupportAccessRecord{
		Spec: v1alpha1.SupportAccessRecordSpec{
			Request: &v1alpha1.RecordedRequest{Namespace: "mail-archive", Name: "wish", UID: "u-2", RequestedBy: "oidc:ana", Duration: "24h"},
			Reason:  "may I see its settings?", Engineers: []string{"ana@vendor.example"}, Roles: []string{"support-access-content"},
		},
		Status: v1alpha1.SupportAccessRecordStatus{ExpirationTime: &expires},
	}
	happens(r, noon, v1alpha1.TransitionRequested, "oidc:ana")
	for _, mod := range mods {
		mod(r)
	}
	return r
}

func TestARequestIsToldWithTheCommandsThatAnswerIt(t *testing.T) {
	every := Telling{Events: []v1alpha1.NotificationEvent{v1alpha1.EventRequested, v1alpha1.EventRequestDenied, v1alpha1.EventRequestExpired, v1alpha1.EventGranted, v1alpha1.EventDenied, v1alpha1.EventExpired}}
	later := noon.Add(time.Hour)
	for name, c := range map[string]struct {
		record  *v1alpha1.SupportAccessRecord
		telling Telling
		want    string
	}{
		"asked":                      {requested(), Telling{}, "Requested"},
		"denied":                     {requested(ends(later, v1alpha1.StateDenied, "tess")), Telling{}, "Requested RequestDenied"},
		"expired":                    {requested(ends(later, v1alpha1.StateExpired, operator)), Telling{}, "Requested"},
		"expired, where it is asked": {requested(ends(later, v1alpha1.StateExpired, operator)), every, "Requested RequestExpired"},
		"withdrawn":                  {requested(ends(later, v1alpha1.EndWithdrawn, "unknown")), every, "Requested"},
		// Its grant tells.
		"granted": {requested(func(r *v1alpha1.SupportAccessRecord) { happens(r, later, v1alpha1.TransitionGranted, "tess") }), every, "Requested"},
	} {
		var got []string
		for _, n := range Notices(c.record, c.telling, later.Add(time.Hour)) {
			got = append(got, string(n.Event))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: it is told of %v, want %s", name, got, c.want)
		}
	}
	n := Notices(requested(), Telling{Elevated: []string{"support-access-content"}}, noon)[0]
	text := n.text()
	for _, want := range []string{
		"Support access requested: mail-archive/wish", "Requested by:  oidc:ana", "For:           24h", "Answer until:  2026-11-26 12:00:00 UTC",
		"kubectl support-access grant --request wish -n mail-archive", "kubectl support-access deny --request wish -n mail-archive --reason WHY",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the text lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "kubectl delete") || strings.Contains(text, "Granted by") {
		t.Errorf("the text speaks of a grant:\n%s", text)
	}
	body, err := n.eventBody()
	if err != nil {
		t.Fatal(err)
	}
	var event struct {
		Type, Source, Subject string
		Data                  struct {
			Grant   *grantData
			Request *requestData
		}
	}
	if err := json.Unmarshal(body, &event); err != nil {
		t.Fatal(err)
	}
	if event.Type != "dev.supportaccess.requested" || event.Source != "/supportaccess.dev/requests/mail-archive" || event.Subject != "wish" || event.Data.Grant != nil ||
		event.Data.Request == nil || event.Data.Request.RequestedBy != "oidc:ana" || !event.Data.Request.Elevated || event.Data.Request.Duration != "24h" || event.Data.Request.Closed {
		t.Errorf("the event is %s", body)
	}
	// Once it is answered there is nothing to answer.
	answered := requested(func(r *v1alpha1.SupportAccessRecord) {
		r.Status.Answer = &v1alpha1.AnsweringGrant{Name: "g", UID: "u-3"}
	})
	if text := Notices(answered, Telling{}, noon)[0].text(); strings.Contains(text, "kubectl") || !strings.Contains(text, "it waits for no answer any more") {
		t.Errorf("of what is answered it says:\n%s", text)
	}
}

// hostile are values that want to be more than values.
var hostile = map[string]string{
	"a header":          "x\r\nBcc: everybody@customer.test\r\n\r\nbody",
	"a page":            `<script>alert(1)</script><img src=x onerror=alert(1)>"'><a href="javascript:x">`,
	"a terminal":        "\x1b]0;owned\x07\x1b[2J\x9b31m\x00",
	"text turned round": "ana\u202egnp.exe\u2066\u200b\ufeff",
	"a mention":         "<!channel> <@U123> @channel @here <https://evil.test|click> `x` *y*",
	"no text at all":    string([]byte{0xff, 0xfe, 0xc0, 0x80}),
	"line separators":   "a\u2028Bcc: b\u2029c\u0085d\vd",
	"very much":         strings.Repeat("A very long story. ", 1<<16),
	"much of one rune":  strings.Repeat("\U0001F600", 1<<18),
}

func withEverywhere(value string) Notice {
	n := notice()
	n.By, n.Message = value, value
	g := &n.Grant
	g.Namespace, g.Name, g.UID, g.GrantedBy, g.Reason, g.CaseID, g.CaseURL, g.Transport = value, value, value, value, value, value, value, value
	g.RequestedBy, g.Duration = value, value
	for range 100 {
		g.Engineers, g.Roles, g.Places = append(g.Engineers, value), append(g.Roles, value), append(g.Places, value)
	}
	return n
}

func TestAHostileValueIsOnlyAValueInEveryMessage(t *testing.T) {
	for name, value := range hostile {
		t.Run(name, func(t *testing.T) {
			n := withEverywhere(value)
			checkHarmless(t, n)
			n.Grant.Request = true
			checkHarmless(t, n)
		})
	}
}

// checkHarmless says what is wrong with the messages of a notice.
func checkHarmless(t *testing.T, n Notice) {
	t.Helper()
	text, subject := n.text(), n.headline()
	page, err := n.html()
	if err != nil {
		t.Fatal(err)
	}
	slack, err := n.slackBody()
	if err != nil {
		t.Fatal(err)
	}
	event, err := n.eventBody()
	if err != nil {
		t.Fatal(err)
	}
	for what, message := range map[string]string{"text": text, "subject": subject, "page": page, "slack": string(slack), "event": string(event)} {
		if len(message) > 160<<10 || !utf8.ValidString(message) {
			t.Errorf("%s: %d bytes, text: %t", what, len(message), utf8.ValidString(message))
		}
		for _, r := range message {
			if unicode.IsControl(r) && r != '\n' || unicode.In(r, unicode.Bidi_Control) {
				t.Fatalf("%s: rune %U", what, r)
			}
		}
	}
	if len(subject) > maxLine || strings.ContainsAny(subject, "\n\r") {
		t.Errorf("the subject is %q", subject)
	}
	if lines := strings.Count(text, "\n"); lines > 20 {
		t.Errorf("the text has %d lines", lines)
	}
	if tags := strings.Count(page, "<"); tags != strings.Count(page, "</")*2+tagsAlone || strings.Contains(page, "<script") || strings.Contains(page, "<img") || strings.Contains(page, "<a ") {
		t.Errorf("the page has tags of its own: %s", page[:min(len(page), 4096)])
	}
	var said struct{ Text string }
	if err := json.Unmarshal(slack, &said); err != nil {
		t.Fatal(err)
	}
	for _, never := range []string{"<", ">", "@channel", "@here", "@U"} {
		if strings.Contains(said.Text, never) {
			t.Errorf("slack reads %q", never)
		}
	}
	checkMail(t, n)
}

// tagsAlone are the tags of the page that are not closed: the doctype and the charset.
const tagsAlone = 2

func checkMail(t *testing.T, n Notice) {
	t.Helper()
	message, err := Mail{From: "access@operator.test"}.message(n, "ana@customer.test", noon)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if _, err := message.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	read, err := mail.ReadMessage(strings.NewReader(b.String()))
	if err != nil {
		t.Fatalf("it is no mail: %v", err)
	}
	for header := range read.Header {
		if !slices.Contains([]string{
			"Auto-Submitted", "Content-Type", "Date", "From", "Message-Id", "Mime-Version", "Subject", "To", "X-Support-Access-Notice",
		}, header) {
			t.Errorf("the mail has a header %s: %s", header, read.Header.Get(header))
		}
	}
	for line := range strings.Lines(b.String()) {
		if len(line) > 1000 {
			t.Fatalf("the mail has a line of %d bytes", len(line))
		}
	}
}

func FuzzAMessageIsHarmlessWhateverIsInIt(f *testing.F) {
	for _, value := range hostile {
		f.Add(value[:min(len(value), 4096)])
	}
	f.Fuzz(func(t *testing.T, value string) { checkHarmless(t, withEverywhere(value)) })
}

func TestAFailureIsStoredWithoutSecretsAndWithoutAnEnd(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"a password":               {fmt.Errorf("535 no, %s is not it", password), "535 no, [secret] is not it"},
		"of two, one in the other": {fmt.Errorf("%s-longer and %s", password, password), "[secret] and [secret]"},
		"an escape":                {fmt.Errorf("\x1b[2J\nhello"), "[2J hello"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := (Result{Err: c.err}).Failure(password, "", password+"-longer"); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	if got := (Result{Err: fmt.Errorf("%s", strings.Repeat("x", 1<<20))}).Failure(); len(got) > 256 {
		t.Errorf("%d bytes", len(got))
	}
	if got := (Result{}).Failure(); got != "" {
		t.Error(got)
	}
}

func TestANoticeIsTriedForADayEverMoreRarelyAndThenOnceMore(t *testing.T) {
	now, attempts := noon, int32(0)
	var waits []time.Duration
	for {
		attempts++
		next := NextAttempt("an id", attempts, noon, now, 0)
		if next.IsZero() {
			break
		}
		waits = append(waits, next.Sub(now))
		now = next
	}
	if got := now.Sub(noon); got != GiveUpAfter {
		t.Errorf("it was given up after %s", got)
	}
	if waits[0] < 5*time.Second || waits[0] > 7*time.Second || len(waits) < 20 || len(waits) > 40 {
		t.Errorf("%d waits, the first %s", len(waits), waits[0])
	}
	for i := range waits[:len(waits)-2] {
		if waits[i+1] < waits[i] || waits[i] > 75*time.Minute {
			t.Errorf("wait %d is %s, the next %s", i, waits[i], waits[i+1])
		}
	}
}

func TestWhoAsksToBeLeftAloneIsLeftAloneUpToTheLastAttempt(t *testing.T) {
	if got := NextAttempt("id", 1, noon, noon, 3*time.Hour); !got.Equal(noon.Add(3 * time.Hour)) {
		t.Errorf("asked for three hours, it is tried at %s", got)
	}
	if got := NextAttempt("id", 1, noon, noon.Add(20*time.Hour), 10*time.Hour); !got.Equal(noon.Add(GiveUpAfter)) {
		t.Errorf("asked for longer than there is, it is tried at %s", got)
	}
	if a, b := NextAttempt("one", 10, noon, noon, 0), NextAttempt("two", 10, noon, noon, 0); a.Equal(b) {
		t.Error("what failed together returns together")
	}
}
