package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// NotificationsSecret is the one Secret, in SystemNamespace, in which everything lies that a channel keeps secret. A policy
// names its keys: there is no other Secret that a policy could have the operator read.
const NotificationsSecret = "support-access-notifications"

// AnnotationNotify on a namespace names mail addresses, separated by commas, that are told besides the policy's admins.
const AnnotationNotify = "supportaccess.dev/notify"

// Delivery says whether a grant may open where nobody would be told.
//
// +kubebuilder:validation:Enum=Optional;Required
type Delivery string

const (
	// DeliveryOptional lets grants open where no channel tells anybody.
	DeliveryOptional Delivery = "Optional"
	// DeliveryRequired opens no grant of which no channel would tell, and none before the notice is on record.
	DeliveryRequired Delivery = "Required"
)

// NotificationEvent is something of which people are told.
//
// +kubebuilder:validation:Enum=Granted;ApprovalNeeded;Approved;Opened;OpenedElevated;OpenedDirect;FirstUsed;ExpiringSoon;Shortened;Revoked;Expired;Denied;SwitchedOn;SwitchedOff;SwitchedOffByItself;Requested;RequestDenied;RequestExpired;EmergencyStop;ClosingFailed
type NotificationEvent string

const (
	// EventGranted is that somebody made a grant.
	EventGranted NotificationEvent = "Granted"
	// EventApprovalNeeded is that a grant waits until somebody approves it.
	EventApprovalNeeded NotificationEvent = "ApprovalNeeded"
	// EventApproved is that somebody approved a grant.
	EventApproved NotificationEvent = "Approved"
	// EventOpened is that a grant opened.
	EventOpened NotificationEvent = "Opened"
	// EventOpenedElevated is that a grant with an elevated role opened.
	EventOpenedElevated NotificationEvent = "OpenedElevated"
	// EventOpenedDirect is that a grant opened whose requests do not go through the gateway.
	EventOpenedDirect NotificationEvent = "OpenedDirect"
	// EventFirstUsed is that an engineer came in for the first time.
	EventFirstUsed NotificationEvent = "FirstUsed"
	// EventExpiringSoon is that an open grant will end soon by itself.
	EventExpiringSoon NotificationEvent = "ExpiringSoon"
	// EventShortened is that a grant was made to end earlier, or that people or places were taken out of it.
	EventShortened NotificationEvent = "Shortened"
	// EventRevoked is that a grant was ended, by a person or by what a policy or a role has become.
	EventRevoked NotificationEvent = "Revoked"
	// EventExpired is that the time of a grant was over.
	EventExpired NotificationEvent = "Expired"
	// EventDenied is that a person or the policy said no, or that nobody approved in time.
	EventDenied NotificationEvent = "Denied"
	// EventSwitchedOn is that somebody switched support access on for a namespace, or changed how.
	EventSwitchedOn NotificationEvent = "SwitchedOn"
	// EventSwitchedOff is that somebody switched it off.
	EventSwitchedOff NotificationEvent = "SwitchedOff"
	// EventSwitchedOffByItself is that the time was over for which it was switched on.
	EventSwitchedOffByItself NotificationEvent = "SwitchedOffByItself"
	// EventRequested is that somebody asks for access.
	EventRequested NotificationEvent = "Requested"
	// EventRequestDenied is that a person said no to a request.
	EventRequestDenied NotificationEvent = "RequestDenied"
	// EventRequestExpired is that nobody answered a request in time.
	EventRequestExpired NotificationEvent = "RequestExpired"
	// EventEmergencyStop is that a grant was ended by a decision about every grant of the cluster.
	EventEmergencyStop NotificationEvent = "EmergencyStop"
	// EventClosingFailed is that a grant has ended and its access cannot be taken away: somebody must mend what is in the way.
	EventClosingFailed NotificationEvent = "ClosingFailed"
)

// Notifications is who is told what happens to grants, and how.
//
// +kubebuilder:validation:XValidation:rule="!has(self.channels) || !self.channels.exists(c, has(c.email)) || (has(self.admins) && self.admins.size() > 0)",message="spec.notifications.admins: a channel email needs somebody to write to"
// +kubebuilder:validation:XValidation:rule="!has(self.channels) || self.channels.filter(c, has(c.email)).size() <= 1",message="spec.notifications.channels: at most one may be email, so that each admin is written to once"
type Notifications struct {
	// delivery is Optional or Required. Required opens no grant of which no channel would tell, and none before the notice
	// is on record. The default is Optional.
	//
	// +optional
	// +kubebuilder:default:=Optional
	Delivery Delivery `json:"delivery,omitempty"`

	// admins are the mail addresses of the admins: of people, or of a list that reaches a group of them. A namespace adds
	// others with the annotation supportaccess.dev/notify; it takes none away.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=254
	// +kubebuilder:validation:items:Pattern=`^[A-Za-z0-9.!#$%&'*+/=?^_{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`
	Admins []string `json:"admins,omitempty"`

	// expiringSoon is how long before the end of a grant ExpiringSoon is told. A grant that opens later than that is not
	// announced so. The default is 1h.
	//
	// +optional
	// +kubebuilder:default:="1h"
	ExpiringSoon Duration `json:"expiringSoon,omitempty"`

	// channels are the ways by which people are told. Empty means that nobody is.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=8
	Channels []NotificationChannel `json:"channels,omitempty"`
}

