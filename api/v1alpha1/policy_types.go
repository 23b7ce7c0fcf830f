package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DefaultPolicyName is the policy of every namespace that does not name another with LabelPolicy.
const DefaultPolicyName = "default"

// SupportAccessPolicy is what a cluster admin allows grants to be. A namespace has one policy: the one that its label
// supportaccess.dev/policy names, else the one called default. Without a policy there are no grants.
//
// Limits are judged when a grant is applied and again when it opens. A grant that is open is closed by a change of
// neverAllow, protectedNamespaces or transports only.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=supportaccesspolicies,scope=Cluster,shortName=sap
// +kubebuilder:printcolumn:name="New-Grants",type=string,JSONPath=`.spec.newGrants`
// +kubebuilder:printcolumn:name="Max-Duration",type=string,JSONPath=`.spec.maxDuration`
// +kubebuilder:printcolumn:name="Transports",type=string,JSONPath=`.spec.transports`
// +kubebuilder:printcolumn:name="Roles",type=string,JSONPath=`.spec.roles`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63 && !self.metadata.name.contains('.')",message="metadata.name: must be a DNS label of at most 63 characters, because a namespace names it in a label"
type SupportAccessPolicy struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the object's metadata. The name default is the policy of every namespace that names no other.
	//
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what grants may be.
	//
	// +required
	Spec SupportAccessPolicySpec `json:"spec"`

	// status is what has become of enabledByDefault. Only the operator writes it.
	//
	// +optional
	Status SupportAccessPolicyStatus `json:"status,omitempty"`
}

// NewGrants says whether new grants may be made and opened.
//
// +kubebuilder:validation:Enum=Allowed;Suspended
type NewGrants string

const (
	// NewGrantsAllowed lets grants be made.
	NewGrantsAllowed NewGrants = "Allowed"
	// NewGrantsSuspended refuses every new grant and opens none that waits. It closes nothing that is open.
	NewGrantsSuspended NewGrants = "Suspended"
)

// ServiceAccountGrants says what a grant made by a ServiceAccount, such as a GitOps pipeline's, must be.
//
// +kubebuilder:validation:Enum=ExpirationTimeOnly;Allow;Deny
type ServiceAccountGrants string

const (
	// ServiceAccountGrantsExpirationTimeOnly takes such grants with expirationTime, not with duration: a cluster rebuilt
	// from Git would start every old duration anew.
	ServiceAccountGrantsExpirationTimeOnly ServiceAccountGrants = "ExpirationTimeOnly"
	// ServiceAccountGrantsAllow takes such grants as it takes a person's.
	ServiceAccountGrantsAllow ServiceAccountGrants = "Allow"
	// ServiceAccountGrantsDeny takes none.
	ServiceAccountGrantsDeny ServiceAccountGrants = "Deny"
)

// ScopeKind is how far a grant may reach.
//
// +kubebuilder:validation:Enum=Namespaces;Cluster
type ScopeKind string

const (
	// ScopeNamespaces is a list of namespaces, the grant's own by default.
	ScopeNamespaces ScopeKind = "Namespaces"
	// ScopeCluster is the whole cluster.
	ScopeCluster ScopeKind = "Cluster"
)

// PublicKeys says of whom a grant must give a public key.
//
// +kubebuilder:validation:Enum=ElevatedRoles;Always;Never
type PublicKeys string

const (
	// PublicKeysElevatedRoles demands a public key of every engineer of a grant with an elevated role.
	PublicKeysElevatedRoles PublicKeys = "ElevatedRoles"
	// PublicKeysAlways demands one of every engineer.
	PublicKeysAlways PublicKeys = "Always"
	// PublicKeysNever demands none.
	PublicKeysNever PublicKeys = "Never"
)

