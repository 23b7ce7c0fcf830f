package access

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
)

// A credential of the gateway is sag_, 256 random bits and a CRC-32 of both, in hexadecimal: a secret scanner can tell
// one from any other string, and the gateway can turn away what was never one without looking for it.
const (
	// TokenPrefix begins every credential of the gateway.
	TokenPrefix = "sag_"

	tokenBytes = 32
	sumBytes   = 4
)

// NewToken makes a credential of the gateway from a source of random bytes.
func NewToken(random io.Reader) (string, error) {
	secret := make([]byte, tokenBytes)
	if _, err := io.ReadFull(random, secret); err != nil {
		return "", fmt.Errorf("read random bytes: %w", err)
	}
	token := TokenPrefix + hex.EncodeToString(secret)
	return token + checksum(token), nil
}

// TokenHash returns what is kept of a credential: its SHA-256, as status.engineers[].credentialHash writes it. ok is false
// for what cannot be a credential.
func TokenHash(token string) (hash string, ok bool) {
	if len(token) != len(TokenPrefix)+2*(tokenBytes+sumBytes) || !strings.HasPrefix(token, TokenPrefix) {
		return "", false
	}
	body, sum := token[:len(token)-2*sumBytes], token[len(token)-2*sumBytes:]
	if checksum(body) != sum {
		return "", false
	}
	digest := sha256.Sum256([]byte(token))
	return "sha256:" + hex.EncodeToString(digest[:]), true
}

func checksum(body string) string {
	return fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(body)))
}
