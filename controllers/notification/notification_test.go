package notification

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/internal/metrics"
	"supportaccess.dev/operator/internal/notify"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/post"
)

const (
	password      = "correct-horse-battery"
	signingSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	ana, bo       = "ana@customer.test", "bo@customer.test"
)

// scene is a cluster with one policy and one record, and an operator that tells of it.
type scene struct {
	t        *testing.T
	client   client.WithWatch
	clock    *clocktesting.FakePassiveClock
	operator *Reconciler
	counters *metrics.Counters
	registry *prometheus.Registry
	events   *events.FakeRecorder
	said     *said
	key      client.ObjectKey
}

// said is what the operator logs.
type said struct {
	mu    sync.Mutex
	lines []string
}

func (s *said) add(prefix, args string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, prefix+args)
}

func newScene(t *testing.T, told v1alpha1.Notifications, more ...client.Object) *scene {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	policy := gen.Policy(v1alpha1.DefaultPolicyName, gen.WithSpec(func(spec *v1alpha1.SupportAccessPolicySpec) { spec.Notifications = &told }))
	grant := gen.Grant("case-4711", gen.Namespace)
	record := gen.Record(grant, func(r *v1alpha1.SupportAccessRecord) {
		r.Status = v1alpha1.SupportAccessRecordStatus{}
		r.Spec.Policy = v1alpha1.DefaultPolicyName
	})
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: v1alpha1.NotificationsSecret},
		Data:       map[string][]byte{"mail": []byte(password + "\n"), "signing": []byte(signingSecret)},
	}
	s := &scene{
		t: t, clock: clocktesting.NewFakePassiveClock(gen.Epoch), events: events.NewFakeRecorder(64), said: &said{},
		registry: prometheus.NewRegistry(), key: client.ObjectKeyFromObject(record),
		client: fake.NewClientBuilder().WithScheme(scheme).WithObjects(append(more, policy, record, secret, namespace(gen.Namespace, nil, ""))...).Build(),
	}
	var err error
	if s.counters, err = metrics.NewCounters(s.registry, "test"); err != nil {
		t.Fatal(err)
	}
	s.restart()
	return s
}

func namespace(name string, labels map[string]string, notified string) *corev1.Namespace {
	n := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	if notified != "" {
		n.Annotations = map[string]string{v1alpha1.AnnotationNotify: notified}
	}
	return n
}

