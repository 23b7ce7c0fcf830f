package serve

import (
	"context"
	"fmt"
	"slices"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// APIServer is a Guard that asks the API server.
type APIServer struct {
	Client client.Client
	// Audiences are for whom a token must have been issued. With one of its own the log takes no token that would be good
	// for anything else; with none it takes those that are good for the API server.
	Audiences []string
}

// Identify asks whose token it is.
func (a *APIServer) Identify(ctx context.Context, token string) (*authenticationv1.UserInfo, error) {
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: a.Audiences}}
	if err := a.Client.Create(ctx, review); err != nil {
		return nil, fmt.Errorf("review a token: %w", err)
	}
	if !review.Status.Authenticated || !forUs(a.Audiences, review.Status.Audiences) {
		return nil, nil //nolint:nilnil // It is nobody's.
	}
	return &review.Status.User, nil
}

// forUs says whether a token was issued for one of ours. An authenticator that knows no audiences names none.
func forUs(ours, theirs []string) bool {
	return len(ours) == 0 || slices.ContainsFunc(ours, func(our string) bool { return slices.Contains(theirs, our) })
}

// MayRead asks whether somebody may get supportaccessrecords/log.
func (a *APIServer) MayRead(ctx context.Context, who *authenticationv1.UserInfo, namespace string) (bool, error) {
	extra := map[string]authorizationv1.ExtraValue{}
	for name, values := range who.Extra {
		extra[name] = authorizationv1.ExtraValue(values)
	}
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: who.Username, UID: who.UID, Groups: who.Groups, Extra: extra,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: "get", Group: "supportaccess.dev", Resource: "supportaccessrecords", Subresource: "log", Namespace: namespace,
		},
	}}
	if err := a.Client.Create(ctx, review); err != nil {
		return false, fmt.Errorf("review what %s may: %w", who.Username, err)
	}
	return review.Status.Allowed, nil
}
