package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/config/admission"
)

// A proof is an attempt that depends on one admission object alone. It returns nil while that object is in force, and
// says what happened when it is not. Stamps are written out, so that no proof needs the mutating policies by accident.
type proof func(context.Context) error

// denied is the proof that an attempt is refused by a policy.
func denied(policy string, attempt func(context.Context) error) proof {
	return func(ctx context.Context) error {
		if err := attempt(ctx); !isDenial(err, policy) {
			return fmt.Errorf("not refused by %s: %v", policy, err)
		}
		return nil
	}
}

// creating attempts to create an object.
func creating(who **person, object client.Object) func(context.Context) error {
	return func(ctx context.Context) error {
		return (*who).Create(ctx, object.DeepCopyObject().(client.Object), client.DryRunAll)
	}
}

// warning is the proof that a policy warns.
func warning(policy string, who **person, object client.Object) proof {
	return func(ctx context.Context) error {
		said, err := w.warned(ctx, *who, object)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(said, func(s string) bool { return strings.Contains(s, "'"+policy+"'") }) {
			return fmt.Errorf("no warning of %s: %q", policy, said)
		}
		return nil
	}
}

func stampedBy(name string) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) { g.Spec.GrantedBy = name }
}

func decidedBy(name string) func(*v1alpha1.SupportAccessDecision) {
	return func(d *v1alpha1.SupportAccessDecision) { d.Spec.DecidedBy = name }
}

func finalized(d *v1alpha1.SupportAccessDecision) {
	d.Finalizers = []string{v1alpha1.FinalizerDecision}
}

func lasting(duration v1alpha1.Duration) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) { g.Spec.Duration = duration }
}

func expiring(instant string) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) {
		parsed, err := time.Parse(time.RFC3339, instant)
		if err != nil {
			panic(err)
		}
		g.Spec.Duration, g.Spec.ExpirationTime = "", &metav1.Time{Time: parsed}
	}
}

