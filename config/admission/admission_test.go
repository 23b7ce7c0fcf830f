package admission

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

func shipped(t *testing.T, options Options) []client.Object {
	t.Helper()
	objects, err := Objects(options)
	if err != nil {
		t.Fatalf("Objects: %v", err)
	}
	return objects
}

func validating(t *testing.T) map[string]*admissionregistrationv1.ValidatingAdmissionPolicy {
	t.Helper()
	policies := map[string]*admissionregistrationv1.ValidatingAdmissionPolicy{}
	for _, object := range shipped(t, Options{Stamp: true}) {
		if policy, ok := object.(*admissionregistrationv1.ValidatingAdmissionPolicy); ok {
			policies[policy.Name] = policy
		}
	}
	return policies
}

func bindings(t *testing.T) map[string][]*admissionregistrationv1.ValidatingAdmissionPolicyBinding {
	t.Helper()
	bound := map[string][]*admissionregistrationv1.ValidatingAdmissionPolicyBinding{}
	for _, object := range shipped(t, Options{Stamp: true}) {
		if binding, ok := object.(*admissionregistrationv1.ValidatingAdmissionPolicyBinding); ok {
			bound[binding.Spec.PolicyName] = append(bound[binding.Spec.PolicyName], binding)
		}
	}
	return bound
}

func TestEveryPolicyIsBound(t *testing.T) {
	bound := bindings(t)
	policies := validating(t)
	if len(policies) == 0 {
		t.Fatal("no policies are shipped")
	}
	for name := range policies {
		if len(bound[name]) == 0 {
			t.Errorf("policy %s has no binding", name)
		}
	}
	for name := range bound {
		if policies[name] == nil {
			t.Errorf("a binding names policy %s, which is not shipped", name)
		}
	}
}

func TestEveryRefusalIsForbiddenAndSaysWhy(t *testing.T) {
	for name, policy := range validating(t) {
		for i, validation := range policy.Spec.Validations {
			if validation.Reason == nil || *validation.Reason != metav1.StatusReasonForbidden {
				t.Errorf("%s: validation %d: reason is not Forbidden", name, i)
			}
			if validation.Message == "" {
				t.Errorf("%s: validation %d: has no message to fall back on", name, i)
			}
		}
	}
}

func TestWhatRefusesFailsClosedAndWhatWarnsFailsOpen(t *testing.T) {
	policies := validating(t)
	for name, bound := range bindings(t) {
		for _, binding := range bound {
			want := admissionregistrationv1.Fail
			if slices.Equal(binding.Spec.ValidationActions, []admissionregistrationv1.ValidationAction{admissionregistrationv1.Warn}) {
				want = admissionregistrationv1.Ignore
			} else if !slices.Equal(binding.Spec.ValidationActions, []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny}) {
				t.Errorf("%s: binding %s neither denies nor warns: %v", name, binding.Name, binding.Spec.ValidationActions)
			}
			if got := policies[name].Spec.FailurePolicy; got == nil || *got != want {
				t.Errorf("%s: failurePolicy is not %s", name, want)
			}
		}
	}
}

func TestPoliciesWithParamsMatchCreateOnly(t *testing.T) {
	for name, policy := range validating(t) {
		// Where params may be missing, nothing is kept from being updated.
		if policy.Spec.ParamKind == nil || name == "support-access-setting-limits" {
			continue
		}
		for _, rule := range policy.Spec.MatchConstraints.ResourceRules {
			if !slices.Equal(rule.Operations, []admissionregistrationv1.OperationType{admissionregistrationv1.Create}) {
				t.Errorf("%s has params and matches %v: without its params no finalizer could be removed", name, rule.Operations)
			}
		}
	}
}

// withoutParams are the policies that say nothing where their params are missing, because the grant of a setting is judged
// once more: by the policies' limits, and by its setting in the controller and the gateway.
var withoutParams = []string{
	"support-access-setting-limits", "support-access-setting-grant",
	// A namespace without requests has no params; a grant that names one nonetheless is refused for want of its UID.
	"support-access-request-bounds", "support-access-request-denial",
}

func TestParamsAreDeniedWhenTheyAreMissingUnlessWeOnlyWarn(t *testing.T) {
	policies := validating(t)
	for name, bound := range bindings(t) {
		for _, binding := range bound {
			if (policies[name].Spec.ParamKind == nil) != (binding.Spec.ParamRef == nil) {
				t.Errorf("%s: paramKind and paramRef of %s go together", name, binding.Name)
			}
			if binding.Spec.ParamRef == nil {
				continue
			}
			want := admissionregistrationv1.DenyAction
			if binding.Spec.ValidationActions[0] == admissionregistrationv1.Warn || slices.Contains(withoutParams, name) {
				want = admissionregistrationv1.AllowAction
			}
			if got := binding.Spec.ParamRef.ParameterNotFoundAction; got == nil || *got != want {
				t.Errorf("%s: parameterNotFoundAction is not %s", binding.Name, want)
			}
		}
	}
}

