package gateway

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"supportaccess.dev/operator/internal/audit/cast"
)

// dialect reads what goes over a stream, as it passes: what a process in a pod writes, what somebody types, and how large
// the terminal is. Where one part ends and the next begins means nothing.
type dialect interface {
	// out reads what goes to the engineer, in what comes from there.
	out(p []byte, take func(cast.Kind, []byte)) error
	in(p []byte, take func(cast.Kind, []byte)) error
}

// errUnreadable is why a stream does not go on whose contents cannot be told.
var errUnreadable = errors.New("what goes over the stream cannot be read")

// binaryChannels and textChannels are the WebSocket protocols in which the first byte of a message says of which channel it
// is. In the others a message is all of it.
var (
	binaryChannels = []string{"", "channel.k8s.io", "v2.channel.k8s.io", "v3.channel.k8s.io", "v4.channel.k8s.io", "v5.channel.k8s.io"}
	textChannels   = []string{"base64.channel.k8s.io", "v4.base64.channel.k8s.io"}
)

// dialectOf returns how a stream is read that the API server has agreed to.
func dialectOf(x *exchange, answered http.Header) (dialect, error) {
	protocol, process := answered.Get("Sec-Websocket-Protocol"), slices.Contains(terminals, x.info.Subresource)
	switch upgrade := strings.ToLower(answered.Get("Upgrade")); {
	case upgrade == "spdy/3.1" && process:
		return newSPDY(), nil
	case upgrade != "websocket" || answered.Get("Sec-Websocket-Extensions") != "":
		return nil, fmt.Errorf("%w: the protocol is %q", errUnreadable, upgrade)
	case process && slices.Contains(binaryChannels, protocol):
		return &channels{}, nil
	case process && slices.Contains(textChannels, protocol):
		return &channels{text: true}, nil
	case !process && (protocol == "" || protocol == "binary.k8s.io"):
		return &lines{}, nil
	case !process && protocol == "base64.binary.k8s.io":
		return &lines{text: true}, nil
	}
	return nil, fmt.Errorf("%w: the subprotocol is %q", errUnreadable, protocol)
}

// messages follows WebSocket messages as they pass (RFC 6455, section 5).
type messages struct {
	head []byte
	left uint64
	mask []byte
	// at is how much of a frame's payload has passed, as far as its mask cares.
	at int
	// silent says that the frame is no part of a message; fresh that a message begins.
	silent, fresh bool
}

// pass reads bytes that pass, and hands over what is in messages.
func (m *messages) pass(p []byte, take func(fresh bool, payload []byte) error) error {
	for len(p) > 0 {
		if m.left == 0 {
			m.head, p = append(m.head, p[0]), p[1:]
			if len(m.head) < headLength(m.head) {
				continue
			}
			if err := m.begin(); err != nil {
				return err
			}
			continue
		}
		n := int(min(m.left, uint64(len(p)))) //nolint:gosec // At most what there is.
		payload := p[:n]
		m.left, p = m.left-uint64(n), p[n:] //nolint:gosec // Not less than 0.
		if m.silent {
			continue
		}
		fresh := m.fresh
		m.fresh = false
		if err := take(fresh, m.unmask(payload)); err != nil {
			return err
		}
	}
	return nil
}

// begin takes note of a frame's head.
func (m *messages) begin() error {
	opcode := m.head[0] & 0x0f
	if m.head[0]&0x70 != 0 {
		return fmt.Errorf("%w: it is compressed", errUnreadable)
	}
	m.left, m.mask, m.at = payloadLength(m.head), nil, 0
	if m.head[1]&0x80 != 0 {
		m.mask = slices.Clone(m.head[len(m.head)-4:])
	}
	m.silent = opcode >= opClose
	if opcode == opText || opcode == opBinary {
		m.fresh = true
	}
	m.head = m.head[:0]
	return nil
}