// proofs has one for each admission object, by kind and name; where a kind is left out, for policy and binding.
func proofs() map[string]proof {
	identity := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: v1alpha1.CredentialsNamespace, Name: "engineer"}
	stranger := rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "mallory"}
	configMap := func(namespace string) client.Object {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "x"}}
	}
	tokenSecret := &corev1.Secret{Type: corev1.SecretTypeServiceAccountToken, ObjectMeta: metav1.ObjectMeta{
		Namespace: mail, Name: "x", Annotations: map[string]string{corev1.ServiceAccountNameKey: "default"},
	}}
	clusterRole := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "x"}}
	soon := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	attempts := map[string]func(context.Context) error{
		"support-access-grant-stamp":              creating(&w.ana, grant(mail, "x", stampedBy("bob"))),
		"support-access-grant-bind":               creating(&w.bob, grant(mail, "x", stampedBy("bob"))),
		"support-access-grant-scope":              creating(&w.cara, grant(v1alpha1.SystemNamespace, "x", stampedBy("cara"))),
		"support-access-grant-limits-default":     creating(&w.ana, grant(mail, "x", stampedBy("ana"), lasting("200h"))),
		"support-access-grant-limits-named":       creating(&w.cara, grant(named, "x", stampedBy("cara"), lasting("23h"))),
		"support-access-decision-stamp":           creating(&w.ana, decision(mail, decidedBy("bob"), withAuthority, finalized)),
		"support-access-decision-verbs":           creating(&w.bob, decision(mail, decidedBy("bob"), withAuthority, finalized)),
		"support-access-setting-stamp":            creating(&w.ana, setting(mail, switchedBy("bob"))),
		"support-access-setting-bind":             creating(&w.bob, setting(mail, on(soon), switchedBy("bob"))),
		"support-access-setting-limits":           creating(&w.cara, setting(mail, on(at(721*time.Hour)), switchedBy("cara"))),
		"support-access-setting-grant":            w.grantOfSetting(stampedBy("mallory")),
		"support-access-setting-by-policy":        creating(&w.controller, setting(mail, switchedBy("mallory"))),
		"support-access-request-stamp":            creating(&w.ana, request(mail, "x", askedBy("bob"))),
		"support-access-request-limits":           creating(&w.ana, request(mail, "x", askedBy("ana"), forLong("200h"))),
		"support-access-request-withdrawal":       w.withdrawing(&w.bob),
		"support-access-request-answer":           w.answering(&w.cara),
		"support-access-request-bounds":           w.answering(&w.ana, to("mallory@vendor.example")),
		"support-access-request-denial":           creating(&w.cara, decision(mail, decidedBy("cara"), everyAuthority, finalized, denying("asked"))),
		"support-access-policy-stamp":             creating(&w.cara, byDefault("x", writtenBy("bob"))),
		"support-access-policy-bind":              creating(&w.pat, byDefault("x", writtenBy("pat"), lending(operate))),
		"support-access-finalizers":               w.updateHeld(func(g *v1alpha1.SupportAccessGrant) { g.Finalizers = nil }),
		"support-access-status":                   w.updateHeldStatus,
		"support-access-records":                  w.labelUsed,
		"support-access-credentials":              creating(&w.root, configMap(v1alpha1.CredentialsNamespace)),
		"support-access-binding-subjects":         creating(&w.root, binding(mail, "x", configuration, identity)),
		"support-access-controller-bindings":      creating(&w.controller, managed(binding(mail, "x", configuration, stranger))),
		"support-access-controller-roles-default": creating(&w.controller, managed(binding(mail, "x", "test-write", identity))),
		"support-access-controller-roles-named":   creating(&w.controller, managed(binding(named, "x", diagnostics, identity))),
		"support-access-never":                    creating(&w.engineer, clusterRole),
		"support-access-never-secrets":            creating(&w.engineer, tokenSecret),
		"support-access-never-here":               creating(&w.engineer, configMap(v1alpha1.SystemNamespace)),
		"support-access-never-flags":              creating(&w.engineer, flaggedMap("x", "malware")),
		"support-access-sessions":                 creating(&w.root, session(gatewayPod)),
		"support-access-gateway":                  creating(&w.gateway, clusterRole),
		"support-access-gateway-users":            creating(&w.controller, clusterRole),
		"support-access-checkpoint":               creating(&w.root, checkpoint(nil)),
		"support-access-banner":                   creating(&w.root, bannerIn(mail)),
	}
	all := map[string]proof{
		"support-access-grant-expired":    warning("support-access-grant-expired", &w.ana, grant(mail, "x", stampedBy("ana"), expiring("2020-01-01T00:00:00Z"))),
		"support-access-grant-unreadable": warning("support-access-grant-unreadable", &w.flux, grant(mail, "x", stampedBy(fluxName), expiring(soon))),
		"support-access-grant-direct":     warning("support-access-grant-direct", &w.cara, grant(named, "x", stampedBy("cara"), fitting, through(v1alpha1.TransportDirect))),
		"support-access-grant-name-used":  warning("support-access-grant-name-used", &w.cara, grant(shop, "used", stampedBy("cara"))),
	}
	for name, attempt := range attempts {
		policy := strings.TrimSuffix(strings.TrimSuffix(name, "-default"), "-named")
		all[name] = denied(policy, attempt)
	}
	all["support-access-grant-limits"] = all["support-access-grant-limits-default"]
	all["support-access-controller-roles"] = all["support-access-controller-roles-default"]
	for name, attempt := range map[string]func(context.Context) error{
		"support-access-grant-stamp":        creating(&w.ana, grant(mail, "x")),
		"support-access-decision-stamp":     creating(&w.ana, decision(mail, withAuthority, finalized)),
		"support-access-decision-authority": creating(&w.ana, decision(mail, decidedBy("ana"), finalized)),
		"support-access-setting-stamp":      creating(&w.cara, setting(frozen)),
		"support-access-setting-engineers":  creating(&w.cara, setting(named, switchedBy("cara"), ofList("archive"))),
		"support-access-policy-stamp":       creating(&w.cara, byDefault("x")),
		"support-access-request-stamp":      creating(&w.ana, request(mail, "x")),
		"support-access-request-answer":     w.answering(&w.ana, func(g *v1alpha1.SupportAccessGrant) { g.Spec.RequestRef.UID = "" }),
		"support-access-request-answered":   w.updateAnswer,
		"support-access-decision-finalizer": creating(&w.ana, decision(mail, decidedBy("ana"), withAuthority)),
	} {
		all["MutatingAdmissionPolicy "+name] = attempt
		all["MutatingAdmissionPolicyBinding "+name] = attempt
	}
	return all
}

