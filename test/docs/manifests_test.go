package docs

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/world"
)

// manifest is one object that a page or a sample shows.
type manifest struct {
	from   string
	text   string
	object *unstructured.Unstructured
}

func (m manifest) identity() string {
	return m.object.GetKind() + " " + m.object.GetNamespace() + "/" + m.object.GetName()
}

func (m manifest) ours() bool {
	return m.object.GroupVersionKind().GroupVersion() == v1alpha1.GroupVersion
}

// manifestsOf splits a file or a block into its objects. Comments are for the file that they are in.
func manifestsOf(t *testing.T, from, text string) []manifest {
	t.Helper()
	var found []manifest
	for document := range strings.SplitSeq(text, "\n---\n") {
		m := manifest{from: from, text: withoutComments(document), object: &unstructured.Unstructured{}}
		if err := yaml.UnmarshalStrict([]byte(document), &m.object.Object); err != nil {
			t.Errorf("%s: %v", from, err)
			continue
		}
		if m.object.GetKind() == "" || m.object.GetName() == "" {
			t.Errorf("%s: is not a whole object", from)
			continue
		}
		found = append(found, m)
	}
	return found
}

func withoutComments(text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") {
			kept = append(kept, strings.TrimRight(line, "\n"))
		}
	}
	return strings.TrimSpace(strings.Join(kept, "\n"))
}

// shown are the objects in the YAML blocks of all pages.
func shown(t *testing.T) []manifest {
	t.Helper()
	var found []manifest
	for _, b := range blocks(t, "yaml") {
		found = append(found, manifestsOf(t, b.String(), b.text)...)
	}
	return found
}

// samples are the objects of config/samples, and the default policy.
func samples(t *testing.T) []manifest {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root(t), "config", "samples", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var found []manifest
	for _, path := range append(paths, filepath.Join(root(t), "config", "policy", "default.yaml")) {
		relative, err := filepath.Rel(root(t), path)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, manifestsOf(t, relative, read(t, relative))...)
	}
	return found
}

// TestTheAPIServerTakesEveryManifest tries each in a dry run, with the chart's admission policies in force.
func TestTheAPIServerTakesEveryManifest(t *testing.T) {
	w := world.New(t)
	w.InstallChart(t, nil)
	admin := w.Kubeconfig(t, w.ControlPlane.AdminConfig(), "")
	manifests := shown(t)
	for _, m := range manifests {
		namespace := m.object.GetNamespace()
		if !m.ours() || namespace == "" {
			continue
		}
		err := w.Admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	world.Eventually(t, "the policy is asked", func() error {
		return refused(t, w, admin, grantWith("duration: 200h"), "exceeds 168h, the limit of policy default")
	})
	if err := refused(t, w, admin, grantWith("duration: 24h\n  colour: blue"), `unknown field "spec.colour"`); err != nil {
		t.Error(err)
	}
	// What answers a request takes one that somebody else has made.
	ana := w.Kubeconfig(t, w.Config("ana@vendor.example", "system:masters"), "")
	for _, m := range manifests {
		if m.object.GetKind() != "SupportAccessRequest" {
			continue
		}
		if _, stderr, err := w.KubectlWith(t, ana, m.text, "apply", "-f", "-"); err != nil {
			t.Fatalf("%s: %v: %s", m.from, err, stderr)
		}
		world.Eventually(t, "the request is known", func() error {
			_, stderr, err := tryOut(t, w, admin, read(t, "config/samples/grant-answer.yaml"))
			if err != nil {
				return fmt.Errorf("%w: %s", err, stderr)
			}
			return nil
		})
	}
	tried := 0
	for _, m := range manifests {
		if !m.ours() {
			continue
		}
		tried++
		if _, stderr, err := tryOut(t, w, admin, m.text); err != nil {
			t.Errorf("%s: %s: %v: %s", m.from, m.identity(), err, stderr)
		}
	}
	if tried < 10 {
		t.Errorf("the pages show %d objects of ours; there are more", tried)
	}
}

func grantWith(end string) string {
	return `apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessGrant
metadata: {name: wrong, namespace: default}
spec:
  case: {id: CASE-1}
  reason: to be refused
  engineers: [{name: ana@vendor.example}]
  ` + end + "\n"
}

func refused(t *testing.T, w *world.World, kubeconfig, text, want string) error {
	t.Helper()
	_, stderr, err := tryOut(t, w, kubeconfig, text)
	if err == nil || !strings.Contains(stderr, want) {
		return fmt.Errorf("want a refusal that says %q, got %w: %s", want, errors.Join(err, errors.New("nothing else")), stderr)
	}
	return nil
}

func tryOut(t *testing.T, w *world.World, kubeconfig, text string) (stdout, stderr string, err error) {
	t.Helper()
	return w.KubectlWith(t, kubeconfig, text, "apply", "--dry-run=server", "--validate=strict", "-f", "-")
}

func TestAManifestOnAPageIsTheSampleOfThatName(t *testing.T) {
	sample := map[string]manifest{}
	missing := map[string]bool{}
	for _, m := range samples(t) {
		sample[m.identity()] = m
		if m.ours() {
			missing[m.identity()] = true
		}
	}
	for _, m := range shown(t) {
		want, is := sample[m.identity()]
		if !is {
			if m.ours() {
				t.Errorf("%s: %s is no sample: a page shows what somebody can apply", m.from, m.identity())
			}
			continue
		}
		delete(missing, m.identity())
		if m.text != want.text {
			t.Errorf("%s: %s differs from %s:\n%s\nwant\n%s", m.from, m.identity(), want.from, m.text, want.text)
		}
	}
	for _, identity := range sorted(missing) {
		t.Errorf("no page shows the sample %s", identity)
	}
}
