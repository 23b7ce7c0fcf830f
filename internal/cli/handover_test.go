package cli

import (
	"strings"
	"testing"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
)

func TestACredentialIsHandedOverOnlyWhereThereIsOne(t *testing.T) {
	secret := v1alpha1.EngineerStatus{Name: gen.Engineer, CredentialSecretRef: &v1alpha1.SecretKeyReference{Name: "engineer-x"}}
	both := gen.WithEngineers(gen.Engineer, "ben@vendor.example")
	with := func(states ...v1alpha1.EngineerStatus) func(*v1alpha1.SupportAccessGrant) {
		return func(g *v1alpha1.SupportAccessGrant) { g.Status.Engineers = states }
	}
	for sentence, c := range map[string]struct {
		mods     []func(*v1alpha1.SupportAccessGrant)
		engineer string
		code     int
		wrong    string
	}{
		"in a Secret":          {[]func(*v1alpha1.SupportAccessGrant){inState(v1alpha1.StateActive), with(secret)}, gen.Engineer, exitOK, ""},
		"the only one":         {[]func(*v1alpha1.SupportAccessGrant){inState(v1alpha1.StateActive), with(secret)}, "", exitOK, ""},
		"encrypted":            {[]func(*v1alpha1.SupportAccessGrant){inState(v1alpha1.StateActive), with(v1alpha1.EngineerStatus{Name: gen.Engineer, EncryptedKubeconfig: "x"})}, "", exitOK, ""},
		"of two":               {[]func(*v1alpha1.SupportAccessGrant){inState(v1alpha1.StateActive), with(secret), both}, "", -1, "ENGINEER: is missing: a is for ana@vendor.example, ben@vendor.example"},
		"one who is not on it": {[]func(*v1alpha1.SupportAccessGrant){inState(v1alpha1.StateActive), with(secret)}, "eve@vendor.example", -1, "ENGINEER: eve@vendor.example has no access by a"},
		"handed over before":   {[]func(*v1alpha1.SupportAccessGrant){inState(v1alpha1.StateActive), with(v1alpha1.EngineerStatus{Name: gen.Engineer})}, "", -1, "was handed over"},
		"not yet open":         {[]func(*v1alpha1.SupportAccessGrant){inState(v1alpha1.StateOpening)}, "", exitNotOpen, "there is no kubeconfig yet: a is Opening: so it is"},
		"ended":                {[]func(*v1alpha1.SupportAccessGrant){inState(v1alpha1.StateExpired), with(secret)}, "", exitEnded, "a is Expired: so it is"},
	} {
		got, err := toHandOver(gen.Grant("a", gen.Namespace, c.mods...), c.engineer)
		if codeOf(err) != c.code || err != nil && !strings.Contains(err.Error(), c.wrong) || (err == nil) != (got != nil) {
			t.Errorf("%s: got %+v, %v, want %d %q", sentence, got, err, c.code, c.wrong)
		}
	}
}

func TestACredentialIsReplacedOnlyWhereTheGatewayKnowsOne(t *testing.T) {
	known := v1alpha1.EngineerStatus{Name: gen.Engineer, CredentialHash: "sha256:00"}
	with := func(e v1alpha1.EngineerStatus) func(*v1alpha1.SupportAccessGrant) {
		return func(g *v1alpha1.SupportAccessGrant) { g.Status.Engineers = []v1alpha1.EngineerStatus{e} }
	}
	for sentence, c := range map[string]struct {
		mods     []func(*v1alpha1.SupportAccessGrant)
		engineer string
		code     int
		wrong    string
	}{
		"handed over before":   {[]func(*v1alpha1.SupportAccessGrant){inState(v1alpha1.StateActive), with(known)}, "", exitOK, ""},
		"one who is not on it": {[]func(*v1alpha1.SupportAccessGrant){inState(v1alpha1.StateActive), with(known)}, "eve@vendor.example", -1, "ENGINEER: eve@vendor.example has no access by a"},
		"direct":               {[]func(*v1alpha1.SupportAccessGrant){inState(v1alpha1.StateActive), with(v1alpha1.EngineerStatus{Name: gen.Engineer})}, "", -1, "--again: a is Direct"},
		"not yet open":         {[]func(*v1alpha1.SupportAccessGrant){inState(v1alpha1.StateOpening)}, "", exitNotOpen, "there is no kubeconfig yet"},
		"ended":                {[]func(*v1alpha1.SupportAccessGrant){inState(v1alpha1.StateExpired), with(known)}, "", exitEnded, "a is Expired"},
	} {
		got, err := toReplace(gen.Grant("a", gen.Namespace, c.mods...), c.engineer)
		if codeOf(err) != c.code || err != nil && !strings.Contains(err.Error(), c.wrong) || (err == nil) != (got != nil) {
			t.Errorf("%s: got %+v, %v, want %d %q", sentence, got, err, c.code, c.wrong)
		}
	}
}
