package audit

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// ParseQuery reads a query as it stands in a URL. What it does not know is an error: a filter that is mistyped would
// otherwise show everything.
func ParseQuery(values url.Values) (Query, error) {
	q := Query{}
	for name, given := range values {
		if len(given) != 1 {
			return q, fmt.Errorf("%s: give it once", name)
		}
		if err := q.set(name, given[0]); err != nil {
			return q, fmt.Errorf("%s: %w", name, err)
		}
	}
	return q, nil
}

func (q *Query) set(name, value string) error {
	plain := map[string]*string{
		"source": &q.Source, "engineer": &q.Engineer, "case": &q.Case, "namespace": &q.Namespace, "verb": &q.Verb, "resource": &q.Resource,
		"text": &q.Text, "section": (*string)(&q.Section), "outcome": (*string)(&q.Outcome), "type": (*string)(&q.Type), "uid": &q.Grant.UID, "recording": &q.Recording,
	}
	numbers := map[string]*int64{"below": &q.Below, "above": &q.Above}
	instants := map[string]*time.Time{"from": &q.From, "to": &q.To}
	var err error
	switch {
	case plain[name] != nil:
		*plain[name] = value
	case numbers[name] != nil:
		*numbers[name], err = number(value)
	case instants[name] != nil:
		*instants[name], err = instant(value)
	case name == "limit":
		var limit int64
		limit, err = number(value)
		q.Limit = int(min(limit, 1<<20))
	case name == "grant":
		q.Grant.Namespace, q.Grant.Name, err = grantOf(value)
	default:
		err = errors.New("there is no such filter")
	}
	if err != nil {
		return err
	}
	return q.known()
}

// known says whether words that have a meaning have one.
func (q *Query) known() error {
	if q.Section != "" && !slices.Contains(Sections, q.Section) {
		return fmt.Errorf("%q is none of %q", q.Section, Sections)
	}
	if q.Outcome != "" && !slices.Contains(Outcomes, q.Outcome) {
		return fmt.Errorf("%q is none of %q", q.Outcome, Outcomes)
	}
	return nil
}

func number(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%q is no number from 1", text)
	}
	return n, nil
}

func instant(text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, fmt.Errorf("%q is no instant such as 2026-11-22T09:00:00Z", text)
	}
	return t, nil
}

func grantOf(text string) (namespace, name string, err error) {
	namespace, name, ok := strings.Cut(text, "/")
	if !ok || namespace == "" || name == "" {
		return "", "", fmt.Errorf("%q is not NAMESPACE/NAME", text)
	}
	return namespace, name, nil
}

// Legible returns a query in which every value is as an entry has it: what is no UTF-8 stands in none.
func (q Query) Legible() Query {
	for _, value := range []*string{
		(*string)(&q.Type), &q.Source, &q.Grant.UID, &q.Grant.Namespace, &q.Grant.Name, &q.Engineer, &q.Case, &q.Namespace, &q.Verb, &q.Resource,
		(*string)(&q.Section), (*string)(&q.Outcome), &q.Recording, &q.Text,
	} {
		if !utf8.ValidString(*value) {
			*value = string([]rune(*value))
		}
	}
	return q
}

// Matches says whether a query asks for an entry that has these facets, whatever its number.
func (q *Query) Matches(f *Facets) bool {
	for _, equal := range [][2]string{
		{string(q.Type), string(f.Type)}, {q.Source, f.Source}, {q.Grant.UID, f.Grant.UID}, {q.Grant.Namespace, f.Grant.Namespace},
		{q.Grant.Name, f.Grant.Name}, {q.Engineer, f.Engineer}, {q.Case, f.Case}, {q.Verb, f.Verb}, {q.Resource, f.Resource},
		{string(q.Section), string(f.Section)}, {string(q.Outcome), string(f.Outcome)}, {q.Recording, f.Recording},
	} {
		if equal[0] != "" && equal[0] != equal[1] {
			return false
		}
	}
	return (f.Type != TypeRecording || !q.SkipsPieces()) && (q.Namespace == "" || q.Namespace == f.Namespace || q.Namespace == f.Grant.Namespace) &&
		(q.Text == "" || strings.Contains(strings.ToLower(f.Text), strings.ToLower(q.Text))) &&
		(q.From.IsZero() || !f.Time.Before(q.From)) && (q.To.IsZero() || f.Time.Before(q.To))
}
