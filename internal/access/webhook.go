package access

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// ActsPath begins the path at which the API server tells the gateway who changes or deletes what is support access's.
const ActsPath = "/acts/"

// PathOfActs is the whole path, which nobody knows but who has the key of the webhook's certificate and who may read the
// configuration of webhooks: the API server shows no other sign that it is the API server.
func PathOfActs(key []byte) string {
	mac := hmac.New(sha256.New, key)
	_, _ = mac.Write([]byte("support-access acts"))
	return ActsPath + hex.EncodeToString(mac.Sum(nil))
}

// IsPathOfActs reports whether a path is that of a key. Without a key none is.
func IsPathOfActs(path string, key []byte) bool {
	return len(key) > 0 && strings.HasPrefix(path, ActsPath) && hmac.Equal([]byte(path), []byte(PathOfActs(key)))
}
