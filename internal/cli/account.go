package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/printers"

	"supportaccess.dev/operator/api/v1alpha1"
)

// account is all that is to be told of a grant.
type account struct {
	grant *v1alpha1.SupportAccessGrant
	// record is nil where there is none, or it may not be read.
	record *v1alpha1.SupportAccessRecord
	// roles are those ClusterRoles of the grant that may be read.
	roles map[string]*rbacv1.ClusterRole
	now   time.Time
}

// print writes the account for an admin to read. Each part has columns of its own width.
func (a account) print(w io.Writer) error {
	for _, part := range []func(io.Writer){a.head, a.mayDo, a.engineers, a.conditions, a.history} {
		table := printers.GetNewTabWriter(w)
		part(table)
		if err := table.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// line writes a line of a table. What cannot be written is said by the table's last flush.
func line(w io.Writer, cells ...string) {
	for i := range cells {
		cells[i] = clean(cells[i])
	}
	_, _ = fmt.Fprintln(w, strings.Join(cells, "\t"))
}

// section starts a part of the account.
func section(table io.Writer, title string) {
	_, _ = fmt.Fprintf(table, "\n%s:\n", title)
}

// head says what the grant is and how it stands.
func (a account) head(w io.Writer) {
	g := a.grant
	line(w, "Grant:", g.Namespace+"/"+g.Name)
	line(w, "State:", stateOf(g)+": "+saidOf(g))
	line(w, a.endWord(), a.endText())
	if !g.Status.StartTime.IsZero() && g.Status.StartTime.After(a.now) {
		line(w, "Opens:", utc(g.Status.StartTime)+", "+ago(g.Status.StartTime, a.now))
	}
	if g.Status.EndTime != nil {
		line(w, "Ended by:", g.Status.EndedBy+" ("+g.Status.EndReason+")")
	}
	if g.Spec.Case != nil {
		line(w, "Case:", strings.TrimSpace(g.Spec.Case.ID+"  "+g.Spec.Case.URL))
	}
	line(w, "Reason:", g.Spec.Reason)
	line(w, "Granted by:", dash(g.Spec.GrantedBy)+", "+ago(&g.CreationTimestamp, a.now))
	line(w, "Where:", scopeOf(g))
	line(w, "Transport:", dash(string(transportOf(g))))
}

func (a account) endWord() string {
	switch {
	case a.grant.Status.EndTime != nil:
		return "Ended:"
	case endOf(a.grant).IsZero():
		return "Lasts:"
	default:
		return "Until:"
	}
}

func (a account) endText() string {
	end := endOf(a.grant)
	if end.IsZero() {
		return string(a.grant.Spec.Duration) + " from its opening"
	}
	return utc(end) + ", " + ago(end, a.now)
}

// mayDo says what the roles allow.
func (a account) mayDo(w io.Writer) {
	title := "The engineers may"
	if hasEnded(a.grant) {
		title = "The engineers could, while it was open"
	}
	section(w, title)
	for _, role := range a.grant.Spec.Roles {
		name := role
		for _, allowed := range allowedBy(role, a.roles[role]) {
			line(w, "  "+name, allowed)
			name = ""
		}
	}
}

// engineers says who they are, where the credentials are, and when they were last seen.
func (a account) engineers(w io.Writer) {
	section(w, "Engineers")
	for _, name := range namesOf(a.grant) {
		line(w, "  "+name, a.credential(name), a.seen(name))
	}
}

// credential says where an engineer's credential is.
func (a account) credential(name string) string {
	if off := a.takenOff(name); off != nil {
		return "taken off by " + off.By + ", " + ago(new(metav1.NewTime(off.Time.Time)), a.now)
	}
	c := credentialOf(a.grant, name)
	switch {
	case c == nil:
		return "no credential"
	case c.EncryptedKubeconfig != "":
		return "kubeconfig encrypted to the engineer's key, in the grant; ends " + ago(c.CredentialExpirationTime, a.now)
	case c.CredentialSecretRef != nil:
		return "kubeconfig in Secret " + c.CredentialSecretRef.Namespace + "/" + c.CredentialSecretRef.Name + "; ends " + ago(c.CredentialExpirationTime, a.now)
	default:
		return "handed over"
	}
}

func (a account) takenOff(name string) *v1alpha1.RemovedEngineer {
	if a.record == nil {
		return nil
	}
	for i := range a.record.Status.RemovedEngineers {
		if a.record.Status.RemovedEngineers[i].Name == name {
			return &a.record.Status.RemovedEngineers[i]
		}
	}
	return nil
}

// seen says when an engineer was last seen. Only the gateway sees them.
func (a account) seen(name string) string {
	c := credentialOf(a.grant, name)
	switch {
	case c == nil || transportOf(a.grant) != v1alpha1.TransportGateway:
		return ""
	case c.Sessions > 0:
		return fmt.Sprintf("%d connections open", c.Sessions)
	case c.LastSeenTime.IsZero():
		return "never seen"
	default:
		return "last seen " + ago(c.LastSeenTime, a.now)
	}
}

// words say conditions to an admin: what True, False and Unknown mean.
var words = map[string][3]string{
	v1alpha1.ConditionReady:       {"the cluster is as the grant demands", "the cluster is not yet as the grant demands", "not known"},
	v1alpha1.ConditionActive:      {"access exists", "nobody has access", "not known whether access exists"},
	v1alpha1.ConditionApproved:    {"nobody need say yes", "somebody must say yes", "not known"},
	v1alpha1.ConditionProvisioned: {"identities, credentials and bindings are in place", "identities, credentials and bindings are not in place", "not known"},
	v1alpha1.ConditionVerified:    {"the API server says that nothing is left", "something is left", "the API server has not been asked yet"},
	v1alpha1.ConditionStalled:     {"a person must act", "no person need act", "not known"},
	v1alpha1.ConditionReconciling: {"the operator is at work", "the operator has nothing to do", "not known"},
	// The gateway's, which the operator does not set yet.
	"Recorded":       {"each request is recorded", "requests are not recorded", "not known whether requests are recorded"},
	"Disconnectable": {"the end cuts what is connected", "what is connected at the end goes on until it ends by itself", "not known"},
	"Disconnected":   {"nobody is connected any more", "somebody may still be connected", "not known whether anybody is connected"},
}

// sayCondition says one condition in words. One that is not known is said as it is.
func sayCondition(c metav1.Condition) string {
	text, known := words[c.Type]
	switch {
	case !known:
		return string(c.Status)
	case c.Status == metav1.ConditionTrue:
		return text[0]
	case c.Status == metav1.ConditionFalse:
		return text[1]
	default:
		return text[2]
	}
}

func (a account) conditions(w io.Writer) {
	section(w, "Conditions")
	for _, c := range a.grant.Status.Conditions {
		line(w, "  "+c.Type, sayCondition(c), strings.TrimSuffix(c.Reason+": "+c.Message, ": "))
	}
	if len(a.grant.Status.Conditions) == 0 {
		line(w, "  none: the operator has not yet seen the grant")
	}
}

// history says what happened, from the record.
func (a account) history(w io.Writer) {
	if a.record == nil {
		return
	}
	section(w, "What happened")
	for _, t := range a.record.Status.Transitions {
		line(w, "  "+utc(new(metav1.NewTime(t.Time.Time))), t.Type, t.By, t.Message)
	}
	if n := a.record.Status.DroppedTransitions; n > 0 {
		line(w, fmt.Sprintf("  %d more were dropped", n))
	}
}

// grantOf tells of a grant that is gone what its record says.
func grantOf(record *v1alpha1.SupportAccessRecord) *v1alpha1.SupportAccessGrant {
	spec, status := record.Spec, record.Status
	grant := &v1alpha1.SupportAccessGrant{
		ObjectMeta: metav1.ObjectMeta{Namespace: spec.Grant.Namespace, Name: spec.Grant.Name, UID: spec.Grant.UID},
		Spec: v1alpha1.SupportAccessGrantSpec{
			Case: spec.Case, Reason: spec.Reason, Roles: spec.Roles, Scope: spec.Scope, GrantedBy: spec.GrantedBy, Transport: spec.Transport,
		},
		Status: v1alpha1.SupportAccessGrantStatus{
			StartTime: status.StartTime, ExpirationTime: status.ExpirationTime, EndReason: status.EndReason, EndedBy: status.EndedBy,
		},
	}
	for _, name := range spec.Engineers {
		grant.Spec.Engineers = append(grant.Spec.Engineers, v1alpha1.Engineer{Name: name})
	}
	if spec.Grant.CreationTime != nil {
		grant.CreationTimestamp = metav1.NewTime(spec.Grant.CreationTime.Time)
	}
	if status.EndTime != nil {
		grant.Status.EndTime = new(metav1.NewTime(status.EndTime.Time))
		grant.Status.Conditions = []metav1.Condition{{
			Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: endState(status.EndReason), Message: status.EndMessage,
		}}
	}
	return grant
}

// endState is the state of a grant that ended for a reason.
func endState(reason string) string {
	switch reason {
	case v1alpha1.EndExpired, v1alpha1.EndDenied, v1alpha1.EndNotApproved, v1alpha1.EndRefused:
		return reason
	default:
		return v1alpha1.StateRevoked
	}
}
