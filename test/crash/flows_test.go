package crash

import (
	"cmp"
	"slices"
	"time"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
)

// flow is something that happens to a grant: what was so before, and the acts that the operator must answer, one after
// the other. Only what it writes in answer is counted.
type flow struct {
	name string
	// policy holds in the home namespace; the one named crash where empty.
	policy string
	before func(*run)
	acts   []func(*run)
	// short says that the short run has it too.
	short bool
}

func (f flow) policyName() string {
	return cmp.Or(f.policy, "crash")
}

const theGrant = "case-4711"

// opened makes a grant and lets the operator open it.
func opened(mods ...func(*v1alpha1.SupportAccessGrant)) func(*run) {
	return func(r *run) {
		r.grant(theGrant, mods...)
		r.newLife(nil, nil).settle()
	}
}

func deletes(r *run) { r.delete(theGrant) }
func revokes(r *run) { r.decide("revoke", gen.Revoking(theGrant)) }

// expires lets an hour pass, with which the time of every grant is over that has begun: a grant that nobody has put down
// yet has all of it before it.
func expires(r *run) {
	r.step(time.Hour)
	s := r.look()
	for key := range s.grants {
		if s.recordOf(key) != nil {
			r.shut[key] = "its time is over"
		}
	}
}

// again applies the grant once more, as a GitOps tool does.
func again(mods ...func(*v1alpha1.SupportAccessGrant)) func(*run) {
	return func(r *run) {
		r.grant(theGrant, mods...)
		r.shut[r.key(theGrant)] = "its name was used before"
	}
}

func applies(mods ...func(*v1alpha1.SupportAccessGrant)) func(*run) {
	return func(r *run) { r.grant(theGrant, mods...) }
}

var both = gen.WithEngineers(ana, ben)

// inBoth is a grant that reaches the other namespace as well.
func inBoth(r *run) func(*v1alpha1.SupportAccessGrant) {
	if r.other == "" {
		r.withOther("crash")
	}
	return gen.WithScope(r.home, r.other)
}

// flows are the flows whose every write is disturbed.
func flows() []flow {
	return slices.Concat(givingFlows(), takingFlows(), gatewayFlows(), handoverFlows(), settingFlows(), approvalFlows(), requestFlows())
}

func givingFlows() []flow {
	return []flow{
		{name: "open", acts: []func(*run){applies()}, short: true},
		{name: "open for two engineers, one with a key", acts: []func(*run){applies(both, gen.WithPublicKey(ben, keyring.Recipient().String()))}},
		{name: "open in two namespaces", acts: []func(*run){func(r *run) { r.grant(theGrant, inBoth(r)) }}},
		{name: "open in the whole cluster", policy: "crash-wide", acts: []func(*run){applies(gen.WithCluster(), gen.WithRoles(gen.Configuration))}},
		{name: "scheduled, then opened", acts: []func(*run){
			func(r *run) {
				r.grant(theGrant, gen.WithStart(r.clock.Now().Add(10*time.Minute).Truncate(time.Second)))
			},
			func(r *run) { r.step(10 * time.Minute) },
		}},
		{name: "scheduled, then revoked", acts: []func(*run){
			func(r *run) {
				r.grant(theGrant, gen.WithStart(r.clock.Now().Add(10*time.Minute).Truncate(time.Second)))
			}, revokes,
		}},
		{name: "scheduled, then one engineer taken off, then opened", acts: []func(*run){
			func(r *run) {
				r.grant(theGrant, both, gen.WithStart(r.clock.Now().Add(10*time.Minute).Truncate(time.Second)))
			},
			func(r *run) { r.decide("off", gen.RevokingEngineer(theGrant, ana)) },
			func(r *run) { r.step(10 * time.Minute) },
		}},
		{name: "refused", acts: []func(*run){func(r *run) {
			r.withOther("crash-frozen")
			r.grant(theGrant, gen.WithScope(r.home, r.other))
			r.shut[r.key(theGrant)] = "the policy of another namespace takes no grants"
		}}},
		{name: "a credential is renewed", before: func(r *run) { opened(gen.WithDuration("3h"))(r); r.awaitSecond() }, acts: []func(*run){
			func(r *run) { r.step(50 * time.Minute) },
		}},
	}
}

