// Package chart holds the tests of what is packaged: the chart, the kustomize manifests, the image, the samples. What can
// be seen in what they render is looked at there; the rest is tried on a real control plane.
package chart

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/hack/controlplane"
	"supportaccess.dev/operator/hack/controlplane/helm"
	"supportaccess.dev/operator/test/world"
)

// commandTimeout bounds every program that a test runs.
const commandTimeout = 5 * time.Minute

func TestMain(m *testing.M) { world.Main(m) }

// root is the folder of the repository.
func root(t testing.TB) string {
	t.Helper()
	dir, err := controlplane.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// release is the chart as it is installed, with values laid over its own.
func release(t testing.TB, values map[string]any, args ...string) helm.Release {
	t.Helper()
	return helm.Release{
		Name: "support-access", Namespace: v1alpha1.SystemNamespace,
		Chart: filepath.Join(root(t), "charts", "support-access"), Values: values, Args: args,
	}
}

// template renders a release; the error is Helm's.
func template(t testing.TB, r helm.Release) ([]*unstructured.Unstructured, error) {
	t.Helper()
	h, err := helm.New(t.Context(), filepath.Join(t.TempDir(), "none"), t.TempDir(), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := h.Template(t.Context(), r)
	if err != nil {
		return nil, err
	}
	return objects(t, manifest), nil
}

// render renders the chart, without hooks.
func render(t testing.TB, values map[string]any) []*unstructured.Unstructured {
	t.Helper()
	rendered, err := template(t, release(t, values, "--no-hooks"))
	if err != nil {
		t.Fatal(err)
	}
	return rendered
}

// renderAll renders the chart with its hooks.
func renderAll(t testing.TB, values map[string]any) []*unstructured.Unstructured {
	t.Helper()
	rendered, err := template(t, release(t, values))
	if err != nil {
		t.Fatal(err)
	}
	return rendered
}

// kustomize renders config/default.
func kustomize(t testing.TB) []*unstructured.Unstructured {
	t.Helper()
	binaries, err := controlplane.Build(t.Context(), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	return objects(t, []byte(run(t, root(t), binaries.Kubectl, "kustomize", "config/default")))
}

// objects reads a manifest.
func objects(t testing.TB, manifest []byte) []*unstructured.Unstructured {
	t.Helper()
	var found []*unstructured.Unstructured
	decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096)
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(object)
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatalf("read a manifest: %v", err)
		}
		if len(object.Object) > 0 {
			found = append(found, object)
		}
	}
}

// identity names an object in a manifest.
func identity(object *unstructured.Unstructured) string {
	return fmt.Sprintf("%s %s/%s", object.GetKind(), object.GetNamespace(), object.GetName())
}

// find returns the one object of that kind and name, as a T.
func find[T any](t testing.TB, in []*unstructured.Unstructured, kind, name string) *T {
	t.Helper()
	for _, object := range in {
		if object.GetKind() == kind && object.GetName() == name {
			return as[T](t, object)
		}
	}
	t.Fatalf("%s %s is not rendered", kind, name)
	return nil
}

// has is true when there is an object of that kind and name.
func has(in []*unstructured.Unstructured, kind, name string) bool {
	for _, object := range in {
		if object.GetKind() == kind && object.GetName() == name {
			return true
		}
	}
	return false
}

// as converts an object, and fails on a field that T does not have.
func as[T any](t testing.TB, object *unstructured.Unstructured) *T {
	t.Helper()
	typed := new(T)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, typed, true); err != nil {
		t.Fatalf("%s: %v", identity(object), err)
	}
	return typed
}

// podTemplates are those of every workload rendered, by the workload's name.
func podTemplates(t testing.TB, in []*unstructured.Unstructured) map[string]corev1.PodTemplateSpec {
	t.Helper()
	templates := map[string]corev1.PodTemplateSpec{}
	for _, object := range in {
		switch object.GetKind() {
		case "Deployment":
			templates[identity(object)] = as[appsv1.Deployment](t, object).Spec.Template
		case "Job":
			templates[identity(object)] = as[batchv1.Job](t, object).Spec.Template
		}
	}
	return templates
}

// run runs a program and returns what it prints.
func run(t testing.TB, dir, program string, args ...string) string {
	t.Helper()
	out, err := tryRun(t, dir, program, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func tryRun(t testing.TB, dir, program string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %v: %w: %s", program, args, err, stderr.String())
	}
	return stdout.String(), nil
}

// read returns a file of the repository.
func read(t testing.TB, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root(t), path))
	if err != nil {
		t.Fatal(err)
	}
	return content
}
