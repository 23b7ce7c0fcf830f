package chart

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/config/admission"
	"supportaccess.dev/operator/hack/controlplane/helm"
	"supportaccess.dev/operator/hack/controlplane/kubelet"
	"supportaccess.dev/operator/test/world"
)

// installation is the chart in the world of a test.
type installation struct {
	*world.World
	helm       *helm.Helm
	release    helm.Release
	kubeconfig string
	// controller is a client with the rights of the controller, which does not run here.
	controller client.Client
}

// TestFromInstallToUninstall is one story, because a cluster has room for one installation. No operator runs in it:
// what is looked at is what Helm and the API server do.
func TestFromInstallToUninstall(t *testing.T) {
	w := world.New(t)
	kubeconfig := w.Kubeconfig(t, w.ControlPlane.AdminConfig(), "")
	h, err := helm.New(t.Context(), kubeconfig, w.Dir, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	i := &installation{World: w, helm: h, kubeconfig: kubeconfig, release: release(t, nil)}
	if err := i.helm.Install(t.Context(), i.release); err != nil {
		t.Fatal(err)
	}
	i.controller = w.ClientFor(t, w.ServiceAccount(t, v1alpha1.SystemNamespace, v1alpha1.ControllerServiceAccount))
	for _, step := range []struct {
		name string
		try  func(*testing.T)
	}{
		{"one install gives all that is rendered, the default policy too", i.everythingIsThere},
		{"admission comes into force by itself", i.admissionIsInForce},
		{"the roles are filled, and the admin of a namespace may grant them", i.rolesAreFilled},
		{"nothing can run where credentials lie", i.nothingRunsWhereCredentialsLie},
		{"every pod is accepted where PodSecurity is restricted", i.podsAreRestricted},
		{"every sample applies as it stands", i.samplesApply},
		{"an upgrade to the same chart changes nothing", i.upgradeChangesNothing},
		{"an upgrade does not lift what was suspended by hand", i.upgradeRespectsSuspension},
		{"an uninstall fails while something is open and leaves the operator", i.uninstallFailsWhileOpen},
		{"an uninstall with nothing open leaves the CRDs, the records and the policy", i.uninstallKeepsRecords},
		{"a second install finds the records of the first", i.reinstallFindsRecords},
		{"an uninstall that is told so leaves nothing", i.uninstallDropsRecords},
	} {
		if !t.Run(step.name, step.try) {
			return
		}
	}
}

func (i *installation) everythingIsThere(t *testing.T) {
	manifest, err := i.helm.Manifest(t.Context(), i.release)
	if err != nil {
		t.Fatal(err)
	}
	installed := objects(t, manifest)
	if want := len(render(t, nil)); len(installed) != want {
		t.Errorf("the release has %d objects, want %d", len(installed), want)
	}
	for _, object := range installed {
		if err := i.Admin.Get(t.Context(), client.ObjectKeyFromObject(object), object.DeepCopy()); err != nil {
			t.Errorf("%s: %v", identity(object), err)
		}
	}
	policy, shipped := &v1alpha1.SupportAccessPolicy{}, &v1alpha1.SupportAccessPolicy{}
	if err := i.Admin.Get(t.Context(), client.ObjectKey{Name: v1alpha1.DefaultPolicyName}, policy); err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(read(t, "config/policy/default.yaml"), shipped); err != nil {
		t.Fatal(err)
	}
	// What it leaves out the API server fills in.
	shipped.Spec.Sessions = &v1alpha1.SessionLimits{IdleTimeout: "1h", MaxConnections: 32, MaxStreamBytes: 16 << 20}
	shipped.Spec.HandoverWindow, shipped.Spec.MaxEnabled, shipped.Spec.ApprovalTimeout = "24h", "720h", "72h"
	shipped.Spec.RequestTimeout, shipped.Spec.MaxOpenRequests = "72h", new(int32(5))
	shipped.Spec.Recording = &v1alpha1.Recording{Input: v1alpha1.InputNever, MaxLogBytes: new(int64(1 << 20))}
	if got, want := asJSON(t, policy.Spec), asJSON(t, shipped.Spec); got != want {
		t.Errorf("the default policy is %s, want %s", got, want)
	}
	for _, name := range []string{v1alpha1.SystemNamespace, v1alpha1.CredentialsNamespace} {
		namespace := &corev1.Namespace{}
		if err := i.Admin.Get(t.Context(), client.ObjectKey{Name: name}, namespace); err != nil {
			t.Fatal(err)
		}
		if level := namespace.Labels["pod-security.kubernetes.io/enforce"]; level != "restricted" {
			t.Errorf("namespace %s enforces %q", name, level)
		}
	}
}

func (i *installation) admissionIsInForce(t *testing.T) {
	world.Eventually(t, "the canary is refused", func() error {
		err := i.controller.Create(t.Context(), admission.CanaryGrant(), client.DryRunAll)
		if !admission.CanaryRefused(err) {
			return fmt.Errorf("the canary: %w", errors.Join(err, errors.New("not refused because of its stamp")))
		}
		return nil
	})
}

func (i *installation) rolesAreFilled(t *testing.T) {
	for _, name := range []string{"configuration", "diagnostics", "operate", "content"} {
		world.Eventually(t, name+" is filled", func() error {
			whole, own := &rbacv1.ClusterRole{}, &rbacv1.ClusterRole{}
			if err := i.Admin.Get(t.Context(), client.ObjectKey{Name: "support-access-" + name}, whole); err != nil {
				return err
			}
			if err := i.Admin.Get(t.Context(), client.ObjectKey{Name: "support-access-aggregate-to-" + name}, own); err != nil {
				return err
			}
			if asJSON(t, whole.Rules) != asJSON(t, own.Rules) {
				return fmt.Errorf("it has %v, want %v", whole.Rules, own.Rules)
			}
			return nil
		})
	}
	world.Eventually(t, "admin may grant", func() error {
		role := &rbacv1.ClusterRole{}
		if err := i.Admin.Get(t.Context(), client.ObjectKey{Name: "admin"}, role); err != nil {
			return err
		}
		if bindable := bindableRoles(t, role.Rules); len(bindable) != 4 {
			return fmt.Errorf("admin may bind %v", bindable)
		}
		return nil
	})
}

func (i *installation) nothingRunsWhereCredentialsLie(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "intruder", Namespace: v1alpha1.CredentialsNamespace},
		Spec:       deployedPod(t),
	}
	pod.Spec.ServiceAccountName = "default"
	for name, c := range map[string]client.Client{"a cluster admin": i.Admin, "the controller": i.controller} {
		if err := c.Create(t.Context(), pod.DeepCopy()); !apierrors.IsForbidden(err) {
			t.Errorf("a pod by %s: %v", name, err)
		}
	}
	quota := &corev1.ResourceQuota{}
	if err := i.Admin.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.CredentialsNamespace, Name: "support-access-no-pods"}, quota); err != nil {
		t.Fatal(err)
	}
	if pods := quota.Spec.Hard[corev1.ResourcePods]; !pods.IsZero() {
		t.Errorf("the quota allows %s pods", pods.String())
	}
}

