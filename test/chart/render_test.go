package chart

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/config/admission"
)

func TestTheBareChartAndKustomizeRenderTheSameObjects(t *testing.T) {
	chart, plain := byIdentity(t, render(t, nil)), byIdentity(t, kustomize(t))
	if len(chart) < 50 {
		t.Errorf("the chart renders only %d objects", len(chart))
	}
	for id, want := range plain {
		got, found := chart[id]
		if !found {
			t.Errorf("the chart lacks %s", id)
			continue
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s differs:\nchart:     %s\nkustomize: %s", id, asJSON(t, got), asJSON(t, want))
		}
	}
	for id := range chart {
		if _, found := plain[id]; !found {
			t.Errorf("kustomize lacks %s", id)
		}
	}
}

// byIdentity indexes objects, without what Helm alone has a use for.
func byIdentity(t *testing.T, in []*unstructured.Unstructured) map[string]map[string]any {
	t.Helper()
	indexed := map[string]map[string]any{}
	for _, object := range in {
		id := object.GetAPIVersion() + " " + identity(object)
		if _, twice := indexed[id]; twice {
			t.Errorf("%s is rendered twice", id)
		}
		labels, annotations := object.GetLabels(), object.GetAnnotations()
		for _, label := range []string{"helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/instance", "app.kubernetes.io/version"} {
			delete(labels, label)
		}
		delete(annotations, "helm.sh/resource-policy")
		object.SetLabels(labels)
		if len(annotations) == 0 {
			annotations = nil
		}
		object.SetAnnotations(annotations)
		indexed[id] = object.Object
	}
	return indexed
}

func asJSON(t *testing.T, value any) string {
	t.Helper()
	content, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestTheChartShipsTheAdmissionPoliciesThatTheOperatorLooksFor(t *testing.T) {
	cases := map[string]struct {
		values  map[string]any
		options admission.Options
	}{
		"with its own values": {nil, admission.Options{Stamp: true}},
		"where the server cannot stamp": {
			map[string]any{"admission": map[string]any{"stamp": "Manifest"}}, admission.Options{},
		},
		"with users of the distribution's own": {
			map[string]any{"extraSystemUsers": []string{"system:node-manager", "tidy@cloud.example"}},
			admission.Options{Stamp: true, ExtraSystemUsers: []string{"system:node-manager", "tidy@cloud.example"}},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			shipped, err := admission.Objects(c.options)
			if err != nil {
				t.Fatal(err)
			}
			rendered := admissionObjects(t, render(t, c.values))
			if err := admission.Compare(rendered, shipped); err != nil {
				t.Error(err)
			}
			if len(rendered) != len(shipped) {
				t.Errorf("the chart renders %d admission objects, the operator looks for %d", len(rendered), len(shipped))
			}
		})
	}
}

func admissionObjects(t *testing.T, in []*unstructured.Unstructured) []client.Object {
	t.Helper()
	var found []client.Object
	for _, object := range in {
		switch object.GetKind() {
		case "ValidatingAdmissionPolicy":
			found = append(found, as[admissionregistrationv1.ValidatingAdmissionPolicy](t, object))
		case "ValidatingAdmissionPolicyBinding":
			found = append(found, as[admissionregistrationv1.ValidatingAdmissionPolicyBinding](t, object))
		case "MutatingAdmissionPolicy":
			found = append(found, as[admissionregistrationv1.MutatingAdmissionPolicy](t, object))
		case "MutatingAdmissionPolicyBinding":
			found = append(found, as[admissionregistrationv1.MutatingAdmissionPolicyBinding](t, object))
		}
	}
	return found
}

func TestTheControllerMayBindTheRolesOfTheValuesAndNoOthers(t *testing.T) {
	offered := []string{"support-access-configuration", "vendor-content"}
	rendered := render(t, map[string]any{
		"offeredRoles":  offered,
		"defaultPolicy": map[string]any{"spec": map[string]any{"roles": []any{map[string]any{"name": offered[0]}}}},
	})
	bindable := bindableRoles(t, find[rbacv1.ClusterRole](t, rendered, "ClusterRole", "support-access-controller").Rules)
	if !slices.Equal(bindable, offered) {
		t.Errorf("the controller may bind %v, want %v", bindable, offered)
	}
}

