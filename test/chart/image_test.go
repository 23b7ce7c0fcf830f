package chart

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"supportaccess.dev/operator/test/world"
)

// everyFlag are values with which the Deployment gives every flag that it can give.
var everyFlag = map[string]any{
	"cluster": map[string]any{
		"server": "https://api.example:6443", "caBundle": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
	},
	"extraSystemUsers": []string{"a", "b"},
	"notifications":    map[string]any{"allow": []string{"127.0.0.0/8", "::1/128"}, "plaintext": true},
	"gateway": map[string]any{
		"enabled": true, "server": "https://gateway.example:8443", "caBundle": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
		"tls": map[string]any{"serverName": "gateway.example"},
		"audit": map[string]any{
			"webhook": map[string]any{"url": "https://siem.example/hook", "secret": "siem", "caSecret": "siem-ca"},
			"otlp":    map[string]any{"url": "https://otel.example/v1/logs", "secret": "otel", "caSecret": "otel-ca"},
		},
	},
}

func TestTheBinaryTakesTheArgsOfEveryPod(t *testing.T) {
	binary, err := world.Binary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	templates := podTemplates(t, renderAll(t, everyFlag))
	if len(templates) != 3 {
		t.Fatalf("%d workloads are rendered, want two Deployments and the Job", len(templates))
	}
	for name, template := range templates {
		container := template.Spec.Containers[0]
		if len(container.Command) > 0 {
			t.Errorf("%s: command %v: the image's own entry point is wanted", name, container.Command)
		}
		// With --help at their end, args are parsed and nothing is run.
		out, err := tryRun(t, t.TempDir(), binary, append(slices.Clone(container.Args), "--help")...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if want := "support-access " + container.Args[0]; !strings.Contains(out, want) {
			t.Errorf("%s: the help is not that of %q: %s", name, want, out)
		}
		if _, err := tryRun(t, t.TempDir(), binary, append(slices.Clone(container.Args), "--no-such-flag", "--help")...); err == nil {
			t.Errorf("%s: a flag that does not exist is taken", name)
		}
	}
}

// instruction is one line of the Dockerfile.
type instruction struct {
	name string
	args []string
}

// dockerfile reads the Dockerfile, which quotes nothing but the value of -ldflags.
func dockerfile(t *testing.T) []instruction {
	t.Helper()
	text := strings.ReplaceAll(string(read(t, "Dockerfile")), "\\\n", " ")
	var found []instruction
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		words := regexp.MustCompile(`"[^"]*"|\S+`).FindAllString(line, -1)
		found = append(found, instruction{name: words[0], args: words[1:]})
	}
	return found
}

func TestTheImageIsBuiltFromWhatTheProgramIsMadeOf(t *testing.T) {
	var copied []string
	for _, i := range dockerfile(t) {
		if i.name != "COPY" || strings.HasPrefix(i.args[0], "--from") {
			continue
		}
		for _, path := range i.args[:len(i.args)-1] {
			if _, err := os.Stat(filepath.Join(root(t), path)); err != nil {
				t.Errorf("COPY %s: %v", path, err)
			}
			copied = append(copied, path)
		}
	}
	dirs := run(t, root(t), "go", "list", "-deps", "-f", "{{with .Module}}{{if .Main}}{{$.Dir}}{{end}}{{end}}", ".")
	needed := 0
	for dir := range strings.FieldsSeq(dirs) {
		needed++
		path, err := filepath.Rel(root(t), dir)
		if err != nil {
			t.Fatal(err)
		}
		if top, _, _ := strings.Cut(path, "/"); path != "." && !slices.Contains(copied, top) {
			t.Errorf("the program is made of %s, which the image does not copy", path)
		}
	}
	if needed < 5 {
		t.Errorf("the program is made of %d packages only", needed)
	}
	ignored := strings.Fields(string(read(t, ".dockerignore")))
	for _, path := range copied {
		if !slices.Contains(ignored, "!"+path) {
			t.Errorf(".dockerignore leaves out %s, which the image copies", path)
		}
	}
}

