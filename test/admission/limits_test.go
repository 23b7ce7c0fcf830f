package admission

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

const limits = "support-access-grant-limits"

func inAnHour() string { return at(time.Hour) }

// at is an instant from now, as manifests write it.
func at(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339) }

func starting(instant string) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) {
		parsed, err := time.Parse(time.RFC3339, instant)
		if err != nil {
			panic(err)
		}
		g.Spec.StartTime = &metav1.Time{Time: parsed}
	}
}

func with(roles ...string) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) { g.Spec.Roles = roles }
}

func because(id string) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) { g.Spec.Case = &v1alpha1.Case{ID: id} }
}

func reaching(namespaces ...string) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) { g.Spec.Scope = &v1alpha1.Scope{Namespaces: namespaces} }
}

func everywhere(g *v1alpha1.SupportAccessGrant) { g.Spec.Scope = &v1alpha1.Scope{Cluster: true} }

func by(transport v1alpha1.Transport) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) { g.Spec.Transport = transport }
}

func to(names ...string) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) {
		g.Spec.Engineers = nil
		for _, name := range names {
			g.Spec.Engineers = append(g.Spec.Engineers, v1alpha1.Engineer{Name: name})
		}
	}
}

// and adds an engineer without a key.
func and(name string) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) {
		g.Spec.Engineers = append(g.Spec.Engineers, v1alpha1.Engineer{Name: name})
	}
}

// strict makes a grant that the policy strict takes.
func strict(g *v1alpha1.SupportAccessGrant) {
	with(configuration)(g)
	because("CASE-1")(g)
}

