package gateway

import (
	"fmt"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/world"
)

// through is the grant by another replica of the gateway.
func (g *grant) through(t *testing.T, ip string) *grant {
	t.Helper()
	content, err := os.ReadFile(g.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	other := *g
	other.kubeconfig = g.kubeconfig + "-" + ip
	moved := strings.ReplaceAll(string(content), "https://"+theInstallation.ip+":", "https://"+ip+":")
	if err := os.WriteFile(other.kubeconfig, []byte(moved), 0o600); err != nil {
		t.Fatal(err)
	}
	return &other
}

// disconnected waits until the condition is so.
func (g *grant) disconnected(t *testing.T, want metav1.ConditionStatus, says string) {
	t.Helper()
	world.Eventually(t, fmt.Sprintf("Disconnected is %s and says %q", want, says), func() error {
		found := &v1alpha1.SupportAccessGrant{}
		if err := g.scene.tess.Get(t.Context(), client.ObjectKeyFromObject(g.SupportAccessGrant), found); err != nil {
			return err
		}
		c := apimeta.FindStatusCondition(found.Status.Conditions, v1alpha1.ConditionDisconnected)
		if c == nil || c.Status != want || !strings.Contains(c.Message, says) {
			return fmt.Errorf("it is %+v", c)
		}
		return nil
	})
}

func TestThatEverybodyIsDisconnectedIsSaidOnlyWhenEveryReplicaHasSaidSo(t *testing.T) {
	s := newScene(t)
	g := s.grants(t, "case-replicas")
	streams := []*stream{g.starts(t, "imap", nil, "get", "configmaps", "-w")}
	var hanging *world.Operator
	for range 2 {
		ip, err := world.GatewayIP()
		if err != nil {
			t.Fatal(err)
		}
		hanging = s.StartGateway(t, s.installation, ip)
		streams = append(streams, g.through(t, ip).starts(t, "imap", nil, "get", "configmaps", "-w"))
	}
	if err := hanging.Pause(); err != nil {
		t.Fatal(err)
	}
	decision := &v1alpha1.SupportAccessDecision{
		ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: "end-replicas"},
		Spec: v1alpha1.SupportAccessDecisionSpec{
			Action: v1alpha1.ActionRevoke, Target: v1alpha1.DecisionTarget{Grant: g.Name}, Reason: "seen enough",
		},
	}
	if err := s.tess.Create(t.Context(), decision); err != nil {
		t.Fatal(err)
	}
	g.is(t, v1alpha1.StateRevoked)
	for _, stream := range streams[:2] {
		<-stream.Done()
	}
	g.disconnected(t, metav1.ConditionUnknown, hanging.Name)
	select {
	case <-streams[2].Done():
		t.Error("the stream of the replica that hangs has ended: nothing is shown")
	default:
	}
	if err := hanging.Resume(); err != nil {
		t.Fatal(err)
	}
	<-streams[2].Done()
	g.disconnected(t, metav1.ConditionTrue, "")
}

func TestAReplicaWhosePodIsGoneHoldsNothingBack(t *testing.T) {
	s := newScene(t)
	for name, before := range map[string]bool{"case-gone-before": true, "case-gone-after": false} {
		if !before && testing.Short() {
			continue // It is waited for half a minute until a replica counts as silent.
		}
		t.Run(name, func(t *testing.T) {
			g := s.grants(t, name)
			ip, err := world.GatewayIP()
			if err != nil {
				t.Fatal(err)
			}
			lost := s.StartGateway(t, s.installation, ip)
			watch := g.through(t, ip).starts(t, "imap", nil, "get", "configmaps", "-w")
			// Its node is lost: the process is gone without a word, and the API server is not told.
			if err := lost.Kill(); err != nil {
				t.Fatal(err)
			}
			<-watch.Done()
			decision := &v1alpha1.SupportAccessDecision{
				ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: "end-" + name},
				Spec: v1alpha1.SupportAccessDecisionSpec{
					Action: v1alpha1.ActionRevoke, Target: v1alpha1.DecisionTarget{Grant: g.Name}, Reason: "seen enough",
				},
			}
			isOver := func() {
				if err := s.tess.Create(t.Context(), decision); err != nil {
					t.Fatal(err)
				}
				g.is(t, v1alpha1.StateRevoked)
			}
			if !before {
				isOver()
				g.disconnected(t, metav1.ConditionUnknown, lost.Name)
			}
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: lost.Name}}
			if err := s.Admin.Delete(t.Context(), pod, client.GracePeriodSeconds(0)); err != nil {
				t.Fatal(err)
			}
			if before {
				isOver()
			}
			g.disconnected(t, metav1.ConditionTrue, "")
		})
	}
}
