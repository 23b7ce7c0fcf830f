package crash

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/lifecycle"
)

// inspectQuiet checks what must hold once the operator has nothing left to do: each grant is wholly open or wholly closed,
// and everything that is said of it is so.
func (r *run) inspectQuiet() {
	s := r.look()
	r.remember(s)
	for key, grant := range s.grants {
		record := s.recordOf(key)
		if record == nil {
			r.wrong("grant %s has been seen and is not on record", key)
		}
		if grant.UID != record.Spec.Grant.UID {
			if grant.Status.EndTime == nil || controllerutil.ContainsFinalizer(grant, v1alpha1.FinalizerGrant) {
				r.wrong("grant %s carries a used name and is not ended or is held", key)
			}
			continue
		}
		if r.isOpen(record) {
			r.inspectOpen(s, grant, record)
		} else if held := controllerutil.ContainsFinalizer(grant, v1alpha1.FinalizerGrant); held && record.Status.EndTime != nil {
			r.wrong("grant %s has ended and is still held", key)
		}
	}
	for _, record := range s.records {
		r.inspectRecordAtRest(s, record)
	}
	for _, stranger := range r.strangers {
		there := r.list(&rbacv1.RoleBindingList{}, client.InNamespace(stranger.Namespace))
		if !slices.ContainsFunc(there, func(b client.Object) bool { return b.GetUID() == stranger.UID }) {
			r.wrong("the stranger's binding %s was deleted", stranger.Name)
		}
	}
	for _, d := range s.decisions {
		if held := controllerutil.ContainsFinalizer(d, v1alpha1.FinalizerDecision); held != s.isKept(d) {
			r.wrong("decision %s is held: %t", d.Name, held)
		}
	}
}

func (r *run) isOpen(record *v1alpha1.SupportAccessRecord) bool {
	return record.Status.ProvisionedTime != nil && record.Status.EndTime == nil
}

func (r *run) inspectRecordAtRest(s *scene, record *v1alpha1.SupportAccessRecord) {
	key := grantKeyOf(record)
	if home := s.recordOf(key); home != record {
		if !equality.Semantic.DeepEqual(home.Status, record.Status) && home.Spec.Grant.UID == record.Spec.Grant.UID {
			r.wrong("the copy %s/%s says something else than the record", record.Namespace, record.Name)
		}
		return
	}
	if isThroughGateway(record) {
		r.inspectUses(record)
	}
	if why := r.shut[key]; why != "" && record.Status.EndTime == nil {
		r.wrong("%s, and its record has no end", why)
	}
	if record.Status.EndTime != nil && (record.Status.EndReason == "" || record.Status.EndedBy == "") {
		r.wrong("record %s does not say how or by whom it ended", key)
	}
	if r.isOpen(record) {
		if now := r.clock.Now(); !now.Before(record.Status.ExpirationTime.Time) {
			r.wrong("grant %s is open at %s, after its end at %s", key, now.UTC(), record.Status.ExpirationTime.UTC())
		}
		return
	}
	of := func(o client.Object) bool { k, _ := access.GrantOf(o); return k == key }
	for _, o := range slices.Concat(s.bindings, s.credentials) {
		if of(o) {
			r.wrong("grant %s is not open, and %T %s/%s is left", key, o, o.GetNamespace(), o.GetName())
		}
	}
	r.inspectLockedOut(record)
}

// inspectOpen checks that an open grant is whole: its bindings, its credentials, and what its status says of them.
func (r *run) inspectOpen(s *scene, grant *v1alpha1.SupportAccessGrant, record *v1alpha1.SupportAccessRecord) {
	key := grantKeyOf(record)
	var staying []string
	for _, name := range record.Spec.Engineers {
		if !slices.ContainsFunc(record.Status.RemovedEngineers, func(e v1alpha1.RemovedEngineer) bool { return e.Name == name }) {
			staying = append(staying, name)
		}
	}
	live := 0
	for _, recorded := range record.Status.Bindings {
		at := slices.IndexFunc(s.bindings, func(b client.Object) bool { return b.GetUID() == recorded.UID })
		switch {
		case recorded.Withdrawn:
			continue
		case at < 0:
			r.wrong("grant %s is open and its binding %s is not there", key, recorded.Name)
		case !access.Intact(s.bindings[at], recorded, access.PeopleOf(record), staying, staying):
			r.wrong("grant %s is open and its binding %s is not what it should be", key, recorded.Name)
		}
		live++
	}
	if live == 0 {
		r.wrong("grant %s is open without a binding", key)
	}
	if c := condition(grant, v1alpha1.ConditionActive); c.Status != metav1.ConditionTrue {
		r.wrong("grant %s is open and its status says Active=%s", key, c.Status)
	}
	if !controllerutil.ContainsFinalizer(grant, v1alpha1.FinalizerGrant) {
		r.wrong("grant %s is open and not held", key)
	}
	for _, removed := range record.Status.RemovedEngineers {
		for _, o := range s.credentials {
			if o.GetName() == access.IdentityName(record.Spec.Grant, removed.Name) {
				r.wrong("%s was taken off, and %T %s is left", removed.Name, o, o.GetName())
			}
		}
	}
	for _, engineer := range staying {
		r.inspectEngineer(s, grant, record, engineer)
	}
}

