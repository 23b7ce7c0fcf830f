package gateway

import (
	"slices"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/types"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/internal/review"
)

// standing is one grant as the gateway knows it. It is never changed: what is learnt later makes another.
type standing struct {
	key types.NamespacedName
	uid types.UID
	// caseID is the support case, empty if there is none.
	caseID string
	// facts are what a verdict is reached from, but for the instant.
	facts lifecycle.Facts
	// roles are the rules of the grant's ClusterRoles, by name.
	roles map[string][]rbacv1.PolicyRule
	// never are the rules that no request may touch: everybody's and those of the policies.
	never []rbacv1.PolicyRule
	// content names the roles that are elevated in a policy.
	elevated []string
	// limits bound what an engineer may have open: the tightest of the policies'.
	limits limits
	// recording is what is kept of streams, by the namespace of their pods.
	recording map[string]recording
	// flags are what is released because it bears a flag, by namespace.
	flags map[string]*flags
	// hashes are the engineers by the hash of their credential.
	hashes map[string]string
}

// limits bound what an engineer may have open.
type limits struct {
	idle        time.Duration
	connections int
	streamBytes int64
}

// Defaults of a policy that says nothing about sessions, those of the API.
const (
	defaultIdle        = time.Hour
	defaultConnections = 32
	defaultStreamBytes = 16 << 20
)

// recording is what is kept of streams.
type recording struct {
	// input says that what engineers type is kept.
	input bool
	// logBytes is how much of one stream of a log is kept.
	logBytes int64
}

// defaultLogBytes is how much of a log is kept where no policy says otherwise, as the API does.
const defaultLogBytes = 1 << 20

// recordingIn returns what is kept of streams out of a namespace.
func (s *standing) recordingIn(namespace string) recording {
	if r, ok := s.recording[namespace]; ok {
		return r
	}
	return recording{logBytes: defaultLogBytes}
}

func recordingOf(p *v1alpha1.SupportAccessPolicy) recording {
	r := recording{logBytes: defaultLogBytes}
	said := p.Spec.Recording
	if said == nil {
		return r
	}
	r.input = said.Input == v1alpha1.InputAlways
	if said.MaxLogBytes != nil {
		r.logBytes = *said.MaxLogBytes
	}
	return r
}

// end is why a grant, or one engineer's part in it, is not open.
type end struct {
	// reason is one word, message a sentence.
	reason, message string
}

// seeCredentials notes with which credentials engineers may come in: those of the status, but for one that was replaced, or
// that a decision asks to replace. The status follows the record, and the record the decision.
func (s *standing) seeCredentials(now time.Time) {
	grant, record := s.facts.Grant, s.facts.Record
	if grant == nil {
		return
	}
	void := map[string]bool{}
	for _, r := range record.Status.ReplacedCredentials {
		void[r.Hash] = true
	}
	replaced := s.verdict(now).Replaced
	for _, e := range grant.Status.Engineers {
		asked := slices.ContainsFunc(replaced, func(r lifecycle.Replacement) bool { return r.Engineer == e.Name })
		if e.CredentialHash != "" && !void[e.CredentialHash] && !asked {
			s.hashes[e.CredentialHash] = e.Name
		}
	}
}

// endOf returns why an engineer may not come in with a credential at an instant, nil if the engineer may.
func (s *standing) endOf(engineer, hash string, now time.Time) *end {
	verdict := s.verdict(now)
	if ended := endOfVerdict(s, verdict); ended != nil {
		return ended
	}
	if !slices.Contains(verdict.Engineers, engineer) {
		return &end{reason: v1alpha1.TransitionEngineerRemoved, message: engineer + " was taken off the grant"}
	}
	if s.hashes[hash] != engineer {
		return credentialReplaced()
	}
	return nil
}

// credentialReplaced is why nobody comes in with a credential that another was put in the place of.
func credentialReplaced() *end {
	return &end{reason: v1alpha1.TransitionCredentialReplaced, message: "your credential was replaced: ask for the new one"}
}

// verdict is the lifecycle's, the same as the controller's.
func (s *standing) verdict(now time.Time) lifecycle.Verdict {
	facts := s.facts
	facts.Now = now
	return lifecycle.Decide(facts)
}

