package v1alpha1_test

import (
	"maps"
	"slices"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
)

// seeds are, for every kind, objects that the API server accepts and that between them use every field.
var seeds = map[string][]string{
	"SupportAccessGrant": {grantSeed, `
apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessGrant
metadata: {name: case-4712, namespace: mail-archive}
spec:
  reason: look at the configuration
  engineers: [{name: ana}]
  scope: {cluster: true}
  startTime: "2026-12-01T18:00:00+01:00"
  expirationTime: "2026-12-02T18:00:00-05:30"
`, `
apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessGrant
metadata: {name: case-4717, namespace: mail-archive}
spec:
  reason: as was asked for
  engineers: [{name: ana}]
  duration: 24h
  requestRef: {name: case-4717, uid: 7d1e6f0e-0000-4000-8000-000000000009, requestedBy: ana@vendor.example}
`, `
apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessGrant
metadata: {name: case-4713, namespace: mail-archive}
spec:
  reason: look at what was flagged
  engineers: [{name: ana}]
  roles: [support-access-configuration, support-access-flagged]
  flaggedContent: Allow
  transport: Gateway
  duration: 4h
`, `
apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessGrant
metadata: {name: setting-abc, namespace: mail-archive}
spec:
  reason: support access is switched on for this namespace
  engineers: [{name: ana}]
  expirationTime: "2026-12-31T18:00:00Z"
  grantedBy: admin@customer.example
  settingRef: {uid: 7d1e6f0e-0000-4000-8000-000000000005, generation: 3}
`},
	"SupportAccessDecision": {decisionSeed, `
apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessDecision
metadata: {name: end-all, namespace: support-access-system}
spec: {action: Revoke, target: {cluster: All}, reason: stop}
`, `
apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessDecision
metadata: {name: end-here, namespace: mail-archive}
spec: {action: Revoke, target: {namespace: All, engineer: ana@vendor.example}, reason: left}
`, `
apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessDecision
metadata: {name: deny-1, namespace: mail-archive}
spec: {action: Deny, target: {request: wish-1}, reason: not now}
`},
	"SupportAccessPolicy": {policySeed, `
apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessPolicy
metadata: {name: abuse}
spec:
  roles: [{name: support-access-flagged}]
  transports: [Gateway]
  flaggedContent:
    resources:
    - {group: archive.example, resource: mails}
    - {resource: configmaps}
    selector:
      matchLabels: {supportaccess.dev/flagged-by: scanner}
      matchExpressions:
      - {key: supportaccess.dev/flagged, operator: In, values: [malware, phishing]}
      - {key: supportaccess.dev/flagged, operator: Exists}
`},
	"SupportAccessSetting": {settingSeed, `
apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessSetting
metadata: {name: support-access, namespace: shop}
spec: {engineers: [{name: cy}]}
`},
	"SupportAccessRequest": {requestSeed, `
apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessRequest
metadata: {name: wish-1, namespace: shop}
spec: {reason: again, engineers: [{name: cy}], duration: 30m, scope: {cluster: true}}
`},
	"SupportAccessSession": {sessionSeed},
	"SupportAccessRecord": {recordSeed, `
apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessRecord
metadata: {name: case-4712, namespace: mail-archive}
spec:
  grant: {namespace: mail-archive, name: case-4712, uid: 7d1e6f0e-0000-4000-8000-000000000003, specDigest: "sha256:00"}
  scope: {cluster: true}
  settingRef: {uid: 7d1e6f0e-0000-4000-8000-000000000005, generation: 3}
`, `
apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessRecord
metadata: {name: setting.supportaccess.dev, namespace: mail-archive}
spec:
  setting: {namespace: mail-archive}
status:
  setting: {uid: 7d1e6f0e-0000-4000-8000-000000000005, generation: 3, enabledUntil: "2026-12-31T18:00:00Z"}
  enabledByDefault: {policy: accounts, time: "2026-12-01T18:00:00.250000Z"}
  transitions:
  - {time: "2026-12-01T18:00:00.250000Z", type: EnabledByDefault, by: admin@customer.example, message: it is on}
`, `
apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessRecord
metadata: {name: case-4717.request.supportaccess.dev, namespace: mail-archive}
spec:
  request: {namespace: mail-archive, name: case-4717, uid: 7d1e6f0e-0000-4000-8000-000000000009, requestedBy: ana@vendor.example, duration: 24h, creationTime: "2026-12-01T17:00:00Z"}
status:
  answer: {name: case-4717, uid: 7d1e6f0e-0000-4000-8000-000000000001}
`, `
apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessRecord
metadata: {name: case-4717, namespace: mail-archive}
spec:
  grant: {namespace: mail-archive, name: case-4717, uid: 7d1e6f0e-0000-4000-8000-000000000001, specDigest: "sha256:00"}
  requestRef: {name: case-4717, uid: 7d1e6f0e-0000-4000-8000-000000000009, requestedBy: ana@vendor.example}
`},
}

