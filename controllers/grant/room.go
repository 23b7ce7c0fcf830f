package grant

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/internal/lifecycle"
)

// room is where grants open, few at once: the other workers are left for what ends, and the API server is not kept busy
// by openings alone. A grant that finds no room waits outside the queue, in the order in which it came, and is called when
// another comes out. Its zero value has room for all.
type room struct {
	mu sync.Mutex
	// size is for how many there is room, zero for any number.
	size int
	// inside are the grants that open, and those that were called and have not come yet.
	inside map[types.NamespacedName]struct{}
	// line are the grants that wait, waiting the same by name. As long as there are any, no room is free.
	line    []types.NamespacedName
	waiting map[types.NamespacedName]struct{}
	// queue is where grants are called.
	queue workqueue.TypedRateLimitingInterface[reconcile.Request]
}

// workersForOne is of how many workers one may open grants. Opening is bound by the API server: more at once open little
// sooner, and a revocation in the middle of them takes much longer (docs/decisions/10-speed.md).
const workersForOne = 8

// furnish says how large the room is, and is a source of the controller's, for the sake of its queue.
func (r *Reconciler) furnish(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	r.room.mu.Lock()
	defer r.room.mu.Unlock()
	r.room.size, r.room.queue = max(1, r.Workers/workersForOne), queue
	r.room.inside, r.room.waiting = map[types.NamespacedName]struct{}{}, map[types.NamespacedName]struct{}{}
	return nil
}

// enter reports whether a grant may open now. One that may not is called later.
func (r *room) enter(key types.NamespacedName) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, called := r.inside[key]; called || r.size == 0 {
		return true
	}
	if len(r.inside) < r.size {
		r.inside[key] = struct{}{}
		return true
	}
	if _, known := r.waiting[key]; !known {
		r.waiting[key] = struct{}{}
		r.line = append(r.line, key)
	}
	return false
}

// leave makes room for the next in line. Every pass that was not turned away leaves, whatever it came to: a grant that was
// called may want something else by then.
func (r *room) leave(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, inside := r.inside[key]; !inside {
		return
	}
	delete(r.inside, key)
	if len(r.line) == 0 {
		return
	}
	next := r.line[0]
	r.line = r.line[1:]
	delete(r.waiting, next)
	r.inside[next] = struct{}{}
	enqueue(r.queue, priorityOpen, []types.NamespacedName{next})
}

// WaitingToOpen is how many grants wait until others have opened.
func (r *Reconciler) WaitingToOpen() int {
	r.room.mu.Lock()
	defer r.room.mu.Unlock()
	return len(r.room.line)
}

// foresee returns what a pass will come to, as far as the grant itself, its decisions and admission tell, where it may be
// one that opens. What takes somebody off a grant that is half open is not kept waiting, nor is what was opened.
func (r *Reconciler) foresee(s *sight) lifecycle.Verdict {
	if s.grant == nil || s.provisioned() {
		return lifecycle.Verdict{}
	}
	facts := s.facts()
	facts.World.AdmissionSince, facts.World.AdmissionPending = r.Admission.InForce()
	verdict := lifecycle.Decide(facts)
	if len(verdict.Removed) > 0 {
		return lifecycle.Verdict{}
	}
	return verdict
}
