package chart

import (
	"strings"
	"testing"

	"supportaccess.dev/operator/hack/controlplane/helm"
)

func TestBadValuesAreRefusedWithTheFieldsName(t *testing.T) {
	cases := map[string]struct {
		values  map[string]any
		message string
	}{
		"a value that does not exist":         {tree("replica", 2), "'replica' not allowed"},
		"a value that does not exist, deeper": {tree("image.name", "x"), "'name' not allowed"},
		"a word for a number":                 {tree("replicas", "two"), "/replicas"},
		"a number for a switch":               {tree("crds.keep", 1), "/crds/keep"},
		"fewer replicas than none":            {tree("replicas", -1), "/replicas"},
		"a log level of another program":      {tree("log.level", "verbose"), "/log/level"},
		"a log format of another program":     {tree("log.format", "xml"), "/log/format"},
		"a stamp that nobody makes":           {tree("admission.stamp", "Webhook"), "/admission/stamp"},
		"days":                                {tree("recordRetention", "400d"), "/recordRetention"},
		"a server without https":              {tree("cluster.server", "http://api.example"), "/cluster/server"},
		"a path in place of certificates":     {tree("cluster.caBundle", "/etc/ca.crt"), "/cluster/caBundle"},
		"a digest that is a tag":              {tree("image.digest", "latest"), "/image/digest"},
		"a tag with a blank":                  {tree("image.tag", "1 2"), "/image/tag"},
		"no repository":                       {tree("image.repository", ""), "/image/repository"},
		"a pull policy in lower case":         {tree("image.pullPolicy", "always"), "/image/pullPolicy"},
		"a pull secret without a name":        {tree("imagePullSecrets", []any{map[string]any{}}), "/imagePullSecrets/0"},
		"no roles at all":                     {tree("offeredRoles", []any{}), "/offeredRoles"},
		"every role":                          {tree("offeredRoles", []any{"*"}), "/offeredRoles/0"},
		"a user that ends the list in CEL":    {tree("extraSystemUsers", []any{"x'] + ['y"}), "/extraSystemUsers/0"},
		"two users in one":                    {tree("extraSystemUsers", []any{"x,y"}), "/extraSystemUsers/0"},
		"an address without its length":       {tree("notifications.allow", []any{"127.0.0.1"}), "/notifications/allow/0"},
		"a channel outside of a policy":       {tree("notifications.channels", []any{}), "'channels' not allowed"},
		"no time to close":                    {tree("uninstall.timeoutSeconds", 0), "/uninstall/timeoutSeconds"},
		"a list of annotations":               {tree("podAnnotations", []any{"x"}), "/podAnnotations"},
		"a gateway without https":             {tree("gateway.server", "http://gateway.example"), "/gateway/server"},
		"a gateway below a path":              {tree("gateway.server", "https://gateway.example/support"), "/gateway/server"},
		"a gateway's mode of its own":         {tree("gateway.tls.mode", "None"), "/gateway/tls/mode"},
		"a gateway's value that is not one":   {tree("gateway.port", 1), "'port' not allowed"},
		"a gateway's limits by another name":  {tree("gateway.resources.limit", map[string]any{}), "'limit' not allowed"},
		"a webhook without TLS":               {tree("gateway.audit.webhook.url", "http://siem.example"), "/gateway/audit/webhook/url"},
		"a collector without TLS":             {tree("gateway.audit.otlp.url", "http://otel.example/v1/logs"), "/gateway/audit/otlp/url"},
		"a collector without its path":        {tree("gateway.audit.otlp.url", "https://otel.example:4318"), "/gateway/audit/otlp/url"},
		"a URL in place of a Secret":          {tree("gateway.audit.postgres.secret", "postgres://a:b@c/d"), "/gateway/audit/postgres/secret"},
		"a key that no Secret has":            {tree("gateway.audit.postgres.key", "uri url"), "/gateway/audit/postgres/key"},
		"a way to reach it that may be plain": {tree("gateway.audit.postgres.tls.mode", "prefer"), "/gateway/audit/postgres/tls/mode"},
		"a database's value that is not one":  {tree("gateway.audit.postgres.url", "x"), "'url' not allowed"},
		"a policy with a field of its own":    {tree("defaultPolicy.spec.maximum", "24h"), "'maximum' not allowed"},
		"a policy in days":                    {tree("defaultPolicy.spec.maxDuration", "7d"), "/defaultPolicy/spec/maxDuration"},
		"a policy with an unknown transport":  {tree("defaultPolicy.spec.transports", []any{"VPN"}), "/defaultPolicy/spec/transports/0"},
		"a policy without roles":              {tree("defaultPolicy.spec.roles", []any{}), "/defaultPolicy/spec/roles"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := template(t, release(t, c.values))
			if err == nil {
				t.Fatalf("%v is taken", c.values)
			}
			if !strings.Contains(err.Error(), c.message) || !strings.Contains(err.Error(), "schema") {
				t.Errorf("the message does not come from the schema or lacks %q: %v", c.message, err)
			}
		})
	}
}

