package cloudevents

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"supportaccess.dev/operator/internal/audit"
)

var lines = []audit.Line{
	{Seq: 7, Text: []byte(`{"seq":7,"prevHash":"x","requestReceivedTimestamp":"2026-11-23T11:59:59.000000Z","verb":"get"}`)},
	{Seq: 9, Text: []byte(`{"seq":9,"prevHash":"y","type":"Lifecycle","stageTimestamp":"2026-11-23T12:00:00.000000Z","happened":{"what":"Granted"}}`)},
}

func TestEntriesAreCloudEventsThatSayWhichTheyAre(t *testing.T) {
	const origin = "support.cluster.example/audit"
	var posted []byte
	r := &Receiver{Origin: origin, Post: func(_ context.Context, id string, body []byte) error {
		posted = body
		if id != origin+"/7-9" {
			t.Errorf("its id is %q", id)
		}
		return nil
	}}
	if err := r.Receive(t.Context(), lines); err != nil {
		t.Fatal(err)
	}
	var events []map[string]any
	if err := json.Unmarshal(posted, &events); err != nil || len(events) != 2 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	for i, want := range []map[string]string{
		{"specversion": "1.0", "id": "7", "source": "/" + origin, "type": "dev.supportaccess.audit.request", "time": "2026-11-23T11:59:59.000000Z"},
		{"specversion": "1.0", "id": "9", "source": "/" + origin, "type": "dev.supportaccess.audit.lifecycle", "time": "2026-11-23T12:00:00.000000Z"},
	} {
		for key, value := range want {
			if events[i][key] != value {
				t.Errorf("event %d: %s is %v, want %s", i, key, events[i][key], value)
			}
		}
	}
	if !strings.Contains(string(posted), string(lines[0].Text)) {
		t.Error("the entry is not in it as it is in the log")
	}
}

func TestWhatIsNotTakenIsAnErrorAndHalfALineIsNotHandedOver(t *testing.T) {
	refused, posts := errors.New("no"), 0
	r := &Receiver{Post: func(context.Context, string, []byte) error { posts++; return refused }}
	if err := r.Receive(t.Context(), lines); !errors.Is(err, refused) {
		t.Errorf("it says %v", err)
	}
	if err := r.Receive(t.Context(), []audit.Line{{Seq: 1, Text: []byte("{")}}); err == nil || posts != 1 {
		t.Errorf("half a line is handed over: %v", err)
	}
}