// deployedPod is what the Deployment runs.
func deployedPod(t *testing.T) corev1.PodSpec {
	t.Helper()
	for name, template := range podTemplates(t, render(t, nil)) {
		if strings.HasPrefix(name, "Deployment ") {
			return template.Spec
		}
	}
	t.Fatal("no Deployment is rendered")
	return corev1.PodSpec{}
}

func (i *installation) podsAreRestricted(t *testing.T) {
	namespace := i.LabelledNamespace(t, map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})
	templates := podTemplates(t, renderAll(t, everyFlag))
	if len(templates) != 3 {
		t.Fatalf("%d workloads are rendered, want the Deployments of controller and gateway and the Job", len(templates))
	}
	for name, template := range templates {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: template.Spec.ServiceAccountName}}
		if err := i.Admin.Create(t.Context(), account); err != nil {
			t.Fatal(err)
		}
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "pod", Namespace: namespace}, Spec: template.Spec}
		if err := i.Admin.Create(t.Context(), pod.DeepCopy(), client.DryRunAll); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		pod.Spec.Containers[0].SecurityContext.AllowPrivilegeEscalation = nil
		err := i.Admin.Create(t.Context(), pod, client.DryRunAll)
		if err == nil || !strings.Contains(err.Error(), `violates PodSecurity "restricted`) {
			t.Errorf("%s may escalate its privileges and is not refused: %v", name, err)
		}
	}
}

func (i *installation) upgradeChangesNothing(t *testing.T) {
	before := i.versions(t)
	if err := i.helm.Upgrade(t.Context(), i.release); err != nil {
		t.Fatal(err)
	}
	for id, version := range i.versions(t) {
		if before[id] != version {
			t.Errorf("%s was changed", id)
		}
	}
}

func (i *installation) upgradeRespectsSuspension(t *testing.T) {
	patch := func(newGrants string) {
		i.MustKubectl(t, i.kubeconfig, "patch", "supportaccesspolicy", "default", "--type", "merge", "--patch", `{"spec":{"newGrants":"`+newGrants+`"}}`)
	}
	patch("Suspended")
	if err := i.helm.Upgrade(t.Context(), i.release); err == nil || !strings.Contains(err.Error(), "conflict") {
		t.Errorf("an upgrade over a suspended policy: %v", err)
	}
	policy := &v1alpha1.SupportAccessPolicy{}
	if err := i.Admin.Get(t.Context(), client.ObjectKey{Name: v1alpha1.DefaultPolicyName}, policy); err != nil {
		t.Fatal(err)
	}
	if policy.Spec.NewGrants != v1alpha1.NewGrantsSuspended {
		t.Errorf("new grants are %s", policy.Spec.NewGrants)
	}
	patch("Allowed")
}

