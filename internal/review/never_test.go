package review

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	"supportaccess.dev/operator/test/gen"
)

func TestWhatSupportAccessNeverGives(t *testing.T) {
	cases := map[string]struct {
		rule rbacv1.PolicyRule
		want string
	}{
		"reading grants":                    {resources("supportaccess.dev", "supportaccessgrants", "get"), "allows get of supportaccessgrants in supportaccess.dev"},
		"revoking":                          {resources("supportaccess.dev", "supportaccessgrants", "revoke"), "allows revoke of supportaccessgrants in supportaccess.dev"},
		"a grant's status":                  {resources("supportaccess.dev", "supportaccessgrants/status", "patch"), "allows patch of supportaccessgrants/status in supportaccess.dev"},
		"making decisions":                  {resources("supportaccess.dev", "supportaccessdecisions", "create"), "allows create of supportaccessdecisions in supportaccess.dev"},
		"editing policies":                  {resources("supportaccess.dev", "supportaccesspolicies", "update"), "allows update of supportaccesspolicies in supportaccess.dev"},
		"reading records":                   {resources("supportaccess.dev", "supportaccessrecords", "list"), "allows list of supportaccessrecords in supportaccess.dev"},
		"switching":                         {resources("supportaccess.dev", "supportaccesssettings", "update"), "allows update of supportaccesssettings in supportaccess.dev"},
		"sessions":                          {resources("supportaccess.dev", "supportaccesssessions", "get"), "allows get of supportaccesssessions in supportaccess.dev"},
		"making requests":                   {resources("supportaccess.dev", "supportaccessrequests", "create"), ""},
		"reading requests":                  {resources("supportaccess.dev", "supportaccessrequests", "get"), "allows get of supportaccessrequests in supportaccess.dev"},
		"a request's status":                {resources("supportaccess.dev", "supportaccessrequests/status", "update"), "allows update of supportaccessrequests/status in supportaccess.dev"},
		"reading roles":                     {resources("rbac.authorization.k8s.io", "roles rolebindings clusterroles", "get list watch"), ""},
		"making a RoleBinding":              {resources("rbac.authorization.k8s.io", "rolebindings", "create"), "allows create of rolebindings in rbac.authorization.k8s.io"},
		"patching a ClusterRole":            {resources("rbac.authorization.k8s.io", "clusterroles", "patch"), "allows patch of clusterroles in rbac.authorization.k8s.io"},
		"OpenShift's own bindings":          {resources("authorization.openshift.io", "rolebindings", "create"), "allows create of rolebindings in authorization.openshift.io"},
		"binding one role":                  {resources("rbac.authorization.k8s.io", "clusterroles", "bind", "view"), "allows bind of clusterroles in rbac.authorization.k8s.io named view"},
		"escalating":                        {resources("rbac.authorization.k8s.io", "roles", "escalate"), "allows escalate of roles in rbac.authorization.k8s.io"},
		"impersonating one user":            {resources("core", "users", "impersonate", "bob"), "allows impersonate of users named bob"},
		"impersonating an extra":            {resources("authentication.k8s.io", "userextras/scopes", "impersonate"), "allows impersonate of userextras/scopes in authentication.k8s.io"},
		"impersonating, constrained":        {resources("authentication.k8s.io", "users", "impersonate:user-info"), "allows impersonate:user-info of users in authentication.k8s.io"},
		"impersonating on something":        {resources("core", "pods", "impersonate-on:user-info:list"), "allows impersonate-on:user-info:list of pods"},
		"tokens":                            {resources("core", "serviceaccounts/token", "create"), "allows create of serviceaccounts/token"},
		"a token of one ServiceAccount":     {resources("core", "serviceaccounts/token", "create", "default"), "allows create of serviceaccounts/token named default"},
		"making Secrets":                    {resources("core", "secrets", "create"), "allows create of secrets"},
		"a Secret by name":                  {resources("core", "secrets", "get"), ""},
		"listing Secrets":                   {resources("core", "secrets", "list"), "allows list of secrets"},
		"listing one Secret":                {resources("core", "secrets", "list", "a"), "allows list of secrets named a"},
		"watching Secrets":                  {resources("core", "secrets", "watch"), "allows watch of secrets"},
		"deleting all Secrets":              {resources("core", "secrets", "deletecollection"), "allows deletecollection of secrets"},
		"reading signing requests":          {resources("certificates.k8s.io", "certificatesigningrequests", "get list"), ""},
		"making a signing request":          {resources("certificates.k8s.io", "certificatesigningrequests", "create"), "allows create of certificatesigningrequests in certificates.k8s.io"},
		"approving one":                     {resources("certificates.k8s.io", "certificatesigningrequests/approval", "update"), "allows update of certificatesigningrequests/approval in certificates.k8s.io"},
		"approving by a signer":             {resources("certificates.k8s.io", "signers", "approve"), "allows approve of signers in certificates.k8s.io"},
		"signing by a signer":               {resources("certificates.k8s.io", "signers", "sign", "kubernetes.io/kube-apiserver-client"), "allows sign of signers in certificates.k8s.io named kubernetes.io/kube-apiserver-client"},
		"attesting a trust bundle":          {resources("certificates.k8s.io", "signers", "attest"), "allows attest of signers in certificates.k8s.io"},
		"a webhook":                         {resources("admissionregistration.k8s.io", "validatingwebhookconfigurations", "delete"), "allows delete of validatingwebhookconfigurations in admissionregistration.k8s.io"},
		"an admission policy":               {resources("admissionregistration.k8s.io", "validatingadmissionpolicies", "patch"), "allows patch of validatingadmissionpolicies in admissionregistration.k8s.io"},
		"reading webhooks":                  {resources("admissionregistration.k8s.io", "validatingwebhookconfigurations", "get"), ""},
		"an APIService":                     {resources("apiregistration.k8s.io", "apiservices", "create"), "allows create of apiservices in apiregistration.k8s.io"},
		"a CRD":                             {resources("apiextensions.k8s.io", "customresourcedefinitions", "deletecollection"), "allows deletecollection of customresourcedefinitions in apiextensions.k8s.io"},
		"a CRD's status":                    {resources("apiextensions.k8s.io", "customresourcedefinitions/status", "update"), "allows update of customresourcedefinitions/status in apiextensions.k8s.io"},
		"nodes":                             {resources("core", "nodes", "get list watch"), ""},
		"nodes/proxy":                       {resources("core", "nodes/proxy", "get"), "allows get of nodes/proxy"},
		"nodes/log":                         {resources("core", "nodes/log", "get"), "allows get of nodes/log"},
		"nodes/metrics":                     {resources("core", "nodes/metrics", "get"), "allows get of nodes/metrics"},
		"pods/exec":                         {resources("core", "pods/exec pods/attach", "create"), ""},
		"pods/portforward":                  {resources("core", "pods/portforward", "create"), "allows create of pods/portforward"},
		"pods/portforward by GET":           {resources("core", "pods/portforward", "get"), "allows get of pods/portforward"},
		"pods/proxy":                        {resources("core", "pods/proxy", "get"), "allows get of pods/proxy"},
		"services/proxy":                    {resources("core", "services/proxy", "create"), "allows create of services/proxy"},
		"a product's proxy":                 {resources("product.example", "things/proxy", "get"), "allows get of things/proxy in product.example"},
		"reading PVCs":                      {resources("core", "persistentvolumeclaims", "get list watch"), ""},
		"making PVCs":                       {resources("core", "persistentvolumeclaims", "create"), "allows create of persistentvolumeclaims"},
		"making snapshots":                  {resources("snapshot.storage.k8s.io", "volumesnapshots", "create"), "allows create of volumesnapshots in snapshot.storage.k8s.io"},
		"making group snapshots":            {resources("groupsnapshot.storage.k8s.io", "volumegroupsnapshots", "create"), "allows create of volumegroupsnapshots in groupsnapshot.storage.k8s.io"},
		"reading snapshots":                 {resources("snapshot.storage.k8s.io", "volumesnapshots", "get list"), ""},
		"all verbs":                         {resources("core", "pods", "*"), "allows * of pods, a wildcard"},
		"all groups":                        {resources("*", "pods", "get"), "allows get of pods in every group, a wildcard"},
		"all resources":                     {resources("product.example", "*", "get"), "allows get of * in product.example, a wildcard"},
		"a subresource of every resource":   {resources("apps", "*/scale", "update"), "allows update of */scale in apps, a wildcard"},
		"every subresource of one resource": {resources("core", "pods/*", "get"), "allows get of pods/*, a wildcard"},
		"everything":                        {resources("*", "*", "*"), "allows * of * in every group, a wildcard"},
		"all paths":                         {paths("*", "get"), "allows get of *, a path beside the API's resources"},
		"all verbs on a path":               {paths("/version", "*"), "allows * of /version, a wildcard"},
		"metrics":                           {paths("/metrics", "get"), "allows get of /metrics, a path beside the API's resources"},
		"logs of the server's node":         {paths("/logs/*", "get"), "allows get of /logs/*, a path beside the API's resources"},
		"discovery":                         {paths("/api /api/* /apis /apis/* /openapi /openapi/* /version /version/ /healthz /livez /readyz", "get head"), ""},
		"writing to discovery":              {paths("/api", "post"), "allows post of /api, a path beside the API's resources"},
		"a path that only begins so":        {paths("/apiary", "get"), "allows get of /apiary, a path beside the API's resources"},
		"a product's own kind":              {resources("product.example", "mailboxes mailboxes/status", "get list watch update"), ""},
		"logs of pods":                      {resources("core", "pods/log", "get"), ""},
		"asking what one may":               {resources("authorization.k8s.io", "localsubjectaccessreviews", "create"), ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var want []string
			if c.want != "" {
				want = []string{c.want}
			}
			expect(t, Never(rules{c.rule}), want)
		})
	}
}

