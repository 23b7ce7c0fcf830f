package admission

import (
	"context"
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// request returns a request that the default policy takes from anybody.
func request(namespace, name string, changes ...func(*v1alpha1.SupportAccessRequest)) *v1alpha1.SupportAccessRequest {
	r := &v1alpha1.SupportAccessRequest{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	r.Spec.Reason = "the connector cannot reach the server"
	r.Spec.Engineers = []v1alpha1.Engineer{{Name: "ana@vendor.example"}}
	r.Spec.Duration = "24h"
	for _, change := range changes {
		change(r)
	}
	return r
}

func askedBy(user string) func(*v1alpha1.SupportAccessRequest) {
	return func(r *v1alpha1.SupportAccessRequest) { r.Spec.RequestedBy = user }
}

func forLong(duration v1alpha1.Duration) func(*v1alpha1.SupportAccessRequest) {
	return func(r *v1alpha1.SupportAccessRequest) { r.Spec.Duration = duration }
}

func asking(roles ...string) func(*v1alpha1.SupportAccessRequest) {
	return func(r *v1alpha1.SupportAccessRequest) { r.Spec.Roles = roles }
}

func askingFor(change func(*v1alpha1.SupportAccessRequestSpec)) func(*v1alpha1.SupportAccessRequest) {
	return func(r *v1alpha1.SupportAccessRequest) { change(&r.Spec) }
}

func denying(request string) func(*v1alpha1.SupportAccessDecision) {
	return func(d *v1alpha1.SupportAccessDecision) {
		d.Spec.Action, d.Spec.Target = v1alpha1.ActionDeny, v1alpha1.DecisionTarget{Request: request}
	}
}

func everyAuthority(d *v1alpha1.SupportAccessDecision) { d.Spec.Authority = v1alpha1.AuthorityCluster }

// answering attempts a grant that answers the request which the fixture made in mail, stamped with who makes it.
func (w *world) answering(who **person, changes ...func(*v1alpha1.SupportAccessGrant)) func(context.Context) error {
	return func(ctx context.Context) error {
		asked := &v1alpha1.SupportAccessRequest{}
		if err := w.root.Get(ctx, client.ObjectKey{Namespace: mail, Name: "asked"}, asked); err != nil {
			return err
		}
		g := grant(mail, "x", stampedBy((*who).name))
		g.Spec.RequestRef = &v1alpha1.RequestReference{Name: asked.Name, UID: asked.UID, RequestedBy: asked.Spec.RequestedBy}
		for _, change := range changes {
			change(g)
		}
		return (*who).Create(ctx, g, client.DryRunAll)
	}
}

func (w *world) withdrawing(who **person) func(context.Context) error {
	return func(ctx context.Context) error { return (*who).Delete(ctx, request(mail, "asked"), client.DryRunAll) }
}

// updateAnswer applies a grant again as somebody does who left out what admission wrote.
func (w *world) updateAnswer(ctx context.Context) error {
	answer := &v1alpha1.SupportAccessGrant{}
	if err := w.root.Get(ctx, client.ObjectKey{Namespace: mail, Name: "answer"}, answer); err != nil {
		return err
	}
	answer.Spec.RequestRef.UID, answer.Spec.RequestRef.RequestedBy, answer.Spec.Duration = "", "", ""
	return w.root.Update(ctx, answer, client.DryRunAll)
}

func TestARequestSaysWhoMadeItAndIsNeverEdited(t *testing.T) {
	r := request(mail, "mine")
	w.bob.make(t, r)
	if r.Spec.RequestedBy != "bob" {
		t.Errorf("requestedBy is %q, want bob", r.Spec.RequestedBy)
	}
	refused(t, w.bob.try(t, request(mail, "x", askedBy("ana"))), "support-access-request-stamp",
		`spec.requestedBy: "ana" is not who makes this request: leave it out, or write requestedBy: "bob"`)
	taken(t, w.bob.try(t, request(mail, "x", askedBy("bob"))))
	for _, patch := range []string{
		`{"spec":{"roles":["support-access-content"]}}`, `{"spec":{"duration":"48h"}}`, `{"spec":{"engineers":[{"name":"mallory@vendor.example"}]}}`,
		`{"spec":{"reason":"another"}}`, `{"spec":{"scope":{"cluster":true}}}`, `{"spec":{"case":{"id":"CASE-1"}}}`,
	} {
		invalid(t, w.bob.merge(t, r.DeepCopy(), patch), "spec: a request is never edited")
	}
	// The stamp comes back, whatever is written.
	for _, patch := range []string{`{"spec":{"requestedBy":"ana"}}`, `{"spec":{"requestedBy":null}}`} {
		taken(t, w.bob.merge(t, r.DeepCopy(), patch))
	}
	refused(t, w.cara.try(t, request(v1alpha1.SystemNamespace, "x")), "support-access-request-stamp",
		"metadata.namespace: support-access-system belongs to the operator and takes no grants")
	// In vain do engineers widen what is known of theirs.
	granted := client.RawPatch(types.MergePatchType, []byte(`{"status":{"grant":{"name":"x","uid":"y"}}}`))
	for _, who := range []*person{w.bob, w.root} {
		refused(t, who.Status().Patch(t.Context(), r.DeepCopy(), granted, client.DryRunAll), "support-access-status", "status: is written by the operator alone, not by "+who.name)
	}
	taken(t, w.controller.Status().Patch(t.Context(), r.DeepCopy(), granted, client.DryRunAll))
}

func TestWhatThePolicyDoesNotOfferIsSaidWhereItIsAskedFor(t *testing.T) {
	const limits = "support-access-request-limits"
	strict := func(r *v1alpha1.SupportAccessRequest) {
		r.Spec.Case, r.Spec.Roles = &v1alpha1.Case{ID: "CASE-1"}, []string{configuration}
	}
	keyed := askingFor(func(s *v1alpha1.SupportAccessRequestSpec) { s.Engineers[0].PublicKey = "age1qqq" })
	forCase := askingFor(func(s *v1alpha1.SupportAccessRequestSpec) { s.Case = &v1alpha1.Case{ID: "CASE-1"} })
	mute := policyNamed("mute")
	mute.Spec.MaxOpenRequests, mute.Spec.ProtectedNamespaces = new(int32(0)), []string{"muted"}
	w.root.make(t, mute)
	underPolicy(t, "muted", mute.Name)
	guarded := policyNamed("guarded")
	guarded.Spec.ProtectedNamespaces = []string{"guarded", mail}
	w.root.make(t, guarded)
	underPolicy(t, "guarded", guarded.Name)
	underPolicy(t, "beside-guarded", guarded.Name)
	for name, c := range map[string]struct {
		namespace string
		bad, good []func(*v1alpha1.SupportAccessRequest)
		says      string
	}{
		"too long":                {mail, all(forLong("200h")), all(forLong("168h")), "spec.duration: 200h exceeds 168h, the limit of policy default"},
		"too long for the role":   {mail, all(asking(content), forCase, keyed), all(asking(content), forCase, keyed, forLong("4h")), "spec.duration: 24h exceeds 4h, the limit of role support-access-content in policy default"},
		"not on the menu":         {named, all(strict, forLong("2h")), all(strict, forLong("1h")), "spec.duration: 2h is not offered: policy strict offers 1h, 24h"},
		"a role not offered":      {named, all(strict, asking(diagnostics)), all(strict), "spec.roles: support-access-diagnostics is not offered: policy strict offers support-access-configuration"},
		"elevated without a case": {mail, all(asking(operate), keyed), all(asking(operate), keyed, forCase), "spec.case: is missing: support-access-operate is elevated in policy default"},
		"elevated without a key":  {mail, all(asking(operate), forCase), all(asking(operate), keyed, forCase), "spec.engineers[].publicKey: is missing for ana@vendor.example: support-access-operate is elevated in policy default"},
		"no case":                 {named, all(asking(configuration)), all(strict), "spec.case.id: is missing: give one that matches ^CASE-[0-9]+$"},
		"an engineer of nobody's": {named, all(strict, askingFor(func(s *v1alpha1.SupportAccessRequestSpec) { s.Engineers[0].Name = "mallory" })), all(strict), "spec.engineers: mallory does not match"},
		"suspended":               {frozen, all(), nil, "spec: new grants are Suspended by policy frozen (newGrants)"},
		"the whole cluster":       {mail, all(askingFor(func(s *v1alpha1.SupportAccessRequestSpec) { s.Scope = &v1alpha1.Scope{Cluster: true} })), all(), "spec.scope.cluster: true is not offered: policy default offers scopes Namespaces"},
		"where nobody may ask":    {"muted", all(), nil, "spec: policy mute takes no requests (maxOpenRequests: 0)"},
		"a protected namespace":   {"guarded", all(), nil, "metadata.namespace: guarded is protected by policy guarded and takes no grants"},
		"to a protected one":      {"beside-guarded", all(askingFor(func(s *v1alpha1.SupportAccessRequestSpec) { s.Scope = &v1alpha1.Scope{Namespaces: []string{mail}} })), all(), "spec.scope.namespaces: mail is protected by policy guarded"},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, w.cara.try(t, request(c.namespace, "x", c.bad...)), limits, c.says)
			if c.good != nil {
				taken(t, w.cara.try(t, request(c.namespace, "x", c.good...)))
			}
		})
	}
}

