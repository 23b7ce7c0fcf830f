// Package replicas runs two gateways that keep one audit log in PostgreSQL, as the chart sets them up: the control plane is
// real, the chart is installed by Helm, controller and gateways run from their rendered Deployments.
package replicas

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/hack/controlplane"
	harness "supportaccess.dev/operator/hack/postgres"
	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/chain"
	"supportaccess.dev/operator/internal/audit/postgres"
	"supportaccess.dev/operator/internal/audit/verify"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/post"
	"supportaccess.dev/operator/test/world"
)

func TestMain(m *testing.M) { world.MainWith(m, controlplane.Options{}) }

// TestReplicasKeepOneLogWhateverBecomesOfOneOrOfTheDatabase has an engineer come through two gateways at once. One is killed,
// and the database falls and comes back.
func TestReplicasKeepOneLogWhateverBecomesOfOneOrOfTheDatabase(t *testing.T) {
	s := newScene(t)
	first, second := s.starts(t), s.starts(t)
	ana := s.comes(t, first.ip)
	both := []*engineer{ana, ana.through(t, second.ip)}
	s.reads(t, both, "together", 40)

	if err := first.Kill(); err != nil {
		t.Fatal(err)
	}
	s.reads(t, both[1:], "alone", 20)
	s.holdsAll(t, 2)

	if err := s.server.End(harness.Immediate); err != nil {
		t.Fatal(err)
	}
	if code, body := both[1].gets(t, "while-it-is-away"); code == http.StatusOK || code == http.StatusNotFound {
		t.Errorf("without a log it went on: %d %s", code, body)
	}
	if err := s.server.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Without a restart of anything.
	s.reads(t, both[1:], "again", 20)

	third := s.starts(t)
	s.reads(t, []*engineer{both[1], ana.through(t, third.ip)}, "later", 20)
	s.holdsAll(t, 3)
	s.handsAllOn(t)
	for _, pod := range []*pod{second, third} {
		log, err := os.ReadFile(pod.LogPath())
		if err != nil || len(log) == 0 {
			t.Errorf("the gateway's log has %d bytes: %v", len(log), err)
		}
		for _, secret := range []string{harness.Password, signingSecret, collectorToken} {
			if bytes.Contains(log, []byte(secret)) {
				t.Errorf("%q is in the gateway's log", secret)
			}
		}
	}
}

// scene is the chart installed with a database, and the controller running.
type scene struct {
	*world.World
	installation *world.Installation
	server       *harness.Server
	url          string
	ip           string
	policy       string
	// receiver is where the log is handed on to.
	receiver *post.Receiver
	// collector is where it is handed on to over OTLP.
	collector *post.Receiver
	// answered are what the API server, through a gateway, gave an answer to.
	mu       sync.Mutex
	answered []string
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{World: world.New(t), server: harness.Shared(t), receiver: post.StartReceiver(t), collector: post.StartReceiver(t)}
	world.AtEnd(s.server.Stop)
	s.url = s.server.RemoteURL(s.server.Database(t), harness.Password)
	ip, err := world.GatewayIP()
	if err != nil {
		t.Fatal(err)
	}
	s.ip = ip
	s.installation = s.InstallChart(t, world.GatewayValues(ip, map[string]any{
		"offeredRoles": []any{gen.Configuration, gen.Diagnostics, gen.Operate, gen.Content},
		"gateway": map[string]any{"replicas": 2, "audit": map[string]any{
			"keySecret": "audit-key", "postgres": map[string]any{"secret": "audit-db", "tls": map[string]any{"caSecret": "audit-db-ca"}},
			"webhook": map[string]any{"url": s.receiver.URL, "secret": "siem", "caSecret": "siem-ca"},
			"otlp":    map[string]any{"url": s.collector.URL + "/v1/logs", "secret": "otel", "caSecret": "otel-ca"},
		}},
	}))
	key, err := chain.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(s.server.CA)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]map[string][]byte{
		"audit-key": {"key.pem": key}, "audit-db": {"uri": []byte(s.url)}, "audit-db-ca": {"ca.crt": ca},
		"siem": {"signing.key": []byte(signingSecret)}, "siem-ca": {"ca.crt": []byte(s.receiver.CABundle)},
		"otel": {"headers": []byte("Authorization: " + collectorToken + "\n")}, "otel-ca": {"ca.crt": []byte(s.collector.CABundle)},
	} {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: world.SystemNamespace, Name: name}, Data: data}
		if err := s.Admin.Create(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
	}
	s.StartOperator(t, s.installation)
	policy := gen.Policy(s.Name("policy"), gen.AnyDuration("168h"), gen.OfferingTransports(v1alpha1.TransportGateway))
	policy.ObjectMeta = metav1.ObjectMeta{Name: policy.Name}
	policy.Spec.RequirePublicKey = v1alpha1.PublicKeysNever
	if err := s.Admin.Create(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	s.policy = policy.Name
	return s
}

