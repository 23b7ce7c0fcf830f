package gateway

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/internal/audit"
	changes "supportaccess.dev/operator/internal/audit/change"
)

// Options are what a gateway is made of.
type Options struct {
	// Listener takes the connections of clients. It is closed by the gateway.
	Listener net.Listener
	// Certificate returns the serving certificate, at every handshake anew.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// API is how the gateway reaches the API server, as itself.
	API *rest.Config
	// Hearing is Hear's, which wraps the configuration of the cache from which Reader reads.
	Hearing *Hearing
	// Reader reads from the cache.
	Reader client.Reader
	// Client writes sessions, and reads them from the API server itself.
	Client client.Client
	// Secrets are what replicas share, and nobody else has: each knows by them the requests that another let in. Without
	// any a replica knows its own. The first is the one in use.
	Secrets [][]byte
	// Log puts on record what engineers do.
	Log audit.Log
	// Replica is the name of the gateway's pod, ReplicaUID its UID where it is known.
	Replica    string
	ReplicaUID types.UID
	// Registry takes the metrics.
	Registry prometheus.Registerer
	// Clock says what time it is.
	Clock clock.WithTicker
	// Logger tells of what an operator of the cluster should know. It is never told what engineers do.
	Logger logr.Logger
}

// Gateway is the door, with everything that it needs.
type Gateway struct {
	options     Options
	grants      *Grants
	connections *connections
	sessions    *sessions
	journal     *journal
	sections    *sections
	counters    *counters
	probe       *probe
	seal        *seal
	server      *http.Server
}

const (
	// sweepEvery is how often the gateway looks for what rests, for what it is blind to, and says who is there.
	sweepEvery = 5 * time.Second
	// acknowledgement bounds the writing of one session object.
	acknowledgement = 10 * time.Second
	// draining is for how long the gateway waits, when it stops, for requests that are no streams.
	draining = 2 * time.Second
	// maxHeader is how long the head of a request may be.
	maxHeader = 64 << 10
	// maxStreams is how many requests one HTTP/2 connection may have under way.
	maxStreams = 250
)

// New puts a gateway together.
func New(o Options) (*Gateway, error) {
	way, err := newUpstream(o.API)
	if err != nil {
		return nil, err
	}
	g := &Gateway{
		options: o, connections: newConnections(o.Clock), sections: &sections{reader: o.Reader, of: map[schema.GroupResource]audit.Section{}},
	}
	masker, err := o.masker()
	if err != nil {
		return nil, err
	}
	g.journal = newJournal(&o, masker, g.sections)
	g.sessions = &sessions{
		client: o.Client, clock: o.Clock, replica: o.Replica, owner: ownerOf(o.Replica, o.ReplicaUID), presenceOf: g.connections.presenceOf, endedOf: g.connections.endedOf,
	}
	g.probe = &probe{way: way, sessions: g.sessions, clock: o.Clock, logger: o.Logger}
	if g.counters, err = newCounters(o.Registry, g.connections.count, func() float64 { return o.Hearing.age().Seconds() }); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	if g.seal, err = newSeal(o.Secrets); err != nil {
		return nil, err
	}
	g.grants = &Grants{Reader: o.Reader, Clock: o.Clock, Cut: g.cut}
	g.server = &http.Server{
		Handler: &door{
			grants: g.grants, connections: g.connections, presence: g.sessions, freshness: o.Hearing, proxy: way.proxy(), identities: &identities{way: way}, logger: o.Logger,
			recorder: g.journal, seal: g.seal,
			clock: o.Clock, infos: requestInfos(), longRunning: longRunning(), counters: g.counters,
		},
		ConnContext:       g.connections.accept,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: o.Certificate, NextProtos: []string{"h2", "http/1.1"}},
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
		ErrorLog:          discardLog,
	}
	return g, nil
}

// masker returns what masks commands by the first key of the log, or by one of its own where there is none.
func (o *Options) masker() (*changes.Masker, error) {
	secret := make([]byte, sha256.Size)
	if len(o.Secrets) > 0 {
		secret = o.Secrets[0]
	} else {
		_, _ = rand.Read(secret)
	}
	return changes.NewMasker(secret, nil)
}

