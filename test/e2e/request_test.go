package e2e

import (
	"fmt"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

// requestInTest is one request that a test follows.
type requestInTest struct {
	types.NamespacedName
	tenant *tenant
}

// requester is an engineer of the vendor with a login to the cluster, who may ask in the tenant's namespace and do nothing else.
func (tn *tenant) requester(t *testing.T, name string) *person {
	t.Helper()
	p := user(t, tn.World, name)
	tn.bind(t, "support-access-requester", rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: p.name})
	world.Eventually(t, p.name+" may ask", func() error {
		return p.Create(t.Context(), gen.RequestToApply("trial", tn.namespace), client.DryRunAll)
	})
	return p
}

// asks makes a request, for half an hour unless it is changed.
func (p *person) asks(t *testing.T, tn *tenant, name string, changes ...func(*v1alpha1.SupportAccessRequest)) *requestInTest {
	t.Helper()
	half := gen.AskingFor(func(s *v1alpha1.SupportAccessRequestSpec) { s.Duration = "30m" })
	object := gen.RequestToApply(name, tn.namespace, append([]func(*v1alpha1.SupportAccessRequest){half}, changes...)...)
	if err := p.Create(t.Context(), object); err != nil {
		t.Fatalf("%s asks: %v", p.name, err)
	}
	return &requestInTest{NamespacedName: client.ObjectKeyFromObject(object), tenant: tn}
}

// is waits until the request is in a state, and returns it.
func (r *requestInTest) is(t *testing.T, state string) *v1alpha1.SupportAccessRequest {
	t.Helper()
	object := &v1alpha1.SupportAccessRequest{}
	world.Eventually(t, fmt.Sprintf("request %s is %s", r, state), func() error {
		if err := r.tenant.admin.Get(t.Context(), r.NamespacedName, object); err != nil {
			return err
		}
		if ready := apimeta.FindStatusCondition(object.Status.Conditions, v1alpha1.ConditionReady); ready == nil || ready.Reason != state {
			return fmt.Errorf("it is %+v", ready)
		}
		return nil
	})
	return object
}

// answered is the manifest of an answer that leaves everything out.
func (r *requestInTest) answered(name string, changes ...func(*v1alpha1.SupportAccessGrant)) *v1alpha1.SupportAccessGrant {
	g := gen.ToApply(name, r.Namespace, gen.WithDuration("30m"))
	g.Spec.RequestRef = &v1alpha1.RequestReference{Name: r.Name}
	for _, change := range changes {
		change(g)
	}
	return g
}

// isKnown waits until the API server has heard of the request wherever it judges by it.
func (r *requestInTest) isKnown(t *testing.T, who *person) {
	t.Helper()
	world.Eventually(t, "the API server has heard of the request", func() error {
		return who.Create(t.Context(), r.answered("trial"), client.DryRunAll)
	})
}

func (r *requestInTest) record(t *testing.T) *v1alpha1.SupportAccessRecord {
	t.Helper()
	record := &v1alpha1.SupportAccessRecord{}
	if err := r.tenant.admin.Get(t.Context(), types.NamespacedName{Namespace: r.Namespace, Name: r.Name + v1alpha1.RequestRecordSuffix}, record); err != nil {
		t.Fatalf("read the record of request %s: %v", r, err)
	}
	return record
}

// ends waits until the record says how the request ended.
func (r *requestInTest) ends(t *testing.T, reason, by string) *v1alpha1.SupportAccessRecord {
	t.Helper()
	var record *v1alpha1.SupportAccessRecord
	world.Eventually(t, fmt.Sprintf("the record of request %s says %s", r, reason), func() error {
		if record = r.record(t); record.Status.EndReason != reason || record.Status.EndedBy != by {
			return fmt.Errorf("it says %q by %q: %s", record.Status.EndReason, record.Status.EndedBy, trail(record))
		}
		return nil
	})
	return record
}

