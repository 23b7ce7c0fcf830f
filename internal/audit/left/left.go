// Package left knows, from the entries of one grant, what its engineers may have left in the cluster and what they came to
// know. It knows neither where entries come from nor what is in the cluster. Where an entry leaves room it takes the worst: an
// engineer hides nothing by breaking a request off, by deleting what holds on, or by leaving behind what a deleted object had
// begun.
package left

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/change"
)

const (
	// most is how many objects, and how many things seen, are told apart. Of more than that there is but a count.
	most = 50_000
	// mostPending is how many ends are remembered whose beginning is still to come.
	mostPending = 100_000
)

// Reckoning goes through the entries of one grant, the newest first.
type Reckoning struct {
	// pending are the requests whose first entry is still to come, by the id of the request.
	pending map[string]*pending
	objects map[key]*object
	seen    map[seenKey]string
	// uncounted are the objects and the things seen that are not told apart.
	uncountedObjects, uncountedSeen int
	// recorded says what the newest end of a change so far told: that changes are on record.
	recorded bool
	// unrecorded says that something was changed while they were not.
	unrecorded bool
	requests   int
}

// pending is what the later entries of a request have told.
type pending struct {
	ended bool
	// done is what became of its changes. recorded says that they are on record, tried that one was met.
	done            change.State
	recorded, tried bool
	// answered says that the client was given something.
	answered bool
}

// key tells objects apart.
type key struct{ group, resource, namespace, name string }

type seenKey struct {
	kind            v1alpha1.SeenKind
	namespace, name string
}

// object is what is known of one so far.
type object struct {
	v1alpha1.LeftObject
	// settled says that what is older is of no concern: it was made, or was deleted.
	settled bool
	// listed says that it was made or changed, asked that it was to be deleted afterwards.
	listed, asked bool
}

// New returns a reckoning without entries.
func New() *Reckoning {
	return &Reckoning{pending: map[string]*pending{}, objects: map[key]*object{}, seen: map[seenKey]string{}}
}

// Requests is how many requests there were.
func (r *Reckoning) Requests() int { return r.requests }

// Add takes the next entry, which is older than all before.
func (r *Reckoning) Add(e *audit.Entry) {
	switch {
	case e.ObjectRef == nil:
		if e.Type == audit.TypeRequest {
			r.requests++
		}
	case e.Type == audit.TypeChange:
		r.try(e)
	case e.Type != audit.TypeRequest:
	case e.Stage == auditv1.StageResponseComplete:
		r.requests++
		r.end(e)
	case e.Stage == auditv1.StageRequestReceived:
		r.requests++
		r.begin(e)
	}
}

// end remembers what became of a request.
func (r *Reckoning) end(e *audit.Entry) {
	code := 0
	if e.ResponseStatus != nil {
		code = int(e.ResponseStatus.Code)
	}
	p := &pending{ended: true, recorded: e.Change != nil, answered: code < http.StatusBadRequest || code == clientGone}
	if e.Change != nil {
		p.done = e.Change.State
	} else {
		p.done = change.StateOf(code, e.Cause != "", e.Verb == "deletecollection")
	}
	if changes(e.Verb) && p.done != change.Rejected {
		r.recorded = p.recorded
	}
	if p.answered {
		r.see(e)
	}
	if len(r.pending) < mostPending {
		r.pending[string(e.AuditID)] = p
	}
}

// clientGone is the status of an answer that nobody waited for.
const clientGone = 499

// changes reports whether a request with a verb changes something.
func changes(verb string) bool {
	return slices.Contains([]string{"create", "update", "patch", "delete", "deletecollection"}, verb)
}

// try takes what was about to change. Under conflicts the API server tries again: of one request, the last counts, but for
// the deletion of many.
func (r *Reckoning) try(e *audit.Entry) {
	p := r.pending[string(e.AuditID)]
	if p == nil {
		p = &pending{done: change.Unknown}
		if len(r.pending) < mostPending {
			r.pending[string(e.AuditID)] = p
		}
	}
	if e.Change == nil || p.tried && e.Change.Operation != operationDelete {
		return
	}
	p.tried = true
	if p.done == change.Rejected {
		return
	}
	switch e.Change.Operation {
	case operationCreate:
		r.created(e, p.done)
	case operationUpdate:
		r.changed(e, p.done)
	case operationDelete:
		if p.done == change.Committed && !holds(e) {
			r.deleted(e)
			return
		}
		r.toBeDeleted(e)
	}
}

// What the API server calls what is done.
const (
	operationCreate = "CREATE"
	operationUpdate = "UPDATE"
	operationDelete = "DELETE"
)

