package admission

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// setting returns a setting that is off, of the roles that are the default.
func setting(namespace string, changes ...func(*v1alpha1.SupportAccessSetting)) *v1alpha1.SupportAccessSetting {
	s := &v1alpha1.SupportAccessSetting{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: v1alpha1.SettingName}}
	s.Spec.Engineers = []v1alpha1.Engineer{{Name: "ana@vendor.example"}}
	for _, change := range changes {
		change(s)
	}
	return s
}

// on switches it on until an instant.
func on(instant string) func(*v1alpha1.SupportAccessSetting) {
	return func(s *v1alpha1.SupportAccessSetting) {
		parsed, err := time.Parse(time.RFC3339, instant)
		if err != nil {
			panic(err)
		}
		s.Spec.EnabledUntil = &metav1.Time{Time: parsed}
	}
}

func switchedBy(user string) func(*v1alpha1.SupportAccessSetting) {
	return func(s *v1alpha1.SupportAccessSetting) { s.Spec.SwitchedBy = user }
}

func giving(roles ...string) func(*v1alpha1.SupportAccessSetting) {
	return func(s *v1alpha1.SupportAccessSetting) { s.Spec.Roles = roles }
}

// ofList leaves the engineers to a list of the policy.
func ofList(name string) func(*v1alpha1.SupportAccessSetting) {
	return func(s *v1alpha1.SupportAccessSetting) { s.Spec.Engineers, s.Spec.EngineerList = nil, name }
}

// grantOfSetting attempts, as the controller, the grant of the setting that the fixture made in shop.
func (w *world) grantOfSetting(changes ...func(*v1alpha1.SupportAccessGrant)) func(context.Context) error {
	return func(ctx context.Context) error {
		s := &v1alpha1.SupportAccessSetting{}
		if err := w.root.Get(ctx, client.ObjectKey{Namespace: shop, Name: v1alpha1.SettingName}, s); err != nil {
			return err
		}
		g := grant(shop, "x", stampedBy(s.Spec.SwitchedBy), with(s.Spec.Roles...))
		g.Spec.Duration, g.Spec.ExpirationTime = "", s.Spec.EnabledUntil
		g.Spec.SettingRef = &v1alpha1.SettingReference{UID: s.UID, Generation: s.Generation}
		for _, change := range changes {
			change(g)
		}
		return w.controller.Create(ctx, g, client.DryRunAll)
	}
}

func referring(uid string, generation int64) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) {
		g.Spec.SettingRef = &v1alpha1.SettingReference{UID: types.UID(uid), Generation: generation}
	}
}

func TestASettingSaysWhoSwitchedItLast(t *testing.T) {
	s := setting(mail, on(at(10*time.Hour)))
	w.ana.make(t, s)
	if s.Spec.SwitchedBy != "ana" {
		t.Errorf("switchedBy is %q, want ana", s.Spec.SwitchedBy)
	}
	refused(t, w.cara.try(t, setting(pipelines, switchedBy("ana"))), "support-access-setting-stamp",
		`spec.switchedBy: "ana" is not who changes this setting: leave it out, or write switchedBy: "cara"`)
	taken(t, w.cara.try(t, setting(pipelines, switchedBy("cara"))))

	// Whoever changes it is its author, whatever they write; who changes nothing, or the stamp alone, is not.
	for _, step := range []struct {
		who         *person
		patch, want string
		generation  int64
	}{
		{w.cara, `{"spec":{"reason":"another"}}`, "cara", 2},
		{w.cara, `{"spec":{"reason":"another"}}`, "cara", 2},
		{w.ana, `{"spec":{"switchedBy":"ana"}}`, "cara", 2},
		{w.ana, `{"spec":{"switchedBy":null}}`, "cara", 2},
		{w.ana, `{"metadata":{"labels":{"a":"b"}}}`, "cara", 2},
		{w.ana, `{"spec":{"switchedBy":"cara","reason":"mine"}}`, "ana", 3},
	} {
		if err := step.who.edit(t, s, step.patch); err != nil {
			t.Fatalf("%s by %s: %v", step.patch, step.who.name, err)
		}
		if s.Spec.SwitchedBy != step.want || s.Generation != step.generation {
			t.Errorf("%s by %s: switchedBy is %q, generation %d; want %s, %d", step.patch, step.who.name, s.Spec.SwitchedBy, s.Generation, step.want, step.generation)
		}
	}
}

