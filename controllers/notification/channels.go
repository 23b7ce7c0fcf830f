package notification

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/mail"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/internal/notify"
	"supportaccess.dev/operator/internal/partial"
	"supportaccess.dev/operator/internal/policies"
	"supportaccess.dev/operator/internal/records"
)

const (
	// maxChannels is how many channels tell of one grant.
	maxChannels = 32
	// maxAdded is how many addresses a namespace adds.
	maxAdded = 16
	// maxRecipients is to how many one notice is written.
	maxRecipients = 128
)

// channel is one way by which people are told of a record.
type channel struct {
	key        string
	spec       v1alpha1.NotificationChannel
	telling    notify.Telling
	recipients []string
}

// channelsOf returns the channels of every policy under which the places of a grant, or of a request, are. Who is an admin in several of them is
// written to once.
func (r *Reconciler) channelsOf(ctx context.Context, record *v1alpha1.SupportAccessRecord) ([]channel, error) {
	home := records.Home(record).Namespace
	added := map[string][]string{}
	var found []*v1alpha1.SupportAccessPolicy
	for _, place := range append([]string{home}, lifecycle.ScopeOf(record.Spec.Scope, home)...) {
		if place == "" {
			continue
		}
		policy, more, err := r.policyOf(ctx, record, place)
		if err != nil {
			return nil, err
		}
		if policy == nil {
			continue
		}
		if _, known := added[policy.Name]; !known {
			found = append(found, policy)
		}
		added[policy.Name] = append(added[policy.Name], more...)
	}
	var channels []channel
	written := map[string]bool{}
	for _, policy := range found {
		channels = append(channels, channelsOfPolicy(policy, added[policy.Name], written)...)
	}
	byDefault, err := r.byDefault(ctx, record)
	if err != nil {
		return nil, err
	}
	for i := range channels {
		channels[i].telling.ByDefault = byDefault
	}
	return channels[:min(len(channels), maxChannels)], nil
}

// byDefault reports whether a record is of the grant of a setting that a policy switched on, as the setting's record says: of
// its first generation, and not of one that was made after that was deleted.
func (r *Reconciler) byDefault(ctx context.Context, record *v1alpha1.SupportAccessRecord) (bool, error) {
	ref := record.Spec.SettingRef
	if ref == nil || ref.Generation != 1 {
		return false, nil
	}
	setting, where := &v1alpha1.SupportAccessRecord{}, types.NamespacedName{Namespace: record.Spec.Grant.Namespace, Name: v1alpha1.SettingRecordName}
	if err := r.Client.Get(ctx, where, setting); err != nil {
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return false, fmt.Errorf("get record %s: %w", where, err)
	}
	switched := setting.Status.EnabledByDefault
	if switched == nil || len(record.Status.Transitions) == 0 {
		return false, nil
	}
	granted := record.Status.Transitions[0].Time
	deletedBefore := slices.ContainsFunc(setting.Status.Transitions, func(t v1alpha1.Transition) bool {
		return t.Type == v1alpha1.EndSettingDeleted && !granted.Before(&t.Time) && !t.Time.Before(&switched.Time)
	})
	return !granted.Before(&switched.Time) && !deletedBefore, nil
}

// policyOf returns the policy of a place, and whom the place adds to the policy's admins. Of a place that is gone it is the
// policy by which the grant was judged.
func (r *Reconciler) policyOf(ctx context.Context, record *v1alpha1.SupportAccessRecord, place string) (*v1alpha1.SupportAccessPolicy, []string, error) {
	namespace := partial.Object("Namespace")
	err := r.Client.Get(ctx, types.NamespacedName{Name: place}, namespace)
	if apierrors.IsNotFound(err) {
		namespace.Labels = map[string]string{v1alpha1.LabelPolicy: record.Spec.Policy}
	} else if err != nil {
		return nil, nil, fmt.Errorf("get namespace %q: %w", place, err)
	}
	policy, err := policies.Of(ctx, r.Client, namespace)
	if err != nil && !errors.Is(err, policies.ErrNoKind) {
		return nil, nil, err
	}
	return policy.Policy, addedBy(namespace), nil
}

// addedBy returns the addresses that a namespace adds. What is no address adds nobody.
func addedBy(namespace *metav1.PartialObjectMetadata) []string {
	var added []string
	for word := range strings.SplitSeq(namespace.Annotations[v1alpha1.AnnotationNotify], ",") {
		word = strings.TrimSpace(word)
		parsed, err := mail.ParseAddress(word)
		if err != nil || parsed.Address != word || len(word) > 254 {
			continue
		}
		if added = append(added, word); len(added) == maxAdded {
			break
		}
	}
	return added
}

