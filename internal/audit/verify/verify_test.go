package verify_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/chain"
	"supportaccess.dev/operator/internal/audit/sqlite"
	"supportaccess.dev/operator/internal/audit/verify"
)

const origin = "support.cluster.example/audit"

// written is a log of 600 entries: the header, entries with a checkpoint after 256 and 512, and one after the last.
const written = 600

// edit changes the lines of an export, which begin with the header.
type edit func(lines []string) []string

func TestWhatWasDoneToALogIsSaidOfTheFirstEntryThatIsBad(t *testing.T) {
	key := newKey(t)
	text, public := logOf(t, key, written, "")
	if len(text) != 1+written+3 {
		t.Fatalf("%d lines", len(text))
	}
	for name, test := range map[string]struct {
		edit    edit
		kind    verify.Kind
		seq     int64
		through int64
	}{
		"a word of an entry":                         {change(100, "get", "put"), verify.Changed, 100, 0},
		"a word of the first":                        {change(1, "sign", "sing"), verify.Changed, 1, 0},
		"a space at the end":                         {change(300, "}", "} "), verify.Changed, 300, 0},
		"a carriage return":                          {func(l []string) []string { l[at(7)] += "\r"; return l }, verify.Changed, 7, 0},
		"a hash in an entry":                         {relink(100), verify.Changed, 100, 0},
		"a number in an entry":                       {change(100, `{"seq":100,`, `{"seq":111,`), verify.Changed, 100, 0},
		"an entry, those after it made to fit":       {rewrite(100), verify.Changed, 1, 256},
		"a later one, those after it made to fit":    {rewrite(400), verify.Changed, 257, 512},
		"the last":                                   {change(600, "get", "put"), verify.Changed, 513, 600},
		"text in place of one":                       {func(l []string) []string { l[at(90)] = "nothing to see"; return l }, verify.Changed, 90, 0},
		"text for its beginning":                     {change(90, `"prevHash"`, `"nextHash"`), verify.Changed, 90, 0},
		"one is gone":                                {remove(at(77), 1), verify.Missing, 77, 0},
		"some are gone":                              {remove(at(77), 30), verify.Missing, 77, 0},
		"the first is gone":                          {remove(at(1), 1), verify.Missing, 1, 0},
		"one before a checkpoint is gone":            {remove(at(256), 1), verify.Missing, 256, 0},
		"one and its checkpoint are gone":            {remove(at(256), 2), verify.Missing, 256, 0},
		"one is gone, those after it made to fit":    {renumber(77), verify.Changed, 1, 256},
		"two have changed places":                    {swap(at(50), at(51)), verify.Reordered, 50, 0},
		"one is far from its place":                  {move(at(50), at(200)), verify.Reordered, 50, 0},
		"one is there twice":                         {repeat(at(50)), verify.Reordered, 50, 0},
		"a checkpoint stands too late":               {move(at(256)+1, at(300)), verify.Reordered, 0, 0},
		"a checkpoint stands too soon":               {move(at(256)+1, at(100)), verify.Reordered, 100, 0},
		"the end is gone":                            {func(l []string) []string { return append(l[:at(590)], l[len(l)-1]) }, verify.Truncated, 590, 0},
		"the end is gone, and its checkpoint":        {func(l []string) []string { return l[:at(590)] }, verify.Truncated, 590, 0},
		"the end is gone as if it had never been":    {func(l []string) []string { return resize(l[:at(590)], 589) }, verify.Unsigned, 513, 589},
		"somebody without the key went on":           {func(l []string) []string { return append(l, l[at(600)]) }, verify.Reordered, 600, 0},
		"all is gone":                                {func(l []string) []string { return l[:1] }, verify.Truncated, 1, 0},
		"all is gone as if it had never been":        {func(l []string) []string { return resize(l[:1], 0) }, verify.Unsigned, 1, 0},
		"the size in a checkpoint":                   {func(l []string) []string { return replace(l, at(256)+1, `\n256\n`, `\n255\n`) }, verify.Unsigned, 0, 0},
		"a signature":                                {func(l []string) []string { return replace(l, len(l)-1, `\n\n`, `\n\nx`) }, verify.Unsigned, 0, 0},
		"a checkpoint of another log":                {func(l []string) []string { return replace(l, 0, origin, "other.example") }, verify.Forked, 0, 0},
		"it says that old entries were removed":      {stubbed(256), verify.Missing, 1, 0},
		"no header":                                  {remove(0, 1), verify.Malformed, 0, 0},
		"a line without an end":                      {func(l []string) []string { return append(l, strings.Repeat("x", 1<<20)) }, verify.Malformed, 0, 0},
		"nothing at all":                             {func([]string) []string { return nil }, verify.Malformed, 0, 0},
		"an entry that nobody can read as the log's": {change(1, `"keys":[`, `"keys":{`), verify.Changed, 1, 0},
		"an entry that says it names the log's keys": {rewriteAs(100, `"type":"Keys","keys":["`+strangersKey(t)+`"],`), verify.Changed, 1, 256},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := verifyLines(test.edit(slices.Clone(text)), verify.Options{Keys: public})
			fault := &verify.Fault{}
			if !errors.As(err, &fault) {
				if test.kind == verify.Malformed && err != nil {
					return
				}
				t.Fatalf("got %v, want %s", err, test.kind)
			}
			if fault.Kind != test.kind || fault.Seq != test.seq || fault.Through != test.through {
				t.Errorf("got %+v, want %s at %d to %d", fault, test.kind, test.seq, test.through)
			}
		})
	}
	if _, err := verifyLines(text, verify.Options{Keys: public}); err != nil {
		t.Errorf("as it was written: %v", err)
	}
}

