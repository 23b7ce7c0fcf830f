package crash

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/controllers/grant"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/test/gen"
)

// The people and places of every run.
const (
	ana = "ana@vendor.example"
	ben = "ben@vendor.example"
)

// theater is where runs take place: the stage, seen by one test, with clients for as long as that test lasts.
type theater struct {
	*stage
	operator  client.WithWatch
	admission grant.Admission
	// cache is what processes read, and eyes are what tests see with.
	cache, eyes client.Reader
}

// real reports whether there is a real API server, whose credentials can be used.
func (s *theater) real() bool { return s.world != nil }

func inTheater(t *testing.T) *theater {
	t.Helper()
	s := onStage(t)
	return &theater{stage: s, operator: s.controller(t), admission: s.guard, cache: s.caches.operator, eyes: s.caches.all}
}

// run is one course of events in namespaces of its own.
type run struct {
	t     *testing.T
	stage *theater
	clock *clocktesting.FakePassiveClock
	// offset is how far the clock was moved ahead of real time.
	offset time.Duration
	// home is where grants are made, other is another namespace.
	home, other string
	// switched says that there is, or was, a setting at home.
	switched bool
	// asked says that there is, or was, a request at home.
	asked bool
	// own is the policy of the home namespace, where it has one of its own.
	own   string
	names map[string]string
	facts map[types.NamespacedName]facts
	// active are the grants of which the status said, when it was last looked at, that they are open.
	active map[types.UID]bool
	// shut says since which step nothing of a grant may be opened any more, and why.
	shut map[types.NamespacedName]string
	// unapproved are the grants that wait until somebody approves them.
	unapproved map[types.NamespacedName]bool
	// shortened says to when decisions moved the end of a grant.
	shortened map[types.NamespacedName]*time.Time
	// cut are the bindings of open grants that somebody deleted by hand.
	cut map[string]bool
	// strangers are bindings that are none of the operator's business, under names of its own.
	strangers []*rbacv1.RoleBinding
	// unread are the identities whose credential can no longer be fetched, because somebody cut that by hand.
	unread map[string]bool
	// kubeconfigs are credentials that worked.
	kubeconfigs map[string][]byte
	// hashes are what the gateway was told of credentials, by grant and engineer.
	hashes map[string]string
	lines  []string
	// afterWrite sees every write, of every process and of the admin.
	afterWrite func(client.Object)
	// tolerant says that something may be opened that does not stay.
	tolerant bool
	// stalled says that a leader went on after it had stood still: a Role that it still made and that nothing binds gives
	// nobody anything, and is left. The operator does not watch Roles.
	stalled bool
	opened  []string
	// soft says that what is wrong may yet come right: a process of the operator is at work.
	soft bool
	// broken is what was found wrong in the middle of a write.
	broken string
}

// newRun makes the namespaces of a run.
func (s *theater) newRun(t *testing.T, policyName string) *run {
	t.Helper()
	home := s.world.LabelledNamespace(t, map[string]string{v1alpha1.LabelPolicy: policyName})
	r := newRunIn(t, s, home)
	r.wrote(namespaceOf(home))
	return r
}

// newRunIn is a run in a namespace that is there.
func newRunIn(t *testing.T, s *theater, home string) *run {
	t.Helper()
	r := &run{
		t: t, stage: s, home: home, clock: clocktesting.NewFakePassiveClock(time.Now()), names: map[string]string{home: "home"},
		facts: map[types.NamespacedName]facts{}, active: map[types.UID]bool{}, shut: map[types.NamespacedName]string{}, unapproved: map[types.NamespacedName]bool{}, kubeconfigs: map[string][]byte{}, hashes: map[string]string{},
		cut: map[string]bool{}, unread: map[string]bool{}, shortened: map[types.NamespacedName]*time.Time{},
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what happened:\n%s", strings.Join(r.lines, "\n"))
		}
	})
	return r
}

