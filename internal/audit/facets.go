package audit

import (
	"net/http"
	"strings"
	"time"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// Facets are what an entry can be found by. They are taken from the entry and prove nothing: its line does.
type Facets struct {
	Time      time.Time
	Type      Type
	Source    string
	Grant     Grant
	Engineer  string
	Case      string
	Namespace string
	Verb      string
	Resource  string
	Section   Section
	Outcome   Outcome
	// Recording is the number of the request whose stream it is of, or ends.
	Recording string
	// Text is what one may look for words in: the URI, the command, the cause, the message, by whom.
	Text string
}

// Outcome is what became of a request.
type Outcome string

const (
	// OutcomeAttempted is that it was let through: what became of it is another entry.
	OutcomeAttempted Outcome = "Attempted"
	// OutcomeSucceeded is that the API server did what was asked.
	OutcomeSucceeded Outcome = "Succeeded"
	// OutcomeRefused is that the gateway or the API server did not let the engineer.
	OutcomeRefused Outcome = "Refused"
	// OutcomeFailed is that it went wrong for another reason.
	OutcomeFailed Outcome = "Failed"
	// OutcomeCut is that it was ended before its time, as the grant was.
	OutcomeCut Outcome = "Cut"
)

// Outcomes are all of them.
var Outcomes = []Outcome{OutcomeAttempted, OutcomeSucceeded, OutcomeRefused, OutcomeFailed, OutcomeCut}

// FacetsOf returns what an entry can be found by.
func FacetsOf(e *Entry) Facets {
	f := Facets{
		Time: e.StageTimestamp.UTC(), Type: e.Type, Source: e.Labels[LabelSource],
		Grant: e.Grant, Engineer: e.Engineer, Case: e.Case, Namespace: e.Grant.Namespace,
		Verb: e.Verb, Section: e.Section, Outcome: outcomeOf(e), Text: textOf(e),
	}
	if e.Recording != nil {
		f.Recording = string(e.AuditID)
	}
	if e.ObjectRef == nil {
		return f
	}
	f.Resource = ResourceName(e.ObjectRef)
	if e.ObjectRef.Namespace != "" {
		f.Namespace = e.ObjectRef.Namespace
	}
	return f
}

// GrantedFrom returns the namespace of the grant, where that is another than the one in which something was done: few
// entries have it, and who asks for a namespace asks for both.
func (f *Facets) GrantedFrom() string {
	if f.Grant.Namespace == f.Namespace {
		return ""
	}
	return f.Grant.Namespace
}

// ResourceName returns what an admin calls a resource: pods/exec, deployments.apps, deployments.apps/scale.
func ResourceName(object *auditv1.ObjectReference) string {
	name := object.Resource
	if object.APIGroup != "" {
		name += "." + object.APIGroup
	}
	if object.Subresource != "" {
		name += "/" + object.Subresource
	}
	return name
}

func outcomeOf(e *Entry) Outcome {
	switch {
	case e.Type == TypeChange, e.Type == TypeAct, e.Type == TypeRecording:
		return OutcomeAttempted
	case e.Type != TypeRequest:
		return OutcomeSucceeded
	case e.Cause != "":
		return OutcomeCut
	case e.Stage != auditv1.StageResponseComplete || e.ResponseStatus == nil:
		return OutcomeAttempted
	case e.ResponseStatus.Code == http.StatusForbidden || e.ResponseStatus.Code == http.StatusUnauthorized:
		return OutcomeRefused
	case e.ResponseStatus.Code >= http.StatusBadRequest:
		return OutcomeFailed
	}
	return OutcomeSucceeded
}

func textOf(e *Entry) string {
	if e.Type == TypeRecording {
		// Nobody looks for a piece by words, and the request has them.
		return ""
	}
	words := append([]string{e.RequestURI}, e.Command...)
	if e.ResponseStatus != nil {
		words = append(words, e.ResponseStatus.Message)
	}
	words = append(words, e.Cause)
	if e.Happened != nil {
		words = append(words, e.Happened.What, e.Happened.By, e.Happened.Message)
	}
	return strings.TrimSpace(strings.Join(words, " "))
}
