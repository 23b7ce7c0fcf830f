package matrix

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/world"
)

// answer is what the API server says to somebody who tries.
type answer string

const (
	yes       answer = "yes"
	noRight   answer = "·"
	refused   answer = "**refused**"
	unchanged answer = "fixed"
)

// target is something that somebody may try to write.
type target struct {
	title, apiVersion, kind, namespace, name string
	// sub is the subresource, empty for the object itself.
	sub string
	// change is a JSON merge patch that means something.
	change string
	// verbs are those to try; empty means all four.
	verbs []string
}

// targets are every object and subresource of ours, and what guards them.
func (s *scene) targets() []target {
	const ours, rbac, admission = "supportaccess.dev/v1alpha1", "rbac.authorization.k8s.io/v1", "admissionregistration.k8s.io/v1"
	credential, binding := s.grant.Status.Engineers[0].CredentialSecretRef.Name, s.record.Status.Bindings[0].Name
	changes := []string{"update", "patch"}
	subjects := `{"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"stranger"}]}`
	meta := `{"metadata":{"annotations":{"example.com/tried":"yes"}}}`
	in := world.CredentialsNamespace
	return []target{
		{title: "SupportAccessGrant", apiVersion: ours, kind: "SupportAccessGrant", namespace: s.namespace, name: grantName, change: `{"spec":{"reason":"a better reason"}}`},
		{title: "SupportAccessGrant: what it gives", apiVersion: ours, kind: "SupportAccessGrant", namespace: s.namespace, name: grantName, change: `{"spec":{"duration":"168h"}}`, verbs: changes},
		{title: "SupportAccessGrant: finalizer", apiVersion: ours, kind: "SupportAccessGrant", namespace: s.namespace, name: grantName, change: `{"metadata":{"finalizers":null}}`, verbs: changes},
		{title: "SupportAccessGrant/status", apiVersion: ours, kind: "SupportAccessGrant", namespace: s.namespace, name: grantName, sub: "status", change: `{"status":{"transport":"Gateway"}}`, verbs: changes},
		{title: "SupportAccessDecision", apiVersion: ours, kind: "SupportAccessDecision", namespace: s.namespace, name: s.decision.Name, change: meta},
		{title: "SupportAccessDecision: what it says", apiVersion: ours, kind: "SupportAccessDecision", namespace: s.namespace, name: s.decision.Name, change: `{"spec":{"reason":"another"}}`, verbs: changes},
		{title: "SupportAccessDecision: finalizer", apiVersion: ours, kind: "SupportAccessDecision", namespace: s.namespace, name: s.decision.Name, change: `{"metadata":{"finalizers":null}}`, verbs: changes},
		{title: "SupportAccessDecision/status", apiVersion: ours, kind: "SupportAccessDecision", namespace: s.namespace, name: s.decision.Name, sub: "status", change: `{"status":{"grants":7}}`, verbs: changes},
		{title: "SupportAccessSetting", apiVersion: ours, kind: "SupportAccessSetting", namespace: s.namespace, name: v1alpha1.SettingName, change: `{"spec":{"reason":"a better reason"}}`, verbs: []string{"update", "patch", "delete"}},
		{title: "SupportAccessSetting/status", apiVersion: ours, kind: "SupportAccessSetting", namespace: s.namespace, name: v1alpha1.SettingName, sub: "status", change: `{"status":{"observedGeneration":7}}`, verbs: changes},
		{title: "SupportAccessRequest", apiVersion: ours, kind: "SupportAccessRequest", namespace: s.namespace, name: requestName, change: meta},
		{title: "SupportAccessRequest: what it asks for", apiVersion: ours, kind: "SupportAccessRequest", namespace: s.namespace, name: requestName, change: `{"spec":{"duration":"168h"}}`, verbs: changes},
		{title: "SupportAccessRequest/status", apiVersion: ours, kind: "SupportAccessRequest", namespace: s.namespace, name: requestName, sub: "status", change: `{"status":{"grant":{"name":"forged","uid":"x"}}}`, verbs: changes},
		{title: "SupportAccessPolicy", apiVersion: ours, kind: "SupportAccessPolicy", name: "default", change: `{"spec":{"newGrants":"Suspended"}}`},
		{title: "SupportAccessRecord", apiVersion: ours, kind: "SupportAccessRecord", namespace: s.namespace, name: grantName, change: `{"spec":{"reason":"forged"}}`},
		{title: "SupportAccessSession", apiVersion: ours, kind: "SupportAccessSession", namespace: world.SystemNamespace, name: s.session.Name, change: `{"status":{"cutReason":"Revoked"}}`},
		{title: "list of the gateway's users", apiVersion: rbac, kind: "ClusterRole", name: s.users.Name, change: `{"rules":[]}`},
		{title: "what is kept of audit logs", apiVersion: "v1", kind: "ConfigMap", namespace: world.SystemNamespace, name: v1alpha1.CheckpointConfigMap, change: `{"data":{"forged":"x"}}`, verbs: []string{"update", "patch", "delete"}},
		{title: "banner ConfigMap", apiVersion: "v1", kind: "ConfigMap", namespace: s.namespace, name: v1alpha1.BannerConfigMap, change: `{"data":{"text":"Call this number"}}`, verbs: []string{"update", "patch", "delete"}},
		{title: "managed RoleBinding", apiVersion: rbac, kind: "RoleBinding", namespace: s.namespace, name: binding, change: subjects},
		{title: "credential Secret", apiVersion: "v1", kind: "Secret", namespace: in, name: credential, change: `{"data":{"kubeconfig":"Zm9yZ2Vk"}}`},
		{title: "identity ServiceAccount", apiVersion: "v1", kind: "ServiceAccount", namespace: in, name: credential, change: meta},
		{title: "identity's token", apiVersion: "v1", kind: "ServiceAccount", namespace: in, name: credential, sub: "token", verbs: []string{"create"}},
		{title: "credential's Role", apiVersion: rbac, kind: "Role", namespace: in, name: credential, change: `{"rules":[]}`},
		{title: "credential's RoleBinding", apiVersion: rbac, kind: "RoleBinding", namespace: in, name: credential, change: subjects},
		{title: "Pod beside the credentials", apiVersion: "v1", kind: "Pod", namespace: in, name: "thief", verbs: []string{"create"}},
		{title: "ValidatingAdmissionPolicy", apiVersion: admission, kind: "ValidatingAdmissionPolicy", name: "support-access-status", change: `{"spec":{"failurePolicy":"Ignore"}}`},
		{title: "ValidatingAdmissionPolicyBinding", apiVersion: admission, kind: "ValidatingAdmissionPolicyBinding", name: "support-access-status", change: `{"spec":{"validationActions":["Warn"]}}`},
		{title: "MutatingAdmissionPolicy", apiVersion: admission, kind: "MutatingAdmissionPolicy", name: "support-access-grant-stamp", change: `{"spec":{"failurePolicy":"Ignore"}}`},
	}
}

