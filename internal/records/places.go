package records

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/lifecycle"
)

const (
	// IndexPlaces finds the records of grants that have not ended, and their copies, by the namespaces that the grants reach.
	IndexPlaces = "places"
	// Everywhere stands in it for the whole cluster.
	Everywhere = "*"
)

// AddIndex lets records be found by IndexPlaces, for every controller that does.
func AddIndex(ctx context.Context, indexer client.FieldIndexer) error {
	return indexer.IndexField(ctx, &v1alpha1.SupportAccessRecord{}, IndexPlaces, Places)
}

// Places are where the grant of a record reaches, none where it has ended.
func Places(o client.Object) []string {
	record := o.(*v1alpha1.SupportAccessRecord)
	if !IsOfGrant(record) || record.Status.EndTime != nil {
		return nil
	}
	var places []string
	for _, place := range lifecycle.ScopeOf(record.Spec.Scope, record.Spec.Grant.Namespace) {
		if place == "" {
			place = Everywhere
		}
		places = append(places, place)
	}
	return places
}
