package gateway

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"

	"github.com/google/uuid"
)

// seal makes the ids of requests, such that whoever shares its key knows one of them: when the API server asks about a
// change, it is a request of this gateway's, or of another replica's, and nobody else made it up.
type seal struct {
	// keys know ids; the first makes them. While a key is replaced there are two.
	keys [][]byte
}

// newSeal returns a seal of secrets. Without any it makes its own, which no other replica has.
func newSeal(secrets [][]byte) (*seal, error) {
	if len(secrets) == 0 {
		own := make([]byte, sha256.Size)
		_, _ = rand.Read(own)
		secrets = [][]byte{own}
	}
	s := &seal{}
	for _, secret := range secrets {
		key, err := hkdf.Key(sha256.New, secret, nil, "supportaccess.dev/request", sha256.Size)
		if err != nil {
			return nil, fmt.Errorf("make the key for the ids of requests: %w", err)
		}
		s.keys = append(s.keys, key)
	}
	return s, nil
}

// half is how much of an id is left to chance; the rest proves it.
const half = 8

// id returns a new id for a request of a user: a UUID of version 8.
func (s *seal) id(user string) string {
	var id uuid.UUID
	_, _ = rand.Read(id[:half])
	return sealed(s.keys[0], id, user).String()
}

// knows reports whether an id was made for a user by who has one of the keys.
func (s *seal) knows(id, user string) bool {
	given, err := uuid.Parse(id)
	if err != nil || id != given.String() {
		return false
	}
	known := false
	for _, key := range s.keys {
		want := sealed(key, given, user)
		known = hmac.Equal(want[:], given[:]) || known
	}
	return known
}

func sealed(key []byte, id uuid.UUID, user string) uuid.UUID {
	id[6] = id[6]&0x0f | 0x80
	mac := hmac.New(sha256.New, key)
	mac.Write(id[:half])
	mac.Write([]byte(user))
	copy(id[half:], mac.Sum(nil))
	id[8] = id[8]&0x3f | 0x80
	return id
}