func managed(object client.Object) client.Object {
	object.SetLabels(map[string]string{v1alpha1.LabelManaged: "true"})
	return object
}

// updateHeld attempts to change the grant that the fixture made.
func (w *world) updateHeld(change func(*v1alpha1.SupportAccessGrant)) func(context.Context) error {
	return func(ctx context.Context) error {
		held := &v1alpha1.SupportAccessGrant{}
		if err := w.root.Get(ctx, client.ObjectKey{Namespace: shop, Name: "held"}, held); err != nil {
			return err
		}
		change(held)
		return w.root.Update(ctx, held, client.DryRunAll)
	}
}

func (w *world) updateHeldStatus(ctx context.Context) error {
	held := &v1alpha1.SupportAccessGrant{}
	if err := w.root.Get(ctx, client.ObjectKey{Namespace: shop, Name: "held"}, held); err != nil {
		return err
	}
	held.Status.EndReason = v1alpha1.EndExpired
	return w.root.Status().Update(ctx, held, client.DryRunAll)
}

func (w *world) labelUsed(ctx context.Context) error {
	used := &v1alpha1.SupportAccessRecord{}
	if err := w.root.Get(ctx, client.ObjectKey{Namespace: shop, Name: "used"}, used); err != nil {
		return err
	}
	used.Labels = map[string]string{"a": "b"}
	return w.root.Update(ctx, used, client.DryRunAll)
}

func kindOf(object client.Object) string {
	return strings.TrimPrefix(fmt.Sprintf("%T", object), "*v1.")
}

func proofOf(all map[string]proof, object client.Object) proof {
	if p := all[kindOf(object)+" "+object.GetName()]; p != nil {
		return p
	}
	return all[object.GetName()]
}

func (w *world) waitUntilAllHold(ctx context.Context) error {
	all := proofs()
	for _, object := range w.shipped {
		p := proofOf(all, object)
		if p == nil {
			return fmt.Errorf("nothing here proves %s %s", kindOf(object), object.GetName())
		}
		if err := until(ctx, kindOf(object)+" "+object.GetName()+" is in force", func() error { return p(ctx) }); err != nil {
			return err
		}
	}
	return nil
}

// live returns the admission objects as the API server has them.
func (w *world) live(ctx context.Context) ([]client.Object, error) {
	var live []client.Object
	for _, object := range w.shipped {
		stored := object.DeepCopyObject().(client.Object)
		err := w.root.Get(ctx, client.ObjectKeyFromObject(object), stored)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		live = append(live, stored)
	}
	return live, nil
}

