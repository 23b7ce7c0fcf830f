package grant

import (
	"context"
	"errors"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/lifecycle"
)

// What is different with the transport Gateway: a credential needs no renewal and dies with the grant; its Secret goes once
// it is handed over; and the gateway says who is connected.

// throughGateway reports whether the engineers of the grant come through the gateway.
func (s *sight) throughGateway() bool { return s.transport() == v1alpha1.TransportGateway }

// tell finds the credentials of which the status does not speak yet: a pass that made one may have died before it could.
func (r *Reconciler) tell(ctx context.Context, s *sight, order access.Order) outcome {
	done := r.replaceAll(ctx, s, order)
	if overtaken(done.problem) {
		return done
	}
	for _, engineer := range order.Engineers {
		secret := s.credentials[access.IdentityName(order.Grant, engineer.Name)]
		fresh := slices.ContainsFunc(done.credentials, func(c access.Credential) bool { return c.Engineer == engineer.Name })
		if secret == nil || fresh || s.toldHash(engineer.Name, access.HashOf(secret)) {
			continue
		}
		credential, err := r.find(ctx, s, order, engineer)
		if overtaken(err) {
			return outcome{problem: err}
		}
		if err != nil {
			done.problem = errors.Join(done.problem, err)
			continue
		}
		done.credentials = append(done.credentials, *credential)
	}
	next, err := r.handOver(ctx, s, order)
	done.problem = errors.Join(done.problem, err)
	done.again = earlier(next, r.followSessions(s))
	return done
}

// toldHash reports whether the status already says by which credential the gateway knows an engineer.
func (s *sight) toldHash(engineer, hash string) bool {
	return slices.ContainsFunc(s.grant.Status.Engineers, func(e v1alpha1.EngineerStatus) bool {
		return e.Name == engineer && e.CredentialHash == hash
	})
}

// throughGatewayStatus brings what a status says of an engineer to what is so: the gateway goes by the end of the grant,
// a credential that was handed over lies nowhere any more, and the sessions say who is connected.
func throughGatewayStatus(s *sight, e v1alpha1.EngineerStatus, verdict lifecycle.Verdict) v1alpha1.EngineerStatus {
	dies := metav1.NewTime(verdict.Expiration)
	e.CredentialExpirationTime = &dies
	if s.handedOver(e.Name) {
		e.CredentialSecretRef = nil
	}
	return s.usedStatus(e)
}
