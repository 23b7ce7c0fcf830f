package chart

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"supportaccess.dev/operator/hack/controlplane"
	"supportaccess.dev/operator/hack/controlplane/helm"
)

const gatewayName = "support-access-gateway"

// ofGateway renders the chart with a gateway and these values of it.
func ofGateway(t *testing.T, values map[string]any) []*unstructured.Unstructured {
	t.Helper()
	return render(t, map[string]any{"gateway": withValues(values)})
}

func withValues(values map[string]any) map[string]any {
	gateway := map[string]any{"enabled": true}
	maps.Copy(gateway, values)
	return gateway
}

func TestTheChartsGatewayAndThatOfKustomizeAreTheSame(t *testing.T) {
	binaries, err := controlplane.Build(t.Context(), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	plain := byIdentity(t, objects(t, []byte(run(t, root(t), binaries.Kubectl, "kustomize", "config/gateway"))))
	with, without := byIdentity(t, ofGateway(t, map[string]any{"changes": map[string]any{"enabled": false}})), byIdentity(t, render(t, map[string]any{"gateway": map[string]any{"enabled": false}}))
	if len(plain) < 30 {
		t.Errorf("kustomize renders only %d objects", len(plain))
	}
	for id, want := range plain {
		if got := with[id]; !reflect.DeepEqual(got, want) {
			t.Errorf("%s differs:\nchart:     %s\nkustomize: %s", id, asJSON(t, got), asJSON(t, want))
		}
	}
	for id := range with {
		if _, known := plain[id]; !known && without[id] == nil {
			t.Errorf("kustomize lacks %s", id)
		}
	}
	for id := range plain {
		if without[id] != nil {
			t.Errorf("%s is there without a gateway", id)
		}
	}
}

// deploymentOf is how a Deployment is indexed.
func deploymentOf(name string) string { return "apps/v1 Deployment support-access-system/" + name }

func TestTheChartsWebhookForChangesAndThatOfKustomizeAreTheSame(t *testing.T) {
	binaries, err := controlplane.Build(t.Context(), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(folder string) string {
		relative, err := filepath.Rel(dir, filepath.Join(root(t), "config", folder))
		if err != nil {
			t.Fatal(err)
		}
		return relative
	}
	overlay := fmt.Sprintf("resources: [%s, %s]\ncomponents: [%s]\n", at("default"), at("gateway"), at("changes"))
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(overlay), 0o600); err != nil {
		t.Fatal(err)
	}
	plain := byIdentity(t, objects(t, []byte(run(t, root(t), binaries.Kubectl, "kustomize", dir))))
	with := byIdentity(t, ofGateway(t, nil))
	without := byIdentity(t, ofGateway(t, map[string]any{"changes": map[string]any{"enabled": false}}))
	compared := 0
	for id, want := range plain {
		if without[id] != nil && id != deploymentOf(gatewayName) {
			continue
		}
		compared++
		if got := with[id]; !reflect.DeepEqual(got, want) {
			t.Errorf("%s differs:\nchart:     %s\nkustomize: %s", id, asJSON(t, got), asJSON(t, want))
		}
	}
	for id := range with {
		if plain[id] == nil && without[id] == nil {
			t.Errorf("kustomize lacks %s", id)
		}
	}
	if compared < 8 {
		t.Errorf("only %d objects were compared", compared)
	}
	for name, rendered := range map[string]map[string]map[string]any{"chart": with, "kustomize": plain} {
		if !strings.Contains(asJSON(t, rendered[deploymentOf("support-access")]), `"--gateway-changes"`) {
			t.Errorf("%s: the controller does not know of the webhook", name)
		}
	}
}

func TestTheGatewaysServicesFindItsPodsAndTheirPorts(t *testing.T) {
	rendered := ofGateway(t, nil)
	gateway, controller := find[appsv1.Deployment](t, rendered, "Deployment", gatewayName), find[appsv1.Deployment](t, rendered, "Deployment", "support-access")
	pod := gateway.Spec.Template
	for _, name := range []string{gatewayName, gatewayName + "-metrics"} {
		service := find[corev1.Service](t, rendered, "Service", name)
		for key, value := range service.Spec.Selector {
			if pod.Labels[key] != value {
				t.Errorf("Service %s looks for %s=%s, the pods have %q", name, key, value, pod.Labels[key])
			}
		}
		if reflect.DeepEqual(service.Spec.Selector, controller.Spec.Selector.MatchLabels) {
			t.Errorf("Service %s finds the controller", name)
		}
		target := service.Spec.Ports[0].TargetPort.StrVal
		if !slices.ContainsFunc(pod.Spec.Containers[0].Ports, func(p corev1.ContainerPort) bool { return p.Name == target }) {
			t.Errorf("the pods have no port %q", target)
		}
	}
}

func TestTheGatewayReadsItsCertificateWhereTheModeSaysAndNeverTheKeyOfItsCA(t *testing.T) {
	cases := map[string]struct {
		tls    map[string]any
		secret string
		// own says that the chart brings the Secret, made that it brings a Certificate.
		own, made bool
	}{
		"self-made": {map[string]any{"mode": "SelfMade"}, "support-access-gateway-tls", true, false},
		"a Secret":  {map[string]any{"mode": "Secret", "secretName": "wildcard"}, "wildcard", false, false},
		"cert-manager": {
			map[string]any{"mode": "CertManager", "issuerRef": map[string]any{"name": "ca"}}, "support-access-gateway-tls", false, true,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			rendered := ofGateway(t, map[string]any{"server": "https://gateway.example:8443", "tls": c.tls})
			spec := find[appsv1.Deployment](t, rendered, "Deployment", gatewayName).Spec.Template.Spec
			volume := spec.Volumes[slices.IndexFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Secret != nil })].Secret
			var keys []string
			for _, item := range volume.Items {
				keys = append(keys, item.Key)
			}
			if volume.SecretName != c.secret || !*volume.Optional || !slices.Equal(keys, []string{"tls.crt", "tls.key"}) {
				t.Errorf("it mounts %+v of Secret %s", keys, volume.SecretName)
			}
			if has(rendered, "Secret", c.secret) != c.own || has(rendered, "Certificate", gatewayName) != c.made {
				t.Errorf("the chart brings the Secret: %t, a Certificate: %t", has(rendered, "Secret", c.secret), has(rendered, "Certificate", gatewayName))
			}
			rules := find[rbacv1.Role](t, rendered, "Role", "support-access-controller-gateway").Rules
			if reaches := slices.ContainsFunc(rules, func(r rbacv1.PolicyRule) bool { return slices.Contains(r.Resources, "secrets") }); reaches != c.own {
				t.Errorf("the controller reaches the Secret: %t, and makes the certificate: %t", reaches, c.own)
			}
			args := find[appsv1.Deployment](t, rendered, "Deployment", "support-access").Spec.Template.Spec.Containers[0].Args
			if slices.Contains(args, "--gateway-tls-self-made") != c.own || !slices.Contains(args, "--gateway-server=https://gateway.example:8443") {
				t.Errorf("the controller is told %v", args)
			}
		})
	}
}