// SupportAccessPolicySpec is what grants may be.
//
// +kubebuilder:validation:XValidation:rule="!has(self.enabledByDefault) || !self.maxEnabled.matches('^([0-9]+[hms])+$') || !self.enabledByDefault.duration.matches('^([0-9]+[hms])+$') || duration(self.enabledByDefault.duration) <= duration(self.maxEnabled)",message="spec.enabledByDefault.duration: must be at most spec.maxEnabled"
// +kubebuilder:validation:XValidation:rule="!has(self.enabledByDefault) || self.enabledByDefault.roles.all(r, self.roles.exists(o, o.name == r && !(has(o.elevated) && o.elevated)))",message="spec.enabledByDefault.roles: each must be among spec.roles, and not elevated"
// +kubebuilder:validation:XValidation:rule="!has(self.enabledByDefault) || !('support-access-flagged' in self.enabledByDefault.roles)",message="spec.enabledByDefault.roles: support-access-flagged is granted for a case, not by a setting"
// +kubebuilder:validation:XValidation:rule="!has(self.enabledByDefault) || !has(self.enabledByDefault.transport) || self.enabledByDefault.transport in self.transports",message="spec.enabledByDefault.transport: must be among spec.transports"
// +kubebuilder:validation:XValidation:rule="!self.maxDuration.matches('^([0-9]+[hms])+$') || !has(self.durations) || self.durations.all(d, !d.matches('^([0-9]+[hms])+$') || duration(d) <= duration(self.maxDuration))",message="spec.durations: each must be at most spec.maxDuration"
// +kubebuilder:validation:XValidation:rule="!self.maxDuration.matches('^([0-9]+[hms])+$') || self.roles.all(r, !has(r.maxDuration) || !r.maxDuration.matches('^([0-9]+[hms])+$') || duration(r.maxDuration) <= duration(self.maxDuration))",message="spec.roles[].maxDuration: must be at most spec.maxDuration"
type SupportAccessPolicySpec struct {
	// newGrants is Allowed or Suspended. The default is Allowed.
	//
	// +optional
	// +kubebuilder:default:=Allowed
	NewGrants NewGrants `json:"newGrants,omitempty"`

	// durations is the menu of durations that a grant may name. Empty means any up to maxDuration.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:XValidation:rule="self.matches('[1-9]')",message="must be longer than zero"
	Durations []Duration `json:"durations,omitempty"`

	// maxDuration is the longest a grant may last, whether it names a duration or an expirationTime. The default is 168h.
	//
	// +optional
	// +kubebuilder:default:="168h"
	// +kubebuilder:validation:XValidation:rule="self.matches('[1-9]')",message="must be longer than zero"
	MaxDuration Duration `json:"maxDuration,omitempty"`

	// maxEnabled is how far ahead a setting's enabledUntil may lie: the limit of the grant of a setting, in place of
	// maxDuration. The default is 720h.
	//
	// +optional
	// +kubebuilder:default:="720h"
	// +kubebuilder:validation:XValidation:rule="self.matches('[1-9]')",message="must be longer than zero"
	MaxEnabled Duration `json:"maxEnabled,omitempty"`

	// maxStartDelay is how far ahead startTime may lie. The default is 168h; 0s means that grants open at once.
	//
	// +optional
	// +kubebuilder:default:="168h"
	MaxStartDelay Duration `json:"maxStartDelay,omitempty"`

	// roles are the ClusterRoles that grants may name.
	//
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Roles []OfferedRole `json:"roles"`

	// scopes is how far grants may reach. The default is Namespaces.
	//
	// +optional
	// +listType=set
	// +kubebuilder:default:={Namespaces}
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=2
	Scopes []ScopeKind `json:"scopes,omitempty"`

	// transports are the transports that grants may use; the first is the default of a grant that names none.
	//
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=2
	Transports []Transport `json:"transports"`

	// casePattern is a regular expression (RE2) that case.id must match; it is not anchored unless it says so. With it a
	// grant must name a case. Empty means that a case is not required, unless a role is elevated.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="''.matches(self) in [true, false]",message="must be a regular expression (RE2)"
	CasePattern string `json:"casePattern,omitempty"`

	// engineerPattern is a regular expression (RE2) that every engineer's name must match; it is not anchored unless it
	// says so. Empty means any name.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="''.matches(self) in [true, false]",message="must be a regular expression (RE2)"
	EngineerPattern string `json:"engineerPattern,omitempty"`

	// approvalTimeout is for how long, from its making, a grant waits for approvals that its roles need. Then it is Denied. The
	// default is 72h.
	//
	// +optional
	// +kubebuilder:default:="72h"
	// +kubebuilder:validation:XValidation:rule="self.matches('[1-9]')",message="must be longer than zero"
	ApprovalTimeout Duration `json:"approvalTimeout,omitempty"`

	// engineerLists are lists of people of the vendor to which settings refer by name (engineerList), so that nobody writes
	// them out in each namespace.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=8
	EngineerLists []EngineerList `json:"engineerLists,omitempty"`

	// requestTimeout is for how long, from its making, a request waits for an answer. Then it is Expired. The default is 72h.
	//
	// +optional
	// +kubebuilder:default:="72h"
	// +kubebuilder:validation:XValidation:rule="self.matches('[1-9]')",message="must be longer than zero"
	RequestTimeout Duration `json:"requestTimeout,omitempty"`

	// maxOpenRequests is how many requests of one requester may be open in a namespace at once. One more is Refused. The
	// default is 5; 0 means that nobody may ask.
	//
	// +optional
	// +kubebuilder:default:=5
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	MaxOpenRequests *int32 `json:"maxOpenRequests,omitempty"`

	// serviceAccountApprovers are the ServiceAccounts whose approvals count, as user names such as
	// system:serviceaccount:NAMESPACE:NAME. Empty means that only people approve.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=340
	// +kubebuilder:validation:items:Pattern=`^system:serviceaccount:[a-z0-9]([-a-z0-9]*[a-z0-9])?:[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	ServiceAccountApprovers []string `json:"serviceAccountApprovers,omitempty"`

	// requirePublicKey is ElevatedRoles, Always or Never: of whom a grant must give a publicKey, so that the credential lies
	// nowhere in plaintext and its holder alone can use it. The default is ElevatedRoles: of every engineer of a grant that
	// names an elevated role.
	//
	// +optional
	// +kubebuilder:default:=ElevatedRoles
	RequirePublicKey PublicKeys `json:"requirePublicKey,omitempty"`

	// serviceAccountGrants is ExpirationTimeOnly, Allow or Deny. The default is ExpirationTimeOnly.
	//
	// +optional
	// +kubebuilder:default:=ExpirationTimeOnly
	ServiceAccountGrants ServiceAccountGrants `json:"serviceAccountGrants,omitempty"`

	// protectedNamespaces are never in the scope of a grant. The operator's own two namespaces never are, whatever this
	// says. The default is kube-system, kube-public and kube-node-lease.
	//
	// +optional
	// +listType=set
	// +kubebuilder:default:={kube-system,kube-public,kube-node-lease}
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	ProtectedNamespaces []string `json:"protectedNamespaces,omitempty"`

	// credentialReaders may fetch credentials besides the granter. Empty means nobody else.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	CredentialReaders []CredentialReader `json:"credentialReaders,omitempty"`

	// sessions bounds what an engineer may have open through the gateway.
	//
	// +optional
	// +kubebuilder:default:={}
	Sessions *SessionLimits `json:"sessions,omitempty"`

	// recording is what is kept, in the audit log, of what goes over the streams of engineers through the gateway.
	//
	// +optional
	// +kubebuilder:default:={}
	Recording *Recording `json:"recording,omitempty"`

	// handoverWindow is how long a credential of the gateway lies in its Secret at most: it is deleted when the engineer
	// first uses it, or when this time is over, and works on until the grant ends. The default is 24h.
	//
	// +optional
	// +kubebuilder:default:="24h"
	// +kubebuilder:validation:XValidation:rule="self.matches('[1-9]')",message="must be longer than zero"
	HandoverWindow Duration `json:"handoverWindow,omitempty"`

	// enabledByDefault switches support access on, once, in each namespace that comes under this policy. Empty means that a
	// namespace is off until somebody switches it on. Whoever writes a policy that has it must hold the verb bind on each of
	// its roles in the whole cluster.
	//
	// +optional
	EnabledByDefault *EnabledByDefault `json:"enabledByDefault,omitempty"`

	// notifications is who is told what happens to grants, and how. Empty means that nobody is.
	//
	// +optional
	Notifications *Notifications `json:"notifications,omitempty"`

	// flaggedContent is which objects of the customer's users a grant with flaggedContent: Allow may read, one by one and by
	// name, through the gateway alone. Empty means none.
	//
	// +optional
	FlaggedContent *FlaggedContent `json:"flaggedContent,omitempty"`

	// neverAllow are rules that no granted role may overlap, on top of those that the operator never allows: a role is
	// refused when it allows anything that a rule names.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	NeverAllow []Rule `json:"neverAllow,omitempty"`
}