func TestWhatTheAPIServerStoresIsWhatWeShip(t *testing.T) {
	live, err := w.live(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := admission.Compare(live, w.shipped); err != nil {
		t.Errorf("a defaulted field is not shipped: %v", err)
	}
}

// TestEachAdmissionObjectMatters takes the objects of all policies away at once and one after the other within each
// policy: the API server looks only once a second whether a policy has changed.
func TestEachAdmissionObjectMatters(t *testing.T) {
	all := proofs()
	var group sync.WaitGroup
	for _, policy := range w.shipped {
		if strings.HasSuffix(kindOf(policy), "Binding") {
			continue
		}
		group.Go(func() {
			for _, object := range append(bindingsOf(policy), policy) {
				deleteAndRestore(t, object, proofOf(all, object))
			}
		})
	}
	group.Wait()
}

func bindingsOf(policy client.Object) []client.Object {
	var bindings []client.Object
	for _, object := range w.shipped {
		switch binding := object.(type) {
		case *admissionregistrationv1.ValidatingAdmissionPolicyBinding:
			if kindOf(policy) == "ValidatingAdmissionPolicy" && binding.Spec.PolicyName == policy.GetName() {
				bindings = append(bindings, binding)
			}
		case *admissionregistrationv1.MutatingAdmissionPolicyBinding:
			if kindOf(policy) == "MutatingAdmissionPolicy" && binding.Spec.PolicyName == policy.GetName() {
				bindings = append(bindings, binding)
			}
		}
	}
	return bindings
}

// deleteAndRestore shows what gets through without an object, and that it no longer does with it.
func deleteAndRestore(t *testing.T, object client.Object, holds proof) {
	ctx := t.Context()
	what := kindOf(object) + " " + object.GetName()
	if err := holds(ctx); err != nil {
		t.Errorf("%s is not in force: %v", what, err)
		return
	}
	if err := w.root.Delete(ctx, object.DeepCopyObject().(client.Object)); err != nil {
		t.Errorf("delete %s: %v", what, err)
		return
	}
	began := time.Now()
	if live, err := w.live(ctx); err != nil {
		t.Errorf("fetch the admission objects: %v", err)
	} else if err := admission.Compare(live, w.shipped); err == nil || !strings.Contains(err.Error(), what+" is missing") {
		t.Errorf("Compare does not miss %s: %v", what, err)
	}
	var through error
	err := until(ctx, "an attempt gets through without "+what, func() error {
		if through = holds(ctx); through == nil {
			return errors.New("it does not yet")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	gone := time.Since(began)
	if err := w.root.Create(ctx, object.DeepCopyObject().(client.Object)); err != nil {
		t.Errorf("restore %s: %v", what, err)
		return
	}
	began = time.Now()
	if err := until(ctx, what+" is in force again", func() error { return holds(ctx) }); err != nil {
		t.Error(err)
	}
	t.Logf("%s: out of force after %d ms (%v), in force again after %d ms",
		what, gone.Milliseconds(), through, time.Since(began).Milliseconds())
}

func TestAllCELCompilesAndIsOfTheRightTypes(t *testing.T) {
	ctx := t.Context()
	wrong := &admissionregistrationv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "wrong-type"}}
	for _, object := range w.shipped {
		if policy, ok := object.(*admissionregistrationv1.ValidatingAdmissionPolicy); ok && policy.Name == "support-access-grant-expired" {
			policy.Spec.DeepCopyInto(&wrong.Spec)
		}
	}
	wrong.Spec.Validations[0].Expression = "object.spec.duration > 3"
	w.root.make(t, wrong)
	if said := typeWarnings(ctx, t, wrong.Name); len(said) == 0 {
		t.Error("the API server does not check types: this test proves nothing")
	}
	for _, object := range w.shipped {
		if _, ok := object.(*admissionregistrationv1.ValidatingAdmissionPolicy); !ok {
			continue
		}
		for _, said := range typeWarnings(ctx, t, object.GetName()) {
			t.Errorf("%s: %s: %s", object.GetName(), said.FieldRef, said.Warning)
		}
	}
}

func typeWarnings(ctx context.Context, t *testing.T, name string) []admissionregistrationv1.ExpressionWarning {
	t.Helper()
	policy := &admissionregistrationv1.ValidatingAdmissionPolicy{}
	err := until(ctx, name+" is type-checked", func() error {
		if err := w.root.Get(ctx, client.ObjectKey{Name: name}, policy); err != nil {
			return err
		}
		if policy.Status.TypeChecking == nil || policy.Status.ObservedGeneration != policy.Generation {
			return errors.New("not yet observed")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return policy.Status.TypeChecking.ExpressionWarnings
}

func TestTheCanaryIsRefusedByTheStampAlone(t *testing.T) {
	// The API server reports one refusal of several, in no fixed order. So nothing but the stamp may be wrong with it.
	honest := admission.CanaryGrant()
	honest.Spec.GrantedBy = controllerName
	taken(t, w.controller.try(t, honest))
	// In earnest the controller makes no such grant. Whoever else does is told that this is no place for one.
	honest.Spec.GrantedBy = "cara"
	refused(t, w.cara.try(t, honest), "support-access-grant-scope", "metadata.namespace: support-access-system belongs to the operator and takes no grants")
	refused(t, w.controller.Create(t.Context(), admission.CanaryGrant(), client.DryRunAll), "support-access-grant-stamp",
		`spec.grantedBy: "supportaccess.dev:canary" is not who makes this grant: leave it out, or write grantedBy: "`+controllerName+`"`)
	if err := w.bob.Create(t.Context(), admission.CanaryGrant(), client.DryRunAll); admission.CanaryRefused(err) || !apierrors.IsForbidden(err) {
		t.Errorf("what RBAC refuses counts as the canary's refusal: %v", err)
	}
}