func all(changes ...func(*v1alpha1.SupportAccessRequest)) []func(*v1alpha1.SupportAccessRequest) {
	return append([]func(*v1alpha1.SupportAccessRequest){}, changes...)
}

func TestAnotherDoesNotWithdrawARequestUnlessTheyMaySayNo(t *testing.T) {
	r := request(mail, "bobs")
	w.bob.make(t, r)
	drop := func(who *person) error { return who.Delete(t.Context(), r.DeepCopy(), client.DryRunAll) }
	refused(t, drop(w.dan), "support-access-request-withdrawal", "supportaccessrequests: bobs was made by somebody else: dan lacks the verbs revoke and approve on supportaccessgrants in namespace mail")
	for _, who := range []*person{w.bob, w.ana, w.eve, w.cara, w.as(t, "system:serviceaccount:kube-system:namespace-controller")} {
		taken(t, drop(who))
	}
}

func TestAnAnswerGivesNoMoreThanWasAskedForAndIsBySomebodyElse(t *testing.T) {
	ctx := t.Context()
	const answer, bounds = "support-access-request-answer", "support-access-request-bounds"
	keyed := askingFor(func(s *v1alpha1.SupportAccessRequestSpec) { s.Engineers[0].PublicKey = "age1qqq" })
	asked := request(mail, "of-bob", keyed, asking(configuration, diagnostics), forLong("12h"))
	w.bob.make(t, asked)
	try := func(who *person, changes ...func(*v1alpha1.SupportAccessGrant)) error {
		g := grant(mail, "x", lasting("12h"))
		g.Spec.RequestRef = &v1alpha1.RequestReference{Name: asked.Name}
		for _, change := range changes {
			change(g)
		}
		return who.try(t, g)
	}
	if err := until(ctx, "the API server has heard of the request", func() error { return try(w.ana) }); err != nil {
		t.Fatal(err)
	}
	refused(t, try(w.cara, func(g *v1alpha1.SupportAccessGrant) { g.Spec.RequestRef.Name = "unknown" }), answer,
		"spec.requestRef: there is no SupportAccessRequest unknown in namespace mail")
	refused(t, w.answering(&w.cara)(ctx), answer, "spec.requestRef: cara made request asked: somebody else must answer it")
	taken(t, w.answering(&w.ana)(ctx))
	for name, c := range map[string]struct {
		change func(*v1alpha1.SupportAccessGrant)
		says   string
	}{
		"another UID":       {func(g *v1alpha1.SupportAccessGrant) { g.Spec.RequestRef.UID = "forged" }, "spec.requestRef.uid: is not that of the request of this name: leave it out"},
		"another's request": {func(g *v1alpha1.SupportAccessGrant) { g.Spec.RequestRef.RequestedBy = "eve" }, "spec.requestRef.requestedBy: is not who made the request: leave it out"},
		"another engineer":  {to("ana@vendor.example", "mallory@vendor.example"), "spec.engineers: mallory@vendor.example, which request of-bob does not ask for"},
		"another key":       {func(g *v1alpha1.SupportAccessGrant) { g.Spec.Engineers[0].PublicKey = "age1other" }, "spec.engineers[].publicKey: of ana@vendor.example is not the one of request of-bob"},
		"longer":            {lasting("13h"), "spec.duration: 13h is longer than 12h, for which request of-bob asks"},
		"until later":       {expiring(at(13 * time.Hour)), "spec.expirationTime: "},
	} {
		t.Run(name, func(t *testing.T) { refused(t, try(w.ana, c.change), bounds, c.says) })
	}
	for name, c := range map[string]struct {
		change func(*v1alpha1.SupportAccessGrant)
		says   string
	}{
		"another role": {func(g *v1alpha1.SupportAccessGrant) {
			g.Spec.Roles, g.Spec.Case = []string{operate}, &v1alpha1.Case{ID: "CASE-1"}
		}, "spec.roles: support-access-operate, which request of-bob does not ask for: it asks for support-access-configuration, support-access-diagnostics"},
		"another namespace": {reaching(mail, shop), "spec.scope.namespaces: shop, which request of-bob does not ask for"},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, try(w.cara, c.change, func(g *v1alpha1.SupportAccessGrant) { g.Spec.Engineers[0].PublicKey = "age1qqq" }), bounds, c.says)
		})
	}
	taken(t, try(w.ana, expiring(at(11*time.Hour))))
	taken(t, try(w.ana, with(configuration), lasting("1h")))
	// A later start is no longer access.
	taken(t, try(w.ana, starting(at(24*time.Hour)), expiring(at(35*time.Hour))))
	// Where the whole cluster is offered, too, it must be asked for.
	both := policyNamed("both")
	both.Spec.Scopes = []v1alpha1.ScopeKind{v1alpha1.ScopeNamespaces, v1alpha1.ScopeCluster}
	w.root.make(t, both)
	underPolicy(t, "both", both.Name)
	w.pat.make(t, request("both", "local"))
	w.pat.make(t, request("both", "whole", askingFor(func(s *v1alpha1.SupportAccessRequestSpec) { s.Scope = &v1alpha1.Scope{Cluster: true} })))
	answering := func(name string, changes ...func(*v1alpha1.SupportAccessGrant)) error {
		g := grant("both", "x", changes...)
		g.Spec.RequestRef = &v1alpha1.RequestReference{Name: name}
		return w.cara.try(t, g)
	}
	if err := until(ctx, "the API server has heard of the requests", func() error {
		return errors.Join(answering("local"), answering("whole", everywhere), answering("whole", reaching("both", shop)))
	}); err != nil {
		t.Fatal(err)
	}
	refused(t, answering("local", everywhere), bounds, "spec.scope.cluster: true, which request local does not ask for")
}

