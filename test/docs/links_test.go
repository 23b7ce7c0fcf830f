package docs

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

var (
	link    = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#{1,6} +(.+)$`)
)

func TestEveryLinkLeadsSomewhere(t *testing.T) {
	followed := 0
	for _, p := range pages(t) {
		for _, match := range link.FindAllStringSubmatch(p.prose(t), -1) {
			if strings.Contains(match[1], "://") || strings.HasPrefix(match[1], "mailto:") {
				continue
			}
			followed++
			target, anchor, _ := strings.Cut(match[1], "#")
			if target == "" {
				target = path.Base(p.path)
			}
			target = path.Join(path.Dir(p.path), target)
			if _, err := os.Stat(filepath.Join(root(t), target)); err != nil {
				t.Errorf("%s: %s: there is no %s", p.path, match[1], target)
				continue
			}
			if anchor != "" && !anchors(t, target)[anchor] {
				t.Errorf("%s: %s: %s has no such heading; it has %s", p.path, match[1], target, strings.Join(sorted(anchors(t, target)), ", "))
			}
		}
	}
	if followed < 40 {
		t.Errorf("followed %d links; there are more", followed)
	}
}

// anchors are the headings of a page as links name them.
func anchors(t *testing.T, path string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, match := range heading.FindAllStringSubmatch(page{path: path, text: read(t, path)}.prose(t), -1) {
		found[anchorOf(match[1])] = true
	}
	return found
}

// anchorOf drops what is neither letter, digit, hyphen nor underscore, and writes hyphens for spaces.
func anchorOf(title string) string {
	title = regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(title), "")
	return strings.ReplaceAll(strings.TrimSpace(title), " ", "-")
}

func TestEveryCommandIsWellFormed(t *testing.T) {
	for _, b := range blocks(t, "sh") {
		command := exec.CommandContext(t.Context(), "bash", "-n")
		command.Stdin = strings.NewReader(b.text)
		if out, err := command.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", b, err, out)
		}
	}
}

func TestEveryMakeTargetOnAPageExists(t *testing.T) {
	makefile := read(t, "Makefile")
	named := 0
	for _, p := range pages(t) {
		for _, match := range regexp.MustCompile("(?m)(?:`|^|&& )make ([a-z-]+)").FindAllStringSubmatch(p.text, -1) {
			named++
			if !strings.Contains(makefile, "\n"+match[1]+":") {
				t.Errorf("%s: make %s: there is no such target", p.path, match[1])
			}
		}
	}
	if named < 10 {
		t.Errorf("the pages name %d targets; there are more", named)
	}
}

func TestEveryFileThatACommandNamesExists(t *testing.T) {
	for _, b := range blocks(t, "sh") {
		for _, match := range regexp.MustCompile(`(?:-f|-k|support-access) ((?:config|charts)/\S+)`).FindAllStringSubmatch(b.text, -1) {
			if _, err := os.Stat(filepath.Join(root(t), match[1])); err != nil {
				t.Errorf("%s: there is no %s", b, match[1])
			}
		}
	}
}

func TestEveryChartValueOnAPageExists(t *testing.T) {
	var values map[string]any
	if err := yaml.Unmarshal([]byte(read(t, "charts/support-access/values.yaml")), &values); err != nil {
		t.Fatal(err)
	}
	set := 0
	for _, p := range pages(t) {
		for _, match := range regexp.MustCompile(`--set(?:-literal|-file)? '?([A-Za-z.]+)=`).FindAllStringSubmatch(p.text, -1) {
			set++
			if !has(values, strings.Split(match[1], ".")) {
				t.Errorf("%s: the chart has no value %s", p.path, match[1])
			}
		}
	}
	if set < 10 {
		t.Errorf("the pages set %d values; there are more", set)
	}
}

func has(values map[string]any, keys []string) bool {
	value, ok := values[keys[0]]
	if !ok || len(keys) == 1 {
		return ok
	}
	below, _ := value.(map[string]any)
	return has(below, keys[1:])
}
