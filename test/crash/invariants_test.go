package crash

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
)

// wrong says that an invariant is broken. The run goes on no further: what follows would only be noise.
func (r *run) wrong(format string, args ...any) {
	r.t.Helper()
	what := r.plain(fmt.Sprintf(format, args...))
	if r.soft {
		panic(brokenError(what))
	}
	r.fatalf("broken: %s", what)
}

// brokenError is an invariant that does not hold, or not yet.
type brokenError string

// Error says what is wrong.
func (e brokenError) Error() string { return string(e) }

// note keeps what is found wrong in the middle of a write until the pass is over.
func (r *run) note(format string, args ...any) {
	if r.broken == "" {
		r.broken = fmt.Sprintf(format, args...)
	}
}

// beforeWrite checks what must hold at the very moment at which something is given: the grant is on record, it has begun
// and not ended, it is held, and nobody has taken it back.
func (r *run) beforeWrite(verb string, o client.Object) {
	switch o.(type) {
	case *rbacv1.RoleBinding:
		if verb != "create" || o.GetNamespace() == v1alpha1.CredentialsNamespace {
			return
		}
	case *rbacv1.ClusterRoleBinding:
		if verb != "create" {
			return
		}
	case *corev1.ServiceAccount:
		if verb != "create token of" {
			return
		}
	default:
		return
	}
	key, ok := access.GrantOf(o)
	if !ok {
		r.note("%s %T %s/%s does not say for which grant", verb, o, o.GetNamespace(), o.GetName())
		return
	}
	if r.cut[o.GetNamespace()+"/"+o.GetName()] {
		r.note("%s %T %s/%s, which somebody deleted by hand", verb, o, o.GetNamespace(), o.GetName())
	}
	if why := r.mayNotGive(key, o.GetAnnotations()[v1alpha1.AnnotationGrantUID], o.GetAnnotations()[v1alpha1.AnnotationEngineer]); why != "" {
		if r.tolerant {
			r.opened = append(r.opened, fmt.Sprintf("%s %T", verb, o))
			return
		}
		r.note("%s %T %s/%s for grant %s, although %s", verb, o, o.GetNamespace(), o.GetName(), key, why)
	}
}

// mayNotGive says why nothing may be given for a grant now, empty if it may.
func (r *run) mayNotGive(key types.NamespacedName, uid, engineer string) string {
	if why := r.shut[key]; why != "" {
		return why
	}
	if r.unapproved[key] {
		return "nobody has approved it"
	}
	grant, record := &v1alpha1.SupportAccessGrant{}, &v1alpha1.SupportAccessRecord{}
	if err := r.stage.admin.Get(r.t.Context(), key, grant); err != nil {
		return fmt.Sprintf("the grant cannot be read: %v", err)
	}
	if err := r.stage.admin.Get(r.t.Context(), key, record); err != nil {
		return fmt.Sprintf("the record cannot be read: %v", err)
	}
	now := r.clock.Now()
	s := record.Status
	switch {
	case r.shortened[key] != nil && !now.Before(*r.shortened[key]):
		return "a decision moved its end to " + r.shortened[key].UTC().String()
	case string(grant.UID) != uid || string(record.Spec.Grant.UID) != uid:
		return "grant, record and binding are not of one UID"
	case !grant.DeletionTimestamp.IsZero():
		return "the grant is being deleted"
	case !controllerutil.ContainsFinalizer(grant, v1alpha1.FinalizerGrant):
		return "the grant is not held by the finalizer"
	case s.EndTime != nil:
		return "the record says that it has ended"
	case s.StartTime == nil || s.ExpirationTime == nil:
		return "the record does not say from when until when"
	case now.Before(s.StartTime.Time) || !now.Before(s.ExpirationTime.Time):
		return fmt.Sprintf("it is %s and the window is %s to %s", now.UTC(), s.StartTime.UTC(), s.ExpirationTime.UTC())
	case slices.ContainsFunc(s.RemovedEngineers, func(e v1alpha1.RemovedEngineer) bool { return e.Name == engineer }):
		return engineer + " was taken off"
	default:
		return ""
	}
}

// inspect checks, after a pass, what must hold after every pass, a killed one too.
func (r *run) inspect(p pass) {
	s := r.look()
	for _, b := range s.bindings {
		r.inspectBinding(s, b)
	}
	for _, o := range s.credentials {
		r.inspectCredential(s, o)
	}
	r.remember(s)
	// A pass that its cache misled says nothing, and comes back at once.
	misled := p.err == nil && p.again > 0 && p.again < time.Second
	if !p.cut && !p.mute && !misled && strings.HasPrefix(p.what, "grant ") {
		r.inspectTruth(s, p)
	}
	for _, grant := range s.grants {
		r.active[grant.UID] = condition(grant, v1alpha1.ConditionActive).Reason == v1alpha1.StateActive
	}
}

