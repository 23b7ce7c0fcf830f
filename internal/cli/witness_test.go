package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/utils/clock"
	"sigs.k8s.io/yaml"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/chain"
	"supportaccess.dev/operator/internal/audit/sqlite"
)

// grownLog is a log of which an older copy was exported, and then all of it.
type grownLog struct{ older, newer, key, checkpoint string }

func grown(t *testing.T, path string) grownLog {
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
	exports := []string{}
	for range 2 {
		if err := log.Append(t.Context(), &audit.Entry{Engineer: "ana@vendor.example"}); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := audit.Export(t.Context(), &out, store); err != nil {
			t.Fatal(err)
		}
		exports = append(exports, out.String())
	}
	standing, err := store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	return grownLog{exports[0], exports[1], log.PublicKeys()[0], standing.Checkpoint}
}

func TestAnOlderCopyIsFoundByWhatTheOperatorKeeps(t *testing.T) {
	folder := t.TempDir()
	g, other := grown(t, filepath.Join(folder, "audit.db")), grown(t, filepath.Join(folder, "other.db"))
	key := g.key
	file := func(name, content string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	kept := func(name string, offers ...chain.Offer) string {
		witness := &chain.Witness{}
		for _, offer := range offers {
			offer.Time = time.Unix(1e9, 0)
			if _, err := witness.Take(offer); err != nil {
				t.Fatal(err)
			}
		}
		text, err := yaml.Marshal(&corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, Data: witness.Data()})
		if err != nil {
			t.Fatal(err)
		}
		return file(name, string(text))
	}
	mine, others := chain.Offer{Checkpoint: g.checkpoint, Keys: []string{key}}, chain.Offer{Checkpoint: other.checkpoint, Keys: []string{other.key}}
	one, both, none := kept("one", mine), kept("both", mine, others), kept("none")
	only := kept("others", others)
	log, copied := file("log", g.newer), file("copied", g.older)
	for name, test := range map[string]struct {
		args []string
		code int
		says string
	}{
		"the log":                          {[]string{log, "--key", key, "--checkpoint", one}, exitOK, "Checked:   2 checkpoints"},
		"the log, by the key that is kept": {[]string{log, "--checkpoint", one}, exitOK, "Intact"},
		"the log, of several":              {[]string{log, "--key", key, "--checkpoint", both}, exitOK, "Intact"},
		"an older copy":                    {[]string{copied, "--key", key, "--checkpoint", one}, exitFaulty, "RolledBack: it has 2 entries, and a checkpoint of 3 was kept elsewhere"},
		"an older copy, without a key":     {[]string{copied, "--checkpoint", one}, exitFaulty, "RolledBack"},
		"an older copy, not held against":  {[]string{copied, "--key", key}, exitOK, "Intact"},
		"several, and no key":              {[]string{log, "--checkpoint", both}, exitFailed, "is of several logs: say which with --key"},
		"another's":                        {[]string{log, "--key", key, "--checkpoint", only}, exitFailed, "has nothing of a log with that key"},
		"another's, by its key":            {[]string{log, "--checkpoint", only}, exitFaulty, "Unsigned"},
		"nothing kept":                     {[]string{log, "--checkpoint", none}, exitFailed, "has nothing of any log"},
	} {
		var out bytes.Buffer
		desk := &Desk{Streams: genericiooptions.IOStreams{Out: &out, ErrOut: &out}, Clock: clock.RealClock{}}
		if code := desk.Run(t.Context(), append([]string{"audit", "verify"}, test.args...)); code != test.code || !strings.Contains(out.String(), test.says) {
			t.Errorf("%s: exit code %d, want %d with %q:\n%s", name, code, test.code, test.says, out.String())
		}
	}
}