// versions are the generations of what has one, and of the rest the versions as of the last change.
func (i *installation) versions(t *testing.T) map[string]string {
	t.Helper()
	versions := map[string]string{}
	for _, object := range render(t, nil) {
		if err := i.Admin.Get(t.Context(), client.ObjectKeyFromObject(object), object); err != nil {
			t.Fatal(err)
		}
		version := object.GetResourceVersion()
		if object.GetGeneration() > 0 {
			version = fmt.Sprint("generation ", object.GetGeneration())
		}
		versions[identity(object)] = version
	}
	return versions
}

func (i *installation) uninstallFailsWhileOpen(t *testing.T) {
	namespace := i.Namespace(t)
	grant := simpleGrant(namespace, "open")
	if err := i.Admin.Create(t.Context(), grant); err != nil {
		t.Fatal(err)
	}
	i.setFinalizers(t, grant, v1alpha1.FinalizerGrant)
	// Nobody closes it, so this need not be waited for long.
	i.release.Values = tree("uninstall.timeoutSeconds", 10)
	if err := i.helm.Upgrade(t.Context(), i.release); err != nil {
		t.Fatal(err)
	}
	if err := i.uninstall(t); err == nil || !strings.Contains(err.Error(), "Job/support-access-system/support-access-uninstall not ready") {
		t.Fatalf("uninstall with an open grant: %v", err)
	}
	deployment := unnamed("apps/v1", "Deployment", v1alpha1.SystemNamespace, "support-access")
	if err := i.Admin.Get(t.Context(), client.ObjectKeyFromObject(deployment), deployment); err != nil {
		t.Errorf("the operator is gone although something is open: %v", err)
	}
	err := i.Admin.Create(t.Context(), simpleGrant(namespace, "late"))
	if err == nil || !strings.Contains(err.Error(), "support access is being uninstalled") {
		t.Errorf("a grant made during the uninstall: %v", err)
	}
	i.setFinalizers(t, grant)
	i.letDecisionsGo(t)
}

// letDecisionsGo does what the controller would: it releases every decision.
func (i *installation) letDecisionsGo(t *testing.T) {
	t.Helper()
	decisions := &v1alpha1.SupportAccessDecisionList{}
	if err := i.Admin.List(t.Context(), decisions); err != nil {
		t.Fatal(err)
	}
	for n := range decisions.Items {
		i.setFinalizers(t, &decisions.Items[n])
	}
}