func TestAnEngineerAsksAndTheAdminsAnswerIsOpenForWhatWasAskedFor(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	ana := tn.requester(t, "ana@vendor.example")
	r := ana.asks(t, tn, theGrant)
	object := r.is(t, v1alpha1.RequestOpen)
	if object.Spec.RequestedBy != ana.name || object.Status.ExpirationTime == nil || object.Status.EngineerNames != gen.Engineer {
		t.Errorf("the request is %+v, %+v", object.Spec, object.Status)
	}
	says(t, ana.mustKubectl(t, tn.namespace, "", "get", "sareq"), "STATUS", "Open", ana.name, theGrant)

	// The admin writes nothing but its name; roles that are left out are the default's.
	r.isKnown(t, tn.admin)
	tn.admin.mustKubectl(t, tn.namespace, `{"apiVersion":"supportaccess.dev/v1alpha1","kind":"SupportAccessGrant","metadata":{"name":"answer"},"spec":{"requestRef":{"name":"`+r.Name+`"}}}`,
		"apply", "-f", "-")
	g := &v1alpha1.SupportAccessGrant{}
	if err := tn.admin.Get(t.Context(), client.ObjectKey{Namespace: tn.namespace, Name: "answer"}, g); err != nil {
		t.Fatal(err)
	}
	granted := tn.follow(g)
	open := granted.is(t, v1alpha1.StateActive)
	if open.Spec.Duration != "30m" || open.Spec.Case == nil || open.Spec.Case.ID != gen.CaseID || open.Spec.RequestRef.RequestedBy != ana.name {
		t.Errorf("the answer is %+v", open.Spec)
	}
	mayRead(t, granted.engineer(t), tn.namespace)
	object = r.is(t, v1alpha1.RequestGranted)
	if by := object.Status.Grant; by == nil || by.Name != "answer" || by.UID != open.UID || !apimeta.IsStatusConditionTrue(object.Status.Conditions, v1alpha1.ConditionGranted) {
		t.Errorf("its status is %+v", object.Status)
	}
	record := r.ends(t, v1alpha1.EndGranted, tn.admin.name)
	if got := strings.Join(kindsOf(record), " "); got != "Requested Granted" || record.Spec.Request.RequestedBy != ana.name {
		t.Errorf("the record says %s: %s", got, trail(record))
	}
	if ref := granted.record(t).Spec.RequestRef; ref == nil || ref.UID != object.UID {
		t.Errorf("the grant's record names request %+v", ref)
	}

	// It is answered once: another answer never opens, and what becomes of the request closes nothing.
	second := tn.follow(mustCreate(t, tn.admin, r.answered("second")))
	says(t, readyMessage(second.is(t, v1alpha1.StateRefused)), "request "+r.Name+" is answered by grant answer already")
	if err := ana.Delete(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	granted.is(t, v1alpha1.StateActive)
	if err := granted.engineer(t).reads(t.Context(), tn.namespace); err != nil {
		t.Errorf("the request was deleted, and the engineer is refused: %v", err)
	}
	r.ends(t, v1alpha1.EndGranted, tn.admin.name)
}

func kindsOf(record *v1alpha1.SupportAccessRecord) []string {
	var kinds []string
	for _, t := range record.Status.Transitions {
		kinds = append(kinds, t.Type)
	}
	return kinds
}

func mustCreate(t *testing.T, who *person, g *v1alpha1.SupportAccessGrant) *v1alpha1.SupportAccessGrant {
	t.Helper()
	if err := who.Create(t.Context(), g); err != nil {
		t.Fatalf("%s makes grant %s: %v", who.name, g.Name, err)
	}
	return g
}

func TestARequestIsDeniedWithAReasonWithdrawnOrExpires(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, gen.WithSpec(func(s *v1alpha1.SupportAccessPolicySpec) { s.RequestTimeout = "4s" }))
	ana := tn.requester(t, "ana@vendor.example")
	late := ana.asks(t, tn, "late")
	says(t, readyOfRequest(late.is(t, v1alpha1.StateExpired)), "nobody answered it until")
	late.ends(t, v1alpha1.StateExpired, "support-access")
	// What has expired is answered no more.
	answer := late.answered("too-late")
	g := tn.follow(mustCreate(t, tn.admin, answer))
	says(t, readyMessage(g.is(t, v1alpha1.StateRefused)), "request late takes no answer any more: it is Expired")

	denied := ana.asks(t, tn, "denied")
	denied.is(t, v1alpha1.RequestOpen)
	decision := tn.admin.decides(t, tn.namespace, "no", func(d *v1alpha1.SupportAccessDecision) {
		gen.DenyingRequest("denied")(d)
		d.Spec.Reason = "not during the audit"
	})
	object := denied.is(t, v1alpha1.StateDenied)
	says(t, readyOfRequest(object), "not during the audit")
	if !apimeta.IsStatusConditionTrue(object.Status.Conditions, v1alpha1.ConditionStalled) {
		t.Error("a request that was denied is not Stalled")
	}
	denied.ends(t, v1alpha1.StateDenied, tn.admin.name)
	isApplied(t, tn.admin, decision, metav1.ConditionTrue, v1alpha1.ReasonLatched)
	isApplied(t, tn.admin, tn.admin.decides(t, tn.namespace, "again", gen.DenyingRequest("late")), metav1.ConditionTrue, v1alpha1.ReasonNothingToDo)
	isApplied(t, tn.admin, tn.admin.decides(t, tn.namespace, "nothing", gen.DenyingRequest("no-such")), metav1.ConditionFalse, v1alpha1.ReasonNoSuchRequest)

	withdrawn := ana.asks(t, tn, "withdrawn")
	if err := ana.Delete(t.Context(), withdrawn.is(t, v1alpha1.RequestOpen)); err != nil {
		t.Fatal(err)
	}
	withdrawn.ends(t, v1alpha1.EndWithdrawn, "unknown")
	// A name is used once.
	again := ana.asks(t, tn, "withdrawn")
	says(t, readyOfRequest(again.is(t, v1alpha1.StateRefused)), "name used before")
}

