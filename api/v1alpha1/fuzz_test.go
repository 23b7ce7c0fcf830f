package v1alpha1_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apimachinery/pkg/runtime"
	serializerjson "k8s.io/apimachinery/pkg/runtime/serializer/json"

	"supportaccess.dev/operator/api/v1alpha1"
)

// mutantsPerKind is how many bodies of each kind an ordinary test run tries. go test -fuzz tries more.
const mutantsPerKind = 2000

// FuzzWhatTheAPIServerAcceptsWeDecode: one object that the API server accepts and our types do not decode breaks every
// list and watch of its kind, for the whole cluster, and with it the operator.
func FuzzWhatTheAPIServerAcceptsWeDecode(f *testing.F) {
	kinds := serve(f)
	order := slices.Sorted(maps.Keys(kinds))
	for i, kind := range order {
		for _, body := range mutants(f, kinds[kind], kind) {
			f.Add(i, body)
		}
	}
	decoder := decoderOfOurTypes(f)
	f.Fuzz(func(t *testing.T, i int, body []byte) {
		if i < 0 || i >= len(order) {
			t.Skip("no such kind")
		}
		if complaint := undecodable(kinds[order[i]], decoder, body); complaint != "" {
			t.Error(complaint)
		}
	})
}

// TestTheFuzzIsNotIdle holds the mutants against the aim: enough of them must be accepted to say anything, and enough
// refused to have come near what must not be accepted.
func TestTheFuzzIsNotIdle(t *testing.T) {
	for kind, s := range serve(t) {
		accepted := 0
		for _, body := range mutants(t, s, kind) {
			if obj := s.decode(body); obj != nil && len(s.create(obj)) == 0 {
				accepted++
			}
		}
		t.Logf("%s: %d of %d accepted", kind, accepted, mutantsPerKind)
		if accepted < mutantsPerKind/8 || accepted > mutantsPerKind*7/8 {
			t.Errorf("%s: %d of %d mutants are accepted", kind, accepted, mutantsPerKind)
		}
	}
}

// TestTheFuzzFindsWhatIsNotDecoded guards the fuzz itself: without one of the guards it speaks.
func TestTheFuzzFindsWhatIsNotDecoded(t *testing.T) {
	kind := serve(t)["SupportAccessRecord"]
	status := openAPIOf(t, kind.crd).Properties["status"]
	endTime := status.Properties["endTime"]
	endTime.Pattern = ""
	status.Properties["endTime"] = endTime
	kind = serveOne(t, kind.crd)
	body := toJSON(t, edited(t, recordSeed, []edit{set("status.endTime", `"2026-12-02T18:00:00Z"`)}))
	if got := undecodable(kind, decoderOfOurTypes(t), body); !strings.Contains(got, "cannot be decoded") {
		t.Errorf("without the pattern of endTime the fuzz says %q", got)
	}
}

// undecodable says what is wrong with a body that the API server accepts: that our types do not decode it, or that the
// server would not take back what they decoded, so that no client of ours could update the object.
func undecodable(s served, decoder runtime.Decoder, body []byte) string {
	obj := s.decode(body)
	if obj == nil || len(s.create(runtime.DeepCopyJSON(obj))) > 0 {
		return ""
	}
	sent, err := json.Marshal(obj)
	if err != nil {
		return fmt.Sprintf("cannot be encoded: %v\n%s", err, body)
	}
	decoded, _, err := decoder.Decode(sent, nil, nil)
	if err != nil {
		return fmt.Sprintf("accepted, and cannot be decoded: %v\n%s", err, sent)
	}
	back, err := json.Marshal(decoded)
	if err != nil {
		return fmt.Sprintf("decoded, and cannot be encoded: %v\n%s", err, sent)
	}
	again := s.decode(back)
	if again == nil {
		return fmt.Sprintf("what we send back cannot be read:\n%s\n%s", sent, back)
	}
	if errs := s.update(again, obj); len(errs) > 0 {
		return fmt.Sprintf("what we send back is refused: %v\n%s\n%s", errs.ToAggregate(), sent, back)
	}
	return ""
}

// decoderOfOurTypes decodes as client-go does.
func decoderOfOurTypes(t testing.TB) runtime.Decoder {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return serializerjson.NewSerializerWithOptions(serializerjson.DefaultMetaFactory, scheme, scheme, serializerjson.SerializerOptions{})
}

// mutants returns bodies of a kind, each a seed with a few places changed, the same ones on every run.
func mutants(t testing.TB, s served, kind string) [][]byte {
	t.Helper()
	random := rand.New(rand.NewPCG(4711, uint64(len(kind)))) //nolint:gosec // Repeatable, not secret.
	var bodies [][]byte
	for len(bodies) < mutantsPerKind {
		obj := fromYAML(t, seeds[kind][len(bodies)%len(seeds[kind])])
		for range 1 + random.IntN(2) {
			mutate(random, s.schema, obj)
		}
		bodies = append(bodies, toJSON(t, obj))
	}
	return bodies
}

