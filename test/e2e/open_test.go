package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/records"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

const plainManifest = `
apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessGrant
metadata: {name: case-4711}
spec:
  case: {id: CASE-4711}
  reason: the connector cannot reach the server
  engineers: [{name: ana@vendor.example}]
  duration: 30m
`

func TestAGrantOpensForExactlyWhatItSays(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	before := time.Now()
	tn.admin.mustKubectl(t, tn.namespace, plainManifest, "apply", "-f", "-")
	tn.admin.mustKubectl(t, tn.namespace, "", "wait", "--for=condition=Active", "--timeout=60s", "sag/"+theGrant)
	line := tn.admin.mustKubectl(t, tn.namespace, "", "get", "sag", theGrant, "--no-headers")
	says(t, line, theGrant, "Active", gen.Engineer, gen.CaseID)

	object := &v1alpha1.SupportAccessGrant{}
	if err := tn.admin.Get(t.Context(), types.NamespacedName{Namespace: tn.namespace, Name: theGrant}, object); err != nil {
		t.Fatal(err)
	}
	g := tn.follow(object)
	g.isKstatus(t, status.CurrentStatus)
	isCondition(t, object, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.StateActive)
	isCondition(t, object, v1alpha1.ConditionActive, metav1.ConditionTrue, v1alpha1.StateActive)
	isCondition(t, object, v1alpha1.ConditionApproved, metav1.ConditionTrue, v1alpha1.ReasonNotRequired)
	isCondition(t, object, v1alpha1.ConditionProvisioned, metav1.ConditionTrue, v1alpha1.ReasonProvisioned)
	isCondition(t, object, v1alpha1.ConditionVerified, metav1.ConditionUnknown, v1alpha1.ReasonNotYet)
	lacksConditions(t, object, v1alpha1.ConditionStalled, v1alpha1.ConditionReconciling)
	if object.Spec.GrantedBy != tn.admin.name || object.Status.ObservedGeneration != 1 || object.Status.Transport != v1alpha1.TransportDirect {
		t.Errorf("granted by %q, observed generation %d, transport %q", object.Spec.GrantedBy, object.Status.ObservedGeneration, object.Status.Transport)
	}
	start, end := timeOf(object.Status.StartTime), timeOf(object.Status.ExpirationTime)
	if start.Before(before.Truncate(time.Second)) || !end.Equal(start.Add(30*time.Minute)) {
		t.Errorf("access is from %s to %s, and was asked for at %s for 30m", start, end, before)
	}
	if !slices.Contains(object.Finalizers, v1alpha1.FinalizerGrant) {
		t.Error("nothing holds the open grant")
	}

	ana := g.engineer(t)
	if err := tn.Admin.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: tn.namespace, Name: "settings"}}); err != nil {
		t.Fatal(err)
	}
	mayRead(t, ana, tn.namespace)
	says(t, ana.mustKubectl(t, tn.namespace, "", "get", "configmaps", "-o", "name"), "configmap/settings")
	for what, args := range map[string][]string{
		`cannot list resource "secrets"`:               {"get", "secrets"},
		`cannot create resource "configmaps"`:          {"create", "configmap", "mine"},
		`cannot list resource "configmaps"`:            {"get", "configmaps", "-n", "default"},
		`cannot list resource "nodes"`:                 {"get", "nodes"},
		`cannot get resource "supportaccessgrants"`:    {"get", "sag", theGrant},
		`cannot create resource "serviceaccounts/tok`:  {"create", "token", "default"},
		`cannot delete resource "supportaccessgrants"`: {"delete", "sag", theGrant},
	} {
		_, err := ana.kubectl(t, tn.namespace, "", args...)
		if err == nil {
			t.Errorf("kubectl %s was let through", strings.Join(args, " "))
			continue
		}
		says(t, err.Error(), "forbidden", what, fmt.Sprintf("User %q", ana.name))
	}
	isOnRecord(t, g, object, ana)
}