func TestAPolicyLimitsGrants(t *testing.T) {
	week := 168 * time.Hour
	changes := func(c ...func(*v1alpha1.SupportAccessGrant)) []func(*v1alpha1.SupportAccessGrant) { return c }
	cases := map[string]struct {
		who       *person
		namespace string
		refuse    []func(*v1alpha1.SupportAccessGrant)
		says      string
		take      []func(*v1alpha1.SupportAccessGrant)
	}{
		"new grants are suspended": {
			w.cara, frozen, nil, "spec: new grants are Suspended by policy frozen (newGrants)", nil,
		},
		"a duration beyond the longest": {
			w.ana, mail, changes(lasting("200h")), "spec.duration: 200h exceeds 168h, the limit of policy default",
			changes(lasting("168h")),
		},
		"a duration in other units is as long": {
			w.ana, mail, changes(lasting("10081m")), "spec.duration: 10081m exceeds 168h, the limit of policy default",
			changes(lasting("10080m")),
		},
		"a duration that is not on the menu": {
			w.cara, named, changes(strict, lasting("23h")), "spec.duration: 23h is not offered: policy strict offers 1h, 24h",
			changes(strict, lasting("60m")),
		},
		"an end beyond the longest": {
			w.ana, mail, changes(expiring("2099-01-01T00:00:00Z")),
			"spec.expirationTime: 2099-01-01T00:00:00Z exceeds 168h, the limit of policy default: give at most 20",
			changes(expiring(at(week - time.Minute))),
		},
		"an end that is counted from a later start": {
			w.ana, mail, changes(starting(at(time.Hour)), expiring(at(week+2*time.Hour))), "spec.expirationTime: ",
			changes(starting(at(time.Hour)), expiring(at(week+time.Hour-time.Minute))),
		},
		"an end is bounded although it is on no menu": {
			w.cara, named, changes(strict, expiring("2099-01-01T00:00:00Z")),
			"spec.expirationTime: 2099-01-01T00:00:00Z exceeds 24h, the limit of policy strict: give at most 20",
			changes(strict, expiring(at(5*time.Hour))),
		},
		"a start too far ahead": {
			w.ana, mail, changes(starting("2099-01-01T00:00:00Z")),
			"spec.startTime: 2099-01-01T00:00:00Z is more than 168h ahead, the limit of policy default: give at most 20",
			changes(starting(at(week - time.Minute))),
		},
		"a start where grants open at once": {
			w.cara, named, changes(strict, starting("2099-01-01T00:00:00Z")),
			"spec.startTime: 2099-01-01T00:00:00Z is more than 0s ahead, the limit of policy strict",
			changes(strict, starting("2020-01-01T00:00:00Z")),
		},
		"a role that is not offered": {
			w.cara, mail, changes(with(configuration, "cluster-admin")),
			"spec.roles: cluster-admin is not offered: policy default offers support-access-configuration, support-access-diagnostics, support-access-content, support-access-operate",
			changes(with(configuration)),
		},
		"a role that another policy offers": {
			w.cara, named, changes(strict, with(diagnostics)), "spec.roles: support-access-diagnostics is not offered: policy strict offers support-access-configuration",
			changes(strict),
		},
		"an elevated role without a case": {
			w.cara, mail, changes(with(configuration, operate), keyed),
			"spec.case: is missing: support-access-operate is elevated in policy default and given for a case only: add spec.case.id",
			changes(with(configuration, operate), because("any"), keyed),
		},
		"an elevated role for engineers of whom one has no key": {
			w.cara, mail, changes(with(operate), because("any"), to("ana@vendor.example"), keyed, and("bob@vendor.example")),
			"spec.engineers[].publicKey: is missing for bob@vendor.example: support-access-operate is elevated in policy default (requirePublicKey: ElevatedRoles): give an age recipient or an ssh-ed25519 public key of each",
			changes(with(operate), because("any"), to("ana@vendor.example", "bob@vendor.example"), keyed),
		},
		"a role with a limit of its own": {
			w.cara, mail, changes(with(content), because("any"), keyed, lasting("5h")),
			"spec.duration: 5h exceeds 4h, the limit of role support-access-content in policy default",
			changes(with(content), because("any"), keyed, lasting("4h")),
		},
		"a role with a limit of its own, and an end": {
			w.cara, mail, changes(with(content), because("any"), keyed, expiring("2099-01-01T00:00:00Z")), "spec.expirationTime: 2099-01-01T00:00:00Z exceeds ",
			changes(with(content), because("any"), keyed, expiring(at(3*time.Hour))),
		},
		"a scope that is not offered": {
			w.cara, mail, changes(everywhere), "spec.scope.cluster: true is not offered: policy default offers scopes Namespaces",
			changes(reaching(mail, shop)),
		},
		"namespaces where only the cluster is offered": {
			w.cara, wide, changes(reaching(mail, shop)), "spec.scope.namespaces: mail, shop is not offered: policy wide offers scopes Cluster",
			changes(everywhere),
		},
		"the own namespace where only the cluster is offered": {
			w.cara, wide, nil, "spec.scope.namespaces: wide is not offered: policy wide offers scopes Cluster", changes(everywhere),
		},
		"a transport that is not offered": {
			w.ana, mail, changes(by(v1alpha1.TransportGateway)), "spec.transport: Gateway is not offered: policy default offers Direct",
			changes(by(v1alpha1.TransportDirect)),
		},
		"a case of another shape": {
			w.cara, named, changes(strict, because("4711")), "spec.case.id: 4711 does not match ^CASE-[0-9]+$, the casePattern of policy strict",
			changes(strict, because("CASE-4711")),
		},
		"no case where one is wanted": {
			w.cara, named, changes(with(configuration)), "spec.case.id: is missing: give one that matches ^CASE-[0-9]+$, the casePattern of policy strict",
			changes(strict),
		},
		"engineers of another vendor": {
			w.cara, named, changes(strict, to("ana@vendor.example", "eve@other.example", "root")),
			`spec.engineers: eve@other.example, root does not match @vendor\.example$, the engineerPattern of policy strict`,
			changes(strict, to("ana@vendor.example", "bob@vendor.example")),
		},
		"a protected namespace in the scope": {
			w.cara, mail, changes(reaching(mail, "kube-system", "kube-public")), "spec.scope.namespaces: kube-system, kube-public is protected by policy default",
			changes(reaching(mail, shop)),
		},
		"a namespace that this policy protects": {
			w.cara, named, changes(strict, reaching(shop)), "spec.scope.namespaces: shop is protected by policy strict",
			changes(strict, reaching("kube-public")),
		},
		"a grant in a protected namespace": {
			w.cara, "kube-public", nil, "metadata.namespace: kube-public is protected by policy default and takes no grants", nil,
		},
		"a pipeline's grant where only people grant": {
			w.flux, named, changes(strict, expiring(inAnHour())),
			"spec.grantedBy: " + fluxName + " is a ServiceAccount: policy strict takes grants from people only (serviceAccountGrants: Deny)", nil,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			refused(t, c.who.try(t, grant(c.namespace, "x", c.refuse...)), limits, c.says)
			if c.take != nil {
				taken(t, c.who.try(t, grant(c.namespace, "x", c.take...)))
			}
		})
	}
}

