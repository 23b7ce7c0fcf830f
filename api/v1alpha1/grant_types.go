package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// SupportAccessGrant gives named engineers of the vendor access to namespaces, for a limited time, because of a case.
//
// Its spec cannot be edited: to give more, make another grant; to give less, make a SupportAccessDecision; to take all
// of it away at once, delete the grant. A name is used once in a namespace: a grant that is made again under a used
// name opens nothing.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=supportaccessgrants,shortName=sag,categories={support-access}
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Engineers",type=string,JSONPath=`.status.engineerNames`
// +kubebuilder:printcolumn:name="Roles",type=string,JSONPath=`.spec.roles`,priority=1
// +kubebuilder:printcolumn:name="Expires",type=string,JSONPath=`.status.expirationTime`
// +kubebuilder:printcolumn:name="Case",type=string,JSONPath=`.spec.case.id`
// +kubebuilder:printcolumn:name="Granted-By",type=string,JSONPath=`.spec.grantedBy`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:selectablefield:JSONPath=`.spec.case.id`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63 && !self.metadata.name.contains('.')",message="metadata.name: must be a DNS label: at most 63 lower-case letters, digits and hyphens, no dots"
type SupportAccessGrant struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the object's metadata. The name is a DNS label of at most 63 characters.
	//
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is granted.
	//
	// +required
	Spec SupportAccessGrantSpec `json:"spec"`

	// status is what has become of it. Only the operator writes it.
	//
	// +optional
	// +kubebuilder:default:={"observedGeneration":-1}
	Status SupportAccessGrantStatus `json:"status,omitempty"`
}

