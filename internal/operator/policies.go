package operator

import (
	"context"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// policyClient is the manager's client, but for reading policies: the cache would wait for a kind that somebody deleted, for
// ever, and nothing would close meanwhile.
type policyClient struct {
	client.Client
	cache cache.Cache
	live  client.Reader
}

// policyClientOf returns the policyClient of a manager.
func policyClientOf(mgr ctrl.Manager) policyClient {
	return policyClient{Client: mgr.GetClient(), cache: mgr.GetCache(), live: mgr.GetAPIReader()}
}

// Get reads an object from the cache. A policy it reads from the API server itself until the cache has heard of all of them.
func (c policyClient) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	policy, ok := o.(*v1alpha1.SupportAccessPolicy)
	if !ok {
		return c.Client.Get(ctx, key, o, opts...)
	}
	informer, err := c.cache.GetInformer(ctx, &v1alpha1.SupportAccessPolicy{}, cache.BlockUntilSynced(false))
	if err != nil || !informer.HasSynced() {
		return c.live.Get(ctx, key, policy, opts...)
	}
	return c.Client.Get(ctx, key, policy, opts...)
}
