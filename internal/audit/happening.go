package audit

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// TypeLifecycle is that something happened to a grant, or to what grants may be: nobody's request, but what became of it.
const TypeLifecycle Type = "Lifecycle"

// TypeAct is that somebody asked the API server to delete what is support access's, or to change a policy. Whether it came to
// that, entries of type Lifecycle say.
const TypeAct Type = "Act"

// Happening is what happened to a grant, a decision or a policy. With types Lifecycle and Act.
type Happening struct {
	// What happened, in one word.
	What string `json:"what"`
	// By is who or what did it.
	By string `json:"by"`
	// Time is when. The entry's own time is when it was put down.
	Time metav1.MicroTime `json:"time"`
	// Message says it in a sentence.
	Message string `json:"message,omitempty"`
	// Generation is which version of the object it made, where that has versions.
	Generation int64 `json:"generation,omitempty"`
}

// Lifecycle returns the entry of something that happened to an object. What the object says is in it, in JSON, if given.
func Lifecycle(happened Happening, object auditv1.ObjectReference, says []byte, now metav1.MicroTime) *Entry {
	e := &Entry{
		Type: TypeLifecycle,
		Event: auditv1.Event{
			TypeMeta: metav1.TypeMeta{APIVersion: "audit.k8s.io/v1", Kind: "Event"},
			Level:    auditv1.LevelMetadata, Stage: auditv1.StageResponseComplete, ObjectRef: &object,
			RequestReceivedTimestamp: happened.Time, StageTimestamp: now,
			Annotations: map[string]string{LabelSource: Source},
		},
		Labels: map[string]string{LabelSource: Source}, Happened: &happened,
	}
	e.User.Username = happened.By
	if says != nil {
		e.Level, e.RequestObject = auditv1.LevelRequest, &runtime.Unknown{Raw: says, ContentType: runtime.ContentTypeJSON}
	}
	return e
}

// happening is what happened, nothing for an entry of something else.
func (e *Entry) happening() Happening {
	if e.Happened == nil {
		return Happening{}
	}
	return *e.Happened
}