func ownerOf(pod string, uid types.UID) []metav1.OwnerReference {
	if uid == "" {
		return nil
	}
	return []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod, UID: uid}}
}

// SetupWithManager has the gateway run by a manager, on every replica.
func (g *Gateway) SetupWithManager(mgr ctrl.Manager) error {
	if err := g.grants.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("watch grants: %w", err)
	}
	if err := g.sections.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("watch definitions: %w", err)
	}
	return mgr.Add(g)
}

// NeedLeaderElection says that every replica serves.
func (g *Gateway) NeedLeaderElection() bool { return false }

// Start serves until the context is done, and then lets nobody stay.
func (g *Gateway) Start(ctx context.Context) error {
	go g.probe.run(ctx)
	if err := g.grants.LookAtAll(ctx); err != nil {
		return fmt.Errorf("look at the grants: %w", err)
	}
	go g.sweep(ctx)
	failed := make(chan error, 1)
	go func() { failed <- g.server.ServeTLS(countedListener{g.options.Listener}, "", "") }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve engineers: %w", err)
	case <-ctx.Done():
	}
	return g.drain()
}

// drain ends every stream, with a word to its client, has what else is under way answered, and ends what is left after that.
// The client's tools come back by themselves, to another replica.
func (g *Gateway) drain() error {
	ctx, cancel := context.WithTimeout(context.Background(), draining)
	defer cancel()
	stops := &end{reason: "Draining", message: "this replica of the gateway stops: connect again"}
	shut := make(chan error, 1)
	go func() { shut <- g.server.Shutdown(ctx) }()
	g.connections.endStreams(stops)
	err := <-shut
	g.connections.closeAll(stops)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("stop serving: %w", err)
	}
	ctx, cancel = context.WithTimeout(context.Background(), draining)
	defer cancel()
	if err := g.sessions.renew(ctx); err != nil {
		g.options.Logger.Info("Could not say that nobody is connected any more", "error", err.Error())
	}
	defer g.journal.flush()
	return g.server.Close()
}

// Ready fails while nobody could be let in.
func (g *Gateway) Ready(*http.Request) error {
	if stale := g.options.Hearing.Stale(); stale != "" {
		return errors.New(stale)
	}
	if !g.grants.looked.Load() {
		return errors.New(notLooked)
	}
	return nil
}

// MayAct fails while it is not known that the API server lets the gateway act as anybody.
func (g *Gateway) MayAct(*http.Request) error { return g.probe.problem() }

// cut ends what is open of a grant and says so when it is done.
func (g *Gateway) cut(cutting Cutting) {
	g.connections.Cut(cutting, func(connections int) {
		if connections > 0 {
			g.counters.cut(cutting.Reason, connections)
			g.options.Logger.Info("Cut", "reason", cutting.Reason, "connections", connections, "grantUID", cutting.Grant)
		}
		if !cutting.Over {
			return
		}
		go g.acknowledge(cutting, connections)
	})
}

// acknowledge says that nobody of a grant is connected any more. The API server may be away: it is tried until it is not.
func (g *Gateway) acknowledge(cutting Cutting, connections int) {
	ctx, cancel := context.WithTimeout(context.Background(), acknowledgement)
	defer cancel()
	if err := g.sessions.cut(ctx, cutting.Grant, cutting.Reason, connections); err != nil {
		g.sessions.owe(cutting.Grant, cutting.Reason, connections)
	}
}

// sweep does what no event asks for.
func (g *Gateway) sweep(ctx context.Context) {
	ticker := g.options.Clock.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
		}
		if err := g.grants.lookAtOverdue(ctx); err != nil {
			g.options.Logger.Error(err, "Could not look at the grants whose time is over")
		}
		g.connections.closeIdle()
		if g.options.Hearing.blind() {
			g.connections.closeAll(&end{reason: "Blind", message: "the gateway has heard nothing of grants for too long to know whether you may stay"})
		}
		bounded, cancel := context.WithTimeout(ctx, acknowledgement)
		if err := g.sessions.renew(bounded); err != nil {
			g.options.Logger.V(1).Info("Could not say who is connected", "error", err.Error())
		}
		cancel()
	}
}
