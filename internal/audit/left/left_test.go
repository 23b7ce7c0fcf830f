package left

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/change"
)

// request is one request as it is told in a test, the entries of which Reckoning gets.
type request struct {
	verb, object string
	// tries are operation, name and, after a plus, what the object had as finalizer.
	tries []string
	// code is of the answer, 0 where nothing says how it ended; cut that it was ended before its time.
	code int
	cut  bool
	// off says that changes were not on record.
	off bool
	uri string
}

// objectOf reads group/resource/subresource:namespace/name.
func objectOf(text string) *auditv1.ObjectReference {
	kind, place, _ := strings.Cut(text, ":")
	parts := append(strings.Split(kind, "/"), "", "")
	ref := &auditv1.ObjectReference{APIGroup: parts[0], Resource: parts[1], Subresource: parts[2]}
	ref.Namespace, ref.Name, _ = strings.Cut(place, "/")
	return ref
}

// entries returns the entries of a request, oldest first.
func (q request) entries(id int) []*audit.Entry {
	uri := q.uri
	if uri == "" {
		uri = "/x"
	}
	base := func(kind audit.Type, stage auditv1.Stage) *audit.Entry {
		return &audit.Entry{Type: kind, Engineer: "ana", Event: auditv1.Event{
			AuditID: types.UID(fmt.Sprint(id)), Verb: q.verb, Stage: stage, RequestURI: uri, ObjectRef: objectOf(q.object),
		}}
	}
	all := []*audit.Entry{base(audit.TypeRequest, auditv1.StageRequestReceived)}
	for _, try := range q.tries {
		words := strings.Fields(try)
		e := base(audit.TypeChange, auditv1.StageRequestReceived)
		name, finalizer, _ := strings.Cut(words[1], "+")
		e.ObjectRef.Name, e.ObjectRef.UID = name, types.UID("uid-"+name)
		e.Change = &change.Change{State: change.Attempted, Operation: words[0], Before: json.RawMessage(`{"metadata":{}}`)}
		if finalizer != "" {
			e.Change.Before = json.RawMessage(`{"metadata":{"finalizers":["` + finalizer + `"]}}`)
		}
		all = append(all, e)
	}
	if q.code == 0 {
		return all
	}
	end := base(audit.TypeRequest, auditv1.StageResponseComplete)
	end.ResponseStatus = &metav1.Status{Code: int32(q.code)}
	if q.cut {
		end.Cause = "Revoked: it is over"
	}
	if !q.off && (changes(q.verb) || strings.Contains(q.object, "/exec")) {
		end.Change = &change.Change{State: change.StateOf(q.code, q.cut, q.verb == "deletecollection")}
	}
	return append(all, end)
}

func reckon(requests ...request) v1alpha1.LeftBehind {
	var all []*audit.Entry
	for i, q := range requests {
		all = append(all, q.entries(i)...)
	}
	r := New()
	for _, e := range slices.Backward(all) {
		r.Add(e)
	}
	return r.Behind(MaxObjects, MaxSeen)
}

// said writes what was left behind as one line each.
func said(behind v1alpha1.LeftBehind) []string {
	var lines []string
	for _, o := range behind.Objects {
		lines = append(lines, strings.TrimRight(fmt.Sprintf("%s %s %s %s", o.Deed, o.Resource, o.Name, o.Outlives), " ")+marked(o.Doubt))
	}
	for _, s := range behind.Seen {
		lines = append(lines, fmt.Sprintf("seen %s %s", s.Kind, s.Name))
	}
	if behind.Unknown != "" {
		lines = append(lines, "not all is known")
	}
	return lines
}

func marked(doubt v1alpha1.Doubt) string {
	if doubt == "" {
		return ""
	}
	return "?" + string(doubt)
}

const (
	maps  = "/configmaps:shop/"
	roles = "rbac.authorization.k8s.io/rolebindings:shop/"
	web   = "apps/deployments:shop/web"
)

