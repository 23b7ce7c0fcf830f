package admission

import (
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

const never = "support-access-never"

func in(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

func apiService(name string) client.Object {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiregistration.k8s.io", Version: "v1", Kind: "APIService"})
	u.SetName(name)
	_ = unstructured.SetNestedMap(u.Object, map[string]any{
		"group": "x.example", "version": "v1", "groupPriorityMinimum": int64(1), "versionPriority": int64(1),
		"service": map[string]any{"namespace": mail, "name": "x"}, "insecureSkipTLSVerify": true,
	}, "spec")
	return u
}

// TestWhatAnEngineerNeverDoes gives two engineers every right there is, and sees that admission stops them where it
// does not stop somebody else with every right.
func TestWhatAnEngineerNeverDoes(t *testing.T) {
	ctx := t.Context()
	secret := &corev1.Secret{ObjectMeta: in(mail, "there")}
	w.root.make(t, secret)
	request := &certificatesv1.CertificateSigningRequest{ObjectMeta: in("", "there"), Spec: certificatesv1.CertificateSigningRequestSpec{
		Request: w.certificateRequest(t), SignerName: certificatesv1.KubeAPIServerClientSignerName, Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth},
	}}
	w.root.make(t, request)
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: in(mail, "x"), Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
	}}
	webhook := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: in("", "x")}
	fresh := request.DeepCopy()
	fresh.ObjectMeta = in("", "x")
	approved := func(who *person) error {
		r := request.DeepCopy()
		r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "x"}}
		return who.SubResource("approval").Update(ctx, r, &client.SubResourceUpdateOptions{UpdateOptions: client.UpdateOptions{DryRun: []string{metav1.DryRunAll}}})
	}
	creates := func(object client.Object) func(*person) error {
		return func(who *person) error { return who.try(t, object) }
	}
	connects := func(namespace, path string) func(*person) error {
		return func(who *person) error { return client.IgnoreNotFound(who.connect(t, namespace, path)) }
	}
	cases := map[string]func(*person) error{
		"CREATE supportaccessgrants.supportaccess.dev":    creates(grant(mail, "x", expiring(inAnHour()))),
		"CREATE supportaccessdecisions.supportaccess.dev": creates(decision(mail)),
		"CREATE supportaccesspolicies.supportaccess.dev":  creates(policyNamed("x")),
		"UPDATE supportaccessgrants.supportaccess.dev": func(who *person) error {
			return who.merge(t, grant(shop, "held"), `{"metadata":{"labels":{"a":"b"}}}`, client.DryRunAll)
		},
		"DELETE supportaccessgrants.supportaccess.dev": func(who *person) error {
			return who.Delete(ctx, grant(shop, "held"), client.DryRunAll)
		},
		"CREATE roles.rbac.authorization.k8s.io":               creates(&rbacv1.Role{ObjectMeta: in(mail, "x")}),
		"CREATE clusterroles.rbac.authorization.k8s.io":        creates(&rbacv1.ClusterRole{ObjectMeta: in("", "x")}),
		"CREATE rolebindings.rbac.authorization.k8s.io":        creates(binding(mail, "x", "view", subjectUser("mallory"))),
		"CREATE clusterrolebindings.rbac.authorization.k8s.io": creates(binding("", "x", "view", subjectUser("mallory"))),
		"DELETE clusterroles.rbac.authorization.k8s.io": func(who *person) error {
			return who.Delete(ctx, &rbacv1.ClusterRole{ObjectMeta: in("", configuration)}, client.DryRunAll)
		},
		"CREATE certificatesigningrequests.certificates.k8s.io":               creates(fresh),
		"UPDATE certificatesigningrequests/approval.certificates.k8s.io":      approved,
		"CREATE validatingwebhookconfigurations.admissionregistration.k8s.io": creates(webhook),
		"CREATE apiservices.apiregistration.k8s.io":                           creates(apiService("v1.x.example")),
		"DELETE customresourcedefinitions.apiextensions.k8s.io": func(who *person) error {
			return who.Delete(ctx, &apiextensionsv1.CustomResourceDefinition{ObjectMeta: in("", "supportaccessgrants.supportaccess.dev")}, client.DryRunAll)
		},
		"CREATE serviceaccounts/token": func(who *person) error {
			return who.SubResource("token").Create(ctx, &corev1.ServiceAccount{ObjectMeta: in(mail, "default")}, &authenticationv1.TokenRequest{})
		},
		"CONNECT nodes/proxy":           connects("", "nodes/x/proxy"),
		"CONNECT pods/proxy":            connects(mail, "pods/x/proxy"),
		"CONNECT services/proxy":        connects(mail, "services/x/proxy"),
		"CONNECT pods/portforward":      connects(mail, "pods/x/portforward"),
		"CREATE persistentvolumeclaims": creates(claim),
	}
	for what, does := range cases {
		t.Run(what, func(t *testing.T) {
			for _, who := range []*person{w.engineer, w.visitor} {
				refused(t, does(who), never, what+": never with support access, whatever the role ("+who.name+")")
			}
			taken(t, does(w.root))
		})
	}
}