const requestSeed = `
apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessRequest
metadata: {name: case-4717, namespace: mail-archive}
spec:
  case: {id: CASE-4717, url: "https://support.vendor.example/4717"}
  reason: may I see the connector's settings?
  engineers:
  - {name: ana@vendor.example, publicKey: age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq}
  roles: [support-access-configuration]
  scope: {namespaces: [mail-archive]}
  duration: 24h
  requestedBy: ana@vendor.example
status:
  observedGeneration: 1
  grant: {name: case-4717, uid: 7d1e6f0e-0000-4000-8000-000000000001}
  expirationTime: "2026-12-04T18:00:00Z"
  engineerNames: ana@vendor.example
  conditions:
  - {type: Ready, status: "True", reason: Granted, message: a grant answers it, lastTransitionTime: "2026-12-01T18:00:00Z", observedGeneration: 1}
`

const settingSeed = `
apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessSetting
metadata: {name: support-access, namespace: mail-archive}
spec:
  enabledUntil: "2026-12-31T18:00:00+01:00"
  engineers:
  - {name: ana@vendor.example, publicKey: age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq}
  engineerList: archive
  roles: [support-access-configuration]
  transport: Gateway
  reason: the vendor looks after this archive
  switchedBy: admin@customer.example
status:
  observedGeneration: 2
  provenGeneration: 2
  guardedSince: "2026-12-01T17:00:00Z"
  grant: setting-abc
  engineerNames: ana@vendor.example
  conditions:
  - {type: Ready, status: "True", reason: "On", message: it is on, lastTransitionTime: "2026-12-01T18:00:00Z", observedGeneration: 2}
`

const grantSeed = `
apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessGrant
metadata:
  name: case-4711
  namespace: mail-archive
  labels: {app: mail}
  annotations: {note: by hand}
  finalizers: [supportaccess.dev/close]
spec:
  case: {id: CASE-4711, url: "https://support.vendor.example/4711"}
  reason: IMAP connector cannot reach the server since the upgrade
  engineers:
  - {name: ana@vendor.example, publicKey: age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq}
  - {name: ben@vendor.example, publicKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIQ== ben@laptop"}
  - {name: cy}
  roles: [support-access-configuration, "product:support"]
  scope: {namespaces: [mail-archive, mail-archive-db], cluster: false}
  duration: 24h
  startTime: "2026-12-01T18:00:00Z"
  transport: Direct
  grantedBy: admin@customer.example
status:
  observedGeneration: 1
  transport: Direct
  startTime: "2026-12-01T18:00:00Z"
  expirationTime: "2026-12-02T18:00:00Z"
  endTime: "2026-12-02T18:00:01Z"
  endReason: Expired
  endedBy: support-access
  conditions:
  - {type: Ready, status: "True", reason: Expired, message: it is over, lastTransitionTime: "2026-12-02T18:00:01Z", observedGeneration: 1}
  - {type: Active, status: "False", reason: Expired, message: "", lastTransitionTime: "2026-12-02T18:00:01Z"}
  engineerNames: ana@vendor.example, cy
  engineers:
  - name: ana@vendor.example
    username: system:serviceaccount:support-access-credentials:e-abc
    encryptedKubeconfig: "-----BEGIN AGE ENCRYPTED FILE-----"
    credentialExpirationTime: "2026-12-02T18:00:00Z"
  - name: cy
    credentialSecretRef: {namespace: support-access-credentials, name: k-abc, key: kubeconfig}
    credentialHash: sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
    sessions: 2
    lastSeenTime: "2026-12-02T17:59:00Z"
`

const decisionSeed = `
apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessDecision
metadata: {name: shorten-4711, namespace: mail-archive}
spec:
  action: Shorten
  target: {grant: case-4711, uid: 0b7c1f6e-2a39-4c0e-8b51-5e2a77a0c6de}
  expirationTime: "2026-12-01T19:00:00+02:00"
  reason: done early
  decidedBy: admin@customer.example
  authority: Namespace
status:
  observedGeneration: 1
  grants: 1
  conditions:
  - {type: Applied, status: "True", reason: Latched, message: ok, lastTransitionTime: "2026-12-01T18:30:00Z", observedGeneration: 1}
`