func (r *run) inspectBinding(s *scene, b client.Object) {
	key, ok := access.GrantOf(b)
	if !ok {
		r.wrong("%T %s/%s names an engineer and says no grant", b, b.GetNamespace(), b.GetName())
	}
	record, grant := s.recordOf(key), s.grants[key]
	uid := b.GetAnnotations()[v1alpha1.AnnotationGrantUID]
	switch {
	case record == nil && r.going(key.Namespace):
		return // It went with its namespace, and the finalizer holds the grant until this is gone too.
	case record == nil:
		r.wrong("%T %s is there and no record of grant %s is", b, b.GetName(), key)
	case string(record.Spec.Grant.UID) != uid:
		r.wrong("%T %s is of another grant than the record of %s", b, b.GetName(), key)
	case record.Status.EndTime != nil:
		r.wrong("%T %s is there and the record says that grant %s has ended", b, b.GetName(), key)
	case record.Status.StartTime == nil || r.clock.Now().Before(record.Status.StartTime.Time):
		r.wrong("%T %s is there before the start of grant %s", b, b.GetName(), key)
	case grant == nil || string(grant.UID) != uid:
		r.wrong("%T %s is there and grant %s is not", b, b.GetName(), key)
	case !controllerutil.ContainsFinalizer(grant, v1alpha1.FinalizerGrant):
		r.wrong("%T %s is there and grant %s is not held", b, b.GetName(), key)
	}
	for _, subject := range access.Subjects(b) {
		for _, removed := range record.Status.RemovedEngineers {
			if access.PeopleOf(record).Username(removed.Name) == usernameOf(subject) {
				r.wrong("%T %s names %s, who was taken off", b, b.GetName(), removed.Name)
			}
		}
	}
	for _, recorded := range record.Status.Bindings {
		if recorded.Withdrawn && recorded.Namespace == b.GetNamespace() && recorded.Name == b.GetName() {
			r.wrong("%T %s is there, and the record says that it was taken away", b, b.GetName())
		}
	}
}

func (r *run) inspectCredential(s *scene, o client.Object) {
	key, _ := access.GrantOf(o)
	record := s.recordOf(key)
	uid := o.GetAnnotations()[v1alpha1.AnnotationGrantUID]
	switch {
	case record == nil && r.going(key.Namespace):
		return
	case record == nil:
		r.wrong("%T %s is there and no record of grant %s is", o, o.GetName(), key)
	case string(record.Spec.Grant.UID) != uid:
		r.wrong("%T %s is of another grant than the record of %s", o, o.GetName(), key)
	case record.Status.EndTime != nil:
		r.wrong("%T %s is there and the record says that grant %s has ended", o, o.GetName(), key)
	}
	for _, removed := range record.Status.RemovedEngineers {
		if o.GetName() == access.IdentityName(record.Spec.Grant, removed.Name) && s.usable(record, o.GetName()) {
			r.wrong("%T %s is there and can be used, and %s was taken off", o, o.GetName(), removed.Name)
		}
	}
}

// usernameOf returns who a subject of a binding is to the API server.
func usernameOf(subject rbacv1.Subject) string {
	if subject.Kind == rbacv1.ServiceAccountKind {
		return "system:serviceaccount:" + subject.Namespace + ":" + subject.Name
	}
	return subject.Name
}

// usable reports whether somebody could use an identity: its ServiceAccount and the Secret to which tokens are bound are
// both there. Through the gateway the Secret is enough.
func (s *scene) usable(record *v1alpha1.SupportAccessRecord, name string) bool {
	kinds := map[string]bool{}
	for _, o := range s.credentials {
		if o.GetName() == name {
			kinds[fmt.Sprintf("%T", o)] = true
		}
	}
	return (kinds["*v1.ServiceAccount"] || isThroughGateway(record)) && kinds["*v1.Secret"]
}

// facts are what a record or a status says once and for all.
type facts struct {
	uid, digest                         string
	start, provisioned, ended, verified time.Time
	expiration                          time.Time
}

func factsOf(record *v1alpha1.SupportAccessRecord) facts {
	f := facts{uid: string(record.Spec.Grant.UID), digest: record.Spec.Grant.SpecDigest}
	s := record.Status
	for from, to := range map[*metav1.Time]*time.Time{s.StartTime: &f.start, s.ExpirationTime: &f.expiration} {
		if from != nil {
			*to = from.Time
		}
	}
	for from, to := range map[*metav1.MicroTime]*time.Time{s.ProvisionedTime: &f.provisioned, s.EndTime: &f.ended, s.VerifiedTime: &f.verified} {
		if from != nil {
			*to = from.Time
		}
	}
	return f
}

