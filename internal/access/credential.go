package access

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// Annotations of a credential Secret: from when until when its token lives. They are read from metadata, so that no
// cache of ours ever holds a token.
const (
	AnnotationIssued     = "supportaccess.dev/credential-issued"
	AnnotationExpiration = "supportaccess.dev/credential-expiration"
)

const (
	// minLifetime is the shortest that the API server issues a token for.
	minLifetime = 10 * time.Minute
	// leeway is how long a token outlives its expiry: 60 s that the API server allows for clocks, and 10 s of its cache.
	leeway = 70 * time.Second
	// tolerance is by how much an issued lifetime may differ from the one asked for before it counts as another.
	tolerance = time.Minute
	// extendedLifetime is a lifetime that kube-apiserver silently turns into a year, for clients that never renew.
	extendedLifetime = 3607 * time.Second
)

// Credential is where an engineer's credential is, and until when it lives.
type Credential struct {
	// Engineer is the person.
	Engineer string
	// Username is who the API server takes the person for.
	Username string
	// SecretName is the Secret that holds the kubeconfig, empty where it is handed over encrypted.
	SecretName string
	// Encrypted is the kubeconfig encrypted to the engineer's public key, if one was given.
	Encrypted string
	// Hash is the hash of the credential, with the transport Gateway.
	Hash string
	// Expiration is when the credential dies of itself.
	Expiration time.Time
}

// Lifetime returns for how long to ask for a token: until a little before the end, as the token outlives what it says;
// never less than the API server's minimum.
func Lifetime(expiration, now time.Time) time.Duration {
	lifetime := (expiration.Sub(now) - leeway).Truncate(time.Second)
	if lifetime < minLifetime {
		return minLifetime
	}
	if lifetime == extendedLifetime {
		return lifetime - time.Second
	}
	return lifetime
}

// Renewal is what is to become of a credential.
type Renewal struct {
	// Reissue says that it is to be replaced now: it would outlive a grant that was shortened.
	Reissue bool
	// Renew says that a new one is to be made now beside it: it dies before the grant ends.
	Renew bool
	// Untold says that it is as it should be, but nobody has yet been told where it is.
	Untold bool
	// Next is when to look again, zero for never.
	Next time.Time
}

// RenewalOf decides what is to become of a credential that lives from issued until dies, for a grant that ends at
// expiration.
func RenewalOf(issued, dies, expiration, now time.Time) Renewal {
	wanted := now.Add(Lifetime(expiration, now))
	if dies.After(wanted.Add(tolerance)) {
		return Renewal{Reissue: true}
	}
	if !dies.Before(expiration.Add(-leeway - tolerance)) {
		return Renewal{}
	}
	due := issued.Add(dies.Sub(issued) * 4 / 5)
	if now.Before(due) {
		return Renewal{Next: due}
	}
	return Renewal{Renew: true}
}

// CredentialTimes returns from when until when a credential Secret's token lives; ok is false while it holds none.
func CredentialTimes(secret metav1.Object) (issued, dies time.Time, ok bool) {
	issued, err := time.Parse(time.RFC3339, secret.GetAnnotations()[AnnotationIssued])
	if err != nil {
		return time.Time{}, time.Time{}, false
	}
	dies, err = time.Parse(time.RFC3339, secret.GetAnnotations()[AnnotationExpiration])
	return issued, dies, err == nil
}

// CheckPublicKey says what is wrong with a public key, nil if it can be encrypted to.
func CheckPublicKey(key string) error {
	_, err := recipientOf(key)
	return err
}

func recipientOf(key string) (age.Recipient, error) {
	if strings.HasPrefix(key, "ssh-ed25519 ") {
		recipient, err := agessh.ParseRecipient(key)
		if err != nil {
			return nil, fmt.Errorf("parse ssh-ed25519 public key: %w", err)
		}
		return recipient, nil
	}
	recipient, err := age.ParseX25519Recipient(key)
	if err != nil {
		return nil, fmt.Errorf("parse age recipient: %w", err)
	}
	return recipient, nil
}

