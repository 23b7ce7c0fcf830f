package gateway

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/policies"
	"supportaccess.dev/operator/test/gen"
)

// watching has the API server answer a watch with one event and then nothing until the client is gone, and tells when it
// is gone.
func watching(w *world) (gone chan struct{}) {
	gone = make(chan struct{}, 64)
	w.answers(func(response http.ResponseWriter, r *http.Request) {
		response.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(response, `{"type":"ADDED","object":{}}`+"\n")
		response.(http.Flusher).Flush()
		<-r.Context().Done()
		gone <- struct{}{}
	})
	return gone
}

// watch opens a watch and reads its first event.
func (w *world) watch(c *http.Client, token string) (*http.Response, *bufio.Reader) {
	w.t.Helper()
	response, err := w.ask(c, token, http.MethodGet, configMaps+"?watch=1")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = response.Body.Close() })
	lines := bufio.NewReader(response.Body)
	if first, err := lines.ReadString('\n'); err != nil || !strings.Contains(first, "ADDED") {
		w.t.Fatalf("the watch began with %q, %v", first, err)
	}
	return response, lines
}

func TestARevocationCutsAWatchTellsWhyAndLeavesNothingAtTheAPIServer(t *testing.T) {
	for _, protocol := range []string{"h2", "http/1.1"} {
		t.Run(protocol, func(t *testing.T) {
			w := open(t)
			g := w.grant("case-1")
			gone := watching(w)
			_, lines := w.watch(w.client(protocol), g.token)
			w.revoke("case-1")
			last, err := io.ReadAll(lines)
			event := struct {
				Type   string
				Object metav1.Status
			}{}
			if jsonErr := json.Unmarshal(last, &event); jsonErr != nil || event.Type != "ERROR" || !strings.Contains(event.Object.Message, "case-1 is not open: Deleted") {
				t.Errorf("the watch ended with %q, %v: want an error event that says why", last, err)
			}
			select {
			case <-gone:
			case <-time.After(patience):
				t.Error("the API server still has the stream")
			}
			eventually(t, "the connection is gone", func() bool { return w.gateway.connections.count() == 0 })
		})
	}
}

func TestAStreamIsCutThoughItsClientDoesNotRead(t *testing.T) {
	w := open(t)
	g := w.grant("case-1")
	w.answers(func(response http.ResponseWriter, r *http.Request) {
		response.Header().Set("Content-Type", "application/json")
		for r.Context().Err() == nil {
			if _, err := io.WriteString(response, strings.Repeat("x", 1<<16)); err != nil {
				return
			}
		}
	})
	conn, err := tls.Dial("tcp", w.address, &tls.Config{RootCAs: w.roots})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = fmt.Fprintf(conn, "GET %s?watch=1 HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer %s\r\n\r\n", configMaps, g.token)
	last, since := int64(0), time.Now()
	eventually(t, "the stream stands still for 50 ms", func() bool {
		if sent := w.sent(); sent != last {
			last, since = sent, time.Now()
		}
		return last > 0 && time.Since(since) > 50*time.Millisecond
	})
	began := time.Now()
	w.revoke("case-1")
	eventually(t, "the connection is gone", func() bool { return w.gateway.connections.count() == 0 })
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
	eventually(t, "the end is on record", func() bool { return strings.Contains(w.log.trail(), "ResponseComplete watch") })
}