// NotificationChannel is one way by which people are told.
//
// +kubebuilder:validation:XValidation:rule="[has(self.email), has(self.slack), has(self.webhook)].filter(x, x).size() == 1",message="give exactly one of email, slack and webhook"
type NotificationChannel struct {
	// name is what records, metrics and events call the channel.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`
	Name string `json:"name"`

	// events are those that this channel tells of. Empty means every act of a person, what opens elevated or past the
	// gateway, first uses and ends; not Opened, which follows Granted, nor SwitchedOffByItself.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=13
	Events []NotificationEvent `json:"events,omitempty"`

	// email writes to each admin.
	//
	// +optional
	Email *EmailChannel `json:"email,omitempty"`

	// slack posts to an incoming webhook of Slack, or of what understands the same.
	//
	// +optional
	Slack *SlackChannel `json:"slack,omitempty"`

	// webhook posts CloudEvents, signed as Standard Webhooks are.
	//
	// +optional
	Webhook *WebhookChannel `json:"webhook,omitempty"`

	// caBundle is the PEM bundle by which the other side is known. Empty means the system's.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=16384
	CABundle string `json:"caBundle,omitempty"`
}

// MailTLS says how the connection to a mail server is made private.
//
// +kubebuilder:validation:Enum=StartTLS;Implicit;None
type MailTLS string

const (
	// MailTLSStart begins in the clear and goes on only once TLS is up.
	MailTLSStart MailTLS = "StartTLS"
	// MailTLSImplicit is TLS from the first byte.
	MailTLSImplicit MailTLS = "Implicit"
	// MailTLSNone is no TLS. The operator refuses it unless it is told with --notify-plaintext that it may.
	MailTLSNone MailTLS = "None"
)

// EmailChannel is a mail server.
//
// +kubebuilder:validation:XValidation:rule="has(self.username) == has(self.passwordKey)",message="give username and passwordKey, or neither"
type EmailChannel struct {
	// server is the mail server's host and port, such as smtp.example.com:587.
	//
	// +required
	// +kubebuilder:validation:MinLength=3
	// +kubebuilder:validation:MaxLength=262
	// +kubebuilder:validation:Pattern=`^([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$`
	Server string `json:"server"`

	// tls is StartTLS, Implicit or None. The default is StartTLS.
	//
	// +optional
	// +kubebuilder:default:=StartTLS
	TLS MailTLS `json:"tls,omitempty"`

	// from is the sender's address.
	//
	// +required
	// +kubebuilder:validation:MinLength=3
	// +kubebuilder:validation:MaxLength=254
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9.!#$%&'*+/=?^_{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`
	From string `json:"from"`

	// username is who the operator is at the mail server. Empty means that it does not log in.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=254
	Username string `json:"username,omitempty"`

	// passwordKey is the key in the Secret support-access-notifications under which the password lies.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[-._a-zA-Z0-9]+$`
	PasswordKey string `json:"passwordKey,omitempty"`
}

// SlackChannel is an incoming webhook.
type SlackChannel struct {
	// urlKey is the key in the Secret support-access-notifications under which the webhook's URL lies: whoever knows it may
	// post.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[-._a-zA-Z0-9]+$`
	URLKey string `json:"urlKey"`
}

// WebhookChannel is a receiver of CloudEvents.
type WebhookChannel struct {
	// url is where the receiver listens: https, and http only if the operator is told with --notify-plaintext that it may.
	//
	// +required
	// +kubebuilder:validation:MinLength=8
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^https?://[^\s/?#@\\]+(/[!-~]*)?$`
	URL string `json:"url"`

	// signingKey is the key in the Secret support-access-notifications under which the signing secret lies, whsec_ and
	// Base64. While it is replaced, give both, separated by a space.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[-._a-zA-Z0-9]+$`
	SigningKey string `json:"signingKey"`
}

// ChannelState is how far one channel has come with the transitions of a record. What it still owes are the transitions
// after the settled one.
type ChannelState struct {
	// channel is the policy's name, a dot and the channel's.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Channel string `json:"channel"`

	// settledID is the id of the last notice that was delivered or given up. Empty means none.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	SettledID string `json:"settledID,omitempty"`

	// settledTime is when that happened of which it told.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9][.][0-9]{6}(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00.000000Z"
	SettledTime *metav1.MicroTime `json:"settledTime,omitempty"`

	// delivered is how many notices were delivered.
	//
	// +optional
	Delivered int32 `json:"delivered,omitempty"`

	// attempts is how often the next notice was tried in vain.
	//
	// +optional
	Attempts int32 `json:"attempts,omitempty"`

	// firstAttemptTime is when that was first tried.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00Z"
	FirstAttemptTime *metav1.Time `json:"firstAttemptTime,omitempty"`

	// nextAttemptTime is when it is tried again.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00Z"
	NextAttemptTime *metav1.Time `json:"nextAttemptTime,omitempty"`

	// lastError is why it was in vain, without anything secret.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	LastError string `json:"lastError,omitempty"`

	// told are those who need not be written to again about the next notice, as short digests of their addresses.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=128
	// +kubebuilder:validation:items:MaxLength=16
	Told []string `json:"told,omitempty"`

	// deadLetters are notices that were given up, the latest last. At most 4 are named.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=4
	DeadLetters []DeadLetter `json:"deadLetters,omitempty"`

	// droppedDeadLetters is how many more there were.
	//
	// +optional
	DroppedDeadLetters int32 `json:"droppedDeadLetters,omitempty"`
}

// DeadLetter is a notice that was given up.
type DeadLetter struct {
	// id is the notice's id.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	ID string `json:"id"`

	// event is of what it would have told.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Event string `json:"event"`

	// time is when it was given up.
	//
	// +required
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",message="must be an instant such as 2026-12-01T18:00:00Z"
	Time metav1.Time `json:"time"`

	// error is why, without anything secret.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Error string `json:"error,omitempty"`
}