const policySeed = `
apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessPolicy
metadata: {name: default}
spec:
  newGrants: Allowed
  durations: [24h, 72h, 168h]
  maxDuration: 168h
  maxEnabled: 720h
  approvalTimeout: 24h
  requestTimeout: 48h
  maxOpenRequests: 3
  engineerLists:
  - name: archive
    engineers:
    - {name: ana@vendor.example, publicKey: age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq}
  serviceAccountApprovers: [system:serviceaccount:ci:approver]
  maxStartDelay: 0s
  roles:
  - {name: support-access-configuration}
  - {name: support-access-content, elevated: true, maxDuration: 4h30m15s, approvals: 2}
  - {name: support-access-diagnostics, elevated: false}
  scopes: [Namespaces, Cluster]
  transports: [Gateway, Direct]
  casePattern: '^CASE-[0-9]+$'
  engineerPattern: '@vendor\.example$'
  requirePublicKey: Always
  serviceAccountGrants: ExpirationTimeOnly
  protectedNamespaces: [kube-system]
  credentialReaders:
  - {kind: User, name: desk@customer.example}
  - {kind: ServiceAccount, name: desk, namespace: support-desk}
  sessions: {idleTimeout: 30m, maxConnections: 8, maxStreamBytes: 1048576}
  recording: {input: Always, maxLogBytes: 4096}
  handoverWindow: 12h
  enabledByDefault:
    createdSince: "2026-12-01T18:00:00Z"
    duration: 720h
    engineers:
    - {name: ana@vendor.example, publicKey: age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq}
    roles: [support-access-configuration]
    transport: Gateway
    reason: the vendor looks after new accounts
    switchedBy: admin@customer.example
  notifications:
    delivery: Required
    admins: [ops@customer.example, "o'brien+oncall@customer.example"]
    expiringSoon: 30m
    channels:
    - name: mail
      email: {server: "smtp.customer.example:587", tls: StartTLS, from: access@customer.example, username: access, passwordKey: mail.password}
      caBundle: |
        -----BEGIN CERTIFICATE-----
    - name: chat
      slack: {urlKey: slack.url}
      events: [Granted, OpenedElevated, Revoked, SwitchedOffByItself]
    - name: siem
      webhook: {url: "https://hooks.customer.example/support-access?x=1", signingKey: siem.key}
  neverAllow:
  - {verbs: [get], apiGroups: [""], resources: [pods/log], resourceNames: [secretive]}
  - {verbs: ["*"], nonResourceURLs: [/debug/*]}
status:
  seenGeneration: 2
  provenGeneration: 2
  guardedSince: "2026-12-01T17:00:00Z"
  conditions:
  - {type: EnabledByDefault, status: "True", reason: "On", message: it is on, lastTransitionTime: "2026-12-01T18:00:00Z", observedGeneration: 2}
`

const sessionSeed = `
apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessSession
metadata: {name: replica-abc, namespace: support-access-system}
spec:
  grant: {namespace: mail-archive, name: case-4711, uid: 7d1e6f0e-0000-4000-8000-000000000001}
  replica: support-access-gateway-abc
status:
  engineers:
  - {name: ana@vendor.example, connections: 2, credentialHash: "sha256:0000000000000000000000000000000000000000000000000000000000000000", firstSeenTime: "2026-12-01T18:00:00Z", lastSeenTime: "2026-12-01T19:00:00+01:00"}
  renewTime: "2026-12-01T18:00:00.250000Z"
  cutTime: "2026-12-02T18:00:00.000001Z"
  cutReason: Expired
  cutConnections: 2
  unable: the API server does not let the gateway act as engineers
  leftBehind:
    time: "2026-12-02T18:00:02.000000Z"
    unknown: the audit log keeps entries for 24h0m0s
    objects:
    - {group: rbac.authorization.k8s.io, resource: rolebindings, namespace: mail-archive, name: stay, uid: 7d1e6f0e-0000-4000-8000-000000000009, deed: Created, outlives: Permissions, doubt: DeletionAsked, by: ana@vendor.example}
    - {resource: configmaps, namespace: mail-archive, deed: Changed}
    droppedObjects: 7
    seen:
    - {kind: Secret, namespace: mail-archive, name: imap, by: ana@vendor.example}
    - {kind: Pod}
    droppedSeen: 1
  log:
    checkpoint: "supportaccess.dev/audit\n2\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
    keys: [supportaccess.dev/audit+00000000+AQ==]
    since: 1
    proof: [AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=]
`

