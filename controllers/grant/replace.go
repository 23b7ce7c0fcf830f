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

// Handing over again: a decision asks for another credential in the place of one that was lost or seen by somebody else. It
// is put on record first, with the hash of the old one: from then on nobody comes in with that, and a pass that dies before
// the new one is there is taken for what it was, and not for somebody's who deleted a Secret.

// replaceAll replaces the credentials that decisions ask to replace, and those that an earlier pass began to.
func (r *Reconciler) replaceAll(ctx context.Context, s *sight, order access.Order) outcome {
	var done outcome
	for _, engineer := range order.Engineers {
		if !s.mustReplace(engineer.Name) {
			continue
		}
		credential, err := r.replace(ctx, s, order, engineer)
		if overtaken(err) {
			return outcome{problem: err}
		}
		if err != nil {
			done.problem = errors.Join(done.problem, err)
			continue
		}
		r.Counters.Issued(1)
		done.credentials = append(done.credentials, credential)
	}
	return done
}

// mustReplace reports whether an engineer is to have another credential.
func (s *sight) mustReplace(engineer string) bool {
	_, asked := s.replacement(engineer)
	return asked || s.replacingOpaque(engineer)
}

// replacement returns the decision by which an engineer's credential is to be replaced, if there is one.
func (s *sight) replacement(engineer string) (lifecycle.Replacement, bool) {
	wanted := lifecycle.Decide(s.facts()).Replaced
	i := slices.IndexFunc(wanted, func(w lifecycle.Replacement) bool { return w.Engineer == engineer })
	if i < 0 {
		return lifecycle.Replacement{}, false
	}
	return wanted[i], true
}

// replacingOpaque reports whether the status still tells of a credential that was replaced: the new one was not made, or not
// told of.
func (s *sight) replacingOpaque(engineer string) bool {
	hash := s.replacedHash(engineer)
	return hash != "" && s.toldHash(engineer, hash)
}

// replacedHash returns the hash of the credential of an engineer that was replaced last, empty if none was.
func (s *sight) replacedHash(engineer string) string {
	for _, r := range s.record.Status.ReplacedCredentials {
		if r.Name == engineer {
			return r.Hash
		}
	}
	return ""
}

// hashOf returns the hash by which the gateway knows an engineer, as the status says.
func (s *sight) hashOf(engineer string) string {
	for _, e := range s.grant.Status.Engineers {
		if e.Name == engineer {
			return e.CredentialHash
		}
	}
	return ""
}

// replace puts it on record that a credential is void, and then another in its place.
func (r *Reconciler) replace(ctx context.Context, s *sight, order access.Order, engineer v1alpha1.Engineer) (access.Credential, error) {
	if err := r.mayStillGive(ctx, s, engineer.Name); err != nil {
		return access.Credential{}, err
	}
	wanted, asked := s.replacement(engineer.Name)
	switch unfinished := s.replacingOpaque(engineer.Name); {
	case unfinished:
		// What is asked for since comes after what was begun.
	case !asked:
		return access.Credential{}, &staleError{what: "the credential that replaced the one of " + engineer.Name}
	default:
		if err := r.recordReplacement(ctx, s, wanted); err != nil {
			return access.Credential{}, err
		}
	}
	giving, cancel := context.WithTimeout(ctx, passTime)
	defer cancel()
	return r.Keeper.Replace(giving, order, engineer, s.replacedHash(engineer.Name), s.until)
}

// recordReplacement stores which credential is void. One of which the status does not tell yet is told of first, by the pass
// that finds it.
func (r *Reconciler) recordReplacement(ctx context.Context, s *sight, wanted lifecycle.Replacement) error {
	hash := s.hashOf(wanted.Engineer)
	if hash == "" {
		return &staleError{what: "the credential of " + wanted.Engineer + " that is to be replaced"}
	}
	return r.updateRecord(ctx, s, func(record *v1alpha1.SupportAccessRecord) {
		of := func(name string) bool { return name == wanted.Engineer }
		record.Status.HandedOver = slices.DeleteFunc(record.Status.HandedOver, func(e v1alpha1.EngineerInstant) bool { return of(e.Name) })
		record.Status.ReplacedCredentials = slices.DeleteFunc(record.Status.ReplacedCredentials, func(c v1alpha1.ReplacedCredential) bool { return of(c.Name) })
		record.Status.ReplacedCredentials = append(record.Status.ReplacedCredentials, v1alpha1.ReplacedCredential{
			Name: wanted.Engineer, Hash: hash, DecisionTime: metav1.NewTime(wanted.Decided),
		})
		addTransition(record, s.now, v1alpha1.TransitionCredentialReplaced, wanted.By, wanted.Engineer+": "+wanted.Message)
	})
}

// usedCredential reports whether an engineer came in with the credential that has a hash. The record knows of the first
// credential alone, and of that also when no replica does any more.
func (s *sight) usedCredential(engineer, hash string) bool {
	if s.replacedHash(engineer) == "" && hasInstant(s.record.Status.FirstUses, engineer) {
		return true
	}
	return slices.ContainsFunc(s.sessions, func(session v1alpha1.SupportAccessSession) bool {
		return slices.ContainsFunc(session.Status.Engineers, func(e v1alpha1.EngineerSession) bool {
			return e.Name == engineer && hash != "" && e.CredentialHash == hash
		})
	})
}