// restart starts the operator anew: what it had in memory is gone.
func (s *scene) restart() {
	s.operator = &Reconciler{
		Client: s.client, Live: s.client, Recorder: s.events, Counters: s.counters, Clock: s.clock,
		Reach: &notify.Reach{Allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
	}
}

// happens puts something on record, now.
func (s *scene) happens(kind, by string) {
	s.t.Helper()
	record := s.record()
	record.Status.Transitions = append(record.Status.Transitions, v1alpha1.Transition{
		Time: metav1.NewMicroTime(s.clock.Now()), Type: kind, By: by, Message: "so it was",
	})
	if err := s.client.Update(s.t.Context(), record); err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) record() *v1alpha1.SupportAccessRecord {
	s.t.Helper()
	record := &v1alpha1.SupportAccessRecord{}
	if err := s.client.Get(s.t.Context(), s.key, record); err != nil {
		s.t.Fatal(err)
	}
	return record
}

// state is how far a channel has come.
func (s *scene) state(channel string) v1alpha1.ChannelState {
	s.t.Helper()
	return stateOf(s.record(), "default."+channel)
}

func (s *scene) context() context.Context {
	return log.IntoContext(s.t.Context(), funcr.New(s.said.add, funcr.Options{Verbosity: 9}))
}

// pass is one pass of the operator.
func (s *scene) pass() (reconcile.Result, error) {
	return s.operator.Reconcile(s.context(), reconcile.Request{NamespacedName: s.key})
}

// work lets the operator work for a time: it sleeps when it says that there is nothing to do.
func (s *scene) work(length time.Duration) {
	s.t.Helper()
	end := s.clock.Now().Add(length)
	for range 10000 {
		before := s.record().ResourceVersion
		result, err := s.pass()
		if err != nil {
			s.t.Fatalf("a pass failed: %v", err)
		}
		if s.record().ResourceVersion != before {
			continue // The watch wakes it.
		}
		next := s.clock.Now().Add(result.RequeueAfter)
		if result.RequeueAfter == 0 || next.After(end) {
			s.clock.SetTime(end)
			return
		}
		s.clock.SetTime(next)
	}
	s.t.Fatal("it never rests")
}

// written are the record, the events and the log.
func (s *scene) written() string {
	s.t.Helper()
	encoded, err := json.Marshal(s.record())
	if err != nil {
		s.t.Fatal(err)
	}
	text := string(encoded) + strings.Join(s.said.lines, "\n")
	for {
		select {
		case event := <-s.events.Events:
			text += event
		default:
			return text
		}
	}
}

func mailChannel(server *post.MailServer) v1alpha1.NotificationChannel {
	return v1alpha1.NotificationChannel{
		Name: "mail", CABundle: server.CABundle,
		Email: &v1alpha1.EmailChannel{Server: server.Address, From: "access@operator.test", Username: "operator", PasswordKey: "mail"},
	}
}

func hookChannel(receiver *post.Receiver) v1alpha1.NotificationChannel {
	return v1alpha1.NotificationChannel{
		Name: "hook", CABundle: receiver.CABundle, Webhook: &v1alpha1.WebhookChannel{URL: receiver.URL, SigningKey: "signing"},
	}
}

func mailServer(t *testing.T) *post.MailServer {
	return post.StartMail(t, post.MailOptions{TLS: true, Username: "operator", Password: password})
}

func TestEachAdminIsWrittenToOnceWhateverTheNamespacesSay(t *testing.T) {
	server := mailServer(t)
	told := v1alpha1.Notifications{Admins: []string{ana, bo}, Channels: []v1alpha1.NotificationChannel{mailChannel(server)}}
	strict := gen.Policy("strict", gen.WithSpec(func(spec *v1alpha1.SupportAccessPolicySpec) {
		spec.Notifications = &v1alpha1.Notifications{Admins: []string{"Bo@Customer.test", "cy@customer.test"}, Channels: told.Channels}
	}))
	s := newScene(t, told, strict,
		namespace("strict", map[string]string{v1alpha1.LabelPolicy: "strict"}, " Ana@customer.test, dee@customer.test,, <x@y.test>, a\r\nb@c.test"))
	record := s.record()
	record.Spec.Scope = &v1alpha1.Scope{Namespaces: []string{gen.Namespace, "strict"}}
	if err := s.client.Update(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	s.happens(v1alpha1.TransitionGranted, "root")
	s.work(time.Minute)
	var to []string
	for _, mail := range server.Mails() {
		to = append(to, mail.To)
	}
	slices.Sort(to)
	if want := []string{ana, bo, "cy@customer.test", "dee@customer.test"}; !slices.Equal(to, want) {
		t.Errorf("written to %v, want %v", to, want)
	}
	s.restart()
	s.work(time.Hour)
	if n := len(server.Mails()); n != 4 {
		t.Errorf("after a restart there are %d mails", n)
	}
}

func TestACacheThatLagsMakesNobodyHearItTwice(t *testing.T) {
	receiver := post.StartReceiver(t)
	s := newScene(t, v1alpha1.Notifications{Channels: []v1alpha1.NotificationChannel{hookChannel(receiver)}})
	s.happens(v1alpha1.TransitionGranted, "root")
	stale := s.record()
	s.work(time.Minute)
	s.operator.Client = interceptor.NewClient(s.client, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			if record, ok := o.(*v1alpha1.SupportAccessRecord); ok {
				stale.DeepCopyInto(record)
				return nil
			}
			return c.Get(ctx, key, o, opts...)
		},
	})
	s.work(time.Minute)
	if n := len(receiver.Posted()); n != 1 {
		t.Errorf("it was told %d times", n)
	}
}