// issue makes the identity and the credential of one engineer.
func (k Keeper) issue(ctx context.Context, order Order, engineer v1alpha1.Engineer, until Until) (Credential, error) {
	if err := until.check(k.Clock.Now()); err != nil {
		return Credential{}, err
	}
	secret := credential(order, engineer.Name)
	var err error
	if order.Transport == v1alpha1.TransportGateway {
		err = k.ensureOpaque(ctx, order, engineer, secret)
	} else {
		err = k.ensureCredential(ctx, order, engineer, identity(order, engineer.Name), secret)
	}
	if err != nil {
		return Credential{}, err
	}
	return credentialOf(order, engineer, secret), nil
}

// ensureCredential makes the identity and the Secret of one engineer, and fills the Secret if no earlier pass did.
func (k Keeper) ensureCredential(ctx context.Context, order Order, engineer v1alpha1.Engineer, account *corev1.ServiceAccount, secret *corev1.Secret) error {
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error { return k.ensure(groupCtx, account, order) })
	group.Go(func() error { return k.ensure(groupCtx, secret, order) })
	if err := group.Wait(); err != nil {
		return err
	}
	if _, _, filled := CredentialTimes(secret); filled {
		return nil
	}
	return k.fill(ctx, order, engineer, account, secret)
}

// ensureReader makes the binding by which a credential may be fetched, and then its Role: the controller holds bind on the
// Roles of the credentials namespace, so the API server need not look the Role up. Of the two only bindings are watched, so
// the binding is there for as long as the Role is: what a crash leaves is seen. The Role belongs to the binding, so that the
// cluster itself collects the one that a stalled process makes after all is over.
func (k Keeper) ensureReader(ctx context.Context, order Order, engineer string, until Until) error {
	if err := until.check(k.Clock.Now()); err != nil {
		return err
	}
	role, binding := reader(order, engineer)
	wanted, subjects := role.Rules, binding.Subjects
	err := k.ensure(ctx, binding, order)
	if err == nil && !equality.Semantic.DeepEqual(binding.Subjects, subjects) {
		binding.Subjects = subjects
		err = k.Client.Update(ctx, binding)
	}
	if err != nil {
		return fmt.Errorf("let the credential of %q be fetched: %w", engineer, err)
	}
	role.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "RoleBinding", Name: binding.Name, UID: binding.UID,
	}}
	if err := k.ensure(ctx, role, order); err != nil {
		return fmt.Errorf("let the credential of %q be fetched: %w", engineer, err)
	}
	if !equality.Semantic.DeepEqual(role.Rules, wanted) {
		return &NameTakenError{Kind: "Role", Namespace: role.Namespace, Name: role.Name}
	}
	return nil
}

// Find returns the credential that an earlier pass made for an engineer.
func (k Keeper) Find(ctx context.Context, order Order, engineer v1alpha1.Engineer) (Credential, error) {
	secret := credential(order, engineer.Name)
	if err := k.Live.Get(ctx, client.ObjectKeyFromObject(secret), secret); err != nil {
		return Credential{}, fmt.Errorf("get credential of %q: %w", engineer.Name, err)
	}
	return credentialOf(order, engineer, secret), nil
}

// Renew gives an engineer's credential a new token; the old one lives on until it dies of itself.
func (k Keeper) Renew(ctx context.Context, order Order, engineer v1alpha1.Engineer, until Until) (Credential, error) {
	if err := until.check(k.Clock.Now()); err != nil {
		return Credential{}, err
	}
	account, secret := identity(order, engineer.Name), credential(order, engineer.Name)
	if err := k.Live.Get(ctx, client.ObjectKeyFromObject(secret), secret); err != nil {
		return Credential{}, fmt.Errorf("get credential of %q: %w", engineer.Name, err)
	}
	if err := k.fill(ctx, order, engineer, account, secret); err != nil {
		return Credential{}, err
	}
	return credentialOf(order, engineer, secret), nil
}

// Reissue replaces an engineer's credential: the Secret is deleted, and with it every token that was bound to it.
func (k Keeper) Reissue(ctx context.Context, order Order, engineer v1alpha1.Engineer, until Until) (Credential, error) {
	if err := until.check(k.Clock.Now()); err != nil {
		return Credential{}, err
	}
	secret := credential(order, engineer.Name)
	err := k.Live.Get(ctx, client.ObjectKeyFromObject(secret), secret)
	if err == nil {
		// Another leader may have replaced it by now: that one stays.
		uid := secret.UID
		err = k.Client.Delete(ctx, secret, client.Preconditions{UID: &uid})
	}
	if client.IgnoreNotFound(err) != nil {
		return Credential{}, fmt.Errorf("delete credential of %q: %w", engineer.Name, err)
	}
	if err := k.ensureReader(ctx, order, engineer.Name, until); err != nil {
		return Credential{}, err
	}
	return k.issue(ctx, order, engineer, until)
}