func TestNoCheckOfAnAuthorizerIsInALoop(t *testing.T) {
	for name, policy := range validating(t) {
		for i, validation := range policy.Spec.Validations {
			if strings.Count(validation.Expression, ".check(") > 2 {
				t.Errorf("%s: validation %d asks the authorizer more than twice: CEL's budget allows two", name, i)
			}
			for _, loop := range []string{".all(", ".exists(", ".filter(", ".map("} {
				if strings.Contains(validation.Expression, ".check(") && strings.Contains(validation.Expression, loop) {
					t.Errorf("%s: validation %d asks the authorizer in a loop", name, i)
				}
			}
		}
	}
}

// TestNothingButTheStampCanRefuseTheCanary matters because the API server tells one refusal of several.
func TestNothingButTheStampCanRefuseTheCanary(t *testing.T) {
	condition := "!(request.userInfo.username == 'system:serviceaccount:support-access-system:support-access-controller' && has(request.dryRun) && request.dryRun)"
	excepted := map[string]bool{}
	for name, policy := range validating(t) {
		for _, rule := range policy.Spec.MatchConstraints.ResourceRules {
			if slices.Contains(rule.Resources, "supportaccessgrants") && slices.Contains(rule.Operations, admissionregistrationv1.Create) {
				excepted[name] = slices.ContainsFunc(policy.Spec.MatchConditions, func(c admissionregistrationv1.MatchCondition) bool {
					return c.Expression == condition
				})
			}
		}
	}
	want := map[string]bool{
		"support-access-grant-stamp": false, "support-access-grant-bind": true, "support-access-grant-scope": true,
		// It is for other namespaces than the canary's.
		"support-access-grant-limits": false,
		// The canary names no setting.
		"support-access-setting-grant": false,
		// Nor a request.
		"support-access-request-answer": false, "support-access-request-bounds": false,
		// These only warn.
		"support-access-grant-direct": false, "support-access-grant-expired": false, "support-access-grant-unreadable": false, "support-access-grant-name-used": false,
	}
	if !maps.Equal(excepted, want) {
		t.Errorf("policies of new grants, and whether they except the canary:\n%v\nwant\n%v", excepted, want)
	}
}

func TestOneListOfSystemUsersIsInEveryGuard(t *testing.T) {
	want := "['system:serviceaccount:kube-system:namespace-controller', 'system:serviceaccount:kube-system:generic-garbage-collector', 'system:kube-controller-manager']"
	var guards []string
	for name, policy := range validating(t) {
		for _, variable := range policy.Spec.Variables {
			if variable.Name != systemUsersVariable {
				continue
			}
			guards = append(guards, name)
			if variable.Expression != want {
				t.Errorf("%s: systemUsers is %s, want %s", name, variable.Expression, want)
			}
		}
	}
	slices.Sort(guards)
	wantGuards := []string{"support-access-binding-subjects", "support-access-checkpoint", "support-access-credentials", "support-access-finalizers", "support-access-records", "support-access-request-withdrawal", "support-access-sessions"}
	if !slices.Equal(guards, wantGuards) {
		t.Errorf("guards with system users: %v, want %v", guards, wantGuards)
	}
}

func TestExtraSystemUsersAreExceptedInEveryGuard(t *testing.T) {
	plain := shipped(t, Options{Stamp: true})
	extended := shipped(t, Options{Stamp: true, ExtraSystemUsers: []string{"system:backup", "system:serviceaccount:a:b"}})
	changed := 0
	for i, object := range extended {
		if Digest(object) == Digest(plain[i]) {
			continue
		}
		changed++
		policy := object.(*admissionregistrationv1.ValidatingAdmissionPolicy)
		if got := policy.Spec.Variables[0].Expression; !strings.HasSuffix(got, "'system:kube-controller-manager', 'system:backup', 'system:serviceaccount:a:b']") {
			t.Errorf("%s: systemUsers is %s", policy.Name, got)
		}
	}
	if changed != 7 {
		t.Errorf("%d objects changed, want the 7 guards", changed)
	}
}

func TestASystemUserWhoCouldBreakOutOfTheListIsRefused(t *testing.T) {
	for _, user := range []string{"", "a'b", `a"b`, `a\b`, "a\nb"} {
		if _, err := Objects(Options{ExtraSystemUsers: []string{user}}); err == nil {
			t.Errorf("user %q is taken", user)
		}
	}
}

func TestWithoutStampThereIsNoMutatingPolicy(t *testing.T) {
	with, without := shipped(t, Options{Stamp: true}), shipped(t, Options{})
	if len(with)-len(without) != 20 {
		t.Errorf("Stamp adds %d objects, want 10 policies and 10 bindings", len(with)-len(without))
	}
	if slices.ContainsFunc(without, mutates) {
		t.Error("a mutating policy is shipped without Stamp")
	}
}

func TestEveryObjectHasOurNameAndLabel(t *testing.T) {
	for _, object := range shipped(t, Options{Stamp: true}) {
		if !strings.HasPrefix(object.GetName(), "support-access-") {
			t.Errorf("%s: the name does not begin support-access-", identity(object))
		}
		if object.GetLabels()["app.kubernetes.io/part-of"] != "support-access" {
			t.Errorf("%s: is not labelled as a part of support-access", identity(object))
		}
	}
}

