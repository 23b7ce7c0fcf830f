package gen

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
)

// Session is what one replica of the gateway says of a grant whose first engineer is connected since a time.
func Session(grant *v1alpha1.SupportAccessGrant, replica string, since time.Time) *v1alpha1.SupportAccessSession {
	return &v1alpha1.SupportAccessSession{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "SupportAccessSession"},
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: replica + "." + grant.Name},
		Spec: v1alpha1.SupportAccessSessionSpec{
			Grant:   v1alpha1.SessionGrant{Namespace: grant.Namespace, Name: grant.Name, UID: grant.UID},
			Replica: replica,
		},
		Status: v1alpha1.SupportAccessSessionStatus{
			RenewTime: microAt(since),
			Engineers: []v1alpha1.EngineerSession{{
				Name: grant.Spec.Engineers[0].Name, Connections: 1, FirstSeenTime: at(since), LastSeenTime: at(since),
			}},
		},
	}
}
