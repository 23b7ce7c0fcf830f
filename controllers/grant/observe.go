package grant

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/lifecycle"
	"supportaccess.dev/operator/internal/partial"
	"supportaccess.dev/operator/internal/policies"
	"supportaccess.dev/operator/internal/records"
	"supportaccess.dev/operator/internal/review"
)

// sight is everything that a pass has learnt about one grant.
type sight struct {
	key types.NamespacedName
	now time.Time
	// until is when the pass is too old to give anything.
	until access.Until

	// grant is nil once it is gone, record is nil before the grant was first seen.
	grant  *v1alpha1.SupportAccessGrant
	record *v1alpha1.SupportAccessRecord
	// unsaved is the grant before a status that was not written because the grant was about to vanish.
	unsaved *v1alpha1.SupportAccessGrant
	// unannounced says that this pass found out something new about who was told.
	unannounced bool
	// foreign says that the record was found as a tombstone of the name, not in the grant's namespace.
	foreign   bool
	decisions []v1alpha1.SupportAccessDecision
	world     lifecycle.World
	// ambient names the bindings that give every identity something, granted or not. Known when the grant opens.
	ambient []string

	// policies are the policies of the places in the grant's scope, by namespace.
	policies map[string]review.NamespacePolicy
	roles    map[string]*rbacv1.ClusterRole
	cluster  access.Cluster

	// answer is how the grant stands to the request that it names.
	answer lifecycle.Answer

	// bindings, readers of credentials, credentials and accounts are what the cache has of this grant's.
	bindings    []client.Object
	readers     map[string]bool
	credentials map[string]*metav1.PartialObjectMetadata
	accounts    map[string]*metav1.PartialObjectMetadata

	// sessions are what the replicas of the gateway say of the grant, disconnection what they say once it has ended. With
	// follow the status is to show them.
	sessions      []v1alpha1.SupportAccessSession
	disconnection disconnection
	follow        bool
	// leftBehind is what a replica of the gateway says was left behind, nil while none does.
	leftBehind *v1alpha1.LeftBehind
	// gatewayless says that the controller was told of no gateway, so that nobody tells it of sessions.
	gatewayless bool

	// cut is what the first of the two passes that close a grant did, zero if this is the first.
	cut cut
}

func (s *sight) facts() lifecycle.Facts {
	return lifecycle.Facts{Now: s.now, Grant: s.grant, Record: s.record, Decisions: s.decisions, World: s.world}
}

func (s *sight) provisioned() bool {
	return s.record != nil && s.record.Status.ProvisionedTime != nil
}

func (s *sight) ended() bool {
	return s.record != nil && s.record.Status.EndTime != nil
}

// glance reads of the cache what tells whether time or a person ends an open grant, and nothing else: where many end at
// once, this is all that each waits for.
func (r *Reconciler) glance(ctx context.Context, key types.NamespacedName) (*sight, error) {
	now := r.Clock.Now()
	s := &sight{key: key, now: now, until: access.Until(now.Add(passTime))}
	for _, step := range []func(context.Context, *sight) error{r.seeGrant, r.seeRecord, r.seeDecisions, r.glanceAtSetting} {
		if err := step(ctx, s); err != nil {
			return nil, err
		}
	}
	r.recall(s)
	return s, nil
}

// observe gathers what else a verdict on a grant needs. It reads the cache, and the API server itself only where something
// looks as if access had been taken away.
func (r *Reconciler) observe(ctx context.Context, s *sight) error {
	for _, step := range []func(context.Context, *sight) error{r.seeChildren, r.seeForgotten, r.seeAbsence, r.seeSessions} {
		if err := step(ctx, s); err != nil {
			return err
		}
	}
	s.world.AdmissionSince, s.world.AdmissionPending = r.Admission.InForce()
	if s.ended() || s.grant == nil && s.record == nil {
		return nil
	}
	if err := r.weigh(ctx, r.Client, s); err != nil {
		return err
	}
	// An end is for ever: that a rule or a place ends the grant counts only if the API server itself says so.
	if end := lifecycle.Decide(s.facts()).End; end != nil && slices.Contains(endsBySurroundings, end.Reason) {
		if err := r.weighLive(ctx, s); err != nil {
			return err
		}
	}
	// Of a grant that ends anyway an earlier pass may have taken away some: that is nobody else's doing.
	if s.provisioned() && lifecycle.Decide(s.facts()).Wants == lifecycle.WantsOpen {
		return r.seeWhatWasTaken(ctx, s)
	}
	return nil
}

