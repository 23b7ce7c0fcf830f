package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"supportaccess.dev/operator/hack/controlplane"
	"supportaccess.dev/operator/hack/controlplane/gobuild"
	"supportaccess.dev/operator/test/world"
)

const (
	tenant = "mail-archive"
	grant  = "case-4711"
	// limit bounds the whole show, without what is compiled before it.
	limit = 4 * time.Minute
)

// stage is the cluster of one show, and the people who act on it.
type stage struct {
	root, dir string
	cp        *controlplane.ControlPlane
	started   time.Time
	// kubeconfigs of the people: a cluster admin, an admin of the tenant's namespace, one who approves there, an engineer of
	// the vendor with what was handed over to her, and with the login of her own by which she may ask.
	cluster, tess, pat, ana, asking string
	// address is where the gateway is.
	address string
}

// show does the main job and fails at the first step that does not do what it says.
func show(ctx context.Context, root string) (err error) {
	if _, err := controlplane.Build(ctx, say); err != nil {
		return err
	}
	if err := gobuild.Program(ctx, "./cmd/kubectl-support_access", filepath.Join(root, "bin", "kubectl-support_access"), say); err != nil {
		return fmt.Errorf("build the plugin: %w", err)
	}
	dir, err := os.MkdirTemp("", "support-access-demo-")
	if err != nil {
		return fmt.Errorf("make a folder for the demo: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	s := &stage{root: root, dir: dir, started: time.Now()}
	s.title("A cluster: kube-apiserver with RBAC and admission, kube-controller-manager, etcd, a node of kwok")
	s.cp, err = controlplane.Start(ctx, controlplane.Options{Dir: filepath.Join(dir, "cluster"), Kwok: true, Log: say})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.cp.Stop()) }()
	if err := s.people(); err != nil {
		return err
	}
	s.title("The operator: helm install, then controller and gateway with the Deployments' own args and ServiceAccounts")
	running, err := startPods(ctx, s.cp, dir, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, running.stop()) }()
	s.address = running.address
	for _, chapter := range []func(context.Context) error{s.product, s.grantAccess, s.useAccess, s.revoke, s.elevate, s.expire, s.askAndAnswer, s.switchOnAndOff, s.records, s.audit} {
		if err := chapter(ctx); err != nil {
			return err
		}
	}
	s.title("Done: every step did what it says")
	return nil
}

func (s *stage) people() error {
	for name, path := range map[string]*string{"": &s.cluster, "tess@customer.example": &s.tess, "pat@customer.example": &s.pat, "ana@vendor.example": &s.asking} {
		config := s.cp.AdminConfig()
		if name != "" {
			config = s.cp.UserConfig(name)
		}
		*path = filepath.Join(s.dir, "kubeconfig-"+strings.Split(name+"@", "@")[0])
		if err := s.cp.WriteKubeconfig(*path, config, tenant); err != nil {
			return err
		}
	}
	return nil
}

// product puts a product into the tenant's namespace, makes Tess that namespace's admin, no more, and lets Pat approve there.
func (s *stage) product(ctx context.Context) error {
	s.title("A tenant with a product in it; Tess is admin of its namespace, not of the cluster, and Pat may approve there")
	if err := s.expect(ctx, s.cluster, "", "apply", "-f", filepath.Join(s.root, "config/samples/mail-archive.yaml")); err != nil {
		return err
	}
	if err := s.expect(ctx, s.cluster, "condition met", "wait", "--for=condition=Established", "--timeout=30s", "crd/connectors.mail-archive.vendor.example"); err != nil {
		return err
	}
	if err := s.expect(ctx, s.cluster, "created", "apply", "-f", filepath.Join(s.root, "config/samples/mail-archive-connector.yaml")); err != nil {
		return err
	}
	if err := s.expect(ctx, s.cluster, "", "create", "rolebinding", "tess", "--clusterrole=admin", "--user=tess@customer.example"); err != nil {
		return err
	}
	if err := s.expect(ctx, s.cluster, "", "create", "rolebinding", "pat", "--clusterrole=support-access-approver", "--user=pat@customer.example"); err != nil {
		return err
	}
	if err := s.expect(ctx, s.cluster, "", "wait", "--for=condition=Available", "--timeout=60s", "deployment", "--all"); err != nil {
		return err
	}
	return s.expectRefused(ctx, s.tess, "cannot list", "get", "secrets", "-n", "kube-system")
}