func TestWhatWasLeftBehind(t *testing.T) {
	made := request{verb: "create", object: maps, tries: []string{"CREATE a"}, code: 201}
	tests := map[string]struct {
		done []request
		want []string
	}{
		"nothing was done":                       {nil, nil},
		"what was made, under the server's name": {[]request{made}, []string{"Created configmaps a"}},
		"what was changed":                       {[]request{{verb: "patch", object: maps + "a", tries: []string{"UPDATE a"}, code: 200}}, []string{"Changed configmaps a"}},
		"what was made and then changed":         {[]request{made, {verb: "update", object: maps + "a", tries: []string{"UPDATE a"}, code: 200}}, []string{"Created configmaps a"}},
		"an apply that makes":                    {[]request{{verb: "patch", object: maps + "a", tries: []string{"CREATE a"}, code: 201}}, []string{"Created configmaps a"}},
		"a name that was taken, and another":     {[]request{{verb: "create", object: maps, tries: []string{"CREATE a1", "CREATE a2"}, code: 201}}, []string{"Created configmaps a2"}},
		"what was refused":                       {[]request{{verb: "create", object: maps, tries: []string{"CREATE a"}, code: 403}}, nil},
		"a trial":                                {[]request{{verb: "create", object: maps, code: 201, uri: "/x?dryRun=All"}}, nil},
		"what was broken off":                    {[]request{{verb: "create", object: maps, tries: []string{"CREATE a"}, code: 200, cut: true}}, []string{"Created configmaps a?Unconfirmed"}},
		"what nobody knows the end of":           {[]request{{verb: "create", object: maps, tries: []string{"CREATE a"}}}, []string{"Created configmaps a?Unconfirmed"}},
		"what the server failed to answer":       {[]request{{verb: "create", object: maps, tries: []string{"CREATE a"}, code: 504}}, []string{"Created configmaps a?Unconfirmed"}},
		"broken off, and then changed":           {[]request{{verb: "create", object: maps, tries: []string{"CREATE a"}}, {verb: "patch", object: maps + "a", tries: []string{"UPDATE a"}, code: 200}}, []string{"Created configmaps a"}},
		"what was deleted":                       {[]request{made, {verb: "delete", object: maps + "a", tries: []string{"DELETE a"}, code: 200}}, nil},
		"deleted as a trial":                     {[]request{made, {verb: "delete", object: maps + "a", code: 200}}, []string{"Created configmaps a"}},
		"deleted, which was refused":             {[]request{made, {verb: "delete", object: maps + "a", tries: []string{"DELETE a"}, code: 403}}, []string{"Created configmaps a"}},
		"deleted, and nobody knows the end":      {[]request{made, {verb: "delete", object: maps + "a", tries: []string{"DELETE a"}}}, []string{"Created configmaps a?DeletionAsked"}},
		"deleted with a finalizer":               {[]request{made, {verb: "delete", object: maps + "a", tries: []string{"DELETE a+hold"}, code: 200}}, []string{"Created configmaps a?DeletionAsked"}},
		"deleted and made again":                 {[]request{made, {verb: "delete", object: maps + "a", tries: []string{"DELETE a"}, code: 200}, made}, []string{"Created configmaps a"}},
		"an object of somebody else, deleted":    {[]request{{verb: "delete", object: maps + "a", tries: []string{"DELETE a+hold"}, code: 200}}, nil},
		"many deleted at once": {[]request{
			made, {verb: "create", object: maps, tries: []string{"CREATE b"}, code: 201}, {verb: "create", object: maps, tries: []string{"CREATE c"}, code: 201},
			{verb: "deletecollection", object: maps, tries: []string{"DELETE a", "DELETE b"}, code: 200},
		}, []string{"Created configmaps c"}},
		"many deleted, of which some stayed": {[]request{made, {verb: "deletecollection", object: maps, tries: []string{"DELETE a"}, code: 409}}, []string{"Created configmaps a?DeletionAsked"}},
		"a workload that was deleted may leave what it had begun": {
			[]request{{verb: "create", object: "apps/deployments:shop/", tries: []string{"CREATE web"}, code: 201}, {verb: "delete", object: web, tries: []string{"DELETE web"}, code: 200}},
			[]string{"Created deployments web Workload?DeletionAsked"},
		},
		"how much runs is no way in": {[]request{{verb: "patch", object: strings.Replace(web, ":", "/scale:", 1), tries: []string{"UPDATE web"}, code: 200}}, []string{"Changed deployments web"}},
		"scaled after it was changed": {[]request{
			{verb: "patch", object: web, tries: []string{"UPDATE web"}, code: 200}, {verb: "patch", object: strings.Replace(web, ":", "/scale:", 1), tries: []string{"UPDATE web"}, code: 200},
		}, []string{"Changed deployments web Workload"}},
		"a pod that is evicted may take its time": {
			[]request{{verb: "create", object: "/pods:shop/", tries: []string{"CREATE p"}, code: 201}, {verb: "create", object: "/pods/eviction:shop/p", tries: []string{"CREATE p"}, code: 201}},
			[]string{"Created pods p Workload?DeletionAsked"},
		},
		"what could let somebody in comes first": {[]request{
			made, {verb: "create", object: "/secrets:shop/", tries: []string{"CREATE s"}, code: 201},
			{verb: "create", object: "/serviceaccounts/token:shop/robot", tries: []string{"CREATE robot"}, code: 201},
			{verb: "create", object: "/serviceaccounts:shop/", tries: []string{"CREATE robot"}, code: 201},
			{verb: "create", object: roles, tries: []string{"CREATE b"}, code: 201},
		}, []string{"Created rolebindings b Permissions", "Created serviceaccounts/token robot Token", "Created serviceaccounts robot ServiceAccount", "Created secrets s Secret", "Created configmaps a"}},
		"Secrets that were read": {[]request{
			{verb: "get", object: "/secrets:shop/s", code: 200}, {verb: "get", object: "/secrets:shop/s", code: 200}, {verb: "get", object: "/secrets:shop/missing", code: 404},
			{verb: "get", object: "/configmaps:shop/a", code: 200},
		}, []string{"seen Secret s"}},
		"a Secret's reading that has no end":        {[]request{{verb: "get", object: "/secrets:shop/s"}}, []string{"seen Secret s"}},
		"Secrets that were listed":                  {[]request{{verb: "list", object: "/secrets:shop/", code: 200}}, []string{"seen Secret "}},
		"a trial shows the Secret that it is about": {[]request{{verb: "patch", object: "/secrets:shop/s", code: 200, uri: "/x?dryRun=All"}}, []string{"seen Secret s"}},
		"pods somebody was in": {[]request{
			{verb: "create", object: "/pods/exec:shop/p", tries: []string{"CONNECT p"}, code: 101}, {verb: "get", object: "/pods/attach:shop/q", code: 101},
			{verb: "create", object: "/pods/exec:shop/r", code: 404}, {verb: "get", object: "/pods/log:shop/l", code: 200},
		}, []string{"seen Pod p", "seen Pod q"}},
		"a container put into a pod": {
			[]request{{verb: "patch", object: "/pods/ephemeralcontainers:shop/p", tries: []string{"UPDATE p"}, code: 200}}, []string{"Changed pods p Workload", "seen Pod p"},
		},
		"a question about names keeps nothing": {[]request{{verb: "create", object: "authorization.k8s.io/localsubjectaccessreviews:shop/", code: 201}}, nil},
		"while changes were not on record": {[]request{
			{verb: "create", object: maps, code: 201, off: true}, {verb: "patch", object: maps + "b", code: 200, off: true}, {verb: "delete", object: maps + "b", code: 200, off: true},
			{verb: "patch", object: maps + "c", code: 200, off: true, uri: "/x?dryRun=All"}, {verb: "patch", object: maps + "d", code: 422, off: true},
		}, []string{"Created configmaps?Unnamed", "Changed configmaps b?DeletionAsked", "not all is known"}},
		"what the API server asks nobody about": {[]request{{verb: "patch", object: "admissionregistration.k8s.io/validatingwebhookconfigurations:/w", code: 200}}, []string{"Changed validatingwebhookconfigurations w Permissions", "not all is known"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := said(reckon(test.done...)); !reflect.DeepEqual(got, test.want) {
				t.Errorf("left behind is %q, want %q", got, test.want)
			}
		})
	}
}

