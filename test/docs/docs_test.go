// Package docs holds the tests of what people read: the manifests in it are taken by the API server, the samples are those
// of config/samples, links lead somewhere, and nothing that a person may meet is left out.
package docs

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"supportaccess.dev/operator/hack/controlplane"
	"supportaccess.dev/operator/test/world"
)

// There is no node: nothing runs in these tests but the control plane.
func TestMain(m *testing.M) { world.MainWith(m, controlplane.Options{}) }

// page is one Markdown file.
type page struct {
	// path is from the root of the repository.
	path string
	text string
}

// block is one fenced block of a page.
type block struct {
	page     string
	line     int
	language string
	text     string
}

func (b block) String() string { return fmt.Sprintf("%s:%d", b.page, b.line) }

// root is the folder of the repository.
func root(t testing.TB) string {
	t.Helper()
	dir, err := controlplane.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// read returns a file of the repository.
func read(t testing.TB, path string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root(t), filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// pages are all pages for people, in a stable order. What is generated is not among them.
func pages(t testing.TB) []page {
	t.Helper()
	paths := []string{"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "charts/support-access/README.md"}
	base := os.DirFS(root(t))
	err := fs.WalkDir(base, "docs", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".md") || strings.HasPrefix(path, "docs/reference/") {
			return err
		}
		paths = append(paths, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var found []page
	for _, path := range paths {
		found = append(found, page{path: path, text: read(t, path)})
	}
	return found
}

// blocks are the fenced blocks of a language on all pages.
func blocks(t testing.TB, language string) []block {
	t.Helper()
	var found []block
	for _, p := range pages(t) {
		for _, b := range p.blocks(t) {
			if b.language == language {
				found = append(found, b)
			}
		}
	}
	if len(found) == 0 {
		t.Fatalf("no block of %s on any page", language)
	}
	return found
}

func (p page) blocks(t testing.TB) []block {
	t.Helper()
	var found []block
	var open *block
	for i, line := range strings.Split(p.text, "\n") {
		language, fence := strings.CutPrefix(line, "```")
		switch {
		case open == nil && fence:
			open = &block{page: p.path, line: i + 1, language: language}
		case open != nil && fence:
			found = append(found, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		}
	}
	if open != nil {
		t.Fatalf("%s: the block is never closed", open)
	}
	return found
}

// prose is the page without its fenced blocks.
func (p page) prose(t testing.TB) string {
	t.Helper()
	text := p.text
	for _, b := range p.blocks(t) {
		text = strings.Replace(text, "```"+b.language+"\n"+b.text+"```", "", 1)
	}
	return text
}

// says reports whether a page has a word, as a word of its own.
func says(text, word string) bool {
	return regexp.MustCompile(`(^|[^A-Za-z0-9_])` + regexp.QuoteMeta(word) + `($|[^A-Za-z0-9_])`).MatchString(text)
}

// kindPages are the pages of the kinds, together.
func kindPages(t testing.TB) string {
	t.Helper()
	var text strings.Builder
	for _, p := range pages(t) {
		if strings.HasPrefix(p.path, "docs/kinds/") {
			text.WriteString(p.text)
		}
	}
	return text.String()
}

func sorted(set map[string]bool) []string {
	var out []string
	for key := range set {
		out = append(out, key)
	}
	slices.Sort(out)
	return out
}