func TestAPipelineIsToldWhichInstantToWrite(t *testing.T) {
	began := time.Now().Truncate(time.Second)
	err := w.flux.try(t, grant(mail, "x"))
	refused(t, err, limits, "spec.duration: 24h would start anew whenever a pipeline applies this again: instead of it write expirationTime: ")
	found := regexp.MustCompile(`expirationTime: "([^"]+)" \(serviceAccountGrants: ExpirationTimeOnly, in policy default\)`).FindStringSubmatch(err.Error())
	if found == nil {
		t.Fatalf("no line to write in: %v", err)
	}
	end, parseErr := time.Parse(time.RFC3339, found[1])
	if parseErr != nil || end.Before(began.Add(24*time.Hour)) || end.After(time.Now().Add(24*time.Hour)) {
		t.Errorf("the line says %s, which is not 24h from now", found[1])
	}
	taken(t, w.flux.try(t, grant(mail, "x", expiring(found[1]))))
	taken(t, w.ana.try(t, grant(mail, "x")))
	// Policy wide lets pipelines grant as people do; in mail the same pipeline may not.
	err = w.flux.try(t, grant(wide, "x", everywhere))
	refused(t, err, "support-access-grant-bind", "spec.roles[0]: support-access-configuration: "+fluxName+" lacks the verb bind on this ClusterRole cluster-wide")
}

func TestAForgedCreationTimeDoesNotMoveTheClock(t *testing.T) {
	forged := grant(mail, "x", expiring(at(200*time.Hour)), func(g *v1alpha1.SupportAccessGrant) {
		g.CreationTimestamp = metav1.NewTime(time.Now().Add(100 * time.Hour))
	})
	refused(t, w.ana.try(t, forged), limits, "spec.expirationTime: ")
}

func TestTheOperatorsNamespacesAreOutOfReach(t *testing.T) {
	const scope = "support-access-grant-scope"
	for _, own := range []string{v1alpha1.SystemNamespace, v1alpha1.CredentialsNamespace} {
		refused(t, w.controllerCreates(t, grant(own, "x", expiring(inAnHour()), referring("x", 1))), scope, "metadata.namespace: "+own+" belongs to the operator and takes no grants")
		refused(t, w.cara.try(t, grant(mail, "x", reaching(mail, own))), scope,
			"spec.scope.namespaces: "+own+" belongs to the operator and is never in the scope of a grant")
	}
	refused(t, w.cara.try(t, grant(v1alpha1.SystemNamespace, "x")), scope,
		"metadata.namespace: support-access-system belongs to the operator and takes no grants")
	// There two policies refuse, and the API server tells of either.
	if err := w.cara.try(t, grant(v1alpha1.CredentialsNamespace, "x")); !isDenial(err, scope) && !isDenial(err, "support-access-credentials") {
		t.Errorf("a grant in support-access-credentials: %v", err)
	}
	taken(t, w.cara.try(t, grant(mail, "x", reaching(mail, shop))))
}

// controllerCreates creates for real, where a dry run is excepted for the canary's sake.
func (w *world) controllerCreates(t *testing.T, object client.Object) error {
	t.Helper()
	err := w.controller.Create(t.Context(), object)
	if err == nil {
		w.remove(t, object)
	}
	return err
}

