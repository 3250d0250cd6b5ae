package portal

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/platform/registry"
)

type right int

const (
	read right = iota
	write
)

// bearer lets a program in. No cookie counts here, so that no page of a browser can use these endpoints.
func (p *Portal) bearer(need right, next func(http.ResponseWriter, *http.Request, registry.Author)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(scheme, "Bearer") {
			token = ""
		}
		var user registry.Author
		ok := false
		switch {
		case p.o.Local != nil && equal(token, p.o.Token):
			user, ok = *p.o.Local, true
		case equal(token, p.o.ReadToken):
			if need == write {
				p.refuse(w, r, http.StatusForbidden, &api.Problem{Code: "read-only", Message: "this token may only read", Hint: "ask for access as yourself, in the portal or with your own token"})
				return
			}
			ok = true
		case p.provider != nil && token != "":
			var err error
			if user, err = p.provider.identify(r.Context(), token, ""); err != nil {
				p.log.Info("portal: a token is refused", "error", err)
			} else {
				ok = true
			}
		}
		if !ok {
			w.Header().Set("WWW-Authenticate", "Bearer")
			p.refuse(w, r, http.StatusUnauthorized, &api.Problem{Code: "unauthorized", Message: "the token is missing or not valid", Hint: "send Authorization: Bearer TOKEN"})
			return
		}
		next(w, r, user)
	}
}

type endpointJSON struct {
	Method      string `json:"method"`
	Description string `json:"description,omitempty"`
}

type grantJSON struct {
	Service string `json:"service"`
	// Governed: the service is in the registry. What is not is let through.
	Governed     bool     `json:"governed"`
	Methods      []string `json:"methods"`
	Reason       string   `json:"reason,omitempty"`
	Environments string   `json:"environments"`
}

type serviceJSON struct {
	Name        string         `json:"name"`
	Team        string         `json:"team,omitempty"`
	Description string         `json:"description,omitempty"`
	Repository  string         `json:"repository,omitempty"`
	Access      string         `json:"access"`
	Endpoints   []endpointJSON `json:"endpoints,omitempty"`
	Calls       []grantJSON    `json:"calls,omitempty"`
}

type servicesJSON struct {
	Revision string         `json:"revision"`
	Services []serviceJSON  `json:"services"`
	Problems []*api.Problem `json:"problems,omitempty"`
}

type grantsJSON struct {
	Revision string      `json:"revision"`
	Caller   string      `json:"caller"`
	Grants   []grantJSON `json:"grants"`
}

type requestJSON struct {
	ID           string   `json:"id"`
	Caller       string   `json:"caller"`
	Callee       string   `json:"callee"`
	Methods      []string `json:"methods"`
	Reason       string   `json:"reason"`
	Environments string   `json:"environments"`
}

type resultJSON struct {
	requestJSON
	Granted  bool     `json:"granted"`
	InForce  bool     `json:"in_force"`
	Review   string   `json:"review,omitempty"`
	Revision string   `json:"revision"`
	Why      string   `json:"why"`
	Changed  []string `json:"changed"`
	Link     string   `json:"link"`
}

// grants are all that a caller's gate needs: an entry for each service that is governed or that it has a grant for.
func grants(snap *registry.Snapshot, caller string) grantsJSON {
	out := grantsJSON{Revision: snap.Revision, Caller: caller, Grants: []grantJSON{}}
	all := names(snap)
	for _, path := range snap.Broken() {
		// A service whose file cannot be read is governed all the same.
		if n, ok := strings.CutPrefix(strings.TrimSuffix(path, ".yaml"), "services/"); ok {
			all = append(all, n)
		}
	}
	from, _ := serviceOf(snap, caller)
	for _, g := range from.Calls {
		if !slices.Contains(all, g.Service) {
			all = append(all, g.Service)
		}
	}
	for _, n := range all {
		if n == caller {
			continue
		}
		g := grantOf(snap, caller, n)
		governed, _ := snap.Grants(caller, n)
		out.Grants = append(out.Grants, grantJSON{Service: n, Governed: governed, Methods: append([]string{}, g.Methods...), Reason: g.Reason, Environments: cmp.Or(g.Environments, shared)})
	}
	return out
}

func (p *Portal) answer(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain values
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}

func (p *Portal) apiServices(w http.ResponseWriter, r *http.Request, _ registry.Author) {
	snap, stale := p.snapshot(r.Context())
	if snap == nil {
		p.fail(w, r, stale, http.StatusBadGateway)
		return
	}
	out := servicesJSON{Revision: snap.Revision, Services: []serviceJSON{}, Problems: snap.Problems}
	for _, n := range names(snap) {
		s := snap.Services[n]
		j := serviceJSON{Name: s.Name, Team: s.Team, Description: s.Description, Repository: s.Repository, Access: string(cmp.Or(s.Access, registry.AccessOpen))}
		for _, e := range s.Endpoints {
			j.Endpoints = append(j.Endpoints, endpointJSON(e))
		}
		for _, g := range grants(snap, n).Grants {
			if len(g.Methods) > 0 {
				j.Calls = append(j.Calls, g)
			}
		}
		out.Services = append(out.Services, j)
	}
	p.answer(w, http.StatusOK, out)
}

