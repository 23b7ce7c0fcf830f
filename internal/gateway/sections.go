package gateway

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/partial"
)

// sections knows which section of the log a product has put its own kinds into, by an annotation on their
// CustomResourceDefinitions. The log's own table has the rest.
type sections struct {
	reader client.Reader

	mu sync.RWMutex
	of map[schema.GroupResource]audit.Section
}

// SetupWithManager has definitions looked at whenever their metadata change. More than that of them is not read.
func (s *sections) SetupWithManager(mgr ctrl.Manager) error {
	everywhere := false
	return ctrl.NewControllerManagedBy(mgr).Named("sections").
		For(partial.Definition(), builder.OnlyMetadata).
		WithOptions(controller.Options{MaxConcurrentReconciles: 1, NeedLeaderElection: &everywhere}).
		Complete(reconcile.Func(s.look))
}

// look learns what one definition says. A word that is no section's is passed over: what is recorded meanwhile is in the
// section of the table.
func (s *sections) look(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	definition := partial.Definition()
	if err := s.reader.Get(ctx, request.NamespacedName, definition); client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("get CustomResourceDefinition %s: %w", request.Name, err)
	}
	// A definition is named after what it defines.
	kind, word := schema.ParseGroupResource(request.Name), definition.GetAnnotations()[v1alpha1.AnnotationSection]
	if word != "" && !audit.IsSection(word) {
		log.FromContext(ctx).Info("It is in no such section", "section", word, "sections", audit.Sections)
		word = ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if word == "" {
		delete(s.of, kind)
		return reconcile.Result{}, nil
	}
	s.of[kind] = audit.Section(word)
	return reconcile.Result{}, nil
}

// find returns the section into which a product has put a kind, nothing if it has not.
func (s *sections) find(group, resource string) audit.Section {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.of[schema.GroupResource{Group: group, Resource: resource}]
}
