// Package operator puts the operator together: flags become options, options a manager. It decides nothing about grants.
package operator

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap/zapcore"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/config/admission"
	"supportaccess.dev/operator/controllers/banner"
	"supportaccess.dev/operator/controllers/decision"
	"supportaccess.dev/operator/controllers/grant"
	"supportaccess.dev/operator/controllers/guard"
	"supportaccess.dev/operator/controllers/record"
	"supportaccess.dev/operator/controllers/request"
	"supportaccess.dev/operator/controllers/setting"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/metrics"
	"supportaccess.dev/operator/internal/records"
)

// Options are what the controller can be told.
type Options struct {
	LeaderElect      bool
	MetricsAddress   string
	HealthAddress    string
	ClusterServer    string
	ClusterCABundle  string
	Gateway          ReachOptions
	Notify           NotifyOptions
	RecordRetention  time.Duration
	Banner           bool
	ExtraSystemUsers []string
	Stamp            string
	Workers          int
	LogLevel         string
	LogFormat        string
}

// The ways in which a grant gets its granter's name.
const (
	stampPolicy   = "Policy"
	stampManifest = "Manifest"
)

// ControllerCommand returns the subcommand that runs the controller.
func ControllerCommand(version string) *cobra.Command {
	var o Options
	command := &cobra.Command{
		Use:   "controller",
		Short: "Open and close grants",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return runController(command.Context(), o, version)
		},
	}
	flags := command.Flags()
	flags.BoolVar(&o.LeaderElect, "leader-elect", false, "work only while holding the lease support-access-controller, so that several replicas may run")
	flags.StringVar(&o.MetricsAddress, "metrics-bind-address", ":8443", "address of the metrics, over TLS and for who may read them; 0 for none")
	flags.StringVar(&o.HealthAddress, "health-probe-bind-address", ":8081", "address of /healthz and /readyz; 0 for none")
	flags.StringVar(&o.ClusterServer, "cluster-server", "", "URL at which engineers reach the API server; empty to read kube-public/cluster-info")
	flags.StringVar(&o.ClusterCABundle, "cluster-ca-bundle", "", "file with the PEM bundle by which engineers know the API server; empty to read kube-public/cluster-info, or the system's")
	o.Gateway.bind(flags)
	o.Notify.bind(flags)
	flags.DurationVar(&o.RecordRetention, "record-retention", 400*24*time.Hour, "how long a record is kept after its grant ended")
	flags.BoolVar(&o.Banner, "banner", false, "show in each namespace with open access the ConfigMap support-access-banner")
	flags.StringSliceVar(&o.ExtraSystemUsers, "extra-system-users", nil, "users of the control plane whom the admission policies except besides the usual ones")
	flags.StringVar(&o.Stamp, "stamp", stampPolicy, "who writes grantedBy into a grant: Policy (a MutatingAdmissionPolicy) or Manifest (whoever applies it)")
	flags.IntVar(&o.Workers, "workers", 16, "how many grants are worked on at once")
	flags.StringVar(&o.LogLevel, "log-level", "info", "debug, info or error")
	flags.StringVar(&o.LogFormat, "log-format", "json", "json or text")
	return command
}

// Scheme returns the kinds that the operator reads and writes.
func Scheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("add kinds to the scheme: %w", err)
		}
	}
	return scheme, nil
}

func runController(ctx context.Context, o Options, version string) error {
	if err := o.check(); err != nil {
		return err
	}
	setLogger(o.LogLevel, o.LogFormat)
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the API server: %w", err)
	}
	clocks := watchClock(config)
	mgr, err := NewManager(config, o)
	if err != nil {
		return err
	}
	if err := showClock(mgr, clocks); err != nil {
		return err
	}
	if err := addFrugality(mgr, clock.RealClock{}); err != nil {
		return err
	}
	if err := AddControllers(ctx, mgr, o, version); err != nil {
		return err
	}
	ctrl.Log.Info("Starting", "version", version)
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("run: %w", err)
	}
	return nil
}

func (o Options) check() error {
	if o.Stamp != stampPolicy && o.Stamp != stampManifest {
		return fmt.Errorf("--stamp: %q is neither %s nor %s", o.Stamp, stampPolicy, stampManifest)
	}
	if o.Workers < 1 {
		return fmt.Errorf("--workers: %d is less than 1", o.Workers)
	}
	if o.RecordRetention < 0 {
		return fmt.Errorf("--record-retention: %s is negative", o.RecordRetention)
	}
	if o.Gateway.TLSSelfMade && o.Gateway.TLSSecret == "" {
		return errors.New("--gateway-tls-self-made: say in which Secret, with --gateway-tls-secret")
	}
	return checkLog(o.LogLevel, o.LogFormat)
}