func TestAMailServerThatIsGoneForAnHourGetsEverythingInOrderAndOnce(t *testing.T) {
	certificate := post.NewCertificate(t)
	options := post.MailOptions{TLS: true, Username: "operator", Password: password, Certificate: certificate}
	server := post.StartMail(t, options)
	s := newScene(t, v1alpha1.Notifications{Admins: []string{ana}, Channels: []v1alpha1.NotificationChannel{mailChannel(server)}})
	server.Stop()
	s.happens(v1alpha1.TransitionGranted, "root")
	s.work(20 * time.Minute)
	s.happens(v1alpha1.TransitionFirstUsed, "ana@vendor.example")
	s.work(20 * time.Minute)
	s.happens(v1alpha1.EndRevoked, "root")
	s.work(20 * time.Minute)
	if state := s.state("mail"); state.Attempts < 5 || state.Attempts > 20 || state.LastError == "" || state.NextAttemptTime == nil {
		t.Errorf("after an hour: %+v", state)
	}
	options.Address = server.Address
	back := post.StartMail(t, options)
	s.work(2 * time.Hour)
	subjects := back.Subjects(ana)
	if len(subjects) != 3 || !strings.Contains(subjects[0], "granted") || !strings.Contains(subjects[1], "first time") || !strings.Contains(subjects[2], "revoked") {
		t.Errorf("it got %q", subjects)
	}
	if state := s.state("mail"); state.Delivered != 3 || state.Attempts != 0 || state.LastError != "" || len(state.DeadLetters) > 0 {
		t.Errorf("at the end: %+v", state)
	}
}

func TestAfterADayANoticeIsGivenUpAndSaidToBeAndTheNextIsTold(t *testing.T) {
	receiver := post.StartReceiver(t)
	receiver.Answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	s := newScene(t, v1alpha1.Notifications{Channels: []v1alpha1.NotificationChannel{hookChannel(receiver)}})
	s.happens(v1alpha1.TransitionGranted, "root")
	s.work(23 * time.Hour)
	if state := s.state("hook"); len(state.DeadLetters) > 0 {
		t.Fatalf("given up too early: %+v", state)
	}
	s.work(2 * time.Hour)
	state := s.state("hook")
	if len(state.DeadLetters) != 1 || state.DeadLetters[0].Event != "Granted" || !strings.Contains(state.DeadLetters[0].Error, "500") || state.Delivered != 0 {
		t.Fatalf("after a day: %+v", state)
	}
	if text := s.written(); !strings.Contains(text, "Warning DeadLetter notice "+state.DeadLetters[0].ID) {
		t.Errorf("no event says so: %s", text)
	}
	if n := testutil.ToFloat64(counter(t, s.registry, "default.hook", outcomeDead)); n != 1 {
		t.Errorf("the metric says %v", n)
	}
	receiver.Answer(nil)
	s.happens(v1alpha1.EndRevoked, "root")
	s.work(time.Hour)
	posted := receiver.Posted()
	if !strings.Contains(posted[len(posted)-1].Body, `"event":"Revoked"`) || s.state("hook").Delivered != 1 {
		t.Errorf("the next was not told: %s", posted[len(posted)-1].Body)
	}
}

// counter returns one series of the notifications metric.
func counter(t *testing.T, registry *prometheus.Registry, channel, result string) prometheus.Collector {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: "found"})
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if family.GetName() != "support_access_notifications_total" {
				continue
			}
			labels := map[string]string{}
			for _, pair := range metric.GetLabel() {
				labels[pair.GetName()] = pair.GetValue()
			}
			if labels["channel"] == channel && labels["result"] == result {
				gauge.Set(metric.GetCounter().GetValue())
			}
		}
	}
	return gauge
}

