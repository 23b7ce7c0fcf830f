package admission

import (
	"context"
	"fmt"
	"os"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

const (
	neverFlags  = "support-access-never-flags"
	guardOfFlag = "support-access-flags"
)

// flaggedMap is a ConfigMap with a flag, or with none.
func flaggedMap(name, flag string) *corev1.ConfigMap {
	m := &corev1.ConfigMap{ObjectMeta: in(mail, name)}
	if flag != "" {
		m.Labels = map[string]string{v1alpha1.LabelFlagged: flag}
	}
	return m
}

// flips are the ways to set, change and take off a flag, by what they do.
func flips(t *testing.T, bare, flagged *corev1.ConfigMap) map[string]func(*person) error {
	t.Helper()
	patch := func(object *corev1.ConfigMap, body string) func(*person) error {
		return func(who *person) error { return who.merge(t, object.DeepCopy(), body, client.DryRunAll) }
	}
	return map[string]func(*person) error{
		"made with a flag":  func(who *person) error { return who.try(t, flaggedMap("x", "malware")) },
		"a flag set":        patch(bare, `{"metadata":{"labels":{"supportaccess.dev/flagged":"malware"}}}`),
		"another label set": patch(bare, `{"metadata":{"labels":{"supportaccess.dev/flagged-by":"scanner"}}}`),
		"a flag changed":    patch(flagged, `{"metadata":{"labels":{"supportaccess.dev/flagged":"spam"}}}`),
		"a flag taken off":  patch(flagged, `{"metadata":{"labels":{"supportaccess.dev/flagged":null}}}`),
		"applied, by the server's hand": func(who *person) error {
			object := flaggedMap(bare.Name, "malware")
			object.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}
			return who.Patch(t.Context(), object, client.Apply, client.FieldOwner("x"), client.ForceOwnership, client.DryRunAll) //nolint:staticcheck // A ConfigMap as a manifest has it.
		},
		"the status of a pod": func(who *person) error {
			object := &corev1.Pod{ObjectMeta: in(mail, "flaggable")}
			return who.SubResource("status").Patch(t.Context(), object, client.RawPatch("application/merge-patch+json",
				[]byte(`{"metadata":{"labels":{"supportaccess.dev/flagged":"malware"}}}`)), &client.SubResourcePatchOptions{PatchOptions: client.PatchOptions{DryRun: []string{metav1.DryRunAll}}})
		},
	}
}

