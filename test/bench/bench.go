package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/hack/controlplane"
	"supportaccess.dev/operator/test/world"
)

const (
	tenant  = "bench"
	granter = "tess@customer.example"
	// content is the role that may exec.
	content = "support-access-content"
	// patience bounds every wait for one thing.
	patience = 2 * time.Minute
)

// bench is a cluster with the operator on it, and the clients that measure.
type bench struct {
	dir          string
	cp           *controlplane.ControlPlane
	installation *world.Installation
	operator     *world.Operator
	// gatewayIP is where the gateway listens, empty where there is none.
	gatewayIP string
	// admin is the cluster's, tess the admin of the tenant's namespace.
	admin, tess client.WithWatch
	// bare measures the floor. It is a ServiceAccount that may do everything: unlike the cluster's admin, whom the API server
	// neither asks for rights nor makes wait, it takes the way that the operator takes.
	bare client.Client
}

func (b *bench) startOperator(ctx context.Context) error {
	operator, err := world.Run(ctx, b.cp, b.installation, world.OperatorOptions{Dir: filepath.Join(b.dir, "pods")})
	if err != nil {
		return fmt.Errorf("start the operator: %w", err)
	}
	b.operator = operator
	return operator.WaitReady(ctx)
}

func (b *bench) close() error {
	var errs []error
	if b.operator != nil {
		errs = append(errs, b.operator.Stop())
	}
	return errors.Join(append(errs, b.cp.Stop(), os.RemoveAll(b.dir))...)
}

// prepare makes the tenant's namespace, its admin, and a policy without a menu of durations.
func (b *bench) prepare(ctx context.Context) error {
	var err error
	if b.admin, err = client.NewWithWatch(b.cp.AdminConfig(), client.Options{Scheme: world.Scheme()}); err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	if b.tess, err = client.NewWithWatch(b.cp.UserConfig(granter), client.Options{Scheme: world.Scheme()}); err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	for _, object := range []client.Object{
		&v1alpha1.SupportAccessPolicy{ObjectMeta: metav1.ObjectMeta{Name: tenant}, Spec: v1alpha1.SupportAccessPolicySpec{
			MaxDuration: "168h", Transports: []v1alpha1.Transport{v1alpha1.TransportDirect, v1alpha1.TransportGateway},
			Roles:    []v1alpha1.OfferedRole{{Name: "support-access-configuration"}, {Name: "support-access-diagnostics"}, {Name: content}},
			Sessions: &v1alpha1.SessionLimits{MaxConnections: 1024, MaxStreamBytes: 1 << 40},
		}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: tenant, Labels: map[string]string{v1alpha1.LabelPolicy: tenant}}},
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: "tess"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: granter}},
		},
		&rbacv1.Role{
			ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: "lends"},
			Rules:      []rbacv1.PolicyRule{{Verbs: []string{"bind"}, APIGroups: []string{rbacv1.GroupName}, Resources: []string{"clusterroles"}, ResourceNames: []string{content}}},
		},
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: "lends"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "lends"},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: granter}},
		},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: "bare"}},
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "bench-bare"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: tenant, Name: "bare"}},
		},
	} {
		if err := b.admin.Create(ctx, object); err != nil {
			return fmt.Errorf("create %T: %w", object, err)
		}
	}
	config, err := b.cp.ServiceAccountConfig(ctx, tenant, "bare")
	if err != nil {
		return err
	}
	config.QPS = -1
	if b.bare, err = client.New(config, client.Options{Scheme: world.Scheme(), Mapper: b.admin.RESTMapper()}); err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	return b.until(ctx, "tess may grant", func(ctx context.Context) (bool, error) {
		err := b.tess.Create(ctx, newGrant("may-i", "1h"), client.DryRunAll)
		if apierrors.IsForbidden(err) {
			return false, nil
		}
		return err == nil, err
	})
}

func newGrant(name string, duration v1alpha1.Duration) *v1alpha1.SupportAccessGrant {
	return &v1alpha1.SupportAccessGrant{
		ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: name},
		Spec: v1alpha1.SupportAccessGrantSpec{
			Reason: "measuring", Engineers: []v1alpha1.Engineer{{Name: "ana@vendor.example"}}, Duration: duration,
		},
	}
}

// until polls without pause: what is measured is shorter than any pause.
func (b *bench) until(ctx context.Context, what string, condition func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		ok, err := condition(ctx)
		if err != nil || ctx.Err() != nil {
			return errors.Join(fmt.Errorf("wait until %s: %w", what, errors.Join(err, ctx.Err())))
		}
		if ok {
			return nil
		}
	}
}

// probe asks for a ConfigMap that is not there: 404 says that the caller may read, 403 that it may not.
func probe(ctx context.Context, engineer client.Reader) (bool, error) {
	err := engineer.Get(ctx, client.ObjectKey{Namespace: tenant, Name: "not-there"}, &corev1.ConfigMap{})
	switch {
	case apierrors.IsNotFound(err):
		return true, nil
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return false, nil
	default:
		return false, err
	}
}

func (b *bench) clientOf(kubeconfig []byte) (client.Client, error) {
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	config.QPS = -1
	return client.New(config, client.Options{Scheme: world.Scheme(), Mapper: b.admin.RESTMapper()})
}

func (b *bench) clientWith(token string) (client.Client, error) {
	config := rest.AnonymousClientConfig(b.cp.AdminConfig())
	config.BearerToken, config.QPS = token, -1
	return client.New(config, client.Options{Scheme: world.Scheme(), Mapper: b.admin.RESTMapper()})
}

// sample is how long something took, again and again.
type sample []time.Duration

func (s sample) at(quantile float64) time.Duration {
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(int(quantile*float64(len(sorted))), len(sorted)-1)]
}

// compare shows a subject beside its floor.
func compare(what string, subject, floor sample, bar string) {
	say("%-46s min %8s  median %8s  max %8s", what, ms(subject.at(0)), ms(subject.at(0.5)), ms(subject.at(1)))
	say("%-46s min %8s  median %8s  max %8s", "  floor", ms(floor.at(0)), ms(floor.at(0.5)), ms(floor.at(1)))
	say("%-46s %.2f of the floor's median (%s)", "  ratio", float64(subject.at(0.5))/float64(floor.at(0.5)), bar)
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1fms", float64(d)/float64(time.Millisecond)) }
