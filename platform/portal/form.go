package portal

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/platform/registry"
)

type formPage struct {
	Ask         ask
	Caller      registry.Service
	Callee      registry.Service
	CallerKnown bool
	CalleeKnown bool
	Names       []string // of all services, to choose from
	Hit, Other  []row
	All         bool
	Direct      bool
	Why         string
	Base        string
	Granted     []string
	Treatment   string
	Changes     []string
	Faults      []fault
}

// rowList is a list of rows with a prefix of their IDs.
type rowList struct {
	ID   string
	Rows []row
}

// List is what the template "rows" takes.
func (f formPage) List(name string) rowList {
	if name == "hit" {
		return rowList{name, f.Hit}
	}
	return rowList{name, f.Other}
}

// form draws the form that a link asks for.
func (p *Portal) form(w http.ResponseWriter, r *http.Request, s session) {
	if len(r.URL.RawQuery) > maxLink {
		p.refuse(w, r, http.StatusRequestURITooLong, &api.Problem{Code: "link-too-long", Message: "the link is too long", Hint: "ask for fewer methods at once, or for all of them"})
		return
	}
	a, err := fromLink(r.URL.Query())
	if err != nil {
		p.fail(w, r, err, http.StatusBadRequest)
		return
	}
	snap, stale := p.snapshot(r.Context())
	if snap == nil {
		p.fail(w, r, stale, http.StatusBadGateway)
		return
	}
	p.drawForm(w, r, http.StatusOK, snap, a, s, nil, nil, stale)
}

func (p *Portal) drawForm(w http.ResponseWriter, r *http.Request, status int, snap *registry.Snapshot, a ask, s session, faults []fault, changes []string, stale error) {
	d := formPage{Ask: a, Faults: faults, Changes: changes, Names: names(snap)}
	d.Caller, d.CallerKnown = serviceOf(snap, a.Caller)
	d.Callee, _ = serviceOf(snap, a.Callee)
	d.CalleeKnown, _ = snap.Grants(a.Caller, a.Callee)
	if a.Caller == "" || a.Callee == "" || a.Caller == a.Callee {
		p.draw(w, r, status, "choose", page{Title: titled("Request access", faults), User: s.user, CSRF: s.csrf, Data: d, Stale: words(stale)})
		return
	}
	grant := grantOf(snap, a.Caller, a.Callee)
	d.Granted = grant.Methods
	now := baseOf(snap, a, s.user)
	d.Direct, d.Why, d.Base = now.Direct, now.Why, now.String()
	d.Treatment = cmp.Or(a.Environments, now.Environments, shared)
	d.All = slices.Contains(a.Methods, "*")
	d.Hit, d.Other = p.rows(r.Context(), d.Callee, a, grant.Methods)
	// Each drawing has a number of its own, so that a form that comes back with faults is still one change when it is sent twice.
	d.Ask.Nonce = rand.Text()
	title := fmt.Sprintf("%s calls %s", a.Caller, a.Callee)
	p.draw(w, r, status, "form", page{Title: titled(title, faults), User: s.user, CSRF: s.csrf, Data: d, Stale: words(stale)})
}

func titled(title string, faults []fault) string {
	if len(faults) > 0 {
		return "Error: " + title
	}
	return title
}

func names(snap *registry.Snapshot) []string {
	return slices.Sorted(maps.Keys(snap.Services))
}

// submit takes the form.
func (p *Portal) submit(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		p.refuse(w, r, http.StatusRequestEntityTooLarge, &api.Problem{Code: "bad-request", Message: "the form cannot be read, or is too big", Hint: "send it with fewer methods, or ask for all of them"})
		return
	}
	a, faults := fromForm(r.PostForm)
	s, _, ok := p.session(r)
	if !ok {
		// Nothing that was typed is lost: the form is filled again after the sign-in.
		p.askWho(w, r, http.StatusUnauthorized, localPath(a.link()), "")
		return
	}
	if !equal(s.csrf, r.PostForm.Get("csrf")) {
		p.refuseForged(w, r)
		return
	}
	snap, err := p.o.Registry.Snapshot(r.Context())
	if err != nil {
		p.fail(w, r, err, http.StatusBadGateway)
		return
	}
	if len(faults) > 0 {
		p.drawForm(w, r, http.StatusUnprocessableEntity, snap, a, s, faults, nil, nil)
		return
	}
	if out, ok := p.outcome(a.request(s.user).ID); ok && len(faults) == 0 { // sent before: it says what became of it then
		see(w, r, "/requests/"+out.Request.ID)
		return
	}
	if governed, _ := snap.Grants(a.Caller, a.Callee); !governed {
		p.drawForm(w, r, http.StatusConflict, snap, a, s, nil, []string{notGoverned(a.Callee)}, nil)
		return
	}
	if changes := a.Base.changes(baseOf(snap, a, s.user), a); len(changes) > 0 {
		p.drawForm(w, r, http.StatusConflict, snap, a, s, nil, changes, nil)
		return
	}
	out, err := p.do(r.Context(), snap, a.request(s.user))
	if pr := new(api.Problem); errors.As(err, &pr) && pr.Code == "registry-changed" {
		p.drawForm(w, r, http.StatusConflict, snap, a, s, nil, []string{pr.Message + "."}, nil)
		return
	}
	if err != nil {
		p.fail(w, r, err, http.StatusBadGateway)
		return
	}
	see(w, r, "/requests/"+out.Request.ID)
}

