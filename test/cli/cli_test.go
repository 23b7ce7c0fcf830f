package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

const (
	ben  = "ben@vendor.example"
	why  = "the case is closed"
	name = "case-4711"
)

func TestAnAdminGrantsHandsOverAndRevokesWithoutYAML(t *testing.T) {
	tn := newTenant(t)
	tn.grant(t)
	if grant := tn.grants(t)[0]; grant.Status.ExpirationTime == nil || len(grant.Status.Engineers) != 1 {
		t.Errorf("--wait has not waited: %v", grant.Status)
	}
	tn.admin.run(t, "list").has(t, 0, "NAMESPACE", name, "Active", gen.Engineer, "support-access-configuration,support-access-diagnostics", gen.CaseID, tn.name, "23h")
	tn.admin.run(t, "status", name).has(t, 0, "State:", "Active", gen.Engineer, "kubeconfig in Secret support-access-credentials/", "no Secrets", "Granted", "Opened", "access exists")

	file := filepath.Join(tn.Dir, "ana.kubeconfig")
	tn.admin.run(t, "handover", name, gen.Engineer, "--file", file).has(t, 0, "Wrote "+file, "not encrypted")
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the file is %v, want 0600: %v", info, err)
	}
	tn.admin.run(t, "handover", name, gen.Engineer, "--file", file).has(t, 1, "--file: "+file+" exists")
	written := tn.admin.run(t, "handover", name)
	written.has(t, 0)
	if content, err := os.ReadFile(file); err != nil || string(content) != written.out {
		t.Errorf("handover writes one thing to a file and another to standard output: %v", err)
	}
	tn.reads(t, file)

	tn.admin.run(t, "revoke", name).has(t, 1, "--reason: is missing")
	tn.admin.run(t, "revoke", name, "--reason", why).has(t, 0, name+": access was gone after", "it is on record for 1 grants")
	tn.isRefused(t, file)
	tn.admin.run(t, "status", name).has(t, 2, "Revoked", "Ended by:", tn.name, why)
	tn.admin.run(t, "list").has(t, 0, "No grants in namespace "+tn.namespace)
	tn.admin.run(t, "list", "--all").has(t, 0, name, "Revoked", "ended")
	tn.admin.run(t, "handover", name).has(t, 2, name+" is Revoked")
	tn.admin.run(t, "revoke", name, "--reason", why).has(t, 0, name+" had ended before: Revoked")
	if made := tn.decisions(t); len(made) != 1 || made[0].Spec.DecidedBy != tn.name || made[0].Spec.Reason != why {
		t.Errorf("the decisions are %v, want one by %s", made, tn.name)
	}
	neverSaid(t, tn.admin, file)
}

// neverSaid fails if the plugin ever said the token that a kubeconfig holds.
func neverSaid(t testing.TB, p person, kubeconfig string) {
	t.Helper()
	config, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range config.AuthInfos {
		if user.Token == "" {
			t.Error("the kubeconfig has no token")
		}
		if strings.Contains(p.heard.String(), user.Token) {
			t.Error("the plugin has said the token")
		}
	}
}

