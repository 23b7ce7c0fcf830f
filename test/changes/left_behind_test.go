package changes

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/cli"
	"supportaccess.dev/operator/test/world"
)

// leftBehind ends a grant and returns what its record then says was left behind.
func (s *scene) leftBehind(t *testing.T, e *engineer) *v1alpha1.LeftBehind {
	t.Helper()
	if err := s.Admin.Delete(t.Context(), e.grant); err != nil {
		t.Fatal(err)
	}
	record := &v1alpha1.SupportAccessRecord{}
	world.Eventually(t, "the record says what was left behind", func() error {
		if err := s.Admin.Get(t.Context(), client.ObjectKeyFromObject(e.grant), record); err != nil {
			return err
		}
		if record.Status.LeftBehind == nil {
			return errors.New("it does not")
		}
		return nil
	})
	return record.Status.LeftBehind
}

// wordsOf writes what was left behind as one line each.
func wordsOf(behind *v1alpha1.LeftBehind) []string {
	var words []string
	for _, o := range behind.Objects {
		words = append(words, strings.TrimRight(fmt.Sprintf("%s %s %s/%s %s %s", o.Deed, o.Resource, o.Group, o.Name, o.Outlives, o.Doubt), " "))
	}
	for _, s := range behind.Seen {
		words = append(words, fmt.Sprintf("seen %s %s", s.Kind, s.Name))
	}
	return words
}

func TestTheRecordOfAnEndedGrantSaysWhatWasMadeOrChangedAndNotDeletedAndWhatIsToBeRotated(t *testing.T) {
	s := newScene(t)
	e := s.comes(t, "case-left")
	namespace := e.grant.Namespace
	for name, data := range map[string]map[string][]byte{"imap": {"password": []byte("x")}, "untouched": nil} {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: data}
		if err := s.Admin.Create(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
	}
	does := func(method, path, kind, body string, want int) {
		t.Helper()
		if status, answer, err := e.asks(t, method, path, kind, body); err != nil || status != want {
			t.Fatalf("%s %s: %d, want %d: %s %v", method, path, status, want, answer, err)
		}
	}
	core, apps := "/api/v1/namespaces/"+namespace, "/apis/apps/v1/namespaces/"+namespace
	named := func(name string) string { return strings.Replace(aConfigMap, "settings", name, 1) }
	does(http.MethodPost, core+"/configmaps", inJSON, named("stays"), 201)
	does(http.MethodPatch, core+"/configmaps/stays", inMerge, `{"data":{"b":"2"}}`, 200)
	does(http.MethodPost, core+"/configmaps", inJSON, `{"metadata":{"generateName":"by-server-"}}`, 201)
	does(http.MethodPatch, core+"/configmaps/applied?fieldManager=me", inApply, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: applied}\n", 201)
	does(http.MethodPost, core+"/configmaps?dryRun=All", inJSON, named("a-trial"), 201)
	does(http.MethodPost, core+"/configmaps", inJSON, named("goes"), 201)
	does(http.MethodDelete, core+"/configmaps/goes", inJSON, "", 200)
	does(http.MethodPost, core+"/configmaps", inJSON, `{"metadata":{"name":"swept","labels":{"sweep":"yes"}}}`, 201)
	does(http.MethodDelete, core+"/configmaps?labelSelector=sweep%3Dyes", inJSON, "", 200)
	does(http.MethodPost, core+"/configmaps", inJSON, `{"metadata":{"name":"held","finalizers":["example.com/hold"]}}`, 201)
	does(http.MethodDelete, core+"/configmaps/held", inJSON, "", 200)
	does(http.MethodPost, apps+"/deployments", inJSON, aDeployment, 201)
	does(http.MethodDelete, apps+"/deployments/web", inJSON, `{"propagationPolicy":"Orphan"}`, 200)
	does(http.MethodPost, apps+"/deployments", inJSON, `{"metadata":{"name":"broken"},"spec":{}}`, 422)
	does(http.MethodGet, core+"/secrets/imap", "", "", 200)
	does(http.MethodGet, core+"/secrets/missing", "", "", 404)
	does(http.MethodPost, "/apis/rbac.authorization.k8s.io/v1/namespaces/"+namespace+"/rolebindings", inJSON, `{"metadata":{"name":"for-ever"}}`, 403)
	does(http.MethodPost, core+"/serviceaccounts/default/token", inJSON, `{}`, 403)

	behind := s.leftBehind(t, e)
	words := wordsOf(behind)
	for i, word := range words {
		if strings.Contains(word, "by-server-") {
			words[i] = "Created configmaps /by-server-"
		}
	}
	want := []string{
		"Created deployments apps/web Workload DeletionAsked",
		"Created configmaps /applied", "Created configmaps /by-server-", "Created configmaps /held  DeletionAsked", "Created configmaps /stays",
		"seen Secret imap",
	}
	same(t, "what was left behind", map[string]any{"all": words}, map[string]any{"all": want})
	if behind.Unknown != "" || behind.DroppedObjects != 0 || behind.DroppedSeen != 0 {
		t.Errorf("not all is known: %q, %d and %d more", behind.Unknown, behind.DroppedObjects, behind.DroppedSeen)
	}
	stays := &corev1.ConfigMap{}
	if err := s.Admin.Get(t.Context(), types.NamespacedName{Namespace: namespace, Name: "stays"}, stays); err != nil {
		t.Fatal(err)
	}
	for _, o := range behind.Objects {
		if o.Name == "stays" && (o.UID != stays.UID || o.By != e.grant.Spec.Engineers[0].Name || o.Namespace != namespace) {
			t.Errorf("on record is %+v, the object has UID %s", o, stays.UID)
		}
	}
}

