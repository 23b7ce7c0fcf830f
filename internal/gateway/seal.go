package gateway

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"

	"github.com/google/uuid"
)

// seal makes the ids of requests, such that whoever shares its key knows one of them: when the API server asks about a
// change, it is a request of this gateway's, or of another replica's, and nobody else made it up.
type seal struct {
	// own are the keys that this replica began with; the first makes ids. While a key is replaced there are two.
	own [][]byte

	mu sync.Mutex
	// shared returns what all replicas have, nothing while there is none; nil where they share nothing.
	shared func() []byte
	// secret is what that was last, and keys are those made of it and of what it was before.
	secret []byte
	keys   [][]byte
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
		key, err := sealingKey(secret)
		if err != nil {
			return nil, err
		}
		s.own = append(s.own, key)
	}
	return s, nil
}

func sealingKey(secret []byte) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, "supportaccess.dev/request", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("make the key for the ids of requests: %w", err)
	}
	return key, nil
}

// share has ids made by a secret that all replicas have. It may change: the one before it is known for as long as the
// process lives, since requests are under way.
func (s *seal) share(secret func() []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shared = secret
}

// current returns the keys by which ids are known. The first makes them.
func (s *seal) current() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shared == nil {
		return s.own
	}
	secret := s.shared()
	if len(secret) > 0 && !bytes.Equal(secret, s.secret) {
		if key, err := sealingKey(secret); err == nil {
			s.secret, s.keys = secret, append([][]byte{key}, s.keys[:min(1, len(s.keys))]...)
		}
	}
	return append(slices.Clone(s.keys), s.own...)
}

// half is how much of an id is left to chance; the rest proves it.
const half = 8

// id returns a new id for a request of a user: a UUID of version 8.
func (s *seal) id(user string) string {
	var id uuid.UUID
	_, _ = rand.Read(id[:half])
	return sealed(s.current()[0], id, user).String()
}

// knows reports whether an id was made for a user by who has one of the keys.
func (s *seal) knows(id, user string) bool {
	given, err := uuid.Parse(id)
	if err != nil || id != given.String() {
		return false
	}
	known := false
	for _, key := range s.current() {
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
