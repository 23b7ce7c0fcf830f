package cast_test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"supportaccess.dev/operator/internal/audit/cast"
)

// noise is what cannot be packed any smaller.
func noise(n int) []byte {
	source := rand.NewChaCha8([32]byte{7})
	out := make([]byte, n)
	_, _ = source.Read(out)
	return out
}

func TestWhatIsPackedIsUnpackedToTheByteAndFitsIntoAnEntry(t *testing.T) {
	many := make([]cast.Frame, 100_000)
	for i := range many {
		many[i] = cast.Frame{At: time.Duration(i) * time.Millisecond, Kind: []cast.Kind{cast.Output, cast.Errors}[i%2], Data: []byte{byte(i)}}
	}
	for name, frames := range map[string][]cast.Frame{
		"nothing":         nil,
		"a letter":        {{At: time.Second, Kind: cast.Output, Data: []byte("a")}},
		"all kinds":       {{Kind: cast.Resize, Data: []byte("80x24")}, {Kind: cast.Input, Data: []byte("ls\n")}, {At: time.Hour, Kind: cast.Status, Data: []byte("{}")}},
		"a large zero":    {{Kind: cast.Output, Data: make([]byte, 3<<20)}},
		"large noise":     {{Kind: cast.Output, Data: noise(3 << 20)}, {At: time.Minute, Kind: cast.Errors, Data: noise(1 << 20)}},
		"many of a byte":  many,
		"noise and zeros": {{Kind: cast.Output, Data: noise(100 << 10)}, {Kind: cast.Output, Data: make([]byte, 1<<20)}, {Kind: cast.Output, Data: noise(1)}},
	} {
		t.Run(name, func(t *testing.T) {
			packs, err := cast.Pack(frames)
			if err != nil {
				t.Fatal(err)
			}
			var got []cast.Frame
			for _, pack := range packs {
				if len(pack) > cast.MaxPacked {
					t.Errorf("a pack has %d bytes", len(pack))
				}
				some, err := cast.Unpack(pack)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, some...)
			}
			if !bytes.Equal(flat(got), flat(frames)) {
				t.Errorf("%d frames came back as %d others", len(frames), len(got))
			}
		})
	}
}

// flat renders frames so that it does not matter where one was cut in two.
func flat(frames []cast.Frame) []byte {
	var out []byte
	last := cast.Frame{At: -1}
	for _, f := range frames {
		if f.At != last.At || f.Kind != last.Kind {
			out = append(out, "|"+f.At.String()+string(rune(f.Kind))+"|"...)
		}
		out, last = append(out, f.Data...), f
	}
	return out
}

func TestAPackThatSomebodyElseMadeIsAnErrorAndNothingWorse(t *testing.T) {
	packs, err := cast.Pack([]cast.Frame{{Kind: cast.Output, Data: []byte("hello")}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range packs[0] {
		broken := bytes.Clone(packs[0])
		broken[i] ^= 0x55
		if frames, err := cast.Unpack(broken); err == nil && len(frames) == 1 && string(frames[0].Data) == "hello" && i > 8 {
			t.Errorf("with byte %d changed it is the same", i)
		}
		if _, err := cast.Unpack(packs[0][:i]); err == nil && i > 0 {
			t.Errorf("%d bytes of it are a pack", i)
		}
	}
}

// written returns an asciicast of frames.
func written(t testing.TB, frames []cast.Frame) string {
	t.Helper()
	var out bytes.Buffer
	w, err := cast.NewWriter(&out, cast.Header{Width: 80, Height: 24})
	for _, f := range frames {
		if err == nil {
			err = w.Frame(f)
		}
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// read returns what an asciicast has of each code.
func read(t testing.TB, text string) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := cast.Read(strings.NewReader(text), func(cast.Header) error { return nil }, func(e cast.Event) error {
		code := e.Code
		if e.Errors {
			code += " stderr"
		}
		got[code] += string(e.Data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestAnAsciicastHasEveryByteHoweverLettersAreCut(t *testing.T) {
	for name, text := range map[string]string{
		"letters":   "grüße, 世界 🚀!\r\n\x1b[31mred\x1b[0m\x00",
		"no UTF-8":  "a\xff\xfeb\xe2\x80\xe2\x80\xa6\xf0\x9f",
		"all bytes": string(noise(300)),
	} {
		for cut := 1; cut < 6; cut++ {
			var frames []cast.Frame
			for at := 0; at < len(text); at += cut {
				part := []byte(text[at:min(at+cut, len(text))])
				frames = append(frames, cast.Frame{At: time.Duration(at) * time.Millisecond, Kind: cast.Output, Data: part},
					cast.Frame{At: time.Duration(at) * time.Millisecond, Kind: cast.Errors, Data: part}, cast.Frame{Kind: cast.Resize, Data: []byte("9x9")})
			}
			out := written(t, frames)
			got := read(t, out)
			if got["o"] != text || got["o stderr"] != text {
				t.Errorf("%s, cut after %d: %q and %q, want %q", name, cut, got["o"], got["o stderr"], text)
			}
			if shown := shownBy(t, out); utf8.ValidString(text) && shown != text+text && len(shown) != 2*len(text) {
				t.Errorf("%s, cut after %d: a player shows %q", name, cut, shown)
			}
		}
	}
}

// shownBy is what a player shows that knows nothing of us.
func shownBy(t testing.TB, text string) string {
	t.Helper()
	lines, shown := strings.Split(strings.TrimSpace(text), "\n"), ""
	for _, line := range lines[1:] {
		var event []any
		if err := json.Unmarshal([]byte(line), &event); err != nil || len(event) != 3 {
			t.Fatalf("%q is no event: %v", line, err)
		}
		if event[1] == "o" {
			shown += event[2].(string)
		}
	}
	return shown
}

func FuzzWhatIsKeptIsPlayedToTheByte(f *testing.F) {
	f.Add([]byte("hello"), uint8(1))
	f.Add([]byte("a\xff\xe2\x80"), uint8(2))
	f.Add([]byte("世界"), uint8(4))
	f.Fuzz(func(t *testing.T, data []byte, cut uint8) {
		var frames []cast.Frame
		for rest := data; len(rest) > 0; {
			n := min(len(rest), int(cut)+1)
			frames = append(frames, cast.Frame{Kind: cast.Output, Data: rest[:n]})
			rest = rest[n:]
		}
		packs, err := cast.Pack(frames)
		if err != nil {
			t.Fatal(err)
		}
		var again []cast.Frame
		for _, pack := range packs {
			some, err := cast.Unpack(pack)
			if err != nil {
				t.Fatal(err)
			}
			again = append(again, some...)
		}
		if got := read(t, written(t, again))["o"]; got != string(data) {
			t.Errorf("%q was played as %q", data, got)
		}
	})
}
