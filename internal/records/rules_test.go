package records

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/review"
)

// library is a place where rules are kept, with a clock of its own.
type library struct {
	*Rules
	clock *clocktesting.FakePassiveClock
	store client.WithWatch
}

func newLibrary(t *testing.T, calls interceptor.Funcs) *library {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	l := &library{clock: clocktesting.NewFakePassiveClock(instant.Time)}
	l.store = interceptor.NewClient(fake.NewClientBuilder().WithScheme(scheme).Build(), interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			o.SetCreationTimestamp(metav1.NewTime(l.clock.Now()))
			return c.Create(ctx, o, opts...)
		},
	})
	c := interceptor.NewClient(l.store, calls)
	l.Rules = &Rules{Client: c, Live: c, Clock: l.clock}
	return l
}

// rulesAbout are rules of which each resource has its own digest.
func rulesAbout(resource string) []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{resource}, Verbs: []string{"get"}}}
}

func nameAbout(resource string) string { return RulesName(review.RulesDigest(rulesAbout(resource))) }

func (l *library) keep(t *testing.T, resources ...string) {
	t.Helper()
	for _, resource := range resources {
		if err := l.Keep(t.Context(), rulesAbout(resource)); err != nil {
			t.Fatal(err)
		}
	}
}

func (l *library) later(d time.Duration) { l.clock.SetTime(l.clock.Now().Add(d)) }

