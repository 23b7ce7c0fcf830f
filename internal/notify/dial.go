package notify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// Reach is where channels may lead. Nil allows what anybody may be sent to: no address of this machine, none of this link,
// and none at which clouds give credentials to whoever asks.
type Reach struct {
	// Allowed are addresses that channels may reach although they would not.
	Allowed []netip.Prefix
	// Plaintext lets channels go without TLS.
	Plaintext bool
}

// metadata are the addresses at which clouds give away credentials, besides those of the link.
var metadata = []netip.Prefix{
	netip.MustParsePrefix("100.100.100.200/32"),
	netip.MustParsePrefix("168.63.129.16/32"),
	netip.MustParsePrefix("fd00:ec2::/32"),
	netip.MustParsePrefix("fd20:ce::/32"),
}

// embedded are IPv6 addresses that stand for an IPv4 address: in which bytes it lies.
var embedded = []struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12},
	{netip.MustParsePrefix("2002::/16"), 2},
	{netip.MustParsePrefix("::/96"), 12},
}

// Permits reports whether a channel may lead to an address.
func (r *Reach) Permits(address netip.Addr) bool {
	address = address.Unmap().WithZone("")
	if !address.IsValid() {
		return false
	}
	if r != nil {
		for _, allowed := range r.Allowed {
			if allowed.Contains(address) {
				return true
			}
		}
	}
	if !address.IsGlobalUnicast() {
		return false // Loopback, link-local, multicast, broadcast, unspecified.
	}
	if first := address.As16()[12]; address.Is4() && (first == 0 || first >= 240) {
		return false
	}
	for _, m := range metadata {
		if m.Contains(address) {
			return false
		}
	}
	return r.permitsEmbedded(address)
}

func (r *Reach) permitsEmbedded(address netip.Addr) bool {
	bytes := address.As16()
	for _, e := range embedded {
		if address.Is6() && e.prefix.Contains(address) {
			return r.Permits(netip.AddrFrom4([4]byte(bytes[e.at : e.at+4])))
		}
	}
	return true
}

func (r *Reach) plaintext() bool { return r != nil && r.Plaintext }

// errForbidden is why a connection was not even tried.
var errForbidden = errors.New("channels may not reach this address; --notify-allow names those that they may")

// dialTimeout bounds how long a connection takes to come about.
const dialTimeout = 10 * time.Second

// dial connects. The address is judged after its name was looked up, at the very moment of connecting: a name may mean
// something else each time that it is asked for.
func (r *Reach) dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialTimeout, Control: func(network, address string, _ syscall.RawConn) error {
		if !strings.HasPrefix(network, "tcp") {
			return fmt.Errorf("connect by %s: %w", network, errForbidden)
		}
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("read address %q: %w", address, err)
		}
		if !r.Permits(to.Addr()) {
			return fmt.Errorf("connect to %s: %w", to.Addr(), errForbidden)
		}
		return nil
	}}
	return dialer.DialContext(ctx, network, address)
}
