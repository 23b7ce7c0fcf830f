package v1alpha1_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsinstall "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apiextensions-apiserver/pkg/registry/customresource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"supportaccess.dev/operator/api/v1alpha1"
)

// crdFolder is where controller-gen writes the CRDs: the tests judge the bytes that are shipped.
const crdFolder = "../../config/crd"

// strategy is what the API server does with an object of a custom resource, its CEL rules included.
type strategy interface {
	Validate(ctx context.Context, obj runtime.Object) field.ErrorList
	ValidateUpdate(ctx context.Context, obj, old runtime.Object) field.ErrorList
}

// served is one kind as the API server serves it.
type served struct {
	crd    *apiextensions.CustomResourceDefinition
	schema *schema.Structural
	main   strategy
	status strategy
}

// object is an object as JSON knows it.
type object = map[string]any

// readCRDs reads every shipped CRD as the API server would on create: decoded strictly, defaulted, made internal.
func readCRDs(t testing.TB) map[string]*apiextensions.CustomResourceDefinition {
	t.Helper()
	scheme := runtime.NewScheme()
	apiextensionsinstall.Install(scheme)
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDecoder(apiextensions.SchemeGroupVersion)
	files, err := filepath.Glob(filepath.Join(crdFolder, "*_*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	crds := map[string]*apiextensions.CustomResourceDefinition{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		decoded, _, err := decoder.Decode(data, nil, nil)
		if err != nil {
			t.Fatalf("decode %s: %v", file, err)
		}
		crd := decoded.(*apiextensions.CustomResourceDefinition)
		crds[crd.Spec.Names.Kind] = crd
	}
	return crds
}

// serve returns every kind as the API server serves it.
func serve(t testing.TB) map[string]served {
	t.Helper()
	kinds := map[string]served{}
	for kind, crd := range readCRDs(t) {
		kinds[kind] = serveOne(t, crd)
	}
	return kinds
}

func serveOne(t testing.TB, crd *apiextensions.CustomResourceDefinition) served {
	t.Helper()
	props := openAPIOf(t, crd)
	structural, err := schema.NewStructural(props)
	if err != nil {
		t.Fatalf("%s: %v", crd.Name, err)
	}
	validator, _, err := validation.NewSchemaValidator(props)
	if err != nil {
		t.Fatalf("%s: %v", crd.Name, err)
	}
	var statusValidator validation.SchemaValidator
	if status, has := props.Properties["status"]; has {
		if statusValidator, _, err = validation.NewSchemaValidator(&status); err != nil {
			t.Fatalf("%s: %v", crd.Name, err)
		}
	}
	var subresource *apiextensions.CustomResourceSubresourceStatus
	if s := subresourcesOf(crd); s != nil {
		subresource = s.Status
	}
	kind := v1alpha1.GroupVersion.WithKind(crd.Spec.Names.Kind)
	main := customresource.NewStrategy(nil, crd.Spec.Scope == apiextensions.NamespaceScoped, kind,
		validator, statusValidator, structural, subresource, nil, []apiextensionsv1.SelectableField{})
	return served{crd: crd, schema: structural, main: main, status: customresource.NewStatusStrategy(main)}
}

// openAPIOf returns the schema of a CRD: of its only version, or of the CRD as a whole where the API server keeps it there.
func openAPIOf(t testing.TB, crd *apiextensions.CustomResourceDefinition) *apiextensions.JSONSchemaProps {
	t.Helper()
	if len(crd.Spec.Versions) != 1 {
		t.Fatalf("%s: %d versions, want 1", crd.Name, len(crd.Spec.Versions))
	}
	if s := crd.Spec.Versions[0].Schema; s != nil {
		return s.OpenAPIV3Schema
	}
	return crd.Spec.Validation.OpenAPIV3Schema
}

func subresourcesOf(crd *apiextensions.CustomResourceDefinition) *apiextensions.CustomResourceSubresources {
	if s := crd.Spec.Versions[0].Subresources; s != nil {
		return s
	}
	return crd.Spec.Subresources
}

// decode reads a request's body as the API server does: what no schema knows is dropped, what is null and must not be is
// dropped, what is missing is defaulted. It returns nil where the API server answers that it cannot read the body.
func (s served) decode(body []byte) object {
	var obj object
	if err := utiljson.Unmarshal(body, &obj); err != nil || obj == nil {
		return nil
	}
	meta, found, err := objectmeta.GetObjectMeta(obj, false)
	if err != nil {
		return nil
	}
	apiVersion, kind := obj["apiVersion"], obj["kind"]
	if apiVersion != v1alpha1.GroupVersion.String() || kind != s.crd.Spec.Names.Kind {
		return nil
	}
	pruning.Prune(obj, s.schema, true)
	defaulting.PruneNonNullableNullsWithoutDefaults(obj, s.schema)
	defaulting.Default(obj, s.schema)
	obj["apiVersion"], obj["kind"] = apiVersion, kind
	if found {
		if err := objectmeta.SetObjectMeta(obj, meta); err != nil {
			return nil
		}
	}
	return obj
}

// create judges a new object, its status included, and returns the API server's complaints.
func (s served) create(obj object) field.ErrorList {
	return s.main.Validate(context.Background(), &unstructured.Unstructured{Object: obj})
}

// update judges a changed object.
func (s served) update(changed, old object) field.ErrorList {
	return s.main.ValidateUpdate(context.Background(), stored(changed), stored(old))
}

// updateStatus judges a change by way of the subresource status.
func (s served) updateStatus(changed, old object) field.ErrorList {
	return s.status.ValidateUpdate(context.Background(), stored(changed), stored(old))
}

// stored returns an object as it is read from the API server: with a resource version.
func stored(obj object) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: obj}
	u.SetResourceVersion("1")
	return u
}