// bindableRoles are the ClusterRoles that rules allow to bind; a rule that names none is a failure.
func bindableRoles(t *testing.T, rules []rbacv1.PolicyRule) []string {
	t.Helper()
	var names []string
	for _, rule := range rules {
		if !slices.Contains(rule.Verbs, "bind") {
			continue
		}
		// Roles, unlike ClusterRoles, are bound in one namespace: the one where only the operator makes any.
		if len(rule.ResourceNames) == 0 && !slices.Equal(rule.Resources, []string{"roles"}) {
			t.Errorf("bind without resourceNames: %v", rule)
		}
		names = append(names, rule.ResourceNames...)
	}
	return names
}

// withGateway are the values with which there is a gateway.
var withGateway = map[string]any{"gateway": map[string]any{"enabled": true, "server": "https://gateway.example"}}

// impersonates are the rules of impersonation that there are, by the role that has them.
var impersonates = map[string]func(rbacv1.PolicyRule) bool{
	// As one group, with three extras; and as nobody, to see whether that is possible.
	"support-access-gateway": func(r rbacv1.PolicyRule) bool {
		return slices.Equal(r.Verbs, []string{"impersonate:user-info"}) && slices.Equal(r.APIGroups, []string{"authentication.k8s.io"}) &&
			(slices.Equal(r.Resources, []string{"groups"}) && slices.Equal(r.ResourceNames, []string{v1alpha1.EngineersGroup}) ||
				slices.Equal(r.Resources, []string{"users"}) && slices.Equal(r.ResourceNames, []string{v1alpha1.ProbeUser}) ||
				!slices.ContainsFunc(r.Resources, func(s string) bool { return !strings.HasPrefix(s, "userextras/supportaccess.dev/") }))
	},
	// To hand it out. Without the ceiling's rights it lets nobody act as anyone.
	"support-access-controller-gateway": func(r rbacv1.PolicyRule) bool {
		return slices.Equal(r.Verbs, []string{"impersonate:user-info"}) && slices.Equal(r.APIGroups, []string{"authentication.k8s.io"}) &&
			slices.Equal(r.Resources, []string{"users"})
	},
	// hack/chart compares it with the roles that can be granted.
	"support-access-aggregate-to-gateway-ceiling": func(r rbacv1.PolicyRule) bool {
		onlyThrough := !slices.ContainsFunc(r.Verbs, func(v string) bool {
			return !strings.HasPrefix(v, "impersonate-on:user-info:") || strings.Contains(v, "*")
		})
		return onlyThrough && !slices.Contains(slices.Concat(r.APIGroups, r.Resources), "*") && !slices.Contains(r.NonResourceURLs, "*")
	},
}

func TestNoRoleHasAWildcardOrEscalatesOrImpersonates(t *testing.T) {
	checked := 0
	for _, object := range renderAll(t, withGateway) {
		if object.GetKind() != "ClusterRole" && object.GetKind() != "Role" {
			continue
		}
		checked++
		role := as[rbacv1.ClusterRole](t, object)
		bindableRoles(t, role.Rules)
		bindsRoles := slices.ContainsFunc(role.Rules, func(rule rbacv1.PolicyRule) bool {
			return slices.Contains(rule.Verbs, "bind") && slices.Contains(rule.Resources, "roles")
		})
		if bindsRoles && (object.GetKind() != "Role" || object.GetNamespace() != v1alpha1.CredentialsNamespace) {
			t.Errorf("%s binds Roles", identity(object))
		}
		for _, rule := range role.Rules {
			if known := impersonates[object.GetName()]; known != nil && known(rule) {
				continue
			}
			for _, word := range slices.Concat(rule.Verbs, rule.APIGroups, rule.Resources, rule.ResourceNames, rule.NonResourceURLs) {
				if strings.Contains(word, "*") || word == "escalate" || strings.HasPrefix(word, "impersonate") {
					t.Errorf("%s: %q in %v", identity(object), word, rule)
				}
			}
		}
	}
	if checked < 22 {
		t.Errorf("only %d roles are rendered", checked)
	}
}