// isOnRecord looks whether everything about an open grant is on record.
func isOnRecord(t *testing.T, g *grantInTest, object *v1alpha1.SupportAccessGrant, ana *person) {
	t.Helper()
	record := g.record(t)
	spec := record.Spec
	if spec.Grant.UID != object.UID || spec.GrantedBy != object.Spec.GrantedBy || spec.Case.ID != gen.CaseID || spec.Reason != object.Spec.Reason ||
		!slices.Equal(spec.Engineers, []string{gen.Engineer}) || spec.Policy != g.tenant.policy || spec.Transport != v1alpha1.TransportDirect {
		t.Errorf("the record is about %+v", spec)
	}
	if len(record.OwnerReferences) > 0 {
		t.Errorf("the record would go with %v", record.OwnerReferences)
	}
	if granted, opened := transition(record, v1alpha1.TransitionGranted), transition(record, v1alpha1.TransitionOpened); granted != 0 || opened != 1 {
		t.Errorf("the record's trail is %s", trail(record))
	}
	if by := record.Status.Transitions[0].By; by != g.tenant.admin.name {
		t.Errorf("the record says that %q granted", by)
	}
	if record.Status.ProvisionedTime == nil || !timeOf(record.Status.ExpirationTime).Equal(timeOf(object.Status.ExpirationTime)) {
		t.Errorf("the record says opened %v, expires %v", record.Status.ProvisionedTime, record.Status.ExpirationTime)
	}
	roles := map[string]bool{}
	for _, b := range record.Status.Bindings {
		binding := &rbacv1.RoleBinding{}
		if err := g.tenant.Admin.Get(t.Context(), types.NamespacedName{Namespace: b.Namespace, Name: b.Name}, binding); err != nil {
			t.Errorf("recorded binding: %v", err)
			continue
		}
		roles[binding.RoleRef.Name] = true
		if b.Namespace != g.Namespace || binding.UID != b.UID || binding.RoleRef.Name != b.Role || len(binding.Subjects) != 1 ||
			"system:serviceaccount:"+binding.Subjects[0].Namespace+":"+binding.Subjects[0].Name != ana.name {
			t.Errorf("binding %+v is recorded as %+v", binding, b)
		}
	}
	if len(record.Status.Bindings) != 2 || !roles[gen.Configuration] || !roles[gen.Diagnostics] {
		t.Errorf("the recorded bindings are of %v", roles)
	}
	for _, r := range record.Status.Rules {
		config := &corev1.ConfigMap{}
		if err := g.tenant.Admin.Get(t.Context(), types.NamespacedName{Namespace: world.SystemNamespace, Name: records.RulesName(r.Digest)}, config); err != nil {
			t.Errorf("what %s allowed: %v", r.Role, err)
		}
	}
	if len(record.Status.Rules) != 2 {
		t.Errorf("the rules of %d roles are on record, want 2", len(record.Status.Rules))
	}
}

// A column that reads a list shows its first element alone, so these read something else.
func TestKubectlGetNamesEveryEngineerAndEveryRole(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	two := tn.opens(t, "two", gen.WithEngineers("ana@vendor.example", "ben@vendor.example"))
	says(t, tn.admin.mustKubectl(t, tn.namespace, "", "get", "sag", two.Name), "ana@vendor.example,ben@vendor.example ")
	five := tn.opens(t, "five", gen.WithEngineers("a@vendor.example", "b@vendor.example", "c@vendor.example", "d@vendor.example", "e@vendor.example"))
	says(t, tn.admin.mustKubectl(t, tn.namespace, "", "get", "sag", five.Name), "a@vendor.example,b@vendor.example,c@vendor.example + 2 more... ")
	says(t, tn.admin.mustKubectl(t, tn.namespace, "", "get", "sag", two.Name, "-o", "wide"), gen.Configuration, gen.Diagnostics)
	root := user(t, tn.World, "root", "system:masters")
	says(t, root.mustKubectl(t, "", "", "get", "sap", tn.policy, "-o", "wide"), gen.Configuration, gen.Diagnostics)
}

// The category is what a namespace's admin may read: one kind of it that they may not fails the command for all.
func TestTheAdminOfANamespaceGetsEverythingOfSupportAccessThere(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	g := tn.opens(t, theGrant)
	tn.admin.decides(t, tn.namespace, "later", gen.Shortening(theGrant, time.Now().Add(20*time.Minute)))
	out := tn.admin.mustKubectl(t, tn.namespace, "", "get", "support-access", "-o", "name")
	says(t, out, "supportaccessgrant.supportaccess.dev/"+g.Name, "supportaccessrecord.supportaccess.dev/"+g.Name, "supportaccessdecision.supportaccess.dev/later")
}

