package gateway

import (
	"net/http"
	"path"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/review"
)

// discovery are the paths by which clients find out what the API server serves.
var discovery = []string{"/api", "/api/", "/apis", "/apis/", "/openapi/v2", "/openapi/v3", "/version", "/version/", "/healthz", "/livez", "/readyz"}

// selfReviews are what everybody may ask about oneself: kubectl auth whoami and auth can-i.
var selfReviews = map[string]string{
	"selfsubjectaccessreviews": "authorization.k8s.io",
	"selfsubjectrulesreviews":  "authorization.k8s.io",
	"selfsubjectreviews":       "authentication.k8s.io",
}

// judge says which rule a request of an engineer breaks, empty if it may be forwarded. What it lets through the API server
// judges once more, by the engineer's own bindings.
func judge(s *standing, namespaces []string, r *http.Request, info *apirequest.RequestInfo) string {
	if !info.IsResourceRequest {
		return judgePath(r, info)
	}
	asked := ruleOf(info)
	if reasons := review.Overlap([]rbacv1.PolicyRule{asked}, s.never); len(reasons) > 0 {
		return "a rule that never bends: " + strings.Join(reasons, "; ")
	}
	if info.Verb == "create" && info.Namespace == "" && info.Subresource == "" && selfReviews[info.Resource] == info.APIGroup && info.APIGroup != "" {
		return ""
	}
	if !slices.Contains(namespaces, "") && !slices.Contains(namespaces, info.Namespace) {
		if info.Namespace == "" {
			return inWords(asked) + " of all namespaces, or of something that is in none: the grant is for " + strings.Join(namespaces, ", ")
		}
		return "namespace " + info.Namespace + ": the grant is for " + strings.Join(namespaces, ", ")
	}
	if !s.allows(asked) {
		if s.flagsOf(info) != nil {
			return judgeFlagged(r)
		}
		return inWords(asked) + ": none of its roles " + strings.Join(s.roleNames(), ", ") + " allows it"
	}
	return judgeStream(r, info)
}

// judgePath lets discovery through and nothing else beside the API's resources. Nor does the API server let anybody ask for
// the head of such a path alone: its verb is head, and no role has that.
func judgePath(r *http.Request, info *apirequest.RequestInfo) string {
	if r.Method != http.MethodGet {
		return r.Method + " of " + info.Path + ": a path beside the API's resources"
	}
	if slices.Contains(discovery, info.Path) || strings.HasPrefix(info.Path, "/openapi/v3/") ||
		strings.HasPrefix(info.Path, "/apis/") || strings.HasPrefix(info.Path, "/api/") {
		return ""
	}
	return "path " + info.Path + " is beside the API's resources"
}

// ruleOf says what a request asks for, as a rule that allows just that. A request without a name is for every name.
func ruleOf(info *apirequest.RequestInfo) rbacv1.PolicyRule {
	resource := info.Resource
	if info.Subresource != "" {
		resource += "/" + info.Subresource
	}
	rule := rbacv1.PolicyRule{Verbs: []string{info.Verb}, APIGroups: []string{info.APIGroup}, Resources: []string{resource}}
	if info.Name != "" {
		rule.ResourceNames = []string{info.Name}
	}
	return rule
}

// allows reports whether one of the grant's roles allows what a request asks for, whatever it finds. What the role of flagged
// content allows depends on that.
func (s *standing) allows(asked rbacv1.PolicyRule) bool {
	for name, rules := range s.roles {
		if name != v1alpha1.FlaggedRole && cover(rules, asked) {
			return true
		}
	}
	return false
}

func cover(rules []rbacv1.PolicyRule, asked rbacv1.PolicyRule) bool {
	return slices.ContainsFunc(rules, func(rule rbacv1.PolicyRule) bool { return covers(rule, asked) })
}

// covers reads a role's rule as RBAC does, but takes no wildcard for an answer: a role that says everything would say
// more tomorrow than it did when it was granted.
func covers(rule, asked rbacv1.PolicyRule) bool {
	named := len(rule.ResourceNames) == 0 || len(asked.ResourceNames) == 1 && slices.Contains(rule.ResourceNames, asked.ResourceNames[0])
	return named && slices.Contains(rule.Verbs, asked.Verbs[0]) && slices.Contains(rule.APIGroups, asked.APIGroups[0]) &&
		slices.Contains(rule.Resources, asked.Resources[0])
}

func (s *standing) roleNames() []string {
	return s.facts.Record.Spec.Roles
}

// inWords says what a request asks for.
func inWords(asked rbacv1.PolicyRule) string {
	text := asked.Verbs[0] + " " + asked.Resources[0]
	if group := asked.APIGroups[0]; group != "" {
		text += "." + group
	}
	return text
}

// judgeStream refuses to carry files out of a pod, as far as that can be told from a command.
func judgeStream(r *http.Request, info *apirequest.RequestInfo) string {
	if info.Resource != "pods" || info.Subresource != "exec" {
		return ""
	}
	for _, word := range r.URL.Query()["command"] {
		for part := range strings.FieldsSeq(word) {
			if path.Base(part) == "tar" {
				return "exec of tar, which kubectl cp does: files are not carried away"
			}
		}
	}
	return ""
}
