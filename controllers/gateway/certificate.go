// Package gateway keeps what the gateway needs and must not write itself: as whom it may act, and its certificate. It
// decides nothing about grants.
package gateway

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"time"

	"github.com/open-policy-agent/cert-controller/pkg/rotator"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
)

// keyCAKey is the key of the TLS Secret that holds the CA's private key.
const keyCAKey = "ca.key"

const (
	// caLife and certificateLife are for how long the CA and the certificate are good.
	caLife          = 10 * 365 * 24 * time.Hour
	certificateLife = 365 * 24 * time.Hour
	// ahead is how long before its end either is made anew.
	ahead = 90 * 24 * time.Hour
	// skew is by how much the clocks of engineers may lag behind.
	skew = time.Hour
	// lookEvery is how often it is looked at, and lookAgain how soon after a failure.
	lookEvery = 12 * time.Hour
	lookAgain = 10 * time.Second
)

// Certificate makes the certificate by which engineers know the gateway, and renews it.
type Certificate struct {
	// Client writes the Secret.
	Client client.Client
	// Live reads it: it is in no cache.
	Live client.Reader
	// Clock says when it is to be renewed.
	Clock clock.Clock
	// Secret is its name, in the operator's namespace. It exists already: the controller makes no Secrets there.
	Secret string
	// ServerName is the name that the certificate bears.
	ServerName string
}

// NeedLeaderElection says that one process alone makes certificates.
func (c *Certificate) NeedLeaderElection() bool { return true }

// Start looks at the certificate now and from time to time, until the context ends.
func (c *Certificate) Start(ctx context.Context) error {
	for {
		wait := lookEvery
		if err := c.Renew(ctx); err != nil {
			log.FromContext(ctx).Error(err, "The gateway's certificate could not be made")
			wait = lookAgain
		}
		timer := c.Clock.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C():
		}
	}
}

// Renew makes the certificate if there is none that is good for long enough.
func (c *Certificate) Renew(ctx context.Context) error {
	secret := &corev1.Secret{}
	if err := c.Live.Get(ctx, client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: c.Secret}, secret); err != nil {
		return fmt.Errorf("get Secret %s: %w", c.Secret, err)
	}
	renewed, err := renewal(secret.Data, c.ServerName, c.Clock.Now())
	if err != nil || renewed == nil {
		return err
	}
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	maps.Copy(secret.Data, renewed)
	if err := c.Client.Update(ctx, secret); err != nil {
		return fmt.Errorf("store the gateway's certificate in Secret %s: %w", c.Secret, err)
	}
	log.FromContext(ctx).Info("The gateway's certificate was made", "name", c.ServerName)
	return nil
}

// renewal returns what is to replace a certificate and, where that is spent too, its CA; nil if both are good for long
// enough.
func renewal(have map[string][]byte, name string, now time.Time) (map[string][]byte, error) {
	ca, made, err := authority(have, now)
	if err != nil {
		return nil, err
	}
	if !made && good(have[access.KeyCA], have[corev1.TLSCertKey], have[corev1.TLSPrivateKeyKey], name, now) {
		return nil, nil
	}
	end := now.Add(certificateLife)
	if ca.Cert.NotAfter.Before(end) {
		end = ca.Cert.NotAfter
	}
	cert, key, err := maker(name).CreateCertPEM(ca, now.Add(-skew), end)
	if err != nil {
		return nil, fmt.Errorf("make the gateway's certificate: %w", err)
	}
	return map[string][]byte{
		access.KeyCA: ca.CertPEM, keyCAKey: ca.KeyPEM, corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key,
	}, nil
}

// authority returns the CA that is there, or another where it is spent: engineers know the gateway by it, so it is kept for
// as long as it can be.
func authority(have map[string][]byte, now time.Time) (ca *rotator.KeyPairArtifacts, made bool, err error) {
	if good(have[access.KeyCA], have[access.KeyCA], have[keyCAKey], authorityName, now) {
		pair, err := tls.X509KeyPair(have[access.KeyCA], have[keyCAKey])
		if err != nil {
			return nil, false, fmt.Errorf("read the gateway's CA: %w", err)
		}
		if key, ok := pair.PrivateKey.(*rsa.PrivateKey); ok {
			return &rotator.KeyPairArtifacts{Cert: pair.Leaf, Key: key, CertPEM: have[access.KeyCA], KeyPEM: have[keyCAKey]}, false, nil
		}
	}
	ca, err = maker("").CreateCACert(now.Add(-skew), now.Add(caLife))
	if err != nil {
		return nil, false, fmt.Errorf("make the gateway's CA: %w", err)
	}
	return ca, true, nil
}

// authorityName is the name that the CA bears.
const authorityName = "support-access-gateway-ca"

func maker(name string) *rotator.CertRotator {
	return &rotator.CertRotator{
		DNSName: name, CAName: authorityName, CAOrganization: v1alpha1.GroupVersion.Group,
		ExtKeyUsages: &[]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
}

// good reports whether a certificate is good now and will be for long enough.
func good(ca, cert, key []byte, name string, now time.Time) bool {
	usages := &[]x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	for _, at := range []time.Time{now, now.Add(ahead)} {
		if ok, err := rotator.ValidCert(ca, cert, key, name, usages, at); err != nil || !ok {
			return false
		}
	}
	return true
}