const recordSeed = `
apiVersion: supportaccess.dev/v1alpha1
kind: SupportAccessRecord
metadata: {name: case-4711, namespace: mail-archive}
spec:
  grant: {namespace: mail-archive, name: case-4711, uid: 7d1e6f0e-0000-4000-8000-000000000001, specDigest: "sha256:00", creationTime: "2026-12-01T17:59:00Z"}
  claimedAuthor: tom@customer.example
  grantedBy: admin@customer.example
  case: {id: CASE-4711, url: "https://support.vendor.example/4711"}
  reason: IMAP
  engineers: [ana@vendor.example, cy]
  roles: [support-access-configuration]
  scope: {namespaces: [mail-archive]}
  transport: Direct
  policy: default
status:
  startTime: "2026-12-01T18:00:00Z"
  expirationTime: "2026-12-02T18:00:00Z"
  awaitingApprovalTime: "2026-12-01T17:00:00Z"
  approvalsNeeded: 1
  approvals:
  - {by: pat@customer.example, decision: yes-4711, uid: 8c8f1e0e-7d3c-4f3b-9d55-3f6a53f2b1aa, authority: Cluster, time: "2026-12-01T17:59:00Z", reason: the case needs it}
  provisionedTime: "2026-12-01T18:00:00.250000Z"
  bindings:
  - {namespace: mail-archive, name: sa-abc, uid: 7d1e6f0e-0000-4000-8000-000000000002, role: support-access-configuration, withdrawn: true}
  rules: [{role: support-access-configuration, digest: "00"}]
  ambientBindings: [ClusterRoleBinding system:basic-user]
  removedEngineers: [{name: cy, time: "2026-12-01T18:05:00.000000Z", by: admin@customer.example}]
  firstUses: [{name: ana, time: "2026-12-01T18:10:00.000000Z"}]
  handedOver: [{name: ana, time: "2026-12-01T18:10:01.000000Z"}]
  replacedCredentials: [{name: ana, hash: "sha256:0000000000000000000000000000000000000000000000000000000000000000", decisionTime: "2026-12-01T18:11:00Z"}]
  disconnectedTime: "2026-12-02T18:00:01.500000Z"
  endTime: "2026-12-02T18:00:00.000001Z"
  endReason: Expired
  endMessage: its time was over
  endedBy: support-access
  verifiedTime: "2026-12-02T18:00:01.000000+01:00"
  transitions:
  - {time: "2026-12-01T18:00:00.250000Z", type: Opened, by: support-access, message: access is open}
  droppedTransitions: 3
  notifications:
  - channel: default.mail
    settledID: f4x2k3abcdefghijklmnopqrst
    settledTime: "2026-12-01T18:00:00.000000Z"
    delivered: 2
    attempts: 3
    firstAttemptTime: "2026-12-01T18:00:05Z"
    nextAttemptTime: "2026-12-01T18:01:05Z"
    lastError: the answer was 500 Internal Server Error
    told: [0123456789abcdef]
    deadLetters: [{id: f4x2k3, event: Granted, time: "2026-12-01T18:00:05Z", error: gone}]
    droppedDeadLetters: 1
  droppedBindings: 2
  leftBehind:
    time: "2026-12-02T18:00:02.000000Z"
    unknown: the audit log keeps entries for 24h0m0s
    objects:
    - {group: rbac.authorization.k8s.io, resource: rolebindings, namespace: mail-archive, name: stay, uid: 7d1e6f0e-0000-4000-8000-000000000009, deed: Created, outlives: Permissions, doubt: DeletionAsked, by: ana@vendor.example}
    - {resource: configmaps, namespace: mail-archive, deed: Changed}
    droppedObjects: 7
    seen:
    - {kind: Secret, namespace: mail-archive, name: imap, by: ana@vendor.example}
    - {kind: Pod}
    droppedSeen: 1
`

func TestTheSeedsAreAcceptedAndUseEveryField(t *testing.T) {
	kinds := serve(t)
	for kind, s := range kinds {
		used := map[string]bool{}
		for i, seed := range seeds[kind] {
			obj := s.decode(toJSON(t, fromYAML(t, seed)))
			if obj == nil {
				t.Fatalf("%s %d: cannot be read", kind, i)
			}
			for _, err := range s.create(obj) {
				t.Errorf("%s %d: %v", kind, i, err)
			}
			collect("", obj, used)
		}
		for _, path := range slices.Sorted(maps.Keys(fieldsOf("", s.schema))) {
			if !used[path] {
				t.Errorf("%s: no seed uses %s: what is not there is not tried", kind, path)
			}
		}
	}
}

