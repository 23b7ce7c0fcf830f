package gateway

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// elsewhere is one more API server, and a replica of the gateway that asks that one alone.
type elsewhere struct {
	gateway *world.Operator
	ip      string
	// tess asks that API server.
	tess client.Client
}

func (s *scene) elsewhere(t *testing.T) *elsewhere {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	server, err := s.ControlPlane.AnotherAPIServer(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	ip, err := world.GatewayIP()
	if err != nil {
		t.Fatal(err)
	}
	other, err := world.OpenGateway(ctx, server, s.installation, world.OperatorOptions{Dir: filepath.Join(s.Dir, "pods"), IP: ip})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := other.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the other gateway's log ends with:\n%s", other.Tail())
		}
	})
	return &elsewhere{gateway: other, ip: ip, tess: s.ClientFor(t, server.UserConfig(tess))}
}

func TestARevocationAtOneAPIServerCutsWhoCameInByAnother(t *testing.T) {
	s := newScene(t)
	other := s.elsewhere(t)
	for name, end := range map[string]func(*testing.T, *grant) time.Time{
		"case-deleted": func(t *testing.T, g *grant) time.Time { return g.revoke(t) },
		"case-decided": func(t *testing.T, g *grant) time.Time {
			decision := &v1alpha1.SupportAccessDecision{
				ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: "end-" + g.Name},
				Spec:       v1alpha1.SupportAccessDecisionSpec{Action: v1alpha1.ActionRevoke, Target: v1alpha1.DecisionTarget{Grant: g.Name}, Reason: "seen enough"},
			}
			if err := s.tess.Create(t.Context(), decision); err != nil {
				t.Fatal(err)
			}
			return time.Now()
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := s.grants(t, name, gen.WithRoles(gen.Configuration, gen.Content))
			there := g.through(t, other.ip)
			streams := []*stream{
				g.starts(t, "imap", nil, "get", "configmaps", "-w"),
				there.starts(t, "imap", nil, "get", "configmaps", "-w"),
				there.starts(t, "here", nil, "exec", "-i", s.pod, "--", "sh", "-c", "echo here; sleep 120"),
			}
			since := end(t, g)
			for i, stream := range streams {
				after := stream.isCut(t, since)
				t.Logf("%6s  %s, by the API server of replica %d", after.Round(time.Millisecond), stream.Name(), min(i, 1))
				if after > 5*time.Second {
					t.Errorf("%s went on for %s", stream.Name(), after)
				}
			}
			if out, err := there.kubectl(t, "get", "configmaps"); err == nil {
				t.Errorf("after the end: %s", out)
			}
			if name == "case-decided" {
				g.disconnected(t, metav1.ConditionTrue, "")
			}
		})
	}
	if other.gateway.Exited() {
		t.Error("the replica by the other API server has ended")
	}
}

func TestWithOneAPIServerHangingTheGatewayByTheOtherServesAndCuts(t *testing.T) {
	s := newScene(t)
	g := s.grants(t, "case-hanging")
	other := s.elsewhere(t)
	there := g.through(t, other.ip)
	watch := there.starts(t, "imap", nil, "get", "configmaps", "-w")
	// A controller that cannot renew its lease ends.
	if err := s.operator.Stop(); err != nil {
		t.Fatal(err)
	}
	resume, err := s.ControlPlane.PauseAPIServer()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := resume(); err != nil {
			t.Error(err)
		}
	}()
	if out, err := there.kubectl(t, "get", "configmaps"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	object := &v1alpha1.SupportAccessGrant{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: g.Name}}
	if err := other.tess.Delete(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	after := watch.isCut(t, time.Now())
	t.Logf("cut after %s", after.Round(time.Millisecond))
	if after > 5*time.Second {
		t.Errorf("it went on for %s", after)
	}
}
