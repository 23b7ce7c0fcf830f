package cast

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"supportaccess.dev/operator/internal/audit"
)

// ErrNone is the answer where there is no recording.
var ErrNone = errors.New("there is no such recording")

// Play writes the recording of a request, as an asciicast. The query says which, and may say of which namespace. What is
// missing of it is said in it.
func Play(ctx context.Context, from audit.Finder, query audit.Query, to io.Writer) error {
	found, err := numbersOf(ctx, from, query)
	if err != nil {
		return err
	}
	p := player{to: to, early: map[int64]*audit.Entry{}}
	for group := range slices.Chunk(found, together) {
		query.Above, query.Below, query.Limit = group[0]-1, group[len(group)-1]+1, len(group)
		page, err := from.Find(ctx, query)
		if err != nil {
			return err
		}
		for _, line := range slices.Backward(page.Lines) {
			if err := p.line(line.Text); err != nil {
				return fmt.Errorf("play entry %d: %w", line.Seq, err)
			}
		}
	}
	return p.end()
}

// together is how many pieces are read at once.
const together = 16

// numbersOf returns the numbers of the entries of a recording, in their order.
func numbersOf(ctx context.Context, from audit.Finder, query audit.Query) ([]int64, error) {
	var found []int64
	query.Limit = together
	err := audit.Each(ctx, from, query, func(line audit.Line) error {
		found = append(found, line.Seq)
		return nil
	})
	slices.Reverse(found)
	return found, err
}

// player puts the pieces of one recording together.
type player struct {
	to     io.Writer
	writer *Writer
	// next is the number of the piece that comes next, early are pieces that stand before it in the log: those that became
	// durable together stand in any order.
	next  int64
	early map[int64]*audit.Entry
	// last is the entry of the request's end.
	last *audit.Entry
}

// maxEarly is how many pieces may stand before the one that comes next. Where there are more, that one is missing.
const maxEarly = 64

func (p *player) line(text []byte) error {
	entry := &audit.Entry{}
	if err := json.Unmarshal(text, entry); err != nil {
		return err
	}
	if entry.Recording == nil {
		return nil
	}
	if entry.Type != audit.TypeRecording {
		p.last = entry
		return nil
	}
	p.early[entry.Recording.Piece] = entry
	return p.ready(maxEarly)
}

// ready plays the pieces that come next, and passes over what is missing where more than so many wait for it.
func (p *player) ready(patience int) error {
	for {
		entry := p.early[p.next+1]
		if entry == nil {
			if len(p.early) <= patience {
				return nil
			}
			if err := p.missing(); err != nil {
				return err
			}
			continue
		}
		p.next++
		delete(p.early, p.next)
		if err := p.piece(entry); err != nil {
			return err
		}
	}
}

// missing says that pieces are missing, up to the first that is there.
func (p *player) missing() error {
	first := int64(0)
	for piece := range p.early {
		if first == 0 || piece < first {
			first = piece
		}
	}
	if err := p.begin(p.early[first], nil); err != nil {
		return err
	}
	from := p.next + 1
	p.next = first - 1
	return p.writer.Mark(fmt.Sprintf("pieces %d to %d are not in the log: they were removed as old, or somebody took them away", from, p.next))
}

func (p *player) piece(entry *audit.Entry) error {
	frames, err := Unpack(entry.Recording.Frames)
	if err != nil {
		return err
	}
	if err := p.begin(entry, frames); err != nil {
		return err
	}
	for _, f := range frames {
		if err := p.writer.Frame(f); err != nil {
			return err
		}
	}
	return nil
}

// begin writes the header, if that was not done.
func (p *player) begin(entry *audit.Entry, frames []Frame) error {
	if p.writer != nil {
		return nil
	}
	h := Header{Width: 80, Height: 24, Timestamp: entry.RequestReceivedTimestamp.Unix(), Command: strings.Join(entry.Command, " "), Title: titleOf(entry)}
	for _, f := range frames {
		if f.Kind == Resize {
			_, _ = fmt.Sscanf(string(f.Data), "%dx%d", &h.Width, &h.Height)
			break
		}
	}
	var err error
	p.writer, err = NewWriter(p.to, h)
	return err
}

// titleOf says whose recording it is: who, under which grant, in which pod.
func titleOf(e *audit.Entry) string {
	title := e.Engineer + ", grant " + e.Grant.Namespace + "/" + e.Grant.Name
	if e.ObjectRef != nil {
		title += ", " + e.ObjectRef.Subresource + " of pod " + e.ObjectRef.Namespace + "/" + e.ObjectRef.Name
	}
	return title
}

// end plays what is left, and says what the log says of the whole.
func (p *player) end() error {
	if p.next == 0 && len(p.early) == 0 {
		return p.nothing()
	}
	if err := p.ready(0); err != nil {
		return err
	}
	if err := p.writer.Close(); err != nil {
		return err
	}
	switch last := p.last; {
	case last == nil:
		return p.writer.Mark("the end of the request is not in the log: it goes on, or the gateway was stopped")
	case last.Recording.Pieces > p.next:
		return p.writer.Mark(fmt.Sprintf("pieces %d to %d are not in the log", p.next+1, last.Recording.Pieces))
	default:
		return p.omitted()
	}
}

// nothing is the answer where there is no piece: of a log of which none is kept there is the end alone.
func (p *player) nothing() error {
	if p.last == nil {
		return ErrNone
	}
	if err := p.begin(p.last, nil); err != nil {
		return err
	}
	if pieces := p.last.Recording.Pieces; pieces > 0 {
		return p.writer.Mark(fmt.Sprintf("pieces 1 to %d are not in the log: they were removed as old, or somebody took them away", pieces))
	}
	return p.omitted()
}

func (p *player) omitted() error {
	said := p.last.Recording
	if said.Omitted == 0 {
		return nil
	}
	return p.writer.Mark(fmt.Sprintf("%d bytes more came, which are not kept; the SHA-256 of all %d is %s", said.Omitted, said.Bytes+said.Omitted, said.SHA256))
}
