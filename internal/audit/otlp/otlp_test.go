package otlp

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	collector "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/protobuf/proto"

	"supportaccess.dev/operator/internal/audit"
)

var lines = []audit.Line{
	{Seq: 7, Text: []byte(`{"seq":7,"prevHash":"x","level":"Metadata","auditID":"a-1","stage":"ResponseComplete","requestURI":"/api","verb":"get","user":{"username":"u"},` +
		`"objectRef":{"resource":"pods","namespace":"mail","name":"imap","subresource":"log"},"responseStatus":{"code":403},"requestReceivedTimestamp":"2026-11-23T11:59:59.000000Z",` +
		`"stageTimestamp":"2026-11-23T12:00:00.500000Z","labels":{"supportaccess.dev/source":"Support"},"section":"Logs","grant":{"namespace":"mail","name":"case","uid":"g-1"},` +
		`"engineer":"ana@vendor.example","case":"4711"}`)},
	{Seq: 9, Text: []byte(`{"type":"Lifecycle","seq":9,"prevHash":"y","stageTimestamp":"2026-11-23T12:00:00.000000Z","labels":{},"happened":{"what":"Granted"}}`)},
}

// posted returns what a receiver posts of the lines, where the other side answers with something.
func posted(t *testing.T, answer []byte, logger logr.Logger) (*collector.ExportLogsServiceRequest, error) {
	t.Helper()
	request := &collector.ExportLogsServiceRequest{}
	r := &Receiver{Origin: "support.cluster.example/audit", Logger: logger, Post: func(_ context.Context, body []byte) ([]byte, error) {
		return answer, proto.Unmarshal(body, request)
	}}
	return request, r.Receive(t.Context(), lines)
}

func TestEntriesAreLogRecordsThatSayWhatTheyAreAbout(t *testing.T) {
	request, err := posted(t, nil, logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	of := request.GetResourceLogs()[0]
	if origin := of.GetResource().GetAttributes()[1]; origin.GetKey() != "supportaccess.log" || origin.GetValue().GetStringValue() != "support.cluster.example/audit" {
		t.Errorf("the log is %v", origin)
	}
	records := of.GetScopeLogs()[0].GetLogRecords()
	if len(records) != len(lines) {
		t.Fatalf("there are %d records", len(records))
	}
	for i, record := range records {
		if record.GetBody().GetStringValue() != string(lines[i].Text) {
			t.Errorf("record %d is not the line of the log: %s", i, record.GetBody())
		}
	}
	at := time.Date(2026, 11, 23, 12, 0, 0, int(500*time.Millisecond), time.UTC)
	if first := records[0]; first.GetEventName() != "dev.supportaccess.audit.request" || first.GetTimeUnixNano() != uint64(at.UnixNano()) || first.GetSeverityText() != "INFO" {
		t.Errorf("it is %v", first)
	}
	if second := records[1]; second.GetEventName() != "dev.supportaccess.audit.lifecycle" || len(second.GetAttributes()) != 2 {
		t.Errorf("an entry of a grant's life is %v", second)
	}
	said := map[string]string{}
	for _, a := range records[0].GetAttributes() {
		said[a.GetKey()] = a.GetValue().GetStringValue()
		if seq := a.GetValue().GetIntValue(); a.GetKey() == "supportaccess.seq" && seq != 7 || a.GetKey() == "http.response.status_code" && seq != 403 {
			t.Errorf("%s is %d", a.GetKey(), seq)
		}
	}
	for key, want := range map[string]string{
		"supportaccess.seq": "", "http.response.status_code": "", "supportaccess.source": "Support", "user.name": "ana@vendor.example", "k8s.namespace.name": "mail",
		"supportaccess.grant.namespace": "mail", "supportaccess.grant.name": "case", "supportaccess.grant.uid": "g-1", "supportaccess.case": "4711", "supportaccess.section": "Logs",
		"supportaccess.outcome": "Refused", "supportaccess.stage": "ResponseComplete", "supportaccess.audit_id": "a-1", "supportaccess.verb": "get",
		"supportaccess.resource": "pods/log", "supportaccess.name": "imap",
	} {
		if got, there := said[key]; !there || got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
		delete(said, key)
	}
	if len(said) > 0 {
		t.Errorf("it says %v, too", said)
	}
}

func TestWhatTheOtherSideTookWithoutKeepingItIsSaidAndNotHandedOverAgain(t *testing.T) {
	for name, c := range map[string]struct {
		part *collector.ExportLogsPartialSuccess
		said bool
	}{
		"all is kept":  {nil, false},
		"one is not":   {&collector.ExportLogsPartialSuccess{RejectedLogRecords: 1, ErrorMessage: "too long"}, true},
		"a warning":    {&collector.ExportLogsPartialSuccess{ErrorMessage: "soon full"}, true},
		"nothing said": {&collector.ExportLogsPartialSuccess{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			answer, err := proto.Marshal(&collector.ExportLogsServiceResponse{PartialSuccess: c.part})
			if err != nil {
				t.Fatal(err)
			}
			var told strings.Builder
			_, err = posted(t, answer, funcr.New(func(_, args string) { told.WriteString(args) }, funcr.Options{}))
			if err != nil {
				t.Fatal(err)
			}
			if said := strings.Contains(told.String(), c.part.GetErrorMessage()) && told.Len() > 0; said != c.said {
				t.Errorf("the logger is told %q", told.String())
			}
		})
	}
}

func TestAnAnswerThatIsNoneOfOTLPIsAnErrorAndHalfALineIsNotHandedOver(t *testing.T) {
	if _, err := posted(t, []byte("<html>hello</html>"), logr.Discard()); err == nil {
		t.Error("a page for people counts as an answer")
	}
	refused, posts := errors.New("no"), 0
	r := &Receiver{Post: func(context.Context, []byte) ([]byte, error) { posts++; return nil, refused }}
	if err := r.Receive(t.Context(), lines); !errors.Is(err, refused) {
		t.Errorf("it says %v", err)
	}
	if err := r.Receive(t.Context(), []audit.Line{{Seq: 1, Text: []byte("{")}}); err == nil || posts != 1 {
		t.Errorf("half a line is handed over: %v", err)
	}
}
