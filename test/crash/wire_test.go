package crash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// How a write goes wrong.
const (
	// failed: it is refused, and nothing was written.
	failed = "fails"
	// lost: it is written, and the answer does not arrive.
	lost = "loses its answer"
	// killed: it is written, and the process does nothing more.
	killed = "is the last"
	// paused: before it is sent the process stands still, and somebody else goes on.
	paused = "is sent too late"
)

// errKilled is what a dead process sees of the API server: nothing.
var errKilled = errors.New("the process was killed")

// fault is one thing that goes wrong with one write.
type fault struct {
	how string
	// at is the write, as the trace of an undisturbed run names it.
	at string
	// meanwhile is what happens while the process stands still.
	meanwhile func()
}

// wire is the way from one process to the API server. It lets one call through at a time, counts the writes, and has the
// fault happen. Writes that the code makes at the same time go in the order of the trace, so that a run can be repeated.
type wire struct {
	inner client.WithWatch
	// plain makes a name the same in every run.
	plain func(string) string
	trace []string
	fault *fault
	// beforeWrite is called with every write that is about to be sent.
	beforeWrite func(verb string, o client.Object)
	// afterWrite is called with every write that was made.
	afterWrite func(o client.Object)
	// whim has a write go wrong, empty for none. gate says whose turn it is.
	whim func() string
	gate *gate
	// lifespan is after how many writes a mortal process is killed.
	mortal   bool
	lifespan int

	mu     sync.Mutex
	turn   *sync.Cond
	made   map[string]bool
	counts map[string]int
	// writes are the writes so far, failed ones too.
	writes []string
	fired  bool
	dead   bool
	// losing says that the write under way loses its answer.
	losing bool
	// strayed are writes that waited in vain for their turn.
	strayed []string
	// mute says that a write of a status failed in this pass.
	mute bool
}

func newWire(inner client.WithWatch, plain func(string) string) *wire {
	w := &wire{inner: inner, plain: plain, made: map[string]bool{}, counts: map[string]int{}}
	w.turn = sync.NewCond(&w.mu)
	return w
}

// client is what the reconcilers get: everything through the wire.
func (w *wire) client() client.WithWatch {
	return interceptor.NewClient(w.inner, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			return w.read(func() error { return c.Get(ctx, key, o, opts...) })
		},
		List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
			return w.read(func() error { return c.List(ctx, l, opts...) })
		},
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			return w.write(ctx, "create", o, func(o client.Object) error { return c.Create(ctx, o, opts...) })
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			return w.write(ctx, "update", o, func(o client.Object) error { return c.Update(ctx, o, opts...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			return w.write(ctx, "patch", o, func(o client.Object) error { return c.Patch(ctx, o, p, opts...) })
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			return w.write(ctx, "delete", o, func(o client.Object) error { return c.Delete(ctx, o, opts...) })
		},
		SubResourceCreate: func(ctx context.Context, c client.Client, sub string, o, body client.Object, opts ...client.SubResourceCreateOption) error {
			return w.write(ctx, "create "+sub+" of", o, func(o client.Object) error {
				if w.losing {
					body = body.DeepCopyObject().(client.Object)
				}
				return c.SubResource(sub).Create(ctx, o, body, opts...)
			})
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
			return w.write(ctx, "patch "+sub+" of", o, func(o client.Object) error { return c.SubResource(sub).Patch(ctx, o, p, opts...) })
		},
	})
}

func (w *wire) read(call func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		return errKilled
	}
	return call()
}

// write sends one write, in its turn, unless the fault is at it.
func (w *wire) write(ctx context.Context, verb string, o client.Object, send func(client.Object) error) error {
	if w.gate != nil {
		w.gate.enter(verb + " " + w.describe(o))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	what := w.number(verb + " " + w.describe(o))
	w.awaitTurn(what)
	if w.dead {
		return errKilled
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	w.writes = append(w.writes, what)
	err := w.send(what, verb, o, send)
	if err != nil && strings.Contains(verb, "status") {
		w.mute = true
	}
	w.made[what] = true
	w.turn.Broadcast()
	return err
}

func (w *wire) send(what, verb string, o client.Object, send func(client.Object) error) error {
	how := ""
	if w.whim != nil {
		how = w.whim()
	}
	if w.fault != nil && !w.fired && w.fault.at == what {
		how = w.fault.how
	}
	if how == paused {
		w.fault.meanwhile()
	}
	if how == failed {
		w.fired = true
		return apierrors.NewServiceUnavailable("the API server is told to fail")
	}
	if w.beforeWrite != nil {
		w.beforeWrite(verb, o)
	}
	target := o
	w.losing = how == lost
	if how == lost {
		target = o.DeepCopyObject().(client.Object)
	}
	err := send(target)
	if err == nil && w.afterWrite != nil {
		w.afterWrite(target)
	}
	if w.mortal && len(w.writes) >= w.lifespan {
		w.dead = true
		return errKilled
	}
	if how == "" {
		return err
	}
	w.fired = true
	switch how {
	case lost:
		return &url.Error{Op: "Post", URL: "https://kubernetes", Err: io.ErrUnexpectedEOF}
	case killed:
		w.dead = true
		return errKilled
	default:
		return err
	}
}

// turnLimit bounds how long a write waits for those before it in the trace.
const turnLimit = 2 * time.Second

// awaitTurn waits until the writes that come before this one in the trace were made.
func (w *wire) awaitTurn(what string) {
	limit := time.Now().Add(turnLimit)
	timer := time.AfterFunc(turnLimit, w.turn.Broadcast)
	defer timer.Stop()
	for !w.dead && !w.fired && w.before(what) != "" {
		if !time.Now().Before(limit) {
			w.strayed = append(w.strayed, fmt.Sprintf("%s: waited in vain for %s", what, w.before(what)))
			return
		}
		w.turn.Wait()
	}
}

// before returns a write of the trace that must come first, empty if there is none.
func (w *wire) before(what string) string {
	first := ""
	for _, earlier := range w.trace {
		if earlier == what {
			return first
		}
		if first == "" && !w.made[earlier] {
			first = earlier
		}
	}
	return ""
}

// number tells writes apart that are described alike.
func (w *wire) number(what string) string {
	w.counts[what]++
	if n := w.counts[what]; n > 1 {
		return fmt.Sprintf("%s (%d)", what, n)
	}
	return what
}

// describe names an object as it is called in every run.
func (w *wire) describe(o client.Object) string {
	if review, ok := o.(*authorizationv1.SubjectAccessReview); ok {
		a := review.Spec.ResourceAttributes
		return w.plain(fmt.Sprintf("SubjectAccessReview %s may %s %s in %s", review.Spec.User, a.Verb, a.Resource, a.Namespace))
	}
	return kindOf(o, w.inner.Scheme()) + " " + w.plain(o.GetNamespace()+"/"+o.GetName())
}

func kindOf(o client.Object, scheme *runtime.Scheme) string {
	gvk, err := apiutil.GVKForObject(o, scheme)
	if err != nil {
		return fmt.Sprintf("%T", o)
	}
	return gvk.Kind
}

// begin starts a pass.
func (w *wire) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mute = false
}

// count is how many writes there were so far.
func (w *wire) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.writes)
}

// isDead reports whether the process was killed.
func (w *wire) isDead() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dead
}