// SupportAccessGrantSpec is what is granted. Everything but reason and case.url is fixed once it is applied: one rule
// at this level, because a rule below an optional field can be evaded by unsetting that field first.
//
// +kubebuilder:validation:XValidation:rule="self.engineers == oldSelf.engineers && self.roles == oldSelf.roles && has(self.scope) == has(oldSelf.scope) && (!has(self.scope) || (has(self.scope.namespaces) == has(oldSelf.scope.namespaces) && (!has(self.scope.namespaces) || self.scope.namespaces == oldSelf.scope.namespaces))) && has(self.duration) == has(oldSelf.duration) && (!has(self.duration) || self.duration == oldSelf.duration) && has(self.expirationTime) == has(oldSelf.expirationTime) && (!has(self.expirationTime) || self.expirationTime == oldSelf.expirationTime) && has(self.startTime) == has(oldSelf.startTime) && (!has(self.startTime) || self.startTime == oldSelf.startTime) && has(self.transport) == has(oldSelf.transport) && (!has(self.transport) || self.transport == oldSelf.transport) && has(self.grantedBy) == has(oldSelf.grantedBy) && (!has(self.grantedBy) || self.grantedBy == oldSelf.grantedBy) && has(self.case) == has(oldSelf.case) && (!has(self.case) || self.case.id == oldSelf.case.id) && has(self.settingRef) == has(oldSelf.settingRef) && (!has(self.settingRef) || self.settingRef == oldSelf.settingRef) && has(self.requestRef) == has(oldSelf.requestRef) && (!has(self.requestRef) || self.requestRef == oldSelf.requestRef) && has(self.flaggedContent) == has(oldSelf.flaggedContent) && (!has(self.flaggedContent) || self.flaggedContent == oldSelf.flaggedContent)",message="spec: a grant is never edited (only reason and case.url may be corrected): shorten it or take off an engineer with a SupportAccessDecision, give more with another grant, end it by deleting it"
// +kubebuilder:validation:XValidation:rule="has(self.duration) != has(self.expirationTime)",message="spec: give exactly one of duration and expirationTime"
// +kubebuilder:validation:XValidation:rule="!has(self.startTime) || !has(self.expirationTime) || self.startTime < self.expirationTime",message="spec.startTime: must be before spec.expirationTime"
// +kubebuilder:validation:XValidation:rule="!has(self.settingRef) || (has(self.expirationTime) && !has(self.startTime) && !has(self.scope) && !has(self.case) && !has(self.requestRef))",message="spec.settingRef: the grant of a setting has an expirationTime, and no startTime, scope, case or requestRef"
// +kubebuilder:validation:XValidation:rule="has(self.flaggedContent) == (has(self.roles) && 'support-access-flagged' in self.roles)",message="spec.flaggedContent: Allow and the role support-access-flagged go together: give both or neither"
// +kubebuilder:validation:XValidation:rule="!has(self.flaggedContent) || !has(self.scope) || has(self.scope.namespaces)",message="spec.scope: name the namespaces: flaggedContent is for what their policies say, not for the cluster"
// +kubebuilder:validation:XValidation:rule="!has(self.flaggedContent) || !has(self.transport) || self.transport == 'Gateway'",message="spec.transport: Direct is not for flaggedContent: the gateway alone sees whether an object is flagged"
type SupportAccessGrantSpec struct {
	// case is the support case because of which access is given. Empty means none; a policy may require one, and elevated
	// roles always do.
	//
	// +optional
	Case *Case `json:"case,omitempty"`

	// reason says to the other admins, and to whoever reads the record later, why access is given. It may be corrected
	// later.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Reason string `json:"reason"`

	// engineers are the people of the vendor who are given access, each a named human, never a shared account.
	//
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Engineers []Engineer `json:"engineers"`

	// roles are names of ClusterRoles that the policy offers. The default is support-access-configuration and
	// support-access-diagnostics: read-only, no customer content. Whoever grants a role must hold the verb bind on it.
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

	// flaggedContent is Allow or left out. With Allow, and with the role support-access-flagged among roles, engineers may read
	// objects of the customer's users that bear a flag, as the policy's flaggedContent says: one by one, by name, through the
	// gateway alone.
	//
	// +optional
	FlaggedContent FlaggedContentAccess `json:"flaggedContent,omitempty"`

	// scope is where the roles hold. Empty means the grant's own namespace.
	//
	// +optional
	Scope *Scope `json:"scope,omitempty"`

	// duration is how long access lasts from its opening, such as 24h: hours, minutes and seconds, no days. Exactly one of
	// duration and expirationTime is given.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="self.matches('[1-9]')",message="must be longer than zero"
	Duration Duration `json:"duration,omitempty"`

	// expirationTime is the instant at which access ends, such as 2026-12-01T18:00:00Z. One that has passed is accepted
	// and the grant is Expired from the start. Exactly one of duration and expirationTime is given; a pipeline must give
	// this one, because what it applies again must not start anew.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00Z"
	ExpirationTime *metav1.Time `json:"expirationTime,omitempty"`

	// startTime is the instant at which access opens, at most the policy's maxStartDelay ahead. Empty, or an instant that
	// has passed, means at once.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00Z"
	StartTime *metav1.Time `json:"startTime,omitempty"`

	// transport is Gateway or Direct. Empty means the first that the policy lists; status.transport says which it became.
	//
	// +optional
	Transport Transport `json:"transport,omitempty"`

	// grantedBy is the user who made the grant. Admission writes it; a manifest leaves it out, and one that gives another
	// user than the one who applies it is refused.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	GrantedBy string `json:"grantedBy,omitempty"`

	// settingRef is the setting because of which the operator made this grant. The operator alone makes such grants, and
	// grantedBy is then who switched the setting on. The grant is over as soon as the setting is off, gone or another.
	//
	// +optional
	SettingRef *SettingReference `json:"settingRef,omitempty"`

	// requestRef is the request that this grant answers. What the grant leaves out of case, reason, engineers, scope and the
	// end comes from the request; roles have a default of their own. It gives at most what was asked for, and opens only if no
	// other grant answers the request.
	//
	// +optional
	RequestRef *RequestReference `json:"requestRef,omitempty"`
}

// FlaggedContentAccess says whether flagged content may be read.
//
// +kubebuilder:validation:Enum=Allow
type FlaggedContentAccess string

// FlaggedContentAllow lets it be read.
const FlaggedContentAllow FlaggedContentAccess = "Allow"

// FlaggedRole is the ClusterRole that says which kinds may be read while they bear a flag. Whatever it allows is let through
// by the gateway on that condition alone.
const FlaggedRole = "support-access-flagged"

// LabelFlagged is the label of flagged content, and how the keys of all its labels begin.
const LabelFlagged = "supportaccess.dev/flagged"

// Engineer is one person of the vendor.
type Engineer struct {
	// name is the person's name at the vendor, usually an e-mail address in lower case.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[a-z0-9][a-z0-9._+-]*(@[a-z0-9.-]+)?$`
	Name string `json:"name"`

	// publicKey is an age recipient (age1…) or an ssh-ed25519 public key of this person. With it the credential is handed
	// over encrypted, in status.engineers[].encryptedKubeconfig, and lies nowhere in plaintext. Empty means that it lies
	// in a Secret which the granter may read.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:Pattern=`^(age1[a-z0-9]+|ssh-ed25519 [A-Za-z0-9+/]+=*( [!-~]+)?)$`
	PublicKey string `json:"publicKey,omitempty"`
}

