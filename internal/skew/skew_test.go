package skew

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"
)

var noon = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

// server is a transport that answers with its own time after a while.
type server struct {
	ours  *clocktesting.FakePassiveClock
	ahead time.Duration
	takes time.Duration
	// says replaces what it says.
	says string
	err  error
}

func (s *server) RoundTrip(*http.Request) (*http.Response, error) {
	s.ours.SetTime(s.ours.Now().Add(s.takes))
	if s.err != nil {
		return nil, s.err
	}
	header := http.Header{"Date": []string{s.ours.Now().Add(-s.ahead).UTC().Format(http.TimeFormat)}}
	if s.says != "" {
		header.Set("Date", s.says)
	}
	return &http.Response{Header: header, Body: http.NoBody}, nil
}

// asks has the watch see one answer.
func asks(t *testing.T, w *Watch, s *server) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://cluster.example", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := w.Wrap(s).RoundTrip(request)
	if err == nil {
		err = response.Body.Close()
	}
	if !errors.Is(err, s.err) {
		t.Fatalf("the answer is %v, want %v", err, s.err)
	}
}

func TestSomebodyIsToldOnceWhenTheClocksComeApartAndOnceWhenTheyMeet(t *testing.T) {
	ours := clocktesting.NewFakePassiveClock(noon)
	s := &server{ours: ours, takes: 10 * time.Millisecond}
	var told []string
	w := &Watch{Clock: ours}
	tell := func(apart bool, by time.Duration) {
		told = append(told, fmt.Sprintf("%t %s", apart, by.Round(time.Second)))
	}
	w.Tell(tell)
	for _, ahead := range []time.Duration{0, 1500 * time.Millisecond, 2 * time.Second, 5 * time.Second, 6 * time.Second, 0, -5 * time.Second, 0} {
		s.ahead = ahead
		asks(t, w, s)
	}
	if want := []string{"true 4s", "false 0s", "true -5s", "false 0s"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	if w.By() != 0 {
		t.Errorf("the clocks are apart by %s", w.By())
	}
	// Whoever comes later is told of what is so.
	s.ahead = 5 * time.Second
	asks(t, w, s)
	told = nil
	w.Tell(tell)
	if want := []string{"true 4s"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}

func TestASlowAnswerAndOneWithoutADateSayNothing(t *testing.T) {
	ours := clocktesting.NewFakePassiveClock(noon)
	w := &Watch{Clock: ours}
	w.Tell(func(apart bool, by time.Duration) { t.Errorf("told %t %s", apart, by) })
	// The API server may have said it at any moment of the minute.
	asks(t, w, &server{ours: ours, takes: time.Minute, says: ours.Now().Add(30 * time.Second).Format(http.TimeFormat)})
	asks(t, w, &server{ours: ours, says: "yesterday"})
	asks(t, w, &server{ours: ours, err: errors.New("refused")})
}

func TestTheDifferenceIsWhatIsCertain(t *testing.T) {
	for _, c := range []struct {
		asked, answered, said, want time.Duration
	}{
		{0, 0, 0, 0},
		{999 * time.Millisecond, time.Second, 0, 0},
		{4 * time.Second, 4 * time.Second, 0, 3 * time.Second},
		{0, time.Second, 4 * time.Second, -3 * time.Second},
		{0, 10 * time.Second, 4 * time.Second, 0},
	} {
		if got := Between(noon.Add(c.asked), noon.Add(c.answered), noon.Add(c.said)); got != c.want {
			t.Errorf("asked at %s, answered at %s, said %s: %s, want %s", c.asked, c.answered, c.said, got, c.want)
		}
	}
}
