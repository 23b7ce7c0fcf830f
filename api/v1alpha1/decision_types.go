package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// SupportAccessDecision is a human act on grants: to revoke, to shorten or to hand over again, to approve or to deny, with a reason. It is
// written once and never edited. What it did is said in its condition Applied.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=supportaccessdecisions,shortName=sad,categories={support-access}
// +kubebuilder:printcolumn:name="Action",type=string,JSONPath=`.spec.action`
// +kubebuilder:printcolumn:name="Grant",type=string,JSONPath=`.spec.target.grant`
// +kubebuilder:printcolumn:name="Request",type=string,JSONPath=`.spec.target.request`,priority=1
// +kubebuilder:printcolumn:name="Engineer",type=string,JSONPath=`.spec.target.engineer`
// +kubebuilder:printcolumn:name="By",type=string,JSONPath=`.spec.decidedBy`
// +kubebuilder:printcolumn:name="Applied",type=string,JSONPath=`.status.conditions[?(@.type=="Applied")].reason`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.spec.reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:selectablefield:JSONPath=`.spec.target.grant`
type SupportAccessDecision struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the object's metadata.
	//
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what was decided.
	//
	// +required
	Spec SupportAccessDecisionSpec `json:"spec"`

	// status is what it did. Only the operator writes it.
	//
	// +optional
	// +kubebuilder:default:={"observedGeneration":-1}
	Status SupportAccessDecisionStatus `json:"status,omitempty"`
}

// DecisionAction is what a decision does.
//
// +kubebuilder:validation:Enum=Approve;Deny;Shorten;Revoke;HandOver
type DecisionAction string

const (
	// ActionApprove says yes to a grant that waits for approval.
	ActionApprove DecisionAction = "Approve"
	// ActionDeny says no to a grant or a request that has not opened.
	ActionDeny DecisionAction = "Deny"
	// ActionShorten moves the end of a grant earlier.
	ActionShorten DecisionAction = "Shorten"
	// ActionRevoke ends grants, or takes one engineer off them.
	ActionRevoke DecisionAction = "Revoke"
	// ActionHandOver replaces the credential of one engineer of a grant with the transport Gateway: nobody comes in with the
	// old one any more, and the new one is handed over as the first was.
	ActionHandOver DecisionAction = "HandOver"
)

// TargetAll is the only value of target.namespace and target.cluster.
const TargetAll = "All"

// SupportAccessDecisionSpec is what was decided.
//
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="spec: a decision is never edited: make another one"
// +kubebuilder:validation:XValidation:rule="(self.action == 'Shorten') == has(self.expirationTime)",message="spec.expirationTime: given with action Shorten, and only then"
// +kubebuilder:validation:XValidation:rule="!has(self.target.engineer) || self.action in ['Revoke', 'HandOver']",message="spec.target.engineer: narrows a Revoke to one person, and says whose credential a HandOver replaces; other actions do not take it"
// +kubebuilder:validation:XValidation:rule="self.action != 'Approve' || has(self.target.grant)",message="spec.target: Approve takes grant; a request is answered by a grant whose spec.requestRef names it"
// +kubebuilder:validation:XValidation:rule="self.action != 'Deny' || has(self.target.grant) || has(self.target.request)",message="spec.target: Deny takes grant or request"
// +kubebuilder:validation:XValidation:rule="self.action != 'Shorten' || has(self.target.grant)",message="spec.target: Shorten takes grant"
// +kubebuilder:validation:XValidation:rule="self.action != 'HandOver' || (has(self.target.grant) && has(self.target.engineer))",message="spec.target: HandOver takes grant and engineer"
// +kubebuilder:validation:XValidation:rule="self.action != 'Revoke' || !has(self.target.request)",message="spec.target: Revoke takes grant, namespace or cluster; a request is denied, not revoked"
type SupportAccessDecisionSpec struct {
	// action is Approve, Deny, Shorten, Revoke or HandOver. Approve and Deny need the verb approve on the grant, the others
	// the verb revoke; to deny a request takes either of the two, in the whole namespace.
	//
	// +required
	Action DecisionAction `json:"action"`

	// target is what it acts on.
	//
	// +required
	Target DecisionTarget `json:"target"`

	// expirationTime is the new end, with action Shorten: later than the present end changes nothing.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00Z"
	ExpirationTime *metav1.Time `json:"expirationTime,omitempty"`

	// reason says why. It goes into the record.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Reason string `json:"reason"`

	// decidedBy is the user who decided. Admission writes it; a manifest leaves it out.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	DecidedBy string `json:"decidedBy,omitempty"`

	// authority is Cluster where who decided held the verb that the action takes on every grant of the cluster, and
	// Namespace where on fewer. Admission writes it; a manifest leaves it out.
	//
	// +optional
	Authority Authority `json:"authority,omitempty"`
}