// tree is the values in which path, split at dots, has that value.
func tree(path string, value any) map[string]any {
	key, rest, deeper := strings.Cut(path, ".")
	if deeper {
		value = tree(rest, value)
	}
	return map[string]any{key: value}
}

func TestGoodValuesAreTaken(t *testing.T) {
	cases := map[string]map[string]any{
		"none":                       nil,
		"no CRDs":                    tree("crds.enabled", false),
		"no default policy":          tree("defaultPolicy.create", false),
		"another policy":             tree("defaultPolicy.spec.engineerPattern", `@acme\.example$`),
		"a subchart's global values": tree("global", map[string]any{"any": "thing"}),
		"a user with colons":         tree("extraSystemUsers", []any{"system:serviceaccount:tidy:namespaces"}),
		"no replica":                 tree("replicas", 0),
		"limits in numbers":          tree("resources.limits", map[string]any{"cpu": 1, "memory": "1Gi"}),
	}
	for name, values := range cases {
		t.Run(name, func(t *testing.T) {
			if _, err := template(t, release(t, values)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWhatCouldNotWorkIsRefusedBeforeItIsInstalled(t *testing.T) {
	elsewhere, renamed := release(t, nil), release(t, nil)
	elsewhere.Namespace = "default"
	renamed.Name = "sa"
	cases := map[string]struct {
		release helm.Release
		message string
	}{
		"another namespace":    {elsewhere, "namespace default: support access runs in namespace support-access-system"},
		"another release name": {renamed, "release sa: the CRDs belong to release support-access"},
		"a server that cannot stamp": {
			release(t, nil, "--kube-version", "1.35.4"),
			"admission.stamp: Policy needs Kubernetes 1.36 (MutatingAdmissionPolicy), and this server is v1.35.4: give --set admission.stamp=Manifest",
		},
		"a server that is too old": {
			release(t, tree("admission.stamp", "Manifest"), "--kube-version", "1.29.0"), "requires kubeVersion: >=1.30.0-0",
		},
		"a role that the controller could not bind": {
			release(t, tree("defaultPolicy.spec.roles", []any{map[string]any{"name": "vendor-content", "elevated": true}})),
			"defaultPolicy.spec.roles: vendor-content is not among offeredRoles",
		},
		"CRDs that are guarded and to be deleted": {
			release(t, map[string]any{"guardCRDs": map[string]any{"enabled": true}, "crds": map[string]any{"keep": false}}),
			"guardCRDs.enabled: with crds.keep=false",
		},
		"certificates of no address": {
			release(t, tree("cluster.caBundle", "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----")),
			"cluster.caBundle: give cluster.server too",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := template(t, c.release)
			if err == nil || !strings.Contains(err.Error(), c.message) {
				t.Errorf("%v, want %q", err, c.message)
			}
		})
	}
}

func TestServersFrom130OnAreTakenWhereTheManifestStamps(t *testing.T) {
	for _, version := range []string{"1.30.0", "1.33.2", "1.35.4"} {
		if _, err := template(t, release(t, tree("admission.stamp", "Manifest"), "--kube-version", version)); err != nil {
			t.Errorf("%s: %v", version, err)
		}
	}
}
