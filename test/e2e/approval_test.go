package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
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

// needing has a policy ask for approvals of every grant that names no roles.
func needing(approvals int32, changes ...func(*v1alpha1.SupportAccessPolicySpec)) func(*v1alpha1.SupportAccessPolicy) {
	return func(p *v1alpha1.SupportAccessPolicy) {
		p.Spec.Roles[1].Approvals = &approvals
		for _, change := range changes {
			change(&p.Spec)
		}
	}
}

// approver is somebody who may approve in the tenant's namespace, and is no admin there.
func (tn *tenant) approver(t *testing.T, name string) *person {
	t.Helper()
	p := user(t, tn.World, name+"@"+tn.namespace+".customer.example")
	tn.bind(t, "support-access-approver", rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: p.name})
	tn.mayApprove(t, p)
	return p
}

func (tn *tenant) mayApprove(t *testing.T, p *person) {
	t.Helper()
	world.Eventually(t, p.name+" may approve", func() error {
		d := gen.Decision("trial", tn.namespace, gen.Approving("trial"), gen.WithDecidedBy(""), gen.WithAuthority(""))
		d.ObjectMeta = metav1.ObjectMeta{Name: "trial", Namespace: tn.namespace}
		return p.Create(t.Context(), d, client.DryRunAll)
	})
}

// approves approves the very grant, and returns the decision's name.
func (p *person) approves(t *testing.T, g *grantInTest, name string) types.NamespacedName {
	t.Helper()
	object, err := g.get(t)
	if err != nil {
		t.Fatal(err)
	}
	return p.decides(t, g.Namespace, name, func(d *v1alpha1.SupportAccessDecision) {
		gen.Approving(g.Name)(d)
		gen.OfGrantUID(object.UID)(d)
	})
}

// isKept waits until a decision says something, and looks that it is held nonetheless.
func isKept(t *testing.T, who *person, key types.NamespacedName, reason string) {
	t.Helper()
	decision := &v1alpha1.SupportAccessDecision{}
	world.Eventually(t, fmt.Sprintf("decision %s is kept", key), func() error {
		if err := who.Get(t.Context(), key, decision); err != nil {
			return err
		}
		c := apimeta.FindStatusCondition(decision.Status.Conditions, v1alpha1.ConditionApplied)
		if c == nil || c.Reason != reason || !slices.Contains(decision.Finalizers, v1alpha1.FinalizerDecision) {
			return fmt.Errorf("its finalizers are %v, its condition %+v", decision.Finalizers, c)
		}
		return nil
	})
}

// isWaiting looks that a grant waits, that nothing of it is open, and what it says that it needs.
func (g *grantInTest) isWaiting(t *testing.T, needs string) {
	t.Helper()
	object := g.is(t, v1alpha1.StateAwaitingApproval)
	isCondition(t, object, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.StateAwaitingApproval)
	isCondition(t, object, v1alpha1.ConditionActive, metav1.ConditionFalse, v1alpha1.ReasonNoAccess)
	says(t, isCondition(t, object, v1alpha1.ConditionApproved, metav1.ConditionFalse, v1alpha1.StateAwaitingApproval), needs)
	lacksConditions(t, object, v1alpha1.ConditionStalled, v1alpha1.ConditionReconciling)
	if object.Status.StartTime != nil || len(object.Finalizers) > 0 {
		t.Errorf("a grant that waits starts at %v and is held by %v", object.Status.StartTime, object.Finalizers)
	}
	g.leavesNothing(t)
}

