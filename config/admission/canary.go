package admission

import (
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
)

// canaryStamp is nobody's user name: the API server gives the prefix to no real user.
const canaryStamp = v1alpha1.IdentityPrefix + "canary"

// canaryDenial begins the message with which the policy of the stamp refuses, and no other policy does.
const canaryDenial = "ValidatingAdmissionPolicy 'support-access-grant-stamp' with binding 'support-access-grant-stamp' denied request: spec.grantedBy: "

// CanaryGrant returns a grant with a forged stamp. The controller creates it as a dry run: an API server that takes it
// has no admission policies in force.
func CanaryGrant() *v1alpha1.SupportAccessGrant {
	return &v1alpha1.SupportAccessGrant{
		ObjectMeta: metav1.ObjectMeta{Name: "canary", Namespace: v1alpha1.SystemNamespace},
		Spec: v1alpha1.SupportAccessGrantSpec{
			Reason:    "Are the admission policies in force? This dry run must be refused.",
			Engineers: []v1alpha1.Engineer{{Name: "canary"}},
			Duration:  "1h",
			GrantedBy: canaryStamp,
		},
	}
}

// CanaryRefused is true when the canary was refused because of its stamp. Any other answer, a lack of rights included,
// proves nothing.
func CanaryRefused(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), canaryDenial)
}
