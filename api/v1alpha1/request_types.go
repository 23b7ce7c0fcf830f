package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// RequestRecordSuffix is behind the name of a request in the name of its record. The record of a grant has no dot in its name,
// a copy of one has one dot, and that of a setting has two.
const RequestRecordSuffix = ".request.supportaccess.dev"

// The states of a request: the reasons of its condition Ready, besides Denied, Expired, Refused and AdmissionNotInForce, which grants
// have, too.
const (
	// RequestOpen is a request that waits for an answer.
	RequestOpen = "Open"
	// RequestGranted is a request that a grant answers.
	RequestGranted = "Granted"
)

// SupportAccessRequest is a wish for access. It gives nothing: an admin answers it with a grant whose spec.requestRef names it,
// or denies it with a SupportAccessDecision. Unanswered it expires.
//
// Its spec cannot be edited, and a name is used once in a namespace: to ask for something else is another request. To
// withdraw it, delete it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=supportaccessrequests,shortName=sareq,categories={support-access}
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Requested-By",type=string,JSONPath=`.spec.requestedBy`
// +kubebuilder:printcolumn:name="Case",type=string,JSONPath=`.spec.case.id`
// +kubebuilder:printcolumn:name="Roles",type=string,JSONPath=`.spec.roles`
// +kubebuilder:printcolumn:name="Duration",type=string,JSONPath=`.spec.duration`
// +kubebuilder:printcolumn:name="Grant",type=string,JSONPath=`.status.grant.name`
// +kubebuilder:printcolumn:name="Engineers",type=string,JSONPath=`.status.engineerNames`,priority=1
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.spec.reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:selectablefield:JSONPath=`.spec.case.id`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63 && !self.metadata.name.contains('.')",message="metadata.name: must be a DNS label: at most 63 lower-case letters, digits and hyphens, no dots"
type SupportAccessRequest struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the object's metadata. The name is a DNS label of at most 63 characters.
	//
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is asked for.
	//
	// +required
	Spec SupportAccessRequestSpec `json:"spec"`

	// status is what has become of it. Only the operator writes it.
	//
	// +optional
	// +kubebuilder:default:={"observedGeneration":-1}
	Status SupportAccessRequestStatus `json:"status,omitempty"`
}

// SupportAccessRequestSpec is what is asked for. A grant that answers gives at most this.
//
// +kubebuilder:validation:XValidation:rule="self.reason == oldSelf.reason && self.engineers == oldSelf.engineers && self.roles == oldSelf.roles && self.duration == oldSelf.duration && has(self.scope) == has(oldSelf.scope) && (!has(self.scope) || self.scope == oldSelf.scope) && has(self.case) == has(oldSelf.case) && (!has(self.case) || self.case == oldSelf.case) && has(self.requestedBy) == has(oldSelf.requestedBy) && (!has(self.requestedBy) || self.requestedBy == oldSelf.requestedBy)",message="spec: a request is never edited: to ask for something else, make another one; to withdraw it, delete it"
type SupportAccessRequestSpec struct {
	// case is the support case because of which access is asked for. Empty means none; a policy may require one, and elevated
	// roles always do.
	//
	// +optional
	Case *Case `json:"case,omitempty"`

	// reason says to the admins what is to be done, and why it takes access.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Reason string `json:"reason"`

	// engineers are the people of the vendor who are to have access, each a named human, never a shared account.
	//
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Engineers []Engineer `json:"engineers"`

	// roles are names of ClusterRoles that the policy offers. The default is support-access-configuration and
	// support-access-diagnostics: read-only, no customer content.
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

	// scope is where the roles are to hold. Empty means the request's own namespace.
	//
	// +optional
	Scope *Scope `json:"scope,omitempty"`

	// duration is how long access is to last from its opening, such as 24h: hours, minutes and seconds, no days.
	//
	// +required
	// +kubebuilder:validation:XValidation:rule="self.matches('[1-9]')",message="must be longer than zero"
	Duration Duration `json:"duration"`

	// requestedBy is the user who made the request. Admission writes it; a manifest leaves it out.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	RequestedBy string `json:"requestedBy,omitempty"`
}

// RequestReference names the request that a grant answers.
type RequestReference struct {
	// name is the name of a request in the grant's namespace.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`

	// uid is the request's UID. Admission writes it; a manifest leaves it out.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	UID types.UID `json:"uid,omitempty"`

	// requestedBy is the user who made the request. Admission writes it; a manifest leaves it out. Whoever asked neither answers
	// nor approves the answer.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	RequestedBy string `json:"requestedBy,omitempty"`
}

// SupportAccessRequestStatus is what has become of a request. Nothing in it gives access.
type SupportAccessRequestStatus struct {
	// conditions are Ready and Granted, and Stalled while it is true. The reason of Ready is Open, Granted, Denied, Expired,
	// Refused or AdmissionNotInForce.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:XValidation:rule="self.all(c, c.lastTransitionTime >= timestamp('2000-01-01T00:00:00Z') && c.lastTransitionTime < timestamp('3000-01-01T00:00:00Z'))",message="lastTransitionTime: must be an instant such as 2026-12-01T18:00:00Z"
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// observedGeneration is the generation of the spec that this status speaks of. -1 means that the operator has not yet
	// seen the request.
	//
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// grant is the grant that answers it. No other opens because of this request.
	//
	// +optional
	Grant *AnsweringGrant `json:"grant,omitempty"`

	// expirationTime is when it expires unless it is answered before.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00Z"
	ExpirationTime *metav1.Time `json:"expirationTime,omitempty"`

	// engineerNames are the engineers of the spec in one line. More than three are counted.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=512
	EngineerNames string `json:"engineerNames,omitempty"`
}

// AnsweringGrant is the grant that answers a request.
type AnsweringGrant struct {
	// name is the grant's name.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`

	// uid is the grant's UID.
	//
	// +required
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	UID types.UID `json:"uid"`
}

// SupportAccessRequestList is a list of requests.
//
// +kubebuilder:object:root=true
type SupportAccessRequestList struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the list's metadata.
	//
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`

	// items are the requests.
	Items []SupportAccessRequest `json:"items"`
}
