package serve

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"supportaccess.dev/operator/internal/audit"
)

// patience bounds every wait.
const patience = 20 * time.Second

// follows has somebody follow the log. What they are told comes line by line; the channel is closed when it ends.
func (d *desk) follows(t *testing.T, token, query string) (int, chan audit.Entry) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, d.server.URL+"/v1/entries?follow=true&"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := d.server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan audit.Entry, 100)
	go func() {
		defer close(told)
		defer func() { _ = response.Body.Close() }()
		lines := bufio.NewScanner(response.Body)
		lines.Buffer(nil, audit.MaxLine)
		for lines.Scan() {
			e := audit.Entry{}
			if json.Unmarshal(lines.Bytes(), &e) == nil {
				told <- e
			}
		}
	}()
	return response.StatusCode, told
}

// happens puts something down in a namespace.
func (d *desk) happens(t *testing.T, namespace, uri string) {
	t.Helper()
	err := d.handler.Journal.(*audit.Ledger).Append(t.Context(), &audit.Entry{
		Event: auditv1.Event{RequestURI: uri, ObjectRef: &auditv1.ObjectReference{Resource: "configmaps", Namespace: namespace}}, Labels: map[string]string{audit.LabelSource: audit.Source},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// passes lets time pass until somebody who follows is told something, or that it is over.
func passes(t *testing.T, clock *clocktesting.FakeClock, told chan audit.Entry) (audit.Entry, bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		select {
		case e, more := <-told:
			return e, more
		case <-deadline.C:
			t.Fatal("nothing is told")
		default:
			clock.Step(followEvery)
			select {
			case e, more := <-told:
				return e, more
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
}

func TestWhoFollowsIsToldWhatComesInItsOrderAndNothingElse(t *testing.T) {
	d := newDesk(t)
	clock := clocktesting.NewFakeClock(time.Unix(1e9, 0))
	d.handler.Clock = clock
	code, told := d.follows(t, "shop-admin", "namespace=shop&source=Support")
	if code != http.StatusOK {
		t.Fatal(code)
	}
	d.happens(t, "mail", "/other")
	d.happens(t, "shop", "/first")
	d.happens(t, "shop", "/second")
	for _, want := range []string{"/first", "/second"} {
		if e, more := passes(t, clock, told); !more || e.RequestURI != want {
			t.Errorf("told %q, more %t, want %s", e.RequestURI, more, want)
		}
	}
	_, again := d.follows(t, "auditor", "source=Support&above=58")
	for _, want := range []int64{59, 60, 61} {
		if e, more := passes(t, clock, again); !more || e.Seq != want {
			t.Errorf("from 59 on: told %d, want %d", e.Seq, want)
		}
	}
}

// fickle knows an admin until their rights are taken away.
type fickle struct {
	guards
	gone chan struct{}
}

func (f *fickle) MayRead(ctx context.Context, who *authenticationv1.UserInfo, namespace string) (bool, error) {
	select {
	case <-f.gone:
		return false, nil
	default:
		return f.guards.MayRead(ctx, who, namespace)
	}
}

func TestWhoMayNotAnyMoreIsNotToldAnyMore(t *testing.T) {
	d := newDesk(t)
	clock, guard := clocktesting.NewFakeClock(time.Unix(1e9, 0)), &fickle{gone: make(chan struct{})}
	d.handler.Clock, d.handler.Guard = clock, guard
	_, told := d.follows(t, "shop-admin", "namespace=shop&source=Support")
	d.happens(t, "shop", "/first")
	if e, more := passes(t, clock, told); !more || e.RequestURI != "/first" {
		t.Fatalf("told %q", e.RequestURI)
	}
	close(guard.gone)
	if e, more := passes(t, clock, told); more {
		t.Errorf("told %q", e.RequestURI)
	}
}

func TestToFollowTakesTheSameRightsAndIsPutDownToo(t *testing.T) {
	d := newDesk(t)
	before := d.size(t)
	for target, want := range map[string]int{
		"/v1/entries?follow=true&namespace=mail": http.StatusForbidden, "/v1/entries?follow=maybe&namespace=shop": http.StatusBadRequest,
		"/v1/export?follow=true&namespace=shop": http.StatusBadRequest,
	} {
		if code, body := d.get(t, "shop-admin", target); code != want {
			t.Errorf("%s: %d %s, want %d", target, code, body, want)
		}
	}
	if after := d.size(t); after != before {
		t.Errorf("%d entries, and there were %d", after, before)
	}
	if code, _ := d.follows(t, "shop-admin", "namespace=shop"); code != http.StatusOK || d.size(t) != before+1 {
		t.Errorf("%d: %d entries, and there were %d", code, d.size(t), before)
	}
	for range maxFollowers {
		if code, _ := d.follows(t, "auditor", ""); code == http.StatusServiceUnavailable {
			return
		}
	}
	t.Errorf("more than %d follow", maxFollowers)
}
