// Package admission knows the admission policies that this version ships and how to tell whether a cluster has them. It
// must not know how they are fetched, nor what is done when they are missing.
package admission

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
	sigsyaml "sigs.k8s.io/yaml"
)

// kustomization is the one file here that holds no admission objects.
const kustomization = "kustomization.yaml"

// systemUsersVariable is the CEL variable that lists whom the guards except. In a manifest it is one line, so that a
// chart can extend the list as text.
const systemUsersVariable = "systemUsers"

//go:embed *.yaml
var files embed.FS

// Options say which of the objects a cluster gets.
type Options struct {
	// ExtraSystemUsers are user names that the guards except besides the control plane's own.
	ExtraSystemUsers []string
	// Stamp adds the MutatingAdmissionPolicies, which servers before 1.36 lack.
	Stamp bool
}

// Objects returns the admission objects that this version ships, sorted by kind and name.
func Objects(options Options) ([]client.Object, error) {
	for _, user := range options.ExtraSystemUsers {
		if user == "" || strings.ContainsAny(user, "'\"\\\n\r") {
			return nil, fmt.Errorf("except system user %q: a user name without quotes, backslashes and line breaks is wanted", user)
		}
	}
	paths, err := fs.Glob(files, "*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list the admission files: %w", err)
	}
	var objects []client.Object
	for _, path := range paths {
		if path == kustomization {
			continue
		}
		found, err := read(path)
		if err != nil {
			return nil, err
		}
		objects = append(objects, found...)
	}
	if !options.Stamp {
		objects = slices.DeleteFunc(objects, mutates)
	}
	for _, object := range objects {
		exceptUsers(object, options.ExtraSystemUsers)
	}
	slices.SortFunc(objects, func(a, b client.Object) int { return strings.Compare(identity(a), identity(b)) })
	return objects, nil
}

// read returns the objects of one file.
func read(path string) ([]client.Object, error) {
	content, err := files.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	var objects []client.Object
	documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("split %s: %w", path, err)
		}
		object, err := decode(document)
		if err != nil {
			return nil, fmt.Errorf("decode %s: %w", path, err)
		}
		objects = append(objects, object)
	}
}

// decode reads one document, and refuses fields that its kind does not have.
func decode(document []byte) (client.Object, error) {
	var meta metav1.TypeMeta
	if err := sigsyaml.Unmarshal(document, &meta); err != nil {
		return nil, fmt.Errorf("read the kind: %w", err)
	}
	object, err := empty(meta.Kind)
	if err != nil {
		return nil, err
	}
	if err := sigsyaml.UnmarshalStrict(document, object); err != nil {
		return nil, fmt.Errorf("read a %s: %w", meta.Kind, err)
	}
	return object, nil
}

func empty(kind string) (client.Object, error) {
	switch kind {
	case "ValidatingAdmissionPolicy":
		return &admissionregistrationv1.ValidatingAdmissionPolicy{}, nil
	case "ValidatingAdmissionPolicyBinding":
		return &admissionregistrationv1.ValidatingAdmissionPolicyBinding{}, nil
	case "MutatingAdmissionPolicy":
		return &admissionregistrationv1.MutatingAdmissionPolicy{}, nil
	case "MutatingAdmissionPolicyBinding":
		return &admissionregistrationv1.MutatingAdmissionPolicyBinding{}, nil
	default:
		return nil, fmt.Errorf("kind %q is not an admission policy's", kind)
	}
}

// exceptUsers adds users to the list of those whom the guards except.
func exceptUsers(object client.Object, users []string) {
	policy, ok := object.(*admissionregistrationv1.ValidatingAdmissionPolicy)
	if !ok {
		return
	}
	for i, variable := range policy.Spec.Variables {
		if variable.Name != systemUsersVariable {
			continue
		}
		list := []string{strings.TrimSuffix(variable.Expression, "]")}
		for _, user := range users {
			list = append(list, "'"+user+"'")
		}
		policy.Spec.Variables[i].Expression = strings.Join(list, ", ") + "]"
	}
}

func mutates(object client.Object) bool {
	kind, _ := parts(object)
	return strings.HasPrefix(kind, "Mutating")
}

// Digest is the SHA-256 of an admission object's kind, name and spec: what it does, not what it is labelled with.
func Digest(object client.Object) string {
	kind, spec := parts(object)
	content, err := json.Marshal(struct {
		Kind, Name string
		Spec       any
	}{kind, object.GetName(), spec})
	if err != nil {
		// These types hold nothing that JSON cannot say.
		panic(fmt.Sprintf("encode %s %s: %v", kind, object.GetName(), err))
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// Compare returns nil when each shipped object is among the live ones and does the same, and else says for each that
// is not what is wrong with it. Live objects that are not shipped do not matter.
func Compare(live, shipped []client.Object) error {
	found := make(map[string]client.Object, len(live))
	for _, object := range live {
		found[identity(object)] = object
	}
	var wrong []error
	for _, want := range shipped {
		wrong = append(wrong, compare(found[identity(want)], want))
	}
	return errors.Join(wrong...)
}

func compare(live, shipped client.Object) error {
	switch {
	case live == nil:
		return fmt.Errorf("%s is missing", identity(shipped))
	case live.GetDeletionTimestamp() != nil:
		return fmt.Errorf("%s is being deleted", identity(shipped))
	case Digest(live) != Digest(shipped):
		return fmt.Errorf("%s differs from what this version ships", identity(shipped))
	default:
		return nil
	}
}

// identity names an object for people and for maps.
func identity(object client.Object) string {
	kind, _ := parts(object)
	return kind + " " + object.GetName()
}

// parts returns an object's kind, which objects from an API server do not carry, and its spec.
func parts(object client.Object) (kind string, spec any) {
	switch o := object.(type) {
	case *admissionregistrationv1.ValidatingAdmissionPolicy:
		return "ValidatingAdmissionPolicy", o.Spec
	case *admissionregistrationv1.ValidatingAdmissionPolicyBinding:
		return "ValidatingAdmissionPolicyBinding", o.Spec
	case *admissionregistrationv1.MutatingAdmissionPolicy:
		return "MutatingAdmissionPolicy", o.Spec
	case *admissionregistrationv1.MutatingAdmissionPolicyBinding:
		return "MutatingAdmissionPolicyBinding", o.Spec
	default:
		return fmt.Sprintf("%T", object), nil
	}
}