func readyOfRequest(object *v1alpha1.SupportAccessRequest) string {
	return apimeta.FindStatusCondition(object.Status.Conditions, v1alpha1.ConditionReady).Message
}

// TestNobodyHasPowerOverTheirOwnRequest has somebody ask who is an admin, too, and may approve.
func TestNobodyHasPowerOverTheirOwnRequest(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, needing(1))
	mia, pat := tn.requester(t, "mia@"+tn.namespace+".customer.example"), tn.approver(t, "pat")
	tn.bind(t, "admin", rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: mia.name})
	tn.bind(t, "support-access-approver", rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: mia.name})
	tn.mayApprove(t, mia)
	r := mia.asks(t, tn, theGrant)
	r.is(t, v1alpha1.RequestOpen)
	r.isKnown(t, tn.admin)

	// Her own answer is refused, and so is her own no.
	isForbidden(t, mia.Create(t.Context(), r.answered("own")), "spec.requestRef: "+mia.name+" made request "+r.Name+": somebody else must answer it")
	isForbidden(t, mia.tries(t, tn.namespace, "own-no", gen.DenyingRequest(r.Name)), mia.name+" made request "+r.Name+": to withdraw it, delete it")
	// More than she asked for nobody gives by that name.
	isForbidden(t, tn.admin.Create(t.Context(), r.answered("longer", gen.WithDuration("31m"))), "spec.duration: 31m is longer than 30m, for which request "+r.Name+" asks")

	// Her approval of the answer does not count, another's does.
	g := tn.follow(mustCreate(t, tn.admin, r.answered("answer")))
	g.isWaiting(t, "0 of 1 approval")
	r.is(t, v1alpha1.RequestGranted)
	yes := mia.approves(t, g, "own-yes")
	says(t, appliedMessage(isApplied(t, mia, yes, metav1.ConditionFalse, v1alpha1.ReasonDoesNotCount)), mia.name+" made the request that it answers")
	g.is(t, v1alpha1.StateAwaitingApproval)
	pat.approves(t, g, "yes")
	g.is(t, v1alpha1.StateActive)
}

func isForbidden(t *testing.T, err error, words string) {
	t.Helper()
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), words) {
		t.Errorf("the API server says %v, want 403 and %q", err, words)
	}
}