func TestAGrantIsInProgressUntilTheOperatorHasSeenIt(t *testing.T) {
	tn := newTenant(t)
	resume := pauseOperator(t, tn.World)
	g := tn.grants(t, theGrant)
	object, err := g.get(t)
	if err != nil {
		t.Fatal(err)
	}
	if object.Status.ObservedGeneration != -1 || len(object.Status.Conditions) > 0 {
		t.Errorf("a grant that nobody has seen: %+v", object.Status)
	}
	g.isKstatus(t, status.InProgressStatus)
	resume()
	g.is(t, v1alpha1.StateActive)
	g.isKstatus(t, status.CurrentStatus)
}

func TestAScheduledGrantOpensAtItsStartAndNotBefore(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	start := soon(15 * time.Second)
	g := tn.grants(t, theGrant, gen.WithStart(start), gen.WithDuration("10m"))
	object := g.is(t, v1alpha1.StateScheduled)
	g.isKstatus(t, status.CurrentStatus)
	isCondition(t, object, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.StateScheduled)
	isCondition(t, object, v1alpha1.ConditionActive, metav1.ConditionFalse, v1alpha1.ReasonNoAccess)
	lacksConditions(t, object, v1alpha1.ConditionStalled, v1alpha1.ConditionReconciling)
	if record := g.record(t); !timeOf(record.Status.StartTime).Equal(start) || record.Status.ProvisionedTime != nil {
		t.Errorf("the record says start %v, opened %v", record.Status.StartTime, record.Status.ProvisionedTime)
	}
	if children := g.children(t); len(children) > 0 && time.Now().Before(start) {
		t.Errorf("before its start there is %T %s", children[0], children[0].GetName())
	}
	object = g.is(t, v1alpha1.StateActive)
	opened := g.record(t).Status.ProvisionedTime
	if opened.Time.Before(start) {
		t.Errorf("it opened at %s, before %s", opened, start)
	}
	if !timeOf(object.Status.StartTime).Equal(start) || !timeOf(object.Status.ExpirationTime).Equal(start.Add(10*time.Minute)) {
		t.Errorf("access is from %s to %s, want 10m from %s", object.Status.StartTime, object.Status.ExpirationTime, start)
	}
	mayRead(t, g.engineer(t), tn.namespace)
}

func TestAGrantWithAnExpirationTimeThatHasPassedIsBornExpired(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	g := tn.grants(t, theGrant, gen.WithExpiration(soon(-time.Hour)))
	object := g.is(t, v1alpha1.StateExpired)
	g.isKstatus(t, status.CurrentStatus)
	isCondition(t, object, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.StateExpired)
	isCondition(t, object, v1alpha1.ConditionActive, metav1.ConditionFalse, v1alpha1.ReasonNoAccess)
	g.leavesNothing(t)
	record := hasEnded(t, tn.admin, g.NamespacedName, ending{v1alpha1.EndExpired, "support-access", "its time was over"})
	if record.Status.ProvisionedTime != nil {
		t.Errorf("the record says that access was given at %s", record.Status.ProvisionedTime)
	}
}

