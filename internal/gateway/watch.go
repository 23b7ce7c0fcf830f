package gateway

import (
	"encoding/binary"
	"encoding/json"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	apiwatch "k8s.io/apimachinery/pkg/watch"
)

// Encodings of a watch in which a last event can be said.
const (
	inJSON     = "application/json"
	inProtobuf = runtime.ContentTypeProtobuf
)

// events follows the events of a watch as they pass, and knows where one ends and the next begins, so that a last one can be
// put behind them.
type events struct {
	// encoding is the answer's, empty before there is one and for one in which nothing can be said.
	encoding string
	// broken says that a line is under way: in JSON each event is one.
	broken bool
	// head is what has passed of an event's length, left how much of the event is still to pass: in Protobuf its length
	// comes before each.
	head []byte
	left uint32
}

// begin notes in which encoding events will pass.
func (e *events) begin(contentType string) {
	for _, known := range []string{inJSON, inProtobuf} {
		if strings.HasPrefix(contentType, known) {
			e.encoding = known
		}
	}
}

// between reports whether an event may be said now.
func (e *events) between() bool { return !e.broken && len(e.head) == 0 && e.left == 0 }

// pass takes note of bytes that were sent.
func (e *events) pass(p []byte) {
	switch {
	case e.encoding == inJSON && len(p) > 0:
		e.broken = p[len(p)-1] != '\n'
	case e.encoding == inProtobuf:
		e.passLengths(p)
	}
}

func (e *events) passLengths(p []byte) {
	for len(p) > 0 {
		if e.left > 0 {
			n := min(int(e.left), len(p))
			e.left -= uint32(n) //nolint:gosec // At most what is left.
			p = p[n:]
			continue
		}
		e.head, p = append(e.head, p[0]), p[1:]
		if len(e.head) == 4 {
			e.left, e.head = binary.BigEndian.Uint32(e.head), e.head[:0]
		}
	}
}

// last renders the event with which a watch ends, nil where its encoding is not known.
func (e *events) last(status metav1.Status) []byte {
	switch e.encoding {
	case inJSON:
		return lastInJSON(status)
	case inProtobuf:
		return lastInProtobuf(status)
	default:
		return nil
	}
}

func lastInJSON(status metav1.Status) []byte {
	event, err := json.Marshal(map[string]any{"type": apiwatch.Error, "object": status})
	if err != nil {
		return nil
	}
	return append(event, '\n')
}

func lastInProtobuf(status metav1.Status) []byte {
	object, err := runtime.Encode(protobuf.NewSerializer(nil, nil), &status)
	if err != nil {
		return nil
	}
	event := metav1.WatchEvent{Type: string(apiwatch.Error), Object: runtime.RawExtension{Raw: object}}
	body, err := event.Marshal()
	if err != nil {
		return nil
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...) //nolint:gosec // A status is short.
}
