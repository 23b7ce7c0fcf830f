package banner

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/internal/records"
)

// What is in a banner, by key.
const (
	keyText      = "text"
	keyUntil     = "until"
	keyEngineers = "engineers"
	keyGrant     = "grant"
)

// maxNamed is how many grants and how many engineers a banner names.
const maxNamed = 32

// dataOf returns what a banner of a namespace says of the records that reach it, nil if none of them is of open access.
func dataOf(namespace string, reaching []v1alpha1.SupportAccessRecord) map[string]string {
	var grants, engineers, sentences []string
	var until time.Time
	open := slices.DeleteFunc(slices.Clone(reaching), func(r v1alpha1.SupportAccessRecord) bool { return !isOpen(namespace, &r) })
	slices.SortFunc(open, func(a, b v1alpha1.SupportAccessRecord) int { return strings.Compare(nameOf(&a), nameOf(&b)) })
	for i := range open {
		r := &open[i]
		grants = append(grants, nameOf(r))
		people := peopleOf(r)
		engineers = append(engineers, people...)
		if end := r.Status.ExpirationTime; end != nil && end.After(until) {
			until = end.Time
		}
		sentences = append(sentences, sentenceOf(r, people))
	}
	if len(open) == 0 {
		return nil
	}
	slices.Sort(engineers)
	data := map[string]string{
		keyText:      "Support access to this namespace is open: " + few(sentences, "; "),
		keyEngineers: few(slices.Compact(engineers), ", "),
		keyGrant:     few(grants, ", "),
	}
	if !until.IsZero() {
		data[keyUntil] = until.UTC().Format(time.RFC3339)
	}
	return data
}

// isOpen reports whether a record is of a grant by which somebody may come into a namespace. Copies would count it twice.
func isOpen(namespace string, r *v1alpha1.SupportAccessRecord) bool {
	if !records.IsOfGrant(r) || !records.IsOwn(r) || r.Status.ProvisionedTime == nil || r.Status.EndTime != nil {
		return false
	}
	return slices.ContainsFunc(lifecycle.ScopeOf(r.Spec.Scope, r.Spec.Grant.Namespace), func(place string) bool {
		withdrawn := slices.ContainsFunc(r.Status.Bindings, func(b v1alpha1.RecordedBinding) bool { return b.Withdrawn && b.Namespace == place })
		return (place == namespace || place == "") && !withdrawn
	})
}

// nameOf returns which grant a record is of.
func nameOf(r *v1alpha1.SupportAccessRecord) string {
	return r.Spec.Grant.Namespace + "/" + r.Spec.Grant.Name
}

// peopleOf returns the engineers of a grant who were not taken off.
func peopleOf(r *v1alpha1.SupportAccessRecord) []string {
	return slices.DeleteFunc(slices.Clone(r.Spec.Engineers), func(name string) bool {
		return slices.ContainsFunc(r.Status.RemovedEngineers, func(gone v1alpha1.RemovedEngineer) bool { return gone.Name == name })
	})
}

// sentenceOf says who may come in until when, because of what.
func sentenceOf(r *v1alpha1.SupportAccessRecord, people []string) string {
	sentence := few(people, ", ")
	if end := r.Status.ExpirationTime; end != nil {
		sentence += " until " + end.UTC().Format("2006-01-02 15:04 UTC")
	}
	switch {
	case r.Spec.Case != nil && r.Spec.Case.ID != "":
		sentence += " for case " + r.Spec.Case.ID
	case r.Spec.SettingRef != nil:
		sentence += ", switched on by " + r.Spec.GrantedBy
	}
	return sentence
}

// few joins what there is room for, and counts the rest.
func few(values []string, separator string) string {
	shown := values[:min(len(values), maxNamed)]
	text := strings.Join(shown, separator)
	if more := len(values) - len(shown); more > 0 {
		text += fmt.Sprintf("%sand %d more", separator, more)
	}
	return text
}