// begin takes the first entry of a request, of which all others are known by now.
func (r *Reckoning) begin(e *audit.Entry) {
	p := r.pending[string(e.AuditID)]
	delete(r.pending, string(e.AuditID))
	if p == nil {
		p = &pending{done: change.Unknown, recorded: r.recorded}
	}
	if !p.ended {
		r.see(e)
		p.recorded = r.recorded || p.tried
	}
	if p.tried || !changes(e.Verb) || p.done == change.Rejected || p.recorded && !exempt(e.ObjectRef.APIGroup) || isTrial(e.RequestURI) {
		return
	}
	r.unrecorded = true
	switch e.Verb {
	case "create":
		r.created(e, p.done)
	case "update", "patch":
		r.changed(e, p.done)
	case "delete":
		// Whether it was a trial stands in the body.
		r.toBeDeleted(e)
	}
}

// exempt reports whether the API server asks nobody about objects of a group.
func exempt(group string) bool { return group == "admissionregistration.k8s.io" }

// isTrial reports whether a request asked for a trial.
func isTrial(uri string) bool {
	u, err := url.ParseRequestURI(uri)
	return err == nil && slices.Contains(u.Query()["dryRun"], "All")
}

// Subresources that are no part of the object.
func streams(sub string) bool {
	return slices.Contains([]string{"exec", "attach", "portforward", "proxy"}, sub)
}

func (r *Reckoning) created(e *audit.Entry, done change.State) {
	ref := e.ObjectRef
	switch {
	case streams(ref.Subresource), ref.Subresource == "binding", keepsNothing(ref.APIGroup):
		return
	case ref.Subresource == "eviction":
		r.toBeDeleted(e)
		return
	}
	o := r.find(e)
	if o == nil || o.settled {
		return
	}
	// What is not known to have been made may have been there before.
	o.settled = done == change.Committed && ref.Name != ""
	o.list(e, v1alpha1.DeedCreated, done)
}

// keepsNothing reports whether what is made in a group is answered and forgotten.
func keepsNothing(group string) bool {
	return group == "authentication.k8s.io" || group == "authorization.k8s.io"
}

func (r *Reckoning) changed(e *audit.Entry, done change.State) {
	o := r.find(e)
	if o == nil || o.settled {
		return
	}
	deed := v1alpha1.DeedChanged
	if o.listed {
		deed = o.Deed
	}
	o.list(e, deed, done)
}

// deleted takes a deletion that was made, of what nothing holds and nothing is left of.
func (r *Reckoning) deleted(e *audit.Entry) {
	if o := r.find(e); o != nil {
		o.settled = true
	}
}

// toBeDeleted takes a deletion of which it is not known what it left.
func (r *Reckoning) toBeDeleted(e *audit.Entry) {
	if o := r.find(e); o != nil && !o.settled && !o.listed {
		o.asked = true
	}
}

// list notes what was done to an object, before all that is known of it already.
func (o *object) list(e *audit.Entry, deed v1alpha1.Deed, done change.State) {
	first := !o.listed
	o.listed, o.Deed = true, deed
	if class := outliving(e.ObjectRef); class != "" {
		o.Outlives = class
	}
	switch {
	case o.Name == "":
		o.Doubt = v1alpha1.DoubtUnnamed
	case o.asked:
		o.Doubt = v1alpha1.DoubtDeletionAsked
	case done != change.Committed && first:
		o.Doubt = v1alpha1.DoubtUnconfirmed
	case done == change.Committed && o.Doubt == v1alpha1.DoubtUnconfirmed:
		o.Doubt = ""
	}
}

// holds reports whether something of an object may be there after its deletion: what has a finalizer waits for it, a pod may
// take its time, and what a workload had begun can be left behind.
func holds(e *audit.Entry) bool {
	if outliving(e.ObjectRef) == v1alpha1.OutlivingWorkload || e.Change.Reduced {
		return true
	}
	var was struct {
		Metadata struct {
			Finalizers []string `json:"finalizers"`
		} `json:"metadata"`
	}
	return json.Unmarshal(e.Change.Before, &was) != nil || len(was.Metadata.Finalizers) > 0
}

