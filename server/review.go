package server

import (
	"net/http"
	"net/url"

	"fairlead.dev/api"
)

// reviewed remembers the review of the change under edit: front ends make it, and show it beside the environment.
func (s *Session) reviewed(r api.ReviewRef) error {
	if err := s.keep.change(func(rec *Record) { rec.Review = &r }); err != nil {
		return err
	}
	s.note(reviewed{&r})
	return nil
}

// lastReview is what a former agent has remembered.
func (s *Session) lastReview() *api.ReviewRef { return s.keep.get().Review }

func (a *Agent) serveReview(w http.ResponseWriter, r *http.Request) {
	var ref api.ReviewRef
	if !decode(w, r, &ref) {
		return
	}
	u, err := url.Parse(ref.URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || len(ref.URL) > 2000 || len(ref.Title) > 1000 || len(ref.Branch) > 300 {
		refuse(w, &api.Problem{Code: "bad-request", Message: "the review has no address of a page, or is too long"})
		return
	}
	a.mu.Lock()
	h, err := a.find(r.PathValue("name"))
	a.mu.Unlock()
	if err == nil {
		err = h.session.reviewed(ref)
	}
	finish(w, http.StatusNoContent, err)
}
