package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"supportaccess.dev/operator/hack/controlplane"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// kubectls are those of this machine besides the one of the control plane's version: the one that PATH finds, and the
// versions that lie beside it.
func kubectls(t *testing.T) []string {
	t.Helper()
	first, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("this machine has no kubectl of its own")
	}
	if resolved, err := filepath.EvalSymlinks(first); err == nil {
		first = resolved
	}
	beside, err := filepath.Glob(first + ".1.*")
	if err != nil {
		t.Fatal(err)
	}
	all := append([]string{first}, beside...)
	if testing.Short() && len(all) > 2 {
		// The oldest speaks SPDY alone.
		return all[:2]
	}
	return all
}

// with is the grant by another kubectl.
func (g *grant) with(kubectl string) *grant {
	other := *g
	other.tool = kubectl
	return &other
}

// runs runs a program as the engineer.
func (g *grant) runs(t *testing.T, env []string, program string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, program, args...)
	command.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + g.scene.Dir, "KUBECONFIG=" + g.kubeconfig}, env...)
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	if err := command.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", filepath.Base(program), strings.Join(args, " "), err, strings.TrimSpace(out.String()))
	}
	return out.String(), nil
}

func TestEveryKubectlOfThisMachineLooksFollowsAndIsCut(t *testing.T) {
	s := newScene(t)
	for i, tool := range append([]string{s.ControlPlane.Kubectl()}, kubectls(t)...) {
		t.Run(filepath.Base(tool), func(t *testing.T) {
			s.seesItAllAndIsCut(t, fmt.Sprintf("case-tool-%d", i), tool)
		})
	}
}

func (s *scene) seesItAllAndIsCut(t *testing.T, name, tool string) {
	t.Helper()
	g := s.grants(t, name, gen.WithRoles(gen.Configuration, gen.Diagnostics, gen.Content)).with(tool)
	for _, c := range []struct {
		says string
		args []string
	}{
		{"Name:", []string{"describe", "deployment", "mail-archive"}},
		{"connectors", []string{"api-resources", "--api-group=mail-archive.vendor.example"}},
		{"FIELD", []string{"explain", "connectors.spec"}},
		{"yes", []string{"auth", "can-i", "list", "pods"}},
		{"pods/log", []string{"auth", "can-i", "--list"}},
		{"Server Version", []string{"version"}},
	} {
		if out, err := g.runs(t, nil, tool, c.args...); err != nil || !strings.Contains(out, c.says) {
			t.Errorf("%v: %q does not say %q", err, out, c.says)
		}
	}
	for _, c := range []struct {
		says string
		args []string
	}{
		{"no", []string{"auth", "can-i", "delete", "pods"}},
		{"Metrics API not available", []string{"top", "pods"}},
		{"none of its roles", []string{"delete", "pod", s.pod}},
		{"a rule that never bends", []string{"port-forward", s.pod, ":8080"}},
		{"files are not carried away", []string{"cp", s.pod + ":/etc/hostname", filepath.Join(s.Dir, "stolen")}},
		{"files are not carried away", []string{"cp", g.kubeconfig, s.pod + ":/tmp/"}},
	} {
		if out, err := g.runs(t, nil, tool, c.args...); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("kubectl %s: %q, %v: want it refused with %q", strings.Join(c.args, " "), out, err, c.says)
		}
	}
	spdy, webSocket := []string{"KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false"}, []string{"KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true"}
	streams := []*stream{
		g.starts(t, "imap", nil, "get", "configmaps", "-w"),
		g.starts(t, "imap", nil, "get", "configmaps", "-w", "-o", "json"),
		g.starts(t, "", nil, "logs", "-f", s.pod),
		g.starts(t, "here", webSocket, "exec", "-i", s.pod, "--", "sh", "-c", "echo here; sleep 120"),
		g.starts(t, "here", spdy, "exec", "-i", s.pod, "--", "sh", "-c", "echo here; sleep 120"),
		g.starts(t, "", webSocket, "attach", "-i", s.pod),
		g.starts(t, "", spdy, "attach", "-i", s.pod),
	}
	s.haveBegun(t, g, "log", 1)
	// A kubectl whose connection is cut while it still agrees on its streams waits for an answer for 30 s by itself.
	world.Eventually(t, "whoever follows or is attached sees what the pod says", func() error {
		if err := s.ControlPlane.AppendPodLog("seen by all"); err != nil {
			return err
		}
		for _, stream := range streams {
			if strings.Contains(stream.Name(), " attach ") && !strings.Contains(stream.Said(), "seen by all") {
				return fmt.Errorf("%s says %q", stream.Name(), stream.Said())
			}
		}
		return nil
	})
	since := g.revoke(t)
	for _, stream := range streams {
		after := stream.isCut(t, since)
		t.Logf("%6s  %s: %.120q", after.Round(time.Millisecond), stream.Name(), stream.Said())
		if after > 5*time.Second {
			t.Errorf("%s went on for %s", stream.Name(), after)
		}
	}
}

// helmDriver has Helm keep its releases in ConfigMaps: Secrets are never listed by an engineer.
var helmDriver = []string{"HELM_DRIVER=configmap"}

func TestHelmWorksWithReleasesInConfigMapsAndIsToldWhyItDoesNotWithSecrets(t *testing.T) {
	s := newScene(t)
	g := s.grants(t, "case-helm", gen.WithRoles(gen.Configuration, maintenance))
	root, err := controlplane.Root()
	if err != nil {
		t.Fatal(err)
	}
	helm := filepath.Join(root, "bin", "helm")
	if _, err := os.Stat(helm); errors.Is(err, os.ErrNotExist) {
		t.Skip("make builds bin/helm")
	}
	chart := s.aChart(t)
	if out, err := g.runs(t, nil, helm, "list", "-n", tenant); err == nil || !strings.Contains(err.Error(), "a rule that never bends: allows list of secrets") {
		t.Errorf("releases in Secrets: %q, %v", out, err)
	}
	for _, c := range []struct {
		says string
		args []string
	}{
		{"deployed", []string{"upgrade", "--install", "fix", chart}},
		{"deployed", []string{"upgrade", "--install", "fix", chart, "--set", "value=two"}},
		{"fix", []string{"list"}},
		{"REVISION: 2", []string{"status", "fix"}},
		{"value: two", []string{"get", "values", "fix"}},
		{"ConfigMap", []string{"get", "manifest", "fix"}},
		{"2", []string{"history", "fix"}},
		{"uninstalled", []string{"uninstall", "fix"}},
	} {
		if out, err := g.runs(t, helmDriver, helm, append(c.args, "-n", tenant)...); err != nil || !strings.Contains(out, c.says) {
			t.Errorf("%v: %q does not say %q", err, out, c.says)
		}
	}
}

// aChart writes a chart of one ConfigMap.
func (s *scene) aChart(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(s.Dir, "fix")
	for name, content := range map[string]string{
		"Chart.yaml":          "apiVersion: v2\nname: fix\nversion: 1.0.0\n",
		"values.yaml":         "value: one\n",
		"templates/fix.yaml":  "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: fix}\ndata: {value: {{ .Values.value | quote }}}\n",
		"templates/NOTES.txt": "fixed\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
