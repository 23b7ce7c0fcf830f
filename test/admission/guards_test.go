package admission

import (
	"context"
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/config/admission"
)

// The control plane's own users, whom the guards except.
const (
	namespaceController = "system:serviceaccount:kube-system:namespace-controller"
	garbageCollector    = "system:serviceaccount:kube-system:generic-garbage-collector"
	controllerManager   = "system:kube-controller-manager"
)

// merge patches an object without changing the one that is given.
func (p *person) merge(t *testing.T, object client.Object, patch string, options ...client.PatchOption) error {
	t.Helper()
	return p.Patch(t.Context(), object.DeepCopyObject().(client.Object), client.RawPatch(types.MergePatchType, []byte(patch)), options...)
}

func TestOurFinalizersAreRemovedByTheOperatorAlone(t *testing.T) {
	g := grant(mail, "finalized")
	w.ana.make(t, g)
	if err := w.controller.merge(t, g, `{"metadata":{"finalizers":["supportaccess.dev/close","example.com/other"]}}`); err != nil {
		t.Fatal(err)
	}
	d := decision(mail)
	w.ana.make(t, d)
	for finalizer, object := range map[string]client.Object{v1alpha1.FinalizerGrant: g, v1alpha1.FinalizerDecision: d} {
		for _, who := range []*person{w.ana, w.root} {
			for _, patch := range []string{`{"metadata":{"finalizers":null}}`, `{"metadata":{"finalizers":["example.com/other"]}}`} {
				refused(t, who.merge(t, object, patch, client.DryRunAll), "support-access-finalizers",
					"metadata.finalizers: "+finalizer+" is removed by the operator alone, once nothing is open and the record is written")
			}
		}
		// What leaves ours alone is nobody's business.
		taken(t, w.ana.merge(t, object, `{"metadata":{"finalizers":["`+finalizer+`"],"labels":{"a":"b"}}}`, client.DryRunAll))
		for _, user := range []string{namespaceController, garbageCollector, controllerManager} {
			taken(t, w.as(t, user).merge(t, object, `{"metadata":{"finalizers":null}}`, client.DryRunAll))
		}
		taken(t, w.controller.merge(t, object, `{"metadata":{"finalizers":null}}`, client.DryRunAll))
	}
}

func TestStatusIsWrittenByTheOperatorAlone(t *testing.T) {
	g := grant(mail, "with-status")
	w.ana.make(t, g)
	d := decision(mail)
	w.ana.make(t, d)
	patches := map[client.Object]string{
		g: `{"status":{"endReason":"Expired"}}`,
		d: `{"status":{"grants":1}}`,
	}
	for object, patch := range patches {
		for _, who := range []*person{w.ana, w.root, w.as(t, namespaceController)} {
			err := who.Status().Patch(t.Context(), object.DeepCopyObject().(client.Object), client.RawPatch(types.MergePatchType, []byte(patch)))
			refused(t, err, "support-access-status", "status: is written by the operator alone, not by "+who.name)
		}
		taken(t, w.controller.Status().Patch(t.Context(), object.DeepCopyObject().(client.Object), client.RawPatch(types.MergePatchType, []byte(patch))))
	}
}

func TestAStatusInAManifestIsDropped(t *testing.T) {
	g := grant(mail, "forged-status", func(g *v1alpha1.SupportAccessGrant) { g.Status.EndReason = v1alpha1.EndExpired })
	w.ana.make(t, g)
	if g.Status.EndReason != "" || g.Status.ObservedGeneration != -1 {
		t.Errorf("status of a new grant: %+v", g.Status)
	}
	if err := w.ana.merge(t, g, `{"status":{"endReason":"Expired"}}`); err != nil {
		t.Fatal(err)
	}
	if err := w.ana.Get(t.Context(), client.ObjectKeyFromObject(g), g); err != nil || g.Status.EndReason != "" {
		t.Errorf("status of a patched grant: %+v, %v", g.Status, err)
	}
}