func TestTheCertificateIsOfTheNameAtWhichEngineersReachTheGateway(t *testing.T) {
	for server, want := range map[string]string{
		"https://gateway.example:8443": `dnsNames:["gateway.example"]`,
		"https://gateway.example":      `dnsNames:["gateway.example"]`,
		"https://192.0.2.1:8443":       `ipAddresses:["192.0.2.1"]`,
		"https://[2001:db8::1]:8443/":  `ipAddresses:["2001:db8::1"]`,
	} {
		rendered := ofGateway(t, map[string]any{"server": server, "tls": map[string]any{"mode": "CertManager", "issuerRef": map[string]any{"name": "ca"}}})
		for _, object := range rendered {
			if object.GetKind() != "Certificate" {
				continue
			}
			key, list, _ := strings.Cut(want, ":")
			if got := asJSON(t, object.Object["spec"].(map[string]any)[key]); got != list {
				t.Errorf("%s: %s is %s, want %s", server, key, got, list)
			}
		}
	}
}

func TestALogThatLastsHasOneWriterAndOutlivesTheRelease(t *testing.T) {
	rendered := ofGateway(t, map[string]any{"audit": map[string]any{"persistence": map[string]any{"enabled": true, "size": "5Gi"}}})
	claim := find[corev1.PersistentVolumeClaim](t, rendered, "PersistentVolumeClaim", gatewayName+"-audit")
	if claim.Annotations["helm.sh/resource-policy"] != "keep" || claim.Spec.Resources.Requests.Storage().String() != "5Gi" {
		t.Errorf("the claim is %v, of %v", claim.Annotations, claim.Spec.Resources.Requests)
	}
	deployment := find[appsv1.Deployment](t, rendered, "Deployment", gatewayName)
	spec := deployment.Spec.Template.Spec
	mounted := slices.ContainsFunc(spec.Volumes, func(v corev1.Volume) bool {
		return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim.Name
	})
	if deployment.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType || !mounted {
		t.Errorf("strategy %s, volumes %v", deployment.Spec.Strategy.Type, spec.Volumes)
	}
	mount := slices.IndexFunc(spec.Containers[0].VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "audit" })
	if mount < 0 {
		t.Fatalf("nothing of it is mounted: %v", spec.Containers[0].VolumeMounts)
	}
	log := "--audit-store=" + spec.Containers[0].VolumeMounts[mount].MountPath + "/audit.db"
	if !slices.Contains(spec.Containers[0].Args, log) {
		t.Errorf("%v lacks %s", spec.Containers[0].Args, log)
	}
	theirs := ofGateway(t, map[string]any{"audit": map[string]any{"persistence": map[string]any{"enabled": true, "existingClaim": "mine"}}})
	if has(theirs, "PersistentVolumeClaim", gatewayName+"-audit") {
		t.Error("beside a claim of theirs there is one of the chart's")
	}
}