// FlaggedContent is which objects may be read because they bear a flag. An object is released only if the very answer in which
// it comes bears it.
type FlaggedContent struct {
	// resources are the kinds of which flagged objects are released. Secrets never are.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Resources []FlaggedResource `json:"resources"`

	// selector is what the labels of an object must say for it to be flagged.
	//
	// +required
	Selector FlagSelector `json:"selector"`
}

// FlaggedResource is a kind of objects.
//
// +kubebuilder:validation:XValidation:rule="self.resource != 'secrets' || (has(self.group) && self.group.size() > 0)",message="spec.flaggedContent.resources: Secrets are never flagged content"
type FlaggedResource struct {
	// group is the API group. Empty means the core one.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$`
	Group string `json:"group,omitempty"`

	// resource is the name of the resource in lower case and plural, without a subresource.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z]([-a-z0-9]*[a-z0-9])?$`
	Resource string `json:"resource"`
}

// FlagSelector says what labels must say: everything in it must hold. It looks for labels that are there and never for such
// that are missing, and only for those of which admission can keep watch: their keys begin supportaccess.dev/flagged.
//
// +kubebuilder:validation:XValidation:rule="has(self.matchLabels) || has(self.matchExpressions)",message="spec.flaggedContent.selector: must name a label"
// +kubebuilder:validation:XValidation:rule="!has(self.matchLabels) || self.matchLabels.all(k, k.startsWith('supportaccess.dev/flagged'))",message="spec.flaggedContent.selector.matchLabels: each key must begin supportaccess.dev/flagged"
type FlagSelector struct {
	// matchLabels are labels that an object must have, each with this value.
	//
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=8
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.size() <= 317 && self[k].size() <= 63)",message="must be labels"
	MatchLabels map[string]string `json:"matchLabels,omitempty"`

	// matchExpressions are labels that an object must have, with one of some values or with any.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	MatchExpressions []FlagRequirement `json:"matchExpressions,omitempty"`
}