func takingFlows() []flow {
	return []flow{
		{name: "closed by deletion", before: opened(), acts: []func(*run){deletes}, short: true},
		{name: "closed by decision", before: opened(), acts: []func(*run){revokes}},
		{name: "closed by a decision on the namespace", before: func(r *run) { r.grant("case-2"); opened()(r) }, acts: []func(*run){
			func(r *run) { r.decide("stop", gen.RevokingNamespace()) },
		}},
		{name: "expired", before: opened(), acts: []func(*run){expires}},
		{name: "two namespaces, expired", before: func(r *run) { opened(inBoth(r))(r) }, acts: []func(*run){expires}},
		{name: "two engineers with keys, closed by deletion", before: opened(both,
			gen.WithPublicKey(ana, keyring.Recipient().String()), gen.WithPublicKey(ben, keyring.Recipient().String())), acts: []func(*run){deletes}},
		{name: "shortened", before: opened(), acts: []func(*run){func(r *run) { r.shorten(theGrant, 15*time.Minute) }}},
		{name: "shortened, with a key", before: opened(gen.WithPublicKey(ana, keyring.Recipient().String())),
			acts: []func(*run){func(r *run) { r.shorten(theGrant, 15*time.Minute) }}},
		{name: "one engineer taken off", before: opened(both), acts: []func(*run){
			func(r *run) { r.decide("off", gen.RevokingEngineer(theGrant, ana)) },
		}},
		{name: "every engineer taken off", before: opened(both), acts: []func(*run){
			func(r *run) { r.decide("off-1", gen.RevokingEngineer(theGrant, ana)) },
			func(r *run) { r.decide("off-2", gen.RevokingEngineer(theGrant, ben)) },
		}},
		{name: "ended a while ago, and the name must be kept", before: func(r *run) {
			opened()(r)
			r.delete(theGrant)
			r.newLife(nil, nil).settle()
		}, acts: []func(*run){func(r *run) { r.step(keptBy) }}},
		{name: "made again under a used name", before: func(r *run) {
			opened()(r)
			r.delete(theGrant)
			r.newLife(nil, nil).settle()
		}, acts: []func(*run){again()}},
		{name: "a binding deleted by hand", before: opened(), acts: []func(*run){func(r *run) { r.cutByHand(r.bindingOf(theGrant, 0)) }}},
		{name: "a binding of two namespaces deleted by hand", before: func(r *run) { opened(inBoth(r))(r) },
			acts: []func(*run){func(r *run) { r.cutByHand(r.bindingOf(theGrant, 0)) }}},
		{name: "a binding replaced by a stranger's", before: opened(), acts: []func(*run){func(r *run) { r.replaceByHand(r.bindingOf(theGrant, 0)) }}},
		{name: "a binding replaced by a stranger's, then closed by deletion", before: opened(), acts: []func(*run){func(r *run) {
			r.replaceByHand(r.bindingOf(theGrant, 1))
			r.delete(theGrant)
		}}, short: true},
		{name: "a credential deleted by hand", before: opened(both), acts: []func(*run){func(r *run) { r.cutByHand(r.credentialOf(theGrant, ana)) }}},
		{name: "the only credential deleted by hand", before: opened(), acts: []func(*run){func(r *run) { r.cutByHand(r.credentialOf(theGrant, ana)) }}},
		{name: "a role changed", before: opened(gen.WithRoles(spare)), acts: []func(*run){
			func(r *run) { r.setSpare(gen.Rule("", []string{"services", "configmaps"}, []string{"get", "list"})) },
		}},
		{name: "a role widened", before: opened(gen.WithRoles(spare)), acts: []func(*run){func(r *run) {
			r.setSpare(append(spareRules(), gen.Rule("", []string{"secrets"}, []string{"list"}))...)
			r.shut[r.key(theGrant)] = "its role reaches what is never allowed"
		}}},
		{name: "a policy forbids", before: func(r *run) { r.own = r.policyOfItsOwn(); opened()(r) }, acts: []func(*run){func(r *run) {
			r.editPolicy(r.own, func(p *v1alpha1.SupportAccessPolicySpec) {
				p.ProtectedNamespaces = append(p.ProtectedNamespaces, r.home)
			})
			r.shut[r.key(theGrant)] = "the policy protects its namespace"
		}}},
		{name: "a namespace of the scope deleted", before: func(r *run) { opened(inBoth(r))(r) }, acts: []func(*run){
			func(r *run) { r.deleteNamespace(r.other) },
		}},
		{name: "the grant's own namespace deleted", before: opened(), acts: []func(*run){func(r *run) {
			r.shut[r.key(theGrant)] = "its namespace was deleted"
			r.deleteNamespace(r.home)
		}}},
	}
}
