package sweep

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/internal/review"
	"supportaccess.dev/operator/test/world"
)

var createOptions = metav1.CreateOptions{}

// everybody is any ServiceAccount of the cluster: what it may do, an engineer may do without any grant.
func everybody() identity {
	return identity{user: "system:serviceaccount:default:anybody", groups: []string{
		"system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated",
	}}
}

func TestAnEngineerMayDoWhatTheRoleSaysAndNothingElse(t *testing.T) {
	w := newWorld(t)
	engineers := map[string]engineer{}
	for role := range shipped() {
		engineers[role] = opens(t, w, role)
	}
	elsewhere := w.Namespace(t)
	resources := universe(t, w)
	t.Logf("%d resources and subresources, %d verbs, %d paths", len(resources), len(requests)+len(asked), len(paths))
	anyway := allowed(t, w, everybody(), questionsElsewhere(resources, elsewhere))
	isOnPage(t, "everybody", page("What every ServiceAccount of a cluster may do anyway, without any grant.", []section{
		{"in any namespace", within(anyway, elsewhere)}, {"paths", pathsOf(anyway)},
	}))
	for _, q := range beyond(within(anyway, ""), within(anyway, elsewhere)) {
		t.Errorf("everybody may %s, and not in a namespace", q)
	}
	for role, plain := range shipped() {
		t.Run(role, func(t *testing.T) { sweepOf(t, w, engineers[role], sweepOver{resources, elsewhere, anyway, plain}) })
	}
}

// sweepOver is what each role is asked about.
type sweepOver struct {
	resources []resource
	elsewhere string
	anyway    []question
	// plain says that it is a role that changes nothing.
	plain bool
}

func sweepOf(t *testing.T, w *world.World, e engineer, over sweepOver) {
	who := whoami(t, e.config)
	isAnEngineer(t, who)
	may := allowed(t, w, who, slices.Concat(
		questions(over.resources, e.namespace, slices.Concat(requests, asked)...), questionsElsewhere(over.resources, over.elsewhere)))
	granted := beyond(within(may, e.namespace), within(over.anyway, over.elsewhere))
	outside := slices.DeleteFunc(beyond(may, over.anyway), func(q question) bool { return q.namespace == e.namespace })
	isOnPage(t, e.role, page("What "+e.role+" gives an engineer beyond what every ServiceAccount may do anyway.", []section{
		{"in the granted namespace", granted}, {"anywhere else", outside},
	}))
	for _, q := range outside {
		t.Errorf("outside the granted namespace: %s is allowed", q)
	}
	if len(granted) == 0 {
		t.Error("the role gives nothing")
	}
	for _, q := range granted {
		if over.plain {
			isPlain(t, q)
		}
		isNotNever(t, q)
	}
	for _, reason := range review.Never(rulesOf(t, w, e.role)) {
		t.Errorf("%s %s", e.role, reason)
	}
	namesNothingElse(t, e, over.elsewhere)
}

// isAnEngineer asserts that a credential is one of support access, in no group but those of its kind.
func isAnEngineer(t *testing.T, who identity) {
	t.Helper()
	groups := []string{"system:authenticated", "system:serviceaccounts", "system:serviceaccounts:" + world.CredentialsNamespace}
	if !strings.HasPrefix(who.user, "system:serviceaccount:"+world.CredentialsNamespace+":") || !slices.Equal(slices.Sorted(slices.Values(who.groups)), groups) {
		t.Fatalf("the engineer is %q in %q", who.user, who.groups)
	}
}

// isPlain asserts what holds for every role that needs no case: it reads, and no content.
func isPlain(t *testing.T, q question) {
	t.Helper()
	reads := slices.Contains([]string{"get", "list", "watch"}, q.verb)
	asks := q.verb == "create" && q.resource == parse("localsubjectaccessreviews.authorization.k8s.io")
	if !reads && !asks {
		t.Errorf("a plain role writes: %s", q)
	}
	r := q.resource
	streams := slices.Contains([]string{"exec", "attach", "portforward", "proxy", "ephemeralcontainers"}, r.sub)
	if r.name == "secrets" || r.name == "nodes" || streams || r.sub == "token" || r.name == "*" || r.sub == "*" || q.path != "" {
		t.Errorf("a plain role reaches content, nodes or identities: %s", q)
	}
}