func TestOnlyACheckpointFromElsewhereTellsWhatWhoeverHasTheKeyDid(t *testing.T) {
	key := newKey(t)
	text, public := logOf(t, key, written, "")
	older, _ := logOf(t, key, 500, "")
	other, _ := logOf(t, key, written, "another history")
	kept := noteOf(text[len(text)-1])
	early := noteOf(text[at(256)+1])
	for name, test := range map[string]struct {
		lines       []string
		checkpoints []string
		kind        verify.Kind
		seq         int64
	}{
		"nothing was kept":                      {older, nil, "", 0},
		"an older copy":                         {older, []string{kept}, verify.RolledBack, 501},
		"an older copy, an early checkpoint":    {older, []string{early}, "", 0},
		"another history":                       {other, []string{kept}, verify.Forked, 1},
		"another history, an early checkpoint":  {other, []string{early, kept}, verify.Forked, 1},
		"another history, and nothing was kept": {other, nil, "", 0},
		"the log itself":                        {text, []string{kept, early}, "", 0},
		"a change without the key":              {rewrite(100)(slices.Clone(text)), []string{kept, early}, verify.Changed, 1},
		"a change between what was kept":        {rewrite(300)(slices.Clone(text)), []string{early, kept}, verify.Changed, 257},
	} {
		report, err := verifyLines(test.lines, verify.Options{Keys: public, Checkpoints: test.checkpoints})
		fault := &verify.Fault{}
		switch {
		case test.kind == "" && (err != nil || report.Checkpoints < len(test.checkpoints)):
			t.Errorf("%s: %v, %+v", name, err, report)
		case test.kind != "" && (!errors.As(err, &fault) || fault.Kind != test.kind || fault.Seq != test.seq):
			t.Errorf("%s: got %v (%+v), want %s at %d", name, err, fault, test.kind, test.seq)
		}
	}
	stranger, strangers := logOf(t, newKey(t), 10, "")
	if _, err := verifyLines(text, verify.Options{Keys: public, Checkpoints: []string{noteOf(stranger[len(stranger)-1])}}); err == nil {
		t.Error("a checkpoint of nobody's was taken")
	}
	if _, err := verifyLines(text, verify.Options{Keys: strangers}); err == nil {
		t.Error("a log of another key was taken")
	}
}

func TestALogWithoutItsKeyIsOfOnePieceAndNoMore(t *testing.T) {
	text, _ := logOf(t, newKey(t), 10, "")
	report, err := verifyLines(text, verify.Options{})
	if err != nil || !report.OwnKeys || len(report.Notes) != 1 || len(report.SignedBy) != 1 {
		t.Fatalf("got %+v, %v", report, err)
	}
	if _, err := verifyLines(change(3, "get", "put")(slices.Clone(text)), verify.Options{}); err == nil {
		t.Error("a change was taken")
	}
}

