package change

import (
	"regexp"
	"slices"
	"strings"
)

// What follows one of these names in a command is secret.
const secretNames = `(?:pass(?:wor[dt]|wd|phrase)?|pwd|secret|token|api-?_?key|access-?_?key|private-?_?key|credentials?)`

var (
	// option is a word such as --db-password or --token, alone.
	option = regexp.MustCompile(`(?i)^--?(?:[\w.]+-)*` + secretNames + `(?:-\w+)*$`)
	// inWords are secrets within a word, which may be a script: the second part of each is the secret.
	inWords = []*regexp.Regexp{
		// PGPASSWORD=value, --db-password=value, password: value.
		regexp.MustCompile(`(?i)([\w.-]*` + secretNames + `[\w.-]*["']?\s*[=:]\s*["']?)([^\s"';&|]+)`),
		// --password value, in a script.
		regexp.MustCompile(`(?i)(\s--?(?:[\w.]+-)*` + secretNames + `\s+["']?)([^\s"';&|-][^\s"';&|]*)`),
		// https://user:password@host.
		regexp.MustCompile(`(://[^\s/:@]*:)([^\s/@]+)(@)`),
		// Authorization: Bearer value.
		regexp.MustCompile(`(?i)(\b(?:bearer|basic)\s+)([\w.~+/=-]+)`),
	}
)

// Command returns the words of a command with what looks secret in them masked: what follows an option, a variable or a
// header whose name says so, and the password in an address. What nothing gives away, as in mysql -pvalue, is left as it is.
func (m *Masker) Command(words []string) []string {
	masked := slices.Clone(words)
	for i, word := range words {
		if i > 0 && option.MatchString(words[i-1]) && !strings.HasPrefix(word, "-") {
			masked[i] = m.Text(word)
			continue
		}
		for _, secret := range inWords {
			masked[i] = secret.ReplaceAllStringFunc(masked[i], func(found string) string {
				parts := secret.FindStringSubmatch(found)
				if strings.HasPrefix(parts[2], "masked:") {
					return found
				}
				return parts[1] + m.Text(parts[2]) + strings.Join(parts[3:], "")
			})
		}
	}
	return masked
}