func TestTheLogIsSignedNamedKeptAndReadAsTheValuesSay(t *testing.T) {
	plain := find[appsv1.Deployment](t, ofGateway(t, nil), "Deployment", gatewayName).Spec.Template.Spec
	for _, arg := range plain.Containers[0].Args {
		for _, absent := range []string{"--audit-origin", "--audit-retention", "--audit-log", "--audit-bind-address"} {
			if strings.HasPrefix(arg, absent) {
				t.Errorf("by default there is %s", arg)
			}
		}
	}
	rendered := ofGateway(t, map[string]any{"audit": map[string]any{
		"origin": "support.cluster.example/audit", "keySecret": "mine", "retention": "9600h", "stdout": true, "api": map[string]any{"enabled": true},
	}})
	spec := find[appsv1.Deployment](t, rendered, "Deployment", gatewayName).Spec.Template.Spec
	for _, arg := range []string{
		"--audit-origin=support.cluster.example/audit", "--audit-key=/etc/support-access/audit/key.pem", "--audit-retention=9600h", "--audit-log=-",
		"--audit-bind-address=:9444", "--audit-audience=supportaccess.dev/audit",
	} {
		if !slices.Contains(spec.Containers[0].Args, arg) {
			t.Errorf("%v lacks %s", spec.Containers[0].Args, arg)
		}
	}
	mounted := slices.ContainsFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Secret != nil && v.Secret.SecretName == "mine" })
	read := slices.ContainsFunc(spec.Containers[0].VolumeMounts, func(m corev1.VolumeMount) bool {
		return m.Name == "audit-key" && m.MountPath == "/etc/support-access/audit" && m.ReadOnly
	})
	if !mounted || !read {
		t.Errorf("the key is not mounted: %v, %v", spec.Volumes, spec.Containers[0].VolumeMounts)
	}
	service := find[corev1.Service](t, rendered, "Service", "support-access-audit")
	if port := service.Spec.Ports[0]; !slices.ContainsFunc(spec.Containers[0].Ports, func(p corev1.ContainerPort) bool { return p.Name == port.TargetPort.StrVal && p.ContainerPort == 9444 }) {
		t.Errorf("the Service leads to %v", port)
	}
	if has(ofGateway(t, nil), "Service", "support-access-audit") {
		t.Error("there is a way to the log that nobody asked for")
	}
}

