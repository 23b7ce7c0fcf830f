package records

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/lifecycle"
)

var instant = metav1.NewMicroTime(time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC))

// largest is a record in which everything is as long and as many as can be.
func largest() *v1alpha1.SupportAccessRecord {
	record := &v1alpha1.SupportAccessRecord{ObjectMeta: metav1.ObjectMeta{Namespace: strings.Repeat("n", 63), Name: strings.Repeat("g", 63)}}
	record.Spec = v1alpha1.SupportAccessRecordSpec{
		Grant:     v1alpha1.RecordedGrant{Namespace: record.Namespace, Name: record.Name, UID: "a9aeb16a-7c2f-4b61-b25f-1d0f7b8f6a11", SpecDigest: "sha256:" + strings.Repeat("d", 64)},
		GrantedBy: strings.Repeat("b", 1024), Reason: strings.Repeat("r", 1024), Scope: &v1alpha1.Scope{},
	}
	for i := range 4 {
		record.Spec.Roles = append(record.Spec.Roles, fmt.Sprintf("%d-%s", i, strings.Repeat("r", 251)))
	}
	for i := range 16 {
		name := fmt.Sprintf("%03d%s", i, strings.Repeat("e", 125))
		record.Spec.Engineers = append(record.Spec.Engineers, name)
		record.Status.RemovedEngineers = append(record.Status.RemovedEngineers, v1alpha1.RemovedEngineer{Name: name, Time: instant, By: strings.Repeat("b", 1024)})
	}
	for i := range 64 {
		namespace := fmt.Sprintf("%02d%s", i, strings.Repeat("n", 61))
		record.Spec.Scope.Namespaces = append(record.Spec.Scope.Namespaces, namespace)
		record.Status.AmbientBindings = append(record.Status.AmbientBindings, strings.Repeat("a", 512))
		for _, role := range record.Spec.Roles {
			record.Status.Bindings = append(record.Status.Bindings, v1alpha1.RecordedBinding{
				Namespace: namespace, Name: access.BindingName(record.Spec.Grant, namespace, role), UID: types.UID(record.Spec.Grant.UID), Role: role,
			})
		}
	}
	for i := range 128 {
		record.Status.Transitions = append(record.Status.Transitions, v1alpha1.Transition{
			Time: instant, Type: fmt.Sprintf("Type%d", i), By: strings.Repeat("b", 1024), Message: strings.Repeat("m", 1024),
		})
	}
	return record
}

func TestTheLargestRecordOfAnOpenGrantFitsAndClosingLosesNothing(t *testing.T) {
	record, before := largest(), largest()
	if size(record) < 4*maxSize {
		t.Fatalf("the largest record is only %d bytes", size(record))
	}
	Fit(record)
	if size(record) > maxSize {
		t.Errorf("it is %d bytes, the limit is %d", size(record), maxSize)
	}
	keepsWhatMatters(t, record, before)
	Whole(record)
	if !slices.Equal(record.Status.Bindings, before.Status.Bindings) {
		t.Error("the bindings of the open grant are not as they were")
	}
}

func TestTheLargestRecordOfAnEndedGrantFitsAndCountsWhatItLeavesOut(t *testing.T) {
	record := largest()
	record.Status.EndTime, record.Status.EndReason, record.Status.EndedBy, record.Status.EndMessage = &instant, v1alpha1.EndRevoked, "alice", strings.Repeat("w", 1024)
	record.Status.LeftBehind = muchLeft()
	before := record.DeepCopy()
	Fit(record)
	if size(record) > maxSize {
		t.Errorf("it is %d bytes, the limit is %d", size(record), maxSize)
	}
	keepsWhatMatters(t, record, before)
	left := record.Status.LeftBehind
	if n := len(left.Objects); n == 0 || n > lessLeft || left.Objects[0].Name[0] != 'a' || int(left.DroppedObjects)+n != 64 {
		t.Errorf("of what was left %d are there and %d counted", n, left.DroppedObjects)
	}
	if n := len(left.Seen); n == 0 || n > lessLeft || left.DroppedSeen != math.MaxInt32 {
		t.Errorf("of what was seen %d are there and %d counted", n, left.DroppedSeen)
	}
	if record.Status.DroppedBindings != 256 || len(record.Status.Bindings) != 0 {
		t.Errorf("%d bindings are there and %d counted", len(record.Status.Bindings), record.Status.DroppedBindings)
	}
	if len(record.Status.AmbientBindings) != 1 || !strings.HasPrefix(record.Status.AmbientBindings[0], "64 ") {
		t.Errorf("of the ambient bindings it says %q", record.Status.AmbientBindings)
	}
	small := Shrink(record)
	if small == nil {
		t.Fatal("it does not shrink")
	}
	keepsWhatMatters(t, small, before)
	if n, m := len(small.Status.LeftBehind.Objects), len(small.Status.LeftBehind.Seen); n != leastLeft || m != leastLeft {
		t.Errorf("of what was left %d and %d are there", n, m)
	}
	if Fit(small); Shrink(small) != nil {
		t.Error("it shrinks again and again")
	}
}