// withOther makes the other namespace, under a policy.
func (r *run) withOther(policyName string) string {
	r.other = r.stage.world.LabelledNamespace(r.t, map[string]string{v1alpha1.LabelPolicy: policyName})
	r.names[r.other] = "other"
	r.wrote(namespaceOf(r.other))
	return r.other
}

func (r *run) log(format string, args ...any) {
	line := fmt.Sprintf("%s  ", r.clock.Now().UTC().Format("15:04:05.000")) + fmt.Sprintf(format, args...)
	r.lines = append(r.lines, line)
	if os.Getenv("CRASH_VERBOSE") != "" {
		r.t.Log(line)
	}
}

func (r *run) fatalf(format string, args ...any) {
	r.t.Helper()
	r.t.Fatalf(format, args...)
}

// tick moves the clock to what it is now; it never goes back.
func (r *run) tick() {
	if now := time.Now().Add(r.offset); now.After(r.clock.Now()) {
		r.clock.SetTime(now)
	}
}

// step moves the clock ahead.
func (r *run) step(d time.Duration) {
	r.offset += d
	r.tick()
	r.log("the clock goes on by %s", d)
}

// awaitSecond waits until tokens made now live until another second than those made before.
func (r *run) awaitSecond() {
	from := time.Now().Truncate(time.Second)
	err := poll(r.t.Context(), 5*time.Second, func() error {
		if !time.Now().Truncate(time.Second).After(from) {
			return fmt.Errorf("it is still %s", from)
		}
		return nil
	})
	if err != nil {
		r.fatalf("await a second: %v", err)
	}
}

// plain replaces what is different in every run.
func (r *run) plain(s string) string {
	// A name may begin with another one.
	longestFirst := slices.SortedFunc(maps.Keys(r.names), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b))
	})
	for _, name := range longestFirst {
		s = strings.ReplaceAll(s, name, r.names[name])
	}
	return s
}

// key names a grant in the home namespace.
func (r *run) key(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: r.home, Name: name}
}

// grant applies a grant as the cluster's admin: one engineer, both plain roles, 45 minutes, unless changed.
func (r *run) grant(name string, mods ...func(*v1alpha1.SupportAccessGrant)) *v1alpha1.SupportAccessGrant {
	r.t.Helper()
	g := gen.ToApply(name, r.home, append([]func(*v1alpha1.SupportAccessGrant){gen.WithDuration("45m")}, mods...)...)
	// A namespace or policy that was made just now may not yet be known to admission.
	if err := poll(r.t.Context(), 10*time.Second, func() error { return r.stage.admin.Create(r.t.Context(), g) }); err != nil {
		r.fatalf("apply grant %s: %v", name, err)
	}
	r.meet(g)
	r.wrote(g)
	r.log("admin: applied grant %s", name)
	return g
}

// meet learns the names that the operator will give to what it makes for a grant.
func (r *run) meet(g *v1alpha1.SupportAccessGrant) { r.meetAs(g, g.Name) }

// meetAs is meet for a grant whose own name is another in every run.
func (r *run) meetAs(g *v1alpha1.SupportAccessGrant, alias string) {
	for slices.Contains(slices.Collect(maps.Values(r.names)), "grant "+alias) {
		alias += "'"
	}
	recorded := v1alpha1.RecordedGrant{Namespace: g.Namespace, Name: g.Name, UID: g.UID}
	r.names[string(g.UID)] = "grant " + alias
	for _, e := range g.Spec.Engineers {
		r.names[access.IdentityName(recorded, e.Name)] = fmt.Sprintf("identity of %s for %s", e.Name, alias)
		r.names[access.GatewayUsername(recorded, e.Name)] = fmt.Sprintf("user of %s for %s", e.Name, alias)
	}
	for _, namespace := range []string{r.home, r.other, ""} {
		for _, role := range g.Spec.Roles {
			r.names[access.BindingName(recorded, namespace, role)] = fmt.Sprintf("binding of %s to %s", alias, role)
		}
	}
}

