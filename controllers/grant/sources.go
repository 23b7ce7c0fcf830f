package grant

import (
	"context"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/records"
)

func enqueue(q workqueue.TypedRateLimitingInterface[reconcile.Request], priority int, keys []types.NamespacedName) {
	prioritizing, ok := q.(priorityqueue.PriorityQueue[reconcile.Request])
	for _, key := range keys {
		request := reconcile.Request{NamespacedName: key}
		if !ok {
			q.Add(request)
			continue
		}
		prioritizing.AddWithOpts(priorityqueue.AddOpts{Priority: &priority}, request)
	}
}

func (r *Reconciler) grantsOfGrant(_ context.Context, o client.Object) []types.NamespacedName {
	return []types.NamespacedName{client.ObjectKeyFromObject(o)}
}

// grantsOfRecord maps a record to the grant it is about. Mirrors and tombstones lie elsewhere and wake the same grant.
func (r *Reconciler) grantsOfRecord(_ context.Context, o client.Object) []types.NamespacedName {
	record := o.(*v1alpha1.SupportAccessRecord)
	if !records.IsOfGrant(record) {
		return nil
	}
	grant := record.Spec.Grant
	return []types.NamespacedName{{Namespace: grant.Namespace, Name: grant.Name}}
}

// grantsOfDecision maps a decision to every grant that it may concern. A wide one concerns all of a namespace or of the
// cluster; those that have ended are passed over by their records.
func (r *Reconciler) grantsOfDecision(ctx context.Context, o client.Object) []types.NamespacedName {
	decision := o.(*v1alpha1.SupportAccessDecision)
	target := decision.Spec.Target
	switch {
	case target.Grant != "":
		return []types.NamespacedName{{Namespace: decision.Namespace, Name: target.Grant}}
	case target.Namespace == v1alpha1.TargetAll:
		return r.grantsIn(ctx, decision.Namespace)
	case target.Cluster == v1alpha1.TargetAll && decision.Namespace == v1alpha1.SystemNamespace:
		return r.grantsIn(ctx, "")
	default:
		return nil
	}
}

// grantsIn returns the grants and the records' grants of a namespace, of all namespaces where it is empty: a grant may
// be there without a record yet, and a record without its grant.
func (r *Reconciler) grantsIn(ctx context.Context, namespace string) []types.NamespacedName {
	keys := map[types.NamespacedName]struct{}{}
	grants := &v1alpha1.SupportAccessGrantList{}
	if err := r.Client.List(ctx, grants, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err == nil {
		for i := range grants.Items {
			if grants.Items[i].Status.EndTime == nil {
				keys[client.ObjectKeyFromObject(&grants.Items[i])] = struct{}{}
			}
		}
	}
	records := &v1alpha1.SupportAccessRecordList{}
	if err := r.Client.List(ctx, records, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err == nil {
		for i := range records.Items {
			if grant := records.Items[i].Spec.Grant; grant.Name != "" && records.Items[i].Status.EndTime == nil {
				keys[types.NamespacedName{Namespace: grant.Namespace, Name: grant.Name}] = struct{}{}
			}
		}
	}
	out := make([]types.NamespacedName, 0, len(keys))
	for key := range keys {
		out = append(out, key)
	}
	return out
}

func (r *Reconciler) allGrants(ctx context.Context, _ client.Object) []types.NamespacedName {
	return r.grantsIn(ctx, "")
}

func grantsOfChild(_ context.Context, o client.Object) []types.NamespacedName {
	key, ok := access.GrantOf(o)
	if !ok {
		return nil
	}
	return []types.NamespacedName{key}
}

// grantsOfRole maps a ClusterRole to the grants that have it and have not ended.
func (r *Reconciler) grantsOfRole(ctx context.Context, o client.Object) []types.NamespacedName {
	return r.grantsOfRecords(ctx, client.MatchingFields{indexRoles: o.GetName()})
}

// grantsOfNamespace maps a namespace to the grants that name it and those that lie in it. What reaches the whole cluster goes by
// its own namespace.
func (r *Reconciler) grantsOfNamespace(ctx context.Context, o client.Object) []types.NamespacedName {
	keys := r.grantsOfRecords(ctx, client.MatchingFields{records.IndexPlaces: o.GetName()})
	return append(keys, r.grantsIn(ctx, o.GetName())...)
}

func (r *Reconciler) grantsOfRecords(ctx context.Context, option client.ListOption) []types.NamespacedName {
	records := &v1alpha1.SupportAccessRecordList{}
	if err := r.Client.List(ctx, records, option, client.UnsafeDisableDeepCopy); err != nil {
		return nil
	}
	keys := make([]types.NamespacedName, 0, len(records.Items))
	for i := range records.Items {
		grant := records.Items[i].Spec.Grant
		keys = append(keys, types.NamespacedName{Namespace: grant.Namespace, Name: grant.Name})
	}
	return keys
}