// showsLeft runs the plugin as an admin, and returns what it prints.
func (s *scene) showsLeft(t *testing.T, e *engineer) string {
	t.Helper()
	var out, errOut bytes.Buffer
	desk := &cli.Desk{Streams: genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &errOut}, Clock: clock.RealClock{}, Version: "test"}
	kubeconfig := s.Kubeconfig(t, s.ControlPlane.AdminConfig(), e.grant.Namespace)
	if code := desk.Run(t.Context(), []string{"left-behind", e.grant.Name, "--kubeconfig", kubeconfig, "--cache-dir", t.TempDir()}); code != 0 {
		t.Fatalf("it returns %d: %s", code, errOut.String())
	}
	return out.String()
}

func TestThePluginAsksWithTheAdminsRightsWhatIsStillThere(t *testing.T) {
	s := newScene(t)
	e := s.comes(t, "case-still")
	maps := "/api/v1/namespaces/" + e.grant.Namespace + "/configmaps"
	for _, name := range []string{"there", "gone", "another"} {
		if status, answer, err := e.asks(t, http.MethodPost, maps, inJSON, strings.Replace(aConfigMap, "settings", name, 1)); err != nil || status != 201 {
			t.Fatalf("%d %s %v", status, answer, err)
		}
	}
	s.leftBehind(t, e)
	for _, name := range []string{"gone", "another"} {
		if err := s.Admin.Delete(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: e.grant.Namespace, Name: name}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Admin.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: e.grant.Namespace, Name: "another"}}); err != nil {
		t.Fatal(err)
	}
	shown := s.showsLeft(t, e)
	for _, want := range []string{
		`(?m)^yes +configmaps +\S+ +there +Created `, `(?m)^no +configmaps +\S+ +gone +Created `, `(?m)^another of that name +configmaps +\S+ +another +Created `,
		`(?m)^  kubectl delete configmaps/there -n ` + e.grant.Namespace + `$`,
	} {
		if !regexp.MustCompile(want).MatchString(shown) {
			t.Errorf("it does not say %s:\n%s", want, shown)
		}
	}
	if strings.Count(shown, "kubectl delete") != 1 {
		t.Errorf("more is to be deleted than is there:\n%s", shown)
	}
}

func TestAGatewayThatIsStartedAgainInTheMiddleForgetsNothingOfWhatWasLeftBehind(t *testing.T) {
	s := newScene(t)
	e := s.comes(t, "case-restarted")
	maps := "/api/v1/namespaces/" + e.grant.Namespace + "/configmaps"
	if status, answer, err := e.asks(t, http.MethodPost, maps, inJSON, aConfigMap); err != nil || status != 201 {
		t.Fatalf("%d %s %v", status, answer, err)
	}
	if err := s.gateway.Kill(); err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: s.gateway.Name}}
	if err := s.Admin.Delete(t.Context(), pod, client.GracePeriodSeconds(0)); client.IgnoreNotFound(err) != nil {
		t.Fatal(err)
	}
	if err := s.Admin.Delete(t.Context(), e.grant); err != nil {
		t.Fatal(err)
	}
	s.gateway = s.StartGateway(t, theInstallation.installation, theInstallation.ip)
	record := &v1alpha1.SupportAccessRecord{}
	world.Eventually(t, "the record says what was left behind", func() error {
		if err := s.Admin.Get(t.Context(), client.ObjectKeyFromObject(e.grant), record); err != nil {
			return err
		}
		if record.Status.LeftBehind == nil {
			return errors.New("it does not")
		}
		return nil
	})
	same(t, "what was left behind", map[string]any{"all": wordsOf(record.Status.LeftBehind)}, map[string]any{"all": []string{"Created configmaps /settings"}})
}
