package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// SupportAccessRecord is the durable account of one grant: it is there before access is given, it outlives the grant,
// and it makes the grant's name single-use. That of a namespace's setting, named setting.supportaccess.dev, says who
// switched it and when; that of a request, named NAME.request.supportaccess.dev, who asked and what became of it. Only the
// operator writes records.
//
// It has no status subresource: what limits a grant and what happened to it are stored in one write.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:path=supportaccessrecords,shortName=sarec,categories={support-access}
// +kubebuilder:printcolumn:name="Grant",type=string,JSONPath=`.spec.grant.name`
// +kubebuilder:printcolumn:name="Granted-By",type=string,JSONPath=`.spec.grantedBy`
// +kubebuilder:printcolumn:name="Opened",type=string,JSONPath=`.status.provisionedTime`
// +kubebuilder:printcolumn:name="Ended",type=string,JSONPath=`.status.endTime`
// +kubebuilder:printcolumn:name="How",type=string,JSONPath=`.status.endReason`
// +kubebuilder:printcolumn:name="By",type=string,JSONPath=`.status.endedBy`
// +kubebuilder:printcolumn:name="Case",type=string,JSONPath=`.spec.case.id`,priority=1
// +kubebuilder:printcolumn:name="Roles",type=string,JSONPath=`.spec.roles`,priority=1
// +kubebuilder:printcolumn:name="Requested-By",type=string,JSONPath=`.spec.request.requestedBy`,priority=1
// +kubebuilder:selectablefield:JSONPath=`.spec.case.id`
// +kubebuilder:selectablefield:JSONPath=`.spec.grant.name`
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.status) || has(self.status)",message="status: a record is not forgotten"
type SupportAccessRecord struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the object's metadata. The name is the grant's in the grant's own namespace, and NAMESPACE.GRANT elsewhere;
	// that of a setting's record is setting.supportaccess.dev, that of a request's REQUEST.request.supportaccess.dev.
	//
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the grant as the operator first saw it. It never changes.
	//
	// +required
	Spec SupportAccessRecordSpec `json:"spec"`

	// status is what happened.
	//
	// +optional
	Status SupportAccessRecordStatus `json:"status,omitempty"`
}

// SupportAccessRecordSpec is the grant, or the request, as the operator first saw it, or says of which setting the record is.
//
// +kubebuilder:validation:XValidation:rule="has(self.grant) == has(oldSelf.grant) && (!has(self.grant) || self.grant == oldSelf.grant)",message="spec.grant: a record belongs to one grant for ever"
// +kubebuilder:validation:XValidation:rule="[has(self.grant), has(self.setting), has(self.request)].filter(x, x).size() == 1",message="spec: give exactly one of grant, setting and request"
// +kubebuilder:validation:XValidation:rule="has(self.request) == has(oldSelf.request) && (!has(self.request) || self.request == oldSelf.request)",message="spec.request: a record belongs to one request for ever"
type SupportAccessRecordSpec struct {
	// grant is the grant that this record is about. Empty means that it is about a setting or a request.
	//
	// +optional
	Grant RecordedGrant `json:"grant,omitzero"`

	// setting is the setting that this record is about, whichever object it was at a time. Empty means that it is about a grant
	// or a request.
	//
	// +optional
	Setting *RecordedSetting `json:"setting,omitempty"`

	// request is the request that this record is about. Empty means that it is about a grant or a setting.
	//
	// +optional
	Request *RecordedRequest `json:"request,omitempty"`

	// grantedBy is the user who made the grant.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	GrantedBy string `json:"grantedBy,omitempty"`

	// claimedAuthor is whom the grant named as its author, in the annotation supportaccess.dev/author. Nobody checked it. An
	// approval of theirs does not count.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	ClaimedAuthor string `json:"claimedAuthor,omitempty"`

	// case is the support case.
	//
	// +optional
	Case *Case `json:"case,omitempty"`

	// reason is the grant's reason as first seen.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Reason string `json:"reason,omitempty"`

	// engineers are the people to whom access was granted.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=128
	Engineers []string `json:"engineers,omitempty"`

	// roles are the ClusterRoles granted.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=4
	// +kubebuilder:validation:items:MaxLength=253
	Roles []string `json:"roles,omitempty"`

	// scope is where: the namespaces by name, the grant's own included where it was meant, or the cluster.
	//
	// +optional
	Scope *Scope `json:"scope,omitempty"`

	// transport is the transport in force.
	//
	// +optional
	Transport Transport `json:"transport,omitempty"`

	// policy is the policy by which it was judged.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Policy string `json:"policy,omitempty"`

	// settingRef is the setting because of which the operator made the grant. Empty means that somebody made it.
	//
	// +optional
	SettingRef *SettingReference `json:"settingRef,omitempty"`

	// requestRef is the request that the grant answers. Empty means none.
	//
	// +optional
	RequestRef *RequestReference `json:"requestRef,omitempty"`
}

