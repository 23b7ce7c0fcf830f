package admission

import (
	"errors"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

const credentials = "support-access-credentials"

func here(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: v1alpha1.CredentialsNamespace, Name: name}
}

func pod(namespace string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "x"},
		Spec:       corev1.PodSpec{ServiceAccountName: "engineer", Containers: []corev1.Container{{Name: "x", Image: "x"}}},
	}
}

func TestTheOperatorAloneWritesCredentials(t *testing.T) {
	tokenSecret := &corev1.Secret{ObjectMeta: here("x"), Type: corev1.SecretTypeServiceAccountToken}
	tokenSecret.Annotations = map[string]string{corev1.ServiceAccountNameKey: "engineer"}
	objects := []struct {
		kind   string
		object client.Object
	}{
		{"secrets", &corev1.Secret{ObjectMeta: here("x")}},
		{"secrets", tokenSecret},
		{"serviceaccounts", &corev1.ServiceAccount{ObjectMeta: here("x")}},
		{"configmaps", &corev1.ConfigMap{ObjectMeta: here("x")}},
		{"roles.rbac.authorization.k8s.io", &rbacv1.Role{ObjectMeta: here("x")}},
		{"rolebindings.rbac.authorization.k8s.io", managed(readers("x", subjectUser("mallory")))},
		{"pods", pod(v1alpha1.CredentialsNamespace)},
	}
	for _, o := range objects {
		for _, who := range []*person{w.root, w.as(t, fluxName)} {
			refused(t, who.try(t, o.object), credentials,
				"support-access-credentials: CREATE "+o.kind+" x by "+who.name+": the operator alone writes in this namespace")
		}
		taken(t, w.controller.try(t, o.object))
	}
	taken(t, w.root.try(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: mail, Name: "x"}}))
}

// readers binds the Role of a credential to who may read it.
func readers(name string, subjects ...rbacv1.Subject) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: here(name), Subjects: subjects,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
	}
}

func TestNobodyButTheOperatorChangesCredentials(t *testing.T) {
	secret := &corev1.Secret{ObjectMeta: here("changed"), StringData: map[string]string{"kubeconfig": "x"}}
	w.controller.make(t, secret)
	account := &corev1.ServiceAccount{ObjectMeta: here("engineer")}
	const says = " by cluster-admin@local: the operator alone writes in this namespace"
	refused(t, w.root.merge(t, secret, `{"stringData":{"kubeconfig":"y"}}`), credentials, "support-access-credentials: UPDATE secrets changed"+says)
	refused(t, w.root.merge(t, account, `{"metadata":{"labels":{"a":"b"}}}`), credentials, "support-access-credentials: UPDATE serviceaccounts engineer"+says)
	taken(t, w.controller.merge(t, secret, `{"stringData":{"kubeconfig":"y"}}`))
	taken(t, w.controller.merge(t, account, `{"metadata":{"labels":{"a":"b"}}}`))
}

func TestNobodyButTheOperatorMakesTokensOfEngineers(t *testing.T) {
	for _, name := range []string{"engineer", "default"} {
		account := &corev1.ServiceAccount{ObjectMeta: here(name)}
		for _, who := range []*person{w.root, w.as(t, controllerManager), w.as(t, namespaceController)} {
			err := who.SubResource("token").Create(t.Context(), account, &authenticationv1.TokenRequest{})
			refused(t, err, credentials, "support-access-credentials: CREATE serviceaccounts/token")
		}
		taken(t, w.controller.SubResource("token").Create(t.Context(), account, &authenticationv1.TokenRequest{}))
	}
	taken(t, w.root.SubResource("token").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: mail, Name: "default"}}, &authenticationv1.TokenRequest{}))
}

func TestNobodyEntersAPodAmongCredentials(t *testing.T) {
	for _, sub := range []string{"exec", "attach", "portforward", "proxy"} {
		refused(t, w.root.connect(t, v1alpha1.CredentialsNamespace, "pods/x/"+sub), credentials,
			"support-access-credentials: CONNECT pods/"+sub+" by cluster-admin@local: the operator alone writes in this namespace")
		if err := w.root.connect(t, mail, "pods/x/"+sub); !apierrors.IsNotFound(err) {
			t.Errorf("%s of a pod that does not exist, elsewhere: %v", sub, err)
		}
	}
}

