package cli

import (
	"errors"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
)

var errNoReason = errors.New("--reason: is missing: it goes into the record")

// decisionOn renders a decision, named after what it does, with a suffix that no other has. The finalizer is one that
// admission writes where it can, and asks for where it cannot.
func decisionOn(namespace, suffix string, spec v1alpha1.SupportAccessDecisionSpec) *v1alpha1.SupportAccessDecision {
	target := spec.Target.Grant
	if target == "" {
		target = spec.Target.Request
	}
	if target == "" {
		target = "all"
	}
	name := strings.ToLower(string(spec.Action)) + "-" + target
	if len(name) > maxName {
		name = strings.TrimRight(name[:maxName], "-")
	}
	return &v1alpha1.SupportAccessDecision{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "SupportAccessDecision"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name + "-" + suffix, Finalizers: []string{v1alpha1.FinalizerDecision}},
		Spec:       spec,
	}
}

// revocation is what somebody asks to end.
type revocation struct {
	namespace, engineer, why string
	grants                   []string
	all, allNamespaces       bool
}

// check says what is wrong with the flags.
func (r revocation) check() error {
	var errs []error
	switch {
	case r.all && len(r.grants) > 0:
		errs = append(errs, errors.New("--all: ends every grant: name none, or leave --all out"))
	case !r.all && len(r.grants) == 0:
		errs = append(errs, errors.New("GRANT: is missing: name the grants to end, or give --all for every one of the namespace"))
	case r.allNamespaces && !r.all:
		errs = append(errs, errors.New("--all-namespaces: is given with --all, and only then: a grant is named within its namespace"))
	}
	if r.engineer != "" && !person.MatchString(r.engineer) {
		errs = append(errs, fmt.Errorf("--engineer: %q is no engineer's name, such as ana@vendor.example", r.engineer))
	}
	if r.why == "" {
		errs = append(errs, errNoReason)
	}
	return errors.Join(errs...)
}

// decisions renders what is to be decided: one decision for each grant that is named, or one for all of them.
func (r revocation) decisions(suffix string) []*v1alpha1.SupportAccessDecision {
	namespace := r.namespace
	targets := make([]v1alpha1.DecisionTarget, 0, len(r.grants)+1)
	switch {
	case r.allNamespaces:
		namespace = v1alpha1.SystemNamespace
		targets = append(targets, v1alpha1.DecisionTarget{Cluster: v1alpha1.TargetAll})
	case r.all:
		targets = append(targets, v1alpha1.DecisionTarget{Namespace: v1alpha1.TargetAll})
	}
	for _, grant := range r.grants {
		targets = append(targets, v1alpha1.DecisionTarget{Grant: grant})
	}
	decisions := make([]*v1alpha1.SupportAccessDecision, 0, len(targets))
	for _, target := range targets {
		target.Engineer = r.engineer
		decisions = append(decisions, decisionOn(namespace, suffix, v1alpha1.SupportAccessDecisionSpec{Action: v1alpha1.ActionRevoke, Target: target, Reason: r.why}))
	}
	return decisions
}

// shortening is a new end that somebody asks for.
type shortening struct {
	namespace, grant, until, length, why string
}

// end is the new end that is asked for.
func (s shortening) end(now time.Time) (time.Time, error) {
	switch {
	case s.until == "" && s.length == "":
		return time.Time{}, fmt.Errorf("--to, --until: %w", errNoEnd)
	case s.until != "" && s.length != "":
		return time.Time{}, fmt.Errorf("--to, --until: %w", errTwoEnds)
	case s.length != "":
		length, err := parseLength("--to", s.length)
		return now.Add(length.OrZero()).UTC().Truncate(time.Second), err
	}
	end, err := parseInstant("--until", s.until)
	if err == nil && !end.After(now) {
		err = fmt.Errorf("--until: %s has passed: to end the grant now, use revoke", s.until)
	}
	return end, err
}

// decision renders the decision.
func (s shortening) decision(now time.Time, suffix string) (*v1alpha1.SupportAccessDecision, error) {
	end, err := s.end(now)
	if s.why == "" {
		err = errors.Join(err, errNoReason)
	}
	if err != nil {
		return nil, err
	}
	return decisionOn(s.namespace, suffix, v1alpha1.SupportAccessDecisionSpec{
		Action: v1alpha1.ActionShorten, Target: v1alpha1.DecisionTarget{Grant: s.grant}, ExpirationTime: new(metav1.NewTime(end)), Reason: s.why,
	}), nil
}