// inspectEngineer checks that an engineer of an open grant finds a credential where the status says, and that it works.
func (r *run) inspectEngineer(s *scene, grant *v1alpha1.SupportAccessGrant, record *v1alpha1.SupportAccessRecord, engineer string) {
	name := access.IdentityName(record.Spec.Grant, engineer)
	made := 0
	var secret *corev1.Secret
	for _, o := range s.credentials {
		if o.GetName() == name {
			made++
		}
		if found, ok := o.(*corev1.Secret); ok && o.GetName() == name {
			secret = found
		}
	}
	handedOver := slices.ContainsFunc(record.Status.HandedOver, func(e v1alpha1.EngineerInstant) bool { return e.Name == engineer })
	if want := objectsOf(record, handedOver); made != want && !r.unread[name] {
		r.wrong("%s has %d of ServiceAccount, Secret, Role and RoleBinding, and should have %d", engineer, made, want)
	}
	at := slices.IndexFunc(grant.Status.Engineers, func(e v1alpha1.EngineerStatus) bool { return e.Name == engineer })
	if at < 0 {
		r.wrong("the status does not say where %s finds the credential", engineer)
	}
	status := grant.Status.Engineers[at]
	if isThroughGateway(record) {
		r.inspectThroughGateway(s, record, status, secret)
		r.inspectAccess(record, engineer, nil)
		return
	}
	_, dies, filled := access.CredentialTimes(secret)
	switch {
	case !filled:
		r.wrong("the Secret of %s is empty", engineer)
	case status.CredentialExpirationTime == nil || !status.CredentialExpirationTime.Time.Equal(dies):
		r.wrong("the status says that the credential of %s lives until %s, and it lives until %s", engineer, status.CredentialExpirationTime, dies)
	case status.Username != access.Username(record.Spec.Grant, engineer):
		r.wrong("the status calls %s %q", engineer, status.Username)
	}
	kubeconfig := secret.Data[access.KeyKubeconfig]
	if status.CredentialSecretRef == nil {
		kubeconfig = r.decrypt(status.EncryptedKubeconfig)
		if len(secret.Data[access.KeyKubeconfig]) > 0 {
			r.wrong("the credential of %s lies in plaintext", engineer)
		}
	}
	r.inspectAccess(record, engineer, kubeconfig)
}

// objectsOf is how many objects an engineer's credential consists of.
func objectsOf(record *v1alpha1.SupportAccessRecord, handedOver bool) int {
	switch {
	case handedOver:
		return 0
	case isThroughGateway(record):
		return 3
	default:
		return 4
	}
}

// keyring is the key of the engineers who have one.
var keyring = func() *age.X25519Identity {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		panic(err)
	}
	return identity
}()

func (r *run) decrypt(file string) []byte {
	plain, err := age.Decrypt(armor.NewReader(strings.NewReader(file)), keyring)
	if err != nil {
		r.wrong("the status hands over a kubeconfig that the engineer cannot read: %v", err)
	}
	out, err := io.ReadAll(plain)
	if err != nil {
		r.wrong("read the kubeconfig: %v", err)
	}
	return out
}

// authorized bounds how long the API server may take to know of a binding.
const authorized = 5 * time.Second

// inspectAccess uses a credential: it must be let in.
func (r *run) inspectAccess(record *v1alpha1.SupportAccessRecord, engineer string, kubeconfig []byte) {
	if !r.stage.real() {
		return
	}
	err := poll(r.t.Context(), authorized, func() error {
		if answer := r.request(record, engineer, kubeconfig); !apierrors.IsNotFound(answer) {
			return fmt.Errorf("the API server said: %w", answer)
		}
		return nil
	})
	if err != nil {
		r.wrong("the credential of %s does not work: %v", engineer, err)
	}
	r.kubeconfigs[grantKeyOf(record).String()+" "+engineer] = bytes.Clone(kubeconfig)
}

// inspectLockedOut uses the credentials that once worked: they must be turned away.
func (r *run) inspectLockedOut(record *v1alpha1.SupportAccessRecord) {
	for _, engineer := range record.Spec.Engineers {
		kubeconfig, had := r.kubeconfigs[grantKeyOf(record).String()+" "+engineer]
		if !had {
			continue
		}
		err := poll(r.t.Context(), authorized, func() error {
			if answer := r.request(record, engineer, kubeconfig); !apierrors.IsForbidden(answer) && !apierrors.IsUnauthorized(answer) {
				return fmt.Errorf("the API server said: %w", answer)
			}
			return nil
		})
		if err != nil {
			r.wrong("the credential of %s still works: %v", engineer, err)
		}
	}
}

