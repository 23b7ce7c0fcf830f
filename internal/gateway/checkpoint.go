package gateway

import (
	"context"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/mod/sumdb/tlog"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/chain"
)

// handOverEvery is how far what is kept of the audit log may lag behind it.
const handOverEvery = 10 * time.Second

// Checkpoints hand over what the audit log says of itself, with the proof that it has but grown, to the controller, which
// keeps it where the gateway cannot write: whoever takes the gateway over cannot put another log in the place of this one.
type Checkpoints struct {
	// Client writes the session object and reads what is kept.
	Client client.Client
	// Log is the audit log.
	Log interface {
		Load(ctx context.Context) (*audit.Standing, error)
		tlog.HashReader
	}
	// Replica is the name of the gateway's pod, ReplicaUID its UID where it is known.
	Replica    string
	ReplicaUID types.UID
	// Clock says when.
	Clock clock.WithTicker
	// Logger is told once of each thing that is wrong.
	Logger logr.Logger

	wrong string
}

// SetupWithManager has them handed over by every replica.
func (c *Checkpoints) SetupWithManager(mgr ctrl.Manager) error { return mgr.Add(c) }

// NeedLeaderElection says that every replica speaks for itself.
func (c *Checkpoints) NeedLeaderElection() bool { return false }

// Start hands checkpoints over until the context ends. What fails is tried again.
func (c *Checkpoints) Start(ctx context.Context) error {
	ticker := c.Clock.NewTicker(handOverEvery)
	defer ticker.Stop()
	for {
		bounded, cancel := context.WithTimeout(ctx, acknowledgement)
		err := c.HandOver(bounded)
		cancel()
		c.tell(ctx, err)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
		}
	}
}

// tell logs what is wrong, once.
func (c *Checkpoints) tell(ctx context.Context, err error) {
	if err == nil {
		c.wrong = ""
		return
	}
	if ctx.Err() == nil && err.Error() != c.wrong {
		c.wrong = err.Error()
		c.Logger.Error(err, "What the audit log says of itself could not be handed over to be kept")
	}
}

// HandOver hands over the newest checkpoint, unless that is kept already. A log that has fewer entries than are kept of it
// is handed over, too: the controller tells of it.
func (c *Checkpoints) HandOver(ctx context.Context) error {
	// The instant before it is read: what another replica reads later has no fewer entries.
	now := metav1.NewMicroTime(c.Clock.Now())
	standing, err := c.Log.Load(ctx)
	if err != nil || standing == nil {
		return err
	}
	kept, err := c.kept(ctx, standing.Checkpoint)
	if err != nil {
		return err
	}
	if kept != nil && kept.Size() == standing.Size {
		return nil
	}
	head := &v1alpha1.AuditLogHead{Checkpoint: standing.Checkpoint, Keys: standing.Keys}
	unproven := c.prove(head, standing, kept)
	if err := c.write(ctx, v1alpha1.SupportAccessSessionStatus{RenewTime: &now, Log: head}); err != nil {
		return err
	}
	return unproven
}

// kept returns what is kept of the log, nil if nothing is.
func (c *Checkpoints) kept(ctx context.Context, checkpoint string) (*chain.Kept, error) {
	config := &corev1.ConfigMap{}
	err := c.Client.Get(ctx, client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: v1alpha1.CheckpointConfigMap}, config)
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("get ConfigMap %s: %w", v1alpha1.CheckpointConfigMap, err)
	}
	witness, err := chain.ReadWitness(config.Data)
	if err != nil {
		return nil, fmt.Errorf("read ConfigMap %s: %w", v1alpha1.CheckpointConfigMap, err)
	}
	return witness.Of(checkpoint), nil
}

// prove adds the proof that the log has but grown since what is kept of it.
func (c *Checkpoints) prove(head *v1alpha1.AuditLogHead, standing *audit.Standing, kept *chain.Kept) error {
	switch {
	case kept == nil:
		return nil
	case kept.Size() > standing.Size:
		return fmt.Errorf("the audit log has %d entries, and %d are known of it: it is an older copy, or its end was taken off", standing.Size, kept.Size())
	}
	proof, err := tlog.ProveTree(standing.Size, kept.Size(), c.Log)
	if err != nil {
		return fmt.Errorf("prove that the %d entries of the audit log begin with the %d that are known: %w", standing.Size, kept.Size(), err)
	}
	head.Since = kept.Size()
	for _, hash := range proof {
		head.Proof = append(head.Proof, base64.StdEncoding.EncodeToString(hash[:]))
	}
	return nil
}

// write says it in an object of its own, which is of no grant.
func (c *Checkpoints) write(ctx context.Context, status v1alpha1.SupportAccessSessionStatus) error {
	wanted := &v1alpha1.SupportAccessSession{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: v1alpha1.SystemNamespace, Name: sessionName(c.Replica, "audit-log"), OwnerReferences: ownerOf(c.Replica, c.ReplicaUID),
		},
		Spec: v1alpha1.SupportAccessSessionSpec{
			Grant:   v1alpha1.SessionGrant{Namespace: v1alpha1.SystemNamespace, Name: v1alpha1.GatewayServiceAccount, UID: v1alpha1.GatewayItself},
			Replica: c.Replica,
		},
		Status: status,
	}
	found := &v1alpha1.SupportAccessSession{}
	err := c.Client.Get(ctx, client.ObjectKeyFromObject(wanted), found)
	switch {
	case apierrors.IsNotFound(err):
		err = c.Client.Create(ctx, wanted)
	case err == nil:
		found.Status = status
		err = c.Client.Update(ctx, found)
	}
	if err != nil {
		return fmt.Errorf("write session %s: %w", wanted.Name, err)
	}
	return nil
}
