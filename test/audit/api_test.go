package audit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// log is where the log is read, and how its server is known.
func (s *scene) log(t *testing.T) []string {
	t.Helper()
	secret := &corev1.Secret{}
	if err := s.Admin.Get(t.Context(), client.ObjectKey{Namespace: world.SystemNamespace, Name: "support-access-gateway-tls"}, secret); err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(s.Dir, "ca.crt")
	if err := os.WriteFile(ca, secret.Data["ca.crt"], 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{
		"--audit-server", "https://" + theInstallation.ip + ":9444", "--audit-ca", ca, "--audit-server-name", "support-access-gateway.support-access-system.svc",
	}
}

// reads has a ServiceAccount read the log with the plugin, run by the cluster admin.
func (s *scene) reads(t *testing.T, account *corev1.ServiceAccount, args ...string) result {
	t.Helper()
	return s.runs(t, s.ControlPlane.AdminConfig(), append(append([]string{"audit"}, args...), s.as(t, account)...)...)
}

func (s *scene) as(t *testing.T, account *corev1.ServiceAccount) []string {
	t.Helper()
	return append(s.log(t), "--service-account", account.Namespace+"/"+account.Name)
}

// account makes a ServiceAccount to read with.
func (s *scene) account(t *testing.T, name string) *corev1.ServiceAccount {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace(t), Name: name}}
	s.make(t, account)
	return account
}

func (s *scene) make(t *testing.T, objects ...client.Object) {
	t.Helper()
	for _, o := range objects {
		if err := s.Admin.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
}

func subject(account *corev1.ServiceAccount) []rbacv1.Subject {
	return []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: account.Namespace, Name: account.Name}}
}

// auditor may read the whole log, tenant what concerns the namespace of which it is admin, stranger nothing.
func (s *scene) readers(t *testing.T, namespace string) (auditor, tenant, stranger *corev1.ServiceAccount) {
	t.Helper()
	auditor, tenant, stranger = s.account(t, "auditor"), s.account(t, "tenant"), s.account(t, "stranger")
	s.make(t,
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: s.Name("auditors")}, Subjects: subject(auditor),
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "support-access-viewer"},
		},
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "tenants"}, Subjects: subject(tenant),
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"},
		})
	world.Eventually(t, "their rights hold", func() error {
		for account, args := range map[*corev1.ServiceAccount][]string{auditor: {"-A", "--limit", "1"}, tenant: {"-n", namespace, "--limit", "1"}} {
			if r := s.reads(t, account, args...); r.code != 0 {
				return fmt.Errorf("%s: %s", account.Name, r.err)
			}
		}
		return nil
	})
	return auditor, tenant, stranger
}

func TestWhoMayReadTheLogIsForTheAPIServerToSay(t *testing.T) {
	s := newScene(t)
	ana := s.comes(t, "case-1")
	here, elsewhere := ana.grant.Namespace, s.comes(t, "case-2").grant.Namespace
	auditor, tenant, stranger := s.readers(t, here)
	for title, c := range map[string]struct {
		who  *corev1.ServiceAccount
		args []string
		code int
		says string
	}{
		"an auditor, everything":            {auditor, []string{"-A"}, 0, elsewhere + "/case-2"},
		"an auditor, of a namespace":        {auditor, []string{"-n", here}, 0, here + "/case-1"},
		"an admin, of their namespace":      {tenant, []string{"-n", here}, 0, "Settings"},
		"an admin, of another":              {tenant, []string{"-n", elsewhere}, 1, "403: you may not read the audit log of namespace " + elsewhere},
		"an admin, everything":              {tenant, []string{"-A"}, 1, "403: you may not read the whole audit log"},
		"an admin, another's grant":         {tenant, []string{"-n", here, "--grant", elsewhere + "/case-2", "-o", "json"}, 0, `"entries": []`},
		"an admin, an export of another":    {tenant, []string{"export", "-n", elsewhere}, 1, "403"},
		"somebody without rights":           {stranger, []string{"-n", here}, 1, "403"},
		"somebody without rights, the keys": {stranger, []string{"keys"}, 0, "support.cluster.example/audit+"},
	} {
		r := s.reads(t, c.who, c.args...)
		if !strings.Contains(r.out+r.err, c.says) || r.code != c.code {
			t.Errorf("%s: exit code %d, want %d with %q:\n%s%s", title, r.code, c.code, c.says, r.out, r.err)
		}
	}
	if r := s.reads(t, tenant, "-n", here, "--source", "support", "-o", "json", "--limit", "0"); r.code != 0 || strings.Contains(r.out, elsewhere) {
		t.Errorf("an admin of %s reads of %s:\n%s", here, elsewhere, r.out)
	}
	// A token for the API server is good for nothing here: nobody is tempted to send one.
	request := &authenticationv1.TokenRequest{}
	if err := s.Admin.SubResource("token").Create(t.Context(), auditor, request); err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(s.Dir, "token")
	if err := os.WriteFile(token, []byte(request.Status.Token), 0o600); err != nil {
		t.Fatal(err)
	}
	s.runs(t, s.ControlPlane.AdminConfig(), append([]string{"audit", "-A", "--audit-token-file", token}, s.log(t)...)...).has(t, 1, "401: the API server does not know this token")
	// Reading is an entry.
	s.reads(t, auditor, "-A", "--type", "Read", "-o", "wide").has(t, 0, "system:serviceaccount:"+tenant.Namespace+":tenant", "supportaccessrecords.supportaccess.dev/log")
}

