package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/utils/clock"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/chain"
	"supportaccess.dev/operator/internal/audit/sqlite"
	"supportaccess.dev/operator/internal/audit/verify"
)

func TestWhoVerifiesIsToldWhatIsWrongAndAScriptToo(t *testing.T) {
	folder := t.TempDir()
	text, public, checkpoint := smallLog(t, filepath.Join(folder, "audit.db"), 5)
	_, _, later := smallLog(t, filepath.Join(folder, "another.db"), 9)
	file := func(name, content string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	log, key, kept := file("log", text), file("key", public+"\n"), file("kept", checkpoint)
	changed := file("changed", strings.Replace(text, "ana@", "bob@", 1))
	for name, test := range map[string]struct {
		args []string
		code int
		says string
	}{
		"as it was written":     {[]string{log, "--key", key, "--checkpoint", kept}, exitOK, "all 6 entries, 1 to 6, are as they were written in the log support.example/audit"},
		"the key itself":        {[]string{log, "--key", public}, exitOK, "Signed by: support.example/audit+"},
		"no key":                {[]string{log}, exitOK, "whose it is, is not proven"},
		"from standard input":   {[]string{"-", "--key", key}, exitOK, "Intact"},
		"a change":              {[]string{changed, "--key", key}, exitFaulty, "error: Changed: entry 2 is not as it was written"},
		"a change, in JSON":     {[]string{changed, "--key", key, "-o", "json"}, exitFaulty, `"seq": 2`},
		"another's key":         {[]string{log, "--key", strings.Split(later, "\n")[0] + "+00000000+x"}, exitFailed, "read the public key"},
		"a key that is no file": {[]string{log, "--key", filepath.Join(folder, "none")}, exitFailed, "no such file"},
		"an empty file of keys": {[]string{log, "--key", file("empty", "")}, exitFailed, "empty"},
		"another's checkpoint":  {[]string{log, "--key", key, "--checkpoint", file("later", later)}, exitFailed, "give that key, too, if you trust it"},
		"no export":             {[]string{key, "--key", key}, exitFaulty, "the first line is not that of an export"},
		"no file":               {[]string{filepath.Join(folder, "none")}, exitFailed, "open the export"},
		"an unknown output":     {[]string{log, "-o", "yaml"}, exitFailed, "it is json or nothing"},
	} {
		var out bytes.Buffer
		desk := &Desk{Streams: genericiooptions.IOStreams{In: strings.NewReader(text), Out: &out, ErrOut: &out}, Clock: clock.RealClock{}}
		if code := desk.Run(t.Context(), append([]string{"audit", "verify"}, test.args...)); code != test.code || !strings.Contains(out.String(), test.says) {
			t.Errorf("%s: exit code %d, want %d with %q:\n%s", name, code, test.code, test.says, out.String())
		}
	}
	var out bytes.Buffer
	desk := &Desk{Streams: genericiooptions.IOStreams{Out: &out, ErrOut: &out}, Clock: clock.RealClock{}}
	found := verdict{}
	if code := desk.Run(t.Context(), []string{"audit", "verify", log, "--key", key, "-o", "json"}); code != exitOK {
		t.Fatal(out.String())
	}
	if err := json.Unmarshal(out.Bytes(), &found); err != nil || !found.Intact || found.Fault != nil || found.Report.Entries != 6 {
		t.Errorf("got %+v, %v", found, err)
	}
}

// smallLog returns an export of a log with so many entries after that of its key, the key and the newest checkpoint.
func smallLog(t *testing.T, path string, entries int) (text, public, checkpoint string) {
	t.Helper()
	store, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	key, err := chain.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	log, err := audit.OpenLedger(t.Context(), audit.LedgerOptions{Store: store, Origin: "support.example/audit", Key: key, Clock: clock.RealClock{}})
	if err != nil {
		t.Fatal(err)
	}
	for range entries {
		if err := log.Append(t.Context(), &audit.Entry{Engineer: "ana@vendor.example", Labels: map[string]string{audit.LabelSource: audit.Source}}); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := audit.Export(t.Context(), &out, store); err != nil {
		t.Fatal(err)
	}
	standing, err := store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := verify.Log(bytes.NewReader(out.Bytes()), verify.Options{Keys: log.PublicKeys()}); err != nil {
		t.Fatal(err)
	}
	return out.String(), log.PublicKeys()[0], standing.Checkpoint
}
