package gateway

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/hack/controlplane"
	"supportaccess.dev/operator/hack/controlplane/gobuild"
	"supportaccess.dev/operator/test/world"
)

func TestACredentialIsHandedOverAgainAndTheOldOneIsCut(t *testing.T) {
	s := newScene(t)
	g := s.grants(t, "case-again")
	g.isOutOfTheCluster(t)
	old := *g
	watch := g.starts(t, "imap", nil, "get", "configmaps", "-w")

	since := time.Now()
	g.kubeconfig = filepath.Join(s.Dir, "again.kubeconfig")
	out, err := s.plugin(t, "handover", g.Name, "--again", "--reason", "Ana has lost her laptop", "--file", g.kubeconfig)
	if err != nil || !strings.Contains(out, "lets nobody in any more") {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%s after it was asked for the old one's watch was cut: %q", watch.isCut(t, since).Round(time.Millisecond), watch.Said())
	if out, err := old.kubectl(t, "get", "configmaps"); err == nil {
		t.Errorf("with the old credential: %s", out)
	}
	// The new one was not used yet: it waits for whoever fetches it, also a second time.
	if out, err := s.plugin(t, "handover", g.Name, "--file", filepath.Join(s.Dir, "twice.kubeconfig")); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := g.kubectl(t, "get", "configmaps"); err != nil || !strings.Contains(out, "imap") {
		t.Errorf("with the new credential: %v: %s", err, out)
	}
	g.isOutOfTheCluster(t)

	record := &v1alpha1.SupportAccessRecord{}
	if err := s.Admin.Get(t.Context(), client.ObjectKey{Namespace: tenant, Name: g.Name}, record); err != nil {
		t.Fatal(err)
	}
	replaced := 0
	for _, transition := range record.Status.Transitions {
		if transition.Type == v1alpha1.TransitionCredentialReplaced {
			replaced++
			if transition.By != tess || !strings.Contains(transition.Message, "Ana has lost her laptop") {
				t.Errorf("on record is %+v", transition)
			}
		}
	}
	if replaced != 1 {
		t.Errorf("it is %d times on record: %v", replaced, record.Status.Transitions)
	}
	g.revoke(t)
}

// isOutOfTheCluster waits until the credential, which was used, lies nowhere any more, and the grant is open.
func (g *grant) isOutOfTheCluster(t *testing.T) {
	t.Helper()
	ref := g.Status.Engineers[0].CredentialSecretRef
	world.Eventually(t, "the credential is out of the cluster", func() error {
		err := g.scene.Admin.Get(t.Context(), client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, &corev1.Secret{})
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("reading its Secret gives %v", err)
		}
		now := &v1alpha1.SupportAccessGrant{}
		if err := g.scene.tess.Get(t.Context(), client.ObjectKeyFromObject(g.SupportAccessGrant), now); err != nil {
			return err
		}
		if len(now.Status.Engineers) != 1 || now.Status.Engineers[0].CredentialSecretRef != nil {
			return fmt.Errorf("the status has %+v", now.Status.Engineers)
		}
		return nil
	})
}

// plugin runs the kubectl plugin as Tess.
func (s *scene) plugin(t *testing.T, args ...string) (string, error) {
	t.Helper()
	root, err := controlplane.Root()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	path := filepath.Join(root, "bin", "kubectl-support_access")
	if err := gobuild.Program(ctx, "./cmd/kubectl-support_access", path, func(string, ...any) {}); err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(ctx, path, args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+s.Kubeconfig(t, s.Config(tess), tenant))
	out, err := command.CombinedOutput()
	if ctx.Err() != nil {
		err = errors.Join(err, ctx.Err())
	}
	return string(out), err
}
