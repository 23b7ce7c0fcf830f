package e2e

import (
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

func TestANamespaceShowsThatItIsOpenAsLongAsItIs(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	const ben = "ben@vendor.example"
	banner := &corev1.ConfigMap{}
	shows := func(engineers, grants string) {
		t.Helper()
		world.Eventually(t, "the banner names "+engineers, func() error {
			*banner = corev1.ConfigMap{}
			err := tn.Admin.Get(t.Context(), client.ObjectKey{Namespace: tn.namespace, Name: v1alpha1.BannerConfigMap}, banner)
			if engineers == "" && apierrors.IsNotFound(err) {
				return nil
			}
			if err == nil && (engineers == "" || banner.Data["engineers"] != engineers || banner.Data["grant"] != grants) {
				return fmt.Errorf("it says %v", banner.Data)
			}
			return err
		})
	}
	shows("", "")
	one := tn.opens(t, "one", gen.WithEngineers(gen.Engineer, ben))
	ones := tn.namespace + "/one"
	shows(gen.Engineer+", "+ben, ones)
	object, err := one.get(t)
	if err != nil {
		t.Fatal(err)
	}
	if until := object.Status.ExpirationTime.UTC().Format("2006-01-02T15:04:05Z"); banner.Data["until"] != until {
		t.Errorf("until %s, and the grant ends at %s", banner.Data["until"], until)
	}
	// The namespace's admin cannot make it say something else, and taken away it comes back.
	changed := banner.DeepCopy()
	changed.Data["text"] = "Call this number"
	if err := tn.admin.Update(t.Context(), changed); !apierrors.IsForbidden(err) {
		t.Errorf("the namespace's admin writes the banner: %v", err)
	}
	before := banner.UID
	if err := tn.admin.Delete(t.Context(), banner); err != nil {
		t.Fatal(err)
	}
	world.Eventually(t, "the banner is back", func() error {
		if shows(gen.Engineer+", "+ben, ones); banner.UID == before {
			return errors.New("it is the one of before")
		}
		return nil
	})
	tn.admin.decides(t, tn.namespace, "off", gen.RevokingEngineer("one", ben))
	shows(gen.Engineer, ones)
	tn.opens(t, "two", gen.WithEngineers(ben))
	shows(gen.Engineer+", "+ben, ones+", "+tn.namespace+"/two")
	tn.admin.decides(t, tn.namespace, "all", gen.RevokingNamespace())
	shows("", "")
}
