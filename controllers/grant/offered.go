package grant

import (
	"context"
	"fmt"

	"supportaccess.dev/operator/internal/access"
)

// Binder says which ClusterRoles the operator itself may bind.
type Binder interface {
	// MayBind reports whether it may bind one.
	MayBind(ctx context.Context, role string) (bool, error)
}

// seeOffered notes which roles of a grant that is yet to open the operator itself may not bind. A policy may offer any role;
// the installation says which the operator may give away.
func (r *Reconciler) seeOffered(ctx context.Context, s *sight) error {
	if r.Binder == nil || s.provisioned() || s.record != nil && s.foreign {
		return nil
	}
	for i, name := range s.roleNames() {
		may, err := r.Binder.MayBind(ctx, name)
		if err != nil {
			return err
		}
		if !may {
			s.world.Missing = append(s.world.Missing, fmt.Sprintf(
				"spec.roles[%d]: the operator may not bind ClusterRole %q: name it in offeredRoles of the chart, or take it out of the policy", i, name))
		}
	}
	return nil
}

// dropBegun takes back the bindings of an opening that did not come to its end, of a grant that must not open now: while a
// person mends something nothing is open.
func (r *Reconciler) dropBegun(ctx context.Context, s *sight) error {
	if s.foreign || s.provisioned() || !s.mayExist() {
		return nil
	}
	return r.Keeper.Unbind(ctx, access.RemainsOf(s.record, s.scope()))
}
