package admission

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
)

// heard collects what the API server has said in the whole run, so that a rule which no test provokes is found.
type heard struct {
	mu   sync.Mutex
	said []string
}

func (h *heard) add(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.said = append(h.said, what)
}

// unreachable are rules that stand behind one of the CRD's, which the API server asks first.
var unreachable = []string{
	"support-access-grant-stamp: spec.grantedBy: says who made the grant and never changes",
	"support-access-decision-stamp: spec.decidedBy: says who decided and never changes",
	"support-access-request-stamp: spec.requestedBy: says who asked and never changes",
	"support-access-decision-stamp: spec.authority: says with which authority was decided and never changes",
	"support-access-grant-bind: spec.roles: at most 4",
	"support-access-setting-bind: spec.roles: at most 4",
	"support-access-policy-bind: spec.enabledByDefault.roles: at most 4",
}

var literal = regexp.MustCompile(`'([^']*)'`)

// unheard returns an error when a rule of ours refused, or warned, nobody.
func (w *world) unheard() error {
	var silent []string
	for _, object := range w.shipped {
		policy, ok := object.(*admissionregistrationv1.ValidatingAdmissionPolicy)
		if !ok {
			continue
		}
		for _, validation := range policy.Spec.Validations {
			words := words(validation)
			if !slices.ContainsFunc(w.heard.said, func(said string) bool {
				return strings.Contains(said, "'"+policy.Name+"'") && strings.Contains(said, words)
			}) {
				silent = append(silent, policy.Name+": "+words)
			}
		}
	}
	slices.Sort(silent)
	want := slices.Sorted(slices.Values(unreachable))
	if !slices.Equal(silent, want) {
		return fmt.Errorf("these rules refused nobody:\n\t%s\nwant only:\n\t%s", strings.Join(silent, "\n\t"), strings.Join(want, "\n\t"))
	}
	return nil
}

// words returns what a rule's message always says.
func words(validation admissionregistrationv1.Validation) string {
	if validation.MessageExpression == "" {
		return validation.Message
	}
	longest := ""
	for _, found := range literal.FindAllStringSubmatch(validation.MessageExpression, -1) {
		if len(found[1]) > len(longest) {
			longest = found[1]
		}
	}
	return longest
}
