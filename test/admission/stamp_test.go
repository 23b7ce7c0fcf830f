package admission

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"supportaccess.dev/operator/api/v1alpha1"
)

func TestAGrantSaysWhoMadeIt(t *testing.T) {
	g := grant(mail, "stamped")
	w.ana.make(t, g)
	if g.Spec.GrantedBy != "ana" {
		t.Errorf("grantedBy is %q, want ana", g.Spec.GrantedBy)
	}
	taken(t, w.ana.try(t, grant(mail, "x", stampedBy("ana"))))
	refused(t, w.ana.try(t, grant(mail, "x", stampedBy("bob"))), "support-access-grant-stamp",
		`spec.grantedBy: "bob" is not who makes this grant: leave it out, or write grantedBy: "ana"`)
}

func TestAPipelineIsStampedByItsOwnName(t *testing.T) {
	g := grant(mail, "by-flux", expiring(inAnHour()))
	w.flux.make(t, g)
	if g.Spec.GrantedBy != fluxName {
		t.Errorf("grantedBy is %q, want %s", g.Spec.GrantedBy, fluxName)
	}
	refused(t, w.flux.try(t, grant(mail, "x", expiring(inAnHour()), stampedBy("ana"))), "support-access-grant-stamp",
		`spec.grantedBy: "ana" is not who makes this grant: leave it out, or write grantedBy: "`+fluxName+`"`)
}

func TestAnOddUserNameIsStampedAndQuoted(t *testing.T) {
	odd := `o'brien "q" \ ü@example`
	p := w.as(t, odd)
	g := grant(mail, "odd", func(g *v1alpha1.SupportAccessGrant) { g.Spec.Roles = []string{configuration} })
	p.make(t, g)
	if g.Spec.GrantedBy != odd {
		t.Errorf("grantedBy is %q, want %q", g.Spec.GrantedBy, odd)
	}
	err := p.try(t, grant(mail, "x", stampedBy("ana")))
	refused(t, err, "support-access-grant-stamp", `spec.grantedBy: "ana" is not who makes this grant`)
	_, line, _ := strings.Cut(err.Error(), "or write ")
	var written struct{ GrantedBy string }
	if err := yaml.Unmarshal([]byte(line), &written); err != nil || written.GrantedBy != odd {
		t.Errorf("the line %s reads as %q: %v", line, written.GrantedBy, err)
	}
}

func TestAnEditedOrRemovedStampComesBack(t *testing.T) {
	g := grant(mail, "edited")
	w.ana.make(t, g)
	patches := map[string]string{
		"edited":  `[{"op":"replace","path":"/spec/grantedBy","value":"bob"}]`,
		"removed": `[{"op":"remove","path":"/spec/grantedBy"}]`,
	}
	for what, patch := range patches {
		for _, who := range []*person{w.ana, w.root} {
			changed := g.DeepCopy()
			if err := who.Patch(t.Context(), changed, client.RawPatch(types.JSONPatchType, []byte(patch))); err != nil {
				t.Errorf("%s by %s: %v", what, who.name, err)
			}
			if changed.Spec.GrantedBy != "ana" || changed.Generation != 1 {
				t.Errorf("%s by %s: grantedBy is %q, generation %d", what, who.name, changed.Spec.GrantedBy, changed.Generation)
			}
		}
	}
}

// applied applies a grant's manifest, without a stamp, as GitOps tools do.
func (p *person) applied(t *testing.T, manifest, manager string) (*unstructured.Unstructured, error) {
	t.Helper()
	object := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(manifest), &object.Object); err != nil {
		t.Fatal(err)
	}
	err := p.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(object), client.FieldOwner(manager), client.ForceOwnership)
	return object, err
}

const appliedGrant = `
apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessGrant
metadata: {name: applied, namespace: mail}
spec:
  reason: the connector cannot reach the server
  engineers: [{name: ana@vendor.example}]
  duration: 24h
`

