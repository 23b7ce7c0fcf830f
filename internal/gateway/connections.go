package gateway

import (
	"context"
	"crypto/tls"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/clock"
)

// connections are the client connections of one gateway. One connection is one engineer's with one grant: what is cut is
// the connection, with everything that runs over it.
type connections struct {
	clock clock.PassiveClock

	mu   sync.Mutex
	open map[*connection]struct{}
	// closed are the grants that are over, so that none of them comes in between the check and the list.
	closed map[types.UID]*end
}

// connection is one client connection.
type connection struct {
	raw  net.Conn
	list *connections
	// seen is when a byte last went either way, in nanoseconds since the epoch.
	seen atomic.Int64

	mu sync.Mutex
	// grant and engineer are whose it is, empty until the first request that is let through.
	grant    types.NamespacedName
	uid      types.UID
	engineer string
	// hash is of the credential that it is used with.
	hash   string
	limits limits
	// exchanges are the requests that are under way.
	exchanges map[*exchange]struct{}
	// cut is why it was closed, nil while it is open.
	cut *end
}

type connectionKey struct{}

func newConnections(clock clock.PassiveClock) *connections {
	return &connections{clock: clock, open: map[*connection]struct{}{}, closed: map[types.UID]*end{}}
}

// accept takes over a new connection: it is http.Server's ConnContext.
func (l *connections) accept(ctx context.Context, raw net.Conn) context.Context {
	if secure, ok := raw.(*tls.Conn); ok {
		raw = secure.NetConn()
	}
	c := &connection{raw: raw, list: l, exchanges: map[*exchange]struct{}{}}
	c.touch()
	if counted, ok := raw.(*countedConn); ok {
		counted.owner.Store(c)
	}
	l.mu.Lock()
	l.open[c] = struct{}{}
	l.mu.Unlock()
	return context.WithValue(ctx, connectionKey{}, c)
}

// drop forgets a connection that is closed.
func (l *connections) drop(c *connection) {
	l.mu.Lock()
	delete(l.open, c)
	l.mu.Unlock()
}

func connectionOf(ctx context.Context) *connection {
	c, _ := ctx.Value(connectionKey{}).(*connection)
	return c
}

func (c *connection) touch() { c.seen.Store(c.list.clock.Now().UnixNano()) }

// idleSince returns when a byte last went either way.
func (c *connection) idleSince() time.Time { return time.Unix(0, c.seen.Load()) }