func TestWhoMayNotBindARoleMayNotSwitchItOn(t *testing.T) {
	const bind, flat = "support-access-setting-bind", "flat"
	flatly(t, flat)
	until := on(at(10 * time.Hour))
	refused(t, w.bob.try(t, setting(flat, until)), bind,
		"spec.roles[0]: support-access-configuration: bob lacks the verb bind on this ClusterRole in namespace flat: who may not bind a role may not switch it on")
	taken(t, w.ana.try(t, setting(flat, until)))
	taken(t, w.bob.try(t, setting(flat)))
	for i, roles := range [][]string{{operate}, {configuration, operate}, {configuration, diagnostics, operate}, {configuration, diagnostics, operate, content}} {
		refused(t, w.ana.try(t, setting(flat, until, giving(roles...))), bind, "spec.roles["+strconv.Itoa(min(i, 2))+"]: ")
	}
	// The fourth is asked, too.
	name := "bind-three"
	p, err := w.person(name, w.cp.UserConfig(name), nil)
	if err != nil {
		t.Fatal(err)
	}
	w.root.make(t, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{rbacv1.GroupName}, Resources: []string{"clusterroles"}, Verbs: []string{"bind"}, ResourceNames: []string{configuration, diagnostics, content}},
		{APIGroups: []string{"supportaccess.dev"}, Resources: []string{"supportaccesssettings"}, Verbs: []string{"create"}},
	}})
	w.root.make(t, binding(flat, name, name, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}))
	four := setting(flat, until, giving(configuration, diagnostics, content, operate))
	refused(t, untilKnown(t, p, four), bind, "spec.roles[3]: support-access-operate: bind-three lacks")
}

// untilKnown tries until RBAC has heard of a person, and returns what is then said.
func untilKnown(t *testing.T, p *person, object client.Object) error {
	t.Helper()
	var said error
	err := until(t.Context(), "RBAC knows "+p.name, func() error {
		said = p.try(t, object)
		if isDenial(said, "support-access-setting-bind") {
			return nil
		}
		return said
	})
	if err != nil {
		t.Fatal(err)
	}
	return said
}

// TestWhoeverChangesASettingMustBindWhatItGives has an editor try to add under another's stamp.
func TestWhoeverChangesASettingMustBindWhatItGives(t *testing.T) {
	const bind, flat = "support-access-setting-bind", "flat-edited"
	flatly(t, flat)
	s := setting(flat, on(at(10*time.Hour)))
	w.cara.make(t, s)
	for _, patch := range []string{
		`{"spec":{"roles":["support-access-configuration","support-access-operate"]}}`, `{"spec":{"engineers":[{"name":"mallory@vendor.example"}]}}`,
		`{"spec":{"enabledUntil":"` + at(20*time.Hour) + `"}}`, `{"spec":{"engineers":[{"name":"mallory@vendor.example"}],"switchedBy":"cara"}}`,
	} {
		refused(t, w.bob.merge(t, s.DeepCopy(), patch), bind, "spec.roles[0]: support-access-configuration: bob lacks the verb bind")
	}
	// To switch off takes nothing from anybody but access. To switch on again what bob wrote meanwhile takes bind.
	off := s.DeepCopy()
	taken(t, w.bob.edit(t, off, `{"spec":{"enabledUntil":null,"roles":["support-access-operate"]}}`))
	refused(t, w.ana.merge(t, off.DeepCopy(), `{"spec":{"enabledUntil":"`+at(20*time.Hour)+`"}}`), bind, "spec.roles[0]: support-access-operate: ana lacks the verb bind")
	taken(t, w.ana.merge(t, off.DeepCopy(), `{"spec":{"enabledUntil":"`+at(20*time.Hour)+`","roles":["support-access-diagnostics"]}}`))
}

