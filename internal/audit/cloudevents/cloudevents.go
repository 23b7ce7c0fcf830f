// Package cloudevents renders the audit log for others, as CloudEvents 1.0 in batches. It must not know how they get there.
package cloudevents

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"supportaccess.dev/operator/internal/audit"
)

// Receiver takes batches of CloudEvents.
type Receiver struct {
	// Origin is the log's name.
	Origin string
	// Post hands over a batch. Its id is the same whenever the same is handed over.
	Post func(ctx context.Context, id string, body []byte) error
}

// ContentType is what a batch is.
const ContentType = "application/cloudevents-batch+json; charset=utf-8"

// event is one entry.
type event struct {
	SpecVersion     string `json:"specversion"`
	ID              string `json:"id"`
	Source          string `json:"source"`
	Type            string `json:"type"`
	Time            string `json:"time,omitempty"`
	DataContentType string `json:"datacontenttype"`
	// Data is the line of the log, to the byte but for white space.
	Data json.RawMessage `json:"data"`
}

// Receive posts entries. What the other side has had before it knows by source and id: the log's name, and the entry's number.
func (r *Receiver) Receive(ctx context.Context, lines []audit.Line) error {
	body, err := r.batch(lines)
	if err != nil {
		return err
	}
	return r.Post(ctx, fmt.Sprintf("%s/%d-%d", r.Origin, lines[0].Seq, lines[len(lines)-1].Seq), body)
}

// batch renders entries in the batched mode.
func (r *Receiver) batch(lines []audit.Line) ([]byte, error) {
	events := make([]event, 0, len(lines))
	for _, line := range lines {
		var entry struct {
			Type audit.Type `json:"type"`
			Time string     `json:"requestReceivedTimestamp"`
			Said string     `json:"stageTimestamp"`
		}
		if err := json.Unmarshal(line.Text, &entry); err != nil {
			return nil, fmt.Errorf("read entry %d: %w", line.Seq, err)
		}
		events = append(events, event{
			SpecVersion: "1.0", ID: strconv.FormatInt(line.Seq, 10), Source: "/" + r.Origin, Type: entry.Type.EventName(),
			Time: cmp.Or(entry.Time, entry.Said), DataContentType: "application/json", Data: line.Text,
		})
	}
	body, err := json.Marshal(events)
	if err != nil {
		return nil, fmt.Errorf("encode entries: %w", err)
	}
	return body, nil
}
