package access

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// errNoGateway says what a person must set.
var errNoGateway = errors.New("set gateway.server: the operator does not know the address at which engineers reach the gateway")

// KeyCA is the key of a TLS Secret that holds the CA.
const KeyCA = "ca.crt"

// GatewayAddress knows how engineers reach the gateway: its URL was told, and its CA too or is read from the Secret with
// its certificate.
type GatewayAddress struct {
	// Told is what the installation gave.
	Told Cluster
	// TLSSecret is the Secret in the operator's namespace that holds the gateway's certificate and its CA.
	TLSSecret string
	// Live reads it.
	Live client.Reader
	// Clock says when it is to be read again.
	Clock clock.PassiveClock

	mu    sync.Mutex
	found []byte
	at    time.Time
}

// Cluster returns the address and the CA, or an error that says what is missing. Without a CA and without a Secret the
// gateway is known by the CAs that the engineer's machine trusts.
func (a *GatewayAddress) Cluster(ctx context.Context) (Cluster, error) {
	cluster := a.Told
	switch {
	case cluster.Server == "":
		return Cluster{}, errNoGateway
	case len(cluster.CABundle) > 0 || a.TLSSecret == "":
		return cluster, nil
	}
	bundle, err := a.bundle(ctx)
	if err != nil {
		return Cluster{}, err
	}
	cluster.CABundle = bundle
	return cluster, nil
}

func (a *GatewayAddress) bundle(ctx context.Context) ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.found) > 0 && a.Clock.Since(a.at) < remembered {
		return a.found, nil
	}
	secret := &corev1.Secret{}
	if err := a.Live.Get(ctx, client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: a.TLSSecret}, secret); err != nil {
		return nil, fmt.Errorf("the gateway's certificate is not there yet: Secret %s/%s cannot be read", v1alpha1.SystemNamespace, a.TLSSecret)
	}
	if len(secret.Data[KeyCA]) == 0 {
		return nil, fmt.Errorf("the gateway's certificate is not there yet: Secret %s/%s has no %s; wait, or set gateway.caBundle",
			v1alpha1.SystemNamespace, a.TLSSecret, KeyCA)
	}
	a.found, a.at = secret.Data[KeyCA], a.Clock.Now()
	return a.found, nil
}
