package grant

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/lifecycle"
)

// Where many grants end at once, each waits for the bindings of those before it, not for all that follows: so a grant is
// closed in two passes. The first deletes its bindings, ahead of everything in the queue; the second, behind them, does
// whatever is left and puts it on record.

// cut is what a first pass did.
type cut struct {
	// grant is whose bindings were deleted.
	grant types.UID
	// heard is when the pass began, and gone when the bindings were deleted.
	heard, gone time.Time
}

// cutFirst deletes the bindings of a grant that ends, and reports whether it did. It remembers that in memory alone: after
// a crash they are deleted once more, which takes nothing from anybody. What it cannot delete is left to the second pass.
func (r *Reconciler) cutFirst(ctx context.Context, s *sight) bool {
	if s.cut.grant != "" || !s.mustCut() {
		return false
	}
	if err := r.Keeper.Cut(ctx, access.RemainsOf(s.record, nil).Bindings); err != nil {
		return false
	}
	s.cut = cut{grant: s.record.Spec.Grant.UID, heard: s.now, gone: r.Clock.Now()}
	r.cuts.Store(s.key, s.cut)
	return true
}

// mustCut reports whether an open grant ends for a reason that nothing takes back: its time, its deletion, a decision. Of
// an end that follows from what was found in the cluster the API server is asked first, and it is put on record what was
// cut by hand, before anything is deleted: that is one pass.
func (s *sight) mustCut() bool {
	return s.grant != nil && s.provisioned() && !s.ended() && lifecycle.Decide(s.facts()).Wants == lifecycle.WantsClosed
}

// behind is how a grant comes back for its second pass.
func behind() reconcile.Result {
	priority := priorityRest
	return reconcile.Result{RequeueAfter: time.Millisecond, Priority: &priority}
}

// recall looks what a first pass did about the grant, and forgets it once that is on record.
func (r *Reconciler) recall(s *sight) {
	done, ok := r.cuts.Load(s.key)
	if !ok {
		return
	}
	if s.record == nil || s.ended() || s.record.Spec.Grant.UID != done.(cut).grant {
		r.cuts.Delete(s.key)
		return
	}
	s.cut = done.(cut)
}