func checkLog(level, format string) error {
	if _, err := zapcore.ParseLevel(level); err != nil {
		return fmt.Errorf("--log-level: %w", err)
	}
	if format != "json" && format != "text" {
		return fmt.Errorf("--log-format: %q is neither json nor text", format)
	}
	return nil
}

func setLogger(atLeast, format string) {
	level, _ := zapcore.ParseLevel(atLeast)
	encoder := zap.JSONEncoder()
	if format == "text" {
		encoder = zap.ConsoleEncoder()
	}
	ctrl.SetLogger(zap.New(encoder, zap.Level(level)))
}

// NewManager returns the manager with the cache that the controllers need, and no more.
func NewManager(config *rest.Config, o Options) (ctrl.Manager, error) {
	scheme, err := Scheme()
	if err != nil {
		return nil, err
	}
	// The API server's own fairness limits us, not a limit of the client: ends must not queue behind each other.
	config.QPS = -1
	// The canary is warned on purpose, every few minutes.
	config.WarningHandlerWithContext = rest.NoWarnings{}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                        scheme,
		Cache:                         cacheOptions(),
		Metrics:                       metricsserver.Options{BindAddress: o.MetricsAddress, SecureServing: true, FilterProvider: filters.WithAuthenticationAndAuthorization},
		HealthProbeBindAddress:        o.HealthAddress,
		LeaderElection:                o.LeaderElect,
		LeaderElectionID:              v1alpha1.ControllerServiceAccount,
		LeaderElectionNamespace:       v1alpha1.SystemNamespace,
		LeaderElectionReleaseOnCancel: true,
	})
	if err != nil {
		return nil, fmt.Errorf("make the manager: %w", err)
	}
	return mgr, nil
}

// cacheOptions bounds what is kept in memory: of bindings and admission policies only ours, of Secrets and
// ServiceAccounts only those of the credentials namespace, and of those only metadata, as the watches ask for no more.
func cacheOptions() cache.Options {
	managed := labels.SelectorFromSet(labels.Set{v1alpha1.LabelManaged: "true"})
	ours := labels.SelectorFromSet(labels.Set{"app.kubernetes.io/part-of": "support-access"})
	credentials := map[string]cache.Config{v1alpha1.CredentialsNamespace: {}}
	asItIs := func(object any) (any, error) { return object, nil }
	return cache.Options{
		DefaultTransform: (&trimmer{}).trim,
		ByObject: map[client.Object]cache.ByObject{
			&rbacv1.RoleBinding{}:        {Label: managed},
			&rbacv1.ClusterRoleBinding{}: {Label: managed},
			&corev1.Secret{}:             {Namespaces: credentials},
			&corev1.ServiceAccount{}:     {Namespaces: credentials},
			// The gateway writes nowhere else, and the controller may look nowhere else.
			&v1alpha1.SupportAccessSession{}: {Namespaces: map[string]cache.Config{v1alpha1.SystemNamespace: {}}},
			// By this field RBAC lets a name be watched.
			&corev1.ConfigMap{}: {Field: fields.OneTermEqualSelector(metav1.ObjectNameField, v1alpha1.BannerConfigMap)},
			// When these were changed is read from their managed fields.
			&admissionregistrationv1.ValidatingAdmissionPolicy{}:        {Label: ours, Transform: asItIs},
			&admissionregistrationv1.ValidatingAdmissionPolicyBinding{}: {Label: ours, Transform: asItIs},
			&admissionregistrationv1.MutatingAdmissionPolicy{}:          {Label: ours, Transform: asItIs},
			&admissionregistrationv1.MutatingAdmissionPolicyBinding{}:   {Label: ours, Transform: asItIs},
		},
	}
}

