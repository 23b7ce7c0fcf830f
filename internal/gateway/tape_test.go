package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/moby/spdystream/spdy"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/cast"
	"supportaccess.dev/operator/test/gen"
)

// Find has a log in memory be played.
func (l *memoryLog) Find(_ context.Context, q audit.Query) (audit.Page, error) {
	var found audit.Page
	for i, e := range l.all() {
		e.Seq = int64(i + 1)
		f := audit.FacetsOf(&e)
		if q.Matches(&f) && (q.Above == 0 || e.Seq > q.Above) && (q.Below == 0 || e.Seq < q.Below) {
			text, err := json.Marshal(e)
			if err != nil {
				return found, err
			}
			found.Lines = append([]audit.Line{{Seq: e.Seq, Text: text}}, found.Lines...)
		}
	}
	return found, nil
}

// played is what the log has of the one stream in it, by the code of asciicast, errors apart.
func (w *world) played() (map[string]string, cast.Header) {
	w.t.Helper()
	entries := w.log.all()
	var out bytes.Buffer
	if err := cast.Play(w.t.Context(), w.log, audit.Query{Recording: string(entries[len(entries)-1].AuditID)}, &out); err != nil {
		w.t.Fatal(err)
	}
	var header cast.Header
	got := map[string]string{}
	err := cast.Read(&out, func(h cast.Header) error { header = h; return nil }, func(e cast.Event) error {
		code := e.Code
		if e.Errors {
			code = "e"
		}
		got[code] += string(e.Data)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return got, header
}

// dials opens a WebSocket into a pod.
func (w *world) dials(token, path, protocol string) *websocket.Conn {
	w.t.Helper()
	dialer := websocket.Dialer{TLSClientConfig: &tls.Config{RootCAs: w.roots}}
	if protocol != "" {
		dialer.Subprotocols = []string{protocol}
	}
	conn, response, err := dialer.Dial("wss://"+w.address+"/api/v1/namespaces/mail-archive/pods/a/"+path, http.Header{"Authorization": {"Bearer " + token}})
	if err != nil {
		w.t.Fatalf("%v: %v", err, response)
	}
	_ = response.Body.Close()
	w.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	return conn
}

// serves has the API server speak a protocol over WebSocket and then close.
func (w *world) serves(protocol string, speak func(*websocket.Conn)) {
	w.answers(func(response http.ResponseWriter, r *http.Request) {
		upgrader := websocket.Upgrader{}
		if protocol != "" {
			upgrader.Subprotocols = []string{protocol}
		}
		conn, err := upgrader.Upgrade(response, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		speak(conn)
		_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(patience))
	})
}

// isOver waits until the end of the last request is on record.
func (w *world) isOver(t *testing.T) audit.Entry {
	t.Helper()
	var last audit.Entry
	eventually(t, "the stream's end is on record", func() bool {
		entries := w.log.all()
		last = entries[len(entries)-1]
		return last.Stage == "ResponseComplete"
	})
	return last
}

func TestWhatACommandPrintsIsOnRecordToTheByteAndWhatIsTypedIsNot(t *testing.T) {
	noise := make([]byte, 300<<10)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	for protocol, text := range map[string]bool{"v5.channel.k8s.io": false, "v4.channel.k8s.io": false, "": false, "v4.base64.channel.k8s.io": true, "base64.channel.k8s.io": true} {
		t.Run(protocol, func(t *testing.T) {
			w := open(t)
			g := w.grant("case-1", gen.WithRoles(gen.Content))
			w.serves(protocol, func(conn *websocket.Conn) {
				_, _, _ = conn.ReadMessage()
				_, _, _ = conn.ReadMessage()
				for rest := noise; len(rest) > 0; rest = rest[min(len(rest), 7777):] {
					says(conn, text, 1, rest[:min(len(rest), 7777)])
					says(conn, text, 2, []byte("half of \xe2"))
				}
				says(conn, text, 3, []byte(`{"status":"Success"}`))
			})
			conn := w.dials(g.token, "exec?command=sh&command=-c&command=true&stdout=true&stderr=true&stdin=true", protocol)
			says(conn, text, 4, []byte(`{"Width":100,"Height":40}`))
			says(conn, text, 0, []byte("canary-of-what-is-typed"))
			heard := hears(conn, text)
			if !bytes.Equal(heard[1], noise) {
				t.Errorf("the client got %d bytes, want %d", len(heard[1]), len(noise))
			}
			last := w.isOver(t)
			got, header := w.played()
			for channel, code := range map[byte]string{1: "o", 2: "e", 3: "s"} {
				if got[code] != string(heard[channel]) || got[code] == "" {
					t.Errorf("of %q %d bytes are on record, the client got %d", code, len(got[code]), len(heard[channel]))
				}
			}
			if _, typed := got["i"]; typed || got["r"] != "100x40" || got["m"] != "" {
				t.Errorf("on record are input %q, size %q, marks %q", got["i"], got["r"], got["m"])
			}
			if header.Width != 100 || header.Height != 40 || header.Command != "sh -c true" || !strings.Contains(header.Title, "exec of pod mail-archive/a") {
				t.Errorf("it begins with %+v", header)
			}
			if r := last.Recording; r == nil || r.Bytes != int64(len(heard[1])+len(heard[2])) || r.Pieces == 0 || r.Omitted != 0 {
				t.Errorf("its end says %+v", last.Recording)
			}
		})
	}
}

// says sends a message on a channel.
func says(conn *websocket.Conn, text bool, channel byte, data []byte) { //nolint:revive // Two protocols differ in this alone.
	kind, message := websocket.BinaryMessage, append([]byte{channel}, data...)
	if text {
		kind, message = websocket.TextMessage, append([]byte{channel + '0'}, base64.StdEncoding.EncodeToString(data)...)
	}
	_ = conn.WriteMessage(kind, message)
}

// hears returns what comes on each channel until there is no more.
func hears(conn *websocket.Conn, text bool) map[byte][]byte { //nolint:revive // As above.
	heard := map[byte][]byte{}
	for {
		_, message, err := conn.ReadMessage()
		if err != nil {
			return heard
		}
		channel, data := message[0], message[1:]
		if text {
			channel -= '0'
			data, _ = base64.StdEncoding.DecodeString(string(data))
		}
		heard[channel] = append(heard[channel], data...)
	}
}

func TestWhatIsTypedIsOnRecordBeforeItGoesOnWhereThePolicySaysSo(t *testing.T) {
	w := open(t)
	change(w, gen.Policy("default"), func(p *v1alpha1.SupportAccessPolicy) {
		p.Spec.Recording = &v1alpha1.Recording{Input: v1alpha1.InputAlways}
	})
	g := w.grant("case-1", gen.WithRoles(gen.Content))
	onRecord := make(chan bool, 2)
	w.serves("v5.channel.k8s.io", func(conn *websocket.Conn) {
		for range 2 {
			_, message, _ := conn.ReadMessage()
			got, _ := w.played()
			onRecord <- strings.Contains(got["i"], string(message[1:]))
		}
		says(conn, false, 1, []byte("out"))
	})
	conn := w.dials(g.token, "exec?command=sh&stdin=true&tty=true&stdout=true", "v5.channel.k8s.io")
	says(conn, false, 0, []byte("ls -l\r"))
	says(conn, false, 0, []byte("exit\r"))
	hears(conn, false)
	w.isOver(t)
	if first, second := <-onRecord, <-onRecord; !first || !second {
		t.Errorf("what was typed reached the pod before the record: %v, %v", first, second)
	}
	if got, _ := w.played(); got["i"] != "ls -l\rexit\r" || got["o"] != "out" {
		t.Errorf("on record are %q", got)
	}
}

func TestAStreamThatCannotBePutOnRecordEndsAndNothingOfItGoesOn(t *testing.T) {
	w := open(t)
	g := w.grant("case-1", gen.WithRoles(gen.Content))
	broken := make(chan struct{})
	w.serves("v5.channel.k8s.io", func(conn *websocket.Conn) {
		says(conn, false, 1, []byte("before"))
		<-broken
		for range 1000 {
			says(conn, false, 1, []byte("after"))
		}
	})
	conn := w.dials(g.token, "exec?command=sh&stdout=true", "v5.channel.k8s.io")
	if _, message, err := conn.ReadMessage(); err != nil || string(message) != "\x01before" {
		t.Fatalf("got %q, %v", message, err)
	}
	w.log.fail()
	close(broken)
	heard := hears(conn, false)
	if len(heard[1]) > 0 || !strings.Contains(string(heard[channelError]), "Unrecorded") {
		t.Errorf("after the log was broken the client got %q", heard)
	}
	eventually(t, "nobody is connected", func() bool { return w.gateway.connections.count() == 0 })
}

func TestOfALogAsMuchIsOnRecordAsThePolicySaysAndOfTheRestHowMuch(t *testing.T) {
	text := strings.Repeat("a line of a log\n", 4096)
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
	for name, c := range map[string]struct {
		says *v1alpha1.Recording
		want int
	}{
		"by default a MiB":   {nil, len(text)},
		"as much as it says": {&v1alpha1.Recording{MaxLogBytes: new(int64(1000))}, 1000},
		"nothing":            {&v1alpha1.Recording{MaxLogBytes: new(int64(0))}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := open(t)
			change(w, gen.Policy("default"), func(p *v1alpha1.SupportAccessPolicy) { p.Spec.Recording = c.says })
			g := w.grant("case-1", gen.WithRoles(gen.Diagnostics))
			w.answers(func(response http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(response, text) })
			if code, body := w.get(g.token, "/api/v1/namespaces/mail-archive/pods/a/log?follow=true"); code != http.StatusOK || body != text {
				t.Fatalf("got %d and %d bytes", code, len(body))
			}
			last := w.isOver(t)
			got, _ := w.played()
			if got["o"] != text[:c.want] {
				t.Errorf("%d bytes are on record, want %d", len(got["o"]), c.want)
			}
			if r := last.Recording; r.Bytes != int64(c.want) || r.Omitted != int64(len(text)-c.want) || r.SHA256 != sum {
				t.Errorf("its end says %+v", r)
			}
			if (got["m"] != "") != (c.want < len(text)) {
				t.Errorf("it is marked %q", got["m"])
			}
		})
	}
}

func TestALogThatCannotBePutOnRecordIsNotShown(t *testing.T) {
	w := open(t)
	g := w.grant("case-1", gen.WithRoles(gen.Diagnostics))
	w.answers(func(response http.ResponseWriter, _ *http.Request) {
		w.log.fail()
		_, _ = io.WriteString(response, "secret")
	})
	response, err := w.ask(w.client(), g.token, http.MethodGet, "/api/v1/namespaces/mail-archive/pods/a/log")
	if err != nil {
		return
	}
	defer func() { _ = response.Body.Close() }()
	if body, _ := io.ReadAll(response.Body); len(body) > 0 {
		t.Errorf("the client got %q", body)
	}
}

func TestAProtocolThatCannotBeReadIsNotLetThrough(t *testing.T) {
	for name, answer := range map[string]http.Header{
		"another subprotocol": {"Upgrade": {"websocket"}, "Sec-Websocket-Protocol": {"v9.channel.k8s.io"}},
		"compressed":          {"Upgrade": {"websocket"}, "Sec-Websocket-Extensions": {"permessage-deflate"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := open(t)
			g := w.grant("case-1", gen.WithRoles(gen.Content))
			w.answers(func(response http.ResponseWriter, _ *http.Request) {
				maps.Copy(response.Header(), answer)
				response.Header().Set("Connection", "Upgrade")
				response.WriteHeader(http.StatusSwitchingProtocols)
			})
			response, err := w.ask(w.client("http/1.1"), g.token, http.MethodGet, "/api/v1/namespaces/mail-archive/pods/a/exec?command=sh", func(r *http.Request) {
				r.Header.Set("Connection", "Upgrade")
				r.Header.Set("Upgrade", "websocket")
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			if body, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusBadGateway || !strings.Contains(string(body), "cannot be read") {
				t.Errorf("got %d: %s", response.StatusCode, body)
			}
		})
	}
}

// spoken is one direction of a stream, and what is in it.
type spoken struct {
	name    string
	dialect func() dialect
	up      []byte
	down    []byte
	want    map[cast.Kind]string
}

// everyDialect speaks all that kubectl speaks, and what it might.
func everyDialect(t testing.TB) []spoken {
	t.Helper()
	want := map[cast.Kind]string{
		cast.Output: "hello " + strings.Repeat("wörld", 30000), cast.Errors: "oh", cast.Status: "{}", cast.Input: "ls\n", cast.Resize: "80x24132x50",
	}
	up := [][2]string{{"\x00", "ls"}, {"\x04", `{"Width":80,"Hei`}, {"\x00", "\n"}, {"\x04", `ght":24}{"Width":132,"Height":50}`}, {"\xff", "\x00"}}
	down := [][2]string{{"\x01", "hello "}, {"\x02", "oh"}, {"\x01", strings.Repeat("wörld", 30000)}, {"\x03", "{}"}, {"\x01", ""}}
	plain := spoken{name: "channels", dialect: func() dialect { return &channels{} }, want: want}
	for _, m := range up {
		plain.up = append(plain.up, masked(opBinary, []byte(m[0]+m[1]))...)
		plain.up = append(plain.up, masked(9, []byte("ping"))...)
	}
	fragments := spoken{name: "fragments", dialect: plain.dialect, up: plain.up, want: want}
	for _, m := range down {
		whole := frame(opBinary, []byte(m[0]+m[1]))
		plain.down = append(plain.down, whole...)
		half := len(m[1]) / 2
		first := frame(opBinary, []byte(m[0]+m[1][:half]))
		first[0] &^= 0x80
		fragments.down = append(append(append(fragments.down, first...), frame(9, []byte("ping"))...), frame(0, []byte(m[1][half:]))...)
	}
	text := spoken{name: "base64", dialect: func() dialect { return &channels{text: true} }, want: want}
	encode := func(m [2]string) []byte {
		return []byte(string(m[0][0]+'0') + base64.StdEncoding.EncodeToString([]byte(m[1])))
	}
	for _, m := range up[:4] {
		text.up = append(text.up, masked(opText, encode(m))...)
	}
	for _, m := range down {
		text.down = append(text.down, frame(opText, encode(m))...)
	}
	return []spoken{plain, fragments, text, inSPDY(t, want, up[:4], down)}
}

// masked renders a frame as a client sends it.
func masked(opcode byte, payload []byte) []byte {
	head := frame(opcode, payload)
	head = head[:len(head)-len(payload)]
	head[1] |= 0x80
	mask := []byte{1, 2, 3, 4}
	out := append(head, mask...)
	for i, b := range payload {
		out = append(out, b^mask[i%4])
	}
	return out
}

// inSPDY renders channels as streams of SPDY.
func inSPDY(t testing.TB, want map[cast.Kind]string, up, down [][2]string) spoken {
	t.Helper()
	var sent, received bytes.Buffer
	client, err := spdy.NewFramer(&sent, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	server, err := spdy.NewFramer(&received, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]spdy.StreamId{}
	write := func(by *spdy.Framer, f spdy.Frame) {
		if err := by.WriteFrame(f); err != nil {
			t.Fatal(err)
		}
	}
	for i, kind := range []string{"stdin", "stdout", "stderr", "error", "resize"} {
		id := spdy.StreamId(2*i + 1)
		ids[string([]byte{map[string]byte{"stdin": 0, "stdout": 1, "stderr": 2, "error": 3, "resize": 4}[kind]})] = id
		write(client, &spdy.SynStreamFrame{StreamId: id, Headers: http.Header{"Streamtype": {kind}, "X-Padding": {strings.Repeat(kind, i)}}})
		write(server, &spdy.SynReplyFrame{StreamId: id, Headers: http.Header{}})
	}
	for _, m := range up {
		write(client, &spdy.DataFrame{StreamId: ids[m[0]], Data: []byte(m[1])})
		write(client, &spdy.PingFrame{Id: 1})
	}
	for _, m := range down {
		write(server, &spdy.DataFrame{StreamId: ids[m[0]], Data: []byte(m[1])})
		write(server, &spdy.WindowUpdateFrame{StreamId: ids[m[0]], DeltaWindowSize: 1})
	}
	return spoken{name: "SPDY", dialect: func() dialect { return newSPDY() }, up: sent.Bytes(), down: received.Bytes(), want: want}
}

// readIn reads what was spoken in parts of some length.
func (s *spoken) readIn(parts func() int) (map[cast.Kind]string, error) {
	d, got := s.dialect(), map[cast.Kind]string{}
	take := func(kind cast.Kind, data []byte) { got[kind] += string(data) }
	for _, side := range []struct {
		sent []byte
		read func([]byte, func(cast.Kind, []byte)) error
	}{{s.up, d.in}, {s.down, d.out}} {
		for rest := side.sent; len(rest) > 0; {
			n := min(max(parts(), 1), len(rest))
			if err := side.read(bytes.Clone(rest[:n]), take); err != nil {
				return got, err
			}
			rest = rest[n:]
		}
	}
	return got, nil
}

func TestStreamsAreReadHoweverTheyAreCut(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, s := range everyDialect(t) {
		for name, parts := range map[string]func() int{
			"whole": func() int { return 1 << 30 }, "byte by byte": func() int { return 1 }, "in threes": func() int { return 3 }, "at random": func() int { return random.IntN(5000) },
		} {
			got, err := s.readIn(parts)
			for kind, want := range s.want {
				if got[kind] != want {
					t.Errorf("%s, %s: of %q %d bytes were read, want %d (%v)", s.name, name, kind, len(got[kind]), len(want), err)
				}
			}
		}
	}
}

func FuzzNoStreamBreaksItsReader(f *testing.F) {
	for i, s := range everyDialect(f) {
		f.Add(s.up[:min(len(s.up), 4096)], uint8(i), uint8(3))
		f.Add(s.down[:min(len(s.down), 4096)], uint8(i), uint8(200))
	}
	f.Fuzz(func(t *testing.T, sent []byte, which, part uint8) {
		dialects := []func() dialect{func() dialect { return &channels{} }, func() dialect { return &channels{text: true} }, func() dialect { return newSPDY() }, func() dialect { return &lines{} }}
		s := spoken{dialect: dialects[int(which)%len(dialects)], up: sent, down: sent}
		whole, wholeErr := s.readIn(func() int { return len(sent) })
		parts, partsErr := s.readIn(func() int { return int(part) })
		if wholeErr == nil && partsErr == nil && fmt.Sprint(whole) != fmt.Sprint(parts) {
			t.Errorf("read as a whole it says %q, in parts of %d %q", whole, part, parts)
		}
		if err := errors.Join(wholeErr, partsErr); err != nil && !errors.Is(err, errUnreadable) {
			t.Errorf("got %v", err)
		}
	})
}

func TestAFrameThatIsTooLongOrCompressedIsNotRead(t *testing.T) {
	long := binary.BigEndian.AppendUint32([]byte{0x80, 3, 0, 1}, 1<<20)
	if err := newSPDY().in(long, func(cast.Kind, []byte) {}); !errors.Is(err, errUnreadable) {
		t.Errorf("a control frame of a MiB: %v", err)
	}
	compressed := frame(opBinary, []byte("\x01x"))
	compressed[0] |= 0x40
	if err := (&channels{}).out(compressed, func(cast.Kind, []byte) {}); !errors.Is(err, errUnreadable) {
		t.Errorf("a compressed frame: %v", err)
	}
}
