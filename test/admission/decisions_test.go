package admission

import (
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

const verbs = "support-access-decision-verbs"

func doing(action v1alpha1.DecisionAction) func(*v1alpha1.SupportAccessDecision) {
	return func(d *v1alpha1.SupportAccessDecision) {
		d.Spec.Action = action
		if action == v1alpha1.ActionShorten {
			expiring := grant("", "", expiring(inAnHour()))
			d.Spec.ExpirationTime = expiring.Spec.ExpirationTime
		}
	}
}

func onGrant(name string) func(*v1alpha1.SupportAccessDecision) {
	return func(d *v1alpha1.SupportAccessDecision) { d.Spec.Target = v1alpha1.DecisionTarget{Grant: name} }
}

func onEngineer(d *v1alpha1.SupportAccessDecision) { d.Spec.Target.Engineer = "ana@vendor.example" }

func onRequest(d *v1alpha1.SupportAccessDecision) {
	d.Spec.Target = v1alpha1.DecisionTarget{Request: "wish"}
}

func onNamespace(d *v1alpha1.SupportAccessDecision) {
	d.Spec.Target = v1alpha1.DecisionTarget{Namespace: v1alpha1.TargetAll}
}

func onCluster(d *v1alpha1.SupportAccessDecision) {
	d.Spec.Target = v1alpha1.DecisionTarget{Cluster: v1alpha1.TargetAll}
}

func TestToDecideTakesTheVerb(t *testing.T) {
	cases := map[string]struct {
		without *person
		d       *v1alpha1.SupportAccessDecision
		says    string
		with    *person
	}{
		"revoke a grant": {
			w.bob, decision(mail), "spec.action: Revoke: bob lacks the verb revoke on supportaccessgrants case-1 in namespace mail", w.ana,
		},
		"shorten a grant": {
			w.bob, decision(mail, doing(v1alpha1.ActionShorten)), "spec.action: Shorten: bob lacks the verb revoke on supportaccessgrants case-1 in namespace mail", w.ana,
		},
		"hand over again": {
			w.bob, decision(mail, doing(v1alpha1.ActionHandOver), onEngineer), "spec.action: HandOver: bob lacks the verb revoke on supportaccessgrants case-1 in namespace mail", w.ana,
		},
		"approve with the verb revoke": {
			w.ana, decision(mail, doing(v1alpha1.ActionApprove)), "spec.action: Approve: ana lacks the verb approve on supportaccessgrants case-1 in namespace mail", w.eve,
		},
		"deny": {
			w.ana, decision(mail, doing(v1alpha1.ActionDeny)), "spec.action: Deny: ana lacks the verb approve on supportaccessgrants case-1 in namespace mail", w.eve,
		},
		"revoke with the verb approve": {
			w.eve, decision(mail), "spec.action: Revoke: eve lacks the verb revoke on supportaccessgrants case-1 in namespace mail", w.ana,
		},
		"deny a request": {
			w.bob, decision(mail, doing(v1alpha1.ActionDeny), onRequest), "spec.action: Deny: bob lacks the verb approve on supportaccessgrants in namespace mail", w.eve,
		},
		"a grant by name, with the verb on another name": {
			w.dan, decision(mail), "spec.action: Revoke: dan lacks the verb revoke on supportaccessgrants case-1 in namespace mail", w.ana,
		},
		"a namespace, with the verb on one name": {
			w.dan, decision(mail, onNamespace), "spec.action: Revoke: dan lacks the verb revoke on supportaccessgrants in namespace mail", w.ana,
		},
		"another namespace": {
			w.ana, decision(shop, onNamespace), "spec.action: Revoke: ana lacks the verb revoke on supportaccessgrants in namespace shop", w.cara,
		},
		"the cluster, outside the operator's namespace": {
			w.cara, decision(mail, onCluster), "spec.target.cluster: reaches every namespace and is decided in namespace support-access-system only, not in mail", nil,
		},
		"a namespace, by a pipeline": {
			w.flux, decision(mail, onNamespace), "spec.target.namespace: All is for people: " + fluxName + " is a ServiceAccount and must name the grant", w.ana,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			refused(t, c.without.try(t, c.d), verbs, c.says)
			if c.with != nil {
				taken(t, c.with.try(t, c.d))
			}
		})
	}
	taken(t, w.dan.try(t, decision(mail, onGrant("dans"))))
	taken(t, w.flux.try(t, decision(mail)))
}

func TestTheWholeClusterIsRevokedByPeopleWithTheVerbClusterWide(t *testing.T) {
	stop := decision(v1alpha1.SystemNamespace, onCluster)
	// dan in the guise of one who may write decisions in the operator's namespace.
	w.root.make(t, binding(v1alpha1.SystemNamespace, "dan-writes", "test-write", subjectUser("dan")))
	w.root.make(t, binding(v1alpha1.SystemNamespace, "dan-revokes", "test-revoke", subjectUser("dan")))
	err := until(t.Context(), "RBAC knows dan", func() error {
		return w.dan.try(t, decision(v1alpha1.SystemNamespace))
	})
	if err != nil {
		t.Fatal(err)
	}
	refused(t, w.dan.try(t, stop), verbs, "spec.action: Revoke: dan lacks the verb revoke on supportaccessgrants cluster-wide")
	taken(t, w.cara.try(t, stop))
	refused(t, w.controller.try(t, stop), verbs,
		"spec.target.cluster: All is for people: "+controllerName+" is a ServiceAccount and must name the grant")
}

func TestADecisionIsNeverEdited(t *testing.T) {
	d := decision(mail)
	w.ana.make(t, d)
	for what, patch := range map[string]string{
		"another target": `{"spec":{"target":{"grant":"case-2"}}}`,
		"a later end":    `{"spec":{"action":"Shorten","expirationTime":"2030-01-01T00:00:00Z"}}`,
		"another reason": `{"spec":{"reason":"something else"}}`,
	} {
		t.Run(what, func(t *testing.T) {
			for _, who := range []*person{w.ana, w.controller} {
				invalid(t, who.Patch(t.Context(), d.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(patch))),
					"spec: a decision is never edited: make another one")
			}
		})
	}
	taken(t, w.ana.Patch(t.Context(), d.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`))))
}
