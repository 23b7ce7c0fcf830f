package gateway

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

const (
	// stormAtOnce is how much of a storm is under way at once.
	stormAtOnce = 16
	// stormBound bounds each part of a storm.
	stormBound = 10 * time.Minute
)

// one is one of many engineers, each with a namespace of the engineer's own.
type one struct {
	namespace string
	client    *http.Client
	host      string
	// ended is when the watch was.
	ended chan time.Time
}

func TestOfManyGrantsAtOnceEachEngineerReachesTheOwnNamespaceAloneAndAllAreCutTogether(t *testing.T) {
	n := 1000
	if testing.Short() {
		n = 40
	}
	s := newScene(t)
	all := make([]*one, n)
	began := time.Now()
	side(t, n, func(ctx context.Context, i int) (err error) {
		all[i], err = s.one(ctx, fmt.Sprintf("%s-%d", s.Name("storm"), i))
		return err
	})
	t.Logf("%d grants are open after %s", n, time.Since(began).Round(time.Millisecond))
	side(t, n, func(ctx context.Context, i int) error { return all[i].reaches(ctx, all[(i+1)%n]) })
	side(t, n, func(_ context.Context, i int) error { return all[i].watches() })

	decision := &v1alpha1.SupportAccessDecision{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: s.Name("storm-is-over")},
		Spec:       v1alpha1.SupportAccessDecisionSpec{Action: v1alpha1.ActionRevoke, Target: v1alpha1.DecisionTarget{Cluster: v1alpha1.TargetAll}, Reason: "an emergency"},
	}
	if err := s.Admin.Create(t.Context(), decision); err != nil {
		t.Fatal(err)
	}
	revoked := time.Now()
	areCut(t, all, revoked)
	side(t, n, func(ctx context.Context, i int) error { return all[i].isOut(ctx) })
	for _, o := range []*one{all[0], all[n-1]} {
		g := &v1alpha1.SupportAccessGrant{}
		world.Eventually(t, "the grant says that it was an emergency stop", func() error {
			err := s.Admin.Get(t.Context(), client.ObjectKey{Namespace: o.namespace, Name: "case-storm"}, g)
			if err == nil && g.Status.EndReason != v1alpha1.EndEmergencyStop {
				return fmt.Errorf("it says %q", g.Status.EndReason)
			}
			return err
		})
	}
	// What is granted from then on the decision does not concern: no other test's grant is ended by it.
	world.Eventually(t, "a grant can be made again", func() error {
		if until := lifecycle.WideUntil(decision); time.Now().Before(until.Add(time.Second)) {
			return fmt.Errorf("the decision is about grants until %s", until)
		}
		return nil
	})
}

// side does something for each of many, some of them at once.
func side(t *testing.T, n int, do func(ctx context.Context, i int) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), stormBound)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(stormAtOnce)
	for i := range n {
		group.Go(func() error { return do(ctx, i) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

// one makes a namespace and a grant in it, and fetches the kubeconfig.
func (s *scene) one(ctx context.Context, namespace string) (*one, error) {
	if err := s.Admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
		return nil, err
	}
	g := gen.ToApply("case-storm", namespace, gen.WithDuration("1h"), func(g *v1alpha1.SupportAccessGrant) { g.Spec.Transport = "" })
	if err := s.Admin.Create(ctx, g); err != nil {
		return nil, fmt.Errorf("grant in %s: %w", namespace, err)
	}
	err := wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		err := s.Admin.Get(ctx, client.ObjectKeyFromObject(g), g)
		open := apimeta.IsStatusConditionTrue(g.Status.Conditions, v1alpha1.ConditionActive)
		return open && len(g.Status.Engineers) == 1 && g.Status.Engineers[0].CredentialSecretRef != nil, err
	})
	if err != nil {
		return nil, fmt.Errorf("wait for the grant in %s, whose status is %+v: %w", namespace, g.Status, err)
	}
	ref, secret := g.Status.Engineers[0].CredentialSecretRef, &corev1.Secret{}
	if err := s.Admin.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, secret); err != nil {
		return nil, err
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(secret.Data[ref.Key])
	if err != nil {
		return nil, err
	}
	tlsConfig, err := rest.TLSConfigFor(config)
	if err != nil {
		return nil, err
	}
	transport, err := rest.HTTPWrappersForConfig(config, &http.Transport{TLSClientConfig: tlsConfig.Clone(), ForceAttemptHTTP2: true})
	if err != nil {
		return nil, err
	}
	return &one{namespace: namespace, client: &http.Client{Transport: transport}, host: config.Host, ended: make(chan time.Time, 1)}, nil
}

func (o *one) get(ctx context.Context, path string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, o.host+path, nil)
	if err != nil {
		return nil, err
	}
	return o.client.Do(r)
}

// code asks and returns the status.
func (o *one) code(ctx context.Context, path string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, anAnswer)
	defer cancel()
	response, err := o.get(ctx, path)
	if err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode, response.Body.Close()
}

// reaches asks for what is the engineer's own, and for what is another's.
func (o *one) reaches(ctx context.Context, other *one) error {
	for path, want := range map[string]int{
		"/api/v1/namespaces/" + o.namespace + "/configmaps":     http.StatusOK,
		"/api/v1/namespaces/" + other.namespace + "/configmaps": http.StatusForbidden,
		"/api/v1/configmaps": http.StatusForbidden,
	} {
		code, err := o.code(ctx, path)
		if err != nil {
			return err
		}
		if code != want {
			return fmt.Errorf("the engineer of %s asks for %s: %d, want %d", o.namespace, path, code, want)
		}
	}
	return nil
}

// watches opens a watch that notes when it ends.
func (o *one) watches() error {
	response, err := o.get(context.Background(), "/api/v1/namespaces/"+o.namespace+"/configmaps?watch=1")
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("watch in %s: %s", o.namespace, response.Status)
	}
	go func() {
		_, _ = io.Copy(io.Discard, response.Body)
		o.ended <- time.Now()
		_ = response.Body.Close()
	}()
	return nil
}

// isOut asks once more, with a credential that is over.
func (o *one) isOut(ctx context.Context) error {
	code, err := o.code(ctx, "/api/v1/namespaces/"+o.namespace+"/configmaps")
	if err == nil && code != http.StatusForbidden && code != http.StatusUnauthorized {
		return fmt.Errorf("after the end the engineer of %s asks and gets %d", o.namespace, code)
	}
	return err
}

// areCut waits until every watch has ended, and shows how long that took.
func areCut(t *testing.T, all []*one, since time.Time) {
	t.Helper()
	var took []time.Duration
	var open []string
	late := time.After(patience)
	for _, o := range all {
		select {
		case at := <-o.ended:
			took = append(took, at.Sub(since))
		case <-late:
			late = time.After(0)
			open = append(open, o.namespace)
		}
	}
	if len(open) > 0 {
		t.Fatalf("%d watches are open %s after the end, of %s", len(open), patience, strings.Join(open[:min(10, len(open))], ", "))
	}
	slices.Sort(took)
	t.Logf("%d watches are cut: the first after %s, half after %s, the last after %s", len(took), took[0].Round(time.Millisecond),
		took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
}