// weighLive weighs what the API server itself says, of approvals too: the cache may not have heard of them yet.
func (r *Reconciler) weighLive(ctx context.Context, s *sight) error {
	decisions, err := decisionsFor(ctx, r.Live, s.key.Namespace)
	if err != nil {
		return err
	}
	s.decisions = decisions
	return r.weigh(ctx, r.Live, s)
}

// endsBySurroundings are the ends that follow from policies, roles, namespaces, a setting that is gone and approvals that
// are not there.
var endsBySurroundings = []string{v1alpha1.EndRefused, v1alpha1.EndNotApproved, v1alpha1.EndPolicyForbids, v1alpha1.EndRoleWidened, v1alpha1.EndRoleDeleted, v1alpha1.EndNamespaceDeleted, v1alpha1.EndSettingDeleted}

// weigh looks at the policies, roles and namespaces of a grant and judges what they say of it.
func (r *Reconciler) weigh(ctx context.Context, reader client.Reader, s *sight) error {
	s.world = lifecycle.World{AdmissionSince: s.world.AdmissionSince, AdmissionPending: s.world.AdmissionPending}
	if err := r.seePlaces(ctx, reader, s); err != nil {
		return err
	}
	if err := r.seeRoles(ctx, reader, s); err != nil {
		return err
	}
	if err := r.seeSetting(ctx, reader, s); err != nil {
		return err
	}
	if err := r.seeRequest(ctx, reader, s); err != nil {
		return err
	}
	if err := r.seeOffered(ctx, s); err != nil {
		return err
	}
	if err := r.seeAddress(ctx, s); err != nil {
		return err
	}
	judge(s)
	return nil
}

func (r *Reconciler) seeGrant(ctx context.Context, s *sight) error {
	grant := &v1alpha1.SupportAccessGrant{}
	err := r.Client.Get(ctx, s.key, grant)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("get grant %s: %w", s.key, err)
	}
	s.grant = grant
	return nil
}

// seeRecord reads the record of the grant's name, as the cache has it.
func (r *Reconciler) seeRecord(ctx context.Context, s *sight) error {
	record := &v1alpha1.SupportAccessRecord{}
	err := r.Client.Get(ctx, s.key, record)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("get record %s: %w", s.key, err)
	}
	records.Whole(record)
	s.record = record
	return nil
}

// seeForgotten asks the API server for a record that the cache has not, and for the tombstones too: a name that was used
// must not look new because the cache lags or the namespace was made anew.
func (r *Reconciler) seeForgotten(ctx context.Context, s *sight) error {
	if s.record != nil || s.grant == nil && !s.hasChildren() {
		return nil
	}
	for _, place := range []types.NamespacedName{s.key, lifecycle.TombstoneKey(s.key)} {
		record := &v1alpha1.SupportAccessRecord{}
		err := r.Live.Get(ctx, place, record)
		if err == nil {
			records.Whole(record)
			s.record, s.foreign = record, place != s.key
			return nil
		}
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("get record %s: %w", place, err)
		}
	}
	return nil
}

// seeAbsence asks the API server for a grant that the cache has not, where its absence would take something away.
func (r *Reconciler) seeAbsence(ctx context.Context, s *sight) error {
	if s.grant != nil || s.ended() || s.record == nil && !s.hasChildren() {
		return nil
	}
	grant, err := r.liveGrant(ctx, s.key)
	if err != nil {
		return err
	}
	s.grant = grant
	return nil
}

// hasChildren reports whether the cache has anything that was made for the grant.
func (s *sight) hasChildren() bool {
	return len(s.bindings)+len(s.credentials)+len(s.accounts)+len(s.readers) > 0
}

