package v1alpha1_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apimachinery/pkg/runtime"

	"supportaccess.dev/operator/api/v1alpha1"
)

func TestTheAPIServerAcceptsEveryCRD(t *testing.T) {
	crds := readCRDs(t)
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	for kind := range scheme.KnownTypes(v1alpha1.GroupVersion) {
		if strings.HasPrefix(kind, "SupportAccess") && !strings.HasSuffix(kind, "List") && crds[kind] == nil {
			t.Errorf("kind %s has no CRD in %s", kind, crdFolder)
		}
	}
	for kind, crd := range crds {
		for _, err := range validateCRD(crd) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// A rule that the API server would not compile, or that could cost more than it allows, is found by the test above only
// if the test judges as the API server does.
func TestTheAPIServerRefusesACRDWhoseRulesAreWrong(t *testing.T) {
	cases := map[string]struct{ rule, want string }{
		"a rule that does not compile":  {"self.nosuchfield == 1", "undefined field"},
		"a rule that costs too much":    {"self.engineers.all(a, self.engineers.all(b, self.engineers.all(c, self.engineers.all(d, a.publicKey.matches(b.publicKey + c.publicKey + d.publicKey)))))", "budget"},
		"a rule that is not a question": {"self.reason", "must evaluate to a bool"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			crd := readCRDs(t)["SupportAccessGrant"]
			spec := openAPIOf(t, crd).Properties["spec"]
			spec.XValidations = append(spec.XValidations, apiextensions.ValidationRule{Rule: c.rule})
			openAPIOf(t, crd).Properties["spec"] = spec
			if got := fmt.Sprint(validateCRD(crd).ToAggregate()); !strings.Contains(got, c.want) {
				t.Errorf("got %s, want it to say %q", got, c.want)
			}
		})
	}
}

func TestEveryStringListAndMapIsBounded(t *testing.T) {
	for kind, crd := range readCRDs(t) {
		for _, unbounded := range unboundedIn(kind, openAPIOf(t, crd)) {
			t.Error(unbounded)
		}
	}
}

// unboundedIn returns what of a schema has no bound. The API server itself bounds metadata, apiVersion and kind. The
// elements of conditions are upstream's type; the list itself must be bounded.
func unboundedIn(path string, s *apiextensions.JSONSchemaProps) []string {
	var found []string
	switch s.Type {
	case "string":
		if s.MaxLength == nil && len(s.Enum) == 0 && !fixedLength(s) {
			found = append(found, path+": a string without maxLength")
		}
	case "array":
		if s.MaxItems == nil {
			found = append(found, path+": a list without maxItems")
		}
		if !strings.HasSuffix(path, ".status.conditions") {
			found = append(found, unboundedIn(path+"[]", s.Items.Schema)...)
		}
	case "object":
		if s.AdditionalProperties != nil && s.MaxProperties == nil {
			found = append(found, path+": a map without maxProperties")
		}
	case "integer", "boolean":
	default:
		found = append(found, fmt.Sprintf("%s: type %q", path, s.Type))
	}
	for name, property := range s.Properties {
		if !strings.Contains(path, ".") && slices.Contains([]string{"apiVersion", "kind", "metadata"}, name) {
			continue
		}
		found = append(found, unboundedIn(path+"."+name, &property)...)
	}
	return found
}

// fixedLength reports whether a pattern from end to end bounds an instant.
func fixedLength(s *apiextensions.JSONSchemaProps) bool {
	return s.Format == "date-time" && strings.HasPrefix(s.Pattern, "^2[0-9]{3}-") && strings.HasSuffix(s.Pattern, "$") && !strings.ContainsAny(s.Pattern, "*")
}

// TestEveryFieldIsDocumentedBeginningWithItsJSONName reads the sources: what kubectl explain says is taken from there.
func TestEveryFieldIsDocumentedBeginningWithItsJSONName(t *testing.T) {
	packages, err := parser.ParseDir(token.NewFileSet(), ".", nil, parser.ParseComments) //nolint:staticcheck // No build tags here.
	if err != nil {
		t.Fatal(err)
	}
	fields := 0
	ast.Inspect(packages["v1alpha1"], func(n ast.Node) bool {
		structure, is := n.(*ast.StructType)
		if !is {
			return true
		}
		for _, f := range structure.Fields.List {
			if f.Tag == nil {
				t.Errorf("field %v: has no JSON name", f.Names)
				continue
			}
			name, options, _ := strings.Cut(reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("json"), ",")
			if options == "inline" {
				continue
			}
			fields++
			if !strings.HasPrefix(f.Doc.Text(), name+" ") {
				t.Errorf("field %s: its doc begins %q", name, strings.SplitN(f.Doc.Text(), "\n", 2)[0])
			}
		}
		return true
	})
	if fields < 50 {
		t.Errorf("saw %d fields: the sources were not read", fields)
	}
}