func TestAGrantWaitsForItsApprovalsAndThenItsTimeBegins(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, needing(2))
	pat, quinn := tn.approver(t, "pat"), tn.approver(t, "quinn")
	g := tn.grants(t, theGrant, gen.WithDuration("30m"))
	g.isWaiting(t, "0 of 2 approvals: policy "+tn.policy+" asks for 2, for support-access-diagnostics")
	g.isKstatus(t, status.CurrentStatus)

	first := pat.approves(t, g, "yes")
	isKept(t, pat, first, v1alpha1.ReasonLatched)
	again := pat.approves(t, g, "yes-again")
	world.Eventually(t, "the condition tells of one approval", func() error {
		object, err := g.get(t)
		if err != nil {
			return err
		}
		if c := conditions(object); !slices.ContainsFunc(object.Status.Conditions, func(c metav1.Condition) bool {
			return c.Type == v1alpha1.ConditionApproved && c.Message == "1 of 2 approvals: policy "+tn.policy+" asks for 2, for support-access-diagnostics; approved by "+pat.name
		}) {
			return fmt.Errorf("the conditions are %s", c)
		}
		return nil
	})
	isKept(t, pat, again, v1alpha1.ReasonNotYet)
	g.isWaiting(t, "1 of 2 approvals")

	before := time.Now()
	quinn.approves(t, g, "me-too")
	object := g.is(t, v1alpha1.StateActive)
	says(t, isCondition(t, object, v1alpha1.ConditionApproved, metav1.ConditionTrue, v1alpha1.ReasonApproved), "approved by "+pat.name+", "+quinn.name)
	start, end := timeOf(object.Status.StartTime), timeOf(object.Status.ExpirationTime)
	if start.Before(before.Truncate(time.Second)) || !end.Equal(start.Add(30*time.Minute)) {
		t.Errorf("approved at %s for 30m, it lasts from %s to %s", before, start, end)
	}
	mayRead(t, g.engineer(t), tn.namespace)

	record := g.record(t)
	if record.Status.ApprovalsNeeded != 2 || len(record.Status.Approvals) != 2 || record.Status.AwaitingApprovalTime == nil {
		t.Fatalf("the record says needed %d, approvals %v, since %v", record.Status.ApprovalsNeeded, record.Status.Approvals, record.Status.AwaitingApprovalTime)
	}
	if a := record.Status.Approvals[0]; a.By != pat.name || a.Decision != "yes" || a.Authority != v1alpha1.AuthorityNamespace || a.Reason != "case closed" || a.Time.IsZero() {
		t.Errorf("of the first approval the record says %+v", a)
	}
	if i := transition(record, v1alpha1.TransitionApproved); i < 0 || record.Status.Transitions[i].By != pat.name ||
		record.Status.Transitions[i].Message != `approved by decision "yes", with authority Namespace: case closed` {
		t.Errorf("the trail is %s", trail(record))
	}

	// An approval is kept while what it opened is open, and is let go of then.
	if err := tn.admin.Delete(t.Context(), &v1alpha1.SupportAccessDecision{ObjectMeta: metav1.ObjectMeta{Namespace: first.Namespace, Name: first.Name}}); err != nil {
		t.Fatal(err)
	}
	tn.changePolicy(t, needing3)
	tn.admin.decides(t, tn.namespace, "shorter", gen.Shortening(theGrant, soon(10*time.Minute)))
	world.Eventually(t, "the operator has looked again", func() error {
		if record := g.record(t); transition(record, v1alpha1.TransitionShortened) < 0 {
			return fmt.Errorf("the trail is %s", trail(record))
		}
		return nil
	})
	g.is(t, v1alpha1.StateActive)
	decision := &v1alpha1.SupportAccessDecision{}
	if err := tn.admin.Get(t.Context(), first, decision); err != nil || decision.DeletionTimestamp == nil {
		t.Errorf("the deleted approval of an open grant: %v", err)
	}
	g.delete(t)
	world.Eventually(t, "the approval is let go of", func() error {
		if err := tn.admin.Get(t.Context(), first, decision); !apierrors.IsNotFound(err) {
			return fmt.Errorf("%v, finalizers %v", err, decision.Finalizers)
		}
		return nil
	})
}

func needing3(s *v1alpha1.SupportAccessPolicySpec) { s.Roles[1].Approvals = new(int32(3)) }

