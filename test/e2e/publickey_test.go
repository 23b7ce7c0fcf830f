package e2e

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"golang.org/x/crypto/ssh"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// keyPair is an engineer's own key: what goes into the grant, and what opens what comes back.
type keyPair struct {
	public  string
	private age.Identity
}

func ageKey(t *testing.T) keyPair {
	t.Helper()
	private, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return keyPair{public: private.Recipient().String(), private: private}
}

func sshKey(t *testing.T) keyPair {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	line, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	identity, err := agessh.NewEd25519Identity(private)
	if err != nil {
		t.Fatal(err)
	}
	return keyPair{public: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(line))) + " ana@laptop", private: identity}
}

func (k keyPair) open(t *testing.T, encrypted string) []byte {
	t.Helper()
	if !strings.HasPrefix(encrypted, "-----BEGIN AGE ENCRYPTED FILE-----") {
		t.Fatalf("the status has %q", encrypted)
	}
	plain, err := age.Decrypt(armor.NewReader(strings.NewReader(encrypted)), k.private)
	if err != nil {
		t.Fatalf("decrypt the kubeconfig: %v", err)
	}
	content, err := io.ReadAll(plain)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestWithAPublicKeyTheKubeconfigIsHandedOverEncryptedAndLiesNowhereElse(t *testing.T) {
	t.Parallel()
	for name, make := range map[string]func(*testing.T) keyPair{"age": ageKey, "ssh-ed25519": sshKey} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tn, key := newTenant(t), make(t)
			g := tn.opens(t, theGrant, gen.WithDuration("4h"), gen.WithPublicKey(gen.Engineer, key.public))
			e := statusOf(t, g.is(t, v1alpha1.StateActive), gen.Engineer)
			if e.CredentialSecretRef != nil {
				t.Errorf("the status names a Secret: %v", e.CredentialSecretRef)
			}
			ana := meetEngineer(t, tn.World, e.Username, key.open(t, e.EncryptedKubeconfig))
			mayRead(t, ana, tn.namespace)
			liesNowhere(t, tn, ana.config.BearerToken)

			// A new credential is handed over the same way.
			tn.admin.decides(t, tn.namespace, "shorter", gen.Shortening(theGrant, soon(minutes)))
			before := e.EncryptedKubeconfig
			world.Eventually(t, "there is another kubeconfig", func() error {
				if e = statusOf(t, g.is(t, v1alpha1.StateActive), gen.Engineer); e.EncryptedKubeconfig == before {
					return errors.New("it is the first one")
				}
				return nil
			})
			renewed := meetEngineer(t, tn.World, e.Username, key.open(t, e.EncryptedKubeconfig))
			if renewed.config.BearerToken == ana.config.BearerToken {
				t.Error("the token is the old one")
			}
			mayRead(t, renewed, tn.namespace)
			liesNowhere(t, tn, renewed.config.BearerToken)
			g.delete(t)
			renewed.isRefusedEverywhere(t, tn.namespace)
			g.isGone(t)
			g.leavesNothing(t)
		})
	}
}

// liesNowhere fails the test if the cluster or the operator's log holds a text.
func liesNowhere(t *testing.T, tn *tenant, secret string) {
	t.Helper()
	if len(secret) < 100 {
		t.Fatalf("a token of %d characters is none", len(secret))
	}
	secrets := &corev1.SecretList{}
	if err := tn.Admin.List(t.Context(), secrets); err != nil {
		t.Fatal(err)
	}
	if len(secrets.Items) == 0 {
		t.Error("there are no Secrets to search")
	}
	for _, s := range secrets.Items {
		for key, value := range s.Data {
			if bytes.Contains(value, []byte(secret)) {
				t.Errorf("the token lies in Secret %s/%s, %s", s.Namespace, s.Name, key)
			}
		}
	}
	for _, list := range []client.ObjectList{
		&v1alpha1.SupportAccessGrantList{}, &v1alpha1.SupportAccessRecordList{}, &v1alpha1.SupportAccessDecisionList{},
		&corev1.ConfigMapList{}, &corev1.ServiceAccountList{}, &corev1.EventList{}, &eventsv1.EventList{},
	} {
		if err := tn.Admin.List(t.Context(), list); err != nil {
			t.Fatal(err)
		}
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(list)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(fmt.Sprint(content), secret) {
			t.Errorf("the token lies in a %T", list)
		}
	}
	log, err := os.ReadFile(theOperator.pod.LogPath())
	if err != nil || len(log) == 0 {
		t.Fatalf("the operator's log: %v", err)
	}
	if bytes.Contains(log, []byte(secret)) {
		t.Error("the token lies in the operator's log")
	}
}

func TestAMalformedPublicKeyIsRefusedByItsField(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	const bob = "bob@vendor.example"
	good := ageKey(t)
	for name, key := range map[string]string{
		"age with a wrong checksum": good.public[:len(good.public)-1] + "q",
		"age cut off":               "age1qqqq",
		"ssh that is no key":        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA",
		"ssh that is not base64":    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI===",
	} {
		if strings.HasSuffix(good.public, "q") && strings.HasPrefix(name, "age with") {
			key = good.public[:len(good.public)-1] + "p"
		}
		g := tn.grants(t, tn.Name("case"), gen.WithEngineers(gen.Engineer, bob), gen.WithPublicKey(gen.Engineer, good.public), gen.WithPublicKey(bob, key))
		object := g.is(t, v1alpha1.StateRefused)
		g.isKstatus(t, status.FailedStatus)
		message := isCondition(t, object, v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.StateRefused)
		if !strings.HasPrefix(message, "spec.engineers[1].publicKey: parse ") {
			t.Errorf("%s: it says %q", name, message)
		}
		g.leavesNothing(t)
	}
}