// FlagRequirement is what one label must say.
//
// +kubebuilder:validation:XValidation:rule="(self.operator == 'In') == (has(self.values) && self.values.size() > 0)",message="values: In takes at least one, Exists takes none"
type FlagRequirement struct {
	// key is the label's. It begins supportaccess.dev/flagged.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=317
	// +kubebuilder:validation:Pattern=`^supportaccess\.dev/flagged([-A-Za-z0-9_.]*[A-Za-z0-9])?$`
	Key string `json:"key"`

	// operator is In or Exists.
	//
	// +required
	Operator FlagOperator `json:"operator"`

	// values are those of which the label must have one, with In.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	Values []string `json:"values,omitempty"`
}

// FlagOperator is how a label is held against what is asked of it.
//
// +kubebuilder:validation:Enum=In;Exists
type FlagOperator string

const (
	// FlagIn asks for one of some values.
	FlagIn FlagOperator = "In"
	// FlagExists asks for the label, whatever its value.
	FlagExists FlagOperator = "Exists"
)

// Recording is what is kept of what goes over the streams of engineers. What commands in pods print is always kept, to the
// byte.
type Recording struct {
	// input is Never or Always: whether what engineers type into pods is kept, too. It has passwords that no terminal shows. The
	// default is Never.
	//
	// +optional
	// +kubebuilder:default:=Never
	Input RecordedInput `json:"input,omitempty"`

	// maxLogBytes is how many bytes of one reading of a pod's log are kept. Of what follows the number of bytes is, and a hash
	// over all. 0 keeps none. The default is 1048576.
	//
	// +optional
	// +kubebuilder:default:=1048576
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1073741824
	MaxLogBytes *int64 `json:"maxLogBytes,omitempty"`
}

