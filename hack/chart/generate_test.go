package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
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
	}
	for name, change := range cases {
		if change() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