func TestNobodyButTheControllerReachesSecretsAndOnlyWhereCredentialsLie(t *testing.T) {
	for _, object := range renderAll(t, withGateway) {
		if object.GetKind() != "ClusterRole" && object.GetKind() != "Role" {
			continue
		}
		for _, rule := range as[rbacv1.ClusterRole](t, object).Rules {
			touches := slices.ContainsFunc(rule.Resources, func(r string) bool { return strings.HasPrefix(r, "secrets") || r == "serviceaccounts/token" })
			if !touches {
				continue
			}
			switch identity(object) {
			case "Role support-access-credentials/support-access-controller":
			case "Role support-access-system/support-access-controller":
				if !slices.Equal(rule.ResourceNames, []string{"support-access-notifications"}) || !slices.Equal(rule.Verbs, []string{"get"}) {
					t.Errorf("%s: %v: what channels keep secret is the one Secret there, and it is read", identity(object), rule)
				}
			case "Role support-access-system/support-access-controller-gateway":
				if !slices.Equal(rule.ResourceNames, []string{"support-access-gateway-tls"}) {
					t.Errorf("%s: %v: the gateway's certificate is the one Secret there", identity(object), rule)
				}
			case "Role support-access-system/support-access-controller-changes":
				if !slices.Equal(rule.ResourceNames, []string{"support-access-webhook-tls"}) {
					t.Errorf("%s: %v: the webhook's certificate is the one Secret there", identity(object), rule)
				}
			case "ClusterRole /support-access-aggregate-to-gateway-ceiling":
				if !slices.Equal(rule.Verbs, []string{"impersonate-on:user-info:get"}) {
					t.Errorf("%s: %v: content reads Secrets by name and no more", identity(object), rule)
				}
			case "ClusterRole /support-access-aggregate-to-content":
				if !slices.Equal(rule.Verbs, []string{"get"}) {
					t.Errorf("%s: %v: content reads Secrets by name and no more", identity(object), rule)
				}
			default:
				t.Errorf("%s: %v", identity(object), rule)
			}
		}
	}
}

func TestOnlyARoleOfOursForPeopleJoinsABuiltInRole(t *testing.T) {
	joins := map[string]string{}
	for _, object := range renderAll(t, nil) {
		for label := range object.GetLabels() {
			if strings.HasPrefix(label, "rbac.authorization.k8s.io/") {
				joins[object.GetName()] = label
			}
		}
	}
	want := map[string]string{"support-access-admin": "rbac.authorization.k8s.io/aggregate-to-admin"}
	if !reflect.DeepEqual(joins, want) {
		t.Errorf("joining built-in roles: %v, want %v", joins, want)
	}
}

func TestADisruptionBudgetComesWithTheSecondReplica(t *testing.T) {
	if has(render(t, nil), "PodDisruptionBudget", "support-access") {
		t.Error("one replica has a budget, which would block every drain or say nothing")
	}
	rendered := render(t, map[string]any{"replicas": 2})
	budget := find[policyv1.PodDisruptionBudget](t, rendered, "PodDisruptionBudget", "support-access")
	deployment := find[appsv1.Deployment](t, rendered, "Deployment", "support-access")
	if !reflect.DeepEqual(budget.Spec.Selector, deployment.Spec.Selector) {
		t.Errorf("the budget is for %v, the Deployment's pods are %v", budget.Spec.Selector, deployment.Spec.Selector)
	}
}

func TestTheMetricsServiceFindsThePodsAndTheirPort(t *testing.T) {
	rendered := render(t, nil)
	service := find[corev1.Service](t, rendered, "Service", "support-access-metrics")
	pod := find[appsv1.Deployment](t, rendered, "Deployment", "support-access").Spec.Template
	for key, value := range service.Spec.Selector {
		if pod.Labels[key] != value {
			t.Errorf("the Service looks for %s=%s, the pods have %q", key, value, pod.Labels[key])
		}
	}
	target := service.Spec.Ports[0].TargetPort.StrVal
	if !slices.ContainsFunc(pod.Spec.Containers[0].Ports, func(p corev1.ContainerPort) bool { return p.Name == target }) {
		t.Errorf("the pods have no port %q", target)
	}
}

