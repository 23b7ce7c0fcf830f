package admission

import (
	"strings"
	"testing"

	"supportaccess.dev/operator/api/v1alpha1"
)

func keyed(g *v1alpha1.SupportAccessGrant) {
	for i := range g.Spec.Engineers {
		g.Spec.Engineers[i].PublicKey = "age1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqs3290gq"
	}
}

func through(transport v1alpha1.Transport) func(*v1alpha1.SupportAccessGrant) {
	return func(g *v1alpha1.SupportAccessGrant) { g.Spec.Transport = transport }
}

// fitting is what policy strict takes.
func fitting(g *v1alpha1.SupportAccessGrant) {
	g.Spec.Case = &v1alpha1.Case{ID: "CASE-1"}
	g.Spec.Engineers = []v1alpha1.Engineer{{Name: "ana@vendor.example"}}
	g.Spec.Roles = []string{configuration}
}

func TestWhatIsProbablyNotMeantIsWarnedOf(t *testing.T) {
	used := record(mail, "used-before")
	w.controller.make(t, used)
	elsewhere := record(mail, "other.ns")
	elsewhere.Spec.Grant.Namespace, elsewhere.Spec.Grant.Name = "other", "fresh"
	w.controller.make(t, elsewhere)

	cases := map[string]struct {
		who *person
		g   *v1alpha1.SupportAccessGrant
		// says is how the warning goes on after the policy's name. Empty: there is none.
		policy, says string
	}{
		"an end that has passed": {
			w.ana, grant(mail, "x", expiring("2020-01-01T00:00:00Z")), "support-access-grant-expired",
			"spec.expirationTime: 2020-01-01T00:00:00Z has passed: this grant is Expired from the start and gives no access",
		},
		"an end to come": {w.ana, grant(mail, "x", expiring(inAnHour())), "", ""},
		"a credential that nobody could fetch": {
			w.flux, grant(mail, "x", expiring(inAnHour()), to("a@v.example", "b@v.example")), "support-access-grant-unreadable",
			"spec.engineers: nobody could fetch the credential of a@v.example, b@v.example: " + fluxName +
				" is a ServiceAccount, and policy default names no credentialReaders: give each engineer a publicKey, or name readers in the policy",
		},
		"a credential for a key": {w.flux, grant(mail, "x", expiring(inAnHour()), keyed), "", ""},
		"a person's credential":  {w.ana, grant(mail, "x"), "", ""},
		"a name that was used": {
			w.ana, grant(mail, "used-before"), "support-access-grant-name-used",
			"metadata.name: used-before was used before, says record used-before: this grant opens nothing: choose a new name",
		},
		"a name that was used in another namespace": {w.ana, grant(mail, "fresh"), "", ""},
		"Direct where Gateway is offered too": {
			w.cara, grant(named, "x", fitting, through(v1alpha1.TransportDirect)), "support-access-grant-direct",
			"spec.transport: Direct: what the engineers do is not recorded, and connections that are open when the grant ends cannot be cut: with Gateway it is and they are",
		},
		"Gateway, by name":                   {w.cara, grant(named, "x", fitting, through(v1alpha1.TransportGateway)), "", ""},
		"Gateway, as the policy's first":     {w.cara, grant(named, "x", fitting), "", ""},
		"Direct where nothing else is to be": {w.ana, grant(mail, "x", through(v1alpha1.TransportDirect)), "", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			said, err := w.warned(t.Context(), c.who, c.g)
			if err != nil {
				t.Fatalf("a warning must not refuse: %v", err)
			}
			if c.policy == "" {
				if len(said) != 0 {
					t.Errorf("the API server warns: %q", said)
				}
				return
			}
			want := "Validation failed for ValidatingAdmissionPolicy '" + c.policy + "' with binding '" + c.policy + "': " + c.says
			if len(said) != 1 || !strings.Contains(said[0], want) {
				t.Errorf("the API server warns:\n\t%s\nwant:\n\t%s", strings.Join(said, "\n\t"), want)
			}
		})
	}
}

func TestReadersOfCredentialsSilenceTheWarning(t *testing.T) {
	// Policy wide lets pipelines grant, and names a reader; the pipeline is given bind cluster-wide for the test.
	w.root.make(t, binding("", "flux-binds-anything", "test-bind-any", subjectAccount(pipelines, "flux")))
	err := until(t.Context(), "RBAC knows the pipeline", func() error { return w.flux.try(t, grant(wide, "x", everywhere)) })
	if err != nil {
		t.Fatal(err)
	}
	said, err := w.warned(t.Context(), w.flux, grant(wide, "x", everywhere))
	if err != nil || len(said) != 0 {
		t.Errorf("the API server warns: %q, %v", said, err)
	}
}