// delete deletes a grant as its admin.
func (r *run) delete(name string) {
	r.t.Helper()
	g := &v1alpha1.SupportAccessGrant{ObjectMeta: metav1.ObjectMeta{Namespace: r.home, Name: name}}
	if err := r.stage.admin.Delete(r.t.Context(), g); err != nil {
		r.fatalf("delete grant %s: %v", name, err)
	}
	r.wrote(g)
	r.shut[r.key(name)] = "it was deleted"
	r.log("admin: deleted grant %s", name)
}

// decide makes a decision as the cluster's admin.
func (r *run) decide(name string, mods ...func(*v1alpha1.SupportAccessDecision)) {
	r.t.Helper()
	r.decideAs(r.stage.admin, name, mods...)
}

// decideAs makes a decision as whoever the client is for.
func (r *run) decideAs(who client.Client, name string, mods ...func(*v1alpha1.SupportAccessDecision)) {
	r.t.Helper()
	d := gen.Decision(name, r.home, mods...)
	meta := metav1.ObjectMeta{Name: d.Name, Namespace: d.Namespace}
	d.ObjectMeta, d.Spec.DecidedBy, d.Spec.Authority, d.Status = meta, "", "", v1alpha1.SupportAccessDecisionStatus{}
	if err := who.Create(r.t.Context(), d); err != nil {
		r.fatalf("make decision %s: %v", name, err)
	}
	r.wrote(d)
	if d.Spec.Action == v1alpha1.ActionRevoke && d.Spec.Target.Engineer == "" {
		for _, g := range r.look().grants {
			if d.Spec.Target.Grant == "" || d.Spec.Target.Grant == g.Name {
				r.shut[client.ObjectKeyFromObject(g)] = "decision " + name + " revoked it"
			}
		}
	}
	if at := d.Spec.ExpirationTime; at != nil && r.look().grants[r.key(d.Spec.Target.Grant)] != nil {
		if key := r.key(d.Spec.Target.Grant); r.shortened[key] == nil || at.Time.Before(*r.shortened[key]) {
			r.shortened[key] = &at.Time
		}
	}
	r.log("%s: decided %s: %s %+v", d.Spec.DecidedBy, name, d.Spec.Action, d.Spec.Target)
}

// shorten moves the end of a grant to so long from now.
func (r *run) shorten(grant string, left time.Duration) {
	r.t.Helper()
	at := metav1.NewTime(r.clock.Now().Add(left).Truncate(time.Second))
	r.decide("shorten", func(d *v1alpha1.SupportAccessDecision) {
		d.Spec.Action, d.Spec.Target = v1alpha1.ActionShorten, v1alpha1.DecisionTarget{Grant: grant}
		d.Spec.ExpirationTime = &at
	})
}

// cutByHand deletes something of the operator's, as an admin may in an emergency.
func (r *run) cutByHand(o client.Object) {
	r.t.Helper()
	if err := r.stage.admin.Delete(r.t.Context(), o); err != nil {
		r.fatalf("delete %T by hand: %v", o, err)
	}
	r.wrote(o)
	r.log("admin: deleted %T %s by hand", o, r.plain(o.GetNamespace()+"/"+o.GetName()))
}

// replaceByHand deletes a binding of the operator's and makes one of the same name, for somebody who is none of its business.
func (r *run) replaceByHand(b client.Object) {
	r.t.Helper()
	r.cutByHand(b)
	stranger := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: b.GetNamespace(), Name: b.GetName()},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "stranger@customer.example"}},
	}
	if err := r.stage.admin.Create(r.t.Context(), stranger); err != nil {
		r.fatalf("make a stranger's binding: %v", err)
	}
	r.wrote(stranger)
	r.strangers = append(r.strangers, stranger)
	r.log("admin: made a stranger's binding of the same name")
}

