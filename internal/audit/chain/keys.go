package chain

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Keys sign the checkpoints of a log: one, or while one follows the other both.
type Keys struct {
	// Public are the keys by which signatures are checked, in the order of the file.
	Public    []string
	signers   []note.Signer
	verifiers note.Verifiers
}

// maxKeys is how many keys may sign at once: a note has no more than a few signatures.
const maxKeys = 4

// ParseKeys reads Ed25519 keys, PEM of PKCS #8 one after the other, as the keys of the log with that origin. All of them
// sign.
func ParseKeys(origin string, content []byte) (*Keys, error) {
	keys := &Keys{}
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if err := keys.add(origin, block); err != nil {
			return nil, fmt.Errorf("read key %d: %w", len(keys.Public)+1, err)
		}
	}
	if n := len(keys.Public); n == 0 || n > maxKeys {
		return nil, fmt.Errorf("there are %d keys in PEM, want 1 to %d", n, maxKeys)
	}
	var err error
	keys.verifiers, err = Verifiers(keys.Public)
	return keys, err
}

func (k *Keys) add(origin string, block *pem.Block) error {
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	private, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		// What a parser says of a private key is not repeated.
		return errors.New("it is no Ed25519 key in PKCS #8, as openssl genpkey -algorithm ed25519 makes one")
	}
	public, err := note.NewEd25519VerifierKey(origin, private.Public().(ed25519.PublicKey))
	if err != nil {
		return fmt.Errorf("name it: %w", err)
	}
	signer, err := note.NewSigner(signerKey(public, private))
	if err != nil {
		return fmt.Errorf("name it %q: %w", origin, err)
	}
	k.Public = append(k.Public, public)
	k.signers = append(k.signers, signer)
	return nil
}

// signerKey returns the private key as notes have it, beside its public key, which has the same name and hash.
func signerKey(public string, private ed25519.PrivateKey) string {
	const ed25519Algorithm = 1
	secret := base64.StdEncoding.EncodeToString(append([]byte{ed25519Algorithm}, private.Seed()...))
	// The key itself, which is the third, may have a plus in it.
	parts := strings.SplitN(public, "+", 3)
	return "PRIVATE+KEY+" + parts[0] + "+" + parts[1] + "+" + secret
}

// Sign returns a checkpoint with the signatures of all keys.
func (k *Keys) Sign(c Checkpoint) (string, error) {
	signed, err := note.Sign(&note.Note{Text: c.Text()}, k.signers...)
	if err != nil {
		return "", fmt.Errorf("sign a checkpoint: %w", err)
	}
	return string(signed), nil
}

// Verifiers returns who checks the signatures of these keys.
func (k *Keys) Verifiers() note.Verifiers { return k.verifiers }

// Verifiers returns who checks signatures by public keys.
func Verifiers(public []string) (note.Verifiers, error) {
	seen := map[string]bool{}
	var verifiers []note.Verifier
	for _, key := range public {
		key = strings.TrimSpace(key)
		if seen[key] {
			continue
		}
		seen[key] = true
		verifier, err := note.NewVerifier(key)
		if err != nil {
			return nil, fmt.Errorf("read the public key %q: %w", key, err)
		}
		verifiers = append(verifiers, verifier)
	}
	return note.VerifierList(verifiers...), nil
}

// NewKey returns a new key as ParseKeys reads it.
func NewKey() ([]byte, error) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, fmt.Errorf("make an Ed25519 key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("write an Ed25519 key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