func TestReplicasShareALogInADatabaseAndNoPasswordIsInTheirArguments(t *testing.T) {
	rendered := ofGateway(t, map[string]any{"replicas": 3, "audit": map[string]any{
		"keySecret": "mine", "postgres": map[string]any{"secret": "db-app", "tls": map[string]any{"caSecret": "db-ca"}},
	}})
	deployment := find[appsv1.Deployment](t, rendered, "Deployment", gatewayName)
	spec := deployment.Spec.Template.Spec
	container := spec.Containers[0]
	if *deployment.Spec.Replicas != 3 || deployment.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType {
		t.Errorf("%d replicas, strategy %s", *deployment.Spec.Replicas, deployment.Spec.Strategy.Type)
	}
	if slices.ContainsFunc(container.Args, func(arg string) bool {
		return strings.HasPrefix(arg, "--audit-store") || strings.HasPrefix(arg, "--audit-postgres")
	}) || !slices.Contains(container.Args, "--audit-key=/etc/support-access/audit/key.pem") {
		t.Errorf("it is told %v", container.Args)
	}
	told := map[string]string{}
	for _, variable := range container.Env {
		told[variable.Name] = variable.Value
	}
	mount := container.VolumeMounts[slices.IndexFunc(container.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "postgres" })]
	for name, want := range map[string]string{
		"SUPPORT_ACCESS_AUDIT_POSTGRES": mount.MountPath + "/url", "SUPPORT_ACCESS_AUDIT_POSTGRES_TLS": "verify-full",
		"SUPPORT_ACCESS_AUDIT_POSTGRES_CA": mount.MountPath + "/ca.crt",
	} {
		if told[name] != want {
			t.Errorf("%s is %q, want %q", name, told[name], want)
		}
	}
	files := map[string]string{}
	for _, volume := range spec.Volumes {
		if volume.PersistentVolumeClaim != nil || volume.EmptyDir != nil {
			t.Errorf("there is a volume %s", volume.Name)
		}
		if volume.Projected == nil {
			continue
		}
		for _, source := range volume.Projected.Sources {
			files[source.Secret.Items[0].Path] = source.Secret.Name + "/" + source.Secret.Items[0].Key
		}
	}
	if !maps.Equal(files, map[string]string{"url": "db-app/uri", "ca.crt": "db-ca/ca.crt"}) || !mount.ReadOnly {
		t.Errorf("it reads %v, read-only: %t", files, mount.ReadOnly)
	}
	plain := find[appsv1.Deployment](t, ofGateway(t, nil), "Deployment", gatewayName).Spec.Template.Spec.Containers[0]
	if slices.ContainsFunc(plain.Env, func(v corev1.EnvVar) bool { return strings.Contains(v.Name, "POSTGRES") }) {
		t.Errorf("by default there is a database: %v", plain.Env)
	}
}