// grantAccess lets Tess grant access and fetches the engineer's kubeconfig as she would.
func (s *stage) grantAccess(ctx context.Context) error {
	s.title("Tess grants access because of a case")
	applied := time.Now()
	if err := s.expect(ctx, s.tess, "created", "apply", "-f", filepath.Join(s.root, "config/samples/grant.yaml")); err != nil {
		return err
	}
	if err := s.expect(ctx, s.tess, "condition met", "wait", "--for=condition=Active", "--timeout=30s", "sag/"+grant); err != nil {
		return err
	}
	if err := s.fetch(ctx, grant); err != nil {
		return err
	}
	say("            granted and usable %d ms after the first kubectl began", time.Since(applied).Milliseconds())
	return s.expect(ctx, s.tess, "Active", "get", "sag")
}

// fetch reads a grant's kubeconfig, as Tess who granted it may.
func (s *stage) fetch(ctx context.Context, name string) error {
	secret, err := s.output(ctx, s.tess, "get", "sag", name, "-o", "jsonpath={.status.engineers[0].credentialSecretRef.name}")
	if err != nil {
		return err
	}
	encoded, err := s.output(ctx, s.tess, "get", "secret", "-n", "support-access-credentials", secret, "-o", "jsonpath={.data.kubeconfig}")
	if err != nil {
		return err
	}
	content, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return fmt.Errorf("decode the kubeconfig: %w", err)
	}
	s.ana = filepath.Join(s.dir, "kubeconfig-handed-over")
	if err := os.WriteFile(s.ana, content, 0o600); err != nil {
		return fmt.Errorf("write the engineer's kubeconfig: %w", err)
	}
	say("            Ana's kubeconfig was fetched from Secret support-access-credentials/%s", secret)
	return nil
}

// useAccess shows what the engineer may and may not do.
func (s *stage) useAccess(ctx context.Context) error {
	s.title("Ana, engineer of the vendor, works on the case")
	pod, err := s.output(ctx, s.cluster, "get", "pods", "-o", "jsonpath={.items[0].metadata.name}")
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return s.expect(ctx, s.ana, "", "get", "configmaps") },
		func() error { return s.expect(ctx, s.ana, "", "get", "connectors") },
		func() error { return s.expect(ctx, s.ana, "", "logs", pod, "--tail=2") },
		func() error { return s.expectRefused(ctx, s.ana, "never bends", "get", "secrets") },
		func() error { return s.expectRefused(ctx, s.ana, "pods/exec", "exec", pod, "--", "id") },
		func() error { return s.expectRefused(ctx, s.ana, "delete pods", "delete", "pod", pod) },
		func() error {
			return s.expectRefused(ctx, s.ana, "the grant is for", "get", "configmaps", "-n", "default")
		},
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// revoke deletes the grant and shows that the next request is refused.
func (s *stage) revoke(ctx context.Context) error {
	s.title("While Ana watches, Tess revokes: she deletes the grant")
	watch, err := s.start(ctx, "imap", "get", "configmaps", "-w")
	if err != nil {
		return err
	}
	if err := s.expect(ctx, s.tess, "deleted", "delete", "sag", grant, "--wait=false"); err != nil {
		return err
	}
	if err := s.isCut(watch, "is not open"); err != nil {
		return err
	}
	if err := s.expect(ctx, s.tess, "", "wait", "--for=delete", "--timeout=30s", "sag/"+grant); err != nil {
		return err
	}
	if err := s.expectRefused(ctx, s.ana, "", "get", "configmaps"); err != nil {
		return err
	}
	s.title("Applied again under its old name, the grant opens nothing")
	if err := s.expect(ctx, s.tess, "created", "apply", "-f", filepath.Join(s.root, "config/samples/grant.yaml")); err != nil {
		return err
	}
	if err := s.expect(ctx, s.tess, "condition met", "wait", "--for=condition=Ready", "--timeout=30s", "sag/"+grant); err != nil {
		return err
	}
	return s.expect(ctx, s.tess, "Revoked", "get", "sag", grant)
}

// elevatedGrant reaches content, for a case.
const elevatedGrant = `apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessGrant
metadata: {name: case-4713, namespace: mail-archive}
spec:
  case: {id: CASE-4713}
  reason: Look into the pod that does not come up
  engineers: [{name: ana@vendor.example}]
  roles: [support-access-configuration, support-access-content]
  duration: 4h
`