// seeChildren lists what the cache has of the grant's bindings, credentials and identities.
func (r *Reconciler) seeChildren(ctx context.Context, s *sight) error {
	mine := client.MatchingFields{indexGrant: s.key.String()}
	bindings, clusterBindings := &rbacv1.RoleBindingList{}, &rbacv1.ClusterRoleBindingList{}
	if err := r.Client.List(ctx, bindings, mine); err != nil {
		return fmt.Errorf("list bindings of grant %s: %w", s.key, err)
	}
	if err := r.Client.List(ctx, clusterBindings, mine); err != nil {
		return fmt.Errorf("list cluster bindings of grant %s: %w", s.key, err)
	}
	s.readers = map[string]bool{}
	for i := range bindings.Items {
		if b := &bindings.Items[i]; b.Namespace == v1alpha1.CredentialsNamespace {
			s.readers[b.Name] = true
		} else {
			s.bindings = append(s.bindings, b)
		}
	}
	for i := range clusterBindings.Items {
		s.bindings = append(s.bindings, &clusterBindings.Items[i])
	}
	var err error
	if s.credentials, err = r.metadataOf(ctx, "Secret", mine); err != nil {
		return err
	}
	s.accounts, err = r.metadataOf(ctx, "ServiceAccount", mine)
	return err
}

func (r *Reconciler) metadataOf(ctx context.Context, kind string, mine client.ListOption) (map[string]*metav1.PartialObjectMetadata, error) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(partial.Object(kind + "List").GroupVersionKind())
	if err := r.Client.List(ctx, list, client.InNamespace(v1alpha1.CredentialsNamespace), mine); err != nil {
		return nil, fmt.Errorf("list %s: %w", kind, err)
	}
	byName := make(map[string]*metav1.PartialObjectMetadata, len(list.Items))
	for i := range list.Items {
		byName[list.Items[i].Name] = &list.Items[i]
	}
	return byName, nil
}

// seeDecisions reads the decisions that may concern the grant: those of its namespace, and the cluster-wide ones.
func (r *Reconciler) seeDecisions(ctx context.Context, s *sight) error {
	if s.ended() {
		return nil
	}
	decisions, err := decisionsFor(ctx, r.Client, s.key.Namespace)
	if err != nil {
		return err
	}
	s.decisions = decisions
	return nil
}