// endOfVerdict returns why nobody may come in, nil if access is open.
func endOfVerdict(s *standing, v lifecycle.Verdict) *end {
	if v.End != nil {
		return &end{reason: v.End.Reason, message: v.End.Message}
	}
	if record := s.facts.Record; record != nil && record.Status.EndTime != nil {
		return &end{reason: record.Status.EndReason, message: record.Status.EndMessage}
	}
	if v.NameUsed {
		return &end{reason: v1alpha1.EndNameUsed, message: v.Message}
	}
	if v.Wants != lifecycle.WantsOpen || v.State != v1alpha1.StateActive {
		return &end{reason: v.State, message: v.Message}
	}
	return nil
}

// certain are the ends that follow from the grant, its record, decisions and time. All others follow from what lies around
// it: there the cache of one kind may lag behind that of another, and what looks gone may not have been seen yet.
var certain = []string{v1alpha1.EndExpired, v1alpha1.EndRevoked, v1alpha1.EndEmergencyStop, v1alpha1.EndDenied, v1alpha1.EndEngineersRemoved, v1alpha1.EndSwitchedOff, v1alpha1.EndReplaced}

// over reports whether an end is for ever. A grant that is merely not open, or that only looks ended, may come back.
func (s *standing) over(v lifecycle.Verdict) bool {
	grant, record := s.facts.Grant, s.facts.Record
	switch {
	case record != nil && record.Status.EndTime != nil:
		return true
	case grant != nil && (!grant.DeletionTimestamp.IsZero() || grant.UID != s.uid):
		return true
	default:
		return v.End != nil && slices.Contains(certain, v.End.Reason)
	}
}

// judge adds to the facts what policies, roles and namespaces say of an open grant, as the controller does.
func (s *standing) judge(now time.Time, policies map[string]review.NamespacePolicy, gone []string) {
	grant, record := s.facts.Grant, s.facts.Record
	if grant == nil || record == nil {
		return
	}
	s.facts.World.GoneNamespaces = gone
	input := review.Input{Grant: grant, Now: now, Transport: record.Spec.Transport, Policies: policies, Roles: s.roles}
	s.facts.World.Prohibitions = review.Sentences(review.Standing(input))
	s.facts.World.Approvals = lifecycle.ApprovalRule(review.Approvals(input))
	s.facts.World.DeletedRoles, s.facts.World.WidenedRoles = review.Roles(record.Spec.Roles, s.roles)
	s.never = slices.Concat(review.BuiltinNever(), review.DefaultNever())
	s.limits = limits{idle: defaultIdle, connections: defaultConnections, streamBytes: defaultStreamBytes}
	s.recording, s.flags = map[string]recording{}, map[string]*flags{}
	first := true
	for namespace, p := range policies {
		if p.Policy == nil {
			continue
		}
		s.recording[namespace] = recordingOf(p.Policy)
		if grant.Spec.FlaggedContent == v1alpha1.FlaggedContentAllow {
			s.flags[namespace] = flagsIn(p.Policy)
		}
		s.never = append(s.never, review.RulesOf(p.Policy.Spec.NeverAllow)...)
		s.elevated = append(s.elevated, elevatedIn(p.Policy, record.Spec.Roles)...)
		limits := limitsOf(p.Policy)
		if first {
			s.limits, first = limits, false
			continue
		}
		s.limits.idle = min(s.limits.idle, limits.idle)
		s.limits.connections = min(s.limits.connections, limits.connections)
		s.limits.streamBytes = min(s.limits.streamBytes, limits.streamBytes)
	}
}

func elevatedIn(p *v1alpha1.SupportAccessPolicy, roles []string) []string {
	var out []string
	for _, role := range p.Spec.Roles {
		if role.Elevated && slices.Contains(roles, role.Name) {
			out = append(out, role.Name)
		}
	}
	return out
}

func limitsOf(p *v1alpha1.SupportAccessPolicy) limits {
	l := limits{idle: defaultIdle, connections: defaultConnections, streamBytes: defaultStreamBytes}
	said := p.Spec.Sessions
	if said == nil {
		return l
	}
	if idle := said.IdleTimeout.OrZero(); idle > 0 {
		l.idle = idle
	}
	if said.MaxConnections > 0 {
		l.connections = int(said.MaxConnections)
	}
	if said.MaxStreamBytes > 0 {
		l.streamBytes = said.MaxStreamBytes
	}
	return l
}