// elevate shows a stream into a pod, which a grant for one case allows, and that it is cut as well.
func (s *stage) elevate(ctx context.Context) error {
	s.title("A grant for one case is to let Ana into a pod: it waits until somebody approves who did not make it")
	path := filepath.Join(s.dir, "elevated.yaml")
	if err := os.WriteFile(path, []byte(elevatedGrant), 0o600); err != nil {
		return fmt.Errorf("write the elevated grant: %w", err)
	}
	for _, step := range []func() error{
		func() error { return s.expect(ctx, s.tess, "created", "apply", "-f", path) },
		func() error {
			return s.expect(ctx, s.tess, "condition met", "wait", `--for=jsonpath={.status.conditions[?(@.type=="Approved")].reason}=AwaitingApproval`, "--timeout=30s", "sag/case-4713")
		},
		func() error {
			return s.expectRefused(ctx, s.tess, "approve", "support-access", "approve", "case-4713", "--reason", "I need it")
		},
		func() error {
			return s.expect(ctx, s.pat, "", "support-access", "approve", "case-4713", "--reason", "The pod has to be looked into")
		},
		func() error {
			return s.expect(ctx, s.tess, "condition met", "wait", "--for=condition=Active", "--timeout=30s", "sag/case-4713")
		},
		func() error { return s.fetch(ctx, "case-4713") },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	s.title("Ana is in the pod; a decision ends the grant in the middle of her work")
	pod, err := s.output(ctx, s.cluster, "get", "pods", "-o", "jsonpath={.items[0].metadata.name}")
	if err != nil {
		return err
	}
	if err := s.expectRefused(ctx, s.ana, "exec of tar", "exec", pod, "--", "tar", "cf", "-", "/data"); err != nil {
		return err
	}
	shell, err := s.start(ctx, "in the pod", "exec", "-i", pod, "--", "sh", "-c", "echo in the pod; sleep 60")
	if err != nil {
		return err
	}
	if err := s.expect(ctx, s.tess, "created", "create", "-f", filepath.Join(s.dir, s.decision())); err != nil {
		return err
	}
	if err := s.isCut(shell, ""); err != nil {
		return err
	}
	return s.expect(ctx, s.tess, "condition met", "wait", "--for=jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}=Revoked", "--timeout=30s", "sag/case-4713")
}

// decision writes the decision that ends the elevated grant, and returns its file's name.
func (s *stage) decision() string {
	const name = "decision.yaml"
	content := `apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessDecision
metadata: {name: enough, namespace: mail-archive}
spec: {action: Revoke, target: {grant: case-4713}, reason: enough seen}
`
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(content), 0o600); err != nil {
		say("            %v", err)
	}
	return name
}

