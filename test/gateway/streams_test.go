package gateway

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

func TestAnEngineerWorksThroughTheGatewayAndEveryStreamIsCutWhenTheGrantIsRevoked(t *testing.T) {
	s := newScene(t)
	g := s.grants(t, "case-1", gen.WithRoles(gen.Configuration, gen.Diagnostics, gen.Content))

	for what, args := range map[string][]string{
		"imap":         {"get", "configmaps"},
		"server: imap": {"get", "configmap", "imap", "-o", "yaml"},
		"Name:":        {"describe", "pod", s.pod},
		"FIELDS":       {"explain", "deployment.spec"},
		"yes":          {"auth", "can-i", "get", "configmaps"},
		"password":     {"get", "secret", "imap", "-o", "jsonpath={.data}"},
		"mail":         {"get", "pods,deployments,services", "-o", "wide"},
	} {
		if out, err := g.kubectl(t, args...); err != nil || !strings.Contains(out, what) {
			t.Errorf("kubectl %s: %v: %q does not say %q", strings.Join(args, " "), err, out, what)
		}
	}
	for what, args := range map[string][]string{
		"a rule that never bends: allows list of secrets": {"get", "secrets"},
		"none of its roles": {"delete", "pod", s.pod},
		"namespace default: the grant is for mail-archive": {"get", "configmaps", "-n", "default"},
		"list nodes of all namespaces":                     {"get", "nodes"},
		"exec of tar":                                      {"exec", s.pod, "--", "tar", "cf", "-", "/etc"},
	} {
		if out, err := g.kubectl(t, args...); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("kubectl %s: %q, %v: want it refused with %q", strings.Join(args, " "), out, err, what)
		}
	}

	streams := []*stream{
		g.starts(t, "imap", nil, "get", "configmaps", "-w"),
		g.starts(t, "imap", nil, "get", "configmaps", "-w", "-o", "json"),
		g.starts(t, "", nil, "logs", "-f", s.pod),
		g.starts(t, "here", nil, "exec", "-i", s.pod, "--", "sh", "-c", "echo here; sleep 120"),
		g.starts(t, "here", []string{"KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false"}, "exec", "-i", s.pod, "--", "sh", "-c", "echo here; sleep 120"),
	}
	s.haveBegun(t, g, "log", 1)
	since := g.revoke(t)
	for _, stream := range streams {
		t.Logf("%6s  %s: %q", stream.isCut(t, since).Round(time.Millisecond), stream.Name(), stream.Said())
	}
	if out, err := g.kubectl(t, "get", "configmaps"); err == nil {
		t.Errorf("after the end: %s", out)
	}
	s.isAcknowledged(t, g)
}

// haveBegun waits until it is on record that so many streams have begun, which kubectl logs -f itself does not say.
func (s *scene) haveBegun(t *testing.T, g *grant, subresource string, want int) {
	t.Helper()
	world.Eventually(t, "streams of "+subresource+" have begun", func() error {
		begun := 0
		for _, entry := range s.entries(t) {
			ref, _ := entry["objectRef"].(map[string]any)
			of, _ := entry["grant"].(map[string]any)
			if entry["stage"] == "ResponseStarted" && ref["subresource"] == subresource && of["name"] == g.Name {
				begun++
			}
		}
		if begun < want {
			return fmt.Errorf("%d are on record, want %d", begun, want)
		}
		return nil
	})
}

// isAcknowledged waits until the gateway has said that nobody of a grant is connected any more.
func (s *scene) isAcknowledged(t *testing.T, g *grant) {
	t.Helper()
	world.Eventually(t, "the cut is acknowledged", func() error {
		list := &v1alpha1.SupportAccessSessionList{}
		if err := s.Admin.List(t.Context(), list); err != nil {
			return err
		}
		for _, session := range list.Items {
			if session.Spec.Grant.UID == g.UID && session.Status.CutTime != nil {
				return nil
			}
		}
		return errNotAcknowledged(list)
	})
}
