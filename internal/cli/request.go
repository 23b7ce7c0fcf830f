package cli

import (
	"errors"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
)

// asked renders the wish as a request. All that is wrong with the flags is said at once.
func (w wish) asked(now time.Time, readFile func(string) ([]byte, error)) (*v1alpha1.SupportAccessRequest, error) {
	meant, err := w.grant(now, readFile)
	if w.length == "" {
		return nil, errors.Join(err, errors.New("--for: a request says for how long"))
	}
	if err != nil {
		return nil, err
	}
	spec := meant.Spec
	return &v1alpha1.SupportAccessRequest{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "SupportAccessRequest"},
		ObjectMeta: metav1.ObjectMeta{Namespace: meant.Namespace, Name: meant.Name},
		Spec: v1alpha1.SupportAccessRequestSpec{
			Case: spec.Case, Reason: spec.Reason, Engineers: spec.Engineers, Roles: spec.Roles, Scope: spec.Scope, Duration: spec.Duration,
		},
	}, nil
}

// answering returns the wish of whoever answers a request: what was not said is as it was asked for. Nothing is left for the API
// server to fill in, so that what is shown beforehand is what is given.
func (w wish) answering(request *v1alpha1.SupportAccessRequest) wish {
	spec := request.Spec
	w.request = request
	if len(w.roles) == 0 {
		w.roles = spec.Roles
	}
	if w.length == "" && w.until == "" {
		w.length = string(spec.Duration)
	}
	if w.caseID == "" && spec.Case != nil {
		w.caseID, w.caseURL = spec.Case.ID, spec.Case.URL
	}
	if w.why == "" {
		w.why = spec.Reason
	}
	if !w.toCluster && len(w.toNamespaces) == 0 && spec.Scope != nil {
		w.toCluster, w.toNamespaces = spec.Scope.Cluster, spec.Scope.Namespaces
	}
	if w.name == "" && w.caseID == "" {
		w.name = request.Name
	}
	return w
}

// setRequest names the request, and gives to whom no key was named the one with which they asked.
func (w wish) setRequest(g *v1alpha1.SupportAccessGrant) error {
	if w.request == nil {
		return nil
	}
	g.Spec.RequestRef = &v1alpha1.RequestReference{Name: w.request.Name, UID: w.request.UID, RequestedBy: w.request.Spec.RequestedBy}
	if len(g.Spec.Engineers) == 0 {
		g.Spec.Engineers = w.request.Spec.Engineers
	}
	for i := range g.Spec.Engineers {
		e := &g.Spec.Engineers[i]
		asked := slices.IndexFunc(w.request.Spec.Engineers, func(p v1alpha1.Engineer) bool { return p.Name == e.Name })
		if e.PublicKey == "" && asked >= 0 {
			e.PublicKey = w.request.Spec.Engineers[asked].PublicKey
		}
	}
	return nil
}
