package cli

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
)

func TestWhatWasLeftBehindIsShownWithWhatToDeleteAndToRotate(t *testing.T) {
	behind := &v1alpha1.LeftBehind{
		Objects: []v1alpha1.LeftObject{
			{Group: "rbac.authorization.k8s.io", Resource: "rolebindings", Namespace: "shop", Name: "it's $(me)", Deed: v1alpha1.DeedCreated, Outlives: v1alpha1.OutlivingPermissions, By: "ana"},
			{Resource: "configmaps", Namespace: "shop", Name: "gone", Deed: v1alpha1.DeedCreated},
			{Resource: "configmaps", Namespace: "shop", Name: "changed", Deed: v1alpha1.DeedChanged, Doubt: v1alpha1.DoubtUnconfirmed},
			{Resource: "namespaces", Name: "--all", Deed: v1alpha1.DeedCreated},
		},
		DroppedObjects: 7, Unknown: "the audit log begins later",
		Seen: []v1alpha1.SeenObject{{Kind: v1alpha1.SeenSecret, Namespace: "shop", Name: "imap", By: "ben"}},
	}
	var out bytes.Buffer
	if err := printLeft(&out, found{behind: behind, now: []string{isThere, isGone, isThere, isThere}, rotate: []string{"Secret imap in shop"}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"rolebindings.rbac.authorization.k8s.io", "Changed, unconfirmed", "7 more are in the audit log", "Secret imap in shop", "There may be more: the audit log begins later.",
		`kubectl delete 'rolebindings.rbac.authorization.k8s.io/it'\''s $(me)' -n shop`, "kubectl delete namespaces/--all\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, out.String())
		}
	}
	if n := strings.Count(out.String(), "kubectl delete"); n != 2 {
		t.Errorf("it says %d times what to delete:\n%s", n, out.String())
	}
}

func TestNothingLeftBehindIsSaidInASentence(t *testing.T) {
	var out bytes.Buffer
	if err := printLeft(&out, found{behind: &v1alpha1.LeftBehind{}}); err != nil || out.String() != "Nothing was left behind, and there is nothing to rotate.\n" {
		t.Errorf("it says %q, %v", out.String(), err)
	}
}

func TestWhatIsLeftIsToldOnceItIsKnown(t *testing.T) {
	used := []v1alpha1.EngineerInstant{{Name: gen.Engineer, Time: metav1.NewMicroTime(gen.Epoch)}}
	ended := gen.Record(gen.Grant("g", "n"), gen.WithRecordEnd(gen.Epoch, "Expired", "us"))
	waiting, told := ended.DeepCopy(), ended.DeepCopy()
	waiting.Status.FirstUses, told.Status.FirstUses, told.Status.LeftBehind = used, used, &v1alpha1.LeftBehind{}
	for sentence, c := range map[string]struct {
		record *v1alpha1.SupportAccessRecord
		want   string
	}{
		"an open grant":          {gen.Record(gen.Grant("g", "n")), "has not ended"},
		"used, and not told yet": {waiting, "is not known yet"},
		"told":                   {told, ""},
		"nobody used it":         {ended, ""},
	} {
		if got := notToldYet(c.record); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: it says %q, want %q", sentence, got, c.want)
		}
	}
}

func TestEverySecretThatLiesOpenInAPodIsNamedOnce(t *testing.T) {
	from := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	spec := &corev1.PodSpec{
		Volumes: []corev1.Volume{
			{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "mounted"}}},
			{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{Secret: &corev1.SecretProjection{LocalObjectReference: from("projected")}}, {ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}},
			}}}},
			{VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		},
		InitContainers: []corev1.Container{{EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: from("all")}}}}},
		Containers: []corev1.Container{{Env: []corev1.EnvVar{
			{Name: "A", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: from("one")}}},
			{Name: "B", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: from("mounted")}}},
			{Name: "C", Value: "plain"},
		}}},
	}
	if got, want := secretsOf(spec), []string{"all", "mounted", "one", "projected"}; !slices.Equal(got, want) {
		t.Errorf("they are %q, want %q", got, want)
	}
}