func TestSomeEntriesAreProvenWithoutTheOthers(t *testing.T) {
	key := newKey(t)
	store, log := newLog(t, key)
	fill(t, log, 300, "")
	found := &bytes.Buffer{}
	if err := audit.ExportFound(t.Context(), found, store, audit.Query{Engineer: "engineer-2"}); err != nil {
		t.Fatal(err)
	}
	public := log.PublicKeys()
	whole := &bytes.Buffer{}
	if err := audit.Export(t.Context(), whole, store); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	text := split(found.String())
	report, err := verifyLines(text, verify.Options{Keys: public})
	// Header and checkpoint, then each with its proof.
	if err != nil || report.Whole || report.Entries != int64(len(text)-2)/2 || report.Entries < 40 {
		t.Fatalf("got %+v, %v of %d lines", report, err, len(text))
	}
	kept := noteOf(split(whole.String())[at(256)+1])
	report, err = verifyLines(text, verify.Options{Keys: public, Checkpoints: []string{kept}})
	if err != nil || len(report.Notes) != 1 {
		t.Errorf("with an early checkpoint: %+v, %v", report, err)
	}
	older, _ := logOf(t, key, 300, "another history")
	for name, test := range map[string]struct {
		edit        edit
		checkpoints []string
		kind        verify.Kind
	}{
		"a word of an entry":     {func(l []string) []string { return replace(l, 2, "get", "put") }, nil, verify.Changed},
		"no proof":               {remove(3, 1), nil, verify.Malformed},
		"another's proof":        {swap(3, 5), nil, verify.Malformed},
		"no checkpoint":          {remove(1, 1), nil, verify.Malformed},
		"another checkpoint":     {func(l []string) []string { l[1] = older[len(older)-1]; return l }, nil, verify.Changed},
		"not of the one kept":    {same, []string{noteOf(older[len(older)-1])}, verify.Forked},
		"a forged checkpoint":    {func(l []string) []string { return replace(l, 1, `\n300\n`, `\n299\n`) }, nil, verify.Unsigned},
		"an entry of the future": {func(l []string) []string { return replace(l, 2, `{"seq":`, `{"seq":9`) }, nil, verify.Malformed},
	} {
		_, err := verifyLines(test.edit(slices.Clone(text)), verify.Options{Keys: public, Checkpoints: test.checkpoints})
		fault := &verify.Fault{}
		if !errors.As(err, &fault) || fault.Kind != test.kind {
			t.Errorf("%s: got %v, want %s", name, err, test.kind)
		}
	}
}