func TestAStreamIntoAPodIsCutAndItsClientIsTold(t *testing.T) {
	w := open(t)
	g := w.grant("case-1", gen.WithRoles(gen.Content))
	gone := make(chan struct{})
	w.answers(func(response http.ResponseWriter, r *http.Request) {
		upgrader := websocket.Upgrader{Subprotocols: []string{"v5.channel.k8s.io"}}
		conn, err := upgrader.Upgrade(response, r, nil)
		if err != nil {
			return
		}
		defer close(gone)
		defer func() { _ = conn.Close() }()
		_ = conn.WriteMessage(websocket.BinaryMessage, []byte{1, 'h', 'i'})
		_, _, _ = conn.ReadMessage()
	})
	dialer := websocket.Dialer{TLSClientConfig: &tls.Config{RootCAs: w.roots}, Subprotocols: []string{"v5.channel.k8s.io"}}
	header := http.Header{"Authorization": {"Bearer " + g.token}}
	conn, response, err := dialer.Dial("wss://"+w.address+"/api/v1/namespaces/mail-archive/pods/a/exec?command=sh&stdout=true", header)
	if err != nil {
		t.Fatalf("%v: %v", err, response)
	}
	defer func() { _ = conn.Close() }()
	_ = response.Body.Close()
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if _, message, err := conn.ReadMessage(); err != nil || string(message) != "\x01hi" {
		t.Fatalf("got %q, %v", message, err)
	}
	w.revoke("case-1")
	_, message, err := conn.ReadMessage()
	if err != nil || len(message) == 0 || message[0] != channelError || !strings.Contains(string(message), "case-1 is not open: Deleted") {
		t.Errorf("the last message is %q, %v: want the error channel to say why", message, err)
	}
	if _, _, err := conn.ReadMessage(); !websocket.IsCloseError(err, websocket.ClosePolicyViolation) {
		t.Errorf("the stream ended with %v, want a close that names a policy", err)
	}
	select {
	case <-gone:
	case <-time.After(patience):
		t.Error("the API server still has the stream")
	}
	eventually(t, "the stream is on record with why it ended", func() bool {
		entries := w.log.all()
		raw, _ := json.Marshal(entries[len(entries)-1])
		return len(entries) == 4 && entries[2].Type == audit.TypeRecording && strings.Contains(string(raw), `"Deleted`)
	})
}

