// Package records knows how much a record may hold. What it leaves out it counts; the end, the granter and the roles it
// never leaves out.
package records

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
)

const (
	// maxSize is how large a record may be, in bytes of JSON.
	maxSize = 64 * 1024
	// shrunkSize is how large it may be when its grant ended long ago.
	shrunkSize = 4096
	// MaxMessage is how long a message may be, in bytes.
	MaxMessage = 1024
	// shortMessage is how long a message may be where room is scarce.
	shortMessage = 160
)

// Clip returns a text of at most so many bytes, cut between two characters.
func Clip(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	end := limit - len("…")
	for end > 0 && text[end]&0xC0 == 0x80 {
		end--
	}
	return text[:end] + "…"
}

// MaxTransitions is how many transitions a record keeps.
const MaxTransitions = 128

// Add appends a transition; past the limit the oldest but the first is counted and left out.
func Add(record *v1alpha1.SupportAccessRecord, t v1alpha1.Transition) {
	status := &record.Status
	if len(status.Transitions) >= MaxTransitions {
		status.Transitions = slices.Delete(slices.Clone(status.Transitions), 1, 2)
		status.DroppedTransitions++
	}
	t.Message = Clip(t.Message, MaxMessage)
	status.Transitions = append(status.Transitions, t)
}

// maxNamesInLine is how many engineers a line names.
const maxNamesInLine = 3

// NamesInLine returns people in one line as kubectl shows lists, the first few by name and the others as a number.
func NamesInLine(engineers []v1alpha1.Engineer) string {
	var names []string
	for _, e := range engineers[:min(len(engineers), maxNamesInLine)] {
		names = append(names, e.Name)
	}
	line := strings.Join(names, ",")
	if more := len(engineers) - len(names); more > 0 {
		line += fmt.Sprintf(" + %d more...", more)
	}
	return line
}

// Fit makes a record small enough to be kept, in place. It begins with what can be had otherwise, and ends with what can
// not. A record that fits already it leaves as it is.
func Fit(record *v1alpha1.SupportAccessRecord) {
	for _, save := range []func(*v1alpha1.SupportAccessRecord){
		withoutRoles, withShortMessages, withoutDeadLetters, withoutAmbience, withLessLeft, withoutBindings, withShortNames,
	} {
		if size(record) <= maxSize {
			return
		}
		save(record)
	}
	dropTransitions(record, maxSize)
}

// withoutRoles leaves out which role each binding gives: its name says it. Whole puts them back.
func withoutRoles(record *v1alpha1.SupportAccessRecord) {
	for i := range record.Status.Bindings {
		b := &record.Status.Bindings[i]
		if b.Role == roleOf(record, *b) {
			b.Role = ""
		}
	}
}

// Whole puts back, in place, what Fit leaves out because it can be had otherwise.
func Whole(record *v1alpha1.SupportAccessRecord) {
	for i := range record.Status.Bindings {
		if b := &record.Status.Bindings[i]; b.Role == "" {
			b.Role = roleOf(record, *b)
		}
	}
}

// roleOf returns which of the record's roles a binding's name is made of, empty if none.
func roleOf(record *v1alpha1.SupportAccessRecord, b v1alpha1.RecordedBinding) string {
	i := slices.IndexFunc(record.Spec.Roles, func(role string) bool {
		return access.BindingName(record.Spec.Grant, b.Namespace, role) == b.Name
	})
	if i < 0 {
		return ""
	}
	return record.Spec.Roles[i]
}

// withShortMessages shortens what lies between the first transition, which says who granted and why, and the last.
func withShortMessages(record *v1alpha1.SupportAccessRecord) {
	withShortApprovals(record)
	transitions := record.Status.Transitions
	for i := 1; i < len(transitions)-1; i++ {
		transitions[i].Message = Clip(transitions[i].Message, shortMessage)
	}
}

// withShortApprovals shortens why people approved.
func withShortApprovals(record *v1alpha1.SupportAccessRecord) {
	for i := range record.Status.Approvals {
		a := &record.Status.Approvals[i]
		a.Reason = Clip(a.Reason, shortMessage)
	}
}

// withoutDeadLetters counts the notices that were given up, but for the last of each channel, and says in short why.
func withoutDeadLetters(record *v1alpha1.SupportAccessRecord) {
	for i := range record.Status.Notifications {
		c := &record.Status.Notifications[i]
		c.LastError = Clip(c.LastError, shortMessage)
		if over := len(c.DeadLetters) - 1; over > 0 {
			c.DeadLetters, c.DroppedDeadLetters = c.DeadLetters[over:], c.DroppedDeadLetters+int32(over)
		}
		for j := range c.DeadLetters {
			c.DeadLetters[j].Error = Clip(c.DeadLetters[j].Error, shortMessage)
		}
	}
}