func TestTheImagesBuildIsOneThatGoTakesAndItsProgramIsItsEntryPoint(t *testing.T) {
	instructions := dockerfile(t)
	version := strings.TrimPrefix(base(instructions), "golang:")
	if !strings.Contains(string(read(t, "go.mod")), "\ngo "+version+".") {
		t.Errorf("%s is not what go.mod asks for", base(instructions))
	}
	build := strings.Join(instructionWith(t, instructions, "RUN", "build"), " ")
	// -n prints what would be done: flags that do not exist are refused, nothing is compiled.
	script := "set -u; export TARGETOS=linux TARGETARCH=arm64 VERSION=v0; " + strings.Replace(build, "go build", "go build -n", 1)
	run(t, root(t), "sh", "-c", script)
	if _, err := tryRun(t, root(t), "sh", "-c", strings.Replace(script, "-trimpath", "-trim-path", 1)); err == nil {
		t.Error("a flag that go does not have is taken")
	}
	stamped := regexp.MustCompile(`-X main\.(\w+)=`).FindStringSubmatch(build)
	if stamped == nil || !declares(t, "main.go", stamped[1]) {
		t.Errorf("-X names %v, which main.go does not declare", stamped)
	}
	built := regexp.MustCompile(`-o (\S+)`).FindStringSubmatch(build)[1]
	copied := instructionWith(t, instructions, "COPY", "--from=build")
	if copied[1] != built {
		t.Errorf("%s is built, %s is copied", built, copied[1])
	}
	if entry := `["` + copied[2] + `"]`; !slices.Contains(instructionWith(t, instructions, "ENTRYPOINT", entry), entry) {
		t.Errorf("the entry point is not %s", entry)
	}
}

// base is the image that the first stage begins with.
func base(instructions []instruction) string {
	for _, i := range instructions {
		if i.name == "FROM" {
			return i.args[slices.IndexFunc(i.args, func(arg string) bool { return !strings.HasPrefix(arg, "--") })]
		}
	}
	return ""
}

// instructionWith returns the args of the instruction of that name that has this arg.
func instructionWith(t *testing.T, instructions []instruction, name, arg string) []string {
	t.Helper()
	for _, i := range instructions {
		if i.name == name && slices.Contains(i.args, arg) {
			return i.args
		}
	}
	t.Fatalf("the Dockerfile has no %s with %s", name, arg)
	return nil
}

// declares is true when a file declares a variable of that name, of type string.
func declares(t *testing.T, path, name string) bool {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root(t), path), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	object := file.Scope.Lookup(name)
	if object == nil || object.Kind != ast.Var {
		return false
	}
	literal, ok := object.Decl.(*ast.ValueSpec).Values[0].(*ast.BasicLit)
	return ok && literal.Kind == token.STRING
}

func TestTheImageRunsAsThePodsSay(t *testing.T) {
	var user string
	for _, i := range dockerfile(t) {
		if i.name == "USER" {
			user = i.args[0]
		}
	}
	for name, template := range podTemplates(t, renderAll(t, everyFlag)) {
		context := template.Spec.SecurityContext
		if *context.RunAsUser != 65532 || *context.RunAsGroup != 65532 || user != "65532:65532" {
			t.Errorf("%s runs as %d:%d, the image as %s", name, *context.RunAsUser, *context.RunAsGroup, user)
		}
	}
}

// project is the part of PROJECT that can be wrong.
type project struct {
	Layout    []string
	Repo      string
	Resources []struct {
		API        struct{ Namespaced bool }
		Controller bool
		Domain     string
		Group      string
		Kind       string
		Path       string
		Version    string
	}
}

func TestTheProjectFileIsTrue(t *testing.T) {
	var p project
	if err := yaml.Unmarshal(read(t, "PROJECT"), &p); err != nil {
		t.Fatal(err)
	}
	if module := strings.TrimSpace(run(t, root(t), "go", "list", "-m")); p.Repo != module {
		t.Errorf("repo is %s, the module %s", p.Repo, module)
	}
	if !slices.Equal(p.Layout, []string{"go.kubebuilder.io/v4"}) {
		t.Errorf("layout is %v", p.Layout)
	}
	kinds := map[string]bool{}
	for _, r := range p.Resources {
		kinds[r.Kind] = r.API.Namespaced
		if !strings.HasPrefix(r.Path, p.Repo+"/") {
			t.Errorf("%s: path %s is not of this module", r.Kind, r.Path)
		} else if _, err := os.Stat(filepath.Join(root(t), strings.TrimPrefix(r.Path, p.Repo))); err != nil {
			t.Errorf("%s: %v", r.Kind, err)
		}
		if group := r.Group + "." + r.Domain; group != "supportaccess.dev" || r.Version != "v1alpha1" {
			t.Errorf("%s is of %s/%s", r.Kind, group, r.Version)
		}
		_, err := os.Stat(filepath.Join(root(t), "controllers", strings.ToLower(strings.TrimPrefix(r.Kind, "SupportAccess"))))
		if r.Controller != (err == nil) {
			t.Errorf("%s: controller is %t, and its folder: %v", r.Kind, r.Controller, err)
		}
	}
	served := map[string]bool{}
	for _, object := range render(t, nil) {
		if object.GetKind() == "CustomResourceDefinition" {
			crd := as[apiextensionsv1.CustomResourceDefinition](t, object)
			served[crd.Spec.Names.Kind] = crd.Spec.Scope == apiextensionsv1.NamespaceScoped
		}
	}
	if !reflect.DeepEqual(kinds, served) {
		t.Errorf("PROJECT has the kinds %v (namespaced?), the chart %v", kinds, served)
	}
}