func TestAnAnswerThatIsRefusedLeavesTheRequestToBeAnsweredAnew(t *testing.T) {
	t.Parallel()
	tn := newTenant(t)
	ana := tn.requester(t, "ana@vendor.example")
	r := ana.asks(t, tn, theGrant)
	r.is(t, v1alpha1.RequestOpen)
	// A key that cannot be encrypted to is found out by the operator alone.
	world.Eventually(t, "the API server has heard of the request", func() error {
		return tn.admin.Create(t.Context(), r.answered("trial", gen.WithPublicKey(gen.Engineer, "age1broken")), client.DryRunAll)
	})
	broken := tn.follow(mustCreate(t, tn.admin, r.answered("broken", gen.WithPublicKey(gen.Engineer, "age1broken"))))
	broken.is(t, v1alpha1.StateRefused)
	says(t, readyOfRequest(r.is(t, v1alpha1.RequestOpen)), "it waits for an answer")
	good := tn.follow(mustCreate(t, tn.admin, r.answered("good")))
	good.is(t, v1alpha1.StateActive)
	r.is(t, v1alpha1.RequestGranted)
	record := r.ends(t, v1alpha1.EndGranted, tn.admin.name)
	if got := strings.Join(kindsOf(record), " "); !strings.HasSuffix(got, "Granted") || strings.Contains(got, "Denied") {
		t.Errorf("the record says %s", trail(record))
	}
}

func TestWhoAsksTooOftenIsRefusedAndNothingOfItIsKept(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, gen.WithSpec(func(s *v1alpha1.SupportAccessPolicySpec) { s.MaxOpenRequests = new(int32(2)) }))
	ana, ben := tn.requester(t, "ana@vendor.example"), tn.requester(t, "ben@vendor.example")
	for _, name := range []string{"one", "two"} {
		ana.asks(t, tn, name).is(t, v1alpha1.RequestOpen)
	}
	third := ana.asks(t, tn, "three")
	says(t, readyOfRequest(third.is(t, v1alpha1.StateRefused)), ana.name+" has 2 requests open in this namespace, or withdrawn within the last hour: policy "+tn.policy+" allows 2 (maxOpenRequests)")
	record := types.NamespacedName{Namespace: tn.namespace, Name: "three" + v1alpha1.RequestRecordSuffix}
	if err := tn.admin.Get(t.Context(), record, &v1alpha1.SupportAccessRecord{}); !apierrors.IsNotFound(err) {
		t.Errorf("a request too many is on record: %v", err)
	}
	// To withdraw makes no room for another at once, and others have room of their own.
	one := &v1alpha1.SupportAccessRequest{ObjectMeta: metav1.ObjectMeta{Namespace: tn.namespace, Name: "one"}}
	isForbidden(t, ben.Delete(t.Context(), one.DeepCopy()), "was made by somebody else: "+ben.name+" lacks the verbs revoke and approve")
	if err := ana.Delete(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	(&requestInTest{NamespacedName: client.ObjectKeyFromObject(one), tenant: tn}).ends(t, v1alpha1.EndWithdrawn, "unknown")
	ana.asks(t, tn, "four").is(t, v1alpha1.StateRefused)
	ben.asks(t, tn, "bens").is(t, v1alpha1.RequestOpen)
}

// TestARequestIsNoWayInWhileTheOperatorIsStopped stops the operator, so it runs alone.
func TestARequestIsNoWayInWhileTheOperatorIsStopped(t *testing.T) {
	tn := newTenant(t)
	ana := tn.requester(t, "ana@vendor.example")
	r := ana.asks(t, tn, theGrant)
	r.is(t, v1alpha1.RequestOpen)
	r.isKnown(t, tn.admin)
	withdrawn := ana.asks(t, tn, "withdrawn")
	asked := withdrawn.is(t, v1alpha1.RequestOpen)
	start := stopOperator(t)
	g := tn.follow(mustCreate(t, tn.admin, r.answered("answer")))
	second := tn.follow(mustCreate(t, tn.admin, r.answered("answer-2")))
	if err := ana.Delete(t.Context(), asked); err != nil {
		t.Fatal(err)
	}
	unseen := ana.asks(t, tn, "unseen")
	start()
	// The older one answers; which that is, the API server's seconds say, and then their names.
	g.is(t, v1alpha1.StateActive)
	second.is(t, v1alpha1.StateRefused)
	r.ends(t, v1alpha1.EndGranted, tn.admin.name)
	withdrawn.ends(t, v1alpha1.EndWithdrawn, "unknown")
	unseen.is(t, v1alpha1.RequestOpen)
}
