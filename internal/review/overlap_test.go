package review

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	rbacvalidation "k8s.io/component-helpers/auth/rbac/validation"

	"supportaccess.dev/operator/test/gen"
)

type rules = []rbacv1.PolicyRule

func resources(groups, resources, verbs string, names ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: words(groups), Resources: words(resources), Verbs: words(verbs), ResourceNames: names}
}

func paths(paths, verbs string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{NonResourceURLs: words(paths), Verbs: words(verbs)}
}

// words reads a list; core stands for the core group.
func words(text string) []string {
	list := strings.Fields(text)
	for i, word := range list {
		if word == "core" {
			list[i] = ""
		}
	}
	return list
}

func TestARoleOverlapsANeverRuleByAnythingTheyShare(t *testing.T) {
	cases := map[string]struct {
		role, never rbacv1.PolicyRule
		want        string
	}{
		"the same":                               {resources("core", "secrets", "list"), resources("core", "secrets", "list"), "allows list of secrets"},
		"one verb of many":                       {resources("core", "secrets", "get list"), resources("core", "secrets", "watch list"), "allows list of secrets"},
		"no verb":                                {resources("core", "secrets", "get"), resources("core", "secrets", "watch list"), ""},
		"one resource of many":                   {resources("core", "pods secrets", "list"), resources("core", "secrets nodes", "list"), "allows list of secrets"},
		"no resource":                            {resources("core", "pods", "list"), resources("core", "secrets", "list"), ""},
		"one group of many":                      {resources("core apps", "deployments", "get"), resources("batch apps", "deployments", "get"), "allows get of deployments in apps"},
		"no group":                               {resources("core", "deployments", "get"), resources("apps", "deployments", "get"), ""},
		"the core group among others":            {resources("core apps", "deployments", "get"), resources("*", "deployments", "get"), "allows get of deployments in the core group, apps"},
		"a role of all verbs":                    {resources("core", "secrets", "*"), resources("core", "secrets", "list"), "allows list of secrets"},
		"a rule of all verbs":                    {resources("core", "secrets", "get"), resources("core", "secrets", "*"), "allows get of secrets"},
		"both of all verbs":                      {resources("core", "secrets", "*"), resources("core", "secrets", "*"), "allows * of secrets"},
		"a role of all groups":                   {resources("*", "secrets", "list"), resources("core", "secrets", "list"), "allows list of secrets"},
		"both of all groups":                     {resources("*", "secrets", "list"), resources("*", "secrets", "list"), "allows list of secrets in every group"},
		"a role of all resources":                {resources("core", "*", "list"), resources("core", "secrets", "list"), "allows list of secrets"},
		"a role of all resources, a subresource": {resources("core", "*", "create"), resources("core", "pods/exec", "create"), "allows create of pods/exec"},
		"a rule of all resources":                {resources("apps", "deployments/scale", "update"), resources("apps", "*", "update"), "allows update of deployments/scale in apps"},
		"a resource is not its subresource":      {resources("core", "pods", "create"), resources("core", "pods/exec", "create"), ""},
		"a subresource is not its resource":      {resources("core", "pods/exec", "create"), resources("core", "pods", "create"), ""},
		"a subresource of every resource":        {resources("apps", "*/scale", "update"), resources("apps", "deployments/scale", "update"), "allows update of deployments/scale in apps"},
		"a rule for a subresource of every one":  {resources("core", "services/proxy", "get"), resources("*", "*/proxy", "*"), "allows get of services/proxy"},
		"both for a subresource of every one":    {resources("core", "*/proxy", "get"), resources("*", "*/proxy", "*"), "allows get of */proxy"},
		"another subresource of every resource":  {resources("core", "*/status", "get"), resources("*", "*/proxy", "*"), ""},
		"*/sub is not the resource":              {resources("core", "*/exec", "create"), resources("core", "pods", "create"), ""},
		"a rule for every subresource of one":    {resources("core", "nodes/metrics", "get"), resources("core", "nodes/*", "*"), "allows get of nodes/metrics"},
		"every subresource is not the resource":  {resources("core", "nodes", "get"), resources("core", "nodes/*", "*"), ""},
		"every subresource of another resource":  {resources("core", "pods/log", "get"), resources("core", "nodes/*", "*"), ""},
		"*/sub meets every subresource of one":   {resources("core", "*/log", "get"), resources("core", "nodes/*", "*"), "allows get of nodes/log"},
		"a rule for every subresource":           {resources("core", "pods/log", "get"), resources("core", "*/*", "*"), "allows get of pods/log"},
		"resource/* in a role names nothing":     {resources("core", "pods/*", "create"), resources("core", "pods/exec", "create"), ""},
		"the same name":                          {resources("core", "secrets", "get", "a"), resources("core", "secrets", "get", "b", "a"), "allows get of secrets named a"},
		"another name":                           {resources("core", "secrets", "get", "a"), resources("core", "secrets", "get", "b"), ""},
		"a role of any name":                     {resources("core", "secrets", "get"), resources("core", "secrets", "get", "b"), "allows get of secrets named b"},
		"a rule of any name":                     {resources("core", "secrets", "get", "a"), resources("core", "secrets", "get"), "allows get of secrets named a"},
		"a rule of any name, in a word":          {resources("core", "secrets", "get", "a"), resources("core", "secrets", "get", "*"), "allows get of secrets named a"},
		"a name that is an asterisk":             {resources("core", "secrets", "get", "*"), resources("core", "secrets", "get", "a"), ""},
		"a verb that begins so":                  {resources("core", "users", "impersonate:user-info"), resources("*", "*", "impersonate*"), "allows impersonate:user-info of users"},
		"a verb that begins otherwise":           {resources("core", "users", "get"), resources("*", "*", "impersonate*"), ""},
		"all verbs begin so, too":                {resources("core", "users", "*"), resources("*", "*", "impersonate*"), "allows impersonate* of users"},
		"the same path":                          {paths("/metrics", "get"), paths("/metrics", "get"), "allows get of /metrics"},
		"another path":                           {paths("/metrics", "get"), paths("/logs", "get"), ""},
		"a path below":                           {paths("/debug/pprof", "get"), paths("/debug/*", "get"), "allows get of /debug/pprof"},
		"a path above":                           {paths("/debug/*", "get"), paths("/debug/pprof/heap", "get"), "allows get of /debug/pprof/heap"},
		"two trees, one in the other":            {paths("/debug/*", "get"), paths("/debug/pprof/*", "get"), "allows get of /debug/pprof/*"},
		"two trees":                              {paths("/debug/*", "get"), paths("/metrics/*", "get"), ""},
		"every path":                             {paths("*", "get"), paths("/metrics", "get"), "allows get of /metrics"},
		"a path is not a resource":               {paths("*", "*"), resources("*", "*", "*"), ""},
		"a resource is not a path":               {resources("*", "*", "*"), paths("*", "*"), ""},
		"a role of nothing":                      {rbacv1.PolicyRule{}, resources("*", "*", "*"), ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var want []string
			if c.want != "" {
				want = []string{c.want}
			}
			expect(t, Overlap(rules{c.role}, rules{c.never}), want)
		})
	}
}