// RecordedRequest identifies one request for ever.
type RecordedRequest struct {
	// namespace is the request's namespace.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`

	// name is the request's name.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`

	// uid is the request's UID. A request of this name with another UID is not this request, and is Refused.
	//
	// +required
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	UID types.UID `json:"uid"`

	// requestedBy is the user who made the request.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	RequestedBy string `json:"requestedBy"`

	// duration is for how long access was asked for.
	//
	// +optional
	Duration Duration `json:"duration,omitempty"`

	// creationTime is the API server's instant at which the request was made.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00Z"
	CreationTime *metav1.Time `json:"creationTime,omitempty"`
}

// RecordedSetting names the setting of one namespace.
type RecordedSetting struct {
	// namespace is the setting's namespace.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`
}

// RecordedSwitch is how a setting stood when the operator last saw it.
type RecordedSwitch struct {
	// uid is the setting's UID.
	//
	// +required
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	UID types.UID `json:"uid"`

	// generation is the generation of its spec.
	//
	// +required
	// +kubebuilder:validation:Minimum=1
	Generation int64 `json:"generation"`

	// enabledUntil is the instant until which it is on. Empty means that it is off.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00Z"
	EnabledUntil *metav1.Time `json:"enabledUntil,omitempty"`
}

// RecordedDefault is that a namespace was switched on by default.
type RecordedDefault struct {
	// policy is the policy by which it was.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Policy string `json:"policy"`

	// time is when.
	//
	// +required
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9][.][0-9]{6}(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00.000000Z"
	Time metav1.MicroTime `json:"time"`
}

// RecordedGrant identifies one grant for ever.
type RecordedGrant struct {
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

	// uid is the grant's UID. A grant of this name with another UID is not this grant, and opens nothing.
	//
	// +required
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	UID types.UID `json:"uid"`

	// specDigest is the SHA-256 of the spec without what may be corrected later.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	SpecDigest string `json:"specDigest"`

	// creationTime is the API server's instant at which the grant was made.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00Z"
	CreationTime *metav1.Time `json:"creationTime,omitempty"`
}