// pod is a replica of the gateway, and where it is reached.
type pod struct {
	*world.Operator
	ip string
}

// starts starts one more replica. The first is where engineers are sent.
func (s *scene) starts(t *testing.T) *pod {
	t.Helper()
	ip := s.ip
	s.ip = ""
	if ip == "" {
		var err error
		if ip, err = world.GatewayIP(); err != nil {
			t.Fatal(err)
		}
	}
	return &pod{s.StartGateway(t, s.installation, ip), ip}
}

// engineer is somebody with a grant who comes through one of the gateways.
type engineer struct {
	namespace string
	config    *rest.Config
	http      *http.Client
	ip        string
}

func (s *scene) comes(t *testing.T, ip string) *engineer {
	t.Helper()
	namespace := s.LabelledNamespace(t, map[string]string{v1alpha1.LabelPolicy: s.policy})
	grant := gen.ToApply("case-4711", namespace, gen.WithTransport(v1alpha1.TransportGateway), gen.WithDuration("1h"))
	world.Eventually(t, "the grant is made", func() error { return s.Admin.Create(t.Context(), grant) })
	secret := &corev1.Secret{}
	world.Eventually(t, "the grant is open", func() error {
		if err := s.Admin.Get(t.Context(), client.ObjectKeyFromObject(grant), grant); err != nil {
			return err
		}
		if !apimeta.IsStatusConditionTrue(grant.Status.Conditions, v1alpha1.ConditionActive) || grant.Status.Engineers[0].CredentialSecretRef == nil {
			return fmt.Errorf("its status is %+v", grant.Status)
		}
		ref := grant.Status.Engineers[0].CredentialSecretRef
		return s.Admin.Get(t.Context(), client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, secret)
	})
	config, err := clientcmd.RESTConfigFromKubeConfig(secret.Data[grant.Status.Engineers[0].CredentialSecretRef.Key])
	if err != nil {
		t.Fatal(err)
	}
	return (&engineer{namespace: namespace, config: config, ip: ip}).through(t, ip)
}