// request asks for something that is not there with a kubeconfig, or as the gateway asks on somebody's behalf, in the first namespace of the scope that nobody took
// away, and returns what the API server says: not found, to whoever is let in.
func (r *run) request(record *v1alpha1.SupportAccessRecord, engineer string, kubeconfig []byte) error {
	config, err := r.configOf(record, engineer, kubeconfig)
	if err != nil {
		return err
	}
	c, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	namespace := lifecycle.ScopeOf(record.Spec.Scope, record.Spec.Grant.Namespace)[0]
	for _, b := range record.Status.Bindings {
		if !b.Withdrawn {
			namespace = b.Namespace
		}
	}
	if namespace == "" {
		namespace = r.home
	}
	if record.Spec.Roles[0] == spare {
		_, err = c.CoreV1().Services(namespace).Get(r.t.Context(), "missing", metav1.GetOptions{})
	} else {
		_, err = c.CoreV1().ConfigMaps(namespace).Get(r.t.Context(), "missing", metav1.GetOptions{})
	}
	return err
}

// configOf is how an engineer reaches the API server: with a kubeconfig, or as somebody else's word for it.
func (r *run) configOf(record *v1alpha1.SupportAccessRecord, engineer string, kubeconfig []byte) (*rest.Config, error) {
	if isThroughGateway(record) {
		config := r.stage.world.ControlPlane.AdminConfig()
		config.Impersonate = rest.ImpersonationConfig{
			UserName: access.GatewayUsername(record.Spec.Grant, engineer), Groups: []string{v1alpha1.EngineersGroup, "system:authenticated"},
		}
		return config, nil
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	return config, nil
}

// outcome says, in words that are the same in every run, what has become of everything.
func (r *run) outcome() string {
	s := r.look()
	var out []string
	for key, g := range s.grants {
		ready := condition(g, v1alpha1.ConditionReady)
		line := fmt.Sprintf("grant %s: %s=%s Active=%s Verified=%s end=%s by %s stalled=%s", key, ready.Status, ready.Reason,
			condition(g, v1alpha1.ConditionActive).Status, condition(g, v1alpha1.ConditionVerified).Status, g.Status.EndReason, g.Status.EndedBy,
			condition(g, v1alpha1.ConditionStalled).Status)
		for _, e := range g.Status.Engineers {
			line += fmt.Sprintf(" %s(secret %t, encrypted %t, hash %t, %d connections)", e.Name, e.CredentialSecretRef != nil, e.EncryptedKubeconfig != "", e.CredentialHash != "", e.Sessions)
		}
		out = append(out, line)
	}
	for key, record := range s.records {
		if key.Namespace == v1alpha1.SystemNamespace && s.records[grantKeyOf(record)] != nil {
			continue // A run that took longer has the copy already; that it says the same is seen to elsewhere.
		}
		line := fmt.Sprintf("record %s: end=%s by %s provisioned=%t verified=%t bindings", key, record.Status.EndReason, record.Status.EndedBy,
			record.Status.ProvisionedTime != nil, record.Status.VerifiedTime != nil)
		for _, b := range record.Status.Bindings {
			line += fmt.Sprintf(" %s/%s(withdrawn %t)", b.Namespace, b.Role, b.Withdrawn)
		}
		for _, e := range record.Status.RemovedEngineers {
			line += fmt.Sprintf(" removed %s by %s", e.Name, e.By)
		}
		for _, e := range record.Status.FirstUses {
			line += " used by " + e.Name
		}
		for _, e := range record.Status.HandedOver {
			line += " handed over to " + e.Name
		}
		line += fmt.Sprintf(" disconnected=%t", record.Status.DisconnectedTime != nil)
		for _, t := range record.Status.Transitions {
			line += fmt.Sprintf(" → %s by %s", t.Type, t.By)
		}
		out = append(out, line)
	}
	for _, d := range s.decisions {
		line := fmt.Sprintf("decision %s: %d grants", d.Name, d.Status.Grants)
		for _, c := range d.Status.Conditions {
			line += fmt.Sprintf(" %s=%s %s", c.Type, c.Status, c.Reason)
		}
		out = append(out, line)
	}
	out = append(out, r.outcomeOfSetting()...)
	out = append(out, r.outcomeOfRequest()...)
	lines := strings.Split(r.plain(strings.Join(out, "\n")), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// recordNamed returns the record of a grant of this run.
func (r *run) recordNamed(t *testing.T, name string) *v1alpha1.SupportAccessRecord {
	t.Helper()
	record := r.look().recordOf(r.key(name))
	if record == nil {
		t.Fatalf("grant %s is not on record", name)
	}
	return record
}

// bindingOf returns a binding of a grant, as its record names it.
func (r *run) bindingOf(name string, at int) client.Object {
	recorded := r.recordNamed(r.t, name).Status.Bindings[at]
	for _, b := range r.look().bindings {
		if b.GetUID() == recorded.UID {
			return b
		}
	}
	r.fatalf("binding %d of grant %s is not there", at, name)
	return nil
}

// credentialOf returns the Secret of an engineer.
func (r *run) credentialOf(name, engineer string) client.Object {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Namespace: v1alpha1.CredentialsNamespace, Name: access.IdentityName(r.recordNamed(r.t, name).Spec.Grant, engineer),
	}}
}