func TestAnEngineerLogsInWithAKubeconfigThatIsEncrypted(t *testing.T) {
	tn := newTenant(t)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	key, pub, file := filepath.Join(tn.Dir, "key.txt"), filepath.Join(tn.Dir, "ana.pub"), filepath.Join(tn.Dir, "ana.kubeconfig.age")
	for path, content := range map[string]string{key: identity.String() + "\n", pub: "# ana\n" + identity.Recipient().String() + "\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tn.grant(t, "--engineer", gen.Engineer+"=@"+pub)
	tn.admin.run(t, "status", name).has(t, 0, "encrypted to the engineer's key")
	tn.admin.run(t, "handover", name, "--file", file).has(t, 0, "It is encrypted")

	own := filepath.Join(tn.Dir, "engineers.kubeconfig")
	if err := tn.ControlPlane.WriteKubeconfig(own, tn.Config(gen.Engineer), "elsewhere"); err != nil {
		t.Fatal(err)
	}
	before, err := clientcmd.LoadFromFile(own)
	if err != nil {
		t.Fatal(err)
	}
	engineer := tn.person(t, gen.Engineer)
	engineer.kubeconfig = own
	engineer.run(t, "login", file).has(t, 1, "--identity: is missing")
	context := "support-" + tn.namespace + "-" + name
	engineer.run(t, "login", file, "-i", key).has(t, 0, "Context "+context, "It works until")
	tn.reads(t, own, "--context", context)

	after, err := clientcmd.LoadFromFile(own)
	if err != nil {
		t.Fatal(err)
	}
	if after.CurrentContext != before.CurrentContext || len(after.Contexts) != len(before.Contexts)+1 {
		t.Errorf("login changed the current context from %q to %q, or the contexts: %v", before.CurrentContext, after.CurrentContext, after.Contexts)
	}
	engineer.run(t, "login", file, "-i", key, "--use").has(t, 0, context)
	tn.reads(t, own)
	handed := filepath.Join(tn.Dir, "handed")
	if err := clientcmd.WriteToFile(*after, handed); err != nil {
		t.Fatal(err)
	}
	if token := after.AuthInfos[context].Token; token == "" || strings.Contains(engineer.heard.String()+tn.admin.heard.String(), token) {
		t.Error("the kubeconfig has no token, or the plugin has said it")
	}
}

func TestWhoeverLacksTheRightHearsTheAPIServersWords(t *testing.T) {
	tn := newTenant(t)
	tn.grant(t)
	stranger := tn.person(t, "stranger@elsewhere.example")
	said := `User "stranger@elsewhere.example" cannot `
	stranger.run(t, "grant", "x", "--engineer", gen.Engineer, "--for", "24h", "--case", gen.CaseID, "--reason", why).has(t, 1, said+"create resource")
	stranger.run(t, "grant", "--engineer", gen.Engineer, "--for", "24h", "--case", gen.CaseID, "--reason", why).has(t, 1, said+"create resource")
	stranger.run(t, "list").has(t, 1, said+"list resource", "list the grants of namespace "+tn.namespace)
	stranger.run(t, "status", name).has(t, 1, said+"get resource")
	stranger.run(t, "revoke", name, "--reason", why).has(t, 1, said+"get resource")
	stranger.run(t, "revoke", "--all", "--yes", "--reason", why).has(t, 1, said+"list resource")
	tn.admin.run(t, "list", "-A").has(t, 1, "cannot list resource", "list the grants of the cluster")

	other := tn.newAdmin(t, "other@"+tn.namespace+".customer.example")
	other.run(t, "status", name).has(t, 0, "Active")
	other.run(t, "handover", name).has(t, 1, `cannot get resource "secrets"`, "Only who granted, "+tn.name+", may fetch it")

	tn.admin.run(t, "grant", "x", "--engineer", "eve@else.example", "--for", "24h", "--case", gen.CaseID, "--reason", why).
		has(t, 1, "eve@else.example does not match", "the engineerPattern of policy")
	if left := tn.grants(t); len(left) != 1 {
		t.Errorf("there are %d grants, want the one", len(left))
	}
	if made := tn.decisions(t); len(made) != 0 {
		t.Errorf("there are decisions: %v", made)
	}
}

func TestADryRunChangesNothing(t *testing.T) {
	tn := newTenant(t)
	asked := []string{"grant", "--engineer", gen.Engineer, "--for", "24h", "--case", gen.CaseID, "--reason", why}
	tn.admin.run(t, append(asked, "--dry-run=client")...).has(t, 0, name+" created (dry run)\n")
	tn.admin.run(t, append(asked, "--dry-run=server")...).has(t, 0, name+" created (server dry run)\n")
	tn.admin.run(t, append(asked, "--dry-run=server", "--transport", "gateway")...).has(t, 1, "Gateway is not offered")
	tn.admin.run(t, append(asked, "--dry-run=perhaps")...).has(t, 1, "--dry-run: perhaps")
	if made := tn.grants(t); len(made) != 0 {
		t.Fatalf("a dry run made %v", made)
	}
	manifest := tn.admin.run(t, append(asked, "--dry-run=client", "-o", "yaml")...)
	manifest.has(t, 0, "kind: SupportAccessGrant")
	if err := tn.Apply(t, tn.admin.kubeconfig, manifest.out); err != nil {
		t.Fatalf("what --dry-run=client writes cannot be applied: %v", err)
	}
	for _, args := range [][]string{{"revoke", name}, {"revoke", "--all"}, {"shorten", name, "--to", "1h"}} {
		for _, how := range []string{"client", "server"} {
			tn.admin.run(t, append(args, "--reason", why, "--dry-run", how)...).has(t, 0, "dry run)\n")
		}
	}
	if made := tn.decisions(t); len(made) != 0 {
		t.Errorf("a dry run made %v", made)
	}
}

func TestANameIsUsedOnceAndTheNextOneIsFound(t *testing.T) {
	tn := newTenant(t)
	tn.grant(t)
	again := []string{"grant", "--engineer", gen.Engineer, "--for", "24h", "--case", gen.CaseID, "--reason", why}
	tn.admin.run(t, append(again, name)...).has(t, 1, "NAME: "+name+" was used before")
	tn.admin.run(t, again...).has(t, 0, name+"-2 created")
	tn.MustKubectl(t, tn.admin.kubeconfig, "delete", "sag", name)
	tn.admin.run(t, again...).has(t, 0, name+"-3 created")
	// The record tells of the grant that is gone.
	tn.admin.run(t, "status", name).has(t, 2, "Revoked", "Deleted", gen.Engineer, tn.name)
	tn.admin.run(t, "status", name, "-o", "name").has(t, 2, "supportaccessrecord.supportaccess.dev/"+name)
	tn.admin.run(t, "status", "case-1").has(t, 1, `"case-1" not found`)
	managers := map[string]bool{}
	for _, grant := range tn.grants(t) {
		for _, entry := range grant.ManagedFields {
			if entry.Subresource == "" {
				managers[entry.Manager] = true
			}
		}
	}
	if !managers["support-access-cli"] {
		t.Errorf("the grants are managed by %v, want support-access-cli", managers)
	}
}

func TestOneEngineerIsTakenOffAndTheOtherStays(t *testing.T) {
	tn := newTenant(t)
	tn.grant(t, "--engineer", gen.Engineer, "--engineer", ben)
	tn.admin.run(t, "list").has(t, 0, gen.Engineer+","+ben)
	tn.admin.run(t, "handover", name).has(t, 1, "ENGINEER: is missing", gen.Engineer+", "+ben)
	anas, bens := filepath.Join(tn.Dir, "ana"), filepath.Join(tn.Dir, "ben")
	tn.admin.run(t, "handover", name, gen.Engineer, "-f", anas).has(t, 0)
	tn.admin.run(t, "handover", name, ben, "-f", bens).has(t, 0)
	tn.reads(t, bens)
	tn.admin.run(t, "revoke", name, "--engineer", "eve@vendor.example", "--reason", why).has(t, 1, "--engineer: eve@vendor.example is not on "+name)
	tn.admin.run(t, "revoke", name, "--engineer", ben, "--reason", why).has(t, 0, ben+" was off it after")
	tn.isRefused(t, bens)
	tn.reads(t, anas)
	tn.admin.run(t, "status", name).has(t, 0, "taken off by "+tn.name)
	tn.admin.run(t, "handover", name, ben).has(t, 1, "ENGINEER: "+ben+" has no access by "+name)
}

func TestAGrantIsShortenedAndNeverLengthened(t *testing.T) {
	tn := newTenant(t)
	tn.grant(t)
	tn.admin.run(t, "shorten", name, "--to", "2h").has(t, 1, "--reason: is missing")
	tn.admin.run(t, "shorten", name, "--to", "2d", "--reason", why).has(t, 1, "write 48h")
	tn.admin.run(t, "shorten", name, "--to", "48h", "--reason", why).has(t, 1, "there is no lengthening")
	tn.admin.run(t, "shorten", name, "--to", "2h", "--reason", why).has(t, 0, name+" ends at", "in 119m", "on record for 1 grants")
	tn.admin.run(t, "status", name).has(t, 0, "Shortened")
	grant := tn.grants(t)[0]
	if left := grant.Status.ExpirationTime.Sub(grant.Status.StartTime.Time); left.Hours() > 2.1 {
		t.Errorf("the grant lasts %s", left)
	}
}

func TestAGrantThatOpensLaterIsAsItWasAskedFor(t *testing.T) {
	tn := newTenant(t)
	start := time.Now().Add(2 * time.Hour).UTC().Format("2006-01-02T15:04Z")
	tn.admin.run(t, "grant", "later", "--engineer", gen.Engineer, "--for", "24h", "--start", start, "--case", gen.CaseID, "--reason", why, "--wait").
		has(t, 0, "later created", "Scheduled")
	tn.admin.run(t, "list").has(t, 0, "Scheduled")
	tn.admin.run(t, "status", "later").has(t, 3, "Scheduled", "Opens:")
	tn.admin.run(t, "handover", "later").has(t, 3, "there is no kubeconfig yet")
	tn.admin.run(t, "revoke", "later", "--reason", why).has(t, 0, "later: access was gone")
}

func TestAllGrantsAreEndedOnlyWhenSomebodySaysYes(t *testing.T) {
	tn := newTenant(t)
	const many = 10
	for range many {
		tn.grant(t, "--wait=false")
	}
	tn.admin.run(t, "revoke", "--all", "--reason", why).has(t, 1, name+"-2", "End these 10 grants?", "nothing was done")
	tn.admin.answer(t, "no\n", "revoke", "--all", "--reason", why).has(t, 1, "not confirmed, and nothing was done")
	if made := tn.decisions(t); len(made) != 0 {
		t.Fatalf("there are decisions: %v", made)
	}
	tn.admin.run(t, "revoke", "-A", "--all", "--yes", "--reason", why).has(t, 1, "cannot list resource")
	tn.admin.answer(t, "yes\n", "revoke", "--all", "--reason", why).has(t, 0, name+": access was gone after", name+"-10: access was gone after", "on record for 10 grants")
	tn.admin.run(t, "revoke", "--all", "--reason", why).has(t, 0, "There is nothing to revoke in namespace "+tn.namespace)

	tn.isOver(t, tn.namespace)
	tn.grant(t)
	eleventh := name + "-11"
	clusterAdmin := person{World: tn.World, kubeconfig: tn.Kubeconfig(t, tn.ControlPlane.AdminConfig(), tn.namespace), heard: &strings.Builder{}}
	clusterAdmin.run(t, "list", "-A").has(t, 0, tn.namespace, eleventh)
	clusterAdmin.run(t, "revoke", "-A", "--all", "--yes", "--reason", why).has(t, 0, tn.namespace+"/"+eleventh+": access was gone after")
	clusterAdmin.run(t, "list", "-A").has(t, 0, "No grants in the cluster.")
	tn.isOver(t, world.SystemNamespace)
}

// isOver waits until the decisions of a namespace are about no later grant. A wide one ends what is made up to two seconds
// after it, too, and seconds are whole.
func (tn *tenant) isOver(t testing.TB, namespace string) {
	t.Helper()
	list := &v1alpha1.SupportAccessDecisionList{}
	if err := tn.Admin.List(t.Context(), list, client.InNamespace(namespace)); err != nil {
		t.Fatal(err)
	}
	world.Eventually(t, "the decisions are about no later grant", func() error {
		for i := range list.Items {
			if age := time.Since(list.Items[i].CreationTimestamp.Time); age < 3*time.Second {
				return fmt.Errorf("decision %s is %s old", list.Items[i].Name, age)
			}
		}
		return nil
	})
}

func TestWithTheOperatorAwayADecisionStandsAndTheWayByHandIsSaid(t *testing.T) {
	tn := newTenant(t)
	tn.grant(t)
	operator := tn.Operator(t)
	if err := operator.Pause(); err != nil {
		t.Fatal(err)
	}
	resume := sync.OnceValue(operator.Resume)
	t.Cleanup(func() { _ = resume() })
	away := tn.admin.run(t, "revoke", name, "--reason", why, "--timeout", "500ms")
	if err := resume(); err != nil {
		t.Fatal(err)
	}
	away.has(t, 1, "not yet as decided after 500ms", "The decision stands",
		"kubectl delete rolebinding,clusterrolebinding -A -l supportaccess.dev/grant="+name+",supportaccess.dev/grant-namespace="+tn.namespace)
	world.Eventually(t, "the decision is carried out", func() error {
		if end := tn.grants(t)[0].Status.EndReason; end != v1alpha1.EndRevoked {
			return fmt.Errorf("the grant's end is %q", end)
		}
		return nil
	})
}

func TestTheNamesOfGrantsAreCompleted(t *testing.T) {
	tn := newTenant(t)
	tn.grant(t)
	tn.admin.run(t, "__complete", "revoke", "").has(t, 0, name+"\n")
	tn.admin.run(t, "__complete", "handover", name, "").has(t, 0, gen.Engineer+"\n")
}

func TestWhatIsPrintedForProgramsIsWhole(t *testing.T) {
	tn := newTenant(t)
	tn.grant(t)
	tn.admin.run(t, "list", "-o", "name").has(t, 0, "supportaccessgrant.supportaccess.dev/"+name+"\n")
	tn.admin.run(t, "list", "-o", "wide").has(t, 0, "TRANSPORT", "Direct", "the connector cannot reach the server")
	tn.admin.run(t, "status", name, "-o", "jsonpath={.status.transport}").has(t, 0, "Direct")
	listed := tn.admin.run(t, "list", "-o", "json")
	var list v1alpha1.SupportAccessGrantList
	if err := json.Unmarshal([]byte(listed.out), &list); err != nil || len(list.Items) != 1 {
		t.Fatalf("%v: %s", err, listed.out)
	}
	stored := &v1alpha1.SupportAccessGrant{}
	if err := tn.Admin.Get(t.Context(), client.ObjectKey{Namespace: tn.namespace, Name: name}, stored); err != nil {
		t.Fatal(err)
	}
	if got := list.Items[0]; got.UID != stored.UID || got.Kind != "SupportAccessGrant" || !slices.Equal(got.Spec.Roles, stored.Spec.Roles) {
		t.Errorf("list prints %v, want %v", got, stored)
	}
}
