// Package chain knows how the entries of an audit log hang together: how a line names the one before it, the RFC 6962 tree
// over all of them, and the checkpoints that sign the tree. It knows no store, and not what an entry tells.
package chain

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"
)

// How each line of a log begins. What follows is the entry's own JSON, which nobody ever encodes again: what is hashed is
// the line as it is kept, byte by byte.
const (
	opening = `{"seq":`
	linking = `,"prevHash":"`
	closing = `",`
)

// hashText is how long a hash is in base64.
const hashText = (tlog.HashSize + 2) / 3 * 4

// Link is where a line has its place: its number, and the hash of the line before it. The first names no line: its hash is
// all zeros.
type Link struct {
	Seq  int64
	Prev tlog.Hash
}

// Line returns an entry with its link before what it tells. The body is a JSON object that is not empty.
func Line(link Link, body []byte) []byte {
	line := make([]byte, 0, len(opening)+len(linking)+len(closing)+hashText+20+len(body))
	line = append(line, opening...)
	line = strconv.AppendInt(line, link.Seq, 10)
	line = append(line, linking...)
	line = base64.StdEncoding.AppendEncode(line, link.Prev[:])
	line = append(line, closing...)
	return append(line, body[1:]...)
}

// errNoLine is the answer for what Line did not write.
var errNoLine = errors.New(`it does not begin with "seq" and "prevHash"`)

// IsLine says whether something claims to be a line of a log.
func IsLine(line []byte) bool { return bytes.HasPrefix(line, []byte(opening)) }

// Parse returns the link of a line, and what follows it, beginning with the name of the entry's first field. It takes a
// line as Line writes it and no other.
func Parse(line []byte) (Link, []byte, error) {
	rest, ok := bytes.CutPrefix(line, []byte(opening))
	if !ok {
		return Link{}, nil, errNoLine
	}
	number, rest, ok := bytes.Cut(rest, []byte(linking))
	if !ok || len(rest) < hashText+len(closing) || string(rest[hashText:hashText+len(closing)]) != closing {
		return Link{}, nil, errNoLine
	}
	seq, err := strconv.ParseInt(string(number), 10, 64)
	if err != nil || seq < 1 || strconv.FormatInt(seq, 10) != string(number) {
		return Link{}, nil, errors.New(`its "seq" is no number of an entry`)
	}
	link := Link{Seq: seq}
	hash, err := base64.StdEncoding.Strict().DecodeString(string(rest[:hashText]))
	if err != nil || len(hash) != tlog.HashSize {
		return Link{}, nil, errors.New(`its "prevHash" is no hash`)
	}
	copy(link.Prev[:], hash)
	return link, rest[hashText+len(closing):], nil
}
