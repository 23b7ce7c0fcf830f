package crash

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/test/gen"
)

const (
	// gatewayServer is where engineers would find the gateway. Nothing listens there: what it says, the tests say.
	gatewayServer = "https://gateway.example"
	// handoverWindow is for how long credentials lie in their Secrets under these tests' policies.
	handoverWindow = 20 * time.Minute
	// labelGrantUID stands, on sessions, for the index by which the grant controller finds them.
	labelGrantUID = "crash.test/grant-uid"
)

var throughGateway = gen.WithTransport(v1alpha1.TransportGateway)

// isThroughGateway reports whether the people of a record come through the gateway.
func isThroughGateway(record *v1alpha1.SupportAccessRecord) bool {
	return record.Spec.Transport == v1alpha1.TransportGateway
}

// gatewayFlows are what is different through the gateway.
func gatewayFlows() []flow {
	uses := func(r *run) { r.comesIn(theGrant, ana, "gateway-a") }
	used := func(r *run) {
		opened(throughGateway, both)(r)
		uses(r)
		r.newLife(nil, nil).settle()
	}
	isCut := func(r *run) { r.gatewayCuts() }
	return []flow{
		{name: "open through the gateway for two engineers, one with a key", acts: []func(*run){
			applies(throughGateway, both, gen.WithPublicKey(ben, keyring.Recipient().String())),
		}, short: true},
		{name: "through the gateway, handed over as its time in the cluster is over", before: opened(throughGateway, both), acts: []func(*run){
			func(r *run) { r.step(handoverWindow) },
		}},
		{name: "through the gateway, handed over as it is used", before: opened(throughGateway, both), acts: []func(*run){uses}, short: true},
		{name: "through the gateway, used, deleted and cut", before: used, acts: []func(*run){deletes, isCut}},
		{name: "through the gateway, used, expired and cut", before: used, acts: []func(*run){expires, isCut}},
		{name: "through the gateway, one engineer taken off", before: used, acts: []func(*run){
			func(r *run) { r.decide("off", gen.RevokingEngineer(theGrant, ana)) },
		}},
		{name: "through the gateway, a credential deleted by hand", before: opened(throughGateway, both), acts: []func(*run){
			func(r *run) { r.cutByHand(r.credentialOf(theGrant, ana)) },
		}},
		{name: "through the gateway, a binding deleted by hand", before: used, acts: []func(*run){
			func(r *run) { r.cutByHand(r.bindingOf(theGrant, 0)) }, isCut,
		}},
		{name: "through the gateway, shortened", before: opened(throughGateway), acts: []func(*run){
			func(r *run) { r.shorten(theGrant, 15*time.Minute) },
		}},
	}
}

// sessions are what the replicas of the gateway say of the grants of this run.
func (r *run) sessions() []*v1alpha1.SupportAccessSession {
	var mine []*v1alpha1.SupportAccessSession
	for _, o := range r.list(&v1alpha1.SupportAccessSessionList{}, client.InNamespace(v1alpha1.SystemNamespace)) {
		if session := o.(*v1alpha1.SupportAccessSession); session.Spec.Grant.Namespace == r.home {
			mine = append(mine, session.DeepCopy())
		}
	}
	slices.SortFunc(mine, func(a, b *v1alpha1.SupportAccessSession) int { return cmp.Compare(a.Name, b.Name) })
	return mine
}