// deleteNamespace deletes a namespace, and waits until what it held is gone but for what a finalizer holds.
func (r *run) deleteNamespace(name string) {
	r.t.Helper()
	held := r.contents(name)
	if err := r.stage.admin.Delete(r.t.Context(), namespaceOf(name)); err != nil {
		r.fatalf("delete namespace %s: %v", name, err)
	}
	err := poll(r.t.Context(), time.Minute, func() error {
		for _, o := range r.contents(name) {
			if o.GetDeletionTimestamp().IsZero() {
				return fmt.Errorf("%T %s is still in namespace %s", o, o.GetName(), name)
			}
		}
		return nil
	})
	if err != nil {
		r.fatalf("empty namespace %s: %v", name, err)
	}
	for _, o := range append(held, namespaceOf(name)) {
		r.wrote(o)
	}
	r.log("admin: deleted namespace %s", r.plain(name))
}

// contents are what a namespace holds that is the operator's business.
func (r *run) contents(name string) []client.Object {
	var out []client.Object
	for _, list := range []client.ObjectList{
		&v1alpha1.SupportAccessGrantList{}, &v1alpha1.SupportAccessRecordList{}, &v1alpha1.SupportAccessDecisionList{}, &rbacv1.RoleBindingList{},
	} {
		out = append(out, r.listFrom(r.stage.admin, list, client.InNamespace(name))...)
	}
	return out
}

// setSpare changes what the spare role allows, and puts it back when the test ends.
func (r *run) setSpare(rules ...rbacv1.PolicyRule) {
	r.t.Helper()
	role := gen.ClusterRole(spare, rules...)
	if err := r.stage.admin.Update(r.t.Context(), role); err != nil {
		r.fatalf("change the spare role: %v", err)
	}
	r.wrote(role)
	r.log("admin: changed ClusterRole %s", spare)
}

// policyOfItsOwn makes a policy for this run alone.
func (r *run) policyOfItsOwn() string {
	r.t.Helper()
	name := r.stage.world.Name("crash-own")
	p := policy(name, nil)
	if err := r.stage.admin.Create(r.t.Context(), p); err != nil {
		r.fatalf("create policy: %v", err)
	}
	r.t.Cleanup(func() { _ = r.stage.admin.Delete(r.t.Context(), policy(name, nil)) })
	namespace := &corev1.Namespace{}
	if err := r.stage.admin.Get(r.t.Context(), types.NamespacedName{Name: r.home}, namespace); err != nil {
		r.fatalf("get the namespace: %v", err)
	}
	namespace.Labels[v1alpha1.LabelPolicy] = name
	if err := r.stage.admin.Update(r.t.Context(), namespace); err != nil {
		r.fatalf("label the namespace: %v", err)
	}
	r.wrote(p)
	r.wrote(namespace)
	return name
}

// editPolicy changes a policy.
func (r *run) editPolicy(name string, change func(*v1alpha1.SupportAccessPolicySpec)) {
	r.t.Helper()
	p := &v1alpha1.SupportAccessPolicy{}
	if err := r.stage.admin.Get(r.t.Context(), types.NamespacedName{Name: name}, p); err != nil {
		r.fatalf("get policy %s: %v", name, err)
	}
	change(&p.Spec)
	if err := r.stage.admin.Update(r.t.Context(), p); err != nil {
		r.fatalf("change policy %s: %v", name, err)
	}
	r.wrote(p)
	r.log("admin: changed policy %s", r.plain(name))
}

// wrote waits until the cache has heard of a write, and tells who follows the writes.
func (r *run) wrote(o client.Object) {
	if r.stage.real() {
		if err := r.stage.caches.catchUp(r.t.Context(), o); err != nil {
			r.note("after a write: %v", err)
		}
	}
	switch made := o.(type) {
	case *v1alpha1.SupportAccessSetting:
		r.meetSetting(made)
	case *v1alpha1.SupportAccessGrant:
		if made.Spec.SettingRef != nil && r.names[string(made.UID)] == "" {
			r.meetAs(made, r.names[made.Name])
		}
	}
	if r.afterWrite != nil {
		r.afterWrite(o)
	}
}
