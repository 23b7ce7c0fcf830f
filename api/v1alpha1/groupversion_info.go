// Package v1alpha1 holds the kinds of supportaccess.dev/v1alpha1, their conditions and their names. It is a leaf: it
// imports nothing of this project.
//
// +kubebuilder:object:generate=true
// +groupName=supportaccess.dev
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	// GroupVersion is the API group and version of every kind in this package.
	GroupVersion = schema.GroupVersion{Group: "supportaccess.dev", Version: "v1alpha1"}

	// SchemeBuilder collects the kinds of this package.
	SchemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

	// AddToScheme adds the kinds of this package to a scheme.
	AddToScheme = SchemeBuilder.AddToScheme
)

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&SupportAccessGrant{}, &SupportAccessGrantList{},
		&SupportAccessDecision{}, &SupportAccessDecisionList{},
		&SupportAccessPolicy{}, &SupportAccessPolicyList{},
		&SupportAccessRecord{}, &SupportAccessRecordList{},
		&SupportAccessSetting{}, &SupportAccessSettingList{},
		&SupportAccessRequest{}, &SupportAccessRequestList{},
		&SupportAccessSession{}, &SupportAccessSessionList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
