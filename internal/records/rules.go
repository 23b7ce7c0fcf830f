package records

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/partial"
	"supportaccess.dev/operator/internal/review"
)

const (
	// RulesGrace is for how long rules are kept of which no record speaks: longer than any pass takes from storing them to
	// naming them, and than it takes to read all records.
	RulesGrace = time.Hour
	// collectTime bounds one collection, and collectOneTime the deletion for which whoever stores rules must wait.
	collectTime    = 10 * time.Minute
	collectOneTime = 5 * time.Second
	// recordsAtOnce is how many records are read at a time.
	recordsAtOnce = 500

	rulesPrefix = "rules-"
)

// RulesName returns the name of the ConfigMap that holds the rules of a digest.
func RulesName(digest string) string {
	digest = strings.TrimPrefix(digest, "sha256:")
	return rulesPrefix + digest[:min(len(digest), 26)]
}

// Rules keeps what roles allowed: a ConfigMap for each digest, for as long as a record names it.
type Rules struct {
	// Client stores and deletes.
	Client client.Client
	// Live reads from the API server itself: a record of which the cache has not heard names its rules even so.
	Live client.Reader
	// Clock says how long ago rules were asked for.
	Clock clock.PassiveClock

	// kept is when the rules of a name, which are known to be stored, were last asked for.
	kept sync.Map
	// mu keeps rules from being deleted between their being found stored and that being known: those who store hold it
	// together, and whoever deletes holds it alone, if nobody is storing.
	mu sync.RWMutex
}

// Keep stores what a role allows, unless that is done.
func (k *Rules) Keep(ctx context.Context, rules []rbacv1.PolicyRule) error {
	k.mu.RLock()
	defer k.mu.RUnlock()
	name := RulesName(review.RulesDigest(rules))
	if _, kept := k.kept.Load(name); kept {
		k.kept.Store(name, k.Clock.Now())
		return nil
	}
	encoded, err := json.MarshalIndent(rules, "", "  ")
	if err != nil {
		return fmt.Errorf("encode rules: %w", err)
	}
	config := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: v1alpha1.SystemNamespace, Name: name, Labels: map[string]string{v1alpha1.LabelManaged: "true"},
		},
		Immutable: new(true),
		Data:      map[string]string{"rules.json": string(encoded)},
	}
	if err := k.Client.Create(ctx, config); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create ConfigMap %s: %w", name, err)
	}
	k.kept.Store(name, k.Clock.Now())
	return nil
}

// Collect deletes the rules that no record names, and returns how many those were. Rules are asked for before a record
// names them: what is young, or was asked for of late, is left.
func (k *Rules) Collect(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, collectTime)
	defer cancel()
	stored, err := k.old(ctx)
	if err != nil || len(stored) == 0 {
		return 0, err
	}
	named, err := k.named(ctx)
	if err != nil {
		return 0, err
	}
	collected := 0
	for i := range stored {
		if slices.ContainsFunc(named, func(name string) bool { return strings.HasPrefix(stored[i].Name, name) }) {
			continue
		}
		done, err := k.drop(ctx, &stored[i])
		if err != nil {
			return collected, err
		}
		collected += done
	}
	return collected, nil
}

// old returns the stored rules that no pass can be about to name for the first time.
func (k *Rules) old(ctx context.Context) ([]metav1.PartialObjectMetadata, error) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(partial.Object("ConfigMapList").GroupVersionKind())
	managed := client.MatchingLabels{v1alpha1.LabelManaged: "true"}
	if err := k.Live.List(ctx, list, client.InNamespace(v1alpha1.SystemNamespace), managed); err != nil {
		return nil, fmt.Errorf("list ConfigMaps: %w", err)
	}
	now := k.Clock.Now()
	return slices.DeleteFunc(list.Items, func(stored metav1.PartialObjectMetadata) bool {
		return !strings.HasPrefix(stored.Name, rulesPrefix) || now.Sub(stored.CreationTimestamp.Time) < RulesGrace
	}), nil
}

// mention is how a message speaks of rules. A message may have been cut in the middle of a name.
var mention = regexp.MustCompile(rulesPrefix + "[0-9a-f]+")

// named returns the names of rules of which any record speaks, or how they begin.
func (k *Rules) named(ctx context.Context) ([]string, error) {
	names := map[string]struct{}{}
	page := &v1alpha1.SupportAccessRecordList{}
	for {
		if err := k.Live.List(ctx, page, client.Limit(recordsAtOnce), client.Continue(page.Continue)); err != nil {
			return nil, fmt.Errorf("list records: %w", err)
		}
		for i := range page.Items {
			for _, rules := range page.Items[i].Status.Rules {
				names[RulesName(rules.Digest)] = struct{}{}
			}
			for _, transition := range page.Items[i].Status.Transitions {
				for _, name := range mention.FindAllString(transition.Message, -1) {
					names[name] = struct{}{}
				}
			}
		}
		if page.Continue == "" {
			return slices.Collect(maps.Keys(names)), nil
		}
	}
}

// drop deletes stored rules, and returns of how many: none while somebody stores any, or where they were asked for of
// late. It forgets them first, so that whoever asks next stores them again.
func (k *Rules) drop(ctx context.Context, stored *metav1.PartialObjectMetadata) (int, error) {
	if !k.mu.TryLock() {
		return 0, nil
	}
	defer k.mu.Unlock()
	if asked, kept := k.kept.Load(stored.Name); kept && k.Clock.Since(asked.(time.Time)) < RulesGrace {
		return 0, nil
	}
	k.kept.Delete(stored.Name)
	ctx, cancel := context.WithTimeout(ctx, collectOneTime)
	defer cancel()
	uid := stored.UID
	if err := k.Client.Delete(ctx, stored, client.Preconditions{UID: &uid}); client.IgnoreNotFound(err) != nil {
		return 0, fmt.Errorf("delete ConfigMap %s: %w", stored.Name, err)
	}
	return 1, nil
}