// muchLeft is as much as a session may claim was left behind.
func muchLeft() *v1alpha1.LeftBehind {
	left := &v1alpha1.LeftBehind{Time: instant, Unknown: strings.Repeat("u", 512), DroppedSeen: math.MaxInt32}
	for i := range 64 {
		name := string(rune('a'+i)) + strings.Repeat("n", 252)
		left.Objects = append(left.Objects, v1alpha1.LeftObject{
			Group: name, Resource: name, Namespace: strings.Repeat("s", 63), Name: name, UID: types.UID(strings.Repeat("i", 128)), Deed: v1alpha1.DeedCreated,
			Outlives: v1alpha1.OutlivingServiceAccount, Doubt: v1alpha1.DoubtDeletionAsked, By: strings.Repeat("b", 128),
		})
		left.Seen = append(left.Seen, v1alpha1.SeenObject{Kind: v1alpha1.SeenSecret, Namespace: strings.Repeat("s", 63), Name: name, By: strings.Repeat("b", 128)})
	}
	return left
}

// keepsWhatMatters fails the test if a record lost who granted, what, and how it ended.
func keepsWhatMatters(t *testing.T, record, before *v1alpha1.SupportAccessRecord) {
	t.Helper()
	got, want := record.Status, before.Status
	if record.Spec.GrantedBy != before.Spec.GrantedBy || !slices.Equal(record.Spec.Roles, before.Spec.Roles) || !slices.Equal(record.Spec.Engineers, before.Spec.Engineers) {
		t.Error("who granted what to whom is lost")
	}
	if !got.EndTime.Equal(want.EndTime) || got.EndReason != want.EndReason || got.EndedBy != want.EndedBy || got.EndMessage != want.EndMessage {
		t.Error("the end is lost")
	}
	first, last := got.Transitions[0], got.Transitions[len(got.Transitions)-1]
	if first.Type != "Type0" || first.By != want.Transitions[0].By || last.Type != "Type127" || last.By != want.Transitions[127].By {
		t.Errorf("the trail goes from %s to %s", first.Type, last.Type)
	}
	if int(got.DroppedTransitions)+len(got.Transitions) != 128 {
		t.Errorf("%d transitions are there and %d counted", len(got.Transitions), got.DroppedTransitions)
	}
}

func TestARecordThatFitsIsLeftAsItIs(t *testing.T) {
	record := largest()
	record.Status.Transitions, record.Status.Bindings, record.Status.AmbientBindings = record.Status.Transitions[:3], record.Status.Bindings[:8], nil
	before := record.DeepCopy()
	Fit(record)
	if size(record) != size(before) || record.Status.Bindings[0].Role == "" {
		t.Errorf("it went from %d to %d bytes", size(before), size(record))
	}
}

func TestARecordAndItsCopiesAreShrunkTogetherOrNotAtAll(t *testing.T) {
	home := &v1alpha1.SupportAccessRecord{ObjectMeta: metav1.ObjectMeta{Namespace: "home", Name: "case-5"}}
	home.Spec.Grant = v1alpha1.RecordedGrant{Namespace: home.Namespace, Name: home.Name}
	for range 20 {
		home.Status.Transitions = append(home.Status.Transitions, v1alpha1.Transition{Time: instant, Type: "RoleChanged"})
	}
	const lengths = 300
	short, shrunk := shrunkSize-size(home)-lengths/2, 0
	for length := range lengths {
		home.Status.EndMessage = strings.Repeat("m", short+length)
		small := Shrink(home) != nil
		for _, namespace := range []string{"a", strings.Repeat("n", 63)} {
			if mirror := lifecycle.Mirror(home, namespace); (Shrink(mirror) != nil) != small {
				t.Fatalf("a record of %d bytes is shrunk: %t; its copy in %s: %t", size(home), small, namespace, !small)
			}
		}
		if small {
			shrunk++
		}
	}
	if shrunk == 0 || shrunk == lengths {
		t.Errorf("of %d records %d are shrunk", lengths, shrunk)
	}
}

func TestATextIsCutBetweenTwoCharacters(t *testing.T) {
	for _, text := range []string{strings.Repeat("ü", 600), strings.Repeat("a", 1025), strings.Repeat("😀", 400)} {
		if cut := Clip(text, MaxMessage); len(cut) > MaxMessage || len(cut) < MaxMessage-6 || !utf8.ValidString(cut) || !strings.HasSuffix(cut, "…") {
			t.Errorf("%d bytes become %d, valid %t", len(text), len(cut), utf8.ValidString(cut))
		}
	}
	if whole := strings.Repeat("a", MaxMessage); Clip(whole, MaxMessage) != whole {
		t.Error("a text that fits was cut")
	}
}