// isNotNever asserts that what is allowed is not on the list of what support access never gives.
func isNotNever(t *testing.T, q question) {
	t.Helper()
	name := q.resource.name
	if q.resource.sub != "" {
		name += "/" + q.resource.sub
	}
	for _, reason := range review.Never([]rbacv1.PolicyRule{{Verbs: []string{q.verb}, APIGroups: []string{q.resource.group}, Resources: []string{name}}}) {
		t.Errorf("%s: %s", q, reason)
	}
}

// namesNothingElse asserts that what an engineer may do with objects by name is to read their own credential and grant.
func namesNothingElse(t *testing.T, e engineer, elsewhere string) {
	t.Helper()
	own := false
	for _, namespace := range []string{e.namespace, elsewhere, world.SystemNamespace, world.CredentialsNamespace, "kube-system", "default"} {
		for _, rule := range named(t, e.config, namespace) {
			mine := namespace == world.CredentialsNamespace && slices.Equal(rule.Verbs, []string{"get"}) &&
				slices.Equal(rule.Resources, []string{"secrets"}) && slices.Equal(rule.ResourceNames, []string{e.secret})
			if own = own || mine; !mine {
				t.Errorf("in %s by name: %s %s %s", namespace, rule.Verbs, rule.Resources, rule.ResourceNames)
			}
		}
	}
	if !own {
		t.Error("the engineer may not read their own credential, so the question finds nothing")
	}
}

func within(all []question, namespace string) []question {
	return only(all, func(q question) bool { return q.path == "" && q.namespace == namespace })
}

func pathsOf(all []question) []question {
	return only(all, func(q question) bool { return q.path != "" })
}

func only(all []question, keep func(question) bool) []question {
	return slices.DeleteFunc(slices.Clone(all), func(q question) bool { return !keep(q) })
}

// beyond are the questions that are answered yes to one and no to the other, wherever they were asked.
func beyond(all, anyway []question) []question {
	known := map[question]bool{}
	for _, q := range anyway {
		q.namespace = ""
		known[q] = true
	}
	return only(all, func(q question) bool {
		q.namespace = ""
		return !known[q]
	})
}

// section is a part of a page.
type section struct {
	title string
	rows  []question
}

// page is a role's, as it lies in testdata: a line for each resource, with its verbs.
func page(title string, sections []section) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n# Written by go test ./test/sweep -update.\n", title)
	for _, s := range sections {
		fmt.Fprintf(&b, "\n[%s]\n", s.title)
		verbsOf := map[string][]string{}
		for _, q := range s.rows {
			what := cmp.Or(q.path, q.resource.String())
			if !slices.Contains(verbsOf[what], q.verb) {
				verbsOf[what] = append(verbsOf[what], q.verb)
			}
		}
		var names []string
		for what := range verbsOf {
			names = append(names, what)
		}
		slices.Sort(names)
		for _, what := range names {
			fmt.Fprintf(&b, "%s: %s\n", what, strings.Join(verbsOf[what], " "))
		}
		if len(names) == 0 {
			b.WriteString("nothing\n")
		}
	}
	return b.String()
}

// isOnPage compares what was found with the page in testdata, or writes it.
func isOnPage(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: write it with -update", err)
	}
	if got == string(want) {
		return
	}
	before, after := strings.Split(string(want), "\n"), strings.Split(got, "\n")
	for _, line := range after {
		if !slices.Contains(before, line) {
			t.Errorf("%s: the API server says, and the page does not: %s", path, line)
		}
	}
	for _, line := range before {
		if !slices.Contains(after, line) {
			t.Errorf("%s: the page says, and the API server does not: %s", path, line)
		}
	}
	if !t.Failed() {
		t.Errorf("%s: the same lines in another order or section: compare after -update", path)
	}
}
