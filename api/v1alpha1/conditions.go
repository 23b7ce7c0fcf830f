package v1alpha1

// Condition types of a grant, a decision, a setting and a request.
const (
	// ConditionReady is True when the cluster is as the grant demands now. Its reason is the grant's state.
	ConditionReady = "Ready"
	// ConditionActive is True while access exists.
	ConditionActive = "Active"
	// ConditionApproved is True when nobody need say yes any more.
	ConditionApproved = "Approved"
	// ConditionProvisioned is True when the identities, credentials and bindings are in place.
	ConditionProvisioned = "Provisioned"
	// ConditionVerified is True when, after the end, the API server said that the identities may do nothing any more.
	ConditionVerified = "Verified"
	// ConditionRecorded is True when every request of an engineer is recorded before it is let through.
	ConditionRecorded = "Recorded"
	// ConditionDisconnectable is True when the end of the grant ends what is connected, and not only new requests.
	ConditionDisconnectable = "Disconnectable"
	// ConditionDisconnected is True when every replica of the gateway has said, after the end, that nobody is connected.
	ConditionDisconnected = "Disconnected"
	// ConditionNotified is True when those were told who are to be told.
	ConditionNotified = "Notified"
	// ConditionStalled is True, and present, while a person must mend something or choose another name.
	ConditionStalled = "Stalled"
	// ConditionReconciling is True, and present, while the operator is at work.
	ConditionReconciling = "Reconciling"
	// ConditionApplied is True when a decision has been taken over by the records.
	ConditionApplied = "Applied"
	// ConditionGranted is True when a grant answers a request.
	ConditionGranted = "Granted"
	// ConditionEnabledByDefault is True while namespaces that come under a policy are switched on.
	ConditionEnabledByDefault = "EnabledByDefault"
)

// The states of a grant: the reasons of its condition Ready.
const (
	StateScheduled           = "Scheduled"
	StateAwaitingApproval    = "AwaitingApproval"
	StateAdmissionNotInForce = "AdmissionNotInForce"
	StateOpening             = "Opening"
	StateActive              = "Active"
	StateClosing             = "Closing"
	StateExpired             = "Expired"
	StateRevoked             = "Revoked"
	StateDenied              = "Denied"
	StateRefused             = "Refused"
	StateFailed              = "Failed"
)

// How a grant ended: the values of endReason. Each belongs to one of the states Expired, Revoked, Denied and Refused.
const (
	EndExpired           = "Expired"
	EndRevoked           = "Revoked"
	EndEmergencyStop     = "EmergencyStop"
	EndDeleted           = "Deleted"
	EndNameUsed          = "NameUsed"
	EndBindingsWithdrawn = "BindingsWithdrawn"
	EndRoleWidened       = "RoleWidened"
	EndRoleDeleted       = "RoleDeleted"
	EndPolicyForbids     = "PolicyForbids"
	EndNamespaceDeleted  = "NamespaceDeleted"
	EndEngineersRemoved  = "EngineersRemoved"
	EndDenied            = "Denied"
	EndNotApproved       = "NotApproved"
	EndRefused           = "Refused"
	EndSwitchedOff       = "SwitchedOff"
	EndSettingDeleted    = "SettingDeleted"
	EndReplaced          = "Replaced"
)

// Types of transitions in a record, besides the ends above.
const (
	TransitionGranted            = "Granted"
	TransitionAwaitingApproval   = "AwaitingApproval"
	TransitionApproved           = "Approved"
	TransitionOpened             = "Opened"
	TransitionShortened          = "Shortened"
	TransitionEngineerRemoved    = "EngineerRemoved"
	TransitionBindingWithdrawn   = "BindingWithdrawn"
	TransitionRoleChanged        = "RoleChanged"
	TransitionVerified           = "Verified"
	TransitionFirstUsed          = "FirstUsed"
	TransitionHandedOver         = "HandedOver"
	TransitionCredentialReplaced = "CredentialReplaced"
	TransitionDisconnected       = "Disconnected"
	TransitionClosingFailed      = "ClosingFailed"
)

// Types of transitions in the record of a setting, besides SwitchedOff, Expired and SettingDeleted.
const (
	TransitionSwitchedOn       = "SwitchedOn"
	TransitionSettingChanged   = "SettingChanged"
	TransitionEnabledByDefault = "EnabledByDefault"
)

// Types of transitions in the record of a request. How it ended is Granted, Denied, Expired, Refused or Withdrawn.
const (
	TransitionRequested     = "Requested"
	TransitionAnswerRefused = "AnswerRefused"
	EndGranted              = "Granted"
	EndWithdrawn            = "Withdrawn"
)

// Reasons of the conditions that are not states.
const (
	ReasonNotRequired   = "NotRequired"
	ReasonApproved      = "Approved"
	ReasonNotApproved   = "NotApproved"
	ReasonDoesNotCount  = "DoesNotCount"
	ReasonProvisioned   = "Provisioned"
	ReasonNotYet        = "NotYet"
	ReasonTakenAway     = "TakenAway"
	ReasonError         = "Error"
	ReasonNameTaken     = "NameTaken"
	ReasonMissing       = "Missing"
	ReasonNoAccess      = "NoAccess"
	ReasonAccessRemains = "AccessRemains"
	ReasonCouldNotAsk   = "CouldNotAsk"
	ReasonLatched       = "Latched"
	ReasonNoSuchGrant   = "NoSuchGrant"
	ReasonNoSuchRequest = "NoSuchRequest"
	ReasonNothingToDo   = "NothingToDo"
	ReasonAlreadyEnded  = "AlreadyEnded"
	ReasonGateway       = "Gateway"
	ReasonDirect        = "Direct"
	ReasonNobody        = "Nobody"
	ReasonNotConfirmed  = "NotConfirmed"
	ReasonNoGateway     = "NoGateway"
	ReasonDelivered     = "Delivered"
	ReasonNotDelivered  = "NotDelivered"
	ReasonDeadLetter    = "DeadLetter"
	ReasonNoChannel     = "NoChannel"
)

// Reasons of events about audit logs.
const (
	// ReasonCheckpointRefused is that what an audit log says of itself does not follow from what it said before.
	ReasonCheckpointRefused = "CheckpointRefused"
	// ReasonAuditLogBegan is that an audit log is there that was not known.
	ReasonAuditLogBegan = "AuditLogBegan"
)