const appliedDecision = `
apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessDecision
metadata: {name: applied, namespace: mail}
spec:
  action: Revoke
  target: {grant: case-1}
  reason: the case is closed
`

func TestApplyingAgainIsANoOp(t *testing.T) {
	for kind, manifest := range map[string]string{"grant": appliedGrant, "decision": appliedDecision} {
		first, err := w.ana.applied(t, manifest, "flux")
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		t.Cleanup(func() { w.remove(t, first) })
		for _, field := range managedFields(t, first) {
			for _, ours := range []string{"grantedBy", "decidedBy", "finalizers"} {
				if strings.Contains(field, ours) {
					t.Errorf("%s: what admission wrote has an owner: %s", kind, field)
				}
			}
		}
		again, err := w.ana.applied(t, manifest, "flux")
		if err != nil {
			t.Fatalf("%s, again: %v", kind, err)
		}
		other, err := w.cara.applied(t, manifest, "flux")
		if err != nil {
			t.Fatalf("%s, again by cara: %v", kind, err)
		}
		// The API server itself stores the first repetition of any apply, unchanged but for the resourceVersion.
		if again.GetGeneration() != 1 || !slices.Equal(managedFields(t, again), managedFields(t, first)) {
			t.Errorf("%s applied again is not a no-op: generation %d", kind, again.GetGeneration())
		}
		if other.GetResourceVersion() != again.GetResourceVersion() {
			t.Errorf("%s applied again by another is not a no-op: resourceVersion %s to %s", kind, again.GetResourceVersion(), other.GetResourceVersion())
		}
	}
}

func managedFields(t *testing.T, object metav1.Object) []string {
	t.Helper()
	var fields []string
	for _, entry := range object.GetManagedFields() {
		fields = append(fields, entry.FieldsV1.GetRawString())
	}
	if len(fields) == 0 {
		t.Fatal("there are no managed fields")
	}
	return fields
}

func TestABackupIsNotTheAdminWhoGranted(t *testing.T) {
	g := grant(mail, "backed-up")
	w.ana.make(t, g)
	restored := g.DeepCopy()
	restored.ObjectMeta = metav1.ObjectMeta{Name: "restored", Namespace: mail, CreationTimestamp: g.CreationTimestamp}
	refused(t, w.cara.try(t, restored), "support-access-grant-stamp",
		`spec.grantedBy: "ana" is not who makes this grant: leave it out, or write grantedBy: "cara"`)
	taken(t, w.ana.try(t, restored))
}