// decisionsFor reads the decisions on a namespace's grants: those beside them, and the cluster's. Both places are asked at
// once: the API server answers a list at the latest version when it next hears how far etcd is, and it asks that every
// 100 ms, for all who wait (docs/decisions/10-speed.md).
func decisionsFor(ctx context.Context, reader client.Reader, namespace string) ([]v1alpha1.SupportAccessDecision, error) {
	places := []string{namespace}
	if namespace != v1alpha1.SystemNamespace {
		places = append(places, v1alpha1.SystemNamespace)
	}
	lists := make([]v1alpha1.SupportAccessDecisionList, len(places))
	group, groupCtx := errgroup.WithContext(ctx)
	for i, place := range places {
		group.Go(func() error {
			if err := reader.List(groupCtx, &lists[i], client.InNamespace(place)); err != nil {
				return fmt.Errorf("list decisions in %q: %w", place, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var out []v1alpha1.SupportAccessDecision
	for i := range lists {
		out = append(out, lists[i].Items...)
	}
	return out, nil
}

// scope returns the places that the grant means, from the record once there is one.
func (s *sight) scope() []string {
	if s.record != nil && !s.foreign {
		return lifecycle.ScopeOf(s.record.Spec.Scope, s.record.Spec.Grant.Namespace)
	}
	return lifecycle.ScopeOf(s.grant.Spec.Scope, s.grant.Namespace)
}

// seePlaces looks at the namespaces of the grant: whether each is there to stay, and which policy holds in it.
func (r *Reconciler) seePlaces(ctx context.Context, reader client.Reader, s *sight) error {
	s.policies = map[string]review.NamespacePolicy{}
	places := append([]string{s.key.Namespace}, s.scope()...)
	for _, name := range places {
		if _, seen := s.policies[name]; seen || name == "" {
			continue
		}
		namespace, err := r.namespace(ctx, reader, name)
		if err != nil {
			return err
		}
		if namespace == nil || !namespace.DeletionTimestamp.IsZero() {
			s.world.GoneNamespaces = append(s.world.GoneNamespaces, name)
			s.policies[name] = policies.OfNone()
			continue
		}
		// Where there is not even the kind, there is no policy: that opens nothing and closes nothing.
		if s.policies[name], err = policies.Of(ctx, reader, namespace); err != nil && !errors.Is(err, policies.ErrNoKind) {
			return err
		}
	}
	return nil
}

// namespace returns the metadata of a namespace, nil if the API server itself says that there is none.
func (r *Reconciler) namespace(ctx context.Context, reader client.Reader, name string) (*metav1.PartialObjectMetadata, error) {
	for _, reader := range []client.Reader{reader, r.Live} {
		namespace := partial.Object("Namespace")
		err := reader.Get(ctx, types.NamespacedName{Name: name}, namespace)
		if err == nil {
			return namespace, nil
		}
		if !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("get namespace %q: %w", name, err)
		}
	}
	return nil, nil
}

// seeRoles reads the ClusterRoles of the grant. One that the cache has not is asked for at the API server: its absence
// takes access away.
func (r *Reconciler) seeRoles(ctx context.Context, reader client.Reader, s *sight) error {
	s.roles = map[string]*rbacv1.ClusterRole{}
	for _, name := range s.roleNames() {
		role := &rbacv1.ClusterRole{}
		err := reader.Get(ctx, types.NamespacedName{Name: name}, role)
		if apierrors.IsNotFound(err) {
			err = r.Live.Get(ctx, types.NamespacedName{Name: name}, role)
		}
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("get ClusterRole %q: %w", name, err)
		}
		s.roles[name] = role
	}
	return nil
}

func (s *sight) roleNames() []string {
	if s.record != nil && !s.foreign {
		return s.record.Spec.Roles
	}
	return s.grant.Spec.Roles
}

// seeAddress asks how engineers reach the API server, or the gateway, for a grant that is yet to open.
func (r *Reconciler) seeAddress(ctx context.Context, s *sight) error {
	if s.record != nil && s.foreign {
		return nil
	}
	addresses := r.Addresses
	if s.throughGateway() {
		addresses = r.Gateway
		if err := r.seeGateway(ctx, s); err != nil {
			return err
		}
	}
	cluster, err := addresses.Cluster(ctx)
	if err != nil {
		s.world.Missing = append(s.world.Missing, err.Error())
	}
	s.cluster = cluster
	return nil
}

// seeWhatWasTaken finds what somebody took from an open grant by hand. What the cache lacks or has otherwise counts only
// when the API server itself says so, and when it also says that no other pass did it and that nothing else ends the grant:
// a cache that lags must revoke nobody, nor blame a hand.
func (r *Reconciler) seeWhatWasTaken(ctx context.Context, s *sight) error {
	if err := r.seeTaken(ctx, s); err != nil || !s.cutByHand() {
		return err
	}
	known := s.record.ResourceVersion
	if err := r.lookAgain(ctx, s); err != nil {
		return err
	}
	if s.record.ResourceVersion != known {
		return &staleError{what: "a later record of " + s.key.String()}
	}
	s.world.Withdrawn, s.world.LostCredentials = nil, nil
	if lifecycle.Decide(s.facts()).Wants != lifecycle.WantsOpen {
		return nil
	}
	return r.seeTaken(ctx, s)
}

// cutByHand reports whether somebody took something from the open grant that is not on record yet.
func (s *sight) cutByHand() bool {
	return len(s.world.Withdrawn)+len(s.world.LostCredentials) > 0
}

// seeTaken looks at credentials before it looks at bindings: of whoever lost one, the bindings are being rid.
func (r *Reconciler) seeTaken(ctx context.Context, s *sight) error {
	if err := r.seeLostCredentials(ctx, s, lifecycle.Decide(s.facts()).Engineers); err != nil {
		return err
	}
	verdict := lifecycle.Decide(s.facts())
	if verdict.Wants != lifecycle.WantsOpen {
		return nil
	}
	now, ever := verdict.Engineers, s.record.Spec.Engineers
	for _, recorded := range s.record.Status.Bindings {
		if recorded.Withdrawn || s.gone(recorded.Namespace) || !s.closing() && s.cachedIntact(recorded, now, ever) {
			continue
		}
		live, err := r.Keeper.LiveBinding(ctx, recorded)
		if err != nil {
			return err
		}
		if live == nil {
			s.withdraw(recorded, "was deleted")
		} else if !access.Intact(live, recorded, access.PeopleOf(s.record), now, ever) {
			s.withdraw(recorded, "was changed")
		}
	}
	return nil
}

// closing reports whether an earlier pass has said that it takes access away. What the cache shows may then be there no more,
// and it must not be said that the grant is open.
func (s *sight) closing() bool {
	active := meta.FindStatusCondition(s.grant.Status.Conditions, v1alpha1.ConditionActive)
	return active != nil && active.Reason == v1alpha1.StateClosing
}

func (s *sight) gone(namespace string) bool {
	return slices.Contains(s.world.GoneNamespaces, namespace)
}

func (s *sight) cachedIntact(recorded v1alpha1.RecordedBinding, now, ever []string) bool {
	for _, b := range s.bindings {
		if b.GetNamespace() == recorded.Namespace && b.GetName() == recorded.Name {
			return access.Intact(b, recorded, access.PeopleOf(s.record), now, ever)
		}
	}
	return false
}

func (s *sight) withdraw(recorded v1alpha1.RecordedBinding, what string) {
	kind := "RoleBinding"
	if recorded.Namespace == "" {
		kind = "ClusterRoleBinding"
	}
	s.world.Withdrawn = append(s.world.Withdrawn, lifecycle.Withdrawal{
		Namespace: recorded.Namespace,
		Message:   fmt.Sprintf("%s %s of role %s in %q %s", kind, recorded.Name, recorded.Role, recorded.Namespace, what),
	})
}

// seeLostCredentials finds the engineers whose ServiceAccount or Secret somebody deleted.
func (r *Reconciler) seeLostCredentials(ctx context.Context, s *sight, engineers []string) error {
	for _, engineer := range engineers {
		name := access.IdentityName(s.record.Spec.Grant, engineer)
		secretLost, err := r.lost(ctx, "Secret", name, s.credentials)
		if err != nil {
			return err
		}
		if s.throughGateway() {
			if secretLost && !s.handedOver(engineer) && !s.replacingOpaque(engineer) {
				s.world.LostCredentials = append(s.world.LostCredentials, engineer)
			}
			continue
		}
		accountLost, err := r.lost(ctx, "ServiceAccount", name, s.accounts)
		if err != nil {
			return err
		}
		if accountLost || secretLost && !s.replacing(engineer) {
			s.world.LostCredentials = append(s.world.LostCredentials, engineer)
		}
	}
	return nil
}

// lost reports whether an object is gone or going, by the API server's own word. One that only the cache has not yet
// heard of is added to what was seen.
func (r *Reconciler) lost(ctx context.Context, kind, name string, seen map[string]*metav1.PartialObjectMetadata) (bool, error) {
	if o, ok := seen[name]; ok && o.DeletionTimestamp.IsZero() {
		return false, nil
	}
	live := partial.Object(kind)
	err := r.Live.Get(ctx, types.NamespacedName{Namespace: v1alpha1.CredentialsNamespace, Name: name}, live)
	if apierrors.IsNotFound(err) || err == nil && !live.DeletionTimestamp.IsZero() {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("get %s %q: %w", kind, name, err)
	}
	seen[name] = live
	return false, nil
}

// replacing reports whether a credential is being replaced: the grant was shortened, and the last credential that the
// status tells of would outlive it. Its Secret was then deleted by a pass that did not come to make the new one.
func (s *sight) replacing(engineer string) bool {
	return slices.ContainsFunc(s.grant.Status.Engineers, func(e v1alpha1.EngineerStatus) bool {
		return e.Name == engineer && e.CredentialExpirationTime != nil &&
			access.RenewalOf(s.now, e.CredentialExpirationTime.Time, s.record.Status.ExpirationTime.Time, s.now).Reissue
	})
}