// TestAdmissionDoesNotJudgeWritesOfAdmissionPolicies holds a limit of the API server's where it can be seen: it asks no
// policy about policies. Against these stand the rules of the roles, the gateway, and the controller, which opens nothing
// while one of ours is missing.
func TestAdmissionDoesNotJudgeWritesOfAdmissionPolicies(t *testing.T) {
	taken(t, w.engineer.Delete(t.Context(), &admissionregistrationv1.ValidatingAdmissionPolicy{ObjectMeta: in("", never)}, client.DryRunAll))
	taken(t, w.engineer.try(t, &admissionregistrationv1.MutatingAdmissionPolicyBinding{
		ObjectMeta: in("", "x"), Spec: admissionregistrationv1.MutatingAdmissionPolicyBindingSpec{PolicyName: "x"},
	}))
}

func policyNamed(name string) *v1alpha1.SupportAccessPolicy {
	p := policies()[0].(*v1alpha1.SupportAccessPolicy)
	p.Name = name
	return p
}

func TestWhatAnEngineerNeverDoesToSecrets(t *testing.T) {
	const secrets = "support-access-never-secrets"
	ctx := t.Context()
	token := &corev1.Secret{ObjectMeta: in(mail, "x"), Type: corev1.SecretTypeServiceAccountToken}
	token.Annotations = map[string]string{corev1.ServiceAccountNameKey: "default"}
	plain := &corev1.Secret{ObjectMeta: in(mail, "plain")}
	w.root.make(t, plain)
	for _, who := range []*person{w.engineer, w.visitor} {
		refused(t, who.try(t, token), secrets,
			"CREATE secrets of type kubernetes.io/service-account-token: never with support access, whatever the role ("+who.name+")")
		refused(t, who.DeleteAllOf(ctx, &corev1.Secret{}, client.InNamespace(mail), client.DryRunAll), secrets,
			"deletecollection secrets: never with support access, whatever the role ("+who.name+")")
		// What elevation may give is not stopped here.
		taken(t, who.try(t, &corev1.Secret{ObjectMeta: in(mail, "x")}))
		taken(t, who.Delete(ctx, plain.DeepCopy(), client.DryRunAll))
		taken(t, who.Get(ctx, client.ObjectKeyFromObject(plain), &corev1.Secret{}))
	}
	taken(t, w.root.try(t, token))
	taken(t, w.root.DeleteAllOf(ctx, &corev1.Secret{}, client.InNamespace(mail), client.DryRunAll))
}

func TestWhatAnEngineerNeverDoesInTheOperatorsNamespaces(t *testing.T) {
	const neverHere = "support-access-never-here"
	ctx := t.Context()
	for _, namespace := range []string{v1alpha1.SystemNamespace, v1alpha1.CredentialsNamespace} {
		secret := &corev1.Secret{ObjectMeta: in(namespace, "of-the-operator")}
		w.controller.make(t, secret)
		for _, who := range []*person{w.engineer, w.visitor} {
			refused(t, who.Delete(ctx, secret.DeepCopy()), neverHere, "DELETE secrets in "+namespace+": never with support access, whatever the role ("+who.name+")")
		}
	}
	for what, does := range map[string]func(*person) error{
		"CREATE configmaps": func(who *person) error {
			return who.try(t, &corev1.ConfigMap{ObjectMeta: in(v1alpha1.SystemNamespace, "x")})
		},
		"CONNECT pods/exec": func(who *person) error {
			return client.IgnoreNotFound(who.connect(t, v1alpha1.SystemNamespace, "pods/x/exec"))
		},
		"UPDATE configmaps": func(who *person) error {
			return who.merge(t, &corev1.ConfigMap{ObjectMeta: in(v1alpha1.SystemNamespace, "kube-root-ca.crt")}, `{"metadata":{"labels":{"a":"b"}}}`, client.DryRunAll)
		},
	} {
		for _, who := range []*person{w.engineer, w.visitor} {
			refused(t, does(who), neverHere, what+" in support-access-system: never with support access, whatever the role")
		}
		taken(t, does(w.root))
	}
}

// TestWhatElevationMayGiveIsNotStopped: exec, attach, eviction, edits of ConfigMaps and asking what one may do.
func TestWhatElevationMayGiveIsNotStopped(t *testing.T) {
	ctx := t.Context()
	p := &corev1.Pod{ObjectMeta: in(mail, "evictable"), Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "x", Image: "x"}}}}
	w.root.make(t, p)
	for _, who := range []*person{w.engineer, w.visitor} {
		for _, sub := range []string{"exec", "attach"} {
			if err := who.connect(t, mail, "pods/missing/"+sub); !apierrors.IsNotFound(err) {
				t.Errorf("%s: %v", sub, err)
			}
		}
		taken(t, who.try(t, &corev1.ConfigMap{ObjectMeta: in(mail, "x")}))
		taken(t, who.Create(ctx, &authorizationv1.LocalSubjectAccessReview{ObjectMeta: in(mail, ""), Spec: authorizationv1.SubjectAccessReviewSpec{
			User: "x", ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: mail, Verb: "get", Resource: "pods"},
		}}))
		taken(t, who.SubResource("eviction").Create(ctx, p, &policyv1.Eviction{DeleteOptions: &metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}}))
		taken(t, who.Delete(ctx, p.DeepCopy(), client.DryRunAll))
	}
}