// RecordedInput says whether what engineers type is kept.
//
// +kubebuilder:validation:Enum=Never;Always
type RecordedInput string

const (
	// InputNever keeps nothing of it.
	InputNever RecordedInput = "Never"
	// InputAlways keeps all of it.
	InputAlways RecordedInput = "Always"
)

// EngineerList is a named list of people of the vendor.
type EngineerList struct {
	// name is how settings refer to the list.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name"`

	// engineers are the people, each a named human, never a shared account.
	//
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Engineers []Engineer `json:"engineers"`
}

// EnabledByDefault is the setting that a namespace gets when it comes under a policy, once in its life: a setting that is
// switched off or deleted does not come back by itself.
type EnabledByDefault struct {
	// createdSince is from when on: a namespace that was made at this instant or later gets the setting, an older one does not.
	// Write an earlier instant to have older ones get it, too.
	//
	// +required
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00Z"
	CreatedSince metav1.Time `json:"createdSince"`

	// duration is for how long support access is on, from the moment at which the operator sees the namespace. The default is
	// 720h.
	//
	// +optional
	// +kubebuilder:default:="720h"
	// +kubebuilder:validation:XValidation:rule="self.matches('[1-9]')",message="must be longer than zero"
	Duration Duration `json:"duration,omitempty"`

	// engineers are the people of the vendor who have access while it is on, each a named human, never a shared account.
	//
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Engineers []Engineer `json:"engineers"`

	// roles are names of ClusterRoles that the policy offers and does not call elevated. The default is
	// support-access-configuration and support-access-diagnostics.
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

	// reason is the reason of the setting, and so of its grant. The default is "support access is switched on by default".
	//
	// +optional
	// +kubebuilder:default:="support access is switched on by default"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Reason string `json:"reason,omitempty"`

	// switchedBy is the user who last changed the spec of this policy, and by whom the settings and their grants are. Admission
	// writes it; a manifest leaves it out.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	SwitchedBy string `json:"switchedBy,omitempty"`
}

// SupportAccessPolicyStatus is what has become of a policy's enabledByDefault. A policy without it has none.
type SupportAccessPolicyStatus struct {
	// conditions has EnabledByDefault: True while namespaces that come under the policy are switched on.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:XValidation:rule="self.all(c, c.lastTransitionTime >= timestamp('2000-01-01T00:00:00Z') && c.lastTransitionTime < timestamp('3000-01-01T00:00:00Z'))",message="lastTransitionTime: must be an instant such as 2026-12-01T18:00:00Z"
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// seenGeneration is the generation of the spec that the operator has last seen.
	//
	// +optional
	SeenGeneration int64 `json:"seenGeneration,omitempty"`

	// provenGeneration is the latest generation of the spec that is known to have been written while the admission policies
	// were in force, so that switchedBy is proven. By another nothing is switched on.
	//
	// +optional
	ProvenGeneration int64 `json:"provenGeneration,omitempty"`

	// guardedSince is since when the admission policies had been in force without a break when seenGeneration was seen.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00Z"
	GuardedSince *metav1.Time `json:"guardedSince,omitempty"`
}