// askAndAnswer shows how an engineer asks, and that nobody gives more than was asked for, nor answers their own request.
func (s *stage) askAndAnswer(ctx context.Context) error {
	s.title("Ana asks for access with a login that may ask and nothing else; Tess answers, and says no to the next request")
	for _, step := range []func() error{
		func() error {
			return s.expect(ctx, s.cluster, "", "create", "rolebinding", "ana-asks", "--clusterrole=support-access-requester", "--user=ana@vendor.example")
		},
		func() error {
			return s.expect(ctx, s.asking, "created", "support-access", "request", "--engineer", "ana@vendor.example", "--for", "24h", "--case", "CASE-4720",
				"--role", "support-access-configuration", "--reason", "May I see the connector's settings?")
		},
		func() error { return s.expectRefused(ctx, s.asking, "cannot create", "create", "-f", s.answer()) },
		func() error {
			return s.expectRefused(ctx, s.tess, "does not ask for", "support-access", "grant", "--request", "case-4720", "--role", "support-access-diagnostics")
		},
		func() error {
			return s.expect(ctx, s.tess, "Active", "support-access", "grant", "--request", "case-4720", "--for", "4h", "--wait")
		},
		func() error {
			return s.expect(ctx, s.asking, "condition met", "wait", "--for=condition=Granted", "--timeout=30s", "sareq/case-4720")
		},
		func() error {
			return s.expect(ctx, s.asking, "created", "support-access", "request", "--engineer", "ana@vendor.example", "--for", "24h", "--case", "CASE-4721",
				"--reason", "And may I look again tomorrow?")
		},
		func() error {
			return s.expect(ctx, s.tess, "denied", "support-access", "deny", "--request", "case-4721", "--reason", "Not during the audit")
		},
		func() error { return s.expect(ctx, s.asking, "Denied", "get", "sareq") },
		func() error {
			return s.expect(ctx, s.tess, "", "support-access", "revoke", "case-4720", "--reason", "Seen enough")
		},
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// answer writes the answer that Ana would like to give herself, and returns its file.
func (s *stage) answer() string {
	path := filepath.Join(s.dir, "answer.yaml")
	content := `apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessGrant
metadata: {name: by-herself, namespace: mail-archive}
spec: {requestRef: {name: case-4720}}
`
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		say("            %v", err)
	}
	return path
}

// switchOnAndOff shows the standing switch of a namespace: on until an instant, off again at once, and Ana with it.
func (s *stage) switchOnAndOff(ctx context.Context) error {
	s.title("The standing switch: Tess switches support access on for her namespace, and off again")
	if err := s.expect(ctx, s.tess, "", "support-access", "enable", "--engineer", "ana@vendor.example", "--for", "24h", "--wait"); err != nil {
		return err
	}
	if err := s.expect(ctx, s.tess, "tess@customer.example", "get", "sasetting"); err != nil {
		return err
	}
	made, err := s.output(ctx, s.tess, "get", "sag", "-o", `jsonpath={.items[?(@.spec.settingRef.generation)].metadata.name}`)
	if err != nil {
		return fmt.Errorf("find the setting's grant: %w: %s", err, made)
	}
	if err := s.fetch(ctx, made); err != nil {
		return err
	}
	watch, err := s.start(ctx, "imap", "get", "configmaps", "-w")
	if err != nil {
		return err
	}
	if err := s.expect(ctx, s.tess, "", "support-access", "disable"); err != nil {
		return err
	}
	if err := s.isCut(watch, ""); err != nil {
		return err
	}
	return s.expectRefused(ctx, s.ana, "", "get", "configmaps")
}

// gatewayName is the name that the gateway's certificate bears.
const gatewayName = "support-access-gateway." + world.SystemNamespace + ".svc"

// audit has an auditor read what is on record, and verify it.
func (s *stage) audit(ctx context.Context) error {
	s.title("It is all on record, from who granted to how it ended: an auditor reads it, and verifies that nobody has changed it")
	ca, err := s.output(ctx, s.cluster, "get", "secret", "support-access-gateway-tls", "-n", world.SystemNamespace, "-o", `jsonpath={.data.ca\.crt}`)
	if err != nil {
		return fmt.Errorf("read the gateway's CA: %w: %s", err, ca)
	}
	decoded, err := base64.StdEncoding.DecodeString(ca)
	if err != nil {
		return fmt.Errorf("read the gateway's CA: %w", err)
	}
	if err := os.WriteFile(s.auditCA(), decoded, 0o600); err != nil {
		return fmt.Errorf("write the gateway's CA: %w", err)
	}
	export := filepath.Join(s.dir, "audit.jsonl")
	as := []string{"--service-account", "default/auditor", "--audit-server-name", gatewayName}
	for _, step := range []struct {
		want string
		args []string
	}{
		{"created", []string{"create", "serviceaccount", "auditor", "-n", "default"}},
		{"created", []string{"create", "clusterrolebinding", "auditor", "--clusterrole=support-access-viewer", "--serviceaccount=default:auditor"}},
		{"granted", append([]string{"support-access", "audit", "-n", tenant, "--source", "support", "--limit", "0"}, as...)},
		{"Written", append([]string{"support-access", "audit", "export", "-A", "--file", export}, as...)},
		{"Intact: all", []string{"support-access", "audit", "verify", export, "--witness"}},
	} {
		if err := s.expect(ctx, s.cluster, step.want, step.args...); err != nil {
			return err
		}
	}
	return nil
}

// auditCA is the file with the CA by which the audit log's server is known.
func (s *stage) auditCA() string { return filepath.Join(s.dir, "audit-ca.crt") }

// shortGrant names an instant, because the default policy's menu of durations has nothing as short as a demo wants.
const shortGrant = `apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessGrant
metadata: {name: case-4712, namespace: mail-archive}
spec:
  case: {id: CASE-4712}
  reason: A look at the settings for five seconds
  engineers: [{name: ana@vendor.example}]
  expirationTime: %s
`

// expire shows a grant that ends by itself, and how late it does.
func (s *stage) expire(ctx context.Context) error {
	s.title("A grant of a few seconds ends by itself")
	path := filepath.Join(s.dir, "short.yaml")
	end := time.Now().Add(6 * time.Second).UTC().Truncate(time.Second)
	if err := os.WriteFile(path, fmt.Appendf(nil, shortGrant, end.Format(time.RFC3339)), 0o600); err != nil {
		return fmt.Errorf("write the short grant: %w", err)
	}
	if err := s.expect(ctx, s.tess, "created", "apply", "-f", path); err != nil {
		return err
	}
	if err := s.expect(ctx, s.tess, "condition met", "wait", "--for=condition=Active", "--timeout=30s", "sag/case-4712"); err != nil {
		return err
	}
	if err := s.fetch(ctx, "case-4712"); err != nil {
		return err
	}
	if err := s.expect(ctx, s.ana, "", "get", "configmaps"); err != nil {
		return err
	}
	if err := s.expect(ctx, s.tess, "condition met", "wait", "--for=condition=Active=false", "--timeout=30s", "sag/case-4712"); err != nil {
		return err
	}
	if err := s.expectRefused(ctx, s.ana, "", "get", "configmaps"); err != nil {
		return err
	}
	ended, err := s.output(ctx, s.tess, "get", "sarec", "case-4712", "-o", "jsonpath={.status.endTime}")
	if err != nil {
		return err
	}
	closed, err := time.Parse(time.RFC3339Nano, ended)
	if err != nil {
		return fmt.Errorf("parse the end: %w", err)
	}
	say("            it was to end at %s; access was gone %d ms later", end.Format(time.TimeOnly), closed.Sub(end).Milliseconds())
	return s.expect(ctx, s.tess, "Expired", "get", "sag", "case-4712")
}

// records shows what remains.
func (s *stage) records(ctx context.Context) error {
	s.title("What remains: the records, which the operator alone writes")
	if err := s.expect(ctx, s.tess, "Expired", "get", "sarec"); err != nil {
		return err
	}
	if err := s.expect(ctx, s.tess, "Opened", "get", "sarec", grant, "-o", `jsonpath={range .status.transitions[*]}{.time}  {.type}  by {.by}: {.message}{"\n"}{end}`); err != nil {
		return err
	}
	return s.expectRefused(ctx, s.cluster, "by the operator alone", "delete", "sarec", grant)
}

func (s *stage) title(text string) { say("\n%s  %s", s.clock(), text) }

func (s *stage) clock() string {
	elapsed := time.Since(s.started)
	return fmt.Sprintf("%7d ms", elapsed.Milliseconds())
}

// output runs kubectl and returns what it prints.
func (s *stage) output(ctx context.Context, kubeconfig string, args ...string) (string, error) {
	var out bytes.Buffer
	command := exec.CommandContext(ctx, s.cp.Kubectl(), args...)
	// kubectl finds the plugin on the PATH, and hands the rest over to it.
	command.Env = append(os.Environ(), "PATH="+filepath.Join(s.root, "bin")+":"+os.Getenv("PATH"), "KUBECONFIG="+kubeconfig,
		"SUPPORT_ACCESS_AUDIT_SERVER=https://"+s.address+":9444", "SUPPORT_ACCESS_AUDIT_CA="+s.auditCA())
	command.Stdout, command.Stderr = &out, &out
	err := command.Run()
	return strings.TrimSpace(out.String()), err
}

// expect runs kubectl, shows it, and fails unless it succeeds and prints what is expected.
func (s *stage) expect(ctx context.Context, kubeconfig, want string, args ...string) error {
	out, err := s.tell(ctx, kubeconfig, args)
	if err != nil {
		return fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	if !strings.Contains(out, want) {
		return fmt.Errorf("kubectl %s: want %q, got %s", strings.Join(args, " "), want, out)
	}
	return nil
}

// expectRefused runs kubectl, shows it, and fails unless the API server refuses it in the words expected.
func (s *stage) expectRefused(ctx context.Context, kubeconfig, want string, args ...string) error {
	out, err := s.tell(ctx, kubeconfig, args)
	if err == nil {
		return fmt.Errorf("kubectl %s: want a refusal, got %s", strings.Join(args, " "), out)
	}
	refused := strings.Contains(out, "forbidden") || strings.Contains(out, "does not allow this") || strings.Contains(out, "is not open") || strings.Contains(out, "Forbidden") || strings.Contains(out, "Unauthorized")
	if !refused || !strings.Contains(out, want) {
		return fmt.Errorf("kubectl %s: want it refused with %q, got %s", strings.Join(args, " "), want, out)
	}
	return nil
}

func (s *stage) tell(ctx context.Context, kubeconfig string, args []string) (string, error) {
	who := map[string]string{s.cluster: "cluster admin", s.tess: "tess", s.pat: "pat", s.ana: "ana", s.asking: "ana, asking"}[kubeconfig]
	say("%s  %s $ kubectl %s", s.clock(), who, strings.NewReplacer(s.root+"/", "", s.dir+"/", "").Replace(strings.Join(args, " ")))
	out, err := s.output(ctx, kubeconfig, args...)
	for line := range strings.SplitSeq(out, "\n") {
		say("            %s", line)
	}
	return out, err
}
