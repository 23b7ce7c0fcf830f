package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/spf13/cobra"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	utilwait "k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// waiting is --wait and --timeout.
type waiting struct {
	wait    bool
	timeout time.Duration
}

func (w *waiting) addFlags(command *cobra.Command, usage string) {
	command.Flags().BoolVar(&w.wait, "wait", w.wait, usage)
	command.Flags().DurationVar(&w.timeout, "timeout", time.Minute, "how long to wait")
}

// errLate says that the time is over.
var errLate = errors.New("the time is over")

// until asks again and again, soon and then less often, until the condition holds, or the time is over: errLate.
func (w *waiting) until(ctx context.Context, condition utilwait.ConditionWithContextFunc) error {
	bounded, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	backoff := utilwait.Backoff{Duration: 20 * time.Millisecond, Factor: 1.5, Cap: 500 * time.Millisecond, Steps: math.MaxInt32}
	err := backoff.DelayFunc().Until(bounded, true, true, condition)
	switch {
	case err != nil && ctx.Err() != nil:
		return errors.New("you ended the wait; what was asked for stands")
	case err != nil && bounded.Err() != nil:
		// Whatever a request says that was under way then.
		return errLate
	default:
		return err
	}
}

// awaitOpening waits until nothing more comes of a grant by itself, and says what came of it: nil where it is as it was
// asked for.
func (w *waiting) awaitOpening(ctx context.Context, c client.Client, grant *v1alpha1.SupportAccessGrant) error {
	err := w.until(ctx, func(ctx context.Context) (bool, error) {
		if err := c.Get(ctx, client.ObjectKeyFromObject(grant), grant); err != nil {
			return false, fmt.Errorf("get grant %s: %w", grant.Name, err)
		}
		return isSettled(grant), nil
	})
	if errors.Is(err, errLate) {
		return fmt.Errorf("%s is not open after %s: it is %s: %s", grant.Name, w.timeout, stateOf(grant), saidOf(grant))
	}
	if err != nil {
		return err
	}
	return cameOf(grant)
}

// isSettled reports whether nothing more comes of a grant without a person, or without its time.
func isSettled(grant *v1alpha1.SupportAccessGrant) bool {
	return apimeta.IsStatusConditionTrue(grant.Status.Conditions, v1alpha1.ConditionReady) || isStalled(grant) || hasEnded(grant)
}

// cameOf is what a settled grant comes to: nil where it is open, or will be at its time.
func cameOf(grant *v1alpha1.SupportAccessGrant) error {
	if hasEnded(grant) {
		return &exitError{code: exitEnded, err: fmt.Errorf("%s is %s: %s", grant.Name, stateOf(grant), saidOf(grant))}
	}
	if isStalled(grant) {
		return fmt.Errorf("%s is %s: %s", grant.Name, stateOf(grant), saidOf(grant))
	}
	return nil
}

// awaitGrants waits until each of the grants is as wanted, and calls told the moment one is. A grant that is gone, or of
// which another has the name, is.
func (w *waiting) awaitGrants(ctx context.Context, c client.Client, grants []v1alpha1.SupportAccessGrant, want grantWanted) error {
	left := grants
	err := w.until(ctx, func(ctx context.Context) (bool, error) {
		present, err := presentOf(ctx, c, left)
		if err != nil {
			return false, err
		}
		var still []v1alpha1.SupportAccessGrant
		for i := range left {
			now, exists := present[left[i].UID]
			switch {
			case !exists:
				want.told(&left[i])
			case want.is(&now):
				want.told(&now)
			default:
				still = append(still, now)
			}
		}
		left = still
		return len(left) == 0, nil
	})
	if errors.Is(err, errLate) {
		return lateError(left, w.timeout)
	}
	return err
}

// few is up to how many grants are asked for one by one.
const few = 8

// presentOf returns those of the grants that exist, as they are now.
func presentOf(ctx context.Context, c client.Client, grants []v1alpha1.SupportAccessGrant) (map[types.UID]v1alpha1.SupportAccessGrant, error) {
	present := map[types.UID]v1alpha1.SupportAccessGrant{}
	if len(grants) <= few {
		for i := range grants {
			now := v1alpha1.SupportAccessGrant{}
			if err := c.Get(ctx, client.ObjectKeyFromObject(&grants[i]), &now); client.IgnoreNotFound(err) != nil {
				return nil, fmt.Errorf("get grant %s: %w", grants[i].Name, err)
			}
			present[now.UID] = now
		}
		return present, nil
	}
	namespace := grants[0].Namespace
	if slices.ContainsFunc(grants, func(g v1alpha1.SupportAccessGrant) bool { return g.Namespace != namespace }) {
		namespace = metav1.NamespaceAll
	}
	list := &v1alpha1.SupportAccessGrantList{}
	if err := c.List(ctx, list, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list the grants of %s: %w", placeOf(namespace), err)
	}
	for _, g := range list.Items {
		present[g.UID] = g
	}
	return present, nil
}

// grantWanted is what is waited for, and what is done when it has come.
type grantWanted struct {
	is   func(*v1alpha1.SupportAccessGrant) bool
	told func(*v1alpha1.SupportAccessGrant)
}

// lateError says what is still open, and how to end the first of it by hand.
func lateError(left []v1alpha1.SupportAccessGrant, timeout time.Duration) error {
	g := &left[0]
	return fmt.Errorf("%d grants are not yet as decided after %s; %s in namespace %s is %s: %s\nThe decision stands. "+
		"To cut access by hand, with or without the operator:\n"+
		"  kubectl delete rolebinding,clusterrolebinding -A -l %s=%s,%s=%s",
		len(left), timeout, g.Name, g.Namespace, stateOf(g), saidOf(g),
		v1alpha1.LabelGrant, g.Name, v1alpha1.LabelGrantNamespace, g.Namespace)
}

// awaitApplied waits until the operator has taken a decision over, and returns what it says of it.
func (w *waiting) awaitApplied(ctx context.Context, c client.Client, decision *v1alpha1.SupportAccessDecision) (*metav1.Condition, error) {
	var applied *metav1.Condition
	err := w.until(ctx, func(ctx context.Context) (bool, error) {
		if err := c.Get(ctx, client.ObjectKeyFromObject(decision), decision); err != nil {
			return false, fmt.Errorf("get decision %s: %w", decision.Name, err)
		}
		applied = apimeta.FindStatusCondition(decision.Status.Conditions, v1alpha1.ConditionApplied)
		return applied != nil && applied.Reason != v1alpha1.ReasonNotYet, nil
	})
	if errors.Is(err, errLate) {
		return nil, fmt.Errorf("decision %s is not yet applied after %s: is the operator running? It stands, and will be", decision.Name, w.timeout)
	}
	return applied, err
}