// channelsOfPolicy returns the channels of one policy. To whom another writes, it does not.
func channelsOfPolicy(policy *v1alpha1.SupportAccessPolicy, added []string, written map[string]bool) []channel {
	told := policy.Spec.Notifications
	if told == nil {
		return nil
	}
	var channels []channel
	for _, spec := range told.Channels {
		c := channel{key: policy.Name + "." + spec.Name, spec: spec, telling: notify.Telling{Events: spec.Events, Soon: told.ExpiringSoon.OrZero()}}
		for _, role := range policy.Spec.Roles {
			if role.Elevated {
				c.telling.Elevated = append(c.telling.Elevated, role.Name)
			}
		}
		if spec.Email != nil {
			for _, address := range slices.Concat(told.Admins, added) {
				if once := strings.ToLower(address); !written[once] && len(c.recipients) < maxRecipients {
					written[once] = true
					c.recipients = append(c.recipients, address)
				}
			}
			if len(c.recipients) == 0 {
				continue
			}
		}
		channels = append(channels, c)
	}
	return channels
}

// secretsOf reads what a channel keeps secret, from the one Secret in which it may lie.
func (r *Reconciler) secretsOf(ctx context.Context, c channel) (map[string]string, error) {
	var keys []string
	switch spec := c.spec; {
	case spec.Email != nil && spec.Email.PasswordKey != "":
		keys = []string{spec.Email.PasswordKey}
	case spec.Slack != nil:
		keys = []string{spec.Slack.URLKey}
	case spec.Webhook != nil:
		keys = []string{spec.Webhook.SigningKey}
	default:
		return nil, nil
	}
	secret := &corev1.Secret{}
	where := types.NamespacedName{Namespace: v1alpha1.SystemNamespace, Name: v1alpha1.NotificationsSecret}
	if err := r.Live.Get(ctx, where, secret); err != nil {
		return nil, fmt.Errorf("get Secret %s: %w", where, err)
	}
	values := map[string]string{}
	for _, key := range keys {
		value := strings.TrimSpace(string(secret.Data[key]))
		if value == "" {
			return nil, fmt.Errorf("secret %s has no key %q", where, key)
		}
		values[key] = value
	}
	return values, nil
}

// send tells one notice by a channel. What it returns of a failure has nothing secret in it.
func (r *Reconciler) send(ctx context.Context, c channel, notice notify.Notice, told []string) (notify.Result, string) {
	secrets, err := r.secretsOf(ctx, c)
	if err != nil {
		return notify.Result{Err: err}, notify.Result{Err: err}.Failure()
	}
	roots, err := rootsOf(c.spec.CABundle)
	if err != nil {
		return notify.Result{Err: err}, notify.Result{Err: err}.Failure()
	}
	result := r.sendBy(ctx, c, notice, told, senders{secrets: secrets, roots: roots, now: r.Clock.Now()})
	hidden := make([]string, 0, len(secrets))
	for _, secret := range secrets {
		hidden = append(hidden, append(strings.Fields(secret), secret)...)
	}
	return result, result.Failure(hidden...)
}

// senders is what sending by a channel needs besides its spec.
type senders struct {
	secrets map[string]string
	roots   *x509.CertPool
	now     time.Time
}

func (r *Reconciler) sendBy(ctx context.Context, c channel, notice notify.Notice, told []string, with senders) notify.Result {
	endpoint := notify.Endpoint{Roots: with.roots, Reach: r.Reach}
	switch spec := c.spec; {
	case spec.Email != nil:
		m := notify.Mail{
			Server: spec.Email.Server, TLS: spec.Email.TLS, From: spec.Email.From, Roots: with.roots, Reach: r.Reach,
			Username: spec.Email.Username, Password: with.secrets[spec.Email.PasswordKey],
		}
		to := slices.DeleteFunc(slices.Clone(c.recipients), func(address string) bool { return slices.Contains(told, notify.Digest(address)) })
		return m.Send(ctx, notice, to, with.now)
	case spec.Slack != nil:
		endpoint.URL = with.secrets[spec.Slack.URLKey]
		return notify.Slack{Endpoint: endpoint}.Send(ctx, notice, with.now)
	default:
		endpoint.URL = spec.Webhook.URL
		return notify.Webhook{Endpoint: endpoint, Signing: with.secrets[spec.Webhook.SigningKey]}.Send(ctx, notice, with.now)
	}
}

// rootsOf returns the certificates of a bundle, nil for none: the system's hold then.
func rootsOf(bundle string) (*x509.CertPool, error) {
	if bundle == "" {
		return nil, nil
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(bundle)) {
		return nil, errors.New("the channel's caBundle holds no certificate")
	}
	return roots, nil
}