func TestARestartInTheMiddleGoesOnWithTheSameNotice(t *testing.T) {
	receiver := post.StartReceiver(t)
	receiver.Answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	s := newScene(t, v1alpha1.Notifications{Channels: []v1alpha1.NotificationChannel{hookChannel(receiver)}})
	s.happens(v1alpha1.TransitionGranted, "root")
	s.work(time.Minute)
	s.restart()
	receiver.Answer(nil)
	s.work(time.Hour)
	ids := map[string]bool{}
	for _, p := range receiver.Posted() {
		ids[p.Header.Get("webhook-id")] = true
		if !p.Signed(signingSecret) {
			t.Error("one is not signed")
		}
	}
	if len(ids) != 1 || len(receiver.Posted()) < 3 || s.state("hook").Delivered != 1 {
		t.Errorf("%d posts with the ids %v: %+v", len(receiver.Posted()), ids, s.state("hook"))
	}
}

func TestANoticeThatWasToldAndNotWrittenDownIsToldAgainUnderTheSameID(t *testing.T) {
	receiver := post.StartReceiver(t)
	s := newScene(t, v1alpha1.Notifications{Channels: []v1alpha1.NotificationChannel{hookChannel(receiver)}})
	s.happens(v1alpha1.TransitionGranted, "root")
	s.clock.SetTime(s.clock.Now().Add(time.Minute))
	s.operator.Client = interceptor.NewClient(s.client, interceptor.Funcs{
		Update: func(context.Context, client.WithWatch, client.Object, ...client.UpdateOption) error {
			return errors.New("away")
		},
	})
	if _, err := s.pass(); err == nil || len(receiver.Posted()) != 1 {
		t.Fatalf("the crash: %v, told %d times", err, len(receiver.Posted()))
	}
	s.restart()
	s.work(time.Hour)
	posted := receiver.Posted()
	if len(posted) != 2 || posted[0].Header.Get("webhook-id") != posted[1].Header.Get("webhook-id") {
		t.Errorf("told %d times", len(posted))
	}
}

func TestWhatWasToldWhenTheOperatorIsStoppedIsWrittenDown(t *testing.T) {
	receiver := post.StartReceiver(t)
	s := newScene(t, v1alpha1.Notifications{Channels: []v1alpha1.NotificationChannel{hookChannel(receiver)}})
	s.happens(v1alpha1.TransitionGranted, "root")
	s.clock.SetTime(s.clock.Now().Add(time.Minute))
	ctx, stop := context.WithCancel(s.context())
	s.operator.Client = interceptor.NewClient(s.client, interceptor.Funcs{
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			stop()
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return c.Update(ctx, o, opts...)
		},
	})
	if _, err := s.operator.Reconcile(ctx, reconcile.Request{NamespacedName: s.key}); err != nil || s.state("hook").Delivered != 1 {
		t.Errorf("%v, %+v", err, s.state("hook"))
	}
}

func TestSomebodyElsesWriteOfTheRecordStays(t *testing.T) {
	receiver := post.StartReceiver(t)
	s := newScene(t, v1alpha1.Notifications{Channels: []v1alpha1.NotificationChannel{hookChannel(receiver)}})
	s.happens(v1alpha1.TransitionGranted, "root")
	receiver.Answer(func(w http.ResponseWriter, _ *http.Request) {
		s.happens(v1alpha1.TransitionVerified, lifecycle.Operator)
		w.WriteHeader(http.StatusNoContent)
	})
	s.work(time.Minute)
	if n := len(s.record().Status.Transitions); n != 2 || s.state("hook").Delivered != 1 || len(receiver.Posted()) != 1 {
		t.Errorf("%d transitions, %+v, told %d times", n, s.state("hook"), len(receiver.Posted()))
	}
}