// find returns what is known of the object of an entry, nil if there are too many.
func (r *Reckoning) find(e *audit.Entry) *object {
	ref := e.ObjectRef
	k := key{legible(ref.APIGroup, maxName), legible(ref.Resource, maxName), legible(ref.Namespace, maxNamespace), legible(ref.Name, maxName)}
	if ref.Subresource == "token" {
		k.resource = legible(ref.Resource+"/token", maxName)
	}
	if o := r.objects[k]; o != nil {
		return o
	}
	if len(r.objects) >= most && (outliving(ref) == "" || len(r.objects) >= 2*most) {
		r.uncountedObjects++
		return nil
	}
	o := &object{LeftObject: v1alpha1.LeftObject{
		Group: k.group, Resource: k.resource, Namespace: k.namespace, Name: k.name, UID: ref.UID, By: legible(e.Engineer, maxEngineer),
	}}
	r.objects[k] = o
	return o
}

// outliving returns why an object could let somebody in after the end, by what it is.
func outliving(ref *auditv1.ObjectReference) v1alpha1.Outliving {
	switch ref.APIGroup + "/" + ref.Resource {
	case "/serviceaccounts":
		if ref.Subresource == "token" {
			return v1alpha1.OutlivingToken
		}
		return v1alpha1.OutlivingServiceAccount
	case "/secrets":
		return v1alpha1.OutlivingSecret
	case "/pods", "/replicationcontrollers", "/podtemplates":
		return workload(ref.Subresource)
	}
	switch ref.APIGroup {
	case "rbac.authorization.k8s.io", "admissionregistration.k8s.io", "apiregistration.k8s.io":
		return v1alpha1.OutlivingPermissions
	case "certificates.k8s.io":
		return v1alpha1.OutlivingToken
	case "apps", "batch":
		return workload(ref.Subresource)
	}
	return ""
}

// workload leaves out what changes only how much runs.
func workload(sub string) v1alpha1.Outliving {
	if slices.Contains([]string{"scale", "status", "resize"}, sub) {
		return ""
	}
	return v1alpha1.OutlivingWorkload
}

// see notes what an engineer came to know by a request. Of a Secret every answer shows it, that to a change or a trial too,
// but of a creation only what was sent.
func (r *Reckoning) see(e *audit.Entry) {
	ref := e.ObjectRef
	k := seenKey{namespace: legible(ref.Namespace, maxNamespace), name: legible(ref.Name, maxName)}
	switch {
	case ref.APIGroup != "":
		return
	case ref.Resource == "secrets" && e.Verb != "create":
		k.kind = v1alpha1.SeenSecret
	case ref.Resource == "pods" && (streams(ref.Subresource) || ref.Subresource == "ephemeralcontainers" && changes(e.Verb)):
		k.kind = v1alpha1.SeenPod
	default:
		return
	}
	if _, known := r.seen[k]; known {
		return
	}
	if len(r.seen) >= most {
		r.uncountedSeen++
		return
	}
	r.seen[k] = legible(e.Engineer, maxEngineer)
}

// How long what the API server takes as a name may be.
const (
	maxName      = 253
	maxNamespace = 63
	maxEngineer  = 128
)

// legible returns a text as a status takes it and a terminal may show it.
func legible(text string, longest int) string {
	shown := []byte(text[:min(len(text), longest)])
	for i, c := range shown {
		if c < ' ' || c > '~' {
			shown[i] = '?'
		}
	}
	return string(shown)
}

// Bounds of what is listed.
const (
	MaxObjects = 64
	MaxSeen    = 64
)

// Behind returns what was left behind, at most so many of each: first what could let somebody in, then what was made.
func (r *Reckoning) Behind(mostObjects, mostSeen int) v1alpha1.LeftBehind {
	var objects []v1alpha1.LeftObject
	for _, o := range r.objects {
		if o.listed {
			objects = append(objects, o.LeftObject)
		}
	}
	slices.SortFunc(objects, byWeight)
	seen := make([]v1alpha1.SeenObject, 0, len(r.seen))
	for k, by := range r.seen {
		seen = append(seen, v1alpha1.SeenObject{Kind: k.kind, Namespace: k.namespace, Name: k.name, By: by})
	}
	slices.SortFunc(seen, byPlace)
	behind := v1alpha1.LeftBehind{Objects: objects[:min(len(objects), mostObjects)], Seen: seen[:min(len(seen), mostSeen)]}
	behind.DroppedObjects = count(len(objects) - len(behind.Objects) + r.uncountedObjects)
	behind.DroppedSeen = count(len(seen) - len(behind.Seen) + r.uncountedSeen)
	switch {
	case r.unrecorded:
		behind.Unknown = "some changes were not on record as such (gateway.changes.enabled), so not every name is known"
	case r.uncountedObjects+r.uncountedSeen > 0:
		behind.Unknown = fmt.Sprintf("there is more than %d of something: what is not listed is counted more than once", most)
	}
	return behind
}

func count(n int) int32 { return int32(min(n, 1<<30)) } //nolint:gosec // Bounded in this line.
