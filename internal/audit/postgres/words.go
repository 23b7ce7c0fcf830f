package postgres

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"supportaccess.dev/operator/internal/audit"
)

// maxWord is how long a word may be that is found by index: PostgreSQL refuses rows of an index past 2,704 bytes, and what
// an engineer asks for may be longer. Nothing that exists has such a name.
const maxWord = 512

// word returns a value as it is kept and looked for: text that PostgreSQL takes, whatever somebody has sent. Values that
// differ stay different.
func word(value string) string {
	taken := text(value)
	if taken == value && len(value) <= maxWord {
		return value
	}
	sum := sha256.Sum256([]byte(value))
	return strings.ToValidUTF8(taken[:min(len(taken), maxWord)], "") + "…" + hex.EncodeToString(sum[:])
}

// text returns a text that PostgreSQL takes: it knows no zero byte, and only UTF-8.
func text(value string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(value, "\uFFFD"), "\x00", "\uFFFD")
}

// small returns a text in small letters, those of ASCII, in which it is looked for pieces of it.
func small(value string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, text(value))
}

// column is one by which entries are found that have a certain value there.
type column struct {
	name string
	of   func(*audit.Facets) string
}

// columns are the words of an entry.
var columns = []column{
	{"type", func(f *audit.Facets) string { return string(f.Type) }},
	{"source", func(f *audit.Facets) string { return f.Source }},
	{"grant_uid", func(f *audit.Facets) string { return f.Grant.UID }},
	{"grant_namespace", func(f *audit.Facets) string { return f.Grant.Namespace }},
	{"grant_name", func(f *audit.Facets) string { return f.Grant.Name }},
	{"engineer", func(f *audit.Facets) string { return f.Engineer }},
	{"case_id", func(f *audit.Facets) string { return f.Case }},
	{"namespace", func(f *audit.Facets) string { return f.Namespace }},
	{"granted_from", func(f *audit.Facets) string { return f.GrantedFrom() }},
	{"verb", func(f *audit.Facets) string { return f.Verb }},
	{"resource", func(f *audit.Facets) string { return f.Resource }},
	{"section", func(f *audit.Facets) string { return string(f.Section) }},
	{"outcome", func(f *audit.Facets) string { return string(f.Outcome) }},
}