// Each rule of the lists is there for a case above: without it, that case would pass.
func TestNoNeverRuleIsWithoutACase(t *testing.T) {
	refusedOnlyBy := map[string]rbacv1.PolicyRule{
		"our kinds":              resources("supportaccess.dev", "supportaccessgrants", "get"),
		"requests":               resources("supportaccess.dev", "supportaccessrequests", "get"),
		"RBAC writes":            resources("rbac.authorization.k8s.io", "rolebindings", "create"),
		"bind":                   resources("rbac.authorization.k8s.io", "clusterroles", "bind"),
		"tokens":                 resources("core", "serviceaccounts/token", "create"),
		"making Secrets":         resources("core", "secrets", "create"),
		"certificates":           resources("certificates.k8s.io", "signers", "sign"),
		"admission":              resources("admissionregistration.k8s.io", "validatingwebhookconfigurations", "delete"),
		"nodes":                  resources("core", "nodes/log", "get"),
		"listing Secrets":        resources("core", "secrets", "list"),
		"pods/portforward":       resources("core", "pods/portforward", "create"),
		"proxies":                resources("core", "pods/proxy", "get"),
		"PersistentVolumeClaims": resources("core", "persistentvolumeclaims", "create"),
		"VolumeSnapshots":        resources("snapshot.storage.k8s.io", "volumesnapshots", "create"),
	}
	never := slices.Concat(BuiltinNever(), DefaultNever())
	for i := range never {
		others := slices.Delete(slices.Clone(never), i, i+1)
		alone := 0
		for _, rule := range refusedOnlyBy {
			if len(Overlap(rules{rule}, never[i:i+1])) > 0 && len(Overlap(rules{rule}, others)) == 0 {
				alone++
			}
		}
		if alone == 0 {
			t.Errorf("no case needs %s", show(never[i:i+1]))
		}
	}
}