func TestASettingIsWithinThePolicyWhenItIsOn(t *testing.T) {
	const limits = "support-access-setting-limits"
	always := policyNamed("keys-always")
	always.Spec.RequirePublicKey, always.Spec.Roles[0].MaxDuration, always.Spec.ProtectedNamespaces = v1alpha1.PublicKeysAlways, "8h", []string{"keys-protected"}
	w.root.make(t, always)
	underPolicy(t, "keys", always.Name)
	underPolicy(t, "keys-protected", always.Name)
	soon := on(at(time.Hour))
	keyedSetting := func(s *v1alpha1.SupportAccessSetting) { s.Spec.Engineers[0].PublicKey = "age1qqq" }
	direct := func(s *v1alpha1.SupportAccessSetting) { s.Spec.Transport = v1alpha1.TransportDirect }
	gatewayed := func(s *v1alpha1.SupportAccessSetting) { s.Spec.Transport = v1alpha1.TransportGateway }
	engineer := func(s *v1alpha1.SupportAccessSetting) { s.Spec.Engineers[0].Name = "mallory" }
	onlyConfiguration := giving(configuration)
	for name, c := range map[string]struct {
		who       *person
		namespace string
		bad, good []func(*v1alpha1.SupportAccessSetting)
		says      string
	}{
		"too long":                     {w.ana, mail, changed(on(at(721 * time.Hour))), changed(on(at(719 * time.Hour))), "spec.enabledUntil: "},
		"suspended":                    {w.cara, frozen, changed(soon), changed(), "spec: new grants are Suspended by policy frozen (newGrants)"},
		"a role not offered":           {w.cara, named, changed(soon, giving(diagnostics)), changed(soon, onlyConfiguration), "spec.roles: support-access-diagnostics is not offered: policy strict offers support-access-configuration"},
		"an elevated role":             {w.cara, mail, changed(soon, giving(operate)), changed(soon), "spec.roles: support-access-operate is elevated in policy default: it is granted for a case, not by a setting"},
		"a transport not offered":      {w.ana, mail, changed(soon, gatewayed), changed(soon, direct), "spec.transport: Gateway is not offered: policy default offers Direct"},
		"a pipeline where people only": {w.flux, named, changed(soon, onlyConfiguration), changed(), "spec.switchedBy: " + fluxName + " is a ServiceAccount: policy strict takes grants from people only"},
		"an engineer of nobody's":      {w.cara, named, changed(soon, onlyConfiguration, engineer), changed(soon, onlyConfiguration), "spec.engineers: mallory does not match"},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, c.who.try(t, setting(c.namespace, c.bad...)), limits, c.says)
			taken(t, c.who.try(t, setting(c.namespace, c.good...)))
			off := append(changed(c.bad...), func(s *v1alpha1.SupportAccessSetting) { s.Spec.EnabledUntil = nil })
			taken(t, c.who.try(t, setting(c.namespace, off...)))
			// What has passed is off: Git applies it again and again.
			past := append(changed(c.bad...), on("2020-01-01T00:00:00Z"))
			taken(t, c.who.try(t, setting(c.namespace, past...)))
		})
	}
	refused(t, w.cara.try(t, setting("keys", on(at(9*time.Hour)), keyedSetting)), limits, "spec.enabledUntil: ")
	refused(t, w.cara.try(t, setting("keys", soon)), limits, "spec.engineers[].publicKey: is missing for ana@vendor.example: it is demanded by policy keys-always")
	taken(t, w.cara.try(t, setting("keys", soon, keyedSetting)))
	refused(t, w.cara.try(t, setting("keys-protected", soon, keyedSetting)), limits, "metadata.namespace: keys-protected is protected by policy keys-always and takes no grants")
	// Nobody has the operator's own namespaces opened.
	refused(t, w.cara.try(t, setting(v1alpha1.SystemNamespace, soon)), "support-access-setting-bind",
		"metadata.namespace: support-access-system belongs to the operator and takes no grants")

	// An update is judged as well: the API server notes when it was written.
	s := setting(mail, soon)
	w.ana.make(t, s)
	refused(t, w.ana.merge(t, s.DeepCopy(), `{"spec":{"enabledUntil":"`+at(721*time.Hour)+`"}}`), limits, "spec.enabledUntil: ")
	taken(t, w.ana.merge(t, s.DeepCopy(), `{"spec":{"enabledUntil":"`+at(719*time.Hour)+`"}}`))
}