func TestRecordsAreWrittenByTheOperatorAlone(t *testing.T) {
	const records = "support-access-records"
	says := func(operation string, who *person) string {
		return "supportaccessrecords: " + operation + " by " + who.name + ": records are written and deleted by the operator alone"
	}
	r := record(mail, "recorded")
	w.controller.make(t, r)
	for _, who := range []*person{w.ana, w.cara, w.root} {
		refused(t, who.try(t, record(mail, "forged")), records, says("CREATE", who))
		refused(t, who.merge(t, r, `{"status":{"endReason":"Expired"}}`), records, says("UPDATE", who))
		refused(t, who.merge(t, r, `{"metadata":{"labels":{"a":"b"}}}`), records, says("UPDATE", who))
		refused(t, who.Delete(t.Context(), r.DeepCopy()), records, says("DELETE", who))
		refused(t, who.DeleteAllOf(t.Context(), &v1alpha1.SupportAccessRecord{}, client.InNamespace(mail)), records, says("DELETE", who))
	}
	for _, user := range []string{namespaceController, garbageCollector, controllerManager} {
		system := w.as(t, user)
		refused(t, system.try(t, record(mail, "forged")), records, says("CREATE", system))
		refused(t, system.merge(t, r, `{"status":{"endReason":"Expired"}}`), records, says("UPDATE", system))
		taken(t, system.merge(t, r, `{"metadata":{"finalizers":["foregroundDeletion"]}}`, client.DryRunAll))
		taken(t, system.Delete(t.Context(), r.DeepCopy(), client.DryRunAll))
	}
	taken(t, w.controller.merge(t, r, `{"status":{"endReason":"Expired"}}`))
	taken(t, w.controller.Delete(t.Context(), r.DeepCopy(), client.DryRunAll))
}

func TestARecordKeepsItsGrant(t *testing.T) {
	r := record(mail, "kept")
	w.controller.make(t, r)
	invalid(t, w.controller.merge(t, r, `{"spec":{"grant":{"uid":"1"}}}`), "spec.grant: a record belongs to one grant for ever")
}

func TestANamespaceWithRecordsCanBeDeleted(t *testing.T) {
	ctx := t.Context()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "doomed"}}
	if err := w.root.Create(ctx, namespace); err != nil {
		t.Fatal(err)
	}
	if err := w.controller.Create(ctx, record("doomed", "x")); err != nil {
		t.Fatal(err)
	}
	if err := w.cara.Create(ctx, grant("doomed", "x")); err != nil {
		t.Fatal(err)
	}
	if err := w.root.Delete(ctx, namespace); err != nil {
		t.Fatal(err)
	}
	err := until(ctx, "the namespace is gone", func() error {
		err := w.root.Get(ctx, client.ObjectKeyFromObject(namespace), namespace)
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is there: %v, %v", err, namespace.Status.Conditions)
	})
	if err != nil {
		t.Error(err)
	}
}