// fill asks for a token bound to the Secret and writes the kubeconfig into it, encrypted where a public key is given.
func (k Keeper) fill(ctx context.Context, order Order, engineer v1alpha1.Engineer, account *corev1.ServiceAccount, secret *corev1.Secret) error {
	now := k.Clock.Now()
	status, err := k.token(ctx, account, secret, Lifetime(order.Expiration, now))
	if err != nil {
		return fmt.Errorf("ask for a token for %q: %w", engineer.Name, err)
	}
	if dies := status.ExpirationTimestamp.Time; dies.After(now.Add(Lifetime(order.Expiration, now) + tolerance)) {
		return fmt.Errorf("ask for a token for %q: the API server gave one until %s, longer than the grant", engineer.Name, dies.UTC().Format(time.RFC3339))
	}
	if secret.Data, err = sealed(order, engineer, status.Token); err != nil {
		return err
	}
	secret.Annotations[AnnotationIssued] = now.UTC().Format(time.RFC3339)
	secret.Annotations[AnnotationExpiration] = status.ExpirationTimestamp.UTC().Format(time.RFC3339)
	if err := k.Client.Update(ctx, secret); err != nil {
		return fmt.Errorf("store the kubeconfig of %q: %w", engineer.Name, err)
	}
	return nil
}

func (k Keeper) token(ctx context.Context, account *corev1.ServiceAccount, secret *corev1.Secret, lifetime time.Duration) (authenticationv1.TokenRequestStatus, error) {
	seconds := int64(lifetime / time.Second)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &seconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Secret", Name: secret.Name, UID: secret.UID},
	}}
	if err := k.Client.SubResource("token").Create(ctx, account, request); err != nil {
		return authenticationv1.TokenRequestStatus{}, err
	}
	return request.Status, nil
}

// sealed returns what a credential Secret holds: the kubeconfig, encrypted where a public key is given.
func sealed(order Order, engineer v1alpha1.Engineer, token string) (map[string][]byte, error) {
	plain, err := kubeconfig(order, engineer.Name, token)
	if err != nil {
		return nil, err
	}
	if engineer.PublicKey == "" {
		return map[string][]byte{KeyKubeconfig: plain}, nil
	}
	encrypted, err := encrypt(engineer.PublicKey, plain)
	if err != nil {
		return nil, fmt.Errorf("encrypt the kubeconfig of %q: %w", engineer.Name, err)
	}
	return map[string][]byte{KeyEncryptedKubeconfig: encrypted}, nil
}

// encrypt returns an armored age file that only the holder of the private key can read.
func encrypt(publicKey string, plain []byte) ([]byte, error) {
	recipient, err := recipientOf(publicKey)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	armored := armor.NewWriter(&out)
	writer, err := age.Encrypt(armored, recipient)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(writer, bytes.NewReader(plain)); err != nil {
		return nil, err
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	if err := armored.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func credentialOf(order Order, engineer v1alpha1.Engineer, secret *corev1.Secret) Credential {
	_, dies, _ := CredentialTimes(secret)
	if order.Transport == v1alpha1.TransportGateway {
		dies = order.Expiration
	}
	c := Credential{
		Engineer: engineer.Name, Username: order.people().Username(engineer.Name), Expiration: dies, Hash: HashOf(secret),
	}
	if engineer.PublicKey == "" {
		c.SecretName = secret.Name
	} else {
		c.Encrypted = string(secret.Data[KeyEncryptedKubeconfig])
	}
	return c
}

// Dismantle takes away what one engineer authenticates as, by the name that its objects share: first the way to fetch the
// credential, then the credential, then the identity.
func (k Keeper) Dismantle(ctx context.Context, name string) error {
	for _, object := range identityObjects(name) {
		if err := k.Client.Delete(ctx, object); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete %T %s: %w", object, name, err)
		}
	}
	return nil
}