func TestADecisionSaysWhoDecidedAndWaitsToBeRead(t *testing.T) {
	d := decision(mail)
	w.ana.make(t, d)
	if d.Spec.DecidedBy != "ana" {
		t.Errorf("decidedBy is %q, want ana", d.Spec.DecidedBy)
	}
	if len(d.Finalizers) != 1 || d.Finalizers[0] != v1alpha1.FinalizerDecision {
		t.Errorf("finalizers are %q", d.Finalizers)
	}
	refused(t, w.ana.try(t, decision(mail, decidedBy("bob"))), "support-access-decision-stamp",
		`spec.decidedBy: "bob" is not who makes this decision: leave it out, or write decidedBy: "ana"`)
	taken(t, w.ana.try(t, decision(mail, decidedBy("ana"))))
	taken(t, w.ana.merge(t, d.DeepCopy(), `{"spec":{"decidedBy":null,"authority":null}}`))

	other := decision(mail, func(d *v1alpha1.SupportAccessDecision) { d.Finalizers = []string{"example.com/other"} })
	w.ana.make(t, other)
	if len(other.Finalizers) != 2 {
		t.Errorf("finalizers are %q, want ours beside the other", other.Finalizers)
	}

	if err := w.ana.Delete(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if err := w.ana.Get(t.Context(), client.ObjectKeyFromObject(d), d); err != nil || d.DeletionTimestamp == nil {
		t.Errorf("a deleted decision vanished unread: %v", err)
	}
}

func TestADecisionSaysHowFarTheAuthorityReachesOfWhoDecided(t *testing.T) {
	approving := doing(v1alpha1.ActionApprove)
	for what, c := range map[string]struct {
		who  *person
		d    *v1alpha1.SupportAccessDecision
		want v1alpha1.Authority
	}{
		"an approval by who may approve in the namespace": {w.eve, decision(mail, approving), v1alpha1.AuthorityNamespace},
		"an approval by who may everywhere":               {w.cara, decision(mail, approving), v1alpha1.AuthorityCluster},
		"a denial by who may everywhere":                  {w.cara, decision(mail, doing(v1alpha1.ActionDeny)), v1alpha1.AuthorityCluster},
		"a revocation by who may revoke one name":         {w.dan, decision(mail, onGrant("dans")), v1alpha1.AuthorityNamespace},
		"a revocation by who may revoke everywhere":       {w.cara, decision(mail), v1alpha1.AuthorityCluster},
	} {
		t.Run(what, func(t *testing.T) {
			forged := map[v1alpha1.Authority]v1alpha1.Authority{
				v1alpha1.AuthorityNamespace: v1alpha1.AuthorityCluster, v1alpha1.AuthorityCluster: v1alpha1.AuthorityNamespace,
			}[c.want]
			holds := map[v1alpha1.Authority]string{v1alpha1.AuthorityNamespace: "does not hold", v1alpha1.AuthorityCluster: "holds"}[c.want]
			refused(t, c.who.try(t, stampedWith(c.d, forged)), "support-access-decision-stamp",
				fmt.Sprintf("spec.authority: %s: %s %s the verb in the whole cluster: leave it out, or write authority: %s", forged, c.who.name, holds, c.want))
			taken(t, c.who.try(t, stampedWith(c.d, c.want)))
			c.who.make(t, c.d)
			if c.d.Spec.Authority != c.want {
				t.Errorf("authority is %q, want %s", c.d.Spec.Authority, c.want)
			}
			taken(t, w.root.merge(t, c.d.DeepCopy(), `{"spec":{"authority":"`+string(forged)+`"}}`))
			stored := c.d.DeepCopy()
			if err := w.root.Get(t.Context(), client.ObjectKeyFromObject(stored), stored); err != nil || stored.Spec.Authority != c.want {
				t.Errorf("after an edit authority is %q: %v", stored.Spec.Authority, err)
			}
		})
	}
}

func stampedWith(d *v1alpha1.SupportAccessDecision, authority v1alpha1.Authority) *v1alpha1.SupportAccessDecision {
	stamped := d.DeepCopy()
	stamped.Spec.Authority = authority
	return stamped
}

// withAuthority stamps the authority of somebody who may not decide everywhere.
func withAuthority(d *v1alpha1.SupportAccessDecision) { d.Spec.Authority = v1alpha1.AuthorityNamespace }

func TestKubectlSaysWhatWouldBeRefused(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := w.cp.WriteKubeconfig(kubeconfig, w.ana.config, mail); err != nil {
		t.Fatal(err)
	}
	apply := func(manifest string) string {
		file := filepath.Join(t.TempDir(), "grant.yaml")
		if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
			t.Fatal(err)
		}
		said, _ := exec.CommandContext(t.Context(), w.cp.Kubectl(), "--kubeconfig", kubeconfig, "apply", "--dry-run=server", "-f", file).CombinedOutput()
		return string(said)
	}
	if said := apply(strings.Replace(appliedGrant, "24h", "200h", 1)); !strings.Contains(said,
		"denied request: spec.duration: 200h exceeds 168h, the limit of policy default") {
		t.Errorf("kubectl says: %s", said)
	}
	if said := apply(strings.Replace(appliedGrant, "24h", "3d", 1)); !strings.Contains(said, "write 72h") {
		t.Errorf("kubectl says: %s", said)
	}
	if said := apply(appliedGrant); !strings.Contains(said, "created (server dry run)") {
		t.Errorf("kubectl says: %s", said)
	}
}