func (o target) tries() []string {
	if len(o.verbs) > 0 {
		return o.verbs
	}
	return []string{"create", "update", "patch", "delete"}
}

func key(o target, verb, who string) string { return o.title + "|" + verb + "|" + who }

// tryAll has everybody try everything. Nothing is stored.
func (s *scene) tryAll(t *testing.T) {
	t.Helper()
	for _, o := range s.targets() {
		present := s.present(t, o)
		for _, verb := range o.tries() {
			for _, who := range s.actors {
				err := o.try(t.Context(), who.client, present.DeepCopy(), verb)
				s.answers[key(o, verb, who.title)] = understand(t, o.title+": "+verb+" by "+who.title, err)
			}
		}
	}
}

// present reads an object as it is.
func (s *scene) present(t *testing.T, o target) *unstructured.Unstructured {
	t.Helper()
	present := &unstructured.Unstructured{}
	present.SetAPIVersion(o.apiVersion)
	present.SetKind(o.kind)
	present.SetNamespace(o.namespace)
	present.SetName(o.name)
	if o.kind == "Pod" {
		present.Object["spec"] = map[string]any{
			"serviceAccountName": s.grant.Status.Engineers[0].CredentialSecretRef.Name,
			// As PodSecurity wants it, so that what refuses it is ours.
			"securityContext": map[string]any{"runAsNonRoot": true, "runAsUser": int64(1), "seccompProfile": map[string]any{"type": "RuntimeDefault"}},
			"containers": []any{map[string]any{"name": "thief", "image": "thief", "securityContext": map[string]any{
				"allowPrivilegeEscalation": false, "capabilities": map[string]any{"drop": []any{"ALL"}},
			}}},
		}
		return present
	}
	if err := s.Admin.Get(t.Context(), client.ObjectKeyFromObject(present), present); err != nil {
		t.Fatalf("read %s: %v", o.title, err)
	}
	return present
}