// unmask returns a payload as it was before it was masked, and leaves what passes as it is.
func (m *messages) unmask(payload []byte) []byte {
	if m.mask == nil {
		return payload
	}
	plain := make([]byte, len(payload))
	for i, b := range payload {
		plain[i] = b ^ m.mask[(m.at+i)%4]
	}
	m.at = (m.at + len(payload)) % 4
	return plain
}

// letters reads base64 that comes in parts.
type letters struct{ held []byte }

func (l *letters) read(fresh bool, p []byte) ([]byte, error) { //nolint:revive // A message begins or goes on.
	if fresh {
		l.held = l.held[:0]
	}
	l.held = append(l.held, p...)
	whole := len(l.held) / 4 * 4
	plain := make([]byte, base64.StdEncoding.DecodedLen(whole))
	n, err := base64.StdEncoding.Decode(plain, l.held[:whole])
	if err != nil {
		return nil, fmt.Errorf("%w: it is no base64", errUnreadable)
	}
	l.held = append(l.held[:0], l.held[whole:]...)
	return plain[:n], nil
}

// lines is the dialect in which a message is a part of a log.
type lines struct {
	text    bool
	passing messages
	letters letters
}

func (l *lines) out(p []byte, take func(cast.Kind, []byte)) error {
	return l.passing.pass(p, func(fresh bool, payload []byte) error {
		if l.text {
			var err error
			if payload, err = l.letters.read(fresh, payload); err != nil {
				return err
			}
		}
		take(cast.Output, payload)
		return nil
	})
}

func (l *lines) in([]byte, func(cast.Kind, []byte)) error { return nil }

// channels is the dialect in which the first byte of a message says of which channel it is.
type channels struct {
	text   bool
	up     side
	down   side
	resize sizes
}

// side is one direction.
type side struct {
	messages messages
	letters  letters
	channel  byte
}

// Channels by their numbers; that of errors is channelError.
const (
	channelInput = iota
	channelOutput
	channelErrors
	_
	channelResize
)

func (c *channels) out(p []byte, take func(cast.Kind, []byte)) error {
	return c.down.pass(p, c.text, func(channel byte, data []byte) {
		switch channel {
		case channelOutput:
			take(cast.Output, data)
		case channelErrors:
			take(cast.Errors, data)
		case channelError:
			take(cast.Status, data)
		}
	})
}

func (c *channels) in(p []byte, take func(cast.Kind, []byte)) error {
	return c.up.pass(p, c.text, func(channel byte, data []byte) {
		switch channel {
		case channelInput:
			take(cast.Input, data)
		case channelResize:
			c.resize.read(data, take)
		}
	})
}

func (s *side) pass(p []byte, text bool, take func(channel byte, data []byte)) error { //nolint:revive // Two protocols differ in this alone.
	return s.messages.pass(p, func(fresh bool, payload []byte) error {
		if fresh {
			s.channel, payload = payload[0], payload[1:]
			if text {
				s.channel -= '0'
			}
		}
		if text {
			var err error
			if payload, err = s.letters.read(fresh, payload); err != nil {
				return err
			}
		}
		if len(payload) > 0 {
			take(s.channel, payload)
		}
		return nil
	})
}

// sizes reads how large a terminal is: objects in JSON, one after another.
type sizes struct{ held []byte }

// maxSize is how long such an object may be. What is longer is none.
const maxSize = 1 << 10

func (s *sizes) read(p []byte, take func(cast.Kind, []byte)) {
	for len(p) > 0 {
		end := bytes.IndexByte(p, '}')
		if end < 0 {
			s.held = append(s.held, p[:min(len(p), maxSize)]...)
			if len(s.held) > maxSize {
				s.held = nil
			}
			return
		}
		object := append(s.held, p[:end+1]...) //nolint:gocritic // What was held is used up.
		s.held, p = nil, p[end+1:]
		size := struct{ Width, Height uint16 }{}
		if json.Unmarshal(object, &size) == nil && size.Width > 0 && size.Height > 0 {
			take(cast.Resize, fmt.Appendf(nil, "%dx%d", size.Width, size.Height))
		}
	}
}
