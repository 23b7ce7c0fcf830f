package privilege

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/test/world"
)

// keyPair is an engineer's.
type keyPair struct{ *age.X25519Identity }

func newKey(t *testing.T) *keyPair {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return &keyPair{identity}
}

func random(t *testing.T) string {
	t.Helper()
	content := make([]byte, 24)
	if _, err := rand.Read(content); err != nil {
		t.Fatal(err)
	}
	return "canary-" + hex.EncodeToString(content)
}

// keepToken remembers the token of a credential.
func (r *run) keepToken(o client.Object) error {
	secret := o.(*corev1.Secret)
	kubeconfig := secret.Data[access.KeyKubeconfig]
	if encrypted := secret.Data[access.KeyEncryptedKubeconfig]; len(encrypted) > 0 {
		if len(kubeconfig) > 0 {
			return fmt.Errorf("it holds a kubeconfig in plain text beside the encrypted one")
		}
		plain, err := age.Decrypt(armor.NewReader(bytes.NewReader(encrypted)), r.key)
		if err != nil {
			return fmt.Errorf("decrypt it: %w", err)
		}
		if kubeconfig, err = io.ReadAll(plain); err != nil {
			return fmt.Errorf("decrypt it: %w", err)
		}
	}
	if len(kubeconfig) == 0 {
		return nil
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return fmt.Errorf("read the kubeconfig: %w", err)
	}
	r.keep(secret.Name+" at "+secret.ResourceVersion, config.BearerToken)
	return nil
}

// keep remembers whose a token is.
func (r *run) keep(whose, token string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tokens[whose] = token
}

// needle is a piece of a secret and whose it is.
type needle struct {
	of   string
	text []byte
}

// needles are the secrets of a run: what each token says and how it is signed, each also as part of something encoded.
// The head of a token is the same in all, those of the control plane included.
func needles(secrets map[string]string) []needle {
	var all []needle
	for of, secret := range secrets {
		pieces := []string{secret}
		if parts := strings.Split(secret, "."); len(parts) == 3 {
			pieces = parts[1:]
		}
		for _, piece := range pieces {
			for _, spelling := range spellings(piece) {
				all = append(all, needle{of: of, text: []byte(spelling)})
			}
		}
	}
	return all
}

// spellings are a text and what base64 makes of it, wherever in something longer it begins.
func spellings(text string) []string {
	all := []string{text}
	for shift := range 3 {
		encoded := base64.StdEncoding.EncodeToString([]byte(strings.Repeat(" ", shift) + text))
		// The first and the last characters depend on what is around it.
		all = append(all, encoded[4:len(encoded)-4])
	}
	return all
}

// found returns whose secrets are in a text.
func found(text []byte, all []needle) []string {
	var whose []string
	for _, n := range all {
		if bytes.Contains(text, n.text) {
			whose = append(whose, n.of)
		}
	}
	return whose
}

func TestASecretIsFoundWhereverItHides(t *testing.T) {
	secret := random(t)
	token := "head." + random(t) + ".sign-" + random(t)
	all := needles(map[string]string{"canary": secret, "token": token})
	parts := strings.Split(token, ".")
	for what, text := range map[string]string{
		"plainly": "a " + secret, "the token": token, "its payload": parts[1] + "!", "its signature": "x" + parts[2],
		"encoded": base64.StdEncoding.EncodeToString([]byte("ab" + secret + "c")), "encoded too": base64.StdEncoding.EncodeToString([]byte(token)),
	} {
		if len(found([]byte(text), all)) == 0 {
			t.Errorf("%s: not found", what)
		}
	}
	if whose := found([]byte("head. canary- sign-"), all); len(whose) > 0 {
		t.Errorf("found where there is nothing: %s", whose)
	}
}

func TestNoSecretIsAnywhere(t *testing.T) {
	r := played(t)
	secrets, ofGateway := map[string]string{"the tenant's Secret": r.canary, "what an engineer wrote": r.written, "the password of a channel": r.password}, 0
	for of, token := range r.tokens {
		secrets["the token of "+of] = token
		if strings.HasPrefix(token, access.TokenPrefix) {
			ofGateway++
		}
	}
	if ofGateway < 20 {
		t.Fatalf("only %d credentials of the gateway are known: the run issued few", ofGateway)
	}
	// Two engineers, one of them shortened; a key; and all the other scenes.
	if len(secrets) < 12 {
		t.Fatalf("only %d secrets are known: the run issued little", len(secrets))
	}
	all := needles(secrets)
	t.Logf("%d secrets, %d outputs, %d records", len(secrets), len(r.said), len(r.records))
	for who, what := range r.said {
		for _, of := range found([]byte(what), all) {
			t.Errorf("%s: contains %s", who, of)
		}
	}
	searched := r.searchFiles(t, all)
	pods := func(pod *world.Operator, path ...string) string {
		return filepath.Join(append([]string{"pods", pod.Name}, path...)...)
	}
	for _, must := range []string{
		"audit.log", "kube-apiserver.log", pods(r.operator, "log"), pods(r.gateway, "log"), pods(r.gateway, "volumes", "audit", "audit.db"),
	} {
		if searched[must] == 0 {
			t.Errorf("%s was not searched, or is empty", must)
		}
	}
	r.searchObjects(t, all)
}

// searchFiles looks into every file of the control plane, of the operator and of kubectl's home, and returns their sizes.
// In etcd's the Secrets themselves lie.
func (r *run) searchFiles(t *testing.T, all []needle) map[string]int {
	t.Helper()
	dir, sizes := r.ControlPlane.Dir(), map[string]int{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		name, _ := filepath.Rel(dir, path)
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name == "etcd":
			return fs.SkipDir
		case !entry.Type().IsRegular():
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		sizes[name] = len(content)
		for _, of := range found(content, all) {
			t.Errorf("file %s contains %s", name, of)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files", len(sizes))
	return sizes
}

// searchObjects looks into every object of the cluster but the Secrets in which secrets belong.
func (r *run) searchObjects(t *testing.T, all []needle) {
	t.Helper()
	d, err := discovery.NewDiscoveryClientForConfig(r.ControlPlane.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	lists, err := d.ServerPreferredResources()
	if err != nil {
		t.Fatalf("ask what the API server serves: %v", err)
	}
	kinds, objects := 0, 0
	for _, list := range lists {
		for _, resource := range list.APIResources {
			if !strings.Contains(resource.Verbs.String(), "list") {
				continue
			}
			kinds++
			version, _ := schema.ParseGroupVersion(list.GroupVersion)
			objects += r.searchKind(t, version.WithKind(resource.Kind+"List"), all)
		}
	}
	if kinds < 40 || objects < 200 {
		t.Errorf("only %d objects of %d kinds were searched", objects, kinds)
	}
	t.Logf("%d objects of %d kinds", objects, kinds)
}

func (r *run) searchKind(t *testing.T, kind schema.GroupVersionKind, all []needle) int {
	t.Helper()
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(kind)
	if err := r.Admin.List(t.Context(), list); err != nil {
		t.Fatalf("list %s: %v", kind, err)
	}
	for i := range list.Items {
		o := &list.Items[i]
		if o.GetKind() == "Secret" && (o.GetNamespace() == world.CredentialsNamespace || o.GetName() == canaryName || o.GetName() == v1alpha1.NotificationsSecret) {
			continue
		}
		encoded, err := o.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		for _, of := range found(encoded, all) {
			t.Errorf("%s %s/%s contains %s", o.GetKind(), o.GetNamespace(), o.GetName(), of)
		}
	}
	return len(list.Items)
}