func TestTheClustersCertificatesAreMountedWhereTheFlagLooksForThem(t *testing.T) {
	const bundle = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
	rendered := render(t, map[string]any{"cluster": map[string]any{"server": "https://api.example:6443", "caBundle": bundle}})
	if got := find[corev1.ConfigMap](t, rendered, "ConfigMap", "support-access-cluster").Data["ca.crt"]; got != bundle {
		t.Errorf("the ConfigMap holds %q, want %q", got, bundle)
	}
	spec := find[appsv1.Deployment](t, rendered, "Deployment", "support-access").Spec.Template.Spec
	mount := spec.Containers[0].VolumeMounts[0]
	if spec.Volumes[0].Name != mount.Name || spec.Volumes[0].ConfigMap.Name != "support-access-cluster" {
		t.Errorf("mount %v is not of volume %v", mount, spec.Volumes[0])
	}
	for _, arg := range []string{"--cluster-server=https://api.example:6443", "--cluster-ca-bundle=" + mount.MountPath + "/ca.crt"} {
		if !slices.Contains(spec.Containers[0].Args, arg) {
			t.Errorf("%v lacks %s", spec.Containers[0].Args, arg)
		}
	}
}

func TestEveryValueOfAPodIsRenderedIntoEveryPod(t *testing.T) {
	values := map[string]any{
		"image":             map[string]any{"repository": "registry.example/sa", "digest": "sha256:" + strings.Repeat("a", 64)},
		"imagePullSecrets":  []any{map[string]any{"name": "pull"}},
		"nodeSelector":      map[string]any{"pool": "system"},
		"tolerations":       []any{map[string]any{"key": "system", "operator": "Exists"}},
		"affinity":          map[string]any{"nodeAffinity": map[string]any{}},
		"priorityClassName": "system-cluster-critical",
		"resources":         map[string]any{"requests": map[string]any{"cpu": "123m"}},
	}
	values["gateway"] = map[string]any{"enabled": true, "resources": values["resources"]}
	templates := podTemplates(t, renderAll(t, values))
	if len(templates) != 3 {
		t.Fatalf("%d workloads are rendered, want two Deployments and the Job", len(templates))
	}
	for name, template := range templates {
		spec, container := template.Spec, template.Spec.Containers[0]
		got := []any{
			container.Image, spec.ImagePullSecrets, spec.NodeSelector, len(spec.Tolerations), spec.Affinity != nil,
			spec.PriorityClassName, container.Resources.Requests.Cpu().String(),
		}
		want := []any{
			"registry.example/sa@sha256:" + strings.Repeat("a", 64), []corev1.LocalObjectReference{{Name: "pull"}},
			map[string]string{"pool": "system"}, 1, true, "system-cluster-critical", "123m",
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// The guards of the definitions and of flags are the components', and come with their values alone.
func TestTheGuardOfTheDefinitionsIsTheComponentsAndOptional(t *testing.T) {
	guardIsOptional(t, "crdguard", "guardCRDs.enabled")
}

func TestTheGuardOfFlagsIsTheComponentsAndOptional(t *testing.T) {
	guardIsOptional(t, "flagguard", "guardFlags.enabled")
}

func guardIsOptional(t *testing.T, component, value string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root(t), "config", component, "guard.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	rendered := map[bool]map[string]map[string]any{}
	for _, enabled := range []bool{false, true} {
		found, err := template(t, release(t, tree(value, enabled)))
		if err != nil {
			t.Fatal(err)
		}
		// What hooks make stands there twice, and is none of it.
		rendered[enabled] = byIdentity(t, slices.DeleteFunc(found, func(o *unstructured.Unstructured) bool { return o.GetAnnotations()["helm.sh/hook"] != "" }))
	}
	for id, want := range byIdentity(t, objects(t, content)) {
		if rendered[false][id] != nil {
			t.Errorf("%s is rendered without the value", id)
		}
		if got := rendered[true][id]; got == nil || !reflect.DeepEqual(got["spec"], want["spec"]) {
			t.Errorf("%s differs:\nchart:     %s\nkustomize: %s", id, asJSON(t, got), asJSON(t, want))
		}
	}
}
