package admission

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

const measured = 200

// measureFloor measures what a grant costs an API server without admission policies.
func (w *world) measureFloor(ctx context.Context) error {
	floor, err := measure(ctx, w.ana, grant(mail, "measured", stampedBy("ana")))
	w.floor = floor
	return err
}

func measure(ctx context.Context, who *person, object client.Object) ([]time.Duration, error) {
	var took []time.Duration
	for range measured {
		fresh := object.DeepCopyObject().(client.Object)
		began := time.Now()
		if err := who.Create(ctx, fresh, client.DryRunAll); err != nil {
			return nil, fmt.Errorf("measure: %w", err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took, nil
}

func TestWhatAdmissionCosts(t *testing.T) {
	took, err := measure(t.Context(), w.ana, grant(mail, "measured", stampedBy("ana")))
	if err != nil {
		t.Fatal(err)
	}
	show := func(what string, d []time.Duration) {
		t.Logf("%s: min %v, median %v, max %v of %d dry runs", what, d[0], d[len(d)/2], d[len(d)-1], len(d))
	}
	show("a grant without admission policies", w.floor)
	show("a grant with admission policies", took)
	t.Logf("after the last admission object was created: the canary was refused after %v, all held after %v", w.canaryAfter, w.inForceAfter)
	if median := took[len(took)/2]; median > 50*time.Millisecond {
		t.Errorf("admitting a grant takes %v", median)
	}
}
