package main

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
)

const root = "../.."

func TestTheChartIsAsTheGeneratorWritesIt(t *testing.T) {
	want, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range want {
		got, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Error(err)
			continue
		}
		if string(got) != string(content) {
			t.Errorf("%s is stale: go run ./hack/chart", path)
		}
	}
	for _, dir := range generatedDirs {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, entry os.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			relative, err := filepath.Rel(root, path)
			if _, found := want[relative]; !found {
				t.Errorf("%s has no source any more", relative)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestEveryObjectGetsTheLabelsOnceWhereverItsMetadataHasThem(t *testing.T) {
	m := parse("x.yaml", []byte(`apiVersion: v1
kind: A
metadata:
  name: without
spec:
  metadata:
    labels: {}
---
apiVersion: v1
kind: B
metadata:
  name: with
  labels:
    app.kubernetes.io/part-of: support-access
    mine: "true"
spec:
  labels:
    x: y`)).labelled()
	want := `apiVersion: v1
kind: A
metadata:
  labels:
` + chartLabels + `
  name: without
spec:
  metadata:
    labels: {}
---
apiVersion: v1
kind: B
metadata:
  name: with
  labels:
` + chartLabels + `
    mine: "true"
spec:
  labels:
    x: y`
	if got := strings.Join(m.lines, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestWhatLooksLikeATemplateStaysText(t *testing.T) {
	got := strings.Join(parse("x.yaml", []byte(`description: write {{ name }}`)).escaped().lines, "\n")
	if want := `description: write {{ "{{" }} name }}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestASourceThatTheValuesCannotExtendIsAnError(t *testing.T) {
	cases := map[string]func() error{
		"system users on two lines": func() error {
			_, _, err := parse("x.yaml", []byte("spec:\n  - name: systemUsers\n    expression: >-\n      ['a']")).exceptingUsers()
			return err
		},
		"system users at the very end": func() error {
			_, _, err := parse("x.yaml", []byte("spec:\n  - name: systemUsers")).exceptingUsers()
			return err
		},
		"no rule to bind": func() error {
			_, err := parse("x.yaml", []byte("rules: []")).binding()
			return err
		},
		"two rules to bind": func() error {
			_, err := parse("x.yaml", []byte("rules:\n- x: y\n"+offeredRoles+"\n- x: y\n"+offeredRoles)).binding()
			return err
		},
		"no certificate to make": func() error {
			_, err := parse("x.yaml", []byte("rules: []")).certifying()
			return err
		},
	}
	for name, change := range cases {
		if change() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestTheCeilingIsWhatTheRolesThatCanBeGrantedAllow(t *testing.T) {
	content, err := ceiling(root)
	if err != nil {
		t.Fatal(err)
	}
	roles, err := clusterRoles(parse(ceilingPath, content))
	if err != nil {
		t.Fatal(err)
	}
	got := rights(t, roles[1].Rules, throughTheGateway)
	want := map[string]bool{
		"create authorization.k8s.io/selfsubjectaccessreviews": true,
		"create authorization.k8s.io/selfsubjectrulesreviews":  true,
		"create authentication.k8s.io/selfsubjectreviews":      true,
	}
	for _, name := range []string{"configuration", "diagnostics", "operate", "content"} {
		m, err := read(root, "config/roles/"+name+".yaml")
		if err != nil {
			t.Fatal(err)
		}
		granted, err := clusterRoles(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, role := range granted {
			maps.Copy(want, rights(t, role.Rules, ""))
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("the ceiling allows\n\t%s\nwant\n\t%s", strings.Join(slices.Sorted(maps.Keys(got)), "\n\t"), strings.Join(slices.Sorted(maps.Keys(want)), "\n\t"))
	}
	if len(want) < 100 {
		t.Errorf("the roles allow only %d things", len(want))
	}
}

// rights are what rules allow, one by one, each verb without its prefix.
func rights(t *testing.T, rules []rbacv1.PolicyRule, prefix string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, rule := range rules {
		for _, verb := range rule.Verbs {
			plain, ok := strings.CutPrefix(verb, prefix)
			if !ok {
				t.Errorf("verb %q does not begin with %q", verb, prefix)
			}
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					found[plain+" "+group+"/"+resource] = true
				}
			}
		}
	}
	return found
}

func TestARoleThatTheCeilingCannotFollowIsAnError(t *testing.T) {
	for name, rule := range map[string]rbacv1.PolicyRule{
		"a wildcard":      {APIGroups: []string{""}, Resources: []string{"*"}, Verbs: []string{"get"}},
		"one object":      {APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"a"}, Verbs: []string{"get"}},
		"a path of a URL": {NonResourceURLs: []string{"/metrics"}, Verbs: []string{"get"}},
	} {
		if err := writeCeilingRule(&bytes.Buffer{}, rule); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
