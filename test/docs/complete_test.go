package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
)

// TestEveryStateEndConditionAndReasonIsExplained takes the words from the API and asks for those that the operator uses.
func TestEveryStateEndConditionAndReasonIsExplained(t *testing.T) {
	text, source := kindPages(t), shippedSource(t)
	asked := 0
	for name, word := range words(t) {
		if !strings.Contains(source, "v1alpha1."+name) {
			continue
		}
		asked++
		if !strings.Contains(text, "`"+word+"`") {
			t.Errorf("no page of docs/kinds explains %s (%s)", word, name)
		}
	}
	if asked < 40 {
		t.Errorf("the operator uses %d of the API's words; there are more", asked)
	}
}

// words are the constants of conditions.go with their values.
func words(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root(t), "api", "v1alpha1", "conditions.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, is := n.(*ast.ValueSpec)
		if !is {
			return true
		}
		for i, name := range spec.Names {
			value, err := strconv.Unquote(spec.Values[i].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			found[name.Name] = value
		}
		return true
	})
	return found
}

// shippedSource is the source of the operator, without its tests.
func shippedSource(t *testing.T) string {
	t.Helper()
	var source strings.Builder
	for _, dir := range []string{"controllers", "internal"} {
		err := fs.WalkDir(os.DirFS(root(t)), dir, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
				source.WriteString(read(t, path))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return source.String()
}

func TestTheReadmeHasEveryStateAndNoOther(t *testing.T) {
	states := map[string]bool{}
	for name, word := range words(t) {
		if strings.HasPrefix(name, "State") {
			states[word] = true
		}
	}
	_, table, _ := strings.Cut(read(t, "README.md"), "| state | Ready | Active | meaning |")
	table, _, _ = strings.Cut(table, "\n\n")
	shown := map[string]bool{}
	for _, match := range regexp.MustCompile("(?m)^\\| `([A-Za-z]+)` \\|").FindAllStringSubmatch(table, -1) {
		shown[match[1]] = true
	}
	if got, want := strings.Join(sorted(shown), " "), strings.Join(sorted(states), " "); got != want {
		t.Errorf("README.md has the states %s, want %s", got, want)
	}
}

func TestEveryFieldIsOnThePageOfItsKind(t *testing.T) {
	for file, page := range map[string]string{
		"grants": "grant", "decisions": "decision", "records": "record", "policies": "policy", "sessions": "session", "settings": "setting", "requests": "request",
	} {
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict([]byte(read(t, "config/crd/supportaccess.dev_supportaccess"+file+".yaml")), &crd); err != nil {
			t.Fatal(err)
		}
		schema, path := crd.Spec.Versions[0].Schema.OpenAPIV3Schema, "docs/kinds/"+page+".md"
		text := read(t, path)
		for _, part := range []string{"spec", "status"} {
			for name := range schema.Properties[part].Properties {
				if name != "conditions" && !says(text, name) {
					t.Errorf("%s: says nothing of %s.%s", path, part, name)
				}
			}
		}
	}
}

func TestEveryMetricIsExplained(t *testing.T) {
	text := read(t, "docs/operations.md")
	names := regexp.MustCompile(`prefix\s*\+\s*"([a-z_]+)"`).FindAllStringSubmatch(read(t, "internal/metrics/metrics.go"), -1)
	ofGateway := regexp.MustCompile(`Name: "support_access_([a-z_]+)"`).FindAllStringSubmatch(read(t, "internal/gateway/metrics.go"), -1)
	if len(ofGateway) < 5 {
		t.Errorf("the source has %d metrics of the gateway; there are more", len(ofGateway))
	}
	ofLog := regexp.MustCompile(`Name: "support_access_([a-z_]+)"`).FindAllStringSubmatch(read(t, "internal/audit/measure.go"), -1)
	if len(ofLog) < 5 {
		t.Errorf("the source has %d metrics of the audit log; there are more", len(ofLog))
	}
	names = append(append(names, ofGateway...), ofLog...)
	if len(names) < 5 {
		t.Errorf("the source has %d metrics; there are more", len(names))
	}
	for _, name := range names {
		if !strings.Contains(text, "`support_access_"+name[1]+"`") {
			t.Errorf("docs/operations.md: says nothing of support_access_%s", name[1])
		}
	}
}

func TestEveryPackageIsInTheArchitecture(t *testing.T) {
	text := read(t, "docs/architecture.md")
	for _, dir := range []string{"controllers", "internal"} {
		entries, err := os.ReadDir(filepath.Join(root(t), dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			if entry.IsDir() && !strings.Contains(text, "| `"+dir+"/"+entry.Name()+"` |") {
				t.Errorf("docs/architecture.md: says nothing of %s/%s", dir, entry.Name())
			}
		}
	}
}

func TestEveryAdmissionFileIsInTheArchitecture(t *testing.T) {
	text := read(t, "docs/architecture.md")
	paths, err := filepath.Glob(filepath.Join(root(t), "config", "admission", "*.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no admission files: %v", err)
	}
	for _, path := range paths {
		if name := filepath.Base(path); name != "kustomization.yaml" && !strings.Contains(text, "config/admission/"+name) {
			t.Errorf("docs/architecture.md: says nothing of %s", name)
		}
	}
}

// TestTheNameOfAnIdentityIsAsThePageComputesIt fails when names are made in another way than the script under "Who was
// this engineer?" in docs/operations.md makes them: it gave the name here.
func TestTheNameOfAnIdentityIsAsThePageComputesIt(t *testing.T) {
	grant := v1alpha1.RecordedGrant{Namespace: "mail-archive", Name: "case-4711", UID: "2f449b17-d573-4840-849b-14120f3d4aa7"}
	if got, want := access.IdentityName(grant, "ana@vendor.example"), "engineer-ix2kxohrac252qb4tql6guvhpq"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