// SupportAccessRecordStatus is what happened to a grant. Each instant is written once; expirationTime may move earlier.
//
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.endTime) || (has(self.endTime) && self.endTime == oldSelf.endTime)",message="status.endTime: is written once"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.startTime) || (has(self.startTime) && self.startTime == oldSelf.startTime)",message="status.startTime: is written once"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.awaitingApprovalTime) || (has(self.awaitingApprovalTime) && self.awaitingApprovalTime == oldSelf.awaitingApprovalTime)",message="status.awaitingApprovalTime: is written once"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.provisionedTime) || (has(self.provisionedTime) && self.provisionedTime == oldSelf.provisionedTime)",message="status.provisionedTime: is written once"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.expirationTime) || (has(self.expirationTime) && self.expirationTime <= oldSelf.expirationTime)",message="status.expirationTime: may only move earlier"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.enabledByDefault) || (has(self.enabledByDefault) && self.enabledByDefault == oldSelf.enabledByDefault)",message="status.enabledByDefault: is written once"
type SupportAccessRecordStatus struct {
	// startTime is when access opens or opened.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00Z"
	StartTime *metav1.Time `json:"startTime,omitempty"`

	// expirationTime is when access ends unless it is ended earlier.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00Z"
	ExpirationTime *metav1.Time `json:"expirationTime,omitempty"`

	// awaitingApprovalTime is since when the grant has waited for approvals. Empty means that it needed none.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00Z"
	AwaitingApprovalTime *metav1.Time `json:"awaitingApprovalTime,omitempty"`

	// approvalsNeeded is how many approvals the grant needed when it was last judged before it opened.
	//
	// +optional
	ApprovalsNeeded int32 `json:"approvalsNeeded,omitempty"`

	// approvals are those that counted.
	//
	// +optional
	// +listType=map
	// +listMapKey=uid
	// +kubebuilder:validation:MaxItems=16
	Approvals []RecordedApproval `json:"approvals,omitempty"`

	// provisionedTime is when every binding was in place. Empty means that access was never wholly given.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9][.][0-9]{6}(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00.000000Z"
	ProvisionedTime *metav1.MicroTime `json:"provisionedTime,omitempty"`

	// bindings are the bindings that give access, as the API server made them.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	Bindings []RecordedBinding `json:"bindings,omitempty"`

	// droppedBindings is how many bindings of a grant that has ended did not fit.
	//
	// +optional
	DroppedBindings int32 `json:"droppedBindings,omitempty"`

	// rules name, for each role, what it allowed when access opened.
	//
	// +optional
	// +listType=map
	// +listMapKey=role
	// +kubebuilder:validation:MaxItems=4
	Rules []RecordedRules `json:"rules,omitempty"`

	// ambientBindings are the bindings that gave every identity of the cluster something when access opened, granted or
	// not: what is left to an engineer after the end is theirs. At most 64 are named.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=512
	AmbientBindings []string `json:"ambientBindings,omitempty"`

	// removedEngineers were taken off before the end.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	RemovedEngineers []RemovedEngineer `json:"removedEngineers,omitempty"`

	// endTime is when access had been taken away, or when it was settled that it will never be given.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9][.][0-9]{6}(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00.000000Z"
	EndTime *metav1.MicroTime `json:"endTime,omitempty"`

	// endReason is how it ended, in one word.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	EndReason string `json:"endReason,omitempty"`

	// endMessage is how it ended, in a sentence.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	EndMessage string `json:"endMessage,omitempty"`

	// endedBy is who or what ended it, never empty once it has ended.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	EndedBy string `json:"endedBy,omitempty"`

	// verifiedTime is when the API server itself said that the identities may do nothing any more.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9][.][0-9]{6}(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00.000000Z"
	VerifiedTime *metav1.MicroTime `json:"verifiedTime,omitempty"`

	// firstUses are when each engineer first came in through the gateway.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	FirstUses []EngineerInstant `json:"firstUses,omitempty"`

	// handedOver are the engineers whose credential was taken out of its Secret, by the operator, because it was handed
	// over. It works on until the grant ends.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	HandedOver []EngineerInstant `json:"handedOver,omitempty"`

	// replacedCredentials are, of each engineer whose credential was replaced, the one that was replaced last. Nobody comes
	// in with it any more.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	ReplacedCredentials []ReplacedCredential `json:"replacedCredentials,omitempty"`

	// setting is, in the record of a setting, how it stood when the operator last saw it. Empty means that there is none.
	//
	// +optional
	Setting *RecordedSwitch `json:"setting,omitempty"`

	// enabledByDefault is, in the record of a setting, that it was switched on by default. That happens once.
	//
	// +optional
	EnabledByDefault *RecordedDefault `json:"enabledByDefault,omitempty"`

	// answer is, in the record of a request, the grant that answers it. Empty means that none does.
	//
	// +optional
	Answer *AnsweringGrant `json:"answer,omitempty"`

	// disconnectedTime is when, after the end, every replica of the gateway had said that nobody is connected any more.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9][.][0-9]{6}(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00.000000Z"
	DisconnectedTime *metav1.MicroTime `json:"disconnectedTime,omitempty"`

	// leftBehind is, after the end, what engineers made or changed and did not delete, and what is to be rotated. Empty means that
	// nobody used the grant, or that it is not known yet.
	//
	// +optional
	LeftBehind *LeftBehind `json:"leftBehind,omitempty"`

	// transitions are what happened, oldest first.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=128
	Transitions []Transition `json:"transitions,omitempty"`

	// droppedTransitions is how many transitions did not fit.
	//
	// +optional
	DroppedTransitions int32 `json:"droppedTransitions,omitempty"`

	// notifications are how far each channel has come with telling what happened: the transitions are the outbox, and this
	// says where in it a channel is.
	//
	// +optional
	// +listType=map
	// +listMapKey=channel
	// +kubebuilder:validation:MaxItems=32
	Notifications []ChannelState `json:"notifications,omitempty"`
}

