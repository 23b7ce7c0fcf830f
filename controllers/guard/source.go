package guard

import (
	"time"

	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

func sourceOf(events <-chan event.GenericEvent, to handler.EventHandler) source.Source {
	return source.Channel(events, to)
}

func optionsFor(needLease *bool) controller.Options {
	return controller.Options{MaxConcurrentReconciles: 1, NeedLeaderElection: needLease, ReconciliationTimeout: 30 * time.Second}
}