func TestWhatAnAnswerLeavesOutComesFromTheRequest(t *testing.T) {
	ctx := t.Context()
	asked := request(mail, "full", forLong("12h"), askingFor(func(s *v1alpha1.SupportAccessRequestSpec) {
		s.Case, s.Scope = &v1alpha1.Case{ID: "CASE-1", URL: "https://support.example/1"}, &v1alpha1.Scope{Namespaces: []string{mail}}
		s.Engineers = append(s.Engineers, v1alpha1.Engineer{Name: "ben@vendor.example", PublicKey: "age1qqq"})
	}))
	w.bob.make(t, asked)
	sparse := &v1alpha1.SupportAccessGrant{ObjectMeta: metav1.ObjectMeta{Namespace: mail, Name: "sparse"}}
	sparse.Spec.RequestRef = &v1alpha1.RequestReference{Name: "full"}
	apply := func() error {
		return w.ana.Patch(ctx, sparseObject(), client.RawPatch(types.ApplyPatchType, []byte(sparseManifest)), client.ForceOwnership, client.FieldOwner("flux"))
	}
	if err := until(ctx, "the API server has heard of the request", apply); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.remove(t, sparse.DeepCopy()) })
	if err := w.ana.Get(ctx, client.ObjectKeyFromObject(sparse), sparse); err != nil {
		t.Fatal(err)
	}
	spec := sparse.Spec
	if len(spec.Engineers) != 2 || spec.Engineers[1].PublicKey != "age1qqq" || spec.Duration != "12h" || spec.Reason != asked.Spec.Reason ||
		spec.Case == nil || spec.Case.URL != "https://support.example/1" || spec.Scope == nil || len(spec.Scope.Namespaces) != 1 ||
		spec.RequestRef.UID != asked.UID || spec.RequestRef.RequestedBy != "bob" || spec.GrantedBy != "ana" {
		t.Errorf("the grant is %+v", spec)
	}
	// Applied again as it is in Git, also once the request is gone, it stays as it is.
	generation := sparse.Generation
	w.remove(t, asked)
	if err := apply(); err != nil {
		t.Fatalf("apply again: %v", err)
	}
	if err := w.ana.Get(ctx, client.ObjectKeyFromObject(sparse), sparse); err != nil || sparse.Generation != generation {
		t.Errorf("the second apply changed it: generation %d, was %d (%v)", sparse.Generation, generation, err)
	}
	invalid(t, w.ana.merge(t, sparse.DeepCopy(), `{"spec":{"requestRef":null}}`), "spec: a grant is never edited")
}