func TestEveryFileIsInTheKustomization(t *testing.T) {
	content, err := files.ReadFile(kustomization)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := files.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.Name() != kustomization && !strings.Contains(string(content), "\n- "+entry.Name()+"\n") {
			t.Errorf("%s is not in %s", entry.Name(), kustomization)
		}
	}
}

func TestTheDigestIsOfKindNameAndSpec(t *testing.T) {
	policy := validating(t)["support-access-grant-stamp"]
	before := Digest(policy)

	stored := policy.DeepCopy()
	stored.ResourceVersion, stored.Labels, stored.Annotations = "7", map[string]string{"a": "b"}, map[string]string{"c": "d"}
	stored.Status.ObservedGeneration = 1
	if Digest(stored) != before {
		t.Error("what the API server and Helm add changes the digest")
	}
	changes := map[string]func(*admissionregistrationv1.ValidatingAdmissionPolicy){
		"name":   func(p *admissionregistrationv1.ValidatingAdmissionPolicy) { p.Name = "other" },
		"spec":   func(p *admissionregistrationv1.ValidatingAdmissionPolicy) { p.Spec.Validations[0].Expression = "true" },
		"nilled": func(p *admissionregistrationv1.ValidatingAdmissionPolicy) { p.Spec.MatchConstraints = nil },
	}
	for what, change := range changes {
		changed := policy.DeepCopy()
		change(changed)
		if Digest(changed) == before {
			t.Errorf("a change of the %s leaves the digest", what)
		}
	}
	mutating := &admissionregistrationv1.MutatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: "x"}}
	binding := &admissionregistrationv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: "x"}}
	if Digest(mutating) == Digest(binding) {
		t.Error("the kind is not in the digest")
	}
}

func TestCompareSaysWhatIsNotInForce(t *testing.T) {
	want := shipped(t, Options{Stamp: true})
	now := metav1.NewTime(time.Unix(1_800_000_000, 0))
	edited := validating(t)["support-access-records"]
	edited.Spec.Validations = edited.Spec.Validations[:0]
	leaving := validating(t)["support-access-status"]
	leaving.DeletionTimestamp = &now

	if err := Compare(want, want); err != nil {
		t.Errorf("what is shipped differs from itself: %v", err)
	}
	stranger := &admissionregistrationv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "somebody-elses"}}
	if err := Compare(append(slices.Clone(want), stranger), want); err != nil {
		t.Errorf("somebody else's policy matters: %v", err)
	}
	cases := map[string]struct {
		live []client.Object
		says string
	}{
		"one is missing":       {without(want, "ValidatingAdmissionPolicy support-access-records"), "ValidatingAdmissionPolicy support-access-records is missing"},
		"a binding is missing": {without(want, "ValidatingAdmissionPolicyBinding support-access-records"), "ValidatingAdmissionPolicyBinding support-access-records is missing"},
		"one is edited":        {append(without(want, identity(edited)), edited), "ValidatingAdmissionPolicy support-access-records differs from what this version ships"},
		"one is being deleted": {append(without(want, identity(leaving)), leaving), "ValidatingAdmissionPolicy support-access-status is being deleted"},
	}
	for name, c := range cases {
		err := Compare(c.live, want)
		if err == nil || err.Error() != c.says {
			t.Errorf("%s: %v, want %s", name, err, c.says)
		}
	}
	if err := Compare(nil, want); err == nil || strings.Count(err.Error(), "is missing") != len(want) {
		t.Errorf("with nothing in place: %v", err)
	}
}

func without(objects []client.Object, name string) []client.Object {
	return slices.DeleteFunc(slices.Clone(objects), func(o client.Object) bool { return identity(o) == name })
}

func TestOnlyTheStampsRefusalProvesAnything(t *testing.T) {
	grants := schema.GroupResource{Group: v1alpha1.GroupVersion.Group, Resource: "supportaccessgrants"}
	forbidden := func(message string) error { return apierrors.NewForbidden(grants, "canary", errors.New(message)) }
	cases := map[string]struct {
		err     error
		refused bool
	}{
		"the stamp":            {forbidden(canaryDenial + `"supportaccess.dev:canary" is not who makes this grant`), true},
		"it was taken":         {nil, false},
		"no right":             {forbidden(`User "x" cannot create resource "supportaccessgrants"`), false},
		"another policy":       {forbidden("ValidatingAdmissionPolicy 'support-access-grant-scope' with binding 'support-access-grant-scope' denied request: metadata.namespace: x"), false},
		"the policy is broken": {apierrors.NewInvalid(schema.GroupKind{}, "canary", nil), false},
		"not reached":          {errors.New("connection refused: " + canaryDenial), false},
	}
	for name, c := range cases {
		if got := CanaryRefused(c.err); got != c.refused {
			t.Errorf("%s: refused is %t, want %t", name, got, c.refused)
		}
	}
}