func TestManyObjectsAreCountedAndHideNoneThatCouldLetSomebodyIn(t *testing.T) {
	var done []request
	for i := range 10_000 {
		done = append(done, request{verb: "create", object: maps, tries: []string{fmt.Sprintf("CREATE a%05d", i)}, code: 201})
		if i == 5_000 {
			done = append(done, request{verb: "create", object: roles, tries: []string{"CREATE hidden"}, code: 201})
		}
	}
	behind := reckon(done...)
	if len(behind.Objects) != MaxObjects || behind.DroppedObjects != 10_001-MaxObjects {
		t.Errorf("%d are listed and %d counted", len(behind.Objects), behind.DroppedObjects)
	}
	if behind.Objects[0].Name != "hidden" {
		t.Errorf("the first is %+v", behind.Objects[0])
	}
}

func TestWhatCannotBeToldApartIsCountedAndWhatCouldLetSomebodyInIsStillListed(t *testing.T) {
	r := New()
	add := func(q request, id int) {
		for _, e := range slices.Backward(q.entries(id)) {
			r.Add(e)
		}
	}
	for i := range most + 10 {
		add(request{verb: "create", object: maps, tries: []string{fmt.Sprintf("CREATE a%d", i)}, code: 201}, i)
	}
	add(request{verb: "create", object: roles, tries: []string{"CREATE hidden"}, code: 201}, most+10)
	behind := r.Behind(MaxObjects, MaxSeen)
	if behind.Objects[0].Name != "hidden" || int(behind.DroppedObjects) != most+10+1-MaxObjects || behind.Unknown == "" {
		t.Errorf("the first is %+v, %d are counted, %q", behind.Objects[0], behind.DroppedObjects, behind.Unknown)
	}
}

func TestWhatANameIsMadeOfIsLegible(t *testing.T) {
	behind := reckon(request{verb: "patch", object: "example.com/things:shop/a", tries: []string{"UPDATE \x1b[2J" + strings.Repeat("ä", 300)}, code: 200})
	name := behind.Objects[0].Name
	if len(name) != maxName || strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c > '~' }) {
		t.Errorf("the name is %q", name)
	}
}