// comesIn has an engineer make one request, by a replica of the gateway, with the credential that the status tells of, and
// stay connected. The replica says so first, as the gateway does.
func (r *run) comesIn(name, engineer, replica string) {
	grant := r.look().grants[r.key(name)]
	at := slices.IndexFunc(grant.Status.Engineers, func(e v1alpha1.EngineerStatus) bool { return e.Name == engineer })
	if at < 0 || grant.Status.Engineers[at].CredentialHash == "" {
		r.fatalf("%s has no credential", engineer)
	}
	now := metav1.NewTime(r.clock.Now().Truncate(time.Second))
	session := &v1alpha1.SupportAccessSession{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: v1alpha1.SystemNamespace, Name: fmt.Sprintf("%s.%s", replica, grant.UID), Labels: map[string]string{labelGrantUID: string(grant.UID)},
		},
		Spec: v1alpha1.SupportAccessSessionSpec{
			Grant: v1alpha1.SessionGrant{Namespace: grant.Namespace, Name: grant.Name, UID: grant.UID}, Replica: replica,
		},
	}
	err := r.stage.admin.Get(r.t.Context(), client.ObjectKeyFromObject(session), session)
	if client.IgnoreNotFound(err) != nil {
		r.fatalf("get session %s: %v", session.Name, err)
	}
	if session.Status.CutTime != nil {
		return
	}
	known := slices.IndexFunc(session.Status.Engineers, func(e v1alpha1.EngineerSession) bool { return e.Name == engineer })
	if known < 0 {
		known = len(session.Status.Engineers)
		session.Status.Engineers = append(session.Status.Engineers, v1alpha1.EngineerSession{Name: engineer, FirstSeenTime: &now})
	}
	e := &session.Status.Engineers[known]
	e.Connections, e.LastSeenTime, e.CredentialHash = e.Connections+1, &now, grant.Status.Engineers[at].CredentialHash
	r.says(session)
	r.log("%s: %s came in with grant %s", replica, engineer, name)
}

// says writes what a replica of the gateway says.
func (r *run) says(session *v1alpha1.SupportAccessSession) {
	replica := r.stage.gateway[session.Spec.Replica]
	write := func() error { return replica.Update(r.t.Context(), session) }
	if session.UID == "" {
		write = func() error { return replica.Create(r.t.Context(), session) }
	}
	if err := write(); err != nil {
		r.fatalf("the gateway says of grant %s: %v", session.Spec.Grant.Name, err)
	}
	r.wrote(session)
}

// gatewayCuts has every replica cut what has ended, by its own judgement: it waits for nobody.
func (r *run) gatewayCuts() {
	for _, session := range r.sessions() {
		key := types.NamespacedName{Namespace: session.Spec.Grant.Namespace, Name: session.Spec.Grant.Name}
		if session.Status.CutTime != nil || !r.isOver(key, session.Spec.Grant.UID) {
			continue
		}
		at := metav1.NewMicroTime(r.clock.Now().Truncate(time.Microsecond))
		session.Status.CutTime, session.Status.CutReason = &at, "Ended"
		for i := range session.Status.Engineers {
			session.Status.CutConnections += session.Status.Engineers[i].Connections
			session.Status.Engineers[i].Connections = 0
		}
		r.says(session)
		r.log("%s: cut grant %s", session.Spec.Replica, key.Name)
	}
}

// isOver reports whether a grant has ended, whoever already knows.
func (r *run) isOver(key types.NamespacedName, uid types.UID) bool {
	s := r.look()
	grant, record := s.grants[key], s.recordOf(key)
	return r.shut[key] != "" || grant == nil || grant.UID != uid || record == nil || record.Status.EndTime != nil ||
		!r.clock.Now().Before(record.Status.ExpirationTime.Time)
}