func TestOnlyWhoHoldsTheVerbFlagSetsOrTakesOffAFlag(t *testing.T) {
	bare, flagged := flaggedMap("bare", ""), flaggedMap("flagged", "malware")
	pod := &corev1.Pod{ObjectMeta: in(mail, "flaggable"), Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "x", Image: "x"}}}}
	w.root.make(t, pod)
	for _, object := range []*corev1.ConfigMap{bare, flagged} {
		if err := w.root.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := w.root.Delete(context.Background(), object); err != nil {
				t.Error(err)
			}
		})
	}
	all := flips(t, bare, flagged)
	for what, flip := range all {
		t.Run(what+" by an engineer", func(t *testing.T) {
			for _, who := range []*person{w.engineer, w.visitor} {
				refused(t, flip(who), neverFlags, "metadata.labels: a label that begins supportaccess.dev/flagged: never with support access, whatever the role ("+who.name+")")
			}
			// Without the guard whoever may write may flag.
			taken(t, flip(w.root))
		})
	}
	for _, who := range []*person{w.engineer, w.visitor} {
		taken(t, who.merge(t, flagged.DeepCopy(), `{"data":{"a":"b"},"metadata":{"labels":{"a":"b"}}}`, client.DryRunAll))
	}

	w.root.make(t, &rbacv1.ClusterRole{ObjectMeta: in("", "test-edit"), Rules: []rbacv1.PolicyRule{{
		APIGroups: []string{""}, Resources: []string{"configmaps", "pods", "pods/status"}, Verbs: []string{"get", "create", "update", "patch"},
	}}})
	w.root.make(t, &rbacv1.ClusterRole{ObjectMeta: in("", "test-flag"), Rules: []rbacv1.PolicyRule{{
		APIGroups: []string{"supportaccess.dev"}, Resources: []string{"supportaccessgrants"}, Verbs: []string{"flag"},
	}}})
	for _, name := range []string{"editor", "scanner"} {
		w.root.make(t, binding(mail, name+"-edits", "test-edit", subjectUser(name)))
	}
	w.root.make(t, binding(mail, "scanner-flags", "test-flag", subjectUser("scanner")))
	w.root.make(t, binding(shop, "editor-flags-elsewhere", "test-flag", subjectUser("editor")))
	guardFlags(t)
	editor, scanner := somebody(t, "editor"), somebody(t, "scanner")
	says := "metadata.labels: editor lacks the verb flag on supportaccessgrants in namespace mail"
	err := until(t.Context(), "the guard is in force", func() error {
		if err := editor.try(t, flaggedMap("x", "malware")); !isDenial(err, guardOfFlag) {
			return fmt.Errorf("the answer is %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for what, flip := range all {
		t.Run(what, func(t *testing.T) {
			refused(t, flip(editor), guardOfFlag, says)
			taken(t, flip(scanner))
		})
	}
	taken(t, editor.merge(t, flagged.DeepCopy(), `{"data":{"a":"b"},"metadata":{"labels":{"a":"b"}}}`, client.DryRunAll))
	taken(t, editor.try(t, flaggedMap("x", "")))
}

// somebody is a user with the rights that bindings give, and no others.
func somebody(t *testing.T, name string) *person {
	t.Helper()
	config := rest.CopyConfig(w.root.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: name}
	p, err := w.person(name, config, rest.NoWarnings{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// guardFlags puts the opt-in guard in place until the test ends.
func guardFlags(t *testing.T) {
	t.Helper()
	content, err := os.ReadFile("../../config/flagguard/guard.yaml")
	if err != nil {
		t.Fatal(err)
	}
	putBoth(t, content, &admissionregistrationv1.ValidatingAdmissionPolicy{}, &admissionregistrationv1.ValidatingAdmissionPolicyBinding{})
}

func TestFlaggedContentIsGrantedAsThePolicySaysByWhoMayBindItsRole(t *testing.T) {
	w.root.make(t, &rbacv1.ClusterRole{ObjectMeta: in("", v1alpha1.FlaggedRole)})
	for name, transports := range map[string][]v1alpha1.Transport{
		"flags-none": {v1alpha1.TransportGateway}, "flags-direct": {v1alpha1.TransportDirect, v1alpha1.TransportGateway}, "flags": {v1alpha1.TransportGateway},
	} {
		p := policyNamed(name)
		p.Spec.Roles, p.Spec.Transports = append(p.Spec.Roles, v1alpha1.OfferedRole{Name: v1alpha1.FlaggedRole}), transports
		if name != "flags-none" {
			p.Spec.FlaggedContent = &v1alpha1.FlaggedContent{
				Resources: []v1alpha1.FlaggedResource{{Resource: "configmaps"}}, Selector: v1alpha1.FlagSelector{MatchLabels: map[string]string{v1alpha1.LabelFlagged: "malware"}},
			}
		}
		w.root.make(t, p)
		namespace := w.namespaces()[0].DeepCopy()
		namespace.Name, namespace.Labels = name, map[string]string{v1alpha1.LabelPolicy: name}
		if err := w.root.Create(t.Context(), namespace); err != nil {
			t.Fatal(err)
		}
	}
	w.root.make(t, binding("flags", "ana-writes", "test-write", subjectUser("ana")))
	w.root.make(t, binding("flags", "ana-binds", "test-bind-plain", subjectUser("ana")))
	flagged := func(namespace string) *v1alpha1.SupportAccessGrant {
		return grant(namespace, "x", with(configuration, v1alpha1.FlaggedRole), func(g *v1alpha1.SupportAccessGrant) { g.Spec.FlaggedContent = v1alpha1.FlaggedContentAllow })
	}
	err := until(t.Context(), "the policies are known", func() error { return w.cara.try(t, flagged("flags")) })
	if err != nil {
		t.Fatal(err)
	}
	refused(t, w.cara.try(t, flagged("flags-none")), limits, "spec.flaggedContent: Allow is not offered: policy flags-none has no flaggedContent")
	refused(t, w.cara.try(t, flagged("flags-direct")), limits,
		"spec.flaggedContent: Allow is for the transport Gateway alone, and Direct is the default of policy flags-direct")
	through := flagged("flags-direct")
	through.Spec.Transport = v1alpha1.TransportGateway
	taken(t, w.cara.try(t, through))
	refused(t, w.ana.try(t, flagged("flags")), "support-access-grant-bind", "spec.roles[1]: support-access-flagged: ana lacks the verb bind on this ClusterRole in namespace flags")
	taken(t, w.ana.try(t, grant("flags", "x", with(configuration))))
}
