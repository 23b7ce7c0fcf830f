package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// SupportAccessSession is what one replica of the gateway says of one grant: who is connected, and, once the grant has
// ended, that nobody is any more. It lies in the operator's namespace and the gateway alone writes it. It gives nothing:
// the controller copies from it into the grant's status what an admin wants to see.
//
// A replica writes it before it lets the first request of a grant through, so that where there is none, there was nobody.
// It belongs to the replica's pod and goes with it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:path=supportaccesssessions,shortName=sasession
// +kubebuilder:printcolumn:name="Grant",type=string,JSONPath=`.spec.grant.name`
// +kubebuilder:printcolumn:name="Namespace",type=string,JSONPath=`.spec.grant.namespace`
// +kubebuilder:printcolumn:name="Replica",type=string,JSONPath=`.spec.replica`
// +kubebuilder:printcolumn:name="Cut",type=string,JSONPath=`.status.cutTime`
// +kubebuilder:printcolumn:name="Why",type=string,JSONPath=`.status.cutReason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:selectablefield:JSONPath=`.spec.replica`
type SupportAccessSession struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the object's metadata.
	//
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is whose sessions these are. It never changes.
	//
	// +required
	Spec SupportAccessSessionSpec `json:"spec"`

	// status is what the replica last said.
	//
	// +optional
	Status SupportAccessSessionStatus `json:"status,omitempty"`
}

// SupportAccessSessionSpec is whose sessions these are.
//
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="spec: a session object is of one replica and one grant"
type SupportAccessSessionSpec struct {
	// grant is the grant.
	//
	// +required
	Grant SessionGrant `json:"grant"`

	// replica is the gateway's pod.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Replica string `json:"replica"`
}

// SessionGrant identifies a grant.
type SessionGrant struct {
	// namespace is the grant's namespace.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`

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

// SupportAccessSessionStatus is what a replica last said of a grant.
type SupportAccessSessionStatus struct {
	// engineers are the people who used the grant through this replica.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	Engineers []EngineerSession `json:"engineers,omitempty"`

	// renewTime is when the replica last wrote. While anybody is connected it does so at least every 10 s.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9][.][0-9]{6}(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00.000000Z"
	RenewTime *metav1.MicroTime `json:"renewTime,omitempty"`

	// cutTime is when the last connection of the grant was closed and none could be made any more. Empty while the grant is
	// open here.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9][.][0-9]{6}(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00.000000Z"
	CutTime *metav1.MicroTime `json:"cutTime,omitempty"`

	// cutReason is why, in one word: how the grant ended.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	CutReason string `json:"cutReason,omitempty"`

	// cutConnections is how many connections were open when it was cut.
	//
	// +optional
	CutConnections int32 `json:"cutConnections,omitempty"`

	// unable is why the replica can let nobody in, whatever the grant; empty while it can. It says so in an object of its own,
	// whose grant has the uid gateway and is none. While any replica says so, no grant opens through the gateway.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Unable string `json:"unable,omitempty"`

	// leftBehind is, in an object that is about nothing else, what the engineers of the grant left behind. The controller copies it
	// to the record of a grant that has ended, once.
	//
	// +optional
	LeftBehind *LeftBehind `json:"leftBehind,omitempty"`

	// log is what the replica's audit log says of itself, in an object that is of no grant either. The controller checks it and
	// keeps it in the ConfigMap support-access-checkpoint, which the gateway cannot write.
	//
	// +optional
	Log *AuditLogHead `json:"log,omitempty"`
}

// AuditLogHead is what an audit log says of itself.
type AuditLogHead struct {
	// checkpoint is the newest, signed, in the format of C2SP.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Checkpoint string `json:"checkpoint"`

	// keys are the public keys by which it is checked.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=512
	Keys []string `json:"keys"`

	// since is the number of entries from which proof leads to the checkpoint: those of the one that is kept. Empty where none is.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Since int64 `json:"since,omitempty"`

	// proof is that the log has but grown since: hashes in base64, as RFC 6962 has them.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=128
	// +kubebuilder:validation:items:MinLength=44
	// +kubebuilder:validation:items:MaxLength=44
	Proof []string `json:"proof,omitempty"`
}

// EngineerSession is what one person did with a grant through one replica.
type EngineerSession struct {
	// name is the person.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Name string `json:"name"`

	// credentialHash is the SHA-256 of the credential with which this person last came in.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=71
	// +kubebuilder:validation:Pattern=`^sha256:[0-9a-f]{64}$`
	CredentialHash string `json:"credentialHash,omitempty"`

	// connections is how many connections are open now.
	//
	// +optional
	Connections int32 `json:"connections,omitempty"`

	// firstSeenTime is when the first request was let through.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00Z"
	FirstSeenTime *metav1.Time `json:"firstSeenTime,omitempty"`

	// lastSeenTime is when the last request was let through, or when a stream was last seen open.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00Z"
	LastSeenTime *metav1.Time `json:"lastSeenTime,omitempty"`
}

// SupportAccessSessionList is a list of sessions.
//
// +kubebuilder:object:root=true
type SupportAccessSessionList struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the list's metadata.
	//
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`

	// items are the sessions.
	Items []SupportAccessSession `json:"items"`
}
