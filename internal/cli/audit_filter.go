package cli

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"supportaccess.dev/operator/internal/audit"
)

// filter says which entries are asked for.
type filter struct {
	words         map[string]*string
	since, until  string
	grant         string
	allNamespaces bool
}

func (f *filter) bind(flags *pflag.FlagSet) {
	f.words = map[string]*string{}
	for name, usage := range map[string]string{
		"engineer": "only of this engineer",
		"case":     "only of this case",
		"section":  "only what was about this: " + strings.Join(sectionWords(), ", "),
		"verb":     "only this verb, such as get, or granted and revoked of what became of grants",
		"resource": "only this resource, such as pods/exec or deployments.apps",
		"outcome":  "only what came to this: " + strings.Join(outcomeWords(), ", "),
		"source":   audit.Source + " for what support did and what became of grants, " + audit.SourceLog + " for what was done with the log",
		"type":     "only this type: " + string(audit.TypeLifecycle) + " for what became of grants, " + string(audit.TypeAct) + " for who asked to delete one",
		"text":     "only with this in the URI, the command, the cause or the message",
	} {
		f.words[name] = flags.String(name, "", usage)
	}
	flags.StringVar(&f.grant, "grant", "", "only of this grant: NAME, or NAMESPACE/NAME")
	flags.StringVar(&f.since, "since", "", "only since then: an instant such as 2026-12-01T18:00Z, or how long ago, such as 24h")
	flags.StringVar(&f.until, "until", "", "only before then, in the same words")
	flags.BoolVarP(&f.allNamespaces, "all-namespaces", "A", false, "of the whole cluster, which takes the right to read it there")
}

func sectionWords() []string {
	var words []string
	for _, s := range audit.Sections {
		words = append(words, string(s))
	}
	return words
}

// query returns the filter as the API takes it.
func (f *filter) query(namespace string, now time.Time) (url.Values, error) {
	values := url.Values{}
	for name, word := range f.words {
		if *word != "" {
			values.Set(name, known(name, *word))
		}
	}
	if !f.allNamespaces {
		values.Set("namespace", namespace)
	}
	if f.grant != "" {
		grant := f.grant
		if !strings.Contains(grant, "/") {
			grant = namespace + "/" + grant
		}
		values.Set("grant", grant)
	}
	for name, word := range map[string]string{"from": f.since, "to": f.until} {
		if word == "" {
			continue
		}
		at, err := instantOrAgo("--"+map[string]string{"from": "since", "to": "until"}[name], word, now)
		if err != nil {
			return nil, err
		}
		values.Set(name, at.UTC().Format(time.RFC3339))
	}
	if _, err := audit.ParseQuery(values); err != nil {
		return nil, fmt.Errorf("--%w", err)
	}
	return values, nil
}

// known returns a word as the log writes it, however its letters are.
func known(name, word string) string {
	words := map[string][]string{"section": sectionWords(), "outcome": outcomeWords(), "source": {audit.Source, audit.SourceLog}}
	for _, one := range words[name] {
		if strings.EqualFold(word, one) {
			return one
		}
	}
	return word
}

func outcomeWords() []string {
	var words []string
	for _, o := range audit.Outcomes {
		words = append(words, string(o))
	}
	return words
}

// instantOrAgo reads an instant, or how long ago one was.
func instantOrAgo(flag, text string, now time.Time) (time.Time, error) {
	if lengths.MatchString(text) && text != "" {
		ago, err := parseLength(flag, text)
		if err != nil {
			return time.Time{}, err
		}
		return now.Add(-ago.OrZero()), nil
	}
	return parseInstant(flag, text)
}
