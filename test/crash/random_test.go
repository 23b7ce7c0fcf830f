package crash

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/test/gen"
)

// always is admission that is in force.
type always struct{}

// InForce says since when.
func (always) InForce() (time.Time, string) { return time.Unix(0, 0), "" }

// newFakeTheater is a theater without a stage: an API server in memory, with what every run needs.
func newFakeTheater(t *testing.T, now func() time.Time) *theater {
	t.Helper()
	api := newFakeAPI(now)
	s := &theater{operator: api, admission: always{}, cache: labelled{api}, eyes: api, stage: &stage{admin: api, gateway: map[string]client.WithWatch{"gateway-a": api, "gateway-b": api}, cluster: access.Cluster{Server: "https://api.example"}}}
	for _, o := range []client.Object{
		gen.ClusterRole(spare, spareRules()...),
		gen.ClusterRole(gen.Configuration, gen.Rule("", []string{"configmaps"}, []string{"get", "list"})),
		gen.ClusterRole(gen.Diagnostics, gen.Rule("", []string{"pods/log"}, []string{"get"})),
		namespaceOf(v1alpha1.SystemNamespace), namespaceOf(v1alpha1.CredentialsNamespace),
		policy("crash", nil), replicaPod("gateway-a"), replicaPod("gateway-b"),
	} {
		if err := api.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// gate lets the calls of a process through one after the other, in an order that is the same in every run: only when
// nothing else moves, and the first by name.
type gate struct {
	mu      sync.Mutex
	waiting map[string]chan struct{}
	arrived chan struct{}
}

func newGate() *gate {
	return &gate{waiting: map[string]chan struct{}{}, arrived: make(chan struct{}, 1)}
}

// enter waits for its turn.
func (g *gate) enter(what string) {
	turn := make(chan struct{})
	g.mu.Lock()
	for g.waiting[what] != nil {
		what += "'"
	}
	g.waiting[what] = turn
	g.mu.Unlock()
	select {
	case g.arrived <- struct{}{}:
	default:
	}
	<-turn
}

// keep lets callers through until the gate is closed.
func (g *gate) keep(closed <-chan struct{}) {
	for {
		select {
		case <-closed:
			return
		case <-g.arrived:
		}
		for g.open() {
		}
	}
}

// open lets the first through once everybody stands still, and reports whether anybody waited.
func (g *gate) open() bool {
	synctest.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) == 0 {
		return false
	}
	names := make([]string, 0, len(g.waiting))
	for name := range g.waiting {
		names = append(names, name)
	}
	first := slices.Min(names)
	close(g.waiting[first])
	delete(g.waiting, first)
	return true
}

// play is one random course of events.
type course struct {
	*run
	random *rand.Rand
	life   *life
	gate   *gate
	memory *memory
	policy string
	grants int
	// unlucky is how many of a hundred writes go wrong at present.
	unlucky int
}

// whim has a write go wrong now and then.
func (c *course) whim() string {
	if c.random.IntN(100) >= c.unlucky {
		return ""
	}
	return []string{failed, lost, killed}[c.random.IntN(3)]
}

func (c *course) start() {
	c.life = c.newLife(nil, nil)
	c.life.wire.whim, c.life.wire.gate = c.whim, c.gate
}

// startBehind starts a process whose cache lags.
func (c *course) startBehind() {
	behind := 1 + c.random.IntN(12)
	kinds := slices.DeleteFunc(slices.Clone(remembered), func(string) bool { return c.random.IntN(3) == 0 })
	l := c.newLaggard(c.memory, kinds, max(0, c.memory.instant()-behind))
	l.wire.whim, l.wire.gate = c.whim, c.gate
	c.log("a process starts whose cache shows %v as they were %d writes ago", kinds, behind)
	l.glance()
}

// steps are what may happen, each as often as it is listed.
func (c *course) steps() []func() {
	return []func(){
		c.apply, c.apply, c.apply, c.remove, c.revoke, c.revokeAll, c.takeOff, c.shortenOne,
		c.cutBinding, c.cutCredential, c.editOwnPolicy, c.editSpare, c.leap, c.leap, c.restart, c.startBehind,
		c.comeIn, c.comeIn, c.goOut, c.gatewayCuts, c.gatewayCuts, c.moveReplica,
		c.work, c.work, c.work, c.work, c.work, c.work, c.rest, c.rest, c.bad, c.good,
	}
}

func (c *course) pick(list []string) string {
	slices.Sort(list)
	return list[c.random.IntN(len(list))]
}

func (c *course) apply() {
	c.grants++
	name := fmt.Sprintf("case-%d", 1+c.random.IntN(c.grants+1))
	mods := []func(*v1alpha1.SupportAccessGrant){gen.WithDuration([]v1alpha1.Duration{"2m", "45m", "3h"}[c.random.IntN(3)])}
	if c.random.IntN(2) == 0 {
		mods = append(mods, both)
	}
	if c.random.IntN(3) == 0 {
		mods = append(mods, gen.WithScope(c.home, c.other))
	}
	if c.random.IntN(4) == 0 {
		mods = append(mods, gen.WithRoles(spare, gen.Configuration))
	} else {
		mods = append(mods, gen.WithRoles(gen.Configuration, gen.Diagnostics))
	}
	if c.random.IntN(5) == 0 {
		mods = append(mods, gen.WithStart(c.clock.Now().Add(20*time.Minute).Truncate(time.Second)))
	}
	if c.random.IntN(4) == 0 {
		mods = append(mods, gen.WithPublicKey(ana, keyring.Recipient().String()))
	}
	if c.random.IntN(3) == 0 {
		mods = append(mods, throughGateway)
	}
	c.tryGrant(name, mods...)
}

// tryGrant applies a grant; that its name is taken or a policy refuses it is part of life.
func (c *course) tryGrant(name string, mods ...func(*v1alpha1.SupportAccessGrant)) {
	g := gen.ToApply(name, c.home, mods...)
	used := c.look().recordOf(c.key(name)) != nil
	if err := c.stage.admin.Create(c.t.Context(), g); err != nil {
		c.log("admin: cannot apply %s: %v", name, err)
		return
	}
	if used {
		c.shut[c.key(name)] = "its name was used before"
	} else {
		// No decision on an earlier grant of that name binds this one.
		delete(c.shut, c.key(name))
		delete(c.shortened, c.key(name))
	}
	c.meet(g)
	c.wrote(g)
	c.log("admin: applied %s, %+v", name, g.Spec)
}

// one returns the name of a grant that is there, empty if none is.
func (c *course) one() string {
	var names []string
	for key := range c.look().grants {
		names = append(names, key.Name)
	}
	if len(names) == 0 {
		return ""
	}
	return c.pick(names)
}

func (c *course) remove() {
	if name := c.one(); name != "" {
		c.delete(name)
	}
}

func (c *course) revoke() {
	if name := c.one(); name != "" {
		c.decide(c.nameIt("revoke"), gen.Revoking(name))
	}
}

func (c *course) revokeAll() {
	if c.random.IntN(4) == 0 {
		c.decide(c.nameIt("stop"), gen.RevokingNamespace())
	}
}

func (c *course) takeOff() {
	if name := c.one(); name != "" {
		c.decide(c.nameIt("off"), gen.RevokingEngineer(name, c.pick([]string{ana, ben})))
	}
}

func (c *course) shortenOne() {
	if name := c.one(); name != "" {
		at := metav1.NewTime(c.clock.Now().Add(time.Duration(c.random.IntN(40)) * time.Minute).Truncate(time.Second))
		c.decide(c.nameIt("shorten"), func(d *v1alpha1.SupportAccessDecision) {
			d.Spec.Action, d.Spec.Target = v1alpha1.ActionShorten, v1alpha1.DecisionTarget{Grant: name}
			d.Spec.ExpirationTime = &at
		})
	}
}

func (c *course) nameIt(prefix string) string {
	c.grants++
	return fmt.Sprintf("%s-%d", prefix, c.grants)
}

func (c *course) cutBinding() {
	s := c.look()
	if len(s.bindings) == 0 {
		return
	}
	slices.SortFunc(s.bindings, byName)
	b := s.bindings[c.random.IntN(len(s.bindings))]
	key, _ := access.GrantOf(b)
	if record := s.recordOf(key); record != nil && record.Status.ProvisionedTime != nil {
		c.cut[b.GetNamespace()+"/"+b.GetName()] = true
	}
	c.cutByHand(b)
}

func (c *course) cutCredential() {
	s := c.look()
	if len(s.credentials) == 0 {
		return
	}
	slices.SortFunc(s.credentials, byName)
	o := s.credentials[c.random.IntN(len(s.credentials))]
	if kind := kindOf(o, c.stage.admin.Scheme()); kind == "Role" || kind == "RoleBinding" {
		c.unread[o.GetName()] = true
	}
	c.cutByHand(o)
}

func byName(a, b client.Object) int {
	return cmp.Or(cmp.Compare(a.GetNamespace()+a.GetName(), b.GetNamespace()+b.GetName()), cmp.Compare(fmt.Sprintf("%T", a), fmt.Sprintf("%T", b)))
}

func (c *course) editOwnPolicy() {
	c.editPolicy(c.policy, func(p *v1alpha1.SupportAccessPolicySpec) {
		switch c.random.IntN(5) {
		case 0:
			p.NewGrants = v1alpha1.NewGrantsSuspended
		case 1:
			if !slices.Contains(p.ProtectedNamespaces, c.other) {
				p.ProtectedNamespaces = append(p.ProtectedNamespaces, c.other)
			}
		default:
			p.NewGrants = v1alpha1.NewGrantsAllowed
			p.ProtectedNamespaces = slices.DeleteFunc(p.ProtectedNamespaces, func(n string) bool { return n == c.other })
		}
	})
}

func (c *course) editSpare() {
	switch c.random.IntN(4) {
	case 0:
		c.setSpare(append(spareRules(), gen.Rule("", []string{"secrets"}, []string{"list"}))...)
	case 1:
		c.setSpare(gen.Rule("", []string{"services", "endpoints"}, []string{"get"}))
	default:
		c.setSpare(spareRules()...)
	}
}

func (c *course) leap() {
	d := []time.Duration{time.Second, 30 * time.Second, 5 * time.Minute, 40 * time.Minute, 2 * time.Hour}[c.random.IntN(5)]
	// A real API server gives tokens by its own clock, for ten minutes at least: further ahead, each would be dead at its birth.
	if c.stage.real() && c.offset+d > 8*time.Minute {
		return
	}
	c.step(d)
}

func (c *course) restart() {
	c.life.cancel()
	c.start()
	c.log("the operator is started anew")
}

// work lets the operator look at a few things, in any order.
func (c *course) work() {
	turns := c.life.turns()
	for range min(len(turns), 1+c.random.IntN(4)) {
		turns[c.random.IntN(len(turns))]()
		if c.life.wire.isDead() {
			c.restart()
			return
		}
	}
}

// rest lets the operator come to rest, if no write goes wrong.
func (c *course) rest() {
	was := c.unlucky
	c.unlucky = 0
	c.life.settle()
	c.unlucky = was
}

func (c *course) bad()  { c.unlucky = 5 + c.random.IntN(30) }
func (c *course) good() { c.unlucky = 0 }

// play runs a course of events and ends it: everything expires, and nothing is left.
func (c *course) play(steps int) {
	c.start()
	all := c.steps()
	for range steps {
		all[c.random.IntN(len(all))]()
		if c.t.Failed() {
			return
		}
	}
	c.unlucky = 0
	c.restart()
	c.rest()
	c.step(400 * time.Hour)
	c.rest()
	// What had an end for so short a time has no copy yet.
	c.run.rest()
	s := c.look()
	for key, record := range s.records {
		if record.Status.EndTime == nil {
			c.wrong("all time is over, and record %s has no end", key)
		}
	}
	if n := len(s.bindings) + len(s.credentials); n > 0 {
		c.wrong("all time is over, and %d objects are left", n)
	}
	if more := c.newLife(nil, nil).settle(); len(more) > 0 {
		c.wrong("a process that started when all was quiet wrote: %s", strings.Join(more, ", "))
	}
}

// seeds are the seeds of a test: SEED alone where it is set, else as many new ones as asked for.
func seeds(t *testing.T, n int) []uint64 {
	t.Helper()
	if given := os.Getenv("SEED"); given != "" {
		seed, err := strconv.ParseUint(given, 10, 64)
		if err != nil {
			t.Fatalf("SEED: %v", err)
		}
		return []uint64{seed}
	}
	out := make([]uint64, n)
	for i := range out {
		out[i] = rand.Uint64()
	}
	return out
}

// TestWhateverHappensInAnyOrderNothingIsOpenThatShouldNotBe has admins, the clock, failures and crashes take turns at
// random. An API server in memory makes room for many courses, and the same seed gives the same course.
func TestWhateverHappensInAnyOrderNothingIsOpenThatShouldNotBe(t *testing.T) {
	courses, steps := 400, 60
	if testing.Short() {
		courses = 40
	}
	for _, seed := range seeds(t, courses) {
		t.Run(fmt.Sprintf("SEED=%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				playFake(t, seed, steps)
			})
		})
	}
}

