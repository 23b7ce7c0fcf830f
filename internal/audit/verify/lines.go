package verify

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/chain"
)

// longest is how long a line of an export may be: an entry with its link, or the stub of any log.
const longest = audit.MaxLine + 64<<10

// lines reads an export line by line.
type lines struct {
	scanner *bufio.Scanner
	// number is that of the line that was read last, from 1.
	number int
}

func newLines(r io.Reader) *lines {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(make([]byte, 0, 256<<10), longest)
	scanner.Split(whole)
	return &lines{scanner: scanner}
}

// whole takes what ends in a line feed, and at the end what there is. A carriage return is no part of a line's end: what is
// hashed is every byte.
func whole(data []byte, atEOF bool) (int, []byte, error) { //nolint:revive // It is how bufio asks.
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

// next returns the next line, which is good until the one after it.
func (l *lines) next() ([]byte, error) {
	l.number++
	if l.scanner.Scan() {
		return l.scanner.Bytes(), nil
	}
	err := l.scanner.Err()
	switch {
	case err == nil:
		return nil, io.EOF
	case errors.Is(err, bufio.ErrTooLong):
		return nil, &Fault{Kind: Malformed, Message: fmt.Sprintf("line %d is longer than any entry", l.number)}
	}
	return nil, fmt.Errorf("read line %d: %w", l.number, err)
}

// peek returns the link of the next entry that can be read, nil if there is none. Nothing is read after it but by look.
func (l *lines) peek() (*chain.Link, error) {
	for {
		line, err := l.next()
		if errors.Is(err, io.EOF) {
			return nil, nil //nolint:nilnil // There is no next entry.
		}
		if err != nil {
			return nil, err
		}
		if link, _, err := chain.Parse(line); err == nil {
			return &link, nil
		}
	}
}

// look reads to the end for an entry. It returns the number of the next one, and whether the one looked for is there.
func (l *lines) look(wanted int64) (next int64, found bool, err error) {
	number := l.number
	defer func() { l.number = number }()
	for {
		link, err := l.peek()
		if err != nil || link == nil {
			return next, false, err
		}
		if next == 0 {
			next = link.Seq
		}
		if link.Seq == wanted {
			return next, true, nil
		}
	}
}