func TestWhoAsksToBeLeftAloneIsLeftAlone(t *testing.T) {
	receiver := post.StartReceiver(t)
	receiver.Answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7200")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	s := newScene(t, v1alpha1.Notifications{Channels: []v1alpha1.NotificationChannel{hookChannel(receiver)}})
	s.happens(v1alpha1.TransitionGranted, "root")
	s.work(119 * time.Minute)
	if n := len(receiver.Posted()); n != 1 {
		t.Errorf("it was asked %d times in two hours", n)
	}
	receiver.Answer(nil)
	s.work(10 * time.Minute)
	if n := len(receiver.Posted()); n != 2 || s.state("hook").Delivered != 1 {
		t.Errorf("it was asked %d times after two hours", n)
	}
}

func TestAChannelThatHangsKeepsNoOtherWaiting(t *testing.T) {
	server, receiver := mailServer(t), post.StartReceiver(t)
	receiver.Answer(func(_ http.ResponseWriter, r *http.Request) {
		for len(server.Mails()) == 0 && r.Context().Err() == nil {
			select {
			case <-r.Context().Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	s := newScene(t, v1alpha1.Notifications{Admins: []string{ana}, Channels: []v1alpha1.NotificationChannel{hookChannel(receiver), mailChannel(server)}})
	s.happens(v1alpha1.TransitionGranted, "root")
	s.work(3 * time.Second)
	if len(server.Mails()) != 1 || s.state("hook").Delivered != 1 {
		t.Errorf("%d mails, hook: %+v", len(server.Mails()), s.state("hook"))
	}
}

func TestAnAddressThatIsRefusedIsADeadLetterAndTheOthersHaveIt(t *testing.T) {
	server := mailServer(t)
	tries := 0
	server.Refuse(func(to string) error {
		if to == bo {
			return post.Refusal(550, "no such user")
		}
		if tries++; tries == 1 {
			return post.Refusal(451, "greylisted")
		}
		return nil
	})
	s := newScene(t, v1alpha1.Notifications{Admins: []string{ana, bo}, Channels: []v1alpha1.NotificationChannel{mailChannel(server)}})
	s.happens(v1alpha1.TransitionGranted, "root")
	s.work(time.Hour)
	s.happens(v1alpha1.EndRevoked, "root")
	s.work(time.Hour)
	if n := len(server.Subjects(ana)); n != 2 {
		t.Errorf("ana has %d mails", n)
	}
	if state := s.state("mail"); state.SettledID == "" || len(state.DeadLetters) == 0 {
		t.Errorf("%+v", state)
	}
}

func TestNothingSecretIsInTheRecordTheEventsOrTheLog(t *testing.T) {
	// The server says the password in its refusal, and the webhook's secret is not one.
	server := post.StartMail(t, post.MailOptions{TLS: true, Username: "operator", Password: "another"})
	receiver := post.StartReceiver(t)
	slack := v1alpha1.NotificationChannel{Name: "slack", Slack: &v1alpha1.SlackChannel{URLKey: "slack"}}
	broken := hookChannel(receiver)
	broken.Webhook.SigningKey = "broken"
	s := newScene(t, v1alpha1.Notifications{Admins: []string{ana}, Channels: []v1alpha1.NotificationChannel{mailChannel(server), slack, broken}})
	secret := &corev1.Secret{}
	if err := s.client.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: v1alpha1.NotificationsSecret}, secret); err != nil {
		t.Fatal(err)
	}
	secret.Data["slack"] = []byte(receiver.URL + "/T0000/B0000/slack-secret-token")
	secret.Data["broken"] = []byte("whsec_broken-signing-secret")
	if err := s.client.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	s.happens(v1alpha1.TransitionGranted, "root")
	s.work(26 * time.Hour)
	text := s.written()
	for _, must := range []string{"[secret] is not it", "signing secret 1 is not", "certificate", "DeadLetter"} {
		if !strings.Contains(text, must) {
			t.Errorf("%q is not there: the test looks in the wrong place", must)
		}
	}
	for _, never := range []string{password, "slack-secret-token", "T0000", "broken-signing-secret"} {
		if strings.Contains(text, never) {
			t.Errorf("%q is there", never)
		}
	}
}

func TestASecretThatIsNotThereYetIsWaitedForAndNamed(t *testing.T) {
	receiver := post.StartReceiver(t)
	missing := hookChannel(receiver)
	missing.Webhook.SigningKey = "later"
	s := newScene(t, v1alpha1.Notifications{Channels: []v1alpha1.NotificationChannel{missing}})
	s.happens(v1alpha1.TransitionGranted, "root")
	s.work(time.Minute)
	if got := s.state("hook").LastError; !strings.Contains(got, `support-access-system/support-access-notifications has no key "later"`) {
		t.Errorf("it says %q", got)
	}
	secret := &corev1.Secret{}
	if err := s.client.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: v1alpha1.NotificationsSecret}, secret); err != nil {
		t.Fatal(err)
	}
	secret.Data["later"] = []byte(signingSecret)
	if err := s.client.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	s.work(time.Hour)
	if n := len(receiver.Posted()); n != 1 {
		t.Errorf("told %d times", n)
	}
}