func TestOverlapsAreSaidOnceAndInOrder(t *testing.T) {
	role := rules{resources("core", "secrets", "watch list"), resources("core", "pods/exec", "create"), resources("core", "secrets", "list watch", "a")}
	never := rules{resources("*", "*/exec", "*"), resources("core", "secrets", "watch list"), resources("core", "secrets", "list watch")}
	expect(t, Overlap(role, never), []string{
		"allows create of pods/exec", "allows list, watch of secrets", "allows list, watch of secrets named a",
	})
}

// request is one concrete request: for a resource, or for a path.
type request struct{ verb, group, resource, subresource, name, path string }

// allowedBy asks RBAC: its own check of one rule against one that says this request and no more.
func (r request) allowedBy(role rules) bool {
	asked := rbacv1.PolicyRule{Verbs: []string{r.verb}}
	switch {
	case r.path != "":
		asked.NonResourceURLs = []string{r.path}
	default:
		asked.APIGroups, asked.Resources = []string{r.group}, []string{strings.TrimSuffix(r.resource+"/"+r.subresource, "/")}
	}
	if r.name != "" {
		asked.ResourceNames = []string{r.name}
	}
	allowed, _ := rbacvalidation.Covers(role, rules{asked})
	return allowed
}

// namedBy says whether a never-list names the request, word by word as the documentation of Overlap has it.
func (r request) namedBy(never rules) bool {
	return slices.ContainsFunc(never, func(n rbacv1.PolicyRule) bool {
		if !some(n.Verbs, func(v string) bool { return begins(v, r.verb) }) {
			return false
		}
		if r.path != "" {
			return some(n.NonResourceURLs, func(p string) bool { return begins(p, r.path) })
		}
		return some(n.APIGroups, func(g string) bool { return g == "*" || g == r.group }) &&
			some(n.Resources, r.isOf) &&
			(len(n.ResourceNames) == 0 || some(n.ResourceNames, func(name string) bool { return name == "*" || name == r.name }))
	})
}

