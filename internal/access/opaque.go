package access

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// AnnotationHash is the hash of the credential that a Secret holds, with the transport Gateway. It is written together with
// the credential, so that none is ever handed out of which the hash is lost; and it is read from metadata.
const AnnotationHash = "supportaccess.dev/credential-hash"

// ensureOpaque makes the Secret with one engineer's credential for the gateway, whole and at once, or reads the one that an
// earlier pass made.
func (k Keeper) ensureOpaque(ctx context.Context, order Order, engineer v1alpha1.Engineer, secret *corev1.Secret) error {
	token, err := NewToken(rand.Reader)
	if err != nil {
		return fmt.Errorf("make a credential for %q: %w", engineer.Name, err)
	}
	hash, _ := TokenHash(token)
	if secret.Data, err = sealed(order, engineer, token); err != nil {
		return err
	}
	secret.Annotations[AnnotationHash] = hash
	secret.Annotations[AnnotationIssued] = k.Clock.Now().UTC().Format(time.RFC3339)
	err = k.Client.Create(ctx, secret)
	if err == nil {
		return nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("store the kubeconfig of %q: %w", engineer.Name, err)
	}
	found := &corev1.Secret{}
	if err := k.Live.Get(ctx, client.ObjectKeyFromObject(secret), found); err != nil {
		return fmt.Errorf("get credential of %q: %w", engineer.Name, err)
	}
	if found.Annotations[v1alpha1.AnnotationGrantUID] != string(order.Grant.UID) || found.Annotations[AnnotationHash] == "" {
		return &NameTakenError{Kind: "Secret", Namespace: secret.Namespace, Name: secret.Name}
	}
	*secret = *found
	return nil
}

// Replace puts another credential in the place of the one with a hash, with whose Secret it begins where that is still
// there. What an earlier pass put there it reads.
func (k Keeper) Replace(ctx context.Context, order Order, engineer v1alpha1.Engineer, hash string, until Until) (Credential, error) {
	if err := until.check(k.Clock.Now()); err != nil {
		return Credential{}, err
	}
	if order.Cluster.Server == "" {
		return Credential{}, fmt.Errorf("replace the credential of %q: the address of the gateway is not known", engineer.Name)
	}
	secret := credential(order, engineer.Name)
	err := k.Live.Get(ctx, client.ObjectKeyFromObject(secret), secret)
	if err == nil && HashOf(secret) == hash {
		uid := secret.UID
		err = k.Client.Delete(ctx, secret, client.Preconditions{UID: &uid})
	}
	if client.IgnoreNotFound(err) != nil {
		return Credential{}, fmt.Errorf("delete the replaced credential of %q: %w", engineer.Name, err)
	}
	if err := k.ensureReader(ctx, order, engineer.Name, until); err != nil {
		return Credential{}, err
	}
	return k.issue(ctx, order, engineer, until)
}

// HashOf returns the hash of the credential that a Secret of the transport Gateway holds, empty if it holds none.
func HashOf(secret metav1.Object) string { return secret.GetAnnotations()[AnnotationHash] }

// HandOver deletes the Secret in which an engineer's credential lay, and the way to it. The credential works on.
func (k Keeper) HandOver(ctx context.Context, grant v1alpha1.RecordedGrant, engineer string) error {
	if err := k.Dismantle(ctx, IdentityName(grant, engineer)); err != nil {
		return fmt.Errorf("take the credential of %q out of the cluster: %w", engineer, err)
	}
	return nil
}