func TestOfARecordThatWentWithItsNamespaceTheTombstoneTells(t *testing.T) {
	receiver := post.StartReceiver(t)
	s := newScene(t, v1alpha1.Notifications{Channels: []v1alpha1.NotificationChannel{hookChannel(receiver)}})
	s.happens(v1alpha1.TransitionGranted, "root")
	s.work(time.Minute)
	home := s.record()
	mirror := lifecycle.Mirror(home, v1alpha1.SystemNamespace)
	mirror.Status.EndTime = &metav1.MicroTime{Time: s.clock.Now()}
	mirror.Status.Transitions = append(mirror.Status.Transitions, v1alpha1.Transition{
		Time: metav1.NewMicroTime(s.clock.Now()), Type: v1alpha1.EndNamespaceDeleted, By: lifecycle.Unknown,
	})
	if err := s.client.Create(t.Context(), mirror); err != nil {
		t.Fatal(err)
	}
	s.key = client.ObjectKeyFromObject(mirror)
	s.work(time.Minute)
	if n := len(receiver.Posted()); n != 1 {
		t.Fatalf("a copy told: %d", n)
	}
	if err := errors.Join(s.client.Delete(t.Context(), home), s.client.Delete(t.Context(), namespace(gen.Namespace, nil, ""))); err != nil {
		t.Fatal(err)
	}
	s.work(time.Minute)
	posted := receiver.Posted()
	if len(posted) != 2 || !strings.Contains(posted[1].Body, `"event":"Revoked"`) {
		t.Errorf("told %d times", len(posted))
	}
}

func TestAChannelTakesOneNoticeAtATimeAndRestsWhileItFails(t *testing.T) {
	g, now := &gate{}, gen.Epoch
	if wait := g.enter(now); wait != 0 {
		t.Fatalf("the first waits %s", wait)
	}
	if wait := g.enter(now); wait != busyWait {
		t.Errorf("the second waits %s", wait)
	}
	g.leave(now, slackPace)
	if wait := g.enter(now); wait != slackPace {
		t.Errorf("the next waits %s", wait)
	}
	var rests []time.Duration
	for range 12 {
		now = now.Add(time.Hour)
		if wait := g.enter(now); wait != 0 {
			t.Fatalf("after an hour it waits %s", wait)
		}
		g.rest(now, 0)
		rests = append(rests, g.opens.Sub(now))
	}
	if !slices.IsSorted(rests) || rests[0] != time.Second || rests[11] != longestRest {
		t.Errorf("it rests %v", rests)
	}
	now = now.Add(time.Hour)
	g.enter(now)
	g.leave(now, pace)
	if rest := g.opens.Sub(now); rest != pace {
		t.Errorf("after a success it rests %s", rest)
	}
}