// try does one thing as somebody, in a dry run.
func (o target) try(ctx context.Context, who client.Client, present *unstructured.Unstructured, verb string) error {
	switch verb {
	case "create":
		if o.sub == "token" {
			account := &corev1.ServiceAccount{}
			account.Namespace, account.Name = o.namespace, o.name
			return who.SubResource("token").Create(ctx, account, &authenticationv1.TokenRequest{}, client.DryRunAll)
		}
		return who.Create(ctx, anew(present), client.DryRunAll)
	case "update":
		changed, err := o.changed(present)
		if err != nil {
			return err
		}
		if o.sub != "" {
			return who.SubResource(o.sub).Update(ctx, changed, client.DryRunAll)
		}
		return who.Update(ctx, changed, client.DryRunAll)
	case "patch":
		patch := client.RawPatch(types.MergePatchType, []byte(o.change))
		if o.sub != "" {
			return who.SubResource(o.sub).Patch(ctx, present, patch, client.DryRunAll)
		}
		return who.Patch(ctx, present, patch, client.DryRunAll)
	case "delete":
		return who.Delete(ctx, present, client.DryRunAll)
	default:
		return fmt.Errorf("verb %q is not known", verb)
	}
}

// anew is a new object that says what another does, as a person would write it.
func anew(present *unstructured.Unstructured) *unstructured.Unstructured {
	created := present.DeepCopy()
	created.Object["metadata"] = map[string]any{}
	created.SetNamespace(present.GetNamespace())
	created.SetName("tried")
	created.SetLabels(present.GetLabels())
	if present.GetKind() != "SupportAccessRecord" {
		unstructured.RemoveNestedField(created.Object, "status")
	}
	for _, stamp := range []string{"grantedBy", "decidedBy", "authority"} {
		if present.GetKind() != "SupportAccessRecord" {
			unstructured.RemoveNestedField(created.Object, "spec", stamp)
		}
	}
	return created
}

func (o target) changed(present *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	before, err := json.Marshal(present)
	if err != nil {
		return nil, err
	}
	after, err := jsonpatch.MergePatch(before, []byte(o.change))
	if err != nil {
		return nil, err
	}
	changed := &unstructured.Unstructured{}
	return changed, json.Unmarshal(after, changed)
}

// understand says which of the API server's gates an answer came from. Any that is not understood fails the test.
func understand(t *testing.T, what string, err error) answer {
	t.Helper()
	switch {
	case err == nil:
		return yes
	case apierrors.IsForbidden(err) && (strings.Contains(err.Error(), "ValidatingAdmissionPolicy '") || strings.Contains(err.Error(), "exceeded quota")):
		return refused
	case apierrors.IsForbidden(err) && (strings.Contains(err.Error(), " cannot ") || strings.Contains(err.Error(), "attempting to grant")):
		return noRight
	case apierrors.IsInvalid(err):
		return unchanged
	default:
		t.Errorf("%s: %v", what, err)
		return answer("?")
	}
}
