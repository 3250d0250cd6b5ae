package server

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairlead.dev/api"
)

// A review that was made is shown beside the environment, and the next agent knows of it; what is no page's address is refused.
func TestReviewed(t *testing.T) {
	recs := Records{Dir: t.TempDir()}
	rec, err := recs.Load("orders-1")
	if err != nil {
		t.Fatal(err)
	}
	rec.Environment.Name = "orders-1"
	st := newState(api.Service{}, time.Now())
	s := &Session{keep: &keeper{recs: recs, rec: rec}, cfg: Config{note: func(step any) { st.apply(step, time.Now()) }}}
	want := api.ReviewRef{Number: 7, URL: "https://git.example.com/team/shop/pulls/7", Title: "Fix", Draft: true, Branch: "fix"}
	if err := s.reviewed(want); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(&want, st.service().Review); d != "" {
		t.Error(d)
	}
	next, err := recs.Load("orders-1")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(&want, (&Session{keep: &keeper{rec: next}}).lastReview()); d != "" {
		t.Error(d)
	}

	a, _ := fakeAgent()
	for _, body := range []string{`{"url":"javascript:alert(1)"}`, `{"url":"https://mira:token@git.example.com/x"}`, `{}`, `{"url":"https://git.example.com/` + strings.Repeat("x", 3000) + `"}`} {
		r := httptest.NewRequest("POST", "/v1/services/orders-1/review", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		a.serveReview(w, r)
		if w.Code/100 != 4 || !strings.Contains(w.Body.String(), "no address of a page") {
			t.Errorf("%.60s: %d %s", body, w.Code, w.Body)
		}
	}
}
