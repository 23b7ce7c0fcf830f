package admission

import (
	"fmt"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

const (
	subjects = "support-access-binding-subjects"
	fence    = "support-access-controller-bindings"
	offers   = "support-access-controller-roles"
)

// identities are the engineers' identities in every spelling that RBAC takes.
func identities() map[string]rbacv1.Subject {
	return map[string]rbacv1.Subject{
		"ServiceAccount engineer":                                 subjectAccount(v1alpha1.CredentialsNamespace, "engineer"),
		"ServiceAccount unborn":                                   subjectAccount(v1alpha1.CredentialsNamespace, "unborn"),
		"User " + engineerName:                                    subjectUser(engineerName),
		"Group system:serviceaccounts:support-access-credentials": subjectGroup("system:serviceaccounts:support-access-credentials"),
		"User " + visitorName:                                     subjectUser(visitorName),
		"Group supportaccess.dev:engineers":                       subjectGroup("supportaccess.dev:engineers"),
		"User supportaccess.dev:":                                 subjectUser("supportaccess.dev:"),
		"Group " + engineerName:                                   subjectGroup(engineerName),
		"User system:serviceaccounts:support-access-credentials":  subjectUser("system:serviceaccounts:support-access-credentials"),
	}
}

func TestIdentitiesOfSupportAccessAreBoundByTheOperatorAlone(t *testing.T) {
	for spelling, subject := range identities() {
		t.Run(spelling, func(t *testing.T) {
			says := "subjects: " + spelling + ": an identity of support access is bound by the operator alone: make a SupportAccessGrant"
			for _, namespace := range []string{mail, ""} {
				for _, who := range []*person{w.root, w.as(t, namespaceController), w.argo(t)} {
					refused(t, who.try(t, binding(namespace, "x", configuration, subject)), subjects, says)
					// Behind others, and with our label on it.
					refused(t, who.try(t, managed(binding(namespace, "x", configuration, subjectUser("mallory"), subject))), subjects, says)
				}
			}
		})
	}
	for _, namespace := range []string{mail, ""} {
		for _, subject := range []rbacv1.Subject{
			subjectUser("mallory"), subjectUser("supportaccess.device"), subjectGroup("system:serviceaccounts:support-access-credentials-2"),
			subjectAccount(mail, "engineer"), subjectUser("system:serviceaccount:support-access-credentials-2:engineer"),
		} {
			taken(t, w.root.try(t, binding(namespace, "x", configuration, subject)))
		}
		taken(t, w.root.try(t, binding(namespace, "x", configuration)))
	}
}

// argo is a pipeline that may bind anything anywhere.
func (w *world) argo(t *testing.T) *person {
	t.Helper()
	return w.as(t, "system:serviceaccount:pipelines:argocd")
}

func TestAServiceAccountWithoutANamespaceIsOfTheBindingsOwn(t *testing.T) {
	nameless := subjectAccount("", "engineer")
	taken(t, w.root.try(t, binding(mail, "x", configuration, nameless)))
	// In support-access-credentials nobody writes bindings anyway; the policies of subjects must know it nevertheless.
	err := w.root.try(t, binding(v1alpha1.CredentialsNamespace, "x", configuration, nameless))
	if !isDenial(err, subjects) && !isDenial(err, credentials) {
		t.Errorf("was let through: %v", err)
	}
}

func TestABindingOfOurIdentitiesIsChangedByTheOperatorAlone(t *testing.T) {
	ours := managed(binding(mail, "ours", configuration, subjectAccount(v1alpha1.CredentialsNamespace, "engineer")))
	w.controller.make(t, ours)
	theirs := binding(mail, "theirs", configuration, subjectUser("mallory"))
	w.root.make(t, theirs)
	const add = `{"subjects":[{"kind":"ServiceAccount","namespace":"support-access-credentials","name":"engineer"},{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"mallory"}]}`
	const drop = `{"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"mallory"}]}`
	const label = `{"metadata":{"labels":{"supportaccess.dev/managed":null}}}`
	const changed = "subjects: this binding names ServiceAccount engineer and is changed by the operator alone: to take access away, delete it"
	const bound = "subjects: ServiceAccount engineer: an identity of support access is bound by the operator alone"

	refused(t, w.root.merge(t, theirs, add), subjects, bound)
	refused(t, w.root.merge(t, ours, drop), subjects, changed)
	refused(t, w.root.merge(t, ours, `{"subjects":null}`), subjects, changed)
	refused(t, w.root.merge(t, ours, add), subjects, bound)
	refused(t, w.root.merge(t, ours, label), subjects, bound)
	collector := w.as(t, garbageCollector)
	refused(t, collector.merge(t, ours, drop), subjects, changed)
	taken(t, collector.merge(t, ours, `{"metadata":{"finalizers":["foregroundDeletion"]}}`, client.DryRunAll))
	taken(t, w.root.merge(t, theirs, `{"metadata":{"labels":{"a":"b"}}}`))
	taken(t, w.controller.merge(t, ours, `{"metadata":{"labels":{"a":"b"}}}`))
	// Taking away is open to whoever RBAC lets.
	taken(t, w.root.Delete(t.Context(), ours.DeepCopyObject().(client.Object), client.DryRunAll))
}

func TestTheOperatorBindsItsIdentitiesAndNobodyElse(t *testing.T) {
	engineer := subjectAccount(v1alpha1.CredentialsNamespace, "engineer")
	visitor := subjectUser(visitorName)
	mallory := subjectUser("mallory")
	const strangers = "subjects: User mallory: the operator binds the identities of support access and nobody else"
	cases := map[string]struct {
		refuse client.Object
		says   string
		take   client.Object
	}{
		"a person": {
			managed(binding(mail, "x", configuration, mallory)), strangers,
			managed(binding(mail, "x", configuration, engineer)),
		},
		"a person among identities": {
			managed(binding(mail, "x", configuration, engineer, mallory)), strangers,
			managed(binding(mail, "x", configuration, engineer, visitor)),
		},
		"a person, in the cluster": {
			managed(binding("", "x", configuration, mallory)), strangers,
			managed(binding("", "x", configuration, visitor)),
		},
		"itself": {
			managed(binding("", "x", "cluster-admin", subjectAccount(v1alpha1.SystemNamespace, v1alpha1.ControllerServiceAccount))),
			"subjects: ServiceAccount support-access-controller: the operator binds", nil,
		},
		"all identities at once": {
			managed(binding(mail, "x", configuration, subjectGroup("system:serviceaccounts:support-access-credentials"))),
			"subjects: Group system:serviceaccounts:support-access-credentials: the operator binds", nil,
		},
		"without the label": {
			binding(mail, "x", configuration, engineer), `metadata.labels: the operator's bindings carry supportaccess.dev/managed: "true"`,
			managed(binding(mail, "x", configuration, engineer)),
		},
		"a ClusterRole among credentials": {
			managed(binding(v1alpha1.CredentialsNamespace, "x", configuration, mallory)),
			"roleRef: ClusterRole support-access-configuration: the operator binds Roles in support-access-credentials and ClusterRoles elsewhere",
			managed(readers("x", mallory)),
		},
		"a Role elsewhere": {
			managed(elsewhere(readers(configuration, engineer), mail)), "roleRef: Role support-access-configuration: the operator binds Roles in support-access-credentials",
			managed(readers("x", engineer)),
		},
		"where it runs": {
			managed(binding(v1alpha1.SystemNamespace, "x", configuration, engineer)),
			"metadata.namespace: the operator binds nobody in its own namespace support-access-system", nil,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			refused(t, w.controller.try(t, c.refuse), fence, c.says)
			if c.take != nil {
				taken(t, w.controller.try(t, c.take))
			}
		})
	}
}

