package change

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func masker(t testing.TB, paths ...string) *Masker {
	t.Helper()
	m, err := NewMasker([]byte("the key of the log"), paths)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestWhatIsSecretIsMaskedAndWhatIsNotIsThere(t *testing.T) {
	configMaps, deployments := Kind{Resource: "configmaps"}, Kind{Group: "apps", Resource: "deployments"}
	secret := base64.StdEncoding.EncodeToString([]byte("CANARY"))
	cases := map[string]struct {
		kind   Kind
		object string
		paths  []string
		shows  string
	}{
		"a Secret's data":                   {secrets, `{"kind":"Secret","data":{"shown-key":"` + secret + `"}}`, nil, "shown-key"},
		"a Secret's stringData":             {secrets, `{"kind":"Secret","stringData":{"shown-key":"CANARY"}}`, nil, "shown-key"},
		"a Secret's data that is no object": {secrets, `{"kind":"Secret","data":["CANARY"],"type":"shown"}`, nil, "shown"},
		"a Secret's data that is no text":   {secrets, `{"kind":"Secret","data":{"a":{"b":"CANARY"}},"type":"shown"}`, nil, "shown"},
		"a Secret as it was applied": {
			secrets, `{"kind":"Secret","metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"data\":{\"shown-key\":\"` + secret + `\"},\"stringData\":{\"b\":\"CANARY\"}}"}}}`, nil, "shown-key",
		},
		"as it was applied, what cannot be read": {
			secrets, `{"kind":"shown","metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"CANARY {"}}}`, nil, "shown",
		},
		"managed fields": {
			configMaps, `{"data":{"a":"shown"},"metadata":{"managedFields":[{"fieldsV1":{"f:list":{"v:\"CANARY\"":{}}}}]}}`, nil, "shown",
		},
		"a variable of a template": {
			deployments, `{"spec":{"template":{"spec":{"containers":[{"image":"shown","env":[{"name":"PASSWORD","value":"CANARY"}]}]}}}}`, nil, "shown",
		},
		"a variable of a product's kind": {Kind{"mail.example", "archives"}, `{"spec":{"env":[{"name":"shown","value":"CANARY"}]}}`, nil, "shown"},
		"variables in a map":             {Kind{"mail.example", "archives"}, `{"spec":{"env":{"shown":"CANARY"}}}`, nil, "shown"},
		"a variable as it was applied": {
			deployments, `{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"spec\":{\"env\":[{\"name\":\"shown\",\"value\":\"CANARY\"}]}}"}}}`, nil, "shown",
		},
		"a path": {configMaps, `{"data":{"password":"CANARY","host":"shown"}}`, []string{"configmaps:data.password"}, "shown"},
		"a path as it was applied": {
			configMaps, `{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"data\":{\"password\":\"CANARY\",\"a\":\"shown\"}}"}}}`,
			[]string{"configmaps:data.password"}, "shown",
		},
		"a path with any step":    {configMaps, `{"data":{"a":"CANARY","b":"CANARY"},"kind":"shown"}`, []string{"configmaps:data.*"}, "shown"},
		"a path of any kind":      {deployments, `{"spec":{"auth":{"token":"CANARY"},"a":"shown"}}`, []string{"*:spec.auth.token"}, "shown"},
		"a path of a group":       {deployments, `{"spec":{"auth":["CANARY",{"a":"CANARY"}],"a":"shown"}}`, []string{"deployments.apps:spec.auth"}, "shown"},
		"a path of any depth":     {deployments, `{"a":{"b":[{"c":{"token":"CANARY"}}]},"d":"shown"}`, []string{"*:**.token"}, "shown"},
		"a path through a list":   {deployments, `{"spec":{"users":[{"hash":"CANARY","name":"shown"}]}}`, []string{"deployments.apps:spec.users.hash"}, "shown"},
		"a path to the items":     {deployments, `{"spec":{"args":["CANARY"],"a":"shown"}}`, []string{"deployments.apps:spec.args.*"}, "shown"},
		"a number at a path":      {configMaps, `{"pin":777123,"a":"shown"}`, []string{"configmaps:pin"}, "shown"},
		"a path of another kind":  {configMaps, `{"data":{"password":"shown"}}`, []string{"secrets:data.password"}, "shown"},
		"a path of another group": {deployments, `{"spec":{"a":"shown"}}`, []string{"deployments:spec.a"}, "shown"},
		"settings":                {configMaps, `{"data":{"host":"shown"}}`, nil, "shown"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			changed, err := masker(t, c.paths...).Of("UPDATE", c.kind, []byte(c.object), []byte(c.object))
			if err != nil {
				t.Fatal(err)
			}
			for _, got := range []string{string(changed.Before), string(changed.After)} {
				if strings.Contains(got, "CANARY") || strings.Contains(got, secret) || strings.Contains(got, "777123") {
					t.Errorf("it is not masked: %s", got)
				}
				if !strings.Contains(got, c.shows) {
					t.Errorf("%q is not there: %s", c.shows, got)
				}
			}
		})
	}
}