// differs says which fact was changed, empty if none was.
func (f facts) differs(now facts) string {
	for what, pair := range map[string][2]time.Time{
		"startTime": {f.start, now.start}, "provisionedTime": {f.provisioned, now.provisioned}, "endTime": {f.ended, now.ended}, "verifiedTime": {f.verified, now.verified},
	} {
		if !pair[0].IsZero() && !pair[0].Equal(pair[1]) {
			return fmt.Sprintf("%s was %s and is %s", what, pair[0].UTC(), pair[1].UTC())
		}
	}
	switch {
	case f.uid != now.uid || f.digest != now.digest:
		return "it is about another grant"
	case !f.expiration.IsZero() && (now.expiration.IsZero() || now.expiration.After(f.expiration)):
		return fmt.Sprintf("expirationTime was %s and is %s", f.expiration.UTC(), now.expiration.UTC())
	default:
		return ""
	}
}

// remember holds every record, and the status of every grant, to what it said before.
func (r *run) remember(s *scene) {
	for key, was := range r.facts {
		switch {
		case strings.HasPrefix(key.Name, "status of "):
			continue
		case s.records[key] == nil && key.Namespace == v1alpha1.SystemNamespace:
			r.wrong("the record %s is lost", key)
		case s.records[key] == nil && !r.going(key.Namespace):
			r.wrong("the record %s is lost", key)
		case s.records[key] == nil:
			continue
		}
		if change := was.differs(factsOf(s.records[key])); change != "" {
			r.wrong("record %s: %s", key, change)
		}
	}
	for key, record := range s.records {
		r.facts[key] = factsOf(record)
	}
	for key, grant := range s.grants {
		now := factsOfStatus(grant)
		at := types.NamespacedName{Namespace: key.Namespace, Name: "status of " + string(grant.UID)}
		if change := r.facts[at].differs(now); r.facts[at].uid != "" && change != "" {
			r.wrong("status of grant %s: %s", key, change)
		}
		r.facts[at] = now
	}
}

func factsOfStatus(grant *v1alpha1.SupportAccessGrant) facts {
	f := facts{uid: string(grant.UID)}
	for from, to := range map[*metav1.Time]*time.Time{
		grant.Status.StartTime: &f.start, grant.Status.ExpirationTime: &f.expiration, grant.Status.EndTime: &f.ended,
	} {
		if from != nil {
			*to = from.Time
		}
	}
	return f
}

// going reports whether a namespace is being deleted or gone.
func (r *run) going(name string) bool {
	namespace := &corev1.Namespace{}
	err := r.stage.admin.Get(r.t.Context(), types.NamespacedName{Name: name}, namespace)
	return apierrors.IsNotFound(err) || err == nil && !namespace.DeletionTimestamp.IsZero()
}

// inspectTruth holds the status that a pass left, a failed one too, to what is.
func (r *run) inspectTruth(s *scene, p pass) {
	for key, grant := range s.grants {
		if p.what != "grant "+r.plain(key.String()) || len(grant.Status.Conditions) == 0 {
			continue
		}
		of := func(o client.Object) bool {
			return o.GetAnnotations()[v1alpha1.AnnotationGrantUID] == string(grant.UID)
		}
		bindings, credentials := slices.ContainsFunc(s.bindings, of), slices.ContainsFunc(s.credentials, of)
		active := condition(grant, v1alpha1.ConditionActive)
		ready := condition(grant, v1alpha1.ConditionReady)
		provisioned := condition(grant, v1alpha1.ConditionProvisioned)
		// Who sees the past may say again what was said before, in the status or on record, until the cache shows what was taken.
		repeats := p.lags && (r.active[grant.UID] || s.recordedOpen(key))
		switch {
		case bindings && active.Status == metav1.ConditionFalse:
			r.wrong("grant %s: Active is False (%s: %s) and a binding of it is there", key, active.Reason, active.Message)
		case !bindings && !repeats && active.Status == metav1.ConditionTrue && active.Reason == v1alpha1.StateActive:
			r.wrong("grant %s: Active is True and no binding of it is there", key)
		case !bindings && !repeats && provisioned.Status == metav1.ConditionTrue:
			r.wrong("grant %s: Provisioned is True and no binding of it is there", key)
		case (bindings || credentials) && ready.Status == metav1.ConditionTrue && ready.Reason != v1alpha1.StateActive:
			r.wrong("grant %s: Ready is True (%s) and something of it is there", key, ready.Reason)
		case grant.Status.EndTime != nil && (bindings || credentials):
			r.wrong("grant %s: endTime is set and something of it is there", key)
		}
	}
}

func condition(grant *v1alpha1.SupportAccessGrant, kind string) metav1.Condition {
	if c := apimeta.FindStatusCondition(grant.Status.Conditions, kind); c != nil {
		return *c
	}
	return metav1.Condition{}
}
