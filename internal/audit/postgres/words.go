package postgres

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode/utf8"

	"supportaccess.dev/operator/internal/audit"
)

// maxWord is how long a word may be that is found by index: PostgreSQL refuses rows of an index past 2,704 bytes, and what
// an engineer asks for may be longer. Nothing that exists has such a name.
const maxWord = 512

// word returns a value as it is kept and looked for: text that PostgreSQL takes, whatever somebody has sent. Values that an
// entry tells apart stay apart.
func word(value string) string {
	value = legible(value)
	if len(value) <= maxWord && !strings.ContainsRune(value, 0) {
		return value
	}
	sum := sha256.Sum256([]byte(value))
	return strings.ToValidUTF8(zeroless(value)[:min(len(value), maxWord)], "") + "…" + hex.EncodeToString(sum[:])
}

// text returns a text in small letters, in which it is looked for pieces of it.
func text(value string) string { return zeroless(strings.ToLower(legible(value))) }

// legible returns a value as the entry has it, in JSON: what is no UTF-8 stands in none.
func legible(value string) string {
	if utf8.ValidString(value) {
		return value
	}
	return string([]rune(value))
}

// zeroless returns a value without zero bytes, of which PostgreSQL takes none.
func zeroless(value string) string { return strings.ReplaceAll(value, "\x00", " ") }

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
	{"recording", func(f *audit.Facets) string { return f.Recording }},
}