func TestTheSpecIsNeverEdited(t *testing.T) {
	g := grant(mail, "fixed", func(g *v1alpha1.SupportAccessGrant) {
		g.Spec.Case = &v1alpha1.Case{ID: "CASE-1"}
		g.Spec.Transport = v1alpha1.TransportDirect
		g.Spec.Scope = &v1alpha1.Scope{Namespaces: []string{mail}}
	})
	w.ana.make(t, g)
	refusals := map[string]string{
		"a longer duration":  `{"spec":{"duration":"48h"}}`,
		"another role":       `{"spec":{"roles":["support-access-content"]}}`,
		"another engineer":   `{"spec":{"engineers":[{"name":"mallory@vendor.example"}]}}`,
		"another namespace":  `{"spec":{"scope":{"namespaces":["shop"]}}}`,
		"an unset scope":     `{"spec":{"scope":null}}`,
		"an unset transport": `{"spec":{"transport":null}}`,
		"an unset case":      `{"spec":{"case":null}}`,
		"another case":       `{"spec":{"case":{"id":"CASE-2"}}}`,
		"an added start":     `{"spec":{"startTime":"2030-01-01T00:00:00Z"}}`,
		"an instant instead": `{"spec":{"duration":null,"expirationTime":"2030-01-01T00:00:00Z"}}`,
		"an unset spec":      `{"spec":null}`,
	}
	for what, patch := range refusals {
		err := w.ana.Patch(t.Context(), g.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(patch)))
		if what == "an unset spec" {
			invalid(t, err, "spec: Required value")
			continue
		}
		invalid(t, err, "spec: a grant is never edited (only reason and case.url may be corrected)")
	}
	taken(t, w.ana.Patch(t.Context(), g.DeepCopy(), client.RawPatch(types.MergePatchType,
		[]byte(`{"spec":{"reason":"another reason","case":{"url":"https://vendor.example/1"}}}`))))
}