func TestTheAuditLogIsHandedOnWhereTheValuesSayAndNothingSecretIsInArguments(t *testing.T) {
	for name, c := range map[string]struct {
		values, files map[string]string
		args          []string
	}{
		"webhook": {
			map[string]string{"url": "https://siem.example/hook", "secret": "siem", "caSecret": "siem-ca"},
			map[string]string{"signing.key": "siem/signing.key", "ca.crt": "siem-ca/ca.crt"},
			[]string{"url=https://siem.example/hook", "signing=/etc/support-access/audit-webhook/signing.key", "ca=/etc/support-access/audit-webhook/ca.crt"},
		},
		"otlp": {
			map[string]string{"url": "https://otel.example/v1/logs", "secret": "otel", "caSecret": "otel-ca"},
			map[string]string{"headers": "otel/headers", "ca.crt": "otel-ca/ca.crt"},
			[]string{"url=https://otel.example/v1/logs", "headers=/etc/support-access/audit-otlp/headers", "ca=/etc/support-access/audit-otlp/ca.crt"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			spec := find[appsv1.Deployment](t, ofGateway(t, map[string]any{"audit": map[string]any{name: c.values}}), "Deployment", gatewayName).Spec.Template.Spec
			container, volume := spec.Containers[0], "audit-"+name
			at := slices.IndexFunc(container.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == volume })
			if at < 0 || !container.VolumeMounts[at].ReadOnly || container.VolumeMounts[at].MountPath != "/etc/support-access/"+volume {
				t.Fatalf("its mounts are %v", container.VolumeMounts)
			}
			for _, arg := range c.args {
				if !slices.Contains(container.Args, "--audit-"+name+"-"+arg) {
					t.Errorf("it is not told %s", arg)
				}
			}
			if files := projected(spec.Volumes, volume); !maps.Equal(files, c.files) {
				t.Errorf("it reads %v", files)
			}
			plain := find[appsv1.Deployment](t, ofGateway(t, nil), "Deployment", gatewayName).Spec.Template.Spec
			if slices.ContainsFunc(plain.Containers[0].Args, func(arg string) bool { return strings.HasPrefix(arg, "--"+volume) }) || len(plain.Volumes) >= len(spec.Volumes) {
				t.Errorf("by default it is told %v", plain.Containers[0].Args)
			}
		})
	}
	open := find[appsv1.Deployment](t, ofGateway(t, map[string]any{"audit": map[string]any{"otlp": map[string]any{"url": "https://otel.example/v1/logs"}}}), "Deployment", gatewayName).Spec.Template.Spec
	if args := open.Containers[0].Args; !slices.Contains(args, "--audit-otlp-url=https://otel.example/v1/logs") || len(projected(open.Volumes, "audit-otlp")) > 0 || slices.ContainsFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "--audit-otlp-headers") }) {
		t.Errorf("without a Secret it is told %v", args)
	}
}

// projected are the files of a volume, and from which key of which Secret each is.
func projected(volumes []corev1.Volume, name string) map[string]string {
	files := map[string]string{}
	for _, volume := range volumes {
		if volume.Name != name {
			continue
		}
		for _, source := range volume.Projected.Sources {
			files[source.Secret.Items[0].Path] = source.Secret.Name + "/" + source.Secret.Items[0].Key
		}
	}
	return files
}

func TestABudgetComesWithTheSecondReplicaOfTheGateway(t *testing.T) {
	if has(ofGateway(t, nil), "PodDisruptionBudget", gatewayName) {
		t.Error("one replica has a budget, which would block every drain or say nothing")
	}
	rendered := ofGateway(t, map[string]any{"replicas": 3})
	budget := find[policyv1.PodDisruptionBudget](t, rendered, "PodDisruptionBudget", gatewayName)
	deployment := find[appsv1.Deployment](t, rendered, "Deployment", gatewayName)
	if *deployment.Spec.Replicas != 3 || !reflect.DeepEqual(budget.Spec.Selector, deployment.Spec.Selector) {
		t.Errorf("the budget is for %v, the Deployment's %d pods are %v", budget.Spec.Selector, *deployment.Spec.Replicas, deployment.Spec.Selector)
	}
}

func TestTheOldVerbImpersonateIsHandedOutOnlyWhereItIsAskedFor(t *testing.T) {
	holds := func(rendered []*unstructured.Unstructured) bool {
		for _, object := range rendered {
			if object.GetKind() != "ClusterRole" && object.GetKind() != "Role" {
				continue
			}
			if slices.ContainsFunc(as[rbacv1.ClusterRole](t, object).Rules, func(r rbacv1.PolicyRule) bool { return slices.Contains(r.Verbs, "impersonate") }) {
				return true
			}
		}
		return false
	}
	if holds(ofGateway(t, nil)) {
		t.Error("it is, unasked")
	}
	if !holds(ofGateway(t, map[string]any{"legacyImpersonation": true})) {
		t.Error("it is not, asked for")
	}
}