// mutate changes one place of an object: mostly to something that looks right there, sometimes to anything.
func mutate(random *rand.Rand, s *schema.Structural, at object) {
	for {
		keys := slices.Sorted(maps.Keys(at))
		if len(keys) == 0 {
			at["unknown"] = anything(random)
			return
		}
		key := keys[random.IntN(len(keys))]
		if (key == "apiVersion" || key == "kind") && random.IntN(16) > 0 {
			continue
		}
		property, known := s.Properties[key]
		if list, is := at[key].([]any); is && len(list) > 0 && property.Items != nil && random.IntN(8) > 0 {
			i := random.IntN(len(list))
			if element, is := list[i].(object); is {
				at, s = element, property.Items
				continue
			}
			list[i] = mutation(random, property.Items, list[i])
			return
		}
		if child, is := at[key].(object); is && random.IntN(8) > 0 {
			at, s = child, &property
			continue
		}
		switch {
		case random.IntN(12) == 0:
			delete(at, key)
		case random.IntN(24) == 0:
			at[strings.ToUpper(key)] = at[key]
		case known:
			at[key] = mutation(random, &property, at[key])
		default:
			at[key] = anything(random)
		}
		return
	}
}

// mutation returns a value for a place that a schema describes, in place of the one that is there.
func mutation(random *rand.Rand, s *schema.Structural, old any) any {
	if random.IntN(8) == 0 {
		return anything(random)
	}
	validation := s.ValueValidation
	text, _ := old.(string)
	switch {
	case s.Type == "boolean":
		return random.IntN(2) == 0
	case s.Type == "integer":
		return pick(random, numbers)
	case s.Type == "string" && validation != nil && len(validation.Enum) > 0:
		return pick(random, validation.Enum).Object
	case s.Type == "string" && validation != nil && validation.Format == "date-time":
		return instant(random)
	case s.Type == "string" && random.IntN(2) == 0:
		return tweaked(random, text)
	case s.Type == "string" && random.IntN(2) == 0:
		return duration(random)
	case s.Type == "string":
		return pick(random, words)
	}
	return anything(random)
}

var (
	numbers = []any{0, 1, 2, 7, 100, -1, 1.0, 1.5, 1e3, 1e20, -1e20, 2147483647, 2147483648, -2147483649, int64(9223372036854775807), 9223372036854775808.0, 1e-7}
	words   = []string{"", "a", "A", "é", "\u0000", "\ufffd", "a\nb", "All", "Direct", "case-4711", "age1q", "https://x", "https://x/é", "*", "0", "null", "true", "a/b", "a.b", "[", "(?=a)",
		"\\", "^$", "2026-12-01T18:00:00Z", "4h", strings.Repeat("x", 63), strings.Repeat("x", 64), strings.Repeat("x", 1024), strings.Repeat("é", 600)}
	characters = []string{"", "a", "b", "Z", "0", "9", "-", ".", ":", "+", "/", " ", "\n", "é", "\u0000"}
	dates      = []string{"2026-12-01", "2026-12-01", "2026-12-31", "2027-01-01", "2026-02-30", "2024-02-29", "2026-02-29", "2026-13-01", "2026-00-00", "0000-01-01", "0001-01-01", "1999-12-31", "2000-01-01", "2999-12-31", "3000-01-01", "9999-12-31", "12026-12-01", "-2026-12-01", "26-12-01", "2026-1-1"}
	between    = []string{"T", "T", "T", "T", "t", " ", "", "T "}
	clocks     = []string{"18:00:00", "18:00:00", "18:00:01", "00:00:00", "23:59:59", "23:59:60", "24:00:00", "1:2:3", "18:00", "18:60:00", "18:00:00:00"}
	parts      = []string{"", "", "", "", ".250000", ".000001", ".5", ".000000", ".123456", ".1234567", ".123", ",123456", ".", "x5", ".999999999999"}
	zones      = []string{"Z", "Z", "Z", "z", "+00:00", "-00:00", "Z", "+01:00", "-05:30", "+23:59", "-23:59", "+24:00", "+14:00", "+99:99", "+0100", "+01", "", "UTC", "Ztail", "Z\n"}
	amounts    = []string{"0", "1", "24", "00", "99999", "999999", "9999999999999999999", "-1", "+1", "1.5", " 1", "٣", ""}
	units      = []string{"h", "m", "s", "ms", "µs", "ns", "d", " days", "w", "", "H"}
)

// tweaked returns a text with one character more, less or changed.
func tweaked(random *rand.Rand, text string) string {
	at := random.IntN(len(text) + 1)
	end := min(len(text), at+random.IntN(2))
	return text[:at] + pick(random, characters) + text[end:]
}

func instant(random *rand.Rand) string {
	return pick(random, dates) + pick(random, between) + pick(random, clocks) + pick(random, parts) + pick(random, zones)
}

func duration(random *rand.Rand) string {
	var text strings.Builder
	for range 1 + random.IntN(3) {
		text.WriteString(pick(random, amounts) + pick(random, units))
	}
	return text.String()
}

func anything(random *rand.Rand) any {
	switch random.IntN(7) {
	case 0:
		return nil
	case 1:
		return object{}
	case 2:
		return []any{anything(random)}
	case 3:
		return object{pick(random, words): pick(random, words)}
	case 4:
		return pick(random, numbers)
	case 5:
		return random.IntN(2) == 0
	}
	return pick(random, words)
}

func pick[T any](random *rand.Rand, from []T) T { return from[random.IntN(len(from))] }