// Scope is where a grant's roles hold: a list of namespaces, or the whole cluster.
//
// +kubebuilder:validation:XValidation:rule="has(self.namespaces) != (has(self.cluster) && self.cluster)",message="spec.scope: give exactly one of namespaces and cluster: true"
type Scope struct {
	// namespaces are the namespaces in which the roles hold, at most 64. The grant's own is among them only if it is named.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:items:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Namespaces []string `json:"namespaces,omitempty"`

	// cluster true means every namespace and what has none. A policy must offer it.
	//
	// +optional
	Cluster bool `json:"cluster,omitempty"`
}

// SupportAccessGrantStatus is what has become of a grant: facts, each written once (expirationTime may move earlier),
// and conditions. Nothing in it gives access.
type SupportAccessGrantStatus struct {
	// conditions are Ready, Active, Approved, Provisioned and Verified, and Stalled or Reconciling while they are true. Ready means
	// that the cluster is as this grant demands now; its reason is the grant's state. Active means that access exists now.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(c, c.lastTransitionTime >= timestamp('2000-01-01T00:00:00Z') && c.lastTransitionTime < timestamp('3000-01-01T00:00:00Z'))",message="lastTransitionTime: must be an instant such as 2026-12-01T18:00:00Z"
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// observedGeneration is the generation of the spec that this status speaks of. -1 means that the operator has not yet
	// seen the grant.
	//
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// transport is the transport in force, resolved from the spec and the policy.
	//
	// +optional
	Transport Transport `json:"transport,omitempty"`

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

	// endTime is when access had been taken away. A grant that has it never opens again.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00Z"
	EndTime *metav1.Time `json:"endTime,omitempty"`

	// endReason is why it ended: a reason of the condition Ready or of the record's last transition.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	EndReason string `json:"endReason,omitempty"`

	// endedBy is who or what ended it.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	EndedBy string `json:"endedBy,omitempty"`

	// engineerNames are the engineers of the spec in one line, for kubectl get: of a list it would show the first alone. More
	// than three are counted.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=512
	EngineerNames string `json:"engineerNames,omitempty"`

	// engineers are the people and where each finds the credential.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	Engineers []EngineerStatus `json:"engineers,omitempty"`
}

// EngineerStatus is one person's credential: where it is, never what it is.
type EngineerStatus struct {
	// name is the person, as in the spec.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Name string `json:"name"`

	// username is who the API server takes this person for.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Username string `json:"username,omitempty"`

	// credentialSecretRef is the Secret in which the kubeconfig lies. Empty where it is handed over encrypted.
	//
	// +optional
	CredentialSecretRef *SecretKeyReference `json:"credentialSecretRef,omitempty"`

	// credentialExpirationTime is when the credential dies of itself. The operator renews it before then, never past the
	// end of the grant.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00Z"
	CredentialExpirationTime *metav1.Time `json:"credentialExpirationTime,omitempty"`

	// credentialHash is the SHA-256 of the credential, with the transport Gateway: what the gateway compares. The credential
	// itself cannot be had from it.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=71
	// +kubebuilder:validation:Pattern=`^sha256:[0-9a-f]{64}$`
	CredentialHash string `json:"credentialHash,omitempty"`

	// sessions is how many connections this person has open through the gateway, as the gateway last said.
	//
	// +optional
	Sessions int32 `json:"sessions,omitempty"`

	// lastSeenTime is when this person last used the grant through the gateway. Empty means never.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00Z"
	LastSeenTime *metav1.Time `json:"lastSeenTime,omitempty"`

	// encryptedKubeconfig is the kubeconfig, encrypted to the person's publicKey: an armored age file.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=65536
	EncryptedKubeconfig string `json:"encryptedKubeconfig,omitempty"`
}

// SecretKeyReference names one key of a Secret.
type SecretKeyReference struct {
	// namespace is the Secret's namespace.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`

	// name is the Secret's name.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// key is the key in its data.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key"`
}

// SupportAccessGrantList is a list of grants.
//
// +kubebuilder:object:root=true
type SupportAccessGrantList struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the list's metadata.
	//
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`

	// items are the grants.
	Items []SupportAccessGrant `json:"items"`
}
