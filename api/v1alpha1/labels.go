package v1alpha1

// Labels, annotations and finalizers.
const (
	// LabelManaged is true on everything that the operator makes.
	LabelManaged = "supportaccess.dev/managed"
	// LabelGrant is the name of the grant for which the operator made an object.
	LabelGrant = "supportaccess.dev/grant"
	// LabelGrantNamespace is that grant's namespace.
	LabelGrantNamespace = "supportaccess.dev/grant-namespace"
	// LabelBanner is true on the banner of a namespace with open access.
	LabelBanner = "supportaccess.dev/banner"
	// LabelPolicy on a namespace names the policy that holds there.
	LabelPolicy = "supportaccess.dev/policy"

	// AnnotationAuthor on a grant names who wrote it, where a pipeline applied it. Nobody checks it: the record calls it claimed.
	AnnotationAuthor = "supportaccess.dev/author"
	// AnnotationGrantUID is the UID of the grant for which the operator made an object. Without it an object is not ours.
	AnnotationGrantUID = "supportaccess.dev/grant-uid"
	// AnnotationSection on a CustomResourceDefinition says in which section of the audit log what is done to its objects is.
	AnnotationSection = "supportaccess.dev/section"
	// AnnotationEngineer is the engineer for whom the operator made an object.
	AnnotationEngineer = "supportaccess.dev/engineer"

	// FinalizerGrant holds a grant while something of it may be open.
	FinalizerGrant = "supportaccess.dev/close"
	// FinalizerDecision holds a decision until the records have taken it over.
	FinalizerDecision = "supportaccess.dev/decision"
)

// Names that do not change from one installation to another.
const (
	// SystemNamespace is where the operator runs.
	SystemNamespace = "support-access-system"
	// CredentialsNamespace is where that lies as which engineers authenticate.
	CredentialsNamespace = "support-access-credentials"
	// ControllerServiceAccount is who the controller is, in SystemNamespace.
	ControllerServiceAccount = "support-access-controller"
	// GatewayServiceAccount is who the gateway is, in SystemNamespace.
	GatewayServiceAccount = "support-access-gateway"
	// IdentityPrefix begins every user and group as which the gateway lets an engineer act.
	IdentityPrefix = "supportaccess.dev:"
	// EngineersGroup is the group of every engineer who comes through the gateway.
	EngineersGroup = IdentityPrefix + "engineers"
	// ProbeUser is nobody: as this user the gateway finds out whether the API server lets it act as anybody.
	ProbeUser = IdentityPrefix + "probe"
	// GatewayItself is, in a session object, the UID of no grant: there a replica says what is true of every grant.
	GatewayItself = "gateway"
	// BannerConfigMap says, in each namespace to which access is open, who may come in until when.
	BannerConfigMap = "support-access-banner"
	// CheckpointConfigMap is where, in SystemNamespace, the controller keeps what audit logs say of themselves.
	CheckpointConfigMap = "support-access-checkpoint"
)