func TestNothingThatACallerDoesLoosensTheNeverList(t *testing.T) {
	for _, list := range [][]rbacv1.PolicyRule{BuiltinNever(), DefaultNever()} {
		for i := range list {
			list[i].Verbs[0], list[i].Resources[0] = "changed", "changed"
		}
	}
	expect(t, Never(rules{resources("core", "secrets", "list"), resources("core", "nodes/log", "get")}), []string{
		"allows get of nodes/log", "allows list of secrets",
	})
}

// The roles that are shipped for engineers are what support access gives: none of it may be on the list, and each must be
// read here as the controller reads it, that is with what is aggregated into it.
func TestTheShippedRolesAreGiven(t *testing.T) {
	roles := shippedRoles(t)
	for _, name := range []string{gen.Configuration, gen.Diagnostics, gen.Operate, gen.Content} {
		resolved := resolve(t, roles, name)
		if len(resolved) == 0 {
			t.Errorf("%s: allows nothing", name)
		}
		expect(t, Never(resolved), nil)
	}
}

// The two plain roles, moreover, change nothing and hold no content.
func TestThePlainRolesOnlyRead(t *testing.T) {
	harmless := resources("authorization.k8s.io", "localsubjectaccessreviews", "create")
	content := rules{
		resources("*", "*", "create update patch delete deletecollection"), resources("core", "secrets", "*"),
		resources("core", "pods/exec pods/attach pods/portforward pods/proxy pods/ephemeralcontainers", "*"),
	}
	roles := shippedRoles(t)
	for _, name := range []string{gen.Configuration, gen.Diagnostics} {
		var checked rules
		for _, rule := range resolve(t, roles, name) {
			if RulesDigest(rules{rule}) != RulesDigest(rules{harmless}) {
				checked = append(checked, rule)
			}
		}
		expect(t, Overlap(checked, content), nil)
	}
	for _, name := range []string{gen.Operate, gen.Content} {
		if len(Overlap(resolve(t, roles, name), content)) == 0 {
			t.Errorf("%s: only reads: either it need not be elevated, or this test sees nothing", name)
		}
	}
}

func shippedRoles(t *testing.T) []rbacv1.ClusterRole {
	t.Helper()
	files, err := filepath.Glob("../../config/roles/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var roles []rbacv1.ClusterRole
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for document := range strings.SplitSeq(string(data), "\n---\n") {
			var role rbacv1.ClusterRole
			if err := utilyaml.Unmarshal([]byte(document), &role); err != nil {
				t.Fatal(fmt.Errorf("read %s: %w", file, err))
			}
			if role.Kind == "ClusterRole" {
				roles = append(roles, role)
			}
		}
	}
	return roles
}

// resolve returns the rules of a role, its aggregated ones included.
func resolve(t *testing.T, roles []rbacv1.ClusterRole, name string) rules {
	t.Helper()
	i := slices.IndexFunc(roles, func(r rbacv1.ClusterRole) bool { return r.Name == name })
	if i < 0 {
		t.Fatalf("there is no ClusterRole %s in config/roles", name)
	}
	role := roles[i]
	if role.AggregationRule == nil {
		return role.Rules
	}
	var resolved rules
	for _, selector := range role.AggregationRule.ClusterRoleSelectors {
		for _, part := range roles {
			if matches(selector.MatchLabels, part.Labels) {
				resolved = append(resolved, part.Rules...)
			}
		}
	}
	return resolved
}

func matches(wanted, labels map[string]string) bool {
	for key, value := range wanted {
		if labels[key] != value {
			return false
		}
	}
	return len(wanted) > 0
}