func TestEqualSecretsLookEqualHoweverTheyWereGivenAndOthersDoNot(t *testing.T) {
	m := masker(t)
	other, err := NewMasker([]byte("another key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	value := func(m *Masker, kind Kind, object, field string) string {
		changed, err := m.Of("CREATE", kind, nil, []byte(object))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(changed.After), `"`+field+`":"`)
		found, _, _ := strings.Cut(rest, `"`)
		return found
	}
	inData := value(m, secrets, `{"data":{"a":"`+base64.StdEncoding.EncodeToString([]byte("one"))+`"}}`, "a")
	inText := value(m, secrets, `{"stringData":{"a":"one"}}`, "a")
	inEnv := value(m, Kind{Resource: "pods"}, `{"spec":{"env":[{"name":"A","value":"one"}]}}`, "value")
	if inData == "" || inData != inText || inData != inEnv {
		t.Errorf("the same secret looks like %s, %s and %s", inData, inText, inEnv)
	}
	if another := value(m, secrets, `{"stringData":{"a":"two"}}`, "a"); another == inData {
		t.Error("two secrets look equal")
	}
	if elsewhere := value(other, secrets, `{"stringData":{"a":"one"}}`, "a"); elsewhere == inData {
		t.Error("the key makes no difference")
	}
}

func TestWhatIsTooLongIsShortenedUntilItFitsAndNeverCutUnseen(t *testing.T) {
	m, long := masker(t), strings.Repeat("x", 200<<10)
	changed, err := m.Of("UPDATE", Kind{Resource: "configmaps"},
		[]byte(`{"metadata":{"name":"a"},"data":{"long":"`+long+`","mode":"off"}}`), []byte(`{"metadata":{"name":"a"},"data":{"long":"`+long+`","mode":"on"}}`))
	if err != nil || !changed.Reduced {
		t.Fatalf("it is not shortened: %v", err)
	}
	if !strings.Contains(string(changed.Before), `"mode":"off"`) || !strings.Contains(string(changed.After), `"mode":"on"`) || !strings.Contains(string(changed.After), fmt.Sprintf("bytes=%d", len(long))) {
		t.Errorf("got %s and %s", changed.Before, changed.After)
	}
	many := map[string]string{}
	for i := range 20000 {
		many[fmt.Sprintf("key-%d", i)] = "same"
	}
	object := func(mode string) []byte {
		many["mode"] = mode
		content, _ := json.Marshal(map[string]any{"metadata": map[string]any{"name": "a", "labels": map[string]any{"l": "same"}}, "data": many})
		return content
	}
	if changed, err = m.Of("UPDATE", Kind{Resource: "configmaps"}, object("off"), object("on")); err != nil {
		t.Fatal(err)
	}
	if want := `{"data":{"mode":"on"},"metadata":{"name":"a"}}`; string(changed.After) != want {
		t.Errorf("got %s, want %s", changed.After, want)
	}
	if _, err := m.Of("CREATE", Kind{Resource: "configmaps"}, nil, object("on")); err == nil {
		t.Error("what says more than fits is on record all the same")
	}
}

func TestAWrongPathIsRefused(t *testing.T) {
	for _, text := range []string{"", "configmaps", ":data", "configmaps:", "configmaps:data..password", "configmaps:.a"} {
		if _, err := NewMasker([]byte("key"), []string{text}); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestAStateFollowsFromTheAnswer(t *testing.T) {
	cases := map[string]struct {
		status    int
		cut, many bool
		want      State
	}{
		"made":                       {201, false, false, Committed},
		"in conflict":                {409, false, false, Rejected},
		"refused":                    {403, false, false, Rejected},
		"some of many":               {409, false, true, Unknown},
		"all of many":                {200, false, true, Committed},
		"broken":                     {500, false, false, Unknown},
		"nobody waited for":          {499, false, false, Unknown},
		"cut before it was answered": {403, true, false, Unknown},
		"a stream into a pod":        {101, false, false, Committed},
	}
	for name, c := range cases {
		if got := StateOf(c.status, c.cut, c.many); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

// FuzzNoCanaryIsShown plants 50 secrets and looks for them in what is put on record.
func FuzzNoCanaryIsShown(f *testing.F) {
	f.Add("password", "host", `{"a":1}`)
	f.Add("data", "stringData", `[]`)
	f.Add(`"`, `\u0000`, `"`)
	f.Add("env", "value", `{"env":[{"value":"x"}]}`)
	f.Fuzz(func(t *testing.T, one, other, text string) {
		data, plain, env := map[string]any{}, map[string]any{}, []any{}
		var canaries []string
		for i := range 50 {
			canary := fmt.Sprintf("canary-%d-e7c3", i)
			canaries = append(canaries, canary, base64.StdEncoding.EncodeToString([]byte(canary)))
			name := fmt.Sprintf("%s-%d", one, i)
			data[name], plain[name] = base64.StdEncoding.EncodeToString([]byte(canary)), canary
			env = append(env, map[string]any{"name": name, "value": canary})
		}
		object := map[string]any{
			"data": data, "stringData": plain, "spec": map[string]any{other: map[string]any{"env": env}}, "other": text,
			"metadata": map[string]any{"managedFields": []any{plain}},
		}
		applied, err := json.Marshal(object)
		if err != nil {
			t.Skip()
		}
		object["metadata"].(map[string]any)["annotations"] = map[string]any{"kubectl.kubernetes.io/last-applied-configuration": string(applied)}
		content, err := json.Marshal(object)
		if err != nil {
			t.Skip()
		}
		changed, err := masker(t).Of("UPDATE", secrets, content, content)
		if err != nil {
			return
		}
		for _, canary := range canaries {
			if strings.Contains(text, canary) || strings.Contains(one+other, canary) {
				t.Skip()
			}
			if strings.Contains(string(changed.Before)+string(changed.After), canary) {
				t.Fatalf("%s is shown", canary)
			}
		}
	})
}
