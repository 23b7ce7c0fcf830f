package cast

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"
)

// MediaType is that of an asciicast.
const MediaType = "application/x-asciicast"

// Header is the first line of an asciicast of version 2.
type Header struct {
	Version int `json:"version"`
	// Width and Height are how large the terminal was at first.
	Width  int `json:"width"`
	Height int `json:"height"`
	// Timestamp is when it began, in seconds.
	Timestamp int64  `json:"timestamp,omitempty"`
	Command   string `json:"command,omitempty"`
	Title     string `json:"title,omitempty"`
}

// Codes of events. Those of asciicast are o for output, i for input, r for the size of the terminal, m for a mark. Three are our own,
// which players pass over: b has the bytes of the event that follows, in base64, where they are no UTF-8; e says that the
// event that follows was written to standard error; s is how the stream ended, in the API server's words.
const (
	codeBytes  = "b"
	codeErrors = "e"
	codeMark   = "m"
)

// Writer writes an asciicast.
type Writer struct {
	to io.Writer
	// held are the first bytes of a letter whose others come later, by what they are part of.
	held map[Kind][]byte
	last time.Duration
}

// NewWriter begins an asciicast.
func NewWriter(to io.Writer, h Header) (*Writer, error) {
	h.Version = 2
	w := &Writer{to: to, held: map[Kind][]byte{}}
	return w, w.line(h)
}

// Frame writes what went over a stream.
func (w *Writer) Frame(f Frame) error {
	w.last = max(w.last, f.At)
	switch f.Kind {
	case Output, Errors, Input:
		data := append(w.held[f.Kind], f.Data...)
		whole := len(data) - begun(data)
		w.held[f.Kind] = bytes.Clone(data[whole:])
		return w.text(f.Kind, data[:whole])
	case Resize, Status:
		return w.event(string(f.Kind), string(f.Data))
	}
	return fmt.Errorf("write an asciicast: %q is no kind of frame", f.Kind)
}

// begun returns how many bytes at the end are the beginning of a letter of which more may come.
func begun(data []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(data); n++ {
		if last := data[len(data)-n:]; utf8.RuneStart(last[0]) {
			if utf8.FullRune(last) {
				return 0
			}
			return n
		}
	}
	return 0
}

func (w *Writer) text(kind Kind, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if kind == Errors {
		if err := w.event(codeErrors, "stderr"); err != nil {
			return err
		}
		kind = Output
	}
	if !utf8.Valid(data) {
		if err := w.event(codeBytes, base64.StdEncoding.EncodeToString(data)); err != nil {
			return err
		}
		data = bytes.ToValidUTF8(data, []byte("\uFFFD"))
	}
	return w.event(string(kind), string(data))
}

// Mark says something that is to be seen beside what went over the stream.
func (w *Writer) Mark(says string) error { return w.event(codeMark, says) }

// Close writes what is left.
func (w *Writer) Close() error {
	var failed []error
	for _, kind := range []Kind{Output, Errors, Input} {
		failed = append(failed, w.text(kind, w.held[kind]))
	}
	return errors.Join(failed...)
}

func (w *Writer) event(code, data string) error {
	return w.line([]any{json.RawMessage(fmt.Sprintf("%.6f", w.last.Seconds())), code, data})
}

func (w *Writer) line(value any) error {
	var line bytes.Buffer
	encoder := json.NewEncoder(&line)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("write an asciicast: %w", err)
	}
	_, err := w.to.Write(line.Bytes())
	return err
}

// Event is one event of an asciicast, to the byte.
type Event struct {
	At   time.Duration
	Code string
	Data []byte
	// Errors says that it was written to standard error.
	Errors bool
}

// maxEvent is how long the line of an event may be: a pack in escapes of six letters each, with room.
const maxEvent = 8 * roomy

// Read reads an asciicast as a Writer writes it.
func Read(from io.Reader, begin func(Header) error, do func(Event) error) error {
	lines := bufio.NewScanner(from)
	lines.Buffer(make([]byte, 0, 64<<10), maxEvent)
	var h Header
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &h) != nil || h.Version != 2 {
		return errors.Join(errors.New("read an asciicast: it does not begin like one of version 2"), lines.Err())
	}
	if err := begin(h); err != nil {
		return err
	}
	next := Event{}
	for lines.Scan() {
		e, err := eventOf(lines.Bytes())
		if err != nil {
			return err
		}
		switch e.Code {
		case codeErrors:
			next.Errors = true
			continue
		case codeBytes:
			if next.Data, err = base64.StdEncoding.DecodeString(string(e.Data)); err != nil {
				return fmt.Errorf("read an asciicast: the bytes of an event: %w", err)
			}
			continue
		}
		if next.At, next.Code = e.At, e.Code; next.Data == nil {
			next.Data = e.Data
		}
		if err := do(next); err != nil {
			return err
		}
		next = Event{}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read an asciicast, of which this is not all: %w", err)
	}
	return nil
}

// eventOf reads one line. What says something of the line that follows is an event here, too.
func eventOf(line []byte) (Event, error) {
	var parts [3]json.RawMessage
	var seconds float64
	var code, data string
	err := json.Unmarshal(line, &parts)
	for i, into := range []any{&seconds, &code, &data} {
		if err == nil {
			err = json.Unmarshal(parts[i], into)
		}
	}
	if err != nil {
		return Event{}, fmt.Errorf("read an asciicast: an event: %w", err)
	}
	if code == "" {
		return Event{}, errors.New("read an asciicast: an event has no code")
	}
	return Event{At: time.Duration(seconds * float64(time.Second)), Code: code, Data: []byte(data)}, nil
}
