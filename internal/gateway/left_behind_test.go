package gateway

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	testingclock "k8s.io/utils/clock/testing"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/test/gen"
)

// shortLog has one entry, with which it began, and one that an engineer made.
type shortLog struct{ began time.Time }

// Find returns what is asked for.
func (l shortLog) Find(_ context.Context, q audit.Query) (audit.Page, error) {
	e := &audit.Entry{Type: audit.TypeKeys, Event: auditv1.Event{StageTimestamp: metav1.NewMicroTime(l.began)}}
	seq := int64(1)
	if q.Type == "" {
		seq = 2
		e = &audit.Entry{Event: auditv1.Event{
			Verb: "get", Stage: auditv1.StageRequestReceived, ObjectRef: &auditv1.ObjectReference{Resource: "secrets", Namespace: "shop", Name: "imap"},
		}}
	}
	text, err := json.Marshal(e)
	return audit.Page{Lines: []audit.Line{{Seq: seq, Text: text}}}, err
}

// endedGrant is the record of a grant that was open for an hour and has ended a minute ago.
func endedGrant() *v1alpha1.SupportAccessRecord {
	record := gen.Record(gen.Grant("g", "n", gen.WithTransport(v1alpha1.TransportGateway)), gen.WithRecordEnd(gen.Epoch.Add(time.Hour), "Expired", "us"))
	at := metav1.NewMicroTime(gen.Epoch)
	record.Spec.Transport, record.Status.ProvisionedTime = v1alpha1.TransportGateway, &at
	return record
}

func TestWhatTheLogCannotKnowOfAGrantIsSaid(t *testing.T) {
	clock := testingclock.NewFakePassiveClock(gen.Epoch.Add(time.Hour + time.Minute))
	for sentence, c := range map[string]struct {
		behind LeftBehind
		want   string
	}{
		"the log has everything":       {LeftBehind{Past: shortLog{gen.Epoch.Add(-time.Hour)}, Retention: 24 * time.Hour}, ""},
		"it began later":               {LeftBehind{Past: shortLog{gen.Epoch.Add(time.Minute)}}, "begins at"},
		"it keeps entries for less":    {LeftBehind{Past: shortLog{gen.Epoch.Add(-time.Hour)}, Retention: time.Hour}, "keeps entries for 1h0m0s"},
		"it is a file with plain text": {LeftBehind{}, "is a file"},
	} {
		c.behind.Clock = clock
		got, used, err := c.behind.find(t.Context(), endedGrant())
		if err != nil || (got.Unknown == "") != (c.want == "") || !strings.Contains(got.Unknown, c.want) {
			t.Errorf("%s: it says %q, %v, want %q", sentence, got.Unknown, err, c.want)
		}
		if c.behind.Past != nil && (!used || len(got.Seen) != 1 || got.Seen[0].Name != "imap") {
			t.Errorf("%s: used %t, seen %+v", sentence, used, got.Seen)
		}
	}
}

func TestWhatWasLeftBehindIsToldOfEndedGrantsOfTheGatewayOnceNobodyIsConnected(t *testing.T) {
	l := &LeftBehind{}
	end := gen.Epoch.Add(time.Hour)
	now := end.Add(time.Minute)
	for sentence, change := range map[string]func(*v1alpha1.SupportAccessRecord){
		"one that is open":        func(r *v1alpha1.SupportAccessRecord) { r.Status.EndTime = nil },
		"one that never opened":   func(r *v1alpha1.SupportAccessRecord) { r.Status.ProvisionedTime = nil },
		"a direct one":            func(r *v1alpha1.SupportAccessRecord) { r.Spec.Transport = v1alpha1.TransportDirect },
		"a copy":                  func(r *v1alpha1.SupportAccessRecord) { r.Namespace = v1alpha1.SystemNamespace },
		"one that says it":        func(r *v1alpha1.SupportAccessRecord) { r.Status.LeftBehind = &v1alpha1.LeftBehind{} },
		"one that ended long ago": func(r *v1alpha1.SupportAccessRecord) { *r.Status.EndTime = metav1.NewMicroTime(now.Add(-tellWithin)) },
	} {
		record := endedGrant()
		change(record)
		if l.owes(record, now) {
			t.Errorf("%s is told of", sentence)
		}
	}
	record := endedGrant()
	if !l.owes(record, now) {
		t.Error("an ended grant is not told of")
	}
	if at := l.dueAt(record); !at.Equal(end.Add(settleWithin)) {
		t.Errorf("while somebody may be connected it is told at %s", at)
	}
	gone := metav1.NewMicroTime(end.Add(2 * time.Second))
	record.Status.DisconnectedTime = &gone
	if at := l.dueAt(record); !at.Equal(end.Add(3 * time.Second)) {
		t.Errorf("once nobody is connected it is told at %s", at)
	}
}
