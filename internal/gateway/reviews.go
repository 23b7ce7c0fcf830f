package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/utils/clock"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/audit"
	changes "supportaccess.dev/operator/internal/audit/change"
)

// reviews answer the API server, which asks before it changes something for an engineer: what is about to change is put on
// record first, before and after. What did not come through the gateway, or comes after its grant's end, is not done.
type reviews struct {
	grants   *Grants
	seal     *seal
	masker   *changes.Masker
	log      audit.Log
	clock    clock.PassiveClock
	replica  string
	counters *counters
	logger   logr.Logger
	sections *sections
	// key returns the key of the webhook's certificate, nothing while there is none.
	key func() []byte
	// turns has an item for each review that is being read: they may be large.
	turns chan struct{}
}

const (
	// ReviewsPath is where the API server asks.
	ReviewsPath = "/changes"
	// maxReview is how long a review may be: two objects as long as the API server takes one, and some more for JSON.
	maxReview = 4 * maxBody
	maxTurns  = 8
	// reviewTime bounds how long a review takes: the API server waits a little longer.
	reviewTime = 4 * time.Second
)

// Reviews returns who answers the API server's questions about changes. By the key of the webhook's certificate, which all
// replicas have, it knows their requests, and who tells of acts.
func (g *Gateway) Reviews(masker *changes.Masker, key func() []byte) http.Handler {
	g.journal.changes.Store(true)
	g.seal.share(key)
	return &reviews{
		grants: g.grants, seal: g.seal, masker: masker, log: g.options.Log, clock: g.options.Clock, replica: g.options.Replica,
		counters: g.counters, logger: g.options.Logger, sections: g.sections, key: key, turns: make(chan struct{}, maxTurns),
	}
}

// ServeHTTP answers one review.
func (v *reviews) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), reviewTime)
	defer cancel()
	select {
	case v.turns <- struct{}{}:
		defer func() { <-v.turns }()
	case <-ctx.Done():
		http.Error(w, "too many reviews at once", http.StatusServiceUnavailable)
		return
	}
	answer := v.answer
	switch {
	case r.Method == http.MethodPost && r.URL.Path == ReviewsPath:
	case r.Method == http.MethodPost && access.IsPathOfActs(r.URL.Path, v.key()):
		answer = v.acts
	default:
		http.NotFound(w, r)
		return
	}
	review := &admissionv1.AdmissionReview{}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxReview)).Decode(review); err != nil || review.Request == nil {
		http.Error(w, "it is no AdmissionReview", http.StatusBadRequest)
		return
	}
	review.Response = answer(ctx, review.Request)
	review.Request = nil
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(review); err != nil {
		v.logger.V(1).Info("The answer to a review was not waited for", "error", err.Error())
	}
}

// answer says whether a change may be made, after it is on record.
func (v *reviews) answer(ctx context.Context, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	response := &admissionv1.AdmissionResponse{UID: r.UID, Allowed: true}
	if !ofEngineer(&r.UserInfo) {
		// Nobody should have asked. It is no concern of ours, so we do not stand in its way.
		v.counters.reviewed("foreign")
		return response
	}
	refused := v.judge(ctx, r)
	if refused == nil {
		v.counters.reviewed("allowed")
		return response
	}
	v.counters.reviewed("refused")
	status := statusOf(refused)
	response.Allowed, response.Result = false, &status
	return response
}

// ofEngineer reports whether somebody is an engineer who comes through the gateway, or says so.
func ofEngineer(user *authenticationv1.UserInfo) bool {
	return strings.HasPrefix(user.Username, v1alpha1.IdentityPrefix) || slices.Contains(user.Groups, v1alpha1.EngineersGroup)
}

// judge says why a change is not made, nil once it is on record and may be.
func (v *reviews) judge(ctx context.Context, r *admissionv1.AdmissionRequest) *refusal {
	id := only(r.UserInfo.Extra, extraRequest)
	if !v.seal.knows(id, r.UserInfo.Username) {
		return &refusal{
			code: http.StatusForbidden, reason: string(metav1.StatusReasonForbidden),
			message: "support access: this request did not come through the gateway, so it is not done",
		}
	}
	s, engineer := v.grants.actor(only(r.UserInfo.Extra, extraGrant), r.UserInfo.Username)
	if s == nil {
		return unavailable("the gateway does not know the grant of this request: try again")
	}
	now := v.clock.Now()
	if ended := v.grants.endAt(s, engineer, now); ended != nil {
		return notOpen(s, ended)
	}
	if r.DryRun != nil && *r.DryRun {
		return nil
	}
	entry, err := v.entry(r, s)
	if err != nil {
		return unavailable(err.Error())
	}
	entry.AuditID, entry.Engineer = types.UID(id), engineer
	if err := v.log.Append(ctx, entry); err != nil {
		v.logger.Error(err, "Could not record a change, so it is not made", "auditID", id)
		return unavailable("what you change could not be put on record, so it is not done")
	}
	return nil
}