func TestWithoutAPolicyThereAreNoGrants(t *testing.T) {
	standard := &v1alpha1.SupportAccessPolicy{}
	if err := w.root.Get(t.Context(), client.ObjectKey{Name: v1alpha1.DefaultPolicyName}, standard); err != nil {
		t.Fatal(err)
	}
	taken(t, w.ana.try(t, grant(mail, "x")))
	if err := w.root.Delete(t.Context(), standard.DeepCopy()); err != nil {
		t.Fatal(err)
	}
	err := until(t.Context(), "the policy's absence is noticed", func() error {
		if err := w.ana.try(t, grant(mail, "x")); isDenial(err, limits) {
			return nil
		}
		return fmt.Errorf("it is not")
	})
	if err != nil {
		t.Error(err)
	}
	said := w.ana.try(t, grant(mail, "x"))
	if !isDenial(said, limits) || !strings.Contains(said.Error(), "with binding 'support-access-grant-limits-default' denied request: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction") {
		t.Errorf("the API server says: %v", said)
	}
	// Other policies do not stand in, but their own namespaces are not touched.
	taken(t, w.cara.try(t, grant(named, "x", strict)))
	standard.ObjectMeta = metav1.ObjectMeta{Name: standard.Name}
	if err := w.root.Create(t.Context(), standard); err != nil {
		t.Fatal(err)
	}
	if err := until(t.Context(), "the policy is noticed", func() error { return w.ana.try(t, grant(mail, "x")) }); err != nil {
		t.Error(err)
	}
}

// TestALabelThatNamesNoPolicyIsNotSeenHere holds the one gap of these rules where the controller can see it: CEL is
// shown policies, not their absence. The controller refuses to open such a grant.
func TestALabelThatNamesNoPolicyIsNotSeenHere(t *testing.T) {
	taken(t, w.cara.try(t, grant(lost, "x", lasting("99999h"))))
}

func TestTheLargestGrantUnderTheLargestPolicyIsJudgedWithinCELsBudget(t *testing.T) {
	largest := &v1alpha1.SupportAccessPolicy{ObjectMeta: metav1.ObjectMeta{Name: "largest"}}
	for i := range 32 {
		largest.Spec.Roles = append(largest.Spec.Roles, v1alpha1.OfferedRole{
			Name: fmt.Sprintf("%s-%02d", strings.Repeat("r", 250), i), Elevated: true, MaxDuration: "24h",
		})
	}
	for i := range 16 {
		largest.Spec.Durations = append(largest.Spec.Durations, v1alpha1.Duration(fmt.Sprintf("%dh", i+9)))
	}
	for i := range 64 {
		largest.Spec.ProtectedNamespaces = append(largest.Spec.ProtectedNamespaces, fmt.Sprintf("%s-%02d", strings.Repeat("p", 60), i))
	}
	largest.Spec.Transports = []v1alpha1.Transport{v1alpha1.TransportGateway, v1alpha1.TransportDirect}
	largest.Spec.CasePattern = "^(" + strings.Repeat("C?", 120) + "|.*)$"
	largest.Spec.EngineerPattern = "^(" + strings.Repeat("e?", 120) + "|.*)$"
	w.root.make(t, largest)
	namespace := w.namespaces()[0].DeepCopy()
	namespace.Name, namespace.Labels = "largest", map[string]string{v1alpha1.LabelPolicy: "largest"}
	if err := w.root.Create(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
	g := grant("largest", "x", because(strings.Repeat("C", 64)), starting(at(time.Minute)), func(g *v1alpha1.SupportAccessGrant) {
		g.Spec.Roles, g.Spec.Engineers, g.Spec.Scope = nil, nil, &v1alpha1.Scope{}
		for i := range 4 {
			g.Spec.Roles = append(g.Spec.Roles, largest.Spec.Roles[28+i].Name)
		}
		for i := range 16 {
			g.Spec.Engineers = append(g.Spec.Engineers, v1alpha1.Engineer{
				Name: fmt.Sprintf("%s%02d", strings.Repeat("e", 126), i), PublicKey: "age1" + strings.Repeat("q", 2044),
			})
		}
		for i := range 64 {
			g.Spec.Scope.Namespaces = append(g.Spec.Scope.Namespaces, fmt.Sprintf("%s-%02d", strings.Repeat("n", 60), i))
		}
	})
	err := until(t.Context(), "the largest policy is known", func() error {
		if err := w.cara.try(t, grant("largest", "x", strict)); !isDenial(err, limits) {
			return fmt.Errorf("not refused: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	taken(t, w.cara.try(t, g))
}