// inspectThroughGateway checks that an engineer of an open grant has a credential that the gateway knows, in the cluster
// until it is handed over and not longer.
func (r *run) inspectThroughGateway(s *scene, record *v1alpha1.SupportAccessRecord, status v1alpha1.EngineerStatus, secret *corev1.Secret) {
	key := grantKeyOf(record)
	switch {
	case status.Username != access.GatewayUsername(record.Spec.Grant, status.Name):
		r.wrong("the status of %s calls %s %q", key, status.Name, status.Username)
	case status.CredentialExpirationTime == nil || !status.CredentialExpirationTime.Equal(record.Status.ExpirationTime):
		r.wrong("the status of %s says that the credential of %s lives until %s", key, status.Name, status.CredentialExpirationTime)
	}
	is := func(e v1alpha1.EngineerInstant) bool { return e.Name == status.Name }
	given := slices.ContainsFunc(record.Status.HandedOver, is)
	name := access.IdentityName(record.Spec.Grant, status.Name)
	if given {
		for _, o := range s.credentials {
			if o.GetName() == name {
				r.wrong("the credential of %s was handed over, and %T %s is left", status.Name, o, name)
			}
		}
		if status.CredentialSecretRef != nil {
			r.wrong("the credential of %s was handed over, and the status says that it lies in %s", status.Name, status.CredentialSecretRef.Name)
		}
	} else {
		r.inspectOpaque(status, secret)
	}
	if told := r.hashes[string(record.Spec.Grant.UID)+status.Name]; told != "" && told != status.CredentialHash && told != replaced(record, status.Name) {
		r.wrong("the gateway was told %s of the credential of %s, and now %s", told, status.Name, status.CredentialHash)
	}
	r.hashes[string(record.Spec.Grant.UID)+status.Name] = status.CredentialHash
	if status.CredentialHash == replaced(record, status.Name) {
		r.wrong("the status tells the gateway of the credential of %s that was replaced", status.Name)
	}
	// Who came in with the first credential may not have with the one in its place.
	if used := slices.ContainsFunc(record.Status.FirstUses, is) && replaced(record, status.Name) == ""; used && !given && secret.Data[access.KeyKubeconfig] != nil {
		r.wrong("%s has come in, and the credential still lies in the cluster", status.Name)
	}
}

// inspectOpaque checks that the credential which lies in a Secret is the one that the gateway knows.
func (r *run) inspectOpaque(status v1alpha1.EngineerStatus, secret *corev1.Secret) {
	if secret == nil {
		r.wrong("the credential of %s lies nowhere and was not handed over", status.Name)
	}
	kubeconfig := secret.Data[access.KeyKubeconfig]
	if status.CredentialSecretRef == nil {
		kubeconfig = r.decrypt(status.EncryptedKubeconfig)
		if len(secret.Data[access.KeyKubeconfig]) > 0 {
			r.wrong("the credential of %s lies in plaintext", status.Name)
		}
	} else if status.CredentialSecretRef.Name != secret.Name {
		r.wrong("the credential of %s lies in %s, and the status says in %s", status.Name, secret.Name, status.CredentialSecretRef.Name)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		r.wrong("the kubeconfig of %s cannot be read: %v", status.Name, err)
	}
	if hash, ok := access.TokenHash(config.BearerToken); !ok || hash != status.CredentialHash || hash != access.HashOf(secret) {
		r.wrong("the credential of %s is not the one that the status tells the gateway of", status.Name)
	}
}

// inspectUses checks what the record says of who came in: nobody is forgotten, and nobody is said to be gone who is not.
func (r *run) inspectUses(record *v1alpha1.SupportAccessRecord) {
	for _, session := range r.sessions() {
		if session.Spec.Grant.UID != record.Spec.Grant.UID {
			continue
		}
		for _, e := range session.Status.Engineers {
			if !slices.ContainsFunc(record.Status.FirstUses, func(u v1alpha1.EngineerInstant) bool { return u.Name == e.Name }) {
				r.wrong("%s came in by %s, and the record does not say so", e.Name, session.Spec.Replica)
			}
		}
		if record.Status.DisconnectedTime != nil && session.Status.CutTime == nil && r.runs(session.Spec.Replica) {
			r.wrong("the record says that nobody is connected, and %s has not said so", session.Spec.Replica)
		}
	}
	if record.Status.DisconnectedTime != nil && record.Status.EndTime == nil {
		r.wrong("the record says that nobody is connected any more, and not that the grant has ended")
	}
}

// runs reports whether a replica of the gateway is there.
func (r *run) runs(replica string) bool {
	err := r.stage.admin.Get(r.t.Context(), types.NamespacedName{Namespace: v1alpha1.SystemNamespace, Name: replica}, &corev1.Pod{})
	if client.IgnoreNotFound(err) != nil {
		r.fatalf("get pod %s: %v", replica, err)
	}
	return !apierrors.IsNotFound(err)
}

