package admission

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// byDefault is a policy that calls no role elevated and switches on every namespace, but for those that another says.
func byDefault(name string, changes ...func(*v1alpha1.EnabledByDefault)) *v1alpha1.SupportAccessPolicy {
	p := policyNamed(name)
	for i := range p.Spec.Roles {
		p.Spec.Roles[i].Elevated, p.Spec.Roles[i].MaxDuration = false, ""
	}
	p.Spec.EnabledByDefault = &v1alpha1.EnabledByDefault{
		CreatedSince: metav1.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), Duration: "24h",
		Engineers: []v1alpha1.Engineer{{Name: "ana@vendor.example"}}, Roles: []string{configuration},
	}
	for _, change := range changes {
		change(p.Spec.EnabledByDefault)
	}
	return p
}

func writtenBy(user string) func(*v1alpha1.EnabledByDefault) {
	return func(d *v1alpha1.EnabledByDefault) { d.SwitchedBy = user }
}

func lending(roles ...string) func(*v1alpha1.EnabledByDefault) {
	return func(d *v1alpha1.EnabledByDefault) { d.Roles = roles }
}

func TestAPolicyThatSwitchesOnSaysWhoWroteItLast(t *testing.T) {
	p := byDefault("stamped")
	w.cara.make(t, p)
	if by := p.Spec.EnabledByDefault.SwitchedBy; by != "cara" {
		t.Errorf("switchedBy is %q, want cara", by)
	}
	refused(t, w.cara.try(t, byDefault("forged", writtenBy("ana"))), "support-access-policy-stamp",
		`spec.enabledByDefault.switchedBy: "ana" is not who changes this policy: leave it out, or write switchedBy: "cara"`)
	for _, step := range []struct {
		who         *person
		patch, want string
		generation  int64
	}{
		{w.pat, `{"spec":{"enabledByDefault":{"reason":"another"}}}`, "pat", 2},
		{w.pat, `{"spec":{"enabledByDefault":{"reason":"another"}}}`, "pat", 2},
		{w.cara, `{"spec":{"enabledByDefault":{"switchedBy":"cara"}}}`, "pat", 2},
		{w.cara, `{"spec":{"enabledByDefault":{"switchedBy":null}}}`, "pat", 2},
		{w.cara, `{"metadata":{"labels":{"a":"b"}}}`, "pat", 2},
		{w.cara, `{"spec":{"maxEnabled":"100h"}}`, "cara", 3},
		{w.pat, `{"spec":{"enabledByDefault":{"switchedBy":"cara","transport":"Direct"}}}`, "pat", 4},
		{w.cara, `{"spec":{"enabledByDefault":{"transport":null}}}`, "cara", 5},
	} {
		taken(t, step.who.edit(t, p, step.patch))
		if by := p.Spec.EnabledByDefault.SwitchedBy; by != step.want || p.Generation != step.generation {
			t.Errorf("%s by %s: switchedBy is %q, generation %d; want %s, %d", step.patch, step.who.name, by, p.Generation, step.want, step.generation)
		}
	}
}

func TestWhoMayNotBindARoleMayNotSwitchItOnByDefault(t *testing.T) {
	const bind = "support-access-policy-bind"
	for i, roles := range [][]string{{operate}, {configuration, operate}, {configuration, diagnostics, operate}, {configuration, diagnostics, content, operate}} {
		refused(t, w.pat.try(t, byDefault("lent", lending(roles...))), bind,
			"spec.enabledByDefault.roles["+string(rune('0'+i))+"]: support-access-operate: pat lacks the verb bind on this ClusterRole in the whole cluster: who may not bind a role may not switch it on by default")
	}
	taken(t, w.pat.try(t, byDefault("lent", lending(configuration, diagnostics, content))))
	taken(t, w.cara.try(t, byDefault("lent", lending(operate))))

	// Whoever changes anything in it must bind what it gives; so must who adds it to a policy that is there.
	p := byDefault("edited", lending(operate))
	w.cara.make(t, p)
	plain := policyNamed("plain")
	w.pat.make(t, plain)
	refused(t, w.pat.merge(t, p.DeepCopy(), `{"spec":{"enabledByDefault":{"engineers":[{"name":"mallory@vendor.example"}]}}}`), bind, "spec.enabledByDefault.roles[0]: ")
	refused(t, w.pat.merge(t, p.DeepCopy(), `{"spec":{"maxEnabled":"1h","enabledByDefault":{"duration":"1h"}}}`), bind, "spec.enabledByDefault.roles[0]: ")
	refused(t, w.pat.merge(t, plain.DeepCopy(), `{"spec":{"roles":[{"name":"support-access-operate"}],"enabledByDefault":{"createdSince":"2026-01-01T00:00:00Z","roles":["support-access-operate"],"engineers":[{"name":"a"}]}}}`),
		bind, "spec.enabledByDefault.roles[0]: ")
	// To take it out, or to write what switches nothing on, takes no more than to write policies.
	taken(t, w.pat.merge(t, p.DeepCopy(), `{"spec":{"enabledByDefault":null}}`))
	taken(t, w.pat.merge(t, plain.DeepCopy(), `{"spec":{"maxEnabled":"1h"}}`))
}

