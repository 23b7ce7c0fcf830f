package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
)

var roles = []string{"support-access-configuration", "support-access-diagnostics"}

// openAndRevoke measures one grant at a time, in turn with a bare client that does the least that would do.
func (b *bench) openAndRevoke(ctx context.Context, o options) error {
	say("\nOne grant at a time, %d rounds", o.rounds)
	var works, told, worksFloor, revoked, revokedFloor sample
	for round := range o.rounds {
		g, err := b.openGrant(ctx, fmt.Sprintf("open-%d", round))
		if err != nil {
			return err
		}
		revoke, err := b.revokeGrant(ctx, g)
		if err != nil {
			return err
		}
		floorOpen, floorRevoke, err := b.bareOnce(ctx, fmt.Sprintf("bare-%d", round))
		if err != nil {
			return err
		}
		works, told, revoked = append(works, g.works), append(told, g.told), append(revoked, revoke)
		worksFloor, revokedFloor = append(worksFloor, floorOpen), append(revokedFloor, floorRevoke)
	}
	compare("grant applied -> credential works", works, worksFloor, "bar: 2")
	compare("grant applied -> status says where it is", told, worksFloor, "no bar")
	compare("revoke applied -> next request refused", revoked, revokedFloor, "bar: 2")
	return b.countWrites(ctx)
}

// opened is a grant that is open: after how long its credential worked, and after how long its status said so.
type opened struct {
	grant       *v1alpha1.SupportAccessGrant
	engineer    client.Client
	works, told time.Duration
}

// openGrant applies a grant and waits until its credential works: the granter fetches it as soon as it is there.
func (b *bench) openGrant(ctx context.Context, name string) (*opened, error) {
	return b.open(ctx, name, func(grant *v1alpha1.SupportAccessGrant, _ watch.Interface) (time.Time, error) {
		started := time.Now()
		return started, b.tess.Create(ctx, grant)
	})
}

// open waits until the credential of a grant works, from when begin says. It is handed a watch of the grant.
func (b *bench) open(ctx context.Context, name string, begin func(*v1alpha1.SupportAccessGrant, watch.Interface) (time.Time, error)) (*opened, error) {
	grants, err := b.tess.Watch(ctx, &v1alpha1.SupportAccessGrantList{}, client.InNamespace(tenant), client.MatchingFields{"metadata.name": name})
	if err != nil {
		return nil, fmt.Errorf("watch grant %s: %w", name, err)
	}
	defer grants.Stop()
	secrets, err := b.admin.Watch(ctx, &corev1.SecretList{}, client.InNamespace(v1alpha1.CredentialsNamespace), client.MatchingLabels{v1alpha1.LabelGrant: name})
	if err != nil {
		return nil, fmt.Errorf("watch the credential of %s: %w", name, err)
	}
	defer secrets.Stop()
	g := &opened{grant: newGrant(name, "1h")}
	started, err := begin(g.grant, grants)
	if err != nil {
		return nil, fmt.Errorf("apply grant %s: %w", name, err)
	}
	telling := make(chan time.Duration, 1)
	go func() {
		told, _ := first(grants, func(grant *v1alpha1.SupportAccessGrant) bool { return len(grant.Status.Engineers) > 0 })
		if told != nil {
			telling <- time.Since(started)
		}
	}()
	filled, err := first(secrets, func(secret *corev1.Secret) bool { return len(secret.Data) > 0 })
	if err != nil {
		return nil, fmt.Errorf("wait for the credential of %s: %w", name, err)
	}
	if g.engineer, err = b.fetch(ctx, client.ObjectKeyFromObject(filled)); err != nil {
		return nil, err
	}
	if err := b.until(ctx, "the credential works", func(ctx context.Context) (bool, error) { return probe(ctx, g.engineer) }); err != nil {
		return nil, err
	}
	g.works = time.Since(started)
	select {
	case g.told = <-telling:
		return g, nil
	case <-time.After(patience):
		return nil, fmt.Errorf("the status of grant %s never said where the credential is", name)
	}
}

// fetch returns a client with the credential, which the granter fetches with the right that the operator gives.
func (b *bench) fetch(ctx context.Context, key client.ObjectKey) (client.Client, error) {
	secret := &corev1.Secret{}
	if err := b.until(ctx, "the granter may fetch the credential", func(ctx context.Context) (bool, error) {
		err := b.tess.Get(ctx, key, secret)
		if apierrors.IsForbidden(err) {
			return false, nil
		}
		return err == nil, err
	}); err != nil {
		return nil, err
	}
	return b.clientOf(secret.Data[access.KeyKubeconfig])
}

// first returns the first object of a watch that is as wanted.
func first[T client.Object](events watch.Interface, wanted func(T) bool) (found T, err error) {
	timeout := time.After(patience)
	for {
		select {
		case event, open := <-events.ResultChan():
			if !open {
				return found, errors.New("the watch ended")
			}
			if o, ok := event.Object.(T); ok && wanted(o) {
				return o, nil
			}
		case <-timeout:
			return found, fmt.Errorf("not within %s", patience)
		}
	}
}

// revokeGrant deletes an open grant and waits until its credential is refused.
func (b *bench) revokeGrant(ctx context.Context, g *opened) (time.Duration, error) {
	started := time.Now()
	if err := b.tess.Delete(ctx, g.grant); err != nil {
		return 0, fmt.Errorf("revoke grant %s: %w", g.grant.Name, err)
	}
	err := b.until(ctx, "the request is refused", func(ctx context.Context) (bool, error) {
		allowed, err := probe(ctx, g.engineer)
		return !allowed, err
	})
	return time.Since(started), err
}

// bareOnce gives and takes the same access with the least requests: a ServiceAccount, a Secret that the token is bound
// to, the token, the Secret filled with it, a binding for each role.
func (b *bench) bareOnce(ctx context.Context, name string) (open, revoke time.Duration, err error) {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: name}}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: name}}
	seconds := int64(3600)
	started := time.Now()
	for _, object := range []client.Object{account, secret} {
		if err := b.bare.Create(ctx, object); err != nil {
			return 0, 0, fmt.Errorf("create %T: %w", object, err)
		}
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &seconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Secret", Name: secret.Name, UID: secret.UID},
	}}
	if err := b.bare.SubResource("token").Create(ctx, account, request); err != nil {
		return 0, 0, fmt.Errorf("ask for a token: %w", err)
	}
	secret.StringData = map[string]string{"token": request.Status.Token}
	if err := b.bare.Update(ctx, secret); err != nil {
		return 0, 0, fmt.Errorf("fill the secret: %w", err)
	}
	bindings := make([]*rbacv1.RoleBinding, 0, len(roles))
	for _, role := range roles {
		binding := bareBinding(name, role)
		if err := b.bare.Create(ctx, binding); err != nil {
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
		if err := b.bare.Delete(ctx, binding); err != nil {
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
		ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: name + "-" + role, Labels: map[string]string{v1alpha1.LabelGrant: name}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: tenant, Name: name}},
	}
}