func (l *library) collect(t *testing.T) {
	t.Helper()
	if _, err := l.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// has checks which ConfigMaps there are.
func (l *library) has(t *testing.T, why string, want ...string) {
	t.Helper()
	list := &corev1.ConfigMapList{}
	if err := l.store.List(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	var names []string
	for i := range list.Items {
		names = append(names, list.Items[i].Name)
	}
	slices.Sort(names)
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("%s: there are %v, want %v", why, names, want)
	}
}

func (l *library) record(t *testing.T, name string, status v1alpha1.SupportAccessRecordStatus) *v1alpha1.SupportAccessRecord {
	t.Helper()
	record := &v1alpha1.SupportAccessRecord{ObjectMeta: metav1.ObjectMeta{Namespace: "mail", Name: name}, Status: status}
	if err := l.store.Create(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	return record
}

func (l *library) drop(t *testing.T, o client.Object) {
	t.Helper()
	if err := l.store.Delete(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

func opened(resources ...string) v1alpha1.SupportAccessRecordStatus {
	var status v1alpha1.SupportAccessRecordStatus
	for _, resource := range resources {
		status.Rules = append(status.Rules, v1alpha1.RecordedRules{Role: resource, Digest: review.RulesDigest(rulesAbout(resource))})
	}
	return status
}

func TestRulesStayForAsLongAsTheLastRecordThatNamesThem(t *testing.T) {
	l := newLibrary(t, interceptor.Funcs{})
	l.keep(t, "pods", "services")
	first, second := l.record(t, "first", opened("pods")), l.record(t, "second", opened("pods", "services"))
	l.later(2 * RulesGrace)
	l.collect(t)
	l.has(t, "both are named", nameAbout("pods"), nameAbout("services"))
	l.drop(t, second)
	l.collect(t)
	l.has(t, "one is named", nameAbout("pods"))
	l.drop(t, first)
	l.collect(t)
	l.has(t, "none is named")
}

// A record that was made small has cut its messages: what is left of a name keeps all that begin so.
func TestRulesThatAMessageNamesStayWithTheRecord(t *testing.T) {
	l := newLibrary(t, interceptor.Funcs{})
	l.keep(t, "pods", "services", "secrets")
	cut := nameAbout("services")[:12] + "…"
	status := opened()
	status.Transitions = []v1alpha1.Transition{
		{Type: v1alpha1.TransitionOpened, Message: "access is open"},
		{Type: v1alpha1.TransitionRoleChanged, Message: "what was allowed is in " + nameAbout("pods") + ", what is allowed now in " + cut},
	}
	l.record(t, "small", status)
	l.later(2 * RulesGrace)
	l.collect(t)
	l.has(t, "two are named", nameAbout("pods"), nameAbout("services"))
}

func TestAMessageAboutAChangedRoleNamesBothRulesHoweverSmallTheRecord(t *testing.T) {
	names := strings.Join([]string{nameAbout("pods"), nameAbout("services")}, ", what is allowed now in ")
	message := Clip("what was allowed is in "+names+": ClusterRole "+strings.Repeat("r", 253)+" was changed", shortMessage)
	if found := mention.FindAllString(message, -1); !slices.Equal(found, []string{nameAbout("pods"), nameAbout("services")}) {
		t.Errorf("the message %q names %v", message, found)
	}
}

func TestRulesThatAPassHasJustStoredAreLeftUntilItCanHaveNamedThem(t *testing.T) {
	l := newLibrary(t, interceptor.Funcs{})
	l.keep(t, "pods")
	l.later(RulesGrace - time.Second)
	if n, err := (&Rules{Client: l.Client, Live: l.Live, Clock: l.clock}).Collect(t.Context()); n != 0 || err != nil {
		t.Errorf("a process that knows nothing collected %d, %v", n, err)
	}
	l.has(t, "they are young", nameAbout("pods"))
	l.keep(t, "pods")
	l.later(RulesGrace - time.Second)
	l.collect(t)
	l.has(t, "they are old, and were asked for of late", nameAbout("pods"))
	l.later(time.Second)
	l.collect(t)
	l.has(t, "nobody asked for them any more")
}

func TestRulesThatAnEarlierProcessStoredAreLeftOnceTheyWereAskedFor(t *testing.T) {
	l := newLibrary(t, interceptor.Funcs{})
	l.keep(t, "pods")
	l.later(2 * RulesGrace)
	successor := &Rules{Client: l.Client, Live: l.Live, Clock: l.clock}
	if err := successor.Keep(t.Context(), rulesAbout("pods")); err != nil {
		t.Fatal(err)
	}
	if n, err := successor.Collect(t.Context()); n != 0 || err != nil {
		t.Errorf("collected %d, %v", n, err)
	}
	l.has(t, "they are old, and were found just now", nameAbout("pods"))
}

func TestRulesThatWereCollectedAreStoredAgainForWhoeverAsks(t *testing.T) {
	l := newLibrary(t, interceptor.Funcs{})
	l.keep(t, "pods")
	l.later(2 * RulesGrace)
	l.collect(t)
	l.has(t, "nobody names them")
	l.keep(t, "pods")
	l.has(t, "somebody asked again", nameAbout("pods"))
}

// Whoever asks while rules are being deleted waits, and finds them gone; and while somebody stores, nothing is deleted.
func TestWhoeverAsksWhileRulesAreDeletedFindsThemStored(t *testing.T) {
	var l *library
	var asked chan error
	l = newLibrary(t, interceptor.Funcs{Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
		go func() { asked <- l.Keep(context.WithoutCancel(ctx), rulesAbout("pods")) }()
		return c.Delete(ctx, o, opts...)
	}})
	for range 20 {
		asked = make(chan error, 1)
		l.keep(t, "pods")
		l.later(2 * RulesGrace)
		l.collect(t)
		if err := <-asked; err != nil {
			t.Fatal(err)
		}
		l.has(t, "they were asked for while they went", nameAbout("pods"))
	}
}

func TestNothingIsCollectedWhileSomebodyStores(t *testing.T) {
	var l *library
	collected := -1
	l = newLibrary(t, interceptor.Funcs{Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
		if o.GetName() == nameAbout("services") {
			var err error
			if collected, err = l.Collect(ctx); err != nil {
				return err
			}
		}
		return c.Create(ctx, o, opts...)
	}})
	l.keep(t, "pods")
	l.later(2 * RulesGrace)
	l.keep(t, "services")
	if collected != 0 {
		t.Errorf("collected %d while somebody stored", collected)
	}
}

func TestWhatIsNotRulesOrNotOursIsNeverCollected(t *testing.T) {
	l := newLibrary(t, interceptor.Funcs{})
	for _, config := range []*corev1.ConfigMap{
		{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "kube-root-ca.crt"}},
		{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: nameAbout("theirs")}},
		{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "other", Labels: map[string]string{v1alpha1.LabelManaged: "true"}}},
		{ObjectMeta: metav1.ObjectMeta{Namespace: "mail", Name: nameAbout("elsewhere"), Labels: map[string]string{v1alpha1.LabelManaged: "true"}}},
	} {
		if err := l.store.Create(t.Context(), config); err != nil {
			t.Fatal(err)
		}
	}
	l.later(2 * RulesGrace)
	l.collect(t)
	l.has(t, "none is ours", "kube-root-ca.crt", "other", nameAbout("theirs"), nameAbout("elsewhere"))
}

func TestNothingIsCollectedUnlessEveryRecordWasRead(t *testing.T) {
	pages := 0
	l := newLibrary(t, interceptor.Funcs{List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
		records, ok := list.(*v1alpha1.SupportAccessRecordList)
		if !ok {
			return c.List(ctx, list, opts...)
		}
		// The first page is empty and not the last.
		if pages++; pages%2 == 1 {
			records.Items, records.Continue = nil, "more"
			return nil
		}
		if options := (&client.ListOptions{}).ApplyOptions(opts); options.Continue != "more" {
			return fmt.Errorf("the second page was asked for as %q", options.Continue)
		}
		if pages == 2 {
			return errors.New("the API server is told to fail")
		}
		records.Continue = ""
		return c.List(ctx, list)
	}})
	l.keep(t, "pods")
	l.record(t, "first", opened("pods"))
	l.later(2 * RulesGrace)
	if _, err := l.Collect(t.Context()); err == nil {
		t.Error("the records could not be read, and no error says so")
	}
	l.has(t, "the second page could not be read", nameAbout("pods"))
	l.collect(t)
	l.has(t, "the second page names them", nameAbout("pods"))
}
