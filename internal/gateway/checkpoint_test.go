package gateway

import (
	"encoding/base64"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/mod/sumdb/tlog"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/chain"
	"supportaccess.dev/operator/internal/audit/sqlite"
)

func testScheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	return scheme
}

// aLog is an audit log of so many entries after the one with its keys.
func aLog(t *testing.T, key []byte, entries int) (*audit.Ledger, *sqlite.Store) {
	t.Helper()
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "audit.db"))
	if err != nil {
		t.Fatal(err)
	}
	log, err := audit.OpenLedger(t.Context(), audit.LedgerOptions{
		Store: store, Origin: "support.cluster.example/audit", Key: key, Clock: testingclock.NewFakePassiveClock(time.Unix(1e9, 0)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	for range entries {
		if err := log.Append(t.Context(), &audit.Entry{}); err != nil {
			t.Fatal(err)
		}
	}
	return log, store
}

// handed is what was handed over, as the controller reads it.
func handed(t *testing.T, c *Checkpoints) chain.Offer {
	t.Helper()
	session := &v1alpha1.SupportAccessSession{}
	if err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: sessionName(c.Replica, "audit-log")}, session); err != nil {
		t.Fatal(err)
	}
	if session.Spec.Replica != c.Replica || session.Spec.Grant.UID != v1alpha1.GatewayItself {
		t.Errorf("it is of %+v", session.Spec)
	}
	offer := chain.Offer{Checkpoint: session.Status.Log.Checkpoint, Keys: session.Status.Log.Keys, Since: session.Status.Log.Since, Time: session.Status.RenewTime.Time}
	for _, text := range session.Status.Log.Proof {
		decoded, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		offer.Proof = append(offer.Proof, tlog.Hash(decoded))
	}
	return offer
}

// keep does what the controller does.
func keep(t *testing.T, c *Checkpoints, witness *chain.Witness, want chain.Taking) {
	t.Helper()
	if took, err := witness.Take(handed(t, c)); err != nil || took != want {
		t.Fatalf("took %v, %v, want %v", took, err, want)
	}
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: v1alpha1.CheckpointConfigMap}}
	_ = c.Client.Delete(t.Context(), config.DeepCopy())
	config.Data = witness.Data()
	if err := c.Client.Create(t.Context(), config); err != nil {
		t.Fatal(err)
	}
}

func TestTheGatewayProvesThatItsLogHasButGrown(t *testing.T) {
	key, err := chain.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	log, store := aLog(t, key, 3)
	clock := testingclock.NewFakeClock(time.Unix(1e9, 0))
	c := &Checkpoints{
		Client: fake.NewClientBuilder().WithScheme(testScheme(t)).Build(), Log: store, Replica: "gateway-1", Clock: clock, Logger: logr.Discard(),
	}
	witness := &chain.Witness{}
	if err := c.HandOver(t.Context()); err != nil {
		t.Fatal(err)
	}
	keep(t, c, witness, chain.TookAnother)
	for n := range 20 {
		clock.Step(time.Minute)
		for range n {
			if err := log.Append(t.Context(), &audit.Entry{Engineer: fmt.Sprint(n)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.HandOver(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := chain.TookNewer
		if n == 0 {
			want = chain.TookNothing
		}
		keep(t, c, witness, want)
	}
	if got := witness.Logs()[0].Size(); got != 1+3+190 {
		t.Errorf("%d entries are known", got)
	}

	// An older copy is put in its place.
	_, c.Log = aLog(t, key, 3)
	clock.Step(time.Minute)
	if err := c.HandOver(t.Context()); err == nil || !strings.Contains(err.Error(), "has 4 entries, and 194 are known of it") {
		t.Errorf("the gateway says %v", err)
	}
	if _, err := witness.Take(handed(t, c)); err == nil || !strings.Contains(err.Error(), chain.RefusedRolledBack) {
		t.Errorf("the controller says %v", err)
	}
}

func TestALogThatHasNothingNewIsNotHandedOverAgain(t *testing.T) {
	key, err := chain.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	_, store := aLog(t, key, 3)
	clock := testingclock.NewFakeClock(time.Unix(1e9, 0))
	c := &Checkpoints{
		Client: fake.NewClientBuilder().WithScheme(testScheme(t)).Build(), Log: store, Replica: "gateway-1", Clock: clock, Logger: logr.Discard(),
	}
	if err := c.HandOver(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := handed(t, c).Time
	keep(t, c, &chain.Witness{}, chain.TookAnother)
	clock.Step(time.Minute)
	if err := c.HandOver(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again := handed(t, c).Time; !again.Equal(first) {
		t.Errorf("it was handed over at %s and again at %s", first, again)
	}
	// Nobody has kept it: then it is.
	if err := c.Client.DeleteAllOf(t.Context(), &corev1.ConfigMap{}, client.InNamespace(v1alpha1.SystemNamespace)); err != nil {
		t.Fatal(err)
	}
	if err := c.HandOver(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again := handed(t, c).Time; !again.After(first) {
		t.Errorf("it was handed over at %s, and not again", first)
	}
}
