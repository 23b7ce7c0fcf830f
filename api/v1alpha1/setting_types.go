package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// SettingName is the name of every setting: a namespace has one.
const SettingName = "support-access"

// SettingRecordName is the name of the record of a namespace's setting. It has two dots: the name of a grant's record has
// none, that of a copy of one has one.
const SettingRecordName = "setting.supportaccess.dev"

// The states of a setting besides those of its grant: the reasons of its condition Ready.
const (
	// SettingOn is a setting whose grant is active.
	SettingOn = "On"
	// SettingOff is a setting of which nothing is open.
	SettingOff = "Off"
)

// SupportAccessSetting is the standing switch of one namespace: support access is on until an instant, and off once that
// has passed or is taken out. There is one in a namespace, and its name is support-access.
//
// While it is on it owns one grant, which ends at that instant. Every change of its spec makes that grant end, and another
// takes its place while the setting is on. A grant that a person ends stays ended: to switch on again is to write a later
// instant.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=supportaccesssettings,shortName=sasetting,categories={support-access}
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Engineers",type=string,JSONPath=`.status.engineerNames`
// +kubebuilder:printcolumn:name="Until",type=string,JSONPath=`.spec.enabledUntil`
// +kubebuilder:printcolumn:name="Switched-By",type=string,JSONPath=`.spec.switchedBy`
// +kubebuilder:printcolumn:name="Roles",type=string,JSONPath=`.spec.roles`,priority=1
// +kubebuilder:printcolumn:name="Grant",type=string,JSONPath=`.status.grant`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name == 'support-access'",message="metadata.name: a namespace has one setting, and its name is support-access"
type SupportAccessSetting struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the object's metadata. The name is support-access.
	//
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is how the switch stands, and what it gives.
	//
	// +required
	Spec SupportAccessSettingSpec `json:"spec"`

	// status is what has become of it. Only the operator writes it.
	//
	// +optional
	// +kubebuilder:default:={"observedGeneration":-1}
	Status SupportAccessSettingStatus `json:"status,omitempty"`
}

// SupportAccessSettingSpec is how the switch stands, and what it gives.
//
// +kubebuilder:validation:XValidation:rule="!has(self.roles) || !('support-access-flagged' in self.roles)",message="spec.roles: support-access-flagged is granted for a case, not by a setting"
// +kubebuilder:validation:XValidation:rule="has(self.engineers)",message="spec.engineers: is missing: name the people, or in spec.engineerList one of the lists that the policy has (engineerLists)"
type SupportAccessSettingSpec struct {
	// enabledUntil is the instant until which support access is on, such as 2026-12-31T18:00:00Z, at most the policy's
	// maxEnabled ahead. Empty, or an instant that has passed, means off.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00Z"
	EnabledUntil *metav1.Time `json:"enabledUntil,omitempty"`

	// engineers are the people of the vendor who have access while it is on, each a named human, never a shared account. With
	// engineerList a manifest leaves them out: admission writes who is on the list.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Engineers []Engineer `json:"engineers,omitempty"`

	// engineerList is the name of a list in the policy's engineerLists. Whoever is on it when this spec is written has access;
	// a list that changes later counts from the next time that the spec is changed. Empty means the engineers written here.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	EngineerList string `json:"engineerList,omitempty"`

	// roles are names of ClusterRoles that the policy offers and does not call elevated. The default is
	// support-access-configuration and support-access-diagnostics. Whoever writes a setting that is on must hold the verb
	// bind on each.
	//
	// +optional
	// +listType=set
	// +kubebuilder:default:={support-access-configuration,support-access-diagnostics}
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:Pattern=`^[A-Za-z0-9]([A-Za-z0-9.:_-]*[A-Za-z0-9])?$`
	Roles []string `json:"roles,omitempty"`

	// transport is Gateway or Direct. Empty means the first that the policy lists.
	//
	// +optional
	Transport Transport `json:"transport,omitempty"`

	// reason says to the other admins, and to whoever reads the record later, why support access is on. The default is
	// "support access is switched on for this namespace".
	//
	// +optional
	// +kubebuilder:default:="support access is switched on for this namespace"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Reason string `json:"reason,omitempty"`

	// switchedBy is the user who last changed this spec, and by whom its grant is. Admission writes it; a manifest leaves it
	// out.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	SwitchedBy string `json:"switchedBy,omitempty"`
}

// SettingReference names the setting because of which the operator made a grant, as it then was.
type SettingReference struct {
	// uid is the setting's UID. A setting of another UID is another setting.
	//
	// +required
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	UID types.UID `json:"uid"`

	// generation is the generation of the setting's spec. Once there is a later one, the grant is over.
	//
	// +required
	// +kubebuilder:validation:Minimum=1
	Generation int64 `json:"generation"`
}

// SupportAccessSettingStatus is what has become of a setting. Nothing in it gives access.
type SupportAccessSettingStatus struct {
	// conditions are Ready and Active, and Stalled or Reconciling while they are true. The reason of Ready is On, Off, or
	// the state of the grant that keeps it from being either. Active means that access exists now.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:XValidation:rule="self.all(c, c.lastTransitionTime >= timestamp('2000-01-01T00:00:00Z') && c.lastTransitionTime < timestamp('3000-01-01T00:00:00Z'))",message="lastTransitionTime: must be an instant such as 2026-12-01T18:00:00Z"
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// observedGeneration is the generation of the spec that this status speaks of. -1 means that the operator has not yet
	// seen the setting.
	//
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// provenGeneration is the latest generation of the spec that is known to have been written while the admission policies
	// were in force, so that switchedBy is proven. Of another no grant is made.
	//
	// +optional
	ProvenGeneration int64 `json:"provenGeneration,omitempty"`

	// guardedSince is since when the admission policies had been in force without a break when observedGeneration was seen.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00Z"
	GuardedSince *metav1.Time `json:"guardedSince,omitempty"`

	// grant is the name of its grant, the last one where it is off. Empty means that there was none.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Grant string `json:"grant,omitempty"`

	// engineerNames are the engineers who have access now, in one line. More than three are counted.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=512
	EngineerNames string `json:"engineerNames,omitempty"`
}

// SupportAccessSettingList is a list of settings.
//
// +kubebuilder:object:root=true
type SupportAccessSettingList struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the list's metadata.
	//
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`

	// items are the settings.
	Items []SupportAccessSetting `json:"items"`
}