// SessionLimits bounds what an engineer may have open through the gateway.
type SessionLimits struct {
	// idleTimeout is for how long a connection may carry nothing in either direction before it is closed. The default is 1h.
	//
	// +optional
	// +kubebuilder:default:="1h"
	// +kubebuilder:validation:XValidation:rule="self.matches('[1-9]')",message="must be longer than zero"
	IdleTimeout Duration `json:"idleTimeout,omitempty"`

	// maxConnections is how many connections one engineer may have open at once with one grant, at each replica of the
	// gateway. The default is 32.
	//
	// +optional
	// +kubebuilder:default:=32
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1024
	MaxConnections int32 `json:"maxConnections,omitempty"`

	// maxStreamBytes is how many bytes one stream into a pod may carry in each direction before it is closed: what can be
	// read can be copied, and this is how much at once. The default is 16777216, 16 MiB.
	//
	// +optional
	// +kubebuilder:default:=16777216
	// +kubebuilder:validation:Minimum=1024
	MaxStreamBytes int64 `json:"maxStreamBytes,omitempty"`
}

// OfferedRole is a ClusterRole that grants may name.
type OfferedRole struct {
	// name is the ClusterRole's name.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9]([A-Za-z0-9.:_-]*[A-Za-z0-9])?$`
	Name string `json:"name"`

	// elevated true means that the role reaches content or changes things, and is given for a case only, after an
	// approval unless approvals says otherwise, and to engineers with a public key unless requirePublicKey does.
	//
	// +optional
	Elevated bool `json:"elevated,omitempty"`

	// maxDuration is the longest that a grant with this role may last. Empty means the policy's maxDuration.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="self.matches('[1-9]')",message="must be longer than zero"
	MaxDuration Duration `json:"maxDuration,omitempty"`

	// approvals is how many people besides the granter must approve a grant with this role before it opens. The default is 1
	// for an elevated role and 0 for another. The grant of a ServiceAccount with an elevated role needs one more, a person's.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=8
	Approvals *int32 `json:"approvals,omitempty"`
}

// CredentialReader is an RBAC subject that may fetch credentials.
//
// +kubebuilder:validation:XValidation:rule="(self.kind == 'ServiceAccount') == has(self.namespace)",message="namespace: given with kind ServiceAccount, and only then"
type CredentialReader struct {
	// kind is User, Group or ServiceAccount.
	//
	// +required
	// +kubebuilder:validation:Enum=User;Group;ServiceAccount
	Kind string `json:"kind"`

	// name is the subject's name.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Name string `json:"name"`

	// namespace is the ServiceAccount's namespace.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`
}

// Rule names requests as an RBAC rule does. An asterisk in any list means all. Empty resourceNames means any name.
//
// +kubebuilder:validation:XValidation:rule="has(self.nonResourceURLs) != has(self.resources)",message="give exactly one of resources and nonResourceURLs"
// +kubebuilder:validation:XValidation:rule="has(self.resources) == has(self.apiGroups)",message="apiGroups: given with resources, and only then; the core group is the empty string"
type Rule struct {
	// verbs are verbs, such as get, or the asterisk.
	//
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	Verbs []string `json:"verbs"`

	// apiGroups are API groups; the core group is the empty string.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=253
	APIGroups []string `json:"apiGroups,omitempty"`

	// resources are resources or subresources, such as pods/exec or */scale.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	Resources []string `json:"resources,omitempty"`

	// resourceNames are names of objects. Empty means all of them.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	ResourceNames []string `json:"resourceNames,omitempty"`

	// nonResourceURLs are paths, such as /metrics or /debug/*.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	NonResourceURLs []string `json:"nonResourceURLs,omitempty"`
}

// SupportAccessPolicyList is a list of policies.
//
// +kubebuilder:object:root=true
type SupportAccessPolicyList struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the list's metadata.
	//
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`

	// items are the policies.
	Items []SupportAccessPolicy `json:"items"`
}
