package admission

import (
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
)

func TestWhoMayNotBindARoleMayNotGrantIt(t *testing.T) {
	const bind = "support-access-grant-bind"
	cases := map[string]struct {
		who  *person
		g    *v1alpha1.SupportAccessGrant
		says string
		with *person
	}{
		"no role at all": {
			w.bob, grant(mail, "x"),
			"spec.roles[0]: support-access-configuration: bob lacks the verb bind on this ClusterRole in namespace mail: who may not bind a role may not grant it",
			w.ana,
		},
		"another role": {
			w.ana, grant(mail, "x", with(configuration, diagnostics, operate), because("any"), keyed),
			"spec.roles[2]: support-access-operate: ana lacks the verb bind on this ClusterRole in namespace mail", w.cara,
		},
		"another namespace's": {
			w.ana, grant(shop, "x"),
			"spec.roles[0]: support-access-configuration: ana lacks the verb bind on this ClusterRole in namespace shop", w.cara,
		},
		"from one's own namespace into another": {
			w.ana, grant(mail, "x", reaching(shop)),
			"spec.roles[0]: support-access-configuration: ana lacks the verb bind on this ClusterRole cluster-wide, which spec.scope asks for: grant it in each of your namespaces separately, or ask for bind cluster-wide",
			w.cara,
		},
		"one's own and another": {
			w.ana, grant(mail, "x", reaching(mail, shop)),
			"spec.roles[0]: support-access-configuration: ana lacks the verb bind on this ClusterRole cluster-wide", w.cara,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			refused(t, c.who.try(t, c.g), bind, c.says)
			taken(t, c.with.try(t, c.g))
		})
	}
	// The own namespace may be written out.
	taken(t, w.ana.try(t, grant(mail, "x", reaching(mail))))
}

func TestTheClusterTakesBindClusterWide(t *testing.T) {
	refused(t, w.flux.try(t, grant(wide, "x", everywhere)), "support-access-grant-bind",
		"spec.roles[0]: support-access-configuration: "+fluxName+" lacks the verb bind on this ClusterRole cluster-wide")
	taken(t, w.cara.try(t, grant(wide, "x", everywhere)))
}

func TestEachOfFourRolesIsAsked(t *testing.T) {
	// Four roles that a policy offers; the granter may bind all but one, each in turn.
	roles := []string{configuration, diagnostics, content, operate}
	for i, lacking := range roles {
		var rules []string
		for _, role := range roles {
			if role != lacking {
				rules = append(rules, role)
			}
		}
		name := "all-but-" + lacking
		p, err := w.person(name, w.cp.UserConfig(name), nil)
		if err != nil {
			t.Fatal(err)
		}
		w.root.make(t, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{rbacv1.GroupName}, Resources: []string{"clusterroles"}, Verbs: []string{"bind"}, ResourceNames: rules},
			{APIGroups: []string{"supportaccess.dev"}, Resources: []string{"supportaccessgrants"}, Verbs: []string{"create"}},
		}})
		w.root.make(t, binding(mail, name, name, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}))
		g := grant(mail, "x", with(roles...), because("any"), keyed, lasting("4h"))
		err = until(t.Context(), "RBAC knows "+name, func() error { return notYetKnown(p.try(t, g)) })
		if err != nil {
			t.Fatal(err)
		}
		refused(t, p.try(t, g), "support-access-grant-bind", "spec.roles["+string(rune('0'+i))+"]: "+lacking+": "+name+" lacks the verb bind")
		taken(t, p.try(t, grant(mail, "x", with(rules...), because("any"), keyed, lasting("4h"))))
	}
	taken(t, w.cara.try(t, grant(mail, "x", with(roles...), because("any"), keyed, lasting("4h"))))
}

// notYetKnown is an error while RBAC itself refuses.
func notYetKnown(err error) error {
	if isDenial(err, "support-access-grant-bind") || err == nil {
		return nil
	}
	return err
}
