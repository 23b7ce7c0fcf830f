package chain

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

const origin = "support.cluster.example/audit"

func TestATreeIsTheOneOfRFC6962(t *testing.T) {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var found []tlog.Hash
		for _, i := range indexes {
			found = append(found, stored[i])
		}
		return found, nil
	})
	tree := &Tree{}
	for n := range int64(300) {
		data := fmt.Appendf(nil, "entry %d", n)
		want, err := tlog.StoredHashes(n, data, reader)
		if err != nil {
			t.Fatal(err)
		}
		made := tree.Append(tlog.RecordHash(data))
		if !slices.Equal(made, want) {
			t.Fatalf("entry %d makes %v, want %v", n, made, want)
		}
		for level, i := 0, int64(len(stored)); level < len(want); level, i = level+1, i+1 {
			if seq, at := Stored(i); seq != n+1 || at != level {
				t.Fatalf("hash %d is looked for with entry %d, level %d; it is %d of entry %d", i, seq, at, level, n+1)
			}
		}
		stored = append(stored, want...)
		root, err := tlog.TreeHash(n+1, reader)
		if err != nil {
			t.Fatal(err)
		}
		if got := tree.Head(); got != (tlog.Tree{N: n + 1, Hash: root}) {
			t.Fatalf("the tree is %v, want root %v", got, root)
		}
		edge, err := EdgeAt(n+1, reader)
		if err != nil || !slices.Equal(edge, tree.Edge()) {
			t.Fatalf("the edge at %d is %v (%v), want %v", n+1, edge, err, tree.Edge())
		}
		again, err := NewTree(n+1, edge)
		if err != nil || again.Root() != root {
			t.Fatalf("a tree from its edge is another: %v", err)
		}
	}
	if got, _ := tlog.TreeHash(0, nil); (&Tree{}).Root() != got {
		t.Error("the root of nothing is another")
	}
	if _, err := NewTree(3, make([]tlog.Hash, 1)); err == nil {
		t.Error("an edge of another size was taken")
	}
}

func TestALineSaysItsPlaceAndNothingElseDoes(t *testing.T) {
	link := Link{Seq: 4711, Prev: tlog.RecordHash([]byte("before"))}
	line := Line(link, []byte(`{"verb":"get"}`))
	got, rest, err := Parse(line)
	if err != nil || got != link || string(rest) != `"verb":"get"}` {
		t.Fatalf("got %v, %s, %v", got, rest, err)
	}
	for name, broken := range map[string]string{
		"nothing":              ``,
		"another object":       `{"verb":"get"}`,
		"a number with a zero": strings.Replace(string(line), "4711", "04711", 1),
		"a number below one":   strings.Replace(string(line), "4711", "0", 1),
		"a signed number":      strings.Replace(string(line), "4711", "+4711", 1),
		"no number":            strings.Replace(string(line), "4711", "", 1),
		"a space":              strings.Replace(string(line), ":4711", ": 4711", 1),
		"no hash":              `{"seq":1,"prevHash":"","verb":"get"}`,
		"half a hash":          string(line[:40]),
		"a hash of other bits": strings.Replace(string(line), `=","verb`, `","verb`, 1),
	} {
		if _, _, err := Parse([]byte(broken)); err == nil {
			t.Errorf("%s was taken: %s", name, broken)
		}
	}
}

func TestACheckpointIsReadAsItWasSigned(t *testing.T) {
	old, young, other := newPEM(t), newPEM(t), newPEM(t)
	keys, err := ParseKeys(origin, append(young, old...))
	if err != nil {
		t.Fatal(err)
	}
	want := Checkpoint{Origin: origin, Tree: tlog.Tree{N: 7, Hash: tlog.RecordHash([]byte("x"))}}
	signed, err := keys.Sign(want)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		known         []string
		good, unknown int
	}{
		"both": {keys.Public, 2, 0}, "the old one": {keys.Public[1:], 1, 1}, "none": {nil, 0, 2},
		"one that is not": {mustKeys(t, other).Public, 0, 2}, "one twice": {[]string{keys.Public[0], keys.Public[0] + "\n"}, 1, 1},
	} {
		known, err := Verifiers(test.known)
		if err != nil {
			t.Fatal(err)
		}
		seal, err := Open(signed, known)
		if err != nil || seal.Checkpoint != want || len(seal.Known) != test.good || len(seal.Unknown) != test.unknown {
			t.Errorf("%s: got %+v, %v", name, seal, err)
		}
	}
	known, _ := Verifiers(keys.Public)
	if _, err := Open(strings.Replace(signed, "\n7\n", "\n8\n", 1), known); err == nil {
		t.Error("a checkpoint that was changed was taken")
	}
}

func TestAKeyIsReadOrRefusedWithoutBeingRepeated(t *testing.T) {
	good := newPEM(t)
	elliptic := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret words")})
	for name, content := range map[string][]byte{
		"nothing": nil, "no key": []byte("secret words"), "another kind": elliptic, "five": bytes.Repeat(good, 5), "a good one and another kind": append(good, elliptic...),
	} {
		if _, err := ParseKeys(origin, content); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"", "two words", "a+b"} {
		if _, err := ParseKeys(name, good); err == nil {
			t.Errorf("a log is named %q", name)
		}
	}
	// A key may have a plus in its text; many do.
	for range 20 {
		mustKeys(t, newPEM(t))
	}
}

func TestHashesAreSplitAsTheyWereJoined(t *testing.T) {
	hashes := []tlog.Hash{tlog.RecordHash([]byte("a")), tlog.RecordHash([]byte("b"))}
	got, err := Split(Join(hashes))
	if err != nil || !slices.Equal(got, hashes) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := Split(make([]byte, 33)); err == nil {
		t.Error("33 bytes are no hashes")
	}
}

func mustKeys(t *testing.T, content []byte) *Keys {
	t.Helper()
	keys, err := ParseKeys(origin, content)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func newPEM(t *testing.T) []byte {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}