// only returns the one value of an extra, nothing where there are several.
func only(extras map[string]authenticationv1.ExtraValue, name string) string {
	if values := extras[name]; len(values) == 1 {
		return values[0]
	}
	return ""
}

// errNotRecordable says nothing of the object: the error of who read it may repeat it.
var errNotRecordable = errors.New("what you change cannot be put on record, so it is not done")

// entry says what is about to change.
func (v *reviews) entry(r *admissionv1.AdmissionRequest, s *standing) (*audit.Entry, error) {
	kind := changes.Kind{Group: r.Resource.Group, Resource: r.Resource.Resource}
	before, after := r.OldObject.Raw, r.Object.Raw
	if r.Operation == admissionv1.Connect {
		// What is asked for is in the entry of the request, and nothing changes.
		before, after = nil, nil
	}
	changed, err := v.masker.Of(string(r.Operation), kind, before, after)
	if err != nil {
		v.logger.Error(err, "A change cannot be put on record", "resource", r.Resource.String())
		return nil, fmt.Errorf("%w: %w", errNotRecordable, err)
	}
	now, grant := metav1.NewMicroTime(v.clock.Now()), s.facts.Record.Spec.Grant
	return &audit.Entry{
		Type: audit.TypeChange,
		Event: auditv1.Event{
			TypeMeta: metav1.TypeMeta{APIVersion: "audit.k8s.io/v1", Kind: "Event"},
			Level:    auditv1.LevelRequest, Stage: auditv1.StageRequestReceived, Verb: strings.ToLower(string(r.Operation)),
			User:                     authenticationv1.UserInfo{Username: r.UserInfo.Username, Groups: []string{v1alpha1.EngineersGroup}},
			ObjectRef:                objectOf(r),
			RequestReceivedTimestamp: now, StageTimestamp: now,
			Annotations: map[string]string{audit.LabelSource: audit.Source},
		},
		Labels:  map[string]string{audit.LabelSource: audit.Source},
		Grant:   audit.Grant{Namespace: grant.Namespace, Name: grant.Name, UID: string(grant.UID)},
		Case:    s.caseID,
		Replica: v.replica,
		Change:  changed,
		Section: v.sections.find(r.Resource.Group, r.Resource.Resource),
	}, nil
}

// objectOf returns which object it is. The deletion of a collection does not name those that it deletes, nor a creation
// what the API server names: there the object says.
func objectOf(r *admissionv1.AdmissionRequest) *auditv1.ObjectReference {
	ref := &auditv1.ObjectReference{
		Resource: r.Resource.Resource, Subresource: r.SubResource, Namespace: r.Namespace, Name: r.Name,
		APIGroup: r.Resource.Group, APIVersion: r.Resource.Version,
	}
	object := r.OldObject.Raw
	if len(object) == 0 {
		object = r.Object.Raw
	}
	known := &metav1.PartialObjectMetadata{}
	if err := json.Unmarshal(object, known); err != nil || r.Operation == admissionv1.Connect {
		return ref
	}
	if ref.Name == "" {
		ref.Name = known.Name
	}
	ref.UID, ref.ResourceVersion = known.UID, known.ResourceVersion
	return ref
}

// actor returns the grant and the engineer that the API server knows as a user; nil if the gateway knows none.
func (g *Grants) actor(grant, user string) (*standing, string) {
	namespace, name, _ := strings.Cut(grant, "/")
	g.mu.RLock()
	s := g.byKey[types.NamespacedName{Namespace: namespace, Name: name}]
	g.mu.RUnlock()
	if s == nil {
		return nil, ""
	}
	for _, engineer := range s.facts.Record.Spec.Engineers {
		if access.GatewayUsername(s.facts.Record.Spec.Grant, engineer) == user {
			return s, engineer
		}
	}
	return nil, ""
}

// endAt returns why an engineer may not act at an instant, nil if the engineer may. With which credential it was is not
// known here: the gateway asked when it let the request in.
func (g *Grants) endAt(s *standing, engineer string, now time.Time) *end {
	g.mu.RLock()
	ended := g.ended[s.uid]
	g.mu.RUnlock()
	if ended != nil {
		return ended
	}
	verdict := s.verdict(now)
	if ended := endOfVerdict(s, verdict); ended != nil {
		return ended
	}
	if !slices.Contains(verdict.Engineers, engineer) {
		return &end{reason: v1alpha1.TransitionEngineerRemoved, message: engineer + " was taken off the grant"}
	}
	return nil
}