// collect notes the path of everything in a value; the elements of a list share one.
func collect(path string, value any, used map[string]bool) {
	used[path] = true
	switch v := value.(type) {
	case map[string]any:
		for key, child := range v {
			collect(path+"."+key, child, used)
		}
	case []any:
		for _, child := range v {
			collect(path, child, used)
		}
	}
}

// fieldsOf returns the path of every field that a schema knows.
func fieldsOf(path string, s *schema.Structural) map[string]bool {
	found := map[string]bool{path: true}
	for name, property := range s.Properties {
		maps.Copy(found, fieldsOf(path+"."+name, &property))
	}
	if s.Items != nil {
		maps.Copy(found, fieldsOf(path, s.Items))
	}
	return found
}

// What the builders of test objects build is what an API server would store.
func TestWhatTheBuildersBuildIsAccepted(t *testing.T) {
	grant := gen.Grant("case-4711", gen.Namespace)
	built := map[string][]any{
		"SupportAccessGrant": {
			grant, gen.ToApply("case-4711", gen.Namespace, gen.WithScope("a", "b"), gen.WithTransport(""), gen.WithCase("")),
			gen.Grant("g", "n", gen.WithExpiration(gen.Epoch), gen.WithCluster(), gen.WithPublicKey(gen.Engineer, "age1qqq"), gen.WithGrantEnd(gen.Epoch, "Expired", "us")),
			gen.Grant("g", "n", gen.WithStart(gen.Epoch), gen.WithDuration("1h"), gen.WithEngineers("ana", "ben"), gen.WithRoles("view"), gen.WithDeletion(gen.Epoch), gen.Answering(gen.Request("r", "n"))),
		},
		"SupportAccessDecision": {
			gen.Decision("d", gen.Namespace), gen.Decision("d", gen.Namespace, gen.Shortening("g", gen.Epoch)), gen.Decision("d", gen.Namespace, gen.RevokingEngineer("g", "ana")),
			gen.Decision("d", gen.Namespace, gen.RevokingNamespace()), gen.Decision("d", gen.Namespace, gen.RevokingCluster()),
			gen.Decision("d", gen.Namespace, gen.Approving("g"), gen.WithAuthority("Cluster"), gen.OfGrantUID("0")), gen.Decision("d", gen.Namespace, gen.Denying("g")), gen.Decision("d", gen.Namespace, gen.DenyingRequest("r")),
		},
		"SupportAccessPolicy": {
			gen.Policy("default"), gen.Policy("e", gen.EnablingByDefault(gen.Epoch)), gen.Policy("p", gen.AnyDuration("1h"), gen.Suspended(), gen.Protecting("a"), gen.OfferingScopes("Cluster"), gen.OfferingTransports("Gateway"),
				gen.Offering(v1alpha1.OfferedRole{Name: gen.Content, Elevated: true, MaxDuration: "30m"}),
				gen.NeverAllowing(v1alpha1.Rule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods/log"}})),
		},
		"SupportAccessSession": {gen.Session(grant, "replica-1", gen.Epoch)},
		"SupportAccessRequest": {
			gen.Request("r", gen.Namespace), gen.RequestToApply("r", gen.Namespace, gen.AskedBy("x")), gen.Request("r", "n", gen.AskedAt(gen.Epoch), gen.RequestIs("Open")),
			gen.Request("r", "n", gen.AskingFor(func(s *v1alpha1.SupportAccessRequestSpec) { s.Duration = "1h" })),
		},
		"SupportAccessSetting": {gen.Setting(gen.Namespace), gen.Setting("shop", gen.SwitchedOff(), gen.SwitchedBy("ben"))},
		"SupportAccessRecord": {
			gen.Record(grant), gen.Record(gen.Grant("g", "n", gen.WithCluster(), gen.WithCase(""), gen.WithExpiration(gen.Epoch)), gen.Unprovisioned(),
				gen.WithBinding("n", "b", gen.Content), gen.WithRules(gen.Content, "00"), gen.WithSpecDigest("x"), gen.WithRecordEnd(gen.Epoch, "Expired", "us"),
				gen.WithTransition(gen.Epoch, "Opened", "us")),
		},
	}
	kinds := serve(t)
	for kind, s := range kinds {
		if len(built[kind]) == 0 {
			t.Errorf("%s: nothing is built", kind)
		}
		for i, b := range built[kind] {
			obj := s.decode(toJSON(t, b))
			if obj == nil {
				t.Errorf("%s %d: cannot be read", kind, i)
				continue
			}
			for _, err := range s.create(obj) {
				t.Errorf("%s %d: %v", kind, i, err)
			}
		}
	}
}