func TestThatAPolicySwitchedANamespaceOnIsNotToldAndThatSomebodyDidIs(t *testing.T) {
	at := func(minute int) metav1.MicroTime {
		return metav1.NewMicroTime(gen.Epoch.Add(time.Duration(minute) * time.Minute))
	}
	deleted := v1alpha1.Transition{Type: v1alpha1.EndSettingDeleted, Time: at(2)}
	for name, c := range map[string]struct {
		generation int64
		granted    int
		setting    *v1alpha1.SupportAccessRecordStatus
		want       bool
	}{
		"by default":                    {1, 1, &v1alpha1.SupportAccessRecordStatus{EnabledByDefault: &v1alpha1.RecordedDefault{Time: at(0)}}, true},
		"by default, deleted since":     {1, 1, &v1alpha1.SupportAccessRecordStatus{EnabledByDefault: &v1alpha1.RecordedDefault{Time: at(0)}, Transitions: []v1alpha1.Transition{deleted}}, true},
		"made anew by somebody":         {1, 3, &v1alpha1.SupportAccessRecordStatus{EnabledByDefault: &v1alpha1.RecordedDefault{Time: at(0)}, Transitions: []v1alpha1.Transition{deleted}}, false},
		"changed by somebody":           {2, 1, &v1alpha1.SupportAccessRecordStatus{EnabledByDefault: &v1alpha1.RecordedDefault{Time: at(0)}}, false},
		"by somebody":                   {1, 1, &v1alpha1.SupportAccessRecordStatus{}, false},
		"of which nothing is on record": {1, 1, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, v1alpha1.Notifications{})
			record := s.record()
			record.Spec.SettingRef = &v1alpha1.SettingReference{UID: "s", Generation: c.generation}
			record.Status.Transitions = []v1alpha1.Transition{{Type: v1alpha1.TransitionGranted, Time: at(c.granted), By: "root"}}
			if c.setting != nil {
				setting := &v1alpha1.SupportAccessRecord{ObjectMeta: metav1.ObjectMeta{Namespace: gen.Namespace, Name: v1alpha1.SettingRecordName}, Status: *c.setting}
				if err := s.client.Create(t.Context(), setting); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := s.operator.byDefault(t.Context(), record); err != nil || got != c.want {
				t.Errorf("%t, %v", got, err)
			}
		})
	}
}

func TestANewChannelTellsOfTheLastDayAlone(t *testing.T) {
	receiver := post.StartReceiver(t)
	s := newScene(t, v1alpha1.Notifications{Channels: []v1alpha1.NotificationChannel{hookChannel(receiver)}})
	s.happens(v1alpha1.TransitionGranted, "root")
	s.clock.SetTime(s.clock.Now().Add(horizon))
	s.happens(v1alpha1.EndRevoked, "root")
	s.clock.SetTime(s.clock.Now().Add(time.Minute))
	s.work(time.Hour)
	posted := receiver.Posted()
	if len(posted) != 1 || !strings.Contains(posted[0].Body, `"event":"Revoked"`) {
		t.Errorf("told %d times", len(posted))
	}
}

func TestThePolicyOfAnyPlaceTellsAndNoMoreChannelsThanFit(t *testing.T) {
	var more []client.Object
	var places []string
	receiver := post.StartReceiver(t)
	for i := range 40 {
		name := fmt.Sprintf("place-%02d", i)
		places = append(places, name)
		more = append(more, namespace(name, map[string]string{v1alpha1.LabelPolicy: name}, ""), gen.Policy(name, gen.WithSpec(func(spec *v1alpha1.SupportAccessPolicySpec) {
			spec.Notifications = &v1alpha1.Notifications{Channels: []v1alpha1.NotificationChannel{hookChannel(receiver)}}
		})))
	}
	s := newScene(t, v1alpha1.Notifications{}, more...)
	record := s.record()
	record.Spec.Scope = &v1alpha1.Scope{Namespaces: places}
	channels, err := s.operator.channelsOf(t.Context(), record)
	if err != nil || len(channels) != maxChannels || channels[0].key != "place-00.hook" {
		t.Errorf("%d channels, %v", len(channels), err)
	}
}
