package gateway

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/audit/chain"
)

// counted are the reasons for which checkpoints were refused, and how many were kept.
type counted struct {
	kept    int
	refused []string
}

func (c *counted) CheckpointKept()                 { c.kept++ }
func (c *counted) CheckpointRefused(reason string) { c.refused = append(c.refused, reason) }

// keeper is a controller that keeps checkpoints, with a log that hands them over.
type keeper struct {
	t        *testing.T
	api      client.Client
	clock    *testingclock.FakePassiveClock
	recorder *events.FakeRecorder
	counted  *counted
	c        *Checkpoints
	keys     *chain.Keys
	tree     *chain.Tree
	hashes   []tlog.Hash
}

func newKeeper(t *testing.T) *keeper {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	key, err := chain.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := chain.ParseKeys("support.cluster.example/audit", key)
	if err != nil {
		t.Fatal(err)
	}
	k := &keeper{
		t: t, api: fake.NewClientBuilder().WithScheme(scheme).Build(), clock: testingclock.NewFakePassiveClock(epoch),
		recorder: events.NewFakeRecorder(10), counted: &counted{}, keys: keys, tree: &chain.Tree{},
	}
	k.c = &Checkpoints{Client: k.api, Live: k.api, Clock: k.clock, Recorder: k.recorder, Counters: k.counted}
	return k
}

func (k *keeper) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var found []tlog.Hash
	for _, i := range indexes {
		found = append(found, k.hashes[i])
	}
	return found, nil
}

// grows adds entries to the log, an hour later.
func (k *keeper) grows(by int) {
	for range by {
		k.hashes = append(k.hashes, k.tree.Append(tlog.RecordHash([]byte{byte(k.tree.Size())}))...)
	}
	k.clock.SetTime(k.clock.Now().Add(time.Hour))
}

// handsOver has the log hand its checkpoint over, with the proof from a size, and the controller look at it.
func (k *keeper) handsOver(since int64) reconcile.Result {
	k.t.Helper()
	signed, err := k.keys.Sign(chain.Checkpoint{Origin: "support.cluster.example/audit", Tree: k.tree.Head()})
	if err != nil {
		k.t.Fatal(err)
	}
	now := metav1.NewMicroTime(k.clock.Now())
	status := v1alpha1.SupportAccessSessionStatus{RenewTime: &now, Log: &v1alpha1.AuditLogHead{Checkpoint: signed, Keys: k.keys.Public, Since: since}}
	if since > 0 {
		proof, err := tlog.ProveTree(k.tree.Size(), since, k)
		if err != nil {
			k.t.Fatal(err)
		}
		for _, hash := range proof {
			status.Log.Proof = append(status.Log.Proof, base64.StdEncoding.EncodeToString(hash[:]))
		}
	}
	return k.hears(status)
}

func (k *keeper) hears(status v1alpha1.SupportAccessSessionStatus) reconcile.Result {
	k.t.Helper()
	session := &v1alpha1.SupportAccessSession{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "session-1"}}
	key := client.ObjectKeyFromObject(session)
	err := k.api.Get(k.t.Context(), key, session)
	session.Spec.Replica, session.Status = "gateway-1", status
	if apierrors.IsNotFound(err) {
		err = k.api.Create(k.t.Context(), session)
	} else if err == nil {
		err = k.api.Update(k.t.Context(), session)
	}
	if err != nil {
		k.t.Fatal(err)
	}
	result, err := k.c.Reconcile(k.t.Context(), reconcile.Request{NamespacedName: key})
	if err != nil {
		k.t.Fatal(err)
	}
	return result
}

// keeps is the number of entries of which there is a checkpoint, 0 if there is none.
func (k *keeper) keeps() int64 {
	k.t.Helper()
	config := &corev1.ConfigMap{}
	err := k.api.Get(k.t.Context(), client.ObjectKey{Namespace: "support-access-system", Name: "support-access-checkpoint"}, config)
	if apierrors.IsNotFound(err) {
		return 0
	}
	if err != nil {
		k.t.Fatal(err)
	}
	witness, err := chain.ReadWitness(config.Data)
	if err != nil || len(witness.Logs()) != 1 {
		k.t.Fatalf("kept is %+v, %v", config.Data, err)
	}
	return witness.Logs()[0].Size()
}

// told returns what people were told since they were last asked.
func (k *keeper) told() string {
	var all []string
	for {
		select {
		case one := <-k.recorder.Events:
			all = append(all, one)
		default:
			return strings.Join(all, "\n")
		}
	}
}

func TestTheNewestCheckpointIsKeptAndAnOlderLogIsTold(t *testing.T) {
	k := newKeeper(t)
	k.grows(5)
	k.handsOver(0)
	if told := k.told(); k.keeps() != 5 || !strings.Contains(told, "Normal AuditLogBegan") {
		t.Fatalf("%d are kept, people were told %q", k.keeps(), told)
	}
	k.grows(3)
	k.handsOver(5)
	if told := k.told(); k.keeps() != 8 || told != "" || k.counted.kept != 2 || len(k.counted.refused) > 0 {
		t.Fatalf("%d are kept, people were told %q; %+v", k.keeps(), told, k.counted)
	}
	// Somebody puts an older copy in its place.
	k.tree, k.hashes = &chain.Tree{}, nil
	k.grows(6)
	for range 3 {
		k.handsOver(0)
	}
	told := k.told()
	if k.keeps() != 8 || strings.Count(told, "Warning CheckpointRefused") != 1 || !strings.Contains(told, "gateway-1 is not what it was: RolledBack: the log has 6 entries, and had 8") {
		t.Errorf("%d are kept, people were told %q", k.keeps(), told)
	}
	if !slices.Equal(k.counted.refused, []string{chain.RefusedRolledBack, chain.RefusedRolledBack, chain.RefusedRolledBack}) {
		t.Errorf("counted %v", k.counted.refused)
	}
}

func TestACheckpointWithoutProofIsToldOnceItHasHadTimeToCome(t *testing.T) {
	k := newKeeper(t)
	k.grows(5)
	k.handsOver(0)
	_ = k.told()
	k.grows(3)
	if again := k.handsOver(0); again.RequeueAfter != time.Minute || k.told() != "" || len(k.counted.refused) > 0 {
		t.Errorf("at once: again after %s, counted %v", again.RequeueAfter, k.counted.refused)
	}
	k.clock.SetTime(k.clock.Now().Add(time.Minute))
	k.handsOver(0)
	if told := k.told(); k.keeps() != 5 || !strings.Contains(told, "Warning CheckpointRefused") || !strings.Contains(told, "Unproven") {
		t.Errorf("a minute later: %d are kept, people were told %q", k.keeps(), told)
	}
	k.handsOver(5)
	if told := k.told(); k.keeps() != 8 || told != "" {
		t.Errorf("with proof: %d are kept, people were told %q", k.keeps(), told)
	}
}

func TestWhatIsNoProofOrNoLogChangesNothing(t *testing.T) {
	k := newKeeper(t)
	k.hears(v1alpha1.SupportAccessSessionStatus{})
	if k.keeps() != 0 || k.told() != "" {
		t.Error("a session that says nothing of a log")
	}
	k.grows(5)
	k.handsOver(0)
	_ = k.told()
	k.hears(v1alpha1.SupportAccessSessionStatus{Log: &v1alpha1.AuditLogHead{Checkpoint: "x", Proof: []string{"%"}}})
	if told := k.told(); k.keeps() != 5 || !strings.Contains(told, "Malformed: proof[0] is no hash") {
		t.Errorf("%d are kept, people were told %q", k.keeps(), told)
	}
}