func playFake(t *testing.T, seed uint64, steps int) {
	c := &course{random: rand.New(rand.NewPCG(seed, 0)), gate: newGate(), policy: "crash"}
	s := newFakeTheater(t, func() time.Time {
		if c.run == nil {
			return time.Now()
		}
		return c.clock.Now()
	})
	c.run = newRunIn(t, s, "home")
	for _, name := range []string{"home", "elsewhere"} {
		if err := s.admin.Create(t.Context(), namespaceOf(name)); err != nil {
			t.Fatal(err)
		}
	}
	c.other = "elsewhere"
	for _, name := range []string{"home", "elsewhere"} {
		namespace := &corev1.Namespace{}
		if err := s.admin.Get(t.Context(), types.NamespacedName{Name: name}, namespace); err != nil {
			t.Fatal(err)
		}
		namespace.Labels = map[string]string{v1alpha1.LabelPolicy: "crash"}
		if err := s.admin.Update(t.Context(), namespace); err != nil {
			t.Fatal(err)
		}
	}
	c.memory = newMemory(c.run)
	closed := make(chan struct{})
	defer close(closed)
	go c.gate.keep(closed)
	c.play(steps)
}

// TestWhateverHappensOnARealAPIServerNothingIsOpenThatShouldNotBe does the same on a real API server, fewer times. There
// the same seed gives the same acts, but not the same order of writes that are made at once.
func TestWhateverHappensOnARealAPIServerNothingIsOpenThatShouldNotBe(t *testing.T) {
	courses, steps := 30, 60
	if testing.Short() {
		courses, steps = 1, 30
	}
	for _, seed := range seeds(t, courses) {
		t.Run(fmt.Sprintf("SEED=%d", seed), func(t *testing.T) {
			s := inTheater(t)
			restoreSpare(t, s)
			c := &course{run: s.newRun(t, "crash"), random: rand.New(rand.NewPCG(seed, 0))}
			c.policy = c.policyOfItsOwn()
			c.withOther(c.policy)
			c.memory = newMemory(c.run)
			c.play(steps)
		})
	}
}
