// Package otlp renders the audit log for others, as log records of OpenTelemetry in requests of OTLP/HTTP. It must not know how
// they get there.
package otlp

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	collector "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/proto"

	"supportaccess.dev/operator/internal/audit"
)

// ContentType is what a request is.
const ContentType = "application/x-protobuf"

// Receiver takes requests of OTLP/HTTP.
type Receiver struct {
	// Origin is the log's name.
	Origin string
	// Post hands over a request and returns the answer to it.
	Post func(ctx context.Context, body []byte) (answer []byte, err error)
	// Logger is told what the other side took without keeping it.
	Logger logr.Logger
}

// Receive posts entries. What the other side has had before can be known by the log's name and the entry's number.
//
// What it says that it did not keep is not handed over again, as OTLP demands: it would be no different the next time, and
// what comes after it would wait for ever. It stays in the log, and the logger is told.
func (r *Receiver) Receive(ctx context.Context, lines []audit.Line) error {
	request, err := r.request(lines)
	if err != nil {
		return err
	}
	body, err := proto.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode entries: %w", err)
	}
	said, err := r.Post(ctx, body)
	if err != nil {
		return err
	}
	answer := &collector.ExportLogsServiceResponse{}
	if err := proto.Unmarshal(said, answer); err != nil {
		return fmt.Errorf("read the answer, which is none of OTLP: %w", err)
	}
	if part := answer.GetPartialSuccess(); part.GetRejectedLogRecords() > 0 || part.GetErrorMessage() != "" {
		r.Logger.Info("The receiver did not keep all that it was handed", "first", lines[0].Seq, "last", lines[len(lines)-1].Seq,
			"rejected", part.GetRejectedLogRecords(), "said", part.GetErrorMessage())
	}
	return nil
}

func (r *Receiver) request(lines []audit.Line) (*collector.ExportLogsServiceRequest, error) {
	records := make([]*logs.LogRecord, 0, len(lines))
	for _, line := range lines {
		record, err := recordOf(line)
		if err != nil {
			return nil, err
		}
		records = append(records, record)
	}
	return &collector.ExportLogsServiceRequest{ResourceLogs: []*logs.ResourceLogs{{
		Resource:  &resource.Resource{Attributes: attributes(text("service.name", "support-access-gateway"), text("supportaccess.log", r.Origin))},
		ScopeLogs: []*logs.ScopeLogs{{Scope: &common.InstrumentationScope{Name: "supportaccess.dev/audit"}, LogRecords: records}},
	}}}, nil
}

// recordOf renders one entry. Its body is the line of the log, to the byte: whoever keeps it can check the chain.
func recordOf(line audit.Line) (*logs.LogRecord, error) {
	e := &audit.Entry{}
	if err := json.Unmarshal(line.Text, e); err != nil {
		return nil, fmt.Errorf("read entry %d: %w", line.Seq, err)
	}
	facets := audit.FacetsOf(e)
	record := &logs.LogRecord{
		TimeUnixNano: nanos(facets.Time), ObservedTimeUnixNano: nanos(facets.Time),
		// What is alarming is for whoever reads to say.
		SeverityNumber: logs.SeverityNumber_SEVERITY_NUMBER_INFO, SeverityText: "INFO",
		EventName: e.Type.EventName(), Body: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: string(line.Text)}},
		Attributes: attributes(
			number("supportaccess.seq", line.Seq), text("supportaccess.source", facets.Source),
			text("supportaccess.grant.namespace", e.Grant.Namespace), text("supportaccess.grant.name", e.Grant.Name), text("supportaccess.grant.uid", e.Grant.UID),
			text("supportaccess.case", e.Case), text("supportaccess.section", string(e.Section)), text("supportaccess.outcome", string(facets.Outcome)),
			text("supportaccess.stage", string(e.Stage)), text("supportaccess.audit_id", string(e.AuditID)),
			text("supportaccess.verb", e.Verb), text("supportaccess.resource", facets.Resource),
			text("user.name", e.Engineer), text("k8s.namespace.name", facets.Namespace),
		),
	}
	if e.ObjectRef != nil {
		record.Attributes = append(record.Attributes, attributes(text("supportaccess.name", e.ObjectRef.Name))...)
	}
	if e.ResponseStatus != nil && e.ResponseStatus.Code != 0 {
		record.Attributes = append(record.Attributes, number("http.response.status_code", int64(e.ResponseStatus.Code)))
	}
	return record, nil
}

// nanos is an instant as OTLP counts, 0 if it is not known.
func nanos(at time.Time) uint64 {
	if at.IsZero() {
		return 0
	}
	return uint64(at.UnixNano()) //nolint:gosec // No entry is from before 1970.
}

// attributes leaves out what says nothing.
func attributes(all ...*common.KeyValue) []*common.KeyValue {
	var some []*common.KeyValue
	for _, one := range all {
		if one != nil {
			some = append(some, one)
		}
	}
	return some
}

func text(key, value string) *common.KeyValue {
	if value == "" {
		return nil
	}
	return &common.KeyValue{Key: key, Value: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: value}}}
}

func number(key string, value int64) *common.KeyValue {
	return &common.KeyValue{Key: key, Value: &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: value}}}
}