// RecordedApproval is an approval that counted.
type RecordedApproval struct {
	// by is who approved.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	By string `json:"by"`

	// decision is the name of the decision, and uid its UID.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Decision string `json:"decision"`

	// uid is the decision's UID.
	//
	// +required
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	UID types.UID `json:"uid"`

	// authority is Namespace or Cluster: how far the verb reached that the approver held.
	//
	// +optional
	Authority Authority `json:"authority,omitempty"`

	// time is when the decision was made, by the API server's clock.
	//
	// +required
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00Z"
	Time metav1.Time `json:"time"`

	// reason is why.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Reason string `json:"reason,omitempty"`
}

// RecordedBinding is a binding as the API server made it.
type RecordedBinding struct {
	// namespace is the binding's namespace. Empty means a ClusterRoleBinding.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`

	// name is the binding's name.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// uid is the binding's UID.
	//
	// +required
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	UID types.UID `json:"uid"`

	// role is the ClusterRole that it binds. Empty means that the record is large: the name is made of grant, namespace and one of
	// spec.roles, so it tells which.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Role string `json:"role,omitempty"`

	// withdrawn true means that it was taken away before the end.
	//
	// +optional
	Withdrawn bool `json:"withdrawn,omitempty"`
}

// RecordedRules names the rules of one role.
type RecordedRules struct {
	// role is the ClusterRole.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Role string `json:"role"`

	// digest is the SHA-256 of its rules. The ConfigMap rules- with its first 26 characters, in
	// the operator's namespace, holds them.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Digest string `json:"digest"`
}

// RemovedEngineer is a person who was taken off a grant.
type RemovedEngineer struct {
	// name is the person.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Name string `json:"name"`

	// time is when.
	//
	// +required
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9][.][0-9]{6}(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00.000000Z"
	Time metav1.MicroTime `json:"time"`

	// by is who did it.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	By string `json:"by"`
}

// EngineerInstant is when something happened to one engineer.
type EngineerInstant struct {
	// name is the person.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Name string `json:"name"`

	// time is when.
	//
	// +required
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9][.][0-9]{6}(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00.000000Z"
	Time metav1.MicroTime `json:"time"`
}

// ReplacedCredential is a credential of the transport Gateway in whose place there is another.
type ReplacedCredential struct {
	// name is the person.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Name string `json:"name"`

	// hash is the SHA-256 of the credential that was replaced.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=71
	// +kubebuilder:validation:Pattern=`^sha256:[0-9a-f]{64}$`
	Hash string `json:"hash"`

	// decisionTime is when the decision was made by which it was replaced. An earlier one, or another of the same second, has
	// nothing left to do.
	//
	// +required
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00Z"
	DecisionTime metav1.Time `json:"decisionTime"`
}

// Transition is one thing that happened to a grant.
type Transition struct {
	// time is when it had happened.
	//
	// +required
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9][.][0-9]{6}(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00.000000Z"
	Time metav1.MicroTime `json:"time"`

	// type is what happened, in one word.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Type string `json:"type"`

	// by is who or what did it, never empty.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	By string `json:"by"`

	// message says it in a sentence.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Message string `json:"message,omitempty"`
}

// SupportAccessRecordList is a list of records.
//
// +kubebuilder:object:root=true
type SupportAccessRecordList struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the list's metadata.
	//
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`

	// items are the records.
	Items []SupportAccessRecord `json:"items"`
}
