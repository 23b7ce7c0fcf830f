package cli

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

// shipped says what the roles of the chart allow, for whoever may not read ClusterRoles.
var shipped = map[string][]string{
	"support-access-configuration": {"see settings, users and permissions, network, workloads and quotas; no Secrets"},
	"support-access-diagnostics":   {"read the logs of pods, see what pods use"},
	"support-access-operate":       {"change ConfigMaps, scale workloads, restart pods"},
	"support-access-content":       {"read Secrets by name, run commands in pods"},
	"support-access-flagged":       {"read, by name, single objects that bear a flag"},
}

// allowedBy says what a role allows, a line for each set of verbs. Of a role that cannot be read it says what the chart's
// role of that name allows.
func allowedBy(name string, role *rbacv1.ClusterRole) []string {
	if role != nil {
		return summaryOf(role.Rules)
	}
	if lines, known := shipped[name]; known {
		return lines
	}
	return []string{"its rules cannot be read by you: ask a cluster admin for kubectl describe clusterrole " + name}
}

// summaryOf gathers rules by their verbs.
func summaryOf(rules []rbacv1.PolicyRule) []string {
	var order []string
	things := map[string][]string{}
	for _, rule := range rules {
		verbs := strings.Join(rule.Verbs, ", ")
		if things[verbs] == nil {
			order = append(order, verbs)
		}
		things[verbs] = append(things[verbs], thingsOf(rule)...)
	}
	lines := make([]string, 0, len(order))
	for _, verbs := range order {
		names := things[verbs]
		slices.Sort(names)
		lines = append(lines, verbs+": "+strings.Join(slices.Compact(names), ", "))
	}
	if len(lines) == 0 {
		return []string{"nothing"}
	}
	return lines
}

// thingsOf are the resources of a rule as kubectl names them, and its paths.
func thingsOf(rule rbacv1.PolicyRule) []string {
	things := slices.Clone(rule.NonResourceURLs)
	for _, group := range rule.APIGroups {
		for _, resource := range rule.Resources {
			thing := resource
			if group != "" {
				thing += "." + group
			}
			if len(rule.ResourceNames) > 0 {
				thing += " (" + strings.Join(rule.ResourceNames, ", ") + ")"
			}
			things = append(things, thing)
		}
	}
	return things
}