func TestTheTrailOfAGrantIsReadFromItsBeginningToItsEnd(t *testing.T) {
	s := newScene(t)
	ana := s.comes(t, "case-3")
	g := ana.grant
	auditor, tenant, _ := s.readers(t, g.Namespace)
	if err := ana.reads(t, "secrets"); err == nil {
		t.Fatal("the engineer reads Secrets")
	}
	follower := s.follows(t, auditor, "-n", g.Namespace, "--grant", "case-3")
	revoke := gen.Decision("", g.Namespace, gen.Revoking(g.Name))
	revoke.ObjectMeta = metav1.ObjectMeta{Namespace: g.Namespace, Name: "enough"}
	revoke.Spec.DecidedBy, revoke.Spec.Authority, revoke.Spec.Reason, revoke.Status = "", "", "case closed", v1alpha1.SupportAccessDecisionStatus{}
	s.make(t, revoke)
	follower.tells(t, "revoke", "case closed")
	follower.tells(t, "revoked", "case closed")
	for _, says := range [][]string{
		{"granted", g.Spec.Engineers[0].Name + " may do what support-access-configuration", "in namespace " + g.Namespace, g.Spec.GrantedBy},
		{"opened"}, {"Settings", "list", "configmaps", "Succeeded"}, {"Content", "list", "secrets", "Refused"}, {"revoke", "enough: grant case-3: case closed"}, {"revoked"},
	} {
		r := s.reads(t, tenant, "-n", g.Namespace, "--grant", "case-3")
		found := false
		for row := range strings.Lines(r.out) {
			all := true
			for _, word := range says {
				all = all && strings.Contains(row, word)
			}
			found = found || all
		}
		if !found {
			t.Errorf("no row has %q:\n%s%s", says, r.out, r.err)
		}
	}
	// The gateway is started again, and says nothing twice.
	once := s.reads(t, auditor, "-n", g.Namespace, "--type", "Lifecycle", "-o", "name", "--limit", "0").out
	s.stops(t)
	s.opens(t)
	if err := s.Admin.Delete(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	other := s.comes(t, "case-4")
	world.Eventually(t, "the gateway has looked at everything", func() error {
		if r := s.reads(t, auditor, "-n", other.grant.Namespace, "--verb", "opened"); !strings.Contains(r.out, "case-4") {
			return errors.New(r.out + r.err)
		}
		return nil
	})
	if again := s.reads(t, auditor, "-n", g.Namespace, "--type", "Lifecycle", "-o", "name", "--limit", "0").out; again != once {
		t.Errorf("after a start there are\n%s, before there were\n%s", again, once)
	}

	// What is exported is verified: the whole, and what concerns the grant.
	whole, some, keys := filepath.Join(s.Dir, "whole.jsonl"), filepath.Join(s.Dir, "some.jsonl"), filepath.Join(s.Dir, "keys")
	if err := os.WriteFile(keys, []byte(s.reads(t, auditor, "keys").out), 0o600); err != nil {
		t.Fatal(err)
	}
	s.reads(t, auditor, "export", "-A", "--file", whole).has(t, 0, "Written to")
	s.reads(t, tenant, "export", "-n", g.Namespace, "--grant", "case-3", "--file", some).has(t, 0, "Written to")
	admin := s.ControlPlane.AdminConfig()
	s.runs(t, admin, "audit", "verify", whole, "--key", keys, "--witness").has(t, 0, "Intact: all ")
	s.runs(t, admin, "audit", "verify", some, "--key", keys).has(t, 0, "Intact: ")
	s.reads(t, tenant, "export", "-n", g.Namespace, "--format", "csv").has(t, 0, "seq,time,source", "case closed")
	s.reads(t, auditor, "export", "-n", g.Namespace, "--section", "nothing").has(t, 1, "--section: ")
}

// follower is somebody who follows the log.
type follower struct {
	lines chan string
	ended chan error
}

// follows has somebody follow the log until the test ends.
func (s *scene) follows(t *testing.T, account *corev1.ServiceAccount, args ...string) *follower {
	t.Helper()
	plugin, err := plugins()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	command := exec.CommandContext(ctx, plugin, append(append([]string{"audit", "-f"}, args...), s.as(t, account)...)...)
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.Dir, "KUBECONFIG=" + s.Kubeconfig(t, s.ControlPlane.AdminConfig(), "")}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	command.Stderr = &said
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	f := &follower{lines: make(chan string, 1000), ended: make(chan error, 1)}
	go func() {
		for lines := bufio.NewScanner(io.Reader(out)); lines.Scan(); {
			f.lines <- lines.Text()
		}
		f.ended <- fmt.Errorf("%w: %s", errors.Join(command.Wait(), errors.New("it ended")), said.String())
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-f.ended; err == nil {
			t.Error("it ended without a word")
		}
	})
	return f
}

// tells waits until a line has all these words.
func (f *follower) tells(t *testing.T, words ...string) {
	t.Helper()
	var heard []string
	world.Eventually(t, fmt.Sprintf("who follows is told %q", words), func() error {
		for {
			select {
			case line := <-f.lines:
				heard = append(heard, line)
				all := true
				for _, word := range words {
					all = all && strings.Contains(line, word)
				}
				if all {
					return nil
				}
			case err := <-f.ended:
				f.ended <- err
				return err
			default:
				return fmt.Errorf("so far it was told\n%s", strings.Join(heard, "\n"))
			}
		}
	})
}
