package access

import (
	"crypto/rand"
	"strings"
	"testing"
)

func TestACredentialOfTheGatewayIsKnownByItsHashAlone(t *testing.T) {
	token, err := NewToken(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	hash, ok := TokenHash(token)
	if !ok || !strings.HasPrefix(hash, "sha256:") || len(hash) != len("sha256:")+64 {
		t.Fatalf("got hash %q, %v", hash, ok)
	}
	if strings.Contains(hash, token[len(TokenPrefix):len(TokenPrefix)+16]) {
		t.Error("the hash shows the credential")
	}
	other, err := NewToken(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := TokenHash(other); again == hash {
		t.Error("two credentials have one hash")
	}
}

func TestWhatWasNeverACredentialIsTurnedAwayByItsForm(t *testing.T) {
	token, err := NewToken(strings.NewReader(strings.Repeat("x", tokenBytes)))
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"nothing":             "",
		"another prefix":      "abc_" + token[len(TokenPrefix):],
		"too short":           token[:len(token)-1],
		"too long":            token + "0",
		"a digit changed":     token[:10] + flip(token[10]) + token[11:],
		"the checksum turned": token[:len(token)-1] + flip(token[len(token)-1]),
		"upper case":          strings.ToUpper(token),
	} {
		if _, ok := TokenHash(bad); ok {
			t.Errorf("%s is taken for a credential", name)
		}
	}
	if _, err := NewToken(strings.NewReader("too little")); err == nil {
		t.Error("a credential was made from too few random bytes")
	}
}

func flip(digit byte) string {
	if digit == '0' {
		return "1"
	}
	return "0"
}
