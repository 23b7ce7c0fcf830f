package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
)

// Certificate is the serving certificate in a folder. It may come later than the gateway, and it may change at any time.
type Certificate struct {
	// Dir holds tls.crt and tls.key.
	Dir string
	// Clock says when to look again.
	Clock clock.WithTicker

	watcher atomic.Pointer[certwatcher.CertWatcher]
}

var errNoCertificate = errors.New("the gateway has no serving certificate yet")

// lookAgain is how often a certificate is looked for that is not there yet.
const lookAgain = time.Second

// Get returns the certificate as it is now.
func (c *Certificate) Get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	watcher := c.watcher.Load()
	if watcher == nil {
		return nil, errNoCertificate
	}
	return watcher.GetCertificate(hello)
}

// Key returns the certificate's key as it lies in the folder, nothing while there is none.
func (c *Certificate) Key() []byte {
	key, err := os.ReadFile(filepath.Join(c.Dir, corev1.TLSPrivateKeyKey))
	if err != nil {
		return nil
	}
	return key
}

// Ready fails while there is no certificate.
func (c *Certificate) Ready(*http.Request) error {
	if c.watcher.Load() == nil {
		return errNoCertificate
	}
	return nil
}

// NeedLeaderElection says that every replica has one.
func (c *Certificate) NeedLeaderElection() bool { return false }

// Start waits for the certificate and reads it again whenever it changes.
func (c *Certificate) Start(ctx context.Context) error {
	ticker := c.Clock.NewTicker(lookAgain)
	defer ticker.Stop()
	for {
		watcher, err := certwatcher.New(filepath.Join(c.Dir, corev1.TLSCertKey), filepath.Join(c.Dir, corev1.TLSPrivateKeyKey))
		if err == nil {
			c.watcher.Store(watcher)
			return watcher.Start(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
		}
	}
}