// TestWithoutMutatingPoliciesTheLinesAreAskedFor is how a server that has none is served.
func TestWithoutMutatingPoliciesTheLinesAreAskedFor(t *testing.T) {
	ctx := t.Context()
	mutating := w.mutatingBindings()
	for _, binding := range mutating {
		if err := w.root.Delete(ctx, binding.DeepCopyObject().(client.Object)); err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		for _, binding := range mutating {
			if err := w.root.Create(ctx, binding.DeepCopyObject().(client.Object)); err != nil {
				t.Error(err)
			}
		}
		if err := w.waitUntilAllHold(ctx); err != nil {
			t.Error(err)
		}
	}()
	err := until(ctx, "nothing is stamped", func() error {
		for _, attempt := range []client.Object{grant(mail, "x"), decision(mail, withAuthority, finalized), decision(mail, decidedBy("ana"), finalized), decision(mail, decidedBy("ana"), withAuthority), setting(mail), request(mail, "x")} {
			if err := w.ana.try(t, attempt); err == nil {
				return fmt.Errorf("%T is taken", attempt)
			}
		}
		if err := w.cara.try(t, byDefault("by-hand")); err == nil {
			return errors.New("a policy is taken")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	refused(t, w.ana.try(t, grant(mail, "x")), "support-access-grant-stamp", `spec.grantedBy: is missing: add the line grantedBy: "ana"`)
	refused(t, w.ana.try(t, grant(mail, "x", stampedBy("bob"))), "support-access-grant-stamp", `spec.grantedBy: "bob" is not who makes this grant`)
	refused(t, w.ana.try(t, decision(mail, withAuthority, finalized)), "support-access-decision-stamp", `spec.decidedBy: is missing: add the line decidedBy: "ana"`)
	refused(t, w.ana.try(t, decision(mail, decidedBy("ana"), finalized)), "support-access-decision-stamp",
		"spec.authority: is missing: add the line authority: Namespace, or authority: Cluster if you hold the verb in the whole cluster")
	refused(t, w.ana.try(t, decision(mail, decidedBy("ana"), withAuthority)), "support-access-decision-stamp",
		"metadata.finalizers: is missing: add the line finalizers: [supportaccess.dev/decision]")

	refused(t, w.ana.try(t, request(mail, "x")), "support-access-request-stamp", `spec.requestedBy: is missing: add the line requestedBy: "ana"`)
	taken(t, w.ana.try(t, request(mail, "x", askedBy("ana"))))
	refused(t, w.answering(&w.ana, func(g *v1alpha1.SupportAccessGrant) { g.Spec.RequestRef.UID = "" })(ctx), "support-access-request-answer",
		"spec.requestRef: there is no SupportAccessRequest asked in namespace mail, or the API server has not heard of it yet; where no MutatingAdmissionPolicy writes them")
	taken(t, w.answering(&w.ana)(ctx))
	refused(t, w.ana.try(t, setting(mail)), "support-access-setting-stamp", `spec.switchedBy: is missing: add the line switchedBy: "ana"`)
	taken(t, w.ana.try(t, setting(mail, switchedBy("ana"))))
	s := setting(mail, switchedBy("ana"))
	w.ana.make(t, s)
	for what, patch := range map[string]string{
		"spec.switchedBy: says who changed the setting and does not change without it": `{"spec":{"switchedBy":"bob"}}`,
		`spec.switchedBy: "ana" is not who changes this setting`:                       `{"spec":{"reason":"another"}}`,
	} {
		refused(t, w.bob.merge(t, s.DeepCopy(), patch), "support-access-setting-stamp", what)
	}
	taken(t, w.bob.merge(t, s.DeepCopy(), `{"spec":{"reason":"another","switchedBy":"bob"}}`))

	refused(t, w.cara.try(t, byDefault("by-hand")), "support-access-policy-stamp",
		`spec.enabledByDefault.switchedBy: is missing: add the line switchedBy: "cara"`)
	p := byDefault("by-hand", writtenBy("cara"))
	w.cara.make(t, p)
	for what, patch := range map[string]string{
		"spec.enabledByDefault.switchedBy: says who changed the policy and does not change without it": `{"spec":{"enabledByDefault":{"switchedBy":"pat"}}}`,
		`spec.enabledByDefault.switchedBy: "cara" is not who changes this policy`:                      `{"spec":{"maxEnabled":"100h"}}`,
	} {
		refused(t, w.pat.merge(t, p.DeepCopy(), patch), "support-access-policy-stamp", what)
	}
	taken(t, w.pat.merge(t, p.DeepCopy(), `{"spec":{"maxEnabled":"100h","enabledByDefault":{"switchedBy":"pat"}}}`))

	lines := strings.Replace(appliedGrant, "duration: 24h", "duration: 24h\n  grantedBy: ana", 1)
	first, err := w.ana.applied(t, lines, "flux")
	if err != nil {
		t.Fatal(err)
	}
	defer w.remove(t, first)
	if again, err := w.cara.applied(t, lines, "flux"); err != nil || again.GetGeneration() != 1 {
		t.Errorf("applied again: generation %d, %v", again.GetGeneration(), err)
	}
	_, err = w.cara.applied(t, strings.Replace(lines, "grantedBy: ana", "grantedBy: cara", 1), "flux")
	invalid(t, err, "spec: a grant is never edited")
	taken(t, w.ana.try(t, decision(mail, decidedBy("ana"), withAuthority, finalized)))
}

func (w *world) mutatingBindings() []client.Object {
	var bindings []client.Object
	for _, object := range w.shipped {
		if kindOf(object) == "MutatingAdmissionPolicyBinding" {
			bindings = append(bindings, object)
		}
	}
	return bindings
}
