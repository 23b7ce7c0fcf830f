package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// LeftBehind is what the engineers of a grant that has ended may have left in the cluster, by the audit log: what they made or
// changed through the gateway and did not delete. Whether it still is there, whoever may read it finds out.
type LeftBehind struct {
	// time is when the audit log was asked.
	//
	// +required
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9][.][0-9]{6}(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00.000000Z"
	Time metav1.MicroTime `json:"time"`

	// unknown is why there may be more than what is listed, or anything. Empty means that the audit log has everything.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Unknown string `json:"unknown,omitempty"`

	// objects are what was made or changed: first what could let somebody in after the end.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Objects []LeftObject `json:"objects,omitempty"`

	// droppedObjects is how many more there are, which did not fit. The audit log has them.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	DroppedObjects int32 `json:"droppedObjects,omitempty"`

	// seen are the Secrets that were read and the pods that engineers were in: what is to be rotated.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Seen []SeenObject `json:"seen,omitempty"`

	// droppedSeen is how many more there are, which did not fit. The audit log has them.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	DroppedSeen int32 `json:"droppedSeen,omitempty"`
}

// Deed is what was done to an object.
//
// +kubebuilder:validation:Enum=Created;Changed
type Deed string

const (
	// DeedCreated is that it was made.
	DeedCreated Deed = "Created"
	// DeedChanged is that it was there before.
	DeedChanged Deed = "Changed"
)

// Outliving is what of an object could let somebody in after the end.
//
// +kubebuilder:validation:Enum=Permissions;ServiceAccount;Token;Secret;Workload
type Outliving string

const (
	// OutlivingPermissions are roles and bindings.
	OutlivingPermissions Outliving = "Permissions"
	// OutlivingServiceAccount is a ServiceAccount.
	OutlivingServiceAccount Outliving = "ServiceAccount"
	// OutlivingToken is a token or a certificate.
	OutlivingToken Outliving = "Token"
	// OutlivingSecret is a Secret.
	OutlivingSecret Outliving = "Secret"
	// OutlivingWorkload is what runs, or has something run.
	OutlivingWorkload Outliving = "Workload"
)

// Doubt is what is not known of an object.
//
// +kubebuilder:validation:Enum=Unconfirmed;DeletionAsked;Unnamed
type Doubt string

const (
	// DoubtUnconfirmed is that the request had no clear answer.
	DoubtUnconfirmed Doubt = "Unconfirmed"
	// DoubtDeletionAsked is that an engineer asked to delete it, and something may have held that up.
	DoubtDeletionAsked Doubt = "DeletionAsked"
	// DoubtUnnamed is that the API server named it, and that changes were not on record.
	DoubtUnnamed Doubt = "Unnamed"
)

// LeftObject is an object that was made or changed and not deleted.
type LeftObject struct {
	// group is its API group. Empty means the core group.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Group string `json:"group,omitempty"`

	// resource is what it is: deployments. A token is serviceaccounts/token with the ServiceAccount's name.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Resource string `json:"resource"`

	// namespace is where it is. Empty means that it is of the whole cluster.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`

	// name is its name. Empty means that it is not known.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// uid is its UID. Empty means that it is not known.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=128
	UID types.UID `json:"uid,omitempty"`

	// deed is what was done to it.
	//
	// +required
	Deed Deed `json:"deed"`

	// outlives is why it could let somebody in after the end. Empty means that it could not by what it is.
	//
	// +optional
	Outlives Outliving `json:"outlives,omitempty"`

	// doubt is what is not known of it. Empty means nothing.
	//
	// +optional
	Doubt Doubt `json:"doubt,omitempty"`

	// by is the engineer who did it last.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=128
	By string `json:"by,omitempty"`
}

// SeenKind says what an engineer came to know.
//
// +kubebuilder:validation:Enum=Secret;Pod
type SeenKind string

const (
	// SeenSecret is that the engineer read the Secret.
	SeenSecret SeenKind = "Secret"
	// SeenPod is that the engineer was in the pod: what its ServiceAccount may do and what it mounts was at hand.
	SeenPod SeenKind = "Pod"
)

// SeenObject is what an engineer came to know, and what is to be rotated therefore.
type SeenObject struct {
	// kind is Secret or Pod. Of a pod, its ServiceAccount and the Secrets that it uses are to be rotated.
	//
	// +required
	Kind SeenKind `json:"kind"`

	// namespace is where it is. Empty means every namespace.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`

	// name is its name. Empty means all that are there.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// by is the engineer who saw it last.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=128
	By string `json:"by,omitempty"`
}