func TestARefusedGrantSaysEveryReason(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, gen.WithSpec(func(s *v1alpha1.SupportAccessPolicySpec) { s.CasePattern, s.EngineerPattern = "", "" }))
	strict := newTenant(t, func(p *v1alpha1.SupportAccessPolicy) {
		p.Spec.MaxDuration, p.Spec.CasePattern = "10m", "^STRICT-"
		p.Spec.Roles = p.Spec.Roles[:1]
		p.Spec.NeverAllow = []v1alpha1.Rule{{Verbs: []string{"list"}, APIGroups: []string{""}, Resources: []string{"configmaps"}}}
	})
	tn.widen(t)
	g := tn.grants(t, theGrant, gen.WithScope(tn.namespace, strict.namespace), gen.WithPublicKey(gen.Engineer, "age1qqqqqqqq"))
	object := g.is(t, v1alpha1.StateRefused)
	g.isKstatus(t, status.FailedStatus)
	message := isCondition(t, object, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.StateRefused)
	isCondition(t, object, v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.StateRefused)
	isCondition(t, object, v1alpha1.ConditionActive, metav1.ConditionFalse, v1alpha1.ReasonNoAccess)
	lacksConditions(t, object, v1alpha1.ConditionReconciling)
	says(t, message,
		"spec.case.id: CASE-4711 does not match ^STRICT-, the casePattern of policy "+strict.policy,
		"spec.duration: 30m exceeds 10m, the limit of policy "+strict.policy,
		"spec.engineers[0].publicKey: ",
		"spec.roles: support-access-diagnostics is not offered: policy "+strict.policy+" offers support-access-configuration",
		"spec.roles[0]: support-access-configuration allows list of configmaps, which policy "+strict.policy+" never allows (neverAllow)",
	)
	if reasons := strings.Split(message, "; "); len(reasons) != 5 || !slices.IsSorted(reasons) {
		t.Errorf("want five reasons in order, got %d: %s", len(reasons), strings.Join(reasons, "\n"))
	}
	g.leavesNothing(t)
	hasEnded(t, tn.admin, g.NamespacedName, ending{v1alpha1.EndRefused, "support-access", "spec.duration: 30m exceeds 10m"})
	g.delete(t)
	g.isGone(t)
}

func TestAGrantInANamespaceWhoseLabelNamesNoPolicyIsRefused(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	lost := tn.LabelledNamespace(t, map[string]string{v1alpha1.LabelPolicy: "nowhere"})
	tn.widen(t)
	g := tn.grants(t, theGrant, gen.WithScope(lost))
	message := isCondition(t, g.is(t, v1alpha1.StateRefused), v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.StateRefused)
	says(t, message, "spec.scope.namespaces: "+lost+" takes no grants: its label supportaccess.dev/policy names policy nowhere, which does not exist")
	g.leavesNothing(t)
}

func TestAGrantOfARoleThatReachesTheNeverListIsRefused(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, gen.Offering(v1alpha1.OfferedRole{Name: roleNever}))
	makeRole(t, tn.World, roleNever, rules(gen.Rule("", []string{"secrets"}, []string{"list"}))...)
	g := tn.grants(t, theGrant, gen.WithRoles(roleNever))
	message := isCondition(t, g.is(t, v1alpha1.StateRefused), v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.StateRefused)
	says(t, message, "spec.roles[0]: "+roleNever+" allows list of secrets, which support access never gives")
	g.leavesNothing(t)
}

// What every identity holds anyway cannot be taken away with a Direct grant.
func TestAGrantWhereEveryIdentityMayDoWhatIsNeverGivenIsRefused(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	meta := metav1.ObjectMeta{Namespace: tn.namespace, Name: "everybody-edits"}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "edit"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:serviceaccounts"}},
	}
	if err := tn.Admin.Create(t.Context(), binding); err != nil {
		t.Fatal(err)
	}
	g := tn.grants(t, theGrant)
	message := isCondition(t, g.is(t, v1alpha1.StateRefused), v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.StateRefused)
	says(t, message, "AmbientAccess: RoleBinding "+tn.namespace+"/"+meta.Name+" gives every identity what support access never gives: ", "secrets")
	g.isKstatus(t, status.FailedStatus)
	g.leavesNothing(t)
	hasEnded(t, tn.admin, g.NamespacedName, ending{v1alpha1.EndRefused, theOperatorItself, "AmbientAccess"})
}

// mends looks at a grant that waits for a person to mend something, has it mended, and sees it open.
func mends(t *testing.T, g *grantInTest, lacks string, mend func()) {
	t.Helper()
	object := g.is(t, v1alpha1.StateFailed)
	g.isKstatus(t, status.FailedStatus)
	for kind, want := range map[string]metav1.ConditionStatus{
		v1alpha1.ConditionReady: metav1.ConditionFalse, v1alpha1.ConditionStalled: metav1.ConditionTrue,
	} {
		says(t, isCondition(t, object, kind, want, v1alpha1.StateFailed), lacks)
	}
	says(t, isCondition(t, object, v1alpha1.ConditionProvisioned, metav1.ConditionFalse, v1alpha1.ReasonMissing), lacks)
	isCondition(t, object, v1alpha1.ConditionActive, metav1.ConditionFalse, v1alpha1.ReasonNoAccess)
	lacksConditions(t, object, v1alpha1.ConditionReconciling)
	if children := g.children(t); len(children) > 0 {
		t.Errorf("of a grant that cannot open there is %T %s", children[0], children[0].GetName())
	}
	mend()
	object = g.is(t, v1alpha1.StateActive)
	g.isKstatus(t, status.CurrentStatus)
	lacksConditions(t, object, v1alpha1.ConditionStalled, v1alpha1.ConditionReconciling)
}

