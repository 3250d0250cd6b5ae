package lease

import (
	"net/http"
	"sync"
	"time"

	"fairlead.dev/api"
)

// Clock is the API server's, as its answers tell it. Between two answers it goes on with this machine's monotonic clock,
// which no jump of the time of day changes. It is up to a second and an answer's way late, never early, so what is due by
// it is due.
type Clock struct {
	mu   sync.Mutex
	date time.Time
	at   time.Time // when it was read, with a monotonic reading
}

// Wrap reads the clock from every answer that passes. It is a rest.Config's WrapTransport.
func (c *Clock) Wrap(next http.RoundTripper) http.RoundTripper { return &reader{c, next} }

type reader struct {
	clock *Clock
	next  http.RoundTripper
}

// RoundTrip passes a request on.
func (r *reader) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := r.next.RoundTrip(req)
	if err == nil {
		if t, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
			r.clock.set(t)
		}
	}
	return resp, err
}

// WrappedRoundTripper is how client-go finds what is below.
func (r *reader) WrappedRoundTripper() http.RoundTripper { return r.next }

func (c *Clock) set(date time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.date, c.at = date, time.Now()
}

// Now is what time the API server has. It fails before there was an answer with a date.
func (c *Clock) Now() (time.Time, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.date.IsZero() {
		return time.Time{}, &api.Problem{Code: "no-server-time", Message: "the API server has not said what time it is (its answers have no Date header)",
			Hint: "is a proxy before it that drops the header? Without that time nothing is put to sleep or deleted"}
	}
	return c.date.Add(time.Since(c.at)), nil
}