// replicas are those of the gateway where there is no real one.
var replicas = []string{"gateway-a", "gateway-b"}

// replicaPod is the pod of a replica. It may run, and nothing runs in it.
func replicaPod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: name},
		Spec: corev1.PodSpec{
			ServiceAccountName: v1alpha1.GatewayServiceAccount,
			SecurityContext:    &corev1.PodSecurityContext{RunAsNonRoot: new(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{Name: "gateway", Image: "none.example/none", SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			}}},
		},
	}
}

// startReplicas makes the pods of the gateway's replicas, and returns a client for each, with a token bound to its pod.
func startReplicas(ctx context.Context, t *testing.T, s *stage) (map[string]client.WithWatch, error) {
	clients := map[string]client.WithWatch{}
	for _, name := range replicas {
		pod := replicaPod(name)
		if err := s.admin.Create(ctx, pod); err != nil {
			return nil, fmt.Errorf("create pod %s: %w", name, err)
		}
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: v1alpha1.GatewayServiceAccount}}
		request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
			BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
		}}
		if err := s.admin.SubResource("token").Create(ctx, account, request); err != nil {
			return nil, fmt.Errorf("ask for a token for pod %s: %w", name, err)
		}
		config := rest.AnonymousClientConfig(s.world.ControlPlane.AdminConfig())
		config.BearerToken = request.Status.Token
		clients[name] = s.world.ClientFor(t, config)
	}
	return clients, nil
}

// What the gateway does in a random course.

// comeIn has somebody use an open grant through the gateway.
func (c *course) comeIn() {
	s := c.look()
	var may []func()
	for _, key := range sortedKeys(s.grants) {
		grant, record := s.grants[key], s.recordOf(key)
		if record == nil || !isThroughGateway(record) || !c.isOpen(record) || c.isOver(key, grant.UID) {
			continue
		}
		for _, e := range grant.Status.Engineers {
			off := slices.ContainsFunc(record.Status.RemovedEngineers, func(r v1alpha1.RemovedEngineer) bool { return r.Name == e.Name })
			if e.CredentialHash != "" && !off {
				may = append(may, func() { c.comesIn(key.Name, e.Name, c.pick(slices.Clone(replicas))) })
			}
		}
	}
	if len(may) > 0 {
		may[c.random.IntN(len(may))]()
	}
}

// goOut has everybody who is connected leave, by one replica.
func (c *course) goOut() {
	for _, session := range c.sessions() {
		if session.Status.CutTime != nil || c.random.IntN(2) == 0 {
			continue
		}
		for i := range session.Status.Engineers {
			session.Status.Engineers[i].Connections = 0
		}
		c.says(session)
		c.log("%s: nobody is connected with grant %s", session.Spec.Replica, session.Spec.Grant.Name)
	}
}

// moveReplica ends a replica of the gateway, or starts it anew. What it said goes with it, later.
func (c *course) moveReplica() {
	if c.stage.real() || c.random.IntN(3) > 0 {
		return
	}
	name := c.pick(slices.Clone(replicas))
	if !c.runs(name) {
		if err := c.stage.admin.Create(c.t.Context(), replicaPod(name)); err != nil {
			c.fatalf("start %s: %v", name, err)
		}
		c.log("%s runs", name)
		return
	}
	if err := c.stage.admin.Delete(c.t.Context(), replicaPod(name)); err != nil {
		c.fatalf("end %s: %v", name, err)
	}
	c.log("%s is gone", name)
	for _, session := range c.sessions() {
		if session.Spec.Replica != name || c.random.IntN(2) == 0 {
			continue
		}
		if err := c.stage.admin.Delete(c.t.Context(), session); err != nil {
			c.fatalf("collect session %s: %v", session.Name, err)
		}
		c.wrote(session)
	}
}

func sortedKeys[V any](m map[types.NamespacedName]V) []types.NamespacedName {
	keys := make([]types.NamespacedName, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b types.NamespacedName) int { return cmp.Compare(a.String(), b.String()) })
	return keys
}