// through is the engineer by another replica.
func (e *engineer) through(t *testing.T, ip string) *engineer {
	t.Helper()
	other := &engineer{namespace: e.namespace, config: rest.CopyConfig(e.config), ip: ip}
	other.config.Host = strings.ReplaceAll(e.config.Host, "https://"+e.ip+":", "https://"+ip+":")
	var err error
	if other.http, err = rest.HTTPClientFor(other.config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.http.CloseIdleConnections)
	world.Eventually(t, "the gateway lets the engineer in", func() error {
		if code, body := other.gets(t, "first"); code != http.StatusNotFound {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
	return other
}

// gets has the engineer ask for a setting that there is not: the answer of the API server is that it is not found.
func (e *engineer) gets(t *testing.T, name string) (code int, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, e.config.Host+"/api/v1/namespaces/"+e.namespace+"/configmaps/"+name, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := e.http.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	content, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(content)
}

// reads has engineers ask for many things at once, each until it has an answer of the API server's.
func (s *scene) reads(t *testing.T, engineers []*engineer, name string, times int) {
	t.Helper()
	var all sync.WaitGroup
	for i, e := range engineers {
		for n := range times {
			all.Go(func() {
				asked := fmt.Sprintf("%s-%d-%d", name, i, n)
				code, body := e.gets(t, asked)
				if code != http.StatusNotFound {
					t.Errorf("%s: %d %s", asked, code, body)
					return
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				s.answered = append(s.answered, asked)
			})
		}
	}
	all.Wait()
}

// holdsAll says whether the log is of one piece, and has each request that was answered: before it went on, and at its end; and
// that so many replicas have written it.
func (s *scene) holdsAll(t *testing.T, replicas int) {
	t.Helper()
	file := filepath.Join(s.Dir, "url")
	if err := os.WriteFile(file, []byte(s.url), 0o600); err != nil {
		t.Fatal(err)
	}
	store, err := postgres.OpenReader(t.Context(), postgres.Options{URL: file, TLS: "verify-full", CA: s.server.CA})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	world.Eventually(t, "everything that was answered is on record", func() error { return s.onRecord(t.Context(), store, replicas) })
}

const (
	// signingSecret is what signs that which is handed on.
	signingSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	// collectorToken is what the collector is shown.
	collectorToken = "Bearer a-token-of-the-collector"
)

// handsAllOn waits until the receiver has every entry of the log, whichever replica handed it on. One that was killed lost its
// turn only after a while.
func (s *scene) handsAllOn(t *testing.T) {
	t.Helper()
	store, err := postgres.OpenReader(t.Context(), postgres.Options{URL: filepath.Join(s.Dir, "url"), TLS: "verify-full", CA: s.server.CA})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	standing, err := store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, handed := range map[string]func() ([]int64, error){"the webhook": s.toTheWebhook, "the collector": s.toTheCollector} {
		world.EventuallyWithin(t, 2*time.Minute, "everything is handed on to "+name, func() error {
			numbers, err := handed()
			if err != nil {
				return err
			}
			last := int64(0)
			for _, seq := range numbers {
				if seq > last+1 {
					return fmt.Errorf("after entry %d came %d", last, seq)
				}
				last = max(last, seq)
			}
			if last < standing.Size {
				return fmt.Errorf("it has %d of %d entries", last, standing.Size)
			}
			return nil
		})
	}
}

// toTheWebhook are the numbers of the entries that the webhook has, in the order in which they came.
func (s *scene) toTheWebhook() (numbers []int64, err error) {
	for _, posted := range s.receiver.Posted() {
		var events []struct{ ID string }
		if err := json.Unmarshal([]byte(posted.Body), &events); err != nil || !posted.Signed(signingSecret) {
			return nil, fmt.Errorf("a batch is signed: %t, %w", posted.Signed(signingSecret), err)
		}
		for _, e := range events {
			seq, err := strconv.ParseInt(e.ID, 10, 64)
			if err != nil {
				return nil, err
			}
			numbers = append(numbers, seq)
		}
	}
	return numbers, nil
}

// toTheCollector are the numbers of the entries that the collector has, in the order in which they came. Each is the line of the
// log, which begins with its number.
func (s *scene) toTheCollector() (numbers []int64, err error) {
	for _, posted := range s.collector.Posted() {
		request := &collector.ExportLogsServiceRequest{}
		if err := proto.Unmarshal([]byte(posted.Body), request); err != nil || posted.Header.Get("Authorization") != collectorToken {
			return nil, fmt.Errorf("a request shows %q: %w", posted.Header.Get("Authorization"), err)
		}
		for _, record := range request.GetResourceLogs()[0].GetScopeLogs()[0].GetLogRecords() {
			entry := &audit.Entry{}
			if err := json.Unmarshal([]byte(record.GetBody().GetStringValue()), entry); err != nil {
				return nil, err
			}
			numbers = append(numbers, entry.Seq)
		}
	}
	return numbers, nil
}

func (s *scene) onRecord(ctx context.Context, store audit.Reader, writers int) error {
	standing, err := store.Load(ctx)
	if err != nil {
		return err
	}
	var export bytes.Buffer
	if err := audit.Export(ctx, &export, store); err != nil {
		return err
	}
	text := export.String()
	if _, err := verify.Log(&export, verify.Options{Keys: standing.Keys, Checkpoints: []string{standing.Checkpoint}}); err != nil {
		return err
	}
	replicas := map[string]bool{}
	for _, asked := range s.answered {
		lines := 0
		for line := range strings.Lines(text) {
			if strings.Contains(line, "/configmaps/"+asked+`"`) {
				lines++
				_, by, _ := strings.Cut(line, `"replica":"`)
				name, _, _ := strings.Cut(by, `"`)
				replicas[name] = true
			}
		}
		// How it ended may have died with the replica. That it was begun may not.
		if died := strings.HasPrefix(asked, "together-0-"); lines > 2 || lines < 1 || (lines < 2 && !died) {
			return fmt.Errorf("%s has %d entries", asked, lines)
		}
	}
	if len(replicas) != writers {
		return fmt.Errorf("%d replicas have put something down: %v", len(replicas), replicas)
	}
	return nil
}
