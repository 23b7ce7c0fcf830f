package gateway

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
)

// identities knows as whom the API server lets the gateway act. The controller allows it for each open grant, and the API
// server takes its time to hear of it: the first request of an engineer waits for that, and no other.
type identities struct {
	way *upstream

	mu     sync.Mutex
	proven map[identity]bool
}

type identity struct {
	grant    types.UID
	engineer string
}

const (
	// allowedWithin is for how long the first request waits until the gateway may act as its engineer.
	allowedWithin = 2 * time.Second
	askEvery      = 50 * time.Millisecond
	whoAmI        = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
)

// prove returns when the gateway may act as the engineer of an exchange.
func (i *identities) prove(ctx context.Context, x *exchange) error {
	key := identity{grant: x.standing.uid, engineer: x.engineer}
	i.mu.Lock()
	proven := i.proven[key]
	i.mu.Unlock()
	if proven {
		return nil
	}
	var last error
	err := wait.PollUntilContextTimeout(ctx, askEvery, allowedWithin, true, func(ctx context.Context) (bool, error) {
		last = i.way.ask(ctx, x)
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("act as an engineer of grant %s: %w", x.standing.key, last)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.proven == nil {
		i.proven = map[identity]bool{}
	}
	i.proven[key] = true
	return nil
}

// ask asks the API server who the gateway is when it acts as the engineer of an exchange.
func (u *upstream) ask(ctx context.Context, x *exchange) error {
	return u.review(ctx, func(header http.Header) { actAs(header, x) })
}

// refusedError is an answer of the API server other than yes.
type refusedError struct {
	status int
	answer []byte
}

// Error says what the API server answered.
func (e *refusedError) Error() string {
	return fmt.Sprintf("the API server answered %d: %s", e.status, e.answer)
}

// review asks the API server who the gateway is in a guise.
func (u *upstream) review(ctx context.Context, guise func(http.Header)) error {
	body := []byte(`{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`)
	target := *u.base
	target.Path = whoAmI
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	guise(r.Header)
	response, err := u.plain.RoundTrip(r)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusCreated {
		return &refusedError{status: response.StatusCode, answer: answer}
	}
	return nil
}
