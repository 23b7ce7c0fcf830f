package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

// probe finds out whether the API server lets the gateway act as anybody at all. It asks, and does not go by the version:
// constrained impersonation has a feature gate. Until the answer is yes it says why not where the controller looks before it
// opens a grant, and asks again; after that it is not asked any more.
type probe struct {
	way      *upstream
	sessions *sessions
	clock    clock.WithTicker
	logger   logr.Logger

	mu    sync.Mutex
	asked bool
	why   error
}

// probeAgain is how soon the API server is asked again.
const probeAgain = 10 * time.Second

// unable is what is said where the API server refuses, and what can be done about it.
const unable = "the gateway can let nobody in: the API server does not let it act as engineers. It has no constrained impersonation " +
	"(feature gate ConstrainedImpersonation, on from Kubernetes 1.36), or the gateway's ClusterRoles are not bound. " +
	"Have the policy offer the transport Direct, or set the chart's value gateway.legacyImpersonation"

var (
	errNotAsked = errors.New("the API server was not asked yet whether the gateway may act as engineers")
	errUnable   = errors.New(unable)
)

// problem says why nobody could be let in, nil while somebody could.
func (p *probe) problem() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.asked {
		return errNotAsked
	}
	return p.why
}

// run asks until the API server says yes and that is known.
func (p *probe) run(ctx context.Context) {
	ticker := p.clock.NewTicker(probeAgain)
	defer ticker.Stop()
	for !p.settle(ctx) {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
		}
	}
}

// settle asks once and makes the answer known. It reports whether there is nothing left to do.
func (p *probe) settle(ctx context.Context) bool {
	why := p.ask(ctx)
	p.mu.Lock()
	again := p.why != nil && why != nil && p.why.Error() == why.Error()
	p.asked, p.why = true, why
	p.mu.Unlock()
	if why != nil && !again {
		p.logger.Error(why, "Nobody can be let in")
	}
	// That the API server did not answer is no word of its about impersonation.
	if why != nil && !errors.Is(why, errUnable) {
		return false
	}
	bounded, cancel := context.WithTimeout(ctx, acknowledgement)
	defer cancel()
	if err := p.sessions.itself(bounded, why); err != nil {
		p.logger.Error(err, "Could not say whether anybody can be let in")
		return false
	}
	return why == nil
}

// ask has the API server say who the gateway is as a user that nobody is. What was just installed takes a moment to be heard
// of there.
func (p *probe) ask(ctx context.Context) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, askEvery, allowedWithin, true, func(ctx context.Context) (bool, error) {
		said := p.way.review(ctx, func(header http.Header) {
			header.Set("Impersonate-User", v1alpha1.ProbeUser)
			header["Impersonate-Group"] = []string{v1alpha1.EngineersGroup}
		})
		// An answer counts for more than that the time was over before the next one.
		if ctx.Err() == nil || last == nil {
			last = said
		}
		return said == nil, nil
	})
	if err == nil {
		return nil
	}
	var refused *refusedError
	if errors.As(last, &refused) && refused.status == http.StatusForbidden {
		return errUnable
	}
	return fmt.Errorf("ask the API server whether the gateway may act as engineers: %w", errors.Join(err, last))
}

// itself makes known why this replica can let nobody in, or that it can again where it had said otherwise.
func (s *sessions) itself(ctx context.Context, why error) error {
	wanted := &v1alpha1.SupportAccessSession{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: sessionName(s.replica, v1alpha1.GatewayItself), OwnerReferences: s.owner},
		Spec: v1alpha1.SupportAccessSessionSpec{
			Grant:   v1alpha1.SessionGrant{Namespace: v1alpha1.SystemNamespace, Name: v1alpha1.GatewayServiceAccount, UID: v1alpha1.GatewayItself},
			Replica: s.replica,
		},
	}
	if why != nil {
		wanted.Status.Unable = why.Error()
	}
	found := &v1alpha1.SupportAccessSession{}
	err := s.client.Get(ctx, client.ObjectKeyFromObject(wanted), found)
	switch {
	case apierrors.IsNotFound(err) && why == nil:
		return nil
	case apierrors.IsNotFound(err):
		err = s.client.Create(ctx, wanted)
	case err == nil && found.Status.Unable != wanted.Status.Unable:
		found.Status = wanted.Status
		err = s.client.Update(ctx, found)
	}
	if err != nil {
		return fmt.Errorf("write session %s: %w", wanted.Name, err)
	}
	return nil
}