func TestAnApprovalThatDoesNotCountOpensNothingAndSaysWhy(t *testing.T) {
	t.Parallel()
	robots := func(tn *tenant) string { return "system:serviceaccount:" + tn.namespace + ":robot" }
	tn := newTenant(t, needing(1))
	tn.widen(t)
	early := tn.approver(t, "early")
	before := early.decides(t, tn.namespace, "early", gen.Approving(theGrant))
	isApplied(t, early, before, metav1.ConditionFalse, v1alpha1.ReasonNoSuchGrant)

	// The admin may approve too, but made the grant; the engineer and the author may as well.
	ana := user(t, tn.World, gen.Engineer)
	author := tn.approver(t, "author")
	robot := tn.pipeline(t, "robot")
	for _, s := range []rbacv1.Subject{
		{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: tn.admin.name}, {APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: ana.name},
		{Kind: rbacv1.ServiceAccountKind, Namespace: tn.namespace, Name: "robot"},
	} {
		tn.bind(t, "support-access-approver", s)
	}
	for _, p := range []*person{tn.admin, ana, robot} {
		tn.mayApprove(t, p)
	}
	named := func(o *v1alpha1.SupportAccessGrant) {
		o.Annotations = map[string]string{v1alpha1.AnnotationAuthor: author.name}
	}
	g := tn.grants(t, theGrant, gen.WithDuration("30m"), named)
	g.isWaiting(t, "0 of 1 approval")
	if got := g.record(t).Spec.ClaimedAuthor; got != author.name {
		t.Errorf("the record claims the author %q", got)
	}

	eve := tn.newAdmin(t, "eve@"+tn.namespace+".customer.example")
	world.Eventually(t, "eve lacks the verb", func() error {
		err := eve.tries(t, tn.namespace, "without", gen.Approving(theGrant))
		return isSaid(err, "lacks the verb approve on supportaccessgrants "+theGrant)
	})
	for name, c := range map[string]struct {
		who  *person
		says string
	}{
		"granter":  {tn.admin, tn.admin.name + " made the grant"},
		"engineer": {ana, ana.name + " is one of its engineers"},
		"author":   {author, author.name + " is named as its author"},
	} {
		key := c.who.approves(t, g, name)
		says(t, appliedMessage(isApplied(t, tn.admin, key, metav1.ConditionFalse, v1alpha1.ReasonDoesNotCount)), c.says)
	}
	byRobot := robot.approves(t, g, "robot")
	isKept(t, tn.admin, byRobot, v1alpha1.ReasonNotYet)
	other := early.decides(t, tn.namespace, "another", func(d *v1alpha1.SupportAccessDecision) {
		gen.Approving(theGrant)(d)
		gen.OfGrantUID("00000000-0000-0000-0000-000000000000")(d)
	})
	isApplied(t, early, other, metav1.ConditionFalse, v1alpha1.ReasonNoSuchGrant)

	wide := tn.grants(t, "wide", gen.WithDuration("30m"), gen.WithScope(tn.namespace, tn.another(t)))
	wide.isWaiting(t, "0 of 1 approval")
	here := early.approves(t, wide, "here")
	says(t, appliedMessage(isApplied(t, early, here, metav1.ConditionFalse, v1alpha1.ReasonDoesNotCount)), "the grant reaches beyond its namespace")
	g.isWaiting(t, "0 of 1 approval")
	wide.isWaiting(t, "0 of 1 approval")

	// What is decided is not edited, and what was approved is not exchanged.
	err := early.Patch(t.Context(), &v1alpha1.SupportAccessDecision{ObjectMeta: metav1.ObjectMeta{Namespace: here.Namespace, Name: here.Name}},
		client.RawPatch(types.MergePatchType, []byte(`{"spec":{"target":{"grant":"`+theGrant+`"}}}`)))
	if err := isSaid(err, "a decision is never edited"); err != nil {
		t.Error(err)
	}
	object, err := g.get(t)
	if err != nil {
		t.Fatal(err)
	}
	err = tn.admin.Patch(t.Context(), object, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"duration":"60m"}}`)))
	if err := isSaid(err, "a grant is never edited"); err != nil {
		t.Error(err)
	}

	// The policy that names the ServiceAccount lets its word count.
	tn.changePolicy(t, func(s *v1alpha1.SupportAccessPolicySpec) { s.ServiceAccountApprovers = []string{robots(tn)} })
	g.is(t, v1alpha1.StateActive)
	isKept(t, tn.admin, byRobot, v1alpha1.ReasonLatched)
	// And whoever may approve everywhere does so for what reaches beyond.
	carla := user(t, tn.World, "carla@"+tn.namespace+".customer.example")
	tn.bindEverywhere(t, "support-access-approver", carla)
	tn.mayApprove(t, carla)
	carla.approves(t, wide, "there")
	wide.is(t, v1alpha1.StateActive)
}

// isSaid says whether an answer is a refusal in these words.
func isSaid(err error, words string) error {
	if (apierrors.IsForbidden(err) || apierrors.IsInvalid(err)) && strings.Contains(err.Error(), words) {
		return nil
	}
	return fmt.Errorf("the API server says %v, want %q", err, words)
}

// bindEverywhere binds a ClusterRole in the whole cluster for as long as the test lasts.
func (tn *tenant) bindEverywhere(t *testing.T, role string, p *person) {
	t.Helper()
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: p.name}},
	}
	if err := tn.Admin.Create(t.Context(), binding); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tn.Admin.Delete(t.Context(), binding) })
}

func TestAGrantThatNobodyApprovesInTimeOrSomebodyDeniesNeverOpens(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, needing(1, func(s *v1alpha1.SupportAccessPolicySpec) { s.ApprovalTimeout = "5s" }))
	pat := tn.approver(t, "pat")
	g, other := tn.grants(t, theGrant, gen.WithDuration("30m")), tn.grants(t, "other", gen.WithDuration("30m"))
	pat.decides(t, tn.namespace, "no", gen.Denying("other"))
	object := other.is(t, v1alpha1.StateDenied)
	isCondition(t, object, v1alpha1.ConditionApproved, metav1.ConditionFalse, v1alpha1.StateDenied)
	object = g.is(t, v1alpha1.StateDenied)
	says(t, isCondition(t, object, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.StateDenied), "it was not approved within 5s: 0 of 1 approval")
	g.isKstatus(t, status.FailedStatus)
	if record := g.record(t); record.Status.EndReason != v1alpha1.EndNotApproved {
		t.Errorf("it ended by %s", record.Status.EndReason)
	}
	late := pat.approves(t, g, "late")
	isApplied(t, pat, late, metav1.ConditionTrue, v1alpha1.ReasonNothingToDo)
	after := pat.approves(t, other, "after")
	isApplied(t, pat, after, metav1.ConditionTrue, v1alpha1.ReasonNothingToDo)
	g.is(t, v1alpha1.StateDenied)
	other.is(t, v1alpha1.StateDenied)
	g.leavesNothing(t)
}

func TestAnApprovalIsOfOneGrantAndNotOfTheNextOfItsName(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, needing(1))
	pat := tn.approver(t, "pat")
	g := tn.grants(t, theGrant, gen.WithDuration("30m"))
	g.isWaiting(t, "0 of 1 approval")
	g.delete(t)
	g.isGone(t)
	again := tn.grants(t, theGrant, gen.WithDuration("30m"))
	again.is(t, v1alpha1.StateRevoked)
	key := pat.approves(t, again, "again")
	isApplied(t, pat, key, metav1.ConditionTrue, v1alpha1.ReasonNothingToDo)
	again.is(t, v1alpha1.StateRevoked)
	again.leavesNothing(t)
}