// validateCRD judges a CRD as the API server does when it is created.
func validateCRD(crd *apiextensions.CustomResourceDefinition) field.ErrorList {
	return crdvalidation.ValidateCustomResourceDefinition(context.Background(), crd)
}

// fromYAML reads an object.
func fromYAML(t testing.TB, text string) object {
	t.Helper()
	var obj object
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := utiljson.Unmarshal(data, &obj); err != nil {
		t.Fatal(err)
	}
	return obj
}

func toJSON(t testing.TB, obj any) []byte {
	t.Helper()
	data, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// edit changes one place of an object.
type edit struct {
	path  string
	value any
	unset bool
}

// set puts a value, given as YAML, at a path such as spec.engineers[0].name.
func set(path, value string) edit {
	var v any
	data, err := yaml.YAMLToJSON([]byte(value))
	if err == nil {
		err = utiljson.Unmarshal(data, &v)
	}
	if err != nil {
		panic("set " + path + ": " + err.Error())
	}
	return edit{path: path, value: v}
}

// unset removes what is at a path.
func unset(path string) edit { return edit{path: path, unset: true} }

// apply makes an edit in an object. Parents that are missing are made.
func (e edit) apply(obj object) {
	steps := strings.FieldsFunc(e.path, func(r rune) bool { return r == '.' || r == '[' || r == ']' })
	var at any = obj
	for i, step := range steps {
		last := i == len(steps)-1
		switch here := at.(type) {
		case map[string]any:
			if last && e.unset {
				delete(here, step)
				return
			}
			if last {
				here[step] = runtime.DeepCopyJSONValue(e.value)
				return
			}
			if here[step] == nil {
				here[step] = map[string]any{}
			}
			at = here[step]
		case []any:
			n, err := strconv.Atoi(step)
			if err != nil {
				panic("apply " + e.path + ": " + err.Error())
			}
			if last {
				here[n] = runtime.DeepCopyJSONValue(e.value)
				return
			}
			at = here[n]
		}
	}
}
