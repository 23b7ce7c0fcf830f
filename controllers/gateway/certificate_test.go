package gateway

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"runtime"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
)

const (
	tlsSecret = "support-access-gateway-tls"
	name      = "support-access-gateway.support-access-system.svc"
)

// epoch is an instant in whole seconds, as certificates have them.
var epoch = time.Date(2026, 12, 1, 18, 0, 0, 0, time.UTC)

// installed is a cluster with the chart's empty Secret, in which one controller makes certificates.
func installed(t *testing.T) (*Certificate, *testingclock.FakeClock) {
	t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: tlsSecret}}
	c := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(secret).Build()
	now := testingclock.NewFakeClock(epoch)
	return &Certificate{Client: c, Live: c, Clock: now, Secret: tlsSecret, ServerName: name}, now
}

// renew has the controller look, and returns what the Secret holds then.
func renew(t *testing.T, c *Certificate) map[string][]byte {
	t.Helper()
	if err := c.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	return stored(t, c)
}

func stored(t *testing.T, c *Certificate) map[string][]byte {
	t.Helper()
	secret := &corev1.Secret{}
	if err := c.Live.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: c.Secret}, secret); err != nil {
		t.Fatal(err)
	}
	return secret.Data
}

// verifies fails the test unless engineers who hold the CA take the certificate for the gateway's at an instant.
func verifies(t *testing.T, data map[string][]byte, at time.Time) {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data[access.KeyCA]) {
		t.Fatal("there is no CA")
	}
	block, _ := pem.Decode(data[corev1.TLSCertKey])
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	options := x509.VerifyOptions{Roots: pool, DNSName: name, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if _, err := certificate.Verify(options); err != nil {
		t.Errorf("at %s: %v", at, err)
	}
}

func changed(before, after map[string][]byte, key string) bool {
	return !bytes.Equal(before[key], after[key])
}

func TestAnEmptySecretGetsACertificateAndAGoodOneIsLeftAlone(t *testing.T) {
	c, now := installed(t)
	first := renew(t, c)
	verifies(t, first, epoch)
	verifies(t, first, epoch.Add(certificateLife))
	for _, at := range []time.Duration{0, lookEvery, certificateLife - ahead} {
		now.SetTime(epoch.Add(at))
		second := renew(t, c)
		for key := range first {
			if changed(first, second, key) {
				t.Errorf("after %s there is another %s", at, key)
			}
		}
	}
}

func TestTheCertificateIsRenewedAheadOfItsEndUnderTheSameCA(t *testing.T) {
	c, now := installed(t)
	first := renew(t, c)
	now.SetTime(epoch.Add(certificateLife - ahead + time.Second))
	second := renew(t, c)
	if changed(first, second, access.KeyCA) || changed(first, second, keyCAKey) {
		t.Error("there is another CA: kubeconfigs that were handed out would know the gateway no more")
	}
	if !changed(first, second, corev1.TLSCertKey) || !changed(first, second, corev1.TLSPrivateKeyKey) {
		t.Error("the certificate was not renewed")
	}
	verifies(t, second, now.Now().Add(certificateLife))
}

func TestTheCAIsRenewedAheadOfItsEndAndTheCertificateWithIt(t *testing.T) {
	c, now := installed(t)
	first := renew(t, c)
	last := epoch.Add(caLife - ahead)
	now.SetTime(last)
	kept := renew(t, c)
	if changed(first, kept, access.KeyCA) {
		t.Error("there is another CA before its time")
	}
	verifies(t, kept, epoch.Add(caLife))
	now.SetTime(last.Add(time.Second))
	second := renew(t, c)
	if !changed(kept, second, access.KeyCA) || !changed(kept, second, corev1.TLSCertKey) {
		t.Error("the CA was not renewed, or not the certificate with it")
	}
	verifies(t, second, now.Now())
}

func TestWhatIsNoCertificateOfTheGatewayIsReplaced(t *testing.T) {
	for title, spoil := range map[string]func(c *Certificate, data map[string][]byte){
		"garbage for a certificate": func(_ *Certificate, data map[string][]byte) { data[corev1.TLSCertKey] = []byte("x") },
		"no key":                    func(_ *Certificate, data map[string][]byte) { delete(data, corev1.TLSPrivateKeyKey) },
		"another's key": func(_ *Certificate, data map[string][]byte) {
			data[corev1.TLSPrivateKeyKey] = data[keyCAKey]
		},
		"no CA":       func(_ *Certificate, data map[string][]byte) { delete(data, access.KeyCA) },
		"no CA's key": func(_ *Certificate, data map[string][]byte) { delete(data, keyCAKey) },
	} {
		t.Run(title, func(t *testing.T) {
			c, now := installed(t)
			renew(t, c)
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: tlsSecret}}
			if err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(secret), secret); err != nil {
				t.Fatal(err)
			}
			spoil(c, secret.Data)
			if err := c.Client.Update(t.Context(), secret); err != nil {
				t.Fatal(err)
			}
			verifies(t, renew(t, c), now.Now())
		})
	}
	t.Run("another name", func(t *testing.T) {
		c, now := installed(t)
		c.ServerName = "gateway.example"
		renew(t, c)
		c.ServerName = name
		verifies(t, renew(t, c), now.Now())
	})
}

func TestTheCertificateIsLookedAtAtTheStartAndTwiceADay(t *testing.T) {
	c, now := installed(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	ended := make(chan error, 1)
	go func() { ended <- c.Start(ctx) }()
	waits := func() {
		t.Helper()
		for !now.HasWaiters() {
			if ctx.Err() != nil {
				t.Fatal("it does not wait")
			}
			runtime.Gosched()
		}
	}
	waits()
	first := stored(t, c)
	verifies(t, first, epoch)
	// Half a day at a time would be long; what matters is that each wake-up comes half a day after the one before.
	now.Step(certificateLife - ahead)
	waits()
	if changed(first, stored(t, c), corev1.TLSCertKey) {
		t.Error("it was renewed too early")
	}
	now.Step(lookEvery - time.Second)
	if changed(first, stored(t, c), corev1.TLSCertKey) {
		t.Error("it was looked at before half a day was over")
	}
	now.Step(time.Second)
	for !changed(first, stored(t, c), corev1.TLSCertKey) {
		if ctx.Err() != nil {
			t.Fatal("it was not renewed half a day later")
		}
		runtime.Gosched()
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
