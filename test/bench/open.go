package main

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

var roles = []string{"support-access-configuration", "support-access-diagnostics"}

// openAndRevoke measures one grant at a time, in turn with a bare client that does the least that would do.
func (b *bench) openAndRevoke(ctx context.Context, o options) error {
	say("\nOne grant at a time, %d rounds", o.rounds)
	var opened, openedFloor, revoked, revokedFloor sample
	for round := range o.rounds {
		open, revoke, err := b.grantOnce(ctx, fmt.Sprintf("open-%d", round))
		if err != nil {
			return err
		}
		floorOpen, floorRevoke, err := b.bareOnce(ctx, fmt.Sprintf("bare-%d", round))
		if err != nil {
			return err
		}
		opened, revoked = append(opened, open), append(revoked, revoke)
		openedFloor, revokedFloor = append(openedFloor, floorOpen), append(revokedFloor, floorRevoke)
	}
	compare("grant applied -> credential works", opened, openedFloor, "bar: 2")
	compare("revoke applied -> next request refused", revoked, revokedFloor, "bar: 2")
	return b.countWrites(ctx)
}

// grantOnce applies a grant, waits until its credential works, deletes it and waits until it does not.
func (b *bench) grantOnce(ctx context.Context, name string) (open, revoke time.Duration, err error) {
	grants := &v1alpha1.SupportAccessGrantList{}
	watch, err := b.tess.Watch(ctx, grants, client.InNamespace(tenant), client.MatchingFields{"metadata.name": name})
	if err != nil {
		return 0, 0, fmt.Errorf("watch grant %s: %w", name, err)
	}
	defer watch.Stop()
	grant := newGrant(name, "1h")
	started := time.Now()
	if err := b.tess.Create(ctx, grant); err != nil {
		return 0, 0, fmt.Errorf("apply grant %s: %w", name, err)
	}
	var ref *v1alpha1.SecretKeyReference
	for event := range watch.ResultChan() {
		if g, ok := event.Object.(*v1alpha1.SupportAccessGrant); ok && len(g.Status.Engineers) > 0 {
			ref = g.Status.Engineers[0].CredentialSecretRef
			break
		}
	}
	secret := &corev1.Secret{}
	if err := b.tess.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, secret); err != nil {
		return 0, 0, fmt.Errorf("fetch the credential: %w", err)
	}
	engineer, err := b.clientOf(secret.Data[ref.Key])
	if err != nil {
		return 0, 0, err
	}
	if err := b.until(ctx, "the credential works", func(ctx context.Context) (bool, error) { return probe(ctx, engineer) }); err != nil {
		return 0, 0, err
	}
	open = time.Since(started)
	started = time.Now()
	if err := b.tess.Delete(ctx, grant); err != nil {
		return 0, 0, fmt.Errorf("revoke grant %s: %w", name, err)
	}
	err = b.until(ctx, "the request is refused", func(ctx context.Context) (bool, error) {
		allowed, err := probe(ctx, engineer)
		return !allowed, err
	})
	return open, time.Since(started), err
}

// bareOnce gives and takes the same access with the least requests: a ServiceAccount, a Secret that the token is bound
// to, the token, the Secret filled with it, a binding for each role.
func (b *bench) bareOnce(ctx context.Context, name string) (open, revoke time.Duration, err error) {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: name}}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: name}}
	seconds := int64(3600)
	started := time.Now()
	for _, object := range []client.Object{account, secret} {
		if err := b.admin.Create(ctx, object); err != nil {
			return 0, 0, fmt.Errorf("create %T: %w", object, err)
		}
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &seconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Secret", Name: secret.Name, UID: secret.UID},
	}}
	if err := b.admin.SubResource("token").Create(ctx, account, request); err != nil {
		return 0, 0, fmt.Errorf("ask for a token: %w", err)
	}
	secret.StringData = map[string]string{"token": request.Status.Token}
	if err := b.admin.Update(ctx, secret); err != nil {
		return 0, 0, fmt.Errorf("fill the secret: %w", err)
	}
	bindings := make([]*rbacv1.RoleBinding, 0, len(roles))
	for _, role := range roles {
		binding := bareBinding(name, role)
		if err := b.admin.Create(ctx, binding); err != nil {
			return 0, 0, fmt.Errorf("bind: %w", err)
		}
		bindings = append(bindings, binding)
	}
	engineer, err := b.clientWith(request.Status.Token)
	if err != nil {
		return 0, 0, err
	}
	if err := b.until(ctx, "the token works", func(ctx context.Context) (bool, error) { return probe(ctx, engineer) }); err != nil {
		return 0, 0, err
	}
	open = time.Since(started)
	started = time.Now()
	for _, binding := range bindings {
		if err := b.admin.Delete(ctx, binding); err != nil {
			return 0, 0, fmt.Errorf("unbind: %w", err)
		}
	}
	err = b.until(ctx, "the request is refused", func(ctx context.Context) (bool, error) {
		allowed, err := probe(ctx, engineer)
		return !allowed, err
	})
	return open, time.Since(started), err
}

func bareBinding(name, role string) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: name + "-" + role},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: tenant, Name: name}},
	}
}