const sparseManifest = `{"apiVersion":"supportaccess.dev/v1alpha1","kind":"SupportAccessGrant","metadata":{"name":"sparse","namespace":"mail"},"spec":{"requestRef":{"name":"full"}}}`

func sparseObject() *v1alpha1.SupportAccessGrant {
	return &v1alpha1.SupportAccessGrant{ObjectMeta: metav1.ObjectMeta{Namespace: mail, Name: "sparse"}}
}

func TestWhoeverMayRevokeMaySayNoToARequestButNotToTheirOwn(t *testing.T) {
	of := func(request string) *v1alpha1.SupportAccessDecision { return decision(mail, denying(request)) }
	for _, who := range []*person{w.ana, w.eve, w.cara} {
		taken(t, who.try(t, of("wish")))
	}
	for _, who := range []*person{w.bob, w.dan} {
		refused(t, who.try(t, of("wish")), "support-access-decision-verbs", "spec.action: Deny: "+who.name+" lacks the verb approve on supportaccessgrants in namespace mail")
	}
	refused(t, w.cara.try(t, of("asked")), "support-access-request-denial", "spec.target.request: cara made request asked: to withdraw it, delete it")
	taken(t, w.ana.try(t, of("asked")))
	approving := of("asked")
	approving.Spec.Action = v1alpha1.ActionApprove
	invalid(t, w.ana.try(t, approving), "spec.target: Approve takes grant; a request is answered by a grant whose spec.requestRef names it")
}