func (r request) isOf(pattern string) bool {
	if pattern == "*" {
		return true
	}
	resource, subresource, _ := strings.Cut(pattern, "/")
	if !strings.Contains(pattern, "/") {
		return r.subresource == "" && resource == r.resource
	}
	return r.subresource != "" && (resource == "*" || resource == r.resource) && (subresource == "*" || subresource == r.subresource)
}

func begins(pattern, word string) bool {
	if strings.HasSuffix(pattern, "*") {
		return strings.HasPrefix(word, strings.TrimRight(pattern, "*"))
	}
	return pattern == word
}

func some(list []string, is func(string) bool) bool { return slices.ContainsFunc(list, is) }

// everyRequest are all requests of a small world, in which every word and wildcard of the alphabet below has a witness.
func everyRequest() []request {
	var all []request
	for _, verb := range []string{"get", "list", "impersonate", "impersonate:x", "impersonate*", "other"} {
		for _, path := range []string{"/a", "/ab", "/a/b", "/a/b/c", "/b", "/other"} {
			all = append(all, request{verb: verb, path: path})
		}
		for _, group := range []string{"", "apps", "other"} {
			for _, resource := range []string{"pods", "nodes", "other"} {
				for _, subresource := range []string{"", "exec", "log", "*", "other"} {
					for _, name := range []string{"", "a", "b", "*", "other"} {
						all = append(all, request{verb: verb, group: group, resource: resource, subresource: subresource, name: name})
					}
				}
			}
		}
	}
	return all
}

// TestOverlapIsWhatSomeRequestShows: whenever RBAC allows a role some request that a never-list names, Overlap says so;
// and whenever Overlap says so, there is such a request.
func TestOverlapIsWhatSomeRequestShows(t *testing.T) {
	random := rand.New(rand.NewPCG(4711, 1)) //nolint:gosec // Repeatable, not secret.
	requests := everyRequest()
	overlapping, apart := 0, 0
	for range 4000 {
		role, never := randomRules(random, ofRoles), randomRules(random, ofNeverRules)
		witness := slices.IndexFunc(requests, func(r request) bool { return r.namedBy(never) && r.allowedBy(role) })
		reasons := Overlap(role, never)
		switch {
		case witness >= 0 && len(reasons) == 0:
			t.Fatalf("%+v is allowed by %s and named by %s, and Overlap is silent", requests[witness], show(role), show(never))
		case witness < 0 && len(reasons) > 0:
			t.Fatalf("Overlap says %q of %s and %s, and no request shows it", reasons, show(role), show(never))
		case witness >= 0:
			overlapping++
		default:
			apart++
		}
	}
	if overlapping < 500 || apart < 500 {
		t.Errorf("%d overlap and %d do not: the rules are too much alike to say anything", overlapping, apart)
	}
}

// alphabet is what random rules are made of.
type alphabet struct{ verbs, groups, resources, names, paths []string }

