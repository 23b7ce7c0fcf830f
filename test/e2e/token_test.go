package e2e

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// token is what an issued token says.
type token struct{ claims map[string]any }

// tokenOf reads an engineer's token.
func tokenOf(t testing.TB, p *person) token {
	t.Helper()
	parts := strings.Split(p.config.BearerToken, ".")
	if len(parts) != 3 {
		t.Fatalf("the credential of %s is no token", p.name)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var read token
	if err := json.Unmarshal(payload, &read.claims); err != nil {
		t.Fatal(err)
	}
	return read
}

// expiry is when the token says that it dies.
func (k token) expiry(t testing.TB) time.Time {
	t.Helper()
	seconds, ok := k.claims["exp"].(float64)
	if !ok {
		t.Fatalf("the token says no exp: %v", k.claims)
	}
	return time.Unix(int64(seconds), 0)
}

// dying is the same person with a token that is equal in all but exp, made with the API server's own key.
func (p *person) dying(t testing.TB, at time.Time) *person {
	t.Helper()
	claims := maps.Clone(tokenOf(t, p).claims)
	claims["exp"] = at.Unix()
	signed, err := p.world.ControlPlane.SignToken(claims)
	if err != nil {
		t.Fatal(err)
	}
	config := rest.CopyConfig(p.config)
	config.BearerToken = signed
	return meet(t, p.world, p.name, config)
}