func notGoverned(callee string) string {
	return callee + " is not in the registry, so that its calls are let through: nothing needs to be granted."
}

// outcome is a submission that was made.
type outcome struct {
	Request registry.Request
	Result  registry.Result
	Nothing bool   // it was granted before
	Untold  string // why nobody was told
}

const maxResults = 1000

// do makes the change, tells it, and keeps what became of it for the page of the result.
func (p *Portal) do(ctx context.Context, snap *registry.Snapshot, req registry.Request) (outcome, error) {
	// A reader who goes away while the registry is written leaves a whole change behind.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 25*time.Second)
	defer cancel()
	res, err := p.o.Registry.Submit(ctx, req)
	if err != nil {
		return outcome{}, err
	}
	// How environments have the callee is a part of what is granted, and no method.
	same := cmp.Or(grantOf(snap, req.Caller, req.Callee).Environments, shared) == req.Environments
	out := outcome{Request: req, Result: res, Nothing: len(res.Changed) == 0 && same && !res.Repeated}
	p.log.Info("portal: access", "id", req.ID, "caller", req.Caller, "callee", req.Callee, "by", req.Author.Email, "granted", res.Granted, "review", res.Review)
	if p.o.Changed != nil && !out.Nothing { // also where it is repeated: the first time may have been broken off before anybody was told

		var teams []registry.Team
		for _, n := range []string{req.Callee, req.Caller} {
			s, _ := serviceOf(snap, n)
			if t := snap.Teams[s.Team]; t != nil && !slices.ContainsFunc(teams, func(o registry.Team) bool { return o.Name == t.Name }) {
				teams = append(teams, *t)
			}
		}
		// The change stands whether or not somebody hears of it.
		if err := p.o.Changed(ctx, Change{Request: req, Result: res, Teams: teams, Link: p.url.String() + "/requests/" + req.ID}); err != nil {
			p.log.Error("portal: nobody is told of a change", "id", req.ID, "error", err)
			out.Untold = err.Error()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.results[req.ID]; !known {
		p.order = append(p.order, req.ID)
	}
	p.results[req.ID] = out
	for len(p.order) > maxResults {
		delete(p.results, p.order[0])
		p.order = p.order[1:]
	}
	return out, nil
}

func (p *Portal) outcome(id string) (outcome, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o, ok := p.results[id]
	return o, ok
}

type resultPage struct {
	outcome
	State   string // granted, review, nothing
	InForce bool
	Short   string // the commit's
	Link    string // of the review, where it can be followed
}

// inForce says whether the registry grants all that was asked for.
func inForce(snap *registry.Snapshot, req registry.Request) bool {
	granted := grantOf(snap, req.Caller, req.Callee).Methods
	return !slices.ContainsFunc(req.Methods, func(m string) bool { return !slices.Contains(granted, m) && !api.Granted(granted, m) })
}

func (p *Portal) result(w http.ResponseWriter, r *http.Request, s session) {
	out, ok := p.outcome(r.PathValue("id"))
	if !ok {
		p.refuse(w, r, http.StatusNotFound, &api.Problem{Code: "no-such-request", Message: "this portal does not know that request (any more)",
			Hint: "what is granted is on the services' pages; what is reviewed is where your team reviews"})
		return
	}
	snap, err := p.o.Registry.Snapshot(r.Context())
	if err != nil {
		p.fail(w, r, err, http.StatusBadGateway)
		return
	}
	d := resultPage{outcome: out, State: "review", InForce: inForce(snap, out.Request), Short: out.Result.Revision}
	title := "Sent for review"
	switch {
	case out.Result.Granted && out.Nothing:
		d.State, title = "nothing", "Granted already"
	case out.Result.Granted:
		d.State, title = "granted", "Granted"
	}
	if len(d.Short) > 10 {
		d.Short = d.Short[:10]
	}
	if strings.HasPrefix(out.Result.Review, "https://") || strings.HasPrefix(out.Result.Review, "http://") {
		d.Link = out.Result.Review
	}
	p.draw(w, r, http.StatusOK, "result", page{Title: title, User: s.user, CSRF: s.csrf, Data: d})
}
