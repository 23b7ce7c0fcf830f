// Package change knows how what a change did is put on record: before and after, with what is secret masked. It knows
// neither who changed it nor where records go.
package change

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// State is what became of a change.
type State string

const (
	// Attempted is that the API server was about to make it: whether it did is said by the entry of the request's end.
	Attempted State = "Attempted"
	// Committed is that it was made.
	Committed State = "Committed"
	// Rejected is that it was not.
	Rejected State = "Rejected"
	// Unknown is that nobody knows: the API server gave no clear answer, or was not waited for.
	Unknown State = "Unknown"
)

// Change is what a request was about to change, or what became of that.
type Change struct {
	// State is what became of it.
	State State `json:"state"`
	// Operation is what the API server calls it: CREATE, UPDATE, DELETE, CONNECT. Every patch is an UPDATE.
	Operation string `json:"operation,omitempty"`
	// Before and After are the object, masked, without its managed fields. A created one has no before, a deleted one no after.
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
	// Reduced says that both were too long: long texts are masked, and then what is the same in both is left out.
	Reduced bool `json:"reduced,omitempty"`
}

// StateOf returns what became of the changes of a request by the status of its answer. cut says that it was ended before
// the answer did, many that it was about several objects, each of which is changed or is not.
func StateOf(status int, cut, many bool) State {
	switch {
	case cut, status >= 500, status == clientGone:
		return Unknown
	case status >= 400 && many:
		return Unknown
	case status >= 400:
		return Rejected
	}
	return Committed
}

// clientGone is the status of an answer that nobody waited for.
const clientGone = 499

// maxObjects is how long before and after may be together: an entry has to hold them and itself.
const maxObjects = 96 << 10

// longTexts are from what length on texts are masked where an object is too long, one after the other.
var longTexts = []int{1 << 10, 96}

// errTooLong is that a change says too much to be put on record.
var errTooLong = fmt.Errorf("what it changes is too long to be put on record: more than %d bytes differ", maxObjects)

// Of returns what is put on record of an operation on an object, as the API server gives it: in JSON, empty where there
// was none or will be none. What cannot be put on record whole, if shortened, is an error.
func (m *Masker) Of(operation string, kind Kind, before, after []byte) (*Change, error) {
	was, err := m.masked(kind, before)
	if err != nil {
		return nil, fmt.Errorf("read the object before: %w", err)
	}
	is, err := m.masked(kind, after)
	if err != nil {
		return nil, fmt.Errorf("read the object after: %w", err)
	}
	c := &Change{State: Attempted, Operation: operation}
	if c.fits(was, is) {
		return c, nil
	}
	c.Reduced = true
	for _, longest := range longTexts {
		was, is = m.shortened(was, longest), m.shortened(is, longest)
		if c.fits(was, is) {
			return c, nil
		}
		if left, right := differing(was, is); c.fits(left, right) {
			return c, nil
		}
	}
	return nil, errTooLong
}

// fits writes what was before and after, if that is not too long.
func (c *Change) fits(before, after map[string]any) bool {
	var err error
	if c.Before, err = written(before); err != nil {
		return false
	}
	if c.After, err = written(after); err != nil {
		return false
	}
	return len(c.Before)+len(c.After) <= maxObjects
}

func written(object map[string]any) (json.RawMessage, error) {
	if object == nil {
		return nil, nil
	}
	return json.Marshal(object)
}

var errNoObject = errors.New("it is no JSON object")

// read reads an object, keeping its numbers as they are written.
func read(content []byte) (map[string]any, error) {
	if len(content) == 0 || string(content) == "null" {
		return nil, nil
	}
	decoder := json.NewDecoder(strings.NewReader(string(content)))
	decoder.UseNumber()
	var object map[string]any
	if err := decoder.Decode(&object); err != nil {
		// What a parser says of an object may repeat it.
		return nil, errNoObject
	}
	return object, nil
}

// shortened returns a value in whose place texts that are longer than that are masked.
func (m *Masker) shortened(object map[string]any, longest int) map[string]any {
	if object == nil {
		return nil
	}
	shorter, _ := each(object, func(text string) string {
		if len(text) <= longest || strings.HasPrefix(text, m.prefix()) {
			return text
		}
		return fmt.Sprintf("%s;bytes=%d", m.Text(text), len(text))
	}).(map[string]any)
	return shorter
}

// each returns a value in which every text was replaced.
func each(value any, replace func(string) string) any {
	switch v := value.(type) {
	case map[string]any:
		made := make(map[string]any, len(v))
		for key, below := range v {
			made[key] = each(below, replace)
		}
		return made
	case []any:
		made := make([]any, len(v))
		for i, below := range v {
			made[i] = each(below, replace)
		}
		return made
	case string:
		return replace(v)
	}
	return value
}

// identity is what says which object it is, and stays in what differs.
var identity = map[string]bool{"apiVersion": true, "kind": true, "metadata": true, "name": true, "namespace": true, "uid": true}

// differing returns of two objects what is not the same, and which object it is. A list that differs stays whole.
func differing(before, after map[string]any) (left, right map[string]any) {
	if before == nil || after == nil {
		return before, after
	}
	left, right = map[string]any{}, map[string]any{}
	for key, was := range before {
		is, both := after[key]
		wasMap, wasIs := was.(map[string]any)
		isMap, isIs := is.(map[string]any)
		switch {
		case !both:
			left[key] = was
		case wasIs && isIs:
			l, r := differing(wasMap, isMap)
			if len(l) > 0 || len(r) > 0 {
				left[key], right[key] = l, r
			}
		case identity[key], !reflect.DeepEqual(was, is):
			left[key], right[key] = was, is
		}
	}
	for key, is := range after {
		if _, both := before[key]; !both {
			right[key] = is
		}
	}
	return left, right
}