// AddControllers registers every controller and health check.
func AddControllers(ctx context.Context, mgr ctrl.Manager, o Options, version string) error {
	var bundle []byte
	if o.ClusterCABundle != "" {
		var err error
		if bundle, err = os.ReadFile(o.ClusterCABundle); err != nil {
			return fmt.Errorf("read --cluster-ca-bundle: %w", err)
		}
	}
	now, live := clock.RealClock{}, mgr.GetAPIReader()
	gateway, err := o.Gateway.address(live, now)
	if err != nil {
		return err
	}
	counters, err := addMetrics(mgr, now, version)
	if err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	woken := make(chan event.GenericEvent, 1)
	watch := &guard.Guard{
		Client: mgr.GetClient(), Clock: now, Wake: woken,
		Options: admission.Options{ExtraSystemUsers: o.ExtraSystemUsers, Stamp: o.Stamp == stampPolicy},
	}
	if err := watch.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("set up the guard: %w", err)
	}
	rules := &records.Rules{Client: mgr.GetClient(), Live: live, Clock: now}
	if err := mgr.Add(&record.Collector{Rules: rules, Clock: now}); err != nil {
		return fmt.Errorf("set up the collection of old rules: %w", err)
	}
	if err := records.AddIndex(ctx, mgr.GetFieldIndexer()); err != nil {
		return fmt.Errorf("index records: %w", err)
	}
	grants := &grant.Reconciler{
		Client: policyClientOf(mgr), Live: live, Clock: now, Workers: o.Workers, Woken: woken, Admission: watch, Counters: counters, Rules: rules,
		Keeper:    access.Keeper{Client: mgr.GetClient(), Live: live, Clock: now},
		Addresses: &access.Addresses{Told: access.Cluster{Server: o.ClusterServer, CABundle: bundle}, Live: live, Clock: now},
		Binder:    &access.Binder{Client: mgr.GetClient(), Clock: now},
		Gateway:   gateway,
		Recorder:  mgr.GetEventRecorder("support-access"),
	}
	if o.Gateway.Server != "" {
		grants.Sessions = mgr.GetClient()
	}
	if err := metrics.ShowWaiting(ctrlmetrics.Registry, grants.WaitingToOpen); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	if err := grants.SetupWithManager(ctx, mgr); err != nil {
		return fmt.Errorf("set up the grant controller: %w", err)
	}
	if err := addBesideGrants(mgr, o, watch); err != nil {
		return err
	}
	if err := o.Notify.addTo(mgr, now, counters); err != nil {
		return err
	}
	if err := o.Gateway.addTo(mgr, now, counters); err != nil {
		return err
	}
	return addChecks(mgr, watch)
}

// addMetrics registers what is counted, and what is asked when metrics are.
func addMetrics(mgr ctrl.Manager, now clock.PassiveClock, version string) (*metrics.Counters, error) {
	counters, err := metrics.NewCounters(ctrlmetrics.Registry, version)
	if err != nil {
		return nil, err
	}
	return counters, ctrlmetrics.Registry.Register(&metrics.Grants{Reader: mgr.GetClient(), Clock: now})
}

// addChecks registers the health checks.
func addChecks(mgr ctrl.Manager, watch *guard.Guard) error {
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("add health check: %w", err)
	}
	if err := mgr.AddReadyzCheck("admission", func(*http.Request) error { return watch.Ready() }); err != nil {
		return fmt.Errorf("add readiness check: %w", err)
	}
	return nil
}

// addBesideGrants registers the controllers of the kinds that lie beside grants.
func addBesideGrants(mgr ctrl.Manager, o Options, watch *guard.Guard) error {
	now, live := clock.RealClock{}, mgr.GetAPIReader()
	settings := &setting.Reconciler{Client: mgr.GetClient(), Live: live, Clock: now, Admission: watch, Recorder: mgr.GetEventRecorder("support-access")}
	if err := settings.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("set up the setting controller: %w", err)
	}
	defaults := &setting.Defaults{
		Client: policyClientOf(mgr), Live: live, Clock: now, Admission: watch,
		Recorder: mgr.GetEventRecorder("support-access"),
	}
	if err := defaults.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("set up the controller of settings by default: %w", err)
	}
	requests := &request.Reconciler{
		Client: policyClientOf(mgr), Live: live, Clock: now, Admission: watch,
		Recorder: mgr.GetEventRecorder("support-access"),
	}
	if err := requests.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("set up the request controller: %w", err)
	}
	decisions := &decision.Reconciler{Client: mgr.GetClient(), Live: live, Clock: now}
	if err := decisions.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("set up the decision controller: %w", err)
	}
	keeper := &record.Reconciler{Client: mgr.GetClient(), Live: live, Clock: now, Retention: o.RecordRetention}
	if err := keeper.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("set up the record controller: %w", err)
	}
	if !o.Banner {
		return nil
	}
	banners := &banner.Reconciler{Client: mgr.GetClient()}
	if err := banners.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("set up the banner controller: %w", err)
	}
	return nil
}
