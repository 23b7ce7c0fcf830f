package admission

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

const guardOfDefinitions = "support-access-definitions"

// guardDefinitions puts the opt-in guard in place until the test ends.
func guardDefinitions(t *testing.T) {
	t.Helper()
	content, err := os.ReadFile("../../config/crdguard/guard.yaml")
	if err != nil {
		t.Fatal(err)
	}
	putBoth(t, content, &admissionregistrationv1.ValidatingAdmissionPolicy{}, &admissionregistrationv1.ValidatingAdmissionPolicyBinding{})
}

// putBoth puts an opt-in policy and its binding in place until the test ends.
func putBoth(t *testing.T, content []byte, objects ...client.Object) {
	t.Helper()
	for i, part := range bytes.Split(content, []byte("\n---\n")) {
		if err := yaml.UnmarshalStrict(part, objects[i]); err != nil {
			t.Fatal(err)
		}
		w.root.make(t, objects[i])
	}
}

// ours is the definition of one of our kinds.
func ours() *apiextensionsv1.CustomResourceDefinition {
	return &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "supportaccessrecords.supportaccess.dev"}}
}

func TestOnceTheyAreGuardedTheDefinitionsOfOurKindsAreDeletedByNobody(t *testing.T) {
	other := &apiextensionsv1.CustomResourceDefinition{
		// A name is no proof: by its group it is somebody else's.
		ObjectMeta: metav1.ObjectMeta{Name: "supportaccessrecords.supportaccess.dev.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "supportaccess.dev.example.com", Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "supportaccessrecords", Singular: "supportaccessrecord", Kind: "SupportAccessRecord", ListKind: "SupportAccessRecordList"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true, Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object"}},
			}},
		},
	}
	if err := w.root.Create(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.root.Delete(context.Background(), other); err != nil {
			t.Error(err)
		}
	})
	// Without the guard a cluster admin may.
	taken(t, w.root.Delete(t.Context(), ours(), client.DryRunAll))
	guardDefinitions(t)
	err := until(t.Context(), "the guard is in force", func() error {
		if err := w.root.Delete(t.Context(), ours(), client.DryRunAll); !apierrors.IsForbidden(err) {
			return fmt.Errorf("the answer is %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	const message = "customresourcedefinitions: DELETE of supportaccessrecords.supportaccess.dev would delete every object of the kind, records too"
	refused(t, w.root.Delete(t.Context(), ours(), client.DryRunAll), guardOfDefinitions, message)
	refused(t, w.as(t, garbageCollector).Delete(t.Context(), ours(), client.DryRunAll), guardOfDefinitions, message)
	refused(t, w.as(t, controllerManager).Delete(t.Context(), ours(), client.DryRunAll), guardOfDefinitions, message)
	// A collection names none of them.
	collection := &client.DeleteAllOfOptions{}
	collection.ApplyOptions([]client.DeleteAllOfOption{client.MatchingFields{"metadata.name": ours().Name}})
	collection.DryRun = []string{metav1.DryRunAll}
	refused(t, w.root.DeleteAllOf(t.Context(), &apiextensionsv1.CustomResourceDefinition{}, collection), guardOfDefinitions, message)
	taken(t, w.root.Delete(t.Context(), other, client.DryRunAll))
	taken(t, w.root.merge(t, ours(), `{"metadata":{"labels":{"a":"b"}}}`, client.DryRunAll))
}