func TestWhatEveryNamespaceHasIsLetThrough(t *testing.T) {
	ctx := t.Context()
	for _, object := range []client.Object{
		&corev1.ConfigMap{ObjectMeta: here("kube-root-ca.crt")}, &corev1.ServiceAccount{ObjectMeta: here("default")},
	} {
		key := client.ObjectKeyFromObject(object)
		if err := w.root.Get(ctx, key, object); err != nil {
			t.Fatal(err)
		}
		before := object.GetUID()
		taken(t, w.root.merge(t, object, `{"metadata":{"labels":{"a":"b"}}}`))
		taken(t, w.root.Delete(ctx, object))
		err := until(ctx, "the control plane has made "+key.Name+" again", func() error {
			if err := w.root.Get(ctx, key, object); err != nil {
				return err
			}
			if object.GetUID() == before {
				return errors.New("it is the old one")
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestTheInstallationCanBeWrittenAndNothingBesideIt(t *testing.T) {
	const who = v1alpha1.ControllerServiceAccount
	quota := func(name, pods string) *corev1.ResourceQuota {
		return &corev1.ResourceQuota{ObjectMeta: here(name), Spec: corev1.ResourceQuotaSpec{
			Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse(pods)},
		}}
	}
	roleBinding := func(name, role string, subjects ...rbacv1.Subject) *rbacv1.RoleBinding {
		b := readers(name, subjects...)
		b.RoleRef.Name = role
		return b
	}
	controller := subjectAccount(v1alpha1.SystemNamespace, who)
	for what, object := range map[string]client.Object{
		"another quota":                  quota("other", "0"),
		"a quota that lets pods in":      quota("support-access-no-pods", "1"),
		"another role":                   &rbacv1.Role{ObjectMeta: here("other")},
		"another binding":                roleBinding("other", who, controller),
		"a binding of another role":      roleBinding(who, "other", controller),
		"a binding of somebody besides":  roleBinding(who, who, controller, subjectUser("mallory")),
		"a binding of another namespace": roleBinding(who, who, subjectAccount(mail, who)),
		"another kind of that name":      &corev1.Secret{ObjectMeta: here(who)},
	} {
		t.Run(what, func(t *testing.T) {
			refused(t, w.root.try(t, object), credentials, "support-access-credentials: CREATE ")
		})
	}
	ctx := t.Context()
	installed := []client.Object{quota("support-access-no-pods", "0"), &rbacv1.Role{ObjectMeta: here(who)}, roleBinding(who, who, controller)}
	for _, object := range installed {
		taken(t, w.root.Create(ctx, object))
		taken(t, w.root.merge(t, object, `{"metadata":{"labels":{"app.kubernetes.io/managed-by":"Helm"}}}`))
	}
	refused(t, w.root.merge(t, installed[2], `{"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"mallory"}]}`), credentials,
		"support-access-credentials: UPDATE rolebindings.rbac.authorization.k8s.io support-access-controller by cluster-admin@local")
	// The quota counts, which takes writes by the control plane, and then stops the controller as well.
	err := until(ctx, "the quota is counted", func() error {
		q := &corev1.ResourceQuota{}
		if err := w.root.Get(ctx, client.ObjectKeyFromObject(installed[0]), q); err != nil {
			return err
		}
		if _, counted := q.Status.Used[corev1.ResourcePods]; !counted {
			return errors.New("it is not")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := w.controller.try(t, pod(v1alpha1.CredentialsNamespace)); !apierrors.IsForbidden(err) {
		t.Errorf("the controller makes a pod among credentials: %v", err)
	}
	for _, object := range installed {
		taken(t, w.root.Delete(ctx, object))
	}
}

// TestACredentialCanBeKilledByHand: taking away is open to whoever RBAC lets, with nothing of ours running.
func TestACredentialCanBeKilledByHand(t *testing.T) {
	for _, object := range []client.Object{
		&corev1.Secret{ObjectMeta: here("leaked")}, &corev1.ServiceAccount{ObjectMeta: here("leaked")},
		managed(readers("leaked", subjectUser("ana"))),
	} {
		w.controller.make(t, object)
		if err := w.ana.Delete(t.Context(), object.DeepCopyObject().(client.Object)); !apierrors.IsForbidden(err) || isDenial(err, credentials) {
			t.Errorf("ana, whom RBAC gives nothing there, deletes: %v", err)
		}
		taken(t, w.root.Delete(t.Context(), object))
	}
}

func TestAnOwnedCredentialIsCollected(t *testing.T) {
	ctx := t.Context()
	owner := &corev1.ConfigMap{ObjectMeta: here("owner")}
	w.controller.make(t, owner)
	owned := &corev1.ConfigMap{ObjectMeta: here("owned")}
	owned.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "owner", UID: owner.UID, BlockOwnerDeletion: new(bool)}}
	w.controller.make(t, owned)
	// Foreground deletion makes the collector update the owner.
	taken(t, w.controller.Delete(ctx, owner, client.PropagationPolicy(metav1.DeletePropagationForeground)))
	err := until(ctx, "both are gone", func() error {
		for _, object := range []client.Object{owned, owner} {
			if err := w.root.Get(ctx, client.ObjectKeyFromObject(object), object); !apierrors.IsNotFound(err) {
				return errors.New(object.GetName() + " is there")
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