func elsewhere(b *rbacv1.RoleBinding, namespace string) *rbacv1.RoleBinding {
	b.Namespace = namespace
	return b
}

func TestTheOperatorChangesNobodyElsesBinding(t *testing.T) {
	theirs := managed(binding(mail, "not-ours", "edit", subjectUser("mallory")))
	w.root.make(t, theirs)
	const take = `{"subjects":[{"kind":"ServiceAccount","namespace":"support-access-credentials","name":"engineer"}]}`
	refused(t, w.controller.merge(t, theirs, take), fence, "subjects: this binding names User mallory and is not for the operator to change")
	ours := managed(binding(mail, "ours-to-change", configuration, subjectAccount(v1alpha1.CredentialsNamespace, "another")))
	w.controller.make(t, ours)
	taken(t, w.controller.merge(t, ours, take))
}

func TestTheOperatorBindsOnlyWhatTheNamespacesPolicyOffers(t *testing.T) {
	engineer := subjectAccount(v1alpha1.CredentialsNamespace, "engineer")
	refused(t, w.controller.try(t, managed(binding(mail, "x", "cluster-admin", engineer))), offers,
		"roleRef: cluster-admin is not offered by policy default of namespace mail")
	refused(t, w.controller.try(t, managed(binding(named, "x", diagnostics, engineer))), offers,
		"roleRef: support-access-diagnostics is not offered by policy strict of namespace named")
	refused(t, w.controller.try(t, managed(binding("kube-system", "x", configuration, engineer))), offers,
		"metadata.namespace: kube-system is protected by policy default")
	taken(t, w.controller.try(t, managed(binding(mail, "x", diagnostics, engineer))))
	taken(t, w.controller.try(t, managed(binding(named, "x", configuration, engineer))))
	taken(t, w.controller.try(t, managed(binding("", "x", configuration, engineer))))
}

func TestABindingOfThousandsIsStillTaken(t *testing.T) {
	var many []rbacv1.Subject
	for i := range 5000 {
		many = append(many, subjectUser(fmt.Sprintf("somebody-with-a-long-name-%04d@customer.example", i)))
	}
	big := binding(mail, "thousands", configuration, many...)
	began := time.Now()
	taken(t, w.root.try(t, big))
	t.Logf("5000 subjects: %v", time.Since(began))
	refused(t, w.root.try(t, binding(mail, "thousands", configuration, append(many, subjectUser(visitorName))...)), subjects, "subjects: User "+visitorName)
	w.root.make(t, big)
	taken(t, w.root.merge(t, big, `{"metadata":{"labels":{"a":"b"}}}`))
}
