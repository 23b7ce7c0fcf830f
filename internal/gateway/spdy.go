package gateway

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/moby/spdystream/spdy"

	"supportaccess.dev/operator/internal/audit/cast"
)

// spdyStreams is the dialect of SPDY/3.1, in which the client opens a stream for each of what the others call channels.
type spdyStreams struct {
	up, down spdySide
	// kinds says what each stream carries.
	kinds  map[uint32]string
	resize sizes
}

// streamType is the header by which a client says what a stream carries.
const streamType = "Streamtype"

func newSPDY() *spdyStreams {
	s := &spdyStreams{kinds: map[uint32]string{}}
	s.up.begins = func(stream uint32, kind string) { s.kinds[stream] = kind }
	s.down.begins = func(uint32, string) {}
	return s
}

func (s *spdyStreams) out(p []byte, take func(cast.Kind, []byte)) error {
	return s.down.pass(p, func(stream uint32, data []byte) {
		switch s.kinds[stream] {
		case "stdout":
			take(cast.Output, data)
		case "stderr":
			take(cast.Errors, data)
		case "error":
			take(cast.Status, data)
		}
	})
}

func (s *spdyStreams) in(p []byte, take func(cast.Kind, []byte)) error {
	return s.up.pass(p, func(stream uint32, data []byte) {
		switch s.kinds[stream] {
		case "stdin":
			take(cast.Input, bytes.Clone(data))
		case "resize":
			s.resize.read(data, take)
		}
	})
}

// spdySide follows the frames of one direction.
type spdySide struct {
	// begins is told of each stream that is opened.
	begins func(stream uint32, kind string)

	head []byte
	// left is how much of a data frame is still to pass, and stream whose it is.
	left   int
	stream uint32
	// control is what has passed of a control frame, wanted how long it is.
	control []byte
	wanted  int
	// framer reads control frames: their headers are compressed with a state that goes from one to the next.
	framer *spdy.Framer
	feed   bytes.Buffer
}

const (
	spdyHead = 8
	// maxControl is how long a control frame may be.
	maxControl = 64 << 10
)

func (s *spdySide) pass(p []byte, take func(stream uint32, data []byte)) error {
	for len(p) > 0 {
		var n int
		switch {
		case s.left > 0:
			n = min(s.left, len(p))
			take(s.stream, p[:n])
			s.left -= n
		case s.wanted > 0:
			n = min(s.wanted-len(s.control), len(p))
			s.control = append(s.control, p[:n]...)
		default:
			n = min(spdyHead-len(s.head), len(p))
			s.head = append(s.head, p[:n]...)
		}
		p = p[n:]
		if err := s.advance(); err != nil {
			return err
		}
	}
	return nil
}

// advance goes on to what follows, where something has ended.
func (s *spdySide) advance() error {
	if len(s.head) == spdyHead {
		length := int(binary.BigEndian.Uint32(s.head[4:]) & 0x00ffffff)
		if s.head[0]&0x80 == 0 {
			s.stream, s.left = binary.BigEndian.Uint32(s.head), length
		} else {
			s.control, s.wanted = append(s.control[:0], s.head...), spdyHead+length
		}
		s.head = s.head[:0]
	}
	if s.wanted > maxControl {
		return fmt.Errorf("%w: a control frame has %d bytes", errUnreadable, s.wanted)
	}
	if s.wanted == 0 || len(s.control) < s.wanted {
		return nil
	}
	s.wanted = 0
	return s.read()
}

// read reads a control frame that is there as a whole.
func (s *spdySide) read() error {
	if s.framer == nil {
		framer, err := spdy.NewFramer(io.Discard, &s.feed)
		if err != nil {
			return fmt.Errorf("%w: %w", errUnreadable, err)
		}
		s.framer = framer
	}
	s.feed.Reset()
	_, _ = s.feed.Write(s.control)
	frame, err := s.framer.ReadFrame()
	if err != nil {
		return fmt.Errorf("%w: %w", errUnreadable, err)
	}
	if opened, ok := frame.(*spdy.SynStreamFrame); ok {
		s.begins(uint32(opened.StreamId), opened.Headers.Get(streamType))
	}
	return nil
}