func (p *Portal) apiGrants(w http.ResponseWriter, r *http.Request, _ registry.Author) {
	caller := r.URL.Query().Get("caller")
	if !validName(caller) {
		p.refuse(w, r, http.StatusBadRequest, &api.Problem{Code: "bad-name", Message: "say whose grants: ?caller=NAME"})
		return
	}
	stream := false
	for t := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
		if m, _, err := mime.ParseMediaType(t); err == nil && m == "text/event-stream" {
			stream = true
		}
	}
	if !stream {
		snap, stale := p.snapshot(r.Context())
		if snap == nil {
			p.fail(w, r, stale, http.StatusBadGateway)
			return
		}
		p.answer(w, http.StatusOK, grants(snap, caller))
		return
	}
	if !enter(p.streams) {
		p.busy(w, r)
		return
	}
	defer leave(p.streams)
	p.stream(w, r, caller)
}

func (p *Portal) stream(w http.ResponseWriter, r *http.Request, caller string) {
	rc := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // a proxy that collects an answer would hold it back
	last := ""
	tick := time.NewTicker(p.beat)
	defer tick.Stop()
	for {
		changed := p.whenChanged() // before the snapshot is taken, so that none is missed
		snap, err := p.snapshot(r.Context())
		if snap == nil {
			// What was granted stays so: the reader keeps what it has, and is told by the stream's end to come back.
			p.log.Warn("portal: a stream of grants ends", "caller", caller, "error", err)
			return
		}
		b, err := json.Marshal(grants(snap, caller).Grants)
		if err != nil {
			panic(err) // plain values
		}
		text := ": beat\n\n"
		if string(b) != last {
			last = string(b)
			all, err := json.Marshal(grants(snap, caller))
			if err != nil {
				panic(err) // plain values
			}
			text = fmt.Sprintf("event: grants\nid: %s\ndata: %s\n\n", snap.Revision, all)
		}
		_ = rc.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if _, err := w.Write([]byte(text)); err != nil {
			return
		}
		if rc.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-changed:
		case <-tick.C:
		}
	}
}

func (p *Portal) apiSubmit(w http.ResponseWriter, r *http.Request, user registry.Author) {
	if m, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || m != "application/json" {
		p.refuse(w, r, http.StatusUnsupportedMediaType, &api.Problem{Code: "bad-request", Message: "a request for access is application/json"})
		return
	}
	var in requestJSON
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		p.refuse(w, r, http.StatusBadRequest, &api.Problem{Code: "bad-request", Message: "the request cannot be read: " + printable(err.Error()), Hint: "platform/portal/doc.go lists its members"})
		return
	}
	// Through the form's own checks.
	a, faults := fromForm(url.Values{"caller": {in.Caller}, "callee": {in.Callee}, "method": in.Methods, "reason": {in.Reason}, "environments": {in.Environments}, "nonce": {cmp.Or(in.ID, rand.Text())}})
	if len(faults) > 0 {
		p.refuse(w, r, http.StatusUnprocessableEntity, &api.Problem{Code: "bad-request", Message: faults[0].Message, Hint: "member: " + faults[0].Field})
		return
	}
	snap, err := p.o.Registry.Snapshot(r.Context())
	if err != nil {
		p.fail(w, r, err, http.StatusBadGateway)
		return
	}
	if governed, _ := snap.Grants(a.Caller, a.Callee); !governed {
		p.refuse(w, r, http.StatusConflict, &api.Problem{Code: "not-governed", Message: notGoverned(a.Callee)})
		return
	}
	out, err := p.do(r.Context(), snap, a.request(user))
	if err != nil {
		p.fail(w, r, err, http.StatusBadGateway)
		return
	}
	w.Header().Set("Location", "/v1/requests/"+out.Request.ID)
	p.answerResult(w, r, http.StatusCreated, out)
}

func (p *Portal) apiResult(w http.ResponseWriter, r *http.Request, _ registry.Author) {
	out, ok := p.outcome(r.PathValue("id"))
	if !ok {
		p.refuse(w, r, http.StatusNotFound, &api.Problem{Code: "no-such-request", Message: "this portal does not know that request (any more)", Hint: "what is granted: GET /v1/grants"})
		return
	}
	p.answerResult(w, r, http.StatusOK, out)
}

func (p *Portal) answerResult(w http.ResponseWriter, r *http.Request, status int, out outcome) {
	snap, err := p.o.Registry.Snapshot(r.Context())
	if err != nil {
		p.fail(w, r, err, http.StatusBadGateway)
		return
	}
	q, s := out.Request, out.Result
	p.answer(w, status, resultJSON{requestJSON: requestJSON{q.ID, q.Caller, q.Callee, q.Methods, q.Reason, q.Environments},
		Granted: s.Granted, InForce: inForce(snap, q), Review: s.Review, Revision: s.Revision, Why: s.Why, Changed: append([]string{}, s.Changed...), Link: p.url.String() + "/requests/" + q.ID})
}