func TestAGrantWhoseClusterRoleIsMissingOpensWhenItAppears(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, gen.Offering(v1alpha1.OfferedRole{Name: roleAppears}))
	g := tn.grants(t, theGrant, gen.WithRoles(gen.Configuration, roleAppears))
	mends(t, g, `spec.roles[1]: there is no ClusterRole "`+roleAppears+`"`, func() { makeRole(t, tn.World, roleAppears, rules()...) })
	mayRead(t, g.engineer(t), tn.namespace)
}

// A policy may offer what the installation does not: the controller holds bind on the chart's offeredRoles only.
func TestAGrantOfARoleThatTheOperatorMayNotBindSaysWhatToMendAndOpensWhenItIs(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, gen.Offering(v1alpha1.OfferedRole{Name: roleUnoffered}))
	makeRole(t, tn.World, roleUnoffered, rules()...)
	g := tn.grants(t, theGrant, gen.WithRoles(gen.Configuration, roleUnoffered))
	mends(t, g, `spec.roles[1]: the operator may not bind ClusterRole "`+roleUnoffered+`": name it in offeredRoles of the chart`, func() {
		lets := gen.ClusterRole(tn.Name("offers"), gen.Rule(rbacv1.GroupName, []string{"clusterroles"}, []string{"bind"}))
		lets.Rules[0].ResourceNames = []string{roleUnoffered}
		binding := &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: lets.Name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: lets.Name},
			Subjects: []rbacv1.Subject{{
				Kind: rbacv1.ServiceAccountKind, Namespace: v1alpha1.SystemNamespace, Name: v1alpha1.ControllerServiceAccount,
			}},
		}
		for _, o := range []client.Object{lets, binding} {
			if err := tn.Admin.Create(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = tn.Admin.Delete(context.Background(), o) })
		}
	})
	mayRead(t, g.engineer(t), tn.namespace)
}

func TestAGrantWhoseNamespaceIsMissingOpensWhenItAppears(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	tn.widen(t)
	missing := tn.Name("missing")
	g := tn.grants(t, theGrant, gen.WithScope(tn.namespace, missing))
	mends(t, g, `spec.scope.namespaces: there is no namespace "`+missing+`"`, func() {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: missing, Labels: map[string]string{v1alpha1.LabelPolicy: tn.policy}}}
		if err := tn.Admin.Create(t.Context(), namespace); err != nil {
			t.Fatal(err)
		}
	})
	ana := g.engineer(t)
	mayRead(t, ana, tn.namespace)
	mayRead(t, ana, missing)
}

func TestWithoutAnAddressAGrantSaysWhatToSetAndClusterInfoWillDo(t *testing.T) {
	tn := newTenant(t)
	without := values()
	without["cluster"] = map[string]any{"server": "", "caBundle": ""}
	reinstall(t, tn.World, without)
	restore := sync.OnceFunc(func() { reinstall(t, tn.World, values()) })
	t.Cleanup(restore)
	g := tn.grants(t, theGrant)
	mends(t, g, "set cluster.server: the operator does not know the address at which engineers reach the API server", func() {
		info := clusterInfo(t, tn.World)
		if err := tn.Admin.Create(t.Context(), info); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = tn.Admin.Delete(context.Background(), info) })
	})
	mayRead(t, g.engineer(t), tn.namespace)
	restore()
	// What is open stays open when the address comes from elsewhere.
	g.is(t, v1alpha1.StateActive)
}

// reinstall upgrades the chart to other values and has the operator start as it then says.
func reinstall(t *testing.T, w *world.World, values map[string]any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	err := errors.Join(theOperator.stop(), theOperator.installation.Upgrade(ctx, w.ControlPlane, values), theOperator.start(ctx))
	if err != nil {
		t.Fatalf("change the chart's values: %v", err)
	}
}