func TestWhatAPolicySwitchesOnIsWithinItself(t *testing.T) {
	for says, change := range map[string]func(*v1alpha1.SupportAccessPolicySpec){
		"spec.enabledByDefault.duration: must be at most spec.maxEnabled":                      func(s *v1alpha1.SupportAccessPolicySpec) { s.MaxEnabled = "23h" },
		"spec.enabledByDefault.roles: each must be among spec.roles, and not elevated":         func(s *v1alpha1.SupportAccessPolicySpec) { s.Roles[0].Elevated = true },
		"spec.enabledByDefault.transport: must be among spec.transports":                       func(s *v1alpha1.SupportAccessPolicySpec) { s.EnabledByDefault.Transport = v1alpha1.TransportGateway },
		"spec.enabledByDefault.roles: each must be among spec.roles, and not elevated (again)": nil,
	} {
		p := byDefault("within")
		if change == nil {
			says = says[:len(says)-len(" (again)")]
			change = func(s *v1alpha1.SupportAccessPolicySpec) { s.EnabledByDefault.Roles = []string{"cluster-admin"} }
		}
		change(&p.Spec)
		invalid(t, w.cara.try(t, p), says)
	}
	taken(t, w.cara.try(t, byDefault("within")))
}

func TestTheOperatorMakesASettingOnlyAsThePolicySays(t *testing.T) {
	const rule = "support-access-setting-by-policy"
	good := byDefault("by-default")
	w.cara.make(t, good)
	late := byDefault("by-default-late", func(d *v1alpha1.EnabledByDefault) { d.CreatedSince = metav1.NewTime(time.Now().Add(time.Hour)) })
	w.cara.make(t, late)
	underPolicy(t, "by-default", good.Name)
	underPolicy(t, "by-default-late", late.Name)
	asItSays := changed(on(at(23*time.Hour)), giving(configuration), switchedBy("cara"))
	with := func(more ...func(*v1alpha1.SupportAccessSetting)) []func(*v1alpha1.SupportAccessSetting) {
		return append(changed(asItSays...), more...)
	}
	if err := until(t.Context(), "the API server has heard of the policy", func() error { return w.controller.try(t, setting("by-default", asItSays...)) }); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		namespace string
		changes   []func(*v1alpha1.SupportAccessSetting)
		says      string
	}{
		"of a policy that says nothing": {mail, changed(switchedBy("cara")), "spec: policy default switches nothing on by default"},
		"of an older namespace":         {"by-default-late", with(), "metadata.namespace: is older than the policy says (enabledByDefault.createdSince)"},
		"under another's stamp":         {"by-default", with(switchedBy("mallory")), "spec.switchedBy: is not who wrote the policy"},
		"for longer":                    {"by-default", with(on(at(25 * time.Hour))), "spec.enabledUntil: is not within the duration that the policy says"},
		"of another role":               {"by-default", with(giving(operate)), "spec: engineers, roles and transport are not those of the policy"},
		"of another engineer":           {"by-default", with(func(s *v1alpha1.SupportAccessSetting) { s.Spec.Engineers[0].Name = "mallory@vendor.example" }), "spec: engineers, roles and transport are not those of the policy"},
		"another way to enter":          {"by-default", with(func(s *v1alpha1.SupportAccessSetting) { s.Spec.Transport = v1alpha1.TransportDirect }), "spec: engineers, roles and transport are not those of the policy"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, w.controller.try(t, setting(c.namespace, c.changes...)), rule, c.says) })
	}
	// Of everybody else the policy asks nothing, and takes nobody else's name.
	taken(t, w.cara.try(t, setting("by-default", on(at(23*time.Hour)), giving(diagnostics))))
	refused(t, w.root.try(t, setting("by-default", on(at(23*time.Hour)), switchedBy("cara"))), "support-access-setting-stamp", `spec.switchedBy: "cara" is not who changes this setting`)
}

func TestTheStatusOfAPolicyIsTheOperatorsAlone(t *testing.T) {
	p := byDefault("status")
	w.cara.make(t, p)
	proven := client.RawPatch(types.MergePatchType, []byte(`{"status":{"provenGeneration":7}}`))
	for _, who := range []*person{w.cara, w.root} {
		refused(t, who.Status().Patch(t.Context(), p.DeepCopy(), proven, client.DryRunAll), "support-access-status",
			"status: is written by the operator alone, not by "+who.name)
	}
	taken(t, w.controller.Status().Patch(t.Context(), p.DeepCopy(), proven, client.DryRunAll))
}