// withoutAmbience counts the bindings that gave every identity something, and names none.
func withoutAmbience(record *v1alpha1.SupportAccessRecord) {
	if n := len(record.Status.AmbientBindings); n > 1 {
		record.Status.AmbientBindings = []string{fmt.Sprintf("%d bindings, which did not fit", n)}
	}
}

// How much of what was left behind is named where room is scarce. The audit log has all of it, and what could let somebody
// in comes first.
const (
	lessLeft  = 16
	leastLeft = 3
)

func withLessLeft(record *v1alpha1.SupportAccessRecord)  { nameLeft(record, lessLeft) }
func withLeastLeft(record *v1alpha1.SupportAccessRecord) { nameLeft(record, leastLeft) }

// nameLeft names so much of what was left behind, and counts the rest.
func nameLeft(record *v1alpha1.SupportAccessRecord, most int) {
	left := record.Status.LeftBehind
	if left == nil {
		return
	}
	// A session may claim any number to have been dropped.
	if over := len(left.Objects) - most; over > 0 {
		left.Objects, left.DroppedObjects = left.Objects[:most], sum(left.DroppedObjects, over)
	}
	if over := len(left.Seen) - most; over > 0 {
		left.Seen, left.DroppedSeen = left.Seen[:most], sum(left.DroppedSeen, over)
	}
}

func sum(counted int32, more int) int32 {
	return int32(min(int64(counted)+int64(more), math.MaxInt32)) //nolint:gosec // Bounded in this line.
}

// withoutBindings counts the bindings of a grant that has ended. Closing goes by those of one that has not.
func withoutBindings(record *v1alpha1.SupportAccessRecord) {
	if record.Status.EndTime == nil {
		return
	}
	record.Status.DroppedBindings += int32(len(record.Status.Bindings))
	record.Status.Bindings = nil
}

// withShortNames shortens by whom things were done, but for the first and the last: a name may be as long as a message.
func withShortNames(record *v1alpha1.SupportAccessRecord) {
	for i := range record.Status.RemovedEngineers {
		e := &record.Status.RemovedEngineers[i]
		e.By = Clip(e.By, shortMessage)
	}
	for i := range record.Status.Approvals {
		a := &record.Status.Approvals[i]
		a.By = Clip(a.By, shortMessage)
	}
	transitions := record.Status.Transitions
	for i := 1; i < len(transitions)-1; i++ {
		transitions[i].By = Clip(transitions[i].By, shortMessage)
	}
}

// dropTransitions leaves out and counts what lies between the first transition and the last, the oldest first, until a
// record is small enough.
func dropTransitions(record *v1alpha1.SupportAccessRecord, limit int) {
	status := &record.Status
	for over := size(record) - limit; over > 0 && len(status.Transitions) > 2; {
		over -= encodedSize(status.Transitions[1])
		status.Transitions = slices.Delete(status.Transitions, 1, 2)
		status.DroppedTransitions++
	}
}

// Shrink returns a record with what matters years later, nil if it is small already: who, what, when, why, how it ended.
func Shrink(record *v1alpha1.SupportAccessRecord) *v1alpha1.SupportAccessRecord {
	before := size(record)
	if before <= shrunkSize {
		return nil
	}
	small := record.DeepCopy()
	withoutBindings(small)
	withShortApprovals(small)
	withoutDeadLetters(small)
	withLeastLeft(small)
	for i := range small.Status.Transitions {
		small.Status.Transitions[i].Message = Clip(small.Status.Transitions[i].Message, shortMessage)
	}
	dropTransitions(small, shrunkSize)
	if size(small) >= before {
		return nil
	}
	return small
}

// size is how large a record is without what the API server adds, under the name of its copies. It is the same for all of
// them: were one small enough and another not, one would be shrunk and made whole again for ever.
func size(record *v1alpha1.SupportAccessRecord) int {
	grant := record.Spec.Grant
	return encodedSize(&v1alpha1.SupportAccessRecord{
		ObjectMeta: metav1.ObjectMeta{Namespace: grant.Namespace, Name: grant.Namespace + "." + grant.Name, Labels: record.Labels},
		Spec:       record.Spec,
		Status:     record.Status,
	})
}

func encodedSize(part any) int {
	// A record is strings, numbers and lists of them: encoding it cannot fail.
	encoded, _ := json.Marshal(part)
	return len(encoded)
}