func TestAGatewayThatCouldNotWorkIsRefusedBeforeItIsInstalled(t *testing.T) {
	offering := map[string]any{"defaultPolicy": map[string]any{"spec": map[string]any{"transports": []any{"Gateway"}}}}
	cases := map[string]struct {
		values  map[string]any
		message string
	}{
		"a Secret without a name":      {tree("tls.mode", "Secret"), "gateway.tls.secretName: name the Secret"},
		"a self-made one by your name": {tree("tls.secretName", "mine"), "gateway.tls.secretName: with mode SelfMade"},
		"nobody to issue it":           {tree("tls.mode", "CertManager"), "gateway.tls.issuerRef.name: name the issuer"},
		"no name to issue it for":      {tree("tls", map[string]any{"mode": "CertManager", "issuerRef": map[string]any{"name": "a"}}), "gateway.server: give it"},
		"certificates of no address":   {tree("caBundle", "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----"), "gateway.caBundle: give gateway.server too"},
		"two writers of one log":       {map[string]any{"replicas": 2, "audit": tree("persistence.enabled", true)}, "gateway.replicas: with gateway.audit.persistence there is one replica"},
		"two places for one log": {
			map[string]any{"audit": map[string]any{"keySecret": "k", "persistence": map[string]any{"enabled": true}, "postgres": map[string]any{"secret": "db"}}},
			"gateway.audit.postgres.secret: with gateway.audit.persistence the log is on a volume",
		},
		"a webhook without what signs":      {tree("audit.webhook.url", "https://siem.example"), "gateway.audit.webhook.secret: give it with gateway.audit.webhook.url"},
		"a shared log without a shared key": {tree("audit.postgres.secret", "db"), "gateway.audit.keySecret: give it with gateway.audit.postgres"},
		"certificates that nobody looks at": {
			tree("audit.postgres.tls", map[string]any{"mode": "require", "caSecret": "ca"}), "gateway.audit.postgres.tls.caSecret: with mode require nobody asks",
		},
		"a port of nodes that has none": {tree("service.nodePort", 30443), "gateway.service.nodePort: needs"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := template(t, release(t, map[string]any{"gateway": withValues(c.values)}))
			if err == nil || !strings.Contains(err.Error(), c.message) {
				t.Errorf("%v, want %q", err, c.message)
			}
		})
	}
	for name, r := range map[string]helm.Release{
		"offered, and nowhere to be reached": release(t, map[string]any{"gateway": withValues(nil), "defaultPolicy": offering["defaultPolicy"]}),
		"offered, and not there":             release(t, map[string]any{"gateway": map[string]any{"enabled": false, "server": "https://a.example"}, "defaultPolicy": offering["defaultPolicy"]}),
	} {
		if _, err := template(t, r); err == nil || !strings.Contains(err.Error(), "defaultPolicy.spec.transports: Gateway needs gateway.enabled and gateway.server") {
			t.Errorf("%s: %v", name, err)
		}
	}
	works := release(t, map[string]any{"gateway": withValues(map[string]any{"server": "https://a.example"}), "defaultPolicy": offering["defaultPolicy"]})
	if _, err := template(t, works); err != nil {
		t.Errorf("offered, and there: %v", err)
	}
}

func TestTheDefaultPolicyOffersTheGatewayWhereThereIsOne(t *testing.T) {
	for name, c := range map[string]struct {
		gateway map[string]any
		want    string
	}{
		"no gateway":            {nil, "Direct"},
		"one without a server":  {withValues(nil), "Direct"},
		"one that can be found": {withValues(map[string]any{"server": "https://a.example"}), "Gateway"},
	} {
		t.Run(name, func(t *testing.T) {
			values := map[string]any{}
			if c.gateway != nil {
				values["gateway"] = c.gateway
			}
			rendered, err := template(t, release(t, values))
			if err != nil {
				t.Fatal(err)
			}
			for _, object := range rendered {
				if object.GetKind() != "SupportAccessPolicy" {
					continue
				}
				transports, _, err := unstructured.NestedStringSlice(object.Object, "spec", "transports")
				if err != nil || len(transports) != 1 || transports[0] != c.want {
					t.Errorf("got %v, %v, want %s", transports, err, c.want)
				}
				return
			}
			t.Error("there is no default policy")
		})
	}
}
