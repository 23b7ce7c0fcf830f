package gateway

import (
	"encoding/binary"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
)

// delimited is an event of so many bytes, with its length before it.
func delimited(n int) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(n))) + strings.Repeat("x", n)
}

func TestALastEventIsSaidOnlyBetweenTwoOthers(t *testing.T) {
	for what, c := range map[string]struct {
		contentType string
		parts       []string
		want        bool
	}{
		"before the first":                {"application/json", nil, true},
		"after a line":                    {"application/json", []string{"{}", "\n"}, true},
		"in a line":                       {"application/json;stream=watch", []string{"{}\n{"}, false},
		"after nothing, in a line":        {"application/json", []string{"{", ""}, false},
		"after an event in Protobuf":      {"application/vnd.kubernetes.protobuf;stream=watch", []string{delimited(300)}, true},
		"after two, in three parts":       {"application/vnd.kubernetes.protobuf", []string{delimited(3)[:2], delimited(3)[2:] + delimited(5)[:6], delimited(5)[6:]}, true},
		"in the length of an event":       {"application/vnd.kubernetes.protobuf", []string{delimited(3), "\x00\x00"}, false},
		"in an event":                     {"application/vnd.kubernetes.protobuf", []string{delimited(300)[:200]}, false},
		"after a length that looks whole": {"application/vnd.kubernetes.protobuf", []string{"\x00\x00\x00\x0a"}, false},
	} {
		e := &events{}
		e.begin(c.contentType)
		for _, part := range c.parts {
			e.pass([]byte(part))
		}
		if got := e.between(); got != c.want {
			t.Errorf("%s: got %t, want %t", what, got, c.want)
		}
	}
}

func TestTheLastEventIsOneThatClientsRead(t *testing.T) {
	e := &events{encoding: inProtobuf}
	last := e.last(metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Message: "it is over"})
	event := metav1.WatchEvent{}
	if n := binary.BigEndian.Uint32(last); int(n) != len(last)-4 || event.Unmarshal(last[4:]) != nil || event.Type != "ERROR" {
		t.Fatalf("the event of %d bytes says that it has %d and is %q", len(last), n, event.Type)
	}
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, metav1.Unversioned)
	object, _, err := protobuf.NewSerializer(scheme, scheme).Decode(event.Object.Raw, nil, nil)
	if status, ok := object.(*metav1.Status); err != nil || !ok || status.Message != "it is over" {
		t.Errorf("its object is %v, %v", object, err)
	}
	if e := (&events{encoding: ""}); e.last(metav1.Status{}) != nil {
		t.Error("something is said in an encoding that is not known")
	}
}
