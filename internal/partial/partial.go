// Package partial makes objects of which only the metadata is asked for: what names and labels tell needs no more, and a
// cache that holds no more cannot give it away.
package partial

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Object returns an empty object of a kind of the core group.
func Object(kind string) *metav1.PartialObjectMetadata {
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind))
	return object
}
