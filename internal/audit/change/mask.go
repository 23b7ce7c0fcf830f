package change

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Kind is what a rule of masking names: a resource of a group.
type Kind struct {
	Group, Resource string
}

// secrets are the kind whose content is secret by itself.
var secrets = Kind{Resource: "secrets"}

// Masker puts in the place of a secret what proves that two are equal, and says nothing else of them: a MAC under a key that
// nobody else has.
type Masker struct {
	key   []byte
	id    string
	paths []path
}

// NewMasker returns who masks with a key that is made from a secret, and besides what is always secret what lies at paths:
// RESOURCE:PATH or RESOURCE.GROUP:PATH, such as configmaps:data.password or *:spec.*.token; ** is any number of steps.
func NewMasker(secret []byte, paths []string) (*Masker, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, "supportaccess.dev/mask", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("make the key for masking: %w", err)
	}
	name := sha256.Sum256(key)
	m := &Masker{key: key, id: fmt.Sprintf("%x", name[:4])}
	for _, text := range paths {
		p, err := parsePath(text)
		if err != nil {
			return nil, err
		}
		m.paths = append(m.paths, p)
	}
	return m, nil
}

// path says where in objects of a kind something secret lies.
type path struct {
	// resource and group are those of the kind; * is any.
	resource, group string
	steps           []string
}

func parsePath(text string) (path, error) {
	kind, steps, found := strings.Cut(text, ":")
	if !found || kind == "" || steps == "" {
		return path{}, fmt.Errorf("%q is not RESOURCE:PATH or RESOURCE.GROUP:PATH, such as configmaps:data.password", text)
	}
	p := path{steps: strings.Split(steps, ".")}
	if slices.Contains(p.steps, "") {
		return path{}, fmt.Errorf("%q: a step of the path is empty", text)
	}
	p.resource, p.group, _ = strings.Cut(kind, ".")
	if p.resource == "*" && p.group == "" {
		p.group = "*"
	}
	return p, nil
}

func (p path) of(kind Kind) bool {
	return (p.resource == "*" || p.resource == kind.Resource) && (p.group == "*" || p.group == kind.Group)
}

// prefix begins what a masked value looks like. It names the key: under another one nothing can be compared.
func (m *Masker) prefix() string { return "masked:" + m.id + ":" }

// Text returns what stands in the place of a text.
func (m *Masker) Text(text string) string {
	mac := hmac.New(sha256.New, m.key)
	mac.Write([]byte(text))
	return m.prefix() + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

const (
	lastApplied = "last-applied-configuration"
	anyStep     = "*"
	anySteps    = "**"
)

// masked reads an object and returns it without its managed fields, whose keys repeat values, and with its secrets masked.
func (m *Masker) masked(kind Kind, content []byte) (map[string]any, error) {
	object, err := read(content)
	if err != nil || object == nil {
		return nil, err
	}
	return m.object(kind, object), nil
}

func (m *Masker) object(kind Kind, object map[string]any) map[string]any {
	metadata, _ := object["metadata"].(map[string]any)
	delete(metadata, "managedFields")
	annotations, _ := metadata["annotations"].(map[string]any)
	for name, value := range annotations {
		if text, ok := value.(string); ok && strings.HasSuffix(name, lastApplied) {
			annotations[name] = m.applied(kind, text)
		}
	}
	if kind == secrets {
		m.secret(object)
	}
	m.environments(object)
	for _, p := range m.paths {
		if p.of(kind) {
			m.at(object, p.steps)
		}
	}
	return object
}

// applied masks an object that lies, as text, in an annotation of another.
func (m *Masker) applied(kind Kind, text string) string {
	object, err := read([]byte(text))
	if err != nil || object == nil {
		return m.Text(text)
	}
	content, err := json.Marshal(m.object(kind, object))
	if err != nil {
		return m.Text(text)
	}
	return string(content)
}

// secret masks what a Secret holds. Equal contents look equal, however they were given.
func (m *Masker) secret(object map[string]any) {
	for _, field := range []string{"data", "stringData"} {
		entries, ok := object[field].(map[string]any)
		if !ok {
			if object[field] != nil {
				object[field] = m.all(object[field])
			}
			continue
		}
		for name, value := range entries {
			text, ok := value.(string)
			if plain, err := base64.StdEncoding.DecodeString(text); ok && field == "data" && err == nil {
				text = string(plain)
			}
			if ok {
				entries[name] = m.Text(text)
			} else {
				entries[name] = m.all(value)
			}
		}
	}
}

// environments masks the values of environment variables, wherever containers are described: in pods, in templates of pods,
// in the kinds of products.
func (m *Masker) environments(value any) {
	switch v := value.(type) {
	case map[string]any:
		for key, below := range v {
			if key == "env" {
				m.variables(below)
			}
			m.environments(below)
		}
	case []any:
		for _, below := range v {
			m.environments(below)
		}
	}
}

// variables masks environment variables: a list of names and values, or as some products have them a map.
func (m *Masker) variables(env any) {
	switch v := env.(type) {
	case []any:
		for _, variable := range v {
			if of, ok := variable.(map[string]any); ok && of["value"] != nil {
				of["value"] = m.all(of["value"])
			}
		}
	case map[string]any:
		for name, value := range v {
			if _, ok := value.(string); ok {
				v[name] = m.all(value)
			}
		}
	}
}

// at masks what lies at a path below a value.
func (m *Masker) at(value any, steps []string) {
	if len(steps) == 0 {
		return
	}
	if steps[0] == anySteps {
		m.at(value, steps[1:])
	}
	switch v := value.(type) {
	case map[string]any:
		for key, below := range v {
			if rest, ends := m.follow(key, steps); ends {
				v[key] = m.all(below)
			} else if rest != nil {
				m.at(below, rest)
			}
		}
	case []any:
		for i, below := range v {
			if len(steps) == 1 && (steps[0] == anyStep || steps[0] == anySteps) {
				v[i] = m.all(below)
				continue
			}
			// A list is no step of its own: containers.env says what it means.
			rest := steps
			if steps[0] == anyStep {
				rest = steps[1:]
			}
			m.at(below, rest)
		}
	}
}

// follow returns what is left of a path after a key, nil if it does not lead there, and whether it ends there.
func (m *Masker) follow(key string, steps []string) (rest []string, ends bool) {
	switch steps[0] {
	case anySteps:
		return steps, len(steps) == 1
	case anyStep, key:
		return steps[1:], len(steps) == 1
	}
	return nil, false
}

// all masks a value with all that is below it. Its form stays.
func (m *Masker) all(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for key, below := range v {
			v[key] = m.all(below)
		}
		return v
	case []any:
		for i, below := range v {
			v[i] = m.all(below)
		}
		return v
	case nil:
		return nil
	case string:
		if strings.HasPrefix(v, m.prefix()) {
			return v
		}
		return m.Text(v)
	}
	return m.Text(fmt.Sprint(value))
}
