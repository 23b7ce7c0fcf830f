package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/post"
	"supportaccess.dev/operator/test/world"
)

const (
	mailPassword  = "correct-horse-battery-staple"
	signingSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	adminsAddress = "admins@customer.test"
)

// notifying has a policy tell by channels.
func notifying(told v1alpha1.Notifications) func(*v1alpha1.SupportAccessPolicy) {
	return gen.WithSpec(func(spec *v1alpha1.SupportAccessPolicySpec) { spec.Notifications = &told })
}

// notified waits until the condition Notified of a grant has a reason, and returns it.
func (g *grantInTest) notified(t testing.TB, reason string) *metav1.Condition {
	t.Helper()
	var object *v1alpha1.SupportAccessGrant
	world.Eventually(t, fmt.Sprintf("grant %s is Notified, %s", g, reason), func() error {
		var err error
		if object, err = g.get(t); err != nil {
			return err
		}
		c := apimeta.FindStatusCondition(object.Status.Conditions, v1alpha1.ConditionNotified)
		if c == nil || c.Reason != reason {
			return fmt.Errorf("it is %+v", c)
		}
		return nil
	})
	return apimeta.FindStatusCondition(object.Status.Conditions, v1alpha1.ConditionNotified)
}

// TestAdminsAreToldThatAGrantIsMadeAndEndedEvenIfTheOperatorIsStartedAnewInTheMiddle stops the operator, so it runs alone.
func TestAdminsAreToldThatAGrantIsMadeAndEndedEvenIfTheOperatorIsStartedAnewInTheMiddle(t *testing.T) {
	server := post.StartMail(t, post.MailOptions{TLS: true, Username: "operator", Password: mailPassword})
	receiver := post.StartReceiver(t)
	receiver.Answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	tn := newTenant(t, notifying(v1alpha1.Notifications{
		Delivery: v1alpha1.DeliveryRequired, Admins: []string{adminsAddress},
		Channels: []v1alpha1.NotificationChannel{
			{Name: "mail", CABundle: server.CABundle, Email: &v1alpha1.EmailChannel{
				Server: server.Address, From: "access@operator.test", Username: "operator", PasswordKey: "mail.password",
			}},
			{Name: "hook", CABundle: receiver.CABundle, Webhook: &v1alpha1.WebhookChannel{URL: receiver.URL, SigningKey: "hook.key"}},
		},
	}))
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: world.SystemNamespace, Name: v1alpha1.NotificationsSecret},
		StringData: map[string]string{"mail.password": mailPassword, "hook.key": signingSecret},
	}
	if err := tn.Admin.Create(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	g := tn.opens(t, theGrant)
	mailSays(t, server, "Support access granted: ")
	if c := g.notified(t, v1alpha1.ReasonNotDelivered); !strings.Contains(c.Message, "503") {
		t.Errorf("it says %q", c.Message)
	}
	log := theOperator.pod.Tail()

	start := stopOperator(t)
	receiver.Answer(nil)
	start()
	mailSays(t, server, "Support access opened, past the gateway: ")
	ids := map[string]int{}
	world.Eventually(t, "the webhook has both notices", func() error {
		ids = map[string]int{}
		for _, p := range receiver.Posted() {
			if !p.Signed(signingSecret) {
				t.Fatalf("a post is not signed: %v", p.Header)
			}
			ids[p.Header.Get("webhook-id")]++
		}
		if len(ids) != 2 {
			return fmt.Errorf("it has %v", ids)
		}
		return nil
	})
	g.notified(t, v1alpha1.ReasonDelivered)
	g.delete(t)
	mailSays(t, server, "Support access revoked: ")
	// One that was on its way when the operator stopped may have come again, under its own id.
	if ids := server.IDs(); len(ids) != 3 {
		t.Errorf("of three notices there are mails with the ids %q: %q", ids, server.Subjects(adminsAddress))
	}
	record := g.record(t)
	for what, text := range map[string]string{"log": log + theOperator.pod.Tail(), "record": fmt.Sprintf("%+v", record)} {
		if strings.Contains(text, mailPassword) || strings.Contains(text, signingSecret) {
			t.Errorf("a secret is in the %s", what)
		}
	}
}

// mailSays waits until there is a mail to the admins whose subject begins so, over TLS and with the operator's login.
func mailSays(t *testing.T, server *post.MailServer, subject string) {
	t.Helper()
	world.Eventually(t, "a mail says "+subject, func() error {
		for _, s := range server.Subjects(adminsAddress) {
			if strings.HasPrefix(s, subject) {
				return nil
			}
		}
		return fmt.Errorf("there are %q", server.Subjects(adminsAddress))
	})
	for _, mail := range server.Mails() {
		if !mail.Private || mail.Username != "operator" {
			t.Errorf("a mail came in the clear, or from %q", mail.Username)
		}
	}
}

func TestWhereNobodyIsToldTheAdminsOfTheNamespaceSeeThat(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	g := tn.opens(t, theGrant)
	if c := g.notified(t, v1alpha1.ReasonNoChannel); c.Status != metav1.ConditionFalse {
		t.Errorf("it is %s", c.Status)
	}
	world.Eventually(t, "an event on the namespace says so", func() error {
		list := &eventsv1.EventList{}
		if err := tn.admin.List(t.Context(), list, client.InNamespace(tn.namespace)); err != nil {
			return err
		}
		for _, e := range list.Items {
			if e.Reason == v1alpha1.ReasonNoChannel && e.Type == corev1.EventTypeWarning && e.Regarding.Kind == "Namespace" &&
				e.Regarding.Name == tn.namespace && e.Related != nil && e.Related.Name == theGrant {
				return nil
			}
		}
		return errors.New("there is none")
	})
}

func TestWhereAPolicyDemandsThatPeopleAreToldNothingOpensUntilThereIsAChannel(t *testing.T) {
	t.Parallel()
	receiver := post.StartReceiver(t)
	tn := newTenant(t, notifying(v1alpha1.Notifications{Delivery: v1alpha1.DeliveryRequired}))
	g := tn.grants(t, theGrant)
	object := g.is(t, v1alpha1.StateFailed)
	ready := apimeta.FindStatusCondition(object.Status.Conditions, v1alpha1.ConditionReady)
	if !strings.Contains(ready.Message, "demands that people be told") {
		t.Errorf("it says %q", ready.Message)
	}
	if at := g.record(t).Status.ProvisionedTime; at != nil {
		t.Errorf("it was open at %s", at)
	}
	g.leavesNothing(t)
	tn.changePolicy(t, func(spec *v1alpha1.SupportAccessPolicySpec) {
		spec.Notifications.Channels = []v1alpha1.NotificationChannel{
			{Name: "hook", CABundle: receiver.CABundle, Webhook: &v1alpha1.WebhookChannel{URL: receiver.URL, SigningKey: "hook.key"}},
		}
	})
	g.is(t, v1alpha1.StateActive)
}
