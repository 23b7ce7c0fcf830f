// Package cast knows what went over a stream: how it is kept in the audit log, to the byte, and how it is shown, as an
// asciicast. It knows no network, and nothing of who may see it.
package cast

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Kind is what a frame is.
type Kind byte

const (
	// Output is what a process wrote to its standard output, or a log has.
	Output Kind = 'o'
	// Errors is what it wrote to its standard error, where that is apart.
	Errors Kind = 'e'
	// Input is what somebody typed.
	Input Kind = 'i'
	// Resize is how large the terminal became: columns, an x, rows.
	Resize Kind = 'r'
	// Status is how it ended, in the API server's words.
	Status Kind = 's'
)

// Frame is a piece of what went over a stream.
type Frame struct {
	// At is when, since the stream began.
	At   time.Duration
	Kind Kind
	Data []byte
}

const (
	// MaxPacked is how long a pack may be: in base64 it leaves room for the rest of an entry's line.
	MaxPacked = 72 << 10
	// roomy is how much is packed together that can be made smaller, and tight what always fits.
	roomy = 256 << 10
	tight = 64 << 10
	// frameHead is how long the head of a frame is at most: the time, the kind, and the length.
	frameHead = 2*binary.MaxVarintLen64 + 1
)

// packer makes packs smaller, unpacker makes them what they were. Both may be used by many at once.
var (
	packer = sync.OnceValues(func() (*zstd.Encoder, error) {
		return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(roomy))
	})
	unpacker = sync.OnceValues(func() (*zstd.Decoder, error) {
		return zstd.NewReader(nil, zstd.WithDecoderMaxMemory(2*roomy), zstd.WithDecoderConcurrency(0))
	})
)

// Pack renders frames so that they can be kept: as many packs as it takes, none longer than MaxPacked.
func Pack(frames []Frame) ([][]byte, error) {
	by, err := packer()
	if err != nil {
		return nil, fmt.Errorf("pack what went over a stream: %w", err)
	}
	var packs [][]byte
	for _, raw := range split(frames, roomy) {
		packed := by.EncodeAll(raw, nil)
		if len(packed) <= MaxPacked {
			packs = append(packs, packed)
			continue
		}
		again, err := parse(raw)
		if err != nil {
			return nil, err
		}
		for _, raw := range split(again, tight) {
			packs = append(packs, by.EncodeAll(raw, nil))
		}
	}
	return packs, nil
}

// split renders frames in parts that are no longer than a bound. A frame that does not fit is cut in two.
func split(frames []Frame, most int) [][]byte {
	var parts [][]byte
	var part []byte
	for _, f := range frames {
		for first := true; first || len(f.Data) > 0; first = false {
			if len(part)+frameHead >= most {
				parts, part = append(parts, part), nil
			}
			n := min(len(f.Data), most-len(part)-frameHead)
			part = render(part, Frame{At: f.At, Kind: f.Kind, Data: f.Data[:n]})
			f.Data = f.Data[n:]
		}
	}
	if len(part) > 0 {
		parts = append(parts, part)
	}
	return parts
}

// render adds a frame: microseconds, kind, length, bytes.
func render(to []byte, f Frame) []byte {
	to = binary.AppendUvarint(to, uint64(max(f.At, 0).Microseconds())) //nolint:gosec // Not less than 0.
	to = append(to, byte(f.Kind))
	to = binary.AppendUvarint(to, uint64(len(f.Data)))
	return append(to, f.Data...)
}

// Unpack reads a pack.
func Unpack(pack []byte) ([]Frame, error) {
	by, err := unpacker()
	if err != nil {
		return nil, fmt.Errorf("unpack what went over a stream: %w", err)
	}
	raw, err := by.DecodeAll(pack, nil)
	if err != nil {
		return nil, fmt.Errorf("unpack what went over a stream: %w", err)
	}
	return parse(raw)
}

// errBroken is what is said of a pack that somebody else has made.
var errBroken = errors.New("unpack what went over a stream: it ends in the middle")

func parse(raw []byte) ([]Frame, error) {
	var frames []Frame
	for len(raw) > 0 {
		micros, n := binary.Uvarint(raw)
		if n <= 0 || len(raw) == n || micros > uint64(1<<62)/uint64(time.Microsecond) {
			return nil, errBroken
		}
		kind := Kind(raw[n])
		raw = raw[n+1:]
		length, n := binary.Uvarint(raw)
		if n <= 0 || length > uint64(len(raw)-n) { //nolint:gosec // Not less than 0.
			return nil, errBroken
		}
		raw = raw[n:]
		frames = append(frames, Frame{At: time.Duration(micros) * time.Microsecond, Kind: kind, Data: raw[:length:length]}) //nolint:gosec // Bounded above.
		raw = raw[length:]
	}
	return frames, nil
}