// enter puts a request on the list of its connection. It returns why the request may not go on: the connection is
// somebody else's, it was cut, its grant is over, or the engineer has too many.
//
// Whoever enters asks again afterwards whether the grant is open: a cut that came before found nothing to cut.
func (c *connection) enter(x *exchange) *refusal {
	l := c.list
	l.mu.Lock()
	defer l.mu.Unlock()
	if ended := l.closed[x.standing.uid]; ended != nil {
		return x.over(ended)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut == nil && c.rests() && x.request.ProtoMajor == 1 && (c.uid != x.standing.uid || c.engineer != x.engineer) {
		// An ingress keeps connections for whoever comes next, and over HTTP/1.1 one request has ended before another begins.
		c.grant, c.uid, c.engineer = types.NamespacedName{}, "", ""
	}
	if c.cut != nil {
		return x.over(c.cut)
	}
	if c.engineer != "" && (c.uid != x.standing.uid || c.hash != x.hash) {
		return badRequest("this connection is in use with another credential: make another connection")
	}
	if c.engineer == "" {
		if n := l.countOf(x.standing.uid, x.engineer); n >= x.standing.limits.connections {
			return tooMany(n)
		}
		c.grant, c.uid, c.engineer, c.hash = x.standing.key, x.standing.uid, x.engineer, x.hash
	}
	c.limits = x.standing.limits
	c.exchanges[x] = struct{}{}
	return nil
}

// rests reports whether no request is under way. The connection is locked.
func (c *connection) rests() bool { return len(c.exchanges) == 0 }

// leave takes a request off the list of its connection.
func (c *connection) leave(x *exchange) {
	c.mu.Lock()
	delete(c.exchanges, x)
	c.mu.Unlock()
}

// endedOf returns why nobody of a grant can come in any more, nil while somebody can.
func (l *connections) endedOf(uid types.UID) *end {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed[uid]
}

// countOf returns how many connections an engineer has open with a grant. The list is locked.
func (l *connections) countOf(uid types.UID, engineer string) int {
	n := 0
	for c := range l.open {
		if c.belongsTo(uid) && c.engineer == engineer {
			n++
		}
	}
	return n
}

// belongsTo reports whether a connection is a grant's. Whose it is is written under the lock of the list.
func (c *connection) belongsTo(uid types.UID) bool { return c.uid == uid }

// Cut ends what is open of a grant, but for the engineers who may stay with the credential that they have. It returns at
// once, and calls done when the last connection is closed, with how many there were.
func (l *connections) Cut(cutting Cutting, done func(connections int)) {
	why := &end{reason: cutting.Reason, message: cutting.Message}
	leaving := map[*connection]*end{}
	l.mu.Lock()
	if cutting.Over {
		l.closed[cutting.Grant] = why
	}
	for c := range l.open {
		switch {
		case !c.belongsTo(cutting.Grant):
		case !slices.Contains(cutting.Staying, c.engineer):
			leaving[c] = why
		case cutting.Credentials[c.hash] != c.engineer:
			leaving[c] = credentialReplaced()
		}
	}
	l.mu.Unlock()
	if len(leaving) == 0 {
		done(0)
		return
	}
	go func() {
		var group sync.WaitGroup
		for c, why := range leaving {
			group.Go(func() { c.close(why) })
		}
		group.Wait()
		done(len(leaving))
	}()
}

// farewell is for how long a cut waits to tell the client why.
const farewell = 200 * time.Millisecond

// close ends a connection: no request enters it any more, what is under way is told why where its protocol has a way, and
// then the connection is gone, whether the client reads or not.
func (c *connection) close(why *end) {
	c.mu.Lock()
	if c.cut != nil {
		c.mu.Unlock()
		return
	}
	c.cut = why
	under := make([]*exchange, 0, len(c.exchanges))
	for x := range c.exchanges {
		under = append(under, x)
	}
	c.mu.Unlock()

	before := c.writes()
	var group sync.WaitGroup
	var untold atomic.Int32
	for _, x := range under {
		group.Go(func() {
			if !x.end(why) {
				untold.Add(1)
			}
		})
	}
	group.Wait()
	if len(under) == 0 || untold.Load() > 0 || !c.wrote(before) {
		abort(c.raw)
	} else {
		_ = c.raw.Close()
	}
	c.list.drop(c)
}

// writes returns how often something was written to the client.
func (c *connection) writes() int64 {
	if counted, ok := c.raw.(*countedConn); ok {
		return counted.writes.Load()
	}
	return 0
}

// wrote waits until something was written to the client since a count was taken: over HTTP/2 what a handler has flushed may
// still be on its way to the connection. It reports whether something was.
func (c *connection) wrote(since int64) bool {
	return wait.PollUntilContextTimeout(context.Background(), time.Millisecond, farewell/4, true, func(context.Context) (bool, error) {
		return c.writes() > since, nil
	}) == nil
}

// abort closes a connection without a word: what is not yet sent is thrown away, so that a client that does not read
// cannot hold it.
func abort(raw net.Conn) {
	if counted, ok := raw.(*countedConn); ok {
		raw = counted.Conn
	}
	if tcp, ok := raw.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = raw.Close()
}

// closeIdle closes the connections over which nothing has gone for longer than their policy lets them rest.
func (l *connections) closeIdle() {
	now := l.clock.Now()
	var resting []*connection
	l.mu.Lock()
	for c := range l.open {
		if c.engineer != "" && now.Sub(c.idleSince()) > c.limits.idle {
			resting = append(resting, c)
		}
	}
	l.mu.Unlock()
	for _, c := range resting {
		c.close(&end{reason: "Idle", message: "nothing went over this connection for " + c.limits.idle.String()})
	}
}

// closeAll closes every connection of an engineer.
func (l *connections) closeAll(why *end) {
	var group sync.WaitGroup
	l.mu.Lock()
	for c := range l.open {
		if c.engineer != "" {
			group.Go(func() { c.close(why) })
		}
	}
	l.mu.Unlock()
	group.Wait()
}

// endStreams ends every stream, and leaves its connection to what else is under way there.
func (l *connections) endStreams(why *end) {
	var group sync.WaitGroup
	l.mu.Lock()
	for c := range l.open {
		c.mu.Lock()
		for x := range c.exchanges {
			if x.longRunning {
				group.Go(func() { x.end(why) })
			}
		}
		c.mu.Unlock()
	}
	l.mu.Unlock()
	group.Wait()
}

// count returns how many connections engineers have open.
func (l *connections) count() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for c := range l.open {
		if c.engineer != "" {
			n++
		}
	}
	return float64(n)
}

// presence is one engineer's connections with one grant.
type presence struct {
	connections int
	lastSeen    time.Time
}

// presenceOf returns who is connected with a grant.
func (l *connections) presenceOf(uid types.UID) map[string]presence {
	found := map[string]presence{}
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		if !c.belongsTo(uid) {
			continue
		}
		p := found[c.engineer]
		p.connections++
		if at := c.idleSince(); at.After(p.lastSeen) {
			p.lastSeen = at
		}
		found[c.engineer] = p
	}
	return found
}

// countedListener hands out connections that know when a byte went over them.
type countedListener struct{ net.Listener }

// Accept waits for the next connection.
func (l countedListener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if tcp, ok := raw.(*net.TCPConn); ok {
		// A client that vanished without a word is found within a minute.
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 3})
	}
	return &countedConn{Conn: raw}, nil
}

// countedConn tells its connection when a byte went over it.
type countedConn struct {
	net.Conn
	owner  atomic.Pointer[connection]
	writes atomic.Int64
}

// Read reads, and is seen.
func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.seen(n)
	return n, err
}

// Write writes, and is seen.
func (c *countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.writes.Add(1)
	c.seen(n)
	return n, err
}

// Close forgets the connection as well: one that was taken over for a stream is closed here and nowhere else.
func (c *countedConn) Close() error {
	if owner := c.owner.Load(); owner != nil {
		owner.list.drop(owner)
	}
	return c.Conn.Close()
}

func (c *countedConn) seen(n int) {
	if owner := c.owner.Load(); owner != nil && n > 0 {
		owner.touch()
	}
}