func TestAnExtraSystemUserIsExcepted(t *testing.T) {
	ctx := t.Context()
	r := record(mail, "extra")
	w.controller.make(t, r)
	backup := w.as(t, "system:serviceaccount:backup:velero")
	deletes := func() error { return backup.Delete(ctx, r.DeepCopy(), client.DryRunAll) }
	refused(t, deletes(), "support-access-records", "supportaccessrecords: DELETE by system:serviceaccount:backup:velero")

	extended, err := admission.Objects(admission.Options{Stamp: true, ExtraSystemUsers: []string{"system:serviceaccount:backup:velero"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		w.replaceAdmission(ctx, t, w.shipped)
		err := until(ctx, "the extra user is refused again", func() error {
			if isDenial(deletes(), "support-access-records") {
				return nil
			}
			return errors.New("it is not")
		})
		if err != nil {
			t.Error(err)
		}
	}()
	w.replaceAdmission(ctx, t, extended)
	if err := until(ctx, "the extra user is excepted", deletes); err != nil {
		t.Error(err)
	}
	refused(t, w.root.Delete(ctx, r.DeepCopy(), client.DryRunAll), "support-access-records", "supportaccessrecords: DELETE by cluster-admin@local")
}

// replaceAdmission makes the admission objects do what these say.
func (w *world) replaceAdmission(ctx context.Context, t *testing.T, objects []client.Object) {
	t.Helper()
	for _, object := range objects {
		stored := object.DeepCopyObject().(client.Object)
		if err := w.root.Get(ctx, client.ObjectKeyFromObject(object), stored); err != nil {
			t.Error(err)
			continue
		}
		if admission.Digest(stored) == admission.Digest(object) {
			continue
		}
		wanted := object.DeepCopyObject().(client.Object)
		wanted.SetResourceVersion(stored.GetResourceVersion())
		if err := w.root.Update(ctx, wanted); err != nil {
			t.Error(err)
		}
	}
}

// TestWithoutPoliciesAndTheirKindEverythingCanStillBeClosed deletes every policy, and then the kind.
func TestWithoutPoliciesAndTheirKindEverythingCanStillBeClosed(t *testing.T) {
	ctx := t.Context()
	const crdName = "supportaccesspolicies.supportaccess.dev"
	closing := func(when string) {
		for i, delete := range []bool{false, true} {
			g := grant(mail, fmt.Sprintf("closing-%s-%d", when, i))
			if err := w.ana.Get(ctx, client.ObjectKeyFromObject(g), g); err != nil {
				t.Fatal(err)
			}
			if delete {
				taken(t, w.ana.Delete(ctx, g))
			}
			taken(t, w.controller.Status().Patch(ctx, g.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(`{"status":{"endReason":"Revoked"}}`))))
			taken(t, w.controller.merge(t, g, `{"metadata":{"finalizers":null}}`))
			taken(t, client.IgnoreNotFound(w.ana.Delete(ctx, g)))
		}
		d := decision(mail)
		taken(t, w.ana.Create(ctx, d))
		taken(t, w.controller.merge(t, d, `{"metadata":{"finalizers":null}}`))
		r := record(mail, "closing")
		taken(t, w.controller.Create(ctx, r))
		taken(t, w.controller.Delete(ctx, r))
		// Nor does a cluster without policies lose its ordinary bindings.
		taken(t, w.root.try(t, binding(mail, "ordinary", "view", subjectUser("mallory"))))
	}
	for _, when := range []string{"policies", "kind"} {
		for i := range 2 {
			g := grant(mail, fmt.Sprintf("closing-%s-%d", when, i))
			g.Finalizers = []string{v1alpha1.FinalizerGrant}
			if err := w.ana.Create(ctx, g); err != nil {
				t.Fatal(err)
			}
		}
	}
	defer w.restorePolicies(t)

	if err := w.root.DeleteAllOf(ctx, &v1alpha1.SupportAccessPolicy{}); err != nil {
		t.Fatal(err)
	}
	err := until(ctx, "the policies are gone", func() error {
		if err := w.ana.try(t, grant(mail, "x")); isDenial(err, limits) {
			return nil
		}
		return errors.New("grants are taken")
	})
	if err != nil {
		t.Fatal(err)
	}
	closing("policies")

	if err := w.root.Delete(ctx, &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: crdName}}); err != nil {
		t.Fatal(err)
	}
	err = until(ctx, "the kind is gone", func() error {
		err := w.root.Get(ctx, client.ObjectKey{Name: crdName}, &apiextensionsv1.CustomResourceDefinition{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is there: %v", err)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.ana.try(t, grant(mail, "x")); !isDenial(err, limits) {
		t.Errorf("without the kind of policies a grant is answered: %v", err)
	}
	closing("kind")
}

// restorePolicies brings the kind and the policies back.
func (w *world) restorePolicies(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	crds, err := readCRDs()
	if err != nil {
		t.Fatal(err)
	}
	for _, crd := range crds {
		if err := w.root.Create(ctx, crd); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	if err := w.waitForCRDs(ctx); err != nil {
		t.Fatal(err)
	}
	for _, policy := range policies() {
		if err := w.root.Create(ctx, policy); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	if err := w.waitUntilAllHold(ctx); err != nil {
		t.Fatal(err)
	}
	if err := until(ctx, "grants are taken again", func() error { return w.ana.try(t, grant(mail, "x")) }); err != nil {
		t.Fatal(err)
	}
}
