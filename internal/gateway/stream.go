package gateway

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"net"
	"strings"
	"sync"
	"unicode/utf8"
)

// stream is a client connection that was taken over for another protocol: it counts what goes over it, and it knows where
// one WebSocket frame ends and the next begins, so that a last word can be put between them.
type stream struct {
	net.Conn
	exchange *exchange
	// taped puts on record what passes, nil where that is not kept.
	taped *taped
	// farewells are under way to a client whose stream could not be put on record.
	farewells sync.WaitGroup
	// websocket says that frames are spoken, and protocol which subprotocol.
	websocket bool
	protocol  string

	mu     sync.Mutex
	frames frames
	closed bool
}

func newStream(raw net.Conn, x *exchange) *stream {
	s := &stream{
		Conn: raw, exchange: x,
		websocket: strings.EqualFold(x.answered.Get("Upgrade"), "websocket"),
		protocol:  x.answered.Get("Sec-Websocket-Protocol"),
	}
	if x.tape != nil && x.dialect != nil {
		s.taped = newTaped(x.tape, x.dialect, s.send, func() { s.farewells.Go(func() { x.end(unrecorded()) }) })
	}
	return s
}

// Read reads what the client sends.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if s.exchange.in.Add(int64(n)) > s.exchange.standing.limits.streamBytes {
		return n, s.exceeded()
	}
	if s.taped != nil && n > 0 {
		if broken := s.taped.in(p[:n]); broken != nil {
			return 0, broken
		}
	}
	return n, err
}

// Write sends to the client, once it is on record.
func (s *stream) Write(p []byte) (int, error) {
	if s.exchange.out.Add(int64(len(p))) > s.exchange.standing.limits.streamBytes {
		if s.taped != nil {
			// What was within the bound is still on its way.
			s.taped.flush()
		}
		return 0, s.exceeded()
	}
	if s.taped != nil {
		return s.taped.out(p)
	}
	return s.send(p)
}

// Close closes the connection when all that is on record was sent.
func (s *stream) Close() error {
	if s.taped != nil {
		s.taped.close()
		s.farewells.Wait()
	}
	return s.Conn.Close()
}

func (s *stream) send(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, errCut
	}
	n, err := s.Conn.Write(p)
	if s.websocket {
		s.frames.pass(p[:n])
	}
	return n, err
}

// exceeded ends a stream that has carried as much as its policy lets it.
func (s *stream) exceeded() error {
	go s.exchange.end(&end{
		reason: "TooMuch", message: "the stream has carried as many bytes as the policy allows (sessions.maxStreamBytes)",
	})
	return errCut
}

// Channels of the protocol that kubectl speaks, and codes of RFC 6455.
const (
	channelError    = 3
	opText          = 1
	opBinary        = 2
	opClose         = 8
	policyViolation = 1008
	maxCloseReason  = 123
)

// farewell tells a client that speaks WebSocket why its stream ends. In the middle of a frame nothing can be said, nor over
// SPDY, whose headers are compressed with a state that only the API server has. It reports whether it was said.
func (s *stream) farewell(ctx context.Context, why *end) bool {
	if !s.websocket {
		return false
	}
	if deadline, ok := ctx.Deadline(); ok {
		// Whoever writes now to a client that does not read gives up, and holds nobody.
		_ = s.SetWriteDeadline(deadline)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if !s.frames.between() {
		return false
	}
	status := statusOf(notOpen(s.exchange.standing, why))
	var last []byte
	switch {
	case strings.HasSuffix(s.protocol, ".channel.k8s.io"):
		if body, err := json.Marshal(status); err == nil {
			last = frame(opBinary, append([]byte{channelError}, body...))
		}
	case s.exchange.info.Verb == "watch":
		if body, err := json.Marshal(map[string]any{"type": "ERROR", "object": status}); err == nil {
			last = frame(opText, body)
		}
	}
	closing := binary.BigEndian.AppendUint16(nil, policyViolation)
	closing = append(closing, clip(status.Message, maxCloseReason)...)
	_, err := s.Conn.Write(append(last, frame(opClose, closing)...))
	return err == nil
}

// clip cuts a sentence at a letter so that it has at most so many bytes.
func clip(text string, most int) string {
	for len(text) > most {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	return text
}

// frame renders one whole WebSocket frame as a server sends it (RFC 6455, section 5.2).
func frame(opcode byte, payload []byte) []byte {
	out := []byte{0x80 | opcode}
	switch n := len(payload); {
	case n < 126:
		out = append(out, byte(n))
	case n < 1<<16:
		out = binary.BigEndian.AppendUint16(append(out, 126), uint16(n)) //nolint:gosec // Bounded in this line.
	default:
		out = binary.BigEndian.AppendUint64(append(out, 127), uint64(n))
	}
	return append(out, payload...)
}

// frames follows WebSocket frames as they pass, and knows whether one is under way.
type frames struct {
	// head is what has passed of a frame's head, left how much of its payload is still to pass.
	head []byte
	left uint64
	// message says that the last frame was not the last of its message.
	message bool
}

// between reports whether a frame may be sent now.
func (f *frames) between() bool { return len(f.head) == 0 && f.left == 0 && !f.message }

// pass takes note of bytes that were sent.
func (f *frames) pass(p []byte) {
	for len(p) > 0 {
		if f.left > 0 {
			n := min(f.left, uint64(len(p)))
			f.left -= n
			p = p[n:]
			continue
		}
		f.head, p = append(f.head, p[0]), p[1:]
		if len(f.head) < headLength(f.head) {
			continue
		}
		f.left = payloadLength(f.head)
		if opcode := f.head[0] & 0x0f; opcode < opClose {
			f.message = f.head[0]&0x80 == 0
		}
		f.head = f.head[:0]
	}
}

// headLength returns how long a frame's head is, as far as its first bytes say.
func headLength(head []byte) int {
	if len(head) < 2 {
		return 2
	}
	length := 2
	switch head[1] & 0x7f {
	case 126:
		length += 2
	case 127:
		length += 8
	}
	if head[1]&0x80 != 0 {
		length += 4
	}
	return length
}

func payloadLength(head []byte) uint64 {
	switch short := head[1] & 0x7f; short {
	case 126:
		return uint64(binary.BigEndian.Uint16(head[2:]))
	case 127:
		return binary.BigEndian.Uint64(head[2:])
	default:
		return uint64(short)
	}
}