// setFinalizers holds an object or lets it go as the controller does: by a patch, the only way that its rights allow.
func (i *installation) setFinalizers(t *testing.T, object client.Object, finalizers ...string) {
	t.Helper()
	before := object.DeepCopyObject().(client.Object)
	object.SetFinalizers(finalizers)
	if err := i.controller.Patch(t.Context(), object, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
}

func (i *installation) uninstallKeepsRecords(t *testing.T) {
	record := &v1alpha1.SupportAccessRecord{
		ObjectMeta: metav1.ObjectMeta{Name: "kept", Namespace: i.Namespace(t)},
		Spec: v1alpha1.SupportAccessRecordSpec{
			Grant: v1alpha1.RecordedGrant{Namespace: "tenant", Name: "kept", UID: "1", SpecDigest: "1"},
		},
	}
	if err := i.controller.Create(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	// Nobody runs who would end them, and a grant that waits is not nothing.
	grants := &v1alpha1.SupportAccessGrantList{}
	if err := i.Admin.List(t.Context(), grants); err != nil {
		t.Fatal(err)
	}
	for n := range grants.Items {
		if err := i.Admin.Delete(t.Context(), &grants.Items[n]); err != nil {
			t.Fatal(err)
		}
	}
	installed := append(render(t, nil), hookObjects()...)
	if err := i.uninstall(t); err != nil {
		t.Fatal(err)
	}
	for _, object := range installed {
		if kept(object) {
			if err := i.Admin.Get(t.Context(), client.ObjectKeyFromObject(object), object); err != nil {
				t.Errorf("%s is not kept: %v", identity(object), err)
			}
			continue
		}
		i.awaitGone(t, object)
	}
	if err := i.Admin.Get(t.Context(), client.ObjectKeyFromObject(record), record); err != nil {
		t.Errorf("the record is not kept: %v", err)
	}
}

// hookObjects are what the hooks of an uninstall make, and leave nothing of.
func hookObjects() []*unstructured.Unstructured {
	const rbac, admission = "rbac.authorization.k8s.io/v1", "admissionregistration.k8s.io/v1"
	return []*unstructured.Unstructured{
		unnamed("batch/v1", "Job", v1alpha1.SystemNamespace, "support-access-uninstall"),
		unnamed("v1", "ServiceAccount", v1alpha1.SystemNamespace, "support-access-uninstall"),
		unnamed(rbac, "ClusterRole", "", "support-access-uninstall"),
		unnamed(rbac, "ClusterRoleBinding", "", "support-access-uninstall"),
		unnamed(admission, "ValidatingAdmissionPolicy", "", "support-access-uninstalling"),
		unnamed(admission, "ValidatingAdmissionPolicyBinding", "", "support-access-uninstalling"),
	}
}

// kept is true for what outlives an uninstall: the CRDs and with them the records and the policy, and the namespace in
// which tombstones and Helm's own record lie.
func kept(object *unstructured.Unstructured) bool {
	switch object.GetKind() {
	case "CustomResourceDefinition", "SupportAccessPolicy":
		return true
	default:
		return object.GetKind() == "Namespace" && object.GetName() == v1alpha1.SystemNamespace
	}
}

func (i *installation) reinstallFindsRecords(t *testing.T) {
	if err := i.helm.Install(t.Context(), i.release); err != nil {
		t.Fatal(err)
	}
	records := &v1alpha1.SupportAccessRecordList{}
	if err := i.Admin.List(t.Context(), records); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(records.Items, func(r v1alpha1.SupportAccessRecord) bool { return r.Name == "kept" }) {
		t.Errorf("the records are %v, without the one that was kept", records.Items)
	}
	i.everythingIsThere(t)
}

func (i *installation) uninstallDropsRecords(t *testing.T) {
	i.release.Values = tree("crds.keep", false)
	if err := i.helm.Upgrade(t.Context(), i.release); err != nil {
		t.Fatal(err)
	}
	// Nobody runs who would end them, and a grant that waits is not nothing.
	grants := &v1alpha1.SupportAccessGrantList{}
	if err := i.Admin.List(t.Context(), grants); err != nil {
		t.Fatal(err)
	}
	for n := range grants.Items {
		if err := i.Admin.Delete(t.Context(), &grants.Items[n]); err != nil {
			t.Fatal(err)
		}
	}
	installed := append(render(t, nil), hookObjects()...)
	if err := i.uninstall(t); err != nil {
		t.Fatal(err)
	}
	for _, object := range installed {
		if object.GetKind() == "Namespace" && object.GetName() == v1alpha1.SystemNamespace {
			continue
		}
		i.awaitGone(t, object)
	}
}

// uninstall runs helm uninstall, and plays the Jobs of its hooks.
func (i *installation) uninstall(t *testing.T) error {
	t.Helper()
	binary, err := world.Binary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
	defer cancel()
	playing := make(chan error, 1)
	go func() {
		options := kubelet.Options{Binary: binary, Dir: filepath.Join(i.Dir, "jobs")}
		playing <- kubelet.PlayJobs(ctx, i.ControlPlane, i.release.Namespace, options)
	}()
	err = i.helm.Uninstall(ctx, i.release)
	cancel()
	return errors.Join(err, <-playing)
}

// awaitGone waits until an object is gone, or its kind.
func (i *installation) awaitGone(t *testing.T, object *unstructured.Unstructured) {
	t.Helper()
	world.Eventually(t, identity(object)+" is gone", func() error {
		err := i.Admin.Get(t.Context(), client.ObjectKeyFromObject(object), object.DeepCopy())
		if apierrors.IsNotFound(err) || strings.Contains(fmt.Sprint(err), "no matches for kind") {
			return nil
		}
		return errors.Join(err, errors.New("it is there"))
	})
}

// unnamed is an object of which only the name is known.
func unnamed(apiVersion, kind, namespace, name string) *unstructured.Unstructured {
	object := &unstructured.Unstructured{}
	object.SetAPIVersion(apiVersion)
	object.SetKind(kind)
	object.SetNamespace(namespace)
	object.SetName(name)
	return object
}

// simpleGrant is a grant that the default policy takes.
func simpleGrant(namespace, name string) *v1alpha1.SupportAccessGrant {
	return &v1alpha1.SupportAccessGrant{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.SupportAccessGrantSpec{
			Case:      &v1alpha1.Case{ID: "CASE-1"},
			Reason:    "for the test",
			Engineers: []v1alpha1.Engineer{{Name: "ana@vendor.example"}},
			Duration:  "24h",
		},
	}
}

// namespaceAdmin is for somebody who is admin of one namespace.
func (i *installation) namespaceAdmin(t *testing.T, namespace, name string) *rest.Config {
	t.Helper()
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: i.Name("admin")},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}},
	}
	if err := i.Admin.Create(t.Context(), binding); err != nil {
		t.Fatal(err)
	}
	return i.Config(name)
}