// BenchmarkVerify shows how many entries a second are verified.
func BenchmarkVerify(b *testing.B) {
	text, public := logOf(b, newKey(b), 20000, "")
	all := []byte(strings.Join(text, "\n") + "\n")
	b.SetBytes(int64(len(all)))
	b.ResetTimer()
	for range b.N {
		if _, err := verify.Log(bytes.NewReader(all), verify.Options{Keys: public}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*20000/b.Elapsed().Seconds(), "entries/s")
}

// at returns in which line an entry stands.
func at(seq int) int { return seq + (seq-1)/256 }

func same(l []string) []string { return l }

func change(seq int, old, young string) edit {
	return func(l []string) []string { return replace(l, at(seq), old, young) }
}

func replace(l []string, i int, old, young string) []string {
	if !strings.Contains(l[i], old) {
		panic(fmt.Sprintf("there is no %s in %s", old, l[i]))
	}
	l[i] = replaceLast(l[i], old, young)
	return l
}

func remove(i, many int) edit {
	return func(l []string) []string { return slices.Delete(l, i, i+many) }
}

func swap(i, j int) edit {
	return func(l []string) []string { l[i], l[j] = l[j], l[i]; return l }
}

func move(from, to int) edit {
	return func(l []string) []string {
		line := l[from]
		return slices.Insert(slices.Delete(l, from, from+1), to, line)
	}
}

func repeat(i int) edit {
	return func(l []string) []string { return slices.Insert(l, i, l[i]) }
}

func resize(l []string, size int) []string {
	return replace(l, 0, `"size":600`, fmt.Sprintf(`"size":%d`, size))
}

// relink gives an entry another hash of the one before it.
func relink(seq int) edit {
	return func(l []string) []string {
		link, rest, err := chain.Parse([]byte(l[at(seq)]))
		if err != nil {
			panic(err)
		}
		link.Prev[7]++
		l[at(seq)] = string(chain.Line(link, append([]byte("{"), rest...)))
		return l
	}
}

// rewrite changes an entry and makes those after it fit.
func rewrite(seq int) edit {
	return func(l []string) []string { return rechain(change(seq, "get", "put")(l)) }
}

// rewriteAs puts something before what an entry tells, and makes those after it fit.
func rewriteAs(seq int, field string) edit {
	return func(l []string) []string { return rechain(change(seq, `"kind"`, field+`"kind"`)(l)) }
}

// renumber takes an entry out and closes the gap.
func renumber(seq int) edit {
	return func(l []string) []string {
		l[at(seq)] = l[at(seq+1)]
		l[at(seq+1)] = l[at(seq+2)]
		return rechain(l)
	}
}

// rechain gives every entry the number of its place and the hash of the one before it.
func rechain(l []string) []string {
	link := chain.Link{Seq: 1}
	for i, line := range l {
		_, rest, err := chain.Parse([]byte(line))
		if err != nil {
			continue
		}
		made := chain.Line(link, append([]byte("{"), rest...))
		link = chain.Link{Seq: link.Seq + 1, Prev: tlog.RecordHash(made)}
		l[i] = string(made)
	}
	return l
}

// stubbed takes off the beginning as if it had been removed as old: up to a checkpoint everybody can make the stub.
func stubbed(through int) edit {
	return func(l []string) []string {
		tree, stub := &chain.Tree{}, audit.Stub{Through: int64(through), Checkpoint: noteOf(l[at(through)+1])}
		for seq := 1; seq <= through; seq++ {
			stub.Last = tlog.RecordHash([]byte(l[at(seq)]))
			tree.Append(stub.Last)
		}
		stub.Edge = tree.Edge()
		text, err := json.Marshal(stub)
		if err != nil {
			panic(err)
		}
		return replace(slices.Delete(l, 1, at(through)+2), 0, `"whole":true`, `"whole":true,"stub":`+string(text))
	}
}

func noteOf(mark string) string {
	text := strings.TrimSuffix(strings.TrimPrefix(mark, `{"checkpoint":"`), `"}`)
	return strings.NewReplacer(`\n`, "\n", `\u2014`, "—").Replace(text)
}

func strangersKey(t testing.TB) string {
	t.Helper()
	keys, err := chain.ParseKeys(origin, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return keys.Public[0]
}

func verifyLines(lines []string, o verify.Options) (*verify.Report, error) {
	text := strings.Join(lines, "\n")
	if len(lines) > 0 {
		text += "\n"
	}
	return verify.Log(strings.NewReader(text), o)
}

// logOf returns the lines of an export of a log with so many entries, and its public keys.
func logOf(t testing.TB, key []byte, entries int, word string) ([]string, []string) {
	t.Helper()
	store, log := newLog(t, key)
	fill(t, log, entries, word)
	text := &bytes.Buffer{}
	if err := audit.Export(t.Context(), text, store); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	return split(text.String()), log.PublicKeys()
}

func split(text string) []string { return strings.Split(strings.TrimSuffix(text, "\n"), "\n") }

func newLog(t testing.TB, key []byte) (*sqlite.Store, *audit.Ledger) {
	t.Helper()
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "audit.db"))
	if err != nil {
		t.Fatal(err)
	}
	log, err := audit.OpenLedger(t.Context(), audit.LedgerOptions{
		Store: store, Origin: origin, Key: key, Clock: clocktesting.NewFakePassiveClock(time.Unix(1, 0)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return store, log
}

// fill appends entries until there are so many. One by one, so that checkpoints are after the same each time.
func fill(t testing.TB, log *audit.Ledger, entries int, word string) {
	t.Helper()
	for i := 1; i < entries; i++ {
		err := log.Append(t.Context(), &audit.Entry{
			Event: auditv1.Event{
				TypeMeta: metav1.TypeMeta{APIVersion: "audit.k8s.io/v1", Kind: "Event"}, Level: auditv1.LevelMetadata, Verb: "get",
				RequestURI: fmt.Sprintf("/api/v1/namespaces/shop/configmaps/settings-%d%s", i, word), UserAgent: strings.Repeat("kubectl/v1.36.3 ", 50),
			},
			Labels: map[string]string{audit.LabelSource: audit.Source}, Engineer: fmt.Sprintf("engineer-%d", i%7),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func newKey(t testing.TB) []byte {
	t.Helper()
	key, err := chain.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// replaceLast replaces the last of some words: the first may be in the middle of a hash.
func replaceLast(text, old, young string) string {
	i := strings.LastIndex(text, old)
	return text[:i] + young + text[i+len(old):]
}