func TestAStreamThatCarriesTooMuchIsCut(t *testing.T) {
	w := open(t)
	change(w, gen.Policy("default"), func(p *v1alpha1.SupportAccessPolicy) {
		p.Spec.Sessions = &v1alpha1.SessionLimits{MaxStreamBytes: 4096}
	})
	g := w.grant("case-1", gen.WithRoles(gen.Content))
	w.answers(func(response http.ResponseWriter, r *http.Request) {
		conn, err := (&websocket.Upgrader{}).Upgrade(response, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		for err == nil {
			err = conn.WriteMessage(websocket.BinaryMessage, make([]byte, 1000))
		}
	})
	dialer := websocket.Dialer{TLSClientConfig: &tls.Config{RootCAs: w.roots}}
	conn, response, err := dialer.Dial("wss://"+w.address+"/api/v1/namespaces/mail-archive/pods/a/exec?command=sh", http.Header{"Authorization": {"Bearer " + g.token}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = response.Body.Close()
	got := 0
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	for {
		_, message, err := conn.ReadMessage()
		if err != nil {
			break
		}
		got += len(message)
	}
	if got == 0 || got > 4096 {
		t.Errorf("the client got %d bytes, want some and at most 4096", got)
	}
}

func TestExpiryCutsWithoutTheAPIServer(t *testing.T) {
	w := open(t)
	g := w.grant("case-1", gen.WithDuration("1h"))
	watching(w)
	_, lines := w.watch(w.client(), g.token)
	w.hears(time.Hour)
	w.clock.Step(time.Hour - time.Minute)
	w.look("case-1") // The queue comes back at the instant; here the clock stands still.
	if rest, err := io.ReadAll(lines); !strings.Contains(string(rest), "is not open: Expired") {
		t.Errorf("the watch ended with %q, %v", rest, err)
	}
}

func TestAClockThatIsSetForwardEndsWhatIsOverThoughNoTimerGoesOff(t *testing.T) {
	w := open(t)
	g := w.grant("case-1", gen.WithDuration("30m"))
	watching(w)
	_, lines := w.watch(w.client(), g.token)
	w.hears(time.Hour)
	eventually(t, "the gateway sweeps", w.clock.HasWaiters)
	w.clock.Step(45 * time.Minute)
	if rest, err := io.ReadAll(lines); !strings.Contains(string(rest), "is not open: Expired") {
		t.Errorf("the watch ended with %q, %v", rest, err)
	}
}

func TestWhoIsTakenOffIsCutAndTheOthersStay(t *testing.T) {
	w := open(t)
	g := w.grant("case-1", gen.WithEngineers(gen.Engineer, "ben@vendor.example"))
	watching(w)
	_, lines := w.watch(w.client(), g.token)
	d := gen.Decision("off-ben", gen.Namespace, gen.RevokingEngineer("case-1", "ben@vendor.example"))
	d.CreationTimestamp = metav1.NewTime(w.clock.Now())
	if err := w.objects.Create(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	w.look("case-1")
	if n := w.gateway.connections.count(); n != 1 {
		t.Fatalf("%v connections are open: the other engineer was cut", n)
	}
	d = gen.Decision("off-ana", gen.Namespace, gen.RevokingEngineer("case-1", gen.Engineer))
	d.CreationTimestamp = metav1.NewTime(w.clock.Now())
	if err := w.objects.Create(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	w.look("case-1")
	if rest, err := io.ReadAll(lines); err == nil && len(rest) == 0 {
		t.Error("nothing was said")
	}
}

func TestACredentialThatIsReplacedLetsNobodyInAndIsCutWithTheControllerStopped(t *testing.T) {
	w := open(t)
	g := w.grant("case-1")
	other := w.grant("case-2")
	watching(w)
	_, lines := w.watch(w.client(), g.token)
	w.watch(w.client(), other.token)
	// Whoever decided needs no controller: what is asked to be replaced is void.
	decision := gen.Decision("again", gen.Namespace, gen.HandingOver("case-1", gen.Engineer), gen.WithDecisionTime(w.clock.Now()))
	if err := w.objects.Create(t.Context(), decision); err != nil {
		t.Fatal(err)
	}
	w.look("case-1")
	if last, _ := lines.ReadString('\n'); !strings.Contains(last, v1alpha1.TransitionCredentialReplaced) {
		t.Errorf("the last event is %q", last)
	}
	eventually(t, "the other grant's watch alone is open", func() bool { return w.gateway.connections.count() == 1 })
	if status, body := w.get(g.token, "/api/v1/namespaces/mail-archive/configmaps"); status != http.StatusUnauthorized {
		t.Errorf("with the replaced credential: %d %s", status, body)
	}
	w.answers(func(response http.ResponseWriter, _ *http.Request) { response.WriteHeader(http.StatusOK) })
	// The controller makes another: the old one stays void, also where the status tells of it, and the new one is let in.
	token, err := access.NewToken(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	old := g.Status.Engineers[0].CredentialHash
	change(w, gen.Record(g.SupportAccessGrant), func(r *v1alpha1.SupportAccessRecord) {
		r.Status.ReplacedCredentials = []v1alpha1.ReplacedCredential{{Name: gen.Engineer, Hash: old, DecisionTime: decision.CreationTimestamp}}
	})
	w.look("case-1")
	if status, body := w.get(g.token, "/api/v1/namespaces/mail-archive/configmaps"); status != http.StatusUnauthorized {
		t.Errorf("with the replaced credential, once it is on record: %d %s", status, body)
	}
	hash, _ := access.TokenHash(token)
	told := &v1alpha1.SupportAccessGrant{}
	if err := w.objects.Get(t.Context(), client.ObjectKeyFromObject(g.SupportAccessGrant), told); err != nil {
		t.Fatal(err)
	}
	told.Status.Engineers[0].CredentialHash = hash
	if err := w.objects.Status().Update(t.Context(), told); err != nil {
		t.Fatal(err)
	}
	w.look("case-1")
	if status, body := w.get(token, "/api/v1/namespaces/mail-archive/configmaps"); status != http.StatusOK {
		t.Errorf("with the new credential: %d %s", status, body)
	}
	session := &v1alpha1.SupportAccessSession{}
	key := client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: sessionName("replica-1", g.UID)}
	if err := w.objects.Get(t.Context(), key, session); err != nil || session.Status.Engineers[0].CredentialHash != hash {
		t.Errorf("the session says %+v, %v: want that the new credential was used", session.Status, err)
	}
}

func TestARequestThatIsOnItsWayInWhenTheGrantEndsDoesNotGetThrough(t *testing.T) {
	w := open(t)
	g := w.grant("case-1")
	w.log.hold = make(chan struct{})
	done := make(chan string, 1)
	go func() {
		code, body := w.get(g.token, configMaps)
		done <- fmt.Sprint(code, " ", body)
	}()
	eventually(t, "the request waits for the record", func() bool { return w.log.waiting() > 0 })
	w.revoke("case-1")
	close(w.log.hold)
	if got := <-done; !strings.HasPrefix(got, "403 ") {
		t.Errorf("got %s, want 403", got)
	}
	if n := len(w.forwarded()); n != 0 {
		t.Errorf("%d requests reached the API server after the end", n)
	}
}

func TestTheCutIsAcknowledgedOnceNobodyIsConnected(t *testing.T) {
	w := open(t)
	g := w.grant("case-1")
	watching(w)
	_, lines := w.watch(w.client(), g.token)
	session := &v1alpha1.SupportAccessSession{}
	key := client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: sessionName("replica-1", g.UID)}
	if err := w.objects.Get(t.Context(), key, session); err != nil || session.Status.CutTime != nil {
		t.Fatalf("before the end: %+v, %v", session.Status, err)
	}
	w.revoke("case-1")
	_, _ = io.ReadAll(lines)
	eventually(t, "the cut is acknowledged", func() bool {
		return w.objects.Get(context.Background(), key, session) == nil && session.Status.CutTime != nil
	})
	if s := session.Status; s.CutReason != v1alpha1.EndDeleted || s.CutConnections != 1 {
		t.Errorf("got %+v", s)
	}
}

func TestWhoArrivesInTheMomentOfTheEndIsAcknowledgedToo(t *testing.T) {
	w := open(t)
	g := w.grant("case-1")
	w.revoke("case-1")
	s := w.gateway.sessions
	if err := s.Arrive(t.Context(), &standing{key: client.ObjectKeyFromObject(g.SupportAccessGrant), uid: g.UID}, gen.Engineer, "sha256:00"); err != nil {
		t.Fatal(err)
	}
	if err := s.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	session := &v1alpha1.SupportAccessSession{}
	key := client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: sessionName("replica-1", g.UID)}
	if err := w.objects.Get(t.Context(), key, session); err != nil || session.Status.CutTime == nil || session.Status.CutReason != v1alpha1.EndDeleted {
		t.Errorf("got %+v, %v", session.Status, err)
	}
}

func TestAConnectionOverWhichNothingGoesIsClosedInTheEnd(t *testing.T) {
	w := open(t)
	g := w.grant("case-1")
	watching(w)
	_, lines := w.watch(w.client(), g.token)
	w.hears(2 * defaultIdle)
	w.clock.Step(defaultIdle + time.Second)
	w.gateway.connections.closeIdle()
	if rest, _ := io.ReadAll(lines); !strings.Contains(string(rest), "Idle: nothing went over this connection for 1h") {
		t.Errorf("the watch ended with %q", rest)
	}
}

func TestAnEngineerHasAsManyConnectionsAsThePolicyAllows(t *testing.T) {
	w := open(t)
	change(w, gen.Policy("default"), func(p *v1alpha1.SupportAccessPolicy) { p.Spec.Sessions = &v1alpha1.SessionLimits{MaxConnections: 2} })
	g := w.grant("case-1")
	watching(w)
	for range 2 {
		w.watch(w.client(), g.token)
	}
	response, err := w.ask(w.client(), g.token, http.MethodGet, configMaps)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusTooManyRequests {
		t.Errorf("the third got %d, want 429", response.StatusCode)
	}
}

func TestAGatewayThatStopsTellsItsClientsAndWaitsForNoStream(t *testing.T) {
	w := open(t)
	g := w.grant("case-1")
	watching(w)
	_, lines := w.watch(w.client(), g.token)
	w.stop()
	if rest, _ := io.ReadAll(lines); !strings.Contains(string(rest), "Draining") {
		t.Errorf("the watch ended with %q", rest)
	}
	select {
	case err := <-w.stopped:
		w.stopped <- err
		if err != nil {
			t.Errorf("it stopped with %v", err)
		}
	case <-time.After(patience):
		t.Error("it did not stop")
	}
	if conn, err := net.Dial("tcp", w.address); err == nil {
		_ = conn.Close()
		t.Error("it still listens")
	}
}

func TestAGatewayThatStopsAnswersWhatIsUnderWay(t *testing.T) {
	for _, protocol := range []string{"h2", "http/1.1"} {
		t.Run(protocol, func(t *testing.T) {
			w := open(t)
			g := w.grant("case-1")
			begun, goOn := make(chan struct{}), make(chan struct{})
			w.answers(func(response http.ResponseWriter, _ *http.Request) {
				close(begun)
				<-goOn
				_, _ = io.WriteString(response, "done")
			})
			answered := make(chan string, 1)
			go func() {
				response, err := w.ask(w.client(protocol), g.token, http.MethodGet, configMaps+"/imap")
				if err != nil {
					answered <- err.Error()
					return
				}
				body, err := io.ReadAll(response.Body)
				_ = response.Body.Close()
				answered <- fmt.Sprintf("%d %s %v", response.StatusCode, body, err)
			}()
			<-begun
			w.stop()
			eventually(t, "it listens no more", func() bool {
				conn, err := net.Dial("tcp", w.address)
				if err == nil {
					_ = conn.Close()
				}
				return err != nil
			})
			close(goOn)
			if got, want := <-answered, "200 done <nil>"; got != want {
				t.Errorf("the request that was under way got %q, want %q", got, want)
			}
		})
	}
}

func TestWithoutTheKindOfPoliciesNoGrantIsKnown(t *testing.T) {
	w := open(t)
	g := w.grant("case-1")
	withoutKind := interceptor.NewClient(w.objects.(client.WithWatch), interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			if _, ok := o.(*v1alpha1.SupportAccessPolicy); ok {
				return &meta.NoKindMatchError{}
			}
			return c.Get(ctx, key, o, opts...)
		},
	})
	// What a policy never allows would not be known: who begins so lets nobody in.
	grants := &Grants{Reader: withoutKind, Clock: w.clock, Cut: func(Cutting) {}}
	if err := grants.LookAtAll(t.Context()); !errors.Is(err, policies.ErrNoKind) {
		t.Errorf("looking at the grants gives %v", err)
	}
	hash, _ := access.TokenHash(g.token)
	if _, engineer, ok := grants.find(hash); ok || grants.looked.Load() {
		t.Errorf("%s is known", engineer)
	}
}

func TestFramesAreFollowedHoweverTheyAreCut(t *testing.T) {
	var sent []byte
	var ends []int
	for _, n := range []int{0, 1, 125, 126, 300, 1 << 16, 70000} {
		sent = append(sent, frame(opBinary, make([]byte, n))...)
		ends = append(ends, len(sent))
	}
	for _, step := range []int{1, 2, 3, 7, 1000, len(sent)} {
		f := &frames{}
		for from := 0; from < len(sent); from += step {
			to := min(from+step, len(sent))
			f.pass(sent[from:to])
			at := false
			for _, end := range ends {
				at = at || end == to
			}
			if f.between() != at {
				t.Fatalf("in steps of %d, after %d bytes: between is %v", step, to, f.between())
			}
		}
	}
	f := &frames{}
	f.pass([]byte{opBinary, 1, 'x'})
	if f.between() {
		t.Error("a message of which a part is missing counts as whole")
	}
	f.pass(frame(9, []byte("ping")))
	if f.between() {
		t.Error("a ping in between ends the message")
	}
	f.pass(frame(0, []byte("y")))
	if !f.between() {
		t.Error("the last part does not end the message")
	}
}

func TestNothingIsLeftAfterManyCuts(t *testing.T) {
	rounds, each := 5, 40
	if !testing.Short() {
		rounds, each = 100, 100
	}
	w := open(t)
	change(w, gen.Policy("default"), func(p *v1alpha1.SupportAccessPolicy) {
		p.Spec.Sessions = &v1alpha1.SessionLimits{MaxConnections: 1024}
	})
	g := w.grant("case-1")
	open := atomic.Int32{}
	w.answers(func(response http.ResponseWriter, r *http.Request) {
		open.Add(1)
		defer open.Add(-1)
		response.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(response, "{}\n")
		response.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	round := func() {
		var group sync.WaitGroup
		for i := range each {
			c := w.client([]string{"h2", "http/1.1"}[i%2])
			group.Go(func() {
				response, err := w.ask(c, g.token, http.MethodGet, configMaps+"?watch=1")
				if err != nil {
					return // It was cut before the head of the answer came: it was connected, as is waited for below.
				}
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
				c.CloseIdleConnections()
			})
		}
		eventually(t, "all are connected", func() bool { return int(open.Load()) == each })
		w.gateway.connections.closeAll(&end{reason: "Test", message: "cut"})
		group.Wait()
		eventually(t, "the API server has no stream left", func() bool { return open.Load() == 0 })
	}
	round() // What is made once is made now.
	before := runtime.NumGoroutine()
	for range rounds {
		round()
	}
	eventually(t, "no connection is left", func() bool { return w.gateway.connections.count() == 0 })
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before+10 })
	w.gateway.connections.mu.Lock()
	defer w.gateway.connections.mu.Unlock()
	if n := len(w.gateway.connections.open); n > each {
		t.Errorf("%d connections are still on the list", n)
	}
}
