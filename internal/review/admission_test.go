package review

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/cel/environment"

	"supportaccess.dev/operator/api/v1alpha1"
)

// TestReviewSaysWhatAdmissionSays holds this package against the admission policies that are shipped, evaluated by the
// API server's own code: the same grants, the same reasons, in the same words. What CEL lets pass and review refuses
// would be a grant that is accepted at apply and refused later; the other way round, a rule without its second judge.
func TestReviewSaysWhatAdmissionSays(t *testing.T) {
	limits := compiled(t, "../../config/admission/limits.yaml", "support-access-grant-limits")
	scope := compiled(t, "../../config/admission/grants.yaml", "support-access-grant-scope")
	refused := 0
	for name, c := range openings() {
		t.Run(name, func(t *testing.T) {
			in := inputOf(c)
			policy := stored(in.Policies[in.Grant.Namespace].Policy)
			if name == "a case under a pattern that is none" {
				t.Skip("the API server stores no such policy")
			}
			got := denials(t, scope, in.Grant, nil)
			if !slices.Contains(ours, in.Grant.Namespace) {
				got = append(got, denials(t, limits, in.Grant, policy)...)
			}
			if in.Grant.Spec.Scope == nil && slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "metadata.namespace: ") }) {
				// It says of the grant's own namespace a second time what it said of the place.
				got = slices.DeleteFunc(got, func(s string) bool { return strings.HasPrefix(s, "spec.scope.namespaces: ") })
			}
			slices.Sort(got)
			want := slices.DeleteFunc(Sentences(Opening(in)), seenByReviewAlone)
			slices.Sort(want)
			refused += len(want)
			expect(t, got, want)
		})
	}
	if refused < 20 {
		t.Errorf("%d reasons were compared: too few to say anything", refused)
	}
}

// seenByReviewAlone reports whether a reason is about what a role allows, which no CEL can look up.
func seenByReviewAlone(sentence string) bool {
	return strings.HasPrefix(sentence, "spec.roles[") || strings.HasPrefix(sentence, "spec.scope.cluster: true is not for ")
}

// stored returns a policy as the API server stores it: with the defaults of what it leaves out.
func stored(policy *v1alpha1.SupportAccessPolicy) *v1alpha1.SupportAccessPolicy {
	policy = policy.DeepCopy()
	if policy.Spec.MaxDuration == "" {
		policy.Spec.MaxDuration = "168h"
	}
	if policy.Spec.MaxStartDelay == "" {
		policy.Spec.MaxStartDelay = "168h"
	}
	if len(policy.Spec.Scopes) == 0 {
		policy.Spec.Scopes = []v1alpha1.ScopeKind{v1alpha1.ScopeNamespaces}
	}
	if policy.Spec.RequirePublicKey == "" {
		policy.Spec.RequirePublicKey = v1alpha1.PublicKeysElevatedRoles
	}
	if policy.Spec.ServiceAccountGrants == "" {
		policy.Spec.ServiceAccountGrants = v1alpha1.ServiceAccountGrantsExpirationTimeOnly
	}
	if policy.Spec.ProtectedNamespaces == nil {
		policy.Spec.ProtectedNamespaces = []string{"kube-system", "kube-public", "kube-node-lease"}
	}
	return policy
}

// compiled reads one ValidatingAdmissionPolicy and compiles it as the API server does.
func compiled(t *testing.T, file, name string) validating.Validator {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for document := range strings.SplitSeq(string(data), "\n---\n") {
		var policy admissionregistrationv1.ValidatingAdmissionPolicy
		if err := utilyaml.Unmarshal([]byte(document), &policy); err != nil {
			t.Fatal(err)
		}
		if policy.Name == name && policy.Kind == "ValidatingAdmissionPolicy" {
			return compile(t, policy.Spec)
		}
	}
	t.Fatalf("%s has no ValidatingAdmissionPolicy %s", file, name)
	return nil
}

func compile(t *testing.T, spec admissionregistrationv1.ValidatingAdmissionPolicySpec) validating.Validator {
	t.Helper()
	compiler, err := cel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	if err != nil {
		t.Fatal(err)
	}
	declared := cel.OptionalVariableDeclarations{HasParams: spec.ParamKind != nil, HasAuthorizer: true}
	var variables []cel.NamedExpressionAccessor
	for _, v := range spec.Variables {
		variables = append(variables, &validating.Variable{Name: v.Name, Expression: v.Expression})
	}
	compiler.CompileAndStoreVariables(variables, declared, environment.StoredExpressions)
	var conditions, messages []cel.ExpressionAccessor
	for _, v := range spec.Validations {
		conditions = append(conditions, &validating.ValidationCondition{Expression: v.Expression, Message: v.Message, Reason: v.Reason})
		messages = append(messages, &validating.MessageExpressionCondition{MessageExpression: v.MessageExpression})
	}
	return validating.NewValidator(
		compiler.CompileCondition(conditions, declared, environment.StoredExpressions), nil,
		compiler.CompileCondition(nil, declared, environment.StoredExpressions),
		compiler.CompileCondition(messages, cel.OptionalVariableDeclarations{HasParams: spec.ParamKind != nil}, environment.StoredExpressions),
		spec.FailurePolicy, nil)
}

// denials returns what an admission policy says to the making of a grant.
func denials(t *testing.T, validator validating.Validator, grant *v1alpha1.SupportAccessGrant, policy *v1alpha1.SupportAccessPolicy) []string {
	t.Helper()
	made, gvr := untyped(t, grant), v1alpha1.GroupVersion.WithResource("supportaccessgrants")
	attributes := admission.NewAttributesRecord(made, nil, made.GroupVersionKind(), grant.Namespace, grant.Name, gvr, "",
		admission.Create, &metav1.CreateOptions{}, false, &user.DefaultInfo{Name: grant.Spec.GrantedBy})
	versioned := &admission.VersionedAttributes{Attributes: attributes, VersionedKind: made.GroupVersionKind(), VersionedObject: admission.NewLazyObject(made)}
	var params runtime.Object
	if policy != nil {
		params = untyped(t, policy)
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: grant.Namespace}}
	result := validator.Validate(context.Background(), gvr, versioned, params, namespace, celconfig.RuntimeCELCostBudget, nil)
	var said []string
	for _, decision := range result.Decisions {
		if decision.Action == validating.ActionDeny {
			said = append(said, decision.Message)
		}
	}
	return said
}

func untyped(t *testing.T, obj runtime.Object) *unstructured.Unstructured {
	t.Helper()
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		t.Fatal(err)
	}
	return &unstructured.Unstructured{Object: content}
}