// clusterInfo is what kubeadm leaves in every cluster.
func clusterInfo(t *testing.T, w *world.World) *corev1.ConfigMap {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters[""] = &clientcmdapi.Cluster{Server: w.ControlPlane.Server(), CertificateAuthorityData: w.ControlPlane.CABundle()}
	content, err := clientcmd.Write(*config)
	if err != nil {
		t.Fatal(err)
	}
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespacePublic, Name: "cluster-info"},
		Data:       map[string]string{"kubeconfig": string(content)},
	}
}

func TestAGrantOfTheWholeClusterReachesEveryNamespaceAndEndsInAll(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, gen.OfferingScopes(v1alpha1.ScopeNamespaces, v1alpha1.ScopeCluster))
	tn.widen(t)
	elsewhere := tn.another(t)
	g := tn.opens(t, theGrant, gen.WithCluster(), gen.WithRoles(gen.Configuration))
	ana := g.engineer(t)
	mayRead(t, ana, tn.namespace)
	mayRead(t, ana, elsewhere)
	mirror := &v1alpha1.SupportAccessRecord{}
	if err := tn.Admin.Get(t.Context(), g.tombstone(), mirror); err != nil || mirror.Spec.Grant.UID != g.uid {
		t.Errorf("the record of a cluster-wide grant is not shown to the cluster's admins: %v", err)
	}
	g.delete(t)
	ana.isRefusedEverywhere(t, tn.namespace, elsewhere)
	record := hasEnded(t, tn.admin, g.NamespacedName, ending{v1alpha1.EndDeleted, "unknown", "the grant was deleted"})
	lacksRecorded(t, tn.World, record)
	g.leavesNothing(t)
}

func TestOnlyTheGranterAndTheEngineerFetchACredential(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, gen.WithSpec(func(s *v1alpha1.SupportAccessPolicySpec) {
		s.CredentialReaders = []v1alpha1.CredentialReader{{Kind: rbacv1.UserKind, Name: "desk@customer.example"}}
	}))
	other := newTenant(t)
	colleague := tn.newAdmin(t, "tom@"+tn.namespace+".customer.example")
	const bob = "bob@vendor.example"
	g := tn.grants(t, theGrant, gen.WithEngineers(gen.Engineer, bob))
	object := g.is(t, v1alpha1.StateActive)
	ana, ref := statusOf(t, object, gen.Engineer), statusOf(t, object, gen.Engineer).CredentialSecretRef
	ofBob := g.engineerNamed(t, bob)
	elses := other.opens(t, theGrant)
	fetch := func(p *person) error {
		return p.Get(t.Context(), types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}, &corev1.Secret{})
	}
	for _, who := range []*person{tn.admin, user(t, tn.World, "desk@customer.example"), g.engineer(t)} {
		world.Eventually(t, who.name+" fetches it", func() error { return fetch(who) })
	}
	for what, who := range map[string]*person{
		"another admin of the namespace":        colleague,
		"the admin of another namespace":        other.admin,
		"another engineer of the same grant":    ofBob,
		"the engineer of another grant":         elses.engineer(t),
		"somebody who has nothing to do here":   user(t, tn.World, "stranger@elsewhere.example"),
		"a pipeline of the grant's namespace":   tn.pipeline(t, "pipeline"),
		"the same name from another namespace ": other.pipeline(t, ref.Name),
	} {
		err := fetch(who)
		words := fmt.Sprintf(`secrets %q is forbidden: User %q cannot get resource "secrets" in API group "" in the namespace %q`, ref.Name, who.name, ref.Namespace)
		if !apierrors.IsForbidden(err) || !strings.HasPrefix(err.Error(), words) {
			t.Errorf("%s: %v, want %q", what, err, words)
		}
		list := who.List(t.Context(), &corev1.SecretList{}, client.InNamespace(ref.Namespace))
		if !apierrors.IsForbidden(list) {
			t.Errorf("%s lists the Secrets: %v", what, list)
		}
	}
	if ana.Username == ofBob.name {
		t.Error("two engineers of a grant are one to the cluster")
	}
	g.delete(t)
	g.isGone(t)
	if err := fetch(tn.admin); !apierrors.IsForbidden(err) {
		t.Errorf("after the end the granter fetches it: %v", err)
	}
}