func TestASettingThatNamesAListHasThePeopleWhoAreOnItWhenItIsWritten(t *testing.T) {
	const limits = "support-access-setting-limits"
	policy := policyNamed("listing")
	policy.Spec.EngineerLists = []v1alpha1.EngineerList{
		{Name: "archive", Engineers: []v1alpha1.Engineer{{Name: "ana@vendor.example"}, {Name: "bo@vendor.example"}}},
		{Name: "others", Engineers: []v1alpha1.Engineer{{Name: "cy@vendor.example"}}},
	}
	w.root.make(t, policy)
	underPolicy(t, "listed", policy.Name)
	soon, people := on(at(time.Hour)), func(s *v1alpha1.SupportAccessSetting) string {
		var names []string
		for _, e := range s.Spec.Engineers {
			names = append(names, strings.TrimSuffix(e.Name, "@vendor.example"))
		}
		return strings.Join(names, " ")
	}
	named := func(names ...string) func(*v1alpha1.SupportAccessSetting) {
		return func(s *v1alpha1.SupportAccessSetting) {
			s.Spec.Engineers = nil
			for _, name := range names {
				s.Spec.Engineers = append(s.Spec.Engineers, v1alpha1.Engineer{Name: name + "@vendor.example"})
			}
		}
	}
	refused(t, w.cara.try(t, setting("listed", soon, ofList("archive"), named("ana", "mallory"))), limits,
		"spec.engineers: ana@vendor.example, mallory@vendor.example are not those of list archive of policy listing, which are ana@vendor.example, bo@vendor.example: leave them out, or write those")
	refused(t, w.cara.try(t, setting("listed", soon, ofList("nobody"), named("ana"))), limits, "spec.engineerList: nobody is no list of policy listing (engineerLists): it has archive, others")
	refused(t, w.ana.try(t, setting(mail, soon, ofList("archive"), named("ana"))), limits, "spec.engineerList: archive is no list of policy default (engineerLists): it has none")
	invalid(t, w.cara.try(t, setting("listed", soon, ofList("nobody"))), "spec.engineers: is missing: name the people, or in spec.engineerList one of the lists that the policy has (engineerLists)")
	taken(t, w.cara.try(t, setting("listed", soon, ofList("archive"), named("ana", "bo"))))

	s := setting("listed", soon, ofList("archive"))
	w.cara.make(t, s)
	if people(s) != "ana bo" || s.Spec.SwitchedBy != "cara" {
		t.Fatalf("it is for %q by %s", people(s), s.Spec.SwitchedBy)
	}
	// The list changes: who only labels the setting, or leaves the engineers out, brings nobody in and is not its author.
	policy.Spec.EngineerLists[0].Engineers = []v1alpha1.Engineer{{Name: "bo@vendor.example"}, {Name: "dee@vendor.example"}}
	if err := w.root.Update(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	if err := until(t.Context(), "the API server has heard of the list", func() error {
		err := w.cara.try(t, setting("listed", soon, ofList("archive"), named("bo", "dee")))
		if apierrors.IsAlreadyExists(err) {
			return nil // Only what admission lets through is looked for.
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		patch, people, by string
		generation        int64
	}{
		{`{"metadata":{"labels":{"a":"b"}}}`, "ana bo", "cara", 1},
		{`{"spec":{"engineers":null}}`, "ana bo", "cara", 1},
		{`{"spec":{"enabledUntil":"` + at(2*time.Hour) + `"}}`, "bo dee", "root", 2},
		{`{"spec":{"engineers":null,"reason":"another"}}`, "bo dee", "root", 3},
		{`{"spec":{"engineerList":"others"}}`, "cy", "root", 4},
		{`{"spec":{"engineerList":null}}`, "cy", "root", 5},
	} {
		taken(t, w.root.edit(t, s, step.patch))
		if people(s) != step.people || s.Generation != step.generation {
			t.Errorf("%s: it is for %q, generation %d, want %q, %d", step.patch, people(s), s.Generation, step.people, step.generation)
		}
		if (s.Spec.SwitchedBy == "cara") != (step.by == "cara") {
			t.Errorf("%s: switched by %s", step.patch, s.Spec.SwitchedBy)
		}
	}
}

func changed(changes ...func(*v1alpha1.SupportAccessSetting)) []func(*v1alpha1.SupportAccessSetting) {
	return append([]func(*v1alpha1.SupportAccessSetting){}, changes...)
}

func TestTheGrantOfASettingIsTheOperatorsAndAsTheSettingSays(t *testing.T) {
	ctx := t.Context()
	const stamp, bySetting = "support-access-grant-stamp", "support-access-setting-grant"
	taken(t, w.grantOfSetting()(ctx))
	for name, c := range map[string]struct {
		change func(*v1alpha1.SupportAccessGrant)
		says   string
	}{
		"another's stamp":      {stampedBy("ana"), "spec.grantedBy: is not who switched the setting on"},
		"another UID":          {referring("forged", 1), "spec.settingRef: is not the setting of this namespace as it is now"},
		"another instant":      {expiring(at(20 * time.Hour)), "spec.expirationTime: is not the enabledUntil of the setting"},
		"another role":         {with(configuration), "spec: engineers, roles and transport are not those of the setting"},
		"another engineer":     {to("mallory@vendor.example"), "spec: engineers, roles and transport are not those of the setting"},
		"another way to enter": {through(v1alpha1.TransportDirect), "spec: engineers, roles and transport are not those of the setting"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, w.grantOfSetting(c.change)(ctx), bySetting, c.says) })
	}
	// What the policy calls elevated no setting gives, whatever it says: here one whose time has passed.
	elevated := setting(mail, on("2020-01-01T00:00:00Z"), giving(operate))
	w.cara.make(t, elevated)
	g := grant(mail, "x", stampedBy("cara"), with(operate), expiring("2020-01-01T00:00:00Z"), referring(string(elevated.UID), elevated.Generation))
	var said error
	if err := until(ctx, "the API server has heard of the setting", func() error {
		if said = w.controller.try(t, g); isDenial(said, bySetting) {
			return said
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	refused(t, said, "support-access-grant-limits", "spec.roles: support-access-operate is elevated in policy default: it is granted for a case, not by a setting")

	forged := grant(pipelines, "x", expiring(at(10*time.Hour)), referring("forged", 1))
	for _, who := range []*person{w.cara, w.root} {
		refused(t, who.try(t, forged), stamp, "spec.settingRef: is given by the operator alone, to the grant of a SupportAccessSetting: leave it out")
	}
	// The operator makes no other grants than those. Only the dry run of the canary is let by, to be refused for its stamp.
	refused(t, w.controller.Create(ctx, grant(shop, "own", expiring(at(10*time.Hour)))), stamp, "spec.settingRef: is missing: the operator makes the grants of settings, and no others")
}

func TestASettingHasOneNameAndItsReferenceNeverChanges(t *testing.T) {
	invalid(t, w.ana.try(t, setting(mail, func(s *v1alpha1.SupportAccessSetting) { s.Name = "other" })),
		"metadata.name: a namespace has one setting, and its name is support-access")
	taken(t, w.ana.try(t, setting(mail)))
	g := grant(mail, "no-reference")
	w.ana.make(t, g)
	invalid(t, w.ana.merge(t, g.DeepCopy(), `{"spec":{"settingRef":{"uid":"x","generation":1}}}`), "spec: a grant is never edited")
	invalid(t, w.grantOfSetting(func(g *v1alpha1.SupportAccessGrant) { g.Spec.Scope = &v1alpha1.Scope{Namespaces: []string{mail}} })(t.Context()),
		"spec.settingRef: the grant of a setting has an expirationTime, and no startTime, scope, case or requestRef")
}

func TestTheStatusOfASettingIsTheOperatorsAlone(t *testing.T) {
	s := &v1alpha1.SupportAccessSetting{}
	if err := w.root.Get(t.Context(), client.ObjectKey{Namespace: shop, Name: v1alpha1.SettingName}, s); err != nil {
		t.Fatal(err)
	}
	proven := client.RawPatch(types.MergePatchType, []byte(`{"status":{"provenGeneration":7}}`))
	for _, who := range []*person{w.ana, w.root} {
		refused(t, who.Status().Patch(t.Context(), s.DeepCopy(), proven, client.DryRunAll), "support-access-status",
			"status: is written by the operator alone, not by "+who.name)
	}
	taken(t, w.controller.Status().Patch(t.Context(), s.DeepCopy(), proven, client.DryRunAll))
}

// edit changes an object as it is stored.
func (p *person) edit(t *testing.T, object client.Object, patch string) error {
	t.Helper()
	return p.Patch(t.Context(), object, client.RawPatch(types.MergePatchType, []byte(patch)))
}

// underPolicy makes a namespace that names a policy.
func underPolicy(t *testing.T, name, policy string) {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1alpha1.LabelPolicy: policy}}}
	if err := w.root.Create(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
}

// flatly makes a namespace whose policy calls no role elevated, with ana's and bob's rights of mail.
func flatly(t *testing.T, name string) {
	t.Helper()
	policy := policyNamed(name)
	for i := range policy.Spec.Roles {
		policy.Spec.Roles[i].Elevated, policy.Spec.Roles[i].MaxDuration = false, ""
	}
	w.root.make(t, policy)
	underPolicy(t, name, policy.Name)
	for who, roles := range map[*person][]string{w.ana: {"test-write", "test-bind-plain"}, w.bob: {"test-write"}} {
		for _, role := range roles {
			w.root.make(t, binding(name, who.name+"-"+role, role, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: who.name}))
		}
		if err := until(t.Context(), "RBAC knows "+who.name+" in "+name, func() error { return notYetKnown(who.try(t, setting(name))) }); err != nil {
			t.Fatal(err)
		}
	}
}
