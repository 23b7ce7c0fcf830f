package cli

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"supportaccess.dev/operator/api/v1alpha1"
)

// asManifest returns an object as a person writes it: without a status.
func asManifest(object runtime.Object) (*unstructured.Unstructured, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		return nil, fmt.Errorf("write the manifest: %w", err)
	}
	unstructured.RemoveNestedField(content, "status")
	unstructured.RemoveNestedField(content, "metadata", "creationTimestamp")
	return &unstructured.Unstructured{Object: content}, nil
}

// asList returns grants as kubectl prints several objects.
func asList(grants []v1alpha1.SupportAccessGrant) (*unstructured.UnstructuredList, error) {
	list := &unstructured.UnstructuredList{Items: []unstructured.Unstructured{}}
	list.SetAPIVersion("v1")
	list.SetKind("List")
	for i := range grants {
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&grants[i])
		if err != nil {
			return nil, fmt.Errorf("write grant %s: %w", grants[i].Name, err)
		}
		item := unstructured.Unstructured{Object: content}
		item.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("SupportAccessGrant"))
		list.Items = append(list.Items, item)
	}
	return list, nil
}