// A never-rule may hold wildcards that RBAC does not know.
var (
	ofRoles = alphabet{
		verbs:     []string{"get", "list", "impersonate", "impersonate:x", "*"},
		groups:    []string{"", "apps", "*"},
		resources: []string{"pods", "nodes", "pods/exec", "nodes/log", "pods/*", "*/exec", "*/log", "*/*", "*"},
		names:     []string{"a", "b", "*"},
		paths:     []string{"/a", "/ab", "/a*", "/a/*", "/a/b", "/a/b/*", "/b", "/b**", "*"},
	}
	ofNeverRules = alphabet{
		verbs: append([]string{"impersonate*"}, ofRoles.verbs...), groups: ofRoles.groups, resources: ofRoles.resources, names: ofRoles.names, paths: ofRoles.paths,
	}
)

// randomRules are up to three rules.
func randomRules(random *rand.Rand, of alphabet) rules {
	var list rules
	for range 1 + random.IntN(3) {
		rule := rbacv1.PolicyRule{Verbs: oneOrTwo(random, of.verbs)}
		if random.IntN(4) == 0 {
			rule.NonResourceURLs = oneOrTwo(random, of.paths)
		} else {
			rule.APIGroups = oneOrTwo(random, of.groups)
			rule.Resources = oneOrTwo(random, of.resources)
			if random.IntN(2) == 0 {
				rule.ResourceNames = oneOrTwo(random, of.names)
			}
		}
		list = append(list, rule)
	}
	return list
}

func oneOrTwo(random *rand.Rand, of []string) []string {
	var picked []string
	for range 1 + random.IntN(2) {
		picked = append(picked, of[random.IntN(len(of))])
	}
	return picked
}

func show(list rules) string {
	var text []string
	for _, r := range list {
		text = append(text, fmt.Sprintf("{verbs %q groups %q resources %q names %q paths %q}", r.Verbs, r.APIGroups, r.Resources, r.ResourceNames, r.NonResourceURLs))
	}
	return strings.Join(text, " ")
}

func TestTheDigestIsOfWhatIsAllowedAndNotOfHowItIsWritten(t *testing.T) {
	written := rules{resources("core apps", "pods secrets", "get list", "a", "b"), paths("/a /b", "get"), gen.Rule("batch", []string{"jobs"}, []string{"get"})}
	same := map[string]rules{
		"as it was written":          written,
		"rules in another order":     {written[2], written[0], written[1]},
		"a rule twice":               append(slices.Clone(written), written[2]),
		"words in another order":     {resources("apps core", "secrets pods", "list get", "b", "a"), paths("/b /a", "get"), written[2]},
		"a word twice":               {resources("core apps core", "pods secrets", "get list list", "a", "b"), written[1], written[2]},
		"a rule in two":              {resources("core apps", "pods secrets", "get", "a", "b"), resources("core apps", "pods secrets", "list", "a", "b"), written[1], written[2]},
		"a rule that allows nothing": append(slices.Clone(written), rbacv1.PolicyRule{APIGroups: []string{"x"}, Resources: []string{"y"}}),
	}
	want := RulesDigest(written)
	for name, list := range same {
		if got := RulesDigest(list); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	others := map[string]rules{
		"nothing":            nil,
		"a verb more":        {resources("core apps", "pods secrets", "get list watch", "a", "b"), written[1], written[2]},
		"a verb fewer":       {resources("core apps", "pods secrets", "get", "a", "b"), written[1], written[2]},
		"any name":           {resources("core apps", "pods secrets", "get list"), written[1], written[2]},
		"another path":       {written[0], paths("/a /c", "get"), written[2]},
		"another group":      {resources("core", "pods secrets", "get list", "a", "b"), written[1], written[2]},
		"a resource more":    {resources("core apps", "pods secrets nodes", "get list", "a", "b"), written[1], written[2]},
		"a word with spaces": {resources("core apps", "pods secrets", "get list", "a b"), written[1], written[2]},
	}
	seen := map[string]string{want: "as it was written"}
	for name, list := range others {
		digest := RulesDigest(list)
		if other, again := seen[digest]; again {
			t.Errorf("%s and %s have one digest", name, other)
		}
		seen[digest] = name
	}
	if len(want) != 64 || strings.Trim(want, "0123456789abcdef") != "" {
		t.Errorf("%q cannot be part of an object's name", want)
	}
}