// Authority is how far the verb reached that somebody held who decided.
//
// +kubebuilder:validation:Enum=Namespace;Cluster
type Authority string

const (
	// AuthorityNamespace is the verb in the decision's namespace, or on one grant of it.
	AuthorityNamespace Authority = "Namespace"
	// AuthorityCluster is the verb in the whole cluster.
	AuthorityCluster Authority = "Cluster"
)

// DecisionTarget is what a decision acts on: exactly one of grant, request, namespace and cluster.
//
// +kubebuilder:validation:XValidation:rule="!has(self.uid) || has(self.grant)",message="spec.target.uid: given with grant, and only then"
// +kubebuilder:validation:XValidation:rule="[has(self.grant), has(self.request), has(self.namespace), has(self.cluster)].filter(x, x).size() == 1",message="spec.target: give exactly one of grant, request, namespace and cluster"
type DecisionTarget struct {
	// grant is the name of a grant in the decision's namespace.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Grant string `json:"grant,omitempty"`

	// uid is the UID of the grant that is meant: the decision is about no other of its name. Empty means the grant of that
	// name that was there when the decision was made.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	UID types.UID `json:"uid,omitempty"`

	// request is the name of a request in the decision's namespace: the one of that name that was there when the decision was
	// made.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Request string `json:"request,omitempty"`

	// namespace is All: every grant of the decision's namespace that exists now.
	//
	// +optional
	// +kubebuilder:validation:Enum=All
	Namespace string `json:"namespace,omitempty"`

	// cluster is All: every grant of the cluster that exists now. Only in the operator's own namespace.
	//
	// +optional
	// +kubebuilder:validation:Enum=All
	Cluster string `json:"cluster,omitempty"`

	// engineer narrows a Revoke to one person, and says whose credential a HandOver replaces. Empty means all of them.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Engineer string `json:"engineer,omitempty"`
}

// SupportAccessDecisionStatus is what a decision did.
type SupportAccessDecisionStatus struct {
	// conditions is Applied: True once the records have taken it over; False with NoSuchGrant where there was nothing to
	// act on, and with DoesNotCount where it is an approval that does not count.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:XValidation:rule="self.all(c, c.lastTransitionTime >= timestamp('2000-01-01T00:00:00Z') && c.lastTransitionTime < timestamp('3000-01-01T00:00:00Z'))",message="lastTransitionTime: must be an instant such as 2026-12-01T18:00:00Z"
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// observedGeneration is the generation of the spec that this status speaks of. -1 means that the operator has not yet
	// seen the decision.
	//
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// grants is how many grants it acted on.
	//
	// +optional
	Grants int32 `json:"grants,omitempty"`
}

// SupportAccessDecisionList is a list of decisions.
//
// +kubebuilder:object:root=true
type SupportAccessDecisionList struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the list's metadata.
	//
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`

	// items are the decisions.
	Items []SupportAccessDecision `json:"items"`
}
